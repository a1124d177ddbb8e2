/* test_decisions.c - decisions.h: each decision done once and answered once, whatever the disk does and whenever the relay ends; against
 * an engine that counts what it does and remembers AREA_ANSWERS answers, and a stream whose cursor is kept when we say so. */
#include "compiled.h"

#include <dirent.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <time.h>

#include "area.h"
#include "clock.h"
#include "decisions.h"
#include "faulty_disk.h"
#include "history.h"

#define PAIRS	 128
#define ACCOUNTS 256
#define MANY	 400

static struct {
	char dir[64];
	struct area area;
	struct compiled policy;
	struct config config;
	struct spool *spool;
	struct report *report;
	struct decisions d;
	pthread_mutex_t lock;
	unsigned sent, at, kept;	/* entries of the stream; the next to be handed over; by the cursor on disk */
	bool written;
	bool gone;			/* the engine does not answer */
	unsigned done[MANY];		/* times */
	uint64_t remembered[AREA_ANSWERS];
	unsigned nremembered;
} w;

/* ---- the courier ---- */

static bool elsewhere(unsigned i)
{
	return i % 5 == 4;
}

/* Every third asks for more than the policy grants. */
static bool beyond(unsigned i)
{
	return i % 3 == 2;
}

static struct redis_decision nth(unsigned i)
{
	struct redis_decision d = { .v = "1", .action = "block", .src = "10.20.0.15", .dst = "203.0.113.9", .author = "alice",
				    .reason = "CHG-1" };

	snprintf(d.entry, sizeof(d.entry), "%llu-%u", (unsigned long long)(clock_wall_us() / 1000), i);
	snprintf(d.id, sizeof(d.id), "b%u", i);
	snprintf(d.gateway, sizeof(d.gateway), "%s", elsewhere(i) ? "gw2" : "*");
	snprintf(d.ttl, sizeof(d.ttl), "%s", beyond(i) ? "3h" : "1h");
	return d;
}

static struct redis_decision stream[MANY];

static void send_decisions(unsigned n)
{
	for (; n; n--, w.sent++)
		stream[w.sent] = nth(w.sent);
}

bool courier_decision(struct courier *c, struct redis_decision *ret)
{
	(void)c;
	if (w.at == w.sent)
		return false;
	*ret = stream[w.at];
	return true;
}

static void keep(void)
{
	if (w.written)
		w.kept = w.at;
}

void courier_decided(struct courier *c, bool written)
{
	(void)c;
	w.at++;
	w.written = written;
	keep();
}

void courier_written(struct courier *c)
{
	(void)c;
	w.written = true;
	keep();
}

void courier_poke(struct courier *c)
{
	(void)c;
}

/* ---- the engine ---- */

static bool remembers(uint64_t entry)
{
	for (unsigned i = 0; i < AREA_ANSWERS; i++)
		if (w.remembered[i] == entry)
			return true;
	return false;
}

static int engine(void *ctx, struct proto_msg *m, struct proto_reply *ret)
{
	const uint64_t entry = m->u.decision.entry;
	unsigned i;

	(void)ctx;
	if (w.gone)
		return -ETIMEDOUT;
	memset(ret, 0, sizeof(*ret));
	if (remembers(entry))
		return 0;
	if (m->inquiry) {
		ret->result = -ENODATA;
		return 0;
	}
	for (i = 0; i < w.sent && decided_name(stream[i].entry) != entry; i++)
		;
	assert_true(i < w.sent && !elsewhere(i) && !beyond(i));
	w.done[i]++;
	w.remembered[w.nremembered++ % AREA_ANSWERS] = entry;
	return 0;
}

/* ---- the relay ---- */

static void start_relay(void)
{
	assert_int_equal(spool_open(w.dir, 1 << 24, &w.spool), 0);
	assert_int_equal(report_open(&w.area, &w.config, w.spool, &w.report), 0);
	w.at = w.kept;
	w.written = false;
	w.d = (struct decisions){ .gateway = "gw1", .courier = (struct courier *)&w, .report = w.report, .spool = w.spool,
				  .spool_lock = &w.lock, .ask = engine };
}

/* What was in its memory alone is gone. */
static void kill_relay(void)
{
	w.report = report_close(w.report);
	w.spool = spool_close(w.spool);
	start_relay();
}

static int setup(void **state)
{
	static const struct hash_key key;
	static const uint8_t boot[16];
	void *mem = aligned_alloc(4096, (area_size(PAIRS, ACCOUNTS) + 4095) & ~4095UL);

	(void)state;
	memset(&w, 0, sizeof(w));
	memset(&disk, 0, sizeof(disk));
	rng_state = 7;
	assert_non_null(mem);
	memset(mem, 0, area_size(PAIRS, ACCOUNTS));
	area_format(mem, PAIRS, ACCOUNTS, 1, &key, 7, boot, clock_mono());
	assert_int_equal(area_open(mem, area_size(PAIRS, ACCOUNTS), &w.area), 0);
	must_compile("version: 1\nmode: enforce\ninside: [10.0.0.0/8]\n"
		     "rules:\n  - {name: pairs, from: 10.20.0.0/24, to: outside, per: pair, limit: {1h: 20MB}, action: block}\n"
		     "decisions: {accept: [block], max_ttl: 2h, max_budget: 1MB}\n", &w.policy);
	snprintf(w.config.gateway, sizeof(w.config.gateway), "gw1");
	snprintf(w.dir, sizeof(w.dir), "/tmp/egressd-test-decisions.XXXXXX");
	assert_non_null(mkdtemp(w.dir));
	pthread_mutex_init(&w.lock, NULL);
	start_relay();
	return 0;
}

static int teardown(void **state)
{
	char path[400];
	const struct dirent *e;
	DIR *d = opendir(w.dir);

	(void)state;
	disk.bad_write = disk.bad_sync = 0;
	power_cut();
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
	free(w.policy.blob);
	free(w.area.h);
	return 0;
}

static void take_all(void)
{
	for (unsigned i = 0; i < 3 * MANY; i++)
		decisions_take(&w.d, &w.policy.p);
}

/* As report_all() of relay.c does each second. */
static int second(void)
{
	const int e = spool_sync(w.spool);

	if (e == 0)
		decisions_written(&w.d);
	decisions_take(&w.d, &w.policy.p);
	return e;
}

static void the_disk(bool works)
{
	disk.bad_sync = works ? 0 : 1;
	disk.bad_write = 0;
}

/* Every entry up to the last: done once and answered once, by "applied" or "refused" as it has to be. `health`: alerts besides. */
static void assert_answered(unsigned health)
{
	unsigned answers[MANY] = { 0 }, others = 0;
	struct report_record rec;
	uint64_t seq = 0;
	char *data;
	size_t len, at;

	while (spool_read(w.spool, seq, &seq, &data, &len) == 0) {
		unsigned i = 0;

		at = history_head(data, len, &rec);
		assert_true(at > 0);
		data[len - 1] = '\0';
		if (rec.event == EVENT_DECISION) {
			while (i < w.sent && decided_name(stream[i].entry) != rec.entry)
				i++;
			assert_true(i < w.sent);
			answers[i]++;
			assert_non_null(strstr(data + at, beyond(i) ? "\"refused\"" : "\"applied\""));
		} else {
			others++;
		}
		free(data);
	}
	for (unsigned i = 0; i < w.sent; i++) {
		assert_int_equal(answers[i], !elsewhere(i));
		assert_int_equal(w.done[i], !elsewhere(i) && !beyond(i));
	}
	assert_int_equal(others, health);
}

/* ---- tests ---- */

static void usual(void **state)
{
	(void)state;
	send_decisions(MANY);
	take_all();
	assert_int_equal(w.kept, MANY);
	assert_int_equal(w.d.unwritten, 0);
	assert_answered(0);
	w.kept = 0;			/* the stream is read from its beginning */
	kill_relay();
	take_all();
	assert_int_equal(w.kept, MANY);
	assert_answered(0);
}

/* Lines of the log while all are taken that hold `text`. */
static unsigned logged(const char *text)
{
	FILE *f = tmpfile();
	int saved = dup(STDERR_FILENO);
	char line[2000];
	unsigned n = 0;

	assert_true(f && saved >= 0 && dup2(fileno(f), STDERR_FILENO) >= 0);
	take_all();
	assert_true(dup2(saved, STDERR_FILENO) >= 0);
	close(saved);
	rewind(f);
	while (fgets(line, sizeof(line), f))
		n += strstr(line, text) != NULL;
	fclose(f);
	return n;
}

static void on_the_log_once(void **state)
{
	(void)state;
	send_decisions(3);
	assert_int_equal(logged("decision b"), 3);
	send_decisions(3);		/* b3, one for another gateway, b5: beyond the policy */
	assert_int_equal(logged("decision b5: block 10.20.0.15 203.0.113.9 by alice: refused: beyond the local policy's max_ttl"), 1);
}

/* [DS3] */
static void failing_disk(void **state)
{
	(void)state;
	send_decisions(10);
	take_all();
	the_disk(false);
	send_decisions(40);
	take_all();
	assert_int_equal(w.at, 50);
	assert_int_equal(w.kept, 10);
	assert_int_equal(w.d.unwritten, 32);
	assert_true(second() < 0);
	the_disk(true);
	assert_int_equal(second(), 0);
	assert_int_equal(w.kept, 50);
	assert_int_equal(w.d.unwritten, 0);
	assert_answered(0);
}

/* [DS2] */
static void relay_ends_meanwhile(void **state)
{
	(void)state;
	the_disk(false);
	send_decisions(50);
	for (unsigned i = 0; i < 4; i++) {
		take_all();
		assert_int_equal(w.at, 50);
		assert_int_equal(w.kept, 0);
		kill_relay();
	}
	the_disk(true);
	take_all();
	assert_int_equal(w.kept, 50);
	assert_answered(0);
}

/* [DS3] */
static void too_many(void **state)
{
	unsigned at;

	(void)state;
	the_disk(false);
	send_decisions(MANY);
	take_all();
	assert_int_equal(w.d.unwritten, DECISIONS_UNWRITTEN);
	assert_true(w.d.full);
	assert_false(elsewhere(w.at));	/* those wait for nothing */
	at = w.at;
	for (unsigned i = 0; i < 10; i++)
		assert_true(second() < 0);
	assert_int_equal(w.at, at);
	kill_relay();
	take_all();
	assert_int_equal(w.at, at);
	the_disk(true);
	assert_int_equal(second(), 0);
	take_all();
	assert_int_equal(w.kept, MANY);
	assert_answered(1);		/* "decisions-wait" */
}

static void engine_away(void **state)
{
	(void)state;
	w.gone = true;
	send_decisions(20);
	take_all();
	assert_int_equal(w.at, 0);	/* what is to be refused waits as well */
	w.gone = false;
	take_all();
	assert_int_equal(w.kept, 20);
	assert_answered(0);
}

/* The policy's bounds are others when the answer is to be written again: it was done. [DS1] */
static void bounds_change(void **state)
{
	(void)state;
	the_disk(false);
	send_decisions(2);
	take_all();
	kill_relay();
	free(w.policy.blob);
	must_compile("version: 1\nmode: enforce\ninside: [10.0.0.0/8]\n", &w.policy);
	the_disk(true);
	take_all();
	assert_answered(0);
}

/* A disk and an engine that fail now and then, relays that end: with the same guarantees. */
static void all_of_it(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 4000; i++) {
		disk.bad_sync = rng(8) ? 2 : 0;
		disk.bad_write = rng(8) ? 4 : 0;
		w.gone = rng(4) == 0;
		if (w.sent < MANY && rng(3) == 0)
			send_decisions(1);
		if (rng(20) == 0)
			(void)second();
		if (rng(50) == 0)
			kill_relay();
		decisions_take(&w.d, &w.policy.p);
		assert_true(w.kept <= w.at);
	}
	the_disk(true);
	w.gone = false;
	assert_int_equal(second(), 0);
	take_all();
	assert_int_equal(w.sent, MANY);
	assert_int_equal(w.kept, MANY);
	assert_answered(0);
}

int main(void)
{
#define CASE(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		CASE(usual), CASE(on_the_log_once), CASE(failing_disk), CASE(relay_ends_meanwhile), CASE(too_many), CASE(engine_away),
		CASE(bounds_change), CASE(all_of_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
