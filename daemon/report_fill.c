/* report_fill.c - see report_fill.h. */
#include "report_fill.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "clock.h"
#include "community_id.h"

static const char *const kinds[] = { "", "pair", "host", "group", "total" };

/* Place of the account among those that the pair pays, contracts first; -1. */
static int place_of(const struct area *a, uint32_t slot, uint32_t pair, unsigned *ret_contracts)
{
	const struct pair *x = &a->pair[pair];
	const struct pair_cold *c = &a->pair_cold[pair];
	unsigned n;

	*ret_contracts = atomic_load_explicit(&x->n_contract, memory_order_relaxed) & 0x7fU;
	n = *ret_contracts + atomic_load_explicit(&x->n_rule, memory_order_relaxed);
	for (unsigned i = 0; i < n && i < PAIR_ACCOUNTS; i++) {
		const _Atomic uint32_t *at = i < PAIR_INLINE ? &x->account[i] : &c->account[i - PAIR_INLINE];

		if (atomic_load_explicit(at, memory_order_relaxed) == slot)
			return (int)i;
	}
	return -1;
}

/* Slot of the subject's pair that crossed last, if it is still there: the place may be another's by now. */
static uint32_t pair_of(const struct area *a, uint32_t slot)
{
	uint32_t pair = a->account_cold[slot].pair;
	unsigned contracts;

	return pair < a->h->pairs && table_is_full(&a->pairs, pair) && place_of(a, slot, pair, &contracts) >= 0 ? pair : TABLE_NONE;
}

static bool is_pseudo(const uint8_t in[16])
{
	return memcmp(in, pair_gateway.b, 16) == 0 || memcmp(in, pair_unlisted.b, 16) == 0 || memcmp(in, pair_others.b, 16) == 0;
}

/* An address: of what stands for several, that of the packet that crossed; "": there was none yet. */
static void put_address(const struct account_cold *c, const uint8_t in[16], char buf[ADDR_STRLEN])
{
	static const struct addr none;
	uint32_t uid;
	struct addr a = policy_in_is_uid(in, &uid) || is_pseudo(in) ? c->flow_src : addr_from_v6(in);

	buf[0] = '\0';
	if (addr_cmp(&a, &none) != 0)
		addr_format(&a, buf);
}

/* As egressctl takes it: a host of the policy, gateway, unlisted, others or an address. */
static void put_name(const struct policy *p, const uint8_t in[16], char buf[FINDING_TEXT])
{
	int host = policy_host_of_in(p, in);
	char text[ADDR_STRLEN];

	snprintf(buf, FINDING_TEXT, "%s", host >= 0 ? policy_string(p, p->host[host].name) : pair_in_format(in, text));
}

static void fill_subject(const struct area *a, const struct policy *p, const struct policy_rule *r, uint32_t slot,
			 struct finding *f)
{
	const struct account_key *k = &a->account[slot].key;
	int host = k->kind == SUBJECT_PAIR || k->kind == SUBJECT_HOST ? policy_host_of_in(p, k->in) : -1;

	snprintf(f->subject_kind, sizeof(f->subject_kind), "%s", kinds[k->kind <= SUBJECT_TOTAL ? k->kind : 0]);
	if (k->kind == SUBJECT_GROUP || k->kind == SUBJECT_TOTAL) {
		snprintf(f->subject_name, sizeof(f->subject_name), "%s",
			 policy_string(p, k->kind == SUBJECT_GROUP ? r->group_name : r->name));
		return;
	}
	put_address(&a->account_cold[slot], k->in, f->subject_ip);
	put_name(p, k->in, f->subject_name);
	if (host >= 0)
		f->stored_compressed = p->host[host].stores_compressed;
	if (k->kind != SUBJECT_PAIR)
		return;
	snprintf(f->src_ip, sizeof(f->src_ip), "%s", f->subject_ip);
	pair_out_format(k->out, k->out_family, f->dest_ip);
}

static void fill_windows(const struct area *a, const struct policy_rule *r, uint32_t slot, struct finding *f)
{
	const struct account_cold *c = &a->account_cold[slot];
	uint32_t tick = mono_tick(clock_mono());
	double worst = -1;

	for (uint32_t i = 0; i < r->nlimits; i++) {
		const struct account_limit *l = &r->limit[i];
		uint64_t sum = account_peek_sum(&a->account[slot], c, l, tick);
		double share = (double)sum / (double)(l->bytes ? l->bytes : 1);

		if (c->over & 1U << i && f->nreasons < FINDING_REASONS)
			f->reason[f->nreasons++] = (struct finding_reason){ l->seconds, sum, l->bytes };
		/* The window that speaks: one that was reached before one that was not, then the fullest. */
		share += c->over & 1U << i ? 1000 : 0;
		if (share > worst) {
			worst = share;
			f->observed_bytes = sum;
			f->limit_bytes = l->bytes;
			f->window_s = l->seconds;
		}
	}
}

static void fill_verdict(const struct area *a, const struct policy_rule *r, uint32_t slot, struct finding *f)
{
	const struct account_cold *c = &a->account_cold[slot];
	uint32_t state = atomic_load_explicit(&a->account[slot].state, memory_order_relaxed);
	bool blocked = state & ACCOUNT_BLOCKED;

	if (blocked) {
		f->verdict = VERDICT_BLOCK;
		f->until_us = clock_wall_of((struct mono){ c->blocked_until_ns });
		f->zone_s = clock_zone(f->until_us, f->zone);
		f->until_window_s = c->until_window < r->nlimits ? r->limit[c->until_window].seconds : 0;
	} else if (!(state & ACCOUNT_OPEN)) {
		f->verdict = VERDICT_ALLOW;
	} else {
		/* Mode observe, `egressctl observe`, the brake: something else than the rule's word lets it through. A rule that
		 * enforces and does not block has granted credit (unblock). */
		bool held = !r->enforce || state & ACCOUNT_BRAKED ||
			    clock_mono().ns < atomic_load_explicit(&a->h->observe_until_ns, memory_order_relaxed);

		f->verdict = r->action == ACTION_BLOCK && r->kind == RULE_RULE && held ? VERDICT_WOULD_BLOCK : VERDICT_ALERT;
	}
	snprintf(f->action, sizeof(f->action), "%s", policy_action_name(r->action));
	f->refused_bytes = atomic_load_explicit(&a->account[slot].refused, memory_order_relaxed) - c->opened_refused;
}

static void add_top(struct finding *f, const struct area *a, const struct policy *p, uint32_t pair)
{
	const struct pair *x = &a->pair[pair];
	uint64_t bytes = pair_bytes(x, &a->pair_cold[pair]);
	struct finding_top t = { .bytes = bytes };
	uint32_t at = f->ntop;

	if (at == FINDING_TOP) {
		if (f->top[at - 1].bytes >= bytes)
			return;
		at--;
	} else {
		f->ntop++;
	}
	if (is_pseudo(x->key.in) || policy_host_of_in(p, x->key.in) >= 0)
		put_name(p, x->key.in, t.name);
	if (!is_pseudo(x->key.in))
		pair_in_format(x->key.in, t.src_ip);
	pair_out_format(x->key.out, x->key.out_family, t.dest_ip);
	t.port = atomic_load_explicit(&a->pair_cold[pair].port, memory_order_relaxed);
	for (; at > 0 && f->top[at - 1].bytes < bytes; at--)
		f->top[at] = f->top[at - 1];
	f->top[at] = t;
}

/* Whether the pair pays this account: its own list says so. A pair under a contract pays that first; what little of it falls to
 * the rules would be drowned by what does not. */
static bool pays(const struct area *a, uint32_t slot, uint32_t pair)
{
	unsigned contracts;
	int at = place_of(a, slot, pair, &contracts);

	return at >= 0 && ((unsigned)at < contracts || contracts == 0);
}

/* A pair is its own: what the account has of it in the window that speaks. */
static void top_of_pair(const struct area *a, uint32_t slot, struct finding *f)
{
	struct finding_top *t = &f->top[f->ntop++];
	uint32_t pair = pair_of(a, slot);

	snprintf(t->src_ip, sizeof(t->src_ip), "%s", f->src_ip);
	snprintf(t->dest_ip, sizeof(t->dest_ip), "%s", f->dest_ip);
	if (strcmp(f->subject_name, f->src_ip) != 0)
		snprintf(t->name, sizeof(t->name), "%s", f->subject_name);
	if (pair != TABLE_NONE)
		t->port = atomic_load_explicit(&a->pair_cold[pair].port, memory_order_relaxed);
	t->bytes = f->observed_bytes;
}

static void fill_top(const struct area *a, const struct policy *p, uint32_t slot, bool scan, struct finding *f)
{
	uint32_t pair = pair_of(a, slot);

	if (a->account[slot].key.kind == SUBJECT_PAIR) {
		top_of_pair(a, slot, f);
		return;
	}
	if (!scan) {
		if (pair != TABLE_NONE)
			add_top(f, a, p, pair);
		return;
	}
	for (uint32_t i = 0; i < a->h->pairs; i++)
		if (table_is_full(&a->pairs, i) && pays(a, slot, i))
			add_top(f, a, p, i);
}

static void fill_flow(const struct area *a, const struct policy *p, uint32_t slot, struct finding *f)
{
	const struct account_cold *c = &a->account_cold[slot];

	f->opened_by = c->opened_by;
	if (c->exit && c->exit <= p->h->nexits)
		snprintf(f->exit, sizeof(f->exit), "%s", policy_string(p, p->exit[c->exit - 1].name));
	if (!f->exit[0]) {
		const struct policy_dst *d = policy_dst_of(p, &c->flow_dst);

		if (d->exit >= 0)
			snprintf(f->exit, sizeof(f->exit), "%s", policy_string(p, p->exit[d->exit].name));
	}
	/* A threshold that leases passed has no packet. */
	if (a->account[slot].key.kind == SUBJECT_PAIR && addr_cmp(&c->flow_src, &(struct addr){ { 0 } }) != 0)
		community_id(&c->flow_src, &c->flow_dst, c->flow_proto, c->flow_sport, c->flow_dport, 0, f->community_id);
}

static void fill_words(const struct policy *p, const struct policy_rule *r, const struct account_key *k, struct finding *f)
{
	char sum[16], limit[16], window[16];

	format_bytes(f->observed_bytes, sum);
	format_bytes(f->limit_bytes, limit);
	format_duration(f->window_s, window);
	snprintf(f->rule, sizeof(f->rule), "%s", policy_string(p, r->name));
	snprintf(f->per, sizeof(f->per), "%s", policy_per_name(r->per));
	snprintf(f->category, sizeof(f->category), "%s",
		 r->kind == RULE_CONTRACT ? "contract-breach" : "bulk-egress");
	snprintf(f->signature, sizeof(f->signature), "%s: %s in %s%s, limit %s", f->rule, sum, window,
		 account_is_shared(k) ? " to other destinations" : "", limit);
	f->severity = r->severity;
}

/* Exact, and in the largest unit that is. */
static const char *exact_size(uint64_t n, char buf[32])
{
	static const char *const unit[] = { "B", "kB", "MB", "GB", "TB" };
	unsigned u = 0;

	for (; n && n % 1000 == 0 && u + 1 < ARRAY_SIZE(unit); u++)
		n /= 1000;
	snprintf(buf, 32, "%" PRIu64 "%s", n, unit[u]);
	return buf;
}

/* One of those that pay the account: its own address or host, or of a group the one that crossed last. */
static void put_member(const struct area *a, const struct policy *p, uint32_t slot, char buf[FINDING_TEXT])
{
	const struct account_key *k = &a->account[slot].key;
	uint32_t pair = pair_of(a, slot);

	if (k->kind == SUBJECT_PAIR || k->kind == SUBJECT_HOST)
		put_name(p, k->in, buf);
	else if (pair != TABLE_NONE)
		put_name(p, a->pair[pair].key.in, buf);
	else
		put_address(&a->account_cold[slot], pair_unlisted.b, buf);
}

const char *report_way_on(const struct area *a, const struct policy *p, uint32_t slot, char *buf, size_t size)
{
	const struct account_key *k = &a->account[slot].key;
	int i = p ? policy_rule_by_uid(p, k->rule) : -1;
	char who[FINDING_TEXT] = "", dest[PREFIX_STRLEN] = "", budget[32];

	buf[0] = '\0';
	if (i < 0 || !(atomic_load_explicit(&a->account[slot].state, memory_order_relaxed) & ACCOUNT_BLOCKED))
		return buf;
	put_member(a, p, slot, who);
	if (k->kind == SUBJECT_PAIR && !account_is_shared(k))
		pair_out_format(k->out, k->out_family, dest);
	if (who[0])
		snprintf(buf, size, "egressctl unblock %s%s%s --budget %s --for 1h --reason '...'", who, dest[0] ? " " : "", dest,
			 exact_size(policy_least_limit(&p->rule[i]), budget));
	return buf;
}

bool report_fill(const struct area *a, const struct policy *p, const struct config *c, uint32_t slot, bool scan_pairs,
		 struct finding *f)
{
	const struct account_cold *x = &a->account_cold[slot];
	const struct policy_rule *r;
	int i = p ? policy_rule_by_uid(p, a->account[slot].key.rule) : -1;

	if (i < 0 || !x->finding_id)
		return false;
	r = &p->rule[i];
	memset(f, 0, sizeof(*f));
	f->event = EVENT_ALERT;
	f->wall_us = clock_wall_us();
	f->finding_id = f->incident_id = x->finding_id;
	f->rev = atomic_load_explicit(&x->rev, memory_order_relaxed);
	snprintf(f->gateway, sizeof(f->gateway), "%s", c->gateway);
	f->policy_version = atomic_load_explicit(&a->h->policy_version, memory_order_relaxed);
	f->first_seen_us = clock_wall_of((struct mono){ x->opened_ns });
	f->last_seen_us = clock_wall_of((struct mono){ x->last_ns });
	f->unseen_bytes = atomic_load_explicit(&a->h->unseen_bytes, memory_order_relaxed);
	f->seen_bytes = area_passed_bytes(a);
	fill_subject(a, p, r, slot, f);
	fill_windows(a, r, slot, f);
	fill_verdict(a, r, slot, f);
	fill_flow(a, p, slot, f);
	fill_top(a, p, slot, scan_pairs, f);
	fill_words(p, r, &a->account[slot].key, f);
	(void)report_way_on(a, p, slot, f->how_to_allow, sizeof(f->how_to_allow));
	return true;
}
