/* What requests of the control socket change, and what of that is on the log. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "unit/control_ask.h"

static void test_unblock(void **state)
{
	json_t *o, *a;
	uint64_t passed = 0;

	(void)state;
	must_refuse("{\"verb\":\"unblock\",\"host\":\"file01\",\"dest\":\"203.0.113.9\",\"reason\":\"r\"}", "nothing is blocked");
	world_send(&w, "10.20.0.15", "203.0.113.9", 21000000, 443);
	must_refuse("{\"verb\":\"unblock\",\"host\":\"file01\"}", "reason");
	must_refuse("{\"verb\":\"unblock\",\"host\":\"file01\",\"reason\":\"\"}", "reason");
	must_refuse("{\"verb\":\"unblock\",\"host\":\"file01\",\"reason\":\"r\",\"budget_bytes\":0}", "budget_bytes");
	must_refuse("{\"verb\":\"unblock\",\"host\":\"file01\",\"reason\":\"r\",\"for_s\":-1}", "for_s");
	must_refuse("{\"verb\":\"unblock\",\"host\":\"file01\",\"reason\":\"r\",\"for_s\":1.5}", "for_s");
	/* A named host by its name, both its addresses: one account all the same. */
	o = ask("{\"verb\":\"unblock\",\"host\":\"file01\",\"dest\":\"203.0.113.9\",\"budget_bytes\":5000000,\"for_s\":600,"
		"\"reason\":\"INC-1\"}");
	assert_true(ok(o));
	assert_int_equal(number_of(o, "count"), 1);
	assert_int_equal(number_of(o, "accounts"), 1);
	assert_in_range(seconds_until(o, "until"), 580, 600);
	json_decref(o);
	o = ask("{\"verb\":\"why\",\"host\":\"file01\",\"dest\":\"203.0.113.9\"}");
	a = account_of(o, "accounts", "pair-limit");
	assert_true(json_is_false(json_object_get(a, "blocked")));
	assert_int_equal(number_of(json_object_get(a, "grant"), "left_bytes"), 5000000);
	json_decref(o);
	for (unsigned i = 0; i < 200; i++)
		passed += world_packet(&w, "10.20.0.15", "203.0.113.9", 50000, 443) ? 50000 : 0;
	assert_int_equal(passed, 5000000);
}

/* What is lifted without credit has no end; of what kind it was is told. */
static void test_unblock_kinds(void **state)
{
	static const char unblock[] = "{\"verb\":\"unblock\",\"host\":\"10.20.0.16\",\"budget_bytes\":5000,\"reason\":\"r\"}";
	static const struct {
		bool sends, by_hand;
		unsigned kept;
	} cases[] = { { false, true, 0 }, { false, false, 3 }, { true, false, 0 }, { true, true, 2 } };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		json_t *o;

		if (cases[i].sends)
			world_send(&w, "10.20.0.16", "203.0.113.9", 21000000, 443);
		if (cases[i].by_hand)
			must_do("{\"verb\":\"block\",\"host\":\"10.20.0.16\",\"for_s\":60,\"reason\":\"r\"}");
		w.kept = cases[i].kept;
		o = ask(unblock);
		w.kept = 0;
		assert_true(ok(o));
		assert_int_equal(number_of(o, "count"), cases[i].sends + cases[i].by_hand + cases[i].kept);
		assert_int_equal(number_of(o, "accounts"), cases[i].sends);
		assert_int_equal(number_of(o, "by_hand"), cases[i].by_hand);
		assert_int_equal(number_of(o, "kept"), cases[i].kept);
		assert_int_equal(json_is_null(json_object_get(o, "until")), !cases[i].sends);
		assert_int_equal(json_object_get(o, "budget_bytes") != NULL, cases[i].sends);
		json_decref(o);
		world_review(&w);
	}
}

/* Blocked, as if it had crossed its limit. */
static void block_others(void)
{
	for (uint32_t i = 0; i < w.area.h->accounts; i++) {
		if (!table_is_full(&w.area.accounts, i) || memcmp(w.area.account[i].key.in, pair_others.b, 16) != 0)
			continue;
		w.area.account_cold[i].blocked_until_ns = mono_add_s(clock_mono(), 600).ns;
		atomic_fetch_or_explicit(&w.area.account[i].state, ACCOUNT_BLOCKED, memory_order_relaxed);
	}
}

static void test_unblock_others(void **state)
{
	json_t *o;

	(void)state;
	judge_policy_changed(&w.judge, clock_mono());
	must_refuse("{\"verb\":\"unblock\",\"host\":\"others\",\"reason\":\"r\"}", "nothing is blocked");
	block_others();
	must_refuse("{\"verb\":\"unblock\",\"host\":\"unlisted\",\"reason\":\"r\"}", "nothing is blocked");
	o = ask("{\"verb\":\"unblock\",\"host\":\"others\",\"dest\":\"203.0.113.9\",\"reason\":\"r\"}");
	assert_true(ok(o));
	assert_int_equal(number_of(o, "count"), 2);	/* of hosts, and of pairs */
	json_decref(o);
	block_others();
	must_do("{\"verb\":\"unblock\",\"host\":\"others\",\"reason\":\"r\"}");
	must_refuse("{\"verb\":\"block\",\"host\":\"others\",\"for_s\":60,\"reason\":\"r\"}",
		    "others are hosts that found no account of their own");
	must_refuse("{\"verb\":\"allow\",\"host\":\"others\",\"dest\":\"203.0.113.9\",\"budget_bytes\":5,\"for_s\":60,\"reason\":\"r\"}",
		    "others are hosts that found no account of their own");
}

static void test_block_and_allow(void **state)
{
	json_t *o;

	(void)state;
	must_refuse("{\"verb\":\"block\",\"host\":\"gateway\",\"for_s\":60,\"reason\":\"r\"}", "gateway is this machine");
	must_refuse("{\"verb\":\"block\",\"host\":\"unlisted\",\"for_s\":60,\"reason\":\"r\"}", "every sender that is not inside");
	must_refuse("{\"verb\":\"allow\",\"host\":\"file01\",\"dest\":\"any\",\"budget_bytes\":5,\"for_s\":60,"
		    "\"reason\":\"r\"}", "one address");
	must_refuse("{\"verb\":\"allow\",\"host\":\"multi\",\"dest\":\"203.0.113.9\",\"budget_bytes\":5,\"for_s\":60,"
		    "\"reason\":\"r\"}", "one address");
	must_refuse("{\"verb\":\"block\",\"host\":\"file01\",\"dest\":\"wire\",\"for_s\":60,\"reason\":\"r\"}",
		    "an exit without hosts");
	must_refuse("{\"verb\":\"allow\",\"host\":\"10.20.0.16\",\"budget_bytes\":5,\"for_s\":60,\"reason\":\"r\"}", "dest");
	assert_true(world_packet(&w, "10.20.0.16", "203.0.113.9", 1000, 443));
	/* Both addresses of the host; the reason is shown as it was given, whatever it holds. */
	must_do("{\"verb\":\"block\",\"host\":\"file01\",\"for_s\":60,\"reason\":\"a\\u001b[31m\\nb\"}");
	assert_int_equal(w.commands, 2);
	must_do("{\"verb\":\"block\",\"host\":\"10.20.0.16\",\"dest\":\"203.0.113.9\",\"for_s\":60,\"reason\":\"r\"}");
	assert_false(world_packet(&w, "10.20.0.15", "203.0.113.9", 1000, 443));
	assert_false(world_packet(&w, "fd00:20::15", "2001:db8::1", 1000, 443));
	assert_false(world_packet(&w, "10.20.0.16", "203.0.113.9", 1000, 443));
	assert_true(world_packet(&w, "10.20.0.16", "203.0.113.10", 1000, 443));
	must_do("{\"verb\":\"allow\",\"host\":\"10.20.0.17\",\"dest\":\"203.0.113.9\",\"budget_bytes\":5000,\"for_s\":60,"
		"\"reason\":\"r\"}");
	assert_true(world_packet(&w, "10.20.0.17", "203.0.113.9", 2000, 443));
	o = ask("{\"verb\":\"blocks\"}");
	assert_int_equal(json_array_size(json_object_get(o, "by_hand")), 3);
	assert_string_equal(text_of(json_array_get(json_object_get(o, "by_hand"), 0), "reason"), "a\\x1b[31m\\x0ab");
	assert_string_equal(text_of(json_array_get(json_object_get(o, "by_hand"), 0), "author"), "uid 1000");
	assert_int_equal(number_of(json_array_get(json_object_get(o, "allowed"), 0), "left_bytes"), 3000);
	json_decref(o);
	o = ask("{\"verb\":\"why\",\"host\":\"10.20.0.17\"}");
	assert_int_equal(json_array_size(json_object_get(o, "decisions")), 1);
	json_decref(o);
	/* One address of a named host is that address alone. */
	w.commands = 0;
	must_do("{\"verb\":\"allow\",\"host\":\"10.20.0.15\",\"dest\":\"203.0.113.77\",\"budget_bytes\":5000,\"for_s\":60,"
		"\"reason\":\"r\"}");
	assert_int_equal(w.commands, 1);
	/* One address a family: of the destination's there is one. */
	must_do("{\"verb\":\"allow\",\"host\":\"file01\",\"dest\":\"203.0.113.78\",\"budget_bytes\":5000,\"for_s\":60,"
		"\"reason\":\"r\"}");
	must_do("{\"verb\":\"allow\",\"host\":\"file01\",\"dest\":\"2001:db8:78::/64\",\"budget_bytes\":5000,\"for_s\":60,"
		"\"reason\":\"r\"}");
	assert_int_equal(w.commands, 3);
	/* A destination of the other family only: nothing could ever match. */
	must_refuse("{\"verb\":\"block\",\"host\":\"10.20.0.16\",\"dest\":\"2001:db8::1\",\"for_s\":60,\"reason\":\"r\"}",
		    "no address family");
	w.engine_error = -ENOBUFS;
	must_refuse("{\"verb\":\"block\",\"host\":\"10.20.0.18\",\"for_s\":60,\"reason\":\"r\"}", "engine cannot be asked");
	must_refuse("{\"verb\":\"debug check\"}", "engine does not answer");
}

static void test_not_inside(void **state)
{
	(void)state;
	must_refuse("{\"verb\":\"block\",\"host\":\"203.0.113.9\",\"for_s\":60,\"reason\":\"r\"}",
		    "203.0.113.9/32 is not inside. To block it as a destination: egressctl block 10.0.0.0/8 203.0.113.9/32");
	/* The two in the wrong order. */
	must_refuse("{\"verb\":\"block\",\"host\":\"203.0.113.9\",\"dest\":\"10.20.0.16\",\"for_s\":60,\"reason\":\"r\"}",
		    "To block it as a destination: egressctl block 10.20.0.16/32 203.0.113.9/32");
	must_refuse("{\"verb\":\"block\",\"host\":\"172.31.0.1\",\"dest\":\"203.0.113.9\",\"for_s\":60,\"reason\":\"r\"}",
		    "172.31.0.1/32 is not inside; senders that are not inside are one, judged by rules `from: unlisted` alone: write such a "
		    "rule, or add it to the policy's `inside`");
	must_refuse("{\"verb\":\"allow\",\"host\":\"172.31.0.1\",\"dest\":\"203.0.113.9\",\"budget_bytes\":5,\"for_s\":60,"
		    "\"reason\":\"r\"}", "judged by rules `from: unlisted` alone");
}

/* What `text` has on the log; static. */
static const char *log_of(const char *text)
{
	static char line[4096];
	int saved = dup(STDERR_FILENO), pipes[2];
	ssize_t n;

	assert_true(saved >= 0 && pipe(pipes) == 0);
	assert_true(dup2(pipes[1], STDERR_FILENO) >= 0);
	json_decref(ask(text));
	assert_true(dup2(saved, STDERR_FILENO) >= 0);
	close(saved);
	close(pipes[1]);
	n = read(pipes[0], line, sizeof(line) - 1);
	close(pipes[0]);
	line[n > 0 ? n : 0] = '\0';
	return line;
}

/* The command lies in the engine's socket, and is carried out when it wakes: that is no refusal. */
static void test_unknown_outcome(void **state)
{
	static const char *const changes[] = {
		"{\"verb\":\"block\",\"host\":\"10.20.0.18\",\"for_s\":60,\"reason\":\"r\"}",
		"{\"verb\":\"observe\",\"for_s\":600,\"reason\":\"r\"}",
		"{\"verb\":\"apply\",\"policy\":\"version: 1\"}",
	};

	(void)state;
	w.engine_error = -ETIMEDOUT;
	for (size_t i = 0; i < ARRAY_SIZE(changes); i++) {
		json_t *o = ask(changes[i]);
		const char *line;

		assert_string_equal(text_of(o, "outcome"), "unknown");
		assert_ptr_equal(strstr(text_of(o, "error"), "outcome unknown: the engine did not answer within 5 s"),
				 text_of(o, "error"));
		json_decref(o);
		line = log_of(changes[i]);
		assert_non_null(strstr(line, ": outcome unknown: "));
		assert_null(strstr(line, "refused"));
	}
}

/* A refused change is on the log as it was asked for, not with defaults. */
static void test_log_says_what_was_asked(void **state)
{
	(void)state;
	assert_non_null(strstr(log_of("{\"verb\":\"unblock\",\"host\":\"file01\",\"budget_bytes\":0,\"for_s\":600,"
				      "\"reason\":\"r\"}"),
			       "unblock file01 to anywhere, budget 0 B, for 10m, reason: r: refused: budget_bytes"));
	assert_non_null(strstr(log_of("{\"verb\":\"block\",\"host\":\"file01\",\"for_s\":0,\"reason\":\"r\"}"),
			       "block file01 to anywhere, for 0s, reason: r: refused: for_s"));
	assert_non_null(strstr(log_of("{\"verb\":\"unblock\",\"host\":\"file01\",\"reason\":\"r\"}"),
			       "budget default, for 1h, reason: r: refused: nothing is blocked"));
}

/* Errors of a policy file are on the log when it was read. */
static void test_errors_once(void **state)
{
	const char *line;

	(void)state;
	must_do("{\"verb\":\"reload\"}");
	line = log_of("{\"verb\":\"reload\",\"reason\":\"r\"}");
	assert_non_null(strstr(line, "uid 1000: reload, reason: r: refused"));
	assert_null(strstr(line, "unknown key"));
	w.engine_error = -EINVAL;
	assert_null(strstr(log_of("{\"verb\":\"apply\",\"policy\":\"version: 1\"}"), "refused:"));
	w.engine_error = -EBUSY;
	assert_non_null(strstr(log_of("{\"verb\":\"apply\",\"policy\":\"version: 1\"}"), "refused: one waits"));
}

static void test_policy_verbs(void **state)
{
	json_t *o;

	(void)state;
	must_do("{\"verb\":\"debug check\"}");
	must_do("{\"verb\":\"reload\"}");
	must_refuse("{\"verb\":\"reload\"}", "limits: unknown key");
	must_refuse("{\"verb\":\"confirm\"}", "no policy waits");
	o = ask("{\"verb\":\"apply\",\"policy\":\"version: 1\\n# \\u00e9\\n\",\"confirm_s\":600}");
	assert_true(ok(o));
	assert_string_equal(text_of(o, "path"), "/etc/egressd/policy.yaml");
	assert_in_range(seconds_until(o, "goes_back_at"), 580, 600);
	assert_string_equal(w.applied, "version: 1\n# \xc3\xa9\n");
	json_decref(o);
	o = ask("{\"verb\":\"confirm\"}");
	assert_string_equal(text_of(o, "policy"), "version: 1\n# \xc3\xa9\n");	/* to the byte: it is installed */
	json_decref(o);
	must_do("{\"verb\":\"observe\",\"for_s\":3600,\"reason\":\"INC-2\"}");
	assert_int_equal(w.observe_s, 3600);
	o = ask("{\"verb\":\"status\"}");
	assert_string_equal(text_of(o, "mode"), "observe");
	assert_int_equal(number_of(o, "enforcing"), 0);
	json_decref(o);
	must_do("{\"verb\":\"observe\",\"for_s\":0,\"reason\":\"INC-2\"}");
	assert_int_equal(w.observe_s, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_unblock, setup, teardown),
		cmocka_unit_test_setup_teardown(test_unblock_kinds, setup, teardown),
		cmocka_unit_test_setup_teardown(test_unblock_others, setup, teardown),
		cmocka_unit_test_setup_teardown(test_block_and_allow, setup, teardown),
		cmocka_unit_test_setup_teardown(test_not_inside, setup, teardown),
		cmocka_unit_test_setup_teardown(test_unknown_outcome, setup, teardown),
		cmocka_unit_test_setup_teardown(test_log_says_what_was_asked, setup, teardown),
		cmocka_unit_test_setup_teardown(test_errors_once, setup, teardown),
		cmocka_unit_test_setup_teardown(test_policy_verbs, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
