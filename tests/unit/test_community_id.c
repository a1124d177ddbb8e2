/* test_community_id.c - the published vectors of the Community ID specification, both directions of each. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "community_id.h"

struct vector {
	const char *src, *dst;
	uint8_t proto;
	uint16_t sport, dport, seed;
	const char *id;
};

static const struct vector vectors[] = {
	{ "128.232.110.120", "66.35.250.204", 6, 34855, 80, 0, "1:LQU9qZlK+B5F3KDmev6m5PMibrg=" },
	{ "128.232.110.120", "66.35.250.204", 6, 34855, 80, 1, "1:3V71V58M3Ksw/yuFALMcW0LAHvc=" },
	{ "66.35.250.204", "128.232.110.120", 6, 80, 34855, 0, "1:LQU9qZlK+B5F3KDmev6m5PMibrg=" },
	{ "192.168.1.52", "8.8.8.8", 17, 54585, 53, 0, "1:d/FP5EW3wiY1vCndhwleRRKHowQ=" },
	{ "8.8.8.8", "192.168.1.52", 17, 53, 54585, 0, "1:d/FP5EW3wiY1vCndhwleRRKHowQ=" },
	{ "192.168.1.52", "8.8.8.8", 17, 54585, 53, 1, "1:Q9We8WO3piVF8yEQBNJF4uiSVrI=" },
	{ "192.168.170.8", "192.168.170.56", 132, 7, 80, 0, "1:jQgCxbku+pNGw8WPbEc/TS/uTpQ=" },
	{ "192.168.170.56", "192.168.170.8", 132, 80, 7, 0, "1:jQgCxbku+pNGw8WPbEc/TS/uTpQ=" },
	{ "192.168.0.89", "192.168.0.1", 1, 8, 0, 0, "1:X0snYXpgwiv9TZtqg64sgzUn6Dk=" },
	{ "192.168.0.1", "192.168.0.89", 1, 0, 0, 0, "1:X0snYXpgwiv9TZtqg64sgzUn6Dk=" },
	/* No counterpart: the code is the second port, and the direction stays. */
	{ "192.168.0.89", "192.168.0.1", 1, 20, 0, 0, "1:3o2RFccXzUgjl7zDpqmY7yJi8rI=" },
	{ "192.168.0.89", "192.168.0.1", 1, 20, 1, 0, "1:tz/fHIDUHs19NkixVVoOZywde+I=" },
	{ "fe80::200:86ff:fe05:80da", "fe80::260:97ff:fe07:69ea", 58, 135, 0, 0, "1:dGHyGvjMfljg6Bppwm3bg0LO8TY=" },
	{ "fe80::260:97ff:fe07:69ea", "fe80::200:86ff:fe05:80da", 58, 136, 0, 0, "1:dGHyGvjMfljg6Bppwm3bg0LO8TY=" },
	{ "2001:470:e5bf:dead:4957:2174:e82c:4887", "2607:f8b0:400c:c03::1a", 6, 63943, 25, 0,
	  "1:/qFaeAR+gFe1KYjMzVDsMv+wgU4=" },
};

static void published_vectors(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
		const struct vector *v = &vectors[i];
		char id[COMMUNITY_ID_LEN];
		struct addr src, dst;

		assert_int_equal(addr_parse(v->src, &src), 0);
		assert_int_equal(addr_parse(v->dst, &dst), 0);
		memset(id, 'x', sizeof(id));
		community_id(&src, &dst, v->proto, v->sport, v->dport, v->seed, id);
		assert_string_equal(id, v->id);
	}
}

/* One host talks to itself: the ports alone give the order. */
static void same_address_both_ways(void **state)
{
	char one[COMMUNITY_ID_LEN], two[COMMUNITY_ID_LEN];
	struct addr a;

	(void)state;
	assert_int_equal(addr_parse("10.0.0.1", &a), 0);
	community_id(&a, &a, 6, 80, 40000, 0, one);
	community_id(&a, &a, 6, 40000, 80, 0, two);
	assert_string_equal(one, two);
	community_id(&a, &a, 6, 40000, 81, 0, two);
	assert_string_not_equal(one, two);
}

static void ports_count_only_where_specified(void **state)
{
	char one[COMMUNITY_ID_LEN], two[COMMUNITY_ID_LEN];
	struct addr a, b;

	(void)state;
	assert_int_equal(addr_parse("10.0.0.1", &a), 0);
	assert_int_equal(addr_parse("10.0.0.2", &b), 0);
	community_id(&a, &b, 47, 1, 2, 0, one);
	community_id(&b, &a, 47, 9, 8, 0, two);
	assert_string_equal(one, two);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(published_vectors),
		cmocka_unit_test(same_address_both_ways),
		cmocka_unit_test(ports_count_only_where_specified),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
