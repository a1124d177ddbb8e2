/* lease_key.c - see lease_key.h for the contract. */
#include "lease_key.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>

static bool has_ports(uint8_t proto)
{
	return proto == IPPROTO_TCP || proto == IPPROTO_UDP || proto == IPPROTO_DCCP || proto == IPPROTO_SCTP ||
	       proto == IPPROTO_UDPLITE;
}

struct lease_hint lease_hint_of(const struct judge_packet *v)
{
	struct lease_hint h = { .pair = v->pair };

	if (v->opener == OPENER_UNKNOWN || v->p.notes & PACKET_NO_PORTS || !has_ports(v->p.proto))
		return h;
	h.opener = v->opener;
	h.proto = v->p.proto;
	h.port = v->opener == OPENER_OUTSIDE ? v->p.sport : v->p.dport;
	return h;
}

static bool same_bits(const struct policy_bits *a, const struct policy_bits *b)
{
	return memcmp(a, b, sizeof(*a)) == 0;
}

/* Whose addresses policy_match() is asked about. */
struct ends {
	const struct policy_src *src;
	const struct policy_dst *dst;
};

/* Every class of the pair is judged by the same rules. By an exit's device nothing is leased: those classes are not asked. */
static bool all_alike(const struct policy *p, const struct ends *e)
{
	const uint32_t step = p->h->nexits + 1;
	struct policy_bits first, bits;

	policy_match(p, e->src, e->dst, 0, 0, &first);
	for (uint32_t c = step; c < p->h->nclasses; c += step) {
		policy_match(p, e->src, e->dst, c, 0, &bits);
		if (!same_bits(&first, &bits))
			return false;
	}
	return true;
}

static bool has_row_of_its_own(const uint8_t in[16])
{
	return memcmp(in, pair_gateway.b, 16) != 0 && memcmp(in, pair_unlisted.b, 16) != 0;
}

static struct addr out_of(const struct lease_key *k)
{
	struct addr out = { { 0 } };

	if (k->out_family == 4)
		return addr_from_v4(k->out);
	memcpy(out.b, k->out, sizeof(k->out));
	return out;
}

static struct ends ends_of(const struct policy *p, const struct lease_key *k)
{
	const struct addr in = addr_from_v6(k->in), out = out_of(k);

	return (struct ends){ policy_src_of(p, &in), policy_dst_of(p, &out) };
}

static uint32_t class_of(const struct policy *p, uint8_t proto, uint16_t port, uint8_t opener)
{
	return opener == OPENER_UNKNOWN ? 0 : policy_class_of(p, proto, true, port, opener, 0);
}

/* Egress by some devices only. */
static bool is_inside(const struct ends *e)
{
	return e->dst->flags & DST_INSIDE && !(e->dst->flags & DST_EXIT);
}

int lease_key_of(struct judge *j, const struct lease_hint *hint, struct lease_key *ret)
{
	const struct pair_key *k = &j->area.pair[hint->pair].key;
	const struct policy *p = j->policy;
	struct lease_key key = { .out_family = k->out_family };
	const struct addr in = addr_from_v6(k->in);
	struct ends e;

	if (!p || !table_is_full(&j->area.pairs, hint->pair) || k->class_uid == PAIR_CLASS_OVERFLOW ||
	    !has_row_of_its_own(k->in) || addr_is_v4(&in) != (k->out_family == 4))
		return -ENOENT;
	memcpy(key.in, k->in, sizeof(key.in));
	memcpy(key.out, k->out, sizeof(key.out));
	e = ends_of(p, &key);
	if (is_inside(&e))
		return -ENOENT;
	if (!all_alike(p, &e)) {
		/* The pair's record is of another service: the hint is older than the policy, or the slot's next. */
		if (hint->opener == OPENER_UNKNOWN || p->cls[class_of(p, hint->proto, hint->port, hint->opener)].uid != k->class_uid)
			return -ENOENT;
		key.port = hint->port;
		key.proto = hint->proto;
		key.opener = hint->opener;
	}
	*ret = key;
	return 0;
}

bool lease_is_between(const struct lease_key *k, const struct prefix *src, const struct prefix *dst)
{
	const struct addr in = addr_from_v6(k->in);
	const struct addr out = out_of(k);
	struct addr masked = dst->addr;

	if (!prefix_contains(src, &in))
		return false;
	if (dst->len == 0)
		return true;
	if (k->out_family == 6 && dst->len > 64)	/* the pair is the /64 */
		masked = addr_mask(&dst->addr, 64);
	return prefix_contains(dst, &out) || addr_cmp(&masked, &out) == 0;
}

struct judge_packet lease_packet(const struct policy *p, const struct lease_key *k)
{
	struct judge_packet v = { .p.src = addr_from_v6(k->in), .p.dst = out_of(k), .pair = TABLE_NONE,
				  .cls = class_of(p, k->proto, k->port, k->opener) };

	memcpy(v.key.in, k->in, sizeof(v.key.in));
	memcpy(v.key.out, k->out, sizeof(v.key.out));
	v.key.out_family = k->out_family;
	return v;
}

/* ---- what a change of policy does not touch ---- */

static uint32_t host_uid(const struct policy *p, const struct policy_src *src)
{
	return src->host < 0 ? 0 : p->host[src->host].uid;
}

/* In all that decides who pays, and how much; not in what is said about it. */
static bool same_rule(const struct policy_rule *x, const struct policy_rule *y)
{
	if (x->uid != y->uid || x->kind != y->kind || x->per != y->per || x->group != y->group || x->enforce != y->enforce ||
	    x->until != y->until || x->nlimits != y->nlimits)
		return false;
	for (unsigned i = 0; i < x->nlimits; i++)
		if (x->limit[i].bytes != y->limit[i].bytes || x->limit[i].seconds != y->limit[i].seconds)
			return false;
	return true;
}

/* The rules of x and those of y, one after the other; which numbers they have does not matter. */
static bool same_rules(const struct policy *p, struct policy_bits x, const struct policy *q, struct policy_bits y)
{
	unsigned i = 0, k = 0;

	for (;;) {
		while (i < POLICY_RULES && !policy_bit(&x, i))
			i++;
		while (k < POLICY_RULES && !policy_bit(&y, k))
			k++;
		if (i == POLICY_RULES || k == POLICY_RULES)
			return i == k;
		if (!same_rule(&p->rule[i++], &q->rule[k++]))
			return false;
	}
}

static void bits_of(const struct policy *p, const struct ends *e, const struct lease_key *k, struct policy_bits *ret)
{
	policy_match(p, e->src, e->dst, class_of(p, k->proto, k->port, k->opener), 0, ret);
}

bool lease_is_untouched(const struct lease_key *k, const struct policy *before, const struct policy *after)
{
	const struct ends was = ends_of(before, k), is = ends_of(after, k);
	struct policy_bits x, y;

	if (was.src->flags != is.src->flags || was.dst->flags != is.dst->flags || is_inside(&is) ||
	    host_uid(before, was.src) != host_uid(after, is.src) || all_alike(after, &is) != (k->opener == OPENER_UNKNOWN))
		return false;
	bits_of(before, &was, k, &x);
	bits_of(after, &is, k, &y);
	return same_rules(before, x, after, y);
}
