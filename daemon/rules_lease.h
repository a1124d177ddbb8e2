/* rules_lease.h - leases in the kernel: rules of table egressd's queue chain (before them stand exits' devices only), maps from pairs to quotas, and what passed by
 * each.
 *
 *	queue (postrouting -155)   the pair has an element whose quota lets it pass   -> counted by pair, LEASED, accepted
 *	                           where services are told apart: the same by (pair, protocol, accepting port, direction)
 *
 * Two lookups a packet: the map's quota object decides, and only then the element in the set beside it counts, in one rule. So
 *     leased = the set's counter, exact and never falling; quota's `used` = leased + what it sent on to the queue.
 * An element of the map is in no instant without its counter: both come in one transaction, and the counter goes after the grace
 * period that follows the map's.
 *
 * [V1] Atomic   each call about some leases is one transaction of at most RULES_LEASES.
 * [V2] Frozen   after rules_lease_end() no packet begins to pass by the lease, and rules_lease_grace() waits for those that were
 *               amid the rules: then its count is final.
 * Needs: maps to named quotas, counters in set elements (kernel 5.7). rules_leases() says whether the kernel has them: where it lacks
 *        quotas or passes over the counters, sets and rules are taken all the same, so both are asked for on their own.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "compiler.h"
#include "lease.h"

#define RULES_LEASES 256	/* of one call */

struct rules;

struct rules_lease {
	struct lease_key key;
	uint32_t slot;		/* with the generation the name of its object */
	uint64_t generation;
	uint64_t quota;		/* bytes, absolute */
	bool fresh;		/* not in the kernel yet */
	bool asleep;		/* in the kernel, but for its element of the map */
};

int rules_lease_put(struct rules *r, const struct rules_lease *v, size_t n) MUST_CHECK;	/* add, or raise in place; or wake */
int rules_lease_end(struct rules *r, const struct rules_lease *v, size_t n) MUST_CHECK;	/* -ENOENT: one was not there, none is ended */
int rules_lease_forget(struct rules *r, const struct rules_lease *v, size_t n) MUST_CHECK;	/* counters and objects */

/* All of them, whatever is there, in several transactions. Ended: the queue chain asks no lease (-ENOENT: it is not there); before the
 * first apply the maps are emptied instead, and a missing one is no error. Forgotten: no element, counter or object is left, and
 * leases are asked again. -EAGAIN: there is no chain to ask them (nothing was applied yet, or others removed it): after the next apply. */
int rules_lease_end_all(struct rules *r) MUST_CHECK;
int rules_lease_forget_all(struct rules *r) MUST_CHECK;

/* Every packet that was amid the rules has left them (membarrier(2), an RCU grace period of the kernel: 5 ms, 20 at most here). */
void rules_lease_grace(void);

typedef void rules_lease_count_fn(void *ctx, const struct lease_key *key, uint64_t packets, uint64_t bytes);

/* Passed by leases, ever. -ENOENT: there are no sets of ours. */
int rules_lease_counts(struct rules *r, rules_lease_count_fn *each, void *ctx) MUST_CHECK;
int rules_lease_count(struct rules *r, const struct rules_lease *l, uint64_t *ret_packets, uint64_t *ret_bytes) MUST_CHECK;
/* What the quota saw, sent on to the queue included; never above *ret_quota, and that much when it is used up. */
int rules_lease_used(struct rules *r, const struct rules_lease *l, uint64_t *ret_used, uint64_t *ret_quota) MUST_CHECK;

/* Leases that the kernel told are used up since the last call, at most n; how many. Fed by rules_disturbed(). */
size_t rules_lease_depleted(struct rules *r, struct rules_lease *ret, size_t n);
