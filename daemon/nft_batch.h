/* nft_batch.h - transactions and queries of nf_tables over a given NETLINK_NETFILTER socket.
 *
 * [B1] Atomic   what is committed in one batch is in force at once or not at all.
 * [B2] Acked    the last message asks for an ack, which comes after all errors: the kernel tells those of any message, unasked
 *               (net/netfilter/nfnetlink.c, nfnetlink_rcv_batch()). A commit succeeds when it came and nothing else did.
 * [B3] Named    each message carries the name of its step; the first failure names it.
 * [B4] Sticky   a failure while building (memory) is kept and returned by commit: builders return nothing.
 * [B5] Stale    answers to requests of an earlier user of the socket (a killed engine) are recognised by number, skipped.
 * Threads       one at a time for each socket.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "compiler.h"

struct nlmsghdr;

#define NFT_BATCH_ROOM 98304	/* a message may be this long */

struct nft_sock {
	int fd;			/* borrowed */
	uint32_t portid, seq;
	char *buf;		/* answers */
};

struct nft_batch {
	struct nft_sock *sock;
	char *buf;
	size_t len, cap, last;	/* last: where the last message begins */
	const char **what;	/* of message first_seq + 1 + i */
	uint32_t nmsg, cap_msg, first_seq;
	int error;
};

int nft_sock_init(struct nft_sock *s, int fd) MUST_CHECK;
void nft_sock_done(struct nft_sock *s);

/* A query: build the message in nft_query_msg()'s place, then run it. each() is called for every answer; a negative return
 * ends with that error. -EINTR: the dump was disturbed by a change, what was collected must be thrown away. */
struct nlmsghdr *nft_query_msg(struct nft_sock *s, char *buf, uint16_t type, uint16_t flags);
int nft_query_run(struct nft_sock *s, const struct nlmsghdr *nlh, int (*each)(const struct nlmsghdr *nlh, void *ctx),
		  void *ctx) MUST_CHECK;

void nft_batch_begin(struct nft_batch *b, struct nft_sock *s);
/* Place for the next message, NFT_BATCH_ROOM bytes; NULL when the batch already failed. Every one is ended. */
struct nlmsghdr *nft_batch_msg(struct nft_batch *b, uint16_t type, uint16_t flags, const char *what);
void nft_batch_msg_end(struct nft_batch *b, const struct nlmsghdr *nlh);
void nft_batch_fail(struct nft_batch *b, int error);

/* All three leave the batch empty. *ret_what is written on failure. */
int nft_batch_commit(struct nft_batch *b, const char **ret_what) MUST_CHECK;
/* Would the kernel take it? Nothing is changed. */
int nft_batch_try(struct nft_batch *b, const char **ret_what) MUST_CHECK;
void nft_batch_drop(struct nft_batch *b);
