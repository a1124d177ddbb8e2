/* judge.c - the packet path: keys, pair records, charge and undo. See judge.h for the contract. */
#include <errno.h>
#include <netinet/in.h>
#include <string.h>

#include "judge_internal.h"

/* Accepting side's port and whether it is known: without ports or opener no rule about ports can be sure. */
static bool service_port(const struct judge_packet *v, uint16_t *ret_port)
{
	*ret_port = v->opener == OPENER_OUTSIDE ? v->p.sport : v->p.dport;
	return v->opener != OPENER_UNKNOWN && !(v->p.notes & PACKET_NO_PORTS);
}

/* Has the address a row of its own? The ranges' binary search costs more than all the rest of the key. */
static bool known_source(struct judge *j, const struct addr *a)
{
	uint64_t w[2];
	struct judge_source *s;

	memcpy(w, a, sizeof(w));
	s = &j->source[((w[0] ^ w[1]) * 0x9e3779b97f4a7c15ULL) >> (64 - JUDGE_SOURCE_BITS)];
	if (likely(s->policy_no == j->policy_no && memcmp(&s->addr, a, sizeof(*a)) == 0))
		return s->known;
	s->addr = *a;
	s->policy_no = j->policy_no;
	s->known = (policy_src_of(j->policy, a)->flags & (SRC_INSIDE | SRC_EXIT)) != 0;
	return s->known;
}

static void make_key(struct judge *j, struct judge_packet *v)
{
	const struct policy *p = j->policy;
	struct pair_key *k = &v->key;
	uint16_t port;
	bool known;

	memset(k, 0, sizeof(*k));
	pair_out(k, &v->p.dst);
	memcpy(k->in, v->p.src.b, sizeof(k->in));
	v->cls = 0;
	if (!p)
		return;
	if (v->local)
		memcpy(k->in, pair_gateway.b, sizeof(k->in));
	else if (!known_source(j, &v->p.src))
		memcpy(k->in, pair_unlisted.b, sizeof(k->in));
	known = service_port(v, &port);
	v->cls = policy_class_of(p, v->p.proto, known, port, v->opener, v->exit);
	k->class_uid = p->cls[v->cls].uid;
}

static void born(struct judge *j, const struct judge_packet *v, struct mono now)
{
	struct pair_cold *c = &j->area.pair_cold[v->pair];

	c->first_ns = now.ns;
	c->last_out = v->p.dst;
	c->exit = v->exit;
	count(j, AC_NEW_PAIRS, 1);
}

static void overflow(struct judge *j, struct judge_packet *v, struct mono now)
{
	struct area *a = &j->area;
	uint32_t slot = TABLE_NONE;
	int r;

	count(j, AC_OVERFLOW, 1);
	memset(v->key.out, 0, sizeof(v->key.out));
	v->key.out_family = 0;
	v->key.class_uid = PAIR_CLASS_OVERFLOW;
	v->hash = area_pair_hash(a, &v->key);
	slot = table_find(&a->pairs, v->hash, (const struct table_key *)&v->key);
	if (slot == TABLE_NONE) {
		r = table_insert(&a->pairs, v->hash, (const struct table_key *)&v->key, &slot);
		if (r == 0)
			a->pair_cold[slot].first_ns = now.ns;
	}
	v->pair = slot;
}

/* The last sixteenth is kept for overflow records: a host must have one when the pairs have taken all the rest. */
static bool room_for_pairs(const struct table *t)
{
	uint32_t cap = table_capacity(t);

	/* Relaxed: a few more or less do not matter. */
	return atomic_load_explicit(&t->state->live, memory_order_relaxed) < cap - cap / 16;
}

static void find_pair(struct judge *j, struct judge_packet *v, struct mono now)
{
	struct area *a = &j->area;
	const struct table_key *k = (const struct table_key *)&v->key;
	int r;

	v->pair = table_find(&a->pairs, v->hash, k);
	if (likely(v->pair != TABLE_NONE))
		return;
	r = room_for_pairs(&a->pairs) ? table_insert(&a->pairs, v->hash, k, &v->pair) : -ENOSPC;
	if (r == 0)
		born(j, v, now);
	else if (r == -ENOSPC)
		overflow(j, v, now);
}

static bool contract_pays(struct judge *j, struct judge_packet *v, const struct payers *l, uint32_t tick,
			  struct mono now)
{
	for (unsigned i = 0; i < l->n_contract; i++) {
		uint32_t slot = l->account[i];

		if (account_charge(&j->area.account[slot], v->p.len, tick) ||
		    ledger_charge(j, v, slot, true, false, now))
			return true;
		if (unlikely(v->hold || v->late)) {
			v->refused_by = slot;
			return false;
		}
	}
	return false;
}

static bool any_blocked(const struct judge *j, const struct payers *l)
{
	for (unsigned i = l->n_contract; i < l->n_contract + l->n_rule; i++)
		/* Relaxed: a hint that saves a charge and its undo. */
		if (atomic_load_explicit(&j->area.account[l->account[i]].state, memory_order_relaxed) &
		    ACCOUNT_BLOCKED)
			return true;
	return false;
}

/* Established SSH to the gateway: what it sends from that port, but for the SYN of a connection that it opens itself. */
static bool is_ssh_answer(const struct judge_packet *v)
{
	return v->local && v->p.proto == IPPROTO_TCP && v->p.sport == POLICY_SSH_PORT && v->p.tcp_flags & 0x10;
}

/* A block by hand refuses what rules may not; this it may not either. */
static bool spared(const struct judge *j, const struct judge_packet *v, uint32_t slot)
{
	return is_ssh_answer(v) && j->area.account[slot].key.kind == SUBJECT_TOTAL;
}

/* A blocked account refuses before any other is charged. by_hand: only those of decisions. */
static bool blocked_refuses(struct judge *j, struct judge_packet *v, const struct payers *l, bool by_hand, struct mono now)
{
	for (unsigned i = l->n_contract; i < l->n_contract + l->n_rule; i++) {
		uint32_t slot = l->account[i];
		uint32_t state = atomic_load_explicit(&j->area.account[slot].state, memory_order_relaxed);

		if (!(state & ACCOUNT_BLOCKED) || (by_hand && j->area.account[slot].key.kind != SUBJECT_TOTAL))
			continue;
		if (!ledger_charge(j, v, slot, false, l->protected, now)) {
			v->refused_by = slot;	/* or held by it */
			return true;
		}
		ledger_undo(j, slot, v->p.len, mono_tick(now));	/* block was over: charged again in its turn */
	}
	return false;
}

/* A block by hand comes before contracts, these before rules. */
static bool hand_refuses(struct judge *j, struct judge_packet *v, const struct payers *l, struct mono now)
{
	return l->n_contract && unlikely(any_blocked(j, l)) && blocked_refuses(j, v, l, true, now);
}

static bool rules_pay(struct judge *j, struct judge_packet *v, const struct payers *l, uint32_t tick,
		      struct mono now)
{
	if (unlikely(any_blocked(j, l)) && !l->protected && blocked_refuses(j, v, l, false, now))
		return false;
	for (unsigned i = l->n_contract; i < l->n_contract + l->n_rule; i++) {
		uint32_t slot = l->account[i];

		if (likely(account_charge(&j->area.account[slot], v->p.len, tick)) || unlikely(spared(j, v, slot)) ||
		    ledger_charge(j, v, slot, false, l->protected, now))
			continue;
		v->refused_by = slot;
		while (i-- > l->n_contract)	/* [J1] */
			ledger_undo(j, l->account[i], v->p.len, tick);
		return false;
	}
	return true;
}

static void passed(struct judge *j, struct judge_packet *v)
{
	struct pair *p = &j->area.pair[v->pair];
	/* Relaxed: sums. */
	uint64_t before = atomic_fetch_add_explicit(&p->bytes, v->p.len, memory_order_relaxed);

	v->busy = !v->exit && (before ^ (before + v->p.len)) >> LEASE_SHIFT != 0;
	if (unlikely(atomic_fetch_add_explicit(&p->packets, 1, memory_order_relaxed) == UINT32_MAX))
		atomic_fetch_add_explicit(&j->area.pair_cold[v->pair].packets_high, 1, memory_order_relaxed);
}

/* By the account that did not pay and was the last to be asked. */
static void refused(struct judge *j, const struct judge_packet *v)
{
	struct pair_cold *c;

	atomic_fetch_add_explicit(&j->area.account[v->refused_by].refused, v->p.len, memory_order_relaxed);
	if (v->pair == TABLE_NONE)
		return;
	c = &j->area.pair_cold[v->pair];
	atomic_fetch_add_explicit(&c->refused, v->p.len, memory_order_relaxed);
	atomic_fetch_add_explicit(&c->refused_packets, 1, memory_order_relaxed);
}

/* For people only: who opened and which service, as the packets themselves show it. */
static void note_service(struct judge *j, const struct judge_packet *v)
{
	struct pair_cold *c = &j->area.pair_cold[v->pair];
	uint8_t by = v->opener;
	uint16_t port;

	if (by == OPENER_UNKNOWN)
		by = v->p.tcp_flags & 0x10 ? OPENER_OUTSIDE : OPENER_INSIDE;	/* SYN+ACK answers the outside */
	port = by == OPENER_OUTSIDE ? v->p.sport : v->p.dport;
	atomic_store_explicit(&c->port, port, memory_order_relaxed);
	atomic_store_explicit(&c->proto, v->p.proto, memory_order_relaxed);
	atomic_store_explicit(&c->opened_by, by, memory_order_relaxed);
}

static void note_oddities(struct judge *j, const struct judge_packet *v)
{
	static const struct {
		uint8_t note, counter;
	} map[] = {
		{ PACKET_FRAGMENT, AC_NOTE_FRAGMENT },
		{ PACKET_CUT, AC_NOTE_CUT },
		{ PACKET_EXT_DEEP, AC_NOTE_EXT_DEEP },
		{ PACKET_BAD_LEN, AC_NOTE_BAD_LEN },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(map); i++)
		if (v->p.notes & map[i].note)
			count(j, map[i].counter, 1);
}

static void decide(struct judge *j, struct judge_packet *v, uint32_t version, uint32_t tick, struct mono now)
{
	struct payers l;

	v->refused_by = TABLE_NONE;
	v->hold = v->busy = v->late = 0;
	payers_of(j, v, version, now, &l);
	l.protected = l.protected || is_ssh_answer(v);
	v->pass = (is_ssh_answer(v) || !hand_refuses(j, v, &l, now)) &&
		  (contract_pays(j, v, &l, tick, now) || (v->refused_by == TABLE_NONE && rules_pay(j, v, &l, tick, now)));
	if (unlikely(v->hold)) {
		count(j, AC_HELD, 1);
		return;
	}
	if (unlikely(v->pair == TABLE_NONE)) {
		if (v->pass)
			atomic_fetch_add_explicit(&j->area.h->lost_pair_bytes, v->p.len, memory_order_relaxed);
		else
			refused(j, v);
	} else {
		if (unlikely(v->p.notes & ~PACKET_NO_PORTS))
			note_oddities(j, v);
		if (unlikely(v->p.tcp_flags & 0x02) ||
		    unlikely(atomic_load_explicit(&j->area.pair[v->pair].packets, memory_order_relaxed) == 0))
			note_service(j, v);
		if (likely(v->pass))
			passed(j, v);
		else
			refused(j, v);
	}
	count(j, v->pass ? AC_PACKETS : AC_REFUSED_PACKETS, 1);
	count(j, v->pass ? AC_BYTES : AC_REFUSED_BYTES, v->p.len);
	if (v->journal)
		/* Release: everything charged above is in memory before the journal says so. Read by the next process only,
		 * after this one is dead; the order matters to the compiler, not between threads. */
		atomic_store_explicit(v->journal, v->pass ? SLOT_PASS : SLOT_DROP, memory_order_release);
}

void judge_batch(struct judge *j, struct judge_packet *v, unsigned n, struct mono now)
{
	struct area *a = &j->area;
	uint64_t hash[AREA_SLOTS];
	uint32_t tick = mono_tick(now);
	/* Acquire: the decisions and policy that this version speaks of. Pairs with the release in judge_policy_changed(). */
	uint32_t version = atomic_load_explicit(&a->h->list_version, memory_order_acquire);

	for (unsigned i = 0; i < n; i++)
		make_key(j, &v[i]);
	hash_keys(&a->h->hash_key, &v->key, sizeof(*v), n, hash);
	for (unsigned i = 0; i < n; i++) {
		v[i].hash = hash[i];
		table_prefetch_tags(&a->pairs, hash[i]);
	}
	for (unsigned i = 0; i < n; i++)
		table_prefetch_record(&a->pairs, hash[i]);
	for (unsigned i = 0; i < n; i++) {
		find_pair(j, &v[i], now);
		if (likely(v[i].pair != TABLE_NONE))
			for (unsigned k = 0; k < PAIR_INLINE; k++) {
				uint32_t slot = atomic_load_explicit(&a->pair[v[i].pair].account[k], memory_order_relaxed);

				__builtin_prefetch(&a->account[slot], 1);
			}
	}
	for (unsigned i = 0; i < n; i++)
		decide(j, &v[i], version, tick, now);
}
