/* test_leases.c - daemon/leases*.c: idle leases sleep, are waked, and end [M7]; the kernel's word raises; a policy ends what it touches. */
#include "leases_world.h"

/* A lease for what passes 1 MB a second, then nothing: until it sleeps. */
static void until_asleep(const char *dst)
{
	for (unsigned i = 0; i < 6; i++) {
		packets(dst, 1000);
		one_second();
	}
	assert_int_equal(elements(), 1);
	for (unsigned i = 0; i < 60 && elements(); i++)
		one_second();
	assert_int_equal(elements(), 0);
}

static void an_idle_one_sleeps_and_then_ends(void **state)
{
	(void)state;
	world_of_leases();
	until_asleep("192.0.2.1");
	assert_int_equal(objects(), 1);		/* its count is not final yet */
	assert_true(leases_outstanding(&e) > 0);
	assert_true(e.leases->grace);
	one_second();
	one_second();
	assert_int_equal(objects(), 1);
	kernel_is_through();
	assert_int_equal(objects(), 0);
	assert_int_equal(leases_outstanding(&e), 0);
	assert_int_equal(ends, 1);
	all_is_known();
}

static void who_begins_again_is_waked(void **state)
{
	uint64_t before;

	(void)state;
	world_of_leases();
	until_asleep("192.0.2.1");
	before = queued;
	assert_int_equal(packets("192.0.2.1", 5000), 5000);
	assert_int_equal(elements(), 1);
	assert_true(queued - before <= (1 << LEASE_SHIFT) + PACKET);	/* all others pass by what was left */
	kernel_is_through();
	assert_int_equal(elements(), 1);	/* that grace period was not its */
	before = queued;
	for (unsigned i = 0; i < 5; i++) {
		assert_int_equal(packets("192.0.2.1", 1000), 1000);
		one_second();
	}
	assert_int_equal(queued, before);
	all_is_known();
}

/* No worker says a word: the kernel's is enough, and what it says of a lease that is no more is nothing. */
static void the_kernels_word_raises(void **state)
{
	struct quota *q;
	uint64_t passed;

	(void)state;
	world_of_leases();
	packets("192.0.2.1", 500);
	q = the_quota();
	silent = true;
	for (unsigned i = 0; i < 3; i++) {
		while (nwords == 0)
			packets("192.0.2.1", 1);
		w.now.ns += NS_PER_S;	/* nothing is as fast as no time at all */
		passed = q->passed;
		packets("192.0.2.1", 100);
		assert_int_equal(q->passed, passed);
		leases_review(&e);
		packets("192.0.2.1", 10);
		assert_int_equal(q->passed, passed + 10 * PACKET);
		add_up();
	}
	for (unsigned i = 0; i < 5; i++) {	/* a packet amid the rules while it was raised: the word came before its time */
		w.now.ns += NS_PER_S;	/* slower: nothing is granted any more */
		q->told = true;
		word[nwords++] = (struct rules_lease){ .slot = q->slot, .generation = q->generation };
		leases_review(&e);
	}
	for (unsigned i = 0; nwords == 0; i++) {
		packets("192.0.2.1", 1);
		assert_true(i < LIMIT / PACKET);
	}
	leases_end_all(&e);
	one_second();
	assert_int_equal(nwords + elements(), 0);
	all_is_known();
}

/* Waked and idle again while the kernel is not through: that grace period began before it slept. */
static void a_grace_period_is_of_one_lot(void **state)
{
	(void)state;
	world_of_leases();
	until_asleep("192.0.2.1");
	packets("192.0.2.1", 100);
	assert_int_equal(elements(), 1);
	for (unsigned i = 0; i < 60; i++)
		one_second();
	assert_int_equal(elements(), 1);
	kernel_is_through();
	assert_int_equal(elements(), 0);	/* now it sleeps */
	assert_int_equal(objects(), 1);
	kernel_is_through();
	assert_int_equal(objects(), 0);
	all_is_known();
}

/* Whatever else ends leases ends those that sleep as well. */
static void what_sleeps_is_ended_by_all_else(void **state)
{
	const struct prefix all = { .len = 0 }, dst = { .len = 0 };

	(void)state;
	world_of_leases();
	until_asleep("192.0.2.1");
	leases_end_between(&e, &all, &dst);
	assert_int_equal(objects(), 0);
	assert_int_equal(leases_outstanding(&e), 0);
	kernel_is_through();
	until_asleep("192.0.2.1");
	leases_end_all(&e);
	assert_int_equal(leases_outstanding(&e), 0);
	w.now = mono_add_s(w.now, 1);
	assert_true(leases_forget(&e));
	kernel_is_through();		/* for one that is no more */
	until_asleep("192.0.2.2");
	assert_int_equal(objects(), 1);
	all_is_known();
}

static void a_policy_ends_what_it_touches(void **state)
{
	static const struct {
		const char *text;
		unsigned stay;		/* of the leases to 192.0.2.1, .2 and 198.51.100.7 */
	} then[] = {
		{ "rules:\n" RULE_H, 3 },
		{ "# said otherwise\nrules:\n" RULE_H, 3 },
		{ "rules:\n  - {name: other, from: 10.2.0.0/16, to: outside, per: pair, limit: {1h: 1MB}, action: block}\n" RULE_H, 3 },
		{ "hosts: {other: {addresses: [10.2.0.1]}}\nrules:\n" RULE_H, 3 },
		{ "rules:\n" RULE_H RULE_P, 1 },
		{ "rules:\n" RULE_P RULE_H, 1 },
		{ "rules:\n  - {name: h, from: 10.0.0.0/8, to: outside, per: host, limit: {30d: 101MB}, action: block}\n", 0 },
		{ "rules:\n  - {name: h, from: 10.0.0.0/8, to: outside, per: host, limit: {7d: 100MB}, action: block}\n", 0 },
		{ "rules:\n  - {name: h, from: 10.0.0.0/8, to: outside, per: host, limit: {30d: 100MB}, action: alert}\n", 0 },
		{ "hosts: {one: {addresses: [10.1.1.1]}}\nrules:\n" RULE_H, 0 },
		{ "rules:\n" RULE_H "  - {name: s, from: 10.0.0.0/8, to: 192.0.2.2, ports: [tcp/443], per: pair, limit: {1h: 1MB}, action: block}\n", 2 },
		{ "contracts:\n  - {name: c, owner: x, from: 10.1.1.1, to: 192.0.2.1, until: never, budget: {per: pair, 24h: 1GB}}\nrules:\n" RULE_H, 2 },
	};

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(then); i++) {
		world_of_leases();
		for (unsigned k = 0; k < 3; k++) {
			packets("192.0.2.1", 500);
			packets("192.0.2.2", 500);
			packets("198.51.100.7", 500);
			one_second();
		}
		assert_int_equal(elements(), 3);
		change_policy(then[i].text);
		if (elements() != then[i].stay)
			fail_msg("%u leases stay, %u expected, after:\n%s", elements(), then[i].stay, then[i].text);
		shares_are_right();
		add_up();
		all_is_known();
	}
}

#define CONTRACT "contracts:\n  - {name: c, owner: x, from: 10.1.1.1, to: 192.0.2.1, until: never, budget: {per: pair, 1h: 3MB}}\n"
#define RULE_BIG "  - {name: h, from: 10.0.0.0/8, to: outside, per: host, limit: {30d: 900MB}, action: block}\n"
#define RULE_OTHER "  - {name: other, from: 10.2.0.0/16, to: outside, per: pair, limit: {1h: 1MB}, action: block}\n"

static bool a_contract_pays(void)
{
	for (uint32_t i = 0; i < LEASE_SLOTS; i++)
		if (lease_is_open(&e, i))
			return w.j.area.account[w.j.area.lease[i].share[0].account].key.kind == SUBJECT_PAIR;
	return false;
}

/* Whatever made the lists out of date: a pair whose packets all go by the lease goes back to its contract when that has room again. */
static void a_contract_with_room_again_pays(void **state)
{
	(void)state;
	for (unsigned change = 0; change < 3; change++) {
		unsigned seconds = 0;

		world_of_leases();
		change_policy(CONTRACT "rules:\n" RULE_BIG);
		for (unsigned i = 0; i < 600; i++) {
			packets("192.0.2.1", 30);
			one_second();
		}
		assert_int_equal(elements(), 1);
		assert_false(a_contract_pays());
		if (change == 1)
			judge_lists_changed(&e.judge);
		if (change == 2)
			change_policy(CONTRACT "rules:\n" RULE_OTHER RULE_BIG);
		assert_int_equal(elements(), 1);
		for (unsigned i = 0; i < 2 * 3600; i++) {
			packets("192.0.2.1", 30);
			one_second();
			seconds += a_contract_pays();
		}
		if (seconds < 100)
			fail_msg("change %u: leased by the contract for %u s of 2 h", change, seconds);
	}
}

#define RULE_S(port) "  - {name: s" port ", from: 10.0.0.0/8, to: 192.0.2.2, ports: [tcp/" port "], per: pair, limit: {1h: 5MB}, action: block}\n"

/* The pair of a hint that waited while the policy changed is of a service that its port is no more. */
static void a_hint_may_be_older_than_the_policy(void **state)
{
	const struct as early = { .port = 443, .opener = OPENER_INSIDE, .later = true };
	const struct as then = { .port = 443, .opener = OPENER_INSIDE };
	uint64_t passed = 0;

	(void)state;
	world_of_leases();
	change_policy("rules:\n" RULE_H RULE_S("8443"));
	for (unsigned i = 0; i < 200; i++)
		packet_as("10.1.1.1", "192.0.2.2", early);
	change_policy("rules:\n" RULE_H RULE_S("8443") RULE_S("443"));
	packet_as("10.1.1.1", "192.0.2.2", (struct as){ .port = 22, .opener = OPENER_INSIDE });	/* the old pair's list is new */
	w.now.ns += 100 * NS_PER_MS;
	leases_review(&e);
	for (unsigned i = 0; i < 30000; i++) {
		passed += packet_as("10.1.1.1", "192.0.2.2", then) ? PACKET : 0;
		if (i % 1000 == 999)
			one_second();
	}
	assert_true(passed <= 5000000);
	shares_are_right();
	all_is_known();
}

/* A connection that begins on a pair that was quiet: the first hint's rate is that of the rest. Whatever the first lease is, it is raised when it
 * is used up, however soon; and hints of before it stood make nobody wait for the kernel. */
static void a_connection_that_begins(void **state)
{
	(void)state;
	for (unsigned rest = 1; rest <= 5; rest++) {
		world_of_leases();
		change_policy("rules:\n  - {name: h, from: 10.0.0.0/8, to: outside, per: host, limit: {30d: 100TB}, action: block}\n");
		packets("192.0.2.1", 20);
		leases_end_all(&e);
		for (unsigned i = 0; i < rest; i++)
			one_second();
		graces = ends = 0;
		queued = 0;
		for (unsigned i = 0; i < 20000; i++) {	/* 400 MB a second */
			packet_as("10.1.1.1", "192.0.2.1", (struct as){ .later = i % 100 != 0 });
			w.now.ns += 2500;
			if (i % 100 == 99)
				leases_review(&e);
		}
		if (ends || graces || queued > 400 * PACKET)
			fail_msg("after %u s: %u ends, %u graces, %lu bytes judged", rest, ends, graces, queued);
		add_up();
		all_is_known();
	}
}

/* What was in the queue before the lease stood says that the pair is busy: nobody waits for the kernel to count what is not used up. */
static void an_old_hint_makes_nobody_wait(void **state)
{
	struct judge_packet v = { .p = { .proto = 6, .dport = 443 }, .busy = 1, .refused_by = TABLE_NONE };

	(void)state;
	world_of_leases();
	packets("192.0.2.1", 500);
	for (uint32_t i = 0; i < LEASE_SLOTS; i++)
		if (lease_is_open(&e, i))
			v.pair = w.j.area.lease[i].pair;
	w.now.ns += NS_PER_S;
	graces = 0;
	(void)leases_note(&e.worker[0], &v);
	leases_review(&e);
	assert_int_equal(graces, 0);
	assert_int_equal(elements(), 1);
	all_is_known();
}

/* Used up to the byte, and no more comes: nothing is out, and it ends all the same. */
static void one_with_nothing_out_ends(void **state)
{
	struct quota *q;

	(void)state;
	world_of_leases();
	packets("192.0.2.1", 500);
	for (unsigned i = 0; i < 8; i++)
		one_second();
	q = the_quota();
	left += q->quota - q->passed;
	e.leases->live[q->slot].mark_bytes += q->quota - q->passed;	/* slowly: too little to be given more */
	e.leases->live[q->slot].rate = 1000;
	q->used = q->passed = q->quota;
	for (unsigned i = 0; i < 120; i++) {
		one_second();
		if (e.leases->grace)
			kernel_is_through();
	}
	assert_int_equal(objects(), 0);
	all_is_known();
}

/* An end of all that failed takes nothing from what comes after it. */
static void an_end_that_fails_is_made_up_for(void **state)
{
	const struct prefix all = { .len = 0 };

	(void)state;
	world_of_leases();
	packets("192.0.2.1", 500);
	assert_int_equal(elements(), 1);
	fails_one_in = 1;
	leases_end_between(&e, &all, &all);	/* fails, and so does the end of all that follows */
	assert_true(e.leases->due);
	fails_one_in = 0;
	leases_end_between(&e, &all, &all);
	assert_int_equal(elements(), 0);
	one_second();
	all_is_known();
}

/* Of many that are low at once a turn of the loop raises one transaction's, and each in its turn. */
static void a_turn_is_one_transaction(void **state)
{
	const unsigned many = RULES_LEASES * 2 + RULES_LEASES / 2;
	unsigned turns = 0;
	uint64_t raises;

	(void)state;
	world_of_leases();
	change_policy("rules:\n  - {name: h, from: 10.0.0.0/8, to: outside, per: host, limit: {30d: 100TB}, action: block}\n");
	for (unsigned i = 0; i < many; i++) {
		char dst[32];

		snprintf(dst, sizeof(dst), "198.51.%u.%u", i / 250, 1 + i % 250);
		packets(dst, 200);
	}
	assert_int_equal(elements(), many);
	for (uint32_t i = 0; i < LEASE_SLOTS; i++)
		e.leases->live[i].rate *= 8;
	w.now = mono_add_s(w.now, 1);
	raises = atomic_load(&w.j.area.h->lease_raises);
	assert_true(leases_second(&e));
	for (; leases_due_ms(&e) == 0; turns++) {
		const unsigned before = transactions;

		leases_go_on(&e);
		assert_true(transactions <= before + 1);
	}
	assert_int_equal(turns, 3);
	assert_int_equal(atomic_load(&w.j.area.h->lease_raises) - raises, many);
	all_is_known();
}

enum deed { RESETS, RAISES, REMOVES, MAKES, DEEDS };

static void does(enum deed deed, struct quota *q)
{
	struct quota made = *q;

	if (deed == RESETS)
		q->used = 0;
	else if (deed == RAISES)
		q->quota += LIMIT;
	else if (deed == REMOVES)
		*q = (struct quota){ 0 };
	if (deed != MAKES)
		return;
	made.key.out[3]++;
	made.passed = 12 * PACKET;
	made.packets = 12;
	has_place(LEASE_SLOTS - 1);
	kernel[LEASE_SLOTS - 1] = made;
}

/* What others do to leases: at the second's look they end, it is told once, and each byte is charged, or unseen when nobody of ours lent it. */
static void what_others_change_is_told(void **state)
{
	(void)state;
	for (enum deed deed = RESETS; deed < DEEDS; deed++) {
		const struct area_header *h;
		uint64_t granted, beyond, lost;
		struct quota *q;

		world_of_leases();
		packets("192.0.2.1", 500);
		q = the_quota();
		granted = w.j.area.lease[q->slot].granted;
		silent = meddled = true;	/* nobody asks for more */
		packets("192.0.2.1", (unsigned)((q->quota - q->used) / PACKET) - 10);
		assert_int_equal(leases_settle(&e), 0);
		lost = deed == REMOVES ? granted - q->passed : 0;
		does(deed, q);
		packets("192.0.2.1", (unsigned)(granted / PACKET));
		beyond = deed == MAKES ? 12 * PACKET : q->passed > granted ? q->passed - granted : 0;
		assert_true(deed == REMOVES || beyond);
		one_second();
		assert_int_equal(leases_outstanding(&e), 0);
		one_second();		/* once, and what it was about is gone */
		h = w.j.area.h;
		if (atomic_load(&h->lease_beyond) != beyond || atomic_load(&h->lease_lost) != lost || elements() ||
		    worries[HEALTH_LEASES_CHANGED] != 1 || atomic_load(&h->unseen_bytes) != (deed == MAKES ? beyond : 0))
			fail_msg("deed %u: %lu beyond of %lu, %lu lost of %lu, %u elements, told %u times, %lu unseen", deed,
				 atomic_load(&h->lease_beyond), beyond, atomic_load(&h->lease_lost), lost, elements(),
				 worries[HEALTH_LEASES_CHANGED], atomic_load(&h->unseen_bytes));
		left += lost;
		all_is_known();
	}
}

/* Where nothing of ours stands to be looked after. */
static void what_others_make_alone_is_told(void **state)
{
	struct quota q;

	(void)state;
	world_of_leases();
	packets("192.0.2.1", 500);
	q = *the_quota();
	leases_end_all(&e);
	for (unsigned i = 0; i < 3; i++)
		one_second();
	assert_int_equal(elements(), 0);
	silent = meddled = true;
	does(MAKES, &q);
	one_second();
	assert_int_equal(worries[HEALTH_LEASES_CHANGED], 1);
	assert_int_equal(atomic_load(&w.j.area.h->unseen_bytes), 12 * PACKET);
	for (unsigned i = 0; i < 3; i++)
		one_second();
	assert_int_equal(elements(), 0);
	assert_int_equal(worries[HEALTH_LEASES_CHANGED], 1);
	assert_int_equal(atomic_load(&w.j.area.h->unseen_bytes), 12 * PACKET);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_idle_one_sleeps_and_then_ends),
		cmocka_unit_test(who_begins_again_is_waked),
		cmocka_unit_test(the_kernels_word_raises),
		cmocka_unit_test(a_grace_period_is_of_one_lot),
		cmocka_unit_test(what_sleeps_is_ended_by_all_else),
		cmocka_unit_test(a_policy_ends_what_it_touches),
		cmocka_unit_test(a_contract_with_room_again_pays),
		cmocka_unit_test(a_hint_may_be_older_than_the_policy),
		cmocka_unit_test(a_connection_that_begins),
		cmocka_unit_test(an_old_hint_makes_nobody_wait),
		cmocka_unit_test(one_with_nothing_out_ends),
		cmocka_unit_test(an_end_that_fails_is_made_up_for),
		cmocka_unit_test(a_turn_is_one_transaction),
		cmocka_unit_test(what_others_change_is_told),
		cmocka_unit_test(what_others_make_alone_is_told),
	};

	return cmocka_run_group_tests_name("leases", tests, prepare, NULL);
}
