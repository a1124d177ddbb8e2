/* test_rings.c - window.h against a list of every byte ever charged: never late [W1], early by at most one bucket [W2], starts in
 * order [W3]; room, undo and a new boot.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "window.h"

#define EVENTS 4000

static const uint64_t lengths[] = { 5, 15, 60, 120, 600, 900, 3600, 7200, 86400, 7 * 86400, 30 * 86400ULL };
#define LENGTHS (sizeof(lengths) / sizeof(lengths[0]))

struct event {
	uint64_t s;		/* second */
	uint64_t bytes;
};

struct world {
	struct window_rings w;
	struct event e[EVENTS];
	unsigned n;
	uint64_t total, now;
};

static uint32_t seed = 1;

static uint32_t below(uint32_t n)
{
	seed = seed * 1664525 + 1013904223;
	return (uint32_t)((uint64_t)seed * n >> 32);
}

static uint32_t tick(const struct world *x)
{
	return mono_tick((struct mono){ x->now * NS_PER_S });
}

static void charge(struct world *x, uint64_t bytes)
{
	window_advance(&x->w, x->total, tick(x));
	x->total += bytes;
	x->e[x->n++] = (struct event){ x->now, bytes };
}

/* Bytes of the last `seconds`, the present second included. */
static uint64_t truth(const struct world *x, uint64_t seconds)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < x->n; i++)
		if (x->e[i].s + seconds > x->now)
			sum += x->e[i].bytes;
	return sum;
}

static void check(struct world *x, uint64_t slack)
{
	const char *why = "";

	assert_int_equal(window_check(&x->w, x->total, &why), 0);
	for (unsigned i = 0; i < LENGTHS; i++) {
		struct window_spec spec;
		uint64_t sum;

		assert_int_equal(window_spec_for(lengths[i], &spec), 0);
		sum = x->total - window_start(&x->w, spec, x->total, tick(x));
		assert_true(sum >= truth(x, lengths[i]));
		assert_true(sum <= truth(x, lengths[i] + slack * window_bucket_s(spec.ring)));
	}
}

static uint64_t step(void)
{
	switch (below(12)) {
	case 0:
		return below(60);
	case 1:
		return below(3600);
	case 2:
		return below(40) ? below(86400) : below(40 * 86400);
	default:
		return below(4);
	}
}

static void never_late(void **state)
{
	(void)state;
	for (unsigned round = 0; round < 20; round++) {
		struct world *x = calloc(1, sizeof(*x));

		x->now = below(1000000);
		for (unsigned i = 0; i < 600; i++) {
			x->now += step();
			if (below(3))
				charge(x, 1 + below(100000));
			if (i % 3 == 0)
				check(x, 1);
		}
		free(x);
	}
}

static void room(void **state)
{
	(void)state;
	for (unsigned round = 0; round < 300; round++) {
		struct world *x = calloc(1, sizeof(*x));
		struct window_spec spec;
		uint64_t limit;
		uint32_t at;

		x->now = 1000 + below(100000);
		for (unsigned i = 0; i < 60; i++) {
			x->now += below(200);
			charge(x, 1 + below(1000));
		}
		assert_int_equal(window_spec_for(lengths[below(LENGTHS)], &spec), 0);
		limit = 1 + below(40000);
		at = window_room_tick(&x->w, spec, x->total, limit);
		assert_true(at >= x->w.tick);
		assert_true(x->total - window_start(&x->w, spec, x->total, at) < limit);
		if (at > x->w.tick)	/* and not a tick sooner */
			assert_true(x->total - window_start(&x->w, spec, x->total, at - 1) >= limit);
		free(x);
	}
}

/* A charge taken back leaves the sums as if it had never been, whatever buckets began in between. */
static void undo(void **state)
{
	(void)state;
	for (unsigned round = 0; round < 300; round++) {
		struct world *x = calloc(1, sizeof(*x));
		uint32_t when;

		x->now = 1000 + below(100000);
		for (unsigned i = 0; i < 30; i++) {
			x->now += below(400);
			charge(x, 1 + below(1000));
		}
		when = tick(x);
		x->total += 777;
		x->now += step();
		window_advance(&x->w, x->total, tick(x));
		window_undo(&x->w, when, 777);
		x->total -= 777;
		check(x, 1);
		free(x);
	}
}

/* Another boot: the clock starts anew, a gap of unknown traffic lies between; bytes keep their age, or look younger by less than
 * one bucket. */
static void new_boot(void **state)
{
	(void)state;
	for (unsigned round = 0; round < 200; round++) {
		struct world *x = calloc(1, sizeof(*x));
		uint64_t gap = below(100000), boot = 5 + below(100000), before;

		x->now = 40 * 86400ULL + below(100000);
		for (unsigned i = 0; i < 200; i++) {
			x->now += step() % 20000;
			charge(x, 1 + below(1000));
		}
		before = x->now + gap;
		window_rebase(&x->w, x->total, (struct mono){ before * NS_PER_S }, (struct mono){ boot * NS_PER_S });
		for (unsigned i = 0; i < x->n; i++)	/* the same events, told by the new clock; may lie before its zero */
			x->e[i].s += boot - before;
		x->now = boot;
		for (unsigned i = 0; i < x->n; i++)
			x->e[i].s += 1ULL << 40;	/* keep the model's arithmetic positive */
		for (unsigned i = 0; i < LENGTHS; i++) {
			struct window_spec spec;
			uint64_t sum, low = 0, high = 0, now = x->now + (1ULL << 40);

			assert_int_equal(window_spec_for(lengths[i], &spec), 0);
			sum = x->total - window_start(&x->w, spec, x->total, tick(x));
			for (unsigned k = 0; k < x->n; k++) {
				low += x->e[k].s + lengths[i] > now ? x->e[k].bytes : 0;
				high += x->e[k].s + lengths[i] + 2 * window_bucket_s(spec.ring) > now ? x->e[k].bytes : 0;
			}
			assert_true(sum >= low);
			assert_true(sum <= high);
		}
		free(x);
	}
}

/* Both clocks stand anywhere within a tick: a byte that was charged at the end of one is not older for it, then or later. */
static void new_boot_within_a_tick(void **state)
{
	struct window_spec spec;

	(void)state;
	assert_int_equal(window_spec_for(60, &spec), 0);
	for (unsigned old_ms = 0; old_ms < 5000; old_ms += 700)
		for (unsigned new_ms = 0; new_ms < 5000; new_ms += 700) {
			struct mono old = { 100 * NS_PER_S + old_ms * NS_PER_MS }, now = { 20 * NS_PER_S + new_ms * NS_PER_MS };
			struct window_rings w = { .tick = 0 };
			uint64_t total = 0;

			for (uint64_t at = 0; at <= old.ns; at += 100 * NS_PER_MS)	/* ten bytes a second */
				window_advance(&w, total++, mono_tick((struct mono){ at }));
			window_rebase(&w, total, old, now);
			for (uint64_t later = 0; later <= 60000; later += 500) {
				uint64_t left = (60000 - later) / 100;	/* charged less than 60 s before */
				uint64_t sum = total - window_start(&w, spec, total, mono_tick(
					(struct mono){ now.ns + later * NS_PER_MS }));

				assert_in_range(sum, left, left + 2 * 50 + 1);
			}
		}
}

static void specs(void **state)
{
	struct window_spec spec;

	(void)state;
	assert_int_equal(window_spec_for(0, &spec), -EINVAL);
	assert_int_equal(window_spec_for(7, &spec), -EINVAL);
	assert_int_equal(window_spec_for(90 * 60, &spec), -EINVAL);
	assert_int_equal(window_spec_for(31 * 86400, &spec), -EINVAL);
	assert_int_equal(window_spec_for(300, &spec), 0);
	assert_int_equal(spec.ring, 1);
	assert_int_equal(spec.buckets, 5);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(specs), cmocka_unit_test(never_late), cmocka_unit_test(room),
		cmocka_unit_test(undo),	 cmocka_unit_test(new_boot), cmocka_unit_test(new_boot_within_a_tick),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
