/* test_time_servers.c - which servers ntp.conf, chrony.conf and timesyncd.conf name, whatever they hold, and their addresses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "clock.h"
#include "log.h"
#include "time_servers.h"

static struct time_servers s;

/* Everything that was found, addresses first, separated by blanks. */
static const char *found(void)
{
	static char text[16384];
	char one[ADDR_STRLEN];
	size_t at = 0;

	text[0] = '\0';
	for (uint32_t i = 0; i < s.naddrs; i++)
		at += (size_t)snprintf(text + at, sizeof(text) - at, "%s%s", at ? " " : "", addr_format(&s.addr[i], one));
	for (uint32_t i = 0; i < s.nnames; i++)
		at += (size_t)snprintf(text + at, sizeof(text) - at, "%s%s", at ? " " : "", s.name[i]);
	return text;
}

static const char *parsed(enum time_syntax syntax, const char *text)
{
	char *own = strdup(text);

	assert_non_null(own);
	memset(&s, 0, sizeof(s));
	time_servers_parse(syntax, own, &s, NULL, NULL);
	free(own);
	return found();
}

static void ntp(void **state)
{
	(void)state;
	assert_string_equal(parsed(TIME_NTP, "driftfile /var/lib/ntp/drift\n# server 192.0.2.1\nserver 192.0.2.2 iburst\n"
					     "pool 0.debian.pool.ntp.org iburst\r\n  peer\t-6 2001:db8::7\nserver -4 ntp1.example\n"
					     "restrict 192.0.2.3\nserver 127.127.1.0\nserver 192.0.2.2\nSERVER NTP1.example"),
			    "192.0.2.2 2001:db8::7 0.debian.pool.ntp.org ntp1.example");
	assert_string_equal(parsed(TIME_NTP, "sourcedir /etc\nserver\nserver #x\nserver -4\nserverx 192.0.2.1\nserver a/b\n"
					     "server 300.1.1.1\nserver ::1\nserver fe80::1%eth0\nserver 0.0.0.0"), "");
}

static void chrony(void **state)
{
	(void)state;
	assert_string_equal(parsed(TIME_CHRONY, "! server 192.0.2.1\n; x\n% y\nPool 2.debian.pool.ntp.org iburst maxsources 4\n"
						"server 192.0.2.9 key 1\nsourcedir /nowhere\nmakestep 1 3\n"),
			    "192.0.2.9 2.debian.pool.ntp.org");
}

static void timesyncd(void **state)
{
	(void)state;
	assert_string_equal(parsed(TIME_TIMESYNCD, "NTP=outside.of.section\n[Time]\n#NTP=192.0.2.1\n;NTP=192.0.2.1\n"
						   "NTP = 192.0.2.5 ntp.example\\\n 2001:db8::9\nFallbackNTP=f.example  192.0.2.5\n"
						   "NTPX=no.example\nRootDistanceMaxSec=5\nFallbackNTP=\n[Other]\nNTP=no.example\n"),
			    "192.0.2.5 2001:db8::9 ntp.example f.example");
	assert_string_equal(parsed(TIME_TIMESYNCD, "[Time]\nNTP=a.example\\"), "");
	assert_string_equal(parsed(TIME_TIMESYNCD, "=\n[Time]\n=\n = a\nNTP"), "");
}

static void odd(void **state)
{
	static const enum time_syntax all[] = { TIME_NTP, TIME_CHRONY, TIME_TIMESYNCD };
	char many[40000] = "", big[4000];
	uint32_t seed = 1;
	size_t at = 0;

	(void)state;
	for (unsigned k = 0; k < ARRAY_SIZE(all); k++) {
		assert_string_equal(parsed(all[k], ""), "");
		assert_string_equal(parsed(all[k], "\n\n \t\r\n\\\n[\n"), "");
		for (unsigned round = 0; round < 2000; round++) {
			static const char alphabet[] = "server pool [Time]\nNTP==-46\\\n\t\x01\xff\xc3.:%a9confdir /";

			for (unsigned i = 0; i < 200; i++) {
				seed = seed * 1664525 + 1013904223;
				big[i] = alphabet[(seed >> 16) % (sizeof(alphabet) - 1)];
			}
			big[200] = '\0';
			for (const char *c = parsed(all[k], big); *c; c++)	/* nothing but names and addresses comes out */
				assert_non_null(strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_: ", *c));
		}
	}
	memset(big, 'a', sizeof(big) - 1);
	memcpy(big, "server ", 7);
	big[sizeof(big) - 1] = '\0';
	assert_string_equal(parsed(TIME_NTP, big), "");		/* longer than a name may be */
	big[7 + TIME_SERVERS_NAME - 1] = '\0';
	assert_int_equal(strlen(parsed(TIME_NTP, big)), TIME_SERVERS_NAME - 1);
	for (unsigned i = 0; i < 500; i++)
		at += (size_t)snprintf(many + at, sizeof(many) - at, "server 192.0.%u.%u\nserver n%u.example\n", i / 250 + 2,
				       i % 250, i);
	parsed(TIME_NTP, many);
	assert_int_equal(s.naddrs, TIME_SERVERS_MAX);
	assert_int_equal(s.nnames, TIME_SERVERS_MAX);
	assert_int_equal(s.left_out, 2 * (500 - TIME_SERVERS_MAX));
}

/* ---- files ---- */

static char root[] = "/tmp/egressd-test-time.XXXXXX";

static void file(const char *path, const char *text)
{
	char full[300];
	FILE *f;

	snprintf(full, sizeof(full), "%s%s", root, path);
	for (char *c = strchr(full + strlen(root) + 1, '/'); c; c = strchr(c + 1, '/')) {
		*c = '\0';
		(void)mkdir(full, 0700);
		*c = '/';
	}
	f = fopen(full, "w");
	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
}

static void files(void **state)
{
	char command[100];

	(void)state;
	assert_non_null(mkdtemp(root));
	s = (struct time_servers){ 0 };
	time_servers_read(root, &s);
	assert_string_equal(found(), "");
	file("/etc/ntp.conf", "server 192.0.2.1\n");
	file("/etc/ntpsec/ntp.conf", "server 192.0.2.2\n");
	file("/etc/chrony/chrony.conf", "confdir /etc/chrony/conf.d\nsourcedir /run/chrony-dhcp\t/etc/chrony/sources.d\n"
					"sourcedir relative\nsourcedir\nsourcedirs /etc/chrony/other\nserver 192.0.2.3\n");
	file("/etc/chrony/conf.d/a.conf", "server 192.0.2.4\nsourcedir /etc/chrony/other\n");
	file("/etc/chrony/conf.d/a.sources", "server 192.0.2.100\n");
	file("/etc/chrony/sources.d/x.sources", "server 192.0.2.5\n");
	file("/etc/chrony/sources.d/x.bak", "server 192.0.2.101\n");
	file("/etc/chrony/other/x.sources", "server 192.0.2.102\n");
	file("/etc/systemd/timesyncd.conf", "[Time]\nNTP=192.0.2.6\n");
	file("/etc/systemd/timesyncd.conf.d/local.conf", "[Time]\nFallbackNTP=192.0.2.7\n");
	time_servers_read(root, &s);
	assert_string_equal(found(), "192.0.2.1 192.0.2.2 192.0.2.4 192.0.2.5 192.0.2.3 192.0.2.6 192.0.2.7");
	snprintf(command, sizeof(command), "%s/etc/ntp.conf", root);
	assert_int_equal(unlink(command), 0);
	assert_int_equal(mkdir(command, 0700), 0);	/* not a file */
	s = (struct time_servers){ 0 };
	time_servers_read(root, &s);
	assert_string_equal(found(), "192.0.2.2 192.0.2.4 192.0.2.5 192.0.2.3 192.0.2.6 192.0.2.7");
}

static void remove_files(void)
{
	static const char *const made[] = {
		"/etc/ntp.conf", "/etc/ntpsec/ntp.conf", "/etc/ntpsec", "/etc/chrony/conf.d/a.conf", "/etc/chrony/conf.d/a.sources",
		"/etc/chrony/conf.d", "/etc/chrony/sources.d/x.sources", "/etc/chrony/sources.d/x.bak", "/etc/chrony/sources.d",
		"/etc/chrony/other/x.sources", "/etc/chrony/other", "/etc/chrony/chrony.conf", "/etc/chrony",
		"/etc/systemd/timesyncd.conf.d/local.conf", "/etc/systemd/timesyncd.conf.d", "/etc/systemd/timesyncd.conf",
		"/etc/systemd", "/etc", "",
	};
	char full[300];

	for (unsigned i = 0; i < ARRAY_SIZE(made); i++) {
		snprintf(full, sizeof(full), "%s%s", root, made[i]);
		(void)remove(full);
	}
}

/* ---- addresses ---- */

/* The addresses of s as text; what is said meanwhile goes to `said`. */
static const char *addresses(size_t max, char *said, size_t size)
{
	static char text[8192];
	struct prefix p[TIME_SERVERS_MAX * 2];
	FILE *log = tmpfile();
	int saved = dup(STDERR_FILENO);
	size_t n, at = 0;
	char one[ADDR_STRLEN];

	assert_non_null(log);
	assert_true(saved >= 0 && max <= ARRAY_SIZE(p));
	assert_int_equal(dup2(fileno(log), STDERR_FILENO), STDERR_FILENO);
	n = time_servers_addresses(&s, p, max);
	assert_int_equal(dup2(saved, STDERR_FILENO), STDERR_FILENO);
	close(saved);
	assert_true(n <= max);
	text[0] = '\0';
	for (size_t i = 0; i < n; i++) {
		assert_int_equal(p[i].len, 128);
		at += (size_t)snprintf(text + at, sizeof(text) - at, "%s%s", i ? " " : "", addr_format(&p[i].addr, one));
	}
	rewind(log);
	said[fread(said, 1, size - 1, log)] = '\0';
	fclose(log);
	return text;
}

static unsigned lines(const char *text)
{
	unsigned n = 0;

	for (; *text; text++)
		n += *text == '\n';
	return n;
}

/* A number in hexadecimal is a name to us, which libc finds without asking anybody. */
static void lookups(void **state)
{
	char said[2000];

	(void)state;
	parsed(TIME_NTP, "server 192.0.2.1\npool 0xc0000205\nserver 0xc0000201\nserver 0x7f000001\n");
	assert_int_equal(s.nnames, 3);
	assert_string_equal(addresses(8, said, sizeof(said)), "192.0.2.1 192.0.2.5");
	assert_int_equal(lines(said), 1);
	assert_non_null(strstr(said, "0x7f000001"));	/* this machine is no server of its own: no address */
	assert_null(strstr(said, "0xc0000205"));
	assert_string_equal(addresses(1, said, sizeof(said)), "192.0.2.1");
	assert_non_null(strstr(said, "not protected: 1;"));
	assert_string_equal(addresses(0, said, sizeof(said)), "");
	for (unsigned round = 0; round < 40; round++) {		/* other names each time: places are used again */
		char line[64], want[32];

		snprintf(line, sizeof(line), "server 0xc00002%02x\n", 100 + round);
		snprintf(want, sizeof(want), "192.0.2.%u", 100 + round);
		parsed(TIME_NTP, line);
		assert_string_equal(addresses(8, said, sizeof(said)), want);
		assert_string_equal(said, "");
	}
}

static void nobody_answers(void **state)
{
	char said[2000];
	uint64_t before, ms;

	(void)state;
	parsed(TIME_NTP, "server 192.0.2.1\nserver ntp1.invalid\nserver ntp2.invalid\n");
	before = clock_mono().ns;
	assert_string_equal(addresses(8, said, sizeof(said)), "192.0.2.1");
	ms = (clock_mono().ns - before) / NS_PER_MS;
	assert_true(ms < TIME_SERVERS_WAIT_MS + 2000);	/* [TS2], and a busy machine */
	assert_int_equal(lines(said), 1);
	assert_non_null(strstr(said, "ntp1.invalid, ntp2.invalid"));
	assert_string_equal(addresses(8, said, sizeof(said)), "192.0.2.1");	/* asked again, or still waited for */
	assert_int_equal(lines(said), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ntp),	 cmocka_unit_test(chrony),  cmocka_unit_test(timesyncd),      cmocka_unit_test(odd),
		cmocka_unit_test(files), cmocka_unit_test(lookups), cmocka_unit_test(nobody_answers),
	};
	int failed;

	log_open("test");
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	remove_files();
	return failed;
}
