/* fuzz_proto.c - a message of any bytes and up to three descriptors to proto_receive(): it is whole or refused, texts end,
 * prefixes are in range, and no descriptor stays open. The first byte says how many ride along.
 */
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "check.h"
#include "proto.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void send_raw(int sock, const uint8_t *data, size_t size, unsigned nfds)
{
	union {
		char buf[CMSG_SPACE(3 * sizeof(int))];
		struct cmsghdr align;
	} control = { 0 };
	struct iovec iov = { (void *)data, size };
	struct msghdr h = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (nfds) {
		struct cmsghdr *c;

		h.msg_control = control.buf;
		h.msg_controllen = CMSG_SPACE(nfds * sizeof(int));
		c = CMSG_FIRSTHDR(&h);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(nfds * sizeof(int));
		for (unsigned i = 0; i < nfds; i++)
			memcpy(CMSG_DATA(c) + i * sizeof(int), &sock, sizeof(int));
	}
	BUG_ON(sendmsg(sock, &h, MSG_NOSIGNAL) != (ssize_t)size);
}

static int lowest_free(void)
{
	int fd = dup(STDERR_FILENO);

	BUG_ON(fd < 0);
	close(fd);
	return fd;
}

static void look_at(const struct proto_msg *m)
{
	BUG_ON(m->magic != PROTO_MAGIC || m->kind < PROTO_POLICY || m->kind > PROTO_FAILED);
	if (m->kind >= PROTO_UNBLOCK && m->kind <= PROTO_OBSERVE) {
		BUG_ON(!memchr(m->u.decision.id, '\0', sizeof(m->u.decision.id)));
		BUG_ON(!memchr(m->u.decision.author, '\0', sizeof(m->u.decision.author)));
		BUG_ON(!memchr(m->u.decision.reason, '\0', sizeof(m->u.decision.reason)));
		BUG_ON(m->u.decision.src.len > 128 || m->u.decision.dst.len > 128);
	}
	if (m->kind == PROTO_REPLY || m->kind == PROTO_FAILED)
		BUG_ON(!memchr(m->u.reply.text, '\0', sizeof(m->u.reply.text)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct proto_msg m;
	int pair[2], fd = -2, r, free_before;

	if (size == 0)
		return 0;
	BUG_ON(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0);
	free_before = lowest_free();
	send_raw(pair[0], data + 1, size - 1, data[0] & 3);
	r = proto_receive(pair[1], &m, &fd, MSG_DONTWAIT);
	BUG_ON(r != 1 && r != -EBADMSG);
	if (r == 1) {
		look_at(&m);
		BUG_ON((data[0] & 3) > 1 || (fd >= 0) != ((data[0] & 3) == 1));
		if (fd >= 0)
			close(fd);
	} else {
		BUG_ON(fd != -2);
	}
	BUG_ON(lowest_free() != free_before);	/* what stayed open would have this number */
	close(pair[0]);
	close(pair[1]);
	return 0;
}
