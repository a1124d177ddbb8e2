/* test_spool_faults.c - spool.h on a disk that fails: writes short, interrupted and refused, syncs that fail once and throw away what
 * they could not write, as Linux does, and power cuts that lose all that was not synced. Against a model that knows only what the
 * calls returned: what a sync answered 0 for is there afterwards, in order, with its content, and no seq of it is given again.
 */
#include <dirent.h>
#include <errno.h>
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

#include "spool.h"

/* ---- the disk ---- */

ssize_t __real_pwrite(int fd, const void *data, size_t len, off_t off);
ssize_t __wrap_pwrite(int fd, const void *data, size_t len, off_t off);
int __wrap_fdatasync(int fd);
int __wrap_fsync(int fd);

#define RANGES 8192

struct range {			/* written, not synced */
	int fd;			/* our own */
	ino_t file;
	off_t off;
	size_t len;
};

static struct {
	struct range range[RANGES];
	unsigned n;
	unsigned bad_write, bad_sync;	/* one in so many fails; 0: none */
	unsigned failed;
} disk;

static uint64_t rng_state;

static uint32_t rng(uint32_t below)
{
	rng_state ^= rng_state << 13;
	rng_state ^= rng_state >> 7;
	rng_state ^= rng_state << 17;
	return (uint32_t)(rng_state >> 32) % below;
}

static ino_t file_of(int fd)
{
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	return st.st_ino;
}

ssize_t __wrap_pwrite(int fd, const void *data, size_t len, off_t off)
{
	static const int errors[] = { EIO, ENOSPC, EINTR };
	ssize_t n;

	if (disk.bad_write && rng(disk.bad_write) == 0) {
		disk.failed++;
		if (len > 1 && rng(2))
			len = 1 + rng((uint32_t)len - 1);	/* short */
		else {
			errno = errors[rng(3)];
			return -1;
		}
	}
	n = __real_pwrite(fd, data, len, off);
	assert_true(disk.n < RANGES);
	if (n > 0)
		disk.range[disk.n++] = (struct range){ dup(fd), file_of(fd), off, (size_t)n };
	return n;
}

/* What was written to this file (0: to all) and not synced is done with: gone, or safe. */
static void settle(ino_t file, bool gone)
{
	static const char zero[70000];
	unsigned kept = 0;

	for (unsigned i = 0; i < disk.n; i++) {
		struct range r = disk.range[i];
		struct stat st;

		if (file && r.file != file) {
			disk.range[kept++] = r;
			continue;
		}
		if (gone && fstat(r.fd, &st) == 0 && st.st_size > r.off)	/* not beyond a truncation */
			(void)!__real_pwrite(r.fd, zero, (size_t)(st.st_size - r.off < (off_t)r.len ? st.st_size - r.off :
												  (off_t)r.len), r.off);
		close(r.fd);
	}
	disk.n = kept;
}

int __wrap_fdatasync(int fd)
{
	bool fails = disk.bad_sync && rng(disk.bad_sync) == 0;

	disk.failed += fails;
	settle(file_of(fd), fails);
	errno = EIO;
	return fails ? -1 : 0;
}

int __wrap_fsync(int fd)
{
	(void)fd;
	errno = EIO;
	return disk.bad_sync && rng(disk.bad_sync) == 0 ? -1 : 0;
}

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
	settle(0, false);
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

static void check_all(struct spool *s, uint64_t durable, unsigned long turn)
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
		settle(0, true);	/* power cut */
		disk.bad_write = disk.bad_sync = 0;
		assert_int_equal(spool_open(dir, 1ULL << 30, &s), 0);
		assert_true(spool_next_seq(s) > durable);
		check_all(s, durable, turn);
		durable = spool_next_seq(s) - 1;
	}
	disk.bad_write = disk.bad_sync = 0;
	assert_int_equal(spool_sync(s), 0);
	durable = spool_next_seq(s) - 1;
	check_all(s, durable, 0);
	spool_close(s);
	assert_true(crashes > 50 && lost_tries > 100 && disk.failed > 200);
	print_message("%llu records, %u power cuts, %u failed syncs, %u faults\n", (unsigned long long)durable, crashes, lost_tries,
		      disk.failed);
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
	check_all(s, 3, 0);
	disk.bad_sync = 0;
	assert_int_equal(spool_sync(s), 0);
	spool_close(s);
	settle(0, true);
	assert_int_equal(spool_open(dir, 1 << 20, &s), 0);
	assert_int_equal(spool_next_seq(s), 7);
	check_all(s, 6, 0);
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
	settle(0, false);
	assert_int_equal(umount2(dir, MNT_DETACH), 0);
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
		cmocka_unit_test_setup_teardown(random_faults, setup, teardown),
		cmocka_unit_test_setup_teardown(small_disk, setup, teardown),
		cmocka_unit_test_setup_teardown(missing_are_counted, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
