/* test_credit.c - who pays and what is refused (judge.h), with policies written as admins write them and a clock of our own. */
#include <errno.h>

#include "credit_world.h"
#include "judge_internal.h"

#define MB 1000000ULL

static struct prefix one(const char *text)
{
	struct prefix p;

	assert_int_equal(prefix_parse(text, &p), 0);
	return p;
}

static struct prefix everywhere(void)
{
	return (struct prefix){ .len = 0 };
}

#define PAIR_RULE "rules:\n  - {name: r, from: 10.20.0.0/24, to: outside, per: pair, limit: {1m: 10kB, 1h: 30kB}, action: block, hold: 1m}\n"

static void exact_and_back(void **state)
{
	(void)state;
	world(PAIR_RULE);
	assert_int_equal(pour("10.20.0.15", "203.0.113.9", 50), 10000);
	assert_int_equal(pour("10.20.0.15", "203.0.113.10", 50), 10000);	/* another pair, its own budget */
	assert_int_equal(pour("10.30.0.1", "203.0.113.9", 50), 50000);		/* nobody judges it */
	pass_time(30);
	assert_int_equal(w.changes, 2);		/* two blocks began */
	assert_int_equal(pour("10.20.0.15", "203.0.113.9", 50), 0);
	pass_time(40);				/* hold is over and the minute, its oldest bucket counted whole, is too */
	assert_int_equal(pour("10.20.0.15", "203.0.113.9", 50), 10000);
	pass_time(70);
	assert_int_equal(pour("10.20.0.15", "203.0.113.9", 50), 10000);
	pass_time(70);				/* now the hour decides */
	assert_int_equal(pour("10.20.0.15", "203.0.113.9", 50), 0);
	pass_time(3600 + 300);
	assert_int_equal(pour("10.20.0.15", "203.0.113.9", 50), 10000);
	sane();
}

/* Random traffic against a list of everything that passed: no window's truth ever exceeds its limit, and nothing is refused that
 * the limit and one bucket would have had room for. */
static void never_past(void **state)
{
	static struct {
		uint64_t s;
		uint32_t len;
	} log[20000];
	static const struct {
		uint64_t s, bytes, bucket;
	} limit[] = { { 60, 20000, 5 }, { 3600, 120000, 300 }, { 86400, 600000, 3600 } };
	uint32_t seed = 3;
	unsigned n = 0;

	(void)state;
	world("rules:\n  - {name: r, from: 10.20.0.0/24, to: outside, per: pair, limit: {1m: 20kB, 1h: 120kB, 24h: 600kB}, "
	      "action: block, hold: 5s}\n");
	for (unsigned i = 0; i < 15000; i++) {
		uint32_t len = 40 + (seed = seed * 1664525 + 1013904223) % 1460;
		uint64_t now = mono_s(w.now);
		bool pass = send_as("10.20.0.15", "203.0.113.9", len, (struct how){ 0 });

		if (pass) {
			log[n].s = now;
			log[n++].len = len;
		}
		for (unsigned k = 0; k < 3; k++) {
			uint64_t sum = 0;

			for (unsigned e = n; e-- > 0 && log[e].s + limit[k].s > now;)
				sum += log[e].len;
			assert_true(sum <= limit[k].bytes);
		}
		if ((seed >> 8) % 4 == 0)
			w.now = mono_add_s(w.now, (seed >> 12) % ((seed >> 20) % 50 ? 6 : 4000));
		if ((seed >> 9) % 8 == 0)
			pass_time(0);
	}
	assert_true(n > 1000);
	sane();
}

static void all_must_pay(void **state)
{
	(void)state;
	world("groups:\n  g: {hosts: [10.20.0.0/24]}\nrules:\n"
	      "  - {name: p, from: g, to: outside, per: pair, limit: {1h: 10kB}, action: block}\n"
	      "  - {name: h, from: g, to: outside, per: host, limit: {1h: 15kB}, action: block}\n"
	      "  - {name: g, from: g, to: outside, per: group, limit: {1h: 22kB}, action: block}\n");
	assert_int_equal(pour("10.20.0.15", "203.0.113.9", 50), 10000);
	assert_int_equal(pour("10.20.0.15", "203.0.113.10", 50), 5000);	/* the host's */
	assert_int_equal(pour("10.20.0.16", "203.0.113.9", 50), 7000);		/* the group's */
	assert_int_equal(pour("10.20.0.17", "203.0.113.9", 50), 0);
	/* What was refused cost nobody anything [J1]. */
	for (uint32_t i = 0; i < w.j.area.h->accounts; i++)
		if (table_is_full(&w.j.area.accounts, i) && w.j.area.account[i].key.kind == SUBJECT_GROUP)
			assert_int_equal(w.j.area.account[i].spent, 22000);
	sane();
}

/* Its time ends amid a tick of the rings: the next review ends it, not the next tick. So it does when the clock is put forward, and one
 * that is put back makes it young again. */
static void contract_ends(void **state)
{
	static const int64_t end_s = 5 * 86400;		/* 1970-01-05, 24:00 */
	struct how backup = { .opener = OPENER_INSIDE, .dport = 873 };

	(void)state;
	for (unsigned ends_in = 1; ends_in <= 9; ends_in++) {
		world("rules:\n  - {name: r, from: 10.20.0.0/24, to: outside, per: host, limit: {1h: 2kB}, action: block}\n"
		      "contracts:\n  - {name: c, from: 10.20.0.15, to: outside, ports: [tcp/873], budget: {per: pair, 24h: 50kB}, "
		      "until: 1970-01-05}\n");
		w.j.wall_offset_s = end_s - ends_in - (int64_t)mono_s(w.now);
		for (unsigned s = 0; s < ends_in; s++, pass_time(1))
			assert_int_equal(pour_as("10.20.0.15", "198.51.100.20", 4, backup), 4000);
		assert_int_equal(pour_as("10.20.0.15", "198.51.100.20", 4, backup), 2000);	/* the rule's */
		sane();
	}
	world("rules:\n  - {name: r, from: 10.20.0.0/24, to: outside, per: host, limit: {1h: 2kB}, action: block}\n"
	      "contracts:\n  - {name: c, from: 10.20.0.15, to: outside, ports: [tcp/873], budget: {per: pair, 24h: 50kB}, "
	      "until: 1970-01-05}\n");
	w.j.wall_offset_s = end_s - 3600 - (int64_t)mono_s(w.now);
	assert_int_equal(pour_as("10.20.0.15", "198.51.100.20", 4, backup), 4000);
	pass_time(1);
	w.j.wall_offset_s += 3600;
	pass_time(1);
	assert_int_equal(pour_as("10.20.0.15", "198.51.100.20", 4, backup), 2000);
	w.j.wall_offset_s -= 3600;
	pass_time(5);
	assert_int_equal(pour_as("10.20.0.15", "198.51.100.20", 4, backup), 4000);
	sane();
}

/* By the accounts of rule or contract `name`. */
static uint64_t refused_by(const char *name)
{
	uint64_t n = 0;

	for (uint32_t i = 0; i < w.j.area.h->accounts; i++) {
		int r = table_is_full(&w.j.area.accounts, i) ? policy_rule_by_uid(&w.policy, w.j.area.account[i].key.rule) : -1;

		if (r >= 0 && strcmp(policy_string(&w.policy, w.policy.rule[r].name), name) == 0)
			n += w.j.area.account[i].refused;
	}
	return n;
}

static void contract_first(void **state)
{
	(void)state;
	world("rules:\n  - {name: r, from: 10.20.0.0/24, to: outside, per: host, limit: {1h: 10kB}, action: block}\n"
	      "contracts:\n  - {name: c, from: 10.20.0.15, to: outside, ports: [tcp/873], budget: {per: total, 24h: 50kB}, until: never}\n");
	struct how backup = { .opener = OPENER_INSIDE, .dport = 873 }, other = { .opener = OPENER_INSIDE, .dport = 22 };

	assert_int_equal(pour_as("10.20.0.15", "198.51.100.20", 40, backup), 40000);
	assert_int_equal(pour_as("10.20.0.15", "203.0.113.9", 40, other), 10000);	/* the rule had spent nothing */
	assert_int_equal(pour_as("10.20.0.15", "198.51.100.20", 40, backup), 10000);	/* blocked host, contract goes on */
	assert_int_equal(pour_as("10.20.0.15", "198.51.100.20", 40, backup), 0);	/* beyond the clause: the rule's */
	assert_int_equal(refused_by("r"), 100000);
	assert_int_equal(refused_by("c"), 0);
	assert_int_equal(w.counter[AC_REFUSED_BYTES], 100000);
	sane();
	/* Beyond the clause, and no rule minds: it left, so nobody refused it. */
	world("rules:\n  - {name: r, from: 10.20.0.0/24, to: outside, per: host, limit: {1h: 1MB}, action: block}\n"
	      "contracts:\n  - {name: c, from: 10.20.0.15, to: outside, ports: [tcp/873], budget: {per: total, 24h: 50kB}, until: never}\n");
	assert_int_equal(pour_as("10.20.0.15", "198.51.100.20", 90, backup), 90000);
	assert_int_equal(refused_by("c") + refused_by("r"), 0);
	sane();
}

static void opener_and_ports(void **state)
{
	(void)state;
	world("rules:\n  - {name: r, from: 10.20.0.0/24, to: outside, ports: [tcp/443], opened_by: outside, per: pair, limit: {1h: 5kB}, "
	      "action: block}\n");
	struct how pull = { .opener = OPENER_OUTSIDE, .sport = 443, .dport = 50000 };
	struct how push = { .opener = OPENER_INSIDE, .sport = 50000, .dport = 443 };
	struct how other = { .opener = OPENER_OUTSIDE, .sport = 444, .dport = 50000 };

	assert_int_equal(pour_as("10.20.0.15", "203.0.113.9", 20, pull), 5000);
	assert_int_equal(pour_as("10.20.0.15", "203.0.113.9", 20, push), 20000);
	assert_int_equal(pour_as("10.20.0.15", "203.0.113.9", 20, other), 20000);
	/* Who opened is not known: not a way around. */
	assert_int_equal(pour_as("10.20.0.15", "203.0.113.9", 20, (struct how){ 0 }), 0);
	sane();
}

static void exits(void **state)
{
	(void)state;
	world("exits:\n  vpn: {interfaces: [wg0], hosts: [10.250.0.0/16]}\nrules:\n"
	      "  - {name: r, from: 10.20.0.0/24, to: vpn, per: host, limit: {1h: 5kB}, action: block}\n");
	assert_int_equal(pour("10.20.0.15", "203.0.113.9", 20), 20000);
	assert_int_equal(pour("10.20.0.15", "10.250.0.5", 3), 3000);
	assert_int_equal(pour_as("10.20.0.15", "203.0.113.9", 20, (struct how){ .exit = 1 }), 2000);	/* by its interface */
	assert_int_equal(pour("10.20.0.15", "10.250.0.6", 3), 0);
	assert_int_equal(pour("10.20.0.15", "203.0.113.9", 20), 20000);
	sane();
}

static void named_host_is_one(void **state)
{
	(void)state;
	world("hosts:\n  file01: {addresses: [10.20.0.15, \"fd00:20::15\"]}\nrules:\n"
	      "  - {name: r, from: file01, to: outside, per: host, limit: {1h: 10kB}, action: block}\n");
	assert_int_equal(pour("10.20.0.15", "203.0.113.9", 6), 6000);
	assert_int_equal(pour("fd00:20::15", "2001:db8::1", 6), 4000);
	sane();
}

static void outside_is_a_64(void **state)
{
	(void)state;
	world("rules:\n  - {name: r, from: \"fd00::/8\", to: outside, per: pair, limit: {1h: 10kB}, action: block}\n");
	assert_int_equal(pour("fd00::1", "2001:db8:1:2::1", 6), 6000);
	assert_int_equal(pour("fd00::1", "2001:db8:1:2:ffff::9", 6), 4000);
	assert_int_equal(pour("fd00::1", "2001:db8:1:3::1", 6), 6000);
	sane();
}

static void protected_passes(void **state)
{
	(void)state;
	world("rules:\n  - {name: r, from: 10.20.0.0/24, to: outside, per: host, limit: {1h: 10kB}, action: block}\n"
	      "protect: [203.0.113.53]\n");
	assert_int_equal(pour("10.20.0.15", "203.0.113.53", 30), 30000);
	assert_int_equal(pour("10.20.0.15", "203.0.113.9", 30), 0);	/* the budget is gone */
	assert_int_equal(pour("10.20.0.15", "203.0.113.53", 30), 30000);
	sane();
}

/* What it let through is beyond a limit that is back at once. */
static void the_brake_ends(void **state)
{
	(void)state;
	world("brake: {subjects: 1, in: 10m}\nrules:\n  - {name: h, from: 10.0.0.0/8, to: outside, per: host, limit: {1m: 10MB}, action: block, "
	      "hold: 11m}\n");
	pour("10.1.1.1", "192.0.2.1", 11000);
	assert_int_equal(pour("10.1.1.2", "192.0.2.1", 40000), 40 * MB);
	assert_int_equal(w.j.area.h->braked, 1);
	for (unsigned i = 0; i < 1200 && w.j.area.h->braked; i++)
		pass_time(1);
	assert_int_equal(w.j.area.h->braked, 0);
	assert_int_equal(pour("10.1.1.2", "192.0.2.1", 100000), 10 * MB);
}

static void brake(void **state)
{
	(void)state;
	world(PAIR_RULE "brake: {subjects: 2, in: 10m}\n");
	assert_int_equal(pour("10.20.0.1", "203.0.113.9", 20), 10000);
	assert_int_equal(pour("10.20.0.2", "203.0.113.9", 20), 10000);
	assert_int_equal(pour("10.20.0.3", "203.0.113.9", 20), 20000);	/* the third: only alerted */
	pass_time(1);
	assert_int_equal(w.j.area.h->blocks, 2);
	assert_int_equal(w.j.area.h->braked, 1);
	sane();
}

/* Its time is over, and the limit is not: the next packet is refused, and that is told. */
static void braked_no_more(void **state)
{
	const struct account_cold *c = NULL;
	uint32_t rev, slot = 0;

	(void)state;
	world("brake: {subjects: 1, in: 10m}\nrules:\n  - {name: r, from: 10.20.0.0/24, to: outside, per: pair, limit: {1h: 10kB}, action: block}\n");
	pour("10.20.0.1", "203.0.113.9", 20);
	assert_int_equal(pour("10.20.0.2", "203.0.113.9", 20), 20000);
	while (!(atomic_load(&w.j.area.account[slot].state) & ACCOUNT_BRAKED))
		slot++;
	c = &w.j.area.account_cold[slot];
	for (unsigned i = 0; i < 599; i++) {
		pass_time(1);
		assert_true(send_as("10.20.0.2", "203.0.113.9", 10, (struct how){ 0 }));
	}
	assert_int_equal(w.j.area.h->braked, 1);
	pass_time(1);
	assert_int_equal(w.j.area.h->braked, 0);
	rev = c->rev;
	assert_false(send_as("10.20.0.2", "203.0.113.9", 10, (struct how){ 0 }));
	assert_int_equal(atomic_load(&w.j.area.account[slot].state), ACCOUNT_OPEN | ACCOUNT_BLOCKED);
	assert_int_equal(c->rev, rev + 1);
	sane();
}

static void observe_by_hand(void **state)
{
	(void)state;
	world(PAIR_RULE);
	assert_int_equal(pour("10.20.0.1", "203.0.113.9", 20), 10000);
	atomic_store(&w.j.area.h->observe_until_ns, mono_add_s(w.now, 600).ns);
	judge_policy_changed(&w.j, w.now);
	pass_time(1);
	assert_int_equal(pour("10.20.0.1", "203.0.113.9", 20), 20000);
	assert_int_equal(w.j.area.h->blocks, 0);
	w.now = mono_add_s(w.now, 600);
	judge_policy_changed(&w.j, w.now);
	assert_int_equal(pour("10.20.0.1", "203.0.113.9", 20), 0);	/* the hour is full */
	sane();
}

/* Whoever is asked first when the time is over: a packet, or the review. */
static void observe_block_by_hand(void **state)
{
	(void)state;
	for (int review = 0; review <= 1; review++) {
		struct area_dynamic block = { .uid = 12, .id = "b", .src = one("10.20.0.16") };

		world(PAIR_RULE);
		block.until_ns = mono_add_s(w.now, 1200).ns;
		assert_int_equal(judge_block(&w.j, &block, w.now), 0);
		assert_int_equal(pour("10.20.0.16", "203.0.113.9", 5), 0);
		atomic_store(&w.j.area.h->observe_until_ns, mono_add_s(w.now, 600).ns);
		judge_policy_changed(&w.j, w.now);
		pass_time(1);
		assert_int_equal(w.j.area.h->blocks, 0);
		assert_int_equal(pour("10.20.0.16", "203.0.113.9", 5), 5000);
		pass_time(598);
		assert_int_equal(pour("10.20.0.16", "203.0.113.9", 5), 5000);
		w.now = mono_add_s(w.now, 1);
		if (review)
			pass_time(0);
		assert_int_equal(pour("10.20.0.16", "203.0.113.9", 5), 0);
		pass_time(0);
		assert_int_equal(w.j.area.h->blocks, 1);
		pass_time(601);
		assert_int_equal(pour("10.20.0.16", "203.0.113.9", 5), 5000);
		sane();
	}
}

static void unblock_exactly(void **state)
{
	struct prefix src = one("10.20.0.15"), dst = one("203.0.113.9");
	struct judge_unblocked did;

	(void)state;
	world(PAIR_RULE);
	assert_int_equal(judge_unblock(&w.j, &src, &dst, 5000, 3600, w.now, &did), -ENOENT);
	assert_int_equal(pour("10.20.0.15", "203.0.113.9", 50), 10000);
	assert_int_equal(judge_unblock(&w.j, &src, &dst, 5000, 3600, w.now, &did), 0);
	assert_int_equal(did.accounts, 1);
	assert_int_equal(did.by_hand, 0);
	assert_int_equal(pour("10.20.0.15", "203.0.113.9", 50), 5000);
	dst = everywhere();
	assert_int_equal(judge_unblock(&w.j, &src, &dst, 0, 3600, w.now, &did), 0);	/* default: the smallest limit */
	assert_int_equal(pour("10.20.0.15", "203.0.113.9", 50), 10000);
	assert_int_equal(judge_unblock(&w.j, &src, &dst, 3000, 10, w.now, &did), 0);
	w.now = mono_add_s(w.now, 11);		/* the grant is over */
	assert_int_equal(pour("10.20.0.15", "203.0.113.9", 50), 0);
	sane();
}

static void by_hand(void **state)
{
	struct area_dynamic allow = { .uid = 11, .budget = 7000, .id = "a" }, block = { .uid = 12, .id = "b" };

	(void)state;
	world(PAIR_RULE);
	allow.src = one("10.20.0.15");
	allow.dst = one("203.0.113.9");
	allow.until_ns = mono_add_s(w.now, 600).ns;
	block.src = one("10.20.0.16");
	block.until_ns = mono_add_s(w.now, 600).ns;
	assert_int_equal(judge_allow(&w.j, &allow, w.now), 0);
	assert_int_equal(judge_allow(&w.j, &allow, w.now), -EEXIST);
	assert_int_equal(judge_block(&w.j, &block, w.now), 0);
	assert_int_equal(pour("10.20.0.15", "203.0.113.9", 50), 17000);	/* the allowance, then the rule's own */
	assert_int_equal(pour("10.20.0.16", "203.0.113.9", 5), 0);
	assert_int_equal(pour("10.20.0.16", "198.51.100.1", 5), 0);
	pass_time(601);
	assert_int_equal(pour("10.20.0.16", "198.51.100.1", 5), 5000);
	sane();
}

static void reload_keeps_sums(void **state)
{
	(void)state;
	world(PAIR_RULE);
	assert_int_equal(pour("10.20.0.15", "203.0.113.9", 8), 8000);
	set_policy("rules:\n  - {name: r, from: 10.20.0.0/24, to: outside, per: pair, limit: {1m: 12kB}, action: block}\n");
	judge_policy_changed(&w.j, w.now);
	assert_int_equal(pour("10.20.0.15", "203.0.113.9", 8), 4000);
	set_policy("rules:\n  - {name: r, from: 10.20.0.0/24, to: outside, per: pair, limit: {1m: 11kB}, action: alert}\n");
	judge_policy_changed(&w.j, w.now);
	pass_time(0);
	assert_int_equal(pour("10.20.0.15", "203.0.113.9", 8), 8000);	/* alert only: the block is lifted */
	set_policy("rules:\n  - {name: other, from: 10.20.0.0/24, to: outside, per: pair, limit: {1m: 3kB}, action: block}\n");
	judge_policy_changed(&w.j, w.now);
	assert_int_equal(pour("10.20.0.15", "203.0.113.9", 8), 3000);	/* another rule: from zero */
	sane();
}

static void full_table(void **state)
{
	uint64_t bytes = 0;

	(void)state;
	world_sized("rules:\n  - {name: h, from: 10.20.0.0/16, to: outside, per: host, limit: {1h: 3MB}, action: block}\n"
		    "  - {name: p, from: 10.20.0.0/16, to: outside, per: pair, limit: {1h: 1MB}, action: alert}\n", 128);
	for (unsigned i = 0; i < 2000; i++) {
		char dst[32];

		snprintf(dst, sizeof(dst), "203.0.%u.%u", i / 250, i % 250 + 1);
		bytes += pour("10.20.0.15", dst, 1);
	}
	assert_int_equal(bytes, 2000000);
	for (uint32_t i = 0; i < w.j.area.h->pairs; i++)
		if (table_is_full(&w.j.area.pairs, i))
			bytes -= w.j.area.pair[i].bytes;
	assert_int_equal(bytes, 0);		/* every byte is in a pair or in the host's overflow record */
	assert_true(w.counter[AC_OVERFLOW] > 0);
	assert_int_equal(pour("10.20.0.15", "198.51.100.1", 2000), 1000000);	/* and the host's limit is exact */
	sane();
	for (unsigned i = 0; i < 4; i++) {	/* room is made, and what they passed stays the host's */
		judge_evict_retire(&w.j, w.now);
		judge_evict_release(&w.j);
	}
	sane();
	for (uint32_t i = 0; i < w.j.area.h->pairs; i++)
		if (table_is_full(&w.j.area.pairs, i))
			bytes += pair_bytes(&w.j.area.pair[i], &w.j.area.pair_cold[i]);
	assert_int_equal(bytes + w.j.area.h->lost_pair_bytes + w.j.area.h->folded_bytes, 3000000);
}

/* Made-up senders fill the accounts: whoever finds no room shares one limit, and idle ones that passed next to nothing make room. */
static void more_hosts_than_accounts(void **state)
{
	uint64_t bytes = 0;
	unsigned n = 0;

	(void)state;
	world_sized("rules:\n  - {name: h, from: 10.20.0.0/16, to: outside, per: host, limit: {1h: 3MB}, action: block}\n"
		    "  - {name: p, from: 10.20.0.0/16, to: outside, per: pair, limit: {1h: 2MB}, action: alert}\n", 1024);
	assert_int_equal(pour("10.20.200.1", "203.0.113.9", 2500), 2500000);
	for (unsigned i = 0; i < 3000; i++) {
		char src[32];

		snprintf(src, sizeof(src), "10.20.%u.%u", i / 250, i % 250 + 1);
		bytes += pour(src, "203.0.113.9", 1);
	}
	for (unsigned i = 0; i < 20; i++) {
		char src[32];

		snprintf(src, sizeof(src), "10.20.100.%u", i + 1);
		bytes += pour(src, "203.0.113.9", 1000);
	}
	for (uint32_t i = 0; i < w.j.area.h->accounts; i++)
		n += table_is_full(&w.j.area.accounts, i) && w.j.area.account[i].key.kind == SUBJECT_HOST;
	assert_in_range(n, 100, 2048);
	assert_in_range(bytes, 3000000, 3000000 + n * 1000);	/* a packet each, and the shared limit */
	assert_true(w.counter[AC_OVERFLOW] > 0);
	assert_int_equal(pour("10.20.200.1", "203.0.113.9", 2500), 500000);	/* who was there before has his own */
	sane();
	w.now.ns += 120 * NS_PER_S;
	for (unsigned i = 0; i < 4; i++) {
		judge_evict_retire(&w.j, w.now);
		judge_evict_release(&w.j);
	}
	sane();
	assert_int_equal(pour("10.20.101.1", "203.0.113.9", 4000), 3000000);	/* there is room again */
	assert_int_equal(pour("10.20.200.1", "203.0.113.9", 1), 0);	/* and what had used its limit is not forgotten */
	sane();
}

#define LIMIT 100000ULL
#define TWO_PAIR_RULES                                                                                                           \
	"hosts:\n  file01: {addresses: [10.20.0.15, \"fd00:20::15\"]}\nrules:\n"                                                  \
	"  - {name: p, from: inside, to: [203.0.112.0/22, 198.51.100.0/24, 100.64.0.0/10, \"2001:db8::/32\"], per: pair, "          \
	"limit: {1h: 100kB}, action: block}\n"                                                                                    \
	"  - {name: q, from: inside, to: outside, per: pair, limit: {24h: 1GB}, action: block}\n"

/* One byte each from one host to as many addresses as there are. */
static void flood(const char *src, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		char dst[32];

		snprintf(dst, sizeof(dst), "100.64.%u.%u", i / 250, i % 250 + 1);
		assert_true(send_as(src, dst, 1, (struct how){ 0 }));
	}
}

static void evict_all(void)
{
	pass_time(120);
	for (unsigned i = 0; i < 4; i++) {
		judge_evict_retire(&w.j, w.now);
		judge_evict_release(&w.j);
	}
	sane();
}

/* Of rule p. dst NULL: what the host's pairs without an account share; src NULL: what those of all do. */
static uint32_t own(const char *src, const char *dst)
{
	struct account_key k = { .kind = SUBJECT_PAIR, .rule = w.policy.rule[0].uid };
	struct addr in = pair_others, out;
	struct pair_key to;

	if (src)
		assert_int_equal(addr_parse(src, &in), 0);
	subject_in(&w.policy, PER_PAIR, in.b, policy_src_of(&w.policy, &in)->host, 0, k.in);
	if (dst) {
		assert_int_equal(addr_parse(dst, &out), 0);
		pair_out(&to, &out);
		memcpy(k.out, to.out, sizeof(k.out));
		k.out_family = to.out_family;
	}
	return table_find(&w.j.area.accounts, area_account_hash(&w.j.area, &k), (const struct table_key *)&k);
}

static uint32_t shared(const char *src)
{
	return own(src, NULL);
}

/* What is full is another's doing: each host has one limit for all its destinations without an account. */
static void more_pairs_than_accounts(void **state)
{
	struct prefix src = one("10.20.0.17"), known = one("203.0.113.9"), dst = one("198.51.100.2"), free_one = one("192.0.2.1");
	struct judge_unblocked did;

	(void)state;
	world_sized(TWO_PAIR_RULES, 1024);
	judge_policy_changed(&w.j, w.now);
	assert_int_equal(pour("10.20.0.17", "203.0.113.9", 60), 60000);
	flood("10.20.0.99", 3000);
	assert_int_equal(pour("10.20.0.17", "203.0.113.9", 99), 40000);		/* who was there before has his own */
	assert_int_equal(pour("10.20.0.17", "198.51.100.1", 70), 70000);
	assert_int_equal(pour("10.20.0.17", "198.51.100.2", 70), 30000);
	assert_int_equal(pour("10.20.0.17", "198.51.100.3", 70), 0);
	assert_int_equal(pour("10.20.0.18", "198.51.100.1", 200), LIMIT);	/* each host its own */
	assert_int_equal(pour("10.20.0.15", "198.51.100.1", 60), 60000);	/* a named one, all its addresses */
	assert_int_equal(pour("fd00:20::15", "2001:db8::1", 60), 40000);
	assert_int_equal(pour("10.20.0.99", "100.64.0.1", 200), 99000);		/* and who filled it, too */
	assert_in_range(pour("10.20.0.99", "198.51.100.1", 200), LIMIT - 4000, LIMIT);
	assert_true(w.counter[AC_OVERFLOW] > 0);
	sane();
	/* It refuses what has no account, and that alone. */
	assert_int_equal(judge_unblock(&w.j, &src, &free_one, 5000, 600, w.now, &did), -ENOENT);
	assert_int_equal(judge_unblock(&w.j, &src, &dst, 5000, 600, w.now, &did), 0);
	assert_int_equal(did.accounts, 1);
	assert_int_equal(pour("10.20.0.17", "198.51.100.2", 3), 3000);
	assert_int_equal(pour("10.20.0.17", "198.51.100.9", 3), 2000);
	assert_int_equal(judge_unblock(&w.j, &src, &known, 5000, 600, w.now, &did), 0);
	assert_int_equal(did.accounts, 1);
	assert_int_equal(pour("10.20.0.17", "203.0.113.9", 9), 5000);
	assert_int_equal(pour("10.20.0.17", "198.51.100.9", 9), 0);
	dst = everywhere();
	assert_int_equal(judge_unblock(&w.j, &src, &dst, 5000, 600, w.now, &did), 0);
	assert_int_equal(did.accounts, 2);
	assert_int_equal(pour("10.20.0.17", "198.51.100.9", 9), 5000);
	assert_int_equal(pour("10.20.0.17", "203.0.113.9", 9), 5000);
	/* Nobody knows whose limit a lease would be of tomorrow. */
	for (uint32_t i = 0; i < w.j.area.h->pairs; i++) {
		struct payers l;

		if (!table_is_full(&w.j.area.pairs, i) || !payers_known(&w.j.area, i, w.j.area.h->list_version, &l))
			continue;
		for (unsigned k = 0; k < l.n_contract + l.n_rule; k++)
			assert_false(account_is_shared(&w.j.area.account[l.account[k]].key));
	}
	evict_all();
	assert_int_equal(pour("10.20.0.17", "198.51.100.2", 200), LIMIT);	/* room again: its own limit, and no more */
	assert_int_equal(pour("10.20.0.17", "198.51.100.2", 200), 0);
	assert_int_not_equal(shared("10.20.0.17"), TABLE_NONE);			/* what has used its limit is not forgotten */
	assert_int_not_equal(shared(NULL), TABLE_NONE);
	pass_time(3600 + 600);
	for (unsigned i = 0; i < 4; i++) {	/* a round of eviction takes a part of them */
		flood("10.20.0.99", 3000);
		evict_all();
	}
	assert_int_equal(shared("10.20.0.17"), TABLE_NONE);
	assert_int_not_equal(shared(NULL), TABLE_NONE);				/* it may find no place later */
}

/* Made-up senders take what is kept for hosts: the rule's one account, one limit for all of them. */
static void no_account_for_the_host(void **state)
{
	struct prefix src = { .addr = pair_others, .len = 128 }, dst = one("203.0.113.9");
	struct judge_unblocked did;
	uint64_t bytes = 0;

	(void)state;
	world_sized(TWO_PAIR_RULES, 1024);
	judge_policy_changed(&w.j, w.now);
	for (unsigned i = 0; i < 3000; i++) {
		char from[32];

		snprintf(from, sizeof(from), "10.21.%u.%u", i / 250, i % 250 + 1);
		(void)send_as(from, "203.0.113.9", 1, (struct how){ 0 });
	}
	assert_int_equal(shared("10.22.0.1"), TABLE_NONE);
	for (unsigned i = 0; i < 200; i++) {
		char from[32];

		snprintf(from, sizeof(from), "10.22.0.%u", i + 1);
		bytes += pour(from, "203.0.113.9", 10);
	}
	assert_in_range(bytes, LIMIT - 4000, LIMIT);	/* the senders' single bytes are in it */
	assert_int_equal(pour("10.20.0.15", "198.51.100.1", 200), LIMIT);	/* a named host's has a place */
	assert_int_equal(judge_unblock(&w.j, &src, &dst, 5000, 600, w.now, &did), 0);
	assert_int_equal(did.accounts, 1);
	assert_int_equal(pour("10.22.0.200", "203.0.113.9", 9), 5000);
	sane();
}

/* A contract's pairs without room share its clause as well, once a host; beyond it rules pay. */
static void contract_without_room(void **state)
{
	(void)state;
	world_sized("rules:\n  - {name: r, from: inside, to: outside, per: host, limit: {1h: 1MB}, action: block}\n"
		    "  - {name: p, from: 10.20.0.99, to: outside, per: pair, limit: {24h: 1GB}, action: alert}\n"
		    "  - {name: q, from: 10.20.0.99, to: outside, per: pair, limit: {24h: 1GB}, action: alert}\n"
		    "contracts:\n  - {name: c, from: 10.20.0.15, to: outside, budget: {per: pair, 24h: 50kB}, until: never}\n", 1024);
	judge_policy_changed(&w.j, w.now);
	assert_int_equal(pour("10.20.0.15", "203.0.113.9", 10), 10000);
	flood("10.20.0.99", 3000);
	assert_int_equal(pour("10.20.0.15", "203.0.113.9", 40), 40000);
	assert_int_equal(pour("10.20.0.15", "198.51.100.1", 50), 50000);
	assert_int_equal(pour("10.20.0.15", "198.51.100.2", 1100), 1000000);
	assert_int_equal(refused_by("r"), 100000);
	sane();
}

/* No record, but an account: judged as ever. */
static void pairs_without_record(void **state)
{
	(void)state;
	world_sized("rules:\n  - {name: p, from: inside, to: outside, per: pair, limit: {1h: 100kB}, action: block}\n", 128);
	judge_policy_changed(&w.j, w.now);
	flood("10.20.0.99", 150);
	assert_int_equal(pour("10.20.0.17", "198.51.100.1", 200), LIMIT);
	assert_int_equal(pour("10.20.0.17", "198.51.100.2", 200), LIMIT);
	assert_int_equal(pour("fd00::17", "2001:db8:1:2::1", 60), 60000);
	assert_int_equal(pour("fd00::17", "2001:db8:1:2::9", 60), 40000);
	flood("10.20.0.99", 250);
	assert_int_equal(pour("10.20.0.17", "198.51.100.3", 60), 60000);	/* now they share */
	assert_int_equal(pour("10.20.0.17", "198.51.100.4", 60), 40000);
	assert_int_equal(pour("10.20.0.17", "198.51.100.1", 200), 0);
	sane();
}

/* Random traffic, room that comes and goes, against a list of all that passed: of one destination no more than three times the limit,
 * and of a host's, while they have no account, twice. */
static void never_past_without_room(void **state)
{
	enum { HOSTS = 4, DESTS = 400, ROUNDS = 20 };
	const uint64_t gain = ROUNDS * (LIMIT / 60);	/* of accounts that went with little used */
	static uint64_t sum[HOSTS][DESTS];		/* in the window: all of it lasts less than one */
	uint64_t beyond[HOSTS] = { 0 }, most = 0;
	uint32_t seed = 11;

	(void)state;
	world_sized(TWO_PAIR_RULES, 128);
	judge_policy_changed(&w.j, w.now);
	for (unsigned i = 0; i < ROUNDS * 4000; i++) {
		const unsigned round = i / 4000, h = (seed = seed * 1664525 + 1013904223) >> 8 & 3;
		const bool few = (i % 4000 < 2000) == round % 2;	/* with the table full, and after room was made */
		const unsigned d = few ? round / 2 * 19 + (seed >> 12) % 3 : (seed >> 12) % DESTS;
		char src[32], dst[32];

		snprintf(src, sizeof(src), "10.20.0.%u", 1 + h);
		snprintf(dst, sizeof(dst), "203.0.%u.%u", 112 + d / 200, d % 200 + 1);
		if (send_as(src, dst, 1000, (struct how){ 0 })) {
			sum[h][d] += 1000;
			beyond[h] += own(src, dst) == TABLE_NONE ? 1000 : 0;
			most = MAX_OF(most, sum[h][d]);
		}
		assert_true(sum[h][d] <= 3 * LIMIT + gain);
		assert_true(beyond[h] <= 2 * LIMIT + gain);
		if (i % 4000 == 3999)
			evict_all();
	}
	for (unsigned h = 0; h < HOSTS; h++)
		assert_true(beyond[h] >= LIMIT);
	assert_true(most > LIMIT);	/* some did move */
	sane();
}

static void pseudo_hosts(void **state)
{
	(void)state;
	world("rules:\n  - {name: r, from: [10.0.0.0/8], to: outside, per: host, limit: {1h: 5kB}, action: block}\n"
	      "  - {name: g, from: gateway, to: outside, per: host, limit: {1h: 4kB}, action: block}\n");
	assert_int_equal(pour_as("10.20.0.1", "203.0.113.9", 9, (struct how){ .local = 1 }), 4000);
	assert_int_equal(pour("192.0.2.77", "203.0.113.9", 9), 9000);	/* unlisted: no rule names it */
	assert_int_equal(pour("10.20.0.2", "203.0.113.9", 9), 5000);
	sane();
}

static struct account *told;
static bool told_open;

static int on_notify(void *ctx)
{
	(void)ctx;
	told_open = told->state & ACCOUNT_OPEN;
	return 0;
}

/* A finding: opened once, at most one report a minute unless the verdict changes, closed when quiet. */
static void reports(void **state)
{
	struct account_cold *c = NULL;

	(void)state;
	world("rules:\n  - {name: r, from: 10.20.0.0/24, to: outside, per: pair, limit: {1m: 10kB, 1h: 15kB}, action: alert, hold: 2m}\n");
	assert_int_equal(pour("10.20.0.15", "203.0.113.9", 200), 200000);
	for (uint32_t i = 0; i < w.j.area.h->accounts; i++)
		if (table_is_full(&w.j.area.accounts, i)) {
			c = &w.j.area.account_cold[i];
			told = &w.j.area.account[i];
		}
	assert_non_null(c);
	w.j.notify = on_notify;
	assert_int_equal(c->rev, 1);		/* further window and doublings came within the minute */
	assert_int_equal(c->over, 3);
	assert_true(c->pending);
	pass_time(61);
	assert_int_equal(c->rev, 2);
	assert_true(told_open);
	assert_false(c->pending);
	pass_time(3600 + 600);			/* every window has room, and it was quiet for hold */
	assert_int_equal(c->rev, 3);
	assert_false(told_open);		/* who hears of the last rev finds it closed */
	assert_int_equal(c->over, 0);
	sane();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(exact_and_back),    cmocka_unit_test(never_past),	 cmocka_unit_test(all_must_pay),
		cmocka_unit_test(contract_first), cmocka_unit_test(contract_ends), cmocka_unit_test(opener_and_ports), cmocka_unit_test(exits),
		cmocka_unit_test(named_host_is_one), cmocka_unit_test(outside_is_a_64),	 cmocka_unit_test(protected_passes),
		cmocka_unit_test(the_brake_ends),
		cmocka_unit_test(brake),	     cmocka_unit_test(braked_no_more), cmocka_unit_test(observe_by_hand), cmocka_unit_test(observe_block_by_hand),
		cmocka_unit_test(unblock_exactly),
		cmocka_unit_test(by_hand),	     cmocka_unit_test(reload_keeps_sums), cmocka_unit_test(full_table),
		cmocka_unit_test(more_hosts_than_accounts), cmocka_unit_test(more_pairs_than_accounts),
		cmocka_unit_test(no_account_for_the_host), cmocka_unit_test(contract_without_room),
		cmocka_unit_test(pairs_without_record), cmocka_unit_test(never_past_without_room),
		cmocka_unit_test(pseudo_hosts),	     cmocka_unit_test(reports),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
