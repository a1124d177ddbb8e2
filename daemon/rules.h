/* rules.h - our tables in the kernel: `egressd` (what is queued) and `egressd_keep` (blocks, counters), by libnftnl over
 * netlink sockets that the supervisor made.
 *
 * Mark: two bits of mark_mask hold one of four states: 0 unseen, LEASED (low bit), JUDGED (high bit), both = "reply
 * direction, not judged". `ct direction reply` sets the last before the queue, so that the worker learns who opened the
 * connection; every verdict sets JUDGED.
 *
 * Table egressd_keep (never owned, adopted) goes on while every process of ours is dead. forward and output 1000, after the chains
 *   of others: bits that they set are cleared, so that nobody comes with a verdict; the blocked sets (reject or drop). postrouting
 *   -151: LEASED and JUDGED are counted as egress, bits cleared for good; what has neither and is egress: counted too, counter
 *   unseen, per-pair unseen set, and with failure closed a drop.
 * Table egressd (owner flag when the kernel takes it): postrouting -155, queue chain: leases (rules_lease.h) accept what they pay
 *   for; of the rest what is egress goes to native `queue`, else to the xt NFQUEUE target, balanced over the queues, with bypass.
 *   What leaves by an exit's device meets no lease. NF_REPEAT runs this chain alone again: a packet that waited may then pass on a
 *   new lease. A leased packet meets three chains, one lookup of its source, two of its pair, and nothing else of ours.
 *
 * All of it before -150, where mangle rules of others may set the whole mark: after that the bits are free again.
 * [U1] Atomic     each call is one netlink transaction: all of it or nothing (the very first apply: the sets, then the rest).
 * [U2] Adopt      rules_apply() on existing tables of ours replaces chains and keeps counters and blocked elements, but those of
 *                 services: where a policy cuts the ports has changed, perhaps, and the caller adds them anew.
 *                 Chains of an older version lose their rules, and its gate sets go.
 * [U3] No gap     a replacement never leaves an instant without the queue chain (deleting a base chain drops pending packets,
 *                 measured: rules are replaced inside chains that stay).
 * [U4] Protected  packets to addresses of `protect`, and SSH that the gateway answers (judge.h [J6]), are never matched by the
 *                 blocked sets.
 * [U5] Watched    a removal by others (table, chain, rule, set, element) is told at once, one of ours never.
 * Egress: leaves by an outside or exit device, or to an exit host, or to an address not inside; never loopback, link-local
 * or link-scope multicast.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "addr.h"
#include "compiler.h"

#define RULES_LAYOUT 4	/* of the tables' chains and rules; rises when they change */

enum rules_flavour { RULES_NATIVE_QUEUE = 1, RULES_XT_NFQUEUE };

struct rules_spec {
	uint32_t mark_mask;		/* two bits */
	uint16_t queue_first, queue_count;
	bool failure_closed;
	bool needs_ct;			/* say `ct direction` */
	bool leases;			/* wanted: rules_lease.h; without rules_leases() it is ignored */
	const struct prefix *inside;
	size_t ninside;
	const struct prefix *exit_host;
	size_t nexit_host;
	const struct prefix *protect;
	size_t nprotect;
	const char (*device)[16];	/* exit devices, then the others that lead outside */
	size_t ndevices, nexit_devices;
};

enum rules_block_kind { RULES_BLOCK_PAIR, RULES_BLOCK_HOST, RULES_BLOCK_PAIR_SERVICE, RULES_BLOCK_HOST_SERVICE };

/* Accepting ports lo..hi (host byte order; 0..65535 where there are none) of protocols proto..proto_hi, opened by inside or by outside.
 * Those of one source, or pair, are the same or disjoint: the kernel's set takes no others (-EEXIST, -ENOTEMPTY). */
struct rules_service {
	uint16_t lo, hi;
	uint8_t proto, proto_hi;
	uint8_t by_outside;
	uint8_t pad;
};

struct rules_block {
	uint8_t kind;			/* enum rules_block_kind */
	uint8_t reject;			/* answer with RST or ICMP prohibited; 0: silently */
	struct rules_service service;	/* the last two kinds, with rules_spec.needs_ct; else all zero */
	struct addr src;
	struct prefix dst;		/* pair: a host route (IPv4) or /64 (IPv6); host: all zero */
	uint64_t timeout_ms;
};

#define RULES_FLOW_MS 10000

struct rules_flow {		/* one direction of a TCP, UDP, DCCP, SCTP or UDP-Lite connection */
	struct addr src, dst;		/* of one family */
	uint16_t sport, dport;		/* host byte order */
	uint8_t proto;
};

struct rules_counters {
	uint64_t egress_packets, egress_bytes;	/* what left or was unseen; not what was refused */
	uint64_t unseen_packets, unseen_bytes;
};

struct rules;				/* opaque: sockets, sequence numbers, probed features */

/* owner_fd owns table egressd and writes both tables in one transaction, keep_fd writes blocks and asks; both
 * NETLINK_NETFILTER sockets, borrowed, used by one thread at a time. */
int rules_open(int owner_fd, int keep_fd, struct rules **ret_rules) MUST_CHECK;
struct rules *rules_close(struct rules *r);

/* What an engine before found in this kernel. It is not asked again unless an apply fails: each question waits for grace periods, and
 * a new engine is waited for. */
void rules_assume(struct rules *r, enum rules_flavour flavour, bool leases);

/* Put everything in place or bring it up to date. *ret_flavour says which queue statement the kernel took. On error
 * *ret_what names the step (static text). */
int rules_apply(struct rules *r, const struct rules_spec *spec, enum rules_flavour *ret_flavour,
		const char **ret_what) MUST_CHECK;

/* The last apply that succeeded was of that very spec. What others did to the rules since is rules_disturbed()'s to tell. */
bool rules_are(const struct rules *r, const struct rules_spec *spec);

/* Sources without a block any more go their way without being asked about it; rules_apply() does that, too, and rules_block_add() when
 * there is no room for more. */
int rules_regate(struct rules *r) MUST_CHECK;

/* Whether the kernel can lease; known after the first apply. */
bool rules_leases(const struct rules *r);

/* Add or extend, never shorten (element is replaced, its count begins at zero; 0 ms: for ever), delete (absent is fine). A block is found
 * by kind, addresses and service: adding it as drop takes the reject one away. One transaction for n elements. -ENFILE: set full. */
int rules_block_add(struct rules *r, const struct rules_block *b, size_t n) MUST_CHECK;
int rules_block_del(struct rules *r, const struct rules_block *b, size_t n) MUST_CHECK;
int rules_block_clear_services(struct rules *r) MUST_CHECK;	/* all of the last two kinds; -ENOENT: no such sets */

/* Bytes refused by each element now in the kernel. */
int rules_block_dump(struct rules *r,
		     int (*each)(void *ctx, const struct rules_block *b, uint64_t packets, uint64_t bytes),
		     void *ctx) MUST_CHECK;

/* Flows to answer and refuse before the queue, for RULES_FLOW_MS each, and nothing of them stays longer: in one transaction; a full
 * set is no error, and none of them is answered then. */
int rules_flow_add(struct rules *r, const struct rules_flow *f, size_t n) MUST_CHECK;
int rules_flow_forget(struct rules *r) MUST_CHECK;	/* all of them */
int rules_flow_dump(struct rules *r, int (*each)(void *ctx, const struct rules_flow *f, uint64_t packets, uint64_t bytes),
		    void *ctx) MUST_CHECK;

/* As the kernel has them: they begin at zero with the keep table, and one that is not there reads zero. */
int rules_counters(struct rules *r, struct rules_counters *ret) MUST_CHECK;

/* Unseen bytes by pair since the keep table was made; a pair without any for a day is forgotten. src: pair_gateway,
 * pair_unlisted (pair.h), or an address of `inside` or `exit_host`. dst of IPv6: its /64. */
int rules_unseen_dump(struct rules *r, int (*each)(void *ctx, const struct addr *src, const struct addr *dst,
						   uint64_t packets, uint64_t bytes), void *ctx) MUST_CHECK;

/* 1: both tables and their chains are there, with as many rules as rules_apply() left in each; 0: somebody flushed or
 * changed one; -errno. */
int rules_present(struct rules *r) MUST_CHECK;

/* Whether others change our tables, as it happens [U5]. *ret_fd is r's, to poll: readable when the answer may have changed.
 * Opens a socket: before confinement. */
int rules_watch(struct rules *r, int *ret_fd) MUST_CHECK;
/* Since the last call: 1: something of ours was removed, or a rule added; 0: nothing; -ENOBUFS: the kernel had more to tell than
 * the socket could hold, so perhaps; -errno. */
int rules_disturbed(struct rules *r) MUST_CHECK;

/* Remove both tables (stop: an admin's rescue lever). */
int rules_remove(struct rules *r) MUST_CHECK;

/* What stays when no process of ours does: RULES_LEFT_*, 0: nothing; -errno. A table that a socket owns goes with that. */
int rules_left(struct rules *r) MUST_CHECK;

#define RULES_LEFT_KEEP	 1
#define RULES_LEFT_QUEUE 2
#define RULES_REMEDY	 "nft delete table inet egressd_keep"
#define RULES_REMEDY_ALL "nft delete table inet egressd; " RULES_REMEDY
