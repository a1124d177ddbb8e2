/* judge.h - decides over packets: who sent it where, which accounts pay, pass or refuse.
 *
 * The very code of the engine, of `egressctl replay` and of the scenario tests; the caller brings packets and time.
 *
 * [J1] Paid first   a packet passes only after every account that judges it has paid; if one refuses, the earlier ones
 *                   are given back.
 * [J2] Zero past    in enforce mode nothing passes beyond a blocking limit, on any number of threads. A block by hand refuses
 *                   before contracts and `allow` are asked.
 * [J3] No way round every packet with readable addresses is charged to a pair, or to its host's overflow record when the
 *                   table is full, and to an account of every rule. When the account table is full those that find no room
 *                   share one, with the rule's limit for all of them: a host's pairs the host's (out_family 0), and when
 *                   that finds none either, as hosts do, the rule's (pair_others). One without readable addresses is counted
 *                   (AC_NO_ADDRESS_BYTES) and passes or not by `failure`.
 * [J4] Hot path     no allocation, no system call, no lock unless an account takes its slow path.
 * [J5] Threads      one struct judge a thread over the same area; judge_review() by one thread.
 * [J6] SSH          packets that the gateway answers from TCP port 22 are charged and never refused, not by a decision either:
 *                   a block must not cut off the admin who could lift it.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "area.h"
#include "mono.h"
#include "packet.h"
#include "policy.h"

struct judge_packet {
	struct packet p;		/* in */
	uint8_t opener;			/* enum opener, from conntrack */
	uint8_t exit;			/* index + 1 of the exit interface it leaves by; 0 */
	uint8_t local;			/* the gateway itself sent it */
	uint8_t pass;			/* out: 1 pass, 0 refuse */
	uint8_t hold;			/* out, not passed: neither refused; ask for refused_by's leases back and judge it again */
	uint8_t busy;			/* out: its pair passed another 1 << LEASE_SHIFT bytes with it */
	uint32_t refused_by;		/* out: account that refused or held it, TABLE_NONE when it passes */
	uint32_t pair;			/* out: slot, TABLE_NONE when not even an overflow record was there */
	_Atomic uint32_t *journal;	/* in: set to SLOT_PASS or SLOT_DROP right after accounting; NULL */
	uint64_t hash;			/* scratch */
	struct pair_key key;		/* scratch */
	uint32_t cls;			/* scratch: class index */
	uint8_t late;			/* scratch: a contract's credit is out on lease, and the packet has waited for it long enough */
};

#define JUDGE_EVICT 1024		/* records of one eviction round */

#define JUDGE_SOURCE_BITS 12		/* remembered source addresses, direct-mapped */
#define JUDGE_SOURCES	  (1 << JUDGE_SOURCE_BITS)

struct judge_source {			/* what the policy says of a source address: traffic repeats them */
	struct addr addr;
	uint32_t policy_no;
	uint32_t known;			/* inside or an exit's host: has a row of its own */
};

struct judge {
	struct area area;
	const struct policy *policy;	/* NULL: no policy yet, everything passes and is accounted */
	uint32_t policy_no;		/* changes with `policy`, never 0: accounts remember which one they were matched to */
	_Atomic uint64_t *counter;	/* area_worker.counter, or the caller's own AC_COUNT of them */
	int (*notify)(void *ctx);	/* a finding changed: wake who reports and who reviews; NULL */
	void *ctx;
	int64_t wall_offset_s;		/* unix seconds - boottime seconds, for contracts' until */
	int64_t reviewed_s;		/* unix seconds of the last review */
	struct judge_source source[JUDGE_SOURCES];
	uint32_t retired[2][JUDGE_EVICT];	/* pairs, accounts between the two steps of eviction */
	uint32_t nretired[2];
};

/* Accounts for and decides over n <= AREA_SLOTS packets, in order. */
void judge_batch(struct judge *j, struct judge_packet *v, unsigned n, struct mono now);

/* One thread, about once a second and after a notify: ends blocks and contracts, closes quiet findings, expires decisions, counts
 * blocks. Calls changed(ctx, account slot) for each account whose block began or ended since the last call. */
void judge_review(struct judge *j, struct mono now, void (*changed)(void *ctx, uint32_t account), void *ctx);

/* A new policy (or decision) is in force: every pair re-reads its account list at its next packet, caps of known accounts
 * follow at once. Call when no worker still judges by the old one. */
void judge_policy_changed(struct judge *j, struct mono now);

struct judge_unblocked {
	uint32_t accounts, by_hand;		/* that got a budget; blocks that were lifted */
	const struct area_dynamic *wider;
};

/* Decisions; one thread. 0, -ENOENT (nothing to unblock), -ENOSPC. An outside IPv6 address stands for its /64 in all of them.
 *
 * Unblock lifts blocks by hand that lie within src and dst (dst of length 0: anywhere), and gives a budget to the blocked accounts that
 * packets from src to dst are charged to. -EBUSY: a block by hand that reaches further would go on refusing them: nothing was
 * changed, ret->wider is that block. */
int judge_unblock(struct judge *j, const struct prefix *src, const struct prefix *dst, uint64_t budget, uint32_t ttl_s,
		  struct mono now, struct judge_unblocked *ret) MUST_CHECK;
/* The most that it would give one of them without a budget: its rule's smallest limit. 0: it has none to give to. */
uint64_t judge_unblock_default(struct judge *j, const struct prefix *src, const struct prefix *dst);
int judge_allow(struct judge *j, const struct area_dynamic *d, struct mono now) MUST_CHECK;
/* It is an `allow` in force: neither its time nor its budget is over. The budget is with the first packet that does not fit it, or when
 * none could. */
bool judge_allows(const struct area *a, const struct area_dynamic *d, struct mono now);
int judge_block(struct judge *j, const struct area_dynamic *d, struct mono now) MUST_CHECK;
/* This very one is in force: all of it but its times, of which what is left of a ttl is part. */
bool judge_stands(const struct judge *j, const struct area_dynamic *d, enum dynamic_kind kind);

/* The next review looks at this account, whatever its state. */
void mark_for_review(struct area *a, uint32_t account);

/* Pairs re-read their account lists at their next packet (a decision came or went). */
void judge_lists_changed(struct judge *j);

/* Make room when a table is 7/8 full: retire idle pairs (step 1), and after the grace period fold and free them (step 2). Returns how many. */
unsigned judge_evict_retire(struct judge *j, struct mono now);
void judge_evict_release(struct judge *j);

/* After a crash, alone in the area. */
void judge_recover(struct judge *j);
