/* health.h - what the relay says when a count of enum area_health rises. Relay main thread, but for the words.
 *
 * [HL1] Once      a rise is told once, by report_health(); under its limit of one of a kind a minute, those of the minute after are
 *                 told when it is over, with their number. What was told is kept in a file, so a rise while no relay ran is told by the
 *                 next one; a relay that dies before it kept it makes it told twice.
 * [HL2] Restarts  of the engine are told when it judges again, with the interval in which nobody did and what the kernel counted past
 *                 us meanwhile; those of the minute after are told together, with the sum. An engine that does not get to judge is
 *                 told after HEALTH_BLIND_S, and each minute until it does. Of several while no relay looked, the last one's
 *                 interval is told.
 * [HL3] File      one that is damaged, or of another version, is as none, with a line in the journal.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "area.h"
#include "compiler.h"
#include "report.h"

#define HEALTH_BLIND_S 5

struct health {			/* what was told */
	uint64_t count[HEALTH_COUNT];
	uint64_t packets, bytes, uncounted;	/* of struct area_blind */
	uint64_t from_ns;	/* when the oldest restart not told began, 0: none */
	bool from_last;		/* it is the last one: the others were not noticed one by one */
	uint64_t noticed_ns;
	bool closed;		/* what nobody judges is dropped */
	bool changed;		/* since it was kept */
};

struct health_restarts {	/* microseconds since the epoch; to 0: not yet */
	uint64_t n, from_us, to_us, packets, bytes, uncounted;
	bool closed;
	bool last;		/* from and to are of the last alone */
};

/* As the last relay of this area kept it; in a new area nothing was told. */
void health_init(struct health *h, const struct area *a, const char *state_dir, bool closed);
void health_keep(struct health *h, const struct area *a, const char *state_dir);	/* when what it told is on disk */
/* Tells every rise. 0; -errno: not written, tried again at the next call. */
int health_report(struct health *h, const struct area *a, struct report *r) MUST_CHECK;

const char *health_kind(enum area_health what);	/* "engine-restart" */

/* "the engine was restarted; nobody judged from 14:41:51.218 to 14:42:02.530 JST; 1234 packets (1.2 MB) passed unjudged"; each
 * with its date when the days differ. */
void health_restart_text(const struct health_restarts *x, char *text, size_t size);
