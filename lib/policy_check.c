/* policy_check.c - does the policy make sense as a whole? Each finding says what to do. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy_doc.h"

static int each_prefix(const struct doc_prefix *v, uint32_t n, int (*fn)(void *ctx, const struct prefix *p), void *ctx)
{
	int r = 0;

	for (uint32_t i = 0; i < n && !r; i++)
		r = fn(ctx, &v[i].p);
	return r;
}

static int each_member(const struct policy_doc *d, const struct doc_refs *refs,
		       int (*fn)(void *ctx, const struct prefix *p), void *ctx)
{
	int r = 0;

	for (uint32_t i = 0; i < refs->n && !r; i++)	/* hosts and networks only: no deeper than this */
		r = doc_ref_each(d, &refs->v[i], fn, ctx);
	return r;
}

static int each_network(const struct doc_destination *dest, int (*fn)(void *ctx, const struct prefix *p), void *ctx)
{
	int r = 0;

	for (uint32_t i = 0; i < dest->nnets && !r; i++)
		r = fn(ctx, &dest->net[i]);
	return r;
}

int doc_ref_each(const struct policy_doc *d, const struct doc_ref *ref, int (*fn)(void *ctx, const struct prefix *p),
		 void *ctx)
{
	switch (ref->kind) {
	case DOC_NETWORK:
		return fn(ctx, &ref->p);
	case DOC_HOST:
		return each_prefix(d->host[ref->index].addr, d->host[ref->index].naddrs, fn, ctx);
	case DOC_GROUP:
		return each_member(d, &d->group[ref->index].hosts, fn, ctx);
	case DOC_EXIT:
		return each_prefix(d->exit[ref->index].host, d->exit[ref->index].nhosts, fn, ctx);
	case DOC_DESTINATION:
		return each_network(&d->dest[ref->index], fn, ctx);
	case DOC_INSIDE:
		return each_prefix(d->inside, d->ninside, fn, ctx);
	default:
		return 0;
	}
}

struct look {			/* what the base set says of some prefixes */
	const struct policy_doc *d;
	int32_t exit;		/* all in this exit; -1: not */
	bool seen, some_inside, some_outside, some_exit;
};

static int look_at(void *ctx, const struct prefix *p)
{
	struct look *l = ctx;
	const struct prefix_set *s = l->d->base;
	uint32_t first, last;

	prefix_set_span(s, p, &first, &last);
	for (uint32_t i = first; i <= last; i++) {
		uint32_t label = prefix_set_range(s, i)->label;
		int32_t exit = prefix_set_value(s, label, DOC_BASE_EXIT);

		if (!prefix_set_meets(s, p, i))
			continue;
		if (l->seen && exit != l->exit)
			exit = -1;
		l->exit = exit;
		l->seen = true;
		l->some_exit |= prefix_set_value(s, label, DOC_BASE_EXIT) >= 0;
		if (prefix_set_bit(s, label, DOC_BASE_INSIDE))
			l->some_inside = true;
		else
			l->some_outside = true;
	}
	return 0;
}

static struct look look(const struct policy_doc *d, const struct doc_ref *ref)
{
	struct look l = { .d = d, .exit = -1 };

	(void)doc_ref_each(d, ref, look_at, &l);
	return l;
}

int32_t doc_ref_exit(const struct policy_doc *d, const struct doc_ref *ref)
{
	return look(d, ref).exit;
}

static int build_base(struct policy_doc *d)
{
	int r = prefix_set_new(1, &d->base);

	for (uint32_t i = 0; i < d->ninside && r == 0; i++)
		r = prefix_set_add(d->base, &d->inside[i].p, DOC_BASE_INSIDE);
	for (uint32_t i = 0; i < d->nexits && r == 0; i++)
		for (uint32_t k = 0; k < d->exit[i].nhosts && r == 0; k++)
			r = prefix_set_put(d->base, &d->exit[i].host[k].p, DOC_BASE_EXIT, (int32_t)i);
	return r < 0 ? r : prefix_set_build(d->base);
}

static int by_prefix(const void *x, const void *y)
{
	const struct doc_prefix *a = *(const struct doc_prefix *const *)x, *b = *(const struct doc_prefix *const *)y;
	int c = prefix_cmp(&a->p, &b->p);

	if (c)
		return c;
	if (a->at.line != b->at.line)
		return a->at.line < b->at.line ? -1 : 1;
	return a->at.col < b->at.col ? -1 : a->at.col > b->at.col;
}

static void same_twice(struct policy_doc *d, const struct doc_prefix **v, uint32_t n, bool hosts)
{
	char text[PREFIX_STRLEN];

	if (n)
		qsort(v, n, sizeof(v[0]), by_prefix);
	for (uint32_t i = 1; i < n; i++) {
		const char *owner;

		if (prefix_cmp(&v[i - 1]->p, &v[i]->p))
			continue;
		owner = hosts ? d->host[v[i - 1]->owner].name : d->exit[v[i - 1]->owner].name;
		if (hosts)
			addr_format(&v[i]->p.addr, text);
		else
			prefix_format(&v[i]->p, text);
		DOC_ERROR(d, &v[i]->at, "write it once", "%s already belongs to %s '%.63s' (line %u)", text,
			  hosts ? "host" : "exit", owner, v[i - 1]->at.line);
	}
}

static int check_twice(struct policy_doc *d, bool hosts)
{
	uint32_t total = 0, n = 0, owners = hosts ? d->nhosts : d->nexits;
	const struct doc_prefix **v;

	for (uint32_t i = 0; i < owners; i++)
		total += hosts ? d->host[i].naddrs : d->exit[i].nhosts;
	v = arena_array(d->mem, total, sizeof(*v));
	if (!v)
		return -ENOMEM;
	for (uint32_t i = 0; i < owners; i++) {
		const struct doc_prefix *p = hosts ? d->host[i].addr : d->exit[i].host;
		uint32_t count = hosts ? d->host[i].naddrs : d->exit[i].nhosts;

		for (uint32_t k = 0; k < count; k++)
			v[n++] = &p[k];
	}
	same_twice(d, v, n, hosts);
	return 0;
}

static void check_hosts(struct policy_doc *d)
{
	for (uint32_t i = 0; i < d->nhosts; i++) {
		for (uint32_t k = 0; k < d->host[i].naddrs; k++) {
			const struct doc_prefix *a = &d->host[i].addr[k];
			struct look l = { .d = d, .exit = -1 };
			char text[ADDR_STRLEN];

			(void)look_at(&l, &a->p);
			if (d->whole && !l.some_inside && !l.some_exit)
				DOC_ERROR(d, &a->at, "add its network to 'inside'",
					  "host %.63s: %s is neither inside nor in an exit", d->host[i].name,
					  addr_format(&a->p.addr, text));
		}
	}
}

static void check_devices(struct policy_doc *d)
{
	for (uint32_t i = 0; i < d->nexits; i++)
		for (uint32_t k = 0; k < d->exit[i].nifaces; k++)
			for (uint32_t j = 0; j < i; j++)
				for (uint32_t m = 0; m < d->exit[j].nifaces; m++)
					if (!strcmp(d->exit[i].iface[k], d->exit[j].iface[m]))
						DOC_ERROR(d, &d->exit[i].at, "a device leads to one exit",
							  "exit %.63s: device %s already belongs to exit '%.63s'",
							  d->exit[i].name, d->exit[i].iface[k], d->exit[j].name);
}

/* Bytes to IPv6 are accounted by /64, so what is egress in one /64 must have one meaning. */
static void check_exit_64(struct policy_doc *d, uint32_t exit, const struct doc_prefix *p)
{
	struct prefix up = { addr_mask(&p->p.addr, 64), 64 };
	uint32_t first, last;
	char text[PREFIX_STRLEN];

	if (prefix_is_v4(&p->p) || p->p.len <= 64 || !d->whole)
		return;
	prefix_set_span(d->base, &up, &first, &last);
	for (uint32_t i = first; i <= last; i++) {
		uint32_t label = prefix_set_range(d->base, i)->label;
		int32_t value = prefix_set_value(d->base, label, DOC_BASE_EXIT);

		if (value == (int32_t)exit || (value < 0 && prefix_set_bit(d->base, label, DOC_BASE_INSIDE)))
			continue;
		DOC_ERROR(d, &p->at, "give the exit a /64 of its own, or make the /64 around it inside",
			  "hosts: %s shares its /64 with other destinations, and those are counted by /64",
			  prefix_format(&p->p, text));
		return;
	}
}

static void check_group_exit(struct policy_doc *d, struct doc_group *g)
{
	struct doc_ref all = { .kind = DOC_GROUP, .index = (uint32_t)(g - d->group) };

	g->exit = doc_ref_exit(d, &all);
	for (uint32_t i = 0; i < g->hosts.n; i++) {
		const struct doc_ref *ref = &g->hosts.v[i];
		struct look l = look(d, ref);

		if (d->whole && l.seen && !l.some_inside && !l.some_exit)
			DOC_ERROR(d, &ref->at, "add it to 'inside'", "hosts: '%.63s' is neither inside nor in an exit",
				  ref->text);
		else if (d->whole && l.exit >= 0 && g->exit < 0)
			DOC_ERROR(d, &ref->at, "put the hosts of an exit in a group of their own",
				  "hosts: '%.63s' belongs to exit '%.63s' and counts in no group with inner hosts",
				  ref->text, d->exit[l.exit].name);
	}
}

static int add_member(void *ctx, const struct prefix *p)
{
	return prefix_set_add(ctx, p, 0);
}

static int touches(void *ctx, const struct prefix *p)
{
	const struct prefix_set *s = ctx;
	uint32_t first, last;

	prefix_set_span(s, p, &first, &last);
	for (uint32_t i = first; i <= last; i++)
		if (prefix_set_meets(s, p, i) && prefix_set_bit(s, prefix_set_range(s, i)->label, 0))
			return 1;
	return 0;
}

static int check_except(struct policy_doc *d, const struct doc_group *g)
{
	struct doc_ref all = { .kind = DOC_GROUP, .index = (uint32_t)(g - d->group) };
	struct prefix_set *s;
	int r;

	if (!g->except.n)
		return 0;
	r = prefix_set_new(1, &s);
	if (r < 0)
		return r;
	r = doc_ref_each(d, &all, add_member, s);
	if (r == 0)
		r = prefix_set_build(s);
	for (uint32_t i = 0; i < g->except.n && r == 0; i++) {
		const struct doc_ref *ref = &g->except.v[i];

		if (d->whole && !doc_ref_each(d, ref, touches, s))
			DOC_ERROR(d, &ref->at, "remove it, or correct it",
				  "except: '%.63s' removes nothing; no host of group '%.63s' is in it", ref->text,
				  g->name);
	}
	prefix_set_free(s);
	return r;
}

static void check_rule_names(struct policy_doc *d)
{
	for (uint32_t i = 0; i < d->nrules; i++) {
		for (uint32_t k = 0; k < i; k++) {
			if (!*d->rule[i].name || strcmp(d->rule[i].name, d->rule[k].name))
				continue;
			DOC_ERROR(d, &d->rule[i].at, "rules and contracts share their names; choose another",
				  "name: '%.63s' is already the name of a %s (line %u)", d->rule[i].name,
				  d->rule[k].kind == RULE_CONTRACT ? "contract" : "rule", d->rule[k].at.line);
			break;
		}
	}
}

static void check_from(struct policy_doc *d, const struct doc_rule *r)
{
	for (uint32_t i = 0; i < r->from.n; i++) {
		const struct doc_ref *ref = &r->from.v[i];
		struct look l;

		for (uint32_t k = 0; k < i && r->from.n < POLICY_RULES; k++)
			if (!strcmp(r->from.v[k].text, ref->text))
				DOC_ERROR(d, &ref->at, "write it once", "from: '%.63s' is named twice", ref->text);
		if (d->whole && ref->kind == DOC_EXIT && !d->exit[ref->index].nhosts)
			DOC_ERROR(d, &ref->at, "give the exit hosts",
				  "from: exit '%.63s' has interfaces only; nothing inside sends as it", ref->text);
		if (ref->kind != DOC_NETWORK)
			continue;	/* hosts and groups were looked at where they are defined */
		l = look(d, ref);
		if (d->whole && !l.some_inside && !l.some_exit)
			DOC_ERROR(d, &ref->at, "add it to 'inside', or write 'unlisted' for all such senders",
				  "from: %.63s is neither inside nor in an exit", ref->text);
	}
}

static void check_to(struct policy_doc *d, const struct doc_rule *r, bool iface_exits)
{
	for (uint32_t i = 0; i < r->to.n; i++) {
		const struct doc_ref *ref = &r->to.v[i];
		struct look l;

		for (uint32_t k = 0; k < i && r->to.n < POLICY_RULES; k++)
			if (!strcmp(r->to.v[k].text, ref->text))
				DOC_ERROR(d, &ref->at, "write it once", "to: '%.63s' is named twice", ref->text);
		if (!(ref->kind & (DOC_NETWORK | DOC_DESTINATION)) || iface_exits)
			continue;
		l = look(d, ref);
		if (d->whole && l.seen && !l.some_outside && !l.some_exit)
			DOC_ERROR(d, &ref->at, "take it out of 'inside', or make it an exit",
				  "to: '%.63s' is wholly inside; bytes to it do not leave", ref->text);
	}
}

int doc_check(struct policy_doc *d)
{
	bool iface_exits = false;
	int r = build_base(d);

	if (r == 0)
		r = check_twice(d, true);
	if (r == 0)
		r = check_twice(d, false);
	if (r < 0)
		return r;
	check_hosts(d);
	check_devices(d);
	for (uint32_t i = 0; i < d->nexits; i++) {
		iface_exits |= d->exit[i].nifaces > 0;
		for (uint32_t k = 0; k < d->exit[i].nhosts; k++)
			check_exit_64(d, i, &d->exit[i].host[k]);
	}
	for (uint32_t i = 0; i < d->ngroups && r == 0; i++) {
		check_group_exit(d, &d->group[i]);
		r = check_except(d, &d->group[i]);
	}
	check_rule_names(d);
	for (uint32_t i = 0; i < d->nrules; i++) {
		check_from(d, &d->rule[i]);
		check_to(d, &d->rule[i], iface_exits);
	}
	return r;
}
