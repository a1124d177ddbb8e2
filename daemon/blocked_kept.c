/* blocked_kept.c - elements that no account has. Main thread only. See engine.h [BK2]. */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "block_owners.h"
#include "clock.h"
#include "engine.h"
#include "log.h"

static struct {			/* while the list is made anew */
	struct area_kept was[AREA_KEPT];
	bool seen[AREA_KEPT];
	uint32_t nwas, n;
	struct mono now;
} anew;

static uint32_t listed(const struct area_header *h)
{
	return MIN_OF(atomic_load_explicit(&h->kept_blocks, memory_order_relaxed), (uint32_t)AREA_KEPT);
}

static struct rules_block block_of(const struct area_kept *k)
{
	return (struct rules_block){ .kind = k->dst.len ? RULES_BLOCK_PAIR : RULES_BLOCK_HOST, .reject = k->reject, .src = k->src, .dst = k->dst };
}

/* Place of the element in the list as it was, or nwas. */
static uint32_t find(const struct rules_block *b)
{
	uint32_t i = 0;

	while (i < anew.nwas && (addr_cmp(&anew.was[i].src, &b->src) != 0 || anew.was[i].dst.len != b->dst.len ||
				 addr_cmp(&anew.was[i].dst.addr, &b->dst.addr) != 0))
		i++;
	return i;
}

void blocked_kept_begin(struct engine *e)
{
	anew.now = clock_mono();
	anew.nwas = listed(e->area.h);
	anew.n = 0;
	memcpy(anew.was, e->area.h->kept, anew.nwas * sizeof(anew.was[0]));
	memset(anew.seen, 0, sizeof(anew.seen));
}

/* In place: of one that stays the relay never reads a half. */
static void list(struct engine *e, const struct area_kept *k)
{
	if (anew.n++ < AREA_KEPT)
		e->area.h->kept[anew.n - 1] = *k;
}

void blocked_kept_add(struct engine *e, const struct rules_block *b, uint64_t bytes)
{
	const uint32_t i = find(b);
	const uint64_t before = i < anew.nwas ? anew.was[i].before : 0;

	if (i < anew.nwas)
		anew.seen[i] = true;
	list(e, &(struct area_kept){ .src = b->src, .dst = b->dst, .refused = before + bytes, .before = before, .reject = b->reject,
				     .until_ns = b->timeout_ms ? anew.now.ns + b->timeout_ms * NS_PER_MS : 0 });
}

/* Neither ended by itself, within the time since the last reading, nor lifted, nor an account's now: others have removed it. */
static bool is_missing(uint32_t i, const struct block_owners *o, const struct rules_block *b)
{
	const uint64_t until = anew.was[i].until_ns;

	return !anew.seen[i] && (until == 0 || until > mono_add_s(anew.now, 1).ns) && !block_owners_is(o, block_owners_first(o, b), b);
}

/* Where the sets are missing, too, it stays on the list, and is tried with the next reading. */
static void put_back(struct engine *e, const struct block_owners *o)
{
	static struct rules_block v[AREA_KEPT];
	size_t n = 0;

	for (uint32_t i = 0; i < anew.nwas; i++) {
		struct area_kept k = anew.was[i];
		struct rules_block b = block_of(&k);

		if (!is_missing(i, o, &b))
			continue;
		b.timeout_ms = k.until_ns ? (k.until_ns - anew.now.ns) / NS_PER_MS : 0;
		v[n++] = b;
		k.before = k.refused;
		list(e, &k);
	}
	if (n && rules_block_add(e->rules, v, n) == 0)
		log_notice("others removed %zu block%s of before; put back", n, n == 1 ? "" : "s");
}

static void tell(struct engine *e, uint32_t n)
{
	const uint32_t before = atomic_exchange_explicit(&e->area.h->kept_blocks, n, memory_order_release);

	if (n > before)
		log_notice("%u block%s of before %s in the kernel until their time, of rules that nobody knows any more: egressctl blocks "
			   "lists them, egressctl unblock takes them out", n, n == 1 ? "" : "s", n == 1 ? "stands" : "stand");
}

void blocked_kept_end(struct engine *e, const struct block_owners *o, int r)
{
	if (r < 0) {	/* nobody knows: as it was */
		memcpy(e->area.h->kept, anew.was, anew.nwas * sizeof(anew.was[0]));
		return;
	}
	put_back(e, o);
	tell(e, anew.n);
}

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

/* Or they would be put back; what is in the kernel yet is found again. */
static void forget(struct area_header *h, const struct prefix *src, const struct prefix *dst)
{
	for (uint32_t i = 0; i < listed(h); i++) {
		const struct rules_block b = block_of(&h->kept[i]);

		if (refuses(&b, src, dst))
			h->kept[i].until_ns = 1;
	}
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
	if (r == 0)
		forget(e->area.h, &l.src, &l.dst);
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
