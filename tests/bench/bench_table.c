/* The table's lookup and the charge of the record found, against liburcu's cds_lfht doing the same work:
 *
 *   both    keys of 32 bytes in random order, batches of 64: first all keys of the batch are made and hashed
 *           (SipHash-2-4, one function), then looked up and charged by one compare-and-swap below a cap.
 *   ours    prefetches between the steps, as the engine's workers do. Records are struct account.
 *   lfht    urcu-qsbr, a quiescent state a batch; nodes are cache lines of one array: links, key, two counters. It has
 *           no way to prefetch. One bucket a node or two, each charged after its lookup or all after all lookups: the
 *           fastest of the four is the rival.
 *
 * Costs are the threads' CPU time per operation: of lookup and charge alone, which is the whole less a pass that only
 * makes and hashes the same keys; and with the hash, which is the whole less a pass that only makes them. Output:
 * ratio.h.
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define _LGPL_SOURCE
#include <urcu-qsbr.h>
#include <urcu/rculfhash.h>

#include "account.h"
#include "area.h"
#include "area_map.h"
#include "hash.h"
#include "ratio.h"
#include "table.h"

#define BATCH	64
#define THREADS 2
#define TICK	7

struct node {
	struct cds_lfht_node link;
	struct table_key key;
	_Atomic uint64_t spent, cap;
} CACHE_ALIGNED;

struct world {
	uint32_t n, capacity;		/* keys; slots of our table */
	unsigned threads;
	uint64_t ops;			/* of one thread and run */
	struct hash_key seed;
	struct table t;
	struct account *account;
	struct table_state *state;
	struct node *node;
	struct cds_lfht *lfht;
	bool lfht_split;		/* charges after all lookups of the batch */
	bool with_hash;			/* count it */
	uint64_t run;			/* number of this run: draws other keys */
	atomic_uint waiting;
	atomic_bool failed;
};

struct job {
	struct world *w;
	enum ratio_side side;
	unsigned index;
	double seconds;
	pthread_t thread;
};

static uint64_t mix(uint64_t x)		/* any good mixer does; this is a xorshift-multiply */
{
	x ^= x >> 32;
	x *= 0xd6e8feb86659fd93;
	x ^= x >> 32;
	x *= 0xd6e8feb86659fd93;
	return x ^ x >> 32;
}

/* Key number i, without memory traffic of its own. */
static struct table_key key_number(uint32_t i)
{
	uint64_t x = mix(i + 1), v[4] = { x, x * 0x9e3779b97f4a7c15, i, ~x };
	struct table_key k;

	memcpy(&k, v, sizeof(k));
	return k;
}

static uint64_t hash_of(void *ctx, const struct table_key *key)
{
	return hash_bytes(ctx, key, sizeof(*key));
}

struct work {
	struct table_key key[BATCH];
	uint64_t hash[BATCH];
	struct cds_lfht_node *link[BATCH];
};

static void draw(const struct world *w, uint64_t *rng, struct work *k)
{
	for (unsigned i = 0; i < BATCH; i++) {
		*rng ^= *rng << 13;
		*rng ^= *rng >> 7;
		*rng ^= *rng << 17;
		k->key[i] = key_number((uint32_t)(((*rng >> 32) * w->n) >> 32));
	}
}

static void hash_all(const struct world *w, struct work *k)
{
	hash_keys(&w->seed, k->key, sizeof(k->key[0]), BATCH, k->hash);
}

static unsigned batch_ours(struct world *w, struct work *k)
{
	unsigned bad = 0;

	for (unsigned i = 0; i < BATCH; i++)
		table_prefetch_tags(&w->t, k->hash[i]);
	for (unsigned i = 0; i < BATCH; i++)
		table_prefetch_record(&w->t, k->hash[i]);
	for (unsigned i = 0; i < BATCH; i++) {
		uint32_t slot = table_find(&w->t, k->hash[i], &k->key[i]);

		bad += slot == TABLE_NONE || !account_charge(&w->account[slot], 100, TICK);
	}
	return bad;
}

static int node_match(struct cds_lfht_node *link, const void *key)
{
	return memcmp(&caa_container_of(link, struct node, link)->key, key, sizeof(struct table_key)) == 0;
}

/* As account_charge(). */
static bool node_charge(struct node *n, uint64_t bytes)
{
	uint64_t cap = atomic_load_explicit(&n->cap, memory_order_relaxed);
	uint64_t spent = atomic_load_explicit(&n->spent, memory_order_relaxed);

	do {
		if (unlikely(spent > cap || cap - spent < bytes))
			return false;
	} while (!atomic_compare_exchange_weak_explicit(&n->spent, &spent, spent + bytes, memory_order_relaxed,
							memory_order_relaxed));
	return true;
}

static unsigned charge_link(struct cds_lfht_node *link)
{
	return !link || !node_charge(caa_container_of(link, struct node, link), 100);
}

static unsigned batch_lfht(struct world *w, struct work *k)
{
	unsigned bad = 0;

	for (unsigned i = 0; i < BATCH; i++) {
		struct cds_lfht_iter it;

		cds_lfht_lookup(w->lfht, k->hash[i], node_match, &k->key[i], &it);
		k->link[i] = cds_lfht_iter_get_node(&it);
		if (!w->lfht_split)
			bad += charge_link(k->link[i]);
	}
	for (unsigned i = 0; w->lfht_split && i < BATCH; i++)
		bad += charge_link(k->link[i]);
	rcu_quiescent_state();
	return bad;
}

static double cpu_seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void begin_together(struct world *w, unsigned cpu)
{
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET(cpu, &cpus);
	(void)pthread_setaffinity_np(pthread_self(), sizeof(cpus), &cpus);	/* one CPU only: still a bench */
	/* Relaxed: only lets the threads begin together. */
	atomic_fetch_sub_explicit(&w->waiting, 1, memory_order_relaxed);
	while (atomic_load_explicit(&w->waiting, memory_order_relaxed))
		sched_yield();
}

/* What both sides do before, and is not counted. */
static double prepare(struct world *w, uint64_t rng, struct work *k)
{
	double start = cpu_seconds();

	for (uint64_t i = 0; i < w->ops; i += BATCH) {
		draw(w, &rng, k);
		if (!w->with_hash)
			hash_all(w, k);
		__asm__ volatile("" : : "r"(k) : "memory");	/* somebody might look at it */
	}
	return cpu_seconds() - start;
}

static void *work(void *arg)
{
	static _Thread_local struct work k;
	struct job *j = arg;
	struct world *w = j->w;
	uint64_t rng = mix(w->run * THREADS + j->index + 1) | 1;
	unsigned bad = 0;
	double before, start;

	if (j->side == RATIO_B)
		rcu_register_thread();
	begin_together(w, j->index);
	before = prepare(w, rng, &k);
	start = cpu_seconds();
	for (uint64_t i = 0; i < w->ops; i += BATCH) {
		draw(w, &rng, &k);
		hash_all(w, &k);
		bad += j->side == RATIO_A ? batch_ours(w, &k) : batch_lfht(w, &k);
	}
	j->seconds = cpu_seconds() - start - before;
	if (j->side == RATIO_B)
		rcu_unregister_thread();
	if (bad)
		atomic_store_explicit(&w->failed, true, memory_order_relaxed);	/* read after join */
	return NULL;
}

static double run(void *ctx, enum ratio_side side)
{
	struct world *w = ctx;
	struct job job[THREADS];
	double seconds = 0;

	w->run++;
	atomic_store_explicit(&w->waiting, w->threads, memory_order_relaxed);
	for (unsigned i = 0; i < w->threads; i++) {
		job[i] = (struct job){ .w = w, .side = side, .index = i };
		if (pthread_create(&job[i].thread, NULL, work, &job[i]) != 0)
			exit(1);
	}
	for (unsigned i = 0; i < w->threads; i++) {
		pthread_join(job[i].thread, NULL);
		seconds += job[i].seconds;
	}
	if (atomic_load_explicit(&w->failed, memory_order_relaxed))
		return -1;
	return seconds / (double)(w->ops * w->threads);
}

/* On huge pages, as the daemon has its table: for both. */
static void *map(size_t size)
{
	int fd = memfd_create("bench", MFD_CLOEXEC);
	void *p = NULL;

	size = (size + AREA_HUGE - 1) & ~(AREA_HUGE - 1);
	if (fd < 0 || ftruncate(fd, (off_t)size) < 0 || area_map(fd, PROT_READ | PROT_WRITE, &p, &size) < 0 ||
	    madvise(p, size, MADV_POPULATE_WRITE) < 0) {
		perror("memory");
		exit(1);
	}
	if (area_collapse(p, size) < 0)
		fputs("bench_table: no huge pages\n", stderr);
	close(fd);
	return p;
}

static void unmap(void *p, size_t size)
{
	munmap(p, (size + AREA_HUGE - 1) & ~(AREA_HUGE - 1));
}

static int fill_ours(struct world *w)
{
	for (uint32_t i = 0; i < w->n; i++) {
		struct table_key k = key_number(i);
		uint32_t slot;
		int r = table_insert(&w->t, hash_of(&w->seed, &k), &k, &slot);

		if (r < 0) {
			fprintf(stderr, "insert %u of %u: %s\n", i, w->n, strerror(-r));
			return r;
		}
		atomic_store_explicit(&w->account[slot].cap, UINT64_MAX, memory_order_relaxed);
		atomic_store_explicit(&w->account[slot].tick, TICK, memory_order_relaxed);
	}
	return 0;
}

static void make_ours(struct world *w)
{
	w->account = map((size_t)w->capacity * sizeof(struct account));
	w->state = map(sizeof(*w->state));
	table_view(&w->t, w->state, map(table_tags_size(w->capacity)), map(table_claims_size(w->capacity)), w->account,
		   sizeof(struct account), w->capacity);
	if (fill_ours(w) < 0)
		exit(1);
}

static void free_ours(struct world *w)
{
	unmap(w->t.groups, table_tags_size(w->capacity));
	unmap((void *)w->t.claims, table_claims_size(w->capacity));
	unmap(w->account, (size_t)w->capacity * sizeof(struct account));
	unmap(w->state, sizeof(*w->state));
}

static void make_lfht(struct world *w, unsigned long buckets)
{
	w->lfht = cds_lfht_new(buckets, buckets, buckets, 0, NULL);
	if (!w->lfht)
		exit(1);
	for (uint32_t i = 0; i < w->n; i++) {
		struct node *n = &w->node[i];

		cds_lfht_node_init(&n->link);
		n->key = key_number(i);
		atomic_store_explicit(&n->cap, UINT64_MAX, memory_order_relaxed);
		cds_lfht_add(w->lfht, hash_of(&w->seed, &n->key), &n->link);
	}
	rcu_quiescent_state();
}

static void free_lfht(struct world *w)
{
	for (uint32_t i = 0; i < w->n; i++)
		(void)cds_lfht_del(w->lfht, &w->node[i].link);
	rcu_quiescent_state();
	rcu_thread_offline();
	synchronize_rcu();
	(void)cds_lfht_destroy(w->lfht, NULL);
	rcu_thread_online();
}

/* Leaves the fastest of the four ready to run. */
static void make_best_lfht(struct world *w)
{
	unsigned long buckets = 1;
	unsigned best = 0;
	double least = 0;

	while (buckets < w->n)
		buckets *= 2;
	for (unsigned i = 0; i < 4; i++) {
		if (i % 2 == 0)
			make_lfht(w, buckets << (i / 2));
		rcu_thread_offline();
		w->lfht_split = i % 2;
		for (unsigned j = 0; j < 3; j++) {
			double c = run(w, RATIO_B);

			if (least <= 0 || c < least) {
				least = c;
				best = i;
			}
		}
		rcu_thread_online();
		if (i % 2)
			free_lfht(w);
	}
	make_lfht(w, buckets << (best / 2));
	w->lfht_split = best % 2;
}

struct setting {
	const char *text;		/* in the figure's name */
	uint32_t n, capacity;
	double goal;
	uint64_t ops;			/* a run, all threads */
};

static void print(const struct world *w, const struct setting *s, const struct ratio *r)
{
	char name[128], of[64];
	struct ratio_label l = { name, "times", "liburcu-cds cds_lfht, urcu-qsbr", "tests/bench/bench_table",
				 GOAL_AT_LEAST, s->goal };

	snprintf(of, sizeof(of), "%s%s, %u thread%s", w->with_hash ? "hash, " : "", s->text, w->threads,
		 w->threads > 1 ? "s" : "");
	snprintf(name, sizeof(name), "table: lookup and charge, %s", of);
	ratio_print(&l, r);
	l.unit = "ns CPU";
	l.goal = GOAL_NONE;
	for (unsigned i = 0; i < 2; i++) {
		struct ratio_range c = r->cost[i];

		snprintf(name, sizeof(name), "table: cost%s, %s", i ? " of cds_lfht" : "", of);
		l.against = NULL;
		ratio_print_range(&l, (struct ratio_range){ c.value * 1e9, c.low * 1e9, c.high * 1e9 }, NULL);
	}
}

static int compare(const struct setting *s, unsigned threads, unsigned rounds)
{
	struct world w = { .n = s->n, .capacity = s->capacity, .threads = threads, .ops = s->ops / threads };
	struct ratio r;
	int e = 0;

	for (unsigned i = 0; i < sizeof(w.seed.k); i++)
		w.seed.k[i] = (uint8_t)mix(i);
	w.node = map((size_t)w.n * sizeof(*w.node));
	make_ours(&w);
	make_best_lfht(&w);
	for (unsigned i = 0; i < 2 && e == 0; i++) {
		w.with_hash = i;
		rcu_thread_offline();
		e = ratio_measure(run, &w, rounds, &r);
		rcu_thread_online();
		if (e == 0)
			print(&w, s, &r);
	}
	free_lfht(&w);
	free_ours(&w);
	unmap(w.node, (size_t)w.n * sizeof(*w.node));
	return e;
}

static void print_size(void)
{
	const uint32_t cap = 1 << 20;
	double bytes = (double)(table_tags_size(cap) + table_claims_size(cap) + (size_t)cap * sizeof(struct account)) / cap;

	ratio_print_range(&(struct ratio_label){ "table: hot state", "bytes a slot", NULL, "tests/bench/bench_table",
						 GOAL_AT_MOST, 80 },
			  (struct ratio_range){ bytes, bytes, bytes }, NULL);
}

int main(int argc, char **argv)
{
	static const struct setting settings[] = {
		{ "10,000 keys", 10000, 1 << 14, 1.3, 1 << 20 },
		{ "1,000,000 keys", 1000000, 1 << 21, 5, 1 << 19 },
	};
	unsigned rounds = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 21;

	if (!getenv("GLIBC_TUNABLES")) {	/* lfht's bucket tables too */
		setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1", 1);
		execv("/proc/self/exe", argv);
	}
	rcu_register_thread();
	print_size();
	for (unsigned i = 0; i < ARRAY_SIZE(settings); i++)
		for (unsigned threads = 1; threads <= THREADS; threads++)
			if (compare(&settings[i], threads, rounds) < 0) {
				fputs("bench_table: a lookup or a charge failed\n", stderr);
				return 1;
			}
	rcu_unregister_thread();
	return 0;
}
