/* proto.h - fixed-form messages between supervisor, engine and relay, and the numbers of inherited descriptors.
 *
 * All over SOCK_SEQPACKET socket pairs made once by the supervisor; a restarted process goes on reading the same one.
 * [M1] A message is exactly one struct; wrong size, version or kind is dropped (fuzzed).
 * [M2] Every command is answered by one reply with the same token.
 * [M3] A decision may be sent again: of the AREA_ANSWERS newest that name their entry each is applied once and answered as
 *      before, also by the next engine.
 * [M4] With `inquiry` a decision is not done: the answer is what became of it, -ENODATA when this engine and those before know
 *      nothing of it. What was asked before is done by then.
 */
#pragma once

#include <stdint.h>

#include "addr.h"
#include "compiler.h"
#include "config.h"

enum proto_fd {			/* in engine and relay; -1 where a process has none */
	FD_AREA = 3,		/* memfd of the area: engine read-write, relay read-only */
	FD_CONFIG,		/* sealed memfd with struct config */
	FD_PEER,		/* engine <-> relay */
	FD_SUPER,		/* to the supervisor */
	FD_BELL,		/* eventfd: the area's bell was rung */
	FD_NFT_OWNER,		/* engine */
	FD_NFT_KEEP,		/* engine */
	FD_POLICY,		/* engine: last good policy blob, absent (closed) when there is none yet */
	FD_SNAPSHOT,		/* engine: snapshot to restore, absent when the area is older than this start */
	FD_QUEUE		/* engine: first of config.queue_count queue sockets */
};

enum proto_kind {
	/* relay -> engine; the blob's sealed memfd rides along */
	PROTO_POLICY = 1,	/* u.policy */
	PROTO_UNBLOCK, PROTO_ALLOW, PROTO_BLOCK,	/* u.decision */
	PROTO_OBSERVE,		/* u.decision.ttl_s; 0 ends it */
	PROTO_CHECK,		/* run area_check() */
	PROTO_REPLY,		/* engine -> relay */
	/* engine, relay -> supervisor */
	PROTO_READY,		/* queues bound, policy applied, rules in; engine */
	PROTO_ALIVE,		/* each second; the engine: every worker advanced */
	PROTO_KEEP_POLICY,	/* this blob is in force: keep its descriptor for the next engine */
	PROTO_RELAY_READY,	/* control socket open */
	PROTO_FAILED,		/* u.reply.text: why the process cannot work; it exits after it */
};

struct proto_decision {
	char id[40], author[40], reason[120];
	struct prefix src, dst;	/* dst.len 0 with zero address: everywhere */
	uint64_t budget;	/* bytes; 0: default */
	uint32_t ttl_s;
	uint32_t uid;		/* who asked, for the log */
	uint64_t entry;		/* of egress:decisions, as decided_name(); 0: none, it is not sent again */
};

struct proto_policy {
	uint32_t version;	/* number to show */
	uint32_t size;		/* of the blob */
};

struct proto_reply {
	int32_t result;		/* 0 or -errno */
	uint32_t count;		/* accounts, decisions and kept blocks touched */
	uint32_t accounts, by_hand;	/* of them, unblock without an entry: accounts that got a budget, blocks by hand lifted */
	char text[200];		/* why, or "" */
};

struct proto_msg {
	uint32_t magic;		/* PROTO_MAGIC */
	uint16_t kind;		/* enum proto_kind */
	uint16_t inquiry;	/* decision: only what became of it [M4] */
	uint64_t token;
	union {
		struct proto_decision decision;
		struct proto_policy policy;
		struct proto_reply reply;
	} u;
};

#define PROTO_MAGIC 0x65677034u	/* "egp4": layout of this struct */

/* fd -1: none rides along. 0 or -errno. */
int proto_send(int sock, const struct proto_msg *m, int fd) MUST_CHECK;
/* 1: got one (*ret_fd -1 or a descriptor to close, CLOEXEC); 0: peer closed; -EAGAIN; -EBADMSG: dropped. */
int proto_receive(int sock, struct proto_msg *ret, int *ret_fd, int flags) MUST_CHECK;
