/* block_owners.c - see block_owners.h for the contract. */
#include "block_owners.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

static int owner_order(const void *x, const void *y)
{
	const struct block_owner *a = x, *b = y;
	const int by = block_element_order(&a->element, &b->element);

	if (by)
		return by;
	if (a->pair != b->pair)
		return a->pair ? -1 : 1;
	return (a->rule > b->rule) - (a->rule < b->rule);
}

int block_owners_add(struct block_owners *o, const struct block_list *l)
{
	if (o->n + l->n > o->room) {
		size_t room = 2 * (o->n + l->n);
		struct block_owner *v = reallocarray(o->v, room, sizeof(*v));

		if (!v)
			return -ENOMEM;
		o->v = v;
		o->room = room;
	}
	for (size_t i = 0; i < l->n; i++)
		o->v[o->n++] = (struct block_owner){ .element = l->item[i] };
	return 0;
}

static int add_account(const struct area *a, bool own, struct block_owners *o, const struct block_list *l, uint32_t account)
{
	const struct account_key *k = &a->account[account].key;
	const size_t before = o->n;
	int r = block_owners_add(o, l);

	for (size_t i = before; i < o->n; i++) {
		o->v[i].account = account;
		o->v[i].rule = k->rule;
		o->v[i].pair = k->kind == SUBJECT_PAIR;
		o->v[i].stands = a->account_cold[account].announced == 1 || !own;
	}
	return r;
}

/* [OW1] */
static bool has_elements(const struct area *a, uint32_t slot)
{
	return table_is_full(&a->accounts, slot) &&
	       (atomic_load_explicit(&a->account[slot].state, memory_order_relaxed) & ACCOUNT_BLOCKED || a->account_cold[slot].announced);
}

int block_owners_of(const struct area *a, const struct policy *p, bool own, struct block_owners *o)
{
	static struct block_list l;	/* large, and one thread asks */
	int r = 0;

	for (uint32_t w = 0; r == 0 && w < a->h->accounts / 64; w++)
		for (uint64_t left = atomic_load_explicit(&a->open[w], memory_order_relaxed); r == 0 && left; left &= left - 1) {
			uint32_t slot = w * 64 + (uint32_t)__builtin_ctzll(left);

			if (!has_elements(a, slot))
				continue;
			l.n = 0;
			block_elements(a, p, slot, 0, (struct mono){ 0 }, &l);
			r = add_account(a, own, o, &l, slot);
		}
	if (o->n)
		qsort(o->v, o->n, sizeof(*o->v), owner_order);
	return r;
}

void block_owners_free(struct block_owners *o)
{
	free(o->v);
	*o = (struct block_owners){ 0 };
}

size_t block_owners_first(const struct block_owners *o, const struct rules_block *b)
{
	size_t lo = 0, hi = o->n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (block_element_order(&o->v[mid].element, b) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

bool block_owners_is(const struct block_owners *o, size_t i, const struct rules_block *b)
{
	return i < o->n && block_element_order(&o->v[i].element, b) == 0;
}

bool block_owners_count(struct block_owners *o, const struct rules_block *b, uint64_t bytes)
{
	const size_t first = block_owners_first(o, b);
	bool spoken = false;

	for (size_t i = first; block_owners_is(o, i, b); i++) {
		struct block_owner *x = &o->v[i];

		if (!x->stands)
			continue;
		x->bytes += bytes;
		x->speaks = x->pair && !spoken;
		spoken = true;
	}
	return block_owners_is(o, first, b);
}

static int by_account(const void *x, const void *y)
{
	const struct block_owner *a = x, *b = y;

	return (a->account > b->account) - (a->account < b->account);
}

void block_owners_sums(struct block_owners *o, void (*each)(void *ctx, uint32_t account, uint64_t all, uint64_t spoken), void *ctx)
{
	if (o->n)
		qsort(o->v, o->n, sizeof(*o->v), by_account);
	for (size_t i = 0, next; i < o->n; i = next) {
		uint64_t all = 0, spoken = 0;

		for (next = i; next < o->n && o->v[next].account == o->v[i].account; next++) {
			all += o->v[next].bytes;
			spoken += o->v[next].speaks ? o->v[next].bytes : 0;
		}
		if (o->v[i].stands)
			each(ctx, o->v[i].account, all, spoken);
	}
	if (o->n)
		qsort(o->v, o->n, sizeof(*o->v), owner_order);
}
