/* account.h - the byte credit of one (rule or contract, subject).
 *
 * `spent` is every byte ever charged packet by packet; it may reach `cap`. What the kernel passed on leases (lender.h) is apart,
 * `leased`, so that one thread alone moves it and a kill can be mended: total = spent + leased. cap follows from the rings and the
 * leases:
 *     cap = min over windows (start of the window's oldest bucket + limit), or a grant by hand if that is higher,
 *           less leased, less outstanding
 * and a charge is one compare-and-swap on `spent`. But for a grant of a lease (lender.h [Z2]) a stale cap is only ever too low.
 *
 * [A1] Exact      spent never passes cap by account_charge, whatever the number of threads.
 * [A2] Never late see window.h [W1]; bytes out on lease (`outstanding`) are in no bucket and do not age.
 * [A3] Undo       gives back exactly what was charged, also when a bucket began in between.
 * [A4] Crash      a kill at any instruction loses no charged byte; a charge whose packet was not answered stays (above
 *                 the truth by at most that packet). The lock bit of a dead process is cleared by account_recover().
 * [A5] Bound      the lock is held for O(WINDOW_SLOTS) steps; once a crossing also while that is told (judge.h, notify): two
 *                 writes to an eventfd.
 * Threads         any worker charges; lock() holders alone touch the cold part, except fields said to be atomic.
 * Not here        which accounts a packet pays (judge.h), what a refusal means (judge.h).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "addr.h"
#include "compiler.h"
#include "mono.h"
#include "table.h"
#include "window.h"

#define ACCOUNT_LIMITS 8

enum account_kind {		/* what the subject bytes of the key mean */
	SUBJECT_PAIR = 1,	/* in = inside address or host uid, out = outside (pair.h form); account_is_shared() */
	SUBJECT_HOST,		/* in = inside address, or named host as host uid */
	SUBJECT_GROUP,		/* in = group uid */
	SUBJECT_TOTAL,		/* nothing: one account for the whole clause */
};

struct account_key {
	uint8_t in[16];		/* address; a named host or group: uid in the last 4 bytes, 12 zero bytes before */
	uint8_t out[8];		/* as in struct pair_key */
	uint32_t rule;		/* uid of rule, contract clause or decision */
	uint8_t kind;		/* enum account_kind */
	uint8_t out_family;	/* 0, 4 or 6 */
	uint8_t pad[2];
};

/* Of a host, or of all (in pair_others), those pairs that found no account of their own. */
static inline bool account_is_shared(const struct account_key *k)
{
	return k->kind == SUBJECT_PAIR && k->out_family == 0;
}

enum account_state {		/* bits of struct account.state */
	ACCOUNT_LOCK	= 1,
	ACCOUNT_BLOCKED = 2,	/* refuses until blocked_until */
	ACCOUNT_OPEN	= 4,	/* has an open finding */
	ACCOUNT_BRAKED	= 8,	/* would be blocked, but the brake held: alerts only, while it does */
};

struct account {		/* one line: all that a charge touches */
	struct account_key key;
	_Atomic uint64_t spent;
	_Atomic uint64_t cap;
	_Atomic uint32_t tick;	/* cap and rings are of this tick */
	_Atomic uint32_t state;
	_Atomic uint64_t refused;	/* bytes not let out */
} CACHE_ALIGNED;

_Static_assert(sizeof(struct account) == 64, "one cache line");
_Static_assert(sizeof(struct account_key) == sizeof(struct table_key), "the table's key");

struct account_cold {
	struct window_rings rings;
	/* lender.c alone, under the lock; others read them whole. */
	uint64_t outstanding;		/* out on lease: neither known to have passed nor returned */
	uint64_t leased;		/* known to have passed on leases, ever */
	uint32_t leases;		/* that name this account: it is not evicted meanwhile */
	uint32_t holds;			/* ledger.c: how often packets have waited for what is out; 0 again when nothing is */
	uint64_t hold_until_ns;		/* they wait until then */
	uint64_t rest_until_ns;		/* ran short for what was out on lease: none until then */
	uint64_t grant_to;		/* by hand: the total may reach this ... */
	uint64_t grant_until_ns;	/* ... until then (boottime) */
	uint64_t born_ns;		/* counting since */
	uint64_t blocked_at_ns, blocked_until_ns;
	uint64_t finding_id;		/* 0: none was opened yet */
	uint64_t opened_ns, last_ns;	/* finding: first crossing, last packet over or refused */
	uint64_t rev_ns;		/* when rev last rose */
	uint64_t opened_refused;	/* a->refused as the finding opened */
	uint64_t kernel_refused;	/* of refused: what the blocked sets' counters have shown so far */
	uint64_t kernel_pair;		/* the same of those elements whose bytes this account adds to its pair */
	uint64_t peak[ACCOUNT_LIMITS];	/* highest sum reported, by window: the next doubling is twice this */
	_Atomic uint32_t rev;		/* rises with each reportable change; the relay compares */
	uint32_t over;			/* bit i: window i has reached its limit since the finding opened */
	uint32_t until_window;		/* index of the window that decides blocked_until; ACCOUNT_LIMITS: hold */
	uint32_t rule;			/* index in policy number `policy`, ACCOUNT_NO_RULE, or ACCOUNT_DYNAMIC */
	uint32_t policy;		/* judge.policy_no it was matched to; 0: not yet */
	uint32_t pair;			/* slot of a pair of this subject, the last that crossed; TABLE_NONE */
	struct addr flow_src, flow_dst;	/* of the packet that crossed */
	uint16_t flow_sport, flow_dport;
	uint8_t flow_proto;
	uint8_t opened_by;		/* enum opener of the packet that crossed */
	uint8_t exit;			/* exit of the packet that crossed, index + 1; 0: outside */
	uint8_t pending;		/* a change not yet reported: at most one a minute */
	uint8_t announced;		/* 1: the block stands in the kernel sets, as far as this file may say; ANNOUNCED_NONE: they
					 * cannot say it */
	uint8_t breached;		/* contract: bytes fell to the rules since the finding opened */
	uint8_t pad[6];
} CACHE_ALIGNED;

#define ANNOUNCED_NONE 2

#define ACCOUNT_NO_RULE UINT32_MAX		/* the policy in force does not have it: pays, never refuses */
#define ACCOUNT_DYNAMIC (UINT32_MAX - 1)	/* of a decision: pays up to grant_to until grant_until_ns */

struct account_limit {
	uint64_t bytes;
	uint32_t seconds;
	struct window_spec spec;
	uint16_t pad;
};

struct account_terms {		/* what the policy says; points into it */
	const struct account_limit *limit;
	uint32_t count;
};

/* Fast path. true: n is paid. False: not without the slow path (new tick, over the cap, blocked); nothing changed. */
static inline bool account_charge(struct account *a, uint64_t n, uint32_t tick)
{
	uint64_t spent, cap;

	/* [C1] Acquire: cap below is at least as new as this tick's refresh; pairs with C1' in account_refresh(). */
	if (unlikely(__atomic_load_n((uint32_t *)&a->tick, __ATOMIC_ACQUIRE) != tick))
		return false;
	cap = __atomic_load_n((uint64_t *)&a->cap, __ATOMIC_RELAXED);
	/* Relaxed: the CAS below is what decides. */
	spent = __atomic_load_n((uint64_t *)&a->spent, __ATOMIC_RELAXED);
	do {
		if (unlikely(spent > cap || cap - spent < n))
			return false;
		/* Relaxed: the sum alone matters; nothing is reached through it. */
	} while (!__atomic_compare_exchange_n((uint64_t *)&a->spent, &spent, spent + n, true,
					      __ATOMIC_RELAXED, __ATOMIC_RELAXED));
	return true;
}

/* Any time, any process. */
static inline uint64_t account_total(const struct account *a, const struct account_cold *c)
{
	/* Relaxed: sums. */
	return __atomic_load_n((const uint64_t *)&a->spent, __ATOMIC_RELAXED) + __atomic_load_n(&c->leased, __ATOMIC_RELAXED);
}

void account_lock(struct account *a);
void account_unlock(struct account *a);

/* The following hold the lock. */

/* Advance the rings to tick and recompute cap. `enforce` false: cap is the next threshold (limit, then doublings). A
 * blocked account's cap is 0. now decides about grants. */
void account_refresh(struct account *a, struct account_cold *c, struct account_terms terms, bool enforce,
		     struct mono now);

/* The total, what is out on lease included, may reach `total`, by hand instead of by the windows. */
void account_set_cap(struct account *a, const struct account_cold *c, uint64_t total);

/* Pay without asking (alert mode). */
void account_pay(struct account *a, uint64_t n);

/* Give back n charged at tick `charged` [A3]. */
void account_undo(struct account *a, struct account_cold *c, uint64_t n, uint32_t charged);

/* Sum of window i now; rings must be advanced. */
uint64_t account_sum(const struct account *a, const struct account_cold *c, const struct account_limit *l);

/* When every window has room again and hold is over; *ret_window: which window decides, ACCOUNT_LIMITS for hold. */
struct mono account_block_end(const struct account *a, const struct account_cold *c, struct account_terms terms,
			      struct mono since, uint32_t hold_s, uint32_t *ret_window);

void account_recover(struct account *a);

/* Any time, any process: the sum as it stands, without the lock (relay, why). May be off by what is being charged. */
uint64_t account_peek_sum(const struct account *a, const struct account_cold *c, const struct account_limit *l,
			  uint32_t tick);

int account_check(const struct account *a, const struct account_cold *c, const char **ret_why) MUST_CHECK;
