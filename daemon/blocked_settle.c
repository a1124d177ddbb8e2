/* blocked_settle.c - what the kernel's sets refused, to accounts and pairs. Main thread only. See engine.h. */
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
	uint64_t lost;		/* of elements of ports */
};

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
		blocked_kept_add(s->e, b, bytes);
	else
		s->lost += bytes;
	return 0;
}

uint64_t blocked_settle(struct engine *e, const struct engine_policy *p)
{
	struct settle s = { .e = e };
	const struct area_header *h = e->area.h;
	int r;

	if (!p || (e->sets_known && atomic_load_explicit(&h->blocks, memory_order_relaxed) == 0 &&
		   atomic_load_explicit(&h->kept_blocks, memory_order_relaxed) == 0))
		return 0;
	r = block_owners_of(&e->area, &p->view, e->sets_own, &s.owners);
	blocked_kept_begin(e);
	if (r == 0)
		r = rules_block_dump(e->rules, refused_in_kernel, &s);
	blocked_kept_end(e, &s.owners, r);
	if (r == 0) {
		block_owners_sums(&s.owners, settle_account, e);
		block_owners_free(&e->settled);
		e->settled = s.owners;
	} else {
		block_owners_free(&s.owners);
	}
	e->sets_known = r == 0;
	return r == 0 ? s.lost : 0;
}
