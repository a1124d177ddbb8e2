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
	 * Test: tests/torture/charge.c under SAN=thread reports a race on the cold part if it is relaxed. */
	while (atomic_fetch_or_explicit(&a->state, ACCOUNT_LOCK, memory_order_acquire) & ACCOUNT_LOCK)
		if (++spins % 64 == 0)
			sched_yield();	/* the holder may be off the CPU; two workers on one core must not spin it out */
}

void account_unlock(struct account *a)
{
	/* [L1'] Release. */
	atomic_fetch_and_explicit(&a->state, ~(uint32_t)ACCOUNT_LOCK, memory_order_release);
}

/* Total up to which account_charge may go: where the next thing happens. */
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

void account_set_cap(struct account *a, const struct account_cold *c, uint64_t total)
{
	uint64_t lent = c->leased + c->outstanding;

	if (total != UINT64_MAX)
		total = total > lent ? total - lent : 0;
	atomic_store_explicit(&a->cap, total, memory_order_relaxed);
}

void account_refresh(struct account *a, struct account_cold *c, struct account_terms terms, bool enforce,
		     struct mono now)
{
	uint64_t cap, total = account_total(a, c);
	uint32_t tick = mono_tick(now);

	window_advance(&c->rings, total, tick);
	if (atomic_load_explicit(&a->state, memory_order_relaxed) & ACCOUNT_BLOCKED)
		cap = 0;
	else if (enforce)
		cap = enforce_cap(c, terms, total, now);
	else
		cap = alert_cap(c, terms, total);
	account_set_cap(a, c, cap);
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
	uint64_t total = account_total(a, c), start = window_start(&c->rings, l->spec, total, c->rings.tick);

	return total > start ? total - start : 0;
}

struct mono account_block_end(const struct account *a, const struct account_cold *c, struct account_terms terms,
			      struct mono since, uint32_t hold_s, uint32_t *ret_window)
{
	struct mono end = mono_add_s(since, hold_s);
	uint32_t window = ACCOUNT_LIMITS;

	for (uint32_t i = 0; i < terms.count; i++) {
		uint32_t tick = window_room_tick(&c->rings, terms.limit[i].spec, account_total(a, c), terms.limit[i].bytes);
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
	uint64_t total = account_total(a, c), start = window_start(&c->rings, l->spec, total, tick);

	return total > start ? total - start : 0;
}

int account_check(const struct account *a, const struct account_cold *c, const char **ret_why)
{
	if (c->rings.tick < atomic_load_explicit(&a->tick, memory_order_relaxed)) {
		*ret_why = "account: cap is of a tick that the rings have not reached";
		return -EINVAL;
	}
	return window_check(&c->rings, account_total(a, c), ret_why);
}
