/* test_snapshot.c - snapshot.h: after a reboot sums, blocks, findings and decisions are as they were written, and time went on
 * for them. What is refused: test_snapshot_refuse.c; writing: test_snapshot_write.c.
 */
#include "snapshot_world.h"

/* The gateway comes back: `gap_us` after the writing, `boot_ns` after the new kernel's start. */
static void reboot(uint64_t gap_us, uint64_t boot_ns)
{
	uint64_t gap = 1;
	char why[200];

	write_it();
	side_make(&after, PAIRS, boot_ns, before.wall_us + gap_us);
	assert_int_equal(restore(&gap, why), 0);
	assert_int_equal(gap, gap_us * 1000);
	assert_non_null(strstr(why, "restored, gap "));
	go_on(&after);
}

/* A month of traffic; at its end one pair of each family is blocked, a host has an alert, and people have decided. */
static void populate(void)
{
	struct area_dynamic allow = { .uid = 11, .budget = 7000, .id = "a", .author = "ann", .reason = "backup" };
	struct area_dynamic stop = { .uid = 12, .id = "b", .author = "bob", .reason = "stolen" };

	side_make(&before, PAIRS, BOOT_NS, WALL_US);
	side_policy(&before);
	for (unsigned i = 0; i < 12 * 29; i++) {
		side_send(&before, i % 2 ? HOST : HOST6, i % 2 ? FAR : FAR6, 500 + i);
		side_send(&before, "10.20.0.16", i % 3 ? FAR : "198.51.100.7", 900);
		side_later(&before, 2 * HOUR_US + 1700000);
	}
	for (unsigned i = 0; i < 40; i++) {
		side_send(&before, HOST, "198.51.100.7", 300 + i);
		side_later(&before, 61 * US_S + 300000);
	}
	assert_int_equal(prefix_parse("10.20.0.17", &allow.src), 0);
	assert_int_equal(prefix_parse(FAR, &allow.dst), 0);
	assert_int_equal(prefix_parse("10.20.0.18", &stop.src), 0);
	allow.since_ns = stop.since_ns = before.now.ns;
	allow.until_ns = mono_add_s(before.now, 7200).ns;
	stop.until_ns = mono_add_s(before.now, 3600).ns;
	assert_int_equal(judge_allow(&before.j, &allow, before.now), 0);
	assert_int_equal(judge_block(&before.j, &stop, before.now), 0);
	assert_int_equal(side_pour(&before, "10.20.0.17", FAR, 5), 5000);
	npassed -= 5;			/* the allowance paid: no account of a rule */
	assert_int_equal(side_pour(&before, "10.20.0.18", FAR, 5), 0);
	assert_int_equal(side_pour(&before, HOST, FAR, 30), 10000);
	assert_int_equal(side_pour(&before, HOST, "198.51.100.9", 4), 4000);
	side_later(&before, 2600000);
	assert_int_equal(side_pour(&before, HOST6, FAR6, 30), 10000);
	side_later(&before, 1100000);
	assert_int_equal(before.j.area.h->blocks, 3);
	side_sane(&before);
}

/* Instant x of `before` and y of `after` are the same by the wall clock, to a microsecond; 0 is never and stays 0. */
static void same_time(uint64_t x, uint64_t y)
{
	int64_t apart = (int64_t)(before.wall_us * 1000 - before.now.ns + x - (after.wall_us * 1000 - after.now.ns + y));

	if (x == 0)
		assert_int_equal(y, 0);
	else
		assert_true(apart >= -1000 && apart <= 1000);
}

static void same_pairs(void)
{
	const struct area *a = &before.j.area, *b = &after.j.area;
	unsigned n = 0;

	for (uint32_t i = 0; i < a->h->pairs; i++) {
		const struct pair_cold *x = &a->pair_cold[i], *y;
		uint32_t to;

		if (!table_is_full(&a->pairs, i))
			continue;
		n++;
		to = pair_in(&after, &a->pair[i].key);
		y = &b->pair_cold[to];
		assert_int_equal(a->pair[i].bytes, b->pair[to].bytes);
		assert_int_equal(pair_packets(&a->pair[i], x), pair_packets(&b->pair[to], y));
		assert_int_equal(x->refused, y->refused);
		assert_int_equal(x->refused_packets, y->refused_packets);
		assert_memory_equal(&x->last_out, &y->last_out, sizeof(x->last_out));
		assert_int_equal(x->port, y->port);
		assert_int_equal(x->proto, y->proto);
		assert_int_equal(x->opened_by, y->opened_by);
		assert_int_equal(x->exit, y->exit);
		same_time(x->first_ns, y->first_ns);
	}
	assert_int_equal(n, b->pairs.state->live);
	assert_true(n >= 6);
}

static void same_finding(const struct account_cold *x, const struct account_cold *y)
{
	assert_int_equal(x->finding_id, y->finding_id);
	assert_int_equal(x->rev, y->rev);
	assert_int_equal(x->over, y->over);
	assert_int_equal(x->pending, y->pending);
	assert_memory_equal(x->peak, y->peak, sizeof(x->peak));
	assert_int_equal(x->opened_refused, y->opened_refused);
	assert_memory_equal(&x->flow_src, &y->flow_src, sizeof(x->flow_src));
	assert_memory_equal(&x->flow_dst, &y->flow_dst, sizeof(x->flow_dst));
	assert_int_equal(x->flow_sport, y->flow_sport);
	assert_int_equal(x->flow_dport, y->flow_dport);
	assert_int_equal(x->flow_proto, y->flow_proto);
	assert_int_equal(x->opened_by, y->opened_by);
	same_time(x->opened_ns, y->opened_ns);
	same_time(x->last_ns, y->last_ns);
	if (x->finding_id && x->pair != TABLE_NONE) {	/* slots are another table's; the pair is the same */
		assert_in_range(y->pair, 0, after.j.area.h->pairs - 1);
		assert_memory_equal(&before.j.area.pair[x->pair].key, &after.j.area.pair[y->pair].key,
				    sizeof(struct pair_key));
	}
}

static void same_accounts(void)
{
	const struct area *a = &before.j.area, *b = &after.j.area;
	unsigned n = 0, blocked = 0, open = 0;

	for (uint32_t i = 0; i < a->h->accounts; i++) {
		uint32_t to;

		if (!table_is_full(&a->accounts, i))
			continue;
		n++;
		to = account_in(&after, &a->account[i].key);
		assert_int_equal(a->account[i].spent, b->account[to].spent);
		assert_int_equal(a->account[i].refused, b->account[to].refused);
		assert_int_equal(a->account[i].state, b->account[to].state);
		blocked += (a->account[i].state & ACCOUNT_BLOCKED) != 0;
		open += (a->account[i].state & ACCOUNT_OPEN) != 0;
		assert_int_equal(a->account_cold[i].outstanding, b->account_cold[to].outstanding);
		assert_int_equal(a->account_cold[i].grant_to, b->account_cold[to].grant_to);
		same_time(a->account_cold[i].grant_until_ns, b->account_cold[to].grant_until_ns);
		same_time(a->account_cold[i].blocked_until_ns, b->account_cold[to].blocked_until_ns);
		same_finding(&a->account_cold[i], &b->account_cold[to]);
	}
	assert_int_equal(n, b->accounts.state->live);
	assert_int_equal(blocked, 3);
	assert_true(open >= 3);
}

static void same_decisions(void)
{
	const struct area_header *a = before.j.area.h, *b = after.j.area.h;
	unsigned n = 0, m = 0;

	for (unsigned i = 0; i < AREA_DYNAMIC; i++) {
		const struct area_dynamic *x = &a->dynamic[i];

		m += b->dynamic[i].kind != DYNAMIC_NONE;
		for (unsigned k = 0; x->kind != DYNAMIC_NONE && k < AREA_DYNAMIC; k++) {
			const struct area_dynamic *y = &b->dynamic[k];

			if (y->kind != x->kind || y->uid != x->uid)
				continue;
			n++;
			assert_memory_equal(&x->src, &y->src, sizeof(x->src));
			assert_memory_equal(&x->dst, &y->dst, sizeof(x->dst));
			assert_int_equal(x->budget, y->budget);
			assert_string_equal(x->id, y->id);
			assert_string_equal(x->author, y->author);
			assert_string_equal(x->reason, y->reason);
			same_time(x->until_ns, y->until_ns);
			same_time(x->since_ns, y->since_ns);
		}
	}
	assert_int_equal(n, 2);
	assert_int_equal(m, 2);
}

static void round_trip(void **state)
{
	uint64_t gap = 0;
	char why[200];

	(void)state;
	populate();
	write_it();
	assert_int_equal(each_file(NULL), 1);
	/* Past instants must fit in front of the new clock's zero as well as behind it. */
	for (unsigned i = 0; i < 2; i++) {
		side_make(&after, PAIRS, i ? 20 * NS_PER_S : 90 * 86400 * NS_PER_S, before.wall_us + 91 * US_S);
		assert_int_equal(restore(&gap, why), 0);
		assert_int_equal(gap, 91 * NS_PER_S);
		same_pairs();
		same_accounts();
		same_decisions();
		side_sane(&after);
		go_on(&after);
		windows_hold(&after, 0);
		side_later(&after, 0);
		assert_int_equal(after.j.area.h->blocks, 3);
	}
}

/* A version before kept the time of a block that somebody had ended: it does not come back. */
static void ended_by_hand(void **state)
{
	unsigned ended = 0;
	uint64_t gap;
	char why[200];

	(void)state;
	populate();
	for (uint32_t i = 0; i < before.j.area.h->accounts; i++)
		if (table_is_full(&before.j.area.accounts, i) && before.j.area.account_cold[i].rule != ACCOUNT_DYNAMIC &&
		    atomic_fetch_and(&before.j.area.account[i].state, ~(uint32_t)ACCOUNT_BLOCKED) & ACCOUNT_BLOCKED)
			ended++;
	assert_true(ended > 0);
	write_it();
	side_make(&after, PAIRS, 20 * NS_PER_S, before.wall_us + 91 * US_S);
	assert_int_equal(restore(&gap, why), 0);
	for (uint32_t i = 0; i < after.j.area.h->accounts; i++)
		if (table_is_full(&after.j.area.accounts, i) && after.j.area.account_cold[i].rule != ACCOUNT_DYNAMIC)
			assert_int_equal(after.j.area.account_cold[i].blocked_until_ns, 0);
}

/* The gap is told in words: from when to when. */
static void gap_told(void **state)
{
	char why[200], from[20], to[20], expect[60];
	uint64_t gap;
	time_t a, b;

	(void)state;
	populate();
	write_it();
	side_make(&after, PAIRS, 20 * NS_PER_S, before.wall_us + 91 * US_S);
	assert_int_equal(restore(&gap, why), 0);
	a = (time_t)(before.wall_us / US_S);
	b = (time_t)(after.wall_us / US_S);
	strftime(from, sizeof(from), "%H:%M:%S", localtime(&a));
	strftime(to, sizeof(to), "%H:%M:%S", localtime(&b));
	snprintf(expect, sizeof(expect), "restored, gap %s-%s", from, to);
	assert_string_equal(why, expect);
	/* Over a day: a time of day alone would not tell. */
	side_make(&after, PAIRS, 20 * NS_PER_S, before.wall_us + 3 * DAY_US);
	assert_int_equal(restore(&gap, why), 0);
	strftime(from, sizeof(from), "%Y-%m-%d", localtime(&a));
	assert_non_null(strstr(why, from));
}

static void blocks_go_on(void **state)
{
	(void)state;
	populate();
	reboot(91 * US_S, 20 * NS_PER_S);
	assert_int_equal(side_pour(&after, HOST, FAR, 3), 0);
	assert_int_equal(side_pour(&after, HOST6, FAR6, 3), 0);
	assert_int_equal(side_pour(&after, "10.20.0.18", "198.51.100.1", 3), 0);
	assert_int_equal(side_pour(&after, HOST, "198.51.100.200", 3), 3000);	/* another pair of the same host */
	assert_int_equal(side_pour(&after, "10.20.0.17", FAR, 2), 2000);	/* rest of the allowance, then the rule */
	npassed -= 2;
	assert_int_equal(side_pour(&after, "10.20.0.17", FAR, 40), 10000);
	/* The hour decides on the pairs' blocks: 30 kB with what went before in it. Until then no packet. */
	for (unsigned s = 0; s < 8 * 60; s += 30) {
		side_later(&after, 30 * US_S);
		assert_int_equal(side_pour(&after, HOST, FAR, 1), 0);
		windows_hold(&after, 0);
	}
	side_later(&after, 3 * MINUTE_US);
	assert_true(side_pour(&after, HOST, FAR, 1) > 0);
	side_later(&after, HOUR_US);
	assert_int_equal(side_pour(&after, "10.20.0.18", "198.51.100.1", 3), 3000);
	side_sane(&after);
}

/* Everything that was to end while the gateway was away has ended, though its end lies before the new clock's zero. */
static void ended_in_the_gap(void **state)
{
	static const uint64_t boots[] = { NS_PER_S, 20 * NS_PER_S, 90 * 86400 * NS_PER_S };
	struct judge_unblocked did;
	struct prefix src, dst;

	(void)state;
	populate();
	assert_int_equal(prefix_parse(HOST6, &src), 0);
	assert_int_equal(prefix_parse(FAR6, &dst), 0);
	assert_int_equal(judge_unblock(&before.j, &src, &dst, 5000, 600, before.now, &did), 0);
	atomic_store(&before.j.area.h->observe_until_ns, mono_add_s(before.now, 900).ns);
	for (unsigned i = 0; i < ARRAY_SIZE(boots); i++) {
		reboot(3 * HOUR_US, boots[i]);
		side_later(&after, 0);
		assert_int_equal(after.j.area.h->blocks, 0);
		for (unsigned k = 0; k < AREA_DYNAMIC; k++)
			assert_int_equal(after.j.area.h->dynamic[k].kind, DYNAMIC_NONE);
		assert_int_equal(side_pour(&after, "10.20.0.18", FAR, 1), 1000);
		assert_int_equal(side_pour(&after, HOST, FAR, 40), 10000);	/* not observing: refused past the minute */
		assert_int_equal(side_pour(&after, HOST6, FAR6, 40), 10000);	/* not granted any more */
		assert_int_equal(side_pour(&after, "10.20.0.17", FAR, 40), 10000);	/* nor allowed */
		side_sane(&after);
	}
}

/* What is not over yet goes on, to the same instant by the wall clock. */
static void observing_goes_on(void **state)
{
	(void)state;
	populate();
	atomic_store(&before.j.area.h->observe_until_ns, mono_add_s(before.now, 900).ns);
	reboot(600 * US_S, 20 * NS_PER_S);
	side_later(&after, 0);
	assert_int_equal(side_pour(&after, HOST, FAR, 40), 40000);
	side_later(&after, 301 * US_S);
	assert_int_equal(side_pour(&after, HOST, FAR, 40), 0);
}

/* [SN3] ages by the wall clock: at the start and at every moment after it no window shows less than passed in it. */
static void windows_age(void **state)
{
	static const uint64_t gaps[] = { 0, 1, 2400000, 61 * US_S, 299 * US_S, HOUR_US, DAY_US + 7, 20 * DAY_US, 31 * DAY_US };
	static const uint64_t boots[] = { NS_PER_MS, 4999 * NS_PER_MS, 61700 * NS_PER_MS, 86399900 * NS_PER_MS,
					  40 * 86400 * NS_PER_S };
	static const uint64_t steps[] = { 0, 1, 900000, 3 * US_S, 55 * US_S, US_S, 239 * US_S, 55 * MINUTE_US, 22 * HOUR_US };

	(void)state;
	populate();
	for (unsigned g = 0; g < ARRAY_SIZE(gaps); g++)
		for (unsigned b = 0; b < ARRAY_SIZE(boots); b++) {
			reboot(gaps[g], boots[b]);
			for (unsigned s = 0; s < ARRAY_SIZE(steps); s++) {
				side_later(&after, steps[s]);
				windows_hold(&after, 0);
			}
			side_sane(&after);
		}
}

/* The same, minute by minute in small steps: the phases of both clocks within a bucket differ. */
static void phases(void **state)
{
	(void)state;
	side_make(&before, PAIRS, BOOT_NS, WALL_US);
	side_policy(&before);
	for (unsigned i = 0; i < 200; i++) {
		side_send(&before, HOST, FAR, 100);
		side_later(&before, 700000);
	}
	for (unsigned i = 0; i < 60; i++) {
		reboot(i * 310000, 7 * NS_PER_S + i * 470 * NS_PER_MS);
		for (unsigned s = 0; s < 160; s++) {
			windows_hold(&after, 0);
			side_later(&after, 490000);
		}
	}
}

/* A supervisor that starts anew without a kept table, in the same boot: its clock runs on, whatever the wall clock says. */
static void same_boot(void **state)
{
	static const int64_t wall_moves[] = { 0, (int64_t)-HOUR_US, (int64_t)DAY_US };
	uint64_t gap;
	char why[200];

	(void)state;
	populate();
	write_it();
	for (unsigned i = 0; i < ARRAY_SIZE(wall_moves); i++) {
		int fd = open_it();
		uint64_t wall = before.wall_us + 30 * US_S + 1;

		side_make(&after, PAIRS, before.now.ns + 30 * NS_PER_S + 1000, wall);
		memcpy(after.j.area.h->boot_id, before.j.area.h->boot_id, sizeof(after.j.area.h->boot_id));
		assert_true(fd >= 0);
		assert_int_equal(snapshot_restore(fd, &after.j.area, after.now, wall + (uint64_t)wall_moves[i], &gap, why,
						  sizeof(why)), 0);
		close(fd);
		assert_int_equal(gap, 30 * NS_PER_S + 1000);
		same_pairs();
		same_accounts();
		same_decisions();
		go_on(&after);
		windows_hold(&after, 0);
		side_later(&after, 58 * US_S);
		windows_hold(&after, 0);
	}
	/* In a time namespace of another boot clock. */
	{
		int fd = open_it();
		uint64_t wall = before.wall_us + 30 * US_S;

		side_make(&after, PAIRS, before.now.ns + 365 * 86400 * NS_PER_S, wall);
		memcpy(after.j.area.h->boot_id, before.j.area.h->boot_id, sizeof(after.j.area.h->boot_id));
		assert_int_equal(snapshot_restore(fd, &after.j.area, after.now, wall, &gap, why, sizeof(why)), 0);
		close(fd);
		assert_int_equal(gap, 30 * NS_PER_S);
		go_on(&after);
		windows_hold(&after, 0);
	}
}

static void wall_went_back(void **state)
{
	static const uint64_t back[] = { 1, 3 * US_S, 2 * HOUR_US, 40 * DAY_US, WALL_US };

	(void)state;
	populate();
	write_it();
	for (unsigned i = 0; i < ARRAY_SIZE(back); i++) {
		uint64_t gap = 1, until, wall = before.wall_us > back[i] ? before.wall_us - back[i] : 0;
		const struct account_cold *c;
		char why[200] = "";

		/* In truth a minute passed. */
		side_make(&after, PAIRS, 20 * NS_PER_S, before.wall_us + MINUTE_US);
		int fd = snapshot_open(dir);

		assert_true(fd >= 0);
		assert_int_equal(snapshot_restore(fd, &after.j.area, after.now, wall, &gap, why, sizeof(why)), 0);
		close(fd);
		assert_int_equal(gap, 0);
		assert_non_null(strstr(why, "gap unknown"));
		go_on(&after);
		windows_hold(&after, MINUTE_US);
		/* A block lasts as long as it had to go. */
		until = before.j.area.account_cold[account_of(&before, "pairs", HOST, FAR)].blocked_until_ns;
		c = &after.j.area.account_cold[account_of(&after, "pairs", HOST, FAR)];
		assert_in_range(c->blocked_until_ns - after.now.ns, until - before.now.ns,
				until - before.now.ns + TICK_S * NS_PER_S);
		assert_int_equal(side_pour(&after, HOST, FAR, 1), 0);
	}
}

/* A clock that stood at 1970 when it was written, or is set to nonsense now: long ago, nothing worse. */
static void wall_far_ahead(void **state)
{
	static const uint64_t walls[] = { WALL_US * 2, 4102444800 * US_S, 253402300799 * US_S, UINT64_MAX / 1000, UINT64_MAX };

	(void)state;
	populate();
	write_it();
	for (unsigned i = 0; i < ARRAY_SIZE(walls); i++) {
		uint64_t gap;
		char why[200];

		side_make(&after, PAIRS, 20 * NS_PER_S, walls[i]);
		assert_int_equal(restore(&gap, why), 0);
		go_on(&after);
		side_later(&after, 0);
		assert_int_equal(after.j.area.h->blocks, 0);
		assert_int_equal(side_pour(&after, HOST, FAR, 40), 10000);
	}
}

static void empty(void **state)
{
	uint64_t gap;
	char why[200];

	(void)state;
	assert_int_equal(snapshot_open(dir), -ENOENT);
	side_make(&before, PAIRS, BOOT_NS, WALL_US);
	side_make(&after, PAIRS, NS_PER_S, WALL_US + 5 * US_S);
	write_it();
	assert_int_equal(restore(&gap, why), 0);
	assert_int_equal(gap, 5 * NS_PER_S);
	assert_int_equal(after.j.area.pairs.state->live, 0);
	assert_int_equal(after.j.area.accounts.state->live, 0);
	side_sane(&after);
}

/* ---- tables of another size [SN5] ---- */

static uint64_t bytes_of(const struct side *s)
{
	uint64_t sum = s->j.area.h->folded_bytes;

	for (uint32_t i = 0; i < s->j.area.h->pairs; i++)
		if (table_is_full(&s->j.area.pairs, i))
			sum += s->j.area.pair[i].bytes;
	return sum;
}

static void larger_table(void **state)
{
	uint64_t gap;
	char why[200];

	(void)state;
	populate();
	write_it();
	side_make(&after, 1024, 20 * NS_PER_S, before.wall_us + 91 * US_S);
	assert_int_equal(restore(&gap, why), 0);
	same_pairs();
	same_accounts();
	same_decisions();
	assert_null(strstr(why, "no place"));
	go_on(&after);
	windows_hold(&after, 0);
}

/* Ten times what fits: no byte is lost, what limits a host and the blocks stand, and people are told of the rest. */
static void smaller_table(void **state)
{
	struct account_key others[30];		/* of hosts' pairs without an account */
	uint32_t slot;
	uint64_t gap;
	char why[200];

	(void)state;
	side_make(&before, 2048, BOOT_NS, WALL_US);
	side_policy(&before);
	before.j.area.h->folded_bytes = 77;
	for (unsigned i = 0; i < 1300; i++) {
		char dst[24];

		snprintf(dst, sizeof(dst), "203.0.%u.%u", i / 250, i % 250 + 1);
		assert_true(side_send(&before, HOST, dst, 500));
		if (i % 100 == 50)
			side_pour(&before, HOST, dst, 12);
		if (i % 100 == 51)
			side_later(&before, 30 * US_S);
	}
	assert_int_equal(before.j.area.h->blocks, 13);
	for (unsigned i = 0; i < ARRAY_SIZE(others); i++) {
		others[i] = (struct account_key){ .kind = SUBJECT_PAIR, .rule = before.policy.rule[0].uid, .in = { 0xfd, [15] = (uint8_t)i } };
		assert_int_equal(table_insert(&before.j.area.accounts, area_account_hash(&before.j.area, &others[i]),
					      (const struct table_key *)&others[i], &slot), 0);
	}
	write_it();
	side_make(&after, PAIRS, 20 * NS_PER_S, before.wall_us + US_S);
	assert_int_equal(restore(&gap, why), 0);
	assert_non_null(strstr(why, "no place"));
	side_sane(&after);
	assert_int_equal(bytes_of(&after), bytes_of(&before));
	assert_int_equal(after.j.area.account[account_of(&after, "hosts", HOST, NULL)].spent,
			 before.j.area.account[account_of(&before, "hosts", HOST, NULL)].spent);
	for (unsigned i = 0; i < ARRAY_SIZE(others); i++)
		(void)account_in(&after, &others[i]);
	go_on(&after);
	side_later(&after, 0);
	assert_int_equal(after.j.area.h->blocks, 13);
	windows_hold(&after, 0);
}

int main(void)
{
#define CASE(fn) cmocka_unit_test_setup_teardown(fn, folder_make, folder_remove)
	const struct CMUnitTest tests[] = {
		CASE(ended_by_hand),
		CASE(round_trip), CASE(gap_told), CASE(blocks_go_on), CASE(ended_in_the_gap), CASE(observing_goes_on),
		CASE(windows_age), CASE(phases), CASE(same_boot), CASE(wall_went_back), CASE(wall_far_ahead), CASE(empty),
		CASE(larger_table), CASE(smaller_table),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
