/* blocked_settle.c - what the kernel's sets refused, to accounts and pairs; and elements that no account has. Main thread only. See
 * engine.h. */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "block_owners.h"
#include "clock.h"
#include "engine.h"
#include "log.h"

struct settle {
	struct engine *e;
	struct block_owners owners;
	struct mono now;
	uint32_t kept;
	uint64_t lost;		/* of elements of ports */
};

/* In place: of one that stays the relay never reads a half. */
static void list_kept(struct settle *s, const struct rules_block *b, uint64_t bytes)
{
	struct area_kept *k;

	if (s->kept++ >= AREA_KEPT)
		return;
	k = &s->e->area.h->kept[s->kept - 1];
	k->src = b->src;
	k->dst = b->dst;
	k->until_ns = b->timeout_ms ? s->now.ns + b->timeout_ms * NS_PER_MS : 0;
	k->refused = bytes;
}

static void tell_kept(struct engine *e, uint32_t n)
{
	const uint32_t before = atomic_exchange_explicit(&e->area.h->kept_blocks, n, memory_order_release);

	if (n > before)
		log_notice("%u block%s of before %s in the kernel until their time, of rules that nobody knows any more: egressctl blocks "
			   "lists them, egressctl unblock takes them out", n, n == 1 ? "" : "s", n == 1 ? "stands" : "stand");
}

/* To the pair that crossed, where the subject is one pair: an element of all of it does not tell its classes apart. */
static void refused_of_pair(struct engine *e, uint32_t account, uint64_t bytes)
{
	uint32_t pair = e->area.account_cold[account].pair;

	if (e->area.account[account].key.kind == SUBJECT_PAIR && pair < e->area.h->pairs && table_is_full(&e->area.pairs, pair))
		atomic_fetch_add_explicit(&e->area.pair_cold[pair].refused, bytes, memory_order_relaxed);
}

static void refused_of_account(struct engine *e, uint32_t account, uint64_t bytes)
{
	atomic_fetch_add_explicit(&e->area.account[account].refused, bytes, memory_order_relaxed);
	__atomic_store_n(&e->area.account_cold[account].last_ns, clock_mono().ns, __ATOMIC_RELAXED);
}

void blocked_refused(struct engine *e, uint32_t account, uint64_t bytes)
{
	refused_of_account(e, account, bytes);
	refused_of_pair(e, account, bytes);
}

static uint64_t less(uint64_t n, uint64_t by)
{
	return n - MIN_OF(n, by);
}

void blocked_counts_anew(struct engine *e, const struct rules_block *b)
{
	struct block_owners *o = &e->settled;

	for (size_t i = block_owners_first(o, b); block_owners_is(o, i, b); i++) {
		struct block_owner *x = &o->v[i];
		struct account_cold *c = &e->area.account_cold[x->account];

		c->kernel_refused = less(c->kernel_refused, x->bytes);
		if (x->speaks)
			c->kernel_pair = less(c->kernel_pair, x->bytes);
		x->bytes = 0;
	}
}

static void settle_account(void *ctx, uint32_t account, uint64_t all, uint64_t spoken)
{
	struct engine *e = ctx;
	struct account_cold *c = &e->area.account_cold[account];

	if (all > c->kernel_refused)
		refused_of_account(e, account, all - c->kernel_refused);
	if (spoken > c->kernel_pair)
		refused_of_pair(e, account, spoken - c->kernel_pair);
	c->kernel_refused = all;
	c->kernel_pair = spoken;
}

static int refused_in_kernel(void *ctx, const struct rules_block *b, uint64_t packets, uint64_t bytes)
{
	struct settle *s = ctx;

	(void)packets;
	if (block_owners_count(&s->owners, b, bytes))
		return 0;
	if (b->kind <= RULES_BLOCK_HOST)
		list_kept(s, b, bytes);
	else
		s->lost += bytes;
	return 0;
}

uint64_t blocked_settle(struct engine *e, const struct engine_policy *p)
{
	struct settle s = { .e = e, .now = clock_mono() };
	const struct area_header *h = e->area.h;
	int r;

	if (!p || (e->sets_known && atomic_load_explicit(&h->blocks, memory_order_relaxed) == 0 &&
		   atomic_load_explicit(&h->kept_blocks, memory_order_relaxed) == 0))
		return 0;
	r = block_owners_of(&e->area, &p->view, e->sets_own, &s.owners);
	if (r == 0)
		r = rules_block_dump(e->rules, refused_in_kernel, &s);
	if (r == 0) {
		block_owners_sums(&s.owners, settle_account, e);
		tell_kept(e, s.kept);
		block_owners_free(&e->settled);
		e->settled = s.owners;
	} else {
		block_owners_free(&s.owners);
	}
	e->sets_known = r == 0;
	return r == 0 ? s.lost : 0;
}

/* ---- blocks of before ---- */

struct lift {
	struct block_owners owners;
	struct prefix src, dst;
	struct rules_block *v;
	size_t n, room;
};

/* A host's element refuses its packets to any destination, which are of its family. */
static bool refuses(const struct rules_block *b, const struct prefix *src, const struct prefix *dst)
{
	if (b->kind > RULES_BLOCK_HOST || !prefix_contains(src, &b->src))
		return false;
	if (dst->len == 0)
		return true;
	return b->kind == RULES_BLOCK_HOST ? addr_is_v4(&dst->addr) == addr_is_v4(&b->src) : prefix_contains(dst, &b->dst.addr);
}

static int collect_kept(void *ctx, const struct rules_block *b, uint64_t packets, uint64_t bytes)
{
	struct lift *l = ctx;

	(void)packets;
	(void)bytes;
	if (!refuses(b, &l->src, &l->dst) || block_owners_is(&l->owners, block_owners_first(&l->owners, b), b))
		return 0;
	if (l->n == l->room) {
		const size_t room = l->room ? l->room * 2 : 64;
		struct rules_block *v = reallocarray(l->v, room, sizeof(*v));

		if (!v)
			return -ENOMEM;
		l->v = v;
		l->room = room;
	}
	l->v[l->n++] = *b;
	return 0;
}

int blocked_lift_kept(struct engine *e, const struct prefix *src, const struct prefix *dst, uint32_t *ret_count)
{
	struct lift l = { .src = *src, .dst = *dst };
	int r;

	*ret_count = 0;
	if (!e->policy)
		return 0;
	if (dst->len > 64 && !addr_is_v4(&dst->addr))	/* an outside IPv6 address stands for its /64 */
		l.dst = (struct prefix){ .addr = addr_mask(&dst->addr, 64), .len = 64 };
	r = block_owners_of(&e->area, &e->policy->view, e->sets_own, &l.owners);
	if (r == 0)
		r = rules_block_dump(e->rules, collect_kept, &l);
	for (size_t i = 0; r == 0 && i < l.n; i += BLOCK_BATCH)
		r = rules_block_del(e->rules, &l.v[i], MIN_OF(l.n - i, (size_t)BLOCK_BATCH));
	if (r == 0)
		*ret_count = (uint32_t)l.n;
	if (l.n)
		(void)blocked_settle(e, e->policy);	/* what is listed */
	block_owners_free(&l.owners);
	free(l.v);
	return r;
}
