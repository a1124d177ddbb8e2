/* test_leases_order.c - daemon/leases*.c with everything that can happen to them in any order: services, contracts, hints that are read late,
 * the kernel's word, sleep, decisions, policies, an engine that dies between two steps, a kernel that fails now and then.
 *
 * After each step: no account beyond its limit, each lease charged to who pays by the judge's own list, all records consistent. At the end
 * every byte that left is known, nothing is out, and no lease is left.
 */
#include "leases_world.h"

#define RUNS  16
#define STEPS 400

#define RULE_S(port, kb) \
	"  - {name: s" port ", from: 10.0.0.0/8, to: 192.0.2.0/30, ports: [tcp/" port "], per: pair, limit: {30d: " kb "}, action: block}\n"
#define RULE_PULL "  - {name: pull, from: 10.0.0.0/8, to: 192.0.2.2, opened_by: outside, per: pair, limit: {30d: 15MB}, action: block}\n"
#define CONTRACT \
	"contracts:\n  - {name: c, owner: x, from: 10.1.1.1, to: 192.0.2.1, until: never, budget: {per: pair, 30d: 9MB}}\n"
#define CONTRACT_22 \
	"contracts:\n  - {name: cp, owner: x, from: 10.1.1.1, to: 192.0.2.0/30, ports: [tcp/22], opened_by: inside, until: never, " \
	"budget: {per: total, 30d: 7MB}}\n"

static const char *const policy[] = {
	"rules:\n" RULE_H,
	"rules:\n" RULE_P RULE_H,
	"rules:\n" RULE_H RULE_PULL,
	"rules:\n" RULE_H RULE_S("443", "20MB"),
	"rules:\n" RULE_H RULE_S("443", "20MB") RULE_S("8443", "30MB"),
	CONTRACT "rules:\n" RULE_H,
	CONTRACT "rules:\n" RULE_H RULE_S("8443", "30MB"),
	CONTRACT_22 "rules:\n" RULE_H RULE_S("22", "10MB"),
};

static unsigned stood, slept, died, failed;

static void some_packets(void)
{
	static const char *const dst[] = { "192.0.2.1", "192.0.2.2", "198.51.100.7" };
	static const uint16_t port[] = { 443, 22, 8443 };
	const char *to = dst[below(3)];
	struct as as = { .port = port[below(3)], .later = below(4) == 0 };

	if (w.policy.h->flags & POLICY_NEEDS_CT)
		as.opener = below(2) ? OPENER_INSIDE : OPENER_OUTSIDE;
	for (unsigned i = below(400); i > 0; i--) {
		if (below(20) == 0)
			as.port = port[below(3)];
		(void)packet_as("10.1.1.1", to, as);
	}
}

static void another_engine(void)
{
	forget_engine();
	e.leases = leases_new();
	memset(&e.worker[0].lease_notes, 0, sizeof(e.worker[0].lease_notes));
	e.lease_asked = e.recall_asked = 0;
	nwords = 0;
	judge_recover(&w.j);
	lease_recover(&w.j);
	leases_second(&e);
	died++;
}

static void one_step(void)
{
	const struct prefix all = { .len = 0 };
	const unsigned what = below(112);

	if (what < 60)
		some_packets();
	else if (what < 88)
		one_second();
	else if (what < 90)
		for (unsigned i = below(40); i > 0; i--)
			one_second();
	else if (what < 95 && e.leases->grace)
		kernel_is_through();
	else if (what < 97)
		leases_review(&e);
	else if (what == 97)
		leases_end_between(&e, &all, &all);
	else if (what == 98)
		leases_end_spent(&e);
	else if (what < 104)
		change_policy(policy[below(ARRAY_SIZE(policy))]);
	else if (what == 104)
		judge_lists_changed(&w.j);
	else if (what == 105)
		another_engine();
	else if (what < 109)
		silent = !silent;
	else
		w.now.ns += below(100) * NS_PER_MS;
	leases_go_on(&e);
}

static void nothing_is_lost_in_any_order(void **state)
{
	(void)state;
	for (unsigned run = 0; run < RUNS; run++) {
		world_of_leases();
		fails_one_in = run % 2 ? 20 + below(100) : 0;
		for (unsigned i = 0; i < STEPS; i++) {
			one_step();
			add_up();
			shares_are_right();
			stood += elements();
			slept += e.leases->grace;
			failed += e.leases->due;
		}
		fails_one_in = 0;
		silent = false;
		for (unsigned i = 0; i < 4; i++)
			one_second();
		all_is_known();
		assert_int_equal(atomic_load(&w.j.area.leases.state->live), 0);
	}
	if (!stood || !slept || !died || !failed)
		fail_msg("stood %u, slept %u, died %u, failed %u: not all of it happened", stood, slept, died, failed);
}

/* Without an interruption: the limit is used, whatever happened on the way. */
static void the_limit_is_used(void **state)
{
	(void)state;
	world_of_leases();
	for (unsigned i = 0; i < 300; i++) {
		packets("192.0.2.1", below(200));
		one_second();
		if (e.leases->grace && below(3) == 0)
			kernel_is_through();
	}
	while (packets("198.51.100.7", 100) == 100)
		;
	all_is_known();
	assert_true(left <= LIMIT && left > LIMIT / 100 * 98);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_is_lost_in_any_order),
		cmocka_unit_test(the_limit_is_used),
	};

	return cmocka_run_group_tests_name("leases in any order", tests, prepare, NULL);
}
