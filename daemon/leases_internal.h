/* leases_internal.h - what leases.c (who gets one), leases_end.c (settling, and the way back) and leases_sleep.c (the idle) share. */
#pragma once

#include "engine.h"
#include "rules_lease.h"

struct live {			/* of an open lease: what a restart need not know */
	uint64_t sent_on;	/* of what the quota saw: to the queue, no credit was spent on it; never more than that */
	unsigned uncounted;	/* so many raises in turn did not ask for it */
	uint64_t rate;		/* bytes a second */
	uint64_t mark_ns, mark_bytes;	/* rate is measured from: the pair's bytes then, those in the queue included */
	uint64_t stale_ns;	/* since when more is out than STALE_S of its rate; 0: it is not */
	bool fresh;		/* not in the kernel yet */
	bool idle;		/* at the last look: it is to fall asleep */
	bool asleep;		/* without its element, with all else */
	uint64_t used;		/* scratch of a raise; 0: not read */
	bool depleted;		/* since its last raise */
	bool told;		/* by the kernel, which does not tell again until it is put in again */
	bool wanted;		/* in want[] */
	bool ending;		/* in ending[] */
	bool broken;		/* more passed than was granted */
	bool seen;		/* in the dump under way */
};

struct leases {
	struct live live[LEASE_SLOTS];
	uint32_t want[RULES_LEASES];
	unsigned nwant;
	uint32_t low;			/* from here on the second's look has not topped up yet; LEASE_SLOTS: it has */
	uint32_t ending[LEASE_SLOTS];	/* leases_end() takes them, all in one grace period */
	unsigned nending;
	unsigned nforeign;	/* elements that are no lease of ours, in the last dump, and what passed by them */
	uint64_t foreign_packets, foreign_bytes;
	bool grace;		/* one is waited for: those asleep began to be before it did, and no others */
	bool closing;		/* the dump under way is of leases that have all ended */
	bool inherited;		/* those that are open were an engine's before this one */
	bool leftover;		/* counters of ended leases may be in the kernel: an engine's before this one, or a forget failed */
	bool due;		/* an end of all has not succeeded yet: none is granted, and it is tried each second */
	enum { FORGET_NONE, FORGET_SOON, FORGET_FAILED } forget;	/* ended leases' elements, counters and quotas are in the kernel yet */
	uint64_t forget_ns;	/* not before */
	bool quiet;		/* hints came to nothing: the workers wake us no more, and we look when due */
	unsigned hints;		/* taken in this round */
	bool early;		/* one of them was the first after a rest: the next tells the rate */
	uint64_t granted;	/* rounds that gave something, ever */
};

bool lease_is_open(const struct engine *e, uint32_t slot);
struct rules_lease lease_in_kernel(const struct engine *e, uint32_t slot);

/* All by one dump, those in it are `seen`; or one, -ENOENT: its counter is gone, and so it was lost. */
int leases_settle(struct engine *e) MUST_CHECK;
int lease_settle_now(struct engine *e, uint32_t slot, struct mono now) MUST_CHECK;

void leases_add_end(struct engine *e, uint32_t slot);
void leases_add_account(struct engine *e, uint32_t account);	/* it ran short, or is about to: all that it pays for, and none for a second */
void leases_end(struct engine *e);	/* those that were added */
void leases_ended(struct engine *e);	/* the same, when no packet is on them any more */
void leases_sleep(struct engine *e);	/* some of the idle */
/* What an end of all left, thousands of elements and objects: not while somebody waits for its answer, but before anything is granted or read.
 * False: not yet, nor may that. */
bool leases_forget(struct engine *e);
void lease_drop(struct engine *e, uint32_t slot);	/* nothing is out on it */
