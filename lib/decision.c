/* decision.c - what people decide at run time: unblock, allow, block. One thread; workers see it through the lists. */
#include <errno.h>
#include <string.h>

#include "judge_internal.h"

#define LEAST_PACKET 20		/* bytes: an IPv4 header */

/* Inside part of an account's subject against a source prefix: an address, or the uid of a named host. */
static bool in_matches(const struct judge *j, const uint8_t in[16], const struct prefix *src)
{
	struct addr a = addr_from_v6(in);
	uint32_t uid;
	int host;

	if (!policy_in_is_uid(in, &uid))
		return prefix_contains(src, &a);
	host = j->policy ? policy_src_of(j->policy, &src->addr)->host : -1;
	return host >= 0 && j->policy->host[host].uid == uid;
}

/* dst as outside() makes it. */
static bool out_matches(const uint8_t out[8], uint8_t family, const struct prefix *dst)
{
	struct addr a = { { 0 } };

	if (dst->len == 0)
		return true;
	if (family == 4)
		a = addr_from_v4(out);
	else
		memcpy(a.b, out, 8);
	return prefix_contains(dst, &a);
}

/* An outside IPv6 address is its /64: pairs know no more. */
static struct prefix outside(const struct prefix *dst)
{
	if (dst->len <= 64 || addr_is_v4(&dst->addr))
		return *dst;
	return (struct prefix){ .addr = addr_mask(&dst->addr, 64), .len = 64 };
}

/* Packets to dst are charged to the rule: it names dst, or the pair that crossed its limit goes there (by an exit's device). */
static bool goes_there(const struct judge *j, uint32_t slot, uint32_t rule, const struct prefix *dst)
{
	const uint32_t pair = j->area.account_cold[slot].pair;

	if (dst->len == 0 || policy_bit(&policy_dst_of(j->policy, &dst->addr)->to, rule))
		return true;
	return pair != TABLE_NONE && table_is_full(&j->area.pairs, pair) &&
	       out_matches(j->area.pair[pair].key.out, j->area.pair[pair].key.out_family, dst);
}

/* A shared account is not for who has one of his own. dst that is several: it may be. */
static bool has_its_own(const struct judge *j, const struct account_key *shared, const struct prefix *dst)
{
	struct account_key k = *shared;
	struct pair_key to;

	if (dst->len < (addr_is_v4(&dst->addr) ? 128 : 64))
		return false;
	pair_out(&to, &dst->addr);
	memcpy(k.out, to.out, sizeof(k.out));
	k.out_family = to.out_family;
	return table_find(&j->area.accounts, area_account_hash(&j->area, &k), (const struct table_key *)&k) != TABLE_NONE;
}

static bool concerns(const struct judge *j, uint32_t slot, const struct policy_rule *r, const struct prefix *src,
		     const struct prefix *dst)
{
	const struct account_key *k = &j->area.account[slot].key;
	const uint32_t rule = (uint32_t)(r - j->policy->rule);

	if (account_is_shared(k))
		return in_matches(j, k->in, src) && !has_its_own(j, k, dst) && goes_there(j, slot, rule, dst);
	if (k->kind == SUBJECT_PAIR)
		return in_matches(j, k->in, src) && out_matches(k->out, k->out_family, dst);
	if (k->kind == SUBJECT_HOST ? !in_matches(j, k->in, src) : !policy_bit(&policy_src_of(j->policy, &src->addr)->from, rule))
		return false;
	return goes_there(j, slot, rule, dst);
}

static void grant(struct judge *j, uint32_t slot, const struct policy_rule *r, uint64_t budget, uint32_t ttl_s,
		  struct mono now)
{
	struct account *a = &j->area.account[slot];
	struct account_cold *c = &j->area.account_cold[slot];

	c->grant_to = account_total(a, c) + (budget ? budget : policy_least_limit(r));
	c->grant_until_ns = mono_add_s(now, ttl_s).ns;
	ledger_end_block(c);
	ledger_unblock(j, slot, now);
	ledger_refresh(j, slot, r, now);
	mark_for_review(&j->area, slot);
}

static bool within(const struct prefix *x, const struct prefix *all)
{
	return x->len >= all->len && (all->len == 0 || prefix_contains(all, &x->addr));
}

static bool overlap(const struct prefix *x, const struct prefix *y)
{
	return within(x, y) || within(y, x);
}

static void lift(struct judge *j, struct area_dynamic *d)
{
	struct account_key k = { .kind = SUBJECT_TOTAL, .rule = d->uid };
	uint32_t slot = table_find(&j->area.accounts, area_account_hash(&j->area, &k), (const struct table_key *)&k);

	if (slot != TABLE_NONE) {
		account_lock(&j->area.account[slot]);
		__atomic_store_n(&j->area.account_cold[slot].blocked_until_ns, 0, __ATOMIC_RELAXED);
		account_unlock(&j->area.account[slot]);
	}
	d->until_ns = 0;	/* the review drops it */
}

/* Blocks by hand within src and dst end. -EBUSY: one that reaches further holds some of it. */
static int lift_blocks(struct judge *j, const struct prefix *src, const struct prefix *dst, struct mono now,
		       struct judge_unblocked *ret)
{
	struct area_dynamic *inner[AREA_DYNAMIC];
	uint32_t n = 0;

	for (unsigned i = 0; i < AREA_DYNAMIC; i++) {
		struct area_dynamic *d = &j->area.h->dynamic[i];

		if (d->kind != DYNAMIC_BLOCK || now.ns >= d->until_ns || !overlap(&d->src, src) || !overlap(&d->dst, dst))
			continue;
		if (!within(&d->src, src) || !within(&d->dst, dst)) {
			ret->wider = d;
			return -EBUSY;
		}
		inner[n++] = d;
	}
	for (uint32_t i = 0; i < n; i++)
		lift(j, inner[i]);
	ret->by_hand = n;
	return 0;
}

/* The next account from *slot on whose rule refuses what goes from src to dst: locked, its rule. NULL: no more. */
static const struct policy_rule *lock_refusing(struct judge *j, uint32_t *slot, const struct prefix *src, const struct prefix *dst)
{
	struct area *a = &j->area;

	for (; j->policy && *slot < a->h->accounts; (*slot)++) {
		const struct policy_rule *r;

		/* 0: no block, also none that holds again when blocking is on. */
		if (!table_is_full(&a->accounts, *slot) ||
		    __atomic_load_n(&a->account_cold[*slot].blocked_until_ns, __ATOMIC_RELAXED) == 0)
			continue;
		account_lock(&a->account[*slot]);
		r = ledger_rule(j, *slot);
		if (r && concerns(j, *slot, r, src, dst))
			return r;
		account_unlock(&a->account[*slot]);
	}
	return NULL;
}

uint64_t judge_unblock_default(struct judge *j, const struct prefix *src, const struct prefix *to)
{
	const struct prefix dst = outside(to);
	const struct policy_rule *r;
	uint64_t most = 0;

	for (uint32_t i = 0; (r = lock_refusing(j, &i, src, &dst)); i++) {
		most = MAX_OF(most, policy_least_limit(r));
		account_unlock(&j->area.account[i]);
	}
	return most;
}

int judge_unblock(struct judge *j, const struct prefix *src, const struct prefix *to, uint64_t budget, uint32_t ttl_s,
		  struct mono now, struct judge_unblocked *ret)
{
	const struct prefix dst = outside(to);
	const struct policy_rule *r;
	int e = lift_blocks(j, src, &dst, now, ret);

	if (e < 0)
		return e;
	ret->accounts = 0;
	for (uint32_t i = 0; (r = lock_refusing(j, &i, src, &dst)); i++) {
		grant(j, i, r, budget, ttl_s, now);
		ret->accounts++;
		account_unlock(&j->area.account[i]);
	}
	return ret->accounts + ret->by_hand ? 0 : -ENOENT;
}

static int place(struct judge *j, const struct area_dynamic *d, struct area_dynamic **ret_place)
{
	struct area_dynamic *free_one = NULL;

	for (unsigned i = 0; i < AREA_DYNAMIC; i++) {
		struct area_dynamic *x = &j->area.h->dynamic[i];

		if (x->kind != DYNAMIC_NONE && x->uid == d->uid)
			return -EEXIST;
		if (x->kind == DYNAMIC_NONE && !free_one)
			free_one = x;
	}
	if (!free_one)
		return -ENOSPC;
	*ret_place = free_one;
	return 0;
}

static bool same_prefix(const struct prefix *x, const struct prefix *y)
{
	return x->len == y->len && memcmp(&x->addr, &y->addr, sizeof(x->addr)) == 0;
}

bool judge_stands(const struct judge *j, const struct area_dynamic *d, enum dynamic_kind kind)
{
	const struct prefix dst = outside(&d->dst);

	for (unsigned i = 0; i < AREA_DYNAMIC; i++) {
		const struct area_dynamic *x = &j->area.h->dynamic[i];

		if (x->kind != DYNAMIC_NONE && x->uid == d->uid && strcmp(x->id, d->id) == 0)
			return x->kind == kind && x->budget == d->budget && same_prefix(&x->src, &d->src) &&
			       same_prefix(&x->dst, &dst) && strcmp(x->author, d->author) == 0 && strcmp(x->reason, d->reason) == 0;
	}
	return false;
}

/* Its place and its account, which is locked. */
static int dynamic_lock(struct judge *j, const struct area_dynamic *d, struct mono now, struct area_dynamic **ret_at, uint32_t *ret_slot)
{
	struct account_key k = { .kind = SUBJECT_TOTAL, .rule = d->uid };
	struct account_cold *c;
	int r = place(j, d, ret_at);

	if (r < 0)
		return r;
	r = table_insert(&j->area.accounts, area_account_hash(&j->area, &k), (const struct table_key *)&k, ret_slot);
	if (r < 0 && r != -EEXIST)
		return r;
	c = &j->area.account_cold[*ret_slot];
	account_lock(&j->area.account[*ret_slot]);
	c->rule = ACCOUNT_DYNAMIC;
	c->policy = 1;
	c->born_ns = now.ns;
	c->pair = TABLE_NONE;
	return 0;
}

static void begin(struct judge *j, struct area_dynamic *at, const struct area_dynamic *d, enum dynamic_kind kind)
{
	*at = *d;
	at->dst = outside(&d->dst);
	at->kind = DYNAMIC_NONE;
	/* Release: pairs with the acquire in find_dynamic(). */
	__atomic_store_n(&at->kind, kind, __ATOMIC_RELEASE);
	judge_lists_changed(j);
}

int judge_allow(struct judge *j, const struct area_dynamic *d, struct mono now)
{
	struct area_dynamic *at;
	struct account_cold *c;
	uint32_t slot;
	int r = dynamic_lock(j, d, now, &at, &slot);

	if (r < 0)
		return r;
	c = &j->area.account_cold[slot];
	c->grant_to = account_total(&j->area.account[slot], c) + d->budget;
	c->grant_until_ns = d->until_ns;
	ledger_refresh(j, slot, NULL, now);
	account_unlock(&j->area.account[slot]);
	begin(j, at, d, DYNAMIC_ALLOW);
	return 0;
}

bool judge_allows(const struct area *a, const struct area_dynamic *d, struct mono now)
{
	const struct account_key k = { .kind = SUBJECT_TOTAL, .rule = d->uid };
	const struct account_cold *c;
	uint32_t slot;

	if (d->kind != DYNAMIC_ALLOW || now.ns >= d->until_ns)
		return false;
	slot = table_find(&a->accounts, area_account_hash(a, &k), (const struct table_key *)&k);
	if (slot == TABLE_NONE)
		return false;
	c = &a->account_cold[slot];
	return now.ns < __atomic_load_n(&c->grant_until_ns, __ATOMIC_RELAXED) &&
	       account_total(&a->account[slot], c) + LEAST_PACKET <= c->grant_to;
}

int judge_block(struct judge *j, const struct area_dynamic *d, struct mono now)
{
	struct area_dynamic *at;
	struct account_cold *c;
	uint32_t slot;
	int r = dynamic_lock(j, d, now, &at, &slot);

	if (r < 0)
		return r;
	c = &j->area.account_cold[slot];
	c->grant_to = 0;
	c->blocked_at_ns = now.ns;
	c->until_window = ACCOUNT_LIMITS;
	__atomic_store_n(&c->blocked_until_ns, d->until_ns, __ATOMIC_RELAXED);
	atomic_fetch_or_explicit(&j->area.account[slot].state, ACCOUNT_BLOCKED, memory_order_relaxed);
	ledger_refresh(j, slot, NULL, now);
	account_unlock(&j->area.account[slot]);
	mark_for_review(&j->area, slot);
	begin(j, at, d, DYNAMIC_BLOCK);
	return 0;
}
