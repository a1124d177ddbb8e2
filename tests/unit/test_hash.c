/* Published vectors: another hash, or the same with other byte order, would part us from our own stored state. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "hash.h"

/* Aumasson, Bernstein: "SipHash: a fast short-input PRF", appendix A: key 00..0f, message 00..0e. */
static void test_siphash_2_4(void **state)
{
	struct hash_key key;
	uint8_t msg[15];

	(void)state;
	for (unsigned i = 0; i < sizeof(key.k); i++)
		key.k[i] = (uint8_t)i;
	for (unsigned i = 0; i < sizeof(msg); i++)
		msg[i] = (uint8_t)i;
	assert_int_equal(hash_bytes(&key, msg, sizeof(msg)), 0xa129ca6149be45e5ULL);
	assert_int_equal(hash_bytes(&key, msg, 0), 0x726fdb47dd0e0e31ULL);
}

/* [H1] */
static void test_key_matters(void **state)
{
	struct hash_key a = { { 0 } }, b = { { 1 } };
	uint8_t msg[32] = { 0 };
	uint64_t h = hash_bytes(&a, msg, sizeof(msg));

	(void)state;
	assert_int_not_equal(h, hash_bytes(&b, msg, sizeof(msg)));
	for (unsigned bit = 0; bit < sizeof(msg) * 8; bit++) {
		msg[bit / 8] ^= (uint8_t)(1U << bit % 8);
		assert_int_not_equal(hash_bytes(&a, msg, sizeof(msg)), h);
		msg[bit / 8] ^= (uint8_t)(1U << bit % 8);
	}
}

#define MANY 21

/* [H2] Every count from none to more than two rounds of lanes, at every stride a caller may have. */
static void test_many_keys(void **state)
{
	struct hash_key key = { { 7, 1, 255 } };
	uint64_t data[MANY * 8], hash[MANY];

	(void)state;
	for (unsigned i = 0; i < MANY * 8; i++)
		data[i] = (i + 1) * 0x9e3779b97f4a7c15ULL;
	for (size_t words = HASH_KEY_LEN / 8; words <= 8; words++)
		for (unsigned n = 0; n <= MANY; n++) {
			memset(hash, 0xee, sizeof(hash));
			hash_keys(&key, data, words * 8, n, hash);
			for (unsigned i = 0; i < n; i++)
				assert_int_equal(hash[i], hash_bytes(&key, data + i * words, HASH_KEY_LEN));
			for (unsigned i = n; i < MANY; i++)
				assert_int_equal(hash[i], 0xeeeeeeeeeeeeeeeeULL);
		}
}

static void test_blake2b_256(void **state)
{
	static const uint8_t abc[HASH_SUM_LEN] = {	/* b2sum -l 256 of "abc" */
		0xbd, 0xdd, 0x81, 0x3c, 0x63, 0x42, 0x39, 0x72, 0x31, 0x71, 0xef, 0x3f, 0xee, 0x98, 0x57, 0x9b,
		0x94, 0x96, 0x4e, 0x3b, 0xb1, 0xcb, 0x3e, 0x42, 0x72, 0x62, 0xc8, 0xc0, 0x68, 0xd5, 0x23, 0x19,
	};
	uint8_t sum[HASH_SUM_LEN];

	(void)state;
	hash_sum("abc", 3, sum);
	assert_memory_equal(sum, abc, sizeof(sum));
}

/* The first four bytes of the sum, least significant first, on any machine: ids outlive a restart. */
static void test_uid(void **state)
{
	(void)state;
	assert_int_equal(hash_uid("abc", 3), 0x3c81ddbdU);
	assert_int_equal(hash_uid("", 0), 0xc051570eU);
	assert_int_not_equal(hash_uid("bulk-leak", 9), hash_uid("bulk-leal", 9));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_siphash_2_4),
		cmocka_unit_test(test_key_matters),
		cmocka_unit_test(test_many_keys),
		cmocka_unit_test(test_blake2b_256),
		cmocka_unit_test(test_uid),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
