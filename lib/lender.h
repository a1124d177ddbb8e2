/* lender.h - byte credit handed to the kernel: a busy pair's packets pass without being queued until the credit is used up.
 *
 * All numbers of a lease (lease.h) only grow:
 *     granted    credit ever charged to its accounts for it; the kernel passes no more
 *     settled    bytes that the kernel is known to have passed
 *     outstanding of an account = the sum of granted - settled over the leases that name it
 * Between a grant and the kernel's raise lies the caller's grace period: who read an older cap has charged by it or not, and
 * lease_stands() looks again.
 *
 * [Z1] Charged first   the kernel never has more than `granted`, and granted is charged to every account before it is told.
 * [Z2] Never past      total + outstanding of an account that enforces is never granted above its cap, on any number of threads, if
 *                      lease_stands() is asked after every worker ended its batch and before the kernel is told.
 * [Z3] Size            at most 1/LEASE_SHARE of the tightest account's headroom, at most LEASE_S seconds of the pair's rate (what it
 *                      still has included), never below LEASE_MIN nor what lasts LEASE_LEAST_MS; nothing for LEASE_REST_S from
 *                      an account that ran short or whose time ends in LEASE_LAST_S (an allow's, a contract's), so that the end
 *                      of a budget and of its time is judged packet by packet.
 * [Z4] Nothing lost    after lease_close() all that was not settled is returned: passed + outstanding = charged at every step
 *                      (area_check() looks).
 * [Z5] Crash           a kill after any instruction: lease_recover() leaves every account as if the step was done or not begun. One
 *                      thread alone changes leases and what accounts have of them, so a step is absolute values behind one flag.
 * [Z6] One payer       a pair with contracts is leased from the first of them that has room, and nothing else is charged; from all its
 *                      rules when it has none, or none with LEASE_MIN left. As a packet would have been. A contract that has more
 *                      but too little to lend, or none to lend now, keeps the pair in the queue. A block by hand leases nothing.
 * Threads  all of it one thread (the engine's main thread), beside any number of workers.
 * Not leased  overflow records, the pseudo-hosts gateway and unlisted (many sources), pairs with more than LEASE_ACCOUNTS accounts,
 *             what leaves by an exit's device (its rules may be others than those of the same pair elsewhere), and pairs that are
 *             egress by their device alone.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "judge.h"
#include "lease.h"
#include "lease_key.h"

uint32_t lease_find(const struct area *a, const struct lease_key *key);	/* slot, TABLE_NONE */

/* A new lease without credit. -ENOENT: cannot be leased, or not now (see above; its list of accounts is not known; no contract
 * has room); -ENOSPC: table full; -EEXIST. */
int lease_open(struct judge *j, const struct lease_hint *hint, struct mono now, uint32_t *ret_slot) MUST_CHECK;

/* Charge as much as [Z3] allows a pair of `rate` bytes a second. Returns the grant, 0: too little, and then *ret_short is the account
 * whose budget is near its end, TABLE_NONE when the pair has enough. */
uint64_t lease_grant(struct judge *j, uint32_t slot, uint64_t rate, struct mono now, uint32_t *ret_short);
/* After the grace period: true, the last grant of `grant` stands; false: it has been taken back. */
bool lease_stands(struct judge *j, uint32_t slot, uint64_t grant, struct mono now);

/* The kernel's counters of it, ever: never falling. Above granted (somebody raised the quota): returns by how much; charged in full. */
uint64_t lease_settle(struct judge *j, uint32_t slot, uint64_t bytes, uint64_t packets, struct mono now);

/* The kernel passes nothing on it any more and what it passed is settled: the rest is returned. */
void lease_close(struct judge *j, uint32_t slot, struct mono now);
/* Both in one step, by its last count. */
uint64_t lease_settle_last(struct judge *j, uint32_t slot, uint64_t bytes, uint64_t packets, struct mono now);
/* The kernel's object is gone, and with it the count: all that was granted counts as passed. Returns bytes assumed. */
uint64_t lease_lost(struct judge *j, uint32_t slot, struct mono now);
/* Closed or lost: forget it; its generation is never used again. */
void lease_free(struct judge *j, uint32_t slot);

/* Should not go on: an account is blocked, has nothing left, its decision or contract is over in LEASE_LAST_S, or rules pay for it although a
 * contract of the pair has room again [Z6]. */
bool lease_is_spent(struct judge *j, uint32_t slot, struct mono now);
bool lease_pays(const struct area *a, uint32_t slot, uint32_t account);

/* The account ran short of credit that was out on lease: no grant from it for LEASE_REST_S. */
void lease_rest(struct judge *j, uint32_t account, struct mono now);

/* A new engine, alone in the area, after judge_recover(). */
void lease_recover(struct judge *j);
