/* Random prefixes against a linear scan; the ranges' invariants; minimizing keeps the set of addresses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "prefix_set.h"

#define BITS 70
#define MANY 60

struct said {
	struct prefix p;
	int slot;		/* -1: bit */
	int32_t value;
};

static uint64_t rng_state = 1;

static uint32_t rng(uint32_t below)
{
	rng_state ^= rng_state << 13;
	rng_state ^= rng_state >> 7;
	rng_state ^= rng_state << 17;
	return (uint32_t)(rng_state >> 20) % below;
}

/* Few distinct bytes, so that prefixes lie in each other and touch. */
static struct addr random_addr(void)
{
	static const uint8_t byte[] = { 0, 1, 0x7f, 0x80, 0xfe, 0xff };
	struct addr a;

	for (unsigned i = 0; i < 16; i++)
		a.b[i] = rng(3) ? (rng(2) ? 0 : 0xff) : byte[rng(sizeof(byte))];
	if (rng(2)) {
		uint8_t b4[4] = { a.b[0], a.b[5], a.b[9], a.b[15] };

		a = addr_from_v4(b4);
	} else if (rng(4) == 0) {
		memset(a.b, 0, 10);	/* near the IPv4 block */
	}
	return a;
}

static struct prefix random_prefix(void)
{
	struct prefix p = { random_addr(), 0 };

	p.len = (uint8_t)(addr_is_v4(&p.addr) ? 96 + rng(33) : rng(129));
	p.addr = addr_mask(&p.addr, p.len);
	return p;
}

static bool naive_contains(const struct prefix *p, const struct addr *a)
{
	bool v4 = p->len >= 96 && addr_is_v4(&p->addr);

	if (v4 != addr_is_v4(a))
		return false;
	for (unsigned i = 0; i < p->len; i++)
		if ((p->addr.b[i / 8] ^ a->b[i / 8]) >> (7 - i % 8) & 1)
			return false;
	return true;
}

static void compare(const struct prefix_set *s, const struct said *v, unsigned n, const struct addr *a)
{
	const struct prefix_range *r = prefix_set_range(s, prefix_set_find(s, a));
	int32_t value[PREFIX_SET_SLOTS] = { -1, -1 };
	int len[PREFIX_SET_SLOTS] = { -1, -1 };
	uint8_t bit[BITS] = { 0 };

	for (unsigned i = 0; i < n; i++) {
		if (!naive_contains(&v[i].p, a))
			continue;
		if (v[i].slot < 0) {
			bit[v[i].value] = 1;
		} else if (v[i].p.len >= len[v[i].slot]) {
			len[v[i].slot] = v[i].p.len;
			value[v[i].slot] = v[i].value;
		}
	}
	for (unsigned i = 0; i < BITS; i++)
		assert_int_equal(prefix_set_bit(s, r->label, i), bit[i]);
	for (unsigned i = 0; i < PREFIX_SET_SLOTS; i++)
		assert_int_equal(prefix_set_value(s, r->label, i), value[i]);
}

static struct addr step(struct addr a, int by)
{
	for (int i = 15; i >= 0; i--) {
		a.b[i] = (uint8_t)(a.b[i] + by);
		if (by > 0 ? a.b[i] != 0 : a.b[i] != 0xff)
			break;
	}
	return a;
}

static void check_ranges(const struct prefix_set *s)
{
	const struct addr zero = { { 0 } };

	assert_int_equal(addr_cmp(&prefix_set_range(s, 0)->start, &zero), 0);
	for (uint32_t i = 0; i < prefix_set_count(s); i++) {
		assert_true(prefix_set_range(s, i)->label < prefix_set_labels(s));
		if (i == 0)
			continue;
		assert_true(addr_cmp(&prefix_set_range(s, i - 1)->start, &prefix_set_range(s, i)->start) < 0);
		assert_int_not_equal(prefix_set_range(s, i - 1)->label, prefix_set_range(s, i)->label);
	}
}

static void check_span(const struct prefix_set *s)
{
	struct prefix p = random_prefix();
	uint32_t first, last;

	prefix_set_span(s, &p, &first, &last);
	for (unsigned k = 0; k < 20; k++) {
		struct addr a = random_addr();
		uint32_t i = prefix_set_find(s, &a);

		if (naive_contains(&p, &a))
			assert_true(i >= first && i <= last && prefix_set_meets(s, &p, i));
	}
}

static void test_random(void **state)
{
	(void)state;
	for (unsigned round = 0; round < 400; round++) {
		struct said v[MANY];
		struct prefix_set *s;
		unsigned n = rng(MANY + 1);

		assert_int_equal(prefix_set_new(BITS, &s), 0);
		for (unsigned i = 0; i < n; i++) {
			v[i].p = i && rng(5) == 0 ? v[rng(i)].p : random_prefix();
			v[i].slot = (int)rng(3) - 1;
			v[i].value = (int32_t)rng(v[i].slot < 0 ? BITS : 5);
			if (v[i].slot < 0)
				assert_int_equal(prefix_set_add(s, &v[i].p, (uint32_t)v[i].value), 0);
			else
				assert_int_equal(prefix_set_put(s, &v[i].p, (unsigned)v[i].slot, v[i].value), 0);
		}
		assert_int_equal(prefix_set_build(s), 0);
		check_ranges(s);
		for (uint32_t i = 0; i < prefix_set_count(s); i++) {
			struct addr a = prefix_set_range(s, i)->start, before = step(a, -1), after = step(a, 1);

			compare(s, v, n, &a);
			compare(s, v, n, &before);
			compare(s, v, n, &after);
		}
		for (unsigned i = 0; i < 100; i++) {
			struct addr a = random_addr();

			compare(s, v, n, &a);
			check_span(s);
		}
		prefix_set_free(s);
	}
}

static bool any_contains(const struct prefix *v, unsigned n, const struct addr *a)
{
	for (unsigned i = 0; i < n; i++)
		if (naive_contains(&v[i], a))
			return true;
	return false;
}

static void test_minimize(void **state)
{
	(void)state;
	for (unsigned round = 0; round < 2000; round++) {
		struct prefix v[MANY], w[MANY];
		unsigned n = rng(MANY + 1), m;

		for (unsigned i = 0; i < n; i++)
			v[i] = random_prefix();
		if (n)
			memcpy(w, v, n * sizeof(*v));
		m = prefix_minimize(w, n);
		assert_true(m <= n);
		for (unsigned i = 0; i + 1 < m; i++) {
			assert_true(prefix_cmp(&w[i], &w[i + 1]) < 0);
			assert_false(prefix_covers(&w[i], &w[i + 1]));
		}
		for (unsigned i = 0; i < 60; i++) {
			struct addr a = i < n ? v[i].addr : random_addr();

			assert_int_equal(any_contains(w, m, &a), any_contains(v, n, &a));
		}
	}
}

static void test_halves_join(void **state)
{
	struct prefix v[4];

	(void)state;
	assert_int_equal(prefix_parse("10.0.0.0/9", &v[0]), 0);
	assert_int_equal(prefix_parse("10.128.0.0/10", &v[1]), 0);
	assert_int_equal(prefix_parse("10.192.0.0/10", &v[2]), 0);
	assert_int_equal(prefix_parse("10.1.2.3", &v[3]), 0);
	assert_int_equal(prefix_minimize(v, 4), 1);
	assert_int_equal(v[0].len, 96 + 8);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_minimize),
		cmocka_unit_test(test_halves_join),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
