/* clock.h - the two clocks, read in daemon/ only. */
#pragma once

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

#define CLOCK_ZONE 8		/* an abbreviation: "UTC", "CEST", "+0530" */

/* Clock times are said in the policy's zone: `name` is UTC or one of the time zone database (TZ can also name files); else and for "" it
 * stays as it is. Other threads may read clocks meanwhile if TZ was set before they began. */
static inline void clock_set_zone(const char *name)
{
	static const char good[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_+-/";

	if (!*name || *name == '/' || strspn(name, good) != strlen(name) || setenv("TZ", name, 1) < 0)
		return;
	tzset();
}

/* Seconds that clocks are ahead of UTC at that instant, and what their zone is called then. */
static inline int32_t clock_zone(uint64_t wall_us, char ret_name[CLOCK_ZONE])
{
	time_t s = (time_t)(wall_us / 1000000);
	struct tm tm;

	ret_name[0] = '\0';
	if (!localtime_r(&s, &tm))
		return 0;
	snprintf(ret_name, CLOCK_ZONE, "%s", tm.tm_zone ? tm.tm_zone : "");
	return (int32_t)tm.tm_gmtoff;
}
