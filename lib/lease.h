/* lease.h - the record of a lease: one quota object of the kernel, found by the pair's addresses, or by addresses and service where
 * the policy tells the services of that pair apart. lender.h says what is done with it.
 */
#pragma once

#include <stdint.h>

#include "compiler.h"
#include "table.h"

#define LEASE_MIN      65536
#define LEASE_SHARE    8
#define LEASE_S	       5
#define LEASE_ACCOUNTS 8
#define LEASE_REST_S   1
#define LEASE_LAST_S   2	/* of an allow's or contract's time: judged packet by packet; whose leases end is looked at once a second */
#define LEASE_LEAST_MS 100	/* a grant lasts that long, or the recall that ends it comes too late */
#define LEASE_HOLD_MS  20	/* packets wait so long for a recall */
#define LEASE_HOLDS    5	/* and again, 200 ms later, so often: then the account counts as used up although credit is out */
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
