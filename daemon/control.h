/* control.h - the relay's side of the control socket: one JSON request line per connection, one JSON reply.
 *
 * [CT1] Who      SO_PEERCRED decides: uid 0 or a member of group egressd reads; uid 0 or of group egressd-admin reads and changes.
 *                Nobody else can connect (mode, and an ACL for the second group). Every change is logged with uid and reason.
 * [CT2] Bounds   a request is at most 64 KiB (apply: 2,304 KiB, which a policy of 1 MiB may take as JSON), nested at most 16 deep; a
 *                reply at most 4 MiB; a peer that sends or takes nothing for a second, or is not done in three, is dropped; the
 *                time that requests take is not theirs. A malformed request is answered, and counted.
 * [CT3] Reads    show verbs read the area as data; slot numbers are range-checked.
 * [CT4] Turns    nobody waits for a slow peer. Of whole requests one runs at a time: of who may change first, then the oldest. Readers have
 *                three quarters of the places, a uid of theirs a quarter, and one reply on its way; who finds none is told, and closed.
 */
#pragma once

#include <poll.h>
#include <stddef.h>
#include <stdint.h>

#include "area.h"
#include "compiler.h"
#include "config.h"
#include "policy.h"
#include "proto.h"

#define ANOTHER_EGRESSD "another egressd runs here, its control socket is %s: stop it first"

struct report;

struct control_lease_work {		/* of the engine */
	uint64_t grants, raises, recalls;
};

struct control_ctx {			/* what the verbs need; filled by relay.c before control_serve() */
	const struct area *area;
	const struct policy *policy;	/* in force; NULL: none yet */
	const struct config *config;
	const struct report *report;	/* what was told of findings; NULL: nothing */
	uint64_t policy_since_us;	/* wall clock of the last change */
	char redis_state[200];
	uint64_t spool_pending, spool_lost, spool_next;
	uint64_t answers_unwritten;	/* to decisions: in memory, not on disk */
	uint64_t confirm_by_us;		/* a policy waits for `confirm` until then; 0: none */
	uint64_t policy_bad_since_us;	/* the policy file has had errors since then; 0: none known */
	char policy_bad[200];		/* the first of them */
	struct control_lease_work last_second;
	uint64_t malformed;		/* requests; control.c counts */

	void *relay;
	/* To the engine and back; 0 with *ret (whose result may be an error), -errno: no answer. */
	int (*command)(void *relay, struct proto_msg *m, struct proto_reply *ret);
	int (*reload)(void *relay, char *why, size_t why_size);
	int (*apply)(void *relay, const char *yaml, size_t len, unsigned confirm_s, char *why, size_t why_size);
	/* *ret_yaml: the confirmed text, malloc'd, for egressctl to install at config->policy. */
	int (*confirm)(void *relay, char **ret_yaml, char *why, size_t why_size);
};

/* 0: nobody has a socket there. -EADDRINUSE: somebody has, and keeps it for 5 s: a relay whose supervisor was killed writes its last
 * snapshot first. Whoever it is notices nothing. */
int control_alone(const char *path) MUST_CHECK;

/* Listening socket at path, mode 0660, group egressd where there is one; fd or -errno, of control_alone() too: only what nobody has is
 * replaced. */
int control_open(const char *path) MUST_CHECK;

#define CONTROL_PEERS 64
#define CONTROL_POLLS (1 + CONTROL_PEERS)

/* For poll(2): the listening socket and the connections. How many; *ret_ms: control_serve() is due then, -1: when one is ready. */
size_t control_polls(int listen_fd, struct pollfd p[CONTROL_POLLS], int *ret_ms);

/* Accept, receive and send what can be without waiting, and serve at most one request. */
void control_serve(int listen_fd, struct control_ctx *ctx);

/* One request to its reply (malloc'd, newline-terminated); never NULL but for lack of memory. `change`: the peer may change.
 * Pure but for ctx's callbacks (fuzzed). */
char *control_request(struct control_ctx *ctx, const char *buf, size_t len, uint32_t uid, int change, size_t *ret_len);
