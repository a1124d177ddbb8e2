/* control_why.c - why HOST [DEST]: who pays for its bytes, each window's sum against its limit. Reads only. */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control_bounds.h"
#include "control_internal.h"
#include "prefix_set.h"
#include "report_fill.h"

#define LOAD(field) atomic_load_explicit(&(field), memory_order_relaxed)	/* shown as it stands */

/* ---- one account ---- */

static json_t *limits_of(const struct control_call *q, uint32_t slot, const struct policy_rule *r)
{
	const struct area *a = q->ctx->area;
	const struct account_cold *c = &a->account_cold[slot];
	json_t *list = json_array();

	for (uint32_t i = 0; r && i < r->nlimits && i < ACCOUNT_LIMITS; i++) {
		const struct account_limit *l = &r->limit[i];
		uint64_t sum = account_peek_sum(&a->account[slot], c, l, mono_tick(q->now));
		json_t *o = json_object();

		control_set_number(o, "window_s", l->seconds);
		control_set_number(o, "sum_bytes", sum);
		control_set_number(o, "limit_bytes", l->bytes);
		if (sum >= l->bytes) {
			uint32_t tick = window_room_tick(&c->rings, l->spec, account_total(&a->account[slot], c), l->bytes);

			control_set(o, "room_at", control_json_time(q, mono_of_tick(tick).ns));
		}
		(void)json_array_append_new(list, o);
	}
	return list;
}

/* Of the pair, or of the packet that crossed: beyond the limit it is only alerted. */
static bool is_protected(const struct control_call *q, uint32_t slot)
{
	const struct account_key *k = &q->ctx->area->account[slot].key;
	struct addr a = q->ctx->area->account_cold[slot].flow_dst;

	if (k->kind == SUBJECT_PAIR && !account_is_shared(k))
		a = control_out_addr(k->out, k->out_family);
	return q->ctx->policy && policy_dst_of(q->ctx->policy, &a)->flags & DST_PROTECTED;
}

static void set_block(const struct control_call *q, uint32_t slot, const struct policy_rule *r, json_t *o)
{
	const struct account_cold *c = &q->ctx->area->account_cold[slot];
	uint32_t state = control_state(q->ctx->area, slot), w = c->until_window;

	control_set(o, "blocked", json_boolean(state & ACCOUNT_BLOCKED));
	control_set(o, "open", json_boolean(state & ACCOUNT_OPEN));
	control_set(o, "braked", json_boolean(state & ACCOUNT_BRAKED && LOAD(q->ctx->area->h->braked)));
	control_set(o, "protected", json_boolean(state & ACCOUNT_OPEN && is_protected(q, slot)));
	if (!control_has_block(q, slot))
		return;
	control_set(o, "blocked_since", control_json_time(q, c->blocked_at_ns));
	control_set(o, "blocked_until",
		    control_json_time(q, __atomic_load_n(&c->blocked_until_ns, __ATOMIC_RELAXED)));
	/* What decides the end: a window, or (null) hold. */
	control_set(o, "until_window_s", r && w < r->nlimits ? json_integer(r->limit[w].seconds) : json_null());
	control_set(o, "in_kernel", json_boolean(c->announced == 1));
}

static void set_grant(const struct control_call *q, uint32_t slot, json_t *o)
{
	const struct account_cold *c = &q->ctx->area->account_cold[slot];
	uint64_t spent = account_total(&q->ctx->area->account[slot], c), to = c->grant_to;
	json_t *g;

	if (q->now.ns >= c->grant_until_ns || to == 0)
		return;
	g = json_object();
	control_set_number(g, "left_bytes", to > spent ? to - spent : 0);
	control_set(g, "until", control_json_time(q, c->grant_until_ns));
	control_set(o, "grant", g);
}

json_t *control_account(const struct control_call *q, uint32_t slot)
{
	const struct area *a = q->ctx->area;
	const struct policy *p = q->ctx->policy;
	const struct account *x = &a->account[slot];
	const struct account_cold *c = &a->account_cold[slot];
	const struct account_key key = x->key;
	const struct policy_rule *r = control_rule(p, key.rule);
	char subject[CONFIG_PATH], dest[PREFIX_STRLEN], id[24], way[256];
	json_t *o = json_object();

	control_set_text(o, "rule", r ? policy_string(p, r->name) : "gone");
	control_set_text(o, "kind", r && r->kind == RULE_CONTRACT ? "contract" : "rule");
	control_set_text(o, "per", policy_per_name(key.kind));
	control_set_text(o, "subject", control_subject(p, &key, r, subject));
	if (key.kind == SUBJECT_PAIR)
		control_set_text(o, "dest", pair_out_format(key.out, key.out_family, dest));
	set_block(q, slot, r, o);
	control_set(o, "limits", limits_of(q, slot, r));
	set_grant(q, slot, o);
	control_set_number(o, "outstanding_bytes", __atomic_load_n(&c->outstanding, __ATOMIC_RELAXED));
	control_set_number(o, "refused_bytes", LOAD(x->refused));
	control_set(o, "counting_since", control_json_time(q, c->born_ns));
	if (c->finding_id) {
		snprintf(id, sizeof(id), "%016" PRIx64, c->finding_id);
		control_set_text(o, "finding_id", id);
	}
	if (!r)
		return o;
	control_set_text(o, "action", policy_action_name(r->action));
	control_set(o, "enforced", json_boolean(r->enforce));
	control_set_text(o, "severity", policy_severity_name(r->severity));
	control_set_number(o, "hold_s", r->hold_s);
	if (r->kind == RULE_CONTRACT)
		control_set(o, "contract_until",
			    r->until == POLICY_UNTIL_NEVER ? json_null() : control_json_wall((uint64_t)r->until * 1000000));
	if (*report_way_on(a, p, slot, way, sizeof(way)))
		control_set_text(o, "how_to_allow", way);
	return o;
}

/* ---- accounts of the host ---- */

static struct addr last_of(const struct prefix *x)
{
	struct addr a = x->addr;

	for (unsigned bit = x->len; bit < 128; bit++)
		a.b[bit / 8] |= (uint8_t)(0x80 >> (bit % 8));
	return a;
}

/* The next range after *at that meets x; false when there is none. */
static bool next_range(const struct policy_range *v, uint32_t n, const struct prefix *x, uint32_t *at)
{
	struct addr last = last_of(x);

	for (; *at < n && addr_cmp(&v[*at].start, &last) <= 0; ++*at)
		if (*at + 1 == n || addr_cmp(&v[*at + 1].start, &x->addr) > 0) {
			++*at;
			return true;
		}
	return false;
}

/* What the policy says of any of the sources. */
static uint32_t sources(const struct policy *p, const struct control_name *in, struct policy_bits *from)
{
	uint32_t flags = 0;

	for (uint32_t i = 0; i < in->n; i++)
		for (uint32_t at = 0; next_range(p->src_range, p->h->nsrc_ranges, &in->prefix[i], &at);) {
			const struct policy_src *s = &p->src[p->src_range[at - 1].label];

			flags |= s->flags;
			for (unsigned w = 0; w < POLICY_WORDS; w++)
				from->w[w] |= s->from.w[w];
		}
	return flags;
}

/* Rules that may have any of the destinations; `exits`: those of the ways that its packets have taken. */
static void destinations(const struct policy *p, const struct control_name *out, const struct policy_bits *exits,
			 struct policy_bits *to)
{
	*to = *exits;
	for (unsigned w = 0; out->exit >= 0 && w < POLICY_WORDS; w++)
		to->w[w] |= p->exit[out->exit].to.w[w];
	for (uint32_t i = 0; i < out->n; i++)
		for (uint32_t at = 0; next_range(p->dst_range, p->h->ndst_ranges, &out->prefix[i], &at);)
			for (unsigned w = 0; w < POLICY_WORDS; w++)
				to->w[w] |= p->dst[p->dst_range[at - 1].label].to.w[w];
}

/* Any rule of hosts or pairs has some that found no account. */
static void rules_of_others(const struct policy *p, struct policy_bits *ret)
{
	for (uint32_t i = 0; i < p->h->nrules; i++)
		if (p->rule[i].per <= PER_HOST)
			ret->w[i / 64] |= 1ULL << (i % 64);
}

/* Rules whose `from` has one of the addresses, and whose `to` may have the destination; contracts too. */
static void rules_of(const struct policy *p, const struct control_name *in, const struct control_name *out,
		     const struct policy_bits *exits, struct policy_bits *ret)
{
	struct policy_bits to;

	memset(ret, 0, sizeof(*ret));
	if (control_is_others(in))
		rules_of_others(p, ret);
	else
		(void)sources(p, in, ret);
	if (control_everywhere(out))
		return;
	destinations(p, out, exits, &to);
	for (unsigned w = 0; w < POLICY_WORDS; w++)
		ret->w[w] &= to.w[w];
}

static bool account_is(const struct control_call *q, const struct control_name *in, const struct control_name *out,
		       const struct policy_bits *rules, uint32_t slot)
{
	const struct policy *p = q->ctx->policy;
	const struct account_key *k = &q->ctx->area->account[slot].key;
	int rule = policy_rule_by_uid(p, k->rule);

	if (rule < 0)
		return false;
	if (k->kind != SUBJECT_PAIR && k->kind != SUBJECT_HOST)
		return policy_bit(rules, (uint32_t)rule);
	if (!control_in_is(p, in, k->in))
		return false;
	if (k->kind == SUBJECT_PAIR && !account_is_shared(k))
		return control_out_is(out, k->out, k->out_family, q->ctx->area->account_cold[slot].exit);
	return control_everywhere(out) || policy_bit(rules, (uint32_t)rule);
}

/* Blocked ones first, then open findings, then the fullest. */
static double rank_of(const struct control_call *q, uint32_t slot)
{
	const struct area *a = q->ctx->area;
	const struct policy_rule *r = control_rule(q->ctx->policy, a->account[slot].key.rule);
	uint32_t state = control_state(a, slot);
	double best = 0;

	for (uint32_t i = 0; r && i < r->nlimits; i++) {
		uint64_t sum = account_peek_sum(&a->account[slot], &a->account_cold[slot], &r->limit[i],
						mono_tick(q->now));
		double share = (double)sum / (double)(r->limit[i].bytes ? r->limit[i].bytes : 1);

		best = share > best ? share : best;
	}
	return MIN_OF(best, 1e6) + (state & ACCOUNT_BLOCKED ? 4e6 : 0) + (state & ACCOUNT_OPEN ? 2e6 : 0);
}

/* The kernel's refusals of a blocked host are in its account alone: they have no destination. */
static uint64_t refused_by(const struct area *a, const struct control_name *out, uint32_t slot)
{
	const struct account_key *k = &a->account[slot].key;
	const bool of_these = control_everywhere(out) ? k->kind == SUBJECT_PAIR || k->kind == SUBJECT_HOST :
							k->kind == SUBJECT_PAIR && !account_is_shared(k);

	return of_these ? LOAD(a->account[slot].refused) : 0;
}

/* *refused: raised to what one of them refused of these very bytes. */
static void set_accounts(const struct control_call *q, const struct control_name *in, const struct control_name *out,
			 const struct policy_bits *exits, uint64_t *refused, json_t *reply)
{
	const struct area *a = q->ctx->area;
	struct control_choice c = { .n = 0 };
	struct policy_bits rules = { { 0 } };
	json_t *list = json_array();

	if (q->ctx->policy) {
		rules_of(q->ctx->policy, in, out, exits, &rules);
		for (uint32_t i = 0; i < a->h->accounts; i++) {
			if (!table_is_full(&a->accounts, i) || !account_is(q, in, out, &rules, i))
				continue;
			(void)control_choose(&c, i, rank_of(q, i));
			*refused = MAX_OF(*refused, refused_by(a, out, i));
		}
	}
	for (size_t i = 0; i < c.n; i++)
		(void)json_array_append_new(list, control_account(q, c.v[i].slot));
	control_set(reply, "accounts", list);
	control_set_number(reply, "accounts_total", c.all);
}

static bool decision_is(const struct area_dynamic *d, const struct control_name *in, const struct control_name *out)
{
	bool src = false, dst = control_everywhere(out) || d->dst.len == 0;

	for (uint32_t i = 0; i < in->n; i++)
		src |= prefix_contains(&d->src, &in->prefix[i].addr) || prefix_contains(&in->prefix[i], &d->src.addr);
	for (uint32_t i = 0; i < out->n; i++)
		dst |= prefix_contains(&d->dst, &out->prefix[i].addr) || prefix_contains(&out->prefix[i], &d->dst.addr);
	return src && dst;
}

static bool within(const struct prefix *x, const struct control_name *n)
{
	for (uint32_t i = 0; i < n->n; i++)
		if (prefix_covers(&n->prefix[i], x))
			return true;
	return false;
}

/* *refused as in set_accounts(). */
static void set_decisions(const struct control_call *q, const struct control_name *in, const struct control_name *out,
			  uint64_t *refused, json_t *reply)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < AREA_DYNAMIC; i++) {
		struct area_dynamic d = q->ctx->area->h->dynamic[i];
		json_t *o;

		if (d.kind == DYNAMIC_NONE || q->now.ns >= d.until_ns || !decision_is(&d, in, out))
			continue;
		o = control_decision(q, &d);
		if (within(&d.src, in) && (control_everywhere(out) || (d.dst.len && within(&d.dst, out))))
			*refused = MAX_OF(*refused, (uint64_t)json_integer_value(json_object_get(o, "refused_bytes")));
		(void)json_array_append_new(list, o);
	}
	control_set(reply, "decisions", list);
}

/* ---- the verb ---- */

static void set_host(const struct control_call *q, const struct control_name *in, const char *text, json_t *reply)
{
	const struct policy *p = q->ctx->policy;
	const struct policy_host *h = in->host >= 0 ? &p->host[in->host] : NULL;
	json_t *list = json_array();
	char buf[PREFIX_STRLEN];

	control_set_text(reply, "host", h ? policy_string(p, h->name) : text);
	for (uint32_t i = 0; !in->pseudo && i < in->n; i++) {
		const struct prefix *x = &in->prefix[i];

		(void)json_array_append_new(list, json_string(x->len == 128 ? addr_format(&x->addr, buf) :
									      prefix_format(x, buf)));
	}
	control_set(reply, "addresses", list);
	if (h && h->stores_bytes)
		control_set_number(reply, "stores_bytes", h->stores_bytes);
	if (h && h->stores_compressed)
		control_set_number(reply, "stores_compressed", h->stores_compressed);
}

static void set_total(size_t pairs, const struct control_sums *t, json_t *reply)
{
	json_t *o = json_object();

	control_set_number(o, "pairs", pairs);
	control_set_number(o, "bytes", t->bytes);
	control_set_number(o, "packets", t->packets);
	control_set_number(o, "refused_bytes", t->refused);
	control_set_number(o, "unseen_bytes", t->unseen);
	control_set(reply, "total", o);
}

/* Nothing of it was ever counted, and by the policy nothing could be: the question is about the other side. */
static int only_inside(struct control_call *q, const struct control_name *in, const char *host)
{
	struct policy_bits from = { { 0 } };
	char who[400];

	if (!q->ctx->policy || in->pseudo || sources(q->ctx->policy, in, &from) & (SRC_INSIDE | SRC_EXIT))
		return 0;
	if (control_senders(q, in, who, sizeof(who)) == 0)
		return control_refuse(q, -ENOENT, "%.60s is not inside, and nobody is known to have sent to it", host);
	return control_refuse(q, -ENOENT, "%.60s is not inside; most was sent to it by %s: ask egressctl why HOST %.60s", host, who,
			      host);
}

int control_why(struct control_call *q, json_t *reply)
{
	struct policy_bits exits = { { 0 } };
	struct control_name in, out;
	struct control_sums total;
	size_t pairs;
	const char *host, *dest;
	int r = control_text(q, "host", CONTROL_NAME_MAX, false, &host);

	if (r == 0)
		r = control_text(q, "dest", CONTROL_NAME_MAX, true, &dest);
	if (r == 0)
		r = control_name_in(q, host, true, &in);
	if (r == 0)
		r = control_name_out(q, dest, &out);
	if (r < 0)
		return r;
	set_host(q, &in, host, reply);
	control_set(reply, "dest", dest ? control_json_text(dest) : json_null());
	pairs = control_pairs(q, &in, &out, &exits, &total, reply);
	r = pairs ? 0 : only_inside(q, &in, host);
	if (r < 0)
		return r;
	set_accounts(q, &in, &out, &exits, &total.refused, reply);
	set_decisions(q, &in, &out, &total.refused, reply);
	total.refused += control_kept(q, &in, &out, reply);	/* in no account, and in no pair */
	set_total(pairs, &total, reply);
	control_set_number(reply, "gap_seconds", LOAD(q->ctx->area->h->gap_ns) / NS_PER_S);
	return 0;
}
