/* ratio_of.c - costs measured by a script, judged as ratio.h says.
 *
 *   ratio_of NAME AGAINST COMMAND none|at-least|at-most FIGURE < COSTS
 * One line a round: eight costs in the order A B B A A A A A, any unit. The first line is thrown away. Prints one JSON object.
 */
#include "ratio.h"

static double costs[RATIO_ROUNDS_MAX + 1][8];

struct place {
	unsigned round, at;
};

static double next_cost(void *ctx, enum ratio_side side)
{
	struct place *p = ctx;
	double c = costs[p->round][p->at];

	(void)side;
	if (++p->at == 8) {
		p->at = 0;
		p->round++;
	}
	return c;
}

int main(int argc, char **argv)
{
	struct place p = { 0, 0 };
	struct ratio r;
	unsigned n = 0;

	if (argc != 6) {
		fprintf(stderr, "usage: ratio_of NAME AGAINST COMMAND none|at-least|at-most FIGURE < COSTS\n");
		return 2;
	}
	while (n <= RATIO_ROUNDS_MAX) {
		double *c = costs[n];

		if (scanf("%lf %lf %lf %lf %lf %lf %lf %lf", c, c + 1, c + 2, c + 3, c + 4, c + 5, c + 6, c + 7) != 8)
			break;
		n++;
	}
	if (n < RATIO_ROUNDS_MIN + 1) {
		fprintf(stderr, "ratio_of: %u rounds, at least %u are expected\n", n, RATIO_ROUNDS_MIN + 1);
		return 1;
	}
	if (ratio_measure(next_cost, &p, n - 1, &r) < 0) {
		fprintf(stderr, "ratio_of: a cost is not above 0\n");
		return 1;
	}
	struct ratio_label l = {
		.name = argv[1], .unit = "ratio", .against = argv[2], .command = argv[3],
		.goal = strcmp(argv[4], "at-least") == 0 ? GOAL_AT_LEAST : strcmp(argv[4], "at-most") == 0 ? GOAL_AT_MOST : GOAL_NONE,
		.figure = strtod(argv[5], NULL),
	};
	ratio_print(&l, &r);
	fprintf(stderr, "%s: A %.3f, B %.3f a packet, B/A %.3f [%.3f %.3f], A/A [%.3f %.3f]\n", argv[1], r.cost[0].value,
		r.cost[1].value, r.ba.value, r.ba.low, r.ba.high, r.aa.low, r.aa.high);
	return 0;
}
