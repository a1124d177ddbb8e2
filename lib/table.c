/* table.c - see table.h for the contract.
 *
 * A group is one 64-bit word of eight tags. Whoever frees a slot leaves "deleted" unless its group has another empty
 * one: a group that was ever without an empty tag stays so, and no record is ever behind an empty tag of its path [T8].
 */
#include "table.h"

#include <errno.h>
#include <sched.h>

#include "check.h"

#define TAG_EMPTY   0x00U
#define TAG_BUSY    0x01U
#define TAG_DYING   0x02U
#define TAG_DELETED 0x03U
#define TAG_FULL    TABLE_TAG_FULL

size_t table_tags_size(uint32_t capacity)
{
	return capacity;
}

size_t table_claims_size(uint32_t capacity)
{
	return capacity / 8;
}

void table_view(struct table *t, struct table_state *state, void *tags, void *claims, void *records, uint32_t stride,
		uint32_t capacity)
{
	*t = (struct table){
		.groups = tags,
		.claims = claims,
		.records = records,
		.state = state,
		.stride = stride,
		.group_mask = capacity / 8 - 1,
	};
}

uint32_t table_find_from(const struct table *t, uint64_t hash, const struct table_key *key, unsigned i)
{
	for (; i < TABLE_PROBE; i++) {
		uint32_t g = table_group(t, hash, i);
		/* [F1] Acquire: the key was stored before its tag became full. Pairs with F1' in change_tag().
		 * Test: tests/torture/table.c under SAN=thread reports a race on the key if F1' is relaxed. */
		uint64_t tags = atomic_load_explicit(&t->groups[g], memory_order_acquire);

		for (uint64_t m = table_match(tags, table_tag(hash)); m; m &= m - 1) {
			uint32_t slot = g * 8 + (uint32_t)__builtin_ctzll(m) / 8;

			if (likely(table_key_equal(table_key_at(t, slot), key)))
				return slot;
		}
		if (table_empties(tags))
			return TABLE_NONE;
	}
	return TABLE_NONE;
}

static unsigned tag_in(uint64_t group, unsigned at)
{
	return (unsigned)(group >> at * 8) & 0xff;
}

static uint64_t with_tag(uint64_t group, unsigned at, unsigned tag)
{
	return (group & ~(0xffULL << at * 8)) | (uint64_t)tag << at * 8;
}

/* One slot's tag from `from` to `to`; false if it is not `from`. */
static bool change_tag(struct table *t, uint32_t slot, unsigned from, unsigned to)
{
	_Atomic uint64_t *word = &t->groups[slot / 8];
	uint64_t was = atomic_load_explicit(word, memory_order_relaxed);

	do {
		if (tag_in(was, slot % 8) != from)
			return false;
		/* [F1'] Release: the record is written before it is found; pairs with F1. Acquire: whoever released the
		 * slot stored a freed record's zeroes [T7] before; pairs with F3. */
	} while (!atomic_compare_exchange_weak_explicit(word, &was, with_tag(was, slot % 8, to),
							memory_order_acq_rel, memory_order_relaxed));
	return true;
}

static void claim(struct table *t, uint32_t home)
{
	unsigned spins = 0;

	/* [F2] Acquire: what the last holder inserted is found by our second look. Pairs with F2'. */
	while (atomic_exchange_explicit(&t->claims[home], 1, memory_order_acquire))
		if (++spins % 64 == 0)
			sched_yield();
}

static void unclaim(struct table *t, uint32_t home)
{
	atomic_store_explicit(&t->claims[home], 0, memory_order_release);	/* [F2'] */
}

/* A free slot on the path, made busy; TABLE_NONE. */
static uint32_t take_slot(struct table *t, uint64_t hash)
{
	for (unsigned i = 0; i < TABLE_PROBE; i++) {
		uint32_t g = table_group(t, hash, i);

		for (unsigned at = 0; at < 8; at++) {
			uint64_t tags = atomic_load_explicit(&t->groups[g], memory_order_relaxed);
			unsigned tag = tag_in(tags, at);

			if ((tag == TAG_EMPTY || tag == TAG_DELETED) && change_tag(t, g * 8 + at, tag, TAG_BUSY))
				return g * 8 + at;
		}
	}
	return TABLE_NONE;
}

int table_insert(struct table *t, uint64_t hash, const struct table_key *key, uint32_t *ret_slot)
{
	uint32_t home = table_group(t, hash, 0), slot;
	int r = -EEXIST;

	claim(t, home);
	slot = table_find(t, hash, key);
	if (slot == TABLE_NONE) {
		slot = take_slot(t, hash);
		r = slot == TABLE_NONE ? -ENOSPC : 0;
	}
	if (r == 0) {
		memcpy(table_key_at(t, slot), key, sizeof(*key));
		(void)change_tag(t, slot, TAG_BUSY, table_tag(hash));
		atomic_fetch_add_explicit(&t->state->live, 1, memory_order_relaxed);
	}
	unclaim(t, home);
	if (r != -ENOSPC)
		*ret_slot = slot;
	return r;
}

bool table_is_full(const struct table *t, uint32_t slot)
{
	/* Acquire: as in find, the caller reads the record next. */
	return tag_in(atomic_load_explicit(&t->groups[slot / 8], memory_order_acquire), slot % 8) & TAG_FULL;
}

bool table_retire(struct table *t, uint32_t slot)
{
	unsigned tag = tag_in(atomic_load_explicit(&t->groups[slot / 8], memory_order_relaxed), slot % 8);

	if (!(tag & TAG_FULL) || !change_tag(t, slot, tag, TAG_DYING))
		return false;
	atomic_fetch_sub_explicit(&t->state->live, 1, memory_order_relaxed);
	return true;
}

/* Empty when nobody can be behind it: another empty tag in the group ends every search there already. */
static void free_slot(struct table *t, uint32_t slot)
{
	_Atomic uint64_t *word = &t->groups[slot / 8];
	uint64_t was = atomic_load_explicit(word, memory_order_relaxed), to;

	memset(table_key_at(t, slot), 0, t->stride);
	do {
		to = with_tag(was, slot % 8, table_empties(was) ? TAG_EMPTY : TAG_DELETED);
		/* [F3] Release: the zeroes above, before the slot can be taken; pairs with F1' in change_tag(). */
	} while (!atomic_compare_exchange_weak_explicit(word, &was, to, memory_order_acq_rel, memory_order_relaxed));
}

void table_release(struct table *t, uint32_t slot)
{
	/* Busy first: a kill amid the wiping must not hand half a record to table_recover()'s caller. */
	BUG_ON(!change_tag(t, slot, TAG_DYING, TAG_BUSY));
	free_slot(t, slot);
}

void table_recover(struct table *t, void (*dying)(void *ctx, uint32_t slot), void *ctx)
{
	uint32_t cap = table_capacity(t), live = 0;

	for (uint32_t g = 0; g <= t->group_mask; g++)
		atomic_store_explicit(&t->claims[g], 0, memory_order_relaxed);
	for (uint32_t slot = 0; slot < cap; slot++) {
		uint64_t group = atomic_load_explicit(&t->groups[slot / 8], memory_order_relaxed);
		unsigned tag = tag_in(group, slot % 8);

		if (tag == TAG_BUSY)
			free_slot(t, slot);
		live += (tag & TAG_FULL) != 0;
	}
	atomic_store_explicit(&t->state->live, live, memory_order_relaxed);
	for (uint32_t slot = 0; slot < cap; slot++) {
		uint64_t group = atomic_load_explicit(&t->groups[slot / 8], memory_order_relaxed);

		if (tag_in(group, slot % 8) != TAG_DYING)
			continue;
		dying(ctx, slot);
		free_slot(t, slot);
	}
}

static bool all_zero(const struct table *t, uint32_t slot)
{
	const uint8_t *r = t->records + (size_t)slot * t->stride;

	return r[0] == 0 && memcmp(r, r + 1, t->stride - 1) == 0;
}

/* NULL, or what is wrong with a slot that is not full and that nothing changes now. */
static const char *check_other(const struct table *t, uint32_t slot, unsigned tag)
{
	if (tag > TAG_DELETED)
		return "table: a tag that has no meaning";
	if ((tag == TAG_EMPTY || tag == TAG_DELETED) && !all_zero(t, slot))
		return "table: a free record is not wiped";
	return NULL;
}

static const char *check_full(const struct table *t, uint32_t slot, unsigned tag, uint64_t hash)
{
	if (tag != table_tag(hash))
		return "table: a record's tag is not of its hash";
	if (table_find(t, hash, table_key_at(t, slot)) != slot)
		return "table: a record is not found under its own key, or its key is there twice";
	return NULL;
}

int table_check(const struct table *t, uint64_t (*hash)(void *ctx, const struct table_key *key), void *ctx,
		const char **ret_why)
{
	uint32_t live = 0;

	for (uint32_t slot = 0; slot < table_capacity(t); slot++) {
		unsigned tag = tag_in(atomic_load_explicit(&t->groups[slot / 8], memory_order_acquire), slot % 8);
		const char *why = tag & TAG_FULL ? check_full(t, slot, tag, hash(ctx, table_key_at(t, slot))) :
						   check_other(t, slot, tag);

		if (why) {
			*ret_why = why;
			return -EINVAL;
		}
		live += (tag & TAG_FULL) != 0;
	}
	if (live != atomic_load_explicit(&t->state->live, memory_order_relaxed)) {
		*ret_why = "table: the count of live records is not what is there";
		return -EINVAL;
	}
	return 0;
}
