/* test_snapshot_write.c - snapshot.h [SN1], [SN4]: killed at any system call, out of space, in no folder, while packets are
 * charged: there is always a good file, and nothing else stays behind.
 */
#include <signal.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "clock.h"
#include "snapshot_world.h"

/* Two good files: 500 in snapshot.1, 600 in snapshot; then 700 is in memory. */
static void two_files(void)
{
	for (uint32_t len = 500; len <= 600; len += 100) {
		small(len);
		write_it();
	}
	small(700);
}

/* The writer in a child, killed as its system call number `stop` (entries and exits count) begins or ends. false: it was
 * done before. */
static bool killed_at(unsigned stop)
{
	pid_t pid = fork();
	int status = 0;

	assert_true(pid >= 0);
	if (pid == 0) {
		if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0)
			_exit(77);
		raise(SIGSTOP);
		_exit(snapshot_write(dir, &before.j.area, before.now, before.wall_us) == 0 ? 0 : 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	for (unsigned i = 0; i < stop && WIFSTOPPED(status); i++) {
		assert_int_equal(ptrace(PTRACE_SYSCALL, pid, NULL, NULL), 0);
		assert_int_equal(waitpid(pid, &status, 0), pid);
	}
	if (WIFSTOPPED(status)) {
		kill(pid, SIGKILL);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		return true;
	}
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 77)
		skip();
	assert_int_equal(WEXITSTATUS(status), 0);
	return false;
}

static void killed_anywhere(void **state)
{
	unsigned stop = 0, left = 0;
	uint64_t got = 0;
	bool killed;

	(void)state;
	do {
		two_files();
		killed = killed_at(++stop);
		left += each_file(NULL) > 2;
		got = passed_in_file();
		assert_true(got == 600 || got == 700);	/* never back to the older one */
		assert_string_equal(told, "");
		assert_true(killed || got == 700);
		small(800);
		write_it();
		assert_int_equal(each_file(NULL), 2);	/* what the kill left is gone */
		assert_int_equal(passed_in_file(), 800);
	} while (killed);
	assert_true(stop > 16);		/* open, allocate, map, sync, close, rename, rename, ... */
	assert_true(left > 2);		/* some kills did leave one */
}

/* A temporary file of a crash, whatever is in it, is neither read nor in the way. */
static void left_behind(void **state)
{
	uint8_t *data;
	size_t len;

	(void)state;
	small(500);
	write_it();
	len = load("snapshot", &data);
	save("snapshot.new", data, len / 2);
	assert_int_equal(passed_in_file(), 500);
	assert_int_equal(unlink(in_dir("snapshot")), 0);
	save("snapshot.new", data, len);
	assert_int_equal(open_it(), -ENOENT);
	small(600);
	write_it();
	assert_int_equal(each_file(NULL), 1);
	assert_int_equal(passed_in_file(), 600);
	free(data);
}

static void no_folder(void **state)
{
	char path[400];

	(void)state;
	small(500);
	save("file", (const uint8_t *)"x", 1);
	snprintf(path, sizeof(path), "%s", in_dir("file"));
	assert_int_equal(snapshot_write(path, &before.j.area, before.now, before.wall_us), -ENOTDIR);
	snprintf(path, sizeof(path), "%s", in_dir("none"));
	assert_int_equal(snapshot_write(path, &before.j.area, before.now, before.wall_us), -ENOENT);
	assert_int_equal(each_file(NULL), 1);
	/* The name is taken by a folder: what was there stays. */
	two_files();
	assert_int_equal(mkdir(in_dir("snapshot.new"), 0700), 0);
	assert_int_equal(snapshot_write(dir, &before.j.area, before.now, before.wall_us), -EISDIR);
	assert_int_equal(passed_in_file(), 600);
}

static void disk_full(void **state)
{
	struct rlimit was, none = { 20000, RLIM_INFINITY };

	(void)state;
	two_files();
	signal(SIGXFSZ, SIG_IGN);
	getrlimit(RLIMIT_FSIZE, &was);
	none.rlim_max = was.rlim_max;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &none), 0);
	assert_true(snapshot_write(dir, &before.j.area, before.now, before.wall_us) < 0);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
	assert_int_equal(each_file(NULL), 2);
	assert_int_equal(passed_in_file(), 600);
	small(700);
	write_it();
	assert_int_equal(passed_in_file(), 700);
}

/* ---- [SN4] while packets are charged ---- */

/* A process that goes on over the same memory until it is killed, by us or by our end. */
static pid_t engine(void (*fn)(uint64_t), uint64_t arg)
{
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		fn(arg);
		_exit(1);
	}
	return pid;
}

static void engine_end(pid_t pid)
{
	assert_int_equal(waitpid(pid, NULL, WNOHANG), 0);
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static const char hasty_policy[] =
	"version: 1\nmode: enforce\ninside: [10.0.0.0/8]\ngroups:\n  servers: {hosts: [10.20.0.0/24]}\nrules:\n"
	"  - {name: pairs, from: servers, to: outside, per: pair, limit: {1m: 70kB, 24h: 1GB}, action: block, hold: 5s}\n"
	"  - {name: group, from: servers, to: outside, per: group, limit: {1m: 300kB}, action: block, hold: 5s}\n";

static const char *const dsts[] = { FAR, "198.51.100.7", "203.0.113.77" };

/* Packets of three pairs, which pay their own account and then ask the group's: what it refuses they get back. Seconds fly,
 * blocks begin and end. For ever. */
static void charge_on(uint64_t lag_ns)
{
	struct judge_packet v[6] = { 0 };

	before.now.ns -= lag_ns;
	for (unsigned n = 0;; n++) {
		for (unsigned i = 0; i < 6; i++) {
			if (addr_parse(HOST, &v[i].p.src) < 0 || addr_parse(dsts[i % 3], &v[i].p.dst) < 0)
				_exit(1);
			v[i].opener = OPENER_INSIDE;
			v[i].p.len = 1000;
			v[i].p.proto = 6;
		}
		judge_batch(&before.j, v, 6, before.now);
		before.now.ns += 300 * NS_PER_MS;
		if (lag_ns == 0)
			judge_review(&before.j, before.now, NULL, NULL);
	}
}

/* Every account in the file is as of one instant: no bucket begins above what was spent, and a block has an end. Those of
 * which something passed. */
static unsigned check_accounts(uint64_t *spent)
{
	struct snapshot_head h;
	unsigned n = 0;
	uint8_t *mem;

	(void)load("snapshot", &mem);
	memcpy(&h, mem, sizeof(h));
	for (uint32_t i = 0; i < h.accounts; i++) {
		struct snapshot_account s;
		const char *why = "";

		memcpy(&s, mem + sizeof(h) + h.pairs * sizeof(struct snapshot_pair) + i * sizeof(s), sizeof(s));
		if (window_check(&s.cold.rings, s.spent, &why) < 0)
			fail_msg("account %u: %s", i, why);
		assert_int_equal(s.state & ACCOUNT_LOCK, 0);
		if (s.state & ACCOUNT_BLOCKED)
			assert_true(s.cold.blocked_until_ns > s.cold.blocked_at_ns && s.cold.finding_id != 0);
		assert_true(s.spent + 6000 >= spent[i]);	/* records keep their order; a batch may be taken back */
		spent[i] = s.spent;
		n += s.spent > 0;
	}
	free(mem);
	return n;
}

static void while_charging(void **state)
{
	uint64_t spent[64] = { 0 }, most = 0, gap;
	char why[200];
	pid_t pid[2];

	(void)state;
	policy_text = hasty_policy;
	side_make(&before, PAIRS, BOOT_NS, WALL_US);
	side_policy(&before);
	for (unsigned i = 0; i < 3; i++)	/* all accounts are there from now on */
		side_send(&before, HOST, dsts[i], 40);
	for (unsigned i = 0; i < 2; i++)
		pid[i] = engine(charge_on, i * 4 * NS_PER_S);
	for (unsigned i = 0; i < 600; i++) {
		write_it();	/* their clock runs on; the head's time is of before */
		assert_int_equal(check_accounts(spent), 4);
		side_make(&after, PAIRS, NS_PER_S, before.wall_us);
		assert_int_equal(restore(&gap, why), 0);
		side_sane(&after);
	}
	engine_end(pid[0]);
	engine_end(pid[1]);
	policy_text = usual_policy;
	for (size_t i = 0; i < ARRAY_SIZE(spent); i++)
		most = MAX_OF(most, spent[i]);
	assert_true(most > 100000);
}

/* One account, changed as fast as can be under its lock, at times with a pause amid the change: start by start to the new
 * total, then the total, a block with its end. For ever. */
static void change_on(uint64_t slot)
{
	struct account *a = &before.j.area.account[slot];
	struct account_cold *c = &before.j.area.account_cold[slot];

	for (uint64_t n = atomic_load(&a->spent) + 1;; n++) {
		account_lock(a);
		__atomic_store_n(&c->blocked_until_ns, n, __ATOMIC_RELAXED);
		if (n % 64 == 0)
			usleep(200);
		atomic_store_explicit(&a->spent, n, memory_order_release);
		for (unsigned i = WINDOW_SLOTS; i-- > 0;) {
			__atomic_store_n(&c->rings.start[i], n, __ATOMIC_RELEASE);
			if (n % 128 == 1 && i == WINDOW_SLOTS / 2)
				usleep(200);
		}
		if (n % 2)
			atomic_fetch_or(&a->state, ACCOUNT_BLOCKED);
		else
			atomic_fetch_and(&a->state, ~(uint32_t)ACCOUNT_BLOCKED);
		account_unlock(a);
		if (n % 16 == 8)
			usleep(100);	/* unchanged for a while: on one CPU we would only ever see it amid a change */
	}
}

#define WAITS_MS 200	/* at least, before the writer gives up a lock: snapshot.c */

static void one_instant(void **state)
{
	struct snapshot_head h;
	struct snapshot_account s;
	uint32_t slot;
	unsigned moved = 0, late = 0;
	uint64_t last = 0;
	pid_t pid;

	(void)state;
	small(500);
	slot = account_of(&before, "pairs", HOST, FAR);
	pid = engine(change_on, slot);
	for (unsigned i = 0; i < 600; i++) {
		uint64_t begin = clock_mono().ns;
		bool gave_up;
		uint8_t *mem;

		write_it();
		/* The child lay still with the lock for as long as the writer waits, who may give up then: never too little. */
		gave_up = clock_mono().ns - begin >= WAITS_MS * NS_PER_MS;
		late += gave_up;
		(void)load("snapshot", &mem);
		memcpy(&h, mem, sizeof(h));
		for (uint32_t k = 0; k < h.accounts; k++) {
			memcpy(&s, mem + sizeof(h) + h.pairs * sizeof(struct snapshot_pair) + k * sizeof(s), sizeof(s));
			if (memcmp(&s.key, &before.j.area.account[slot].key, sizeof(s.key)) == 0)
				break;
		}
		free(mem);
		if (s.spent == 500)
			continue;	/* the child has not begun */
		assert_true(s.spent >= last);
		if (gave_up)
			continue;
		for (unsigned k = 0; k < WINDOW_SLOTS; k++)
			assert_int_equal(s.cold.rings.start[k], s.spent);
		assert_int_equal(s.cold.blocked_until_ns, s.spent);
		assert_int_equal((s.state & ACCOUNT_BLOCKED) != 0, s.spent % 2);
		moved += s.spent != last;
		last = s.spent;
	}
	engine_end(pid);
	assert_true(moved > 100);
	assert_true(late < 6);
}

/* The engine died with the lock: the writer gives up waiting, and what it took counts too much rather than too little. */
static void lock_of_a_dead_engine(void **state)
{
	struct account_limit hour = { .bytes = 1, .seconds = 3600 };
	struct account_cold *c;
	struct account *a;
	uint32_t slot;
	uint64_t gap;
	char why[200];

	(void)state;
	small(500);
	slot = account_of(&before, "pairs", HOST, FAR);
	a = &before.j.area.account[slot];
	c = &before.j.area.account_cold[slot];
	account_lock(a);
	c->rings.start[WINDOW_SLOTS / 2] = 900;	/* above what was spent: half a change */
	write_it();
	side_make(&after, PAIRS, NS_PER_S, before.wall_us + US_S);
	assert_int_equal(restore(&gap, why), 0);
	side_sane(&after);
	go_on(&after);
	slot = account_of(&after, "pairs", HOST, FAR);
	a = &after.j.area.account[slot];
	assert_int_equal(a->state & ACCOUNT_LOCK, 0);
	assert_int_equal(window_spec_for(hour.seconds, &hour.spec), 0);
	assert_int_equal(account_peek_sum(a, &after.j.area.account_cold[slot], &hour, mono_tick(after.now)), 500);
}

int main(void)
{
#define CASE(fn) cmocka_unit_test_setup_teardown(fn, folder_make, folder_remove)
	const struct CMUnitTest tests[] = {
		CASE(killed_anywhere), CASE(left_behind), CASE(no_folder), CASE(disk_full), CASE(while_charging),
		CASE(one_instant), CASE(lock_of_a_dead_engine),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
