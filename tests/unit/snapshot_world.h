/* snapshot_world.h - for test_snapshot.c: a gateway before and one after a reboot, each with its own two clocks, and a list of
 * every byte that passed to hold the restored windows against.
 */
#pragma once

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "diag.h"
#include "judge.h"
#include "policy_compile.h"
#include "snapshot.h"
#include "snapshot_internal.h"

#define PAIRS	  128U
#define WALL_US	  1763900000000000ULL	/* 23 Nov 2025 */
#define BOOT_NS	  (5000 * NS_PER_S + 1300 * NS_PER_MS)
#define US_S	  1000000ULL
#define MINUTE_US (60 * US_S)
#define HOUR_US	  (3600 * US_S)
#define DAY_US	  (86400 * US_S)

#define HOST	  "10.20.0.15"
#define HOST6	  "fd00:20::15"
#define FAR	  "203.0.113.9"
#define FAR6	  "2001:db8:1:2::9"

static const char usual_policy[] =
	"version: 1\nmode: enforce\ninside: [10.0.0.0/8, \"fd00::/8\"]\n"
	"groups:\n  servers: {hosts: [10.20.0.0/24, \"fd00:20::/64\"]}\n"
	"rules:\n"
	"  - {name: pairs, from: servers, to: outside, per: pair, limit: {1m: 10kB, 1h: 30kB, 24h: 100kB, 30d: 1MB}, "
	"action: block, hold: 10m}\n"
	"  - {name: hosts, from: servers, to: outside, per: host, limit: {1m: 12kB, 1h: 25kB}, action: alert}\n"
	"  - {name: group, from: servers, to: outside, per: group, limit: {1h: 900kB}, action: block}\n";

static const char *policy_text = usual_policy;

struct side {			/* one boot of the gateway */
	struct policy policy;
	void *blob, *mem;
	size_t size;
	struct judge j;
	struct mono now;
	uint64_t wall_us;
	_Atomic uint64_t counter[AC_COUNT];
};

static struct side before, after;
static char dir[64];
static char told[2000];		/* what snapshot_open() logged last */

static struct {			/* all that passed, by the wall clock */
	char src[24], dst[40];
	uint64_t wall_us;
	uint32_t len;
} passed[20000];
static unsigned npassed;

static inline void side_policy(struct side *s)
{
	static struct diag_list d;
	struct policy_env env = { .now = 1 };
	char error[1024] = "";
	const char *why = "";
	size_t size = 0;

	diag_init(&d, "policy", policy_text, strlen(policy_text));
	free(s->blob);
	s->blob = NULL;
	if (policy_compile(policy_text, strlen(policy_text), &env, &d, &s->blob, &size) < 0 &&
	    diag_format(&d, 0, error, sizeof(error)))
		fail_msg("%s", error);
	assert_int_equal(policy_open(s->blob, size, &s->policy, &why), 0);
	s->j.policy = &s->policy;
	s->j.policy_no++;
	judge_policy_changed(&s->j, s->now);
}

/* A new area; each has another hash key, id and boot id. No policy yet. */
static inline void side_make(struct side *s, uint32_t pairs, uint64_t boot_ns, uint64_t wall_us)
{
	static uint8_t n;
	struct hash_key key = { { ++n } };
	uint8_t boot[16] = { n };

	if (s->mem)
		munmap(s->mem, s->size);
	memset(&s->j, 0, sizeof(s->j));
	s->size = area_size(pairs, pairs * 2);
	s->mem = mmap(NULL, s->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_true(s->mem != MAP_FAILED);
	s->now = (struct mono){ boot_ns };
	s->wall_us = wall_us;
	area_format(s->mem, pairs, pairs * 2, 1, &key, n, boot, s->now);
	assert_int_equal(area_open(s->mem, s->size, &s->j.area), 0);
	s->j.counter = s->counter;
}

static inline void side_free(struct side *s)
{
	if (s->mem)
		munmap(s->mem, s->size);
	free(s->blob);
	s->mem = NULL;
	s->blob = NULL;
}

static inline void side_later(struct side *s, uint64_t us)
{
	s->now.ns += us * 1000;
	s->wall_us += us;
	judge_review(&s->j, s->now, NULL, NULL);
}

static inline bool side_send(struct side *s, const char *src, const char *dst, uint32_t len)
{
	struct judge_packet v = { .opener = OPENER_INSIDE };

	assert_int_equal(addr_parse(src, &v.p.src), 0);
	assert_int_equal(addr_parse(dst, &v.p.dst), 0);
	v.p.len = len;
	v.p.proto = 6;
	v.p.sport = 40000;
	v.p.dport = 443;
	judge_batch(&s->j, &v, 1, s->now);
	if (v.pass) {
		assert_true(npassed < ARRAY_SIZE(passed));
		snprintf(passed[npassed].src, sizeof(passed[0].src), "%s", src);
		snprintf(passed[npassed].dst, sizeof(passed[0].dst), "%s", dst);
		passed[npassed].wall_us = s->wall_us;
		passed[npassed++].len = len;
	}
	return v.pass;
}

static inline uint64_t side_pour(struct side *s, const char *src, const char *dst, unsigned n)
{
	uint64_t bytes = 0;

	while (n--)
		bytes += side_send(s, src, dst, 1000) ? 1000 : 0;
	return bytes;
}

static inline void side_sane(const struct side *s)
{
	const char *why = "";

	if (area_check(&s->j.area, &why) < 0)
		fail_msg("%s", why);
}

/* Of `key` in s; fails when it is not there. */
static inline uint32_t pair_in(const struct side *s, const struct pair_key *key)
{
	uint32_t slot = table_find(&s->j.area.pairs, area_pair_hash(&s->j.area, key), (const struct table_key *)key);

	assert_int_not_equal(slot, TABLE_NONE);
	return slot;
}

static inline uint32_t account_in(const struct side *s, const struct account_key *key)
{
	uint32_t slot =
		table_find(&s->j.area.accounts, area_account_hash(&s->j.area, key), (const struct table_key *)key);

	assert_int_not_equal(slot, TABLE_NONE);
	return slot;
}

/* The account of rule `name` for a subject: dst NULL: the host's. */
static inline uint32_t account_of(const struct side *s, const char *name, const char *src, const char *dst)
{
	struct account_key k = { .kind = dst ? SUBJECT_PAIR : SUBJECT_HOST };
	struct pair_key out = { .class_uid = 0 };
	struct addr a;

	for (uint32_t i = 0; i < before.policy.h->nrules; i++)
		if (!strcmp(policy_string(&before.policy, before.policy.rule[i].name), name))
			k.rule = before.policy.rule[i].uid;
	assert_int_equal(addr_parse(src, &a), 0);
	memcpy(k.in, a.b, sizeof(k.in));
	if (dst) {
		assert_int_equal(addr_parse(dst, &a), 0);
		pair_out(&out, &a);
		memcpy(k.out, out.out, sizeof(k.out));
		k.out_family = out.out_family;
	}
	return account_in(s, &k);
}

/* Bytes that passed for the account's subject in the last `us` before `wall_us`, by the list. */
static inline uint64_t truth(const struct account_key *k, uint64_t wall_us, uint64_t us)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < npassed; i++) {
		struct addr src, dst;
		struct pair_key out = { .class_uid = 0 };

		if (passed[i].wall_us + us <= wall_us)
			continue;
		assert_int_equal(addr_parse(passed[i].src, &src), 0);
		assert_int_equal(addr_parse(passed[i].dst, &dst), 0);
		pair_out(&out, &dst);
		if (k->kind <= SUBJECT_HOST && memcmp(k->in, src.b, sizeof(k->in)) != 0)
			continue;
		if (k->kind == SUBJECT_PAIR &&
		    (memcmp(k->out, out.out, sizeof(k->out)) != 0 || k->out_family != out.out_family))
			continue;
		sum += passed[i].len;
	}
	return sum;
}

/* Every window of every account against the list, [W1] and [W2] of a rebased ring. younger_us: what bytes may look younger
 * by besides (the wall clock went back: time that nobody knows of). */
static inline void windows_hold(const struct side *s, uint64_t younger_us)
{
	const struct area *a = &s->j.area;

	for (uint32_t i = 0; i < a->h->accounts; i++) {
		int n;

		if (!table_is_full(&a->accounts, i))
			continue;
		n = policy_rule_by_uid(&before.policy, a->account[i].key.rule);
		for (uint32_t l = 0; n >= 0 && l < before.policy.rule[n].nlimits; l++) {
			const struct account_limit *limit = &before.policy.rule[n].limit[l];
			uint64_t len = limit->seconds * US_S, bucket = window_bucket_s(limit->spec.ring) * US_S;
			uint64_t sum =
				account_peek_sum(&a->account[i], &a->account_cold[i], limit, mono_tick(s->now));

			assert_in_range(sum, truth(&a->account[i].key, s->wall_us, len),
					truth(&a->account[i].key, s->wall_us, len + 2 * bucket + younger_us));
		}
	}
}

/* ---- the folder ---- */

static inline char *in_dir(const char *name)
{
	static char path[sizeof(dir) + 256 + 2];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return path;
}

/* How many entries; each other than snapshot and snapshot.1 is handed to `other`. */
static inline unsigned each_file(void (*other)(const char *name))
{
	struct dirent *e;
	unsigned n = 0;
	DIR *d = opendir(dir);

	assert_non_null(d);
	while ((e = readdir(d))) {
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		n++;
		if (other && strcmp(e->d_name, "snapshot") != 0 && strcmp(e->d_name, "snapshot.1") != 0)
			other(e->d_name);
	}
	closedir(d);
	return n;
}

static inline int folder_make(void **state)
{
	(void)state;
	npassed = 0;
	snprintf(dir, sizeof(dir), "/tmp/egressd-test-snapshot.XXXXXX");
	return mkdtemp(dir) ? 0 : -1;
}

static inline void remove_other(const char *name)
{
	if (unlink(in_dir(name)) < 0)
		rmdir(in_dir(name));
}

static inline int folder_remove(void **state)
{
	(void)state;
	each_file(remove_other);
	remove_other("snapshot");
	remove_other("snapshot.1");
	side_free(&before);
	side_free(&after);
	return rmdir(dir);
}

static inline size_t load(const char *name, uint8_t **ret_data)
{
	struct stat st;
	int fd = open(in_dir(name), O_RDONLY);

	assert_true(fd >= 0 && fstat(fd, &st) == 0);
	*ret_data = malloc((size_t)st.st_size);
	assert_non_null(*ret_data);
	assert_int_equal(read(fd, *ret_data, (size_t)st.st_size), st.st_size);
	close(fd);
	return (size_t)st.st_size;
}

static inline void save(const char *name, const uint8_t *data, size_t len)
{
	int fd = open(in_dir(name), O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, data, len), len);
	close(fd);
}

/* ---- the calls ---- */

static inline void write_it(void)
{
	assert_int_equal(snapshot_write(dir, &before.j.area, before.now, before.wall_us), 0);
}

static inline int open_it(void)
{
	static int log = -1;
	int terminal = dup(STDERR_FILENO), r;
	ssize_t n;

	if (log < 0)
		log = memfd_create("told", MFD_CLOEXEC);
	assert_true(log >= 0 && ftruncate(log, 0) == 0 && lseek(log, 0, SEEK_SET) == 0);
	dup2(log, STDERR_FILENO);
	r = snapshot_open(dir);
	dup2(terminal, STDERR_FILENO);
	close(terminal);
	n = pread(log, told, sizeof(told) - 1, 0);
	told[n > 0 ? n : 0] = 0;
	return r;
}

/* Into `after`, freshly formatted, as the engine does; its clocks are set. */
static inline int restore(uint64_t *ret_gap_ns, char why[200])
{
	int fd = open_it(), r;

	if (fd < 0)
		return fd;
	r = snapshot_restore(fd, &after.j.area, after.now, after.wall_us, ret_gap_ns, why, 200);
	close(fd);
	return r;
}

/* What the engine does next. */
static inline void go_on(struct side *s)
{
	judge_recover(&s->j);
	side_policy(s);
	side_sane(s);
}

/* A small table, so that every place of the file can be spoilt; both pairs passed `len` bytes. */
static inline void small(uint32_t len)
{
	struct area_dynamic allow = { .uid = 11, .budget = 7000, .id = "a" };

	side_make(&before, PAIRS, BOOT_NS, WALL_US);
	side_policy(&before);
	assert_int_equal(prefix_parse("10.20.0.17", &allow.src), 0);
	allow.until_ns = mono_add_s(before.now, 7200).ns;
	assert_int_equal(judge_allow(&before.j, &allow, before.now), 0);
	assert_true(side_send(&before, HOST, FAR, len));
	assert_true(side_send(&before, HOST6, FAR6, len));
	side_later(&before, US_S);
}

/* What small() passed, by the newest good file. */
static inline uint64_t passed_in_file(void)
{
	uint64_t gap;
	char why[200];

	side_make(&after, PAIRS, NS_PER_S, before.wall_us + US_S);
	assert_int_equal(restore(&gap, why), 0);
	side_sane(&after);
	return after.j.area.account[account_of(&after, "pairs", HOST, FAR)].spent;
}
