/* rules_tool.c - daemon/rules.h by hand, for tests/live/rules.sh: holds the sockets, reads commands from stdin, answers each
 * with its lines and a last line "done" or "error TEXT".
 *
 *	apply [inside=P,..] [exit=P,..] [protect=P,..] [dev=D,..] [mask=N] [queue=N] [queues=N] [ct] [closed]
 *	block|unblock pair|host reject|drop SRC DST|- [SECONDS [PROTOCOL LO HI inside|outside]]
 *	counters  blocks  unseen  present  remove
 *	many N				one transaction of N pair blocks
 *	flow SRC N			refuses UDP to port 9000 of 2001:db8:9::9, IPv6, of N sources beginning with that
 *	older				leaves chains as older versions did, with a rule in each
 *	judge QUEUE [repeat]		a child answers the queue: JUDGED; `repeat` first sends each packet back once
 *	nojudge				ends it
 */
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <libmnl/libmnl.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_queue.h>

#include "nft_object.h"
#include "nft_rule.h"
#include "rules_internal.h"

#define LIST_MAX   4096
#define DEVICE_MAX 64

struct tool {
	struct rules *rules;
	int owner, keep;
	uint32_t mask;
	pid_t judge;
};

/* ---- the judge ---- */

static struct nlmsghdr *queue_msg(char *buf, uint16_t type, uint16_t queue)
{
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);
	struct nfgenmsg *nfg;

	nlh->nlmsg_type = (uint16_t)(NFNL_SUBSYS_QUEUE << 8 | type);
	nlh->nlmsg_flags = NLM_F_REQUEST;
	nfg = mnl_nlmsg_put_extra_header(nlh, sizeof(*nfg));
	nfg->nfgen_family = AF_UNSPEC;
	nfg->version = NFNETLINK_V0;
	nfg->res_id = htons(queue);
	return nlh;
}

static int packet_attr(const struct nlattr *a, void *data)
{
	const struct nlattr **at = data;

	if (mnl_attr_get_type(a) <= NFQA_MAX)
		at[mnl_attr_get_type(a)] = a;
	return MNL_CB_OK;
}

static void answer(struct mnl_socket *nl, const struct nlmsghdr *packet, uint16_t queue, uint32_t mask, bool repeat)
{
	static char buf[1024];
	const struct nlattr *at[NFQA_MAX + 1] = { 0 };
	const uint32_t once = 1u << 30, judged = mask & (mask - 1);
	struct nfqnl_msg_verdict_hdr v = { .verdict = htonl(NF_ACCEPT) };
	struct nlmsghdr *nlh = queue_msg(buf, NFQNL_MSG_VERDICT, queue);
	uint32_t mark;

	(void)mnl_attr_parse(packet, sizeof(struct nfgenmsg), packet_attr, at);
	if (!at[NFQA_PACKET_HDR])
		return;
	v.id = ((const struct nfqnl_msg_packet_hdr *)mnl_attr_get_payload(at[NFQA_PACKET_HDR]))->packet_id;
	mark = at[NFQA_MARK] ? ntohl(mnl_attr_get_u32(at[NFQA_MARK])) : 0;
	if (repeat && !(mark & once)) {
		v.verdict = htonl(NF_REPEAT);
		mark |= once;
	} else {
		mark = (mark & ~mask & ~once) | judged;
	}
	mnl_attr_put(nlh, NFQA_VERDICT_HDR, sizeof(v), &v);
	mnl_attr_put_u32(nlh, NFQA_MARK, htonl(mark));
	if (mnl_socket_sendto(nl, nlh, nlh->nlmsg_len) < 0)
		perror("verdict");
}

static void judge_bind(struct mnl_socket *nl, char *buf, uint16_t queue)
{
	const struct nfqnl_msg_config_params params = { .copy_range = htonl(64), .copy_mode = NFQNL_COPY_PACKET };
	const struct nfqnl_msg_config_cmd bind_cmd = { .command = NFQNL_CFG_CMD_BIND };
	struct nlmsghdr *nlh = queue_msg(buf, NFQNL_MSG_CONFIG, queue);

	mnl_attr_put(nlh, NFQA_CFG_CMD, sizeof(bind_cmd), &bind_cmd);
	(void)mnl_socket_sendto(nl, nlh, nlh->nlmsg_len);
	nlh = queue_msg(buf, NFQNL_MSG_CONFIG, queue);
	mnl_attr_put(nlh, NFQA_CFG_PARAMS, sizeof(params), &params);
	mnl_attr_put_u32(nlh, NFQA_CFG_QUEUE_MAXLEN, htonl(65536));
	mnl_attr_put_u32(nlh, NFQA_CFG_FLAGS, htonl(NFQA_CFG_F_GSO));
	mnl_attr_put_u32(nlh, NFQA_CFG_MASK, htonl(NFQA_CFG_F_GSO));
	(void)mnl_socket_sendto(nl, nlh, nlh->nlmsg_len);
}

static void judge(uint16_t queue, uint32_t mask, bool repeat, int ready)
{
	static char buf[1 << 17];
	struct mnl_socket *nl = mnl_socket_open(NETLINK_NETFILTER);
	int size = 16 << 20, one = 1;
	ssize_t n;

	if (!nl || mnl_socket_bind(nl, 0, MNL_SOCKET_AUTOPID) < 0)
		_exit(1);
	(void)setsockopt(mnl_socket_get_fd(nl), SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size));
	(void)mnl_socket_setsockopt(nl, NETLINK_NO_ENOBUFS, &one, sizeof(one));
	judge_bind(nl, buf, queue);
	if (write(ready, "", 1) != 1)
		_exit(1);
	while ((n = mnl_socket_recvfrom(nl, buf, sizeof(buf))) >= 0 || errno == ENOBUFS) {
		int left = (int)n;

		for (struct nlmsghdr *p = (void *)buf; n > 0 && mnl_nlmsg_ok(p, left); p = mnl_nlmsg_next(p, &left))
			if (p->nlmsg_type == (NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_PACKET))
				answer(nl, p, queue, mask, repeat);
	}
	_exit(1);
}

static void nojudge(struct tool *t)
{
	if (t->judge > 0) {
		kill(t->judge, SIGKILL);
		waitpid(t->judge, NULL, 0);
	}
	t->judge = 0;
}

static int start_judge(struct tool *t, uint16_t queue, bool repeat)
{
	int ready[2];
	ssize_t n;
	char c;

	nojudge(t);
	if (pipe(ready) < 0)
		return -errno;
	fflush(stdout);
	t->judge = fork();
	if (t->judge < 0)
		return -errno;
	if (t->judge == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(t->owner);	/* the table goes with the last descriptor of its socket */
		close(t->keep);
		judge(queue, t->mask, repeat, ready[1]);
	}
	close(ready[1]);
	n = read(ready[0], &c, 1);
	close(ready[0]);
	return n == 1 ? 0 : -EIO;
}

/* ---- rules ---- */

static size_t list(char *text, struct prefix *p)
{
	size_t n = 0;

	for (char *one; (one = strsep(&text, ",")) && n < LIST_MAX;) {
		if (prefix_parse(one, &p[n]) < 0)
			printf("bad prefix %s\n", one);
		else
			n++;
	}
	return n;
}

struct lists {
	struct prefix inside[LIST_MAX], exit_host[LIST_MAX], protect[LIST_MAX];
	char device[DEVICE_MAX][16];
};

static void apply_word(char *word, struct lists *l, struct rules_spec *s)
{
	char *value = strchr(word, '=');

	value = value ? value + 1 : word;
	if (!strncmp(word, "inside=", 7))
		s->ninside = list(value, l->inside);
	else if (!strncmp(word, "exit=", 5))
		s->nexit_host = list(value, l->exit_host);
	else if (!strncmp(word, "protect=", 8))
		s->nprotect = list(value, l->protect);
	else if (!strncmp(word, "dev=", 4))
		for (char *d; (d = strsep(&value, ",")) && s->ndevices < DEVICE_MAX;)
			snprintf(l->device[s->ndevices++], sizeof(l->device[0]), "%s", d);
	else if (!strncmp(word, "mask=", 5))
		s->mark_mask = (uint32_t)strtoul(value, NULL, 0);
	else if (!strncmp(word, "queue=", 6))
		s->queue_first = (uint16_t)strtoul(value, NULL, 0);
	else if (!strncmp(word, "queues=", 7))
		s->queue_count = (uint16_t)strtoul(value, NULL, 0);
	else if (!strcmp(word, "ct"))
		s->needs_ct = true;
	else if (!strcmp(word, "closed"))
		s->failure_closed = true;
}

static int apply(struct tool *t, char *args)
{
	static struct lists l;
	struct rules_spec s = { .mark_mask = 0x300, .queue_count = 1, .inside = l.inside, .exit_host = l.exit_host,
				.protect = l.protect, .device = (const char(*)[16])l.device };
	enum rules_flavour flavour = 0;
	const char *what = "";
	int r;

	memset(&l, 0, sizeof(l));
	for (char *word; (word = strsep(&args, " "));)
		apply_word(word, &l, &s);
	t->mask = s.mark_mask;
	r = rules_apply(t->rules, &s, &flavour, &what);
	if (r < 0)
		printf("step %s\n", what);
	else
		printf("flavour %s\n", flavour == RULES_NATIVE_QUEUE ? "native" : "xt");
	return r;
}

static int block(struct tool *t, char *args, bool add)
{
	struct rules_block b = { 0 };
	char *kind = strsep(&args, " "), *how = strsep(&args, " "), *src = strsep(&args, " "), *dst = strsep(&args, " ");

	if (!dst || addr_parse(src, &b.src) < 0)
		return -EINVAL;
	b.kind = strcmp(kind, "host") ? RULES_BLOCK_PAIR : RULES_BLOCK_HOST;
	b.reject = !strcmp(how, "reject");
	if (b.kind == RULES_BLOCK_PAIR && prefix_parse(dst, &b.dst) == -EINVAL)	/* -ERANGE: masked, as wanted */
		return -EINVAL;
	if (args)
		b.timeout_ms = strtoull(args, &args, 10) * 1000;
	if (args && *args) {
		b.kind += RULES_BLOCK_PAIR_SERVICE;
		b.service.proto = b.service.proto_hi = (uint8_t)strtoul(args, &args, 10);
		b.service.lo = (uint16_t)strtoul(args, &args, 10);
		b.service.hi = (uint16_t)strtoul(args, &args, 10);
		b.service.by_outside = !strcmp(args, " outside");
	}
	return add ? rules_block_add(t->rules, &b, 1) : rules_block_del(t->rules, &b, 1);
}

static int many(struct tool *t, size_t n)
{
	struct rules_block *b = calloc(n + 1, sizeof(*b));
	int r;

	if (!b)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		const uint8_t src[4] = { 10, 99, (uint8_t)(i >> 8), (uint8_t)i }, dst[4] = { 203, 0, 113, 99 };

		b[i] = (struct rules_block){ .kind = RULES_BLOCK_PAIR, .reject = 1, .src = addr_from_v4(src),
					     .dst = { addr_from_v4(dst), 128 }, .timeout_ms = 600000 };
	}
	r = rules_block_add(t->rules, b, n);
	free(b);
	return r;
}

static int flows(struct tool *t, char *args)
{
	static struct rules_flow f[4096];
	const char *src = strsep(&args, " ");
	struct rules_flow one = { .sport = 40000, .dport = 9000, .proto = 17 };
	const size_t n = strtoul(args ? args : "", NULL, 10);

	if (n > ARRAY_SIZE(f) || addr_parse(src, &one.src) < 0 || addr_parse("2001:db8:9::9", &one.dst) < 0)
		return -EINVAL;
	for (size_t i = 0; i < n; i++) {
		f[i] = one;
		one.src = rules_addr_next(&one.src);
	}
	return rules_flow_add(t->rules, f, n);
}

static int print_block(void *ctx, const struct rules_block *b, uint64_t packets, uint64_t bytes)
{
	char src[ADDR_STRLEN], dst[PREFIX_STRLEN];
	const bool host = b->kind == RULES_BLOCK_HOST || b->kind == RULES_BLOCK_HOST_SERVICE;

	(void)ctx;
	printf("%s %s %s %s packets %" PRIu64 " bytes %" PRIu64 " left %" PRIu64, host ? "host" : "pair",
	       b->reject ? "reject" : "drop", addr_format(&b->src, src), host ? "-" : prefix_format(&b->dst, dst),
	       packets, bytes, b->timeout_ms / 1000);
	if (b->kind >= RULES_BLOCK_PAIR_SERVICE)
		printf(" %u/%u-%u %s", b->service.proto, b->service.lo, b->service.hi, b->service.by_outside ? "outside" : "inside");
	putchar('\n');
	return 0;
}

static int print_unseen(void *ctx, const struct addr *s, const struct addr *d, uint64_t packets, uint64_t bytes)
{
	char src[ADDR_STRLEN], dst[ADDR_STRLEN];

	(void)ctx;
	printf("%s %s packets %" PRIu64 " bytes %" PRIu64 "\n", addr_format(s, src), addr_format(d, dst), packets, bytes);
	return 0;
}

static int counters(struct tool *t)
{
	struct rules_counters c;
	const int r = rules_counters(t->rules, &c);

	if (r == 0)
		printf("egress %" PRIu64 " %" PRIu64 " unseen %" PRIu64 " %" PRIu64 "\n", c.egress_packets, c.egress_bytes,
		       c.unseen_packets, c.unseen_bytes);
	return r;
}

static int present(struct tool *t)
{
	const int r = rules_present(t->rules);

	if (r >= 0)
		printf("present %d\n", r);
	return r < 0 ? r : 0;
}

static int older(struct tool *t)
{
	static const struct { const char *table, *chain; int32_t priority; } had[] = {
		{ TABLE, "lease", -160 }, { TABLE_KEEP, "entry", -165 }, { TABLE_KEEP, "pass", 0 },
	};
	struct nft_batch b;
	const char *what;

	nft_batch_begin(&b, &t->rules->owner);
	for (size_t i = 0; i < ARRAY_SIZE(had); i++) {
		struct nft_rule rule = nft_rule(had[i].table, had[i].chain);

		if (had[i].priority)
			nft_base_chain_add(&b, had[i].table, had[i].chain, NF_INET_POST_ROUTING, had[i].priority, "older: chain");
		else
			nft_chain_add(&b, had[i].table, had[i].chain, "older: chain");
		nft_verdict(&rule, NF_ACCEPT, NULL);
		nft_rule_add(&rule, &b, "older: rule");
	}
	return nft_batch_commit(&b, &what);
}

static int command(struct tool *t, char *line)
{
	char *args = line, *verb = strsep(&args, " ");

	if (!strcmp(verb, "apply"))
		return apply(t, args);
	if (!strcmp(verb, "block") || !strcmp(verb, "unblock"))
		return block(t, args, *verb == 'b');
	if (!strcmp(verb, "many"))
		return many(t, strtoul(args ? args : "", NULL, 10));
	if (!strcmp(verb, "flow"))
		return flows(t, args);
	if (!strcmp(verb, "counters"))
		return counters(t);
	if (!strcmp(verb, "blocks"))
		return rules_block_dump(t->rules, print_block, t);
	if (!strcmp(verb, "unseen"))
		return rules_unseen_dump(t->rules, print_unseen, t);
	if (!strcmp(verb, "present"))
		return present(t);
	if (!strcmp(verb, "remove"))
		return rules_remove(t->rules);
	if (!strcmp(verb, "older"))
		return older(t);
	if (!strcmp(verb, "judge"))
		return start_judge(t, (uint16_t)strtoul(args ? args : "", NULL, 10), args && strstr(args, "repeat"));
	if (!strcmp(verb, "nojudge"))
		return nojudge(t), 0;
	return -EINVAL;
}

int main(void)
{
	struct tool t = {
		.owner = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER),
		.keep = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER),
		.mask = 0x300,
	};
	char *line = NULL;
	size_t cap = 0;
	ssize_t n;
	int r;

	r = rules_open(t.owner, t.keep, &t.rules);
	if (r < 0) {
		printf("error %s\n", strerror(-r));
		return 1;
	}
	while ((n = getline(&line, &cap, stdin)) > 0) {
		if (line[n - 1] == '\n')
			line[n - 1] = 0;
		r = command(&t, line);
		if (r < 0)
			printf("error %s\n", strerror(-r));
		else
			printf("done\n");
		fflush(stdout);
	}
	nojudge(&t);
	free(line);
	rules_close(t.rules);
	return 0;
}
