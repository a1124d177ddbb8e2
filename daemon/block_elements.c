/* block_elements.c - see block_elements.h for the contract. */
#include "block_elements.h"

#include <string.h>

#include "judge.h"

int block_element_order(const struct rules_block *a, const struct rules_block *b)
{
	const int by_src = addr_cmp(&a->src, &b->src), by_dst = addr_cmp(&a->dst.addr, &b->dst.addr);

	if (a->kind != b->kind)
		return a->kind < b->kind ? -1 : 1;
	if (by_src || by_dst)
		return by_src ? by_src : by_dst;
	return memcmp(&a->service, &b->service, sizeof(a->service));
}

/* Of one account at most BLOCK_SHARE, and always the same ones, whether they stand just now or not: the rest of a block is the
 * queue's, refused there all the same. */
static void add_element(struct block_list *l, uint32_t account, const struct rules_block *b, bool stands)
{
	if (l->share++ >= BLOCK_SHARE || !stands || l->n == BLOCK_BATCH)
		return;
	l->account[l->n] = account;
	l->item[l->n++] = *b;
}

static struct prefix out_prefix(const struct account_key *k)
{
	struct prefix p = { .len = k->out_family == 4 ? 128 : 64 };

	if (k->out_family == 4)
		p.addr = addr_from_v4(k->out);
	else
		memcpy(p.addr.b, k->out, sizeof(k->out));
	return p;
}

/* Addresses of an account's inside part: one, or all of a named host. */
static size_t inside_addresses(const struct policy *p, const uint8_t in[16], struct addr *to, size_t max)
{
	uint32_t uid;
	size_t n = 0;

	if (!policy_in_is_uid(in, &uid)) {
		to[0] = addr_from_v6(in);
		return 1;
	}
	for (uint32_t i = 0; i < p->h->nhost_addrs && n < max; i++)
		if (p->host[p->host_addr[i].host].uid == uid)
			to[n++] = p->host_addr[i].addr;
	return n;
}

/* An `allow` in force for some of what the element would stop. */
static bool allowed(const struct area *a, const struct addr *src, const struct prefix *dst, struct mono now)
{
	for (unsigned i = 0; i < AREA_DYNAMIC; i++) {
		const struct area_dynamic *d = &a->h->dynamic[i];

		if (d->kind == DYNAMIC_ALLOW && prefix_contains(&d->src, src) &&
		    (d->dst.len == 0 || dst->len == 0 || prefix_contains(dst, &d->dst.addr) ||
		     prefix_contains(&d->dst, &dst->addr)) &&
		    judge_allows(a, d, now))
			return true;
	}
	return false;
}

/* One block of one address, as the policy knows its ends. */
struct subject {
	const struct policy *p;
	uint32_t rule, account;
	const struct policy_src *from;
	const struct policy_dst *to;	/* NULL: a host */
	bool stands;
	struct block_list *l;
};

/* Ports b.service.lo..hi of protocols proto..proto_hi, which the policy takes for the same service: by whom they are refused. */
static void service_elements(const struct subject *x, struct rules_block b, uint32_t service)
{
	for (unsigned opener = OPENER_INSIDE; opener <= OPENER_OUTSIDE; opener++) {
		b.service.by_outside = opener == OPENER_OUTSIDE;
		if (policy_class_refused(x->p, x->rule, policy_class_index(x->p, service, opener, 0), x->from, x->to))
			add_element(x->l, x->account, &b, x->stands);
	}
}

/* Every span of ports, and all of the protocols that the policy does not name. */
static void all_services(const struct subject *x, struct rules_block b)
{
	const uint32_t rest = x->p->span[x->p->h->nspans - 1].service;
	unsigned next = 0;	/* protocol number that was not looked at */

	for (uint32_t s = 0; s < x->p->h->nspans && policy_span_ports(x->p, s, &b.service.hi); s++) {
		const struct policy_span *v = &x->p->span[s];

		if (v->proto > next) {
			struct rules_block between = b;

			between.service = (struct rules_service){ .hi = UINT16_MAX, .proto = (uint8_t)next, .proto_hi = (uint8_t)(v->proto - 1) };
			service_elements(x, between, rest);
		}
		next = v->proto + 1U;
		b.service.lo = v->lo;
		b.service.proto = b.service.proto_hi = (uint8_t)v->proto;
		service_elements(x, b, v->service);
	}
	b.service = (struct rules_service){ .hi = UINT16_MAX, .proto = (uint8_t)next, .proto_hi = UINT8_MAX };
	if (next <= UINT8_MAX)
		service_elements(x, b, rest);
}

/* One element, or where it is by service one for each that the rule refuses. */
static void subject_elements(const struct subject *x, struct rules_block b)
{
	static const uint8_t kind[] = { [FORM_PAIR] = RULES_BLOCK_PAIR, [FORM_HOST] = RULES_BLOCK_HOST,
					[FORM_PAIR_SERVICE] = RULES_BLOCK_PAIR_SERVICE, [FORM_HOST_SERVICE] = RULES_BLOCK_HOST_SERVICE };
	const enum policy_form form = policy_form_for(x->p, x->rule, x->from, x->to);

	b.kind = kind[form];
	if (form == FORM_PAIR || form == FORM_HOST)
		add_element(x->l, x->account, &b, x->stands);
	else if (form != FORM_ENGINE)
		all_services(x, b);
}

struct time {
	struct mono now;
	uint64_t ms;		/* from now; 0: any time */
};

static void rule_elements(const struct area *a, const struct policy *p, const struct policy_rule *r, uint32_t slot, struct time t,
			  struct block_list *l)
{
	const struct account_key *k = &a->account[slot].key;
	const bool pair = k->kind == SUBJECT_PAIR;
	const struct prefix dst = pair ? out_prefix(k) : (struct prefix){ 0 };
	const struct policy_dst *to = pair ? policy_dst_of(p, &dst.addr) : NULL;
	struct addr src[BLOCK_BATCH / 4];
	const size_t n = inside_addresses(p, k->in, src, ARRAY_SIZE(src));

	if (r->form == FORM_ENGINE || account_is_shared(k) || memcmp(k->in, pair_others.b, sizeof(k->in)) == 0)
		return;
	for (size_t i = 0; i < n; i++) {
		const struct rules_block b = {
			.reject = r->refuse == REFUSE_REJECT, .src = src[i], .dst = dst, .timeout_ms = t.ms,
		};
		const struct subject x = { .p = p, .rule = (uint32_t)(r - p->rule), .account = slot, .from = policy_src_of(p, &src[i]),
					   .to = to, .stands = !t.ms || !allowed(a, &src[i], &dst, t.now), .l = l };

		if (!pair || addr_is_v4(&src[i]) == (k->out_family == 4))
			subject_elements(&x, b);
	}
}

static void dynamic_elements(const struct area *a, uint32_t uid, uint32_t slot, uint64_t ms, struct block_list *l)
{
	for (unsigned i = 0; i < AREA_DYNAMIC; i++) {
		const struct area_dynamic *d = &a->h->dynamic[i];
		struct rules_block b = { .kind = RULES_BLOCK_HOST, .reject = true, .src = d->src.addr, .timeout_ms = ms };

		/* An ended one still names its addresses until the place is taken again. */
		if (d->uid != uid || d->src.len != 128)
			continue;
		if (d->dst.len) {
			b.kind = RULES_BLOCK_PAIR;
			b.dst = d->dst;
		}
		if (d->dst.len == 0 || d->dst.len == (addr_is_v4(&d->dst.addr) ? 128 : 64))
			add_element(l, slot, &b, true);
	}
}

void block_elements(const struct area *a, const struct policy *p, uint32_t account, uint64_t ms, struct mono now, struct block_list *l)
{
	const uint32_t uid = a->account[account].key.rule;
	int i;

	l->share = 0;
	if (a->account_cold[account].rule == ACCOUNT_DYNAMIC) {
		dynamic_elements(a, uid, account, ms, l);
		return;
	}
	i = p ? policy_rule_by_uid(p, uid) : -1;
	if (i >= 0)
		rule_elements(a, p, &p->rule[i], account, (struct time){ now, ms }, l);
}
