/* hash.c - see hash.h. The one file in lib that sees libsodium. */
#include "hash.h"

#include <sodium.h>

_Static_assert(sizeof(struct hash_key) == crypto_shorthash_KEYBYTES, "SipHash-2-4 key");

uint64_t hash_bytes(const struct hash_key *key, const void *data, size_t len)
{
	uint64_t h;

	crypto_shorthash((unsigned char *)&h, data, len, key->k);
	return h;
}

void hash_sum(const void *data, size_t len, uint8_t ret[HASH_SUM_LEN])
{
	crypto_generichash(ret, HASH_SUM_LEN, data, len, NULL, 0);
}

uint32_t hash_uid(const void *data, size_t len)
{
	uint8_t sum[HASH_SUM_LEN];
	uint32_t uid;

	hash_sum(data, len, sum);
	uid = (uint32_t)sum[0] | (uint32_t)sum[1] << 8 | (uint32_t)sum[2] << 16 | (uint32_t)sum[3] << 24;
	return uid ? uid : 1;
}
