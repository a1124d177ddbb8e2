/* test_policy_source.c - what a policy protects without being told: Redis, by address or by name; and a file that it may not read. */
#include <errno.h>
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

#include "log.h"
#include "policy.h"
#include "policy_compile.h"
#include "policy_source.h"

static const char text[] = "version: 1\ninside: [10.0.0.0/8]\n";

static bool protects(const char *redis_host, const char *address)
{
	struct config c = { .redis = 1, .policy = "policy.yaml" };
	char why[200] = "";
	const char *bad = "";
	struct compiled p;
	struct policy view;
	struct addr a;
	bool found = false;

	snprintf(c.redis_host, sizeof(c.redis_host), "%s", redis_host);
	assert_int_equal(addr_parse(address, &a), 0);
	assert_int_equal(policy_source_compile(&c, text, sizeof(text) - 1, &p, why, sizeof(why)), 0);
	assert_int_equal(policy_open(p.blob, p.size, &view, &bad), 0);
	for (uint32_t i = 0; i < view.h->nprotect; i++)
		found = found || prefix_contains(&view.protect[i], &a);
	assert_int_equal(!!(policy_dst_of(&view, &a)->flags & DST_PROTECTED), found);
	compiled_free(&p);
	return found;
}

/* A number in hexadecimal is a name to us, which libc finds without asking anybody. */
static void redis(void **state)
{
	(void)state;
	assert_true(protects("192.0.2.5", "192.0.2.5"));
	assert_true(protects("2001:db8::5", "2001:db8::5"));
	assert_true(protects("0xc0000205", "192.0.2.5"));
	assert_false(protects("localhost", "192.0.2.5"));
}

static int with_zone(const char *zone, char *why, size_t size)
{
	struct config c = { .policy = "policy.yaml" };
	char policy[200];
	struct compiled p = { .fd = -1 };
	int r;

	snprintf(policy, sizeof(policy), "%stimezone: %s\n", text, zone);
	r = policy_source_compile(&c, policy, strlen(policy), &p, why, size);
	compiled_free(&p);
	return r;
}

/* What is no zone file there is none: misspelt, a folder. */
static void zones(void **state)
{
	static const char *const bad[] = { "Asia/Tokio", "America/Argentina", "Etc/Nowhere" };
	char why[200] = "";

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(with_zone(bad[i], why, sizeof(why)), -EINVAL);
		assert_non_null(strstr(why, "policy.yaml:3:11: error: timezone: this machine knows no '"));
		assert_non_null(strstr(why, bad[i]));
	}
	assert_int_equal(with_zone("UTC", why, sizeof(why)), 0);
	if (access("/usr/share/zoneinfo/Asia/Tokyo", R_OK) == 0)
		assert_int_equal(with_zone("Asia/Tokyo", why, sizeof(why)), 0);
}

static void not_readable(void **state)
{
	static char path[] = "/tmp/test_policy_source.XXXXXX";
	const uid_t me = geteuid();
	struct config c = { .redis = 0 };
	char why[200] = "";
	struct compiled p;
	int fd = mkstemp(path), r;

	(void)state;
	assert_true(fd >= 0);
	snprintf(c.policy, sizeof(c.policy), "%s", path);
	assert_int_equal(fchmod(fd, 0), 0);
	close(fd);
	assert_true(me != 0 || seteuid(65534) == 0);	/* root reads all */
	r = policy_source_compile(&c, NULL, 0, &p, why, sizeof(why));
	assert_int_equal(seteuid(me), 0);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(r, -EACCES);
	assert_non_null(strstr(why, path));
	assert_non_null(strstr(why, "Permission denied; egressd's group must be able to read it"));
}

static void too_large(void **state)
{
	static char path[] = "/tmp/test_policy_source.XXXXXX";
	struct config c = { .redis = 0 };
	char why[200] = "";
	struct compiled p;
	int fd = mkstemp(path), r;

	(void)state;
	assert_true(fd >= 0);
	snprintf(c.policy, sizeof(c.policy), "%s", path);
	assert_int_equal(ftruncate(fd, POLICY_TEXT_MAX + 1), 0);
	close(fd);
	r = policy_source_compile(&c, NULL, 0, &p, why, sizeof(why));
	assert_int_equal(unlink(path), 0);
	assert_int_equal(r, -EFBIG);
	assert_non_null(strstr(why, "larger than 1 MiB"));
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(redis), cmocka_unit_test(zones), cmocka_unit_test(not_readable),
					    cmocka_unit_test(too_large) };

	log_open("test");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
