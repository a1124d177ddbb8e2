/* rules_internal.h - what rules*.c share. */
#pragma once

#include "nft_batch.h"
#include "nft_set.h"
#include "rules.h"
#include "rules_class.h"
#include "rules_lease.h"

#define TABLE	   "egressd"
#define TABLE_KEEP "egressd_keep"
#define CHAIN_QUEUE    "queue"
#define CHAIN_UNLEASED "unleased"	/* what no lease has paid for */
#define CHAIN_LOCAL    "local"
#define CHAIN_QUEUED   "queued"		/* of that what is egress */

#define RULES_CHAINS 14
#define RULES_DEPLETED 1024
#define RULES_EXPIRY_TRIES 4	/* of a change that deletes what may expire meanwhile: then all of it is refused */

struct rules {
	struct nft_sock owner, keep;
	enum rules_flavour flavour;	/* 0: not probed */
	uint32_t use[RULES_CHAINS];	/* of each chain, rules and gotos to it, after our last change; 0: not known */
	struct rules_spec *spec;	/* of the last apply, with a copy of its lists behind it; NULL: not applied */
	int watch_fd;			/* open while watch_buf is there */
	char *watch_buf;
	bool disturbed;			/* by a transaction whose end is still to come */
	bool leases;			/* the kernel knows maps to quotas */
	bool held;			/* the queue chain is to ask no lease: those in the maps have ended, or are a dead engine's */
	size_t ndepleted;		/* what is beyond the room is found by the worker that gets its packets */
	struct rules_lease depleted[RULES_DEPLETED];
};

/* Chains of both tables, in the order of struct rules.use. */
struct rules_chain {
	const char *table, *name;
	int32_t priority;
	int hook;			/* -1: a regular chain */
};
extern const struct rules_chain rules_chain[RULES_CHAINS];

struct nft_rule;

struct rules_marks {
	uint32_t mask, leased, judged;
};

/* rules_probe.c: flavour and leases, into r. 0, or -errno and *ret_what. */
int rules_probe(struct rules *r, const char **ret_what) MUST_CHECK;
bool rules_probe_owner(struct rules *r);	/* tables can have owners */
void rules_queue_statement(struct nft_rule *r, enum rules_flavour f, uint16_t first, uint16_t count);

/* rules_egress.c: which packets are egress, and the mark, for rules of either table. Sets of ranges must be older than the rules
 * that use them: the first time they come in a transaction before. */
struct rules_split {
	const char *table, *chain, *local_chain;	/* both begin with its rules */
	const char *egress_chain;			/* where egress goes; the rest falls out of local_chain, or is accepted */
};

#define RULES_RANGES(n, type, len) { .name = n, .flags = NFT_SET_INTERVAL, .key_type = type, .key_len = len }
#define RULES_RANGES4(n)	   RULES_RANGES(n, NFT_KEY_IPV4, 4)
#define RULES_RANGES6(n)	   RULES_RANGES(n, NFT_KEY_IPV6, 16)

void rules_egress_sets(struct rules *r, struct nft_batch *b, const char *table, const struct rules_spec *s);
bool rules_egress_has_sets(struct rules *r, const char *table);
void rules_range_set(struct rules *r, struct nft_batch *b, const char *table, const struct nft_set_spec set[2], bool v6,
		     const struct rules_list *list, size_t nlists);
void rules_egress_split(struct nft_batch *b, const struct rules_split *split, const struct rules_spec *s);
/* Destinations in the set of the family go to the verdict. */
void rules_daddr(struct nft_batch *b, const char *table, const char *chain, const struct nft_set_spec set[2], int verdict,
		 const char *to);
void rules_family(struct nft_rule *r, bool v6);
/* Matches when the packet leaves by one of the devices; n is not 0. */
void rules_device_match(struct nft_rule *r, struct nft_batch *b, const char *table, const char (*device)[16], size_t n);
/* Our bits of the mark are that; are not 0. Then, or after rules_mark_load(), in the same rule: make them that. */
void rules_mark_is(struct nft_rule *r, const struct rules_marks *m, uint32_t state);
void rules_mark_is_set(struct nft_rule *r, const struct rules_marks *m);
void rules_mark_load(struct nft_rule *r);
void rules_mark_put(struct nft_rule *r, const struct rules_marks *m, uint32_t state);

/* rules_keep.c: all rules of table egressd_keep, into chains that are there and empty. */
void rules_keep_fill(struct nft_batch *b, const struct rules_spec *s, const struct rules_marks *m);
/* Counters and sets, the address sets with what the policy says. */
void rules_keep_sets(struct rules *r, struct nft_batch *b, const struct rules_spec *s);

/* rules.c: whether the queue chain asks leases, by the spec that was applied, which must be there. */
int rules_ask_leases(struct rules *r, bool ask) MUST_CHECK;

/* rules_lease.c */
void rules_lease_sets(struct nft_batch *b, const char *table);
void rules_lease_fill(struct nft_batch *b, const char *table, bool ct, const struct rules_marks *m);
bool rules_lease_named(const char *name, struct rules_lease *ret);

/* rules_watch.c */
void rules_watch_done(struct rules *r);

/* rules_flow.c */
void rules_flow_sets(struct nft_batch *b);
void rules_flow_lookups(struct nft_batch *b, const char *chain, const char *reject_chain);

/* rules_block.c */
void rules_block_sets(struct nft_batch *b);
void rules_block_lookups(struct nft_batch *b, const char *chain, const char *reject_chain, bool services);
/* The gate lets the sources, which e's keys begin with, be asked about for timeout_ms, 0: until a regate finds no block. Who stands
 * for ever stays so. -ENOENT of the commit: one expired meanwhile, to be tried again. */
void rules_block_gate_add(struct rules *r, struct nft_batch *b, bool v6, const struct nft_elem *e, size_t n, uint64_t timeout_ms);
void rules_block_gate_older(struct nft_batch *b);	/* takes those of older versions away; no rule may name them any more */
void rules_block_gate(struct nft_batch *b, const char *chain, const char *refuse_chain);
/* The gate sets hold the sources of all blocked elements for ever, no others. */
void rules_block_regate(struct rules *r, struct nft_batch *b);
