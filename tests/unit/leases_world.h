/* leases_world.h - daemon/leases*.c over a kernel that is a few numbers, with a judge and a clock of our own.
 *
 * The kernel refuses what the real one refuses: an element that is there already, one that is not.
 */
#pragma once

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
static unsigned ends, transactions, graces;	/* graces: that the main thread waited for */
static pthread_t main_thread;
static struct rules_lease word[64];	/* its word: quotas that are used up */
static unsigned nwords;
static bool silent;		/* the workers are */
static sem_t through;		/* the kernel's grace periods, for who does not wait in the main thread */

/* Now and then it has no memory, or is disturbed. */
static unsigned fails_one_in;	/* 0: never */

static uint32_t seed = 1;

static inline uint32_t below(uint32_t n)
{
	seed = seed * 1664525 + 1013904223;
	return (uint32_t)((uint64_t)seed * n >> 32);
}

static bool fails(void)
{
	return fails_one_in && below(fails_one_in) == 0;
}

static uint32_t place[1024];	/* where there was something, ever: the rest need not be looked at */
static unsigned nplaces;

static void has_place(uint32_t slot)
{
	for (unsigned i = 0; i < nplaces; i++)
		if (place[i] == slot)
			return;
	assert_true(nplaces < ARRAY_SIZE(place));
	place[nplaces++] = slot;
}

static struct quota *of(const struct lease_key *key)
{
	for (unsigned i = 0; i < nplaces; i++)
		if (kernel[place[i]].made && memcmp(&kernel[place[i]].key, key, sizeof(*key)) == 0)
			return &kernel[place[i]];
	return NULL;
}

int rules_lease_put(struct rules *r, const struct rules_lease *v, size_t n)
{
	(void)r;
	if (fails())
		return -ENOMEM;
	transactions++;
	for (size_t i = 0; i < n; i++) {
		struct quota *q = &kernel[v[i].slot];

		if (v[i].fresh ? q->made : !q->made || q->generation != v[i].generation || q->element == v[i].asleep)
			fail_msg("lease %u is put, fresh %d, asleep %d: made %d, element %d", v[i].slot, v[i].fresh, v[i].asleep, q->made,
				 q->element);
		has_place(v[i].slot);
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
	if (fails())
		return -ENOMEM;
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
	if (fails())
		return -ENOMEM;
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
	if (fails())
		return -ENOMEM;
	asked = false;
	return 0;
}

int rules_lease_forget_all(struct rules *r)
{
	(void)r;
	if (fails())
		return -ENOMEM;
	memset(kernel, 0, sizeof(kernel));
	asked = true;
	return 0;
}

void rules_lease_grace(void)
{
	if (pthread_equal(pthread_self(), main_thread))
		graces++;
	else
		while (sem_wait(&through) < 0)
			;
}

int rules_lease_counts(struct rules *r, rules_lease_count_fn *each, void *ctx)
{
	(void)r;
	if (fails())
		return -EINTR;
	for (unsigned i = 0; i < nplaces; i++)
		if (kernel[place[i]].counter)
			each(ctx, &kernel[place[i]].key, kernel[place[i]].packets, kernel[place[i]].passed);
	return 0;
}

int rules_lease_count(struct rules *r, const struct rules_lease *l, uint64_t *ret_packets, uint64_t *ret_bytes)
{
	(void)r;
	if (fails())
		return -EINTR;
	if (!kernel[l->slot].counter)
		return -ENOENT;
	*ret_packets = kernel[l->slot].packets;
	*ret_bytes = kernel[l->slot].passed;
	return 0;
}

int rules_lease_used(struct rules *r, const struct rules_lease *l, uint64_t *ret_used, uint64_t *ret_quota)
{
	(void)r;
	if (fails())
		return -EINTR;
	*ret_used = MIN_OF(kernel[l->slot].used, kernel[l->slot].quota);
	*ret_quota = kernel[l->slot].quota;
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
static bool meddled;		/* somebody else changes what the kernel has */
static unsigned worries[HEALTH_COUNT];
static uint64_t left, queued;	/* what passed, and of it packet by packet */

void worker_grace(void) {}

void enforce_worry(struct engine *x, enum area_health what)
{
	(void)x;
	worries[what]++;
	if (!fails_one_in && !meddled)
		fail_msg("worry %d: nobody interferes here", what);
}

int clock_gettime(clockid_t clock, struct timespec *t)
{
	(void)clock;
	*t = (struct timespec){ .tv_sec = (time_t)(w.now.ns / NS_PER_S), .tv_nsec = (long)(w.now.ns % NS_PER_S) };
	return 0;
}

static void wait_for_kernel_to_be_through(void)
{
	uint64_t n;

	sem_post(&through);
	while (read(e.lease_grace, &n, sizeof(n)) != sizeof(n))
		usleep(100);
}

static void forget_engine(void)
{
	if (e.leases->grace)
		wait_for_kernel_to_be_through();
	free(e.leases);
}

static inline void world_of_leases(void)
{
	static struct engine_policy policy;

	fails_one_in = 0;
	asked = true;
	world(rules);
	if (e.leases)
		forget_engine();
	else
		assert_int_equal(leases_start(&e), 0);
	policy.view = w.policy;
	e.area = w.j.area;
	e.judge = w.j;
	e.policy = &policy;
	e.leases_on = true;
	e.nworkers = 1;
	e.worker[0] = (struct engine_worker){ .e = &e, .judge = w.j };
	e.leases = leases_new();
	memset(kernel, 0, sizeof(kernel));
	nplaces = 0;
	left = queued = 0;
	ends = nwords = graces = 0;
	silent = meddled = false;
	memset(worries, 0, sizeof(worries));
	leases_second(&e);	/* ends what an engine before would have left */
	w.now = mono_add_s(w.now, 1);
	leases_second(&e);
	leases_review(&e);
}

/* How a packet comes; 0: to port 443, by nobody knows whom. */
struct as {
	uint16_t port;
	uint8_t opener;
	bool later;		/* what its worker says of it is read later */
};

static bool judged(const struct judge_packet *p, bool later)
{
	for (unsigned i = 0; i < 3; i++) {
		struct judge_packet v = *p;

		judge_batch(&w.j, &v, 1, w.now);
		if (v.hold || (v.busy && !silent)) {
			(void)leases_note(&e.worker[0], &v);
			if (v.hold || !later)
				leases_review(&e);
		}
		if (!v.hold) {
			queued += v.pass ? PACKET : 0;
			return v.pass;
		}
		w.now.ns += LEASE_HOLD_MS * NS_PER_MS;
	}
	return false;
}

/* In the kernel: true, it passes by the lease. */
static bool lease_lets_pass(const struct lease_key *key)
{
	struct quota *q = asked ? of(key) : NULL;

	if (!q || !q->element)
		return false;
	q->used += PACKET;
	if (q->used <= q->quota) {
		q->passed += PACKET;
		q->packets++;
		return true;
	}
	if (!q->told && nwords < ARRAY_SIZE(word))
		word[nwords++] = (struct rules_lease){ .slot = (uint32_t)q->slot, .generation = q->generation };
	q->told = true;
	return false;
}

/* One packet to leave: by its pair's lease, by its service's, or judged. */
static bool packet_as(const char *src, const char *dst, struct as as)
{
	const uint16_t port = as.port ? as.port : 443;
	const bool pull = as.opener == OPENER_OUTSIDE;
	struct judge_packet v = { .p = { .len = PACKET, .proto = 6, .sport = pull ? port : 40000, .dport = pull ? 40000 : port },
				  .opener = as.opener };
	struct lease_key key = { .out_family = 4 };
	bool pass;

	assert_int_equal(addr_parse(src, &v.p.src), 0);
	assert_int_equal(addr_parse(dst, &v.p.dst), 0);
	memcpy(key.in, v.p.src.b, sizeof(key.in));
	memcpy(key.out, v.p.dst.b + 12, 4);
	pass = lease_lets_pass(&key);
	if (!pass && as.opener) {
		key.port = port;
		key.proto = 6;
		key.opener = as.opener;
		pass = lease_lets_pass(&key);
	}
	pass = pass || judged(&v, as.later);
	left += pass ? PACKET : 0;
	return pass;
}

static inline unsigned packets(const char *dst, unsigned n)
{
	unsigned passed = 0;

	for (unsigned i = 0; i < n; i++)
		passed += packet_as("10.1.1.1", dst, (struct as){ 0 });
	return passed;
}

static inline void one_second(void)
{
	w.now = mono_add_s(w.now, 1);
	judge_review(&w.j, w.now, on_change, NULL);
	leases_second(&e);
	leases_review(&e);
	leases_go_on(&e);
}

static inline void kernel_is_through(void)
{
	assert_true(e.leases->grace);
	wait_for_kernel_to_be_through();
	leases_grace_over(&e);
}

static inline unsigned elements(void)
{
	unsigned n = 0;

	for (unsigned i = 0; i < nplaces; i++)
		n += kernel[place[i]].element;
	return n;
}

static inline unsigned objects(void)
{
	unsigned n = 0;

	for (unsigned i = 0; i < nplaces; i++)
		n += kernel[place[i]].made;
	return n;
}

/* The only one in the kernel. */
static inline struct quota *the_quota(void)
{
	assert_int_equal(objects(), 1);
	for (unsigned i = 0; i < nplaces; i++)
		if (kernel[place[i]].made)
			return &kernel[place[i]];
	return NULL;
}

static uint64_t known(void)
{
	uint64_t n = 0;

	for (uint32_t i = 0; i < w.j.area.h->pairs; i++)
		if (table_is_full(&w.j.area.pairs, i))
			n += atomic_load(&w.j.area.pair[i].bytes) + atomic_load(&w.j.area.pair_cold[i].leased_bytes);
	return n;
}

/* No account has passed, and has out, more than its limit: all windows here are longer than any test. */
static inline void add_up(void)
{
	assert_true(known() <= left);
	for (uint32_t i = 0; i < w.j.area.h->accounts; i++) {
		const struct account_cold *c = &w.j.area.account_cold[i];
		const struct account *a = &w.j.area.account[i];
		const int r = table_is_full(&w.j.area.accounts, i) ? policy_rule_by_uid(&w.policy, a->key.rule) : -1;

		if (r >= 0 && account_total(a, c) + c->outstanding > w.policy.rule[r].limit[0].bytes)
			fail_msg("%s: %lu passed, %lu out", policy_string(&w.policy, w.policy.rule[r].name), account_total(a, c),
				 c->outstanding);
	}
	sane();
}

static inline void all_is_known(void)
{
	leases_end_all(&e);
	assert_int_equal(known(), left);
	assert_int_equal(leases_outstanding(&e), 0);
	sane();
}

/* ---- another policy ---- */

static inline void change_policy(const char *text)
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

/* By the list that the judge makes now an open lease is charged to who pays for its packets: a contract, or all its rules. */
static inline void shares_are_right(void)
{
	for (uint32_t i = 0; i < LEASE_SLOTS; i++) {
		const struct lease *l = &w.j.area.lease[i];
		struct judge_packet v = lease_packet(w.j.policy, &l->key);
		bool right = false;
		struct payers p;

		if (!lease_is_open(&e, i) || e.leases->due)
			continue;
		payers_of(&w.j, &v, atomic_load(&w.j.area.h->list_version), w.now, &p);
		for (unsigned k = 0; k < p.n_contract; k++)
			right = right || (l->nshares == 1 && l->share[0].account == p.account[k]);
		if (!right && l->nshares == p.n_rule) {
			right = true;
			for (unsigned k = 0; k < p.n_rule; k++)
				right = right && l->share[k].account == p.account[p.n_contract + k];
		}
		if (!right)
			fail_msg("lease %u, port %u, opener %u: %u shares; %u contracts, %u rules", i, l->key.port, l->key.opener,
				 l->nshares, p.n_contract, p.n_rule);
	}
}

#define RULE_H "  - {name: h, from: 10.0.0.0/8, to: outside, per: host, limit: {30d: 100MB}, action: block}\n"
#define RULE_P "  - {name: p, from: 10.1.0.0/16, to: 192.0.2.0/30, per: pair, limit: {1h: 90MB}, action: block}\n"

static inline int prepare(void **state)
{
	(void)state;
	main_thread = pthread_self();
	return sem_init(&through, 0, 0);
}
