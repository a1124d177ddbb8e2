/* egressd_odd.c - egressd itself, linked with --wrap of two calls, in a world that is odd when it is told to be.
 *
 * EGRESSD_DAYS=FILE     the wall clock is ahead by so many days as the file has bytes, now
 * EGRESSD_NO_QUEUE=1    the kernel knows neither nft's queue statement nor the xt target NFQUEUE: rules ask for another name
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define DAY_S 86400

int __real_clock_gettime(clockid_t clock, struct timespec *t);
int __wrap_clock_gettime(clockid_t clock, struct timespec *t);
ssize_t __real_sendto(int fd, const void *data, size_t len, int flags, const struct sockaddr *to, socklen_t to_len);
ssize_t __wrap_sendto(int fd, const void *data, size_t len, int flags, const struct sockaddr *to, socklen_t to_len);

static int days_fd = -1;

/* Before the process confines itself. Far above the places of inherited descriptors. */
__attribute__((constructor)) static void begin(void)
{
	const char *path = getenv("EGRESSD_DAYS");
	const int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;

	if (fd < 0)
		return;
	days_fd = fcntl(fd, F_DUPFD_CLOEXEC, 200);
	close(fd);
}

int __wrap_clock_gettime(clockid_t clock, struct timespec *t)
{
	const int r = __real_clock_gettime(clock, t);
	struct stat st;

	if (r == 0 && clock == CLOCK_REALTIME && days_fd >= 0 && fstat(days_fd, &st) == 0)
		t->tv_sec += st.st_size * DAY_S;
	return r;
}

static void rename_all(uint8_t *data, size_t len, const void *name, size_t n)
{
	for (uint8_t *at = data; (at = memmem(at, len - (size_t)(at - data), name, n)); at += n)
		at[n - 2] = 'X';	/* its last letter */
}

ssize_t __wrap_sendto(int fd, const void *data, size_t len, int flags, const struct sockaddr *to, socklen_t to_len)
{
	static const uint8_t statement[] = "\x0a\0\x01\0queue";	/* attribute of 10 bytes, NFTA_EXPR_NAME; little endian */
	uint8_t *copy = getenv("EGRESSD_NO_QUEUE") ? malloc(len) : NULL;
	ssize_t r;

	if (!copy)
		return __real_sendto(fd, data, len, flags, to, to_len);
	memcpy(copy, data, len);
	rename_all(copy, len, statement, sizeof(statement));
	rename_all(copy, len, "NFQUEUE", sizeof("NFQUEUE"));
	r = __real_sendto(fd, copy, len, flags, to, to_len);
	free(copy);
	return r;
}
