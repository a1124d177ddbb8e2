/* ratio.h - how a bench compares two ways of doing the same, and how it says so.
 *
 * [B1] Interleaved  A round is A,B,B,A: what drifts slowly on the machine falls on both sides alike.
 * [B2] Beside it    every round also has A,A,A,A, taken apart in the same way; it should give 1.
 * [B3] Robust       the figure is the median of the rounds' ratios, with a 95 % interval by bootstrap.
 * [B4] Honest       "met": the whole interval keeps the goal and A/A's is within 3 %; "missed": the whole interval
 *                   breaks it; "inconclusive": everything else.
 * Output is one JSON object a line, for build/bench.json. A ratio is cost(B) / cost(A).
 */
#pragma once

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RATIO_ROUNDS_MIN 15
#define RATIO_ROUNDS_MAX 101
#define RATIO_RESAMPLES  4000
#define RATIO_AA_SLACK	 0.03

enum ratio_side { RATIO_A, RATIO_B };

/* One run of a side: its cost per operation (any unit, > 0); negative: it failed. */
typedef double (*ratio_run)(void *ctx, enum ratio_side side);

struct ratio_range {
	double value, low, high;
};

struct ratio {
	struct ratio_range ba;		/* cost(B) / cost(A) */
	struct ratio_range aa;
	struct ratio_range cost[2];	/* of each side, over all of its runs */
	unsigned rounds;
};

enum ratio_goal { GOAL_NONE, GOAL_AT_LEAST, GOAL_AT_MOST };

static inline int ratio_by_value(const void *x, const void *y)
{
	double a = *(const double *)x, b = *(const double *)y;

	return (a > b) - (a < b);
}

/* Sorts v. */
static inline double ratio_median(double *v, unsigned n)
{
	qsort(v, n, sizeof(*v), ratio_by_value);
	return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

/* Median of v and the interval that holds 95 % of the medians of resamples. Always the same for the same samples. */
static inline struct ratio_range ratio_bootstrap(const double *v, unsigned n)
{
	static double medians[RATIO_RESAMPLES], sample[RATIO_ROUNDS_MAX * 4];
	struct ratio_range r;
	uint64_t x = 0x9e3779b97f4a7c15;

	for (unsigned i = 0; i < RATIO_RESAMPLES; i++) {
		for (unsigned j = 0; j < n; j++) {
			x ^= x << 13;
			x ^= x >> 7;
			x ^= x << 17;
			sample[j] = v[(x >> 24) % n];
		}
		medians[i] = ratio_median(sample, n);
	}
	memcpy(sample, v, n * sizeof(*v));
	r.value = ratio_median(sample, n);
	qsort(medians, RATIO_RESAMPLES, sizeof(*medians), ratio_by_value);
	r.low = medians[RATIO_RESAMPLES / 40];
	r.high = medians[RATIO_RESAMPLES - 1 - RATIO_RESAMPLES / 40];
	return r;
}

/* 0, or -1 when a run failed. One round before the first is thrown away: it warms caches and pages. */
static inline int ratio_measure(ratio_run run, void *ctx, unsigned rounds, struct ratio *ret)
{
	static const enum ratio_side order[8] = { RATIO_A, RATIO_B, RATIO_B, RATIO_A, RATIO_A, RATIO_A, RATIO_A, RATIO_A };
	static double ba[RATIO_ROUNDS_MAX], aa[RATIO_ROUNDS_MAX], cost[2][RATIO_ROUNDS_MAX * 2];

	if (rounds < RATIO_ROUNDS_MIN)
		rounds = RATIO_ROUNDS_MIN;
	if (rounds > RATIO_ROUNDS_MAX)
		rounds = RATIO_ROUNDS_MAX;
	for (unsigned i = 0; i <= rounds; i++) {
		unsigned at = i ? i - 1 : 0;
		double c[8];

		for (unsigned j = 0; j < 8; j++) {
			c[j] = run(ctx, order[j]);
			if (!(c[j] > 0))
				return -1;
		}
		ba[at] = (c[1] + c[2]) / (c[0] + c[3]);
		aa[at] = (c[5] + c[6]) / (c[4] + c[7]);
		cost[RATIO_A][at * 2] = c[0];
		cost[RATIO_A][at * 2 + 1] = c[3];
		cost[RATIO_B][at * 2] = c[1];
		cost[RATIO_B][at * 2 + 1] = c[2];
	}
	ret->ba = ratio_bootstrap(ba, rounds);
	ret->aa = ratio_bootstrap(aa, rounds);
	for (unsigned s = 0; s < 2; s++)
		ret->cost[s] = ratio_bootstrap(cost[s], rounds * 2);
	ret->rounds = rounds;
	return 0;
}

static inline const char *ratio_verdict(struct ratio_range r, const struct ratio_range *aa, enum ratio_goal goal,
					double figure)
{
	double lo = r.low, hi = r.high;

	if (goal == GOAL_NONE)
		return "none";
	if (goal == GOAL_AT_LEAST ? hi < figure : lo > figure)
		return "missed";
	if (goal == GOAL_AT_LEAST ? lo < figure : hi > figure)
		return "inconclusive";
	if (aa && (fabs(aa->low - 1) > RATIO_AA_SLACK || fabs(aa->high - 1) > RATIO_AA_SLACK))
		return "inconclusive";
	return "met";
}

static inline void ratio_put_text(const char *key, const char *text)
{
	printf("\"%s\":", key);
	if (!text) {
		fputs("null,", stdout);
		return;
	}
	putchar('"');
	for (; *text; text++) {
		if (*text == '"' || *text == '\\')
			putchar('\\');
		putchar(*text);
	}
	fputs("\",", stdout);
}

struct ratio_label {
	const char *name, *unit, *against, *command;	/* against may be NULL */
	enum ratio_goal goal;
	double figure;
};

/* A figure by itself; aa NULL: none was measured. */
static inline void ratio_print_range(const struct ratio_label *l, struct ratio_range r, const struct ratio_range *aa)
{
	putchar('{');
	ratio_put_text("name", l->name);
	printf("\"value\":%.4g,\"low\":%.4g,\"high\":%.4g,", r.value, r.low, r.high);
	ratio_put_text("unit", l->unit);
	ratio_put_text("against", l->against);
	ratio_put_text("command", l->command);
	if (aa)
		printf("\"aa_low\":%.4f,\"aa_high\":%.4f,", aa->low, aa->high);
	else
		fputs("\"aa_low\":null,\"aa_high\":null,", stdout);
	if (l->goal != GOAL_NONE)
		printf("\"goal\":\"%s %g\",", l->goal == GOAL_AT_LEAST ? "at least" : "at most", l->figure);
	printf("\"verdict\":\"%s\"}\n", ratio_verdict(r, aa, l->goal, l->figure));
	fflush(stdout);
}

static inline void ratio_print(const struct ratio_label *l, const struct ratio *r)
{
	ratio_print_range(l, r->ba, &r->aa);
}
