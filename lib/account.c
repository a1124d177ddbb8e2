/* account.c - see account.h for the contract. */
#include "account.h"

#include <errno.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>

void account_lock(struct account *a)
{
	unsigned spins = 0;

	/* [L1] Acquire: the cold part as the last holder left it. Pairs with L1' in account_unlock().
	 * Test: tests/torture/account.c under SAN=thread reports a race on the cold part if it is relaxed. */
	while (atomic_fetch_or_explicit(&a->state, ACCOUNT_LOCK, memory_order_acquire) & ACCOUNT_LOCK)
		if (++spins % 64 == 0)
			sched_yield();	/* the holder may be off the CPU; two workers on one core must not spin it out */
}

void account_unlock(struct account *a)
{
	/* [L1'] Release. */
	atomic_fetch_and_explicit(&a->state, ~(uint32_t)ACCOUNT_LOCK, memory_order_release);
}

static uint64_t spent_now(const struct account *a)
{
	/* Relaxed: a number; what hangs on it is decided by compare-and-swap. */
	return atomic_load_explicit(&a->spent, memory_order_relaxed);
}

/* spent up to which account_charge may go: where the next thing happens. */
static uint64_t enforce_cap(const struct account_cold *c, struct account_terms t, uint64_t total, struct mono now)
{
	uint64_t cap = UINT64_MAX;

	for (uint32_t i = 0; i < t.count; i++) {
		uint64_t at = window_start(&c->rings, t.limit[i].spec, total, c->rings.tick) + t.limit[i].bytes;

		cap = at < cap ? at : cap;
	}
	if (now.ns < c->grant_until_ns && c->grant_to > cap)
		cap = c->grant_to;
	return cap;
}

static uint64_t alert_cap(const struct account_cold *c, struct account_terms t, uint64_t total)
{
	uint64_t cap = UINT64_MAX;

	for (uint32_t i = 0; i < t.count; i++) {
		uint64_t next = c->over & 1U << i ? 2 * c->peak[i] : t.limit[i].bytes;
		uint64_t at = window_start(&c->rings, t.limit[i].spec, total, c->rings.tick) + next;

		cap = at < cap ? at : cap;
	}
	return cap;
}

void account_refresh(struct account *a, struct account_cold *c, struct account_terms terms, bool enforce,
		     struct mono now)
{
	uint32_t tick = mono_tick(now);
	uint64_t cap, total;

	/* Bytes out on lease open no bucket: they are not known to have passed (DESIGN 2: outstanding never ages). */
	total = spent_now(a) - c->outstanding;
	window_advance(&c->rings, total, tick);
	if (atomic_load_explicit(&a->state, memory_order_relaxed) & ACCOUNT_BLOCKED)
		cap = 0;
	else if (enforce)
		cap = enforce_cap(c, terms, total, now);
	else
		cap = alert_cap(c, terms, total);
	atomic_store_explicit(&a->cap, cap, memory_order_relaxed);
	/* [C1'] Release: who sees this tick sees this cap; pairs with C1 in account_charge(). */
	atomic_store_explicit(&a->tick, c->rings.tick, memory_order_release);
}

void account_pay(struct account *a, uint64_t n)
{
	atomic_fetch_add_explicit(&a->spent, n, memory_order_relaxed);
}

void account_undo(struct account *a, struct account_cold *c, uint64_t n, uint32_t charged)
{
	/* Starts first: a kill in between leaves a sum too high, never one too low. */
	if (c->rings.tick > charged)
		window_undo(&c->rings, charged, n);
	atomic_fetch_sub_explicit(&a->spent, n, memory_order_relaxed);
}

uint64_t account_sum(const struct account *a, const struct account_cold *c, const struct account_limit *l)
{
	uint64_t spent = spent_now(a), start = window_start(&c->rings, l->spec, spent, c->rings.tick);

	return spent > start ? spent - start : 0;
}

struct mono account_block_end(const struct account *a, const struct account_cold *c, struct account_terms terms,
			      struct mono since, uint32_t hold_s, uint32_t *ret_window)
{
	struct mono end = mono_add_s(since, hold_s);
	uint32_t window = ACCOUNT_LIMITS;

	for (uint32_t i = 0; i < terms.count; i++) {
		uint32_t tick = window_room_tick(&c->rings, terms.limit[i].spec, spent_now(a), terms.limit[i].bytes);
		struct mono room = mono_of_tick(tick);

		if (room.ns > end.ns) {
			end = room;
			window = i;
		}
	}
	*ret_window = window;
	return end;
}

void account_recover(struct account *a)
{
	atomic_fetch_and_explicit(&a->state, ~(uint32_t)ACCOUNT_LOCK, memory_order_relaxed);
}

uint64_t account_peek_sum(const struct account *a, const struct account_cold *c, const struct account_limit *l,
			  uint32_t tick)
{
	uint64_t spent = spent_now(a), start = window_start(&c->rings, l->spec, spent, tick);

	return spent > start ? spent - start : 0;
}

int account_check(const struct account *a, const struct account_cold *c, const char **ret_why)
{
	uint64_t spent = spent_now(a);

	if (c->outstanding > spent) {
		*ret_why = "account: more out on lease than was ever charged";
		return -EINVAL;
	}
	if (c->rings.tick < atomic_load_explicit(&a->tick, memory_order_relaxed)) {
		*ret_why = "account: cap is of a tick that the rings have not reached";
		return -EINVAL;
	}
	return window_check(&c->rings, spent, ret_why);
}
