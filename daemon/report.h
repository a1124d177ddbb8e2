/* report.h - from state in the table to findings in the spool. Relay main thread.
 *
 * [RP1] Once     every (finding_id, rev) seen is one record; what the spool already has is known again after a restart.
 * [RP2] All      a rung bell is a hint; every REPORT_SCAN_S all open accounts are looked at, so nothing is missed when the ring
 *                was full.
 * [RP3] Summary  over REPORT_BURST new findings of one rule in a minute become one summary; the rest is in `egressctl findings`, and
 *                nothing is written of one of them but, when it changes in a quieter minute while it is open, a create of its own.
 * [RP4] Pairs    an update or close has an earlier create of the same finding and incident, and each create a close; of a finding
 *                that ended while nobody looked both are written, or the close alone when its numbers are gone (no close
 *                when that was while no relay ran).
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "area.h"
#include "compiler.h"
#include "config.h"
#include "finding.h"
#include "policy.h"
#include "redis_link.h"
#include "spool.h"

#define REPORT_SCAN_S 5
#define REPORT_BURST  50

/* An entry of egress:decisions: this very one was answered, or another one with its id. */
enum report_decided { DECIDED_NEW, DECIDED_ANSWERED, DECIDED_REUSED };

struct report;

/* Reads the spool for what was already written. */
int report_open(const struct area *a, const struct config *c, struct spool *s, struct report **ret) MUST_CHECK;
struct report *report_close(struct report *r);

/* The policy in force, for names; NULL: none. Borrowed until the next call. */
void report_policy(struct report *r, const struct policy *p);

/* New revs to the spool; all: look at every account, not only at those of the bell. Number of records written (to be
 * synced by the caller), or -errno. */
int report_scan(struct report *r, bool all);

/* A health alert or the answer to a decision; at most one of a kind a minute for health (more are counted in the text). */
int report_health(struct report *r, const char *kind, const char *text) MUST_CHECK;
bool report_health_due(const struct report *r, const char *kind);	/* one of this kind would be written now */
int report_decision(struct report *r, const struct redis_decision *d, const char *result, const char *why) MUST_CHECK;
enum report_decided report_decided(const struct report *r, const struct redis_decision *d);

/* The incident that the finding of account `slot` was told to belong to; 0: it was not told. */
uint64_t report_incident(const struct report *r, uint32_t slot);

/* Fill a finding from account `slot` as it stands, for `findings` and `explain` as well; false: it never had one. */
bool report_fill(const struct area *a, const struct policy *p, const struct config *c, uint32_t slot, bool scan_pairs,
		 struct finding *ret);
