/* The table against a model that cannot be wrong: an array of who sits in which slot. Random operations, hashes from
 * good to constant, table_check() after every step. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "hash.h"
#include "table.h"

#define STRIDE	 64
#define CAPACITY 256U
#define UNIVERSE 400U		/* keys: more than there are slots */
#define STEPS	 8000

static uint64_t rng_state = 1;

static uint32_t rng(uint32_t below)
{
	rng_state ^= rng_state << 13;
	rng_state ^= rng_state >> 7;
	rng_state ^= rng_state << 17;
	return (uint32_t)(rng_state >> 20) % below;
}

struct record {
	struct table_key key;
	uint64_t payload[4];
};

struct world {
	struct table t;
	struct table_state state;
	_Alignas(64) uint64_t tags[CAPACITY / 8];
	uint8_t claims[CAPACITY / 8];
	struct record record[CAPACITY];
	uint64_t (*hash)(void *ctx, const struct table_key *key);
	/* the model */
	enum { FREE, LIVE, DYING } what[CAPACITY];
	uint32_t who[CAPACITY];
};

static struct table_key key_number(uint32_t i)
{
	struct table_key k = { { 0 } };

	memcpy(k.b + 12, &i, sizeof(i));	/* keys alike but for a few bits in the middle */
	return k;
}

static uint64_t hash_good(void *ctx, const struct table_key *k)
{
	static const struct hash_key seed = { { 7 } };

	(void)ctx;
	return hash_bytes(&seed, k, sizeof(*k));
}

static uint64_t hash_constant(void *ctx, const struct table_key *k)
{
	(void)ctx;
	(void)k;
	return 0;
}

static uint64_t hash_two_homes(void *ctx, const struct table_key *k)	/* same tag, same step */
{
	return hash_good(ctx, k) & 1;
}

static uint64_t hash_tags_only(void *ctx, const struct table_key *k)	/* one path, tags next to each other */
{
	return (hash_good(ctx, k) & 3) << 57;
}

static uint64_t hash_steps_only(void *ctx, const struct table_key *k)	/* one home, crossing paths, one tag */
{
	return hash_good(ctx, k) & 0xff00000000;
}

static void setup(struct world *w, uint64_t (*hash)(void *, const struct table_key *))
{
	memset(w, 0, sizeof(*w));
	w->hash = hash;
	table_view(&w->t, &w->state, w->tags, w->claims, w->record, STRIDE, CAPACITY);
	assert_int_equal(table_capacity(&w->t), CAPACITY);
}

static uint32_t model_find(const struct world *w, uint32_t key)
{
	for (uint32_t slot = 0; slot < CAPACITY; slot++)
		if (w->what[slot] == LIVE && w->who[slot] == key)
			return slot;
	return TABLE_NONE;
}

static bool on_path(const struct world *w, uint64_t hash, uint32_t slot)
{
	for (unsigned i = 0; i < TABLE_PROBE; i++)
		if (table_group(&w->t, hash, i) == slot / 8)
			return true;
	return false;
}

static bool model_has_room(const struct world *w, uint64_t hash)
{
	for (uint32_t slot = 0; slot < CAPACITY; slot++)
		if (w->what[slot] == FREE && on_path(w, hash, slot))
			return true;
	return false;
}

static void fill_payload(struct world *w, uint32_t slot)
{
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(w->record[slot].payload[i], 0);	/* [T7] */
		w->record[slot].payload[i] = w->who[slot] * 4ULL + i + 1;
	}
}

static void step_insert(struct world *w, uint32_t n)
{
	struct table_key k = key_number(n);
	uint64_t h = w->hash(NULL, &k);
	uint32_t known = model_find(w, n), slot = 12345;
	bool room = model_has_room(w, h);
	int r = table_insert(&w->t, h, &k, &slot);

	if (known != TABLE_NONE) {
		assert_int_equal(r, -EEXIST);
		assert_int_equal(slot, known);
	} else if (!room) {
		assert_int_equal(r, -ENOSPC);
		assert_int_equal(slot, 12345);
	} else {
		assert_int_equal(r, 0);
		assert_int_equal(w->what[slot], FREE);
		assert_true(on_path(w, h, slot));
		w->what[slot] = LIVE;
		w->who[slot] = n;
		fill_payload(w, slot);
	}
}

static void step_retire(struct world *w, uint32_t slot)
{
	assert_int_equal(table_retire(&w->t, slot), w->what[slot] == LIVE);
	if (w->what[slot] == LIVE)
		w->what[slot] = DYING;
}

static void step_release(struct world *w)
{
	for (uint32_t i = 0, slot = rng(CAPACITY); i < CAPACITY; i++, slot = (slot + 1) % CAPACITY)
		if (w->what[slot] == DYING) {
			table_release(&w->t, slot);
			w->what[slot] = FREE;
			return;
		}
}

static void agree(const struct world *w)
{
	uint32_t where[UNIVERSE], live = 0;
	const char *why = "";

	for (uint32_t n = 0; n < UNIVERSE; n++)
		where[n] = TABLE_NONE;
	for (uint32_t slot = 0; slot < CAPACITY; slot++) {
		assert_int_equal(table_is_full(&w->t, slot), w->what[slot] == LIVE);
		if (w->what[slot] == FREE)
			continue;
		for (unsigned i = 0; i < 4; i++)
			assert_int_equal(w->record[slot].payload[i], w->who[slot] * 4ULL + i + 1);
		if (w->what[slot] == LIVE) {
			where[w->who[slot]] = slot;
			live++;
		}
	}
	for (uint32_t n = 0; n < UNIVERSE; n++) {
		struct table_key k = key_number(n);

		assert_int_equal(table_find(&w->t, w->hash(NULL, &k), &k), where[n]);
	}
	assert_int_equal(atomic_load(&w->state.live), live);
	if (table_check(&w->t, w->hash, NULL, &why) != 0)
		fail_msg("%s", why);
}

/* Weights move, so that the table is now nearly full, now nearly empty. */
static void against_model(uint64_t (*hash)(void *, const struct table_key *))
{
	static struct world w;

	setup(&w, hash);
	for (uint32_t i = 0; i < STEPS; i++) {
		uint32_t insert = i / (STEPS / 8) % 2 ? 30 : 70, what = rng(100);

		if (what < insert)
			step_insert(&w, rng(UNIVERSE));
		else if (what < insert + (100 - insert) / 2)
			step_retire(&w, rng(CAPACITY));
		else
			step_release(&w);
		agree(&w);
	}
}

static void test_model_good(void **state)
{
	(void)state;
	against_model(hash_good);
}

static void test_model_constant(void **state)
{
	(void)state;
	against_model(hash_constant);
}

static void test_model_two_homes(void **state)
{
	(void)state;
	against_model(hash_two_homes);
}

static void test_model_tags(void **state)
{
	(void)state;
	against_model(hash_tags_only);
}

static void test_model_steps(void **state)
{
	(void)state;
	against_model(hash_steps_only);
}

/* [T4] one path and no more */
static void test_bound(void **state)
{
	static struct world w;

	(void)state;
	setup(&w, hash_constant);
	for (uint32_t n = 0; n < CAPACITY; n++) {
		struct table_key k = key_number(n);
		uint32_t slot;

		assert_int_equal(table_insert(&w.t, 0, &k, &slot), n < TABLE_PROBE * 8 ? 0 : -ENOSPC);
	}
}

/* [T8] the groups of a path are all different, wherever it begins and however it steps. */
static void test_path(void **state)
{
	struct table t = { .group_mask = TABLE_PROBE - 1 };

	(void)state;
	for (unsigned round = 0; round < 10000; round++) {
		uint64_t h = (uint64_t)rng(1U << 31) << 33 | (uint64_t)rng(1U << 31) << 2 | rng(4);
		uint32_t seen = 0;

		for (unsigned i = 0; i < TABLE_PROBE; i++)
			seen |= 1U << table_group(&t, h, i);
		assert_int_equal(seen, 0xffff);
	}
}

/* Exact words of SWAR code against the loop it stands for. */
static void test_bytes_of_a_word(void **state)
{
	static const uint8_t tag[] = { 0, 1, 2, 3, 0x80, 0x81, 0x82, 0xaa, 0xab, 0xfe, 0xff };

	(void)state;
	for (unsigned round = 0; round < 100000; round++) {
		uint8_t b[8], want = (uint8_t)(0x80 | tag[4 + rng(7)]);
		uint64_t word, match, empty = 0;
		unsigned first = 8;

		for (unsigned i = 0; i < 8; i++)
			b[i] = tag[rng(sizeof(tag))];
		for (unsigned i = 8; i-- > 0;) {
			empty |= b[i] == 0 ? 0x80ULL << i * 8 : 0;
			first = b[i] == want ? i : first;
		}
		memcpy(&word, b, sizeof(word));
		match = table_match(word, want);
		assert_int_equal(table_empties(word), empty);
		assert_int_equal(match ? (unsigned)__builtin_ctzll(match) / 8 : 8, first);
		for (unsigned i = 0; i < 8; i++)
			if (b[i] == want)
				assert_true(match >> (i * 8 + 7) & 1);
	}
}

static unsigned ndying;

static void on_dying(void *ctx, uint32_t slot)
{
	struct world *w = ctx;

	assert_int_equal(w->what[slot], DYING);
	assert_int_equal(w->record[slot].payload[3], w->who[slot] * 4ULL + 4);	/* whole */
	w->what[slot] = FREE;
	ndying++;
}

/* [T5] every state a kill can leave: claims held, keys half written, records half wiped, dying ones. */
static void test_recover(void **state)
{
	static struct world w;

	(void)state;
	for (unsigned round = 0; round < 200; round++) {
		unsigned want = 0;

		setup(&w, round % 2 ? hash_good : hash_two_homes);
		for (unsigned i = 0; i < 200; i++)
			step_insert(&w, rng(UNIVERSE));
		for (unsigned i = 0; i < 60; i++)
			step_retire(&w, rng(CAPACITY));
		for (unsigned i = 0; i < 10; i++)
			step_release(&w);
		for (uint32_t slot = 0; slot < CAPACITY; slot++) {
			uint8_t *tag = (uint8_t *)w.tags + slot;

			want += w.what[slot] == DYING;
			if (w.what[slot] == FREE && rng(4) == 0) {
				*tag = 1;	/* busy */
				memset(&w.record[slot], 0xee, rng(STRIDE));
			}
		}
		for (unsigned i = 0; i < 8; i++)
			w.claims[rng(sizeof(w.claims))] = 1;
		atomic_store(&w.state.live, rng(1000));
		ndying = 0;
		table_recover(&w.t, on_dying, &w);
		assert_int_equal(ndying, want);
		agree(&w);
		for (unsigned i = 0; i < 100; i++)
			step_insert(&w, rng(UNIVERSE));
		agree(&w);
	}
}

/* table_check() notices each kind of damage. */
static void test_check_sees(void **state)
{
	static struct world w;
	const char *why;
	uint32_t slot, other;
	struct table_key k;

	(void)state;
	for (unsigned damage = 0; damage < 6; damage++) {
		setup(&w, hash_good);
		for (unsigned i = 0; i < 60; i++)
			step_insert(&w, i);
		slot = model_find(&w, rng(60));
		k = w.record[slot].key;
		assert_int_equal(table_check(&w.t, w.hash, NULL, &why), 0);
		for (other = 0; w.what[other] != FREE; other++)
			;
		switch (damage) {
		case 0:
			w.record[slot].key.b[31] ^= 1;
			break;
		case 1:		/* twice: on the path, before the first */
			for (other = table_group(&w.t, w.hash(NULL, &k), 0) * 8; w.what[other] != FREE; other++)
				;
			w.record[other].key = k;
			((uint8_t *)w.tags)[other] = (uint8_t)table_tag(w.hash(NULL, &k));
			break;
		case 2:
			atomic_fetch_add(&w.state.live, 1);
			break;
		case 3:
			((uint8_t *)w.tags)[slot] ^= 1;
			break;
		case 4:
			w.record[other].payload[3] = 1;
			break;
		default:
			((uint8_t *)w.tags)[other] = 4;
		}
		assert_int_equal(table_check(&w.t, w.hash, NULL, &why), -EINVAL);
	}
}

/* No refusal until three quarters of a table of some size are full, whatever the seed. */
static void test_load(void **state)
{
	const uint32_t capacity = 1 << 17;
	struct table_state s;
	struct table t;
	void *tags = malloc(capacity), *claims = calloc(1, capacity / 8), *records = calloc(capacity, 32);

	(void)state;
	assert_true(tags && claims && records);
	for (unsigned seed = 0; seed < 8; seed++) {
		struct hash_key key = { { (uint8_t)seed } };

		memset(tags, 0, table_tags_size(capacity));
		memset(&s, 0, sizeof(s));
		table_view(&t, &s, tags, claims, records, 32, capacity);
		for (uint32_t n = 0; n < capacity / 4 * 3; n++) {
			struct table_key k = key_number(n);
			uint32_t slot;

			assert_int_equal(table_insert(&t, hash_bytes(&key, &k, sizeof(k)), &k, &slot), 0);
		}
	}
	free(tags);
	free(claims);
	free(records);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bytes_of_a_word), cmocka_unit_test(test_path),
		cmocka_unit_test(test_model_good),	cmocka_unit_test(test_model_constant),
		cmocka_unit_test(test_model_two_homes), cmocka_unit_test(test_model_tags),
		cmocka_unit_test(test_model_steps),	cmocka_unit_test(test_bound),
		cmocka_unit_test(test_recover),		cmocka_unit_test(test_check_sees),
		cmocka_unit_test(test_load),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
