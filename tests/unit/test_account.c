/* test_account.c - an account of several windows against a list of all that was ever charged: random charges, undos late and early, time
 * in steps and leaps, blocks and grants; after each step every sum is the list's, the checker is content, and the fast path says yes
 * just when the list says that there is room.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "account.h"

#define STEPS  60000
#define EVENTS 4096

struct event {
	uint32_t tick;
	uint64_t bytes;
};

static struct {
	struct account a;
	struct account_cold c;
	struct account_limit limit[5];
	struct event event[EVENTS];	/* what passed and was not taken back */
	unsigned n;
	uint64_t spent;
	uint32_t tick;
	bool refreshed;
} w;

static uint64_t state = 0x853c49e6748fea9b;

static uint64_t rng(uint64_t below)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (state >> 16) % below;
}

/* window.h: whole buckets, the oldest one too. */
static uint64_t sum_of(const struct account_limit *l)
{
	uint32_t ticks = window_bucket_s(l->spec.ring) / 5, now = w.tick / ticks;
	uint64_t sum = 0;

	for (unsigned i = 0; i < w.n; i++)
		if (w.event[i].tick / ticks + l->spec.buckets >= now)
			sum += w.event[i].bytes;
	return sum;
}

static uint64_t room(void)
{
	uint64_t least = UINT64_MAX;

	for (unsigned i = 0; i < ARRAY_SIZE(w.limit); i++) {
		uint64_t sum = sum_of(&w.limit[i]);

		least = MIN_OF(least, sum >= w.limit[i].bytes ? 0 : w.limit[i].bytes - sum);
	}
	return least;
}

static struct account_terms terms(void)
{
	return (struct account_terms){ w.limit, ARRAY_SIZE(w.limit) };
}

static void refresh(void)
{
	account_lock(&w.a);
	account_refresh(&w.a, &w.c, terms(), true, mono_of_tick(w.tick));
	account_unlock(&w.a);
	w.refreshed = true;
}

static void check(unsigned long step)
{
	const char *why = "";

	if (account_check(&w.a, &w.c, &why) < 0)
		fail_msg("step %lu: %s", step, why);
	for (unsigned i = 0; w.refreshed && i < ARRAY_SIZE(w.limit); i++) {
		uint64_t have = account_sum(&w.a, &w.c, &w.limit[i]), want = sum_of(&w.limit[i]);

		if (have != want)
			fail_msg("step %lu: window of %u s: %lu, the list has %lu", step, w.limit[i].seconds, have, want);
	}
}

static void charge(unsigned long step)
{
	uint64_t n = 1 + rng(rng(20) ? 3000 : 400000), left = room();
	bool blocked = w.a.state & ACCOUNT_BLOCKED, want;

	if (w.n == EVENTS)
		return;
	if (mono_of_tick(w.tick).ns < w.c.grant_until_ns && w.c.grant_to > w.spent)
		left = MAX_OF(left, w.c.grant_to - w.spent);
	want = w.refreshed && !blocked && n <= left;
	if (account_charge(&w.a, n, w.tick) != want)
		fail_msg("step %lu: %lu bytes %s, %lu left", step, n, want ? "refused" : "paid", left);
	if (!want)
		return;
	w.event[w.n++] = (struct event){ w.tick, n };
	w.spent += n;
}

/* Any of the last few, also from before some bucket began. */
static void undo(void)
{
	unsigned at;

	if (!w.n)
		return;
	at = w.n - 1 - (unsigned)rng(MIN_OF(w.n, 4u));
	if (w.tick - w.event[at].tick > 12)	/* a packet is not longer on its way */
		return;
	account_lock(&w.a);
	account_undo(&w.a, &w.c, w.event[at].bytes, w.event[at].tick);
	account_unlock(&w.a);
	w.spent -= w.event[at].bytes;
	w.event[at] = w.event[--w.n];
	refresh();
}

static void pass_time(void)
{
	uint64_t kind = rng(100);
	unsigned kept = 0;

	w.tick += (uint32_t)(kind < 70 ? 1 : kind < 95 ? rng(100) : kind < 99 ? rng(20000) : rng(700000));
	w.refreshed = w.a.tick == w.tick;
	for (unsigned i = 0; i < w.n; i++)	/* beyond the longest window nothing is asked */
		if (w.tick - w.event[i].tick < 32 * 86400 / 5)
			w.event[kept++] = w.event[i];
	w.n = kept;
}

static void random_steps(void **unused)
{
	static const struct {
		uint32_t seconds;
		uint64_t bytes;
	} limits[] = { { 60, 300000 }, { 600, 900000 }, { 3600, 2000000 }, { 86400, 6000000 }, { 30 * 86400, 40000000 } };
	unsigned paid = 0;

	(void)unused;
	w.tick = TICK_BASE + 1000;
	for (unsigned i = 0; i < ARRAY_SIZE(limits); i++) {
		w.limit[i] = (struct account_limit){ .bytes = limits[i].bytes, .seconds = limits[i].seconds };
		assert_int_equal(window_spec_for(limits[i].seconds, &w.limit[i].spec), 0);
	}
	for (unsigned long step = 0; step < STEPS; step++) {
		uint64_t kind = rng(100);
		unsigned before = w.n;

		if (kind < 55)
			charge(step);
		else if (kind < 80)
			refresh();
		else if (kind < 85)
			undo();
		else if (kind < 97)
			pass_time();
		else if (kind < 98) {
			account_lock(&w.a);
			w.c.grant_to = w.spent + rng(2000000);
			w.c.grant_until_ns = mono_of_tick(w.tick + (uint32_t)rng(50)).ns;
			account_unlock(&w.a);
			refresh();
		} else {
			atomic_fetch_xor_explicit(&w.a.state, ACCOUNT_BLOCKED, memory_order_relaxed);
			refresh();
		}
		paid += w.n > before;
		check(step);
	}
	assert_true(paid > STEPS / 20);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_steps),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
