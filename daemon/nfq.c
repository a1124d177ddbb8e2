/* nfq.c - NFQUEUE messages. Packets are read by hand: it is the hot path, and no length of the kernel's is trusted. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <arpa/inet.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_queue.h>
#include <libmnl/libmnl.h>
#include <libnetfilter_queue/libnetfilter_queue.h>

#include "check.h"
#include "nfq.h"

#define MSG_MAX     64		/* one verdict: 20 header, 12 verdict, 8 mark */
#define CONFIG_MAX  128		/* one configuration message with all attributes */
#define REPLY_MS    2000	/* the kernel answers before send() returns; this only guards against a lost answer */
#define DROP_RUN    3		/* drops in a row from which a batch verdict costs fewer messages than one each */
#define PACKET_TYPE ((NFNL_SUBSYS_QUEUE << 8) | NFQNL_MSG_PACKET)

#define NLA_HEAD    sizeof(struct nlattr)
#define PACKET_HEAD (sizeof(struct nlmsghdr) + sizeof(struct nfgenmsg))

/* ---- reading ---- */

static uint16_t get16(const uint8_t *p)
{
	uint16_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static uint32_t get32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static int get_be32(const uint8_t *p, size_t len, uint32_t *ret)
{
	if (unlikely(len != sizeof(uint32_t)))
		return -EBADMSG;
	*ret = ntohl(get32(p));
	return 0;
}

static int get_packet_head(const uint8_t *p, size_t len, struct nfq_msg *m)
{
	if (unlikely(len != sizeof(struct nfqnl_msg_packet_hdr)))
		return -EBADMSG;
	m->id = ntohl(get32(p + offsetof(struct nfqnl_msg_packet_hdr, packet_id)));
	m->hw_protocol = ntohs(get16(p + offsetof(struct nfqnl_msg_packet_hdr, hw_protocol)));
	m->hook = p[offsetof(struct nfqnl_msg_packet_hdr, hook)];
	return 0;
}

static int get_attr(unsigned type, const uint8_t *p, size_t len, struct nfq_msg *m, uint32_t *cap_len)
{
	switch (type) {
	case NFQA_PACKET_HDR:
		return get_packet_head(p, len, m);
	case NFQA_MARK:
		return get_be32(p, len, &m->mark);
	case NFQA_IFINDEX_INDEV:
		return get_be32(p, len, &m->indev);
	case NFQA_IFINDEX_OUTDEV:
		return get_be32(p, len, &m->outdev);
	case NFQA_CAP_LEN:
		return get_be32(p, len, cap_len);
	case NFQA_PAYLOAD:
		m->data = p;
		m->caplen = (uint32_t)len;
		return 0;
	default:
		return 0;	/* kernels add attributes */
	}
}

static int check_head(const uint8_t *p, size_t len, size_t *ret_len)
{
	uint32_t total;
	uint16_t type;

	if (len < sizeof(struct nlmsghdr))
		return -EBADMSG;
	total = get32(p + offsetof(struct nlmsghdr, nlmsg_len));
	type = get16(p + offsetof(struct nlmsghdr, nlmsg_type));
	if (total < sizeof(struct nlmsghdr) || total > len)
		return -EBADMSG;
	if (type < NLMSG_MIN_TYPE)
		return -ENOMSG;
	if (type != PACKET_TYPE || total < PACKET_HEAD)
		return -EBADMSG;
	*ret_len = total;
	return 0;
}

int nfq_parse(const void *buf, size_t len, struct nfq_msg *ret)
{
	const uint8_t *p = buf;
	bool have_id = false;
	uint32_t cap_len = 0;
	size_t end, at = PACKET_HEAD;
	int r = check_head(p, len, &end);

	if (unlikely(r < 0))
		return r;
	*ret = (struct nfq_msg){ .queue = ntohs(get16(p + sizeof(struct nlmsghdr) + offsetof(struct nfgenmsg, res_id))) };
	while (at < end && end - at >= NLA_HEAD) {
		size_t alen = get16(p + at);
		unsigned type = get16(p + at + 2) & NLA_TYPE_MASK;

		if (unlikely(alen < NLA_HEAD || alen > end - at))
			return -EBADMSG;
		r = get_attr(type, p + at + NLA_HEAD, alen - NLA_HEAD, ret, &cap_len);
		if (unlikely(r < 0))
			return r;
		have_id |= type == NFQA_PACKET_HDR;
		at += NLA_ALIGN(alen);
	}
	if (unlikely(!have_id))
		return -EBADMSG;
	/* The larger one: a length that is too small would be a way around the accounting. */
	ret->len = MAX_OF(cap_len, ret->caplen);
	return 0;
}

/* ---- socket ---- */

int nfq_socket(uint32_t rcvbuf)
{
	struct sockaddr_nl self = { .nl_family = AF_NETLINK };
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);
	int size = (int)MIN_OF(rcvbuf, (uint32_t)INT_MAX / 2), on = 1;

	if (fd < 0)
		return -errno;
	if (bind(fd, (struct sockaddr *)&self, sizeof(self)) < 0)
		goto fail;
	/* Beyond rmem_max needs the capability; without it the system's limit holds, which is not a reason to stop. */
	if (size > 0 && setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)) < 0 &&
	    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size)) < 0)
		goto fail;
	/* Error answers without the request in them: they share the buffer with packets. Since 4.3; no loss without. */
	(void)setsockopt(fd, SOL_NETLINK, NETLINK_CAP_ACK, &on, sizeof(on));
	return fd;
fail:
	on = errno;
	close(fd);
	return -on;
}

static int send_all(int fd, const void *buf, size_t len)
{
	ssize_t n;

	do
		n = send(fd, buf, len, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0;
}

/* ---- configuration ---- */

/* What stands first in the socket, not taken off. Length or -errno. */
static ssize_t peek(int fd, void *buf, size_t size)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	ssize_t n;

	if (poll(&p, 1, REPLY_MS) == 0)
		return -ETIMEDOUT;
	n = recv(fd, buf, size, MSG_PEEK | MSG_DONTWAIT);
	return n < 0 ? -errno : n;
}

/* The kernel's answer to request `seq`: *ret_error is 0 or its -errno. When a packet stands before it: 1, and it stays there. */
static int await_reply(int fd, uint32_t seq, int *ret_error)
{
	uint8_t buf[PACKET_HEAD + sizeof(struct nlmsgerr) + 512];

	for (unsigned tries = 0; tries < 1024; tries++) {
		ssize_t n = peek(fd, buf, sizeof(buf));
		bool match;

		if (n == -ENOBUFS || n == -EINTR || n == -EAGAIN)
			continue;
		if (n < 0)
			return (int)n;
		if ((size_t)n >= sizeof(struct nlmsghdr) &&
		    get16(buf + offsetof(struct nlmsghdr, nlmsg_type)) == PACKET_TYPE)
			return 1;
		match = (size_t)n >= sizeof(struct nlmsghdr) + sizeof(int) &&
			get16(buf + offsetof(struct nlmsghdr, nlmsg_type)) == NLMSG_ERROR &&
			get32(buf + offsetof(struct nlmsghdr, nlmsg_seq)) == seq;
		if (match)
			*ret_error = (int)get32(buf + sizeof(struct nlmsghdr));
		(void)recv(fd, buf, 0, MSG_DONTWAIT);	/* an answer to something earlier, or this one */
		if (match)
			return 0;
	}
	return -EBADMSG;
}

struct config {
	bool bind;
	uint32_t range, maxlen;	/* 0: not set */
	uint32_t mask, flags;	/* NFQA_CFG_F_*; mask 0: not set */
};

static int send_config(int fd, uint16_t num, const struct config *c, uint32_t seq, uint16_t nl_flags)
{
	char buf[CONFIG_MAX] __attribute__((aligned(NLMSG_ALIGNTO)));
	struct nlmsghdr *nlh = nfq_nlmsg_put(buf, NFQNL_MSG_CONFIG, num);

	nlh->nlmsg_flags |= nl_flags;
	nlh->nlmsg_seq = seq;
	if (c->bind)
		nfq_nlmsg_cfg_put_cmd(nlh, AF_UNSPEC, NFQNL_CFG_CMD_BIND);
	if (c->range)
		nfq_nlmsg_cfg_put_params(nlh, NFQNL_COPY_PACKET, (int)c->range);
	if (c->maxlen)
		nfq_nlmsg_cfg_put_qmaxlen(nlh, c->maxlen);
	if (c->mask) {
		mnl_attr_put_u32(nlh, NFQA_CFG_FLAGS, htonl(c->flags));
		mnl_attr_put_u32(nlh, NFQA_CFG_MASK, htonl(c->mask));
	}
	return send_all(fd, buf, nlh->nlmsg_len);
}

static const struct {
	uint32_t ours, kernels;
} flag_map[] = {
	{ NFQ_GSO, NFQA_CFG_F_GSO },
	{ NFQ_FAIL_OPEN, NFQA_CFG_F_FAIL_OPEN },
	{ NFQ_UID_GID, NFQA_CFG_F_UID_GID },
};

/* Which of the wanted flags this kernel knows [N1]. It says "not supported" before it looks at whose queue it is, so a socket
 * that holds nothing can ask: there no packet stands between question and answer [N6], and nothing is changed. */
static int probe_flags(uint16_t num, uint32_t want, uint32_t *ret_ours, uint32_t *ret_kernels)
{
	uint32_t ours = 0, kernels = 0;
	int r = 0, fd = nfq_socket(0);

	if (fd < 0)
		return fd;
	for (size_t i = 0; i < ARRAY_SIZE(flag_map); i++) {
		struct config c = { .mask = flag_map[i].kernels, .flags = flag_map[i].kernels };
		int error = 0;

		if (!(want & flag_map[i].ours))
			continue;
		r = send_config(fd, num, &c, (uint32_t)i + 1, NLM_F_ACK);
		if (r == 0)
			r = await_reply(fd, (uint32_t)i + 1, &error);
		if (r < 0)
			break;
		if (error == -EOPNOTSUPP || error == -EINVAL)
			continue;
		ours |= flag_map[i].ours;
		kernels |= flag_map[i].kernels;
	}
	close(fd);
	if (r < 0)
		return r;
	*ret_ours = ours;
	*ret_kernels = kernels;
	return 0;
}

/* Binds with everything set at once: between bind and copy mode a packet would be dropped. 1: it may have been bound before,
 * and the settings have to be sent again. */
static int bind_queue(int fd, uint16_t num, struct config c)
{
	int error = 0, r;
	uint32_t seq = 0x65670000u + num;

	c.bind = true;
	r = send_config(fd, num, &c, seq, NLM_F_ACK);
	if (r == 0)
		r = await_reply(fd, seq, &error);
	/* Only the holder gets packets: whatever the answer behind them says, the queue is ours. */
	if (r != 0)
		return r;
	return error == -EBUSY ? 1 : error;
}

int nfq_setup(int fd, uint16_t num, uint32_t range, uint32_t maxlen, uint32_t want_flags, struct nfq_info *ret)
{
	struct sockaddr_nl self;
	socklen_t len = sizeof(self);
	struct nfq_info info = { 0 };
	struct config c = { .range = range, .maxlen = maxlen };
	int r;

	if (range == 0 || range > UINT16_MAX - NFQ_OVERHEAD)
		return -EINVAL;	/* 0 means everything to the kernel */
	if (getsockname(fd, (struct sockaddr *)&self, &len) < 0)
		return -errno;
	info.portid = self.nl_pid;
	r = probe_flags(num, want_flags, &info.flags, &c.flags);
	if (r < 0)
		return r;
	for (size_t i = 0; i < ARRAY_SIZE(flag_map); i++)
		if (c.flags & flag_map[i].kernels || !(want_flags & flag_map[i].ours))
			c.mask |= flag_map[i].kernels;
	r = bind_queue(fd, num, c);
	/* Without an acknowledgement: it could stand behind packets, and each part is known to be supported. */
	if (r == 1)
		r = send_config(fd, num, &c, 0, 0);
	if (r < 0)
		return r;
	*ret = info;
	return 0;
}

/* ---- /proc ---- */

struct proc_queue {
	uint32_t portid;
	uint64_t queue_dropped, user_dropped;
};

/* queue, portid, waiting, copy mode, copy range, queue dropped, user dropped, id, 1 */
static int read_proc(uint16_t num, struct proc_queue *ret)
{
	FILE *f = fopen(NFQ_PROC_FILE, "re");
	char line[256];
	int r = -ENOENT;

	if (!f)
		return -errno;
	while (r == -ENOENT && fgets(line, sizeof(line), f)) {
		unsigned queue, portid;
		unsigned long long full, user;

		if (sscanf(line, "%u %u %*u %*u %*u %llu %llu", &queue, &portid, &full, &user) == 4 && queue == num) {
			*ret = (struct proc_queue){ portid, full, user };
			r = 0;
		}
	}
	fclose(f);
	return r;
}

uint32_t nfq_holder(uint16_t num)
{
	struct proc_queue q;

	return read_proc(num, &q) == 0 ? q.portid : 0;
}

int nfq_drops(uint16_t num, uint64_t *ret_queue, uint64_t *ret_user)
{
	struct proc_queue q;
	int r = read_proc(num, &q);

	if (r < 0)
		return r;
	*ret_queue = q.queue_dropped;
	*ret_user = q.user_dropped;
	return 0;
}

/* ---- batches ---- */

int nfq_receive(int fd, uint8_t *slot, size_t slot_stride, size_t slot_len, unsigned n, unsigned ret_len[],
		int timeout_ms)
{
	struct mmsghdr msg[NFQ_BATCH];
	struct iovec iov[NFQ_BATCH];
	struct pollfd p = { .fd = fd, .events = POLLIN };
	int got;

	n = MIN_OF(n, (unsigned)NFQ_BATCH);
	for (unsigned i = 0; i < n; i++) {
		iov[i] = (struct iovec){ slot + i * slot_stride, slot_len };
		msg[i].msg_hdr = (struct msghdr){ .msg_iov = &iov[i], .msg_iovlen = 1 };
	}
	/* Under load something waits already: no poll() then. */
	got = recvmmsg(fd, msg, n, MSG_DONTWAIT, NULL);
	if (got < 0 && errno == EAGAIN) {
		got = poll(&p, 1, timeout_ms);
		if (got == 0)
			return 0;
		if (got > 0)
			got = recvmmsg(fd, msg, n, MSG_DONTWAIT, NULL);
	}
	if (got < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	for (int i = 0; i < got; i++)
		ret_len[i] = msg[i].msg_len;
	return got;
}

/* ---- answers ---- */

struct out {
	size_t len;
	char buf[NFQ_BATCH * MSG_MAX] __attribute__((aligned(NLMSG_ALIGNTO)));
};

static void put_verdict(struct out *o, uint16_t num, int type, const struct nfq_verdict *v, uint32_t mask, uint32_t judged)
{
	static const int kernels[] = { [NFQ_ACCEPT] = NF_ACCEPT, [NFQ_DROP] = NF_DROP, [NFQ_REPEAT] = NF_REPEAT };
	struct nlmsghdr *nlh;

	BUG_ON(v->answer >= ARRAY_SIZE(kernels) || o->len + MSG_MAX > sizeof(o->buf));
	nlh = nfq_nlmsg_put(o->buf + o->len, type, num);
	/* The id's bits go through an int unchanged [N3]. */
	nfq_nlmsg_verdict_put(nlh, (int)v->id, kernels[v->answer]);
	if (v->answer == NFQ_ACCEPT)
		nfq_nlmsg_verdict_put_mark(nlh, (v->mark & ~mask) | judged);
	o->len += NLMSG_ALIGN(nlh->nlmsg_len);
}

/* How many drops stand in a row from v[i]; 0 when it is none. */
static unsigned drop_run(const struct nfq_verdict *v, unsigned n, unsigned i)
{
	unsigned from = i;

	while (i < n && v[i].answer == NFQ_DROP)
		i++;
	return i - from;
}

/* Answered singly, before any batch verdict could catch it; the others are marked for the batches. */
static void put_singles(struct out *o, uint16_t num, const struct nfq_verdict *v, unsigned n, bool batched[])
{
	for (unsigned i = 0; i < n;) {
		unsigned drops = drop_run(v, n, i), end = i + MAX_OF(drops, 1u);
		bool single = drops ? drops < DROP_RUN : v[i].answer == NFQ_REPEAT;

		for (; i < end; i++) {
			batched[i] = !single;
			if (single)
				put_verdict(o, num, NFQNL_MSG_VERDICT, &v[i], 0, 0);	/* neither kind sets a mark */
		}
	}
}

static bool same_run(const struct nfq_verdict *a, const struct nfq_verdict *b)
{
	return a->answer == b->answer && (a->answer == NFQ_DROP || a->mark == b->mark);
}

/* A batch verdict answers every id up to its own that is still there, as the kernel compares them: (int)(id - own) <= 0, in
 * the order they were queued. So runs go out in the order received, each by its last id, and a wrap is nothing special. */
static void put_batches(struct out *o, uint16_t num, const struct nfq_verdict *v, unsigned n, const bool batched[],
			uint32_t mask, uint32_t judged)
{
	const struct nfq_verdict *last = NULL;

	for (unsigned i = 0; i < n; i++) {
		if (!batched[i])
			continue;
		if (last && !same_run(last, &v[i]))
			put_verdict(o, num, NFQNL_MSG_VERDICT_BATCH, last, mask, judged);
		last = &v[i];
	}
	if (last)
		put_verdict(o, num, NFQNL_MSG_VERDICT_BATCH, last, mask, judged);
}

int nfq_answer(int fd, uint16_t num, const struct nfq_verdict *v, unsigned n, uint32_t mask, uint32_t judged)
{
	bool batched[NFQ_BATCH];
	struct out o;

	BUG_ON(n > NFQ_BATCH);
	if (n == 0)
		return 0;
	o.len = 0;
	put_singles(&o, num, v, n, batched);
	put_batches(&o, num, v, n, batched, mask, judged);
	return send_all(fd, o.buf, o.len);
}

int nfq_answer_each(int fd, uint16_t num, const struct nfq_verdict *v, unsigned n, uint32_t mask, uint32_t judged)
{
	struct out o;

	BUG_ON(n > NFQ_BATCH);
	if (n == 0)
		return 0;
	o.len = 0;
	for (unsigned i = 0; i < n; i++)
		put_verdict(&o, num, NFQNL_MSG_VERDICT, &v[i], mask, judged);
	return send_all(fd, o.buf, o.len);
}

int nfq_answer_single(int fd, uint16_t num, const struct nfq_verdict *v, uint32_t mask, uint32_t judged)
{
	return nfq_answer_each(fd, num, v, 1, mask, judged);
}
