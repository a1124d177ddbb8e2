/* test_spool_faults.c - spool.h on a disk that fails: writes short, interrupted and refused, syncs that fail once and are good the
 * next time about what they never wrote, processes that end, and power cuts that lose all that was not synced. Against a model that
 * knows only what the calls returned: what a sync answered 0 for, and what was ever read, is there afterwards, in order, with its
 * content, and no seq of it is given again.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "compiler.h"
#include "spool.h"
#include "unit/faulty_disk.h"

/* ---- the model ---- */

static char dir[64];

static void remove_files(void)
{
	struct dirent *e;
	DIR *d = opendir(dir);

	while (d && (e = readdir(d)))
		if (e->d_name[0] != '.')
			unlinkat(dirfd(d), e->d_name, 0);
	if (d)
		closedir(d);
}

static int setup(void **state)
{
	(void)state;
	snprintf(dir, sizeof(dir), "/tmp/egressd-test-faults.XXXXXX");
	memset(&disk, 0, sizeof(disk));
	return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	power_cut();
	umount2(dir, MNT_DETACH);	/* small_disk() may have ended half-way */
	remove_files();
	return rmdir(dir);
}

#define RECORDS 20000

static uint32_t content[RECORDS];	/* by seq: what was last appended under it */

#define TEXT 2000

static size_t text_of(uint64_t seq, char to[TEXT])
{
	return (size_t)snprintf(to, TEXT, "%llu:%u:%.*s", (unsigned long long)seq, content[seq], (int)(content[seq] % 900),
			       "................................................................................"
			       "................................................................................");
}

/* The last one that is there: somebody has been told of it. */
static uint64_t check_all(struct spool *s, uint64_t durable, unsigned long turn)
{
	uint64_t seq = 0, last = 0;
	char text[TEXT], *data;
	size_t len;

	while (spool_read(s, last, &seq, &data, &len) == 0) {
		size_t want = text_of(seq, text);

		if (seq != last + 1 || len != want || memcmp(data, text, len) != 0)
			fail_msg("turn %lu: after %llu comes %llu: '%.40s', wanted '%.40s'", turn, (unsigned long long)last,
				 (unsigned long long)seq, data, text);
		free(data);
		last = seq;
	}
	if (last < durable)
		fail_msg("turn %lu: %llu were synced, %llu are there", turn, (unsigned long long)durable,
			 (unsigned long long)last);
	return last;
}

static void random_faults(void **state)
{
	const char *seed = getenv("SEED");
	uint64_t durable = 0;
	struct spool *s = NULL;
	unsigned crashes = 0, lost_tries = 0;

	(void)state;
	rng_state = seed ? strtoull(seed, NULL, 10) : 20261123;
	assert_int_equal(spool_open(dir, 1ULL << 30, &s), 0);
	for (unsigned long turn = 0; turn < 6000 && spool_next_seq(s) < RECORDS - 10; turn++) {
		disk.bad_write = turn / 500 % 3 == 1 ? 20 : 0;
		disk.bad_sync = turn / 500 % 3 ? 6 : 0;
		for (unsigned n = rng(5); n; n--) {
			uint64_t seq = spool_next_seq(s), got;
			char text[TEXT];

			content[seq] = rng(1u << 30);
			if (spool_append(s, text, text_of(seq, text), &got) == 0)
				assert_int_equal(got, seq);
		}
		if (spool_sync(s) == 0)
			durable = spool_next_seq(s) - 1;
		else
			lost_tries++;
		if (rng(40))
			continue;
		crashes++;
		spool_close(s);
		if (rng(2))
			power_cut();
		if (rng(2))
			disk.bad_write = disk.bad_sync = 0;
		assert_int_equal(spool_open(dir, 1ULL << 30, &s), 0);
		assert_true(spool_next_seq(s) > durable);
		durable = MAX_OF(durable, check_all(s, disk.bad_sync ? 0 : durable, turn));
	}
	disk.bad_write = disk.bad_sync = 0;
	assert_int_equal(spool_sync(s), 0);
	durable = spool_next_seq(s) - 1;
	check_all(s, durable, 0);
	spool_close(s);
	assert_true(crashes > 50 && lost_tries > 100 && disk.failed_writes > 200 && disk.failed_syncs > 200);
	print_message("%llu records, %u restarts, %u failed tries, %u failed writes, %u failed syncs\n", (unsigned long long)durable,
		      crashes, lost_tries, disk.failed_writes, disk.failed_syncs);
}

/* The very case: a sync fails once, the next one says 0. */
static void a_failed_sync_forgets_nothing(void **state)
{
	struct spool *s = NULL;

	(void)state;
	rng_state = 1;
	assert_int_equal(spool_open(dir, 1 << 20, &s), 0);
	for (unsigned i = 1; i <= 6; i++) {
		char text[TEXT];
		uint64_t seq;

		content[i] = i;
		assert_int_equal(spool_append(s, text, text_of(i, text), &seq), 0);
		if (i == 3)
			assert_int_equal(spool_sync(s), 0);
	}
	disk.bad_sync = 1;
	assert_int_equal(spool_sync(s), -EIO);
	assert_int_equal(check_all(s, 3, 0), 3);
	disk.bad_sync = 0;
	assert_int_equal(spool_sync(s), 0);
	spool_close(s);
	power_cut();
	assert_int_equal(spool_open(dir, 1 << 20, &s), 0);
	assert_int_equal(spool_next_seq(s), 7);
	check_all(s, 6, 0);
	assert_int_equal(spool_lost(s), 0);
	spool_close(s);
}

/* Short and interrupted writes are no failure. */
static void gone_on_with(void **state)
{
	struct spool *s = NULL;
	char text[TEXT];
	uint64_t seq;

	(void)state;
	rng_state = 7;
	disk.mild = true;
	disk.bad_write = 2;
	assert_int_equal(spool_open(dir, 1 << 20, &s), 0);
	for (unsigned i = 1; i <= 300; i++) {
		content[i] = i * 7;
		assert_int_equal(spool_append(s, text, text_of(i, text), &seq), 0);
		assert_int_equal(spool_sync(s), 0);
	}
	assert_true(disk.failed_writes > 300);
	spool_close(s);
	power_cut();
	assert_int_equal(spool_open(dir, 1 << 20, &s), 0);
	assert_int_equal(check_all(s, 300, 0), 300);
	spool_close(s);
}

/* A process ends between a failed sync and its taking back: what it left can be read, and is not on the disk. */
static void an_earlier_process_failed(void **state)
{
	char path[200], text[TEXT], left[4000];
	struct spool *s = NULL;
	ssize_t len;
	uint64_t seq;
	int fd;

	(void)state;
	rng_state = 1;
	snprintf(path, sizeof(path), "%s/%016x", dir, 1);
	assert_int_equal(spool_open(dir, 1 << 20, &s), 0);
	for (unsigned i = 1; i <= 6; i++) {
		content[i] = 100 + i;
		assert_int_equal(spool_append(s, text, text_of(i, text), &seq), 0);
	}
	assert_int_equal(spool_sync(s), 0);
	spool_close(s);
	fd = open(path, O_RDWR);
	len = read(fd, left, sizeof(left));
	assert_in_range(len, 200, sizeof(left) - 1);
	close(fd);
	unlink(path);
	fd = open(path, O_RDWR | O_CREAT, 0600);
	assert_int_equal(__wrap_pwrite(fd, left, (size_t)len, 0), len);
	disk.bad_sync = 1;
	assert_int_equal(__wrap_fdatasync(fd), -1);
	close(fd);

	assert_int_equal(spool_open(dir, 1 << 20, &s), 0);	/* the disk fails still */
	assert_int_equal(check_all(s, 0, 0), 0);
	assert_int_equal(spool_next_seq(s), 7);
	assert_int_equal(spool_sync(s), -EIO);
	disk.bad_sync = 0;
	assert_int_equal(spool_sync(s), 0);
	assert_int_equal(check_all(s, 6, 0), 6);
	spool_close(s);
	power_cut();
	assert_int_equal(spool_open(dir, 1 << 20, &s), 0);
	assert_int_equal(check_all(s, 6, 0), 6);
	spool_close(s);
}

/* A failed file whose tail came back after a power cut, beside the one that was synced instead: the later one is right. */
static void the_later_file_is_right(void **state)
{
	char path[200], other[200];
	struct spool *s = NULL;
	uint64_t seq;
	char *data;
	size_t len;

	(void)state;
	snprintf(path, sizeof(path), "%s/%016x", dir, 1);
	snprintf(other, sizeof(other), "%s/other", dir);
	assert_int_equal(spool_open(dir, 1 << 20, &s), 0);
	for (unsigned i = 1; i <= 6; i++)
		assert_int_equal(spool_append(s, "old", 3, &seq), 0);
	assert_int_equal(spool_sync(s), 0);
	spool_close(s);
	assert_int_equal(rename(path, other), 0);
	assert_int_equal(spool_open(dir, 1 << 20, &s), 0);
	for (unsigned i = 1; i <= 5; i++) {
		assert_int_equal(spool_append(s, "new", 3, &seq), 0);
		if (i == 3)
			assert_int_equal(spool_sync(s), 0);
	}
	rng_state = 1;
	disk.bad_sync = 1;
	assert_int_equal(spool_sync(s), -EIO);
	disk.bad_sync = 0;
	assert_int_equal(spool_sync(s), 0);
	spool_close(s);
	assert_int_equal(rename(other, path), 0);
	assert_int_equal(spool_open(dir, 1 << 20, &s), 0);
	assert_int_equal(spool_next_seq(s), 6);
	assert_int_equal(spool_lost(s), 0);
	for (seq = 0; spool_read(s, seq, &seq, &data, &len) == 0; free(data))
		assert_memory_equal(data, seq < 4 ? "old" : "new", len);
	assert_int_equal(seq, 5);
	spool_close(s);
}

/* [S2] A record breaks while the spool is open: it and what follows it is counted, the rest is read on. */
static void broken_later(void **state)
{
	static char large[60000];
	struct spool *s = NULL;
	uint64_t seq, last = 0;
	unsigned n = 0;
	char path[200], *data;
	size_t len;

	(void)state;
	assert_int_equal(spool_open(dir, 1ULL << 30, &s), 0);
	for (unsigned i = 0; i < 150; i++)
		assert_int_equal(spool_append(s, large, sizeof(large), &seq), 0);
	assert_int_equal(spool_sync(s), 0);
	for (unsigned file = 0; file < 3; file++) {	/* 1-69, 70-138, 139-150: the eleventh record of each */
		int fd;

		snprintf(path, sizeof(path), "%s/%016x", dir, 1 + 69 * file);
		fd = open(path, O_WRONLY);
		assert_int_equal(__real_pwrite(fd, "!", 1, 10 * 60032 + 500), 1);
		close(fd);
	}
	for (; spool_read(s, last, &seq, &data, &len) == 0; n++) {
		assert_true(seq > last && (seq - 1) % 69 < 10);
		assert_int_equal(len, sizeof(large));
		free(data);
		last = seq;
	}
	assert_int_equal(n, 30);
	assert_int_equal(spool_lost(s), 59 + 59 + 2);
	assert_int_equal(spool_append(s, "after", 5, &seq), 0);
	assert_int_equal(seq, 151);
	assert_int_equal(spool_sync(s), 0);
	assert_int_equal(spool_read(s, last, &seq, &data, &len), 0);
	assert_int_equal(seq, 151);
	free(data);
	spool_close(s);
	assert_int_equal(spool_open(dir, 1ULL << 30, &s), 0);
	assert_int_equal(spool_lost(s), 59 + 59 + 2);
	spool_close(s);
}

/* [S5] Large records: 8 MiB of them wait, and none is lost by that. */
static void waiting_bytes(void **state)
{
	static char large[60000];
	struct spool *s = NULL;
	unsigned n = 0;
	uint64_t seq;

	(void)state;
	rng_state = 1;
	assert_int_equal(spool_open(dir, 1ULL << 30, &s), 0);
	disk.bad_sync = 1;
	while (spool_append(s, large, sizeof(large), &seq) == 0)
		assert_int_equal(seq, ++n);
	assert_int_equal(n, (8 << 20) / sizeof(large));
	assert_int_equal(spool_append(s, large, sizeof(large), &seq), -ENOSPC);
	disk.bad_sync = 0;
	assert_int_equal(spool_append(s, large, sizeof(large), &seq), 0);
	assert_int_equal(seq, n + 1);
	spool_close(s);
	power_cut();
	assert_int_equal(spool_open(dir, 1ULL << 30, &s), 0);
	assert_int_equal(spool_next_seq(s), n + 1);
	assert_int_equal(spool_lost(s), 0);
	spool_close(s);
}

/* A file system with no room: records wait, then all are there. */
static void small_disk(void **state)
{
	struct spool *s = NULL;
	char large[30000], *data;
	uint64_t seq = 0;
	unsigned n = 0;
	size_t len;

	(void)state;
	if (geteuid() != 0 || mount("egressd-test", dir, "tmpfs", 0, "size=256k") < 0) {
		print_message("mounting a tmpfs is not permitted here\n");
		skip();
	}
	memset(large, 'x', sizeof(large));
	assert_int_equal(spool_open(dir, 1ULL << 30, &s), 0);
	while (n < 20) {
		assert_int_equal(spool_append(s, large, sizeof(large), &seq), 0);
		n++;
		if (spool_sync(s) < 0)
			break;
	}
	assert_in_range(n, 4, 10);
	assert_true(spool_sync(s) < 0);
	assert_int_equal(mount("egressd-test", dir, "tmpfs", MS_REMOUNT, "size=4m"), 0);
	assert_int_equal(spool_sync(s), 0);
	spool_close(s);
	assert_int_equal(spool_open(dir, 1ULL << 30, &s), 0);
	for (seq = 0; spool_read(s, seq, &seq, &data, &len) == 0; free(data))
		assert_int_equal(len, sizeof(large));
	assert_int_equal(seq, n);
	assert_int_equal(spool_lost(s), 0);
	spool_close(s);
}

/* [S2] The middle of three segments is cut: how many are missing is told by the next one's name. */
static void missing_are_counted(void **state)
{
	struct spool *s = NULL;
	static char large[60000];
	char path[200];
	uint64_t seq;

	(void)state;
	assert_int_equal(spool_open(dir, 1ULL << 30, &s), 0);
	for (unsigned i = 0; i < 200; i++) {	/* 12 MB, in segments of 4 */
		assert_int_equal(spool_append(s, large, sizeof(large), &seq), 0);
		assert_int_equal(spool_sync(s), 0);
	}
	spool_close(s);
	snprintf(path, sizeof(path), "%s/%016x", dir, 70);	/* 69 records of 60,032 bytes fit into the first */
	assert_int_equal(truncate(path, 10 * 60032 + 5), 0);
	assert_int_equal(spool_open(dir, 1ULL << 30, &s), 0);
	assert_int_equal(spool_lost(s), 59);
	assert_int_equal(spool_next_seq(s), 201);
	spool_close(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_failed_sync_forgets_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(gone_on_with, setup, teardown),
		cmocka_unit_test_setup_teardown(an_earlier_process_failed, setup, teardown),
		cmocka_unit_test_setup_teardown(the_later_file_is_right, setup, teardown),
		cmocka_unit_test_setup_teardown(broken_later, setup, teardown),
		cmocka_unit_test_setup_teardown(waiting_bytes, setup, teardown),
		cmocka_unit_test_setup_teardown(random_faults, setup, teardown),
		cmocka_unit_test_setup_teardown(small_disk, setup, teardown),
		cmocka_unit_test_setup_teardown(missing_are_counted, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
