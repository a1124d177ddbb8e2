/* relay.h - the process that talks: control socket, findings to spool and Redis, policy compiler, snapshots.
 *
 * [Y1] Read-only  it maps the area read-only and changes the engine's state only by the messages of proto.h.
 * [Y2] Once       every (finding, rev) is one record in the spool: rev is compared with the last one written, also across a
 *                 relay's death (the spool's tail is read at start).
 * [Y3] Order      spool (fsync) first, then journal, then Redis.
 * [Y4] Answered   every decision from Redis for this gateway is answered, by what became of it (decisions.h).
 * Files           relay.c (loop), report.c (findings from the area), decisions.c, control.c + control_*.c (verbs), courier.c (Redis
 *                 thread), policy_source.c (policy file to blob), policy_force.c (the policy in force), snapshot.c,
 *                 health.c (what the engine counts as amiss).
 */
#pragma once

int relay_main(void);	/* exit code; descriptors as in proto.h */
