/* lender.c - see lender.h for the contract. */
#include "lender.h"

#include <errno.h>
#include <string.h>

#include "judge_internal.h"

static uint64_t hash_of(const struct area *a, const struct lease_key *key)
{
	return hash_bytes(&a->h->hash_key, key, sizeof(*key));
}

uint32_t lease_find(const struct area *a, const struct lease_key *key)
{
	return table_find(&a->leases, hash_of(a, key), (const struct table_key *)key);
}

/* ---- steps [Z5] ---- */

/* Relaxed throughout: one thread writes; others read whole values under the account's lock, or for people. */
static void put(uint64_t *to, uint64_t v)
{
	__atomic_store_n(to, v, __ATOMIC_RELAXED);
}

/* Absolute values: doing it twice does it once. */
static void step_apply(struct area *a)
{
	const struct lease_step *s = &a->h->lease_step;
	struct lease *l = &a->lease[s->lease];

	if (s->share == l->nshares) {
		struct pair_cold *c = &a->pair_cold[l->pair];

		atomic_store_explicit(&c->leased_bytes, s->leased, memory_order_relaxed);
		atomic_store_explicit(&c->leased_packets, s->outstanding, memory_order_relaxed);
		atomic_store_explicit(&a->h->leased_bytes, s->all_bytes, memory_order_relaxed);
		atomic_store_explicit(&a->h->leased_packets, s->all_packets, memory_order_relaxed);
		put(&l->pair_settled, s->settled);
		put(&l->pair_packets, s->granted);
	} else {
		struct lease_share *sh = &l->share[s->share];
		struct account_cold *c = &a->account_cold[sh->account];

		put(&c->outstanding, s->outstanding);
		put(&c->leased, s->leased);
		put(&sh->granted, s->granted);
		put(&sh->settled, s->settled);
	}
}

static void step(struct area *a, const struct lease_step *to)
{
	struct lease_step *s = &a->h->lease_step;

	s->lease = to->lease;
	s->share = to->share;
	s->granted = to->granted;
	s->settled = to->settled;
	s->outstanding = to->outstanding;
	s->leased = to->leased;
	s->all_bytes = to->all_bytes;
	s->all_packets = to->all_packets;
	/* Release, both: read by the next process only, after this one is dead; the order matters to the compiler. */
	atomic_store_explicit(&s->valid, 1, memory_order_release);
	step_apply(a);
	atomic_store_explicit(&s->valid, 0, memory_order_release);
}

static void step_share(struct judge *j, uint32_t slot, uint32_t i, struct mono now)
{
	struct area *a = &j->area;
	struct lease *l = &a->lease[slot];
	const struct lease_share *sh = &l->share[i];
	const uint64_t grown = l->granted - sh->granted, passed = l->settled - sh->settled;
	struct account *x = &a->account[sh->account];
	struct account_cold *c = &a->account_cold[sh->account];

	if (!grown && !passed)	/* grown may be negative: a grant taken back */
		return;
	account_lock(x);
	step(a, &(struct lease_step){ .lease = slot, .share = i, .granted = l->granted, .settled = l->settled,
				      .outstanding = c->outstanding + grown - passed, .leased = c->leased + passed });
	if (c->outstanding == 0) {	/* nothing to wait for */
		c->holds = 0;
		c->hold_until_ns = 0;
	}
	if (now.ns)
		ledger_leased(j, sh->account, now);
	account_unlock(x);
}

static void step_pair(struct area *a, uint32_t slot)
{
	struct lease *l = &a->lease[slot];
	struct pair_cold *c = &a->pair_cold[l->pair];
	const uint64_t bytes = l->settled - l->pair_settled, packets = l->packets - l->pair_packets;

	if (!bytes && !packets)
		return;
	step(a, &(struct lease_step){
		.lease = slot, .share = l->nshares, .settled = l->settled, .granted = l->packets,
		.leased = atomic_load_explicit(&c->leased_bytes, memory_order_relaxed) + bytes,
		.outstanding = atomic_load_explicit(&c->leased_packets, memory_order_relaxed) + packets,
		.all_bytes = atomic_load_explicit(&a->h->leased_bytes, memory_order_relaxed) + bytes,
		.all_packets = atomic_load_explicit(&a->h->leased_packets, memory_order_relaxed) + packets,
	});
}

/* Whatever accounts and pair do not know yet. now 0: caps are left as they are. */
static void catch_up(struct judge *j, uint32_t slot, struct mono now)
{
	for (uint32_t i = 0; i < j->area.lease[slot].nshares; i++)
		step_share(j, slot, i, now);
	step_pair(&j->area, slot);
}

/* ---- open, grant, settle, close ---- */

static uint64_t headroom(struct judge *j, uint32_t slot, struct mono now)
{
	struct account *a = &j->area.account[slot];
	uint64_t cap, spent;

	account_lock(a);
	ledger_refresh(j, slot, ledger_rule(j, slot), now);
	cap = atomic_load_explicit(&a->cap, memory_order_relaxed);
	spent = atomic_load_explicit(&a->spent, memory_order_relaxed);
	account_unlock(a);
	return cap > spent ? cap - spent : 0;
}

/* Ran short a moment ago, or its time is almost over: the account lends nothing now. */
static bool rests(struct judge *j, uint32_t slot, struct mono now)
{
	bool r;

	account_lock(&j->area.account[slot]);
	r = now.ns < j->area.account_cold[slot].rest_until_ns || ledger_ends_within(j, slot, LEASE_LAST_S, now);
	account_unlock(&j->area.account[slot]);
	return r;
}

/* The first contract that packets would be charged to, or TABLE_NONE: rules pay. */
static uint32_t contract_of(struct judge *j, const struct payers *p, struct mono now)
{
	for (uint32_t i = 0; i < p->n_contract; i++)
		if (headroom(j, p->account[i], now) >= LEASE_MIN)
			return i;
	return TABLE_NONE;
}

static bool blocked_by_hand(const struct area *a, const struct payers *p)
{
	for (uint32_t i = p->n_contract; i < p->n_contract + p->n_rule; i++)
		if (a->account[p->account[i]].key.kind == SUBJECT_TOTAL)	/* no rule has that */
			return true;
	return false;
}

/* [Z6] */
static bool choose_payers(struct judge *j, const struct payers *p, struct mono now, struct lease *l)
{
	const uint32_t contract = contract_of(j, p, now);
	uint32_t from = p->n_contract, n = p->n_rule;

	if (blocked_by_hand(&j->area, p))
		return false;
	if (contract != TABLE_NONE) {
		if (headroom(j, p->account[contract], now) < (uint64_t)LEASE_MIN * LEASE_SHARE || rests(j, p->account[contract], now))
			return false;
		from = contract;
		n = 1;
	}
	if (n > LEASE_ACCOUNTS)
		return false;
	for (uint32_t i = 0; i < n; i++)
		l->share[i].account = p->account[from + i];
	l->nshares = n;
	return true;
}

static void count_leases(struct area *a, const struct lease *l, int32_t by)
{
	a->pair_cold[l->pair].leases += (uint32_t)by;
	for (uint32_t i = 0; i < l->nshares; i++)
		a->account_cold[l->share[i].account].leases += (uint32_t)by;
}

int lease_open(struct judge *j, const struct lease_hint *hint, struct mono now, uint32_t *ret_slot)
{
	struct area *a = &j->area;
	uint32_t version = atomic_load_explicit(&a->h->list_version, memory_order_relaxed), slot;
	struct lease chosen = { .nshares = 0 }, *l;
	struct lease_key key;
	struct payers p;
	int r = lease_key_of(j, hint, &key);

	if (r < 0)
		return r;
	if (!payers_known(a, hint->pair, version, &p) || !choose_payers(j, &p, now, &chosen))
		return -ENOENT;
	r = table_insert(&a->leases, hash_of(a, &key), (const struct table_key *)&key, &slot);
	if (r < 0)
		return r;
	l = &a->lease[slot];
	l->generation = ++a->h->lease_generation;
	l->pair = hint->pair;
	memcpy(l->share, chosen.share, sizeof(l->share));
	l->nshares = chosen.nshares;
	/* Release: the record before what makes it count. */
	__atomic_store_n(&l->state, LEASE_OPEN, __ATOMIC_RELEASE);
	count_leases(a, l, 1);
	*ret_slot = slot;
	return 0;
}

uint64_t lease_grant(struct judge *j, uint32_t slot, uint64_t rate, struct mono now, uint32_t *ret_short)
{
	struct lease *l = &j->area.lease[slot];
	const uint64_t have = l->granted - l->settled, want = MIN_OF(rate, UINT64_MAX / LEASE_S) * LEASE_S;
	uint64_t grant = want > have ? want - have : 0;
	uint32_t tightest = TABLE_NONE;

	for (uint32_t i = 0; i < l->nshares; i++) {
		const uint32_t account = l->share[i].account;
		const uint64_t share = rests(j, account, now) ? 0 : headroom(j, account, now) / LEASE_SHARE;

		if (share >= grant)
			continue;
		grant = share;
		tightest = account;
	}
	*ret_short = tightest;
	if (grant < LEASE_MIN || (tightest != TABLE_NONE && grant < rate / 1000 * LEASE_LEAST_MS))
		return 0;
	put(&l->granted, l->granted + grant);
	catch_up(j, slot, now);
	return grant;
}

bool lease_stands(struct judge *j, uint32_t slot, uint64_t grant, struct mono now)
{
	struct lease *l = &j->area.lease[slot];
	bool stands = true;

	for (uint32_t i = 0; i < l->nshares && stands; i++) {
		struct account *a = &j->area.account[l->share[i].account];

		account_lock(a);
		ledger_refresh(j, l->share[i].account, ledger_rule(j, l->share[i].account), now);
		stands = atomic_load_explicit(&a->spent, memory_order_relaxed) <=
			 atomic_load_explicit(&a->cap, memory_order_relaxed);
		account_unlock(a);
	}
	if (stands)
		return true;
	put(&l->granted, l->granted - grant);
	catch_up(j, slot, now);
	return false;
}

static uint64_t passed(struct lease *l, uint64_t bytes, uint64_t packets)
{
	uint64_t beyond = 0;

	if (bytes <= l->settled)
		return 0;
	if (bytes > l->granted) {
		beyond = bytes - l->granted;
		put(&l->granted, bytes);
	}
	put(&l->packets, packets);
	put(&l->settled, bytes);
	return beyond;
}

uint64_t lease_settle(struct judge *j, uint32_t slot, uint64_t bytes, uint64_t packets, struct mono now)
{
	const uint64_t beyond = passed(&j->area.lease[slot], bytes, packets);

	catch_up(j, slot, now);
	return beyond;
}

uint64_t lease_settle_last(struct judge *j, uint32_t slot, uint64_t bytes, uint64_t packets, struct mono now)
{
	const uint64_t beyond = passed(&j->area.lease[slot], bytes, packets);

	lease_close(j, slot, now);
	return beyond;
}

void lease_close(struct judge *j, uint32_t slot, struct mono now)
{
	struct lease *l = &j->area.lease[slot];

	put(&l->granted, l->settled);
	catch_up(j, slot, now);
}

uint64_t lease_lost(struct judge *j, uint32_t slot, struct mono now)
{
	struct lease *l = &j->area.lease[slot];
	const uint64_t assumed = l->granted - l->settled;

	put(&l->settled, l->granted);
	catch_up(j, slot, now);
	return assumed;
}

void lease_free(struct judge *j, uint32_t slot)
{
	struct area *a = &j->area;
	struct lease *l = &a->lease[slot];

	/* Release: a kill after it finds nothing that counts. */
	__atomic_store_n(&l->state, LEASE_NONE, __ATOMIC_RELEASE);
	count_leases(a, l, -1);
	if (table_retire(&a->leases, slot))
		table_release(&a->leases, slot);
}

/* ---- for who manages them ---- */

static bool pays_no_more(struct judge *j, uint32_t account, struct mono now)
{
	struct account *a = &j->area.account[account];
	bool over;

	if (atomic_load_explicit(&a->state, memory_order_relaxed) & ACCOUNT_BLOCKED)
		return true;
	account_lock(a);
	ledger_refresh(j, account, ledger_rule(j, account), now);
	over = ledger_ends_within(j, account, LEASE_LAST_S, now);
	account_unlock(a);
	return over || atomic_load_explicit(&a->cap, memory_order_relaxed) <
	       atomic_load_explicit(&a->spent, memory_order_relaxed) + 1;
}

/* The pair's list as it is now. That in its record may be out of date, and stay so: all its packets go by the lease. Of contracts only:
 * an allow has ended the leases that it is for. */
static void list_of(struct judge *j, const struct lease *l, struct mono now, struct payers *ret)
{
	const uint32_t version = atomic_load_explicit(&j->area.h->list_version, memory_order_relaxed);
	struct judge_packet v;

	if (payers_known(&j->area, l->pair, version, ret) || !j->policy || !j->policy->h->ncontracts)
		return;
	v = lease_packet(j->policy, &l->key);
	payers_of(j, &v, version, now, ret);
}

/* Rules pay for it, and a contract that comes before them has room again. */
static bool has_a_contract(struct judge *j, const struct lease *l, struct mono now)
{
	struct payers p;
	uint32_t first;

	list_of(j, l, now, &p);
	if (!p.n_contract)
		return false;
	first = contract_of(j, &p, now);
	return first != TABLE_NONE && p.account[first] != l->share[0].account;
}

bool lease_is_spent(struct judge *j, uint32_t slot, struct mono now)
{
	const struct lease *l = &j->area.lease[slot];

	for (uint32_t i = 0; i < l->nshares; i++)
		if (pays_no_more(j, l->share[i].account, now))
			return true;
	return has_a_contract(j, l, now);
}

bool lease_pays(const struct area *a, uint32_t slot, uint32_t account)
{
	const struct lease *l = &a->lease[slot];

	for (uint32_t i = 0; i < l->nshares; i++)
		if (l->share[i].account == account)
			return true;
	return false;
}

void lease_rest(struct judge *j, uint32_t account, struct mono now)
{
	account_lock(&j->area.account[account]);
	j->area.account_cold[account].rest_until_ns = mono_add_s(now, LEASE_REST_S).ns;
	account_unlock(&j->area.account[account]);
}

/* ---- after a kill ---- */

static void nothing_owed(void *ctx, uint32_t slot)
{
	(void)ctx;	/* only what lease_free() has closed is retired */
	(void)slot;
}

void lease_recover(struct judge *j)
{
	struct area *a = &j->area;
	static const struct mono no_time;

	if (atomic_load_explicit(&a->h->lease_step.valid, memory_order_relaxed))
		step_apply(a);
	atomic_store_explicit(&a->h->lease_step.valid, 0, memory_order_relaxed);
	table_recover(&a->leases, nothing_owed, NULL);
	for (uint32_t i = 0; i < a->h->accounts; i++)
		if (table_is_full(&a->accounts, i))
			a->account_cold[i].leases = 0;
	for (uint32_t i = 0; i < a->h->pairs; i++)
		if (table_is_full(&a->pairs, i))
			a->pair_cold[i].leases = 0;
	for (uint32_t i = 0; i < LEASE_SLOTS; i++) {
		if (!table_is_full(&a->leases, i))
			continue;
		if (a->lease[i].state == LEASE_OPEN) {
			count_leases(a, &a->lease[i], 1);
			catch_up(j, i, no_time);
		} else if (table_retire(&a->leases, i)) {
			table_release(&a->leases, i);
		}
	}
}
