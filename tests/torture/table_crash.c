/* [T5]: a process with three threads that insert, retire and release at full speed in shared memory is killed at a
 * random moment; its parent recovers the table and checks it. KILLS (300) times; the table goes on from what the last
 * one left.
 *
 * What must hold after each kill is written down by the threads beside the table: HELD after an insert has returned,
 * LEAVING before a retire. A HELD key must be found, with its payload; a record given to the recovery's caller must be
 * whole.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "hash.h"
#include "table.h"

#define CAPACITY 256U
#define INSERTERS 2
#define KEYS	 128U		/* of each inserter: together as many as there are slots */

enum { AWAY, HELD, LEAVING };

struct record {
	struct table_key key;
	_Atomic uint64_t payload[4];	/* each the key's number + 1, or 0 */
	uint8_t rest[4096 - 64];	/* wiping it takes long enough to be killed amid it */
};

struct area {
	struct table_state state;
	_Alignas(64) uint64_t tags[CAPACITY / 8];
	uint8_t claims[CAPACITY / 8];
	struct record record[CAPACITY];
	_Atomic uint8_t journal[INSERTERS * KEYS];
	_Atomic uint32_t slot[INSERTERS * KEYS];	/* valid while HELD */
	_Atomic uint64_t epoch[INSERTERS], inserted, released;
};

static struct area *area;
static struct table t;
static uint32_t ndying;
static uint64_t seed;

static uint32_t rng(uint64_t *state, uint32_t below)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return (uint32_t)(*state >> 20) % below;
}

static struct table_key key_number(uint32_t n)
{
	struct table_key k;
	uint64_t v[4] = { n, ~(uint64_t)n, n * 0x9e3779b97f4a7c15, n };

	memcpy(&k, v, sizeof(k));
	return k;
}

static uint64_t bad_hash(void *ctx, const struct table_key *k)	/* 8 homes, 4 steps, 2 tags */
{
	static const struct hash_key hk = { { 1 } };
	uint64_t h = hash_bytes(&hk, k, sizeof(*k));

	(void)ctx;
	return (h & 7) * 4 | (h >> 8 & 3) << 33 | (h >> 16 & 1) << 57;
}

/* Release: the slot's number and payload stand before the key is HELD; pairs with the acquire loads of the threads. After
 * a kill the stores have happened in the order of the program: it dies between two instructions. */
static void note(uint32_t n, uint8_t what)
{
	atomic_store_explicit(&area->journal[n], what, memory_order_release);
}

static void *insert_loop(void *arg)
{
	unsigned me = (unsigned)(uintptr_t)arg;
	uint64_t r = seed + me;

	for (unsigned turn = 0;; turn++) {
		uint32_t n = me * KEYS + rng(&r, KEYS), slot;
		struct table_key k = key_number(n);

		/* Acquire: pairs with the evictor's note(n, AWAY). */
		if (atomic_load_explicit(&area->journal[n], memory_order_acquire) == AWAY &&
		    table_insert(&t, bad_hash(NULL, &k), &k, &slot) == 0) {
			for (unsigned i = 0; i < 4; i++)
				atomic_store_explicit(&area->record[slot].payload[i], n + 1, memory_order_relaxed);
			atomic_store_explicit(&area->slot[n], slot, memory_order_relaxed);
			note(n, HELD);
			atomic_fetch_add_explicit(&area->inserted, 1, memory_order_relaxed);
		}
		atomic_fetch_add_explicit(&area->epoch[me], 1, memory_order_release);	/* a batch of one */
		if (turn % 64 == 0)
			sched_yield();	/* or, on few CPUs, the evictor waits for a time slice's end */
	}
	return NULL;
}

static void grace(void)
{
	uint64_t was[INSERTERS];

	for (unsigned i = 0; i < INSERTERS; i++)
		was[i] = atomic_load_explicit(&area->epoch[i], memory_order_acquire);
	for (unsigned i = 0; i < INSERTERS; i++)
		while (atomic_load_explicit(&area->epoch[i], memory_order_acquire) < was[i] + 2)
			sched_yield();
}

static void *evict_loop(void *arg)
{
	uint64_t r = seed + 99;

	(void)arg;
	for (;;) {
		uint32_t victim[16], n = 0;

		for (unsigned i = 0; i < 50 && n < ARRAY_SIZE(victim); i++) {
			uint32_t k = rng(&r, INSERTERS * KEYS);

			if (atomic_load_explicit(&area->journal[k], memory_order_acquire) != HELD)
				continue;
			note(k, LEAVING);
			BUG_ON(!table_retire(&t, atomic_load_explicit(&area->slot[k], memory_order_relaxed)));
			victim[n++] = k;
		}
		grace();
		for (unsigned i = 0; i < n; i++) {
			table_release(&t, atomic_load_explicit(&area->slot[victim[i]], memory_order_relaxed));
			note(victim[i], AWAY);
			atomic_fetch_add_explicit(&area->released, 1, memory_order_relaxed);
		}
	}
	return NULL;
}

static void child(pid_t parent)
{
	pthread_t thread;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
	for (uintptr_t i = 0; i < INSERTERS; i++)
		if (pthread_create(&thread, NULL, insert_loop, (void *)i) != 0)
			_exit(1);
	(void)evict_loop(NULL);
}

static void on_dying(void *ctx, uint32_t slot)
{
	const struct record *r = &area->record[slot];
	struct table_key again;
	uint64_t n;

	(void)ctx;
	memcpy(&n, &r->key, sizeof(n));
	again = key_number((uint32_t)n);
	BUG_ON(n >= INSERTERS * KEYS || memcmp(&r->key, &again, sizeof(again)) != 0);
	BUG_ON(area->journal[n] != LEAVING);
	for (unsigned i = 0; i < 4; i++)
		BUG_ON(r->payload[i] != n + 1);
	ndying++;
}

/* Afterwards journal and table agree again, for the next child. */
static void settle(void)
{
	const char *why = "";

	table_recover(&t, on_dying, NULL);
	for (uint32_t slot = 0; slot < CAPACITY; slot++) {
		uint8_t tag = ((const uint8_t *)area->tags)[slot];

		BUG_ON(tag == 1 || tag == 2 || area->claims[slot / 8]);	/* busy, dying, claimed: nothing is left over */
	}
	if (table_check(&t, bad_hash, NULL, &why) != 0) {
		fprintf(stderr, "%s\n", why);
		abort();
	}
	for (uint32_t n = 0; n < INSERTERS * KEYS; n++) {
		struct table_key k = key_number(n);
		uint32_t slot = table_find(&t, bad_hash(NULL, &k), &k);

		if (area->journal[n] == HELD) {
			BUG_ON(slot == TABLE_NONE || slot != area->slot[n]);
			for (unsigned i = 0; i < 4; i++)
				BUG_ON(area->record[slot].payload[i] != n + 1);
		}
		/* Published, or not yet retired, as the kill came: it stays. */
		for (unsigned i = 0; i < 4 && slot != TABLE_NONE; i++)
			area->record[slot].payload[i] = n + 1;
		area->slot[n] = slot;
		area->journal[n] = slot == TABLE_NONE ? AWAY : HELD;
	}
}

int main(void)
{
	const char *text = getenv("KILLS");
	unsigned kills = text ? (unsigned)strtoul(text, NULL, 10) : 300;
	uint64_t r;

	seed = (uint64_t)time(NULL) * 0x9e3779b97f4a7c15 | 1;
	r = seed;
	area = mmap(NULL, sizeof(*area), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (area == MAP_FAILED) {
		perror("mmap");
		return 1;
	}
	table_view(&t, &area->state, area->tags, area->claims, area->record, sizeof(struct record), CAPACITY);
	for (unsigned i = 0; i < kills; i++) {
		uint64_t busy = area->inserted;
		pid_t self = getpid(), pid = fork();
		int status;

		if (pid == 0)
			child(self);
		BUG_ON(pid < 0);
		seed += 1000;
		while (atomic_load_explicit(&area->inserted, memory_order_relaxed) < busy + 100 &&
		       waitpid(pid, &status, WNOHANG) == 0)
			nanosleep(&(struct timespec){ .tv_nsec = 100000 }, NULL);
		nanosleep(&(struct timespec){ .tv_nsec = rng(&r, 4000000) }, NULL);
		BUG_ON(kill(pid, SIGKILL) != 0);
		BUG_ON(waitpid(pid, &status, 0) != pid || !WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL);
		settle();
	}
	printf("ok - %u kills: %lu inserted, %lu released, %u dying ones recovered\n", kills,
	       (unsigned long)area->inserted, (unsigned long)area->released, ndying);
	BUG_ON(ndying == 0);
	return 0;
}
