/* nft_object.h - tables, chains and named counters of family inet: put into a batch, asked for by name. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "compiler.h"

struct nft_batch;
struct nft_sock;

struct nft_table_info {
	bool owned;
	uint32_t owner;		/* portid of the socket */
};

/* Existing ones are left as they are; a base chain must then have the same hook and priority. */
void nft_table_add(struct nft_batch *b, const char *table, bool owned, const char *what);
void nft_table_del(struct nft_batch *b, const char *table, const char *what);
void nft_chain_add(struct nft_batch *b, const char *table, const char *chain, const char *what);
void nft_base_chain_add(struct nft_batch *b, const char *table, const char *chain, uint32_t hook, int32_t priority,
			const char *what);
/* Remove all rules of the chain. */
void nft_chain_flush(struct nft_batch *b, const char *table, const char *chain, const char *what);
void nft_counter_add(struct nft_batch *b, const char *table, const char *counter, const char *what);

/* A quota of `bytes`: a new one has used nothing; an existing one goes on from what it has used. */
void nft_quota_put(struct nft_batch *b, const char *table, const char *quota, uint64_t bytes, const char *what);
void nft_quota_del(struct nft_batch *b, const char *table, const char *quota, const char *what);

/* All -ENOENT when there is none. */
int nft_table_get(struct nft_sock *s, const char *table, struct nft_table_info *ret) MUST_CHECK;
/* *ret_use: rules in it and jumps to it. */
int nft_chain_get(struct nft_sock *s, const char *table, const char *chain, uint32_t *ret_use) MUST_CHECK;
struct nft_quota {
	uint64_t bytes, used;	/* used: never above bytes, the kernel says so */
};
int nft_quota_get(struct nft_sock *s, const char *table, const char *quota, struct nft_quota *ret) MUST_CHECK;
/* Every quota of the table. */
int nft_quota_dump(struct nft_sock *s, const char *table, int (*each)(void *ctx, const char *quota), void *ctx) MUST_CHECK;
int nft_counter_get(struct nft_sock *s, const char *table, const char *counter, uint64_t *ret_packets,
		    uint64_t *ret_bytes) MUST_CHECK;
