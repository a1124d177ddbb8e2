/* engine.h - the process that judges: one worker thread a queue, and a main thread for everything that is not a packet.
 *
 * [E1] Restart   everything it needs is in inherited descriptors and the area; a new engine answers what the dead one had in
 *                hand before it reads on: nothing lost, nothing passes unjudged.
 * [E2] Policy    workers change policy at a batch's end (QSBR); a packet is judged by one policy as a whole.
 * [E3] Alive     PROTO_ALIVE goes to the supervisor only while every worker's heartbeat advances.
 * [E4] Confined  after start: no new socket, no file opened for writing, no capability but CAP_NET_ADMIN.
 * [E5] Flushed   rules and blocks that others remove are back at once (< 1 s), and it is told; what left meanwhile nobody counted.
 * Files          engine.c (main thread), commands.c, worker.c (packets), held.c (packets that wait), enforce.c (policy into the kernel), blocked*.c,
 *                block_*.c (blocks), answers.c, leases*.c, confine.c.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "answers.h"
#include "block_owners.h"
#include "config.h"
#include "judge.h"
#include "leases.h"
#include "proto.h"
#include "rules.h"

#define ENGINE_IFACES 64

struct engine_iface {		/* device of an exit */
	uint32_t index;		/* ifindex */
	uint8_t exit;		/* index + 1 */
};

struct engine_policy {		/* immutable once published; freed after a grace period */
	struct policy view;
	void *blob;
	size_t size;
	uint32_t no;		/* judge.policy_no */
	uint32_t version;	/* number to show */
	int fd;
	uint32_t nifaces;
	struct engine_iface iface[ENGINE_IFACES];
};

struct engine_worker {
	struct engine *e;
	pthread_t thread;
	unsigned index;
	int fd;			/* queue socket */
	uint16_t queue;
	struct judge judge;
	struct answers_ring refused;
	struct leases_ring lease_notes;
	uint32_t held_first, held_next;	/* in the area's held[]: those in between wait */
	uint32_t held_epoch;		/* lease_epoch as the first of them began to */
	uint64_t held_until_ns;		/* of the first of them */
	uint64_t seen_beat;	/* main thread: heartbeat at its last look */
	uint64_t seen_ns;
};

struct engine {
	struct config config;
	struct area area;
	struct engine_policy *policy;	/* RCU */
	struct judge judge;		/* main thread's */
	struct rules *rules;
	enum rules_flavour flavour;
	int wake;			/* eventfd: workers to main thread */
	int ioctl_fd;			/* made before confinement, for interface numbers */
	int watch;			/* the same, readable when others change our tables */
	uint32_t next_no;
	bool ready;
	bool rules_due;			/* the last try to put them in failed */
	uint64_t overflow_seen;		/* at the last second's look */
	uint32_t braked_seen;
	struct answers *answers;
	struct leases *leases;
	bool leases_on;			/* wanted, and the kernel can; the workers read it */
	_Atomic uint32_t lease_asked, recall_asked;	/* a worker has woken the main thread for them */
	_Atomic uint32_t lease_epoch;	/* rises with every recall that is done */
	int lease_wake;			/* eventfd: workers to main thread */
	int lease_grace;		/* eventfd: the thread that waits for the kernel to main thread */
	uint32_t allows;		/* in force at the last review */
	bool sets_known;		/* read, and since then no element has lost its account */
	struct block_owners settled;	/* elements as they were read last, with what they had counted */
	bool sets_own;			/* what announced accounts have in them was put in by this engine */
	unsigned nworkers;
	struct engine_worker worker[AREA_WORKERS];
};

/* The process: returns its exit code. Descriptors as in proto.h. */
int engine_main(void);

/* commands.c */
void engine_tell(int sock, uint16_t kind, uint64_t token, int32_t result, const char *text);
void engine_ready(struct engine *e);		/* the first time: it judges by a policy */
void command_take(struct engine *e);		/* FD_PEER is readable */
int engine_check(const struct engine *e, const char **ret_why) MUST_CHECK;	/* area_check() beside running workers */

/* worker.c */
void *worker_run(void *arg);
void worker_grace(void);	/* main thread: every worker has ended the batch it was in */
/* Before any worker runs: answers what the dead engine left in the slots. */
void worker_recover(struct engine *e, unsigned index);

/* held.c: packets that wait for credit to come back from the kernel (leases.h [M4]). Their worker. */
bool held_any(const struct engine_worker *w);
/* False: no place; repeat it at once. */
bool held_add(struct engine_worker *w, uint32_t id, struct mono now);
void held_review(struct engine_worker *w, struct mono now);	/* repeats all when credit came back, or they waited long enough */
void held_recover(struct engine *e, unsigned index);	/* what a dead engine held is judged again */

/* enforce.c: main thread. 0 or -errno, logged. */
/* rules_stand: the kernel has this very policy's rules from the engine before; enforce_rules() follows when the workers run. */
int enforce_policy(struct engine *e, int blob_fd, uint32_t version, bool rules_stand, char why[200]) MUST_CHECK;
void enforce_rules(struct engine *e);
void enforce_start(struct engine *e);	/* the dead engine's rules and blocks, brought up to date; told when they are gone */
/* engine.watch is readable: what others removed is put back at once [E5] */
bool enforce_watch(struct engine *e, struct mono now);	/* something was */
void enforce_health(struct engine *e, struct mono now);
void enforce_look_back(struct engine *e);	/* the workers judge: what passed since the last engine's did */
void enforce_worry(struct engine *e, enum area_health what);	/* counted; the relay tells */

/* blocked.c, blocked_settle.c, blocked_kept.c: blocks and the kernel's sets.
 *
 * [BK1] Known  only a policy says whose an element is: until there is one no block ends, no element is touched, nothing is settled.
 * [BK2] Kept   an element of a pair or host that no account has (its account was lost: the service was killed) holds until its time; the
 *              first AREA_KEPT are in the area's kept[], and put back when others remove them. blocked_lift_kept() takes them out.
 * [BK3] Exact  what an element refused while we were dead is its accounts' when the policy comes; of an element of ports that no account
 *              has the bytes are in kept_lost. */
void blocked_announce(struct engine *e);	/* the next review puts all elements in again */
void blocked_review(struct engine *e, struct mono now);	/* judge_review(), then the sets follow */
/* Settles, and takes all elements out: their names or their right to stand change. Returns what blocked_settle() does. */
uint64_t blocked_forget(struct engine *e);
/* Bytes that the sets refused, to their accounts, which elements are named by p (NULL: none yet, nothing is done). Returns those of
 * elements of ports that no account has. */
uint64_t blocked_settle(struct engine *e, const struct engine_policy *p);
/* blocked_kept.c, of a reading: it begins; an element of a pair or host that has no account; it ended with r, o has all accounts' elements. */
void blocked_kept_begin(struct engine *e);
void blocked_kept_add(struct engine *e, const struct rules_block *b, uint64_t bytes);
void blocked_kept_end(struct engine *e, const struct block_owners *o, int r);
/* Element b was put in, and counts from zero: what its accounts have had of it is behind them. */
void blocked_counts_anew(struct engine *e, const struct rules_block *b);
/* Elements that no account has and that refuse packets from src to dst (of length 0: anywhere), taken out. 0 or -errno. */
int blocked_lift_kept(struct engine *e, const struct prefix *src, const struct prefix *dst, uint32_t *ret_count) MUST_CHECK;

/* A refused packet of `src` would go unanswered: the account is blocked, its rule answers, and no element of it says src. */
bool blocked_wants_answer(const struct engine *e, uint32_t account, const struct addr *src);
void blocked_refused(struct engine *e, uint32_t account, uint64_t bytes);	/* in the kernel */

/* confine.c */
bool confine_net_admin(void);	/* CAP_NET_ADMIN is in effect */
int confine_engine(void) MUST_CHECK;
int confine_relay(void) MUST_CHECK;
