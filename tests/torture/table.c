/* The table under threads: TORTURE_SECONDS (3) a part.
 *
 * same keys      all threads insert the same keys, each in an order of its own: every key is inserted by exactly one
 *                [T3].
 * evict          threads find or insert and count into what they found, one thread evicts with a grace period: in the
 *                end every count is there, and no record was ever another key's [T6], nor not wiped [T7].
 * Hashes are deliberately bad: few homes, one tag.
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "check.h"
#include "hash.h"
#include "table.h"

#define CAPACITY 512U
#define WORKERS	 3
#define KEYS	 400U		/* same keys */
#define UNIVERSE 700U		/* evict: does not fit */
#define BATCH	 16

struct record {
	struct table_key key;
	_Atomic uint64_t count;
	_Atomic uint64_t echo;	/* number of the key, stored by whoever finds it 0 */
	uint64_t rest[2];
};

static struct table t;
static struct table_state state;
static _Alignas(64) uint64_t tags[CAPACITY / 8];
static uint8_t claims[CAPACITY / 8];
static struct record record[CAPACITY];
static _Atomic uint64_t counted[UNIVERSE];	/* by workers, the truth */
static uint64_t folded[UNIVERSE];		/* by the evictor */
static atomic_bool stop;

struct worker {
	pthread_t thread;
	uint64_t rng;
	_Atomic uint64_t epoch;		/* batches ended */
	atomic_bool gone;
	unsigned inserted, refused;
	uint32_t slot[UNIVERSE];
} CACHE_ALIGNED;

static struct worker worker[WORKERS];
static pthread_barrier_t barrier;

static uint32_t rng(struct worker *w, uint32_t below)
{
	w->rng ^= w->rng << 13;
	w->rng ^= w->rng >> 7;
	w->rng ^= w->rng << 17;
	return (uint32_t)(w->rng >> 20) % below;
}

static struct table_key key_number(uint32_t n)
{
	struct table_key k;
	uint64_t v[4] = { n, ~(uint64_t)n, n * 0x9e3779b97f4a7c15, n };

	memcpy(&k, v, sizeof(k));
	return k;
}

static uint32_t number_of(const struct table_key *k)
{
	struct table_key again;
	uint64_t n;

	memcpy(&n, k, sizeof(n));
	again = key_number((uint32_t)n);
	BUG_ON(n >= UNIVERSE || memcmp(k, &again, sizeof(again)) != 0);	/* a torn key */
	return (uint32_t)n;
}

/* Four homes a key may have, four steps, one tag. */
static uint64_t bad_hash(void *ctx, const struct table_key *k)
{
	static const struct hash_key seed = { { 1 } };
	uint64_t h = hash_bytes(&seed, k, sizeof(*k));

	(void)ctx;
	return (h & 3) * 16 | (h >> 8 & 3) << 33;
}

static void reset(void)
{
	memset(tags, 0, sizeof(tags));
	memset(claims, 0, sizeof(claims));
	memset(record, 0, sizeof(record));
	memset(&state, 0, sizeof(state));
	table_view(&t, &state, tags, claims, record, sizeof(struct record), CAPACITY);
}

static void check(void)
{
	const char *why = "";

	if (table_check(&t, bad_hash, NULL, &why) != 0) {
		fprintf(stderr, "%s\n", why);
		abort();
	}
}

static double seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static double limit(void)
{
	const char *text = getenv("TORTURE_SECONDS");

	return text ? strtod(text, NULL) : 3;
}

static void start(void *(*fn)(void *))
{
	for (unsigned i = 0; i < WORKERS; i++) {
		memset(&worker[i], 0, sizeof(worker[i]));
		worker[i].rng = (uint64_t)seconds() * 0x9e3779b97f4a7c15 + i * 77 + 1;
		BUG_ON(pthread_create(&worker[i].thread, NULL, fn, &worker[i]) != 0);
	}
}

static void join(void)
{
	for (unsigned i = 0; i < WORKERS; i++)
		pthread_join(worker[i].thread, NULL);
}

static void *insert_all(void *arg)
{
	struct worker *w = arg;
	uint32_t at, step = rng(w, KEYS / 2) * 2 + 1;	/* odd, and KEYS has no odd factor but 5 */

	if (step % 5 == 0)
		step += 2;
	at = rng(w, KEYS);
	pthread_barrier_wait(&barrier);
	for (uint32_t i = 0; i < KEYS; i++, at = (at + step) % KEYS) {
		struct table_key k = key_number(at);
		uint64_t h = bad_hash(NULL, &k);
		uint32_t before = table_find(&t, h, &k);
		int r = table_insert(&t, h, &k, &w->slot[at]);

		w->inserted += r == 0;
		w->refused += r == -ENOSPC;
		if (r == -ENOSPC)
			w->slot[at] = TABLE_NONE;
		BUG_ON(before != TABLE_NONE && (r != -EEXIST || w->slot[at] != before));
		BUG_ON(r != -ENOSPC && number_of(&record[w->slot[at]].key) != at);
	}
	return NULL;
}

static unsigned same_keys(void)
{
	double end = seconds() + limit();
	unsigned rounds = 0;

	for (; seconds() < end; rounds++) {
		unsigned inserted = 0, live = 0;

		reset();
		start(insert_all);
		join();
		for (unsigned i = 0; i < WORKERS; i++)
			inserted += worker[i].inserted;
		for (uint32_t n = 0; n < KEYS; n++) {
			struct table_key k = key_number(n);
			uint32_t slot = table_find(&t, bad_hash(NULL, &k), &k);

			live += slot != TABLE_NONE;
			for (unsigned i = 0; i < WORKERS; i++)
				BUG_ON(worker[i].slot[n] != slot);
		}
		BUG_ON(inserted != live || live != atomic_load(&state.live));
		check();
	}
	return rounds;
}

static void count_one(struct worker *w, uint32_t n)
{
	struct table_key k = key_number(n);
	uint64_t h = bad_hash(NULL, &k), echo;
	uint32_t slot = table_find(&t, h, &k);
	struct record *r;

	if (slot == TABLE_NONE) {
		int e = table_insert(&t, h, &k, &slot);

		w->inserted += e == 0;
		w->refused += e == -ENOSPC;
		if (e == -ENOSPC)
			return;
	}
	r = &record[slot];
	BUG_ON(number_of(&r->key) != n);
	/* Relaxed: each is looked at by itself. */
	echo = atomic_exchange_explicit(&r->echo, n + 1, memory_order_relaxed);
	BUG_ON(echo != 0 && echo != n + 1);
	BUG_ON(r->rest[0] || r->rest[1]);
	atomic_fetch_add_explicit(&r->count, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&counted[n], 1, memory_order_relaxed);
}

static void *count_all(void *arg)
{
	struct worker *w = arg;

	while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
		for (unsigned i = 0; i < BATCH; i++)
			count_one(w, rng(w, rng(w, 2) ? UNIVERSE : UNIVERSE / 8));
		/* [E1] Release: all that this batch did with slots is over. Pairs with E1' in grace(). */
		atomic_fetch_add_explicit(&w->epoch, 1, memory_order_release);
	}
	atomic_store_explicit(&w->gone, true, memory_order_release);	/* [E1] */
	return NULL;
}

/* Until every worker has ended a batch that it may have begun before. */
static void grace(void)
{
	uint64_t was[WORKERS];

	for (unsigned i = 0; i < WORKERS; i++)
		was[i] = atomic_load_explicit(&worker[i].epoch, memory_order_acquire);
	for (unsigned i = 0; i < WORKERS; i++)
		/* [E1'] Two batches: the first may have been counted already as we retired. */
		while (atomic_load_explicit(&worker[i].epoch, memory_order_acquire) < was[i] + 2 &&
		       !atomic_load_explicit(&worker[i].gone, memory_order_acquire))
			nanosleep(&(struct timespec){ .tv_nsec = 20000 }, NULL);
}

static unsigned evict_some(void)
{
	uint32_t retired[32];
	unsigned n = 0;

	for (uint32_t i = 0; i < CAPACITY && n < ARRAY_SIZE(retired); i++) {
		uint32_t slot = state.hand++ % CAPACITY;

		if (table_is_full(&t, slot) && i % 3 == 0 && table_retire(&t, slot))
			retired[n++] = slot;
	}
	grace();
	for (unsigned i = 0; i < n; i++) {
		struct record *r = &record[retired[i]];

		folded[number_of(&r->key)] += atomic_load_explicit(&r->count, memory_order_relaxed);
		table_release(&t, retired[i]);
	}
	return n;
}

static unsigned evict(unsigned *ret_inserted, unsigned *ret_refused)
{
	double end = seconds() + limit();
	unsigned evicted = 0;

	reset();
	atomic_store(&stop, false);
	start(count_all);
	while (seconds() < end)
		evicted += evict_some();
	atomic_store_explicit(&stop, true, memory_order_relaxed);
	join();
	check();
	for (uint32_t n = 0; n < UNIVERSE; n++) {
		struct table_key k = key_number(n);
		uint32_t slot = table_find(&t, bad_hash(NULL, &k), &k);
		uint64_t sum = folded[n] + (slot == TABLE_NONE ? 0 : atomic_load(&record[slot].count));

		BUG_ON(sum != atomic_load(&counted[n]));
	}
	*ret_inserted = *ret_refused = 0;
	for (unsigned i = 0; i < WORKERS; i++) {
		*ret_inserted += worker[i].inserted;
		*ret_refused += worker[i].refused;
	}
	BUG_ON(*ret_inserted != evicted + atomic_load(&state.live));
	return evicted;
}

int main(void)
{
	unsigned rounds, evicted, inserted, refused;

	pthread_barrier_init(&barrier, NULL, WORKERS);
	rounds = same_keys();
	printf("ok - same keys: %u rounds of %u keys by %u threads\n", rounds, KEYS, WORKERS);
	evicted = evict(&inserted, &refused);
	printf("ok - evict: %u inserted, %u evicted, %u refused for want of room\n", inserted, evicted, refused);
	BUG_ON(rounds == 0 || evicted == 0 || refused == 0);
	return 0;
}
