/* enforce.c - from decisions in the table to rules in the kernel: policy, blocked sets, counters. Main thread only. */
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <urcu-qsbr.h>

#include "clock.h"
#include "engine.h"
#include "log.h"
#include "nfq.h"

#define BLOB_MAX    (16U << 20)
#define BLOCK_BATCH 256

static void health(struct engine *e, enum area_health what)
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

/* Devices come and go (FAULTS 11): resolved anew every second; workers may read an entry as it changes, so one store each. */
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

static int apply(struct engine *e, const struct engine_policy *p, const char **ret_what)
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
		.inside = p->view.inside,
		.ninside = h->ninside,
		.exit_host = exit_host,
		.nexit_host = h->nexit_prefixes,
		.protect = p->view.protect,
		.nprotect = h->nprotect,
	};
	uint32_t n = 0;
	int r;

	*ret_what = "no memory";
	if (!exit_host)
		return -ENOMEM;
	for (uint32_t i = 0; i < outside->ndevices; i++)
		n = add_device(device, n, ARRAY_SIZE(device), outside->device[i]);
	for (uint32_t x = 0; x < h->nexits; x++)
		for (uint32_t i = 0; i < p->view.exit[x].nifaces; i++)
			n = add_device(device, n, ARRAY_SIZE(device), p->view.exit[x].iface[i]);
	for (uint32_t i = 0; i < h->nexit_prefixes; i++)
		exit_host[i] = p->view.exit_prefix[i].prefix;
	s.device = (const char(*)[16])device;
	s.ndevices = n;
	r = rules_apply(e->rules, &s, &e->flavour, ret_what);
	free(exit_host);
	if (r < 0)
		return r;
	atomic_store_explicit(&e->area.h->rules_in, 1, memory_order_relaxed);
	atomic_store_explicit(&e->area.h->flavour, e->flavour, memory_order_relaxed);
	return 0;
}

void enforce_rules(struct engine *e)
{
	const char *what = "";
	int r = apply(e, e->policy, &what);

	if (r < 0) {
		health(e, HEALTH_RULES_FAILED);
		log_error("kernel rules: %s: %s; traffic is not queued, trying again each second", what, strerror(-r));
	}
}

/* ---- blocked sets ---- */

struct block_list {
	struct rules_block item[BLOCK_BATCH];
	uint32_t account[BLOCK_BATCH];
	size_t n;
};

static void add_address(struct block_list *l, uint32_t account, uint8_t kind, bool reject, struct addr src,
			struct prefix dst, uint64_t ms)
{
	if (l->n == BLOCK_BATCH)
		return;	/* the rest of a block is the queue's: refused there all the same */
	l->account[l->n] = account;
	l->item[l->n++] = (struct rules_block){
		.kind = kind, .reject = reject, .src = src, .dst = dst, .timeout_ms = ms,
	};
}

static struct prefix out_prefix(const struct account_key *k)
{
	struct prefix p = { .len = k->out_family == 4 ? 128 : 64 };

	if (k->out_family == 4)
		p.addr = addr_from_v4(k->out);
	else
		memcpy(p.addr.b, k->out, sizeof(k->out));
	return p;
}

/* Addresses of an account's inside part: one, or all of a named host. */
static size_t inside_addresses(const struct policy *p, const uint8_t in[16], struct addr *to, size_t max)
{
	static const uint8_t zero[12];
	uint32_t uid;
	size_t n = 0;

	if (memcmp(in, zero, sizeof(zero)) != 0) {
		to[0] = addr_from_v6(in);
		return 1;
	}
	memcpy(&uid, in + 12, sizeof(uid));
	for (uint32_t i = 0; i < p->h->nhost_addrs && n < max; i++)
		if (p->host[p->host_addr[i].host].uid == uid)
			to[n++] = p->host_addr[i].addr;
	return n;
}

/* An `allow` in force for some of what the element would stop. */
static bool allowed(const struct engine *e, const struct addr *src, const struct prefix *dst, uint64_t now_ns)
{
	for (unsigned i = 0; i < AREA_DYNAMIC; i++) {
		const struct area_dynamic *d = &e->area.h->dynamic[i];

		if (d->kind == DYNAMIC_ALLOW && now_ns < d->until_ns && prefix_contains(&d->src, src) &&
		    (d->dst.len == 0 || dst->len == 0 || prefix_contains(dst, &d->dst.addr) ||
		     prefix_contains(&d->dst, &dst->addr)))
			return true;
	}
	return false;
}

static uint32_t count_allows(const struct engine *e, uint64_t now_ns)
{
	uint32_t n = 0;

	for (unsigned i = 0; i < AREA_DYNAMIC; i++)
		n += e->area.h->dynamic[i].kind == DYNAMIC_ALLOW && now_ns < e->area.h->dynamic[i].until_ns;
	return n;
}

static void rule_elements(const struct engine *e, const struct policy_rule *r, const struct account_key *k, uint32_t slot,
			  uint64_t ms, struct block_list *l)
{
	const struct policy *p = &e->policy->view;
	bool pair = k->kind == SUBJECT_PAIR, reject = r->refuse == REFUSE_REJECT;
	struct prefix dst = pair ? out_prefix(k) : (struct prefix){ 0 };
	const struct policy_dst *to = pair ? policy_dst_of(p, &dst.addr) : NULL;
	struct addr src[BLOCK_BATCH / 4];
	size_t n = inside_addresses(p, k->in, src, ARRAY_SIZE(src));

	if (r->form == FORM_ENGINE)
		return;
	for (size_t i = 0; i < n; i++) {
		if (pair && addr_is_v4(&src[i]) != (k->out_family == 4))
			continue;
		/* Where a contract may share the subject's bytes the queue alone refuses: an element would stop all of them. */
		if (policy_form_for(p, (uint32_t)(r - p->rule), policy_src_of(p, &src[i]), to) == FORM_ENGINE)
			continue;
		if (ms && allowed(e, &src[i], &dst, clock_mono().ns))
			continue;
		add_address(l, slot, pair ? RULES_BLOCK_PAIR : RULES_BLOCK_HOST, reject, src[i], dst, ms);
	}
}

static void dynamic_elements(const struct engine *e, uint32_t uid, uint32_t slot, uint64_t ms, struct block_list *l)
{
	for (unsigned i = 0; i < AREA_DYNAMIC; i++) {
		const struct area_dynamic *d = &e->area.h->dynamic[i];

		/* An ended one still names its addresses until the place is taken again. */
		if (d->uid != uid || d->src.len != 128)
			continue;
		if (d->dst.len == 0)
			add_address(l, slot, RULES_BLOCK_HOST, true, d->src.addr, (struct prefix){ 0 }, ms);
		else if (d->dst.len == 128 && addr_is_v4(&d->dst.addr))
			add_address(l, slot, RULES_BLOCK_PAIR, true, d->src.addr, d->dst, ms);
	}
}

/* Kernel elements of an account's block, as its rule and key say; none where an element cannot say it. */
static void elements_of(const struct engine *e, uint32_t slot, uint64_t ms, struct block_list *l)
{
	const struct account_cold *c = &e->area.account_cold[slot];
	const struct account_key *k = &e->area.account[slot].key;
	int i;

	if (c->rule == ACCOUNT_DYNAMIC) {
		dynamic_elements(e, k->rule, slot, ms, l);
		return;
	}
	i = e->policy ? policy_rule_by_uid(&e->policy->view, k->rule) : -1;
	if (i >= 0)
		rule_elements(e, &e->policy->view.rule[i], k, slot, ms, l);
}

struct sync {
	struct engine *e;
	struct mono now;
	struct block_list add, del;
};

static bool is_blocked(const struct area *a, uint32_t slot)
{
	return atomic_load_explicit(&a->account[slot].state, memory_order_relaxed) & ACCOUNT_BLOCKED;
}

static void flush_blocks(struct sync *s)
{
	int r = s->del.n ? rules_block_del(s->e->rules, s->del.item, s->del.n) : 0;

	if (r == 0 && s->add.n)
		r = rules_block_add(s->e->rules, s->add.item, s->add.n);
	if (r < 0) {
		health(s->e, HEALTH_RULES_FAILED);
		log_error("blocked sets: %s; blocks hold in the queue, and the sets are tried again", strerror(-r));
		for (size_t i = 0; i < s->add.n; i++)
			s->e->area.account_cold[s->add.account[i]].announced = 0;
	}
	s->add.n = s->del.n = 0;
}

static void block_changed(void *ctx, uint32_t slot)
{
	struct sync *s = ctx;
	struct account_cold *c = &s->e->area.account_cold[slot];

	if (s->add.n > BLOCK_BATCH / 2 || s->del.n > BLOCK_BATCH / 2)
		flush_blocks(s);
	if (is_blocked(&s->e->area, slot) && c->blocked_until_ns > s->now.ns) {
		c->kernel_refused = 0;
		elements_of(s->e, slot, (c->blocked_until_ns - s->now.ns) / NS_PER_MS, &s->add);
	} else {
		elements_of(s->e, slot, 0, &s->del);
	}
}

/* Before the policy changes: elements are named by its words. */
static void forget_blocks(struct engine *e)
{
	struct sync s = { .e = e, .now = clock_mono() };

	for (uint32_t i = 0; i < e->area.h->accounts; i++) {
		if (!table_is_full(&e->area.accounts, i) || !e->area.account_cold[i].announced)
			continue;
		elements_of(e, i, 0, &s.del);
		e->area.account_cold[i].announced = 0;
		mark_for_review(&e->area, i);
		if (s.del.n > BLOCK_BATCH / 2)
			flush_blocks(&s);
	}
	flush_blocks(&s);
}

/* What the sets refused belongs to the account and its pair. */
static int refused_in_kernel(void *ctx, const struct rules_block *b, uint64_t packets, uint64_t bytes)
{
	struct engine *e = ctx;

	(void)packets;
	for (uint32_t w = 0; w < e->area.h->accounts / 64; w++)
		for (uint64_t left = atomic_load_explicit(&e->area.open[w], memory_order_relaxed); left;
		     left &= left - 1) {
			uint32_t slot = w * 64 + (uint32_t)__builtin_ctzll(left);
			struct account_cold *c = &e->area.account_cold[slot];
			struct block_list l = { .n = 0 };

			if (!is_blocked(&e->area, slot))
				continue;
			elements_of(e, slot, 0, &l);
			for (size_t i = 0; i < l.n; i++)
				if (l.item[i].kind == b->kind && addr_cmp(&l.item[i].src, &b->src) == 0 &&
				    addr_cmp(&l.item[i].dst.addr, &b->dst.addr) == 0)
					c->kernel_seen += bytes;
		}
	return 0;
}

static void settle_refused(struct engine *e)
{
	int r;

	if (atomic_load_explicit(&e->area.h->blocks, memory_order_relaxed) == 0)
		return;
	r = rules_block_dump(e->rules, refused_in_kernel, e);
	for (uint32_t i = 0; i < e->area.h->accounts; i++) {
		struct account_cold *c = &e->area.account_cold[i];
		uint64_t seen = c->kernel_seen;

		if (!seen)
			continue;
		c->kernel_seen = 0;
		if (r < 0)
			continue;
		if (seen > c->kernel_refused) {
			atomic_fetch_add_explicit(&e->area.account[i].refused, seen - c->kernel_refused,
						  memory_order_relaxed);
			__atomic_store_n(&c->last_ns, clock_mono().ns, __ATOMIC_RELAXED);
		}
		c->kernel_refused = seen;
	}
}

void enforce_review(struct engine *e, struct mono now)
{
	struct sync s = { .e = e, .now = now };
	uint32_t allows = count_allows(e, now.ns);

	if (allows != e->allows)
		forget_blocks(e);	/* which elements may stand has changed; the queue refuses meanwhile */
	e->allows = allows;
	judge_review(&e->judge, now, block_changed, &s);
	flush_blocks(&s);
}

/* ---- policy, put in force ---- */

int enforce_policy(struct engine *e, int blob_fd, uint32_t version, bool rules_stand, char why[200])
{
	struct engine_policy *p = NULL, *old = e->policy;
	const char *what = "";
	int r = policy_map(blob_fd, &p, &what);

	if (r < 0) {
		snprintf(why, 200, "policy blob refused: %s", what);
		return r;
	}
	resolve_ifaces(e, p);
	p->version = version;
	p->no = ++e->next_no;
	r = rules_stand ? 0 : apply(e, p, &what);	/* first: it is atomic and may fail, what follows cannot */
	if (r < 0) {
		snprintf(why, 200, "kernel rules: %s: %s", what, strerror(-r));
		policy_free(p);
		return r;
	}
	forget_blocks(e);
	rcu_assign_pointer(e->policy, p);
	e->judge.policy = &p->view;
	e->judge.policy_no = p->no;
	urcu_qsbr_synchronize_rcu();	/* [E2] no worker judges by the old one any more */
	judge_policy_changed(&e->judge, clock_mono());
	memcpy(e->area.h->policy_sum, p->view.h->sum, sizeof(e->area.h->policy_sum));
	atomic_store_explicit(&e->area.h->policy_version, version, memory_order_release);
	policy_free(old);
	if (!rules_stand)
		enforce_review(e, clock_mono());
	return 0;
}

/* ---- once a second ---- */

static int pair_unseen(void *ctx, const struct addr *src, const struct addr *dst, uint64_t packets, uint64_t bytes)
{
	struct engine *e = ctx;
	struct pair_key k = { 0 };
	uint32_t slot;

	(void)packets;
	memcpy(k.in, src->b, sizeof(k.in));
	pair_out(&k, dst);
	slot = table_find(&e->area.pairs, area_pair_hash(&e->area, &k), (const struct table_key *)&k);
	if (slot != TABLE_NONE)
		atomic_store_explicit(&e->area.pair_cold[slot].unseen, bytes, memory_order_relaxed);
	return 0;
}

static void read_counters(struct engine *e)
{
	struct area_header *h = e->area.h;
	uint64_t before = atomic_load_explicit(&h->unseen_packets, memory_order_relaxed);
	struct rules_counters k;

	if (rules_counters(e->rules, &k) < 0)
		return;	/* rules_present() tells why */
	atomic_store_explicit(&h->egress_bytes, k.egress_bytes, memory_order_relaxed);
	atomic_store_explicit(&h->unseen_bytes, k.unseen_bytes, memory_order_relaxed);
	atomic_store_explicit(&h->unseen_packets, k.unseen_packets, memory_order_relaxed);
	if (k.unseen_packets > before) {
		health(e, HEALTH_UNSEEN);
		if (rules_unseen_dump(e->rules, pair_unseen, e) < 0)
			log_warning("unseen bytes by pair cannot be read; the total stands");
	}
}

static void read_drops(struct engine *e)
{
	uint64_t queue = 0, user = 0;

	for (unsigned i = 0; i < e->nworkers; i++) {
		uint64_t q = 0, u = 0;

		if (nfq_drops(e->worker[i].queue, &q, &u) == 0) {
			queue += q;
			user += u;
		}
	}
	if (queue + user > atomic_load_explicit(&e->area.h->queue_dropped, memory_order_relaxed) +
				   atomic_load_explicit(&e->area.h->user_dropped, memory_order_relaxed))
		health(e, HEALTH_QUEUE_LOST);
	atomic_store_explicit(&e->area.h->queue_dropped, queue, memory_order_relaxed);
	atomic_store_explicit(&e->area.h->user_dropped, user, memory_order_relaxed);
}

/* What the workers met: a rise is a health matter. */
static void read_worries(struct engine *e)
{
	uint64_t overflow = area_counter_sum(&e->area, AC_OVERFLOW);
	uint32_t braked = atomic_load_explicit(&e->area.h->braked, memory_order_relaxed);

	if (overflow > e->overflow_seen)
		health(e, HEALTH_TABLE_FULL);
	if (braked > e->braked_seen)
		health(e, HEALTH_BRAKE);
	e->overflow_seen = overflow;
	e->braked_seen = braked;
}

void enforce_health(struct engine *e, struct mono now)
{
	unsigned n;

	if (!e->policy)
		return;
	resolve_ifaces(e, e->policy);
	if (rules_present(e->rules) == 0) {
		health(e, HEALTH_RULES_FLUSHED);
		log_warning("somebody removed our kernel rules; putting them back");
		for (uint32_t i = 0; i < e->area.h->accounts; i++)
			if (table_is_full(&e->area.accounts, i) && e->area.account_cold[i].announced) {
				e->area.account_cold[i].announced = 0;
				mark_for_review(&e->area, i);
			}
		enforce_rules(e);
		enforce_review(e, now);
	}
	read_counters(e);
	read_drops(e);
	settle_refused(e);
	read_worries(e);
	n = judge_evict_retire(&e->judge, now);
	if (n) {
		urcu_qsbr_synchronize_rcu();
		judge_evict_release(&e->judge);
	}
}
