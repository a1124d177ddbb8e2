/* test_spool.c - spool.h: what was synced is read back whole and in order, whatever happened to the disk in between. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "spool.h"

static char dir[64];

static void each_file(void (*fn)(const char *path))
{
	char path[400];
	struct dirent *e;
	DIR *d = opendir(dir);

	assert_non_null(d);
	while ((e = readdir(d)))
		if (e->d_name[0] != '.') {
			snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
			fn(path);
		}
	closedir(d);
}

static void remove_file(const char *path)
{
	unlink(path);
}

static int setup(void **state)
{
	(void)state;
	snprintf(dir, sizeof(dir), "/tmp/egressd-test-spool.XXXXXX");
	return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	each_file(remove_file);
	return rmdir(dir);
}

static struct spool *opened(uint64_t cap)
{
	struct spool *s = NULL;

	assert_int_equal(spool_open(dir, cap, &s), 0);
	return s;
}

static void text_of(uint64_t seq, char *to, size_t size)
{
	snprintf(to, size, "record %llu %.*s", (unsigned long long)seq, (int)(seq % 50),
		 "..................................................");
}

static void put(struct spool *s, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		uint64_t expect = spool_next_seq(s), seq;
		char text[100];

		text_of(expect, text, sizeof(text));
		assert_int_equal(spool_append(s, text, strlen(text), &seq), 0);
		assert_int_equal(seq, expect);
	}
}

/* Reads all after `after`; each must be the right text; returns the last seq. */
static uint64_t read_all(struct spool *s, uint64_t after, unsigned *ret_count)
{
	uint64_t seq = after, last = after;
	unsigned n = 0;
	char *data;
	size_t len;

	while (spool_read(s, last, &seq, &data, &len) == 0) {
		char text[100];

		assert_true(seq > last);
		text_of(seq, text, sizeof(text));
		assert_int_equal(len, strlen(text));
		assert_memory_equal(data, text, len);
		free(data);
		last = seq;
		n++;
	}
	*ret_count = n;
	return last;
}

static void order_and_reopen(void **state)
{
	struct spool *s = opened(1 << 20);
	unsigned n;

	(void)state;
	assert_int_equal(spool_next_seq(s), 1);
	put(s, 5);
	assert_int_equal(read_all(s, 0, &n), 0);	/* not synced: not offered */
	assert_int_equal(spool_sync(s), 0);
	assert_int_equal(read_all(s, 0, &n), 5);
	assert_int_equal(n, 5);
	assert_int_equal(spool_ack(s, 3), 0);
	assert_int_equal(spool_ack(s, 2), 0);		/* never back */
	assert_int_equal(spool_acked(s), 3);
	put(s, 5);
	assert_int_equal(spool_sync(s), 0);
	spool_close(s);
	s = opened(1 << 20);
	assert_int_equal(spool_next_seq(s), 11);
	assert_int_equal(spool_acked(s), 3);
	assert_int_equal(read_all(s, spool_acked(s), &n), 10);
	assert_int_equal(n, 7);
	put(s, 1);
	assert_int_equal(spool_sync(s), 0);
	assert_int_equal(read_all(s, 0, &n), 11);
	assert_int_equal(n, 11);
	spool_close(s);
}

static char segment[400];

static void note_segment(const char *path)
{
	if (!strstr(path, "acked"))
		snprintf(segment, sizeof(segment), "%s", path);
}

static size_t load(char *to, size_t size)
{
	int fd = open(segment, O_RDONLY);
	ssize_t n = read(fd, to, size);

	close(fd);
	assert_true(n > 0);
	return (size_t)n;
}

static void save(const char *from, size_t len)
{
	int fd = open(segment, O_WRONLY | O_TRUNC);

	assert_int_equal(write(fd, from, len), len);
	close(fd);
}

/* [S2] cut at every byte, and every bit flipped: earlier records stand, none is ever wrong, and seqs are not given twice when what
 * was lost had been acknowledged. */
static void torn(void **state)
{
	static char whole[4096], bad[4096];
	struct spool *s = opened(1 << 20);
	size_t len;
	unsigned n;

	(void)state;
	put(s, 6);
	assert_int_equal(spool_sync(s), 0);
	assert_int_equal(spool_ack(s, 6), 0);
	spool_close(s);
	each_file(note_segment);
	len = load(whole, sizeof(whole));
	for (size_t cut = 0; cut < len; cut++) {
		save(whole, cut);
		s = opened(1 << 20);
		read_all(s, 0, &n);
		assert_true(n <= 5);
		assert_int_equal(spool_next_seq(s), 7);
		put(s, 2);
		assert_int_equal(spool_sync(s), 0);
		assert_int_equal(read_all(s, 6, &n), 8);
		assert_int_equal(n, 2);
		spool_close(s);
		each_file(remove_file);
		s = opened(1 << 20);
		assert_int_equal(spool_next_seq(s), 1);
		spool_close(s);
		/* as before: the six, acknowledged */
		s = opened(1 << 20);
		put(s, 6);
		assert_int_equal(spool_sync(s), 0);
		assert_int_equal(spool_ack(s, 6), 0);
		spool_close(s);
	}
	for (size_t bit = 0; bit < len * 8; bit++) {
		memcpy(bad, whole, len);
		bad[bit / 8] = (char)(bad[bit / 8] ^ 1 << bit % 8);
		save(bad, len);
		s = opened(1 << 20);
		read_all(s, 0, &n);
		assert_true(n <= 5);	/* the record with the flipped bit, and what follows, is gone */
		spool_close(s);
	}
	save(whole, len);
	s = opened(1 << 20);
	read_all(s, 0, &n);
	assert_int_equal(n, 6);
	spool_close(s);
}

static uint64_t on_disk;

static void add_size(const char *path)
{
	struct stat st;

	if (stat(path, &st) == 0)
		on_disk += (uint64_t)st.st_size;
}

/* [S2] A segment that somebody removed is counted, and no end of the spool. */
static void segment_removed(void **state)
{
	struct spool *s = opened(100ULL << 20);
	static char large[60000];
	uint64_t seq, first = 0;
	char *data;
	size_t len;

	(void)state;
	for (unsigned i = 0; i < 200; i++)	/* 12 MB */
		assert_int_equal(spool_append(s, large, sizeof(large), &seq), 0);
	assert_int_equal(spool_sync(s), 0);
	snprintf(segment, sizeof(segment), "%s/%016x", dir, 1);
	assert_int_equal(unlink(segment), 0);
	assert_int_equal(spool_read(s, 0, &first, &data, &len), 0);
	free(data);
	assert_in_range(first, 60, 80);
	assert_int_equal(spool_lost(s), first - 1);
	assert_int_equal(spool_read(s, 3, &seq, &data, &len), 0);	/* counted once */
	free(data);
	assert_int_equal(seq, first);
	assert_int_equal(spool_lost(s), first - 1);
	spool_close(s);
}

/* [S4] */
static void capped(void **state)
{
	struct spool *s = opened(10ULL << 20);
	static char large[60000];
	uint64_t seq;
	char *data;
	size_t len;

	(void)state;
	memset(large, 'x', sizeof(large));
	for (unsigned i = 0; i < 400; i++) {	/* 24 MB, in segments of 4 */
		assert_int_equal(spool_append(s, large, sizeof(large), &seq), 0);
		if (i < 100)
			assert_int_equal(spool_ack(s, seq), 0);
	}
	assert_int_equal(spool_sync(s), 0);
	on_disk = 0;
	each_file(add_size);
	assert_true(on_disk <= 15ULL << 20);
	assert_true(spool_lost(s) > 0);
	assert_int_equal(spool_read(s, 0, &seq, &data, &len), 0);
	assert_int_equal(seq - 1 - 100, spool_lost(s));	/* every unacknowledged one before the first that is there */
	free(data);
	spool_close(s);
}

/* [S4] Without Redis: what the cap takes was never anybody's to fetch; neither now nor at the next start is it a loss. */
static void capped_unread(void **state)
{
	struct spool *s = opened(10ULL << 20);
	static char large[60000];
	uint64_t seq;
	char *data;
	size_t len;

	(void)state;
	spool_unread(s);
	for (unsigned i = 0; i < 400; i++)
		assert_int_equal(spool_append(s, large, sizeof(large), &seq), 0);
	assert_int_equal(spool_sync(s), 0);
	assert_int_equal(spool_lost(s), 0);
	assert_int_equal(spool_read(s, 0, &seq, &data, &len), 0);
	assert_true(seq > 100);
	free(data);
	spool_close(s);
	s = opened(10ULL << 20);
	assert_int_equal(spool_lost(s), 0);
	assert_int_equal(spool_acked(s), 0);
	spool_close(s);
}

/* [S5] the disk is full: records wait in memory, in order, and go out when there is room. */
static void disk_full(void **state)
{
	struct rlimit before, none = { 2000, RLIM_INFINITY };
	struct spool *s = opened(1 << 20);
	unsigned n, kept = 0;
	uint64_t seq;

	(void)state;
	signal(SIGXFSZ, SIG_IGN);
	getrlimit(RLIMIT_FSIZE, &before);
	none.rlim_max = before.rlim_max;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &none), 0);
	put(s, 200);
	assert_true(spool_sync(s) < 0);
	read_all(s, 0, &n);
	assert_true(n < 200);
	while (spool_append(s, "x", 1, &seq) == 0)
		assert_true(++kept < 2000);
	assert_true(kept > 500);		/* bounded, not none */
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
	assert_int_equal(spool_sync(s), 0);
	spool_close(s);
	s = opened(1 << 20);
	assert_int_equal(spool_next_seq(s), 200 + kept + 1);
	assert_int_equal(spool_lost(s), 0);
	spool_close(s);
}

static void refused(void **state)
{
	static char large[70000];
	struct spool *s = NULL;
	uint64_t seq;

	(void)state;
	assert_true(spool_open("/nonexistent/spool", 1 << 20, &s) < 0);
	assert_null(s);
	s = opened(1 << 20);
	assert_int_equal(spool_append(s, large, sizeof(large), &seq), -EMSGSIZE);
	assert_int_equal(spool_next_seq(s), 1);
	spool_close(s);
	assert_null(spool_close(NULL));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(order_and_reopen, setup, teardown),
		cmocka_unit_test_setup_teardown(torn, setup, teardown),
		cmocka_unit_test_setup_teardown(segment_removed, setup, teardown),
		cmocka_unit_test_setup_teardown(capped, setup, teardown),
		cmocka_unit_test_setup_teardown(capped_unread, setup, teardown),
		cmocka_unit_test_setup_teardown(disk_full, setup, teardown),
		cmocka_unit_test_setup_teardown(refused, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
