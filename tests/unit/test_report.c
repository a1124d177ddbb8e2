/* test_report.c - report.h: each finding told once and whole, bursts held back, decisions answered once. */
#include "report_world.h"

#define PAIR_RULE "rules:\n  - {name: pairs, from: 10.0.0.0/8, to: outside, per: pair, limit: {1h: 5kB}, action: block, hold: 1m}\n"
#define ALERTS                                                                                                                  \
	"rules:\n  - {name: loud, from: 10.0.0.0/8, to: outside, per: pair, limit: {1m: 5kB}, action: alert, hold: 1m}\n"

/* [RP4] Every update and close has an earlier create of the same finding and incident, no create is repeated, no id is used twice. */
static void whole(void)
{
	json_t *o, *seen = json_object(), *incidents = json_object(), *ids = json_object();
	size_t i;

	json_array_foreach(w.told, i, o) {
		const char *id = text_at(o, "finding_id"), *activity = text_at(o, "activity");

		assert_null(json_object_get(ids, text_at(o, "alert_id")));
		json_object_set_new(ids, text_at(o, "alert_id"), json_true());
		if (strcmp(text_at(o, "event_type"), "alert") != 0)
			continue;
		if (strcmp(activity, "create") == 0) {
			assert_null(json_object_get(seen, id));
			json_object_set(incidents, id, json_object_get(o, "incident_id"));
		} else {
			assert_non_null(json_object_get(seen, id));
			assert_string_not_equal(text_at(seen, id), "close");
			assert_string_equal(text_at(o, "incident_id"), text_at(incidents, id));
		}
		json_object_set(seen, id, json_object_get(o, "activity"));
	}
	json_decref(seen);
	json_decref(incidents);
	json_decref(ids);
}

/* n hosts, each its own finding */
static void burst(unsigned n, unsigned packets)
{
	char src[ADDR_STRLEN];

	for (unsigned i = 0; i < n; i++) {
		snprintf(src, sizeof(src), "10.%u.%u.9", 30 + i / 200, i % 200);
		(void)send_to(src, "203.0.113.9", packets);
	}
}

static void each_once(void **state)
{
	(void)state;
	begin(PAIR_RULE);
	assert_int_equal(send_to("10.20.0.15", "203.0.113.9", 10), 5);
	assert_int_equal(look(), 1);
	assert_int_equal(look(), 1);
	for (uint32_t i = 0; i < ACCOUNTS; i++)
		if (table_is_full(&w.area.accounts, i))
			assert_int_equal(report_incident(w.report, i), w.area.account_cold[i].finding_id);
	assert_string_equal(text_at(nth(0), "activity"), "create");
	skipped_s += 3600 + 300 + 60;
	look();
	whole();
	assert_int_equal(count_told("create"), 1);
	assert_int_equal(count_told("close"), 1);
}

/* [RP3] What is held back says nothing, neither when its block ends nor when it closes. */
static void held_back(void **state)
{
	(void)state;
	begin(PAIR_RULE);
	burst(200, 10);
	assert_int_equal(look(), REPORT_BURST);
	assert_int_equal(count_told("create"), REPORT_BURST);
	skipped_s += 61;
	assert_int_equal(look(), REPORT_BURST + 1);
	assert_string_equal(text_at(json_object_get(last_told(), "rule"), "name"), "summary");
	assert_int_equal(strncmp(text_at(json_object_get(last_told(), "alert"), "signature"), "150 more ", 9), 0);
	skipped_s += 3600 + 300 + 60;
	look();
	whole();
	assert_int_equal(count_told("create"), REPORT_BURST);
	assert_int_equal(count_told("close"), REPORT_BURST);
	skipped_s += 61;
	assert_int_equal(report_health(w.report, "spool", "a sign of life"), 0);
	restart_relay();		/* nor does the next relay */
	look();
	whole();
	assert_int_equal(count_told("close"), REPORT_BURST);
}

/* It is told when it changes while it is open and there is room: by a create of its own. */
static void told_later(void **state)
{
	(void)state;
	begin(ALERTS);
	burst(REPORT_BURST + 10, 10);
	look();
	assert_int_equal(count_told("create"), REPORT_BURST);
	skipped_s += 61;
	burst(REPORT_BURST + 10, 40);	/* more: an update of each */
	look();
	skipped_s += 61;
	look();
	whole();
	assert_int_equal(count_told("create"), REPORT_BURST + 10);
	for (unsigned i = 0; i < 4; i++) {
		skipped_s += 120;
		look();
	}
	whole();
	assert_int_equal(count_told("close"), REPORT_BURST + 10);
}

/* Findings of one host that are open together are one incident; held back ones take no part in it. */
static void incidents(void **state)
{
	const char *first;
	char dst[ADDR_STRLEN];

	(void)state;
	begin(ALERTS);
	for (unsigned i = 0; i < REPORT_BURST + 20; i++) {
		snprintf(dst, sizeof(dst), "203.0.113.%u", i + 1);
		(void)send_to("10.20.0.15", dst, 10);
	}
	assert_int_equal(look(), REPORT_BURST);
	first = text_at(nth(0), "incident_id");
	for (unsigned i = 1; i < REPORT_BURST; i++)
		assert_string_equal(text_at(nth(i), "incident_id"), first);
	restart_relay();		/* the next relay goes on with it */
	(void)send_to("10.20.0.15", "198.51.100.1", 10);
	look();
	assert_int_equal(count_told("close"), 0);
	assert_string_equal(text_at(last_told(), "incident_id"), first);
	for (unsigned i = 0; i < 4; i++) {
		skipped_s += 120;
		look();
	}
	whole();
	assert_int_equal(count_told("close"), count_told("create"));
	skipped_s += 600;
	(void)send_to("10.20.0.15", "198.51.100.7", 10);
	look();
	assert_string_equal(text_at(last_told(), "activity"), "create");
	assert_string_not_equal(text_at(last_told(), "incident_id"), first);
	assert_string_equal(text_at(last_told(), "incident_id"), text_at(last_told(), "finding_id"));
}

/* A finding that opened and closed while nobody looked, and one that another replaced. */
static void unseen_ends(void **state)
{
	(void)state;
	begin(ALERTS);
	(void)send_to("10.20.0.15", "203.0.113.9", 10);
	for (unsigned i = 0; i < 4; i++) {
		skipped_s += 120;
		judge_review(&w.judge, clock_mono(), NULL, NULL);
	}
	assert_int_equal(look(), 2);
	assert_string_equal(text_at(nth(0), "activity"), "create");
	assert_string_equal(text_at(nth(1), "activity"), "close");
	(void)send_to("10.20.0.15", "203.0.113.9", 10);
	assert_int_equal(look(), 3);
	for (unsigned i = 0; i < 4; i++) {
		skipped_s += 120;
		judge_review(&w.judge, clock_mono(), NULL, NULL);
	}
	(void)send_to("10.20.0.15", "203.0.113.9", 10);
	assert_int_equal(look(), 5);
	assert_string_equal(text_at(nth(3), "activity"), "close");
	assert_string_equal(text_at(nth(3), "finding_id"), text_at(nth(2), "finding_id"));
	assert_string_equal(text_at(nth(4), "activity"), "create");
	whole();
}

/* Records of the version before are read, and what they told is not told again. */
static void former_heads(void **state)
{
	const struct {
		uint32_t magic, event;
		uint64_t finding_id;
		uint32_t rev, uid;
	} old = { 0x65677233u, EVENT_ALERT, 7ULL << 32 | 1, 1, 0 };
	struct report_record rec;
	char data[sizeof(old) + 3];
	uint64_t seq;

	(void)state;
	begin(ALERTS);
	(void)send_to("10.20.0.15", "203.0.113.9", 10);
	memcpy(data, &old, sizeof(old));
	memcpy(data + sizeof(old), "{}", 3);
	assert_int_equal(history_head(data, sizeof(old) + 2, &rec), sizeof(old));
	assert_int_equal(history_head(data, sizeof(old) - 1, &rec), 0);
	data[0] ^= 1;
	assert_int_equal(history_head(data, sizeof(old) + 2, &rec), 0);
	data[0] ^= 1;
	assert_int_equal(spool_append(w.spool, data, sizeof(old) + 2, &seq), 0);
	restart_relay();
	assert_int_equal(look(), 1);	/* that one */
	for (unsigned i = 0; i < 4; i++) {
		skipped_s += 120;
		look();
	}
	assert_string_equal(text_at(last_told(), "activity"), "close");
	assert_string_equal(text_at(last_told(), "finding_id"), "0000000700000001");
}

/* ---- decisions ---- */

static struct redis_decision entry(const char *id, const char *at)
{
	struct redis_decision d = { .v = "1", .action = "allow", .src = "10.20.0.15", .dst = "203.0.113.9", .budget = "5GB",
				    .ttl = "4h", .author = "alice", .reason = "CHG-1182", .gateway = "*" };

	snprintf(d.id, sizeof(d.id), "%s", id);
	snprintf(d.entry, sizeof(d.entry), "%s", at);
	return d;
}

static void decisions(void **state)
{
	struct redis_decision d = entry("one", "5-1"), again = entry("one", "6-1"), none = entry("", "7-1"), other = entry("", "8-1");
	const json_t *o;

	(void)state;
	begin(PAIR_RULE);
	assert_int_equal(report_decided(w.report, &d), DECIDED_NEW);
	assert_int_equal(report_decision(w.report, &d, "applied", ""), 0);
	assert_int_equal(report_decided(w.report, &d), DECIDED_ANSWERED);
	assert_int_equal(report_decided(w.report, &again), DECIDED_REUSED);
	assert_int_equal(report_decision(w.report, &again, "refused", "id"), 0);
	assert_int_equal(report_decided(w.report, &again), DECIDED_ANSWERED);
	assert_int_equal(report_decision(w.report, &none, "refused", "id missing"), 0);
	assert_int_equal(report_decided(w.report, &other), DECIDED_NEW);	/* each is answered */
	restart_relay();
	assert_int_equal(report_decided(w.report, &d), DECIDED_ANSWERED);
	assert_int_equal(report_decided(w.report, &again), DECIDED_ANSWERED);
	assert_int_equal(report_decided(w.report, &none), DECIDED_ANSWERED);
	assert_int_equal(report_decided(w.report, &other), DECIDED_NEW);
	read_told();
	o = json_object_get(nth(0), "decision");
	assert_string_equal(text_at(o, "entry"), "5-1");
	assert_string_equal(text_at(o, "action"), "allow");
	assert_string_equal(text_at(o, "src"), "10.20.0.15");
	assert_string_equal(text_at(o, "dst"), "203.0.113.9");
	assert_string_equal(text_at(o, "budget"), "5GB");
	assert_string_equal(text_at(o, "ttl"), "4h");
	assert_string_equal(text_at(o, "author"), "alice");
	assert_string_equal(text_at(o, "reason"), "CHG-1182");
}

/* Two ids whose 32-bit names are the same are two decisions. */
static void names_collide(void **state)
{
	enum { SLOTS = 1 << 19 };
	uint32_t *seen = calloc(SLOTS, sizeof(*seen));
	char a[24] = "", b[24] = "";

	(void)state;
	begin(PAIR_RULE);
	assert_non_null(seen);
	for (uint32_t i = 1; i < SLOTS && !b[0]; i++) {	/* a birthday pair is due after some 80,000 */
		uint32_t uid, at;

		snprintf(a, sizeof(a), "id-%u", i);
		uid = hash_uid(a, strlen(a));
		for (at = uid % SLOTS; seen[at]; at = (at + 1) % SLOTS) {
			snprintf(b, sizeof(b), "id-%u", seen[at]);
			if (hash_uid(b, strlen(b)) == uid)
				break;
			b[0] = '\0';
		}
		seen[at] = i;
	}
	assert_true(b[0] && strcmp(a, b) != 0);
	struct redis_decision d = entry(a, "5-1"), e = entry(b, "5-2");

	assert_int_equal(report_decision(w.report, &d, "applied", ""), 0);
	assert_int_equal(report_decided(w.report, &e), DECIDED_NEW);
	free(seen);
}

int main(void)
{
#define CASE(fn) cmocka_unit_test_teardown(fn, end)
	const struct CMUnitTest tests[] = {
		CASE(each_once), CASE(held_back), CASE(told_later), CASE(incidents), CASE(unseen_ends), CASE(former_heads),
		CASE(decisions), CASE(names_collide),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
