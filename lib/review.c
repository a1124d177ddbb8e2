/* review.c - what happens to accounts without a packet: blocks end, findings close, policy changes, recovery. */
#include <errno.h>
#include <string.h>

#include "judge_internal.h"

#define EVICT_AGE_NS (60 * NS_PER_S)

static uint32_t state_of(const struct account *a)
{
	return atomic_load_explicit(&a->state, memory_order_relaxed);
}

void mark_for_review(struct area *a, uint32_t account)
{
	/* Relaxed: the review finds it in this second or the next. */
	atomic_fetch_or_explicit(&a->open[account / 64], 1ULL << account % 64, memory_order_relaxed);
}

static void close_finding(struct judge *j, uint32_t slot, struct mono now)
{
	struct account *a = &j->area.account[slot];
	struct account_cold *c = &j->area.account_cold[slot];
	const bool braked = state_of(a) & ACCOUNT_BRAKED;

	c->over = 0;
	c->breached = 0;
	memset(c->peak, 0, sizeof(c->peak));
	/* Before it is told: who sees the last rev sees that it is over. */
	atomic_fetch_and_explicit(&a->state, ~(uint32_t)(ACCOUNT_OPEN | ACCOUNT_BRAKED), memory_order_relaxed);
	if (braked)	/* its cap was what has passed, twice; now the limit is one again */
		ledger_refresh(j, slot, ledger_rule(j, slot), now);
	ledger_tell(j, slot, now);
}

static bool beyond(const struct account *a, const struct account_cold *c, struct account_terms t)
{
	for (uint32_t i = 0; i < t.count; i++)
		if (account_sum(a, c, &t.limit[i]) > t.limit[i].bytes)
			return true;
	return false;
}

/* Lock held. false: nothing is left that the review must watch. */
static bool review_account(struct judge *j, uint32_t slot, struct mono now, bool observing)
{
	struct account *a = &j->area.account[slot];
	struct account_cold *c = &j->area.account_cold[slot];
	const struct policy_rule *r = ledger_rule(j, slot);
	uint32_t hold = r ? r->hold_s : 1800;
	bool was_blocked = state_of(a) & ACCOUNT_BLOCKED;

	if (!ledger_block_stands(c, r, now))
		ledger_end_block(c);	/* also when the rule is gone, or observes */
	if (was_blocked && (observing || !ledger_block_stands(c, r, now)))
		ledger_unblock(j, slot, now);
	ledger_refresh(j, slot, r, now);
	if (state_of(a) & ACCOUNT_OPEN && !(state_of(a) & ACCOUNT_BLOCKED)) {
		uint64_t quiet = now.ns - __atomic_load_n(&c->last_ns, __ATOMIC_RELAXED);

		if (beyond(a, c, ledger_terms(r)) || ledger_block_stands(c, r, now))
			quiet = 0;	/* an alert speaks at thresholds only; in between it is not over */
		if ((was_blocked && !observing) || quiet >= hold * NS_PER_S)
			close_finding(j, slot, now);
		else if (c->pending)
			ledger_report(j, slot, false, now);
	} else if (c->pending) {
		ledger_report(j, slot, false, now);
	}
	return state_of(a) & (ACCOUNT_OPEN | ACCOUNT_BLOCKED) || now.ns < c->grant_until_ns || ledger_block_stands(c, r, now);
}

static void expire_dynamic(struct judge *j, struct mono now)
{
	bool any = false;

	for (unsigned i = 0; i < AREA_DYNAMIC; i++) {
		struct area_dynamic *d = &j->area.h->dynamic[i];

		if (d->kind == DYNAMIC_NONE || now.ns < d->until_ns)
			continue;
		__atomic_store_n(&d->kind, DYNAMIC_NONE, __ATOMIC_RELEASE);
		any = true;
	}
	if (any)
		judge_lists_changed(j);
}

static void refresh(struct judge *j, uint32_t slot, struct mono now)
{
	account_lock(&j->area.account[slot]);
	ledger_refresh(j, slot, ledger_rule(j, slot), now);
	account_unlock(&j->area.account[slot]);
}

/* A contract's last day is over since the last review: its accounts hear of it now and not at the next tick of their rings. */
static void end_contracts(struct judge *j, struct mono now)
{
	const int64_t was = j->reviewed_s, is = (int64_t)mono_s(now) + j->wall_offset_s;

	j->reviewed_s = is;
	for (uint32_t r = 0; j->policy && r < j->policy->h->nrules; r++) {
		const struct policy_rule *rule = &j->policy->rule[r];

		if (rule->kind != RULE_CONTRACT || rule->until <= was || rule->until > is)
			continue;	/* POLICY_UNTIL_NEVER is later than any */
		for (uint32_t i = 0; i < j->area.h->accounts; i++)
			if (table_is_full(&j->area.accounts, i) && j->area.account[i].key.rule == rule->uid)
				refresh(j, i, now);
	}
}

void judge_review(struct judge *j, struct mono now, void (*changed)(void *ctx, uint32_t account), void *ctx)
{
	struct area *a = &j->area;
	bool observing = now.ns < atomic_load_explicit(&a->h->observe_until_ns, memory_order_relaxed);
	const bool full = ledger_brake_full(j, now);
	uint32_t blocks = 0, braked = 0;

	expire_dynamic(j, now);
	end_contracts(j, now);
	for (uint32_t w = 0; w < a->h->accounts / 64; w++) {
		uint64_t left = atomic_load_explicit(&a->open[w], memory_order_relaxed);

		for (; left; left &= left - 1) {
			uint32_t slot = w * 64 + (uint32_t)__builtin_ctzll(left);
			struct account_cold *c = &a->account_cold[slot];
			bool blocked, announce;

			if (!table_is_full(&a->accounts, slot))
				continue;	/* being evicted */
			account_lock(&a->account[slot]);
			if (!review_account(j, slot, now, observing))
				/* Before the unlock: who opens it again sets the bit again. */
				atomic_fetch_and_explicit(&a->open[w], ~(1ULL << slot % 64), memory_order_relaxed);
			blocked = state_of(&a->account[slot]) & ACCOUNT_BLOCKED;
			braked += full && state_of(&a->account[slot]) & ACCOUNT_BRAKED;
			announce = blocked != (c->announced != 0);
			if (announce)
				c->announced = blocked;
			account_unlock(&a->account[slot]);
			blocks += blocked;
			if (announce && changed)
				changed(ctx, slot);
		}
	}
	atomic_store_explicit(&a->h->blocks, blocks, memory_order_relaxed);
	atomic_store_explicit(&a->h->braked, braked, memory_order_relaxed);
}

/* Versions of lists are 16 bits in a record: when the number comes round, a record not used since must not look fresh. */
static void forget_lists(struct area *a)
{
	for (uint32_t i = 0; i < a->h->pairs; i++)
		atomic_store_explicit(&a->pair[i].version, 0, memory_order_relaxed);
}

void judge_lists_changed(struct judge *j)
{
	struct area *a = &j->area;
	uint32_t next = atomic_load_explicit(&a->h->list_version, memory_order_relaxed) + 1;

	if (next >= PAIR_BUSY) {
		forget_lists(a);
		next = 1;
	}
	/* Release: pairs with the acquire in judge_batch(). */
	atomic_store_explicit(&a->h->list_version, next, memory_order_release);
}

/* Before anybody fills the table: it may not find a place then. */
static void make_others(struct judge *j, struct mono now)
{
	for (uint32_t i = 0; j->policy && i < j->policy->h->nrules; i++)
		if (j->policy->rule[i].per <= PER_HOST)
			(void)account_others(j, &j->policy->rule[i], now);
}

void judge_policy_changed(struct judge *j, struct mono now)
{
	struct area *a = &j->area;

	make_others(j, now);
	judge_lists_changed(j);
	for (uint32_t i = 0; i < a->h->accounts; i++)
		if (table_is_full(&a->accounts, i))
			refresh(j, i, now);
}

/* A host's overflow record, made if need be; TABLE_NONE: no place. */
static uint32_t overflow_of(struct area *a, struct pair_key k)
{
	uint32_t to = TABLE_NONE;

	memset(k.out, 0, sizeof(k.out));
	k.out_family = 0;
	k.class_uid = PAIR_CLASS_OVERFLOW;
	if (table_insert(&a->pairs, area_pair_hash(a, &k), (const struct table_key *)&k, &to) == -ENOSPC)
		return TABLE_NONE;
	return to;
}

/* Of struct area_fold: absolute values, which nobody else writes. */
static void fold_apply(struct area *a)
{
	const struct area_fold *f = &a->h->fold;
	struct pair_cold *c;

	if (f->to == TABLE_NONE) {
		atomic_store_explicit(&a->h->folded_bytes, f->bytes, memory_order_relaxed);
		return;
	}
	c = &a->pair_cold[f->to];
	atomic_store_explicit(&c->folded_bytes, f->bytes, memory_order_relaxed);
	atomic_store_explicit(&c->folded_packets, f->packets, memory_order_relaxed);
	atomic_store_explicit(&c->folded_refused, f->refused, memory_order_relaxed);
}

static uint64_t now_of(const _Atomic uint64_t *x)
{
	return atomic_load_explicit(x, memory_order_relaxed);
}

/* Fold what a pair passed into its host's overflow record, so that host totals stay exact. fold_done() when its slot is free. */
static void fold_pair(struct area *a, uint32_t slot)
{
	const struct pair *p = &a->pair[slot];	/* no overflow record itself: nothing was ever folded into it */
	struct pair_cold *c = &a->pair_cold[slot];
	struct area_fold *f = &a->h->fold;
	uint32_t to = overflow_of(a, p->key);
	const struct pair_cold *at = to == TABLE_NONE ? NULL : &a->pair_cold[to];

	f->slot = slot;
	f->to = to;
	f->bytes = now_of(at ? &at->folded_bytes : &a->h->folded_bytes) + pair_bytes(p, c);
	f->packets = at ? now_of(&at->folded_packets) + pair_packets(p, c) : 0;
	f->refused = at ? now_of(&at->folded_refused) + now_of(&c->refused) : 0;
	/* Release: read by the next process only, after this one is dead; the order matters to the compiler. */
	atomic_store_explicit(&f->valid, 1, memory_order_release);
	fold_apply(a);
	memset(c, 0, sizeof(*c));
}

static void fold_done(struct area *a)
{
	atomic_store_explicit(&a->h->fold.valid, 0, memory_order_release);	/* as above */
}

static bool pair_is_idle(struct area *a, uint32_t slot)
{
	struct pair_cold *c = &a->pair_cold[slot];
	uint32_t packets = atomic_load_explicit(&a->pair[slot].packets, memory_order_relaxed);
	bool idle = packets == c->sweep_packets;

	c->sweep_packets = packets;
	return idle && c->leases == 0 && a->pair[slot].key.class_uid != PAIR_CLASS_OVERFLOW;
}

/* Of every limit no more is used than what it allows in a minute: who is forgotten each minute gains nothing by it. */
static bool used_little(const struct account *x, const struct account_cold *c, const struct policy_rule *r, uint32_t tick)
{
	for (uint32_t i = 0; i < r->nlimits; i++)
		if (account_peek_sum(x, c, &r->limit[i], tick) > r->limit[i].bytes / MAX_OF(r->limit[i].seconds / 60, 1U))
			return false;
	return true;
}

/* An account that nobody would miss: closed, no credit out, quiet for a minute, and little used of its limits. */
static bool account_is_idle(struct judge *j, uint32_t slot, struct mono now)
{
	struct account *x = &j->area.account[slot];
	struct account_cold *c = &j->area.account_cold[slot];
	const struct policy_rule *r;
	bool little;

	if ((x->key.kind != SUBJECT_PAIR && x->key.kind != SUBJECT_HOST) || memcmp(x->key.in, pair_others.b, sizeof(x->key.in)) == 0)
		return false;
	if (state_of(x) & ~(uint32_t)ACCOUNT_LOCK || c->leases || now.ns < c->grant_until_ns || now.ns - c->born_ns < EVICT_AGE_NS)
		return false;
	if (mono_tick(now) - atomic_load_explicit(&x->tick, memory_order_relaxed) <= 12)
		return false;
	account_lock(x);
	r = ledger_rule(j, slot);
	little = !r || used_little(x, c, r, mono_tick(now));
	account_unlock(x);
	return little;
}

static unsigned retire(struct judge *j, unsigned which, struct table *t, unsigned want, struct mono now)
{
	struct area *a = &j->area;
	uint32_t cap = table_capacity(t);

	for (uint32_t i = 0; i < cap && j->nretired[which] < want; i++) {
		uint32_t slot = t->state->hand++ & (cap - 1);

		if (!table_is_full(t, slot))
			continue;
		if (which == 0 ? !pair_is_idle(a, slot) : !account_is_idle(j, slot, now))
			continue;
		if (table_retire(t, slot))
			j->retired[which][j->nretired[which]++] = slot;
	}
	return j->nretired[which];
}

static bool crowded(const struct table *t)
{
	uint32_t live = atomic_load_explicit(&t->state->live, memory_order_relaxed), cap = table_capacity(t);

	return live > cap / 8 * 7;
}

unsigned judge_evict_retire(struct judge *j, struct mono now)
{
	struct area *a = &j->area;
	unsigned n = 0;

	if (crowded(&a->pairs))
		n += retire(j, 0, &a->pairs, JUDGE_EVICT, now);
	if (crowded(&a->accounts)) {
		unsigned m = retire(j, 1, &a->accounts, JUDGE_EVICT, now);

		if (m)
			judge_lists_changed(j);	/* lists may name them */
		n += m;
	}
	return n;
}

void judge_evict_release(struct judge *j)
{
	struct area *a = &j->area;

	for (unsigned i = 0; i < j->nretired[0]; i++) {
		fold_pair(a, j->retired[0][i]);
		table_release(&a->pairs, j->retired[0][i]);
		fold_done(a);
	}
	for (unsigned i = 0; i < j->nretired[1]; i++) {
		uint32_t slot = j->retired[1][i];

		/* A worker may have marked it while it was going; the next one in its place would be reviewed as it. */
		atomic_fetch_and_explicit(&a->open[slot / 64], ~(1ULL << slot % 64), memory_order_relaxed);
		memset(&a->account_cold[slot], 0, sizeof(struct account_cold));
		table_release(&a->accounts, slot);
	}
	j->nretired[0] = j->nretired[1] = 0;
}

static void recover_dying_pair(void *ctx, uint32_t slot)
{
	struct area *a = &((struct judge *)ctx)->area;

	/* The one that was being folded was done again by judge_recover(). */
	if (slot == a->h->fold.slot && atomic_load_explicit(&a->h->fold.valid, memory_order_relaxed))
		memset(&a->pair_cold[slot], 0, sizeof(a->pair_cold[slot]));
	else
		fold_pair(a, slot);
	fold_done(a);
}

static void recover_dying_account(void *ctx, uint32_t slot)
{
	struct judge *j = ctx;

	memset(&j->area.account_cold[slot], 0, sizeof(struct account_cold));
}

void judge_recover(struct judge *j)
{
	struct area *a = &j->area;

	table_recover(&a->accounts, recover_dying_account, j);
	if (atomic_load_explicit(&a->h->fold.valid, memory_order_relaxed))
		fold_apply(a);
	table_recover(&a->pairs, recover_dying_pair, j);
	judge_lists_changed(j);
	for (uint32_t i = 0; i < a->h->pairs; i++) {
		uint16_t busy = PAIR_BUSY;

		atomic_compare_exchange_strong_explicit(&a->pair[i].version, &busy, 0, memory_order_relaxed,
							memory_order_relaxed);
	}
	for (uint32_t i = 0; i < a->h->accounts; i++) {
		if (!table_is_full(&a->accounts, i))
			continue;
		account_recover(&a->account[i]);
		a->account_cold[i].announced = 0;	/* the kernel's elements are put in again */
		if (a->account_cold[i].rule != ACCOUNT_DYNAMIC)
			a->account_cold[i].policy = 0;
		if (state_of(&a->account[i]) || a->account_cold[i].rule == ACCOUNT_DYNAMIC)
			mark_for_review(a, i);
	}
}
