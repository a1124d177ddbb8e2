/* courier.h - the relay's Redis thread: spool to stream, decisions back, heartbeat. Nothing waits for it.
 *
 * [CO1] Order     alerts go in seq order, each acknowledged in the spool after Redis has it.
 *                 A stream that holds less than was acknowledged was wiped: what the spool still has is sent again.
 * [CO2] Back-off  after a failure 0.2 s doubling to 30 s, with jitter; an operator's mistake (NOPERM, WRONGTYPE ...) is told
 *                 once a minute, also one by which only subscribers lose.
 * [CO3] Hand-over decisions are handed to the main thread one by one. The cursor is kept on disk when every answer up to it is on disk, as
 *                 the main thread says, and read from there by the next start.
 * [CO4] Turns     a backlog is sent for two seconds at a time: decisions are read and the heartbeat goes on in between.
 * [CO5] Above     a stream with higher ids than ours is gone on above, and told: once a height on the log, and courier_above().
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

#include "area.h"
#include "compiler.h"
#include "config.h"
#include "redis_link.h"
#include "spool.h"

struct courier;

/* spool is shared under lock. wake_fd: eventfd of the main thread, written when a decision waits. */
int courier_start(const struct config *c, const struct area *a, struct spool *spool, pthread_mutex_t *lock, int wake_fd,
		  struct courier **ret) MUST_CHECK;
/* False: its thread still waits for a name server, and has all that is its own; the process is to end. */
bool courier_stop(struct courier *c) MUST_CHECK;

void courier_poke(struct courier *c);	/* records wait in the spool */
void courier_state(struct courier *c, char *buf, size_t size);	/* "ok", "down since 14:02: ..." */

/* A decision that waits; false: none. courier_decided() after it was answered: the next one comes. written: this answer and all before
 * it are on disk; else courier_written() when they are. */
bool courier_decision(struct courier *c, struct redis_decision *ret);
void courier_decided(struct courier *c, bool written);
void courier_written(struct courier *c);

/* The highest foreign id that the alert stream has held above ours, 0: none. For a health alert, which the main thread writes. */
uint64_t courier_above(struct courier *c);
