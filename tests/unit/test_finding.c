/* test_finding.c - findings as JSON and as a line: always parses, always valid UTF-8 without control characters, never too long.
 * With an argument it prints one finding of each kind and some at random, for the schema's test.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "finding.h"
#include "policy.h"
#include "utf8.h"

static char json[FINDING_JSON_MAX];

static struct finding pair_alert(void)
{
	struct finding f = {
		.event = EVENT_ALERT,
		.wall_us = 1795444922577026,
		.finding_id = 0xfedcba9876543210,
		.incident_id = 0xfedcba9876543210,
		.seq = 7,
		.rev = 3,
		.activity = ACTIVITY_UPDATE,
		.gateway = "gw1",
		.policy_version = 41,
		.subject_kind = "pair",
		.subject_name = "file01",
		.subject_ip = "10.20.0.15",
		.rule = "bulk-leak",
		.per = "pair",
		.opened_by = OPENER_OUTSIDE,
		.signature = "bulk-leak: 500.0 MB in 1h, limit 500.0 MB",
		.category = "bulk-egress",
		.action = "block",
		.severity = SEVERITY_HIGH,
		.observed_bytes = 500000000,
		.limit_bytes = 500000000,
		.refused_bytes = 88100000,
		.window_s = 3600,
		.nreasons = 2,
		.reason = { { 3600, 500000000, 500000000 }, { 86400, 2100000000, 2000000000 } },
		.ntop = 1,
		.top = { { "10.20.0.15", "203.0.113.9", "file01", 443, 500000000 } },
		.verdict = VERDICT_BLOCK,
		.until_us = 1795446722577026,
		.until_window_s = 86400,
		.first_seen_us = 1795440000000001,
		.last_seen_us = 1795444922577000,
		.stored_compressed = 700ULL << 30,
		.seen_bytes = 123456789012,
		.unseen_bytes = 17,
		.how_to_allow = "egressctl unblock file01 203.0.113.9 --budget 500MB --for 1h --reason '...'",
		.src_ip = "10.20.0.15",
		.dest_ip = "203.0.113.9",
		.community_id = "1:LQU9qZlK+B5F3KDmev6m5PMibrg=",
	};

	return f;
}

static struct finding host_alert(void)
{
	struct finding f = pair_alert();

	snprintf(f.subject_kind, sizeof(f.subject_kind), "host");
	snprintf(f.per, sizeof(f.per), "host");
	f.src_ip[0] = f.dest_ip[0] = f.community_id[0] = '\0';
	f.verdict = VERDICT_WOULD_BLOCK;
	f.how_to_allow[0] = '\0';
	f.until_us = f.until_window_s = 0;
	f.stored_compressed = 0;
	f.activity = ACTIVITY_CREATE;
	f.ntop = FINDING_TOP;
	for (unsigned i = 1; i < FINDING_TOP; i++)
		f.top[i] = (struct finding_top){ "10.20.0.15", "2001:db8:1:2::/64", "", 0, 1000 - i };
	return f;
}

static struct finding group_alert(void)
{
	struct finding f = host_alert();

	snprintf(f.subject_kind, sizeof(f.subject_kind), "group");
	snprintf(f.subject_name, sizeof(f.subject_name), "sakura-servers");
	snprintf(f.per, sizeof(f.per), "group");
	snprintf(f.exit, sizeof(f.exit), "maintenance-vpn");
	f.subject_ip[0] = '\0';
	f.activity = ACTIVITY_CLOSE;
	f.verdict = VERDICT_ALLOW;
	return f;
}

static struct finding plain(enum finding_event event)
{
	struct finding f = {
		.event = event,
		.wall_us = 1795444922577026,
		.finding_id = 1ULL << 63 | 9,
		.incident_id = 1ULL << 63 | 9,
		.seq = 9,
		.rev = 1,
		.gateway = "gw1",
		.subject_kind = "gateway",
		.subject_name = "gw1",
		.rule = "engine-restart",
		.signature = "the engine was restarted; nobody judged from 14:41:51.218 to 14:42:02.530 UTC; "
			     "1234 packets (1.2 MB) passed unjudged",
		.category = "health",
		.action = "alert",
		.severity = SEVERITY_HIGH,
		.verdict = VERDICT_ALERT,
		.first_seen_us = 1795444922577026,
		.last_seen_us = 1795444922577026,
	};

	if (event == EVENT_DECISION) {
		snprintf(f.category, sizeof(f.category), "decision");
		snprintf(f.signature, sizeof(f.signature), "decision 0b5c of alice refused");
		f.severity = SEVERITY_LOW;
		f.rule[0] = '\0';
		snprintf(f.decision_id, sizeof(f.decision_id), "0b5c");
		snprintf(f.decision_result, sizeof(f.decision_result), "refused");
		snprintf(f.decision_why, sizeof(f.decision_why), "beyond the local policy's max_ttl of 86400 s");
		snprintf(f.decision_entry, sizeof(f.decision_entry), "1795444922570-0");
		snprintf(f.decision_action, sizeof(f.decision_action), "block");
		snprintf(f.decision_src, sizeof(f.decision_src), "10.20.0.15");
		snprintf(f.decision_dst, sizeof(f.decision_dst), "*");
		snprintf(f.decision_ttl, sizeof(f.decision_ttl), "48h");
		snprintf(f.decision_author, sizeof(f.decision_author), "alice");
		snprintf(f.decision_reason, sizeof(f.decision_reason), "CHG-1182");
	}
	return f;
}

static json_t *parsed(const struct finding *f)
{
	json_error_t error;
	json_t *o;
	int n = finding_json(f, json, sizeof(json));

	assert_true(n > 0 && (size_t)n == strlen(json));
	for (int i = 0; i < n;) {
		unsigned k = utf8_printable(json + i, (size_t)(n - i));

		assert_true(k > 0);
		i += (int)k;
	}
	o = json_loads(json, JSON_REJECT_DUPLICATES, &error);
	if (!o)
		fail_msg("%s\n%s", error.text, json);
	return o;
}

static const char *string_at(const json_t *o, const char *key)
{
	return json_string_value(json_object_get(o, key));
}

static void fields(void **state)
{
	struct finding f = pair_alert();
	json_t *o = parsed(&f);

	(void)state;
	assert_string_equal(string_at(o, "timestamp"), "2026-11-23T14:42:02.577026Z");
	assert_string_equal(string_at(o, "finding_id"), "fedcba9876543210");
	assert_string_equal(string_at(o, "alert_id"), "fedcba9876543210-3");
	assert_string_equal(string_at(o, "window"), "1h");
	assert_string_equal(string_at(o, "opened_by"), "outside");
	assert_int_equal(json_integer_value(json_object_get(json_object_get(o, "alert"), "severity")), 2);
	assert_string_equal(string_at(json_object_get(o, "verdict"), "until_window"), "24h");
	assert_true(json_is_null(json_object_get(o, "exit")));
	json_decref(o);
}

/* ATT&CK names what an attacker does: of ourselves there is nothing to name. */
static void attack(void **state)
{
	struct finding f[] = { pair_alert(), host_alert(), group_alert(), plain(EVENT_HEALTH), plain(EVENT_DECISION) };

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(f); i++) {
		json_t *o = parsed(&f[i]), *a = json_object_get(o, "attack");

		assert_true(json_is_array(a));
		assert_int_equal(json_array_size(a), f[i].event == EVENT_ALERT);
		if (f[i].event == EVENT_ALERT)
			assert_string_equal(json_string_value(json_array_get(a, 0)), "T1048");
		json_decref(o);
	}
}

static void hostile_text(void **state)
{
	static const char *const bad[] = { "a\nb", "\"},{\"x\":\"", "\x1b[31mred", "\xff\xfe", "\xe2\x80\xae!evil", "\xc0\xaf",
					   "back\\slash", "tab\there", "\x7f", "\xed\xa0\x80" };
	char line[1024];

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		struct finding f = pair_alert();

		snprintf(f.rule, sizeof(f.rule), "%s", bad[i]);
		snprintf(f.subject_name, sizeof(f.subject_name), "%s", bad[i]);
		snprintf(f.gateway, sizeof(f.gateway), "%s", bad[i]);
		snprintf(f.how_to_allow, sizeof(f.how_to_allow), "%s", bad[i]);
		json_decref(parsed(&f));
		assert_true(finding_line(&f, line, sizeof(line)) > 0);
		for (size_t k = 0; line[k];) {
			unsigned n = utf8_printable(line + k, strlen(line + k));

			assert_true(n > 0);
			k += n;
		}
	}
}

static void fill(char *to, size_t size)
{
	memset(to, '\x1b', size - 1);	/* four characters each when escaped */
	to[size - 1] = '\0';
}

static void largest(void **state)
{
	struct finding f = pair_alert();
	int n;

	(void)state;
	fill(f.subject_name, sizeof(f.subject_name));
	fill(f.rule, sizeof(f.rule));
	fill(f.gateway, sizeof(f.gateway));
	fill(f.signature, sizeof(f.signature));
	fill(f.how_to_allow, sizeof(f.how_to_allow));
	f.ntop = FINDING_TOP;
	f.nreasons = FINDING_REASONS;
	for (unsigned i = 0; i < FINDING_TOP; i++)
		fill(f.top[i].name, sizeof(f.top[i].name));
	json_decref(parsed(&f));
	n = finding_json(&f, json, 9000);	/* top is shortened first */
	assert_true(n > 0 && n < 9000);
	assert_int_equal(finding_json(&f, json, 500), -EMSGSIZE);
}

static void words(void **state)
{
	struct finding f = pair_alert();
	char b[16], line[300];

	(void)state;
	assert_string_equal(format_bytes(0, b), "0 B");
	assert_string_equal(format_bytes(999, b), "999 B");
	assert_string_equal(format_bytes(1000, b), "1.0 kB");
	assert_string_equal(format_bytes(999949, b), "999.9 kB");
	assert_string_equal(format_bytes(999950, b), "1.0 MB");
	assert_string_equal(format_bytes(1949, b), "1.9 kB");
	assert_string_equal(format_bytes(1998396, b), "2.0 MB");	/* beside a limit of 2.0 MB that was reached */
	assert_string_equal(format_bytes(999949999999999999, b), "999.9 PB");
	assert_string_equal(format_bytes(500000000, b), "500.0 MB");
	assert_string_equal(format_bytes(UINT64_MAX, b), "18.4 EB");
	assert_string_equal(format_duration(90, b), "90s");
	assert_string_equal(format_duration(3600, b), "1h");
	assert_string_equal(format_duration(86400, b), "24h");
	assert_string_equal(format_duration(7 * 86400, b), "7d");
	assert_string_equal(format_duration(30 * 86400, b), "30d");
	assert_true(finding_line(&f, line, sizeof(line)) > 0);
	assert_string_equal(line, "alert high: file01 -> 203.0.113.9 bulk-leak (update): 500.0 MB in 1h (limit 500.0 MB), "
				  "blocked until 15:12, refused 88.1 MB");
	assert_int_equal(finding_line(&f, line, 20), -EMSGSIZE);
	f = plain(EVENT_DECISION);
	assert_true(finding_line(&f, line, sizeof(line)) > 0);
	assert_string_equal(line, "decision 0b5c: block 10.20.0.15 * by alice: refused: beyond the local policy's max_ttl of 86400 s");
}

/* The end of a line about a block that ends `after_s` later, where clocks are `zone_s` ahead. */
static const char *until_line(int64_t after_s, int32_t zone_s)
{
	static char line[300];
	struct finding f = pair_alert();

	f.until_us = f.wall_us + (uint64_t)(after_s * 1000000);
	f.zone_s = zone_s;
	snprintf(f.zone, sizeof(f.zone), "%s", zone_s == 9 * 3600 ? "JST" : "");
	f.refused_bytes = 0;
	assert_true(finding_line(&f, line, sizeof(line)) > 0);
	return strrchr(line, ',');
}

static void until(void **state)
{
	struct finding f = pair_alert();
	char line[300];

	(void)state;	/* it is 23 November 2026, 14:42:02 UTC */
	assert_string_equal(until_line(1800, 0), ", blocked until 15:12");
	assert_string_equal(until_line(1800, 9 * 3600), ", blocked until 24 Nov 00:12 JST");
	assert_string_equal(until_line(1800, 3600), ", blocked until 16:12");
	assert_string_equal(until_line(86400, -5 * 3600), ", blocked until 24 Nov 09:42");
	assert_string_equal(until_line(365 * 86400, 0), ", blocked until 23 Nov 2027 14:42");
	f.verdict = VERDICT_ALLOW;
	f.until_us = 0;
	f.activity = ACTIVITY_CLOSE;
	assert_true(finding_line(&f, line, sizeof(line)) > 0);
	assert_string_equal(line, "alert high: file01 -> 203.0.113.9 bulk-leak (closed): 500.0 MB in 1h (limit 500.0 MB), "
				  "let through, refused 88.1 MB");
	f.verdict = VERDICT_BLOCK;
	f.until_us = UINT64_MAX;
	f.zone_s = INT32_MAX;
	assert_true(finding_line(&f, line, sizeof(line)) > 0);
}

static int print_all(void)
{
	struct finding f[] = { pair_alert(), host_alert(), group_alert(), plain(EVENT_HEALTH), plain(EVENT_DECISION) };

	for (unsigned i = 0; i < ARRAY_SIZE(f); i++) {
		if (finding_json(&f[i], json, sizeof(json)) < 0)
			return 1;
		puts(json);
	}
	return 0;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fields),
		cmocka_unit_test(attack),
		cmocka_unit_test(hostile_text),
		cmocka_unit_test(largest),
		cmocka_unit_test(words),
		cmocka_unit_test(until),
	};

	(void)argv;
	if (argc > 1)
		return print_all();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
