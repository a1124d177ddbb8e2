/* egressd_odd.c - egressd itself, linked with --wrap of some calls, in a world that is odd when it is told to be.
 *
 * EGRESSD_DAYS=FILE     the wall clock is ahead by so many days as the file has bytes, now
 * EGRESSD_MUTE=FILE     nobody says that a lease is used up, by the bits of the file's size: 1 the workers, 2 the kernel, 4 the second's look;
 *                       nor, 8, that packets have waited for a recall long enough
 * EGRESSD_NO_QUEUE=1    the kernel knows neither nft's queue statement nor the xt target NFQUEUE: rules ask for another name
 * EGRESSD_NO_QUOTA=1    it has no quota objects: theirs have a type nobody knows
 * EGRESSD_OLD_SETS=1    as before 5.7 it passes over the expression of a set's elements: that attribute has a number nobody knows
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <libmnl/libmnl.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>

#include "engine.h"
#include "rules_lease.h"

#define DAY_S	86400
#define UNKNOWN 0x3f00	/* attribute, type of object */

int __real_clock_gettime(clockid_t clock, struct timespec *t);
int __wrap_clock_gettime(clockid_t clock, struct timespec *t);
ssize_t __real_sendto(int fd, const void *data, size_t len, int flags, const struct sockaddr *to, socklen_t to_len);
ssize_t __wrap_sendto(int fd, const void *data, size_t len, int flags, const struct sockaddr *to, socklen_t to_len);

bool __real_leases_note(struct engine_worker *w, const struct judge_packet *v);
bool __wrap_leases_note(struct engine_worker *w, const struct judge_packet *v);
bool __real_leases_second(struct engine *e);
bool __wrap_leases_second(struct engine *e);
void __real_held_review(struct engine_worker *w, struct mono now);
void __wrap_held_review(struct engine_worker *w, struct mono now);
size_t __real_rules_lease_depleted(struct rules *r, struct rules_lease *ret, size_t n);
size_t __wrap_rules_lease_depleted(struct rules *r, struct rules_lease *ret, size_t n);

enum { MUTE_WORKERS = 1, MUTE_KERNEL = 2, MUTE_SECOND = 4, MUTE_HELD = 8 };

static int days_fd = -1, mute_fd = -1;

/* Far above the places of inherited descriptors. */
static int open_named_by(const char *variable)
{
	const char *path = getenv(variable);
	const int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	int high;

	if (fd < 0)
		return -1;
	high = fcntl(fd, F_DUPFD_CLOEXEC, 200);
	close(fd);
	return high;
}

/* Before the process confines itself. */
__attribute__((constructor)) static void begin(void)
{
	days_fd = open_named_by("EGRESSD_DAYS");
	mute_fd = open_named_by("EGRESSD_MUTE");
}

static off_t size_of(int fd)
{
	struct stat st;

	return fd >= 0 && fstat(fd, &st) == 0 ? st.st_size : 0;
}

int __wrap_clock_gettime(clockid_t clock, struct timespec *t)
{
	const int r = __real_clock_gettime(clock, t);

	if (r == 0 && clock == CLOCK_REALTIME)
		t->tv_sec += size_of(days_fd) * DAY_S;
	return r;
}

bool __wrap_leases_note(struct engine_worker *w, const struct judge_packet *v)
{
	return (v->hold || !(size_of(mute_fd) & MUTE_WORKERS)) && __real_leases_note(w, v);
}

size_t __wrap_rules_lease_depleted(struct rules *r, struct rules_lease *ret, size_t n)
{
	n = __real_rules_lease_depleted(r, ret, n);	/* told or not, it is taken */
	return size_of(mute_fd) & MUTE_KERNEL ? 0 : n;
}

bool __wrap_leases_second(struct engine *e)
{
	return size_of(mute_fd) & MUTE_SECOND ? false : __real_leases_second(e);
}

void __wrap_held_review(struct engine_worker *w, struct mono now)
{
	if (!(size_of(mute_fd) & MUTE_HELD))
		__real_held_review(w, now);
}

static void rename_all(uint8_t *data, size_t len, const void *name, size_t n)
{
	for (uint8_t *at = data; (at = memmem(at, len - (size_t)(at - data), name, n)); at += n)
		at[n - 2] = 'X';	/* its last letter */
}

static bool asked(const char *what)
{
	return getenv(what) != NULL;
}

static void forget_queue(uint8_t *data, size_t len)
{
	static const uint8_t statement[] = "\x0a\0\x01\0queue";	/* attribute of 10 bytes, NFTA_EXPR_NAME; little endian */

	rename_all(data, len, statement, sizeof(statement));
	rename_all(data, len, "NFQUEUE", sizeof("NFQUEUE"));
}

static void forget_quota(struct nlattr *a)
{
	if (mnl_attr_get_type(a) == NFTA_OBJ_TYPE && mnl_attr_get_u32(a) == htonl(NFT_OBJECT_QUOTA))
		*(uint32_t *)mnl_attr_get_payload(a) = htonl(UNKNOWN);
}

static void forget_expression(struct nlattr *a)
{
	if (mnl_attr_get_type(a) == NFTA_SET_EXPR)
		a->nla_type = UNKNOWN;
}

/* In nf_tables' messages of one kind. */
static void each_attribute(uint8_t *data, int len, unsigned type, void (*forget)(struct nlattr *a))
{
	for (struct nlmsghdr *n = (void *)data; mnl_nlmsg_ok(n, len); n = mnl_nlmsg_next(n, &len)) {
		struct nlattr *a;

		if (n->nlmsg_type != (NFNL_SUBSYS_NFTABLES << 8 | type))
			continue;
		mnl_attr_for_each(a, n, sizeof(struct nfgenmsg))
			forget(a);
	}
}

ssize_t __wrap_sendto(int fd, const void *data, size_t len, int flags, const struct sockaddr *to, socklen_t to_len)
{
	const bool no_queue = asked("EGRESSD_NO_QUEUE"), no_quota = asked("EGRESSD_NO_QUOTA"), old_sets = asked("EGRESSD_OLD_SETS");
	uint8_t *copy = no_queue || no_quota || old_sets ? malloc(len) : NULL;
	ssize_t r;

	if (!copy)
		return __real_sendto(fd, data, len, flags, to, to_len);
	memcpy(copy, data, len);
	if (no_queue)
		forget_queue(copy, len);
	if (no_quota)
		each_attribute(copy, (int)len, NFT_MSG_NEWOBJ, forget_quota);
	if (old_sets)
		each_attribute(copy, (int)len, NFT_MSG_NEWSET, forget_expression);
	r = __real_sendto(fd, copy, len, flags, to, to_len);
	free(copy);
	return r;
}
