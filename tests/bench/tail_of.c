/* tail_of.c - how long most of the samples of a script took, and whether the slowest keep to those of a reference.
 *
 *   tail_of NAME AGAINST COMMAND FIGURE SAMPLES REFERENCE
 * Two files, one number a line, both in milliseconds. Prints NAME-p50, NAME-p99 and NAME-p99-over-AGAINST, one JSON object each, with
 * 95 % intervals by bootstrap. The last is the difference of the two 99th percentiles; it alone is judged: at most FIGURE, as ratio.h
 * [B4] says.
 */
#include "ratio.h"

#define SAMPLES 4096
#define MANY	(RATIO_RESAMPLES)

static double sample[2][SAMPLES];
static unsigned count[2];

static int read_samples(const char *path, unsigned which)
{
	FILE *f = fopen(path, "r");

	while (f && count[which] < SAMPLES && fscanf(f, "%lf", &sample[which][count[which]]) == 1)
		count[which]++;
	if (f)
		fclose(f);
	return count[which] < 100 ? -1 : 0;	/* a 99th percentile of fewer is their highest */
}

/* Sorts v. The smallest of v that p of them do not pass. */
static double percentile(double *v, unsigned n, double p)
{
	const double exact = n * p;
	unsigned at = (unsigned)exact + ((unsigned)exact < exact);

	qsort(v, n, sizeof(*v), ratio_by_value);
	return v[at ? at - 1 : 0];
}

static double resampled(unsigned which, double p, uint64_t *x)
{
	static double drawn[SAMPLES];

	for (unsigned i = 0; i < count[which]; i++) {
		*x ^= *x << 13;
		*x ^= *x >> 7;
		*x ^= *x << 17;
		drawn[i] = sample[which][(*x >> 24) % count[which]];
	}
	return percentile(drawn, count[which], p);
}

/* Percentile p of the samples, less that of the reference when `less`. */
static struct ratio_range range_of(unsigned which, double p, int less)
{
	static double got[MANY];
	uint64_t x = 0x9e3779b97f4a7c15;
	struct ratio_range r;

	for (unsigned i = 0; i < MANY; i++) {
		got[i] = resampled(which, p, &x);
		if (less)
			got[i] -= resampled(1, p, &x);
	}
	r.value = percentile(sample[which], count[which], p) - (less ? percentile(sample[1], count[1], p) : 0);
	qsort(got, MANY, sizeof(*got), ratio_by_value);
	r.low = got[MANY / 40];
	r.high = got[MANY - 1 - MANY / 40];
	return r;
}

int main(int argc, char **argv)
{
	char name[64], against[160];
	struct ratio_range r;

	if (argc != 7) {
		fprintf(stderr, "usage: tail_of NAME AGAINST COMMAND FIGURE SAMPLES REFERENCE\n");
		return 2;
	}
	if (read_samples(argv[5], 0) < 0 || read_samples(argv[6], 1) < 0) {
		fprintf(stderr, "tail_of: %u samples and %u of the reference, at least 100 are expected\n", count[0], count[1]);
		return 1;
	}
	struct ratio_label l = { .name = name, .unit = "ms", .against = against, .command = argv[3], .goal = GOAL_NONE };

	r = range_of(1, 0.99, 0);
	snprintf(against, sizeof(against), "%s p99 %.3g ms [%.3g %.3g]", argv[2], r.value, r.low, r.high);
	snprintf(name, sizeof(name), "%s-p50", argv[1]);
	ratio_print_range(&l, range_of(0, 0.5, 0), NULL);
	snprintf(name, sizeof(name), "%s-p99", argv[1]);
	ratio_print_range(&l, range_of(0, 0.99, 0), NULL);
	snprintf(name, sizeof(name), "%s-p99-over-%s", argv[1], argv[2]);
	l.goal = GOAL_AT_MOST;
	l.figure = strtod(argv[4], NULL);
	ratio_print_range(&l, range_of(0, 0.99, 1), NULL);
	return 0;
}
