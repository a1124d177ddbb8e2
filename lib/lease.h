/* lease.h - byte credit handed to the kernel: a busy pair's packets pass without being queued until the credit is used up.
 *
 * A lease is one quota object of the kernel, found by the pair's addresses, or by addresses and service where the policy tells the
 * services of that pair apart. All numbers only grow:
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
 *                      still has included), never below LEASE_MIN nor what lasts LEASE_LEAST_MS; nothing for LEASE_REST_S from an account that ran short, so that
 *                      the end of a budget is judged packet by packet.
 * [Z4] Nothing lost    after lease_close() all that was not settled is returned: passed + outstanding = charged at every step.
 * [Z5] Crash           a kill after any instruction: lease_recover() leaves every account as if the step was done or not begun. One
 *                      thread alone changes leases and what accounts have of them, so a step is absolute values behind one flag.
 * [Z6] One payer       a pair with contracts is leased from the first of them that has room, and nothing else is charged; without, from
 *                      all its rules. As a packet would have been.
 * Threads  all of it one thread (the engine's main thread), beside any number of workers.
 * Not leased  overflow records, the pseudo-hosts gateway and unlisted (many sources), pairs with more than LEASE_ACCOUNTS accounts,
 *             pairs whose rules depend on the device they leave by, and IPv6 pairs where a rule tells addresses of one /64 apart.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "compiler.h"
#include "mono.h"
#include "table.h"

struct area;
struct judge;
struct judge_packet;

#define LEASE_MIN      65536
#define LEASE_SHARE    8
#define LEASE_S	       5
#define LEASE_ACCOUNTS 8
#define LEASE_REST_S   1
#define LEASE_LEAST_MS 100	/* a grant lasts that long, or the recall that ends it comes too late */
#define LEASE_SHIFT    16	/* a pair that passed another 64 KiB packet by packet is worth a look: LEASE_MIN in LEASE_S seconds pays */
#define LEASE_SLOTS    16384	/* leases at a time: 7/8 of it */

struct lease_key {		/* service: all four 0 for a lease of all the pair's bytes */
	uint8_t in[16];
	uint8_t out[8];		/* as in struct pair_key: IPv6 by /64 */
	uint16_t port;		/* accepting side's, host order */
	uint8_t proto;
	uint8_t opener;		/* enum opener */
	uint8_t out_family;	/* 4 or 6 */
	uint8_t pad[3];
};

enum lease_state { LEASE_NONE, LEASE_OPEN };	/* NONE: being written, nothing is charged yet */

struct lease_share {		/* what one account knows of a lease; lags behind it for the length of a step */
	uint64_t granted, settled;
	uint32_t account;
	uint32_t pad;
};

struct lease {
	struct lease_key key;
	uint64_t generation;		/* with its slot the name of the kernel's object: never used twice */
	uint64_t granted, settled, packets;
	uint64_t pair_settled, pair_packets;	/* what the pair's record knows */
	uint32_t pair;			/* slot */
	uint32_t state;			/* enum lease_state */
	uint32_t nshares, pad;
	struct lease_share share[LEASE_ACCOUNTS];
} CACHE_ALIGNED;

_Static_assert(sizeof(struct lease_key) == sizeof(struct table_key), "the table's key");

/* The step under way [Z5]: account (or pair) and share as they will be. */
struct lease_step {
	_Atomic uint32_t valid;
	uint32_t lease, share;		/* share == nshares: the pair's record */
	uint32_t pad;
	uint64_t granted, settled;	/* of the share; packets in granted's place for the pair */
	uint64_t outstanding, leased;	/* of the account; of the pair: leased_packets, leased_bytes */
	uint64_t all_bytes, all_packets;	/* of the header */
};

/* Worth a lease? From a packet just judged; LEASE_SHIFT says when to ask. */
struct lease_hint {
	uint32_t pair;
	uint16_t port;
	uint8_t proto, opener;		/* opener 0: port and opener are not known */
};

struct lease_hint lease_hint_of(const struct judge_packet *v);

/* The lease that says the hint's packet, or none. */
int lease_key_of(struct judge *j, const struct lease_hint *hint, struct lease_key *ret) MUST_CHECK;
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
/* The kernel's object is gone, and with it the count: all that was granted counts as passed. Returns bytes assumed. */
uint64_t lease_lost(struct judge *j, uint32_t slot, struct mono now);
/* Closed or lost: forget it; its generation is never used again. */
void lease_free(struct judge *j, uint32_t slot);

/* Should not go on: an account is blocked, has nothing left, or its decision or contract is over. */
bool lease_is_spent(struct judge *j, uint32_t slot, struct mono now);
bool lease_pays(const struct area *a, uint32_t slot, uint32_t account);

/* The account ran short of credit that was out on lease: no grant from it for LEASE_REST_S. */
void lease_rest(struct judge *j, uint32_t account, struct mono now);

/* A new engine, alone in the area, after judge_recover(). */
void lease_recover(struct judge *j);

/* [Z4]; quiescent, or as area_check(). */
int lease_check(const struct area *a, const char **ret_why) MUST_CHECK;
