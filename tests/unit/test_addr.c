/* Addresses and prefixes: text forms both ways, and arithmetic on bits against a bit-by-bit model. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "addr.h"

static uint64_t rng_state = 1;

static uint32_t rng(uint32_t below)
{
	rng_state ^= rng_state << 13;
	rng_state ^= rng_state >> 7;
	rng_state ^= rng_state << 17;
	return (uint32_t)(rng_state >> 20) % below;
}

static void test_text(void **state)
{
	static const struct {
		const char *in, *out;
		bool v4;
	} good[] = {
		{ "10.0.0.1", "10.0.0.1", true },
		{ "0.0.0.0", "0.0.0.0", true },
		{ "255.255.255.255", "255.255.255.255", true },
		{ "::ffff:10.0.0.1", "10.0.0.1", true },
		{ "fd00::1", "fd00::1", false },
		{ "FD00:0:0:0:0:0:0:1", "fd00::1", false },
		{ "::", "::", false },
		{ "::1", "::1", false },
		{ "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", false },
		{ "64:ff9b::192.0.2.33", "64:ff9b::c000:221", false },
	};
	static const char *const bad[] = {
		"", " ", "10", "10.0.0", "10.0.0.0.0", "10.0.0.256", "10.0.0.-1", "10.0.0.1 ", " 10.0.0.1", "10.0.0.01",
		"10.0.0.1/32", "0x0a.0.0.1", ":", ":::", "fd00::1::2", "fd00::12345", "fe80::1%eth0", "[::1]", "1:2:3:4:5:6:7",
		"1:2:3:4:5:6:7:8:9", "::ffff:10.0.0.256", "localhost",
	};
	struct addr a, keep;
	char buf[ADDR_STRLEN];

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(good); i++) {
		assert_int_equal(addr_parse(good[i].in, &a), 0);
		assert_string_equal(addr_format(&a, buf), good[i].out);
		assert_int_equal(addr_is_v4(&a), good[i].v4);
	}
	keep = a;
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(addr_parse(bad[i], &a), -EINVAL);
		assert_memory_equal(&a, &keep, sizeof(a));
	}
}

static void test_order(void **state)
{
	static const char *const ascending[] = { "::", "::1", "0.0.0.0", "9.255.255.255", "10.0.0.0", "255.255.255.255",
						 "::1:0:0:0", "64:ff9b::", "fd00::", "fe80::" };
	struct addr a, b;

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(ascending); i++)
		for (unsigned j = 0; j < ARRAY_SIZE(ascending); j++) {
			int c;

			assert_int_equal(addr_parse(ascending[i], &a) | addr_parse(ascending[j], &b), 0);
			c = addr_cmp(&a, &b);
			assert_int_equal((c > 0) - (c < 0), (i > j) - (i < j));
		}
}

static void test_prefix_text(void **state)
{
	static const struct {
		const char *in, *out;
		int r;
		uint8_t len;
	} row[] = {
		{ "10.0.0.0/8", "10.0.0.0/8", 0, 104 },
		{ "0.0.0.0/0", "0.0.0.0/0", 0, 96 },
		{ "10.0.0.1", "10.0.0.1/32", 0, 128 },
		{ "10.0.0.1/32", "10.0.0.1/32", 0, 128 },
		{ "fd00::/8", "fd00::/8", 0, 8 },
		{ "::/0", "::/0", 0, 0 },
		{ "fd00::1", "fd00::1/128", 0, 128 },
		{ "2001:db8:1:2::/64", "2001:db8:1:2::/64", 0, 64 },
		{ "::ffff:10.0.0.0/104", "10.0.0.0/8", 0, 104 },
		{ "10.0.0.1/8", "10.0.0.0/8", -ERANGE, 104 },
		{ "10.0.0.1/31", "10.0.0.0/31", -ERANGE, 127 },
		{ "fd00::1/64", "fd00::/64", -ERANGE, 64 },
		{ "::1/0", "::/0", -ERANGE, 0 },
	};
	static const char *const bad[] = {
		"", "/", "/8", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/+8", "10.0.0.0/08", "10.0.0.0/ 8",
		"10.0.0.0/8 ", "10.0.0.0/8/8", "10.0.0.0/4294967304", "10.0.0.0/18446744073709551624", "fd00::/129",
		"10.0.0/8", "10.0.0.0/255.0.0.0", "fd00::/0x8",
		"0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000/8",
	};
	struct prefix p, keep;
	char buf[PREFIX_STRLEN];

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(row); i++) {
		assert_int_equal(prefix_parse(row[i].in, &p), row[i].r);
		assert_string_equal(prefix_format(&p, buf), row[i].out);
		assert_int_equal(p.len, row[i].len);
	}
	keep = p;
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(prefix_parse(bad[i], &p), -EINVAL);
		assert_memory_equal(&p.addr, &keep.addr, sizeof(p.addr));
		assert_int_equal(p.len, keep.len);
	}
}

static bool bit(const struct addr *a, unsigned i)
{
	return a->b[i / 8] >> (7 - i % 8) & 1;
}

static void test_bits(void **state)
{
	(void)state;
	for (unsigned round = 0; round < 2000; round++) {
		struct addr a, m;
		struct prefix p;
		unsigned flip = rng(128);
		struct addr other;

		for (unsigned i = 0; i < sizeof(a.b); i++)
			a.b[i] = (uint8_t)rng(256);
		other = a;
		other.b[flip / 8] ^= (uint8_t)(0x80U >> flip % 8);
		for (unsigned len = 0; len <= 128; len++) {
			m = addr_mask(&a, (uint8_t)len);
			for (unsigned i = 0; i < 128; i++)
				assert_int_equal(bit(&m, i), i < len && bit(&a, i));
			p = (struct prefix){ m, (uint8_t)len };
			assert_true(prefix_contains(&p, &a));
			assert_int_equal(prefix_contains(&p, &other), flip >= len);
		}
	}
}

/* What is printed is read back as the same. */
static void test_round_trip(void **state)
{
	(void)state;
	for (unsigned round = 0; round < 20000; round++) {
		struct prefix p = { { { 0 } }, 0 }, q;
		char buf[PREFIX_STRLEN], host[ADDR_STRLEN];
		struct addr a, back;

		for (unsigned i = 0; i < sizeof(a.b); i++)
			a.b[i] = rng(3) ? (uint8_t)rng(256) : 0;
		if (rng(2))
			a = addr_from_v4(a.b);
		assert_int_equal(addr_parse(addr_format(&a, host), &back), 0);
		assert_int_equal(addr_cmp(&a, &back), 0);
		p.len = (uint8_t)(addr_is_v4(&a) ? 96 + rng(33) : rng(129));
		p.addr = addr_mask(&a, p.len);
		assert_int_equal(prefix_parse(prefix_format(&p, buf), &q), 0);
		assert_int_equal(q.len, p.len);
		assert_int_equal(addr_cmp(&q.addr, &p.addr), 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_text),	cmocka_unit_test(test_order),	   cmocka_unit_test(test_prefix_text),
		cmocka_unit_test(test_bits),	cmocka_unit_test(test_round_trip),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
