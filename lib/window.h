/* window.h - how many bytes passed in the last minute, hour, day, month: rings of running totals.
 *
 * A ring does not hold bytes a bucket; it holds, for each bucket, the account's ever-growing total as the bucket began.
 * The sum of a window is then total - start[oldest bucket]: one subtraction, nothing to add up, and advancing is
 * idempotent, so a crash between two stores is repaired by advancing again.
 *
 * [W1] Never late   A window's sum is never below the bytes charged in the true last L seconds: its oldest bucket is
 *                   counted whole.
 * [W2] Early bound  and never above the bytes of the last L + one bucket.
 * [W3] Monotone     Starts never fall from an older to a younger bucket.
 * Not here          who may charge, and locks: account.h.
 *
 * Rings (bucket x count): 5 s x 13, 1 min x 11, 5 min x 13, 1 h x 25, 1 d x 31. A window of length L is read from the
 * first ring whose bucket divides L and whose count is > L / bucket.
 */
#pragma once

#include <stdint.h>

#include "compiler.h"
#include "mono.h"

#define WINDOW_RINGS 5
#define WINDOW_SLOTS (13 + 11 + 13 + 25 + 31)

struct window_rings {
	uint64_t start[WINDOW_SLOTS];
	uint32_t tick;		/* the rings are advanced to this tick; 0: never used */
};

/* Where a window lives: fixed at compile time of the policy. */
struct window_spec {
	uint8_t ring;
	uint8_t buckets;	/* L / bucket length */
};

/* -EINVAL when no ring can hold `seconds`. */
int window_spec_for(uint64_t seconds, struct window_spec *ret) MUST_CHECK;
uint32_t window_bucket_s(unsigned ring);	/* bucket length in seconds */

/* `total` as it stands now opens every bucket since the last advance. tick never falls (a smaller one is ignored). */
void window_advance(struct window_rings *w, uint64_t total, uint32_t tick);

/* The total as the window's oldest bucket began, seen from `tick` >= w->tick (later buckets began with `total`); the sum
 * is total - this. */
uint64_t window_start(const struct window_rings *w, struct window_spec spec, uint64_t total, uint32_t tick);

/* First tick, >= w->tick, at which total - start < limit if nothing more is charged; w->tick if it holds now. */
uint32_t window_room_tick(const struct window_rings *w, struct window_spec spec, uint64_t total,
			  uint64_t limit);

/* A charge of n was taken back after the buckets younger than `since` had begun with it: take it out of them. */
void window_undo(struct window_rings *w, uint32_t since, uint64_t n);

/* Ticks are of another boot: what was `old` (gap included, not before w->tick) is `now`. Buckets keep their age or, where the
 * bucket borders of both boots differ, look younger by less than one bucket: [W1] holds, [W2] is two buckets until then. */
void window_rebase(struct window_rings *w, uint64_t total, struct mono old, struct mono now);

int window_check(const struct window_rings *w, uint64_t total, const char **ret_why) MUST_CHECK;
