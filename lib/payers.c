/* payers.c - which accounts pay for the bytes of a pair: kept in its record, rebuilt when policy or decisions change. */
#include <errno.h>
#include <string.h>

#include "judge_internal.h"

void subject_in(const struct policy *p, unsigned kind, const uint8_t in[16], int host, uint32_t group, uint8_t ret[16])
{
	uint32_t uid = kind == SUBJECT_GROUP ? group : host >= 0 ? p->host[host].uid : 0;

	memset(ret, 0, 16);
	if (kind == SUBJECT_TOTAL)
		return;
	if (uid)
		memcpy(ret + 12, &uid, sizeof(uid));
	else
		memcpy(ret, in, 16);
}

/* Whoever can make up addresses makes accounts: the last sixteenth is not for pairs, but for what those of a host share, and the last
 * sixty-fourth for nobody but named hosts, groups, and those of a rule that find no room. */
static bool room_for(const struct table *t, const struct account_key *k)
{
	uint32_t cap = table_capacity(t), kept = 0, uid;

	if (k->kind == SUBJECT_PAIR && !account_is_shared(k))
		kept = cap / 16;
	else if (!policy_in_is_uid(k->in, &uid) && memcmp(k->in, pair_others.b, sizeof(k->in)) != 0)
		kept = cap / 64;
	/* Relaxed: a few more or less do not matter. */
	return atomic_load_explicit(&t->state->live, memory_order_relaxed) < cap - kept;
}

/* Slot of the account, made if new; TABLE_NONE when the account table is full for it (counted). */
static uint32_t account_of(struct judge *j, const struct account_key *key, uint32_t pair, struct mono now)
{
	struct area *a = &j->area;
	uint64_t hash = area_account_hash(a, key);
	const struct table_key *k = (const struct table_key *)key;
	uint32_t slot = table_find(&a->accounts, hash, k);
	int r;

	if (slot != TABLE_NONE)
		return slot;
	r = room_for(&a->accounts, key) ? table_insert(&a->accounts, hash, k, &slot) : -ENOSPC;
	if (r == -ENOSPC) {
		count(j, AC_OVERFLOW, 1);
		return TABLE_NONE;
	}
	if (r == 0) {
		account_lock(&a->account[slot]);
		a->account_cold[slot].born_ns = now.ns;
		a->account_cold[slot].pair = pair;
		account_unlock(&a->account[slot]);
	}
	return slot;
}

/* [P3] ascending: every thread charges in the same order. */
static void add_sorted(struct payers *l, uint32_t slot)
{
	unsigned at = l->n_contract + l->n_rule++;

	for (; at > l->n_contract && l->account[at - 1] > slot; at--)
		l->account[at] = l->account[at - 1];
	l->account[at] = slot;
}

uint32_t account_others(struct judge *j, const struct policy_rule *r, struct mono now)
{
	struct account_key k = { .rule = r->uid, .kind = r->per };

	memcpy(k.in, pair_others.b, sizeof(k.in));
	return account_of(j, &k, TABLE_NONE, now);
}

/* Never without a limit: who finds no room shares one. As room comes a pair moves from the rule's to its host's and to its own, and may
 * use up each: three times the limit at most, and all those of a host that have none of their own twice. Going back gains nothing: an
 * account goes with little used (review.c). */
static uint32_t account_shared(struct judge *j, const struct policy_rule *r, struct account_key k, struct mono now)
{
	uint32_t slot = TABLE_NONE;

	if (r->per > PER_HOST)
		return TABLE_NONE;
	if (r->per == PER_PAIR) {
		memset(k.out, 0, sizeof(k.out));
		k.out_family = 0;
		slot = account_of(j, &k, TABLE_NONE, now);
	}
	return slot == TABLE_NONE ? account_others(j, r, now) : slot;
}

static void add_rule(struct judge *j, const struct judge_packet *v, const struct policy_src *src, unsigned i,
		     struct mono now, struct payers *l)
{
	const struct policy_rule *r = &j->policy->rule[i];
	struct account_key k = { .rule = r->uid, .kind = r->per };
	struct pair_key to;
	uint32_t slot;

	if (l->n_contract + l->n_rule == PAIR_ACCOUNTS)
		return;
	subject_in(j->policy, r->per, v->key.in, src->host, r->group, k.in);
	if (r->per == PER_PAIR) {
		pair_out(&to, &v->p.dst);	/* an overflow record's key has none */
		memcpy(k.out, to.out, sizeof(k.out));
		k.out_family = to.out_family;
	}
	slot = account_of(j, &k, v->pair, now);
	if (slot == TABLE_NONE) {
		l->incomplete = true;	/* looked for again with every packet */
		slot = account_shared(j, r, k, now);
		if (slot == TABLE_NONE)
			return;
	}
	if (r->kind == RULE_CONTRACT) {
		l->account[l->n_contract++] = slot;	/* contracts have the lowest bits, so no rule is there yet */
		return;
	}
	add_sorted(l, slot);
}

/* Accounts of the decisions about this packet, `max` at most. The engine alone changes them and raises list_version afterwards; a reader that
 * meets a half-written one builds a list that is thrown away at once. */
static unsigned find_dynamic(struct judge *j, const struct judge_packet *v, enum dynamic_kind kind, struct mono now, uint32_t *ret_slot,
			     unsigned max)
{
	unsigned n = 0;

	for (unsigned i = 0; i < AREA_DYNAMIC; i++) {
		const struct area_dynamic *d = &j->area.h->dynamic[i];
		struct account_key k = { .kind = SUBJECT_TOTAL };
		uint32_t slot;

		if (__atomic_load_n(&d->kind, __ATOMIC_ACQUIRE) != kind || now.ns >= d->until_ns)
			continue;
		if (!prefix_contains(&d->src, &v->p.src) || (d->dst.len && !prefix_contains(&d->dst, &v->p.dst)))
			continue;
		k.rule = d->uid;
		slot = table_find(&j->area.accounts, area_account_hash(&j->area, &k), (const struct table_key *)&k);
		if (slot == TABLE_NONE)
			continue;
		if (n == max) {
			count(j, AC_OVERFLOW, 1);
			break;	/* rather a decision less than a rule less; of blocks one is enough, and they come first */
		}
		ret_slot[n++] = slot;
	}
	return n;
}

static void build(struct judge *j, const struct judge_packet *v, struct mono now, struct payers *l)
{
	struct addr in = addr_from_v6(v->key.in);
	const struct policy_src *src;
	const struct policy_dst *dst;
	uint32_t block[PAIR_DECISIONS];
	const unsigned nblocks = find_dynamic(j, v, DYNAMIC_BLOCK, now, block, PAIR_DECISIONS);
	struct policy_bits bits;

	*l = (struct payers){ 0 };
	l->n_contract = (uint8_t)find_dynamic(j, v, DYNAMIC_ALLOW, now, l->account, PAIR_DECISIONS - nblocks);
	if (j->policy) {
		src = policy_src_of(j->policy, &in);
		dst = policy_dst_of(j->policy, &v->p.dst);
		l->protected = dst->flags & DST_PROTECTED;
		policy_match(j->policy, src, dst, v->cls, v->exit, &bits);
		for (unsigned w = 0; w < POLICY_WORDS; w++)
			for (uint64_t left = bits.w[w]; left; left &= left - 1)
				add_rule(j, v, src, w * 64 + (unsigned)__builtin_ctzll(left), now, l);
	}
	for (unsigned i = 0; i < nblocks; i++)
		add_sorted(l, block[i]);
}

/* [P2] Acquire on every entry: what a writer stored before it is seen, so a version unchanged at the end means that all
 * entries are of that version. Pairs with the release stores in store(). */
static bool load(const struct pair *p, const struct pair_cold *c, uint32_t version, struct payers *l)
{
	unsigned n, nc;

	if (atomic_load_explicit(&p->version, memory_order_acquire) != version)
		return false;
	nc = atomic_load_explicit(&p->n_contract, memory_order_acquire);
	l->n_rule = atomic_load_explicit(&p->n_rule, memory_order_acquire);
	l->n_contract = nc & 0x7f;
	l->protected = nc & PAIR_PROTECTED;
	n = l->n_contract + l->n_rule;
	for (unsigned i = 0; i < n && i < PAIR_INLINE; i++)
		l->account[i] = atomic_load_explicit(&p->account[i], memory_order_acquire);
	for (unsigned i = PAIR_INLINE; i < n && i < PAIR_ACCOUNTS; i++)
		l->account[i] = atomic_load_explicit(&c->account[i - PAIR_INLINE], memory_order_acquire);
	return n <= PAIR_ACCOUNTS && atomic_load_explicit(&p->version, memory_order_relaxed) == version;
}

static void store(struct pair *p, struct pair_cold *c, uint32_t version, const struct payers *l)
{
	uint16_t was = atomic_load_explicit(&p->version, memory_order_relaxed);
	unsigned n = l->n_contract + l->n_rule;

	if (was == PAIR_BUSY || was == version ||
	    !atomic_compare_exchange_strong_explicit(&p->version, &was, PAIR_BUSY, memory_order_acq_rel,
						     memory_order_relaxed))
		return;	/* another worker writes it */
	atomic_store_explicit(&p->n_rule, l->n_rule, memory_order_release);
	atomic_store_explicit(&p->n_contract, (uint8_t)(l->n_contract | (l->protected ? PAIR_PROTECTED : 0)),
			      memory_order_release);
	for (unsigned i = 0; i < n && i < PAIR_INLINE; i++)
		atomic_store_explicit(&p->account[i], l->account[i], memory_order_release);
	for (unsigned i = PAIR_INLINE; i < n; i++)
		atomic_store_explicit(&c->account[i - PAIR_INLINE], l->account[i], memory_order_release);
	atomic_store_explicit(&p->version, (uint16_t)version, memory_order_release);
}

bool payers_known(const struct area *a, uint32_t pair, uint32_t version, struct payers *ret)
{
	*ret = (struct payers){ 0 };
	return load(&a->pair[pair], &a->pair_cold[pair], version, ret);
}

/* Decisions are about the packet's own address. */
static bool is_of_many(const struct judge_packet *v)
{
	return memcmp(v->key.in, v->p.src.b, sizeof(v->key.in)) != 0;
}

static bool any_decision(const struct area *a, struct mono now)
{
	for (unsigned i = 0; i < AREA_DYNAMIC; i++)
		if (__atomic_load_n(&a->h->dynamic[i].kind, __ATOMIC_ACQUIRE) != DYNAMIC_NONE && now.ns < a->h->dynamic[i].until_ns)
			return true;
	return false;
}

void payers_of(struct judge *j, const struct judge_packet *v, uint32_t version, struct mono now, struct payers *ret)
{
	struct area *a = &j->area;

	if (v->pair == TABLE_NONE || v->key.class_uid == PAIR_CLASS_OVERFLOW || (is_of_many(v) && any_decision(a, now))) {
		build(j, v, now, ret);	/* many destinations, or sources: no list can be kept */
		return;
	}
	if (likely(load(&a->pair[v->pair], &a->pair_cold[v->pair], version, ret)))
		return;
	build(j, v, now, ret);
	if (!ret->incomplete)
		store(&a->pair[v->pair], &a->pair_cold[v->pair], version, ret);
}
