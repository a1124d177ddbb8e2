/* test_health.c - what is told of a restart: since when nobody judged, until when, and what the kernel counted past us meanwhile. */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "area.h"
#include "clock.h"
#include "health.h"
#include "history.h"
#include "report.h"
#include "spool.h"

#define PAIRS	 128
#define ACCOUNTS 256
#define WALL_US	 1795444922530000	/* 23 November 2026, 14:42:02.530 UTC */

static unsigned skipped_s;		/* a minute passes at once */

int clock_gettime(clockid_t id, struct timespec *t)
{
	int r = (int)syscall(SYS_clock_gettime, id, t);

	t->tv_sec += skipped_s;
	return r;
}

struct world {
	char dir[64];
	struct area area;
	struct config config;
	struct spool *spool;
	struct report *report;
	struct health health;
	uint64_t seq;			/* last record read */
};

static int setup(void **state)
{
	static const struct hash_key key;
	static const uint8_t boot[16];
	struct world *w = calloc(1, sizeof(*w));
	void *mem = aligned_alloc(4096, (area_size(PAIRS, ACCOUNTS) + 4095) & ~4095UL);

	assert_true(w && mem);
	memset(mem, 0, area_size(PAIRS, ACCOUNTS));
	area_format(mem, PAIRS, ACCOUNTS, 2, &key, 1, boot, clock_mono());
	assert_int_equal(area_open(mem, area_size(PAIRS, ACCOUNTS), &w->area), 0);
	snprintf(w->config.gateway, sizeof(w->config.gateway), "gw1");
	snprintf(w->dir, sizeof(w->dir), "/tmp/egressd-test-health.XXXXXX");
	assert_non_null(mkdtemp(w->dir));
	assert_int_equal(spool_open(w->dir, 1 << 20, &w->spool), 0);
	assert_int_equal(report_open(&w->area, &w->config, w->spool, &w->report), 0);
	health_init(&w->health, &w->area, w->dir, false);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;
	char path[400];
	const struct dirent *e;
	DIR *d = opendir(w->dir);

	report_close(w->report);
	spool_close(w->spool);
	while (d && (e = readdir(d))) {
		snprintf(path, sizeof(path), "%s/%s", w->dir, e->d_name);
		if (e->d_name[0] != '.')
			unlink(path);
	}
	if (d)
		closedir(d);
	free(w->area.h);
	(void)rmdir(w->dir);
	free(w);
	return 0;
}

static void set(_Atomic uint64_t *to, uint64_t n)
{
	atomic_store_explicit(to, n, memory_order_relaxed);
}

static uint64_t get(const _Atomic uint64_t *n)
{
	return atomic_load_explicit(n, memory_order_relaxed);
}

/* The engine of this area starts once more, `after_s` after its workers' last turns. */
static void start_engine(struct world *w, unsigned after_s)
{
	struct area_header *h = w->area.h;

	for (unsigned i = 0; i < 2; i++)
		set(&h->worker[i].heartbeat_ns, clock_mono().ns);
	skipped_s += after_s;
	area_blind_begin(&w->area, 1);
	atomic_fetch_add_explicit(&h->health[HEALTH_ENGINE_RESTART], 1, memory_order_release);
}

/* It judges; `packets` passed since the last that did. */
static void ready_engine(struct world *w, uint64_t packets)
{
	struct area_header *h = w->area.h;

	set(&h->unseen_packets, get(&h->unseen_packets) + packets);
	set(&h->unseen_bytes, get(&h->unseen_bytes) + packets * 1000);
	area_blind_end(&w->area, clock_mono());
}

/* The JSON of the next record, NULL: nothing new is told. */
static const char *told(struct world *w)
{
	static char json[FINDING_JSON_MAX];
	char *data;
	size_t len;
	int r;

	assert_int_equal(health_report(&w->health, &w->area, w->report), 0);
	assert_int_equal(spool_sync(w->spool), 0);
	r = spool_read(w->spool, w->seq, &w->seq, &data, &len);
	if (r < 0)
		return NULL;
	assert_true(len > sizeof(struct report_record) && len < sizeof(json));
	snprintf(json, sizeof(json), "%.*s", (int)(len - sizeof(struct report_record)), data + sizeof(struct report_record));
	free(data);
	return json;
}

static void assert_says(const char *json, const char *text)
{
	if (!json)
		fail_msg("nothing is told; wanted: %s", text);
	else if (!strstr(json, text))
		fail_msg("%s\nhas no: %s", json, text);
}

/* ---- words ---- */

static const char *text_of(struct health_restarts x)
{
	static char text[256];

	health_restart_text(&x, text, sizeof(text));
	assert_true(strlen(text) < sizeof(text) - 1);
	return text;
}

static void words(void **state)
{
	struct health_restarts x = { .n = 1, .from_us = WALL_US - 11312000, .to_us = WALL_US };

	(void)state;
	assert_string_equal(text_of(x), "the engine was restarted; nobody judged from 14:41:51.218 to 14:42:02.530 UTC; "
					"no packet passed unjudged");
	x.packets = 1234;
	x.bytes = 1234567;
	assert_string_equal(text_of(x), "the engine was restarted; nobody judged from 14:41:51.218 to 14:42:02.530 UTC; "
					"1234 packets (1.2 MB) passed unjudged");
	x.closed = true;
	assert_string_equal(text_of(x), "the engine was restarted; nobody judged from 14:41:51.218 to 14:42:02.530 UTC; "
					"1234 packets (1.2 MB) dropped unjudged");
	x.closed = false;
	x.uncounted = 1;
	assert_string_equal(text_of(x), "the engine was restarted; nobody judged from 14:41:51.218 to 14:42:02.530 UTC; "
					"1234 packets (1.2 MB) or more passed unjudged: the kernel's counters were removed");
	x = (struct health_restarts){ .n = 3, .from_us = WALL_US - 86400000000, .to_us = WALL_US };
	assert_string_equal(text_of(x), "the engine was restarted 3 times; nobody judged at times from 22 Nov 14:42:02.530 to "
					"23 Nov 14:42:02.530 UTC; no packet passed unjudged");
	x.last = true;
	assert_string_equal(text_of(x), "the engine was restarted 3 times; nobody judged at times, the last from 22 Nov 14:42:02.530 to "
					"23 Nov 14:42:02.530 UTC; no packet passed unjudged");
	x.to_us = 0;
	assert_string_equal(text_of(x), "the engine was restarted 3 times and does not judge yet; nobody judges since 14:42:02.530 UTC");
	if (access("/usr/share/zoneinfo/Asia/Tokyo", R_OK) == 0) {
		clock_set_zone("Asia/Tokyo");	/* as the policy says */
		assert_non_null(strstr(text_of(x), "nobody judges since 23:42:02.530 JST"));
	}
	clock_set_zone("/etc/localtime");	/* no name: it stays */
	clock_set_zone("UTC");
	/* Nothing of it is cut, whatever the numbers. */
	x = (struct health_restarts){ UINT64_MAX, WALL_US, WALL_US * 2, UINT64_MAX, UINT64_MAX, 1, true, true };
	assert_non_null(strstr(text_of(x), "(18.4 EB) or more dropped unjudged: the kernel's counters were removed"));
}

/* ---- the interval ---- */

static void interval(void **state)
{
	struct world *w = *state;
	struct area_header *h = w->area.h;
	struct area_blind *b = &h->blind;

	area_blind_end(&w->area, (struct mono){ 5 });	/* nothing began */
	assert_int_equal(get(&b->to_ns), 0);
	set(&h->worker[0].heartbeat_ns, 9000);
	set(&h->worker[1].heartbeat_ns, 4000);		/* this one hung */
	set(&h->unseen_packets, 10);
	set(&h->unseen_bytes, 10000);
	area_blind_begin(&w->area, 100);
	assert_int_equal(get(&b->since_ns), 4000);
	set(&h->worker[1].heartbeat_ns, 20000);
	set(&h->worker[0].heartbeat_ns, 20000);
	set(&h->unseen_packets, 15);
	set(&h->unseen_bytes, 15000);
	area_blind_begin(&w->area, 19000);		/* the next died before it was ready */
	assert_int_equal(get(&b->since_ns), 4000);
	set(&h->health[HEALTH_RULES_FLUSHED], 1);
	area_blind_end(&w->area, (struct mono){ 30000 });
	assert_int_equal(get(&b->since_ns), 0);
	assert_int_equal(get(&b->from_ns), 4000);
	assert_int_equal(get(&b->to_ns), 30000);
	assert_int_equal(get(&b->packets), 5);
	assert_int_equal(get(&b->bytes), 5000);
	assert_int_equal(get(&b->uncounted), 1);
	set(&h->worker[1].heartbeat_ns, 0);		/* never turned: since its engine's start */
	area_blind_begin(&w->area, 31000);
	assert_int_equal(get(&b->since_ns), 31000);
	set(&h->unseen_packets, 16);
	set(&h->unseen_bytes, 16000);
	area_blind_end(&w->area, (struct mono){ 40000 });
	assert_int_equal(get(&b->packets), 6);		/* of all of them */
	assert_int_equal(get(&b->uncounted), 1);
}

/* ---- told ---- */

static void killed(void **state)
{
	struct world *w = *state;
	const char *json;

	assert_null(told(w));
	start_engine(w, 0);
	assert_null(told(w));		/* when it judges */
	ready_engine(w, 0);
	json = told(w);
	assert_says(json, "\"the engine was restarted; nobody judged from ");
	assert_says(json, "; no packet passed unjudged\"");
	assert_says(json, "\"attack\":[]");
	assert_null(told(w));
}

static void hung(void **state)
{
	struct world *w = *state;
	const char *json;

	ready_engine(w, 7);		/* before: another matter */
	start_engine(w, 11);
	ready_engine(w, 500);
	json = told(w);
	assert_says(json, "; 500 packets (500.0 kB) passed unjudged\"");
	assert_says(json, "\"unseen_bytes\":507000}");
	assert_null(told(w));
}

static void many(void **state)
{
	struct world *w = *state;

	start_engine(w, 1);
	ready_engine(w, 1);
	assert_says(told(w), "; 1 packet (1.0 kB) passed unjudged\"");
	for (unsigned i = 0; i < 3; i++) {
		start_engine(w, 5);
		ready_engine(w, 10 * i);
		assert_null(told(w));	/* one a minute */
	}
	skipped_s += 60;
	assert_says(told(w), "; 30 packets (30.0 kB) passed unjudged\"");
	skipped_s += 61;
	assert_null(told(w));
	assert_int_equal(get(&w->area.h->health[HEALTH_ENGINE_RESTART]), w->health.count[HEALTH_ENGINE_RESTART]);
}

static void never_ready(void **state)
{
	struct world *w = *state;
	const char *json;

	start_engine(w, 0);
	start_engine(w, 1);
	assert_null(told(w));
	skipped_s += HEALTH_BLIND_S;
	json = told(w);
	assert_says(json, "restarted 2 times and does not judge yet; nobody judges since ");
	skipped_s += 20;
	assert_null(told(w));
	skipped_s += 40;
	assert_says(told(w), "does not judge yet");
	ready_engine(w, 9);
	assert_null(told(w));
	skipped_s += 60;
	assert_says(told(w), "; 9 packets (9.0 kB) passed unjudged\"");
	skipped_s += 60;
	assert_null(told(w));
}

static void others(void **state)
{
	struct world *w = *state;

	for (unsigned i = 0; i < HEALTH_COUNT; i++)
		if (i != HEALTH_ENGINE_RESTART) {
			atomic_fetch_add_explicit(&w->area.h->health[i], 1, memory_order_relaxed);
			assert_says(told(w), "\"event_type\":\"health\"");
			assert_null(told(w));
		}
}

/* [HL1] More of a kind within its minute: told when that is over, also by the next relay, and how many. */
static void within_a_minute(void **state)
{
	struct world *w = *state;

	for (unsigned i = 0; i < HEALTH_COUNT; i++) {
		_Atomic uint64_t *n = &w->area.h->health[i];

		if (i == HEALTH_ENGINE_RESTART)
			continue;
		set(n, 1);
		assert_says(told(w), "\"event_type\":\"health\"");
		set(n, 3);
		assert_null(told(w));
		skipped_s += 30;
		set(n, 4);
		assert_null(told(w));
		skipped_s += 30;
		assert_says(told(w), " (3 times)");
		assert_null(told(w));
		set(n, 5);
		assert_null(told(w));
		skipped_s += 61;
		assert_says(told(w), "\"event_type\":\"health\"");
		skipped_s += 61;
		assert_null(told(w));
		set(n, 6);
		assert_says(told(w), "\"event_type\":\"health\"");
		set(n, 7);
		assert_null(told(w));
		health_keep(&w->health, &w->area, w->dir);
		health_init(&w->health, &w->area, w->dir, true);
		skipped_s += 61;
		assert_says(told(w), "\"event_type\":\"health\"");
		assert_null(told(w));
	}
}

/* The relay ends; the next one may say all kinds at once. */
static void next_relay(struct world *w)
{
	health_init(&w->health, &w->area, w->dir, true);
	skipped_s += 60;
}

static void away(void **state)
{
	struct world *w = *state;
	struct area_header *h = w->area.h;

	for (unsigned i = 0; i < HEALTH_COUNT; i++)
		if (i != HEALTH_ENGINE_RESTART)
			set(&h->health[i], 3);
	next_relay(w);			/* the first of this area */
	while (told(w))
		;
	assert_int_equal(w->seq, HEALTH_COUNT - 1);
	health_keep(&w->health, &w->area, w->dir);
	next_relay(w);
	assert_null(told(w));
	set(&h->health[HEALTH_RULES_FLUSHED], 5);
	start_engine(w, 1);
	ready_engine(w, 3);
	next_relay(w);
	assert_says(told(w), "; 3 packets (3.0 kB) dropped unjudged\"");
	assert_says(told(w), "somebody removed or changed egressd's kernel rules");
	assert_null(told(w));
	next_relay(w);			/* it died before it kept that */
	assert_says(told(w), "; 3 packets (3.0 kB) dropped unjudged\"");
	assert_says(told(w), "somebody removed or changed egressd's kernel rules");
	health_keep(&w->health, &w->area, w->dir);
	next_relay(w);
	assert_null(told(w));
	start_engine(w, 1);
	assert_null(told(w));		/* noticed, it does not judge yet */
	health_keep(&w->health, &w->area, w->dir);
	ready_engine(w, 2);
	start_engine(w, 1);
	ready_engine(w, 2);
	next_relay(w);
	assert_says(told(w), "restarted 2 times; nobody judged at times from");
	health_keep(&w->health, &w->area, w->dir);
	for (unsigned i = 0; i < 2; i++) {
		start_engine(w, 1);
		ready_engine(w, 2);
	}
	next_relay(w);
	assert_says(told(w), "restarted 2 times; nobody judged at times, the last from");
	health_keep(&w->health, &w->area, w->dir);
	h->id++;			/* another area: nothing of it was told */
	next_relay(w);
	assert_says(told(w), "\"event_type\":\"health\"");
}

/* ---- kept ---- */

static size_t load_file(const struct world *w, uint8_t *to, size_t room)
{
	char path[100];
	FILE *f;
	size_t n;

	snprintf(path, sizeof(path), "%s/health", w->dir);
	f = fopen(path, "rb");
	assert_non_null(f);
	n = fread(to, 1, room, f);
	fclose(f);
	assert_true(n > 0 && n < room);
	return n;
}

static void store_file(const struct world *w, const uint8_t *from, size_t n)
{
	char path[100];
	FILE *f;

	snprintf(path, sizeof(path), "%s/health", w->dir);
	f = fopen(path, "wb");
	assert_non_null(f);
	assert_int_equal(fwrite(from, 1, n, f), n);
	assert_int_equal(fclose(f), 0);
}

/* What the next relay takes to be told: how many kinds. */
static unsigned taken(const struct world *w)
{
	struct health h;
	unsigned n = 0;

	health_init(&h, &w->area, w->dir, false);
	for (unsigned i = 0; i < HEALTH_COUNT; i++)
		n += h.count[i] != 0;
	assert_false(h.changed);
	return n;
}

/* [HL3] A file that this version did not write whole for this area is as none. */
static void kept(void **state)
{
	struct world *w = *state;
	uint8_t file[1000], old[1000] = { 0 };
	uint32_t seed = 1;
	size_t n;

	assert_int_equal(taken(w), 0);
	for (unsigned i = 1; i < HEALTH_COUNT; i++)
		set(&w->area.h->health[i], i);
	while (told(w))
		;
	health_keep(&w->health, &w->area, w->dir);
	assert_int_equal(taken(w), HEALTH_COUNT - 1);
	n = load_file(w, file, sizeof(file));
	for (size_t i = 0; i < n; i++)
		for (unsigned bit = 0; bit < 8; bit++) {
			file[i] ^= (uint8_t)(1U << bit);
			store_file(w, file, n);
			assert_int_equal(taken(w), 0);
			file[i] ^= (uint8_t)(1U << bit);
		}
	for (size_t i = 0; i < n; i++) {
		store_file(w, file, i);
		assert_int_equal(taken(w), 0);
	}
	store_file(w, file, n + 1);
	assert_int_equal(taken(w), 0);
	/* As it was written before it had a head: the area's two numbers, and what was told. */
	memcpy(old, &w->area.h->id, 8);
	memcpy(old + 8, &w->area.h->born_ns, 8);
	memset(old + 16, 1, sizeof(struct health) - 8);
	for (size_t i = 0; i <= sizeof(struct health) + 24; i++) {
		store_file(w, old, i);
		assert_int_equal(taken(w), 0);
	}
	store_file(w, old, n);
	assert_int_equal(taken(w), 0);
	for (unsigned k = 0; k < 200; k++) {
		for (size_t i = 0; i < sizeof(old); i++) {
			seed = seed * 1664525 + 1013904223;
			old[i] = (uint8_t)(seed >> 24);
		}
		if (k % 2)	/* with the right head */
			memcpy(old, file, 32);
		store_file(w, old, k % 3 ? n : seed % sizeof(old));
		assert_int_equal(taken(w), 0);
	}
	store_file(w, file, n);
	assert_int_equal(taken(w), HEALTH_COUNT - 1);
	w->area.h->born_ns++;
	assert_int_equal(taken(w), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(words),
		cmocka_unit_test_setup_teardown(interval, setup, teardown),
		cmocka_unit_test_setup_teardown(killed, setup, teardown),
		cmocka_unit_test_setup_teardown(hung, setup, teardown),
		cmocka_unit_test_setup_teardown(many, setup, teardown),
		cmocka_unit_test_setup_teardown(never_ready, setup, teardown),
		cmocka_unit_test_setup_teardown(others, setup, teardown),
		cmocka_unit_test_setup_teardown(within_a_minute, setup, teardown),
		cmocka_unit_test_setup_teardown(away, setup, teardown),
		cmocka_unit_test_setup_teardown(kept, setup, teardown),
	};

	setenv("TZ", "UTC", 1);
	tzset();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
