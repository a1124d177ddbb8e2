/* test_leases.c - daemon/leases*.c over a kernel that is a few numbers: idle leases sleep, are waked, and end [M7], and whatever happens in
 * what order, every byte that passed is one that an account and its pair know, and none passes beyond the limit.
 *
 * The kernel refuses what the real one refuses: an element that is there already, one that is not.
 */
#include <errno.h>
#include <semaphore.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "credit_world.h"
#include "judge_internal.h"
#include "leases_internal.h"

#define LIMIT  100000000ULL
#define PACKET 1000

static const char rules[] = "rules:\n  - {name: h, from: 10.0.0.0/8, to: outside, per: host, limit: {30d: 100MB}, action: block}\n";

/* ---- the kernel ---- */

static struct quota {
	struct lease_key key;
	bool made, element, counter, told;
	uint64_t slot, generation, quota, used, passed, packets;
} kernel[LEASE_SLOTS];
static bool asked = true;	/* the chain asks leases */
static unsigned ends, transactions;
static pthread_t main_thread;
static struct rules_lease word[64];	/* its word: quotas that are used up */
static unsigned nwords;
static bool silent;		/* the workers are */
static sem_t through;		/* the kernel's grace periods, for who does not wait in the main thread */

static struct quota *of(const struct lease_key *key)
{
	for (unsigned i = 0; i < ARRAY_SIZE(kernel); i++)
		if (kernel[i].made && memcmp(&kernel[i].key, key, sizeof(*key)) == 0)
			return &kernel[i];
	return NULL;
}

int rules_lease_put(struct rules *r, const struct rules_lease *v, size_t n)
{
	(void)r;
	transactions++;
	for (size_t i = 0; i < n; i++) {
		struct quota *q = &kernel[v[i].slot];

		if (v[i].fresh ? q->made : !q->made || q->generation != v[i].generation || q->element == v[i].asleep)
			fail_msg("lease %u is put, fresh %d, asleep %d: made %d, element %d", v[i].slot, v[i].fresh, v[i].asleep, q->made,
				 q->element);
		if (v[i].fresh)
			*q = (struct quota){ .key = v[i].key, .made = true, .counter = true, .slot = v[i].slot,
					     .generation = v[i].generation };
		q->element = true;
		q->told = false;
		q->quota = v[i].quota;
	}
	return 0;
}

int rules_lease_end(struct rules *r, const struct rules_lease *v, size_t n)
{
	(void)r;
	for (size_t i = 0; i < n; i++) {
		if (v[i].asleep)
			continue;
		if (!kernel[v[i].slot].element)
			return -ENOENT;
		kernel[v[i].slot].element = false;
		ends++;
	}
	return 0;
}

int rules_lease_forget(struct rules *r, const struct rules_lease *v, size_t n)
{
	(void)r;
	for (size_t i = 0; i < n; i++) {
		if (!kernel[v[i].slot].made || kernel[v[i].slot].element)
			fail_msg("lease %u is forgotten: made %d, element %d", v[i].slot, kernel[v[i].slot].made, kernel[v[i].slot].element);
		kernel[v[i].slot] = (struct quota){ 0 };
	}
	return 0;
}

int rules_lease_end_all(struct rules *r)
{
	(void)r;
	asked = false;
	return 0;
}

int rules_lease_forget_all(struct rules *r)
{
	(void)r;
	memset(kernel, 0, sizeof(kernel));
	asked = true;
	return 0;
}

void rules_lease_grace(void)
{
	if (!pthread_equal(pthread_self(), main_thread))
		while (sem_wait(&through) < 0)
			;
}

int rules_lease_counts(struct rules *r, rules_lease_count_fn *each, void *ctx)
{
	(void)r;
	for (unsigned i = 0; i < ARRAY_SIZE(kernel); i++)
		if (kernel[i].counter)
			each(ctx, &kernel[i].key, kernel[i].packets, kernel[i].passed);
	return 0;
}

int rules_lease_count(struct rules *r, const struct rules_lease *l, uint64_t *ret_packets, uint64_t *ret_bytes)
{
	(void)r;
	if (!kernel[l->slot].counter)
		return -ENOENT;
	*ret_packets = kernel[l->slot].packets;
	*ret_bytes = kernel[l->slot].passed;
	return 0;
}

int rules_lease_used(struct rules *r, const struct rules_lease *l, uint64_t *ret_used)
{
	(void)r;
	*ret_used = MIN_OF(kernel[l->slot].used, kernel[l->slot].quota);
	return kernel[l->slot].made ? 0 : -ENOENT;
}

size_t rules_lease_depleted(struct rules *r, struct rules_lease *ret, size_t n)
{
	(void)r;
	n = MIN_OF(n, nwords);
	nwords -= (unsigned)n;	/* the last first: they may come late */
	memcpy(ret, word + nwords, n * sizeof(*ret));
	return n;
}

/* ---- the rest of the engine ---- */

static struct engine e;
static uint64_t left, queued;	/* what passed, and of it packet by packet */

void worker_grace(void) {}

void enforce_worry(struct engine *x, enum area_health what)
{
	(void)x;
	fail_msg("worry %d: nobody interferes here", what);
}

int clock_gettime(clockid_t clock, struct timespec *t)
{
	(void)clock;
	*t = (struct timespec){ .tv_sec = (time_t)(w.now.ns / NS_PER_S), .tv_nsec = (long)(w.now.ns % NS_PER_S) };
	return 0;
}

static void world_of_leases(void)
{
	static struct engine_policy policy;
	uint64_t n;

	world(rules);
	if (e.leases) {
		while (e.leases->grace) {
			sem_post(&through);
			while (read(e.lease_grace, &n, sizeof(n)) != sizeof(n))
				usleep(100);
			e.leases->grace = false;
		}
		free(e.leases);
	} else {
		assert_int_equal(leases_start(&e), 0);
	}
	policy.view = w.policy;
	e.area = w.j.area;
	e.judge = w.j;
	e.policy = &policy;
	e.leases_on = true;
	e.nworkers = 1;
	e.worker[0] = (struct engine_worker){ .e = &e, .judge = w.j };
	e.leases = leases_new();
	memset(kernel, 0, sizeof(kernel));
	left = queued = 0;
	ends = nwords = 0;
	silent = false;
	leases_second(&e);	/* ends what an engine before would have left */
	w.now = mono_add_s(w.now, 1);
	leases_second(&e);
	leases_review(&e);
}

static bool judged(const struct judge_packet *p, uint32_t len)
{
	for (unsigned i = 0; i < 3; i++) {
		struct judge_packet v = *p;

		judge_batch(&w.j, &v, 1, w.now);
		if (v.hold || (v.busy && !silent)) {
			(void)leases_note(&e.worker[0], &v);
			leases_review(&e);
		}
		if (!v.hold) {
			queued += v.pass ? len : 0;
			return v.pass;
		}
	}
	return false;
}

/* One packet to leave: by its lease, or judged. */
static bool packet(const char *src, const char *dst)
{
	struct judge_packet v = { .p = { .len = PACKET, .proto = 6, .sport = 40000, .dport = 443 } };
	struct lease_key key = { .out_family = 4 };
	struct quota *q;
	bool pass;

	assert_int_equal(addr_parse(src, &v.p.src), 0);
	assert_int_equal(addr_parse(dst, &v.p.dst), 0);
	memcpy(key.in, v.p.src.b, sizeof(key.in));
	memcpy(key.out, v.p.dst.b + 12, 4);
	q = asked ? of(&key) : NULL;
	if (q && q->element) {
		q->used += PACKET;
		if (q->used <= q->quota) {
			q->passed += PACKET;
			q->packets++;
			left += PACKET;
			return true;
		}
		if (!q->told && nwords < ARRAY_SIZE(word))
			word[nwords++] = (struct rules_lease){ .slot = (uint32_t)q->slot, .generation = q->generation };
		q->told = true;
	}
	pass = judged(&v, PACKET);
	left += pass ? PACKET : 0;
	return pass;
}

static unsigned packets(const char *dst, unsigned n)
{
	unsigned passed = 0;

	for (unsigned i = 0; i < n; i++)
		passed += packet("10.1.1.1", dst);
	return passed;
}

static void one_second(void)
{
	w.now = mono_add_s(w.now, 1);
	judge_review(&w.j, w.now, on_change, NULL);
	leases_second(&e);
	leases_review(&e);
	leases_go_on(&e);
}

static void kernel_is_through(void)
{
	uint64_t n;

	assert_true(e.leases->grace);
	sem_post(&through);
	while (read(e.lease_grace, &n, sizeof(n)) != sizeof(n))
		usleep(100);
	leases_review(&e);
	leases_grace_over(&e);
}

static unsigned elements(void)
{
	unsigned n = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(kernel); i++)
		n += kernel[i].element;
	return n;
}

static unsigned objects(void)
{
	unsigned n = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(kernel); i++)
		n += kernel[i].made;
	return n;
}

static void add_up(void)
{
	uint64_t known = 0;

	for (uint32_t i = 0; i < w.j.area.h->pairs; i++)
		if (table_is_full(&w.j.area.pairs, i))
			known += atomic_load(&w.j.area.pair[i].bytes) + atomic_load(&w.j.area.pair_cold[i].leased_bytes);
	assert_true(known <= left);
	assert_true(left <= LIMIT);
	sane();
}

static void all_is_known(void)
{
	uint64_t known = 0;

	leases_end_all(&e);
	for (uint32_t i = 0; i < w.j.area.h->pairs; i++)
		if (table_is_full(&w.j.area.pairs, i))
			known += atomic_load(&w.j.area.pair[i].bytes) + atomic_load(&w.j.area.pair_cold[i].leased_bytes);
	assert_int_equal(known, left);
	assert_int_equal(leases_outstanding(&e), 0);
	sane();
}

/* A lease for what passes 1 MB a second, then nothing: until it sleeps. */
static void until_asleep(const char *dst)
{
	for (unsigned i = 0; i < 6; i++) {
		packets(dst, 1000);
		one_second();
	}
	assert_int_equal(elements(), 1);
	for (unsigned i = 0; i < 60 && elements(); i++)
		one_second();
	assert_int_equal(elements(), 0);
}

static void an_idle_one_sleeps_and_then_ends(void **state)
{
	(void)state;
	world_of_leases();
	until_asleep("192.0.2.1");
	assert_int_equal(objects(), 1);		/* its count is not final yet */
	assert_true(leases_outstanding(&e) > 0);
	assert_true(e.leases->grace);
	one_second();
	one_second();
	assert_int_equal(objects(), 1);
	kernel_is_through();
	assert_int_equal(objects(), 0);
	assert_int_equal(leases_outstanding(&e), 0);
	assert_int_equal(ends, 1);
	all_is_known();
}

static void who_begins_again_is_waked(void **state)
{
	uint64_t before;

	(void)state;
	world_of_leases();
	until_asleep("192.0.2.1");
	before = queued;
	assert_int_equal(packets("192.0.2.1", 5000), 5000);
	assert_int_equal(elements(), 1);
	assert_true(queued - before <= (1 << LEASE_SHIFT) + PACKET);	/* all others pass by what was left */
	kernel_is_through();
	assert_int_equal(elements(), 1);	/* that grace period was not its */
	before = queued;
	for (unsigned i = 0; i < 5; i++) {
		assert_int_equal(packets("192.0.2.1", 1000), 1000);
		one_second();
	}
	assert_int_equal(queued, before);
	all_is_known();
}

/* Waked and idle again while the kernel is not through: that grace period began before it slept. */
/* No worker says a word: the kernel's is enough, and what it says of a lease that is no more is nothing. */
static void the_kernels_word_raises(void **state)
{
	struct quota *q = NULL;
	uint64_t passed;

	(void)state;
	world_of_leases();
	packets("192.0.2.1", 500);
	assert_int_equal(elements(), 1);
	for (unsigned i = 0; i < ARRAY_SIZE(kernel); i++)
		q = kernel[i].made ? &kernel[i] : q;
	silent = true;
	for (unsigned i = 0; i < 3; i++) {
		while (nwords == 0)
			packets("192.0.2.1", 1);
		passed = q->passed;
		packets("192.0.2.1", 100);
		assert_int_equal(q->passed, passed);
		leases_review(&e);
		packets("192.0.2.1", 10);
		assert_int_equal(q->passed, passed + 10 * PACKET);
		add_up();
	}
	while (nwords == 0)
		packets("192.0.2.1", 1);
	leases_end_all(&e);
	one_second();
	assert_int_equal(nwords + elements(), 0);
	all_is_known();
}

static void a_grace_period_is_of_one_lot(void **state)
{
	(void)state;
	world_of_leases();
	until_asleep("192.0.2.1");
	packets("192.0.2.1", 100);
	assert_int_equal(elements(), 1);
	for (unsigned i = 0; i < 60; i++)
		one_second();
	assert_int_equal(elements(), 1);
	kernel_is_through();
	assert_int_equal(elements(), 0);	/* now it sleeps */
	assert_int_equal(objects(), 1);
	kernel_is_through();
	assert_int_equal(objects(), 0);
	all_is_known();
}

/* Whatever else ends leases ends those that sleep as well. */
static void what_sleeps_is_ended_by_all_else(void **state)
{
	const struct prefix all = { .len = 0 }, dst = { .len = 0 };

	(void)state;
	world_of_leases();
	until_asleep("192.0.2.1");
	leases_end_between(&e, &all, &dst);
	assert_int_equal(objects(), 0);
	assert_int_equal(leases_outstanding(&e), 0);
	kernel_is_through();
	until_asleep("192.0.2.1");
	leases_end_all(&e);
	assert_int_equal(leases_outstanding(&e), 0);
	w.now = mono_add_s(w.now, 1);
	assert_true(leases_forget(&e));
	kernel_is_through();		/* for one that is no more */
	until_asleep("192.0.2.2");
	assert_int_equal(objects(), 1);
	all_is_known();
}

/* ---- another policy ---- */

static void change_policy(const char *text)
{
	void *old = w.blob;

	w.blob = NULL;
	set_policy(text);
	leases_end_touched(&e, &w.policy);
	((struct engine_policy *)e.policy)->view = w.policy;
	e.judge.policy = w.j.policy;
	e.judge.policy_no = w.j.policy_no;
	judge_policy_changed(&w.j, w.now);
	free(old);
}

/* By the lists that the judge makes: an open lease is charged to those who would pay for its packets. */
static void shares_are_right(void)
{
	for (uint32_t i = 0; i < LEASE_SLOTS; i++) {
		const struct lease *l = &w.j.area.lease[i];
		struct judge_packet v = { .p = { .proto = l->key.proto ? l->key.proto : 6, .sport = 40000, .dport = l->key.port },
					  .opener = l->key.opener };
		struct payers p;
		uint32_t list[PAIR_ACCOUNTS];
		unsigned n;

		if (!lease_is_open(&e, i))
			continue;
		v.p.src = addr_from_v6(l->key.in);
		v.p.dst = addr_from_v4(l->key.out);
		judge_batch(&w.j, &v, 1, w.now);	/* no bytes */
		payers_of(&w.j, &v, atomic_load(&w.j.area.h->list_version), w.now, &p);
		n = p.n_contract ? 1 : p.n_rule;
		memcpy(list, p.account, sizeof(list));
		assert_int_equal(n, l->nshares);
		for (unsigned k = 0; k < n; k++)
			assert_int_equal(list[k], l->share[k].account);
	}
}

#define RULE_H "  - {name: h, from: 10.0.0.0/8, to: outside, per: host, limit: {30d: 100MB}, action: block}\n"
#define RULE_P "  - {name: p, from: 10.1.0.0/16, to: 192.0.2.0/30, per: pair, limit: {1h: 90MB}, action: block}\n"

static void a_policy_ends_what_it_touches(void **state)
{
	static const struct {
		const char *text;
		unsigned stay;		/* of the leases to 192.0.2.1, .2 and 198.51.100.7 */
	} then[] = {
		{ "rules:\n" RULE_H, 3 },
		{ "# said otherwise\nrules:\n" RULE_H, 3 },
		{ "rules:\n  - {name: other, from: 10.2.0.0/16, to: outside, per: pair, limit: {1h: 1MB}, action: block}\n" RULE_H, 3 },
		{ "hosts: {other: {addresses: [10.2.0.1]}}\nrules:\n" RULE_H, 3 },
		{ "rules:\n" RULE_H RULE_P, 1 },
		{ "rules:\n" RULE_P RULE_H, 1 },
		{ "rules:\n  - {name: h, from: 10.0.0.0/8, to: outside, per: host, limit: {30d: 101MB}, action: block}\n", 0 },
		{ "rules:\n  - {name: h, from: 10.0.0.0/8, to: outside, per: host, limit: {7d: 100MB}, action: block}\n", 0 },
		{ "rules:\n  - {name: h, from: 10.0.0.0/8, to: outside, per: host, limit: {30d: 100MB}, action: alert}\n", 0 },
		{ "hosts: {one: {addresses: [10.1.1.1]}}\nrules:\n" RULE_H, 0 },
		{ "rules:\n" RULE_H "  - {name: s, from: 10.0.0.0/8, to: 192.0.2.2, ports: [tcp/443], per: pair, limit: {1h: 1MB}, action: block}\n", 2 },
		{ "contracts:\n  - {name: c, owner: x, from: 10.1.1.1, to: 192.0.2.1, until: never, budget: {per: pair, 24h: 1GB}}\nrules:\n" RULE_H, 2 },
	};

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(then); i++) {
		world_of_leases();
		for (unsigned k = 0; k < 3; k++) {
			packets("192.0.2.1", 500);
			packets("192.0.2.2", 500);
			packets("198.51.100.7", 500);
			one_second();
		}
		assert_int_equal(elements(), 3);
		change_policy(then[i].text);
		if (elements() != then[i].stay)
			fail_msg("%u leases stay, %u expected, after:\n%s", elements(), then[i].stay, then[i].text);
		shares_are_right();
		add_up();
		all_is_known();
	}
}

static uint32_t seed = 1;

static uint32_t below(uint32_t n)
{
	seed = seed * 1664525 + 1013904223;
	return (uint32_t)((uint64_t)seed * n >> 32);
}

static void one_step(unsigned what)
{
	static const char *const dst[] = { "192.0.2.1", "192.0.2.2", "198.51.100.7" };
	static const char *const policy[] = { "rules:\n" RULE_H, "rules:\n" RULE_P RULE_H, "rules:\n" RULE_H RULE_P };
	const struct prefix all = { .len = 0 }, any = { .len = 0 };

	if (what < 60)
		packets(dst[below(3)], below(200));
	else if (what < 90)
		one_second();
	else if (what < 93)
		for (unsigned i = below(40); i > 0; i--)
			one_second();
	else if (what < 98 && e.leases->grace)
		kernel_is_through();
	else if (what == 98)
		leases_end_between(&e, &all, &any);
	else if (what == 99)
		leases_end_spent(&e);
	else if (what == 100)
		change_policy(policy[below(ARRAY_SIZE(policy))]);
	else if (what < 104)
		silent = !silent;
	else if (what < 110)
		leases_review(&e);
}

static void nothing_is_lost_in_any_order(void **state)
{
	unsigned asleep = 0;

	(void)state;
	for (unsigned run = 0; run < 20; run++) {
		world_of_leases();
		for (unsigned i = 0; i < 600; i++) {
			one_step(below(110));
			add_up();
			shares_are_right();
			asleep += e.leases->grace;
		}
		silent = false;
		while (packets("198.51.100.7", 100) == 100)
			;
		for (unsigned i = 0; i < 3; i++)
			one_second();
		all_is_known();
		assert_true(left > LIMIT / 100 * 98);
	}
	assert_true(asleep > 0);
}

static int prepare(void **state)
{
	(void)state;
	main_thread = pthread_self();
	return sem_init(&through, 0, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_idle_one_sleeps_and_then_ends),
		cmocka_unit_test(who_begins_again_is_waked),
		cmocka_unit_test(the_kernels_word_raises),
		cmocka_unit_test(a_grace_period_is_of_one_lot),
		cmocka_unit_test(what_sleeps_is_ended_by_all_else),
		cmocka_unit_test(a_policy_ends_what_it_touches),
		cmocka_unit_test(nothing_is_lost_in_any_order),
	};

	return cmocka_run_group_tests_name("leases", tests, prepare, NULL);
}
