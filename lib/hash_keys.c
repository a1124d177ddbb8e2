/* hash_keys.c - SipHash-2-4 of four or eight keys at once, a key in each 64-bit lane of a vector; see hash.h [H2].
 *
 * One key alone is a chain of 14 rounds in which every step waits for the one before: 20 ns, whatever else the CPU could do.
 * Batches have many keys: side by side they cost 10 ns each with AVX2 and 4 with AVX-512, which rotates in one instruction.
 */
#include "hash.h"

#include <string.h>

#if defined(__x86_64__)

typedef uint64_t four __attribute__((vector_size(32)));
typedef uint32_t four_halves __attribute__((vector_size(32)));
typedef uint16_t four_quarters __attribute__((vector_size(32)));
typedef uint64_t eight __attribute__((vector_size(64)));
typedef uint64_t row __attribute__((vector_size(HASH_KEY_LEN), aligned(8)));	/* a key */

#define EVERYWHERE(vec, x) ((vec){ 0 } + (x))
#define PICK		   __builtin_shufflevector

#define ROTL(x, n)	(((x) << (n)) | ((x) >> (64 - (n))))
#define EIGHT_ROTL16(x) ROTL(x, 16)
#define EIGHT_ROTL32(x) ROTL(x, 32)
/* By whole parts of a lane: one shuffle where the CPU has no rotation. */
#define FOUR_ROTL32(x)	((four)PICK((four_halves)(x), (four_halves)(x), 1, 0, 3, 2, 5, 4, 7, 6))
#define FOUR_ROTL16(x)                                                                                                 \
	((four)PICK((four_quarters)(x), (four_quarters)(x), 3, 0, 1, 2, 7, 4, 5, 6, 11, 8, 9, 10, 15, 12, 13, 14))

/* m[w]: word w of every key. */
#define FOUR_LOAD(m, at, stride)                                                                                       \
	do {                                                                                                           \
		const four r0 = *(const row *)(at), r1 = *(const row *)((at) + (stride)),                              \
			   r2 = *(const row *)((at) + 2 * (stride)), r3 = *(const row *)((at) + 3 * (stride));         \
		const four even01 = PICK(r0, r1, 0, 4, 2, 6), odd01 = PICK(r0, r1, 1, 5, 3, 7);                        \
		const four even23 = PICK(r2, r3, 0, 4, 2, 6), odd23 = PICK(r2, r3, 1, 5, 3, 7);                        \
                                                                                                                       \
		m[0] = PICK(even01, even23, 0, 1, 4, 5);                                                               \
		m[1] = PICK(odd01, odd23, 0, 1, 4, 5);                                                                 \
		m[2] = PICK(even01, even23, 2, 3, 6, 7);                                                               \
		m[3] = PICK(odd01, odd23, 2, 3, 6, 7);                                                                 \
	} while (0)

/* Two fours side by side: keys i and i + 4 in one row. */
#define EIGHT_ROW(at, stride, i)                                                                                       \
	PICK(*(const row *)((at) + (i) * (stride)), *(const row *)((at) + ((i) + 4) * (stride)), 0, 1, 2, 3, 4, 5, 6, 7)
#define EIGHT_LOAD(m, at, stride)                                                                                      \
	do {                                                                                                           \
		const eight r0 = EIGHT_ROW(at, stride, 0), r1 = EIGHT_ROW(at, stride, 1),                              \
			    r2 = EIGHT_ROW(at, stride, 2), r3 = EIGHT_ROW(at, stride, 3);                              \
		const eight even01 = PICK(r0, r1, 0, 8, 2, 10, 4, 12, 6, 14),                                          \
			    odd01 = PICK(r0, r1, 1, 9, 3, 11, 5, 13, 7, 15);                                           \
		const eight even23 = PICK(r2, r3, 0, 8, 2, 10, 4, 12, 6, 14),                                          \
			    odd23 = PICK(r2, r3, 1, 9, 3, 11, 5, 13, 7, 15);                                           \
                                                                                                                       \
		m[0] = PICK(even01, even23, 0, 1, 8, 9, 4, 5, 12, 13);                                                 \
		m[1] = PICK(odd01, odd23, 0, 1, 8, 9, 4, 5, 12, 13);                                                   \
		m[2] = PICK(even01, even23, 2, 3, 10, 11, 6, 7, 14, 15);                                               \
		m[3] = PICK(odd01, odd23, 2, 3, 10, 11, 6, 7, 14, 15);                                                 \
	} while (0)

#define ROUND(v, rotl16, rotl32)                                                                                       \
	do {                                                                                                           \
		v[0] += v[1];                                                                                          \
		v[2] += v[3];                                                                                          \
		v[1] = ROTL(v[1], 13) ^ v[0];                                                                          \
		v[3] = rotl16(v[3]) ^ v[2];                                                                            \
		v[0] = rotl32(v[0]) + v[3];                                                                            \
		v[2] += v[1];                                                                                          \
		v[3] = ROTL(v[3], 21) ^ v[0];                                                                          \
		v[1] = ROTL(v[1], 17) ^ v[2];                                                                          \
		v[2] = rotl32(v[2]);                                                                                   \
	} while (0)

/* A function for an instruction set, all of it in one body: vectors cannot be handed to functions that know smaller ones
 * only. How many of the n were done: whole lots of `lanes`. */
#define SIP(name, isa, vec, lanes, load, rotl16, rotl32)                                                               \
	__attribute__((target(isa))) static unsigned name(const uint64_t k[2], const uint8_t *data, size_t stride,     \
							  unsigned n, uint64_t *ret)                                   \
	{                                                                                                              \
		unsigned i = 0;                                                                                        \
                                                                                                                       \
		for (; i + (lanes) <= n; i += (lanes)) {                                                               \
			const uint8_t *at = data + i * stride;                                                         \
			vec v[4] = {                                                                                   \
				EVERYWHERE(vec, k[0] ^ 0x736f6d6570736575),                                            \
				EVERYWHERE(vec, k[1] ^ 0x646f72616e646f6d),                                            \
				EVERYWHERE(vec, k[0] ^ 0x6c7967656e657261),                                            \
				EVERYWHERE(vec, k[1] ^ 0x7465646279746573),                                            \
			};                                                                                             \
			vec m[5], sum;                                                                                 \
                                                                                                                       \
			load(m, at, stride);                                                                           \
			m[4] = EVERYWHERE(vec, (uint64_t)HASH_KEY_LEN << 56);                                          \
			for (unsigned w = 0; w < 5; w++) {                                                             \
				v[3] ^= m[w];                                                                          \
				ROUND(v, rotl16, rotl32);                                                              \
				ROUND(v, rotl16, rotl32);                                                              \
				v[0] ^= m[w];                                                                          \
			}                                                                                              \
			v[2] ^= EVERYWHERE(vec, 0xff);                                                                 \
			for (unsigned r = 0; r < 4; r++)                                                               \
				ROUND(v, rotl16, rotl32);                                                              \
			sum = v[0] ^ v[1] ^ v[2] ^ v[3];                                                               \
			memcpy(ret + i, &sum, sizeof(sum));                                                            \
		}                                                                                                      \
		return i;                                                                                              \
	}

SIP(by_four, "avx2", four, 4, FOUR_LOAD, FOUR_ROTL16, FOUR_ROTL32)
SIP(by_eight, "avx512f", eight, 8, EIGHT_LOAD, EIGHT_ROTL16, EIGHT_ROTL32)

static unsigned together(const struct hash_key *key, const uint8_t *data, size_t stride, unsigned n, uint64_t *ret)
{
	unsigned done = 0;
	uint64_t k[2];

	memcpy(k, key->k, sizeof(k));
	if (__builtin_cpu_supports("avx512f"))
		done = by_eight(k, data, stride, n, ret);
	if (__builtin_cpu_supports("avx2"))
		done += by_four(k, data + done * stride, stride, n - done, ret + done);
	return done;
}

#else

static unsigned together(const struct hash_key *key, const uint8_t *data, size_t stride, unsigned n, uint64_t *ret)
{
	(void)key, (void)data, (void)stride, (void)n, (void)ret;
	return 0;
}

#endif

void hash_keys(const struct hash_key *key, const void *data, size_t stride, unsigned n, uint64_t *ret)
{
	const uint8_t *d = data;

	for (unsigned i = together(key, d, stride, n, ret); i < n; i++)
		ret[i] = hash_bytes(key, d + i * stride, HASH_KEY_LEN);
}
