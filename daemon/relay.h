/* relay.h - the process that talks: control socket, findings to spool and Redis, policy compiler, snapshots.
 *
 * [Y1] Read-only  it maps the area read-only and changes the engine's state only by the messages of proto.h.
 * [Y2] Once       every (finding, rev) is one record in the spool: rev is compared with the last one written, also across a
 *                 relay's death (the spool's tail is read at start).
 * [Y3] Order      spool (fsync) first, then journal, then Redis.
 * [Y4] Answered   a decision is asked of the engine until its answer is in the spool (proto.h [M3]); then the cursor moves on. Refused
 *                 by the policy or its age is only what the engine says it has not done (proto.h [M4]).
 * Files           relay.c (loop), report.c (findings from the area), control.c + control_*.c (verbs), courier.c (Redis
 *                 thread), policy_source.c (policy file to blob), policy_force.c (the policy in force), snapshot.c,
 *                 health.c (what the engine counts as amiss).
 */
#pragma once

int relay_main(void);	/* exit code; descriptors as in proto.h */
