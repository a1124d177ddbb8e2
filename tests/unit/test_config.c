/* test_config.c - egressd.yaml: every key, defaults, round trip of config_print, and errors with place and remedy. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "config.h"

static char path[64];

static int load(const char *text, struct config *c, char *errors, size_t size)
{
	char errname[] = "/tmp/egressd-test-err.XXXXXX";
	int fd = mkstemp(errname), in, r;
	ssize_t n;

	snprintf(path, sizeof(path), "/tmp/egressd-test-conf.XXXXXX");
	in = mkstemp(path);
	assert_true(fd >= 0 && in >= 0);
	assert_int_equal(write(in, text, strlen(text)), strlen(text));
	close(in);
	r = config_load(path, c, fd);
	n = pread(fd, errors, size - 1, 0);
	errors[n > 0 ? n : 0] = '\0';
	close(fd);
	unlink(errname);
	unlink(path);
	return r;
}

static void minimal(void **state)
{
	struct config c;
	char e[2000];

	(void)state;
	assert_int_equal(load("gateway: gw1\npolicy: /etc/p.yaml\ninterfaces: {outside: [eth0]}\n", &c, e, sizeof(e)), 0);
	assert_string_equal(e, "");
	assert_string_equal(c.state_dir, "/var/lib/egressd");
	assert_string_equal(c.runtime_dir, "/run/egressd");
	assert_int_equal(c.failure, FAILURE_OPEN);
	assert_int_equal(c.pairs, 65536);
	assert_int_equal(c.mark_mask, 0x30000000);
	assert_true(c.queue_count >= 1 && c.queue_count <= 8);
	assert_int_equal(c.redis, 0);
	assert_int_equal(c.nroles, 1);
	assert_string_equal(c.role[0].device[0], "eth0");
}

static const char everything[] =
	"gateway: gw-2\npolicy: /etc/p.yaml\nstate_dir: /s\nruntime_dir: /r\nfailure: closed\n"
	"interfaces:\n  wg-maint: [wg0, wg1]\n  outside: [wan0, \"wan1\"]\nqueues: {first: 10, count: 3}\n"
	"table: {pairs: 131072}\nmark_mask: 0x00000300\nleases: off\n"
	"redis:\n  address: \"[2001:db8::5]:6380\"\n  username: gw\n  password_file: /etc/pw\n";

static void round_trip(void **state)
{
	char text[4000] = "", e[2000];
	struct config a, b;
	FILE *to = fmemopen(text, sizeof(text), "w");

	(void)state;
	assert_int_equal(load(everything, &a, e, sizeof(e)), 0);
	assert_string_equal(a.role[0].name, "outside");	/* always first */
	assert_string_equal(a.role[1].device[1], "wg1");
	assert_string_equal(a.redis_host, "2001:db8::5");
	assert_int_equal(a.redis_port, 6380);
	assert_int_equal(a.failure, FAILURE_CLOSED);
	assert_int_equal(config_print(&a, to), 0);
	fclose(to);
	to = fmemopen(e, 20, "w");
	assert_true(config_print(&a, to) < 0);
	fclose(to);
	assert_int_equal(load(text, &b, e, sizeof(e)), 0);
	assert_memory_equal(&a, &b, sizeof(a));
}

/* Text of every kind comes back from config_print as it was. */
static void round_trip_text(void **state)
{
	char text[4000] = "", e[2000];
	struct config a, b;
	FILE *to = fmemopen(text, sizeof(text), "w");

	(void)state;
	assert_int_equal(load("gateway: \"-\"\npolicy: \"/a: b #c \\\"\\\\\"\nstate_dir: /\xe5\xb1\xb1\nruntime_dir: '/''r '\n"
			      "interfaces: {outside: ['\"', '\\', '{x}'], yes: [null], \"1\": [\"*a\"]}\n"
			      "redis: {socket: \"/a, b\", username: no, password_file: '/''%s'}\n", &a, e, sizeof(e)), 0);
	assert_string_equal(a.policy, "/a: b #c \"\\");
	assert_string_equal(a.role[0].device[1], "\\");
	assert_int_equal(config_print(&a, to), 0);
	fclose(to);
	assert_int_equal(load(text, &b, e, sizeof(e)), 0);
	assert_memory_equal(&a, &b, sizeof(a));
}

static void all_errors_at_once(void **state)
{
	struct config c;
	char e[4000];

	(void)state;
	assert_int_equal(load("gatway: gw1\npolicy: relative.yaml\ninterfaces: {inside: [eth0]}\nmark_mask: 7\n"
			      "table: {pairs: 1000}\nredis: {}\nleases: maybe\nmetrics: {listen: x}\n",
			      &c, e, sizeof(e)),
			 -EINVAL);
	assert_non_null(strstr(e, ":1:1: error: gatway: unknown key\n    gatway: gw1\n    ^ did you mean 'gateway'?\n"));
	assert_non_null(strstr(e, "'gateway' is missing"));
	assert_non_null(strstr(e, ":2:9: error: relative.yaml: not an absolute path"));
	assert_non_null(strstr(e, "'outside' is missing"));
	assert_non_null(strstr(e, "exactly two bits"));
	assert_non_null(strstr(e, "1000: out of range"));
	assert_non_null(strstr(e, "either socket or address"));
	assert_non_null(strstr(e, ":7:9: error: maybe"));
	assert_non_null(strstr(e, "metrics are not yet supported"));
}

/* Of each error its line, in order of place: what is no YAML that is read, what is wrong beside it, and nothing that follows from it. */
static void all_errors_with_yaml(void **state)
{
	static const struct {
		const char *text, *want;
	} row[] = {
		{ "gateway: *g\npolicy: &p relative\ninterfaces:\n  <<: *i\nqueues: {count: 9, first: !x 1}\n"
		  "redis: {<<: *r, usrname: x}\nfailure:\topn\nmark_mask: !m 7\n---\na: *b\n",
		  "1:10: error: aliases|2:9: error: anchors|2:9: error: relative: not an|4:3: error: merge|4:7: error: aliases|"
		  "5:17: error: 9: out of|5:27: error: tags|6:9: error: merge|6:13: error: aliases|6:17: error: usrname: unknown|"
		  "7:9: error: tab|7:10: error: opn: unknown|8:12: error: tags|9:1: error: a second|10:4: error: aliases|" },
		{ "gatway: gw\nfailure: opn\ninterfaces: {outside: [eth0\npolicy: /etc/p\n",
		  "1:1: error: gatway: unknown|2:10: error: opn: unknown|4:7: error: did not find|" },
		{ "[a]: 1\ntable: !x {pairs: 3}\ninterfaces: {outside: *o, vpn: [*a, a/b]}\npolicy: |\n  /a\n \x01 /b\n",
		  "1:1: error: a key must|2:8: error: tags|3:23: error: aliases|3:33: error: aliases|3:37: error: a/b: not a|"
		  "6:2: error: control|" },
		{ "gateway: *g\n", ": error: 'policy' is|: error: 'interfaces' is|1:10: error: aliases|" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
		struct config c;
		char e[8000], *line = e;
		const char *want = row[i].want;

		assert_int_equal(load(row[i].text, &c, e, sizeof(e)), -EINVAL);
		for (char *next; *line; line = next) {
			size_t len = strcspn(want, "|");

			next = strchrnul(line, '\n');
			next += *next != '\0';
			if (strncmp(line, path, strlen(path)) != 0)
				continue;	/* the line itself, or its caret */
			line += strlen(path);
			line += line[1] != ' ';
			if (!len || strncmp(line, want, len) != 0)
				fail_msg("wanted %s of\n%s", want, e);
			want += len + 1;
		}
		if (*want)
			fail_msg("wanted %s after\n%s", want, e);
	}
}

static void refused(void **state)
{
	static const struct {
		const char *line, *error;
	} bad[] = {
		{ "gateway: \"a b\"\n", "not a name" },
		{ "gateway: [x]\n", "a name is expected here" },
		{ "failure: opn\n", "did you mean 'open'?" },
		{ "policy: redis\n", "not yet supported" },
		{ "queues: {count: 9}\n", "out of range, 1 to 8" },
		{ "queues: {count: many}\n", "a whole number" },
		{ "queues: 3\n", "'key: value' lines are expected" },
		{ "table: {pairs: 3000}\n", "a power of two" },
		{ "redis: {socket: /a, address: \"b:1\"}\n", "either socket or address" },
		{ "redis: {address: nowhere}\n", "host:port is expected" },
		{ "redis: {address: [a]}\n", "host:port is expected" },
		{ "redis: {address: \":1\"}\n", "host:port is expected" },
		{ "redis: {address: \"[]:1\"}\n", "host:port is expected" },
		{ "redis: {address: \"[a]:1\"}\n", "host:port is expected" },
		{ "redis: {address: \"fd00::5:6379\"}\n", "host:port is expected" },	/* which colon? */
		{ "redis: {address: \"a b:1\"}\n", "host:port is expected" },
		{ "redis: {address: \"a:0\"}\n", "host:port is expected" },
		{ "redis: {address: \"a:65536\"}\n", "host:port is expected" },
		{ "redis: {address: \"a:+1\"}\n", "host:port is expected" },
		{ "redis: {address: \"a:1x\"}\n", "host:port is expected" },
		{ "policy: |\n  /two\n  /lines\n", "several lines" },
		{ "interfaces: {outside: []}\n", "a list of 1 to 8 devices" },
		{ "interfaces: {outside: [sixteen-letters-x]}\n", "not a device name" },
		{ "interfaces: {outside: [a/b]}\n", "not a device name" },
		{ "interfaces: {outside: [\"a:b\"]}\n", "not a device name" },
		{ "interfaces: {outside: [\"a b\"]}\n", "not a device name" },
		{ "interfaces: {outside: [wän]}\n", "not a device name" },
		{ "state_dir: x\nstate_dir: /y\n", "given twice" },
		{ "state_dir: /x\nstate_dir: /y\nrunntime_dir: /z\n", "runntime_dir: unknown key" },
		{ "state_dir: &a /x\n", "anchors are not allowed" },
		{ "state_dir: !!str /x\n", "tags are not allowed" },
		{ "state_dir:\t/x\n", "tab character" },
		{ "# \xe2\x80\xae\n", "bidirectional" },
		{ "# \xff\n", "not UTF-8" },
		{ "# \x01\n", "control character" },
		{ "---\na: b\n---\nc: d\n", "second document" },
		{ "<<: {a: b}\n", "merge keys" },
		{ "redis: {socket: /a, password: x}\n", "password: unknown key" },
		{ "redis: {socket: /a, password: x}\n", "    redis: {socket: /a, password: ...\n" },
		{ "redis: {socket: /a, password: x}\n", "^ put it into a file: password_file: /etc/egressd/redis.password" },
		{ "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[", "nested deeper" },
		{ "", "expected" },
	};
	struct config c;
	char e[4000];

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(load(bad[i].line, &c, e, sizeof(e)), -EINVAL);
		if (!strstr(e, bad[i].error))
			fail_msg("%s\ngives\n%swithout '%s'", bad[i].line, e, bad[i].error);
	}
}

static void missing_file(void **state)
{
	struct config c;

	(void)state;
	assert_int_equal(config_load("/nonexistent/egressd.yaml", &c, STDOUT_FILENO), -ENOENT);
}

static void shipped_file(void **state)
{
	struct config c;

	(void)state;
	assert_int_equal(config_load("config/egressd.yaml", &c, STDERR_FILENO), 0);
	assert_int_equal(c.redis, 0);
	assert_int_equal(c.failure, FAILURE_OPEN);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(minimal),	cmocka_unit_test(round_trip),	cmocka_unit_test(all_errors_at_once),
		cmocka_unit_test(round_trip_text), cmocka_unit_test(all_errors_with_yaml),
		cmocka_unit_test(refused),	cmocka_unit_test(missing_file), cmocka_unit_test(shipped_file),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
