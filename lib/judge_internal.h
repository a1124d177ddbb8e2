/* judge_internal.h - shared by judge*.c and their tests only. */
#pragma once

#include <stdatomic.h>

#include "judge.h"

#define REPORT_EVERY_NS (60 * NS_PER_S)	/* updates of one finding, unless the verdict changed */

/* Single writer (the worker), many readers: no read-modify-write needed. Relaxed: statistics. */
static inline void count(struct judge *j, unsigned counter, uint64_t n)
{
	uint64_t was = atomic_load_explicit(&j->counter[counter], memory_order_relaxed);

	atomic_store_explicit(&j->counter[counter], was + n, memory_order_relaxed);
}

/* Who pays for a packet. */
struct payers {
	uint32_t account[PAIR_ACCOUNTS];
	uint8_t n_contract, n_rule;
	bool protected;
	bool incomplete;	/* the account table was full: not to be kept */
};

/* payers.c: the list of v's pair, from the record or (overflow, table full) made for this packet. */
void payers_of(struct judge *j, const struct judge_packet *v, uint32_t version, struct mono now, struct payers *ret);

/* Only from the record; false: nobody has made a list since the last change. */
bool payers_known(const struct area *a, uint32_t pair, uint32_t version, struct payers *ret);

/* The rule's account of hosts or pairs that find none. TABLE_NONE: not even that. */
uint32_t account_others(struct judge *j, const struct policy_rule *r, struct mono now);

/* Subject bytes of an account of `kind` for inside address or pseudo-host `in` (host: index of a named host or -1). */
void subject_in(const struct policy *p, unsigned kind, const uint8_t in[16], int host, uint32_t group, uint8_t ret[16]);

/* ledger.c: the slow path of one account. */
bool ledger_charge(struct judge *j, struct judge_packet *v, uint32_t slot, bool contract, bool protected,
		   struct mono now);
void ledger_undo(struct judge *j, uint32_t slot, uint64_t n, uint32_t tick);
/* Under the account's lock: match it to the policy in force; the rule or NULL. */
const struct policy_rule *ledger_rule(struct judge *j, uint32_t slot);
struct account_terms ledger_terms(const struct policy_rule *r);
bool ledger_enforces(const struct judge *j, const struct account *a, const struct policy_rule *r, struct mono now);
bool ledger_brake_full(const struct judge *j, struct mono now);	/* as many subjects were blocked within its time as it allows */
/* A block has not ended, but for a time when all blocking is off: then it holds again. */
bool ledger_block_stands(const struct account_cold *c, const struct policy_rule *r, struct mono now);
void ledger_end_block(struct account_cold *c);
/* Under the lock: a finding opens or changed; verdict: report now. */
void ledger_report(struct judge *j, uint32_t slot, bool verdict, struct mono now);
/* Under the lock: its next rev, now. */
void ledger_tell(struct judge *j, uint32_t slot, struct mono now);
void ledger_unblock(struct judge *j, uint32_t slot, struct mono now);
/* Under the lock: its time (a decision's, a contract's) is over within s seconds. False: it has none, or it is over already. */
bool ledger_ends_within(struct judge *j, uint32_t slot, uint64_t s, struct mono now);
void ledger_refresh(struct judge *j, uint32_t slot, const struct policy_rule *r, struct mono now);
/* Under the lock: what passed on a lease has been added, or credit has come or gone. A threshold that it reached is told. */
void ledger_leased(struct judge *j, uint32_t slot, struct mono now);
