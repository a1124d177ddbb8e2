/* leases.h - who gets a lease (lib/lender.h), and when it ends: the engine's main thread between the workers' hints and the kernel.
 *
 * [M1] Asked for   a worker hints at a pair each time that it passed another 64 KiB packet by packet; the kernel tells when a lease is
 *                  used up. Nothing is polled for a grant; once a second what passed is settled and the large are topped up. Raising
 *                  one that was used up, to a small grant or for the fifth time in turn, waits for a grace period of the kernel, 5 to
 *                  25 ms, to count what it sent on to the queue; its packets are judged meanwhile.
 * [M2] Worth it    a pair gets one when LEASE_S seconds of its rate are LEASE_MIN at least: 13 kB/s, 9 full packets a second. A lease
 *                  costs 3.2 us a second (tests/bench/leases.sh: 3.2 % of a core for 9,950), a packet in the queue 5.9 us more than
 *                  a leased one (paths.sh flows): it pays from 0.6 packets a second on.
 * [M3] Ends        at once: policy, decision or block that concerns it, an account that runs short. At the second's look: what is
 *                  spent, whose allow or contract ends within LEASE_LAST_S, what others tampered with, and what rules pay although
 *                  a contract has room again.
 * [M7] Sleeps      what has had 30 s of its rate and more out for 10 s and does not begin again just then falls asleep: the kernel
 *                  passes nothing on it, its credit stays charged, and a thread waits for the kernel's grace period. Who begins
 *                  again meanwhile is waked by the next hint, with what is left; the rest ends. So nobody waits for idle ones.
 * [M4] Held        packets of an account that runs short while credit is out wait for the recall, LEASE_HOLD_MS at most, and are judged
 *                  again (NF_REPEAT); their ids are in the area, so a killed engine's successor repeats them. A recall that takes
 *                  longer has them refused, but nothing blocked for a second (LEASE_HOLDS).
 * [M5] Restart     a new engine ends what it finds: the kernel's counters settle it, the rest is returned, and the busy are leased again.
 * [M6] Bounded     LEASE_SLOTS at most; RULES_LEASES a transaction; the second's work is one dump and a few steps a lease, then
 *                  one transaction of raises at a time: commands, and packets that wait, come between.
 * Threads          leases_note() by workers, all else by the main thread; one more waits for grace periods [M7] and touches nothing.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "judge.h"
#include "lender.h"

#define LEASES_RING   256			/* a worker's, a power of two */

struct engine;
struct engine_worker;

struct leases_item {
	struct lease_hint hint;
	uint32_t account;		/* not TABLE_NONE: it ran short */
};

struct leases_ring {			/* one worker writes, the main thread reads */
	_Atomic uint32_t head, tail;
	struct leases_item item[LEASES_RING];
};

struct leases;

struct leases *leases_new(void);

/* Worker: this packet is busy or held. True: the main thread is to be woken. No lock, no system call. */
bool leases_note(struct engine_worker *w, const struct judge_packet *v);

/* Main thread. */
int leases_start(struct engine *e) MUST_CHECK;	/* [M7] its thread; e->lease_grace is readable when a grace period is over */
void leases_grace_over(struct engine *e);
void leases_review(struct engine *e);		/* after a wake, when rules_disturbed() was asked, and when due */
int leases_due_ms(const struct engine *e);	/* for poll(2); -1: nothing waits */
bool leases_second(struct engine *e);		/* true: what had passed on leases is settled */
void leases_go_on(struct engine *e);		/* at the end of each turn of the loop: the next transaction of what the second's look began */
void leases_end_all(struct engine *e);		/* stop, a table that was removed; at start [M5] */
void leases_end_touched(struct engine *e, const struct policy *next);	/* before that is in force: those that it judges otherwise */
void leases_end_between(struct engine *e, const struct prefix *src, const struct prefix *dst);	/* a decision; dst of length 0: anywhere */
void leases_end_spent(struct engine *e);	/* accounts were blocked */
uint64_t leases_outstanding(const struct engine *e);	/* of all accounts */
