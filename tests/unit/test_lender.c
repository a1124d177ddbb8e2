/* test_lender.c - leases against the words of lender.h: what is charged, how much, to whom; what a kill in between leaves. */
#include <errno.h>

#include "credit_world.h"
#include "judge_internal.h"
#include "lender.h"

#define PAIR_RULE  "rules:\n  - {name: pair, from: 10.0.0.0/8, to: outside, per: pair, limit: {1h: 100MB}, action: block}\n"
#define HOST_RULE  "  - {name: host, from: 10.0.0.0/8, to: outside, per: host, limit: {1h: 60MB}, action: block}\n"
#define MB	   1000000ULL

static const struct how plain = { 0 };
static const char server[] = "10.20.0.15", outside[] = "203.0.113.9";

static struct lease_hint hint_of(uint16_t port)
{
	struct lease_hint h = { .pair = TABLE_NONE, .port = port, .proto = 6, .opener = port ? OPENER_INSIDE : OPENER_UNKNOWN };

	for (uint32_t i = 0; i < w.j.area.h->pairs && h.pair == TABLE_NONE; i++)
		if (table_is_full(&w.j.area.pairs, i))
			h.pair = i;
	assert_int_not_equal(h.pair, TABLE_NONE);
	return h;
}

static uint32_t opened(uint16_t port)
{
	const struct lease_hint h = hint_of(port);
	uint32_t slot = TABLE_NONE;

	assert_int_equal(lease_open(&w.j, &h, w.now, &slot), 0);
	return slot;
}

/* A world where the server has sent 1000 bytes. */
static void begin(const char *rules, struct how how)
{
	world(rules);
	assert_true(send_as(server, outside, 1000, how));
}

static uint64_t all_outstanding(void)
{
	uint64_t n = 0;

	for (uint32_t i = 0; i < w.j.area.h->accounts; i++)
		n += w.j.area.account_cold[i].outstanding;
	return n;
}

static uint64_t total_of(const char *rule)
{
	uint64_t n = 0;

	for (uint32_t i = 0; i < w.j.area.h->accounts; i++) {
		const int r = policy_rule_by_uid(&w.policy, w.j.area.account[i].key.rule);

		if (table_is_full(&w.j.area.accounts, i) && r >= 0 &&
		    strcmp(policy_string(&w.policy, w.policy.rule[r].name), rule) == 0)
			n += account_total(&w.j.area.account[i], &w.j.area.account_cold[i]);
	}
	return n;
}

static void size_of_a_grant(void **state)
{
	struct lease *l;
	uint32_t slot, near = 0;
	uint64_t g;

	(void)state;
	begin(PAIR_RULE HOST_RULE, plain);
	slot = opened(0);
	l = &w.j.area.lease[slot];
	assert_int_equal(l->nshares, 2);
	assert_int_equal(lease_grant(&w.j, slot, 13000, w.now, &near), 0);	/* 65,000 bytes in five seconds: below LEASE_MIN */
	assert_int_equal(near, TABLE_NONE);
	assert_int_equal(lease_grant(&w.j, slot, 100000, w.now, &near), 500000);	/* five seconds of it */
	assert_true(lease_stands(&w.j, slot, 500000, w.now));
	assert_int_equal(all_outstanding(), 2 * 500000);
	assert_int_equal(lease_grant(&w.j, slot, 100000, w.now, &near), 0);	/* it still has them */
	g = lease_grant(&w.j, slot, 50 * MB, w.now, &near);
	assert_int_equal(g, (60 * MB - 1000 - 500000) / LEASE_SHARE);	/* of the tightest, the host's */
	assert_int_equal(lease_grant(&w.j, slot, 1000 * MB, w.now, &near), 0);	/* not for LEASE_LEAST_MS of that rate */
	assert_int_not_equal(near, TABLE_NONE);
	lease_rest(&w.j, near, w.now);
	assert_int_equal(lease_grant(&w.j, slot, 50 * MB, w.now, &near), 0);
	sane();
	lease_settle(&w.j, slot, 400000, 400, w.now);
	assert_int_equal(total_of("pair"), 401000);
	assert_int_equal(pair_bytes(&w.j.area.pair[l->pair], &w.j.area.pair_cold[l->pair]), 401000);
	assert_int_equal(pair_packets(&w.j.area.pair[l->pair], &w.j.area.pair_cold[l->pair]), 401);
	lease_close(&w.j, slot, w.now);
	assert_int_equal(all_outstanding(), 0);
	lease_free(&w.j, slot);
	assert_int_equal(total_of("host"), 401000);
	sane();
}

/* A packet charged by an older cap between the grant and the grace period's end: the grant goes back. */
static void second_look(void **state)
{
	struct account *a = NULL;
	uint32_t slot, near;
	uint64_t g;

	(void)state;
	begin(PAIR_RULE, plain);
	slot = opened(0);
	a = &w.j.area.account[w.j.area.lease[slot].share[0].account];
	g = lease_grant(&w.j, slot, 50 * MB, w.now, &near);
	assert_true(g > LEASE_MIN);
	atomic_fetch_add(&a->spent, 100 * MB - 1000 - g + 1);	/* one byte too much */
	assert_false(lease_stands(&w.j, slot, g, w.now));
	assert_int_equal(all_outstanding(), 0);
	assert_int_equal(w.j.area.lease[slot].granted, 0);
	sane();
}

/* What is out on lease cannot be spent in the queue; short of it a packet waits, and passes when it has come back. */
static void held_then_passed(void **state)
{
	uint32_t slot, near;
	uint64_t g = 0;

	(void)state;
	begin(PAIR_RULE, plain);
	slot = opened(0);
	for (int i = 0; i < 30; i++)
		g += lease_grant(&w.j, slot, 30 * MB, w.now, &near);
	assert_true(g > 50 * MB);
	while (send_as(server, outside, 60000, plain))
		;
	assert_int_equal(w.counter[AC_HELD], 1);
	assert_int_equal(w.counter[AC_REFUSED_PACKETS], 0);
	assert_true(total_of("pair") + g <= 100 * MB);
	lease_settle(&w.j, slot, g - 10 * MB, 1000, w.now);
	lease_close(&w.j, slot, w.now);
	while (send_as(server, outside, 1000, plain))
		;
	assert_true(total_of("pair") <= 100 * MB && total_of("pair") > 100 * MB - 1000);
	assert_int_equal(w.counter[AC_HELD], 1);
	sane();
}

/* The kernel may take longer for a recall than packets wait: then they are refused, and nothing is blocked. */
static void a_slow_recall_blocks_nothing(void **state)
{
	uint32_t slot, near;

	(void)state;
	begin(PAIR_RULE, plain);
	slot = opened(0);
	for (int i = 0; i < 30; i++)
		(void)lease_grant(&w.j, slot, 30 * MB, w.now, &near);
	while (send_as(server, outside, 60000, plain))
		;
	w.now.ns += (LEASE_HOLD_MS + 1) * NS_PER_MS;
	assert_false(send_as(server, outside, 60000, plain));
	assert_int_equal(w.counter[AC_HELD], 1);
	assert_int_equal(w.counter[AC_REFUSED_PACKETS], 1);
	assert_false(lease_is_spent(&w.j, slot, w.now));
	w.now.ns += 250 * NS_PER_MS;
	assert_false(send_as(server, outside, 60000, plain));
	assert_int_equal(w.counter[AC_HELD], 2);
	lease_close(&w.j, slot, w.now);	/* nothing was used of it */
	while (send_as(server, outside, 1000, plain))
		;
	assert_true(total_of("pair") <= 100 * MB && total_of("pair") > 100 * MB - 1000);
	assert_true(lease_is_spent(&w.j, slot, w.now));
	assert_int_equal(w.counter[AC_HELD], 2);
	sane();
}

/* Its credit is not used up, it is out: no rule is asked, which might block. */
static void a_slow_recall_of_a_contract(void **state)
{
	uint32_t slot, near;

	(void)state;
	begin("contracts:\n  - {name: backup, from: 10.0.0.0/8, to: outside, budget: {per: pair, 24h: 20MB}, until: never, owner: x}\n"
	      PAIR_RULE, plain);
	slot = opened(0);
	for (int i = 0; i < 30; i++)
		(void)lease_grant(&w.j, slot, 4 * MB, w.now, &near);
	while (send_as(server, outside, 60000, plain))
		;
	w.now.ns += (LEASE_HOLD_MS + 1) * NS_PER_MS;
	assert_false(send_as(server, outside, 60000, plain));
	assert_int_equal(w.counter[AC_REFUSED_PACKETS], 1);
	assert_int_equal(total_of("pair"), 0);
	lease_close(&w.j, slot, w.now);
	assert_true(send_as(server, outside, 60000, plain));
	assert_int_equal(total_of("pair"), 0);
	while (total_of("pair") == 0)	/* used up: now it is the rule's */
		assert_true(send_as(server, outside, 60000, plain));
	assert_true(total_of("backup") > 20 * MB - 60000);
	sane();
}

static void held_not_for_ever(void **state)
{
	uint32_t slot, near;
	unsigned ms = 0;

	(void)state;
	begin(PAIR_RULE, plain);
	slot = opened(0);
	for (int i = 0; i < 30; i++)
		(void)lease_grant(&w.j, slot, 30 * MB, w.now, &near);
	while (send_as(server, outside, 60000, plain))
		;
	for (; !lease_is_spent(&w.j, slot, w.now) && ms < 5000; ms++) {
		w.now.ns += NS_PER_MS;
		assert_false(send_as(server, outside, 60000, plain));
	}
	assert_in_range(ms, 1000, 1200);	/* it counts as used up */
	assert_in_range(w.counter[AC_HELD], LEASE_HOLDS * (LEASE_HOLD_MS - 1), LEASE_HOLDS * (LEASE_HOLD_MS + 1));
}

static void one_contract_pays(void **state)
{
	uint32_t slot, near;

	(void)state;
	begin("contracts:\n  - {name: backup, from: 10.0.0.0/8, to: outside, budget: {per: pair, 24h: 20MB}, until: never, owner: x}\n"
	      PAIR_RULE, plain);
	slot = opened(0);
	assert_int_equal(w.j.area.lease[slot].nshares, 1);
	assert_true(lease_grant(&w.j, slot, MB, w.now, &near) > 0);
	lease_settle(&w.j, slot, 100000, 100, w.now);
	assert_int_equal(total_of("backup"), 101000);
	assert_int_equal(total_of("pair"), 0);
	sane();
}

/* What belongs to a contract is leased from it or not at all, while it has room; then from the rules, until it has room again. */
static void a_contract_first(void **state)
{
	static const char rules[] = "contracts:\n  - {name: backup, from: 10.0.0.0/8, to: outside, budget: {per: pair, 1m: 20MB}, "
				    "until: never, owner: x}\n" PAIR_RULE;
	struct lease_hint h;
	uint32_t slot, near, contract;

	(void)state;
	begin(rules, plain);
	h = hint_of(0);
	slot = opened(0);
	contract = w.j.area.lease[slot].share[0].account;
	lease_rest(&w.j, contract, w.now);
	assert_int_equal(lease_grant(&w.j, slot, MB, w.now, &near), 0);
	assert_int_equal(near, contract);
	lease_free(&w.j, slot);
	assert_int_equal(lease_open(&w.j, &h, w.now, &slot), -ENOENT);	/* it rests: that is no reason to take the rules' */
	w.now = mono_add_s(w.now, LEASE_REST_S);
	assert_int_equal(pour(server, outside, 19800), 19800000);
	assert_int_equal(lease_open(&w.j, &h, w.now, &slot), -ENOENT);	/* 199 kB are left: too little to lend */
	assert_int_equal(pour(server, outside, 300), 300000);
	assert_int_equal(total_of("pair"), 101000);
	slot = opened(0);
	assert_int_not_equal(w.j.area.lease[slot].share[0].account, contract);
	assert_false(lease_is_spent(&w.j, slot, w.now));
	pass_time(70);
	assert_true(lease_is_spent(&w.j, slot, w.now));	/* the contract has room again */
	lease_free(&w.j, slot);
	slot = opened(0);
	assert_int_equal(w.j.area.lease[slot].share[0].account, contract);
	sane();
}

/* A threshold that is reached by what passed on a lease is told, also when no packet comes to the queue any more. */
static void an_alert_by_lease(void **state)
{
	uint32_t slot, near;
	uint64_t g;

	(void)state;
	begin("rules:\n  - {name: host, from: 10.0.0.0/8, to: outside, per: host, limit: {1h: 100MB}, action: alert}\n", plain);
	slot = opened(0);
	g = lease_grant(&w.j, slot, 10 * MB, w.now, &near);
	assert_true(g > 10 * MB);
	assert_int_equal(pour(server, "203.0.113.10", 95000), 95 * MB);	/* above the cap, which leaves room for the lease, below the limit */
	assert_int_equal(atomic_load(&w.j.area.h->next_finding), 1);
	lease_settle(&w.j, slot, 10 * MB, 10000, w.now);
	assert_int_equal(atomic_load(&w.j.area.h->next_finding), 2);
	assert_int_equal(total_of("host"), 105 * MB + 1000);
	sane();
}

/* An exit's device may have rules of its own: what leaves by it asks for no lease, and the pair's other bytes have theirs. */
static void not_by_an_exit(void **state)
{
	struct judge_packet v = { .p = { .len = 2 * LEASE_MIN, .proto = 6 } };

	(void)state;
	begin("exits:\n  vpn: {interfaces: [wg0]}\nrules:\n"
	      "  - {name: quiet, from: 10.0.0.0/8, to: vpn, per: host, limit: {1h: 1MB}, action: block}\n"
	      "  - {name: pair, from: 10.0.0.0/8, to: outside, per: pair, limit: {1h: 100MB}, action: block}\n",
	      plain);
	assert_int_equal(addr_parse(server, &v.p.src), 0);
	assert_int_equal(addr_parse(outside, &v.p.dst), 0);
	judge_batch(&w.j, &v, 1, w.now);
	assert_true(v.pass && v.busy);
	assert_int_equal(w.j.area.lease[opened(0)].nshares, 1);
	v.exit = 1;
	judge_batch(&w.j, &v, 1, w.now);
	assert_true(v.pass && !v.busy);
}

static void between(void **state)
{
	static const struct {
		const char *src, *dst;
		bool is;
	} t[] = {
		{ "10.20.0.15", "203.0.113.9", true },	{ "10.20.0.0/24", "203.0.113.0/24", true }, { "10.20.0.15", "0.0.0.0/0", true },
		{ "10.20.0.16", "203.0.113.9", false }, { "10.20.0.15", "203.0.113.8", false },	    { "10.20.0.15", "2001:db8::1", false },
	};
	const struct prefix anywhere = { .len = 0 };
	struct prefix src, dst;
	uint32_t slot;

	(void)state;
	begin(PAIR_RULE, plain);
	slot = opened(0);
	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		assert_int_equal(prefix_parse(t[i].src, &src), 0);
		assert_int_equal(prefix_parse(t[i].dst, &dst), 0);
		assert_int_equal(lease_is_between(&w.j.area.lease[slot].key, &src, &dst), t[i].is);
	}
	assert_int_equal(prefix_parse(server, &src), 0);
	assert_true(lease_is_between(&w.j.area.lease[slot].key, &src, &anywhere));
}

/* A hint that was under way as a block by hand came. */
static void none_where_blocked_by_hand(void **state)
{
	static const char rules[] = "contracts:\n  - {name: backup, from: 10.0.0.0/8, to: outside, budget: {per: pair, 1m: 20MB}, "
				    "until: never, owner: x}\n" PAIR_RULE;
	struct area_dynamic d = { .uid = 0x80000001, .until_ns = UINT64_MAX };
	struct lease_hint h;
	uint32_t slot;

	(void)state;
	begin(rules, plain);
	h = hint_of(0);
	assert_int_equal(prefix_parse(server, &d.src), 0);
	assert_int_equal(judge_block(&w.j, &d, w.now), 0);
	assert_int_equal(lease_open(&w.j, &h, w.now, &slot), -ENOENT);
	assert_false(send_as(server, outside, 1000, plain));
	assert_int_equal(lease_open(&w.j, &h, w.now, &slot), -ENOENT);
}

static void by_service(void **state)
{
	const struct how to443 = { .opener = OPENER_INSIDE, .sport = 40000, .dport = 443 };
	struct lease_hint h;
	struct lease_key key;

	(void)state;
	begin("rules:\n  - {name: web, from: 10.0.0.0/8, to: outside, ports: [tcp/443], per: pair, limit: {1h: 100MB}, action: block}\n",
	      to443);
	h = hint_of(443);
	assert_int_equal(lease_key_of(&w.j, &h, &key), 0);
	assert_int_equal(key.port, 443);
	assert_int_equal(key.opener, OPENER_INSIDE);
	h = hint_of(0);		/* who opened it is not known */
	assert_int_equal(lease_key_of(&w.j, &h, &key), -ENOENT);
	begin(PAIR_RULE, to443);
	h = hint_of(443);
	assert_int_equal(lease_key_of(&w.j, &h, &key), 0);
	assert_int_equal(key.port, 0);	/* nothing tells its services apart */
}

/* A kill between the flag and the last store of a step: done twice is done once. */
static void step_after_a_kill(void **state)
{
	struct lease_step *s;
	struct lease *l;
	uint32_t slot, near;
	uint64_t g;

	(void)state;
	begin(PAIR_RULE HOST_RULE, plain);
	slot = opened(0);
	l = &w.j.area.lease[slot];
	g = lease_grant(&w.j, slot, MB, w.now, &near);
	lease_settle(&w.j, slot, 200000, 200, w.now);
	s = &w.j.area.h->lease_step;
	atomic_store(&s->valid, 1);	/* the last one, again */
	l->settled = 300000;		/* and the next had only its number written down */
	l->packets = 300;
	w.j.area.account_cold[l->share[0].account].leases = 7;
	judge_recover(&w.j);
	lease_recover(&w.j);
	sane();
	assert_int_equal(total_of("pair"), 301000);
	assert_int_equal(total_of("host"), 301000);
	assert_int_equal(all_outstanding(), 2 * (g - 300000));
	assert_int_equal(atomic_load(&w.j.area.h->leased_bytes), 300000);
	assert_int_equal(area_passed_bytes(&w.j.area), area_counter_sum(&w.j.area, AC_BYTES) + 300000);
	assert_int_equal(area_passed_packets(&w.j.area), area_counter_sum(&w.j.area, AC_PACKETS) + 300);
	assert_int_equal(lease_lost(&w.j, slot, w.now), g - 300000);	/* its object is gone: all of it, then */
	assert_int_equal(total_of("pair"), 1000 + g);
	lease_free(&w.j, slot);
	sane();
	l->state = LEASE_NONE;
	assert_int_equal(all_outstanding(), 0);
}

/* Each account's credit, and each pair's leases, are looked at on their own: no two faults make up for each other. */
static void the_check_sees(void **state)
{
	struct account_cold *x, *y;
	struct pair_cold *pair;
	const char *why = "";
	uint32_t slot, near;

	(void)state;
	begin(PAIR_RULE HOST_RULE, plain);
	slot = opened(0);
	assert_true(lease_grant(&w.j, slot, MB, w.now, &near) > 0);
	sane();
	x = &w.j.area.account_cold[w.j.area.lease[slot].share[0].account];
	y = &w.j.area.account_cold[w.j.area.lease[slot].share[1].account];
	pair = &w.j.area.pair_cold[w.j.area.lease[slot].pair];
	x->outstanding++;
	y->outstanding--;
	assert_int_equal(area_check(&w.j.area, &why), -EINVAL);
	x->outstanding--;
	y->outstanding++;
	x->leases++;
	y->leases--;
	assert_int_equal(area_check(&w.j.area, &why), -EINVAL);
	x->leases--;
	y->leases++;
	pair->leases = 0;
	assert_int_equal(area_check(&w.j.area, &why), -EINVAL);
	pair->leases = 1;
	sane();
}

static void raised_by_others(void **state)
{
	uint32_t slot, near;
	uint64_t g;

	(void)state;
	begin(PAIR_RULE, plain);
	slot = opened(0);
	g = lease_grant(&w.j, slot, MB, w.now, &near);
	assert_int_equal(lease_settle(&w.j, slot, g + 777, 1, w.now), 777);
	assert_int_equal(total_of("pair"), 1000 + g + 777);
	sane();
}

/* What pays for the lease ends in s seconds: it is given up LEASE_LAST_S before, not earlier. */
static void given_up_before(uint32_t slot, uint64_t s)
{
	w.now = mono_add_s(w.now, s - LEASE_LAST_S - 1);
	assert_false(lease_is_spent(&w.j, slot, w.now));
	w.now = mono_add_s(w.now, 1);
	assert_true(lease_is_spent(&w.j, slot, w.now));
}

/* The last seconds of an allow and of a contract are judged packet by packet: nothing passes on a lease after them. */
static void not_beyond_its_time(void **state)
{
	static const char contract[] = "contracts:\n  - {name: backup, from: 10.0.0.0/8, to: outside, budget: {per: pair, 24h: 20MB}, "
				       "until: 1970-01-05, owner: x}\n" PAIR_RULE;
	struct area_dynamic allow = { .uid = 11, .budget = 30 * MB, .id = "a" };
	struct lease_hint h;
	uint32_t slot, near;

	(void)state;
	begin(PAIR_RULE, plain);
	assert_int_equal(addr_parse(server, &allow.src.addr), 0);
	assert_int_equal(addr_parse(outside, &allow.dst.addr), 0);
	allow.src.len = allow.dst.len = 128;
	allow.until_ns = mono_add_s(w.now, 60).ns;
	assert_int_equal(judge_allow(&w.j, &allow, w.now), 0);
	assert_true(send_as(server, outside, 1000, plain));
	slot = opened(0);
	assert_true(lease_grant(&w.j, slot, MB, w.now, &near) > 0);
	given_up_before(slot, 60);
	assert_int_equal(lease_grant(&w.j, slot, 100 * MB, w.now, &near), 0);
	lease_close(&w.j, slot, w.now);
	lease_free(&w.j, slot);
	assert_int_equal(all_outstanding(), 0);
	assert_true(send_as(server, outside, 1000, plain));	/* it pays to its end */
	assert_int_equal(total_of("pair"), 1000);
	sane();

	begin(contract, plain);
	h = hint_of(0);
	w.j.wall_offset_s = 5 * 86400 - 10 - (int64_t)mono_s(w.now);
	slot = opened(0);
	assert_true(lease_grant(&w.j, slot, MB, w.now, &near) > 0);
	given_up_before(slot, 10);
	lease_close(&w.j, slot, w.now);
	lease_free(&w.j, slot);
	assert_int_equal(lease_open(&w.j, &h, w.now, &slot), -ENOENT);
	sane();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(size_of_a_grant), cmocka_unit_test(second_look), cmocka_unit_test(held_then_passed),
		cmocka_unit_test(a_slow_recall_blocks_nothing), cmocka_unit_test(a_slow_recall_of_a_contract),
		cmocka_unit_test(held_not_for_ever),
		cmocka_unit_test(one_contract_pays), cmocka_unit_test(a_contract_first), cmocka_unit_test(an_alert_by_lease),
		cmocka_unit_test(not_by_an_exit), cmocka_unit_test(between), cmocka_unit_test(none_where_blocked_by_hand),
		cmocka_unit_test(by_service),
		cmocka_unit_test(step_after_a_kill), cmocka_unit_test(the_check_sees), cmocka_unit_test(raised_by_others),
		cmocka_unit_test(not_beyond_its_time),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
