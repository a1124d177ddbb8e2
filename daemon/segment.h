/* segment.h - one file of the spool: records of consecutive seqs, each a head (magic, length, seq, checksum) and its bytes.
 *
 * [G1] Whole      segment_read() hands out a record that was written whole, under that seq, or none: BLAKE2b-256 (RFC 7693) over seq
 *                 and bytes, its first half.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "compiler.h"

#define SEGMENT_RECORD_MAX (64U << 10)	/* bytes of one record */

struct segment {
	uint64_t first, end;	/* seqs [first, end) that are whole */
	uint64_t size;		/* bytes that are whole */
};

/* Bytes in the file of a record of len. */
size_t segment_record_size(size_t len);

/* At offset off; EINTR and short writes are gone on with. 0 or -errno, the file then holds any part of it. */
int segment_write(int fd, uint64_t off, uint64_t seq, const void *data, size_t len) MUST_CHECK;

/* 0 and *ret_data malloc'd with a NUL behind; -ENODATA: no whole record of this seq there; other -errno. */
int segment_read(int fd, uint64_t off, uint64_t seq, char **ret_data, size_t *ret_len) MUST_CHECK;

/* From g->first on: sets g->end and g->size. *ret_torn: something is behind them. */
int segment_measure(int fd, struct segment *g, bool *ret_torn) MUST_CHECK;

/* Writes what is whole again, over itself: a sync that follows speaks of all of it. */
int segment_rewrite(int fd, const struct segment *g) MUST_CHECK;
