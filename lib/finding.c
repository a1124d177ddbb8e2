/* finding.c - how numbers and findings read in one line. See finding.h. */
#include "finding.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "utf8.h"

const char *format_bytes(uint64_t bytes, char buf[16])
{
	static const char *const units[] = { "kB", "MB", "GB", "TB", "PB", "EB" };
	uint64_t unit = 1000, tenths;
	unsigned i = 0;

	if (bytes < 1000) {
		snprintf(buf, 16, "%u B", (unsigned)bytes);
		return buf;
	}
	while (i < 5 && bytes / unit >= 1000) {
		unit *= 1000;
		i++;
	}
	tenths = bytes / unit * 10 + (bytes % unit + unit / 20) / (unit / 10);
	if (tenths == 10000 && i < 5) {	/* 999.96 MB */
		tenths = 10;
		i++;
	}
	snprintf(buf, 16, "%u.%u %s", (unsigned)(tenths / 10), (unsigned)(tenths % 10), units[i]);
	return buf;
}

const char *format_duration(uint64_t s, char buf[16])
{
	static const struct {
		uint32_t s;
		char unit;
	} units[] = { { 86400, 'd' }, { 3600, 'h' }, { 60, 'm' } };

	if (s > UINT32_MAX)
		s = UINT32_MAX;		/* 136 years */
	for (unsigned i = s == 86400; i < ARRAY_SIZE(units); i++)	/* a day is 24h, as policies have it */
		if (s && s % units[i].s == 0) {
			snprintf(buf, 16, "%u%c", (unsigned)(s / units[i].s), units[i].unit);
			return buf;
		}
	snprintf(buf, 16, "%us", (unsigned)s);
	return buf;
}

struct line {
	char *buf;
	size_t size, at;
};

static void put(struct line *l, const char *text, size_t len)
{
	unsigned took;

	for (size_t i = 0; i < len; i += took) {
		char piece[5];
		unsigned n = utf8_show(text + i, len - i, piece, &took);

		if (l->at + n < l->size)
			memcpy(l->buf + l->at, piece, n);
		l->at += n;
	}
}

static void PRINTF(2, 3) putf(struct line *l, const char *fmt, ...)
{
	char text[600];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	put(l, text, strlen(text));
}

static void put_until(struct line *l, const struct finding *f)
{
	time_t now = (time_t)(f->wall_us / 1000000) + f->zone_s, then = (time_t)(f->until_us / 1000000) + f->zone_s;
	struct tm today, at;
	char text[40];

	if (!f->until_us || !gmtime_r(&now, &today) || !gmtime_r(&then, &at))
		return;
	if (strftime(text, sizeof(text),
		     at.tm_year != today.tm_year   ? "%-d %b %Y %H:%M"
		     : at.tm_yday != today.tm_yday ? "%-d %b %H:%M"
						   : "%H:%M", &at))
		putf(l, " until %s%s%s", text, f->zone[0] ? " " : "", f->zone);
}

static void put_alert(struct line *l, const struct finding *f)
{
	static const char *const severity[] = { "", "low", "medium", "high", "critical" };
	static const char *const activity[] = { "", " (update)", " (closed)" };
	static const char *const verdict[] = { "let through", "alert only", "throttled", "blocked", "would block" };
	char sum[16], limit[16], window[16], refused[16];

	putf(l, "alert %s: %s", severity[f->severity <= 4 ? f->severity : 0], f->subject_name);
	if (f->dest_ip[0])
		putf(l, " -> %s", strcmp(f->dest_ip, "*") == 0 ? "other destinations" : f->dest_ip);
	putf(l, " %s%s: %s in %s (limit %s), %s", f->rule, activity[f->activity <= ACTIVITY_CLOSE ? f->activity : 0],
	     format_bytes(f->observed_bytes, sum), format_duration(f->window_s, window),
	     format_bytes(f->limit_bytes, limit), verdict[f->verdict <= VERDICT_WOULD_BLOCK ? f->verdict : 0]);
	put_until(l, f);
	if (f->refused_bytes)
		putf(l, ", refused %s", format_bytes(f->refused_bytes, refused));
}

int finding_line(const struct finding *f, char *buf, size_t size)
{
	struct line l = { .buf = buf, .size = size };

	if (f->event == EVENT_ALERT)
		put_alert(&l, f);
	else if (f->event == EVENT_HEALTH)
		putf(&l, "health: %s", f->signature);
	else
		putf(&l, "decision %s: %s %s %s by %s: %s%s%s", f->decision_id, f->decision_action, f->decision_src, f->decision_dst,
		     f->decision_author, f->decision_result, f->decision_why[0] ? ": " : "", f->decision_why);
	if (size)
		buf[MIN_OF(l.at, size - 1)] = '\0';
	return l.at < size ? (int)l.at : -EMSGSIZE;
}
