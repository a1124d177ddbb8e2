/* ctl_text.c - values of an answer as text for a terminal. */
#include <inttypes.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "clock.h"
#include "ctl.h"
#include "finding.h"
#include "utf8.h"

static bool zoned;	/* clock times are in a policy's zone: say in which */

static void put(FILE *to, const char *text)
{
	size_t len = strlen(text);
	unsigned took;

	for (; len > 0; text += took, len -= took) {
		char piece[5];
		unsigned n = utf8_show(text, len, piece, &took);

		fwrite(piece, 1, n, to);
	}
}

void ctl_put(const char *text)
{
	put(stdout, text);
}

void ctl_complain(const char *fmt, ...)
{
	char text[4096];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	fputs("egressctl: ", stderr);
	put(stderr, text);
	fputc('\n', stderr);
}

uint64_t ctl_number(const json_t *o, const char *key)
{
	json_int_t n = json_integer_value(json_object_get(o, key));

	return n > 0 ? (uint64_t)n : 0;
}

const char *ctl_string(const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s ? s : "";
}

bool ctl_null(const json_t *o, const char *key)
{
	const json_t *v = json_object_get(o, key);

	return !v || json_is_null(v);
}

const char *ctl_plural(uint64_t n)
{
	return n == 1 ? "" : "s";
}

bool ctl_true(const json_t *o, const char *key)
{
	return json_is_true(json_object_get(o, key));
}

const char *ctl_bytes(const json_t *o, const char *key, char buf[16])
{
	return format_bytes(ctl_number(o, key), buf);
}

static bool instant(const json_t *o, const char *key, time_t *ret)
{
	struct tm tm = { 0 };
	const char *end = strptime(ctl_string(o, key), "%Y-%m-%dT%H:%M:%S", &tm);

	if (!end)
		return false;
	*ret = timegm(&tm);
	return true;
}

const char *ctl_when(const json_t *o, const char *key, char buf[32])
{
	time_t t, now = time(NULL);
	struct tm at, today;
	const char *fmt;
	size_t n;

	snprintf(buf, 32, "?");
	if (!instant(o, key, &t) || !localtime_r(&t, &at) || !localtime_r(&now, &today))
		return buf;
	fmt = at.tm_year != today.tm_year   ? "%-d %b %Y %H:%M"
	      : at.tm_yday != today.tm_yday ? "%-d %b %H:%M"
					    : "%H:%M";
	n = strftime(buf, 32, fmt, &at);
	if (n > 0 && zoned && at.tm_zone)
		snprintf(buf + n, 32 - n, " %s", at.tm_zone);
	return buf;
}

const char *ctl_moment(const json_t *o, const char *key, char buf[40])
{
	struct tm at;
	time_t t;

	if (!instant(o, key, &t) || !localtime_r(&t, &at) || strftime(buf, 40, "%Y-%m-%d %H:%M:%S %Z", &at) == 0)
		snprintf(buf, 40, "?");
	return buf;
}

const char *ctl_ago(const json_t *o, const char *key, char buf[32])
{
	time_t t, s;

	if (!instant(o, key, &t)) {
		snprintf(buf, 32, "?");
		return buf;
	}
	s = time(NULL) - t;
	if (s < 120)
		snprintf(buf, 32, "%jd s ago", (intmax_t)(s > 0 ? s : 0));
	else if (s < 7200)
		snprintf(buf, 32, "%jd min ago", (intmax_t)(s / 60));
	else if (s < 2 * 86400)
		snprintf(buf, 32, "%jd h ago", (intmax_t)(s / 3600));
	else
		snprintf(buf, 32, "%jd days ago", (intmax_t)(s / 86400));
	return buf;
}

const char *ctl_count(uint64_t n, char buf[32])
{
	char digits[24];
	int len = snprintf(digits, sizeof(digits), "%" PRIu64, n), at = 0;

	for (int i = 0; i < len; i++) {
		if (i && (len - i) % 3 == 0)
			buf[at++] = ',';
		buf[at++] = digits[i];
	}
	buf[at] = '\0';
	return buf;
}

void ctl_timezone(const char *name)
{
	zoned = *name;
	clock_set_zone(name);
}
