/* charge.c - many threads, one budget: nothing passes beyond it and nothing is lost (account.h [A1] [A3], judge.h [J1] [J2]).
 *
 * 1. Accounts: threads charge and take back while ticks go by; in the end spent is what was kept, and never was above cap.
 * 2. Judge: threads send from several hosts to a few places under pair, host and group limits that block; the sums that passed
 *    are within every limit, and equal what pairs and accounts hold.
 * TEST_ROUNDS changes the length. Run under SAN=thread it also proves the orders that account.h and payers.c name.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "area.h"
#include "check.h"
#include "judge.h"
#include "policy_compile.h"

#define THREADS 4
#define MB	1000000ULL

static unsigned rounds = 20;

static uint32_t random_below(uint32_t *state, uint32_t n)
{
	*state = *state * 1664525 + 1013904223;
	return (uint32_t)((uint64_t)*state * n >> 32);
}

/* ---- 1 ---- */

static struct account account;
static struct account_cold cold;
static struct account_limit limit = { .bytes = 50 * MB, .seconds = 60 };
static _Atomic uint64_t clock_ns, kept;
static _Atomic int stop;

static void *charge_and_undo(void *arg)
{
	uint32_t seed = (uint32_t)(uintptr_t)arg;
	struct account_terms terms = { &limit, 1 };

	while (!atomic_load(&stop)) {
		struct mono now = { atomic_load(&clock_ns) };
		uint64_t n = 1 + random_below(&seed, 3000);
		uint32_t tick = mono_tick(now);

		if (!account_charge(&account, n, tick)) {
			account_lock(&account);
			account_refresh(&account, &cold, terms, true, now);
			BUG_ON(atomic_load(&account.cap) < cold.rings.start[0]);
			account_unlock(&account);
			continue;
		}
		if (random_below(&seed, 4)) {
			atomic_fetch_add(&kept, n);
			continue;
		}
		account_lock(&account);
		account_undo(&account, &cold, n, tick);
		account_unlock(&account);
	}
	return NULL;
}

static void torture_account(void)
{
	pthread_t t[THREADS];
	const char *why = "";

	BUG_ON(window_spec_for(60, &limit.spec) < 0);
	atomic_store(&clock_ns, 1000 * NS_PER_S);
	for (uintptr_t i = 0; i < THREADS; i++)
		BUG_ON(pthread_create(&t[i], NULL, charge_and_undo, (void *)(i + 1)) != 0);
	for (unsigned i = 0; i < rounds * 20; i++) {
		struct timespec pause = { 0, 2000000 };

		nanosleep(&pause, NULL);
		atomic_fetch_add(&clock_ns, 2 * NS_PER_S);
		account_lock(&account);
		BUG_ON(account_check(&account, &cold, &why) < 0);
		account_unlock(&account);
	}
	atomic_store(&stop, 1);
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	BUG_ON(atomic_load(&account.spent) != atomic_load(&kept));
	BUG_ON(account_check(&account, &cold, &why) < 0);
	printf("ok - accounts: %llu bytes kept, none lost or doubled\n", (unsigned long long)atomic_load(&kept));
}

/* ---- 2 ---- */

static const char policy_text[] =
	"version: 1\nmode: enforce\ninside: [10.0.0.0/8]\ngroups:\n  g: {hosts: [10.0.0.0/24]}\nrules:\n"
	"  - {name: pair, from: g, to: outside, per: pair, limit: {1h: 3MB}, action: block}\n"
	"  - {name: host, from: g, to: outside, per: host, limit: {1h: 8MB, 24h: 9MB}, action: block}\n"
	"  - {name: group, from: g, to: outside, per: group, limit: {1m: 20MB, 1h: 20MB}, action: block}\n";

#define HOSTS  4
#define PLACES 4

static struct policy policy;
static struct area area;
static _Atomic uint64_t passed[HOSTS][PLACES];
static _Atomic uint64_t judge_clock;

static void one_batch(struct judge *j, struct judge_packet *v, uint32_t *seed)
{
	unsigned n = 1 + random_below(seed, AREA_SLOTS), host[AREA_SLOTS], place[AREA_SLOTS];

	memset(v, 0, sizeof(*v) * n);
	for (unsigned i = 0; i < n; i++) {
		uint8_t src[4] = { 10, 0, 0, 1 }, dst[4] = { 203, 0, 113, 1 };

		host[i] = random_below(seed, HOSTS);
		place[i] = random_below(seed, PLACES);
		src[3] = (uint8_t)(src[3] + host[i]);
		dst[3] = (uint8_t)(dst[3] + place[i]);
		v[i].p = (struct packet){ .src = addr_from_v4(src), .dst = addr_from_v4(dst), .proto = 6,
					  .len = 40 + random_below(seed, 1460) };
	}
	judge_batch(j, v, n, (struct mono){ atomic_load(&judge_clock) });
	for (unsigned i = 0; i < n; i++)
		if (v[i].pass)
			atomic_fetch_add(&passed[host[i]][place[i]], v[i].p.len);
}

static void *judge_thread(void *arg)
{
	static _Atomic uint64_t counters[THREADS][AC_COUNT];
	uintptr_t me = (uintptr_t)arg;
	uint32_t seed = (uint32_t)me + 77;
	struct judge *j = calloc(1, sizeof(*j));
	struct judge_packet *v = calloc(AREA_SLOTS, sizeof(*v));

	BUG_ON(!j || !v);
	j->area = area;
	j->policy = &policy;
	j->policy_no = 1;
	j->counter = counters[me];
	for (unsigned i = 0; i < 400; i++)
		one_batch(j, v, &seed);
	free(v);
	free(j);
	return NULL;
}

static void check_sums(uint64_t *total)
{
	const char *why = "";
	uint64_t by_pairs = 0;

	*total = 0;
	for (unsigned h = 0; h < HOSTS; h++) {
		uint64_t host = 0;

		for (unsigned p = 0; p < PLACES; p++) {
			BUG_ON(atomic_load(&passed[h][p]) > 3 * MB);
			host += atomic_load(&passed[h][p]);
		}
		BUG_ON(host > 8 * MB);
		*total += host;
	}
	BUG_ON(*total > 20 * MB);
	for (uint32_t i = 0; i < area.h->pairs; i++)
		if (table_is_full(&area.pairs, i))
			by_pairs += atomic_load(&area.pair[i].bytes);
	BUG_ON(by_pairs != *total);
	for (uint32_t i = 0; i < area.h->accounts; i++)
		if (table_is_full(&area.accounts, i) && area.account[i].key.kind == SUBJECT_GROUP)
			BUG_ON(atomic_load(&area.account[i].spent) != *total);
	if (area_check(&area, &why) < 0) {
		fprintf(stderr, "%s\n", why);
		abort();
	}
}

static void torture_judge(void)
{
	struct policy_env env = { .now = 1 };
	static struct diag_list diags;
	struct hash_key key = { { 1 } };
	uint8_t boot[16] = { 0 };
	pthread_t t[THREADS];
	uint64_t total = 0;
	const char *why;
	size_t size = area_size(1024, 2048);
	void *blob, *mem;

	diag_init(&diags, "policy", policy_text, strlen(policy_text));
	BUG_ON(policy_compile(policy_text, strlen(policy_text), &env, &diags, &blob, &size) < 0);
	BUG_ON(policy_open(blob, size, &policy, &why) < 0);
	for (unsigned r = 0; r < rounds; r++) {
		size = area_size(1024, 2048);
		mem = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		BUG_ON(mem == MAP_FAILED);
		area_format(mem, 1024, 2048, 1, &key, r, boot, (struct mono){ 0 });
		BUG_ON(area_open(mem, size, &area) < 0);
		memset(passed, 0, sizeof(passed));
		atomic_store(&judge_clock, (1000 + r) * NS_PER_S);
		for (uintptr_t i = 0; i < THREADS; i++)
			BUG_ON(pthread_create(&t[i], NULL, judge_thread, (void *)i) != 0);
		for (unsigned i = 0; i < 6; i++) {	/* ticks go by: rings advance while others charge */
			struct timespec pause = { 0, 500000 };

			nanosleep(&pause, NULL);
			atomic_fetch_add(&judge_clock, 3 * NS_PER_S);
		}
		for (unsigned i = 0; i < THREADS; i++)
			pthread_join(t[i], NULL);
		check_sums(&total);
		munmap(mem, size);
	}
	free(blob);
	printf("ok - judge: the last round passed %llu bytes of 20 MB, no limit overrun\n", (unsigned long long)total);
}

int main(void)
{
	const char *r = getenv("TEST_ROUNDS");

	if (r)
		rounds = (unsigned)strtoul(r, NULL, 10);
	torture_account();
	torture_judge();
	return 0;
}
