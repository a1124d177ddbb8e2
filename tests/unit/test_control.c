/* Requests of the control socket: what is understood and refused, what is shown, and who may. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <grp.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "control_internal.h"
#include "unit/control_ask.h"

#define NOBODY ((gid_t)-1)

static gid_t readers = NOBODY;	/* group egressd */
static unsigned chowns;

int getgrnam_r(const char *name, struct group *g, char *buf, size_t size, struct group **ret)
{
	(void)buf;
	(void)size;
	g->gr_gid = readers;
	*ret = readers != NOBODY && strcmp(name, "egressd") == 0 ? g : NULL;
	return 0;
}

int chown(const char *path, uid_t user, gid_t group)
{
	(void)path;
	(void)user;
	(void)group;
	chowns++;
	errno = EPERM;
	return -1;
}

static int listening = -1, close_at;	/* closed by that pause */
static int pauses;

int usleep(useconds_t us)
{
	(void)us;
	if (++pauses == close_at)
		close(listening);
	return 0;
}

/* ---- requests ---- */

static void test_malformed(void **state)
{
	static const char *const bad[] = {
		"", "x", "[]", "{}", "{\"verb\":1}", "{\"verb\":\"nonsense\"}", "{\"verb\":\"status\"", "null", "\"status\"",
		"{\"verb\":\"status\",\"verb\":\"status\"}", "{\"verb\":\"status\",\"host\":\"a\"}", "{\"verb\":\"status\"}{}",
		"{\"verb\":\"stat\\u0000us\"}", "{\"verb\":\"\xff\"}",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		json_t *o = ask(bad[i]);

		assert_false(ok(o));
		assert_true(*text_of(o, "error"));
		assert_int_equal(w.ctx.malformed, i + 1);
		json_decref(o);
	}
	assert_int_equal(w.commands, 0);
}

static void test_bounds(void **state)
{
	char *big = malloc(CONTROL_APPLY + 2);
	json_t *o;
	int n;

	(void)state;
	memset(big, '[', 100000);
	o = ask_as(big, 100000, 1);
	assert_non_null(strstr(text_of(o, "error"), "nested"));
	json_decref(o);
	memset(big, ' ', CONTROL_APPLY + 1);
	o = ask_as(big, CONTROL_APPLY + 1, 1);
	assert_non_null(strstr(text_of(o, "error"), "longer"));
	json_decref(o);
	/* Only a policy may be that long. */
	n = snprintf(big, 64, "{\"verb\":\"status\"}");
	big[n] = ' ';
	o = ask_as(big, CONTROL_REQUEST + 1, 1);
	assert_non_null(strstr(text_of(o, "error"), "longer"));
	json_decref(o);
	free(big);
	/* Brackets in a text are no levels. */
	must_refuse("{\"verb\":\"why\",\"host\":\"[[[[[[[[[[[[[[[[[[[[[[[[\\\"[[[[\"}", "neither an address");
}

static void test_only_readers_read(void **state)
{
	static const char *const changes[] = {
		"{\"verb\":\"block\",\"host\":\"10.20.0.9\",\"for_s\":60,\"reason\":\"r\"}",
		"{\"verb\":\"unblock\",\"host\":\"file01\",\"reason\":\"r\"}",
		"{\"verb\":\"allow\",\"host\":\"10.20.0.9\",\"dest\":\"203.0.113.9\",\"budget_bytes\":1,\"for_s\":60,\"reason\":\"r\"}",
		"{\"verb\":\"observe\",\"for_s\":60,\"reason\":\"r\"}", "{\"verb\":\"reload\"}",
		"{\"verb\":\"apply\",\"policy\":\"version: 1\"}", "{\"verb\":\"confirm\"}",
	};
	static const char status[] = "{\"verb\":\"status\"}";
	json_t *o;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(changes); i++) {
		o = ask_as(changes[i], strlen(changes[i]), 0);
		assert_false(ok(o));
		assert_non_null(strstr(text_of(o, "error"), "egressd-admin"));
		json_decref(o);
	}
	assert_int_equal(w.commands + w.reloads + w.applies, 0);
	o = ask_as(status, strlen(status), 0);
	assert_true(ok(o));
	json_decref(o);
}

/* ---- what is shown ---- */

static void test_status(void **state)
{
	json_t *o, *missing;

	(void)state;
	world_send(&w, "10.20.0.15", "203.0.113.9", 21000000, 443);
	world_review(&w);
	o = ask("{\"verb\":\"status\"}");
	assert_int_equal(number_of(o, "unlisted_bytes"), 0);
	json_decref(o);
	world_send(&w, "172.31.0.1", "203.0.113.9", 3000000, 443);
	world_send(&w, "172.31.0.2", "203.0.113.10", 100000, 443);
	atomic_store_explicit(&w.area.h->egress_bytes, 1000000, memory_order_relaxed);
	atomic_store_explicit(&w.area.h->unseen_bytes, 100, memory_order_relaxed);
	o = ask("{\"verb\":\"status\"}");
	assert_true(ok(o));
	assert_string_equal(text_of(o, "gateway"), "gw1");
	assert_string_equal(text_of(o, "mode"), "enforce");
	assert_int_equal(number_of(o, "rules"), 3);
	assert_int_equal(number_of(o, "enforcing"), 2);
	assert_int_equal(number_of(o, "contracts"), 1);
	assert_int_equal(number_of(o, "blocks"), 1);
	assert_int_equal(number_of(json_object_get(o, "policy"), "version"), 41);
	assert_true(json_real_value(json_object_get(o, "seen_percent")) < 99.995);
	assert_true(json_real_value(json_object_get(o, "seen_percent")) > 99.985);
	assert_int_equal(number_of(o, "unlisted_bytes"), 3100000);
	assert_int_equal(number_of(json_object_get(o, "pairs"), "live"), 3);
	assert_int_equal(number_of(json_object_get(o, "counters"), "bytes"), 23100000);
	assert_int_equal(json_object_size(json_object_get(o, "counters")), AC_COUNT - 1);
	assert_int_equal(number_of(o, "queue_dropped"), 0);
	missing = json_object_get(o, "devices_missing");
	assert_int_equal(json_array_size(missing), 2);
	assert_string_equal(json_string_value(json_array_get(missing, 0)), "maint");
	assert_string_equal(json_string_value(json_array_get(missing, 1)), "wire0");
	json_decref(o);
	atomic_store_explicit(&w.area.h->queue_dropped, AREA_UNKNOWN, memory_order_relaxed);
	o = ask("{\"verb\":\"status\"}");
	assert_true(json_is_null(json_object_get(o, "queue_dropped")));	/* not 0 */
	json_decref(o);
	w.ctx.policy = NULL;
	o = ask("{\"verb\":\"status\"}");
	assert_true(ok(o));
	assert_string_equal(text_of(o, "mode"), "no policy");
	json_decref(o);
	must_do("{\"verb\":\"why\",\"host\":\"10.20.0.15\"}");
	must_do("{\"verb\":\"findings\"}");
	must_do("{\"verb\":\"blocks\"}");
}

/* An engine that hangs, blocking switched off, a policy file with errors: said where people look for blocks. */
static void test_not_as_it_seems(void **state)
{
	json_t *o, *p;

	(void)state;
	o = ask("{\"verb\":\"status\"}");
	assert_int_equal(number_of(json_object_get(o, "engine"), "silent_s"), 0);	/* has not begun */
	assert_true(json_is_null(json_object_get(json_object_get(o, "policy"), "errors_since")));
	json_decref(o);
	atomic_store_explicit(&w.area.h->worker[0].heartbeat_ns, clock_mono().ns - 12 * NS_PER_S, memory_order_relaxed);
	must_do("{\"verb\":\"block\",\"host\":\"10.20.0.16\",\"for_s\":60,\"reason\":\"r\"}");
	must_do("{\"verb\":\"observe\",\"for_s\":600,\"reason\":\"r\"}");
	w.config.failure = FAILURE_CLOSED;
	w.ctx.policy_bad_since_us = clock_wall_us() - 60000000;
	snprintf(w.ctx.policy_bad, sizeof(w.ctx.policy_bad), "policy.yaml:3:1: error: rulez: unknown key");
	o = ask("{\"verb\":\"status\"}");
	p = json_object_get(o, "policy");
	assert_in_range(number_of(json_object_get(o, "engine"), "silent_s"), 12, 30);
	assert_in_range(-seconds_until(p, "errors_since"), 60, 80);
	assert_non_null(strstr(text_of(p, "error"), "rulez"));
	json_decref(o);
	o = ask("{\"verb\":\"blocks\"}");
	assert_in_range(number_of(o, "engine_silent_s"), 12, 30);
	assert_string_equal(text_of(o, "failure"), "closed");
	assert_in_range(seconds_until(o, "observe_until"), 580, 600);
	assert_int_equal(json_array_size(json_object_get(o, "by_hand")), 1);
	json_decref(o);
}

static void test_why(void **state)
{
	json_t *o, *a, *l;

	(void)state;
	world_send(&w, "10.20.0.15", "203.0.113.9", 21000000, 443);
	world_send(&w, "10.20.0.15", "203.0.113.10", 1000000, 443);
	world_send(&w, "fd00:20::15", "2001:db8::1", 500000, 443);
	world_send(&w, "10.20.0.16", "203.0.113.9", 700000, 443);
	world_send(&w, "10.20.0.15", "198.51.100.7", 3000000, 873);
	/* By either address, or the name, it is the same host. */
	for (unsigned i = 0; i < 3; i++) {
		static const char *const by[] = { "file01", "10.20.0.15", "fd00:20::15" };
		char text[100];

		snprintf(text, sizeof(text), "{\"verb\":\"why\",\"host\":\"%s\"}", by[i]);
		o = ask(text);
		assert_true(ok(o));
		assert_string_equal(text_of(o, "host"), "file01");
		assert_int_equal(json_array_size(json_object_get(o, "pairs")), 4);
		assert_int_equal(number_of(json_object_get(o, "total"), "bytes"), 24500000);
		assert_int_equal(number_of(json_object_get(o, "total"), "refused_bytes"), 1000000);
		json_decref(o);
	}
	o = ask("{\"verb\":\"why\",\"host\":\"file01\",\"dest\":\"203.0.113.9\"}");
	assert_int_equal(json_array_size(json_object_get(o, "pairs")), 1);
	a = json_array_get(json_object_get(o, "accounts"), 0);	/* blocked ones first */
	assert_string_equal(text_of(a, "rule"), "pair-limit");
	assert_string_equal(text_of(a, "subject"), "file01");
	assert_string_equal(text_of(a, "dest"), "203.0.113.9");
	assert_true(json_is_true(json_object_get(a, "blocked")));
	assert_true(json_is_null(json_object_get(a, "until_window_s")) ||
		    json_integer_value(json_object_get(a, "until_window_s")) == 3600);
	assert_int_equal(number_of(a, "refused_bytes"), 1000000);
	assert_non_null(strstr(text_of(a, "how_to_allow"), "egressctl unblock file01 203.0.113.9 --budget 20MB"));
	l = json_array_get(json_object_get(a, "limits"), 0);
	assert_int_equal(number_of(l, "window_s"), 3600);
	assert_int_equal(number_of(l, "sum_bytes"), 20000000);
	assert_int_equal(number_of(l, "limit_bytes"), 20000000);
	a = account_of(o, "accounts", "host-limit");
	assert_non_null(a);
	assert_int_equal(number_of(json_array_get(json_object_get(a, "limits"), 0), "sum_bytes"), 21500000);
	assert_null(account_of(o, "accounts", "backup"));	/* not to that destination */
	json_decref(o);
	o = ask("{\"verb\":\"why\",\"host\":\"file01\",\"dest\":\"198.51.100.7\"}");
	a = account_of(o, "accounts", "backup");
	assert_non_null(a);
	assert_string_equal(text_of(a, "kind"), "contract");
	json_decref(o);
	o = ask("{\"verb\":\"why\",\"host\":\"file01\",\"dest\":\"2001:db8::1\"}");
	assert_int_equal(number_of(json_object_get(o, "total"), "bytes"), 500000);
	json_decref(o);
	/* Rules about the exit alone are not about a network outside, and the other way round. */
	world_send(&w, "10.20.0.15", "10.250.0.7", 3000000, 22);
	o = ask("{\"verb\":\"why\",\"host\":\"file01\",\"dest\":\"203.0.113.0/24\"}");
	assert_non_null(account_of(o, "accounts", "host-limit"));
	assert_null(account_of(o, "accounts", "group-limit"));
	assert_null(account_of(o, "accounts", "backup"));
	json_decref(o);
	o = ask("{\"verb\":\"why\",\"host\":\"file01\",\"dest\":\"vpn\"}");
	assert_int_equal(number_of(json_object_get(o, "total"), "bytes"), 3000000);
	assert_non_null(account_of(o, "accounts", "group-limit"));
	assert_null(account_of(o, "accounts", "backup"));
	json_decref(o);
	o = ask("{\"verb\":\"why\",\"host\":\"file01\",\"dest\":\"wire\"}");	/* no hosts: by its device alone */
	assert_int_equal(number_of(json_object_get(o, "total"), "pairs"), 0);
	json_decref(o);
	must_refuse("{\"verb\":\"why\",\"host\":\"nobody\"}", "neither an address nor a host");
	must_refuse("{\"verb\":\"why\",\"host\":\"10.0.0.1/8\"}", "beyond the length");
	must_refuse("{\"verb\":\"why\"}", "host");
}

/* Names that are none of a host's, and what would be one. */
static void test_why_names(void **state)
{
	(void)state;
	world_send(&w, "10.20.0.15", "203.0.113.9", 500000, 443);
	world_send(&w, "fd00:20::15", "2001:db8::1", 500000, 443);
	world_send(&w, "10.20.0.16", "203.0.113.9", 700000, 443);
	must_refuse("{\"verb\":\"why\",\"host\":\"fil01\"}", "did you mean 'file01'?");
	must_refuse("{\"verb\":\"why\",\"host\":\"file01\",\"dest\":\"vpm\"}", "did you mean 'vpn'?");
	must_refuse("{\"verb\":\"why\",\"host\":\"servers\"}", "name one of its members");
	must_refuse("{\"verb\":\"why\",\"host\":\"vpn\"}", "is an exit: name it as the destination");
	must_refuse("{\"verb\":\"why\",\"host\":\"203.0.113.9\"}",
		    "203.0.113.9 is not inside; most was sent to it by 10.20.0.16, file01: ask egressctl why HOST 203.0.113.9");
	must_refuse("{\"verb\":\"why\",\"host\":\"2001:db8::/32\"}", "by file01: ask egressctl why HOST 2001:db8::/32");
	must_refuse("{\"verb\":\"why\",\"host\":\"192.0.2.1\"}", "nobody is known to have sent");
	must_do("{\"verb\":\"why\",\"host\":\"10.20.0.99\"}");	/* inside, and quiet */
	must_do("{\"verb\":\"why\",\"host\":\"10.250.0.1\"}");
	must_do("{\"verb\":\"why\",\"host\":\"unlisted\"}");
	must_refuse("{\"verb\":\"why\",\"host\":\"gatewy\"}", "did you mean 'gateway'?");
	must_refuse("{\"verb\":\"why\",\"host\":\"unlistd\"}", "did you mean 'unlisted'?");
	must_refuse("{\"verb\":\"why\",\"host\":\"other\"}", "did you mean 'others'?");
}

/* The account of hosts or pairs that found none: of rules that are per host or pair, whatever their destinations, and no other's. */
static void test_why_others(void **state)
{
	json_t *o, *a;

	(void)state;
	judge_policy_changed(&w.judge, clock_mono());
	o = ask("{\"verb\":\"why\",\"host\":\"others\"}");
	assert_int_equal(number_of(o, "accounts_total"), 2);
	a = account_of(o, "accounts", "host-limit");
	assert_non_null(a);
	assert_string_equal(text_of(a, "subject"), "others");
	a = account_of(o, "accounts", "pair-limit");
	assert_non_null(a);
	assert_string_equal(text_of(a, "subject"), "others");
	assert_string_equal(text_of(a, "dest"), "*");
	assert_int_equal(json_array_size(json_object_get(o, "addresses")), 0);
	json_decref(o);
	o = ask("{\"verb\":\"why\",\"host\":\"others\",\"dest\":\"203.0.113.9\"}");
	assert_non_null(account_of(o, "accounts", "host-limit"));
	assert_non_null(account_of(o, "accounts", "pair-limit"));
	json_decref(o);
	o = ask("{\"verb\":\"why\",\"host\":\"others\",\"dest\":\"10.20.0.99\"}");	/* inside: by a device that leads out */
	assert_non_null(account_of(o, "accounts", "host-limit"));
	json_decref(o);
}

/* The account of a host's pairs that found none: of any destination that its rule has, and what it refused of them all is of none. */
static void test_why_other_destinations(void **state)
{
	json_t *o, *a;

	(void)state;
	for (unsigned i = 0; i < WORLD_PAIRS * 2; i++) {
		char dst[32];

		snprintf(dst, sizeof(dst), "100.64.%u.%u", i / 250, i % 250 + 1);
		world_send(&w, "10.20.0.17", dst, 100, 443);
	}
	world_send(&w, "10.20.0.15", "203.0.113.9", 30000000, 443);
	world_send(&w, "fd00:20::15", "2001:db8::1", 1000000, 443);
	o = ask("{\"verb\":\"why\",\"host\":\"file01\",\"dest\":\"2001:db8::1\"}");
	a = account_of(o, "accounts", "pair-limit");
	assert_non_null(a);
	assert_string_equal(text_of(a, "subject"), "file01");
	assert_string_equal(text_of(a, "dest"), "*");
	assert_true(json_is_true(json_object_get(a, "blocked")));
	assert_int_equal(number_of(a, "refused_bytes"), 11000000);
	assert_string_equal(text_of(a, "how_to_allow"), "egressctl unblock file01 --budget 20MB --for 1h --reason '...'");
	assert_int_equal(number_of(json_object_get(o, "total"), "refused_bytes"), 0);	/* they have no record either */
	json_decref(o);
	o = ask("{\"verb\":\"why\",\"host\":\"file01\"}");
	assert_int_equal(number_of(json_object_get(o, "total"), "refused_bytes"), 11000000);
	json_decref(o);
	o = ask("{\"verb\":\"why\",\"host\":\"10.20.0.16\"}");
	assert_null(account_of(o, "accounts", "pair-limit"));
	json_decref(o);
	o = ask("{\"verb\":\"findings\"}");
	assert_true(json_array_size(json_object_get(o, "findings")) > 0);
	json_decref(o);
}

/* Beyond its limit and open, but not blocked: said why. */
static void test_why_protected(void **state)
{
	json_t *o, *a;

	(void)state;
	world_send(&w, "10.20.0.15", "203.0.113.53", 21000000, 443);
	world_send(&w, "10.20.0.15", "203.0.113.9", 21000000, 443);
	o = ask("{\"verb\":\"why\",\"host\":\"file01\",\"dest\":\"203.0.113.53\"}");
	a = account_of(o, "accounts", "pair-limit");
	assert_true(json_is_true(json_object_get(a, "open")));
	assert_true(json_is_false(json_object_get(a, "blocked")));
	assert_true(json_is_true(json_object_get(a, "protected")));
	json_decref(o);
	o = ask("{\"verb\":\"why\",\"host\":\"file01\",\"dest\":\"203.0.113.9\"}");
	assert_true(json_is_false(json_object_get(account_of(o, "accounts", "pair-limit"), "protected")));
	json_decref(o);
}

/* What the kernel refused of a blocked host is in its account alone; the total is not less. */
static void test_why_refused(void **state)
{
	json_t *o;

	(void)state;
	world_send(&w, "10.20.0.15", "203.0.113.9", 21000000, 443);
	for (uint32_t i = 0; i < w.area.h->accounts; i++)
		if (w.area.account[i].key.kind == SUBJECT_HOST)
			atomic_fetch_add_explicit(&w.area.account[i].refused, 1500000, memory_order_relaxed);
	o = ask("{\"verb\":\"why\",\"host\":\"file01\"}");
	assert_int_equal(number_of(json_object_get(o, "total"), "refused_bytes"), 1500000);
	json_decref(o);
	must_do("{\"verb\":\"block\",\"host\":\"10.20.0.17\",\"for_s\":60,\"reason\":\"r\"}");
	for (uint32_t i = 0; i < w.area.h->accounts; i++)
		if (w.area.account[i].key.kind == SUBJECT_TOTAL)
			atomic_fetch_add_explicit(&w.area.account[i].refused, 700000, memory_order_relaxed);
	o = ask("{\"verb\":\"why\",\"host\":\"10.20.0.17\"}");
	assert_int_equal(number_of(json_object_get(o, "total"), "refused_bytes"), 700000);
	json_decref(o);
	o = ask("{\"verb\":\"why\",\"host\":\"file01\",\"dest\":\"203.0.113.9\"}");
	assert_int_equal(number_of(json_object_get(o, "total"), "refused_bytes"), 1000000);
	json_decref(o);
}

static void keep(unsigned i, const char *src, const char *dst, uint64_t left_s)
{
	struct area_kept *k = &w.area.h->kept[i];

	memset(k, 0, sizeof(*k));
	BUG_ON(addr_parse(src, &k->src) < 0 || (*dst && prefix_parse(dst, &k->dst) < 0));
	k->until_ns = left_s ? mono_add_s(clock_mono(), left_s).ns : 0;
	k->refused = 1000 * (i + 1);
}

static size_t kept_of(const char *request)
{
	json_t *o = ask(request);
	size_t n = json_array_size(json_object_get(o, "kept"));

	assert_true(ok(o));
	json_decref(o);
	return n;
}

/* Blocks of before, which no account has. */
static void test_kept(void **state)
{
	json_t *o, *k;

	(void)state;
	keep(0, "10.20.0.15", "203.0.113.9", 600);
	keep(1, "10.20.0.16", "", 0);
	keep(2, "fd00:20::15", "2001:db8:9::/64", 60);
	atomic_store_explicit(&w.area.h->kept_blocks, 3, memory_order_relaxed);
	o = ask("{\"verb\":\"blocks\"}");
	assert_int_equal(number_of(o, "total"), 0);
	assert_int_equal(number_of(o, "kept_total"), 3);
	k = json_array_get(json_object_get(o, "kept"), 0);
	assert_string_equal(text_of(k, "src"), "10.20.0.15");
	assert_string_equal(text_of(k, "dest"), "203.0.113.9");
	assert_int_equal(number_of(k, "refused_bytes"), 1000);
	assert_in_range(number_of(k, "left_s"), 580, 600);
	assert_in_range(seconds_until(k, "blocked_until"), 580, 601);
	k = json_array_get(json_object_get(o, "kept"), 1);
	assert_string_equal(text_of(k, "dest"), "*");
	assert_true(json_is_null(json_object_get(k, "left_s")));
	assert_string_equal(text_of(json_array_get(json_object_get(o, "kept"), 2), "dest"), "2001:db8:9::/64");
	json_decref(o);
	/* By both addresses of a named host; a host's by any destination, a pair's by its own. */
	assert_int_equal(kept_of("{\"verb\":\"why\",\"host\":\"file01\"}"), 2);
	assert_int_equal(kept_of("{\"verb\":\"why\",\"host\":\"file01\",\"dest\":\"203.0.113.9\"}"), 1);
	assert_int_equal(kept_of("{\"verb\":\"why\",\"host\":\"file01\",\"dest\":\"2001:db8:9::77\"}"), 1);
	assert_int_equal(kept_of("{\"verb\":\"why\",\"host\":\"file01\",\"dest\":\"203.0.113.10\"}"), 0);
	assert_int_equal(kept_of("{\"verb\":\"why\",\"host\":\"10.20.0.16\",\"dest\":\"203.0.113.10\"}"), 1);
	assert_int_equal(kept_of("{\"verb\":\"why\",\"host\":\"10.20.0.17\"}"), 0);
	o = ask("{\"verb\":\"why\",\"host\":\"10.20.0.16\"}");
	assert_int_equal(number_of(json_object_get(o, "total"), "refused_bytes"), 2000);
	json_decref(o);
	/* More than are listed. */
	atomic_store_explicit(&w.area.h->kept_blocks, 100000, memory_order_relaxed);
	o = ask("{\"verb\":\"blocks\"}");
	assert_int_equal(number_of(o, "kept_total"), 100000);
	assert_int_equal(json_array_size(json_object_get(o, "kept")), AREA_KEPT);
	json_decref(o);
}

/* An end in the future and a beginning before this boot (a wrapped number) are both right. */
static void test_times(void **state)
{
	json_t *o, *a;
	uint32_t slot = 0;

	(void)state;
	world_send(&w, "10.20.0.15", "203.0.113.9", 21000000, 443);
	while (!(atomic_load_explicit(&w.area.account[slot].state, memory_order_relaxed) & ACCOUNT_BLOCKED))
		slot++;
	w.area.account_cold[slot].born_ns = clock_mono().ns - 100 * 86400 * NS_PER_S;
	o = ask("{\"verb\":\"blocks\"}");
	a = account_of(o, "blocks", "pair-limit");
	assert_non_null(a);
	assert_in_range(seconds_until(a, "blocked_until"), 1780, 2 * 3600);
	assert_in_range(-seconds_until(a, "blocked_since"), 0, 20);
	assert_in_range(-seconds_until(a, "counting_since"), 100 * 86400 - 5, 100 * 86400 + 20);
	json_decref(o);
	assert_in_range(clock_wall_of(mono_add_s(clock_mono(), 1000)) - clock_wall_us(), 999000000, 1001000000);
}

static void test_findings(void **state)
{
	json_t *o, *f, *e;
	char text[100];

	(void)state;
	must_refuse("{\"verb\":\"explain\",\"id\":\"xyz\"}", "hex");
	must_refuse("{\"verb\":\"explain\",\"id\":\"1234\"}", "no finding");
	world_send(&w, "10.20.0.15", "203.0.113.9", 21000000, 443);
	o = ask("{\"verb\":\"findings\"}");
	assert_int_equal(number_of(o, "open"), 1);
	f = json_array_get(json_object_get(o, "findings"), 0);
	assert_string_equal(text_of(f, "schema"), "egress.finding/1");
	assert_true(json_is_null(json_object_get(f, "incident_id")));	/* nothing was told here */
	assert_non_null(f);
	assert_string_equal(text_of(json_object_get(f, "rule"), "name"), "pair-limit");
	assert_true(json_is_true(json_object_get(f, "open")));
	snprintf(text, sizeof(text), "{\"verb\":\"explain\",\"id\":\"%s\"}", text_of(f, "finding_id"));
	e = ask(text);
	assert_true(ok(e));
	assert_string_equal(text_of(json_object_get(e, "account"), "rule"), "pair-limit");
	assert_string_equal(text_of(json_object_get(e, "account"), "finding_id"), text_of(f, "finding_id"));
	json_decref(e);
	json_decref(o);
}

/* ---- the socket ---- */

struct client {
	char path[64], reply[65536];
	const char *send;
	bool shut;		/* end by shutdown, not by a newline */
	size_t len;
};

static void *client_run(void *arg)
{
	struct client *c = arg;
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	ssize_t n = 0;

	snprintf(a.sun_path, sizeof(a.sun_path), "%s", c->path);
	BUG_ON(fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0);
	if (c->send)
		BUG_ON(send(fd, c->send, strlen(c->send), MSG_NOSIGNAL) < 0);
	if (c->shut)
		shutdown(fd, SHUT_WR);
	while (c->len < sizeof(c->reply) && (n = recv(fd, c->reply + c->len, sizeof(c->reply) - c->len, 0)) > 0)
		c->len += (size_t)n;
	close(fd);
	return NULL;
}

static void talk(int fd, struct client *c)
{
	pthread_t t;
	struct timespec pause = { .tv_nsec = 1000000 };

	c->len = 0;
	assert_int_equal(pthread_create(&t, NULL, client_run, c), 0);
	for (unsigned i = 0; i < 5000; i++) {
		control_serve(fd, &w.ctx);
		nanosleep(&pause, NULL);
		if (pthread_tryjoin_np(t, NULL) == 0)
			return;
	}
	pthread_join(t, NULL);
}

static void test_socket(void **state)
{
	struct client c = { .send = "{\"verb\":\"status\"}\n" };
	struct stat st;
	int fd;

	(void)state;
	snprintf(c.path, sizeof(c.path), "/tmp/egressd-control-%d.sock", (int)getpid());
	fd = control_open(c.path);
	assert_true(fd >= 0);
	close(fd);
	fd = control_open(c.path);	/* a stale one is replaced */
	assert_true(fd >= 0);
	assert_int_equal(stat(c.path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0660);
	if (geteuid() != 0) {
		talk(fd, &c);
		assert_non_null(strstr(c.reply, "may ask"));
		goto out;
	}
	talk(fd, &c);
	assert_non_null(strstr(c.reply, "\"ok\":true"));
	memset(c.reply, 0, sizeof(c.reply));
	c.send = "{\"verb\":\"blocks\"}";
	c.shut = true;
	talk(fd, &c);
	assert_non_null(strstr(c.reply, "\"ok\":true"));
	memset(c.reply, 0, sizeof(c.reply));
	c.send = NULL;
	c.shut = false;
	talk(fd, &c);		/* silent: closed after a second, counted */
	assert_int_equal(c.len, 0);
	assert_int_equal(w.ctx.malformed, 1);
out:
	close(fd);
	unlink(c.path);
	assert_int_equal(control_open("/dev/null"), -EEXIST);	/* never somebody else's file */
}

static int dial(const char *path)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
	assert_true(fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0);
	return fd;
}

static unsigned elapsed_ms(const struct timespec *since)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (unsigned)((t.tv_sec - since->tv_sec) * 1000 + (t.tv_nsec - since->tv_nsec) / 1000000);
}

/* [CT4] */
static void test_slow_peers(void **state)
{
	struct client c = { .send = "{\"verb\":\"status\"}\n" };
	struct pollfd p[CONTROL_POLLS];
	struct timespec start;
	int slow[CONTROL_PEERS], fd, more, ms;
	char buf[200] = "";

	(void)state;
	if (geteuid() != 0)
		return;
	snprintf(c.path, sizeof(c.path), "/tmp/egressd-control-%d.sock", (int)getpid());
	fd = control_open(c.path);
	assert_true(fd >= 0);
	assert_int_equal(control_polls(fd, p, &ms), 1);
	assert_int_equal(ms, -1);
	clock_gettime(CLOCK_MONOTONIC, &start);
	for (int i = 0; i < CONTROL_PEERS; i++) {
		slow[i] = dial(c.path);
		assert_int_equal(send(slow[i], " ", 1, 0), 1);
		control_serve(fd, &w.ctx);
		if (i == CONTROL_PEERS / 2)
			talk(fd, &c);
	}
	assert_non_null(strstr(c.reply, "\"ok\":true"));
	assert_true(elapsed_ms(&start) < 900);
	assert_int_equal(control_polls(fd, p, &ms), CONTROL_POLLS);
	assert_true(ms >= 0 && ms <= 1001);
	more = dial(c.path);
	control_serve(fd, &w.ctx);
	assert_true(recv(more, buf, sizeof(buf) - 1, 0) > 0);
	assert_non_null(strstr(buf, "too many connections"));
	close(more);
	while (control_polls(fd, p, &ms) > 1) {
		poll(p, 0, ms);
		control_serve(fd, &w.ctx);
	}
	assert_true(elapsed_ms(&start) < 2500);
	assert_int_equal(w.ctx.malformed, CONTROL_PEERS);
	for (int i = 0; i < CONTROL_PEERS; i++)
		close(slow[i]);
	close(fd);
	unlink(c.path);
}

/* Under the service's filter chown() fails: it is not called where the group is right. */
static void test_socket_group(void **state)
{
	char path[64];

	(void)state;
	snprintf(path, sizeof(path), "/tmp/egressd-control-%d.sock", (int)getpid());
	readers = getegid();
	close(control_open(path));
	assert_int_equal(chowns, 0);
	readers = getegid() + 1;
	close(control_open(path));
	assert_int_equal(chowns, 1);
	unlink(path);
	readers = NOBODY;
}

/* Another egressd's socket stays its own, and it is not bothered; one that is about to end is waited for. */
static void test_socket_of_another(void **state)
{
	struct client c = { .send = "{\"verb\":\"status\"}\n" };
	struct stat before, after;

	(void)state;
	snprintf(c.path, sizeof(c.path), "/tmp/egressd-control-%d.sock", (int)getpid());
	assert_int_equal(control_alone(c.path), 0);
	listening = control_open(c.path);
	assert_true(listening >= 0);
	assert_int_equal(stat(c.path, &before), 0);
	pauses = 0;
	assert_int_equal(control_open(c.path), -EADDRINUSE);
	assert_true(pauses > 0);
	assert_int_equal(stat(c.path, &after), 0);
	assert_int_equal(before.st_ino, after.st_ino);
	assert_int_equal(accept(listening, NULL, NULL), -1);
	assert_int_equal(errno, EAGAIN);
	talk(listening, &c);
	assert_true(c.len > 0);
	pauses = 0;
	close_at = 7;
	assert_int_equal(control_alone(c.path), 0);
	assert_int_equal(pauses, 7);
	close_at = 0;
	unlink(c.path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_malformed, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bounds, setup, teardown),
		cmocka_unit_test_setup_teardown(test_only_readers_read, setup, teardown),
		cmocka_unit_test_setup_teardown(test_status, setup, teardown),
		cmocka_unit_test_setup_teardown(test_not_as_it_seems, setup, teardown),
		cmocka_unit_test_setup_teardown(test_why, setup, teardown),
		cmocka_unit_test_setup_teardown(test_why_names, setup, teardown),
		cmocka_unit_test_setup_teardown(test_why_other_destinations, setup, teardown),
		cmocka_unit_test_setup_teardown(test_why_others, setup, teardown),
		cmocka_unit_test_setup_teardown(test_why_protected, setup, teardown),
		cmocka_unit_test_setup_teardown(test_why_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_kept, setup, teardown),
		cmocka_unit_test_setup_teardown(test_times, setup, teardown),
		cmocka_unit_test_setup_teardown(test_findings, setup, teardown),
		cmocka_unit_test_setup_teardown(test_socket, setup, teardown),
		cmocka_unit_test_setup_teardown(test_slow_peers, setup, teardown),
		cmocka_unit_test_setup_teardown(test_socket_group, setup, teardown),
		cmocka_unit_test_setup_teardown(test_socket_of_another, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
