/* area.h - the one memory area: everything that must survive `kill -9` of the engine.
 *
 * A memfd made by the supervisor; the engine maps it read-write, the relay read-only. Offsets follow from the header's
 * counts alone; nothing in it is a pointer.
 *
 * [R1] Birth      area_format() on zeroed memory; the magic is stored last.
 * [R2] Version    area_open() refuses another layout, size or byte order (-EPROTO): the caller starts a new area from the
 *                 last snapshot.
 * [R3] Trust      The engine wrote it; the relay reads it as data: slot numbers are range-checked before use.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "account.h"
#include "hash.h"
#include "lease.h"
#include "packet.h"
#include "pair.h"

#define AREA_LAYOUT   10
#define AREA_WORKERS  8
#define AREA_SLOTS    64		/* packets of one batch */
#define AREA_SLOT_LEN 768		/* netlink message with attributes and the packet's first bytes */
#define AREA_HELD     1024	/* packets of one queue that wait for a recall */
#define AREA_BELL     16384		/* doorbell entries, a power of two */
#define AREA_DYNAMIC  256		/* decisions in force: allow and block by hand */
#define AREA_ANSWERS  64		/* to decisions, the newest */
#define AREA_BRAKE    64
#define AREA_KEPT     256		/* of the blocks that the kernel keeps from before, those that are listed */
#define AREA_UNKNOWN  UINT64_MAX
#define AREA_HUGE     ((size_t)2 << 20)	/* the hot part ends at a multiple of it */

enum slot_state {		/* journal of one packet, see nfq.h */
	SLOT_ARMED,		/* free, or being filled by recvmmsg: a non-zero nlmsg_len means received */
	SLOT_RECEIVED,
	SLOT_PASS,		/* accounted: answer accept */
	SLOT_DROP,		/* accounted as refused: answer drop */
};

enum area_counter {		/* per worker; area_counter_name() */
	AC_PACKETS, AC_BYTES, AC_REFUSED_PACKETS, AC_REFUSED_BYTES, AC_BATCHES, AC_ENOBUFS, AC_SLOW,
	AC_NEW_PAIRS, AC_OVERFLOW, AC_BAD_MESSAGE, AC_NOTICE, AC_NO_ADDRESS_BYTES, AC_REPEATED, AC_RECOVERED,
	AC_HELD, AC_NOTE_FRAGMENT, AC_NOTE_CUT, AC_NOTE_EXT_DEEP, AC_NOTE_BAD_LEN, AC_VERDICT_ERRORS,
	AC_REASON_FIRST,	/* one per enum packet_reason */
	AC_COUNT = AC_REASON_FIRST + PACKET_REASONS
};

enum area_health {		/* times that something happened which people must know; the relay reports a rise */
	HEALTH_ENGINE_RESTART, HEALTH_RULES_FLUSHED, HEALTH_RULES_FAILED, HEALTH_TABLE_FULL, HEALTH_BRAKE,
	HEALTH_UNSEEN, HEALTH_QUEUE_LOST, HEALTH_RESTORED, HEALTH_LEASES_CHANGED,
	HEALTH_COUNT
};

#define AREA_HELD_BIT (1ULL << 32)

struct area_worker {
	_Atomic uint64_t heartbeat_ns;	/* boottime of the last loop turn */
	_Atomic uint64_t counter[AC_COUNT];
	_Atomic uint32_t state[AREA_SLOTS];	/* enum slot_state */
	_Atomic uint64_t held[AREA_HELD];	/* packet id | AREA_HELD_BIT, unanswered; 0: free */
	uint8_t slot[AREA_SLOTS][AREA_SLOT_LEN] CACHE_ALIGNED;
} CACHE_ALIGNED;

enum dynamic_kind { DYNAMIC_NONE, DYNAMIC_ALLOW, DYNAMIC_BLOCK };

struct area_dynamic {		/* a decision in force; engine writes, under one thread */
	uint32_t kind;		/* enum dynamic_kind */
	uint32_t uid;		/* hash_uid of the decision id; the account's key.rule */
	struct prefix src, dst;	/* dst len 0: everywhere */
	uint64_t budget;	/* bytes, allow */
	uint64_t until_ns, since_ns;	/* boottime */
	char id[40], author[40], reason[120];
};

/* A block in the kernel's sets that no account has: of before, its account was lost. Engine's main thread writes it, in place where it
 * stays the same. */
struct area_kept {
	struct addr src;
	struct prefix dst;	/* of length 0: everywhere */
	uint64_t until_ns;	/* boottime; 0: no end */
	uint64_t refused;	/* bytes */
	uint64_t before;	/* of them those until it was put back */
	uint32_t reject;	/* struct rules_block */
	uint32_t pad;
};

struct area_answer {		/* what became of a decision; engine's main thread */
	_Atomic uint64_t entry;	/* proto_decision.entry; 0: none, the rest does not hold */
	int32_t result;
	uint32_t count;
	char text[200];
};

/* An eviction under way: what the overflow record `to` (TABLE_NONE: the header) will have when pair `slot` is folded in. Doing it
 * twice does it once, so a kill in between folds nothing twice. */
struct area_fold {
	_Atomic uint32_t valid;
	uint32_t slot, to;
	uint64_t bytes, packets, refused;
};

/* When no engine judged: from a worker's last turn before a restart until the next engine is ready. */
struct area_blind {
	_Atomic uint64_t since_ns;	/* restarts that no engine has looked back at yet began here; 0: none, the rest holds */
	uint64_t unseen_packets, unseen_bytes, flushed;	/* as they stood at since_ns */
	_Atomic uint64_t from_ns, to_ns;	/* the last that was looked back at */
	_Atomic uint64_t packets, bytes;	/* that the kernel counted past us, in all of them */
	_Atomic uint64_t uncounted;	/* how often the kernel's counters were removed in one of them */
};

struct area_header {
	char magic[8];
	uint32_t layout, pairs, accounts, workers;	/* counts; pairs and accounts are powers of two */
	struct hash_key hash_key;
	uint64_t id;			/* random: tells areas apart in finding ids */
	uint8_t boot_id[16];		/* of the kernel that CLOCK_BOOTTIME belongs to */
	uint64_t born_ns;

	_Atomic uint64_t next_finding;	/* low 32 bits of finding ids */
	_Atomic uint32_t list_version;	/* version of pairs' account lists, 1..65534 */
	_Atomic uint32_t policy_version;	/* number of the policy in force, 0: none */
	uint8_t policy_sum[32];		/* BLAKE2b-256 of the blob in force */
	_Atomic uint64_t observe_until_ns;	/* blocking off until then */
	_Atomic uint64_t engine_starts, engine_started_ns, gap_ns;	/* gap: blind or restored interval, total */
	/* From the keep table, and monotone: base + what the kernel's counter says. When that fell (the table was removed) base
	 * becomes the total so far; what was counted between the last reading, a second before at most, and the removal is
	 * missing, as is what left before the rules were back. */
	_Atomic uint64_t egress_bytes, unseen_bytes, unseen_packets;
	uint64_t egress_base, unseen_base, unseen_packets_base;
	struct area_blind blind;
	_Atomic uint64_t queue_dropped, user_dropped;	/* as the kernel counts; AREA_UNKNOWN, both: not to be read */
	uint64_t drops_known;		/* both together, when they could last be read; engine */
	_Atomic uint32_t rules_in;	/* kernel rules in place, of that RULES_LAYOUT (daemon/rules.h); 0: none */
	uint32_t mark_mask;		/* of the rules */
	_Atomic uint32_t flavour;	/* enum rules_flavour: native queue or xt NFQUEUE */
	_Atomic uint32_t blocks;	/* accounts blocked now */
	_Atomic uint32_t kept_blocks;	/* struct area_kept, listed or not; kept[] has the first of them */
	_Atomic uint64_t kept_lost;	/* bytes that such blocks of ports refused: they go when the rules come */
	_Atomic uint32_t braked;	/* accounts that the brake lets pass now */
	_Atomic uint64_t brake[AREA_BRAKE];	/* whose accounts were blocked: second of the last << 32 | whose; 0: free */

	_Atomic uint64_t health[HEALTH_COUNT];
	_Atomic uint64_t lost_pair_bytes;	/* passed without a pair record: not even their host's overflow record found a place */
	_Atomic uint64_t folded_bytes;	/* of evicted pairs, the same */
	struct area_fold fold;
	struct lease_step lease_step;
	uint64_t lease_generation;
	_Atomic uint64_t leased_bytes, leased_packets;	/* passed on leases, in all */
	_Atomic uint64_t lease_grants, lease_raises, lease_recalls, lease_beyond, lease_lost;	/* the last two: bytes */
	_Atomic uint64_t settled_ns;	/* what the kernel had counted by then, on leases and in blocks, is in all sums; 0: not yet */
	_Atomic uint32_t leases_on;	/* the kernel can, and they are not switched off */

	struct table_state pair_state, account_state, lease_state;
	_Atomic uint64_t bell_next;	/* doorbell entries ever written */
	_Atomic uint32_t bell[AREA_BELL];	/* account slots */
	struct area_dynamic dynamic[AREA_DYNAMIC];
	struct area_kept kept[AREA_KEPT];
	uint64_t answers;		/* ever */
	struct area_answer answer[AREA_ANSWERS];
	struct area_worker worker[AREA_WORKERS];
};

struct area {			/* view of one process */
	struct area_header *h;
	struct table pairs, accounts, leases;
	struct pair *pair;
	struct pair_cold *pair_cold;
	struct account *account;
	struct account_cold *account_cold;
	struct lease *lease;	/* LEASE_SLOTS */
	_Atomic uint64_t *open;	/* bitmap: accounts with an open finding, block or grant; the review walks it */
	size_t size;
};

size_t area_size(uint32_t pairs, uint32_t accounts);
size_t area_hot_size(uint32_t pairs, uint32_t accounts);	/* from the start: what every packet touches */
void area_format(void *mem, uint32_t pairs, uint32_t accounts, uint32_t workers, const struct hash_key *key,
		 uint64_t id, const uint8_t boot_id[16], struct mono now);
int area_open(void *mem, size_t size, struct area *ret) MUST_CHECK;	/* [R2] */

/* A new engine starts: nobody judges since the workers' last turns, of each at least since `started`, the start of the engine
 * before. Not looked back at yet: it is still that one. Then, ready and with the totals read: what passed meanwhile. */
void area_blind_begin(struct area *a, uint64_t started_ns);
void area_blind_end(struct area *a, struct mono now);

/* Ring the bell: account `slot` has a new rev. Any worker; readers keep their own cursor and rescan all when more than
 * AREA_BELL entries behind. */
void area_ring(struct area *a, uint32_t slot);

const char *area_counter_name(unsigned counter);	/* "packets", "no-address-bytes", ... */
uint64_t area_counter_sum(const struct area *a, unsigned counter);

/* All that passed: judged packet by packet (AC_BYTES, AC_PACKETS) and on leases. */
uint64_t area_passed_bytes(const struct area *a);
uint64_t area_passed_packets(const struct area *a);

uint64_t area_pair_hash(const struct area *a, const struct pair_key *key);
uint64_t area_account_hash(const struct area *a, const struct account_key *key);

/* Every structure's check: exact when nobody writes; while workers run a sum may be amid a step, ask again. */
int area_check(const struct area *a, const char **ret_why) MUST_CHECK;
