/* policy.h - a compiled policy: one position-independent, immutable block of memory ("blob").
 *
 * Made by policy_compile.h from YAML, handed from process to process in a sealed memfd, read by everyone through
 * policy_open(), which trusts no byte of it.
 *
 * [B1] Verified   policy_open() checks every offset, count, index, order and string once (fuzzed); after 0 no accessor can
 *                 read outside the blob.
 * [B2] Stable     rule uids name (rule name, selector text), class uids name (combination of ports, opener, exit): the same
 *                 words give the same number in every version, so accounts and pairs survive reload.
 * [B3] Lookup     Addresses are classified by binary search in disjoint ranges; what a rule matches is three bit sets
 *                 and-ed: from(src) & to(dst, exit) & service(class).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "account.h"
#include "addr.h"
#include "compiler.h"
#include "pair.h"

#define POLICY_RULES	  256	/* rules and contracts together, after group rules are split */
#define POLICY_WORDS	  (POLICY_RULES / 64)
#define POLICY_EXITS	  32
#define POLICY_IFACES	  8	/* interface names of one exit */
#define POLICY_IFNAME	  16
#define POLICY_LAYOUT	  1
#define POLICY_BRAKE	  64	/* subjects; AREA_BRAKE are kept */
#define POLICY_UNTIL_NEVER INT64_MAX
#define POLICY_SERVICES	  1024	/* distinct sets of rules that ports can select */
#define POLICY_MAGIC	  "egrpol\1"	/* 8 bytes with the NUL */
#define POLICY_SSH_PORT	  22	/* of the gateway: built-in protection (judge.h [J6]), in the kernel rules too */

enum policy_rule_kind { RULE_RULE, RULE_CONTRACT };
enum policy_per { PER_PAIR = SUBJECT_PAIR, PER_HOST, PER_GROUP, PER_TOTAL };
enum policy_action { ACTION_ALERT, ACTION_BLOCK };
enum policy_refuse { REFUSE_REJECT, REFUSE_DROP };
enum policy_severity { SEVERITY_LOW = 1, SEVERITY_MEDIUM, SEVERITY_HIGH, SEVERITY_CRITICAL };
/* What a kernel set element can say of a rule's match; the rest of a block is the engine's. The last two: by class of service. */
enum policy_form { FORM_ENGINE, FORM_PAIR, FORM_HOST, FORM_PAIR_SERVICE, FORM_HOST_SERVICE };

typedef uint32_t policy_str;	/* offset in the string pool; 0 is "" */

struct policy_bits {
	uint64_t w[POLICY_WORDS];	/* bit i: rule i; contracts have the lowest numbers, in file order */
};

struct policy_rule {
	uint32_t uid;			/* [B2], never 0 */
	policy_str name;
	policy_str from_text, to_text, ports_text;	/* as written, for people */
	policy_str owner;		/* contracts */
	uint8_t kind, per, action, enforce;	/* enforce: mode enforce and action block */
	uint8_t severity, refuse, opened_by, form;	/* opened_by: enum opener, UNKNOWN = any */
	uint8_t alert_on_breach;	/* contracts */
	uint8_t nlimits;
	uint8_t pad[2];
	uint32_t hold_s;
	uint32_t group;			/* PER_GROUP: uid of the group, else 0 */
	policy_str group_name;
	int64_t until;			/* contracts: unix seconds, POLICY_UNTIL_NEVER */
	struct account_limit limit[ACCOUNT_LIMITS];	/* by ascending window */
};

struct policy_host {			/* a named host: all its addresses are one subject */
	uint32_t uid;
	policy_str name;
	uint64_t stores_bytes, stores_compressed;	/* 0: not stated */
};

struct policy_host_addr {		/* sorted by host */
	uint32_t host;
	struct addr addr;
};

enum policy_src_flag { SRC_INSIDE = 1, SRC_EXIT = 2 };

struct policy_src {			/* label of a range of source addresses */
	struct policy_bits from;	/* an exit's hosts match only rules that name addresses wholly inside that exit */
	uint32_t flags;
	int32_t host;			/* named host or -1 */
};

enum policy_dst_flag { DST_INSIDE = 1, DST_EXIT = 2, DST_PROTECTED = 4 };

struct policy_dst {			/* label of a range of destination addresses */
	struct policy_bits to;		/* rules that match by address; of `to: outside` all: what is judged is egress, by its address or its device */
	uint32_t flags;
	int32_t exit;			/* exit whose hosts these are, or -1 */
};

struct policy_range {			/* [start, next start): label */
	struct addr start;		/* ascending; the first is :: */
	uint32_t label;
};

struct policy_exit {
	policy_str name;
	uint32_t nifaces;
	char iface[POLICY_IFACES][POLICY_IFNAME];	/* device names, roles already mapped */
	struct policy_bits to;		/* rules that match because the packet leaves by this exit's interface */
};

#define POLICY_SPAN_UNKNOWN 0x100	/* | protocol: its packets whose accepting port is not known */
#define POLICY_SPAN_HIDDEN  0x200	/* what is behind an extension header that nobody walked */
#define POLICY_SPAN_REST    0xffff	/* the last span: every protocol that no rule names */

struct policy_span {			/* accepting ports [lo, next lo) of one protocol; ascending by (proto, lo) */
	uint16_t proto;			/* protocol number, or as above */
	uint16_t lo;			/* 0 in a protocol's first span and in the two above */
	uint32_t service;		/* index of a port class */
};

struct policy_class {			/* index: (service * 3 + opener) * (nexits + 1) + exit */
	uint32_t uid;			/* class of the pair key; 0: the rest */
	uint32_t pad;
	struct policy_bits match;	/* rules whose ports and opener accept this. Unknown opener or port: rules yes,
					 * contracts no: not a way around */
};

struct policy_header {
	char magic[8];			/* "egrpol\1" */
	uint32_t layout, size;
	uint32_t flags;			/* enum policy_flag */
	uint32_t nrules, ncontracts;	/* rule[0..ncontracts) are contracts */
	uint32_t nhosts, nhost_addrs, nsrc_ranges, nsrc, ndst_ranges, ndst;
	uint32_t nexits, nspans, nservices, nclasses, ninside, nprotect, nexit_prefixes;
	uint32_t rules_off, hosts_off, host_addrs_off, src_ranges_off, src_off, dst_ranges_off, dst_off;
	uint32_t exits_off, spans_off, classes_off, inside_off, protect_off, exit_prefixes_off, strings_off, strings_len;
	uint32_t brake_subjects, brake_s;	/* 0: no brake */
	uint32_t accept;		/* decisions: 1 allow, 2 block, 4 unblock */
	uint32_t max_ttl_s;
	uint64_t max_budget;
	policy_str timezone;
	uint8_t sum[32];		/* policy_sum() */
};

enum policy_flag {
	POLICY_ENFORCE	= 1,		/* mode of the file */
	POLICY_NEEDS_CT = 2,		/* ports or opened_by used: the kernel rules must say `ct direction` */
};

enum policy_accept { ACCEPT_ALLOW = 1, ACCEPT_BLOCK = 2, ACCEPT_UNBLOCK = 4 };

struct policy {				/* view; pointers into the blob */
	const struct policy_header *h;
	const struct policy_rule *rule;
	const struct policy_host *host;
	const struct policy_host_addr *host_addr;
	const struct policy_range *src_range, *dst_range;
	const struct policy_src *src;
	const struct policy_dst *dst;
	const struct policy_exit *exit;
	const struct policy_span *span;
	const struct policy_class *cls;
	const struct prefix *inside, *protect;	/* minimal, sorted */
	const struct policy_exit_prefix *exit_prefix;
	const char *str;
};

struct policy_exit_prefix {
	struct prefix prefix;
	uint32_t exit;
};

/* 0 and *ret; -EBADMSG and *ret_why (static text) for anything that is not a blob of this layout. blob must be 8-byte
 * aligned and outlive the view. */
int policy_open(const void *blob, size_t size, struct policy *ret, const char **ret_why) MUST_CHECK;

/* BLAKE2b-256 of (that of the header with `sum` 0, that of all behind it). size >= sizeof(struct policy_header). */
void policy_sum(const void *blob, size_t size, uint8_t ret[32]);

static inline const char *policy_string(const struct policy *p, policy_str s)
{
	return p->str + s;
}

const struct policy_src *policy_src_of(const struct policy *p, const struct addr *a);
const struct policy_dst *policy_dst_of(const struct policy *p, const struct addr *a);

/* Index of the class of a packet: accepting port by opener (inside: dport, outside: sport, unknown or no ports: port
 * unknown). A protocol that is an extension header (RFC 8200; AH in IPv4) hides another, which may be any: rules of all ports match, contracts
 * of some do not. exit: index + 1 of the exit interface it leaves by, 0 none. Always < h->nclasses. */
uint32_t policy_class_of(const struct policy *p, uint8_t proto, bool port_known, uint16_t port, enum opener opener,
			 uint32_t exit);

/* Rules and contracts that judge bytes from src to dst of class index c. */
void policy_match(const struct policy *p, const struct policy_src *src, const struct policy_dst *dst, uint32_t c,
		  uint32_t exit, struct policy_bits *ret);

/* Rule i's form for one subject: an element of a pair or host drops all its bytes, so where a contract may share them it takes one
 * of each class that policy_class_refused(), or, where the contract is of every service, the engine. So must it where the rule
 * does not name this address of a named host. dst NULL: the subject is a host. */
enum policy_form policy_form_for(const struct policy *p, uint32_t i, const struct policy_src *src,
				 const struct policy_dst *dst);
/* Whether rule i's block of the subject refuses all its bytes of class index c. */
bool policy_class_refused(const struct policy *p, uint32_t i, uint32_t c, const struct policy_src *src,
			  const struct policy_dst *dst);

static inline uint32_t policy_class_index(const struct policy *p, uint32_t service, enum opener opener, uint32_t exit)
{
	return (service * 3 + (uint32_t)opener) * (p->h->nexits + 1) + exit;
}

/* Accepting ports lo..hi of a protocol, hi counted in; false: span i says what holds where the port or the protocol is not known. */
static inline bool policy_span_ports(const struct policy *p, uint32_t i, uint16_t *ret_hi)
{
	const struct policy_span *s = &p->span[i];

	*ret_hi = i + 1 < p->h->nspans && s[1].proto == s->proto ? (uint16_t)(s[1].lo - 1) : UINT16_MAX;
	return s->proto < POLICY_SPAN_UNKNOWN;
}

static inline bool policy_bit(const struct policy_bits *b, uint32_t i)
{
	return b->w[i / 64] >> (i % 64) & 1;
}

/* What an unblock without a budget grants: the smallest limit. */
static inline uint64_t policy_least_limit(const struct policy_rule *r)
{
	uint64_t least = UINT64_MAX;

	for (uint32_t i = 0; i < r->nlimits; i++)
		least = MIN_OF(least, r->limit[i].bytes);
	return least;
}

/* Named host of a name or address; -1. */
int policy_host_by_name(const struct policy *p, const char *name);
/* Whether an account's inside bytes (account.h) are the uid of a host or group, or none, not an address. */
static inline bool policy_in_is_uid(const uint8_t in[16], uint32_t *ret_uid)
{
	static const uint8_t zero[12];

	memcpy(ret_uid, in + sizeof(zero), sizeof(*ret_uid));
	return memcmp(in, zero, sizeof(zero)) == 0;
}

/* Named host of an account's inside bytes (account.h), be they its uid or an address of its; -1. */
int policy_host_of_in(const struct policy *p, const uint8_t in[16]);
/* Rule index of an account's key.rule, -1: rule is gone. */
int policy_rule_by_uid(const struct policy *p, uint32_t uid);

const char *policy_action_name(unsigned action);	/* "alert", "block" */
const char *policy_per_name(unsigned per);
const char *policy_severity_name(unsigned severity);
const char *opener_name(unsigned opener);		/* "any" for UNKNOWN in rules */
