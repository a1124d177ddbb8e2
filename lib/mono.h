/* mono.h - time inside egressd: CLOCK_BOOTTIME, never the wall clock.
 *
 * A struct mono cannot be mixed up with a wall clock or a duration. lib/ never reads a clock: the caller
 * brings the time. One tick is the finest bucket of a window, 5 s; a tick is never 0.
 */
#pragma once

#include <stdint.h>

#define NS_PER_S   1000000000ULL
#define NS_PER_MS  1000000ULL
#define TICK_S     5U
#define TICK_BASE  (17280U * 64)	/* 64 days: every window of a fresh boot starts at a positive tick */

struct mono {
	uint64_t ns;
};

static inline uint32_t mono_tick(struct mono t)
{
	return (uint32_t)(t.ns / (TICK_S * NS_PER_S)) + TICK_BASE;
}

static inline struct mono mono_of_tick(uint32_t tick)	/* as the tick begins */
{
	return (struct mono){ (uint64_t)(tick - TICK_BASE) * TICK_S * NS_PER_S };
}

static inline struct mono mono_add_s(struct mono t, uint64_t s)
{
	return (struct mono){ t.ns + s * NS_PER_S };
}

static inline uint64_t mono_s(struct mono t)
{
	return t.ns / NS_PER_S;
}
