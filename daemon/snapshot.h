/* snapshot.h - sums, blocks, findings and decisions in a file, for when the memory itself is gone (reboot, no FD store).
 *
 * Written by the relay every 60 s and at stop from its read-only view; read by an engine that starts on a new area.
 *
 * [SN1] Whole    written to a temporary file, fsync, rename, directory fsync; the previous one stays as NAME.1. What a kill
 *                leaves of the temporary file is never read and the next writing takes its place.
 * [SN2] Checked  BLAKE2b-256 over everything; a torn, flipped or unreadable file is refused whole (-EBADMSG), and the
 *                previous is tried. Another layout version is refused with a clear text (-EPROTO).
 * [SN3] Bounds   ages of buckets are kept by the wall clock, the gap counts as time without bytes and is told. A wall clock
 *                that went back counts as no time passed (never late). In the same boot the boot clock tells the gap, unless the wall
 *                clock says one shorter by a minute (time_namespaces(7)).
 * [SN4] Live     taken while workers charge: each account is as of some instant within the writing.
 * [SN5] Size     a table of another size takes it as well. What does not fit is told: idle accounts of pairs first; bytes of
 *                pairs go to their host's overflow record.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "area.h"
#include "compiler.h"

/* state_dir/snapshot from the area. 0 or -errno; nothing is left half-written. */
int snapshot_write(const char *state_dir, const struct area *a, struct mono now, uint64_t wall_us) MUST_CHECK;

/* When a relay wrote it last, microseconds since the epoch by the file's own time; 0: there is none. */
uint64_t snapshot_written_us(const char *state_dir);

/* The newest good file of state_dir, opened read-only and checked; -ENOENT: none. Logs each file that is refused, with its
 * name. Waits for nothing and follows no link: the folder's owner is the relay's user. */
int snapshot_open(const char *state_dir) MUST_CHECK;

/* Into a freshly formatted area, which stays so when the file is refused. *ret_gap_ns: time between writing and now. why:
 * "restored, gap 14:02:10-14:03:41" or what is wrong. */
int snapshot_restore(int fd, struct area *a, struct mono now, uint64_t wall_us, uint64_t *ret_gap_ns, char *why,
		     size_t why_size) MUST_CHECK;
