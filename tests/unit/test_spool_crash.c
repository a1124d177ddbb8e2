/* test_spool_crash.c - spool.h when the process ends at any point: before each write and sync of it, between any two calls, and with
 * the last file cut to every length that its synced part allows. Each such folder is opened as the next process would. Against a
 * model that is an array of records and the number up to which a sync has answered 0.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "compiler.h"
#include "spool.h"
#include "unit/faulty_disk.h"

#define CAP (1ULL << 30)
#define MANY 400

static char dir[64], copy[64];

/* ---- the model ---- */

static struct {
	char text[MANY][64];	/* by seq */
	size_t pad[MANY];	/* as many more bytes */
	uint64_t appended, durable, acked;
	unsigned opened;	/* folders */
	uint64_t step;		/* between two lengths of the last file */
} m;

static char record[64 << 10];

static size_t record_of(uint64_t seq)
{
	const size_t n = strlen(m.text[seq]);

	memset(record, 'p', n + m.pad[seq]);
	memcpy(record, m.text[seq], n);
	return n + m.pad[seq];
}

/* ---- a folder as a crash leaves it ---- */

static void empty(const char *path)
{
	DIR *d = opendir(path);
	struct dirent *e;

	while (d && (e = readdir(d)))
		if (e->d_name[0] != '.')
			unlinkat(dirfd(d), e->d_name, 0);
	if (d)
		closedir(d);
}

static void copy_file(const char *name, off_t len)
{
	static char data[8 << 20];
	char path[400];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_RDONLY);
	n = read(fd, data, sizeof(data));
	assert_in_range(n, 0, sizeof(data) - 1);
	close(fd);
	snprintf(path, sizeof(path), "%s/%s", copy, name);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	n = len < n ? (ssize_t)len : n;
	assert_int_equal(write(fd, data, (size_t)n), n);
	close(fd);
}

/* The newest segment's name; files before it that do not change are linked. */
static void copy_folder(char last[20], off_t *ret_size)
{
	struct dirent *e;
	struct stat st;
	DIR *d = opendir(dir);

	assert_non_null(d);
	last[0] = '\0';
	while ((e = readdir(d)))
		if (strlen(e->d_name) == 16 && strcmp(e->d_name, last) > 0)
			memcpy(last, e->d_name, 17);
	rewinddir(d);
	empty(copy);
	*ret_size = 0;
	while ((e = readdir(d))) {
		char from[400], to[400];

		if (e->d_name[0] == '.')
			continue;
		snprintf(from, sizeof(from), "%s/%s", dir, e->d_name);
		snprintf(to, sizeof(to), "%s/%s", copy, e->d_name);
		if (strcmp(e->d_name, last) == 0) {
			assert_int_equal(stat(from, &st), 0);
			*ret_size = st.st_size;
		} else if (e->d_name[0] == '0')
			assert_int_equal(link(from, to), 0);
		else
			copy_file(e->d_name, 4096);
	}
	closedir(d);
}

/* ---- what must be true of it ---- */

/* Records after what was acknowledged, in order, without a gap; the seq behind the last. */
static uint64_t read_on(struct spool *s, const char *added, uint64_t added_seq)
{
	uint64_t last = spool_acked(s), seq;
	char *data;
	size_t len;

	while (spool_read(s, last, &seq, &data, &len) == 0) {
		if (seq != last + 1)
			fail_msg("after %llu comes %llu", (unsigned long long)last, (unsigned long long)seq);
		if (seq == added_seq) {
			assert_int_equal(len, strlen(added));
			assert_memory_equal(data, added, len);
		} else {
			assert_true(seq <= m.appended);
			assert_int_equal(len, record_of(seq));
			assert_memory_equal(data, record, len);
		}
		free(data);
		last = seq;
	}
	return last + 1;
}

static void next_process(uint64_t durable)
{
	static const char added[] = "of the next process";
	struct spool *s = NULL;
	uint64_t next, seq;

	m.opened++;
	assert_int_equal(spool_open(copy, CAP, &s), 0);
	assert_int_equal(spool_acked(s), m.acked);
	next = spool_next_seq(s);
	if (next <= MAX_OF(durable, m.acked) || next > m.appended + 1)
		fail_msg("next is %llu: %llu durable, %llu acknowledged, %llu appended", (unsigned long long)next,
			 (unsigned long long)durable, (unsigned long long)m.acked, (unsigned long long)m.appended);
	assert_int_equal(read_on(s, "", 0), next);
	assert_int_equal(spool_append(s, added, strlen(added), &seq), 0);
	assert_int_equal(seq, next);
	assert_int_equal(spool_sync(s), 0);
	assert_int_equal(read_on(s, added, next), next + 1);
	spool_close(s);
	assert_int_equal(spool_open(copy, CAP, &s), 0);
	assert_int_equal(spool_next_seq(s), next + 1);
	assert_int_equal(spool_lost(s), 0);
	assert_int_equal(read_on(s, added, next), next + 1);
	spool_close(s);
}

/* The model's own: bytes of the last file that a sync has answered 0 for. Records of a file are those from its name on. */
static off_t synced_size(const char *last)
{
	off_t n = 0;

	for (uint64_t seq = strtoull(last, NULL, 16); seq && seq <= m.durable; seq++)
		n += 32 + (off_t)record_of(seq);
	return n;
}

static void crash_here(void)
{
	void (*const before)(void) = disk.before;
	const unsigned bad_sync = disk.bad_sync, bad_write = disk.bad_write;
	char last[20], name[400];
	off_t size, from;

	disk.before = NULL;	/* the next process is not looked at, and its disk is good */
	disk.bad_sync = disk.bad_write = 0;
	copy_folder(last, &size);
	from = synced_size(last);
	assert_true(from <= size);
	for (off_t len = from;; len = len + (off_t)m.step < size ? len + (off_t)m.step : size) {
		if (last[0]) {
			copy_folder(name, &size);
			copy_file(last, len);
		}
		next_process(m.durable);
		if (len >= size)
			break;
	}
	disk.before = before;
	disk.bad_sync = bad_sync;
	disk.bad_write = bad_write;
}

/* ---- what the process does ---- */

static void append(struct spool *s, size_t pad)
{
	uint64_t seq = m.appended + 1, got;

	assert_true(seq < MANY);
	snprintf(m.text[seq], sizeof(m.text[seq]), "%llu:%u", (unsigned long long)seq, rng(1u << 30));
	m.pad[seq] = pad;
	m.appended = seq;
	assert_int_equal(spool_append(s, record, record_of(seq), &got), 0);
	assert_int_equal(got, seq);
}

static void sync_all(struct spool *s)
{
	if (spool_sync(s) == 0)
		m.durable = m.appended;
}

static void ack(struct spool *s, uint64_t seq)
{
	m.acked = MAX_OF(m.acked, seq);
	assert_int_equal(spool_ack(s, seq), 0);
}

static int setup(void **state)
{
	(void)state;
	memset(&disk, 0, sizeof(disk));
	memset(&m, 0, sizeof(m));
	m.step = 1;
	rng_state = 20261123;
	snprintf(dir, sizeof(dir), "/tmp/egressd-test-crash.XXXXXX");
	snprintf(copy, sizeof(copy), "/tmp/egressd-test-copy.XXXXXX");
	return mkdtemp(dir) && mkdtemp(copy) ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	disk.before = NULL;
	power_cut();
	empty(dir);
	empty(copy);
	return rmdir(dir) | rmdir(copy);
}

static void at_every_point(void **state)
{
	struct spool *s = NULL;

	(void)state;
	disk.before = crash_here;
	assert_int_equal(spool_open(dir, CAP, &s), 0);
	for (unsigned turn = 0; turn < 12; turn++) {
		for (unsigned n = rng(4); n; n--) {
			append(s, rng(12));
			crash_here();
		}
		disk.bad_sync = turn % 4 == 2;
		sync_all(s);
		disk.bad_sync = 0;
		crash_here();
		if (turn % 3 == 2 && m.durable)
			ack(s, 1 + rng((uint32_t)m.durable));
		crash_here();
		if (turn % 4 != 2 || turn < 5)
			continue;
		spool_close(s);		/* records wait, their sync has failed: these may be gone, no others */
		assert_int_equal(spool_open(dir, CAP, &s), 0);
		assert_in_range(spool_next_seq(s) - 1, m.durable, m.appended);
		m.durable = m.appended = spool_next_seq(s) - 1;
	}
	spool_close(s);
	assert_true(m.opened > 500);
	print_message("%u folders opened, %llu records\n", m.opened, (unsigned long long)m.appended);
}

/* One file is full and the next begins. */
static void between_two_files(void **state)
{
	struct spool *s = NULL;

	(void)state;
	m.step = 7919;
	assert_int_equal(spool_open(dir, CAP, &s), 0);
	for (unsigned i = 0; i < 68; i++)
		append(s, 60000);
	sync_all(s);
	ack(s, 60);
	disk.before = crash_here;
	for (unsigned i = 0; i < 3; i++)
		append(s, 60000);
	disk.bad_sync = 1;
	sync_all(s);
	disk.bad_sync = 0;
	assert_int_equal(m.durable, 68);
	sync_all(s);
	assert_int_equal(m.durable, 71);
	crash_here();
	spool_close(s);
	assert_true(m.opened > 30);
	print_message("%u folders opened\n", m.opened);
}

/* `acked` cut, or with any bit flipped: what it says, or nothing; a number of its own would hide records. */
static void acked_broken(void **state)
{
	struct spool *s = NULL;
	char path[200], good[64], bad[64];
	unsigned none = 0;
	ssize_t len;
	int fd;

	(void)state;
	snprintf(path, sizeof(path), "%s/acked", dir);
	assert_int_equal(spool_open(dir, CAP, &s), 0);
	for (unsigned i = 0; i < 112; i++)
		append(s, 0);
	sync_all(s);
	ack(s, 111);
	spool_close(s);
	fd = open(path, O_RDWR);
	len = read(fd, good, sizeof(good));
	assert_in_range(len, 7, sizeof(good) - 1);
	for (ssize_t i = 0; i < len * 9; i++) {
		memcpy(bad, good, (size_t)len);
		if (i >= len)
			bad[(i - len) / 8] ^= (char)(1 << (i - len) % 8);
		assert_int_equal(ftruncate(fd, 0), 0);
		assert_int_equal(__real_pwrite(fd, bad, (size_t)(i < len ? i : len), 0), i < len ? i : len);
		assert_int_equal(spool_open(dir, CAP, &s), 0);
		assert_true(spool_acked(s) == 0 || spool_acked(s) == 111);
		assert_int_equal(spool_next_seq(s), 113);
		none += spool_acked(s) == 0;
		spool_close(s);
	}
	close(fd);
	assert_true(none > 50);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(at_every_point, setup, teardown),
		cmocka_unit_test_setup_teardown(between_two_files, setup, teardown),
		cmocka_unit_test_setup_teardown(acked_broken, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
