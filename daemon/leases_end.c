/* leases_end.c - what passed on leases, to accounts and pairs, and the way back of the rest. See leases.h for the contract. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "clock.h"
#include "leases_internal.h"
#include "log.h"

#define DUMP_FROM    32			/* leases to settle: one dump is cheaper than that many questions, */
#define DUMP_SHARE   8			/* unless most of it is about others */
#define FORGET_AFTER (20 * NS_PER_MS)	/* thousands of objects keep a processor busy that the answer's way needs */
#define FORGET_AGAIN (100 * NS_PER_MS)
#define TOUCHED_MAX  512		/* ended one by one: more take longer than the end of all, and somebody waits */

bool lease_is_open(const struct engine *e, uint32_t slot)
{
	return table_is_full(&e->area.leases, slot) && e->area.lease[slot].state == LEASE_OPEN;
}

struct rules_lease lease_in_kernel(const struct engine *e, uint32_t slot)
{
	const struct lease *l = &e->area.lease[slot];
	const struct live *v = &e->leases->live[slot];

	return (struct rules_lease){ .key = l->key, .slot = slot, .generation = l->generation,
				     .quota = l->granted + v->sent_on, .fresh = v->fresh, .asleep = v->asleep };
}

/* ---- settle ---- */

static void settle(struct engine *e, uint32_t slot, uint64_t packets, uint64_t bytes, struct mono now)
{
	const uint64_t beyond = e->leases->closing ? lease_settle_last(&e->judge, slot, bytes, packets, now) :
						     lease_settle(&e->judge, slot, bytes, packets, now);

	if (!beyond)
		return;
	atomic_fetch_add_explicit(&e->area.h->lease_beyond, beyond, memory_order_relaxed);
	if (e->leases->live[slot].broken)
		return;	/* told, and about to end */
	e->leases->live[slot].broken = true;
	enforce_worry(e, HEALTH_LEASES_CHANGED);
	log_warning("somebody raised or reset a quota of ours: %" PRIu64 " bytes passed beyond what was granted so far; they are counted, "
		    "and the lease ends", beyond);
}

static void counted(void *ctx, const struct lease_key *key, uint64_t packets, uint64_t bytes)
{
	struct engine *e = ctx;
	const uint32_t slot = lease_find(&e->area, key);

	if (slot == TABLE_NONE || !lease_is_open(e, slot)) {
		e->leases->nforeign++;
		e->leases->foreign_packets += packets;
		e->leases->foreign_bytes += bytes;
		return;
	}
	e->leases->live[slot].seen = true;
	settle(e, slot, packets, bytes, clock_mono());
}

int leases_settle(struct engine *e)
{
	e->leases->nforeign = 0;
	e->leases->foreign_packets = e->leases->foreign_bytes = 0;
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
	atomic_fetch_add_explicit(&e->area.h->lease_lost, assumed, memory_order_relaxed);
	log_warning("a lease was removed by others: its %" PRIu64 " bytes count as passed", assumed);
}

int lease_settle_now(struct engine *e, uint32_t slot, struct mono now)
{
	const struct rules_lease l = lease_in_kernel(e, slot);
	uint64_t packets, bytes;
	int r = rules_lease_count(e->rules, &l, &packets, &bytes);

	if (r == -ENOENT)
		lost(e, slot, now);
	else if (r == 0)
		settle(e, slot, packets, bytes, now);
	return r;
}

/* ---- end ---- */

void lease_drop(struct engine *e, uint32_t slot)
{
	e->leases->live[slot] = (struct live){ 0 };
	lease_free(&e->judge, slot);
}

/* What leases that others made let pass is in no pair's record and in no account, so it is unseen; the kernel's counter of that, from which
 * the total goes on, does not know it. */
static void foreign_passed(struct engine *e)
{
	const struct leases *s = e->leases;
	struct area_header *h = e->area.h;

	h->unseen_packets_base += s->foreign_packets;
	h->unseen_base += s->foreign_bytes;
	atomic_fetch_add_explicit(&h->unseen_packets, s->foreign_packets, memory_order_relaxed);
	atomic_fetch_add_explicit(&h->unseen_bytes, s->foreign_bytes, memory_order_relaxed);
	atomic_fetch_add_explicit(&h->lease_beyond, s->foreign_bytes, memory_order_relaxed);
	log_warning("%u leases in the kernel were not ours: %" PRIu64 " bytes passed by them, unseen", s->nforeign, s->foreign_bytes);
}

static void recalled(struct engine *e, unsigned n)
{
	atomic_fetch_add_explicit(&e->area.h->lease_recalls, n, memory_order_relaxed);
	/* Release: who sees it finds the credit returned. Pairs with the acquire in held.c. */
	atomic_fetch_add_explicit(&e->lease_epoch, 1, memory_order_release);
}

static void failed(struct engine *e, int error)
{
	for (uint32_t i = 0; i < LEASE_SLOTS; i++)
		e->leases->live[i].wanted = e->leases->live[i].ending = false;
	e->leases->due = true;
	enforce_worry(e, HEALTH_RULES_FAILED);
	log_error("leases cannot be ended: %s; what is out on them stays charged, and it is tried again", strerror(-error));
}

void leases_end_all(struct engine *e)
{
	struct leases *s = e->leases;
	struct mono now = clock_mono();
	unsigned n = 0;
	int r;

	if (!s->due && !s->nforeign && atomic_load_explicit(&e->area.leases.state->live, memory_order_relaxed) == 0)
		return;
	s->nwant = s->nending = 0;
	s->low = LEASE_SLOTS;
	r = rules_lease_end_all(e->rules);
	rules_lease_grace();
	s->closing = true;
	if (r == 0 || r == -ENOENT)	/* others removed the chain; the counters may stand yet */
		r = leases_settle(e);
	s->closing = false;
	if (r < 0 && r != -ENOENT) {
		failed(e, r);
		return;
	}
	if (s->nforeign && !s->leftover)
		foreign_passed(e);
	s->nforeign = 0;
	for (uint32_t i = 0; i < LEASE_SLOTS; i++) {
		if (!lease_is_open(e, i))
			continue;
		/* -ENOENT: others removed the counters. One not seen that a dead engine left had been charged and never got there. */
		if (!s->live[i].fresh && (r < 0 || (!s->live[i].seen && !s->inherited)))
			lost(e, i, now);
		lease_close(&e->judge, i, now);
		lease_drop(e, i);
		n++;
	}
	s->due = s->inherited = false;
	s->forget = FORGET_SOON;
	s->forget_ns = clock_mono().ns + FORGET_AFTER;
	recalled(e, n);
}

bool leases_forget(struct engine *e)
{
	struct leases *s = e->leases;
	int r;

	if (s->due)
		return false;
	if (s->forget == FORGET_NONE)
		return true;
	if (clock_mono().ns < s->forget_ns)
		return false;
	r = rules_lease_forget_all(e->rules);
	if (r == -EAGAIN) {
		s->forget = FORGET_SOON;
		s->forget_ns = clock_mono().ns + FORGET_AGAIN;
		return false;
	}
	s->forget = r < 0 && r != -ENOENT ? FORGET_FAILED : FORGET_NONE;
	s->leftover = s->forget == FORGET_FAILED;
	if (s->leftover) {
		enforce_worry(e, HEALTH_RULES_FAILED);
		log_error("ended leases cannot be removed: %s; none is granted, and it is tried again", strerror(-r));
	}
	return s->forget == FORGET_NONE;
}

static int settle_and_close(struct engine *e)
{
	const struct leases *s = e->leases;
	const struct mono now = clock_mono();
	const uint32_t live = atomic_load_explicit(&e->area.leases.state->live, memory_order_relaxed);
	const bool dump = s->nending >= MAX_OF(DUMP_FROM, live / DUMP_SHARE);
	int r = dump ? leases_settle(e) : 0;

	for (unsigned i = 0; r == 0 && i < s->nending; i++) {
		if (!dump)
			r = lease_settle_now(e, s->ending[i], now);
		else if (!s->live[s->ending[i]].seen)
			lost(e, s->ending[i], now);
		if (r == -ENOENT)
			r = 0;
		if (r == 0)
			lease_close(&e->judge, s->ending[i], now);
	}
	return r;
}

/* All that are to end, a transaction for each lot. */
static int in_lots(struct engine *e, int (*call)(struct rules *r, const struct rules_lease *v, size_t n))
{
	const struct leases *s = e->leases;
	struct rules_lease v[RULES_LEASES];
	int r = 0;

	for (unsigned i = 0; r == 0 && i < s->nending;) {
		size_t n = 0;

		while (n < RULES_LEASES && i < s->nending)
			v[n++] = lease_in_kernel(e, s->ending[i++]);
		r = call(e->rules, v, n);
	}
	return r;
}

static void failed_one(struct engine *e, int error)
{
	log_notice("leases: %s; all of them are ended", strerror(-error));
	leases_end_all(e);
}

void leases_ended(struct engine *e)
{
	struct leases *s = e->leases;
	const int r = settle_and_close(e);

	if (r < 0) {
		failed_one(e, r);
		return;
	}
	if (in_lots(e, rules_lease_forget) < 0)
		s->due = s->leftover = true;	/* an end of all takes what is left */
	for (unsigned i = 0; i < s->nending; i++)
		lease_drop(e, s->ending[i]);
	recalled(e, s->nending);
	s->nending = 0;
}

void leases_end(struct engine *e)
{
	int r;

	if (e->leases->nending == 0)
		return;
	r = in_lots(e, rules_lease_end);
	rules_lease_grace();
	if (r < 0)
		failed_one(e, r);
	else
		leases_ended(e);
}

void leases_add_end(struct engine *e, uint32_t slot)
{
	struct leases *s = e->leases;

	if (s->live[slot].ending)
		return;
	s->live[slot].ending = true;
	s->ending[s->nending++] = slot;
}

void leases_add_account(struct engine *e, uint32_t account)
{
	lease_rest(&e->judge, account, clock_mono());
	for (uint32_t i = 0; i < LEASE_SLOTS; i++)
		if (lease_is_open(e, i) && lease_pays(&e->area, i, account))
			leases_add_end(e, i);
}

void leases_end_spent(struct engine *e)
{
	struct mono now = clock_mono();

	for (uint32_t i = 0; i < LEASE_SLOTS; i++)
		if (lease_is_open(e, i) && lease_is_spent(&e->judge, i, now))
			leases_add_end(e, i);
	leases_end(e);
}

void leases_end_between(struct engine *e, const struct prefix *src, const struct prefix *dst)
{
	for (uint32_t i = 0; i < LEASE_SLOTS; i++)
		if (lease_is_open(e, i) && lease_is_between(&e->area.lease[i].key, src, dst))
			leases_add_end(e, i);
	leases_end(e);
}

void leases_end_touched(struct engine *e, const struct policy *next)
{
	struct leases *s = e->leases;

	const bool all = s->due || !e->policy;

	for (uint32_t i = 0; !all && s->nending <= TOUCHED_MAX && i < LEASE_SLOTS; i++)
		if (lease_is_open(e, i) && !lease_is_untouched(&e->area.lease[i].key, &e->policy->view, next))
			leases_add_end(e, i);
	if (all || s->nending > TOUCHED_MAX)
		leases_end_all(e);
	else
		leases_end(e);
}

uint64_t leases_outstanding(const struct engine *e)
{
	uint64_t n = 0;

	for (uint32_t i = 0; i < e->area.h->accounts; i++)
		if (table_is_full(&e->area.accounts, i))
			n += e->area.account_cold[i].outstanding;
	return n;
}
