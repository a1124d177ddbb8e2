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
 * [T6] Lifetime   A slot number is valid until the record is evicted; eviction is two steps, retire and release, between
 *                 which the caller waits until no thread can still hold the number (grace period).
 * [T7] Zero       A freshly inserted record's bytes beyond the key are what release left: all 0.
 * Not here        what a record means (pair.h, account.h), hashing (hash.h), grace periods (caller).
 *
 * Tag byte: 0x00 empty, 0x01 busy (being written), 0x02 dying, 0x03 deleted, 0x80|7 hash bits full.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

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

/* Bring the home group's tags (step 1) and the first candidate's record (step 2) near. */
void table_prefetch_tags(const struct table *t, uint64_t hash);
void table_prefetch_record(const struct table *t, uint64_t hash);

/* Slot, or TABLE_NONE. */
uint32_t table_find(const struct table *t, uint64_t hash, const struct table_key *key);

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

/* 0, or -EINVAL and *ret_why: every full record found under its own hash, no key twice, counts equal. Quiescent only. */
int table_check(const struct table *t, uint64_t (*hash)(void *ctx, const struct table_key *key), void *ctx,
		const char **ret_why) MUST_CHECK;
