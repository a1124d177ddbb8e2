/* credit_world.h - a judge over an area of its own, with policies written as admins write them and a clock of our own. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "diag.h"
#include "judge.h"
#include "policy_compile.h"

static struct {
	struct policy policy;
	void *blob, *mem;
	size_t size;
	struct judge j;
	struct mono now;
	_Atomic uint64_t counter[AC_COUNT];
	unsigned changes;
} w;

static inline void set_policy(const char *rules)
{
	struct policy_env env = { .now = 1 };
	static struct diag_list d;
	char text[4000], error[1024] = "";
	const char *why;
	size_t size;
	int r;

	snprintf(text, sizeof(text), "version: 1\nmode: enforce\ninside: [10.0.0.0/8, \"fd00::/8\"]\n%s", rules);
	diag_init(&d, "policy", text, strlen(text));
	free(w.blob);
	r = policy_compile(text, strlen(text), &env, &d, &w.blob, &size);
	if (r < 0 && diag_format(&d, 0, error, sizeof(error)))
		fail_msg("%s", error);
	assert_int_equal(policy_open(w.blob, size, &w.policy, &why), 0);
	w.j.policy = &w.policy;
	w.j.policy_no++;
}

static inline void world_sized(const char *rules, uint32_t pairs)
{
	struct hash_key key = { { 7 } };
	uint8_t boot[16] = { 0 };

	if (w.mem)
		munmap(w.mem, w.size);
	w.size = area_size(pairs, pairs * 2);
	w.mem = mmap(NULL, w.size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_true(w.mem != MAP_FAILED);
	memset(&w.j, 0, sizeof(w.j));
	memset(w.counter, 0, sizeof(w.counter));
	w.now = (struct mono){ 5000 * NS_PER_S };
	area_format(w.mem, pairs, pairs * 2, 1, &key, 1, boot, w.now);
	assert_int_equal(area_open(w.mem, w.size, &w.j.area), 0);
	w.j.counter = w.counter;
	set_policy(rules);
}

static inline void world(const char *rules)
{
	world_sized(rules, 1024);
}

struct how {
	uint8_t opener, exit, local;
	uint16_t sport, dport;
};

static inline bool send_as(const char *src, const char *dst, uint32_t len, struct how how)
{
	struct judge_packet v = { .opener = how.opener, .exit = how.exit, .local = how.local };

	assert_int_equal(addr_parse(src, &v.p.src), 0);
	assert_int_equal(addr_parse(dst, &v.p.dst), 0);
	v.p.len = len;
	v.p.proto = 6;
	v.p.sport = how.sport ? how.sport : 40000;
	v.p.dport = how.dport ? how.dport : 443;
	judge_batch(&w.j, &v, 1, w.now);
	return v.pass;
}

/* As many packets of 1000 bytes as pass, at most n. */
static inline uint64_t pour_as(const char *src, const char *dst, unsigned n, struct how how)
{
	uint64_t bytes = 0;

	for (unsigned i = 0; i < n; i++)
		bytes += send_as(src, dst, 1000, how) ? 1000 : 0;
	return bytes;
}

static inline uint64_t pour(const char *src, const char *dst, unsigned n)
{
	return pour_as(src, dst, n, (struct how){ 0 });
}

static inline void on_change(void *ctx, uint32_t account)
{
	(void)ctx;
	(void)account;
	w.changes++;
}

static inline void pass_time(uint64_t seconds)
{
	w.now = mono_add_s(w.now, seconds);
	judge_review(&w.j, w.now, on_change, NULL);
}

static inline void sane(void)
{
	const char *why = "";

	if (area_check(&w.j.area, &why) < 0)
		fail_msg("%s", why);
}
