/* report_world.h - findings on their way to the spool, in one process: an area, a judge that plays the engine, a clock that can be put
 * forward. For the unit tests of report.c. */
#pragma once

#include "compiled.h"

#include <dirent.h>
#include <jansson.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "history.h"
#include "judge.h"
#include "report.h"

#define PAIRS	 2048
#define ACCOUNTS 4096

static unsigned skipped_s;		/* time passes at once */

int clock_gettime(clockid_t id, struct timespec *t)
{
	int r = (int)syscall(SYS_clock_gettime, id, t);

	t->tv_sec += skipped_s;
	return r;
}

static struct world {
	char dir[64];
	struct area area;
	struct compiled policy;
	struct judge judge;
	struct config config;
	struct spool *spool;
	struct report *report;
	json_t *told;			/* array: every record */
	uint64_t seq;			/* last record read */
} w;

static inline void start_relay(void)
{
	assert_int_equal(report_open(&w.area, &w.config, w.spool, &w.report), 0);
	report_policy(w.report, &w.policy.p);
}

static inline void restart_relay(void)
{
	assert_int_equal(spool_sync(w.spool), 0);
	w.report = report_close(w.report);
	w.spool = spool_close(w.spool);
	assert_int_equal(spool_open(w.dir, 1 << 24, &w.spool), 0);
	start_relay();
}

static inline void begin(const char *rules)
{
	static const struct hash_key key = { { 9 } };
	static const uint8_t boot[16];
	char text[2000];
	void *mem = aligned_alloc(4096, (area_size(PAIRS, ACCOUNTS) + 4095) & ~4095UL);

	memset(&w, 0, sizeof(w));
	assert_non_null(mem);
	memset(mem, 0, area_size(PAIRS, ACCOUNTS));
	area_format(mem, PAIRS, ACCOUNTS, 1, &key, 7, boot, clock_mono());
	assert_int_equal(area_open(mem, area_size(PAIRS, ACCOUNTS), &w.area), 0);
	snprintf(text, sizeof(text), "version: 1\nmode: enforce\ninside: [10.0.0.0/8, \"fd00::/8\"]\n"
		 "hosts:\n  file01: {addresses: [10.20.0.15, \"fd00:20::15\"]}\n%s", rules);
	must_compile(text, &w.policy);
	w.judge = (struct judge){ .area = w.area, .policy = &w.policy.p, .policy_no = 1, .counter = w.area.h->worker[0].counter };
	snprintf(w.config.gateway, sizeof(w.config.gateway), "gw1");
	snprintf(w.dir, sizeof(w.dir), "/tmp/egressd-test-report.XXXXXX");
	assert_non_null(mkdtemp(w.dir));
	assert_int_equal(spool_open(w.dir, 1 << 24, &w.spool), 0);
	w.told = json_array();
	start_relay();
}

static inline int end(void **state)
{
	char path[400];
	const struct dirent *e;
	DIR *d = opendir(w.dir);

	(void)state;
	report_close(w.report);
	spool_close(w.spool);
	while (d && (e = readdir(d))) {
		snprintf(path, sizeof(path), "%s/%s", w.dir, e->d_name);
		if (e->d_name[0] != '.')
			unlink(path);
	}
	if (d)
		closedir(d);
	(void)rmdir(w.dir);
	json_decref(w.told);
	free(w.policy.blob);
	free(w.area.h);
	return 0;
}

/* n packets of 1000 bytes; how many passed. */
static inline unsigned send_as(struct judge_packet v, const char *src, const char *dst, unsigned n)
{
	unsigned passed = 0;

	assert_int_equal(addr_parse(src, &v.p.src), 0);
	assert_int_equal(addr_parse(dst, &v.p.dst), 0);
	v.p.len = 1000;
	v.p.proto = 6;
	v.p.sport = 40000;
	v.p.dport = 443;
	for (unsigned i = 0; i < n; i++) {
		judge_batch(&w.judge, &v, 1, clock_mono());
		passed += v.pass;
	}
	return passed;
}

static inline unsigned send_to(const char *src, const char *dst, unsigned n)
{
	return send_as((struct judge_packet){ .opener = OPENER_INSIDE }, src, dst, n);
}

static inline void read_told(void)
{
	struct report_record rec;
	char *data;
	size_t len, at;

	assert_int_equal(spool_sync(w.spool), 0);
	while (spool_read(w.spool, w.seq, &w.seq, &data, &len) == 0) {
		at = history_head(data, len, &rec);
		assert_true(at > 0);
		assert_int_equal(json_array_append_new(w.told, json_loadb(data + at, len - at, 0, NULL)), 0);
		free(data);
	}
}

/* The engine's review and the relay's scan; records so far. */
static inline unsigned look(void)
{
	judge_review(&w.judge, clock_mono(), NULL, NULL);
	assert_true(report_scan(w.report, true) >= 0);
	read_told();
	return (unsigned)json_array_size(w.told);
}

static inline const char *text_at(const json_t *o, const char *key)
{
	const char *text = json_string_value(json_object_get(o, key));

	return text ? text : "";
}

static inline const json_t *nth(unsigned i)
{
	const json_t *o = json_array_get(w.told, i);

	assert_non_null(o);
	return o;
}

static inline const json_t *last_told(void)
{
	return nth((unsigned)json_array_size(w.told) - 1);
}

static inline unsigned count_told(const char *activity)
{
	unsigned n = 0;
	json_t *o;
	size_t i;

	json_array_foreach(w.told, i, o)
		n += strcmp(text_at(o, "event_type"), "alert") == 0 && strcmp(text_at(o, "activity"), activity) == 0;
	return n;
}
