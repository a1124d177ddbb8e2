/* spool.h - findings on disk before they are offered to anyone.
 *
 * Append-only segment files of framed records (length, checksum, seq, JSON) in state_dir/spool. Relay only.
 *
 * [S1] Durable    spool_append() + spool_sync() returned 0: the record survives power loss (fdatasync, directory fsync). A sync that
 *                 fails forgets nothing: all that was appended since the last good one is written again, to another file. What an
 *                 earlier process left is written again too before it counts: its last sync may have failed.
 * [S2] Torn       a record cut or flipped anywhere is found by its checksum, at open or when it is read; what follows it in that
 *                 segment is dropped, earlier records stand. Counted exactly where a later segment tells by its seqs;
 *                 at the end of the last one nothing tells, there it counts as one: at least.
 * [S3] Order      records are read back in the order appended; seq rises by one each.
 * [S4] Cap        at most `cap` bytes: the oldest acknowledged segments go first; if unacknowledged ones must go, that is counted
 *                 (spool_lost()), unless nobody was to acknowledge them.
 * [S5] Memory     records not yet durable are in memory, 1,024 and 8 MiB at most; then spool_append() syncs by itself, and is
 *                 -ENOSPC while that fails.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "compiler.h"

struct spool;

int spool_open(const char *dir, uint64_t cap, struct spool **ret_spool) MUST_CHECK;
struct spool *spool_close(struct spool *s);

/* seq the next record will get; starts at 1 and never goes back. */
uint64_t spool_next_seq(const struct spool *s);
int spool_append(struct spool *s, const void *data, size_t len, uint64_t *ret_seq) MUST_CHECK;
int spool_sync(struct spool *s) MUST_CHECK;

/* Oldest record with seq > after: 0 and a malloc'd copy, -ENOENT when there is none. Only durable ones. */
int spool_read(struct spool *s, uint64_t after, uint64_t *ret_seq, char **ret_data, size_t *ret_len) MUST_CHECK;

/* Nobody will acknowledge: what the cap takes is no loss. Nothing is acknowledged by that; who comes later is offered all there is. */
void spool_unread(struct spool *s);
/* Everything up to seq has reached Redis; durable lazily (a crash may offer some again). */
int spool_ack(struct spool *s, uint64_t seq) MUST_CHECK;
uint64_t spool_acked(const struct spool *s);
uint64_t spool_lost(const struct spool *s);
