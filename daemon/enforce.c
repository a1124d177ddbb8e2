/* enforce.c - policy into the kernel, and what the kernel counted. Main thread only. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <net/if.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "clock.h"
#include "engine.h"
#include "log.h"
#include "nfq.h"

#define BLOB_MAX    (16U << 20)

void enforce_worry(struct engine *e, enum area_health what)
{
	atomic_fetch_add_explicit(&e->area.h->health[what], 1, memory_order_relaxed);
}

/* ---- policy ---- */

static uint32_t ifindex_of(const struct engine *e, const char *name)
{
	struct ifreq q = { 0 };

	snprintf(q.ifr_name, sizeof(q.ifr_name), "%s", name);
	return ioctl(e->ioctl_fd, SIOCGIFINDEX, &q) == 0 ? (uint32_t)q.ifr_ifindex : 0;
}

/* Devices come and go: resolved anew every second; workers may read an entry as it changes, so one store each. */
static void resolve_ifaces(const struct engine *e, struct engine_policy *p)
{
	uint32_t n = 0;

	for (uint32_t x = 0; x < p->view.h->nexits; x++)
		for (uint32_t i = 0; i < p->view.exit[x].nifaces && n < ENGINE_IFACES; i++, n++) {
			uint32_t index = ifindex_of(e, p->view.exit[x].iface[i]);

			p->iface[n].exit = (uint8_t)(x + 1);
			__atomic_store_n(&p->iface[n].index, index ? index : UINT32_MAX, __ATOMIC_RELAXED);
		}
	p->nifaces = n;
}

static struct engine_policy *policy_free(struct engine_policy *p)
{
	if (!p)
		return NULL;
	if (p->blob != MAP_FAILED)
		munmap(p->blob, p->size);
	if (p->fd >= 0)
		close(p->fd);
	free(p);
	return NULL;
}

static int policy_map(int fd, struct engine_policy **ret, const char **ret_why)
{
	struct engine_policy *p = calloc(1, sizeof(*p));
	int seals = fcntl(fd, F_GET_SEALS);
	struct stat st;
	int r = -EBADMSG;

	if (!p) {
		close(fd);
		return -ENOMEM;
	}
	p->fd = fd;
	p->blob = MAP_FAILED;
	*ret_why = "not a sealed memory file";
	if (seals < 0 || (seals & (F_SEAL_WRITE | F_SEAL_SHRINK)) != (F_SEAL_WRITE | F_SEAL_SHRINK))
		goto fail;
	*ret_why = "size out of bounds";
	if (fstat(fd, &st) < 0 || st.st_size < (off_t)sizeof(struct policy_header) || st.st_size > BLOB_MAX)
		goto fail;
	p->size = (size_t)st.st_size;
	p->blob = mmap(NULL, p->size, PROT_READ, MAP_SHARED, fd, 0);
	if (p->blob == MAP_FAILED) {
		r = -errno;
		*ret_why = "cannot be mapped";
		goto fail;
	}
	r = policy_open(p->blob, p->size, &p->view, ret_why);
	if (r < 0)
		goto fail;
	*ret = p;
	return 0;
fail:
	policy_free(p);
	return r;
}

static uint32_t add_device(char (*to)[16], uint32_t n, uint32_t max, const char *name)
{
	for (uint32_t i = 0; i < n; i++)
		if (strncmp(to[i], name, 16) == 0)
			return n;
	if (n < max)
		snprintf(to[n++], 16, "%s", name);
	return n;
}

static void read_counters(struct engine *e);

/* All of it, or as far as the policy asks for other rules than those that were put in: a transaction waits for grace periods of the
 * kernel. */
static int apply(struct engine *e, const struct engine_policy *p, bool all, const char **ret_what)
{
	static char device[CONFIG_DEVICES + POLICY_EXITS * POLICY_IFACES][16];
	const struct config_role *outside = &e->config.role[0];
	const struct policy_header *h = p->view.h;
	struct prefix *exit_host = calloc(h->nexit_prefixes + 1, sizeof(*exit_host));
	struct rules_spec s = {
		.mark_mask = e->config.mark_mask,
		.queue_first = (uint16_t)e->config.queue_first,
		.queue_count = (uint16_t)e->config.queue_count,
		.failure_closed = e->config.failure == FAILURE_CLOSED,
		.needs_ct = h->flags & POLICY_NEEDS_CT,
		.leases = e->config.leases,
		.inside = p->view.inside,
		.ninside = h->ninside,
		.exit_host = exit_host,
		.nexit_host = h->nexit_prefixes,
		.protect = p->view.protect,
		.nprotect = h->nprotect,
	};
	uint32_t n = 0;
	int r;

	memset(device, 0, sizeof(device));
	*ret_what = "no memory";
	if (!exit_host)
		return -ENOMEM;
	for (uint32_t x = 0; x < h->nexits; x++)
		for (uint32_t i = 0; i < p->view.exit[x].nifaces; i++)
			n = add_device(device, n, ARRAY_SIZE(device), p->view.exit[x].iface[i]);
	s.nexit_devices = n;
	for (uint32_t i = 0; i < outside->ndevices; i++)
		n = add_device(device, n, ARRAY_SIZE(device), outside->device[i]);
	for (uint32_t i = 0; i < h->nexit_prefixes; i++)
		exit_host[i] = p->view.exit_prefix[i].prefix;
	s.device = (const char(*)[16])device;
	s.ndevices = n;
	if (!all && rules_are(e->rules, &s)) {
		free(exit_host);
		if (rules_regate(e->rules) < 0)
			log_notice("sources without a block any more are still asked about: tried again with the next policy");
		return 0;
	}
	read_counters(e);	/* counters that are gone must be missed now: new ones may soon say more than the old did */
	r = rules_apply(e->rules, &s, &e->flavour, ret_what);
	free(exit_host);
	if (r < 0)
		return r;
	atomic_store_explicit(&e->area.h->rules_in, RULES_LAYOUT, memory_order_relaxed);
	if (e->config.leases && !rules_leases(e->rules) && !atomic_load_explicit(&e->area.h->flavour, memory_order_relaxed))
		log_notice("this kernel has no quotas (nft_quota), or no counters of set elements (Linux 5.7): no leases, every packet is "
			   "judged by the engine");
	__atomic_store_n(&e->leases_on, e->config.leases && rules_leases(e->rules), __ATOMIC_RELAXED);
	atomic_store_explicit(&e->area.h->leases_on, e->leases_on, memory_order_relaxed);
	atomic_store_explicit(&e->area.h->flavour, e->flavour, memory_order_relaxed);
	return 0;
}

void enforce_rules(struct engine *e)
{
	const char *what = "";
	int r = apply(e, e->policy, true, &what);

	e->rules_due = r < 0;
	if (r < 0) {
		enforce_worry(e, HEALTH_RULES_FAILED);
		log_error("kernel rules: %s: %s; trying again each second", what, strerror(-r));
	}
}

/* ---- policy, put in force ---- */

static void tell_lost(struct engine *e, uint64_t lost)
{
	atomic_fetch_add_explicit(&e->area.h->kept_lost, lost, memory_order_relaxed);
	log_notice("%" PRIu64 " bytes were refused by blocks of ports of before, of rules that nobody knows any more: these blocks have ended, "
		   "and the bytes are in no account", lost);
}

/* NULL: none, all packets pass. When it returns no worker judges by another one [E2]. */
static void put_in_force(struct engine *e, struct engine_policy *p)
{
	/* Release: pairs with rcu_dereference() in worker.c. */
	__atomic_store_n(&e->policy, p, __ATOMIC_RELEASE);
	e->judge.policy = p ? &p->view : NULL;
	e->judge.policy_no = p ? p->no : 0;
	worker_grace();
	if (p)
		judge_policy_changed(&e->judge, clock_mono());
}

/* Who judges what the kernel sends to the queue while its rules change: the new policy, which they are for. But who opened a connection
 * the rules alone tell: where they begin to, they come first. */
static bool judges_first(const struct engine_policy *old, const struct engine_policy *next)
{
	return !old || !(next->view.h->flags & POLICY_NEEDS_CT) || old->view.h->flags & POLICY_NEEDS_CT;
}

/* What of a policy is in the kernel: leases spend by its accounts, elements are named by its words. None is granted, or put in, until the
 * next one is in force. Returns what nobody has of the bytes refused. */
static uint64_t withdraw(struct engine *e, const struct engine_policy *next)
{
	leases_end_touched(e, &next->view);
	return blocked_forget(e);
}

int enforce_policy(struct engine *e, int blob_fd, uint32_t version, bool rules_stand, char why[200])
{
	struct engine_policy *p = NULL, *old = e->policy;
	const char *what = "";
	uint64_t lost = 0;
	bool first;
	int r = policy_map(blob_fd, &p, &what);

	if (r < 0) {
		snprintf(why, 200, "policy blob refused: %s", what);
		return r;
	}
	resolve_ifaces(e, p);
	p->version = version;
	p->no = ++e->next_no;
	first = judges_first(old, p);
	if (!rules_stand && old && first)
		lost = withdraw(e, p);
	else if (!rules_stand)	/* elements of services go with the rules, and count from zero after it */
		lost = blocked_settle(e, old ? old : p);
	if (first)
		put_in_force(e, p);
	r = rules_stand ? 0 : apply(e, p, e->rules_due, &what);
	if (r < 0) {
		snprintf(why, 200, "kernel rules: %s: %s", what, strerror(-r));
		if (first)
			put_in_force(e, old);
		policy_free(p);
		return r;
	}
	if (!rules_stand && !(old && first))	/* else they are a dead engine's, announced by none of ours, until enforce_start() */
		lost += withdraw(e, p);
	if (!first) {
		put_in_force(e, p);
		log_notice("the kernel tells from now on who opened a connection; of one that it did not track before it may be taken for the "
			   "inside's, if the inside sends next, until it ends");
	}
	if (lost)
		tell_lost(e, lost);
	memcpy(e->area.h->policy_sum, p->view.h->sum, sizeof(e->area.h->policy_sum));
	atomic_store_explicit(&e->area.h->policy_version, version, memory_order_release);
	policy_free(old);
	if (!rules_stand)
		blocked_review(e, clock_mono());
	return 0;
}

/* ---- once a second ---- */

/* A total after the kernel's counter, which falls when somebody removes it. The engine may die between the two stores: then base
 * is the total, the counter did not fall from there, and the next reading goes on. */
static void follow(_Atomic uint64_t *total, uint64_t *base, uint64_t counter)
{
	uint64_t so_far = atomic_load_explicit(total, memory_order_relaxed);

	if (counter < so_far - *base)
		*base = so_far;
	atomic_store_explicit(total, *base + counter, memory_order_relaxed);
}

/* The pair's record of class 0, made if new: what nobody judged has no class, and a counter is followed in one record for good.
 * TABLE_NONE: pairs are being evicted, and the total alone has its bytes until there is room. */
static uint32_t unseen_record(struct engine *e, const struct addr *src, const struct addr *dst)
{
	struct table *t = &e->area.pairs;
	const uint32_t cap = table_capacity(t);
	struct pair_key k = { 0 };
	const struct table_key *key = (const struct table_key *)&k;
	uint32_t slot = TABLE_NONE;
	uint64_t hash;

	memcpy(k.in, src->b, sizeof(k.in));
	pair_out(&k, dst);
	hash = area_pair_hash(&e->area, &k);
	slot = table_find(t, hash, key);
	/* Relaxed: a few more or less do not matter. */
	if (slot != TABLE_NONE || atomic_load_explicit(&t->state->live, memory_order_relaxed) >= cap / 8 * 7)
		return slot;
	if (table_insert(t, hash, key, &slot) == 0) {
		e->area.pair_cold[slot].first_ns = clock_mono().ns;
		e->area.pair_cold[slot].last_out = *dst;
	}
	return slot;
}

static int pair_unseen(void *ctx, const struct addr *src, const struct addr *dst, uint64_t packets, uint64_t bytes)
{
	struct engine *e = ctx;
	const uint32_t slot = unseen_record(e, src, dst);

	(void)packets;
	if (slot != TABLE_NONE)
		follow(&e->area.pair_cold[slot].unseen, &e->area.pair_cold[slot].unseen_base, bytes);
	return 0;
}

/* The table was removed: a pair's next counter may be beyond its last before it is first read. */
static void pairs_begin_anew(struct engine *e)
{
	for (uint32_t i = 0; i < e->area.h->pairs; i++) {
		struct pair_cold *c = &e->area.pair_cold[i];

		c->unseen_base = atomic_load_explicit(&c->unseen, memory_order_relaxed);
	}
}

static void read_counters(struct engine *e)
{
	struct area_header *h = e->area.h;
	uint64_t before = atomic_load_explicit(&h->unseen_packets, memory_order_relaxed);
	struct rules_counters k;

	if (rules_counters(e->rules, &k) < 0)
		return;	/* rules_present() tells why */
	follow(&h->egress_bytes, &h->egress_base, k.egress_bytes);
	follow(&h->unseen_bytes, &h->unseen_base, k.unseen_bytes);
	if (k.unseen_packets < before - h->unseen_packets_base)
		pairs_begin_anew(e);
	follow(&h->unseen_packets, &h->unseen_packets_base, k.unseen_packets);
	if (atomic_load_explicit(&h->unseen_packets, memory_order_relaxed) > before) {
		enforce_worry(e, HEALTH_UNSEEN);
		if (rules_unseen_dump(e->rules, pair_unseen, e) < 0)
			log_warning("unseen bytes by pair cannot be read; the total stands");
	}
}

void enforce_look_back(struct engine *e)
{
	read_counters(e);
	area_blind_end(&e->area, clock_mono());
}

/* Of all queues. 0 or -errno: then they are unknown, never none. */
static int sum_drops(const struct engine *e, uint64_t *ret_queue, uint64_t *ret_user)
{
	uint64_t queue = 0, user = 0;

	for (unsigned i = 0; i < e->nworkers; i++) {
		uint64_t q = 0, u = 0;
		int r = nfq_drops(e->worker[i].queue, &q, &u);

		if (r < 0)
			return r;
		queue += q;
		user += u;
	}
	*ret_queue = queue;
	*ret_user = user;
	return 0;
}

static void read_drops(struct engine *e)
{
	struct area_header *h = e->area.h;
	uint64_t queue = AREA_UNKNOWN, user = AREA_UNKNOWN;
	int r = sum_drops(e, &queue, &user);

	if (r < 0 && atomic_load_explicit(&h->queue_dropped, memory_order_relaxed) != AREA_UNKNOWN)
		log_notice("packets that the kernel drops at a full queue are unknown: " NFQ_PROC_FILE ": %s", strerror(-r));
	if (r == 0 && queue + user > h->drops_known)
		enforce_worry(e, HEALTH_QUEUE_LOST);
	if (r == 0)
		h->drops_known = queue + user;
	atomic_store_explicit(&h->queue_dropped, queue, memory_order_relaxed);
	atomic_store_explicit(&h->user_dropped, user, memory_order_relaxed);
}

/* What the workers met: a rise is a health matter. */
static void read_worries(struct engine *e)
{
	uint64_t overflow = area_counter_sum(&e->area, AC_OVERFLOW);
	uint32_t braked = atomic_load_explicit(&e->area.h->braked, memory_order_relaxed);

	if (overflow > e->overflow_seen)
		enforce_worry(e, HEALTH_TABLE_FULL);
	if (braked > e->braked_seen)
		enforce_worry(e, HEALTH_BRAKE);
	e->overflow_seen = overflow;
	e->braked_seen = braked;
}

/* Rules, sets and elements anew; elements count from zero, so what they refused is read before. */
static void put_back(struct engine *e, struct mono now, bool tell)
{
	/* Once a removal, also when putting back fails and is tried again. */
	if (tell && atomic_load_explicit(&e->area.h->rules_in, memory_order_relaxed)) {
		enforce_worry(e, HEALTH_RULES_FLUSHED);
		log_warning("somebody removed or changed kernel rules, blocks or leases of ours; putting them back");
	}
	leases_end_all(e);
	(void)blocked_settle(e, e->policy);
	blocked_announce(e);
	if (rules_present(e->rules) == 0)
		atomic_store_explicit(&e->area.h->rules_in, 0, memory_order_relaxed);
	enforce_rules(e);
	answers_forget(e, now);
	blocked_review(e, now);
	(void)blocked_settle(e, e->policy);	/* blocks that no account has are put back by it, when the sets are there */
}

bool enforce_watch(struct engine *e, struct mono now)
{
	int r = rules_disturbed(e->rules);

	leases_review(e);	/* the kernel told which are used up */
	if (!e->policy || r == 0)
		return false;
	if (r == 1) {
		put_back(e, now, true);
		return true;
	}
	/* Somebody changes so much at once that a removal of ours may have been missed. */
	log_notice("changes of kernel rules by others: %s; ours are put in anew", strerror(-r));
	put_back(e, now, rules_present(e->rules) == 0);
	return true;
}

void enforce_start(struct engine *e)
{
	/* Those of another version lack chains that nobody removed. */
	const bool same = atomic_load_explicit(&e->area.h->rules_in, memory_order_relaxed) == RULES_LAYOUT;

	if (same && rules_present(e->rules) == 0) {
		enforce_worry(e, HEALTH_RULES_FLUSHED);
		log_warning("somebody removed our kernel rules while no engine ran; putting them back");
	}
	leases_end_all(e);	/* the dead engine's, with all that they passed */
	(void)blocked_settle(e, e->policy);	/* the review puts the dead engine's elements in anew, and they count from zero */
	enforce_rules(e);
	(void)blocked_settle(e, e->policy);	/* of the transaction's milliseconds */
	blocked_review(e, clock_mono());
}

void enforce_health(struct engine *e, struct mono now)
{
	bool flushed;
	unsigned n;

	if (!e->policy)
		return;
	resolve_ifaces(e, e->policy);
	flushed = rules_present(e->rules) == 0;
	if (flushed && rules_disturbed(e->rules) < 0)	/* word of this removal may just have come: it is told once */
		log_notice("changes of kernel rules by others were lost; ours are put in anew");
	if (flushed || e->rules_due)
		put_back(e, now, flushed);
	read_counters(e);
	read_drops(e);
	answers_settle(e, now);
	read_worries(e);
	n = judge_evict_retire(&e->judge, now);
	if (n) {
		worker_grace();
		judge_evict_release(&e->judge);
	}
}
