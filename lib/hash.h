/* hash.h - keyed hash for every table: SipHash-2-4 (Aumasson, Bernstein 2012) by libsodium.
 *
 * [H1] The key is 16 random bytes, drawn once when the memory area is made; who does not know it cannot build
 *      collisions. Two starts of the daemon differ.
 * [H2] hash_keys() and hash_bytes() of the same bytes are equal, on every CPU.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct hash_key {
	uint8_t k[16];
};

#define HASH_SUM_LEN 32
#define HASH_KEY_LEN 32	/* a table key */

uint64_t hash_bytes(const struct hash_key *key, const void *data, size_t len);

/* ret[i] of the HASH_KEY_LEN bytes at data + i * stride, for i < n: several at once where the CPU can. data and stride are
 * multiples of 8. */
void hash_keys(const struct hash_key *key, const void *data, size_t stride, unsigned n, uint64_t *ret);

/* Stable 32-bit name of a text, never 0: unkeyed BLAKE2b. For ids that must survive restarts and reloads. */
uint32_t hash_uid(const void *data, size_t len);

/* BLAKE2b-256 (RFC 7693), unkeyed: checksums of blobs and files. */
void hash_sum(const void *data, size_t len, uint8_t ret[HASH_SUM_LEN]);
