/* test_steady.c - how exact a blocking limit is in time, against a model that has every passed byte by its second: never late (what passes
 * keeps every window's limit over the true last L seconds), early by at most the one bucket that window.h states, and a block is over as
 * soon as its hold is and every window has room. Steady senders below and above each limit, bursts, silences, several windows at once.
 */
#include "credit_world.h"

#define SECONDS (9 * 86400)

struct window {
	uint64_t limit;
	uint32_t seconds, bucket;
};

static uint64_t cum[SECONDS + 1];	/* passed up to and with that second */
static uint64_t began;			/* second of the clock that the model calls 0 */

static uint64_t last(uint64_t t, uint64_t seconds)
{
	return cum[t] - (t >= seconds ? cum[t - seconds] : 0);
}

static struct {
	unsigned passed, refused;
	uint64_t hold_until;		/* seconds of the model */
} run;

/* One packet at second t, which is the judge's now. */
static void offer(const struct window *x, unsigned n, uint64_t t, uint32_t len, unsigned hold)
{
	bool pass = send_as("10.20.0.15", "203.0.113.9", len, (struct how){ 0 });
	bool early_enough = false;

	for (unsigned i = 0; i < n; i++) {
		if (pass && last(t, x[i].seconds) + len > x[i].limit)
			fail_msg("second %lu: late: %lu + %u in %u s, limit %lu", t, last(t, x[i].seconds), len, x[i].seconds, x[i].limit);
		early_enough |= last(t, x[i].seconds + x[i].bucket) + len > x[i].limit;
	}
	if (pass) {
		run.passed++;
		cum[t] += len;
		return;
	}
	run.refused++;
	if (t < run.hold_until)
		return;
	/* A block begins, or one that could have ended goes on. */
	if (!early_enough)
		fail_msg("second %lu: too early: %lu in the last %u + %u s, limit %lu", t,
			 last(t, x[0].seconds + x[0].bucket), x[0].seconds, x[0].bucket, x[0].limit);
	run.hold_until = t + hold;
}

static void begin(const char *limits, unsigned hold)
{
	char text[400];

	snprintf(text, sizeof(text), "rules:\n  - {name: r, from: 10.20.0.0/24, to: outside, per: pair, limit: {%s}, action: block, "
		 "hold: %us}\n", limits, hold);
	world(text);
	memset(cum, 0, sizeof(cum));
	memset(&run, 0, sizeof(run));
	began = mono_s(w.now);
}

static void to_second(uint64_t *t, uint64_t next)
{
	for (; *t < next; (*t)++)
		cum[*t + 1] = cum[*t];
	w.now = mono_add_s((struct mono){ began * NS_PER_S }, next);
	judge_review(&w.j, w.now, on_change, NULL);
}

static const struct {
	const char *text;
	struct window w;
} single[] = {
	{ "1m: 1MB", { 1000000, 60, 5 } },	   { "10m: 10MB", { 10000000, 600, 60 } },
	{ "1h: 50MB", { 50000000, 3600, 300 } },   { "24h: 500MB", { 500000000, 86400, 3600 } },
	{ "7d: 900MB", { 900000000, 604800, 86400 } },
};

/* "Below only by the stated bucket": who keeps limit / (window + bucket) is never refused, who goes over limit / window is. */
static void steady(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(single); i++)
		for (unsigned percent = 99; percent <= 130; percent += 31) {
			const struct window *x = &single[i].w;
			uint32_t step = x->bucket / 5;
			uint64_t t = 0, end = 3ull * (x->seconds + x->bucket);
			/* percent of the limit in window + bucket, a packet each step */
			uint32_t len = (uint32_t)(x->limit * percent / 100 * step / (x->seconds + x->bucket));

			begin(single[i].text, 60);
			while (t + step < end && t + step < SECONDS) {
				to_second(&t, t + step);
				offer(x, 1, t, len, 60);
			}
			if (percent < 100 ? run.refused : !run.refused)
				fail_msg("%s: %u %% of the steady rate: %u passed, %u refused", single[i].text, percent, run.passed,
					 run.refused);
			sane();
		}
}

/* Bursts and silences of any length, all windows at once: each has its turn of being the tightest. */
static void anything(void **state)
{
	static const struct window all[] = {
		{ 400000, 60, 5 }, { 2000000, 3600, 300 }, { 9000000, 86400, 3600 }, { 30000000, 604800, 86400 },
	};
	uint64_t r = 88172645463325252ull, t = 0;

	(void)state;
	begin("1m: 400kB, 1h: 2MB, 24h: 9MB, 7d: 30MB", 30);
	for (unsigned n = 0; t + 40000 < SECONDS && n < 60000; n++) {
		uint64_t gap;

		r ^= r << 13;
		r ^= r >> 7;
		r ^= r << 17;
		gap = r % 100 < 60 ? 0 : r % 100 < 95 ? 1 + r / 100 % 20 : r % 100 < 99 ? 1 + r / 100 % 400 : 1 + r / 100 % 30000;
		if (gap)
			to_second(&t, t + gap);
		offer(all, ARRAY_SIZE(all), t, 200 + (uint32_t)(r / 7 % 30000), 30);
	}
	assert_true(run.passed > 500 && run.refused > 500);
	print_message("%u passed, %u refused in %lu s\n", run.passed, run.refused, t);
	sane();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(steady),
		cmocka_unit_test(anything),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
