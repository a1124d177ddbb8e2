/* table.h - concurrent hash index over fixed records in a caller-given memory area.
 *
 * The caller owns two arrays: `tags` (one byte a slot, groups of eight, 64-byte aligned) and `records` (stride bytes a
 * slot; the first 32 bytes of a record are its key). A record is named by its slot number; nothing holds a pointer,
 * so another process that maps the area elsewhere reads the same table.
 *
 * [T1] Threads    Any number of threads may find and insert at once; one thread at a time evicts.
 * [T2] Progress   find takes no lock and writes nothing. insert holds the claim bit of the key's home group.
 * [T3] Unique     At most one live record a key, also when several threads insert it at once.
 * [T4] Bound      At most TABLE_PROBE groups are looked at, whatever the hash; no slot there is -ENOSPC, never
 *                 allocation. Fixed capacity.
 * [T5] Crash      After every instruction the table is usable after table_recover() in a process that is alone: a kill
 *                 loses no published record and publishes no half-written key.
 * [T6] Lifetime   A slot number is valid until the record is evicted; eviction is two steps, retire and release,
 *                 between which the caller waits until no thread can still hold the number (grace period).
 * [T7] Zero       A freshly inserted record's bytes beyond the key are what release left: all 0.
 * [T8] Path       A key lives in one of the TABLE_PROBE groups of its path: the home group (low bits of the hash), then
 *                 on by an odd step (bits 32..55). No empty tag is ever before a record on its path, so a search ends
 *                 at the first group that has one.
 * Not here        what a record means (pair.h, account.h), hashing (hash.h), grace periods (caller).
 *
 * Why not the next group: neighbours fill up together, and who comes last to a run of 16 full groups finds no place:
 * from 71 % full on. With a step of the key's own the first is refused at 82 %, and 3 of 900,000 by 7/8 (2^20 slots).
 *
 * Tag byte: 0x00 empty, 0x01 busy (being written or wiped), 0x02 dying, 0x03 deleted, 0x80|7 hash bits full.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "compiler.h"

#define TABLE_PROBE 16		/* groups, so 128 slots */
#define TABLE_NONE  UINT32_MAX

struct table_key {
	uint8_t b[32];
} __attribute__((aligned(8)));

/* In the area, zeroed at birth. */
struct table_state {
	_Atomic uint32_t live;		/* full records */
	uint32_t hand;			/* CLOCK hand of the evictor */
};

/* View of one process; plain values, made by table_view(). */
struct table {
	_Atomic uint64_t *groups;	/* tags, eight a word */
	_Atomic uint8_t *claims;	/* one byte a group: 1 while an insert holds it */
	uint8_t *records;
	struct table_state *state;
	uint32_t stride;		/* bytes, multiple of 8, >= 32 */
	uint32_t group_mask;		/* groups - 1 */
};

/* Bytes of the tags and claims arrays for `capacity` slots (a power of two >= 128). */
size_t table_tags_size(uint32_t capacity);
size_t table_claims_size(uint32_t capacity);

void table_view(struct table *t, struct table_state *state, void *tags, void *claims, void *records,
		uint32_t stride, uint32_t capacity);

static inline uint32_t table_capacity(const struct table *t)
{
	return (t->group_mask + 1) * 8;
}

#define TABLE_TAG_FULL 0x80U
#define TABLE_ONES     0x0101010101010101ULL
#define TABLE_HIGHS    0x8080808080808080ULL

static inline unsigned table_tag(uint64_t hash)
{
	return TABLE_TAG_FULL | (unsigned)(hash >> 57);
}

/* Group number `i` of the path [T8]. */
static inline uint32_t table_group(const struct table *t, uint64_t hash, unsigned i)
{
	return ((uint32_t)hash + i * ((uint32_t)(hash >> 32) | 1)) & t->group_mask;
}

/* High bit of each byte of `tags` that equals tag. Exact up to the first match; a false one above it is found out by
 * comparing keys. */
static inline uint64_t table_match(uint64_t tags, unsigned tag)
{
	uint64_t x = tags ^ TABLE_ONES * tag;

	return (x - TABLE_ONES) & ~x & TABLE_HIGHS;
}

/* High bit of each empty byte: exact, as no other tag has neither its high bit nor one of the two lowest. */
static inline uint64_t table_empties(uint64_t tags)
{
	return ~(tags | tags << 7 | tags << 6) & TABLE_HIGHS;
}

static inline struct table_key *table_key_at(const struct table *t, uint32_t slot)
{
	return (struct table_key *)(t->records + (size_t)slot * t->stride);
}

static inline bool table_key_equal(const struct table_key *a, const struct table_key *b)
{
	uint64_t x[4], y[4];

	memcpy(x, a, sizeof(x));
	memcpy(y, b, sizeof(y));
	return ((x[0] ^ y[0]) | (x[1] ^ y[1]) | (x[2] ^ y[2]) | (x[3] ^ y[3])) == 0;
}

/* Bring the home group's tags (step 1) and the first candidate's record (step 2) near. */
static inline void table_prefetch_tags(const struct table *t, uint64_t hash)
{
	__builtin_prefetch(&t->groups[table_group(t, hash, 0)]);
}

static inline void table_prefetch_record(const struct table *t, uint64_t hash)
{
	uint32_t home = table_group(t, hash, 0);
	/* Relaxed: a hint. */
	uint64_t m = table_match(atomic_load_explicit(&t->groups[home], memory_order_relaxed), table_tag(hash));

	/* Without asking whether m is 0: a wrong branch costs more than a line that nobody wants. To the second level only:
	 * a batch of lines at once is more than the first level has places for (1 M keys: 25.4 against 26.9 ns). */
	__builtin_prefetch(table_key_at(t, home * 8 + (uint32_t)__builtin_ctzll(m | 1ULL << 63) / 8), 0, 2);
}

/* The path from its group `i` on; for table_find(). */
uint32_t table_find_from(const struct table *t, uint64_t hash, const struct table_key *key, unsigned i);

/* Slot, or TABLE_NONE. */
static inline uint32_t table_find(const struct table *t, uint64_t hash, const struct table_key *key)
{
	uint32_t home = table_group(t, hash, 0);
	/* [F1] as in table.c. */
	uint64_t tags = atomic_load_explicit(&t->groups[home], memory_order_acquire);
	uint64_t m = table_match(tags, table_tag(hash));

	if (likely(m)) {
		uint32_t slot = home * 8 + (uint32_t)__builtin_ctzll(m) / 8;

		if (likely(table_key_equal(table_key_at(t, slot), key)))
			return slot;
	} else if (likely(table_empties(tags))) {
		return TABLE_NONE;
	}
	return table_find_from(t, hash, key, 0);
}

/* 0: inserted. -EEXIST: was there (*ret_slot names it). -ENOSPC [T4]: *ret_slot untouched. */
int table_insert(struct table *t, uint64_t hash, const struct table_key *key,
		 uint32_t *ret_slot) MUST_CHECK;

bool table_is_full(const struct table *t, uint32_t slot);	/* published and not dying */

/* Evictor. retire: FULL -> DYING, found no more; false if it was not full. release: after the grace period, zeroes the
 * record beyond and including the key and frees the slot. */
bool table_retire(struct table *t, uint32_t slot);
void table_release(struct table *t, uint32_t slot);

/* Alone in the area (start after a crash): clears claims, frees busy slots, calls dying(ctx, slot) for each dying slot
 * (the caller folds it away), then frees it. Recounts live. */
void table_recover(struct table *t, void (*dying)(void *ctx, uint32_t slot), void *ctx);

/* 0, or -EINVAL and *ret_why: every full record is found under its own hash, no key is there twice, free
 * records are wiped, counts are equal. Quiescent only. */
int table_check(const struct table *t, uint64_t (*hash)(void *ctx, const struct table_key *key), void *ctx,
		const char **ret_why) MUST_CHECK;
