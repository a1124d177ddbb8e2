/* ledger.c - the slow path of one account: new tick, limit reached, blocked, thresholds of a finding. */
#include <string.h>

#include "judge_internal.h"

#define HOLD_AGAIN_NS (200 * NS_PER_MS)

static uint32_t state_of(const struct account *a)
{
	/* Relaxed: decisions that hang on it are taken under the lock. */
	return atomic_load_explicit(&a->state, memory_order_relaxed);
}

static void set_state(struct account *a, uint32_t bits)
{
	atomic_fetch_or_explicit(&a->state, bits, memory_order_relaxed);
}

static void clear_state(struct account *a, uint32_t bits)
{
	atomic_fetch_and_explicit(&a->state, ~bits, memory_order_relaxed);
}

const struct policy_rule *ledger_rule(struct judge *j, uint32_t slot)
{
	struct account_cold *c = &j->area.account_cold[slot];

	if (c->rule == ACCOUNT_DYNAMIC && c->policy != 0)
		return NULL;
	if (!j->policy)
		return NULL;
	if (c->policy != j->policy_no) {
		int i = policy_rule_by_uid(j->policy, j->area.account[slot].key.rule);

		c->rule = i < 0 ? ACCOUNT_NO_RULE : (uint32_t)i;
		c->policy = j->policy_no;
	}
	return c->rule == ACCOUNT_NO_RULE ? NULL : &j->policy->rule[c->rule];
}

struct account_terms ledger_terms(const struct policy_rule *r)
{
	return r ? (struct account_terms){ r->limit, r->nlimits } : (struct account_terms){ NULL, 0 };
}

/* Its subject counts now. Seconds: the brake is a safety net, not a budget. */
static bool brake_counts(const struct policy_header *p, uint64_t entry, struct mono now)
{
	return entry && (entry >> 32) + p->brake_s > mono_s(now);
}

bool ledger_brake_full(const struct judge *j, struct mono now)
{
	uint32_t recent = 0;

	if (!j->policy || !j->policy->h->brake_subjects)
		return false;
	for (unsigned i = 0; i < AREA_BRAKE; i++)
		recent += brake_counts(j->policy->h, atomic_load_explicit(&j->area.h->brake[i], memory_order_relaxed), now);
	return recent >= j->policy->h->brake_subjects;
}

/* Something happens at its limits, not only at doublings. While all blocking is off for a time too: then what goes beyond takes the slow
 * path, and nothing is lent beyond, so at the end of that time no packet finds room that it should not have. */
static bool stops_at_limits(const struct judge *j, const struct account *a, const struct policy_rule *r, struct mono now)
{
	if (!r)
		return false;
	if (r->kind == RULE_CONTRACT)
		return true;	/* beyond a clause bytes fall to the rules, in every mode */
	return r->enforce && !(state_of(a) & ACCOUNT_BRAKED && ledger_brake_full(j, now));
}

static bool observing(const struct judge *j, struct mono now)
{
	return now.ns < atomic_load_explicit(&j->area.h->observe_until_ns, memory_order_relaxed);
}

bool ledger_enforces(const struct judge *j, const struct account *a, const struct policy_rule *r, struct mono now)
{
	return stops_at_limits(j, a, r, now) && (r->kind == RULE_CONTRACT || !observing(j, now));
}

static bool expired(const struct judge *j, const struct policy_rule *r, struct mono now)
{
	return r && r->kind == RULE_CONTRACT && r->until != POLICY_UNTIL_NEVER &&
	       (int64_t)mono_s(now) + j->wall_offset_s >= r->until;
}

bool ledger_ends_within(struct judge *j, uint32_t slot, uint64_t s, struct mono now)
{
	const struct account_cold *c = &j->area.account_cold[slot];
	const struct mono then = mono_add_s(now, s);

	return (now.ns < c->grant_until_ns && c->grant_until_ns <= then.ns) || expired(j, ledger_rule(j, slot), then);
}

bool ledger_block_stands(const struct account_cold *c, const struct policy_rule *r, struct mono now)
{
	return now.ns < c->blocked_until_ns && (c->rule == ACCOUNT_DYNAMIC || (r && r->enforce));
}

void ledger_refresh(struct judge *j, uint32_t slot, const struct policy_rule *r, struct mono now)
{
	struct account *a = &j->area.account[slot];
	struct account_cold *c = &j->area.account_cold[slot];
	const bool stands = ledger_block_stands(c, r, now);

	if (stands && !observing(j, now) && !(state_of(a) & ACCOUNT_BLOCKED)) {	/* all blocking was off meanwhile */
		set_state(a, ACCOUNT_BLOCKED);
		if (state_of(a) & ACCOUNT_OPEN)
			ledger_report(j, slot, true, now);
	}
	account_refresh(a, c, ledger_terms(r), stops_at_limits(j, a, r, now), now);
	if (stands || expired(j, r, now))	/* also while blocking is off: the first packet after that time is not to pass either */
		account_set_cap(a, c, 0);
	else if (c->rule == ACCOUNT_DYNAMIC && c->grant_to)
		account_set_cap(a, c, now.ns < c->grant_until_ns ? c->grant_to : 0);
}

static void open_finding(struct judge *j, uint32_t slot, struct mono now)
{
	struct account *a = &j->area.account[slot];
	struct account_cold *c = &j->area.account_cold[slot];
	uint64_t n = atomic_fetch_add_explicit(&j->area.h->next_finding, 1, memory_order_relaxed);

	c->opened_ns = now.ns;
	c->opened_refused = atomic_load_explicit(&a->refused, memory_order_relaxed);
	set_state(a, ACCOUNT_OPEN);
	/* Release: who sees the new id sees that it is open; pairs with the acquire in the relay's scan. */
	__atomic_store_n(&c->finding_id, j->area.h->id << 32 | (n & UINT32_MAX), __ATOMIC_RELEASE);
	mark_for_review(&j->area, slot);
}

void ledger_tell(struct judge *j, uint32_t slot, struct mono now)
{
	struct account_cold *c = &j->area.account_cold[slot];

	c->pending = 0;
	c->rev_ns = now.ns;
	/* Release: the relay that sees this rev sees the finding's fields; its acquire is in the relay's scan. */
	atomic_fetch_add_explicit(&c->rev, 1, memory_order_release);
	area_ring(&j->area, slot);
	if (j->notify)
		(void)j->notify(j->ctx);	/* lost: the review comes within a second anyway */
}

void ledger_report(struct judge *j, uint32_t slot, bool verdict, struct mono now)
{
	struct account *a = &j->area.account[slot];
	struct account_cold *c = &j->area.account_cold[slot];

	if (!(state_of(a) & ACCOUNT_OPEN)) {
		open_finding(j, slot, now);
		verdict = true;
	}
	if (!verdict && now.ns - c->rev_ns < REPORT_EVERY_NS) {
		c->pending = 1;
		return;
	}
	ledger_tell(j, slot, now);
}

/* Marks windows whose sum with `more` passes the limit, and doublings; true when something new is to be said. */
static bool cross(struct account *a, struct account_cold *c, struct account_terms t, uint64_t more)
{
	bool news = false;

	for (uint32_t i = 0; i < t.count; i++) {
		uint64_t sum = account_sum(a, c, &t.limit[i]) + more;

		if (sum <= t.limit[i].bytes || (c->over & 1U << i && sum < 2 * c->peak[i]))
			continue;
		c->over |= 1U << i;
		c->peak[i] = sum;
		news = true;
	}
	return news;
}

static void remember(struct judge *j, struct account_cold *c, const struct judge_packet *v)
{
	c->pair = v->pair;
	c->opened_by = v->opener;
	c->exit = v->exit;
	c->flow_src = v->p.src;
	c->flow_dst = v->p.dst;
	c->flow_sport = v->p.sport;
	c->flow_dport = v->p.dport;
	c->flow_proto = v->p.proto;
	if (v->pair == TABLE_NONE)
		return;
	if (c->opened_by == OPENER_UNKNOWN)
		c->opened_by = atomic_load_explicit(&j->area.pair_cold[v->pair].opened_by, memory_order_relaxed);
}

/* Whom the brake counts: a named host or group, an IPv4 address (all begin with zeros), the /64 of an IPv6 address. */
static uint32_t brake_subject(const struct judge *j, const uint8_t in[16])
{
	static const uint8_t zero[8];
	const bool whole = memcmp(in, zero, sizeof(zero)) == 0 || memcmp(in, pair_gateway.b, sizeof(zero)) == 0;

	return (uint32_t)hash_bytes(&j->area.h->hash_key, in, whole ? 16 : 8);
}

static uint32_t sender_of(const struct judge *j, const struct judge_packet *v)
{
	const struct addr a = addr_from_v6(v->key.in);
	uint8_t in[16];

	subject_in(j->policy, SUBJECT_HOST, a.b, policy_src_of(j->policy, &a)->host, 0, in);
	return brake_subject(j, in);
}

/* More subjects than the policy's brake allows would be blocked: then only alert. Counts the sender, once: no host is to pull it by its
 * many destinations, rules or groups. Who counts may be blocked for more, but what it shares with others may not for its sake. */
static bool brake_holds(struct judge *j, uint32_t slot, const struct judge_packet *v, struct mono now)
{
	const struct policy_header *p = j->policy->h;
	const uint32_t who = sender_of(j, v);
	const bool own = who == brake_subject(j, j->area.account[slot].key.in);
	_Atomic uint64_t *brake = j->area.h->brake;
	uint64_t was;
	unsigned at = 0;

	if (!p->brake_subjects)
		return false;
	do {
		uint32_t recent = 0;
		bool known = false;

		was = UINT64_MAX;
		for (unsigned i = 0; i < AREA_BRAKE; i++) {
			/* Relaxed: the CAS below is what decides. */
			const uint64_t x = atomic_load_explicit(&brake[i], memory_order_relaxed);
			const bool counts = brake_counts(p, x, now), mine = counts && (uint32_t)x == who;

			recent += counts;
			if (mine || (!known && x < was)) {	/* else the oldest */
				at = i;
				was = x;
				known = mine;
			}
		}
		if (recent >= p->brake_subjects && !(known && own))
			return true;
	} while (!atomic_compare_exchange_strong_explicit(&brake[at], &was, mono_s(now) << 32 | who, memory_order_relaxed,
							  memory_order_relaxed));
	return false;
}

static void block(struct judge *j, uint32_t slot, const struct policy_rule *r, uint64_t n, struct mono now)
{
	struct account *a = &j->area.account[slot];
	struct account_cold *c = &j->area.account_cold[slot];

	cross(a, c, ledger_terms(r), n);
	c->blocked_at_ns = now.ns;
	/* Relaxed: read without the lock by still_blocked(); the state bit below is what it asks first. */
	__atomic_store_n(&c->blocked_until_ns,
			 account_block_end(a, c, ledger_terms(r), now, r->hold_s, &c->until_window).ns, __ATOMIC_RELAXED);
	c->grant_until_ns = 0;
	clear_state(a, ACCOUNT_BRAKED);
	set_state(a, ACCOUNT_BLOCKED);
	atomic_store_explicit(&a->cap, 0, memory_order_relaxed);
	ledger_report(j, slot, true, now);
}

void ledger_unblock(struct judge *j, uint32_t slot, struct mono now)
{
	struct account *a = &j->area.account[slot];
	struct account_cold *c = &j->area.account_cold[slot];

	if (!(state_of(a) & ACCOUNT_BLOCKED))
		return;
	clear_state(a, ACCOUNT_BLOCKED);
	if (now.ns >= c->blocked_until_ns)
		ledger_end_block(c);
	if (state_of(a) & ACCOUNT_OPEN)
		ledger_report(j, slot, true, now);
}

void ledger_end_block(struct account_cold *c)
{
	/* Relaxed: read without the lock by still_blocked(). */
	__atomic_store_n(&c->blocked_until_ns, 0, __ATOMIC_RELAXED);
}

static void touch(struct account_cold *c, struct mono now)
{
	/* Relaxed: still_blocked() answers without the lock. */
	__atomic_store_n(&c->last_ns, now.ns, __ATOMIC_RELAXED);
}

/* Not paid. Whether it left all the same, by a rule's account, judge.c knows: it counts what was refused. */
static bool refuse(struct account_cold *c, struct mono now)
{
	touch(c, now);
	return false;
}

/* Blocked, and that still holds: answered without the lock, so that a flood of refused packets costs little. */
static bool still_blocked(struct judge *j, uint32_t slot, struct mono now)
{
	struct account *a = &j->area.account[slot];
	struct account_cold *c = &j->area.account_cold[slot];

	return state_of(a) & ACCOUNT_BLOCKED &&
	       now.ns < __atomic_load_n(&c->blocked_until_ns, __ATOMIC_RELAXED) && !observing(j, now);
}

static bool try_pay(struct account *a, uint64_t n)
{
	uint64_t cap = atomic_load_explicit(&a->cap, memory_order_relaxed);
	uint64_t spent = atomic_load_explicit(&a->spent, memory_order_relaxed);

	do {
		if (spent > cap || cap - spent < n)
			return false;
	} while (!atomic_compare_exchange_weak_explicit(&a->spent, &spent, spent + n, memory_order_relaxed,
							memory_order_relaxed));
	return true;
}

/* Of an `allow`: a packet did not fit. What is left would let small ones pass for the rest of its time, and no block of what it covers
 * could be the kernel's. */
static void end_allowance(struct account *a, struct account_cold *c)
{
	if (!c->grant_to)
		return;
	/* Relaxed: judge_allows() asks without the lock. */
	__atomic_store_n(&c->grant_until_ns, 0, __ATOMIC_RELAXED);
	account_set_cap(a, c, 0);
}

/* Lock held, cap fresh, and n does not fit. true: paid all the same. */
static bool over_limit(struct judge *j, const struct judge_packet *v, uint32_t slot, const struct policy_rule *r,
		       bool protected, struct mono now)
{
	struct account *a = &j->area.account[slot];
	struct account_cold *c = &j->area.account_cold[slot];

	if (c->rule == ACCOUNT_DYNAMIC && !(ledger_block_stands(c, r, now) && observing(j, now))) {
		if (!c->outstanding)
			end_allowance(a, c);
		return refuse(c, now);
	}
	if (r && r->kind == RULE_CONTRACT) {
		if (r->alert_on_breach && (cross(a, c, ledger_terms(r), v->p.len) || !c->breached)) {
			c->breached = 1;
			remember(j, c, v);
			ledger_report(j, slot, false, now);
		}
		return refuse(c, now);
	}
	if (ledger_enforces(j, a, r, now) && !protected) {
		remember(j, c, v);
		if (!brake_holds(j, slot, v, now)) {
			block(j, slot, r, v->p.len, now);
			return refuse(c, now);
		}
		atomic_store_explicit(&j->area.h->braked, 1, memory_order_relaxed);
		if (!(state_of(a) & ACCOUNT_BRAKED)) {
			set_state(a, ACCOUNT_BRAKED);
			ledger_report(j, slot, true, now);
		}
	}
	account_pay(a, v->p.len);
	if (cross(a, c, ledger_terms(r), 0)) {
		remember(j, c, v);
		ledger_report(j, slot, false, now);
	}
	touch(c, now);
	ledger_refresh(j, slot, r, now);	/* the next threshold */
	return true;
}

/* Its credit is out on lease and comes back (daemon/leases.h [M4]): rather wait than refuse. Once in a while only, or a lease that does
 * not come back would hold every packet. */
static bool waits(struct account_cold *c, struct mono now)
{
	if (now.ns >= c->hold_until_ns + HOLD_AGAIN_NS && c->holds < LEASE_HOLDS) {
		c->holds++;
		c->hold_until_ns = now.ns + LEASE_HOLD_MS * NS_PER_MS;
	}
	return now.ns < c->hold_until_ns;
}

/* A recall takes longer on a busy machine than packets may wait. They are refused then, but the limit is not reached: a block would
 * outlast the recall and waste what it brings back. */
static bool may_come_back(const struct account_cold *c, struct mono now)
{
	return now.ns < c->hold_until_ns + HOLD_AGAIN_NS;
}

bool ledger_charge(struct judge *j, struct judge_packet *v, uint32_t slot, bool contract, bool protected, struct mono now)
{
	struct account *a = &j->area.account[slot];
	struct account_cold *c = &j->area.account_cold[slot];
	const struct policy_rule *r;
	bool paid;

	count(j, AC_SLOW, 1);
	if (!contract && !protected && still_blocked(j, slot, now))
		return refuse(c, now);
	account_lock(a);
	r = ledger_rule(j, slot);
	if (state_of(a) & ACCOUNT_BLOCKED && !still_blocked(j, slot, now)) {
		ledger_unblock(j, slot, now);
		if (j->notify)
			(void)j->notify(j->ctx);
	}
	ledger_refresh(j, slot, r, now);
	if (!contract && !protected && still_blocked(j, slot, now)) {	/* again */
		(void)refuse(c, now);
		account_unlock(a);
		return false;
	}
	paid = try_pay(a, v->p.len);
	if (!paid && unlikely(c->outstanding) && (c->rule == ACCOUNT_DYNAMIC || (ledger_enforces(j, a, r, now) && !protected))) {
		v->hold = waits(c, now);
		if (!v->hold && may_come_back(c, now)) {
			v->late = contract;	/* it is not beyond its clause: no rule is to pay, and block */
			(void)refuse(c, now);
		} else if (!v->hold) {
			paid = over_limit(j, v, slot, r, protected, now);
		}
	} else if (!paid) {
		paid = over_limit(j, v, slot, r, protected, now);
	}
	account_unlock(a);
	return paid;
}

void ledger_leased(struct judge *j, uint32_t slot, struct mono now)
{
	struct account *a = &j->area.account[slot];
	struct account_cold *c = &j->area.account_cold[slot];
	const struct policy_rule *r = ledger_rule(j, slot);

	ledger_refresh(j, slot, r, now);
	if (!r || r->kind == RULE_CONTRACT || ledger_enforces(j, a, r, now) || !cross(a, c, ledger_terms(r), 0))
		return;
	touch(c, now);
	ledger_report(j, slot, false, now);
	ledger_refresh(j, slot, r, now);	/* the next threshold */
}

void ledger_undo(struct judge *j, uint32_t slot, uint64_t n, uint32_t tick)
{
	struct account *a = &j->area.account[slot];

	account_lock(a);
	account_undo(a, &j->area.account_cold[slot], n, tick);
	account_unlock(a);
}
