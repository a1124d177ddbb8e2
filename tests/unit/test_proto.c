/* test_proto.c - messages between the processes: whole ones arrive, others are refused, no descriptor is left behind. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <string.h>
#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto.h"

static int pair[2];
static unsigned open_before;

static unsigned open_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	assert_non_null(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static int setup(void **state)
{
	(void)state;
	open_before = open_fds();
	return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair);
}

static int teardown(void **state)
{
	(void)state;
	close(pair[0]);
	close(pair[1]);
	assert_int_equal(open_fds(), open_before);
	return 0;
}

static int receive(struct proto_msg *m, int *fd)
{
	return proto_receive(pair[1], m, fd, MSG_DONTWAIT);
}

static struct proto_msg alive(void)
{
	return (struct proto_msg){ .magic = PROTO_MAGIC, .kind = PROTO_ALIVE, .token = 0x1122334455667788 };
}

static void whole(void **state)
{
	struct proto_msg m = { .magic = PROTO_MAGIC, .kind = PROTO_ALLOW, .token = 7 }, got;
	int fd = 99;

	(void)state;
	memcpy(m.u.decision.id, "abc", 4);
	m.u.decision.budget = 5000000000;
	m.u.decision.src.len = 128;
	assert_int_equal(proto_send(pair[0], &m, -1), 0);
	assert_int_equal(receive(&got, &fd), 1);
	assert_int_equal(fd, -1);
	assert_memory_equal(&got, &m, sizeof(m));
	assert_int_equal(receive(&got, &fd), -EAGAIN);
}

static void with_descriptor(void **state)
{
	struct proto_msg m = alive(), got;
	int file = memfd_create("test", MFD_CLOEXEC), fd = -1;
	struct stat a, b;

	(void)state;
	assert_true(file >= 0);
	m.kind = PROTO_POLICY;
	assert_int_equal(proto_send(pair[0], &m, file), 0);
	assert_int_equal(receive(&got, &fd), 1);
	assert_true(fd >= 0 && fd != file);
	assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
	assert_int_equal(fstat(file, &a) | fstat(fd, &b), 0);
	assert_int_equal(a.st_ino, b.st_ino);
	close(file);
	close(fd);
}

/* Any bytes with any number of descriptors. */
static void send_raw(const void *data, size_t len, unsigned nfds)
{
	union {
		char buf[CMSG_SPACE(32 * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov = { (void *)data, len };
	struct msghdr h = { .msg_iov = &iov, .msg_iovlen = 1 };
	int file = open("/dev/null", O_RDONLY | O_CLOEXEC);

	assert_true(file >= 0 && nfds <= 32);
	if (nfds) {
		struct cmsghdr *c;

		memset(&control, 0, sizeof(control));
		h.msg_control = control.buf;
		h.msg_controllen = CMSG_SPACE(nfds * sizeof(int));
		c = CMSG_FIRSTHDR(&h);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(nfds * sizeof(int));
		for (unsigned i = 0; i < nfds; i++)
			memcpy(CMSG_DATA(c) + i * sizeof(int), &file, sizeof(int));
	}
	assert_int_equal(sendmsg(pair[0], &h, 0), (ssize_t)len);
	close(file);
}

static void refused(const void *data, size_t len, unsigned nfds)
{
	struct proto_msg got, untouched;
	int fd = 77;

	memset(&got, 0x5a, sizeof(got));
	untouched = got;
	send_raw(data, len, nfds);
	assert_int_equal(receive(&got, &fd), -EBADMSG);
	assert_int_equal(fd, 77);
	assert_memory_equal(&got, &untouched, sizeof(got));
	assert_int_equal(open_fds(), open_before + 2);
}

static void wrong_size(void **state)
{
	struct proto_msg m[2] = { alive(), alive() };

	(void)state;
	for (size_t len = 0; len < sizeof(m); len++)
		if (len != sizeof(m[0]))
			refused(m, len, len % 3);
}

static void wrong_content(void **state)
{
	struct proto_msg m = alive();

	(void)state;
	m.magic++;
	refused(&m, sizeof(m), 1);
	m = alive();
	for (unsigned kind = 0; kind < 0x10000; kind++) {
		if (kind >= PROTO_POLICY && kind <= PROTO_FAILED)
			continue;
		m.kind = (uint16_t)kind;
		refused(&m, sizeof(m), 0);
	}
	m = alive();
	m.kind = PROTO_BLOCK;
	memset(m.u.decision.reason, 'x', sizeof(m.u.decision.reason));
	refused(&m, sizeof(m), 0);	/* text without an end */
	m.u.decision.reason[119] = '\0';
	m.u.decision.dst.len = 129;
	refused(&m, sizeof(m), 0);
	m = alive();
	m.kind = PROTO_REPLY;
	memset(m.u.reply.text, 'x', sizeof(m.u.reply.text));
	refused(&m, sizeof(m), 0);
}

static void many_descriptors(void **state)
{
	struct proto_msg m = alive();

	(void)state;
	for (unsigned n = 2; n <= 32; n++)
		refused(&m, sizeof(m), n);
}

static void closed_peer(void **state)
{
	struct proto_msg m = alive(), got;
	int fd = 77;

	(void)state;
	assert_int_equal(proto_send(pair[0], &m, -1), 0);
	close(pair[0]);
	pair[0] = -1;
	assert_int_equal(receive(&got, &fd), 1);	/* what was sent before still arrives */
	fd = 77;
	assert_int_equal(receive(&got, &fd), 0);
	assert_int_equal(receive(&got, &fd), 0);
	assert_int_equal(fd, 77);
	assert_int_equal(proto_send(pair[1], &m, -1), -EPIPE);	/* and no signal */
}

static void empty_is_not_closed(void **state)
{
	struct proto_msg m = alive(), got;
	int fd;

	(void)state;
	refused("", 0, 0);
	assert_int_equal(proto_send(pair[0], &m, -1), 0);
	assert_int_equal(receive(&got, &fd), 1);
}

static void full_peer(void **state)
{
	struct proto_msg m = alive();
	int r;

	(void)state;
	assert_int_equal(fcntl(pair[0], F_SETFL, O_NONBLOCK), 0);
	for (unsigned i = 0; (r = proto_send(pair[0], &m, -1)) == 0; i++)
		assert_true(i < 100000);
	assert_int_equal(r, -EAGAIN);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(whole, setup, teardown),
		cmocka_unit_test_setup_teardown(with_descriptor, setup, teardown),
		cmocka_unit_test_setup_teardown(wrong_size, setup, teardown),
		cmocka_unit_test_setup_teardown(wrong_content, setup, teardown),
		cmocka_unit_test_setup_teardown(many_descriptors, setup, teardown),
		cmocka_unit_test_setup_teardown(closed_peer, setup, teardown),
		cmocka_unit_test_setup_teardown(empty_is_not_closed, setup, teardown),
		cmocka_unit_test_setup_teardown(full_peer, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
