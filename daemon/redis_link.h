/* redis_link.h - what egressd says to Redis and takes from it, each call within one deadline (redis_wire.h). Synchronous, on the
 * relay's Redis thread. Redis is not trusted: it may lie, but not hang us, fill our memory or make us misread it.
 *
 * [L1] Deadline   every call returns within `timeout_ms`, all its commands together; a hung server is found by PING after connect.
 *                 Before it a name is looked up, which takes as long as the resolver lets it (resolv.conf: 5 s twice a server).
 * [L2] Class      every failure has a class: RETRY (io, OOM, MISCONF, BUSY; READONLY, MASTERDOWN, LOADING and too many clients
 *                 also close, for another server may answer there next), OPERATOR (NOPERM, NOAUTH, WRONGPASS, WRONGTYPE, unknown
 *                 command, ids used up; a socket or password file that may not be opened), HOSTILE (a reply of a wrong type, size or
 *                 form, or unasked: connection closed).
 * [L3] Once       redis_alert() is idempotent: "equal or smaller" is settled by reading the id back.
 * [L4] Whole      a decision's fields are as they were written, or the decision is marked bad or unknown; entry ids rise from the cursor on.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "compiler.h"
#include "config.h"

enum redis_class { REDIS_OK, REDIS_RETRY, REDIS_OPERATOR, REDIS_HOSTILE };

struct redis_link;

#define REDIS_ID 48		/* a stream id: two 64-bit numbers and a dash */

struct redis_decision {			/* one entry of egress:decisions */
	char entry[REDIS_ID];		/* stream id */
	const char *bad;		/* static name of a field that was too long, held a NUL or came twice; NULL */
	char unknown[32];		/* name, or how it begins, of a field that no decision has; "" */
	char v[8], id[64], action[16], src[64], dst[64], budget[24], ttl[16], author[64], reason[160], gateway[64];
};

int redis_link_new(const struct config *c, unsigned timeout_ms, struct redis_link **ret_link) MUST_CHECK;
struct redis_link *redis_link_free(struct redis_link *l);
const char *redis_link_error(const struct redis_link *l);	/* of the last call, escaped, one line */

/* Connect, AUTH, PING when not connected. */
enum redis_class redis_connect(struct redis_link *l);

/* XADD egress:alerts:<gateway> MAXLEN ~ 100000 <seq>-0 eve JSON, then PUBLISH egress:alert JSON. Same alert stored before:
 * REDIS_OK. Id taken by another alert: *ret_top is the stream's top id, and the alert is stored above it. */
enum redis_class redis_alert(struct redis_link *l, uint64_t seq, const char *alert_id, const char *json, size_t len,
			     uint64_t *ret_top);

/* Why the last PUBLISH was refused, when an administrator must mend that: who listens hears nothing, the stream has all. "" else. */
const char *redis_link_unheard(const struct redis_link *l);

/* First half of the newest id in egress:alerts:<gateway>, 0: the stream is empty or gone. */
enum redis_class redis_top(struct redis_link *l, uint64_t *ret_top);

/* Can a call begin there? A stream id, or its first half alone. */
bool redis_cursor_valid(const char *text);

/* Entries of egress:decisions after `*cursor` (stream id text), at most n, without blocking. */
enum redis_class redis_decisions(struct redis_link *l, char cursor[REDIS_ID], struct redis_decision *ret, unsigned n,
				 unsigned *ret_count);

/* HSET egress:gw:<gateway> field value ... and EXPIRE. Pairs of strings, NULL-terminated. */
enum redis_class redis_heartbeat(struct redis_link *l, const char *const *fields, unsigned expire_s);
