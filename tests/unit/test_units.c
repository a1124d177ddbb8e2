/* test_units.c - sizes and durations as people write them: every unit exact, nothing else taken, and what egressd prints can
 * be written. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "finding.h"
#include "yaml_tree.h"

struct good {
	const char *text;
	uint64_t value;
};

#define MARK 0x5a5a5a5a5a5a5a5aULL	/* what a refusal leaves alone */

typedef int (*parse_fn)(const char *text, uint64_t *ret);

static void takes(parse_fn parse, const struct good *row, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		uint64_t got = MARK;

		if (parse(row[i].text, &got) != 0 || got != row[i].value)
			fail_msg("'%s': wanted %llu, got %llu", row[i].text, (unsigned long long)row[i].value,
				 (unsigned long long)got);
	}
}

static void refuses(parse_fn parse, const char *const *row)
{
	for (; *row; row++) {
		uint64_t got = MARK;

		if (parse(*row, &got) != -EINVAL || got != MARK)
			fail_msg("'%s' is taken for %llu", *row, (unsigned long long)got);
	}
}

static void test_sizes(void **state)
{
	static const struct good row[] = {
		{ "0B", 0 }, { "1B", 1 }, { "1kB", 1000 }, { "1MB", 1000000 }, { "1GB", 1000000000 },
		{ "1TB", 1000000000000 }, { "1KiB", 1024 }, { "1MiB", 1048576 }, { "1GiB", 1073741824 },
		{ "1TiB", 1099511627776 }, { "200MB", 200000000 }, { "200 MB", 200000000 }, { "200   MB", 200000000 },
		{ "007MB", 7000000 }, { "1.5GB", 1500000000 }, { "0.001kB", 1 }, { "1.0B", 1 }, { "0.5KiB", 512 },
		{ "0.0009765625KiB", 1 }, { "1.000000000001TB", 1000000000001 }, { "0.123456789012TB", 123456789012 },
		{ "0.999999999999TB", 999999999999 }, { "18446744073709551615B", UINT64_MAX },
		{ "18446744073709551.615kB", UINT64_MAX }, { "18446744.073709551615TB", UINT64_MAX },
		{ "16777215TiB", UINT64_MAX - (1ULL << 40) + 1 },
	};

	(void)state;
	takes(parse_size, row, ARRAY_SIZE(row));
}

static void test_sizes_refused(void **state)
{
	static const char *const row[] = {
		"", " ", "MB", "200", "0", "1.5", "-1MB", "+1MB", " 1MB", "1MB ", "1MB.", "1MBs", "1MB 1kB", "1 M B", "1\tMB",
		"1\nMB", "1\xc2\xa0MB", ".5MB", "5.MB", "1,5MB", "1'000B", "1_000B", "1e3B", "0x10B", "1..5MB", "1.2.3MB",
		/* the case of a unit is the manual's */
		"1b", "1KB", "1kb", "1Kb", "1mb", "1Mb", "1mB", "1gb", "1gB", "1tb", "1kiB", "1Kib", "1KIB", "1mib", "1Mib",
		/* no others */
		"1k", "1K", "1M", "1G", "1T", "1PB", "1PiB", "1bit", "1Mbit", "1MB/s", "1s",
		/* parts of a byte */
		"0.5B", "1.0001kB", "0.1KiB", "0.0000000000001TB", "1.0000000000000MB",
		/* beyond 64 bits */
		"18446744073709551616B", "99999999999999999999B", "18446744073709551.616kB", "18446744073710TB",
		"18446744.073709551616TB", "16777216TiB", "16777215.999999999999TiB",
		/* digits of other scripts */
		"\xef\xbc\x91MB", "\xd9\xa1MB", NULL,
	};

	(void)state;
	refuses(parse_size, row);
}

static void test_durations(void **state)
{
	static const struct good row[] = {
		{ "0s", 0 }, { "1s", 1 }, { "1m", 60 }, { "1h", 3600 }, { "1d", 86400 }, { "1w", 604800 }, { "90s", 90 },
		{ "30 m", 1800 }, { "1.5h", 5400 }, { "0.1m", 6 }, { "0.25d", 21600 }, { "18446744073709551615s", UINT64_MAX },
		{ "30500568904943w", 18446744073709526400ULL },
	};
	static const char *const bad[] = {
		"", "s", "1", "1.5", "-1s", " 1s", "1s ", "1S", "1M", "1H", "1D", "1W", "1min", "1hour", "1y", "1ms", "1h30m",
		"1h 30m", "1:30", "0.5s", "0.01m", "1kB", "18446744073709551616s", "30500568904944w", NULL,
	};

	(void)state;
	takes(parse_duration, row, ARRAY_SIZE(row));
	refuses(parse_duration, bad);
}

/* One scalar of a file, and the errors about it. */
static struct diag_list diags;

static struct yaml_node scalar(const char *text, int quoted)
{
	diag_init(&diags, "f", "", 0);
	return (struct yaml_node){ .kind = YAML_SCALAR, .line = 3, .col = 7, .text = text, .quoted = quoted };
}

static void error_is(const char *text, const char *hint)
{
	assert_int_equal(diags.count, 1);
	assert_int_equal(diags.item[0].line, 3);
	assert_int_equal(diags.item[0].col, 7);
	assert_string_equal(diags.item[0].text, text);
	assert_non_null(strstr(diags.item[0].hint, hint));
}

static void test_nodes(void **state)
{
	struct yaml_node n = scalar("200MB", 0);
	uint64_t got = MARK;

	(void)state;
	assert_int_equal(yaml_size(&n, &diags, &got), 0);
	assert_int_equal(got, 200000000);
	n = scalar("1h", 1);	/* "1h: 1GB" and "\"1h\": 1GB" are the same */
	assert_int_equal(yaml_duration(&n, &diags, &got), 0);
	assert_int_equal(got, 3600);
	assert_int_equal(diags.count, 0);

	got = MARK;
	n = scalar("200", 0);
	assert_int_equal(yaml_size(&n, &diags, &got), -EINVAL);
	error_is("200: bare number", "200MB");
	n = scalar("1.5", 0);
	assert_int_equal(yaml_duration(&n, &diags, &got), -EINVAL);
	error_is("1.5: bare number", "30m");
	n = scalar("200mb", 0);
	assert_int_equal(yaml_size(&n, &diags, &got), -EINVAL);
	error_is("200mb: not a size", "MB");
	n = scalar("1 hour", 0);
	assert_int_equal(yaml_duration(&n, &diags, &got), -EINVAL);
	error_is("1 hour: not a duration", "s m h d w");
	n = scalar("", 0);
	n.kind = YAML_LIST;
	assert_int_equal(yaml_size(&n, &diags, &got), -EINVAL);
	error_is("a size is expected here", "200MB");
	n = scalar("", 0);
	n.kind = YAML_MAP;
	assert_int_equal(yaml_duration(&n, &diags, &got), -EINVAL);
	error_is("a duration is expected here", "30m");
	assert_int_equal(got, MARK);
}

static void test_whole_numbers(void **state)
{
	static const struct {
		const char *text;
		int quoted;
		uint64_t min, max;
		const char *error;	/* NULL: taken for `value` */
		uint64_t value;
	} row[] = {
		{ "0", 0, 0, 9, NULL, 0 },
		{ "9", 0, 0, 9, NULL, 9 },
		{ "10", 0, 0, 9, "10: out of range, 0 to 9", 0 },
		{ "0", 0, 1, 9, "0: out of range, 1 to 9", 0 },
		{ "18446744073709551615", 0, 0, UINT64_MAX, NULL, UINT64_MAX },
		{ "18446744073709551616", 0, 0, UINT64_MAX, "a whole number is expected here", 0 },
		{ "5", 1, 0, 9, "a whole number is expected here", 0 },	/* quoted: text */
		{ "5.0", 0, 0, 9, "a whole number is expected here", 0 },
		{ "-5", 0, 0, 9, "a whole number is expected here", 0 },
		{ "+5", 0, 0, 9, "a whole number is expected here", 0 },
		{ "5 ", 0, 0, 9, "a whole number is expected here", 0 },
		{ "5B", 0, 0, 9, "a whole number is expected here", 0 },
		{ "0x5", 0, 0, 9, "a whole number is expected here", 0 },
		{ "", 0, 0, 9, "a whole number is expected here", 0 },
		{ "yes", 0, 0, 9, "a whole number is expected here", 0 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(row); i++) {
		struct yaml_node n = scalar(row[i].text, row[i].quoted);
		uint64_t got = MARK;
		int r = yaml_uint(&n, &diags, row[i].min, row[i].max, &got);

		assert_int_equal(r, row[i].error ? -EINVAL : 0);
		assert_int_equal(got, row[i].error ? MARK : row[i].value);
		if (row[i].error)
			error_is(row[i].error, "");
	}
}

/* What status, why and alerts print can be read back: exact when one decimal holds it, else the nearest that it does. */
static void test_printed(void **state)
{
	static const struct good exact[] = {
		{ "0 B", 0 }, { "999 B", 999 }, { "1.0 kB", 1000 }, { "5.0 MB", 5000000 }, { "1.5 GB", 1500000000 },
		{ "999.9 GB", 999900000000 }, { "20.0 TB", 20000000000000 },
	};
	char buf[16];
	uint64_t got;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(exact); i++)
		assert_string_equal(format_bytes(exact[i].value, buf), exact[i].text);
	takes(parse_size, exact, ARRAY_SIZE(exact));
	for (uint64_t n = 1; n < 1000000000000000; n = n * 7 + 3) {	/* below PB, which nobody writes */
		assert_int_equal(parse_size(format_bytes(n, buf), &got), 0);
		assert_true((got > n ? got - n : n - got) <= n / 20);
	}
	for (uint64_t s = 0; s <= UINT32_MAX; s = s * 3 + 1) {
		assert_int_equal(parse_duration(format_duration(s, buf), &got), 0);
		assert_int_equal(got, s);
		assert_int_equal(parse_duration(format_duration(s / 60 * 60, buf), &got), 0);
		assert_int_equal(got, s / 60 * 60);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sizes), cmocka_unit_test(test_sizes_refused), cmocka_unit_test(test_durations),
		cmocka_unit_test(test_nodes), cmocka_unit_test(test_whole_numbers), cmocka_unit_test(test_printed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
