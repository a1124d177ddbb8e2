/* block_owners.h - whose an element of the kernel's sets is, and whose the bytes are that it refused. Pure.
 *
 * Several blocks may have the same element; the kernel counts it once, and from zero when one of them puts it in.
 *
 * [OW1] Whose     an element is of every account that is blocked, or was at the last review, and whose block it is by the policy.
 * [OW2] Standing  its bytes are of those for which it was put in; with `own` false (no review yet) of all of them: the dead engine's.
 * [OW3] Once      of several accounts of pairs one adds the bytes to its pair: the first by uid, which no restart changes.
 */
#pragma once

#include "block_elements.h"

struct block_owner {		/* an account and one element of its block */
	struct rules_block element;
	uint32_t account;
	uint32_t rule;		/* uid */
	bool pair;		/* its subject is one */
	bool stands;		/* [OW2] */
	bool speaks;		/* [OW3] */
	uint64_t bytes;
};

struct block_owners {		/* sorted by element */
	struct block_owner *v;
	size_t n, room;
};

/* All of them. 0 or -ENOMEM; o, zero before, is to be freed in any case. */
int block_owners_of(const struct area *a, const struct policy *p, bool own, struct block_owners *o) MUST_CHECK;
void block_owners_free(struct block_owners *o);

/* Elements that have no account, by themselves; sorted or not is the caller's. 0 or -ENOMEM. */
int block_owners_add(struct block_owners *o, const struct block_list *l) MUST_CHECK;

/* The first owner of b and those behind it while block_owners_is(). */
size_t block_owners_first(const struct block_owners *o, const struct rules_block *b);
bool block_owners_is(const struct block_owners *o, size_t i, const struct rules_block *b);

/* Bytes of element b. False: it is of no account. */
bool block_owners_count(struct block_owners *o, const struct rules_block *b, uint64_t bytes);

/* Of each account for which elements stand, once: all that they counted, and what it adds to its pair. */
void block_owners_sums(struct block_owners *o, void (*each)(void *ctx, uint32_t account, uint64_t all, uint64_t spoken), void *ctx);
