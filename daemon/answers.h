/* answers.h - connections that the queue refuses and no blocked set can say (ports, contracts, groups): the kernel answers their
 * next packet by RST or ICMP prohibited, so that the inside host does not wait for a timeout.
 *
 * [Q1] Verdict    the worker refuses each such packet by itself; this only spares it the next ones of the flow, for RULES_FLOW_MS.
 * [Q2] Exact      only flows of an account that is blocked, by five values of the very packet that was refused; when any block ends
 *                 or the policy changes, all are taken out at once. `refuse: drop`: none.
 * [Q3] Bounded    ANSWERS_MAX flows at a time, one transaction in ANSWERS_GAP_NS; what is beyond is refused without an answer.
 * [Q4] Counted    what the kernel refuses here is added to its account and read before a flow is forgotten. Lost with the engine's
 *                 life, and in the instant between a last reading and the removal: refused bytes, never passed ones.
 */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

#include "judge.h"
#include "rules.h"

#define ANSWERS_MAX    1024
#define ANSWERS_RING   64		/* a worker's, a power of two */
#define ANSWERS_GAP_NS (250 * NS_PER_MS)
#define ANSWERS_WAKE_NS (300 * NS_PER_MS)	/* the main thread looks by itself for so long after it was woken */
#define ANSWERS_LOOK_MS 100

struct engine;

struct answers_item {
	struct rules_flow flow;
	uint32_t account;		/* that refused it */
};

struct answers_ring {			/* one worker writes, the main thread reads */
	_Atomic uint32_t head, tail;
	uint64_t woken_ns;		/* the writer's */
	struct answers_item item[ANSWERS_RING];
};

struct answers;

struct answers *answers_new(void);

/* Worker: this packet was refused. True: the main thread is to be woken, at most once in ANSWERS_WAKE_NS. No lock, no system call. */
bool answers_note(struct answers_ring *ring, const struct judge_packet *v, struct mono now);

/* Main thread, after every wake and when due: takes the rings, puts what is due into the kernel. */
void answers_review(struct engine *e, struct mono now);
int answers_due_ms(const struct engine *e, struct mono now);	/* for poll(2); -1: nothing waits, nobody was refused lately */
void answers_settle(struct engine *e, struct mono now);	/* bytes refused there, to their accounts [Q4] */
void answers_forget(struct engine *e, struct mono now);	/* [Q2] */
