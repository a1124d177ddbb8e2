/* decision.c - what people decide at run time: unblock, allow, block. One thread; workers see it through the lists. */
#include <errno.h>
#include <string.h>

#include "judge_internal.h"

/* Inside part of an account's subject against a source prefix: an address, or the uid of a named host. */
static bool in_matches(const struct judge *j, const uint8_t in[16], const struct prefix *src)
{
	static const uint8_t zero[12];
	struct addr a = addr_from_v6(in);
	uint32_t uid;
	int host;

	if (memcmp(in, zero, sizeof(zero)) != 0)
		return prefix_contains(src, &a);
	memcpy(&uid, in + 12, sizeof(uid));
	host = j->policy ? policy_src_of(j->policy, &src->addr)->host : -1;
	return host >= 0 && j->policy->host[host].uid == uid;
}

static bool out_matches(const struct account_key *k, const struct prefix *dst)
{
	struct addr a;

	if (dst->len == 0)
		return true;
	if (k->out_family == 4) {
		a = addr_from_v4(k->out);
		return prefix_contains(dst, &a);
	}
	memset(&a, 0, sizeof(a));
	memcpy(a.b, k->out, sizeof(k->out));
	if (dst->len < 64)
		return prefix_contains(dst, &a);
	return memcmp(dst->addr.b, k->out, sizeof(k->out)) == 0;	/* an outside IPv6 address is its /64 */
}

static bool group_matches(const struct judge *j, uint32_t rule, const struct prefix *src)
{
	const struct policy_bits *from = &policy_src_of(j->policy, &src->addr)->from;

	return from->w[rule / 64] >> rule % 64 & 1;
}

static bool concerns(struct judge *j, uint32_t slot, const struct policy_rule *r, const struct prefix *src,
		     const struct prefix *dst)
{
	const struct account_key *k = &j->area.account[slot].key;

	switch (k->kind) {
	case SUBJECT_PAIR:
		return in_matches(j, k->in, src) && out_matches(k, dst);
	case SUBJECT_HOST:
		return in_matches(j, k->in, src);
	default:
		return r && group_matches(j, (uint32_t)(r - j->policy->rule), src);
	}
}

static uint64_t default_budget(const struct policy_rule *r)
{
	uint64_t least = UINT64_MAX;

	for (uint32_t i = 0; i < r->nlimits; i++)
		least = MIN_OF(least, r->limit[i].bytes);
	return least;
}

static void grant(struct judge *j, uint32_t slot, const struct policy_rule *r, uint64_t budget, uint32_t ttl_s,
		  struct mono now)
{
	struct account *a = &j->area.account[slot];
	struct account_cold *c = &j->area.account_cold[slot];

	c->grant_to = account_total(a, c) + (budget ? budget : default_budget(r));
	c->grant_until_ns = mono_add_s(now, ttl_s).ns;
	ledger_unblock(j, slot, now);
	ledger_refresh(j, slot, r, now);
	mark_for_review(&j->area, slot);
}

/* Manual blocks that cover the pair end too. */
static uint32_t lift_blocks(struct judge *j, const struct prefix *src, const struct prefix *dst)
{
	uint32_t n = 0;

	for (unsigned i = 0; i < AREA_DYNAMIC; i++) {
		struct area_dynamic *d = &j->area.h->dynamic[i];
		struct account_key k = { .kind = SUBJECT_TOTAL, .rule = d->uid };
		uint32_t slot;

		if (d->kind != DYNAMIC_BLOCK || !prefix_contains(&d->src, &src->addr))
			continue;
		if (d->dst.len && dst->len && !prefix_contains(&d->dst, &dst->addr))
			continue;
		slot = table_find(&j->area.accounts, area_account_hash(&j->area, &k), (const struct table_key *)&k);
		if (slot != TABLE_NONE) {
			account_lock(&j->area.account[slot]);
			__atomic_store_n(&j->area.account_cold[slot].blocked_until_ns, 0, __ATOMIC_RELAXED);
			account_unlock(&j->area.account[slot]);
		}
		d->until_ns = 0;	/* the review drops it */
		n++;
	}
	return n;
}

int judge_unblock(struct judge *j, const struct prefix *src, const struct prefix *dst, uint64_t budget, uint32_t ttl_s,
		  struct mono now, uint32_t *ret_count)
{
	struct area *a = &j->area;
	uint32_t n = lift_blocks(j, src, dst);

	if (!j->policy)
		return -ENOENT;
	for (uint32_t i = 0; i < a->h->accounts; i++) {
		const struct policy_rule *r;

		if (!table_is_full(&a->accounts, i) ||
		    !(atomic_load_explicit(&a->account[i].state, memory_order_relaxed) & ACCOUNT_BLOCKED))
			continue;
		account_lock(&a->account[i]);
		r = ledger_rule(j, i);
		if (r && concerns(j, i, r, src, dst)) {
			grant(j, i, r, budget, ttl_s, now);
			n++;
		}
		account_unlock(&a->account[i]);
	}
	if (n == 0)
		return -ENOENT;
	*ret_count = n;
	return 0;
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

static int dynamic_account(struct judge *j, const struct area_dynamic *d, uint32_t *ret_slot)
{
	struct account_key k = { .kind = SUBJECT_TOTAL, .rule = d->uid };
	int r = table_insert(&j->area.accounts, area_account_hash(&j->area, &k), (const struct table_key *)&k, ret_slot);

	return r == -EEXIST ? 0 : r;
}

static void begin(struct judge *j, struct area_dynamic *at, const struct area_dynamic *d, enum dynamic_kind kind)
{
	*at = *d;
	at->kind = DYNAMIC_NONE;
	/* Release: pairs with the acquire in add_dynamic(). */
	__atomic_store_n(&at->kind, kind, __ATOMIC_RELEASE);
	judge_lists_changed(j);
}

int judge_allow(struct judge *j, const struct area_dynamic *d, struct mono now)
{
	struct area_dynamic *at;
	struct account_cold *c;
	uint32_t slot;
	int r = place(j, d, &at);

	if (r == 0)
		r = dynamic_account(j, d, &slot);
	if (r < 0)
		return r;
	c = &j->area.account_cold[slot];
	account_lock(&j->area.account[slot]);
	c->rule = ACCOUNT_DYNAMIC;
	c->policy = 1;
	c->born_ns = now.ns;
	c->pair = TABLE_NONE;
	c->grant_to = account_total(&j->area.account[slot], c) + d->budget;
	c->grant_until_ns = d->until_ns;
	ledger_refresh(j, slot, NULL, now);
	account_unlock(&j->area.account[slot]);
	begin(j, at, d, DYNAMIC_ALLOW);
	return 0;
}

int judge_block(struct judge *j, const struct area_dynamic *d, struct mono now)
{
	struct area_dynamic *at;
	struct account_cold *c;
	uint32_t slot;
	int r = place(j, d, &at);

	if (r == 0)
		r = dynamic_account(j, d, &slot);
	if (r < 0)
		return r;
	c = &j->area.account_cold[slot];
	account_lock(&j->area.account[slot]);
	c->rule = ACCOUNT_DYNAMIC;
	c->policy = 1;
	c->born_ns = now.ns;
	c->pair = TABLE_NONE;
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
