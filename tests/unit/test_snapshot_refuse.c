/* test_snapshot_refuse.c - snapshot.h [SN2]: what is not whole, or not ours, is refused whole, and the file before it is used.
 */
#include "snapshot_world.h"

/* The file of fd: refused, and nothing written into the area (or this ends by a signal), nor to the caller. */
static int refused(int fd)
{
	uint64_t gap = 4711;
	char why[200] = "";
	int r;

	assert_int_equal(mprotect(after.mem, after.size, PROT_READ), 0);
	r = snapshot_restore(fd, &after.j.area, after.now, after.wall_us, &gap, why, sizeof(why));
	assert_int_equal(mprotect(after.mem, after.size, PROT_READ | PROT_WRITE), 0);
	assert_true(r < 0);
	assert_int_equal(gap, 4711);
	assert_true(why[0] != 0);
	return r;
}

static int small_file(size_t *ret_len)
{
	int fd;

	small(500);
	write_it();
	fd = open(in_dir("snapshot"), O_RDWR);
	assert_true(fd >= 0);
	*ret_len = (size_t)lseek(fd, 0, SEEK_END);
	side_make(&after, PAIRS, NS_PER_S, before.wall_us + US_S);
	return fd;
}

static void cut(void **state)
{
	size_t len;
	int fd = small_file(&len);

	(void)state;
	while (len-- > 0) {
		assert_int_equal(ftruncate(fd, (off_t)len), 0);
		assert_int_equal(refused(fd), -EBADMSG);
	}
	close(fd);
}

static void flipped(void **state)
{
	size_t len;
	int fd = small_file(&len);
	uint64_t gap;
	char why[200];

	(void)state;
	/* Every bit of the head, then one of each byte, all eight in turn. */
	for (size_t bit = 0; bit < len * 8; bit += bit < sizeof(struct snapshot_head) * 8 ? 1 : 9) {
		uint8_t was, bad;
		int r;

		assert_int_equal(pread(fd, &was, 1, (off_t)(bit / 8)), 1);
		bad = (uint8_t)(was ^ 1 << bit % 8);
		assert_int_equal(pwrite(fd, &bad, 1, (off_t)(bit / 8)), 1);
		r = refused(fd);
		assert_int_equal(pwrite(fd, &was, 1, (off_t)(bit / 8)), 1);
		if (r != -EBADMSG)
			fail_msg("bit %zu of byte %zu: %d", bit % 8, bit / 8, r);
	}
	assert_int_equal(pwrite(fd, "", 1, (off_t)len), 1);	/* longer than it says */
	assert_int_equal(refused(fd), -EBADMSG);
	assert_int_equal(ftruncate(fd, (off_t)len), 0);
	assert_int_equal(restore(&gap, why), 0);	/* and as it was: taken */
	close(fd);
}

/* [SN2] the newest is spoilt in any place: the one before it is used, whole, and people are told. */
static void previous(void **state)
{
	uint8_t *whole;
	size_t len;

	(void)state;
	small(500);
	write_it();
	small(700);
	write_it();
	assert_int_equal(each_file(NULL), 2);
	assert_int_equal(passed_in_file(), 700);
	assert_string_equal(told, "");
	len = load("snapshot", &whole);
	for (size_t n = 0; n < len; n += n < 100 ? 10 : 3001) {
		save("snapshot", whole, n);
		assert_int_equal(passed_in_file(), 500);
		assert_non_null(strstr(told, in_dir("snapshot: damaged")));
		assert_non_null(strstr(told, in_dir("snapshot.1: taken")));
		whole[n] ^= 0x10;
		save("snapshot", whole, len);
		whole[n] ^= 0x10;
		assert_int_equal(passed_in_file(), 500);
		assert_non_null(strstr(told, in_dir("snapshot: damaged")));
	}
	assert_int_equal(unlink(in_dir("snapshot")), 0);
	assert_int_equal(passed_in_file(), 500);
	save("snapshot", whole, len / 2);
	save("snapshot.1", whole, len / 2);
	assert_int_equal(open_it(), -ENOENT);
	assert_non_null(strstr(told, "start at zero"));
	free(whole);
}

/* Three in a row: the last two stay, and nothing else. */
static void in_a_row(void **state)
{
	(void)state;
	for (uint32_t len = 500; len <= 800; len += 100) {
		small(len);
		write_it();
	}
	assert_int_equal(each_file(NULL), 2);
	assert_int_equal(passed_in_file(), 800);
	assert_int_equal(unlink(in_dir("snapshot")), 0);
	assert_int_equal(passed_in_file(), 700);
}

/* Who may write into the folder is the relay; who opens is the supervisor, as root. It must neither wait nor follow. */
static void not_a_file(void **state)
{
	char elsewhere[400];

	(void)state;
	assert_int_equal(mkfifo(in_dir("snapshot"), 0600), 0);
	assert_int_equal(open_it(), -ENOENT);
	assert_non_null(strstr(told, "not a file"));
	remove_other("snapshot");
	assert_int_equal(mkdir(in_dir("snapshot"), 0700), 0);
	assert_int_equal(open_it(), -ENOENT);
	assert_non_null(strstr(told, "not a file"));
	remove_other("snapshot");
	small(500);
	write_it();
	snprintf(elsewhere, sizeof(elsewhere), "%s", in_dir("elsewhere"));
	assert_int_equal(rename(in_dir("snapshot"), elsewhere), 0);
	assert_int_equal(symlink(elsewhere, in_dir("snapshot")), 0);
	assert_int_equal(open_it(), -ENOENT);
	assert_non_null(strstr(told, "link"));
	assert_int_equal(mkfifo(in_dir("snapshot.1"), 0600), 0);
	assert_int_equal(open_it(), -ENOENT);
}

/* ---- right checksum, wrong content ---- */

/* The file of fd with `len` bytes at `at` replaced, and a checksum that matches. */
static void forge(int fd, size_t size, size_t at, const void *bytes, size_t len)
{
	uint8_t *mem = malloc(size);

	assert_non_null(mem);
	assert_int_equal(pread(fd, mem, size, 0), size);
	memcpy(mem + at, bytes, len);
	hash_sum(mem, size - HASH_SUM_LEN, mem + size - HASH_SUM_LEN);
	assert_int_equal(pwrite(fd, mem, size, 0), size);
	free(mem);
}

static void other_version(void **state)
{
	static const uint32_t layouts[] = { 0, SNAPSHOT_LAYOUT - 1, SNAPSHOT_LAYOUT + 1, UINT32_MAX };
	uint64_t gap = 0;
	char why[200];
	size_t len;
	int fd;

	(void)state;
	small(700);
	write_it();
	fd = small_file(&len);
	for (unsigned i = 0; i < ARRAY_SIZE(layouts); i++) {
		forge(fd, len, offsetof(struct snapshot_head, layout), &layouts[i], 4);
		assert_int_equal(refused(fd), -EPROTO);
		assert_true(snapshot_restore(fd, &after.j.area, after.now, after.wall_us, &gap, why, sizeof(why)) < 0);
		assert_non_null(strstr(why, "another version"));
		assert_int_equal(passed_in_file(), 700);	/* the one before it */
		assert_non_null(strstr(told, in_dir("snapshot: written by another version")));
	}
	close(fd);
}

/* Who may write the file may also sum it: no number in it leads the engine out of its memory. */
static void forged_head(void **state)
{
	static const struct {
		size_t at;
		uint64_t value;
		size_t len;
	} bad[] = {
		{ offsetof(struct snapshot_head, pairs), 3, 4 },
		{ offsetof(struct snapshot_head, pairs), UINT32_MAX, 4 },
		{ offsetof(struct snapshot_head, accounts), UINT32_MAX, 4 },
		{ offsetof(struct snapshot_head, accounts), 1U << 23, 4 },
		{ offsetof(struct snapshot_head, dynamics), AREA_DYNAMIC + 1, 4 },
		{ offsetof(struct snapshot_head, size), UINT64_MAX, 8 },
		{ offsetof(struct snapshot_head, mono_ns), UINT64_MAX, 8 },
	};
	uint8_t *whole;
	size_t len;
	int fd = small_file(&len);

	(void)state;
	assert_int_equal(load("snapshot", &whole), len);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		forge(fd, len, bad[i].at, &bad[i].value, bad[i].len);
		assert_true(refused(fd) < 0);
		assert_int_equal(pwrite(fd, whole, len, 0), len);
	}
	free(whole);
	close(fd);
}

static void forged_decision(void **state)
{
	struct area_dynamic bad[5] = { { .kind = 3 }, { .kind = 1, .src.len = 129 }, { .kind = 2, .dst.len = 255 },
				       { .kind = 1 }, { .kind = 2 } };
	size_t len, at;
	int fd = small_file(&len);

	(void)state;
	memset(bad[3].id, 'x', sizeof(bad[3].id));
	memset(bad[4].reason, 'x', sizeof(bad[4].reason));
	at = len - HASH_SUM_LEN - sizeof(struct area_dynamic) * AREA_DYNAMIC;
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		forge(fd, len, at, &bad[i], sizeof(bad[i]));
		assert_int_equal(refused(fd), -EBADMSG);
	}
	forge(fd, len, at, &(struct area_dynamic){ .kind = DYNAMIC_NONE }, sizeof(bad[0]));
	assert_int_equal(passed_in_file(), 500);
	close(fd);
}

/* Random numbers in the records: taken, and the area is sound whatever they are. */
static void forged_records(void **state)
{
	uint32_t seed = 7;
	uint8_t *whole;
	size_t len, end;
	int fd = small_file(&len);

	(void)state;
	assert_int_equal(load("snapshot", &whole), len);
	end = len - HASH_SUM_LEN - sizeof(struct area_dynamic) * AREA_DYNAMIC;
	for (unsigned i = 0; i < 400; i++) {
		static const uint64_t extreme[] = { 0, 1, UINT32_MAX, INT64_MAX, UINT64_MAX };
		uint64_t gap, value;
		size_t at;
		char why[200];

		seed = seed * 1664525 + 1013904223;
		value = seed % 2 ? extreme[(seed >> 4) % 5] : (uint64_t)seed << (seed >> 8) % 32;
		at = sizeof(struct snapshot_head) + (seed >> 10) % (end - sizeof(struct snapshot_head) - 8) / 8 * 8;
		forge(fd, len, at, &value, sizeof(value));
		side_make(&after, PAIRS, NS_PER_S, before.wall_us + US_S);
		if (restore(&gap, why) == 0) {
			go_on(&after);
			side_later(&after, 5 * US_S);
			side_send(&after, HOST, FAR, 100);
			side_later(&after, 100 * DAY_US);
			side_sane(&after);
		}
		if (i % 8 == 7)
			assert_int_equal(pwrite(fd, whole, len, 0), len);
	}
	free(whole);
	close(fd);
}

int main(void)
{
#define CASE(fn) cmocka_unit_test_setup_teardown(fn, folder_make, folder_remove)
	const struct CMUnitTest tests[] = {
		CASE(cut), CASE(flipped), CASE(previous), CASE(in_a_row), CASE(not_a_file),
		CASE(other_version), CASE(forged_head), CASE(forged_decision), CASE(forged_records),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
