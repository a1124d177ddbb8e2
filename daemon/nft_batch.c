/* nft_batch.c - see nft_batch.h. The kernel works a request off inside sendto(), so every answer is there when it returns
 * (a dump's next part when recv() returns): nothing here waits. */
#include "nft_batch.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>

#include <libmnl/libmnl.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>

#define ANSWER_LEN 65536
#define RCVBUF	   (4 << 20)	/* acks of the largest batch, at about 1 KiB each */

int nft_sock_init(struct nft_sock *s, int fd)
{
	struct sockaddr_nl sa = { .nl_family = AF_NETLINK };
	socklen_t len = sizeof(sa);
	int one = 1, size = RCVBUF;

	*s = (struct nft_sock){ .fd = fd };
	if (getsockname(fd, (struct sockaddr *)&sa, &len) < 0)
		return -errno;
	if (sa.nl_family != AF_NETLINK)
		return -ENOTSOCK;
	if (!sa.nl_pid) {
		sa = (struct sockaddr_nl){ .nl_family = AF_NETLINK };
		len = sizeof(sa);
		if (bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 ||
		    getsockname(fd, (struct sockaddr *)&sa, &len) < 0)
			return -errno;
	}
	s->portid = sa.nl_pid;
	/* Both only save room: errors without the request in them, a buffer above the administrator's maximum. */
	(void)setsockopt(fd, SOL_NETLINK, NETLINK_CAP_ACK, &one, sizeof(one));
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size));
	/* A random start: numbers of a killed engine's requests must not meet ours [B5]. */
	if (getrandom(&s->seq, sizeof(s->seq), 0) != sizeof(s->seq))
		return -EIO;
	s->buf = malloc(ANSWER_LEN);
	return s->buf ? 0 : -ENOMEM;
}

void nft_sock_done(struct nft_sock *s)
{
	free(s->buf);
	s->buf = NULL;
}

static int sock_send(const struct nft_sock *s, const void *buf, size_t len)
{
	const struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };
	int size = len > 1 << 29 ? 1 << 30 : (int)len * 2;
	ssize_t n;

	if (len > 65536)	/* a message is one allocation, limited by the send buffer */
		(void)setsockopt(s->fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size));
	do
		n = sendto(s->fd, buf, len, 0, (const struct sockaddr *)&kernel, sizeof(kernel));
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	return (size_t)n == len ? 0 : -EIO;
}

/* Length of the next answer in s->buf; -EPROTO when there is none though one is due. */
static int sock_receive(const struct nft_sock *s)
{
	struct sockaddr_nl from = { 0 };
	struct iovec iov = { .iov_base = s->buf, .iov_len = ANSWER_LEN };
	struct msghdr m = { .msg_name = &from, .msg_namelen = sizeof(from), .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t n;

	do {
		n = recvmsg(s->fd, &m, MSG_DONTWAIT);
	} while ((n < 0 && errno == EINTR) || (n >= 0 && from.nl_pid));	/* others than the kernel may send, too */
	if (n < 0)
		return errno == EAGAIN ? -EPROTO : -errno;
	return m.msg_flags & MSG_TRUNC ? -EMSGSIZE : (int)n;
}

static int answer_error(const struct nlmsghdr *nlh)
{
	const struct nlmsgerr *e = mnl_nlmsg_get_payload(nlh);

	return mnl_nlmsg_get_payload_len(nlh) < sizeof(int) ? -EBADMSG : e->error;
}

struct nlmsghdr *nft_query_msg(struct nft_sock *s, char *buf, uint16_t type, uint16_t flags)
{
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);
	struct nfgenmsg *nfg;

	nlh->nlmsg_type = (uint16_t)(NFNL_SUBSYS_NFTABLES << 8 | type);
	nlh->nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags);
	nlh->nlmsg_seq = ++s->seq;
	nfg = mnl_nlmsg_put_extra_header(nlh, sizeof(*nfg));
	nfg->nfgen_family = NFPROTO_INET;
	nfg->version = NFNETLINK_V0;
	nfg->res_id = 0;
	return nlh;
}

int nft_query_run(struct nft_sock *s, const struct nlmsghdr *nlh, int (*each)(const struct nlmsghdr *nlh, void *ctx),
		  void *ctx)
{
	int r = sock_send(s, nlh, nlh->nlmsg_len), n, disturbed = 0;
	int failed = 0;

	while (r == 0) {
		n = sock_receive(s);
		if (n < 0)
			return n;
		for (const struct nlmsghdr *a = (void *)s->buf; mnl_nlmsg_ok(a, n); a = mnl_nlmsg_next(a, &n)) {
			if (a->nlmsg_seq != nlh->nlmsg_seq)
				continue;
			if (a->nlmsg_flags & NLM_F_DUMP_INTR)
				disturbed = 1;
			if (a->nlmsg_type == NLMSG_ERROR) {
				r = answer_error(a);
				return r ? r : failed;
			}
			if (a->nlmsg_type == NLMSG_DONE)
				return disturbed ? -EINTR : failed;
			if (!failed && each)
				failed = each(a, ctx);
			failed = failed > 0 ? 0 : failed;
		}
	}
	return r;
}

void nft_batch_fail(struct nft_batch *b, int error)
{
	if (!b->error)
		b->error = error;
}

static void batch_mark(struct nft_batch *b, uint16_t type)
{
	struct nlmsghdr *nlh = (void *)(b->buf + b->len);
	struct nfgenmsg *nfg;

	nlh = mnl_nlmsg_put_header(nlh);
	nlh->nlmsg_type = type;
	nlh->nlmsg_flags = NLM_F_REQUEST;
	nlh->nlmsg_seq = b->first_seq + (type == NFNL_MSG_BATCH_BEGIN ? 0 : b->nmsg + 1);
	nfg = mnl_nlmsg_put_extra_header(nlh, sizeof(*nfg));
	nfg->nfgen_family = AF_UNSPEC;
	nfg->version = NFNETLINK_V0;
	nfg->res_id = htons(NFNL_SUBSYS_NFTABLES);
	b->len += nlh->nlmsg_len;
}

/* Room for one more message and for the end mark. */
static int batch_grow(struct nft_batch *b)
{
	const size_t need = b->len + NFT_BATCH_ROOM + 64;

	if (need > b->cap) {
		char *buf = realloc(b->buf, need * 2);

		if (!buf)
			return -ENOMEM;
		b->buf = buf;
		b->cap = need * 2;
	}
	if (b->nmsg == b->cap_msg) {
		const uint32_t cap = b->cap_msg ? b->cap_msg * 2 : 128;
		const char **what = realloc(b->what, cap * sizeof(*what));

		if (!what)
			return -ENOMEM;
		b->what = what;
		b->cap_msg = cap;
	}
	return 0;
}

void nft_batch_begin(struct nft_batch *b, struct nft_sock *s)
{
	*b = (struct nft_batch){ .sock = s, .first_seq = ++s->seq };
	b->error = batch_grow(b);
	if (!b->error)
		batch_mark(b, NFNL_MSG_BATCH_BEGIN);
}

struct nlmsghdr *nft_batch_msg(struct nft_batch *b, uint16_t type, uint16_t flags, const char *what)
{
	struct nlmsghdr *nlh;

	if (!b->error)
		b->error = batch_grow(b);
	if (b->error)
		return NULL;
	b->last = b->len;
	nlh = nft_query_msg(b->sock, b->buf + b->len, type, flags);
	b->what[b->nmsg++] = what;
	return nlh;
}

void nft_batch_msg_end(struct nft_batch *b, const struct nlmsghdr *nlh)
{
	if (!nlh)
		return;
	b->len += nlh->nlmsg_len;
}

void nft_batch_drop(struct nft_batch *b)
{
	free(b->buf);
	free(b->what);
	*b = (struct nft_batch){ 0 };
}

/* The first failure in the order of the messages is the cause; what follows it may be a consequence. */
static int batch_acks(const struct nft_batch *b, const char **ret_what)
{
	uint32_t worst = UINT32_MAX, i;
	bool acked = false;
	int error = 0, n;

	while (!acked) {
		n = sock_receive(b->sock);
		if (n < 0) {
			if (!error)
				*ret_what = "answers of the kernel";
			return error ? error : n;
		}
		for (const struct nlmsghdr *a = (void *)b->sock->buf; mnl_nlmsg_ok(a, n); a = mnl_nlmsg_next(a, &n)) {
			i = a->nlmsg_seq - b->first_seq;
			if (i > b->nmsg + 1 || a->nlmsg_type != NLMSG_ERROR)
				continue;
			acked = acked || i == b->nmsg;
			if (!answer_error(a) || i >= worst)
				continue;
			worst = i;
			error = answer_error(a);
			*ret_what = i >= 1 && i <= b->nmsg ? b->what[i - 1] : "commit";
		}
	}
	return error;
}

static int batch_run(struct nft_batch *b, const char **ret_what)
{
	int r = b->error;

	*ret_what = "memory for the transaction";
	if (!r && b->nmsg) {
		*ret_what = "sending the transaction";
		((struct nlmsghdr *)(void *)(b->buf + b->last))->nlmsg_flags |= NLM_F_ACK;
		r = sock_send(b->sock, b->buf, b->len);
		if (!r)
			r = batch_acks(b, ret_what);
	}
	nft_batch_drop(b);
	return r;
}

int nft_batch_commit(struct nft_batch *b, const char **ret_what)
{
	if (!b->error) {
		batch_mark(b, NFNL_MSG_BATCH_END);
		++b->sock->seq;
	}
	return batch_run(b, ret_what);
}

/* Without its end mark a batch is checked in full and then undone. */
int nft_batch_try(struct nft_batch *b, const char **ret_what)
{
	return batch_run(b, ret_what);
}
