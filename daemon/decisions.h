/* decisions.h - the way of a decision: from the courier to the engine, and its answer to the spool. Relay main thread.
 *
 * [DS1] Asked     a decision is asked of the engine, each second, until that answers (proto.h [M3]). Refused by the policy or its age is
 *                 only what the engine says it has not done (proto.h [M4]): it may have been within bounds before.
 * [DS2] Written   the cursor of the stream is kept on disk when every answer up to it is: a relay that dies before is followed by
 *                 one that reads those decisions again, and has them answered as they were.
 * [DS3] Disk      a disk that fails stops nothing by itself: answers wait in the spool's memory, up to DECISIONS_UNWRITTEN, as many as
 *                 the engine remembers. What needs an answer beyond that waits, which is told by log and health alert; so does what
 *                 the spool has no memory for. What is for other gateways needs none.
 */
#pragma once

#include <pthread.h>
#include <stdint.h>

#include "area.h"
#include "courier.h"
#include "policy.h"
#include "proto.h"
#include "report.h"
#include "spool.h"

#define DECISIONS_UNWRITTEN AREA_ANSWERS

/* Puts a token into m if it has none, and waits for the engine's answer to it: 0, -errno: none in time. */
typedef int (*decisions_ask_fn)(void *ctx, struct proto_msg *m, struct proto_reply *ret);

struct decisions {
	const char *gateway;		/* these by the caller; courier may be NULL: no Redis */
	struct courier *courier;
	struct report *report;
	struct spool *spool;
	pthread_mutex_t *spool_lock;
	decisions_ask_fn ask;
	void *ctx;

	struct proto_msg asked;		/* the last that went to the engine; an inquiry: to be refused ... */
	char asked_why[200];		/* ... so, unless it was done before */
	uint64_t failed;		/* entry of the last answer that found no memory, which was logged */
	uint32_t unwritten;		/* answers in memory alone */
	bool full, untold;		/* [DS3] and it was logged; the alert is due */
};

/* The one that waits, if any, by the policy in force (NULL: it waits on); again in a second when it was not answered. */
void decisions_take(struct decisions *d, const struct policy *p);
void decisions_written(struct decisions *d);	/* spool_sync() has succeeded */
