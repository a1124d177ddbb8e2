/* redis_wire.h - one connection to Redis: a request out, a reply in, within one deadline and one bound. The only file that sees
 * hiredis, whose own timeouts hold for each read(2) alone and whose reader takes whatever size it is told.
 *
 * [W1] Deadline   every call ends by the time it was given, however slowly the bytes drip. Names are resolved before, by the
 *                 system's resolver and its own timeouts: give an address where that matters.
 * [W2] Bound      a reply has at most WIRE_BYTES, WIRE_ELEMENTS and hiredis's depth of 7, checked before memory is taken for them.
 * [W3] In step    a reply belongs to its request: bytes nobody asked for, before or after a reply, end the connection.
 * [W4] argv       commands are sent as argument vectors, never formatted text.
 * After -EPROTO (the peer broke the protocol, [W2] or [W3]) and every other error but a refused argument the connection is closed.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "compiler.h"

#define WIRE_BYTES    (4U << 20)
#define WIRE_ELEMENTS 65536U

enum wire_type { WIRE_STATUS, WIRE_STRING, WIRE_INTEGER, WIRE_NIL, WIRE_ARRAY, WIRE_ERROR };

/* A reply; memory of the wire until the next call. Text is followed by a NUL but may hold others: text_len counts. */
struct wire_reply {
	enum wire_type type;
	const char *text;
	size_t text_len;
	int64_t number;
	size_t count;
	const struct wire_reply *element;
};

struct redis_wire;

int wire_new(struct redis_wire **ret_wire) MUST_CHECK;
struct redis_wire *wire_free(struct redis_wire *w);

/* deadline_ns: CLOCK_MONOTONIC. unix_path, else host and port. 0 or -errno, -EACCES: the socket's mode. */
int wire_open(struct redis_wire *w, const char *unix_path, const char *host, uint16_t port, uint64_t deadline_ns) MUST_CHECK;
void wire_close(struct redis_wire *w);
bool wire_is_open(const struct redis_wire *w);

/* lens NULL: all are NUL-terminated. 0 and *ret_reply, also when Redis answers by an error (WIRE_ERROR). */
int wire_call(struct redis_wire *w, int argc, const char *const *argv, const size_t *lens, uint64_t deadline_ns,
	      const struct wire_reply **ret_reply) MUST_CHECK;

const char *wire_error(const struct redis_wire *w);	/* of the last -errno; bytes as they came */

uint64_t wire_clock_ns(void);
