/* health.c - see health.h. */
#include "health.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "file_replace.h"
#include "finding.h"
#include "hash.h"
#include "log.h"

static const struct {
	const char *kind, *text;
} words[HEALTH_COUNT] = {
	[HEALTH_ENGINE_RESTART] = { "engine-restart", NULL },	/* health_restart_text() */
	[HEALTH_RULES_FLUSHED] = { "rules-flushed", "somebody removed or changed egressd's kernel rules, blocks or leases; they were put back; what "
				   "left meanwhile, and up to a second before, may be missing in egress and unseen" },
	[HEALTH_RULES_FAILED] = { "rules-failed", "kernel rules could not be changed; see the journal" },
	[HEALTH_TABLE_FULL] = { "table-full", "the pair table is full; idle pairs are folded into their hosts" },
	[HEALTH_BRAKE] = { "brake", "more subjects than the policy's brake allows would be blocked: only alerting" },
	[HEALTH_UNSEEN] = { "unseen", "packets left that egressd did not judge; see unseen in egressctl status" },
	[HEALTH_QUEUE_LOST] = { "queue-lost", "the kernel dropped packets of our queue" },
	[HEALTH_RESTORED] = { "restored", "sums were restored from a snapshot; the gap is in egressctl status" },
	[HEALTH_LEASES_CHANGED] = { "leases-changed", "somebody raised, reset, made or removed leases in the kernel; they end" },
};

static uint64_t load(const _Atomic uint64_t *n)
{
	return atomic_load_explicit(n, memory_order_relaxed);
}

/* The host that fills the table: the one whose overflow record took most packets. */
static void table_full_text(const struct area *a, char *text, size_t size)
{
	uint32_t worst = TABLE_NONE;
	char in[ADDR_STRLEN];
	uint64_t most = 0;

	for (uint32_t i = 0; i < a->h->pairs; i++) {
		uint64_t n;

		if (!table_is_full(&a->pairs, i) || a->pair[i].key.class_uid != PAIR_CLASS_OVERFLOW)
			continue;
		n = pair_packets(&a->pair[i], &a->pair_cold[i]);
		if (n > most) {
			most = n;
			worst = i;
		}
	}
	snprintf(text, size, "%s; most by %s", words[HEALTH_TABLE_FULL].text,
		 worst == TABLE_NONE ? "no single host" : pair_in_format(a->pair[worst].key.in, in));
}

static void leases_changed_text(const struct area *a, char *text, size_t size)
{
	char beyond[16], lost[16];

	snprintf(text, size, "%s; so far %s passed beyond what was granted, and %s that nobody can count any more are charged as passed",
		 words[HEALTH_LEASES_CHANGED].text, format_bytes(load(&a->h->lease_beyond), beyond),
		 format_bytes(load(&a->h->lease_lost), lost));
}

static void rise_text(const struct area *a, unsigned what, uint64_t times, char *text, size_t size)
{
	size_t n;

	snprintf(text, size, "%s", words[what].text);
	if (what == HEALTH_TABLE_FULL)
		table_full_text(a, text, size);
	if (what == HEALTH_LEASES_CHANGED)
		leases_changed_text(a, text, size);
	n = strlen(text);
	if (times > 1)
		snprintf(text + n, size - n, " (%" PRIu64 " times)", times);
}

/* ---- restarts ---- */

static void put_time(uint64_t us, bool date, char text[40])
{
	time_t s = (time_t)(us / 1000000);
	char at[32] = "?";
	struct tm tm;

	if (localtime_r(&s, &tm))
		strftime(at, sizeof(at), date ? "%-d %b %H:%M:%S" : "%H:%M:%S", &tm);
	snprintf(text, 40, "%s.%03u", at, (unsigned)(us / 1000 % 1000));
}

static bool days_differ(uint64_t x_us, uint64_t y_us)
{
	time_t x = (time_t)(x_us / 1000000), y = (time_t)(y_us / 1000000);
	struct tm a, b;

	return !localtime_r(&x, &a) || !localtime_r(&y, &b) || a.tm_yday != b.tm_yday || a.tm_year != b.tm_year;
}

static void put_passed(const struct health_restarts *x, char *text, size_t size)
{
	const char *what = x->closed ? "dropped" : "passed", *s = x->packets == 1 ? "" : "s";
	char bytes[16];

	format_bytes(x->bytes, bytes);
	if (x->uncounted)
		snprintf(text, size, "%" PRIu64 " packet%s (%s) or more %s unjudged: the kernel's counters were removed", x->packets,
			 s, bytes, what);
	else if (x->packets)
		snprintf(text, size, "%" PRIu64 " packet%s (%s) %s unjudged", x->packets, s, bytes, what);
	else
		snprintf(text, size, "no packet %s unjudged", what);
}

void health_restart_text(const struct health_restarts *x, char *text, size_t size)
{
	bool date = days_differ(x->from_us, x->to_us ? x->to_us : x->from_us);
	char times[48] = "", from[40], to[40], zone[CLOCK_ZONE], passed[160];

	if (x->n > 1)
		snprintf(times, sizeof(times), " %" PRIu64 " times", x->n);
	(void)clock_zone(x->to_us ? x->to_us : x->from_us, zone);
	put_time(x->from_us, date, from);
	if (!x->to_us) {
		snprintf(text, size, "the engine was restarted%s and does not judge yet; nobody judges since %s %s", times, from,
			 zone);
		return;
	}
	put_time(x->to_us, date, to);
	put_passed(x, passed, sizeof(passed));
	snprintf(text, size, "the engine was restarted%s; nobody judged %s %s to %s %s; %s", times,
		 x->n < 2 ? "from" : x->last ? "at times, the last from" : "at times from", from, to, zone, passed);
}

static uint64_t wall_us(uint64_t ns)
{
	return clock_wall_of((struct mono){ ns });
}

/* [HL2] */
static int report_restarts(struct health *h, const struct area *a, uint64_t n, struct report *r)
{
	const struct area_blind *b = &a->h->blind;
	/* Acquire: what area_blind_end() stored before it is seen as well. */
	uint64_t since = atomic_load_explicit(&b->since_ns, memory_order_acquire), now = clock_mono().ns;
	struct health_restarts x = { .n = n - h->count[HEALTH_ENGINE_RESTART], .closed = h->closed };
	char text[256];
	int e;

	if (!h->from_ns) {
		h->from_ns = since ? since : load(&b->from_ns);
		h->from_last = x.n > 1;
		h->noticed_ns = now;
		h->changed = true;
	}
	if (!report_health_due(r, words[HEALTH_ENGINE_RESTART].kind) ||
	    (since && now - h->noticed_ns < HEALTH_BLIND_S * NS_PER_S))
		return 0;
	x.from_us = wall_us(h->from_ns);
	x.last = h->from_last;
	if (!since) {
		x.to_us = wall_us(load(&b->to_ns));
		x.packets = load(&b->packets) - h->packets;
		x.bytes = load(&b->bytes) - h->bytes;
		x.uncounted = load(&b->uncounted) - h->uncounted;
	}
	health_restart_text(&x, text, sizeof(text));
	e = report_health(r, words[HEALTH_ENGINE_RESTART].kind, text);
	if (e < 0 || since)
		return e;	/* not over: told again in a minute, or with its end */
	h->count[HEALTH_ENGINE_RESTART] = n;
	h->packets += x.packets;
	h->bytes += x.bytes;
	h->uncounted += x.uncounted;
	h->from_ns = 0;
	h->changed = true;
	return 0;
}

/* ---- kept ---- */

#define KEPT_LAYOUT 2U
#define KEPT_MAGIC  "egrhlth\1"	/* 8 bytes, without the NUL */

struct kept {			/* state_dir/health; as good as the area, so it need not outlive the boot */
	char magic[8];
	uint32_t layout, size;
	uint64_t area, born_ns;
	struct health health;
	uint8_t sum[HASH_SUM_LEN];	/* of all before */
};

_Static_assert(sizeof(struct health) == 128 && HEALTH_COUNT == 9, "raise KEPT_LAYOUT");

static void sum_of(const struct kept *x, uint8_t sum[HASH_SUM_LEN])
{
	hash_sum(x, offsetof(struct kept, sum), sum);
}

static void name_file(char path[CONFIG_PATH + 32], const char *state_dir)
{
	snprintf(path, CONFIG_PATH + 32, "%s/health", state_dir);
}

/* [HL3] NULL: it is whole and ours; n bytes of a file were read. */
static const char *what_is_wrong(const struct kept *x, size_t n)
{
	uint8_t sum[HASH_SUM_LEN];

	if (n < offsetof(struct kept, area) || memcmp(x->magic, KEPT_MAGIC, sizeof(x->magic)) != 0)
		return "damaged, or written before it had a head";
	if (x->layout != KEPT_LAYOUT)
		return "written by another version of egressd";
	if (n != sizeof(*x) || x->size != sizeof(*x))
		return "damaged: of another size";
	sum_of(x, sum);
	return memcmp(sum, x->sum, sizeof(sum)) == 0 ? NULL : "damaged: its checksum does not match";
}

static bool read_kept(struct kept *ret, const struct area *a, const char *state_dir)
{
	struct {
		struct kept x;
		uint8_t beyond;
	} file;
	char path[CONFIG_PATH + 32];
	const char *wrong;
	ssize_t n;
	int fd;

	name_file(path, state_dir);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0)
		return false;
	n = read(fd, &file, sizeof(file.x) + 1);
	close(fd);
	wrong = n < 0 ? "cannot be read" : what_is_wrong(&file.x, (size_t)n);
	if (wrong) {
		log_notice("%s: %s; health alerts of before are told again", path, wrong);
		return false;
	}
	*ret = file.x;
	return file.x.area == a->h->id && file.x.born_ns == a->h->born_ns;
}

void health_init(struct health *h, const struct area *a, const char *state_dir, bool closed)
{
	struct kept x;

	*h = read_kept(&x, a, state_dir) ? x.health : (struct health){ 0 };
	h->closed = closed;
	h->changed = false;
}

void health_keep(struct health *h, const struct area *a, const char *state_dir)
{
	struct kept x = { .magic = KEPT_MAGIC, .layout = KEPT_LAYOUT, .size = sizeof(x), .area = a->h->id, .born_ns = a->h->born_ns };
	char path[CONFIG_PATH + 32];

	if (!h->changed)
		return;
	x.health = *h;
	x.health.changed = false;
	sum_of(&x, x.sum);
	name_file(path, state_dir);
	if (file_replace(path, &x, sizeof(x), false) == 0)	/* else tried again at the next call */
		h->changed = false;
}

/* ---- all of them ---- */

const char *health_kind(enum area_health what)
{
	return words[what].kind;
}

int health_report(struct health *h, const struct area *a, struct report *r)
{
	char text[256];

	for (unsigned i = 0; i < HEALTH_COUNT; i++) {
		/* Acquire: pairs with the release in the engine's start; a restart's since_ns is at least as new. */
		uint64_t n = atomic_load_explicit(&a->h->health[i], memory_order_acquire);
		int e;

		if (n <= h->count[i])
			continue;
		if (i == HEALTH_ENGINE_RESTART) {
			e = report_restarts(h, a, n, r);
			if (e < 0)
				return e;
			continue;
		}
		if (!report_health_due(r, words[i].kind))
			continue;	/* told when its minute is over [HL1] */
		rise_text(a, i, n - h->count[i], text, sizeof(text));
		e = report_health(r, words[i].kind, text);
		if (e < 0)
			return e;
		h->count[i] = n;
		h->changed = true;
	}
	return 0;
}
