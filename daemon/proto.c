/* proto.c - one struct a message over SOCK_SEQPACKET, at most one descriptor with it. */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "proto.h"

#define FD_ROOM 8	/* descriptors taken in, to close them: the kernel closes what does not fit */

union control_one {
	char buf[CMSG_SPACE(sizeof(int))];
	struct cmsghdr align;
};

union control_many {
	char buf[CMSG_SPACE(FD_ROOM * sizeof(int))];
	struct cmsghdr align;
};

int proto_send(int sock, const struct proto_msg *m, int fd)
{
	struct iovec iov = { (void *)m, sizeof(*m) };
	union control_one control = { 0 };
	struct msghdr h = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t n;

	if (fd >= 0) {
		struct cmsghdr *c;

		h.msg_control = control.buf;
		h.msg_controllen = sizeof(control.buf);
		c = CMSG_FIRSTHDR(&h);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(fd));
		memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	}
	do
		n = sendmsg(sock, &h, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0;
}

/* All descriptors that came; number of them. What is beyond `max` is closed. */
static unsigned take_fds(struct msghdr *h, int fds[], unsigned max)
{
	unsigned n = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(h); c; c = CMSG_NXTHDR(h, c)) {
		size_t bytes;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS || c->cmsg_len < CMSG_LEN(0))
			continue;
		bytes = c->cmsg_len - CMSG_LEN(0);
		for (size_t at = 0; at + sizeof(int) <= bytes; at += sizeof(int)) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + at, sizeof(fd));
			if (n < max)
				fds[n++] = fd;
			else
				close(fd);
		}
	}
	return n;
}

static bool ends(const char *text, size_t size)
{
	return memchr(text, '\0', size) != NULL;
}

static bool prefix_ok(const struct prefix *p)
{
	return p->len <= 128;
}

static bool content_ok(const struct proto_msg *m)
{
	switch ((enum proto_kind)m->kind) {
	case PROTO_UNBLOCK:
	case PROTO_ALLOW:
	case PROTO_BLOCK:
	case PROTO_OBSERVE:
		return ends(m->u.decision.id, sizeof(m->u.decision.id)) &&
		       ends(m->u.decision.author, sizeof(m->u.decision.author)) &&
		       ends(m->u.decision.reason, sizeof(m->u.decision.reason)) && prefix_ok(&m->u.decision.src) &&
		       prefix_ok(&m->u.decision.dst);
	case PROTO_REPLY:
	case PROTO_FAILED:
		return ends(m->u.reply.text, sizeof(m->u.reply.text));
	case PROTO_POLICY:
	case PROTO_CHECK:
	case PROTO_READY:
	case PROTO_ALIVE:
	case PROTO_KEEP_POLICY:
	case PROTO_RELAY_READY:
		return true;
	}
	return false;
}

/* A message of no bytes looks like the end; only at the end the other side is gone. */
static int nothing_read(int sock)
{
	struct pollfd p = { .fd = sock, .events = POLLRDHUP };

	return poll(&p, 1, 0) == 1 && p.revents & (POLLRDHUP | POLLHUP) ? 0 : -EBADMSG;
}

int proto_receive(int sock, struct proto_msg *ret, int *ret_fd, int flags)
{
	struct proto_msg m = { 0 };
	struct iovec iov = { &m, sizeof(m) };
	union control_many control;
	struct msghdr h = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.buf,
			    .msg_controllen = sizeof(control.buf) };
	int fds[FD_ROOM];
	unsigned nfds;
	ssize_t n;

	do	/* MSG_TRUNC: the true length, so that a longer message is not taken for a right one */
		n = recvmsg(sock, &h, flags | MSG_CMSG_CLOEXEC | MSG_TRUNC);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == ECONNRESET ? 0 : -errno;
	nfds = take_fds(&h, fds, FD_ROOM);
	if (n == 0 && nfds == 0)
		return nothing_read(sock);
	if (n != sizeof(m) || nfds > 1 || h.msg_flags & MSG_CTRUNC || m.magic != PROTO_MAGIC || !content_ok(&m)) {
		for (unsigned i = 0; i < nfds; i++)
			close(fds[i]);
		return -EBADMSG;
	}
	*ret = m;
	*ret_fd = nfds ? fds[0] : -1;
	return 1;
}
