/* block_elements.h - which elements of the kernel's sets (rules.h) an account's block is: of its key, the policy and the decisions in
 * force. Pure.
 *
 * The queue refuses what is blocked in any case; an element spares it the packets, answers the inside host, and holds while all of us
 * are dead.
 *
 * [EL1] No more  an element refuses no packet that the block does not: where it would (a group, a contract of every service, an address
 *                of a named host that the rule does not name, pairs that share an account, judge_allows()), there is none.
 *                One that is of some ports or openers only, or beside a contract that is, has an element for each span of ports
 *                that the policy tells apart.
 * [EL2] Whole    where there are elements they refuse every packet of the block whose opener is known, within the bound; but of a host
 *                none of a service that a contract to some destination has.
 * [EL3] Same     the same elements in the same order each time, whether those of an address may stand just now or not.
 * [EL4] Bound    BLOCK_SHARE of one account; the rest is the queue's.
 * [EL5] Apart    those of services of one source, or pair, are the same or disjoint.
 */
#pragma once

#include "area.h"
#include "policy.h"
#include "rules.h"

#define BLOCK_BATCH 256
#define BLOCK_SHARE (BLOCK_BATCH / 2)

struct block_list {
	struct rules_block item[BLOCK_BATCH];
	uint32_t account[BLOCK_BATCH];
	size_t n;
	unsigned share;		/* elements of the account that is being put in */
};

/* Added to l, as far as it has room. p NULL: of decisions alone. ms: how long they stand; 0: any time, whether they may stand or not. */
void block_elements(const struct area *a, const struct policy *p, uint32_t account, uint64_t ms, struct mono now,
		    struct block_list *l);

/* By what the kernel tells elements apart: reject or drop is not in it. */
int block_element_order(const struct rules_block *a, const struct rules_block *b);
