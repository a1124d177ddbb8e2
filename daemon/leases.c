/* leases.c - see leases.h for the contract. */
#include "leases.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "engine.h"
#include "log.h"
#include "rules_lease.h"

#define QUIET_MS    50		/* between looks at hints that came to nothing */
#define STALE_S	    30		/* of its rate out: too much */
#define STALE_NS    (10 * NS_PER_S)
#define DUMP_FROM   32		/* leases to settle: one dump is cheaper than that many questions */
#define SHORTEST_NS NS_PER_MS	/* a rate is not measured over less */

struct live {			/* of an open lease: what a restart need not know */
	uint64_t sent_on;	/* of what the quota saw: to the queue, no credit was spent on it */
	uint64_t rate;		/* bytes a second */
	uint64_t mark_ns, mark_bytes;	/* rate is measured from: the pair's bytes then, those in the queue included */
	uint64_t stale_ns;	/* since when more is out than STALE_S of its rate; 0: it is not */
	bool fresh;		/* not in the kernel yet */
	bool depleted;		/* since its last raise: sent_on is to be read again */
	bool wanted;		/* in want[] */
	bool seen;		/* in the dump under way */
};

struct leases {
	struct live live[LEASE_SLOTS];
	uint32_t want[RULES_LEASES];
	unsigned nwant;
	bool clean;		/* what an engine before left in the kernel is gone */
	bool quiet;		/* hints came to nothing: the workers wake us no more, and we look when due */
	unsigned hints;		/* taken in this round */
	uint64_t granted;	/* rounds that gave something, ever */
};

struct leases *leases_new(void)
{
	return calloc(1, sizeof(struct leases));
}

static bool is_open(const struct engine *e, uint32_t slot)
{
	return table_is_full(&e->area.leases, slot) && e->area.lease[slot].state == LEASE_OPEN;
}

static void count(_Atomic uint64_t *c, uint64_t n)
{
	atomic_fetch_add_explicit(c, n, memory_order_relaxed);
}

static struct rules_lease in_kernel(const struct engine *e, uint32_t slot)
{
	const struct lease *l = &e->area.lease[slot];
	const struct live *v = &e->leases->live[slot];

	return (struct rules_lease){ .key = l->key, .slot = slot, .generation = l->generation,
				     .quota = l->granted + v->sent_on, .fresh = v->fresh };
}

/* ---- from the workers ---- */

bool leases_note(struct engine_worker *w, const struct judge_packet *v)
{
	struct leases_ring *r = &w->lease_notes;
	/* Relaxed: only this thread writes head. [H1] Acquire: the reader is done with the place. */
	uint32_t head = atomic_load_explicit(&r->head, memory_order_relaxed);
	uint32_t tail = atomic_load_explicit(&r->tail, memory_order_acquire);
	_Atomic uint32_t *asked = v->hold ? &w->e->recall_asked : &w->e->lease_asked;

	if (!__atomic_load_n(&w->e->leases_on, __ATOMIC_RELAXED) || v->pair == TABLE_NONE || head - tail == LEASES_RING)
		return false;
	r->item[head % LEASES_RING] = (struct leases_item){
		.hint = lease_hint_of(v), .account = v->hold ? v->refused_by : TABLE_NONE,
	};
	/* [H2] Release: the item before the number; pairs with the acquire in take_shorts(). */
	atomic_store_explicit(&r->head, head + 1, memory_order_release);
	return !atomic_load_explicit(asked, memory_order_relaxed) &&
	       !atomic_exchange_explicit(asked, 1, memory_order_relaxed);
}

/* ---- end ---- */

static void settle(struct engine *e, uint32_t slot, uint64_t packets, uint64_t bytes, struct mono now)
{
	const uint64_t beyond = lease_settle(&e->judge, slot, bytes, packets, now);

	if (!beyond)
		return;
	count(&e->area.h->lease_beyond, beyond);
	enforce_worry(e, HEALTH_RULES_FLUSHED);
	log_warning("somebody raised a quota of ours: %llu bytes passed beyond what was granted, and are counted",
		    (unsigned long long)beyond);
}

static void counted(void *ctx, const struct lease_key *key, uint64_t packets, uint64_t bytes)
{
	struct engine *e = ctx;
	const uint32_t slot = lease_find(&e->area, key);

	if (slot == TABLE_NONE || !is_open(e, slot))
		return;
	e->leases->live[slot].seen = true;
	settle(e, slot, packets, bytes, clock_mono());
}

static int settle_all(struct engine *e)
{
	for (uint32_t i = 0; i < LEASE_SLOTS; i++)
		e->leases->live[i].seen = false;
	return rules_lease_counts(e->rules, counted, e);
}

/* The counter is gone, so nobody knows what passed: all of it, then. */
static void lost(struct engine *e, uint32_t slot, struct mono now)
{
	const uint64_t assumed = lease_lost(&e->judge, slot, now);

	if (!assumed)
		return;
	count(&e->area.h->lease_lost, assumed);
	log_warning("a lease was removed by others: its %llu bytes count as passed", (unsigned long long)assumed);
}

static void settle_one(struct engine *e, uint32_t slot, struct mono now)
{
	const struct rules_lease l = in_kernel(e, slot);
	uint64_t packets, bytes;

	if (rules_lease_count(e->rules, &l, &packets, &bytes) < 0)
		lost(e, slot, now);
	else
		settle(e, slot, packets, bytes, now);
}

static void forget(struct engine *e, uint32_t slot)
{
	e->leases->live[slot] = (struct live){ 0 };
	lease_free(&e->judge, slot);
}

static void recalled(struct engine *e, unsigned n)
{
	count(&e->area.h->lease_recalls, n);
	/* Release: who sees it finds the credit returned. Pairs with the acquire in worker.c. */
	atomic_fetch_add_explicit(&e->lease_epoch, 1, memory_order_release);
}

void leases_end_all(struct engine *e)
{
	struct leases *s = e->leases;
	struct mono now = clock_mono();
	unsigned n = 0;
	int r;

	s->nwant = 0;
	if (s->clean && atomic_load_explicit(&e->area.leases.state->live, memory_order_relaxed) == 0)
		return;
	r = rules_lease_end_all(e->rules);
	rules_lease_grace();
	if (r == 0)
		r = settle_all(e);
	for (uint32_t i = 0; i < LEASE_SLOTS; i++) {
		if (!is_open(e, i))
			continue;
		/* Of an engine before: what it charged and had no time to tell the kernel was in no instant there. */
		if (r < 0 || (s->clean && !s->live[i].seen && !s->live[i].fresh))
			lost(e, i, now);
		lease_close(&e->judge, i, now);
		n++;
	}
	if (r == 0)
		r = rules_lease_forget_all(e->rules);
	if (r == -ENOENT)
		r = 0;	/* no table of ours: others removed it, or there never was one */
	if (r < 0) {
		enforce_worry(e, HEALTH_RULES_FAILED);
		log_error("leases cannot be ended: %s; what they had counts as passed, and they are tried again", strerror(-r));
	}
	s->clean = r == 0;
	for (uint32_t i = 0; i < LEASE_SLOTS; i++)
		if (is_open(e, i))
			forget(e, i);
	recalled(e, n);
}

/* n <= RULES_LEASES open leases that are in the kernel. */
static void end(struct engine *e, const uint32_t *slot, unsigned n)
{
	struct rules_lease v[RULES_LEASES];
	struct mono now;
	int r;

	if (n == 0)
		return;
	for (unsigned i = 0; i < n; i++)
		v[i] = in_kernel(e, slot[i]);
	r = rules_lease_end(e->rules, v, n);
	rules_lease_grace();
	now = clock_mono();
	if (r == 0 && n >= DUMP_FROM)
		r = settle_all(e);
	if (r < 0) {
		log_notice("leases: %s; all of them are ended", strerror(-r));
		leases_end_all(e);
		return;
	}
	for (unsigned i = 0; i < n; i++) {
		if (n < DUMP_FROM)
			settle_one(e, slot[i], now);
		else if (!e->leases->live[slot[i]].seen)
			lost(e, slot[i], now);
		lease_close(&e->judge, slot[i], now);
	}
	if (rules_lease_forget(e->rules, v, n) < 0)
		e->leases->clean = false;	/* the next end of all takes what is left */
	for (unsigned i = 0; i < n; i++)
		forget(e, slot[i]);
	recalled(e, n);
}

struct ending {
	uint32_t slot[RULES_LEASES];
	unsigned n;
};

static void add_end(struct engine *e, struct ending *x, uint32_t slot)
{
	x->slot[x->n++] = slot;
	if (x->n < RULES_LEASES)
		return;
	end(e, x->slot, x->n);
	x->n = 0;
}

static void end_of_account(struct engine *e, uint32_t account)
{
	struct ending x = { .n = 0 };

	lease_rest(&e->judge, account, clock_mono());
	for (uint32_t i = 0; i < LEASE_SLOTS; i++)
		if (is_open(e, i) && lease_pays(&e->area, i, account))
			add_end(e, &x, i);
	end(e, x.slot, x.n);
}

void leases_end_spent(struct engine *e)
{
	struct mono now = clock_mono();
	struct ending x = { .n = 0 };

	for (uint32_t i = 0; i < LEASE_SLOTS; i++)
		if (is_open(e, i) && lease_is_spent(&e->judge, i, now))
			add_end(e, &x, i);
	end(e, x.slot, x.n);
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

/* The kernel's changes of one round, after a grace period of the workers: [Z2]. */
static void raise_all(struct engine *e)
{
	struct leases *s = e->leases;
	struct rules_lease v[RULES_LEASES];
	uint64_t grant[RULES_LEASES];
	uint32_t near_end[RULES_LEASES], account;
	struct ending none = { .n = 0 };
	struct mono now = clock_mono();
	unsigned n = 0, nnear = 0;

	for (unsigned i = 0; i < s->nwant; i++) {
		grant[i] = lease_grant(&e->judge, s->want[i], s->live[s->want[i]].rate, now, &account);
		if (!grant[i] && account != TABLE_NONE && is_lent_out(e, account))
			near_end[nnear++] = account;
	}
	worker_grace();
	now = clock_mono();
	for (unsigned i = 0; i < s->nwant; i++) {
		const uint32_t slot = s->want[i];
		const struct lease *l = &e->area.lease[slot];
		bool granted = grant[i] && lease_stands(&e->judge, slot, grant[i], now);

		s->live[slot].wanted = false;
		if (granted)
			count(s->live[slot].fresh ? &e->area.h->lease_grants : &e->area.h->lease_raises, 1);
		if (granted || (s->live[slot].depleted && l->granted - l->settled >= LEASE_MIN)) {
			s->granted++;
			v[n++] = in_kernel(e, slot);
		} else if (s->live[slot].fresh) {
			forget(e, slot);
		} else if (s->live[slot].depleted) {
			none.slot[none.n++] = slot;	/* used up, and there is no more */
		}
	}
	s->nwant = 0;
	if (n && rules_lease_put(e->rules, v, n) < 0) {
		log_notice("leases not granted; all of them are ended");
		s->clean = false;
		leases_end_all(e);
		return;
	}
	for (unsigned i = 0; i < n; i++)
		s->live[v[i].slot].fresh = false;
	end(e, none.slot, none.n);
	for (unsigned i = 0; i < nnear; i++)
		if (e->area.account_cold[near_end[i]].outstanding)
			end_of_account(e, near_end[i]);
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

/* How much of what the quota saw went on to the queue: `used` is read before the count, so never too much. */
static void read_sent_on(struct engine *e, uint32_t slot, struct mono now)
{
	const struct rules_lease l = in_kernel(e, slot);
	struct live *v = &e->leases->live[slot];
	uint64_t used = 0;
	int r = rules_lease_used(e->rules, &l, &used);

	settle_one(e, slot, now);
	if (r == 0 && used > e->area.lease[slot].settled)
		v->sent_on = MAX_OF(v->sent_on, used - e->area.lease[slot].settled);
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

	if (now.ns - v->mark_ns < SHORTEST_NS)
		return;
	v->rate = rate > v->rate ? rate : (rate + v->rate) / 2;	/* up at once, down by and by */
	v->mark_ns = now.ns;
	v->mark_bytes = passed;
}

static void refill(struct engine *e, uint32_t slot, struct mono now)
{
	struct live *v = &e->leases->live[slot];

	if (v->wanted || v->fresh)
		return;
	v->depleted = true;
	read_sent_on(e, slot, now);
	measure(e, slot, now);
	want(e, slot, v->rate);
}

static void hinted(struct engine *e, const struct lease_hint *h, struct mono now)
{
	struct pair_cold *c = &e->area.pair_cold[h->pair];
	uint64_t bytes, rate;
	struct lease_key key;
	uint32_t slot;

	e->leases->hints++;
	if (!e->policy || lease_key_of(&e->judge, h, &key) < 0)
		return;
	slot = lease_find(&e->area, &key);
	if (slot != TABLE_NONE) {
		refill(e, slot, now);	/* its packets come to the queue: used up, whether the kernel's word came or not */
		return;
	}
	bytes = atomic_load_explicit(&e->area.pair[h->pair].bytes, memory_order_relaxed);
	rate = rate_over(bytes - c->hint_bytes, now.ns - (c->hint_ns ? c->hint_ns : c->first_ns));
	c->hint_ns = now.ns;
	c->hint_bytes = bytes;
	if (rate < LEASE_MIN / LEASE_S || lease_open(&e->judge, h, now, &slot) < 0)
		return;
	e->leases->live[slot] = (struct live){ .fresh = true, .mark_ns = now.ns, .mark_bytes = bytes };
	want(e, slot, rate);
}

/* Accounts that ran short, of which packets wait. Returns up to where the ring was read. */
static uint32_t take_shorts(struct engine *e, struct leases_ring *r)
{
	/* [H2'] Acquire. */
	uint32_t head = atomic_load_explicit(&r->head, memory_order_acquire);

	for (uint32_t i = atomic_load_explicit(&r->tail, memory_order_relaxed); i != head; i++) {
		const uint32_t account = r->item[i % LEASES_RING].account;

		if (account != TABLE_NONE && e->area.account_cold[account].leases)
			end_of_account(e, account);
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

	if (!e->leases_on || !s->clean)
		return;
	/* Before the rings are read: who writes later wakes us again. */
	atomic_store_explicit(&e->recall_asked, 0, memory_order_seq_cst);
	atomic_store_explicit(&e->lease_asked, 0, memory_order_seq_cst);
	for (unsigned i = 0; i < e->nworkers; i++)
		head[i] = take_shorts(e, &e->worker[i].lease_notes);
	for (unsigned i = 0; i < e->nworkers; i++)
		take_hints(e, &e->worker[i].lease_notes, head[i], now);
	while ((n = rules_lease_depleted(e->rules, told, ARRAY_SIZE(told))) > 0)
		for (size_t i = 0; i < n; i++)
			if (told[i].slot < LEASE_SLOTS && is_open(e, told[i].slot) &&
			    e->area.lease[told[i].slot].generation == told[i].generation)
				refill(e, told[i].slot, now);
	raise_all(e);
	s->quiet = s->hints && s->granted == before;
	s->hints = 0;
	if (s->quiet)
		atomic_store_explicit(&e->lease_asked, 1, memory_order_relaxed);
}

int leases_due_ms(const struct engine *e)
{
	return e->leases->quiet ? QUIET_MS : -1;
}

/* ---- the second ---- */

/* True: it is to end. */
static bool look_at(struct engine *e, uint32_t slot, struct mono now)
{
	const struct lease *l = &e->area.lease[slot];
	struct live *v = &e->leases->live[slot];
	const uint64_t out = l->granted - l->settled;

	if (lease_is_spent(&e->judge, slot, now))
		return true;
	measure(e, slot, now);
	if (v->depleted) {
		v->depleted = false;
		read_sent_on(e, slot, now);
	}
	if (out > v->rate * STALE_S) {
		v->stale_ns = v->stale_ns ? v->stale_ns : now.ns;
		return now.ns - v->stale_ns >= STALE_NS;
	}
	v->stale_ns = 0;
	if (out < v->rate * LEASE_S / 2)
		want(e, slot, v->rate);
	return false;
}

void leases_second(struct engine *e)
{
	struct mono now = clock_mono();
	struct ending x = { .n = 0 };
	bool gone = false;

	if (!e->leases->clean) {
		leases_end_all(e);
		return;
	}
	if (atomic_load_explicit(&e->area.leases.state->live, memory_order_relaxed) == 0)
		return;
	if (settle_all(e) < 0)
		return;	/* rules_present() tells why */
	for (uint32_t i = 0; i < LEASE_SLOTS; i++) {
		if (!is_open(e, i) || e->leases->live[i].fresh)
			continue;
		gone = gone || !e->leases->live[i].seen;
		if (look_at(e, i, now))
			add_end(e, &x, i);
	}
	end(e, x.slot, x.n);
	if (gone) {
		enforce_worry(e, HEALTH_RULES_FLUSHED);
		log_warning("somebody removed leases of ours; all of them are ended");
		leases_end_all(e);
	}
	raise_all(e);
}
