/* test_commands.c - commands.c: what the engine answers to a decision that it is asked about once more. The kernel's part is left out. */
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
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "compiled.h"

#include "clock.h"
#include "engine.h"

#define PAIRS	 128
#define ACCOUNTS 256

static struct engine e;
static int relay;			/* its end of FD_PEER */
static unsigned reviews;
static uint32_t kept;			/* blocks that no account has, which an unblock finds */
static int kept_error;
static uint64_t token;

/* ---- the kernel's part ---- */

int enforce_policy(struct engine *engine, int fd, uint32_t version, bool rules_stand, char why[200])
{
	(void)engine;
	(void)version;
	(void)rules_stand;
	(void)why;
	close(fd);
	return -ENOSYS;
}

void enforce_look_back(struct engine *engine)
{
	(void)engine;
}

void leases_end_between(struct engine *engine, const struct prefix *src, const struct prefix *dst)
{
	(void)engine;
	(void)src;
	(void)dst;
}

void blocked_review(struct engine *engine, struct mono now)
{
	judge_review(&engine->judge, now, NULL, NULL);
	reviews++;
}

uint64_t blocked_settle(struct engine *engine, const struct engine_policy *p)
{
	(void)engine;
	(void)p;
	return 0;
}

int blocked_lift_kept(struct engine *engine, const struct prefix *src, const struct prefix *dst, uint32_t *ret_count)
{
	(void)engine;
	(void)src;
	(void)dst;
	*ret_count = kept_error ? 0 : kept;
	kept = 0;
	return kept_error;
}

/* ---- the world ---- */

static int setup(void **state)
{
	static const struct hash_key key = { { 3 } };
	static const uint8_t boot[16];
	void *mem = aligned_alloc(4096, (area_size(PAIRS, ACCOUNTS) + 4095) & ~4095UL);
	int p[2];

	(void)state;
	assert_non_null(mem);
	memset(mem, 0, area_size(PAIRS, ACCOUNTS));
	area_format(mem, PAIRS, ACCOUNTS, 1, &key, 7, boot, clock_mono());
	memset(&e, 0, sizeof(e));
	assert_int_equal(area_open(mem, area_size(PAIRS, ACCOUNTS), &e.area), 0);
	e.judge = (struct judge){ .area = e.area, .counter = e.area.h->worker[0].counter };
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, p), 0);
	relay = fcntl(p[0], F_DUPFD_CLOEXEC, 64);
	assert_true(relay >= 64);
	close(p[0]);
	if (p[1] != FD_PEER) {
		assert_int_equal(dup2(p[1], FD_PEER), FD_PEER);
		close(p[1]);
	}
	reviews = 0;
	kept = 0;
	kept_error = 0;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	close(relay);
	close(FD_PEER);
	free(e.area.h);
	return 0;
}

static struct proto_msg block(uint64_t entry)
{
	struct proto_msg m = { .magic = PROTO_MAGIC, .kind = PROTO_BLOCK };
	struct proto_decision *d = &m.u.decision;

	snprintf(d->id, sizeof(d->id), "b1");
	snprintf(d->author, sizeof(d->author), "alice");
	snprintf(d->reason, sizeof(d->reason), "CHG-1");
	assert_int_equal(prefix_parse("10.20.0.15", &d->src), 0);
	assert_int_equal(prefix_parse("203.0.113.9", &d->dst), 0);
	d->ttl_s = 3600;
	d->entry = entry;
	return m;
}

static struct proto_reply ask(struct proto_msg m)
{
	struct proto_msg reply;
	int fd;

	m.token = ++token;
	assert_int_equal(proto_send(relay, &m, -1), 0);
	command_take(&e);
	assert_int_equal(proto_receive(relay, &reply, &fd, MSG_DONTWAIT), 1);
	assert_int_equal(reply.kind, PROTO_REPLY);
	assert_int_equal(reply.token, token);
	return reply.u.reply;
}

static unsigned in_force(void)
{
	unsigned n = 0;

	for (unsigned i = 0; i < AREA_DYNAMIC; i++)
		n += e.area.h->dynamic[i].kind != DYNAMIC_NONE;
	return n;
}

/* The engine was killed between doing and remembering. */
static void forget(void)
{
	for (unsigned i = 0; i < AREA_ANSWERS; i++)
		atomic_store_explicit(&e.area.h->answer[i].entry, 0, memory_order_relaxed);
}

static void send_past(const char *src)
{
	struct judge_packet v = { .opener = OPENER_INSIDE };

	assert_int_equal(addr_parse(src, &v.p.src), 0);
	assert_int_equal(addr_parse("203.0.113.9", &v.p.dst), 0);
	v.p.len = 1000;
	v.p.proto = 17;
	do {
		judge_batch(&e.judge, &v, 1, clock_mono());
	} while (v.pass);
}

/* ---- tests ---- */

static void answered_as_before(void **state)
{
	(void)state;
	assert_int_equal(ask(block(11)).result, 0);
	assert_int_equal(ask(block(11)).result, 0);
	assert_int_equal(in_force(), 1);
	forget();
	assert_int_equal(ask(block(11)).result, 0);	/* it stands */
	assert_int_equal(in_force(), 1);
}

/* Decisions that come by Redis leave places for those by hand. */
static void places_for_people(void **state)
{
	struct proto_msg m = block(0);
	struct proto_reply r;
	unsigned n = 0;

	(void)state;
	do {
		m = block(1000 + n);
		snprintf(m.u.decision.id, sizeof(m.u.decision.id), "r%u", n);
		r = ask(m);
	} while (r.result == 0 && ++n < AREA_DYNAMIC);
	assert_int_equal(n, 192);
	assert_int_equal(r.result, -ENOSPC);
	assert_non_null(strstr(r.text, "all that Redis may make"));
	m = block(1000);
	snprintf(m.u.decision.id, sizeof(m.u.decision.id), "r0");
	forget();
	assert_int_equal(ask(m).result, 0);		/* it stands */
	m.kind = PROTO_UNBLOCK;				/* takes no place */
	assert_int_equal(ask(m).result, 0);
	assert_int_equal(ask(block(0)).result, 0);
	assert_int_equal(in_force(), 193);
}

/* One that is in force is another decision when anything of it differs but when it was asked. */
static void another_is_not_done(void **state)
{
	struct proto_msg other[8];
	unsigned n = 0;

	(void)state;
	assert_int_equal(ask(block(21)).result, 0);
	for (; n < 7; n++)
		other[n] = block(0);
	other[0].kind = PROTO_ALLOW;
	assert_int_equal(prefix_parse("10.20.0.16", &other[1].u.decision.src), 0);
	assert_int_equal(prefix_parse("10.20.0.0/24", &other[2].u.decision.src), 0);
	assert_int_equal(prefix_parse("203.0.113.10", &other[3].u.decision.dst), 0);
	other[4].u.decision.dst = (struct prefix){ .len = 0 };
	other[5].u.decision.budget = 1000;
	snprintf(other[6].u.decision.author, sizeof(other[6].u.decision.author), "mallory");
	other[n] = block(0);
	snprintf(other[n++].u.decision.reason, sizeof(other[0].u.decision.reason), "CHG-2");
	for (unsigned i = 0; i < n; i++) {
		struct proto_reply r;

		other[i].u.decision.entry = 22 + i;
		r = ask(other[i]);
		if (r.result != -EEXIST)
			fail_msg("other %u: %d", i, r.result);
		assert_string_equal(r.text, "a decision with this id is in force");
		assert_int_equal(ask(other[i]).result, -EEXIST);
	}
	assert_int_equal(in_force(), 1);
}

/* An address outside is its /64 in the record. */
static void stands_as_its_network(void **state)
{
	struct proto_msg m = block(31);

	(void)state;
	assert_int_equal(prefix_parse("fd00:20::15", &m.u.decision.src), 0);
	assert_int_equal(prefix_parse("2001:db8:9::9", &m.u.decision.dst), 0);
	assert_int_equal(ask(m).result, 0);
	forget();
	m.u.decision.ttl_s = 3500;	/* what is left of it by then */
	assert_int_equal(ask(m).result, 0);
	assert_int_equal(in_force(), 1);
}

/* [M4] */
static void only_asked_about(void **state)
{
	struct proto_msg m = block(41), unknown = { .magic = PROTO_MAGIC, .kind = PROTO_UNBLOCK, .inquiry = 1 };

	(void)state;
	m.inquiry = 1;
	assert_int_equal(ask(m).result, -ENODATA);
	assert_int_equal(ask(m).result, -ENODATA);	/* nor is that remembered */
	assert_int_equal(in_force(), 0);
	assert_int_equal(reviews, 0);
	m.inquiry = 0;
	assert_int_equal(ask(m).result, 0);
	assert_int_equal(in_force(), 1);
	m.inquiry = 1;
	assert_int_equal(ask(m).result, 0);
	unknown.u.decision.entry = 41;			/* by its entry alone */
	assert_int_equal(ask(unknown).result, 0);
	unknown.u.decision.entry = 42;
	assert_int_equal(ask(unknown).result, -ENODATA);
	forget();
	assert_int_equal(ask(m).result, 0);		/* it stands */
	unknown.u.decision.entry = 41;
	assert_int_equal(ask(unknown).result, -ENODATA);
	m.kind = PROTO_ALLOW;
	assert_int_equal(ask(m).result, -ENODATA);
	/* What was refused is told as it was. */
	m = block(43);
	m.kind = PROTO_UNBLOCK;
	assert_int_equal(prefix_parse("10.20.0.99", &m.u.decision.src), 0);
	assert_int_equal(ask(m).result, -ENOENT);
	m.inquiry = 1;
	assert_int_equal(ask(m).result, -ENOENT);
	assert_string_equal(ask(m).text, "nothing is blocked there");
	assert_int_equal(in_force(), 1);
}

/* [M3] */
static void the_newest_are_remembered(void **state)
{
	struct proto_msg m = block(0);

	(void)state;
	m.kind = PROTO_UNBLOCK;
	assert_int_equal(prefix_parse("10.20.0.99", &m.u.decision.src), 0);
	for (unsigned i = 0; i <= AREA_ANSWERS; i++) {
		m.u.decision.entry = 100 + i;
		assert_int_equal(ask(m).result, -ENOENT);
	}
	m.inquiry = 1;
	for (unsigned i = 0; i <= AREA_ANSWERS; i++) {
		m.u.decision.entry = 100 + i;
		assert_int_equal(ask(m).result, i ? -ENOENT : -ENODATA);
	}
}

/* An unblock counts blocks by hand and those of before; what is in the kernel yet is not called unblocked, nor nothing. */
static void those_of_before(void **state)
{
	struct proto_msg m = block(0);
	struct proto_reply r;

	(void)state;
	m.kind = PROTO_UNBLOCK;
	kept = 3;
	r = ask(m);
	assert_int_equal(r.result, 0);
	assert_int_equal(r.count, 3);
	assert_int_equal(ask(m).result, -ENOENT);
	assert_int_equal(ask(block(0)).result, 0);
	kept = 3;
	r = ask(m);
	assert_int_equal(r.result, 0);
	assert_int_equal(r.count, 4);
	assert_int_equal(r.by_hand, 1);
	assert_int_equal(r.accounts, 0);
	kept_error = -ENOENT;
	r = ask(m);
	assert_int_equal(r.result, -EAGAIN);
	assert_ptr_equal(strstr(r.text, "blocks of before are in the kernel yet: "), r.text);
}

/* decide.h [DC1] */
static void unblock_without_budget(void **state)
{
	static const char text[] =
		"version: 1\nmode: enforce\ninside: [10.0.0.0/8]\n"
		"rules:\n"
		"  - {name: small, from: 10.20.0.0/24, to: outside, per: host, limit: {1h: 5kB}, action: block}\n"
		"  - {name: large, from: 10.30.0.0/24, to: outside, per: host, limit: {1h: 20kB}, action: block}\n"
		"  - {name: told, from: inside, to: outside, per: host, limit: {24h: 1TB}, action: alert}\n"
		"contracts:\n"
		"  - {name: copy, from: 10.40.0.0/24, to: outside, budget: {per: total, 24h: 1TB}, until: never}\n"
		"decisions: {accept: [unblock], max_budget: 10kB}\n";
	struct proto_msg m = block(51);
	struct compiled c;
	struct proto_reply r;

	(void)state;
	must_compile(text, &c);
	e.judge.policy = &c.p;
	e.judge.policy_no = 1;
	send_past("10.20.0.15");
	send_past("10.30.0.15");
	assert_int_equal(ask(block(0)).result, 0);	/* by hand, 10.20.0.15 to 203.0.113.9 */
	m.kind = PROTO_UNBLOCK;
	r = ask(m);
	assert_string_equal(r.text, "");		/* neither the large rule, one that only alerts nor a contract gives anything */
	assert_int_equal(r.result, 0);
	assert_int_equal(r.count, 2);
	assert_int_equal(r.by_hand, 1);
	assert_int_equal(r.accounts, 1);
	m.u.decision.entry = 52;
	assert_int_equal(prefix_parse("10.30.0.15", &m.u.decision.src), 0);
	r = ask(m);
	assert_int_equal(r.result, -EPERM);
	assert_non_null(strstr(r.text, "the rule's own of 20000 B is beyond the local policy's max_budget of 10000 B"));
	m.u.decision.entry = 53;
	m.u.decision.budget = 10000;
	assert_int_equal(ask(m).result, 0);
	send_past("10.30.0.15");
	m.u.decision.entry = 0;				/* over the control socket there is no such bound */
	m.u.decision.budget = 0;
	assert_int_equal(ask(m).result, 0);
	free(c.blob);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(answered_as_before, setup, teardown),
		cmocka_unit_test_setup_teardown(places_for_people, setup, teardown),
		cmocka_unit_test_setup_teardown(another_is_not_done, setup, teardown),
		cmocka_unit_test_setup_teardown(stands_as_its_network, setup, teardown),
		cmocka_unit_test_setup_teardown(only_asked_about, setup, teardown),
		cmocka_unit_test_setup_teardown(the_newest_are_remembered, setup, teardown),
		cmocka_unit_test_setup_teardown(those_of_before, setup, teardown),
		cmocka_unit_test_setup_teardown(unblock_without_budget, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
