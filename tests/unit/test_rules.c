/* test_rules.c - daemon/rules_class.h against the obvious model: look at every prefix, the first list that has one decides. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "rules_class.h"

static struct prefix v4(uint8_t a, uint8_t b, uint8_t c, uint8_t d, uint8_t len)
{
	const uint8_t addr[4] = { a, b, c, d };

	return (struct prefix){ .addr = addr_from_v4(addr), .len = (uint8_t)(96 + len) };
}

static bool covers(const struct prefix *p, const struct addr *a)
{
	for (unsigned i = 0; i < p->len; i++) {
		if ((p->addr.b[i / 8] ^ a->b[i / 8]) & (0x80 >> i % 8))
			return false;
	}
	return true;
}

static uint8_t model(const struct rules_list *list, size_t nlists, const struct addr *a)
{
	for (size_t l = 0; l < nlists; l++)
		for (size_t i = 0; i < list[l].count; i++) {
			const struct prefix *p = &list[l].prefix[i];

			if (addr_is_v4(a) == (addr_is_v4(&p->addr) && p->len >= 96) && covers(p, a))
				return list[l].cls;
		}
	return 0;
}

static uint8_t found(const struct rules_range *r, size_t n, const struct addr *a)
{
	for (size_t i = 0; i < n; i++)
		if (addr_cmp(&r[i].lo, a) <= 0 && addr_cmp(a, &r[i].hi) <= 0)
			return r[i].cls;
	return 0;
}

/* [K1] */
static void check_form(const struct rules_range *r, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const struct addr next = rules_addr_next(&r[i].hi);

		assert_true(addr_cmp(&r[i].lo, &r[i].hi) <= 0);
		assert_true(r[i].cls != 0);
		assert_true(!r[i].last || i + 1 == n);
		if (i + 1 == n)
			continue;
		assert_true(addr_cmp(&r[i].hi, &r[i + 1].lo) < 0);
		assert_true(addr_cmp(&next, &r[i + 1].lo) != 0 || r[i].cls != r[i + 1].cls);
	}
}

static void check_probe(const struct rules_list *list, size_t nlists, const struct rules_range *r, size_t n,
			const struct addr *a, bool v6)
{
	if (addr_is_v4(a) != v6)
		assert_int_equal(found(r, n, a), model(list, nlists, a));
}

static struct addr before(struct addr a)
{
	for (int i = 15; i >= 0 && a.b[i]-- == 0; i--)
		;
	return a;
}

/* Every edge of every prefix and its neighbours. */
static void check_lists(const struct rules_list *list, size_t nlists)
{
	for (int v6 = 0; v6 <= 1; v6++) {
		struct rules_range *r = NULL;
		size_t n = 0;

		assert_int_equal(rules_ranges(v6, list, nlists, &r, &n), 0);
		check_form(r, n);
		for (size_t l = 0; l < nlists; l++)
			for (size_t i = 0; i < list[l].count; i++) {
				struct addr lo = list[l].prefix[i].addr, hi = lo, x;

				for (unsigned b = list[l].prefix[i].len; b < 128; b++)
					hi.b[b / 8] |= (uint8_t)(0x80 >> b % 8);
				check_probe(list, nlists, r, n, &lo, v6);
				check_probe(list, nlists, r, n, &hi, v6);
				x = before(lo);
				check_probe(list, nlists, r, n, &x, v6);
				x = rules_addr_next(&hi);
				check_probe(list, nlists, r, n, &x, v6);
			}
		free(r);
	}
}

static void hole(void **state)
{
	const struct prefix inside = v4(10, 0, 0, 0, 8), out = v4(10, 250, 0, 0, 16);
	const struct prefix below_hole = v4(10, 249, 255, 255, 32), above_hole = v4(10, 251, 0, 0, 32);
	const struct rules_list list[] = { { &out, 1, 0 }, { &inside, 1, 1 } };
	struct rules_range *r = NULL;
	size_t n = 0;

	(void)state;
	assert_int_equal(rules_ranges(false, list, 2, &r, &n), 0);
	assert_int_equal(n, 2);
	assert_int_equal(found(r, n, &below_hole.addr), 1);
	assert_int_equal(found(r, n, &out.addr), 0);
	assert_int_equal(found(r, n, &above_hole.addr), 1);
	assert_false(r[1].last);
	free(r);
	check_lists(list, 2);
}

static void whole_families(void **state)
{
	const struct prefix all[] = { v4(0, 0, 0, 0, 0), { .len = 0 } }, some = v4(255, 255, 255, 255, 32);
	const struct rules_list list[] = { { &some, 1, 2 }, { all, 2, 1 } };
	struct rules_range *r = NULL;
	size_t n = 0;

	(void)state;
	check_lists(list, 2);
	assert_int_equal(rules_ranges(false, list, 2, &r, &n), 0);
	assert_int_equal(n, 2);
	assert_true(r[1].last);
	free(r);
	assert_int_equal(rules_ranges(true, list, 2, &r, &n), 0);
	assert_int_equal(n, 1);	/* [K3] */
	assert_true(r[0].last);
	free(r);
}

static void empty(void **state)
{
	const struct prefix p = v4(10, 0, 0, 0, 8);
	const struct rules_list list[] = { { NULL, 0, 1 }, { &p, 1, 0 } };
	struct rules_range *r = (void *)&p;
	size_t n = 1;

	(void)state;
	assert_int_equal(rules_ranges(false, list, 2, &r, &n), 0);
	assert_int_equal(n, 0);
	assert_null(r);
}

static uint32_t seed = 12345;

static uint32_t below(uint32_t n)
{
	seed = seed * 1664525 + 1013904223;
	return (seed >> 8) % n;
}

/* Few distinct bits, so that prefixes nest, repeat and touch. */
static struct prefix random_prefix(void)
{
	struct prefix p = { .len = (uint8_t)below(129) };

	if (below(2)) {
		p = v4((uint8_t)(below(2) ? 255 : 10), (uint8_t)below(3), 0, (uint8_t)(below(2) ? 255 : 0), (uint8_t)below(33));
	} else {
		memset(p.addr.b, below(2) ? 0xff : 0, sizeof(p.addr.b));
		p.addr.b[1] = (uint8_t)below(3);
	}
	for (unsigned b = p.len; b < 128; b++)
		p.addr.b[b / 8] &= (uint8_t)~(0x80 >> b % 8);
	return p;
}

static void against_model(void **state)
{
	static struct prefix p[3][12];

	(void)state;
	for (int round = 0; round < 20000; round++) {
		struct rules_list list[3];

		for (size_t l = 0; l < 3; l++) {
			list[l] = (struct rules_list){ p[l], below(12), (uint8_t)below(3) };
			for (size_t i = 0; i < list[l].count; i++)
				p[l][i] = random_prefix();
		}
		check_lists(list, 3);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hole),
		cmocka_unit_test(whole_families),
		cmocka_unit_test(empty),
		cmocka_unit_test(against_model),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
