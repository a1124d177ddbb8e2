/* leases.c - the workers' notes, grants, and the second's look; leases_end.c has the way back, leases_sleep.c the idle. See leases.h for the
 * contract. */
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "leases_internal.h"
#include "log.h"

#define UNCOUNTED_MS 500	/* of its rate in a grant, 20 grace periods: need not be exact */
#define UNCOUNTED    4		/* raises in turn: a connection that begins outgrows the first few */
#define QUIET_MS    50		/* between looks at hints that came to nothing */
#define RESTED	    NS_PER_S	/* between hints: a rate over that says nothing about now */
#define STALE_S	    30		/* of its rate out: too much */
#define STALE_NS    (10 * NS_PER_S)
#define BEGINS	    8		/* times the rate before: it begins again just now */
#define SHORTEST_NS NS_PER_MS	/* a rate is not measured over less */

struct leases *leases_new(void)
{
	struct leases *s = calloc(1, sizeof(*s));

	if (s) {
		s->inherited = s->leftover = s->due = true;
		s->low = LEASE_SLOTS;
	}
	return s;
}

static void count(_Atomic uint64_t *c, uint64_t n)
{
	atomic_fetch_add_explicit(c, n, memory_order_relaxed);
}

/* ---- from the workers ---- */

bool leases_note(struct engine_worker *w, const struct judge_packet *v)
{
	struct leases_ring *r = &w->lease_notes;
	/* Relaxed: only this thread writes head. [H1] Acquire: the reader is done with the place. */
	uint32_t head = atomic_load_explicit(&r->head, memory_order_relaxed);
	uint32_t tail = atomic_load_explicit(&r->tail, memory_order_acquire);
	/* The last quarter is kept for packets that wait: a hint comes again with the next 64 KiB, they wait once. */
	const uint32_t room = v->hold ? LEASES_RING : LEASES_RING / 4 * 3;

	if (!__atomic_load_n(&w->e->leases_on, __ATOMIC_RELAXED) || (v->pair == TABLE_NONE && !v->hold) || head - tail >= room)
		return false;
	r->item[head % LEASES_RING] = (struct leases_item){
		.hint = lease_hint_of(v), .account = v->hold ? v->refused_by : TABLE_NONE,
	};
	/* [H2] The item before the number; pairs with take_shorts(). Sequentially consistent, these two and their counterparts
	 * there: either we see that the main thread has begun anew, and wake it, or it sees this number. */
	atomic_store_explicit(&r->head, head + 1, memory_order_seq_cst);
	return !atomic_exchange_explicit(v->hold ? &w->e->recall_asked : &w->e->lease_asked, 1, memory_order_seq_cst);
}

/* ---- grant ---- */

/* More is out on lease than is left: better have it back before packets must wait for it. */
static bool is_lent_out(const struct engine *e, uint32_t account)
{
	const struct account *a = &e->area.account[account];
	const uint64_t cap = atomic_load_explicit(&a->cap, memory_order_relaxed);
	const uint64_t spent = atomic_load_explicit(&a->spent, memory_order_relaxed);

	return e->area.account_cold[account].outstanding > (cap > spent ? cap - spent : 0);
}

/* False: nothing is known, sent_on stays. */
static bool read_used(struct engine *e, uint32_t slot)
{
	const struct rules_lease l = lease_in_kernel(e, slot);
	uint64_t quota;

	return rules_lease_used(e->rules, &l, &e->leases->live[slot].used, &quota) == 0;
}

/* Or its packets came to the queue before it stood, or before it was raised: their hint, or the kernel's word, is old. */
static bool is_used_up(struct engine *e, uint32_t slot)
{
	const struct rules_lease l = lease_in_kernel(e, slot);
	uint64_t used, quota;

	return rules_lease_used(e->rules, &l, &used, &quota) < 0 || used >= quota;
}

/* How much of what the quota saw went on to the queue. `used` was read before the kernel's grace period and the count is read after
 * it: a packet amid the rules, seen by the one and not yet by the other, would be taken for one sent on, and pass twice
 * (tests/torture/lease.pml, NO_COUNT_BARRIER). */
static void count_sent_on(struct engine *e, uint32_t slot, struct mono now)
{
	const struct lease *l = &e->area.lease[slot];
	struct live *v = &e->leases->live[slot];

	if (lease_settle_now(e, slot, now) == 0 && v->used > l->settled)
		v->sent_on = MAX_OF(v->sent_on, v->used - l->settled);
	v->used = 0;
}

/* A lease that is used up and gets much more is raised without: what it sent on since then is little beside the grant, is taken for
 * used and comes back at the end, and its packets need not be judged for all of the grace period. */
static bool is_to_count(struct live *v, uint64_t grant)
{
	if (!v->depleted)
		return false;
	v->uncounted = v->uncounted < UNCOUNTED && grant >= v->rate / 1000 * UNCOUNTED_MS ? v->uncounted + 1 : 0;
	return !v->uncounted;
}

/* Of a lease that is used up and gets no more: enough is left to go on. Less is gone on the way: what comes to the queue until the
 * kernel knows the new quota counts in `used` too. */
static bool is_worth_it(const struct engine *e, uint32_t slot)
{
	const struct lease *l = &e->area.lease[slot];
	const struct live *v = &e->leases->live[slot];

	return v->depleted && l->granted - l->settled >= MAX_OF((uint64_t)LEASE_MIN, v->rate / 1000 * LEASE_LEAST_MS);
}

/* A packet that was too much for the quota before it was raised has the kernel tell when it stands raised (nft_quota_obj_eval() asks and
 * tells in two steps). What it tells but once is then told: it must be put in again. */
static bool is_untrue(const struct live *v)
{
	return v->told && !v->depleted;
}

/* The kernel's changes of one round, after a grace period of the workers: [Z2]. */
static void raise_all(struct engine *e)
{
	struct leases *s = e->leases;
	struct rules_lease v[RULES_LEASES];
	uint64_t grant[RULES_LEASES];
	uint32_t near_end[RULES_LEASES], account;
	struct mono now = clock_mono();
	unsigned n = 0, nnear = 0;
	bool counts = false;

	if (s->nwant == 0)
		return;
	for (unsigned i = 0; i < s->nwant; i++) {
		grant[i] = lease_grant(&e->judge, s->want[i], s->live[s->want[i]].rate, now, &account);
		if (is_to_count(&s->live[s->want[i]], grant[i]))
			counts |= read_used(e, s->want[i]);
		if (!grant[i] && account != TABLE_NONE && is_lent_out(e, account))
			near_end[nnear++] = account;
	}
	worker_grace();
	if (counts)
		rules_lease_grace();
	now = clock_mono();
	for (unsigned i = 0; i < s->nwant; i++) {
		const uint32_t slot = s->want[i];
		bool granted;

		if (s->live[slot].used)
			count_sent_on(e, slot, now);
		granted = grant[i] && lease_stands(&e->judge, slot, grant[i], now);
		s->live[slot].wanted = false;
		if (granted)
			count(s->live[slot].fresh ? &e->area.h->lease_grants : &e->area.h->lease_raises, 1);
		if (granted || s->live[slot].asleep || is_untrue(&s->live[slot]) || is_worth_it(e, slot)) {
			s->granted++;
			v[n++] = lease_in_kernel(e, slot);
		} else if (s->live[slot].fresh) {
			lease_drop(e, slot);
		} else if (s->live[slot].depleted) {
			leases_add_end(e, slot);	/* used up, and there is no more */
		}
	}
	s->nwant = 0;
	if (n && rules_lease_put(e->rules, v, n) < 0) {
		log_notice("leases: the kernel takes no grant; all of them are ended");
		leases_end_all(e);
		return;
	}
	for (unsigned i = 0; i < n; i++) {
		struct live *x = &s->live[v[i].slot];

		x->fresh = x->depleted = x->told = x->idle = x->asleep = false;
	}
	for (unsigned i = 0; i < nnear; i++)
		if (e->area.account_cold[near_end[i]].outstanding)
			leases_add_account(e, near_end[i]);
	leases_end(e);
}

static void want(struct engine *e, uint32_t slot, uint64_t rate)
{
	struct leases *s = e->leases;

	s->live[slot].rate = rate;
	if (s->live[slot].wanted)
		return;
	s->live[slot].wanted = true;
	s->want[s->nwant++] = slot;
	if (s->nwant == RULES_LEASES)
		raise_all(e);
}

static uint64_t rate_over(uint64_t bytes, uint64_t ns)
{
	return (uint64_t)((double)bytes * (double)NS_PER_S / (double)MAX_OF(ns, SHORTEST_NS));
}

/* What the pair passes, by lease or not. */
static void measure(struct engine *e, uint32_t slot, struct mono now)
{
	const struct lease *l = &e->area.lease[slot];
	struct live *v = &e->leases->live[slot];
	const uint64_t passed = l->settled + atomic_load_explicit(&e->area.pair[l->pair].bytes, memory_order_relaxed);
	const uint64_t rate = rate_over(passed - v->mark_bytes, now.ns - v->mark_ns);
	const bool enough = now.ns - v->mark_ns >= SHORTEST_NS;

	if (rate > v->rate)
		v->rate = rate;		/* up at once: of a shorter time than that it is the least that it can be */
	else if (enough)
		v->rate = (rate + v->rate) / 2;		/* down by and by */
	if (!enough)
		return;
	v->mark_ns = now.ns;
	v->mark_bytes = passed;
}

static void refill(struct engine *e, uint32_t slot, struct mono now)
{
	struct live *v = &e->leases->live[slot];

	if (v->wanted || v->fresh)
		return;
	v->depleted = !v->asleep && is_used_up(e, slot);
	if (v->asleep)
		v->stale_ns = 0;
	if (lease_settle_now(e, slot, now) == 0)
		measure(e, slot, now);
	want(e, slot, v->rate);
}

static void hinted(struct engine *e, const struct lease_hint *h, struct mono now)
{
	struct pair_cold *c = &e->area.pair_cold[h->pair];
	uint64_t bytes, rate, since;
	struct lease_key key;
	uint32_t slot;

	e->leases->hints++;
	if (e->leases->due || e->leases->forget != FORGET_NONE)
		return;		/* all were ended amid the round: what is granted now would be forgotten with them */
	if (!e->policy || lease_key_of(&e->judge, h, &key) < 0)
		return;
	slot = lease_find(&e->area, &key);
	if (slot != TABLE_NONE) {
		refill(e, slot, now);	/* its packets come to the queue: used up, whether the kernel's word came or not */
		return;
	}
	bytes = atomic_load_explicit(&e->area.pair[h->pair].bytes, memory_order_relaxed);
	since = now.ns - (c->hint_ns ? c->hint_ns : c->first_ns);
	rate = rate_over(bytes - c->hint_bytes, since);
	c->hint_ns = now.ns;
	c->hint_bytes = bytes;
	e->leases->early = e->leases->early || since > RESTED;
	if (rate < LEASE_MIN / LEASE_S || lease_open(&e->judge, h, now, &slot) < 0)
		return;
	e->leases->live[slot] = (struct live){ .fresh = true, .mark_ns = now.ns, .mark_bytes = bytes };
	want(e, slot, rate);
}

/* Accounts that ran short, of which packets wait. Returns up to where the ring was read. */
static uint32_t take_shorts(struct engine *e, struct leases_ring *r)
{
	/* [H2'] */
	uint32_t head = atomic_load_explicit(&r->head, memory_order_seq_cst);

	for (uint32_t i = atomic_load_explicit(&r->tail, memory_order_relaxed); i != head; i++) {
		const uint32_t account = r->item[i % LEASES_RING].account;

		if (account != TABLE_NONE && e->area.account_cold[account].leases)
			leases_add_account(e, account);
	}
	return head;
}

static void take_hints(struct engine *e, struct leases_ring *r, uint32_t head, struct mono now)
{
	for (uint32_t i = atomic_load_explicit(&r->tail, memory_order_relaxed); i != head; i++)
		if (r->item[i % LEASES_RING].account == TABLE_NONE)
			hinted(e, &r->item[i % LEASES_RING].hint, now);
	/* [H1'] Release: done with the places. */
	atomic_store_explicit(&r->tail, head, memory_order_release);
}

void leases_review(struct engine *e)
{
	struct leases *s = e->leases;
	struct rules_lease told[64];
	struct mono now = clock_mono();
	const uint64_t before = s->granted;
	uint32_t head[AREA_WORKERS];
	size_t n;

	if (!leases_forget(e) || !e->leases_on)
		return;
	/* Before the rings are read: who writes later wakes us again. */
	atomic_store_explicit(&e->recall_asked, 0, memory_order_seq_cst);
	atomic_store_explicit(&e->lease_asked, 0, memory_order_seq_cst);
	for (unsigned i = 0; i < e->nworkers; i++)
		head[i] = take_shorts(e, &e->worker[i].lease_notes);
	leases_end(e);	/* first: packets wait for it */
	for (unsigned i = 0; i < e->nworkers; i++)
		take_hints(e, &e->worker[i].lease_notes, head[i], now);
	while ((n = rules_lease_depleted(e->rules, told, ARRAY_SIZE(told))) > 0)
		for (size_t i = 0; i < n; i++)
			if (told[i].slot < LEASE_SLOTS && lease_is_open(e, told[i].slot) &&
			    e->area.lease[told[i].slot].generation == told[i].generation) {
				s->live[told[i].slot].told = true;
				refill(e, told[i].slot, now);
			}
	raise_all(e);
	s->quiet = s->hints && !s->early && s->granted == before;
	s->hints = 0;
	s->early = false;
	if (s->quiet)
		atomic_store_explicit(&e->lease_asked, 1, memory_order_relaxed);
}

int leases_due_ms(const struct engine *e)
{
	const struct leases *s = e->leases;
	const uint64_t now = clock_mono().ns;

	if (s->low < LEASE_SLOTS)
		return 0;
	if (s->forget == FORGET_SOON)
		return s->forget_ns > now ? (int)((s->forget_ns - now) / NS_PER_MS) + 1 : 0;
	return s->quiet ? QUIET_MS : -1;
}

/* ---- the second ---- */

/* True: it is to end. It may be idle instead. */
static bool look_at(struct engine *e, uint32_t slot, struct mono now)
{
	const struct lease *l = &e->area.lease[slot];
	struct live *v = &e->leases->live[slot];
	const uint64_t before = v->rate;
	bool begins;

	if (v->broken || lease_is_spent(&e->judge, slot, now))
		return true;
	measure(e, slot, now);
	begins = v->rate / BEGINS > before;	/* the next second tells its rate */
	if (l->granted - l->settled < v->rate * STALE_S)
		v->stale_ns = 0;
	else if (!v->stale_ns)
		v->stale_ns = now.ns;
	v->idle = v->stale_ns && now.ns - v->stale_ns >= STALE_NS && !begins;
	return false;
}

static bool is_low(const struct engine *e, uint32_t slot)
{
	const struct lease *l = &e->area.lease[slot];

	return !e->leases->live[slot].asleep && l->granted - l->settled < e->leases->live[slot].rate * LEASE_S / 2;
}

/* One is not in the last dump. */
static bool misses_some(const struct engine *e)
{
	for (uint32_t i = 0; i < LEASE_SLOTS; i++)
		if (lease_is_open(e, i) && !e->leases->live[i].seen)
			return true;
	return false;
}

bool leases_second(struct engine *e)
{
	struct leases *s = e->leases;
	struct mono now = clock_mono();

	if (s->due) {
		leases_end_all(e);
		return !s->due;
	}
	if (!leases_forget(e))
		return true;	/* all have ended, and those that end are settled */
	if (!e->leases_on)
		return true;
	if (leases_settle(e) < 0)
		return false;	/* rules_present() tells why */
	if (s->nforeign || misses_some(e)) {
		enforce_worry(e, HEALTH_LEASES_CHANGED);
		log_warning("somebody %s; all of them are ended", s->nforeign ? "made leases" : "removed leases of ours");
		leases_end_all(e);
		return !s->due;
	}
	for (uint32_t i = 0; i < LEASE_SLOTS; i++)
		if (lease_is_open(e, i) && look_at(e, i, now))
			leases_add_end(e, i);
	leases_end(e);
	leases_sleep(e);
	if (s->low >= LEASE_SLOTS)
		s->low = 0;
	return true;
}

void leases_go_on(struct engine *e)
{
	struct leases *s = e->leases;

	while (s->low < LEASE_SLOTS) {
		const uint32_t slot = s->low++;

		if (!lease_is_open(e, slot) || !is_low(e, slot))
			continue;
		want(e, slot, s->live[slot].rate);
		if (s->nwant == 0)
			return;		/* a transaction is full, and done */
	}
	raise_all(e);
}
