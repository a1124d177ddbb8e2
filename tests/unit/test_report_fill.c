/* test_report_fill.c - what a finding says of its subject, of where it went and of the way to let it go on. */
#include "report_world.h"

#define BLOCK(name, from, per)                                                                                                   \
	"  - {name: " name ", from: " from ", to: outside, per: " per ", limit: {1h: 5kB, 24h: 500kB}, action: block}\n"
#define SERVERS "groups:\n  servers: {hosts: [10.20.0.0/24]}\n"

static const json_t *subject(void)
{
	return json_object_get(last_told(), "subject");
}

static const json_t *top(unsigned i)
{
	return json_array_get(json_object_get(last_told(), "top"), i);
}

static int64_t number_at(const json_t *o, const char *key)
{
	return json_integer_value(json_object_get(o, key));
}

static const struct judge_packet by_gateway = { .opener = OPENER_INSIDE, .local = 1 };

/* The command that the finding gives, done as the engine does it, lets exactly its budget pass. */
static void works(const char *src, const char *dst, const char *member, unsigned more)
{
	char want[200];
	struct prefix from = { .len = 128 }, to = { .len = 128 };
	struct judge_unblocked did;

	snprintf(want, sizeof(want), "egressctl unblock %s --budget 5kB --for 1h --reason '...'", member);
	assert_string_equal(text_at(last_told(), "how_to_allow"), want);
	assert_int_equal(addr_parse(src, &from.addr), 0);
	assert_int_equal(addr_parse(dst, &to.addr), 0);
	assert_int_equal(judge_unblock(&w.judge, &from, &to, 5000, 3600, clock_mono(), &did), 0);
	assert_int_equal(send_to(src, dst, 20), more);
}

static void way_on(void **state)
{
	(void)state;
	begin("rules:\n" BLOCK("r", "10.0.0.0/8", "pair"));
	(void)send_to("10.20.0.16", "203.0.113.9", 10);
	look();
	works("10.20.0.16", "203.0.113.9", "10.20.0.16 203.0.113.9", 5);
	(void)send_to("10.20.0.15", "203.0.113.9", 10);
	look();
	works("10.20.0.15", "203.0.113.9", "file01 203.0.113.9", 5);
	end(state);

	begin("rules:\n" BLOCK("r", "10.0.0.0/8", "host"));
	(void)send_to("10.20.0.15", "203.0.113.9", 10);
	look();
	works("10.20.0.15", "203.0.113.9", "file01", 5);
	end(state);

	begin(SERVERS "rules:\n" BLOCK("r", "servers", "group"));
	(void)send_to("10.20.0.17", "203.0.113.9", 3);
	(void)send_to("10.20.0.16", "203.0.113.9", 10);
	look();
	works("10.20.0.16", "203.0.113.9", "10.20.0.16", 5);
}

/* Pairs that found no account share their host's, and then the rule's: what is said of them stays within the schema. */
static void other_destinations(void **state)
{
	char addr[32];

	(void)state;
	begin("rules:\n" BLOCK("r", "10.0.0.0/8", "pair") "  - {name: s, from: 10.0.0.0/8, to: outside, per: pair, limit: {30d: 1TB}}\n");
	judge_policy_changed(&w.judge, clock_mono());
	for (unsigned i = 0; i < PAIRS; i++) {
		snprintf(addr, sizeof(addr), "100.64.%u.%u", i / 250, i % 250 + 1);
		(void)send_to("10.20.0.99", addr, 1);
	}
	(void)send_to("10.20.0.15", "203.0.113.9", 10);
	look();
	assert_string_equal(text_at(subject(), "kind"), "pair");
	assert_string_equal(text_at(subject(), "name"), "file01");
	assert_string_equal(text_at(last_told(), "src_ip"), "10.20.0.15");
	assert_string_equal(text_at(last_told(), "dest_ip"), "*");
	assert_string_equal(text_at(json_object_get(last_told(), "alert"), "signature"), "r: 5.0 kB in 1h to other destinations, limit 5.0 kB");
	assert_string_equal(text_at(top(0), "dest_ip"), "*");
	works("10.20.0.15", "203.0.113.9", "file01", 5);
	look();
	for (unsigned i = 0; i < PAIRS; i++) {
		snprintf(addr, sizeof(addr), "10.21.%u.%u", i / 250, i % 250 + 1);
		(void)send_to(addr, "203.0.113.9", 1);
	}
	look();
	assert_string_equal(text_at(subject(), "name"), "others");
	assert_string_equal(text_at(last_told(), "dest_ip"), "*");
	assert_string_equal(text_at(last_told(), "how_to_allow"), "egressctl unblock others --budget 5kB --for 1h --reason '...'");
}

/* Nothing is blocked: nothing to allow. */
static void nothing_to_allow(void **state)
{
	(void)state;
	begin("rules:\n  - {name: r, from: 10.0.0.0/8, to: outside, per: pair, limit: {1h: 5kB}, action: alert}\n");
	(void)send_to("10.20.0.16", "203.0.113.9", 10);
	look();
	assert_true(json_is_null(json_object_get(last_told(), "how_to_allow")));
	end(state);

	begin("protect: [203.0.113.9]\nbrake: {subjects: 1, in: 10m}\nrules:\n" BLOCK("r", "10.0.0.0/8", "pair"));
	(void)send_to("10.20.0.16", "203.0.113.9", 10);
	look();
	assert_true(json_is_null(json_object_get(last_told(), "how_to_allow")));
	(void)send_to("10.20.0.16", "203.0.113.10", 10);
	look();
	assert_true(json_is_string(json_object_get(last_told(), "how_to_allow")));
	(void)send_to("10.20.0.17", "203.0.113.11", 10);	/* the brake holds */
	look();
	assert_string_equal(text_at(last_told(), "dest_ip"), "203.0.113.11");
	assert_true(json_is_null(json_object_get(last_told(), "how_to_allow")));
	skipped_s += 4000;
	look();
	assert_true(json_is_null(json_object_get(last_told(), "how_to_allow")));
}

/* What stands for several addresses is a name; the address is the packet's. */
static void addresses(void **state)
{
	(void)state;
	begin("rules:\n" BLOCK("s", "unlisted", "pair") BLOCK("g", "gateway", "host") BLOCK("f", "file01", "host"));
	(void)send_to("172.31.0.7", "203.0.113.9", 10);
	look();
	assert_string_equal(text_at(subject(), "name"), "unlisted");
	assert_string_equal(text_at(subject(), "ip"), "172.31.0.7");
	assert_string_equal(text_at(last_told(), "src_ip"), "172.31.0.7");
	assert_string_equal(text_at(top(0), "src_ip"), "172.31.0.7");
	assert_string_equal(text_at(top(0), "name"), "unlisted");
	(void)send_as(by_gateway, "192.0.2.1", "203.0.113.9", 10);
	look();
	assert_string_equal(text_at(subject(), "name"), "gateway");
	assert_string_equal(text_at(subject(), "ip"), "192.0.2.1");
	assert_true(json_is_null(json_object_get(top(0), "src_ip")));
	assert_string_equal(text_at(top(0), "name"), "gateway");
	(void)send_to("fd00:20::15", "2001:db8::9", 10);
	look();
	assert_string_equal(text_at(subject(), "name"), "file01");
	assert_string_equal(text_at(subject(), "ip"), "fd00:20::15");
	assert_string_equal(text_at(top(0), "src_ip"), "fd00:20::15");
}

/* A pair's own sum, not what its record has counted under other rules and before. */
static void top_is_of_the_rule(void **state)
{
	(void)state;
	begin("rules:\n  - {name: r, from: 10.0.0.0/8, to: outside, per: pair, limit: {1m: 5kB}, action: alert, hold: 1m}\n");
	(void)send_to("10.20.0.16", "203.0.113.9", 4);
	skipped_s += 600;
	(void)send_to("10.20.0.16", "203.0.113.9", 6);
	look();
	assert_int_equal(json_array_size(json_object_get(last_told(), "top")), 1);
	assert_int_equal(number_at(last_told(), "observed_bytes"), 6000);
	assert_int_equal(number_at(top(0), "bytes"), 6000);
	assert_int_equal(number_at(top(0), "port"), 443);
	assert_true(json_is_string(json_object_get(last_told(), "community_id")));
}

/* A threshold that leases passed has no packet, so no flow to name. */
static void no_flow(void **state)
{
	struct finding f;

	(void)state;
	begin("rules:\n" BLOCK("r", "10.0.0.0/8", "pair"));
	(void)send_to("10.20.0.16", "203.0.113.9", 10);
	for (uint32_t i = 0; i < ACCOUNTS; i++) {
		if (!table_is_full(&w.area.accounts, i))
			continue;
		memset(&w.area.account_cold[i].flow_src, 0, sizeof(struct addr));
		assert_true(report_fill(&w.area, &w.policy.p, &w.config, i, true, &f));
		assert_string_equal(f.community_id, "");
		assert_string_equal(f.src_ip, "10.20.0.16");
	}
}

/* coverage: what passed on leases was seen as well. */
static void coverage(void **state)
{
	(void)state;
	begin("rules:\n" BLOCK("r", "10.0.0.0/8", "pair"));
	atomic_store(&w.area.h->leased_bytes, 1000000);
	(void)send_to("10.20.0.16", "203.0.113.9", 10);
	look();
	assert_int_equal(number_at(json_object_get(last_told(), "coverage"), "seen_bytes"), 1005000);
	assert_int_equal(report_health(w.report, "spool", "test"), 0);
	look();
	assert_int_equal(number_at(json_object_get(last_told(), "coverage"), "seen_bytes"), 1005000);
}

int main(void)
{
#define CASE(fn) cmocka_unit_test_teardown(fn, end)
	const struct CMUnitTest tests[] = {
		CASE(way_on), CASE(other_destinations), CASE(nothing_to_allow), CASE(addresses), CASE(top_is_of_the_rule), CASE(no_flow),
		CASE(coverage),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
