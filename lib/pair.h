/* pair.h - the record of one (inside address, outside address, class): bytes that left, and who pays for them.
 *
 * [P1] bytes and packets are what left the firewall; refused ones are apart.
 * [P2] account[] is valid for list version `version`; a reader loads version, entries, version again (all atomic), a
 *      writer holds version at PAIR_BUSY meanwhile.
 * [P3] Contracts come first, in the order in which they are asked; rules follow by ascending account slot.
 */
#pragma once

#include <stdint.h>

#include "addr.h"
#include "compiler.h"
#include "table.h"

#define PAIR_INLINE   4
#define PAIR_POLICY   16		/* contracts and rules of one pair; the policy compiler refuses more */
#define PAIR_DECISIONS 4		/* decisions in force that concern one pair; further ones are not applied to it */
#define PAIR_ACCOUNTS (PAIR_POLICY + PAIR_DECISIONS)
#define PAIR_BUSY     UINT16_MAX	/* version while the list is being written; 0: no list yet */
#define PAIR_PROTECTED 0x80		/* in n_contract: never refused, only alerted */
#define PAIR_CLASS_OVERFLOW UINT32_MAX	/* class_uid of a host's overflow record */

enum opener { OPENER_UNKNOWN, OPENER_INSIDE, OPENER_OUTSIDE };

struct pair_key {
	uint8_t in[16];		/* struct addr; pseudo-hosts: pair_gateway, pair_unlisted */
	uint8_t out[8];		/* IPv4: address and 4 zero bytes; IPv6: the /64 */
	uint32_t class_uid;	/* 0: the rest */
	uint8_t out_family;	/* 4 or 6 */
	uint8_t pad[3];
};

struct pair {
	struct pair_key key;
	_Atomic uint64_t bytes;
	_Atomic uint32_t packets;	/* low half; high half in cold */
	_Atomic uint16_t version;	/* [P2] */
	_Atomic uint8_t n_rule;
	_Atomic uint8_t n_contract;	/* | PAIR_PROTECTED */
	_Atomic uint32_t account[PAIR_INLINE];
} CACHE_ALIGNED;

struct pair_cold {
	_Atomic uint32_t account[PAIR_ACCOUNTS - PAIR_INLINE];
	_Atomic uint32_t packets_high;
	uint32_t unused;
	_Atomic uint64_t refused, refused_packets;
	_Atomic uint64_t folded_bytes, folded_packets, folded_refused;	/* overflow record: of evicted pairs; the evictor alone writes */
	_Atomic uint64_t leased_bytes, leased_packets;	/* passed on leases; lender.c alone writes them */
	_Atomic uint64_t unseen;	/* bytes that the kernel counted past us (keep table), monotone as the area's totals */
	uint64_t unseen_base;
	uint64_t first_ns;
	struct addr last_out;		/* one full address of the /64, for people */
	uint32_t sweep_packets;		/* evictor: packets at its last visit */
	uint32_t leases;		/* in force: not evicted meanwhile */
	uint64_t hint_ns, hint_bytes;	/* engine's main thread: when it was last worth a look, and what had passed */
	_Atomic uint16_t port;		/* accepting side's, of the last packet that took a slow path */
	_Atomic uint8_t proto, opened_by;	/* of the same */
	uint8_t exit;			/* interface exit, index + 1 */
	uint8_t pad[7];
} CACHE_ALIGNED;

_Static_assert(sizeof(struct pair) == 64, "one cache line");
_Static_assert(sizeof(struct pair_key) == sizeof(struct table_key), "the table's key");

/* Addresses that stand for who has none of `inside`: in the discard prefix 100::/64 (RFC 6666). others: of a rule those hosts, or
 * pairs, that found no account (judge.h [J3]); no pair has it. */
extern const struct addr pair_gateway, pair_unlisted, pair_others;

static inline void pair_out(struct pair_key *k, const struct addr *out)
{
	memset(k->out, 0, sizeof(k->out));
	if (addr_is_v4(out)) {
		memcpy(k->out, out->b + 12, 4);
		k->out_family = 4;
	} else {
		memcpy(k->out, out->b, 8);
		k->out_family = 6;
	}
}

/* The outside as people read it: "203.0.113.9" or "2001:db8:1:2::/64"; "*" for an overflow record, and pairs that share an account. */
const char *pair_out_format(const uint8_t out[8], uint8_t family, char buf[PREFIX_STRLEN]);
/* "gateway", "unlisted" and "others" for the pseudo-hosts. */
const char *pair_in_format(const uint8_t in[16], char buf[ADDR_STRLEN]);

uint64_t pair_packets(const struct pair *p, const struct pair_cold *c);
/* What passed, leases included, and what was refused, with what was folded in. */
uint64_t pair_bytes(const struct pair *p, const struct pair_cold *c);
uint64_t pair_refused(const struct pair_cold *c);
