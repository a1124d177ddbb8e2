/* clock.h - the two clocks, read in daemon/ only. */
#pragma once

#include <stdint.h>
#include <time.h>

#include "mono.h"

static inline struct mono clock_mono(void)
{
	struct timespec t;

	clock_gettime(CLOCK_BOOTTIME, &t);
	return (struct mono){ (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec };
}

static inline uint64_t clock_wall_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

/* unix microseconds of a boottime instant, past (before this boot: a wrapped number) or to come, by today's wall clock */
static inline uint64_t clock_wall_of(struct mono at)
{
	return clock_wall_us() + (uint64_t)((int64_t)(at.ns - clock_mono().ns) / 1000);
}

/* seconds that the local time is ahead of UTC at that instant */
static inline int32_t clock_zone_s(uint64_t wall_us)
{
	time_t s = (time_t)(wall_us / 1000000);
	struct tm tm;

	return localtime_r(&s, &tm) ? (int32_t)tm.tm_gmtoff : 0;
}
