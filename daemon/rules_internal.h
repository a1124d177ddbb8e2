/* rules_internal.h - what rules*.c share. */
#pragma once

#include "nft_batch.h"
#include "nft_set.h"
#include "rules.h"
#include "rules_lease.h"

#define TABLE	   "egressd"
#define TABLE_KEEP "egressd_keep"
#define CHAIN_QUEUE "queue"

#define CHAIN_QUEUED "queued"	/* what no lease is asked about */

#define RULES_CHAINS 14
#define RULES_DEPLETED 1024

struct rules {
	struct nft_sock owner, keep;
	enum rules_flavour flavour;	/* 0: not probed */
	bool owner_flag;		/* the kernel knows it */
	uint32_t use[RULES_CHAINS];	/* of each chain after the last apply; 0: not applied */
	int watch_fd;			/* open while watch_buf is there */
	char *watch_buf;
	bool disturbed;			/* by a transaction whose end is still to come */
	bool leases;			/* the kernel knows maps to quotas */
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

/* rules_keep.c: all rules of table egressd_keep, into chains that are there and empty. */
void rules_keep_fill(struct nft_batch *b, const struct rules_spec *s, const struct rules_marks *m);
/* Counters and sets, the address sets with what the policy says. */
void rules_keep_sets(struct rules *r, struct nft_batch *b, const struct rules_spec *s);

/* Matches when the packet leaves by one of the devices; n is not 0. */
void rules_device_match(struct nft_rule *r, struct nft_batch *b, const char *table, const char (*device)[16], size_t n);

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
void rules_block_lookups(struct nft_batch *b, const char *chain, const char *reject_chain);
void rules_block_gate_add(struct nft_batch *b, bool v6, const struct nft_elem *e, size_t n);
void rules_block_gate(struct nft_batch *b, const char *chain, const char *refuse_chain);
/* The gate sets hold the sources of all elements, no others. */
void rules_block_regate(struct rules *r, struct nft_batch *b);
