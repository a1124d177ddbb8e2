/* hash_keys.c - SipHash-2-4 of four keys at once, a key in each 64-bit lane of a vector; see hash.h [H2].
 *
 * One key alone is a chain of 14 rounds in which every step waits for the one before: 20 ns, whatever else the CPU could do.
 * Batches have many keys: side by side they cost 10 ns each with AVX2 and 7 with AVX-512VL, which rotates in one instruction.
 */
#include "hash.h"

#include <string.h>

#if defined(__x86_64__)

#define LANES 4

typedef uint64_t lanes __attribute__((vector_size(8 * LANES)));
typedef uint32_t halves __attribute__((vector_size(8 * LANES)));
typedef uint16_t quarters __attribute__((vector_size(8 * LANES)));

#define EVERYWHERE(x) ((lanes){ (x), (x), (x), (x) })

/* Rotations by whole parts of a lane are one shuffle where the CPU has no rotation. */
#define ROTL(x, n) ((x) << (n) | (x) >> (64 - (n)))
#define ROTL32(x)  ((lanes)__builtin_shufflevector((halves)(x), (halves)(x), 1, 0, 3, 2, 5, 4, 7, 6))
#define ROTL16(x)                                                                                                      \
	((lanes)__builtin_shufflevector((quarters)(x), (quarters)(x), 3, 0, 1, 2, 7, 4, 5, 6, 11, 8, 9, 10, 15, 12,    \
					13, 14))

#define ROUND(v)                                                                                                       \
	do {                                                                                                           \
		v[0] += v[1];                                                                                          \
		v[2] += v[3];                                                                                          \
		v[1] = ROTL(v[1], 13) ^ v[0];                                                                          \
		v[3] = ROTL16(v[3]) ^ v[2];                                                                            \
		v[0] = ROTL32(v[0]) + v[3];                                                                            \
		v[2] += v[1];                                                                                          \
		v[3] = ROTL(v[3], 21) ^ v[0];                                                                          \
		v[1] = ROTL(v[1], 17) ^ v[2];                                                                          \
		v[2] = ROTL32(v[2]);                                                                                   \
	} while (0)

#define WORD(v, m)                                                                                                     \
	do {                                                                                                           \
		v[3] ^= (m);                                                                                           \
		ROUND(v);                                                                                              \
		ROUND(v);                                                                                              \
		v[0] ^= (m);                                                                                           \
	} while (0)

/* A function for an instruction set, all of it in one body: vectors of 32 bytes cannot be handed to functions that know
 * smaller ones only. How many of the n were done: whole fours. */
#define SIP_FOURS(name, isa)                                                                                           \
	__attribute__((target(isa))) static unsigned name(const uint64_t k[2], const uint8_t *data, size_t stride,     \
							  unsigned n, uint64_t *ret)                                   \
	{                                                                                                              \
		unsigned i = 0;                                                                                        \
                                                                                                                       \
		for (; i + LANES <= n; i += LANES) {                                                                   \
			const uint64_t *a = (const uint64_t *)(data + i * stride), *b = a + stride / 8,                \
				       *c = b + stride / 8, *d = c + stride / 8;                                       \
			lanes v[4] = {                                                                                 \
				EVERYWHERE(k[0] ^ 0x736f6d6570736575),                                                 \
				EVERYWHERE(k[1] ^ 0x646f72616e646f6d),                                                 \
				EVERYWHERE(k[0] ^ 0x6c7967656e657261),                                                 \
				EVERYWHERE(k[1] ^ 0x7465646279746573),                                                 \
			};                                                                                             \
			lanes m;                                                                                       \
                                                                                                                       \
			for (unsigned w = 0; w < HASH_KEY_LEN / 8; w++) {                                              \
				m = (lanes){ a[w], b[w], c[w], d[w] };                                                 \
				WORD(v, m);                                                                            \
			}                                                                                              \
			m = EVERYWHERE((uint64_t)HASH_KEY_LEN << 56);                                                  \
			WORD(v, m);                                                                                    \
			v[2] ^= EVERYWHERE(0xff);                                                                      \
			for (unsigned r = 0; r < 4; r++)                                                               \
				ROUND(v);                                                                              \
			m = v[0] ^ v[1] ^ v[2] ^ v[3];                                                                 \
			memcpy(ret + i, &m, sizeof(m));                                                                \
		}                                                                                                      \
		return i;                                                                                              \
	}

SIP_FOURS(fours_avx2, "avx2")
SIP_FOURS(fours_avx512, "avx512f,avx512vl")

static unsigned fours(const struct hash_key *key, const uint8_t *data, size_t stride, unsigned n, uint64_t *ret)
{
	uint64_t k[2];

	memcpy(k, key->k, sizeof(k));
	if (__builtin_cpu_supports("avx512vl"))
		return fours_avx512(k, data, stride, n, ret);
	if (__builtin_cpu_supports("avx2"))
		return fours_avx2(k, data, stride, n, ret);
	return 0;
}

#else

static unsigned fours(const struct hash_key *key, const uint8_t *data, size_t stride, unsigned n, uint64_t *ret)
{
	(void)key, (void)data, (void)stride, (void)n, (void)ret;
	return 0;
}

#endif

void hash_keys(const struct hash_key *key, const void *data, size_t stride, unsigned n, uint64_t *ret)
{
	const uint8_t *d = data;

	for (unsigned i = fours(key, d, stride, n, ret); i < n; i++)
		ret[i] = hash_bytes(key, d + i * stride, HASH_KEY_LEN);
}
