/* policy_label.c - whom each address is: sources and destinations as disjoint ranges with the rules that name them. */
#include <errno.h>
#include <string.h>

#include "policy_build.h"

#define SLOT_HOST 0
#define SLOT_EXIT 1

enum src_bit {			/* selectors of the source set */
	SRC_NORMAL = 0,				/* + rule: named, for senders that are in no exit */
	SRC_IN_EXIT = SRC_NORMAL + POLICY_RULES,	/* + rule: by an entry wholly inside an exit */
	SRC_GROUP = SRC_IN_EXIT + POLICY_RULES,	/* + 2 * group: its hosts; + 1: its except */
	SRC_IS_INSIDE = SRC_GROUP + 2 * DOC_GROUPS,
	SRC_IS_GATEWAY, SRC_IS_UNLISTED,
	SRC_BITS
};

enum dst_bit {
	DST_RULE = 0,				/* + rule: a network of its `to` */
	DST_IS_INSIDE = DST_RULE + POLICY_RULES,
	DST_IS_PROTECTED,
	DST_DEST				/* + destination */
};

struct adder {
	struct prefix_set *set;
	uint32_t bit;
};

static int add_bit(void *ctx, const struct prefix *p)
{
	const struct adder *a = ctx;

	return prefix_set_add(a->set, p, a->bit);
}

static int add_ref(const struct policy_doc *d, struct prefix_set *s, const struct doc_ref *ref, uint32_t bit)
{
	struct adder a = { s, bit };

	return doc_ref_each(d, ref, add_bit, &a);
}

static int add_exits_inside(const struct policy_doc *d, struct prefix_set *s, uint32_t inside_bit)
{
	int r = 0;

	for (uint32_t i = 0; i < d->ninside && r == 0; i++)
		r = prefix_set_add(s, &d->inside[i].p, inside_bit);
	for (uint32_t i = 0; i < d->nexits; i++)
		for (uint32_t k = 0; k < d->exit[i].nhosts && r == 0; k++)
			r = prefix_set_put(s, &d->exit[i].host[k].p, SLOT_EXIT, (int32_t)i);
	return r;
}

/* ---- sources ---- */

struct src_rules {		/* rules by what they name */
	struct policy_bits gateway, unlisted;
	struct policy_bits group[DOC_GROUPS];
	bool group_used[DOC_GROUPS], group_seen[DOC_GROUPS];
};

static int src_rule(struct policy_build *b, struct prefix_set *s, uint32_t i, struct src_rules *by)
{
	const struct doc_refs *from = &b->origin[i].doc->from;
	int r = 0;

	for (uint32_t k = 0; k < from->n && r == 0; k++) {
		const struct doc_ref *ref = &from->v[k];

		if (ref->kind == DOC_GROUP) {
			if (b->origin[i].group >= 0 && (uint32_t)b->origin[i].group != ref->index)
				continue;
			bits_set(&by->group[ref->index], i);
		} else if (ref->kind == DOC_GATEWAY) {
			bits_set(&by->gateway, i);
		} else if (ref->kind == DOC_UNLISTED) {
			bits_set(&by->unlisted, i);
		} else {
			r = add_ref(b->d, s, ref, (doc_ref_exit(b->d, ref) >= 0 ? SRC_IN_EXIT : SRC_NORMAL) + i);
		}
	}
	return r;
}

static int src_groups(struct policy_doc *d, struct prefix_set *s)
{
	int r = 0;

	for (uint32_t g = 0; g < d->ngroups; g++) {
		const struct doc_group *group = &d->group[g];

		for (uint32_t i = 0; i < group->hosts.n && r == 0; i++)
			r = add_ref(d, s, &group->hosts.v[i], SRC_GROUP + 2 * g);
		for (uint32_t i = 0; i < group->except.n && r == 0; i++)
			r = add_ref(d, s, &group->except.v[i], SRC_GROUP + 2 * g + 1);
	}
	return r;
}

static int src_fill(struct policy_build *b, struct prefix_set *s, struct src_rules *by)
{
	const struct prefix gateway = { pair_gateway, 128 }, unlisted = { pair_unlisted, 128 };
	struct policy_doc *d = b->d;
	int r = add_exits_inside(d, s, SRC_IS_INSIDE);

	for (uint32_t i = 0; i < b->nrules && r == 0; i++)
		r = src_rule(b, s, i, by);
	if (r == 0)
		r = src_groups(d, s);
	for (uint32_t i = 0; i < d->nhosts; i++)
		for (uint32_t k = 0; k < d->host[i].naddrs && r == 0; k++)
			r = prefix_set_put(s, &d->host[i].addr[k].p, SLOT_HOST, (int32_t)i);
	if (r == 0)
		r = prefix_set_add(s, &gateway, SRC_IS_GATEWAY);
	if (r == 0)
		r = prefix_set_add(s, &unlisted, SRC_IS_UNLISTED);
	return r < 0 ? r : prefix_set_build(s);
}

static void src_label(const struct policy_build *b, const struct prefix_set *s, uint32_t label, struct src_rules *by,
		      struct policy_src *ret)
{
	int32_t exit = prefix_set_value(s, label, SLOT_EXIT);
	bool inside = prefix_set_bit(s, label, SRC_IS_INSIDE);

	*ret = (struct policy_src){ .host = -1 };
	if (prefix_set_bit(s, label, SRC_IS_GATEWAY)) {
		ret->from = by->gateway;
		return;
	}
	if (prefix_set_bit(s, label, SRC_IS_UNLISTED)) {
		ret->from = by->unlisted;
		return;
	}
	ret->host = prefix_set_value(s, label, SLOT_HOST);
	ret->flags = (inside ? SRC_INSIDE : 0U) | (exit >= 0 ? SRC_EXIT : 0U);
	if (!inside && exit < 0)
		return;		/* such a sender is `unlisted`, whatever a network in `from` covers */
	for (uint32_t i = 0; i < b->nrules; i++)
		if (prefix_set_bit(s, label, SRC_IN_EXIT + i) || (exit < 0 && prefix_set_bit(s, label, SRC_NORMAL + i)))
			bits_set(&ret->from, i);
	for (uint32_t g = 0; g < b->d->ngroups; g++) {
		if (!prefix_set_bit(s, label, SRC_GROUP + 2 * g) || prefix_set_bit(s, label, SRC_GROUP + 2 * g + 1))
			continue;
		by->group_seen[g] = true;
		if (exit < 0 || exit == b->d->group[g].exit)
			bits_or(&ret->from, &by->group[g]);
	}
}

static int copy_ranges(struct arena *mem, const struct prefix_set *s, struct policy_range **ret, uint32_t *ret_n)
{
	uint32_t n = prefix_set_count(s);
	struct policy_range *v = arena_array(mem, n, sizeof(*v));

	if (!v)
		return -ENOMEM;
	for (uint32_t i = 0; i < n; i++) {
		const struct prefix_range *r = prefix_set_range(s, i);

		v[i].start = r->start;
		v[i].label = r->label;
	}
	*ret = v;
	*ret_n = n;
	return 0;
}

static int build_src(struct policy_build *b, struct prefix_set *s)
{
	struct src_rules *by = arena_alloc(b->d->mem, sizeof(*by));
	int r;

	if (!by)
		return -ENOMEM;
	r = src_fill(b, s, by);
	if (r < 0)
		return r;
	b->nsrc = prefix_set_labels(s);
	b->src = arena_array(b->d->mem, b->nsrc, sizeof(*b->src));
	if (!b->src)
		return -ENOMEM;
	for (uint32_t i = 0; i < b->nsrc; i++)
		src_label(b, s, i, by, &b->src[i]);
	for (uint32_t g = 0; g < b->d->ngroups; g++) {
		const struct doc_group *group = &b->d->group[g];

		if (!by->group_seen[g] && group->hosts.n)
			DOC_ERROR(b->d, &group->at, "name inside hosts, or except fewer", "group %.63s: no host is left in it",
				  group->name);
	}
	return copy_ranges(b->d->mem, s, &b->src_range, &b->nsrc_ranges);
}

/* ---- destinations ---- */

struct dst_rules {
	struct policy_bits outside;
	struct policy_bits exit[POLICY_EXITS];
	struct policy_bits *dest;	/* by destination */
};

static int dst_rule(struct policy_build *b, struct prefix_set *s, uint32_t i, struct dst_rules *by)
{
	const struct doc_refs *to = &b->origin[i].doc->to;
	int r = 0;

	for (uint32_t k = 0; k < to->n && r == 0; k++) {
		const struct doc_ref *ref = &to->v[k];

		if (ref->kind == DOC_OUTSIDE)
			bits_set(&by->outside, i);
		else if (ref->kind == DOC_EXIT)
			bits_set(&by->exit[ref->index], i);
		else if (ref->kind == DOC_DESTINATION)
			bits_set(&by->dest[ref->index], i);
		else
			r = add_ref(b->d, s, ref, DST_RULE + i);
	}
	return r;
}

static int dst_fill(struct policy_build *b, struct prefix_set *s, struct dst_rules *by)
{
	struct policy_doc *d = b->d;
	int r = add_exits_inside(d, s, DST_IS_INSIDE);

	for (uint32_t i = 0; i < b->nrules && r == 0; i++)
		r = dst_rule(b, s, i, by);
	for (uint32_t i = 0; i < d->ndests; i++) {
		struct doc_ref ref = { .kind = DOC_DESTINATION, .index = i };

		if (r == 0 && bits_count(&by->dest[i]))	/* one that no rule names splits no range */
			r = add_ref(d, s, &ref, DST_DEST + i);
	}
	for (uint32_t i = 0; i < d->nprotect && r == 0; i++)
		r = prefix_set_add(s, &d->protect[i], DST_IS_PROTECTED);
	return r < 0 ? r : prefix_set_build(s);
}

static void dst_label(const struct policy_build *b, const struct prefix_set *s, uint32_t label,
		      const struct dst_rules *by, struct policy_dst *ret)
{
	int32_t exit = prefix_set_value(s, label, SLOT_EXIT);
	bool inside = prefix_set_bit(s, label, DST_IS_INSIDE);

	*ret = (struct policy_dst){ .exit = exit };
	ret->flags = (inside ? DST_INSIDE : 0U) | (exit >= 0 ? DST_EXIT : 0U) |
		     (prefix_set_bit(s, label, DST_IS_PROTECTED) ? DST_PROTECTED : 0U);
	for (uint32_t i = 0; i < b->nrules; i++)
		if (prefix_set_bit(s, label, DST_RULE + i))
			bits_set(&ret->to, i);
	for (uint32_t i = 0; i < b->d->ndests; i++)
		if (prefix_set_bit(s, label, DST_DEST + i))
			bits_or(&ret->to, &by->dest[i]);
	if (exit >= 0)
		bits_or(&ret->to, &by->exit[exit]);
	bits_or(&ret->to, &by->outside);	/* inside ones too: what is judged has left by a device that leads out */
}

static void build_exits(struct policy_build *b, const struct dst_rules *by)
{
	for (uint32_t i = 0; i < b->d->nexits; i++) {
		const struct doc_exit *e = &b->d->exit[i];

		b->exit[i].name = build_str(b, e->name);
		b->exit[i].nifaces = e->nifaces;
		memcpy(b->exit[i].iface, e->iface, sizeof(e->iface));
		b->exit[i].to = by->outside;
		bits_or(&b->exit[i].to, &by->exit[i]);
	}
}

static int build_dst(struct policy_build *b, struct prefix_set *s)
{
	struct dst_rules by = { .dest = arena_array(b->d->mem, b->d->ndests, sizeof(*by.dest)) };
	int r;

	if (!by.dest)
		return -ENOMEM;
	r = dst_fill(b, s, &by);
	if (r < 0)
		return r;
	b->ndst = prefix_set_labels(s);
	b->dst = arena_array(b->d->mem, b->ndst, sizeof(*b->dst));
	if (!b->dst)
		return -ENOMEM;
	for (uint32_t i = 0; i < b->ndst; i++)
		dst_label(b, s, i, &by, &b->dst[i]);
	build_exits(b, &by);
	return copy_ranges(b->d->mem, s, &b->dst_range, &b->ndst_ranges);
}

int build_labels(struct policy_build *b)
{
	struct prefix_set *src = NULL, *dst = NULL;
	int r = prefix_set_new(SRC_BITS, &src);

	if (r == 0)
		r = build_src(b, src);
	if (r == 0)
		r = prefix_set_new(DST_DEST + b->d->ndests, &dst);
	if (r == 0)
		r = build_dst(b, dst);
	prefix_set_free(src);
	prefix_set_free(dst);
	return r;
}
