/* blocked.c - blocks into the kernel's sets: when their elements (block_elements.h) are put in and taken out. Main thread only. See
 * engine.h. */
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "block_owners.h"
#include "clock.h"
#include "engine.h"
#include "log.h"

#define ANEW_S	    10
#define SETTLED_MS  1500	/* an element outlives its block until the second's look has read it and takes it out */

/* Which are in force, as a number; 0: none. */
static uint32_t allows_now(const struct engine *e, struct mono now)
{
	uint32_t n = 0;

	for (unsigned i = 0; i < AREA_DYNAMIC; i++)
		if (judge_allows(&e->area, &e->area.h->dynamic[i], now))
			n = n * 31 + e->area.h->dynamic[i].uid;
	return n;
}

static void elements_of(const struct engine *e, uint32_t slot, uint64_t ms, struct mono now, struct block_list *l)
{
	block_elements(&e->area, e->policy ? &e->policy->view : NULL, slot, ms, now, l);
}

static bool is_blocked(const struct area *a, uint32_t slot)
{
	return atomic_load_explicit(&a->account[slot].state, memory_order_relaxed) & ACCOUNT_BLOCKED;
}

bool blocked_wants_answer(const struct engine *e, uint32_t account, const struct addr *src)
{
	static struct block_list l;	/* large, and there is one main thread */
	const struct account_cold *c = &e->area.account_cold[account];
	int i = e->policy ? policy_rule_by_uid(&e->policy->view, e->area.account[account].key.rule) : -1;

	if (!is_blocked(&e->area, account))
		return false;
	if (c->announced == ANNOUNCED_NONE)
		return c->rule == ACCOUNT_DYNAMIC || (i >= 0 && e->policy->view.rule[i].refuse == REFUSE_REJECT);
	if (c->rule != ACCOUNT_DYNAMIC && (i < 0 || e->policy->view.rule[i].refuse != REFUSE_REJECT))
		return false;
	l.n = 0;
	elements_of(e, account, 1, clock_mono(), &l);
	for (size_t k = 0; k < l.n; k++)
		if (l.item[k].kind <= RULES_BLOCK_HOST && addr_cmp(&l.item[k].src, src) == 0)
			return false;
	return true;
}

struct sync {
	struct engine *e;
	struct mono now;
	bool begun, ended;	/* some block did */
	bool all;		/* every element goes */
	bool failed;		/* an element of a service */
	struct block_list add, del;
	struct block_owners gone;	/* elements that were deleted in this review */
};

/* Another block may have had the same element: the next review puts it in again. After this one: who is blocked then stays so. */
static void announce_others(struct sync *s)
{
	struct block_owners o = { 0 };

	if (s->gone.n && atomic_load_explicit(&s->e->area.h->blocks, memory_order_relaxed) &&
	    block_owners_of(&s->e->area, &s->e->policy->view, true, &o) == 0)
		for (size_t i = 0; i < s->gone.n; i++) {
			const struct rules_block *b = &s->gone.v[i].element;

			for (size_t k = block_owners_first(&o, b); block_owners_is(&o, k, b); k++)
				if (is_blocked(&s->e->area, o.v[k].account))	/* else it is about to end */
					s->e->area.account_cold[o.v[k].account].announced = 0;
		}
	block_owners_free(&o);
	block_owners_free(&s->gone);
}

void blocked_announce(struct engine *e)
{
	for (uint32_t i = 0; i < e->area.h->accounts; i++)
		if (table_is_full(&e->area.accounts, i) && e->area.account_cold[i].announced) {
			e->area.account_cold[i].announced = 0;
			mark_for_review(&e->area, i);
		}
}

/* What went wrong with some elements may be in the way of others: all are put in again, but not each second. */
static void begin_anew(struct engine *e, struct mono now)
{
	static uint64_t again_ns;

	if (now.ns < again_ns || rules_block_clear_services(e->rules) < 0)
		return;
	again_ns = mono_add_s(now, ANEW_S).ns;
	blocked_announce(e);
}

static int change(struct engine *e, const struct block_list *l, bool services,
		  int (*call)(struct rules *r, const struct rules_block *b, size_t n))
{
	static struct rules_block item[BLOCK_BATCH];	/* large, and there is one main thread */
	size_t n = 0;

	for (size_t i = 0; i < l->n; i++)
		if ((l->item[i].kind > RULES_BLOCK_HOST) == services)
			item[n++] = l->item[i];
	return n ? call(e->rules, item, n) : 0;
}

static void flush_blocks(struct sync *s)
{
	for (int services = 0; services <= 1; services++) {	/* apart: a failure of the one kind is not one of the other */
		int r = change(s->e, &s->del, services, rules_block_del);

		if (r == 0)
			r = change(s->e, &s->add, services, rules_block_add);
		for (size_t i = 0; i < s->add.n; i++) {
			struct account_cold *c = &s->e->area.account_cold[s->add.account[i]];

			if ((s->add.item[i].kind > RULES_BLOCK_HOST) != services)
				continue;
			if (r == 0) {
				c->kernel_refused = c->kernel_pair = 0;
				blocked_counts_anew(s->e, &s->add.item[i]);
			} else {
				c->announced = r == -ENFILE ? ANNOUNCED_NONE : 0;
			}
		}
		if (r == 0)
			continue;
		s->e->sets_known = false;	/* what was not taken out has no account */
		enforce_worry(s->e, HEALTH_RULES_FAILED);
		log_error("blocked sets: %s; blocks hold in the queue%s", strerror(-r), r == -ENFILE ? "" : ", and the sets are tried again");
		s->failed = s->failed || (services && r != -ENFILE);
	}
	if (!s->all && block_owners_add(&s->gone, &s->del) < 0)
		log_notice("no memory: blocks that share elements with ended ones are the engine's");
	s->add.n = s->del.n = 0;
}

static void block_changed(void *ctx, uint32_t slot)
{
	struct sync *s = ctx;
	struct account_cold *c = &s->e->area.account_cold[slot];

	if (s->add.n > BLOCK_SHARE || s->del.n > BLOCK_SHARE)
		flush_blocks(s);
	if (is_blocked(&s->e->area, slot) && c->blocked_until_ns > s->now.ns) {
		const size_t before = s->add.n;

		s->begun = s->begun || c->leases;
		elements_of(s->e, slot, (c->blocked_until_ns - s->now.ns) / NS_PER_MS + SETTLED_MS, s->now, &s->add);
		if (s->add.n == before)
			c->announced = ANNOUNCED_NONE;
	} else {
		elements_of(s->e, slot, 0, s->now, &s->del);
		s->ended = true;
	}
}

/* Before the policy changes: elements are named by its words. */
uint64_t blocked_forget(struct engine *e)
{
	struct sync s = { .e = e, .now = clock_mono(), .all = true };
	const uint64_t lost = blocked_settle(e, e->policy);

	answers_forget(e, s.now);

	for (uint32_t i = 0; i < e->area.h->accounts; i++) {
		if (!table_is_full(&e->area.accounts, i) || !e->area.account_cold[i].announced)
			continue;
		elements_of(e, i, 0, s.now, &s.del);
		e->area.account_cold[i].announced = 0;
		mark_for_review(&e->area, i);
		if (s.del.n > BLOCK_SHARE)
			flush_blocks(&s);
	}
	flush_blocks(&s);
	if (rules_block_clear_services(e->rules) < 0)	/* whatever was left: it would be in the way of others */
		log_notice("elements of ended blocks may be in the kernel yet");
	return lost;
}

/* The first review: who is blocked was announced by the dead engine. Blocks that end now lose their elements, the others' are put in
 * anew. */
static void adopt(struct sync *s)
{
	struct engine *e = s->e;

	for (uint32_t i = 0; i < e->area.h->accounts; i++)
		if (table_is_full(&e->area.accounts, i) && is_blocked(&e->area, i)) {
			e->area.account_cold[i].announced = 1;
			mark_for_review(&e->area, i);
		}
	judge_review(&e->judge, s->now, block_changed, s);
	flush_blocks(s);
	blocked_announce(e);
	e->sets_own = true;
}

void blocked_review(struct engine *e, struct mono now)
{
	struct sync s = { .e = e, .now = now };
	uint32_t allows = allows_now(e, now), braked = atomic_load_explicit(&e->area.h->braked, memory_order_relaxed);

	if (!e->policy)
		return;	/* [BK1] */
	if (allows != e->allows)
		(void)blocked_forget(e);	/* which elements may stand has changed; the queue refuses meanwhile */
	e->allows = allows;
	if (!e->sets_own)
		adopt(&s);
	judge_review(&e->judge, now, block_changed, &s);
	flush_blocks(&s);
	announce_others(&s);
	if (s.failed)	/* after the review: what ended in it had to be seen as announced */
		begin_anew(e, now);
	if (s.ended)
		answers_forget(e, now);
	/* What the brake let through is beyond the limit that is back. */
	if (s.begun || atomic_load_explicit(&e->area.h->braked, memory_order_relaxed) < braked)
		leases_end_spent(e);
	answers_review(e, now);
}
