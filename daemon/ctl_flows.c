/* ctl_flows.c - open addressing, linear probing, never more than half full. See ctl_flows.h. */
#include "ctl_flows.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/random.h>

#include "hash.h"

#define FLOWS_FIRST 4096

enum tcp_flag { TCP_FIN = 0x01, TCP_SYN = 0x02, TCP_RST = 0x04, TCP_ACK = 0x10 };

struct flow_key {		/* the lower end first, so that both directions are one flow */
	struct addr a, b;
	uint16_t aport, bport;
};

struct flow {
	struct flow_key key;
	uint8_t used;
	uint8_t opened_by_a;
	uint8_t closed;
};

struct flows {
	struct hash_key hash;
	struct flow *flow;
	size_t mask, count;
};

struct flows *flows_new(void)
{
	struct flows *f = calloc(1, sizeof(*f));

	if (!f)
		return NULL;
	f->mask = FLOWS_FIRST - 1;
	f->flow = calloc(FLOWS_FIRST, sizeof(*f->flow));
	if (!f->flow || getrandom(&f->hash, sizeof(f->hash), 0) != (ssize_t)sizeof(f->hash))
		return flows_free(f);
	return f;
}

struct flows *flows_free(struct flows *f)
{
	if (f)
		free(f->flow);
	free(f);
	return NULL;
}

/* The flow's place, or the free one where it would stand. */
static struct flow *find(const struct flows *f, const struct flow_key *key)
{
	size_t i = hash_bytes(&f->hash, key, sizeof(*key)) & f->mask;

	while (f->flow[i].used && memcmp(&f->flow[i].key, key, sizeof(*key)) != 0)
		i = (i + 1) & f->mask;
	return &f->flow[i];
}

static int grow(struct flows *f)
{
	struct flows bigger = { .hash = f->hash, .mask = f->mask * 2 + 1, .count = f->count };

	bigger.flow = calloc(bigger.mask + 1, sizeof(*bigger.flow));
	if (!bigger.flow)
		return -ENOMEM;
	for (size_t i = 0; i <= f->mask; i++)
		if (f->flow[i].used)
			*find(&bigger, &f->flow[i].key) = f->flow[i];
	free(f->flow);
	*f = bigger;
	return 0;
}

/* true: the sender is end a. */
static bool make_key(const struct packet *p, struct flow_key *ret)
{
	int order = addr_cmp(&p->src, &p->dst);

	if (order < 0 || (!order && p->sport < p->dport)) {
		*ret = (struct flow_key){ p->src, p->dst, p->sport, p->dport };
		return true;
	}
	*ret = (struct flow_key){ p->dst, p->src, p->dport, p->sport };
	return false;
}

int flows_see(struct flows *f, const struct packet *p, enum flow_opener *ret)
{
	bool from_a, syn = p->tcp_flags & TCP_SYN, answer = p->tcp_flags & TCP_ACK;
	struct flow_key key;
	struct flow *w;
	int r;

	if (p->proto != IPPROTO_TCP || p->notes & PACKET_NO_PORTS) {
		*ret = FLOW_UNKNOWN;
		return 0;
	}
	from_a = make_key(p, &key);
	w = find(f, &key);
	if (syn && (!w->used || (w->closed && !answer))) {
		if (!w->used && f->count >= f->mask / 2) {
			r = grow(f);
			if (r < 0)
				return r;
			w = find(f, &key);
		}
		f->count += !w->used;
		*w = (struct flow){ .key = key, .used = 1, .opened_by_a = from_a != answer };
	}
	if (w->used && p->tcp_flags & (TCP_FIN | TCP_RST))
		w->closed = 1;
	*ret = !w->used ? FLOW_UNKNOWN : w->opened_by_a == from_a ? FLOW_BY_SENDER : FLOW_BY_RECEIVER;
	return 0;
}
