/* test_file_replace.c - file_replace.h: the old file or the new one, whatever fails, and nothing beside it. */
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

#include "file_replace.h"

static char dir[64], path[80], beside[88];

static int setup(void **state)
{
	(void)state;
	snprintf(dir, sizeof(dir), "/tmp/egressd-test-replace.XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof(path), "%s/file", dir);
	snprintf(beside, sizeof(beside), "%s.new", path);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	unlink(path);
	return rmdir(dir);	/* empty, so nothing else was left */
}

static void must_hold(const char *text)
{
	char buf[64] = "";
	int fd = open(path, O_RDONLY);

	assert_true(fd >= 0);
	assert_int_equal(read(fd, buf, sizeof(buf) - 1), strlen(text));
	close(fd);
	assert_string_equal(buf, text);
	assert_int_equal(access(beside, F_OK), -1);
}

static void replaced(void **state)
{
	struct stat st;

	(void)state;
	assert_int_equal(file_replace(path, "one", 3, false), 0);
	must_hold("one");
	assert_int_equal(file_replace(path, "longer", 6, true), 0);
	must_hold("longer");
	assert_int_equal(file_replace(path, "", 0, true), 0);
	must_hold("");
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
}

/* What a dead process left there is no hindrance. */
static void left_over(void **state)
{
	int fd = open(beside, O_WRONLY | O_CREAT, 0600);

	(void)state;
	assert_int_equal(write(fd, "half of something long", 22), 22);
	close(fd);
	assert_int_equal(file_replace(path, "new", 3, false), 0);
	must_hold("new");
}

static void no_room(void **state)
{
	static char large[8192];
	struct rlimit was, small;

	(void)state;
	assert_int_equal(file_replace(path, "old", 3, false), 0);
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
	small = was;
	small.rlim_cur = 4096;	/* half of it is written */
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	assert_int_equal(file_replace(path, large, sizeof(large), true), -EFBIG);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
	must_hold("old");
}

static void no_place(void **state)
{
	char name[5000];

	(void)state;
	snprintf(name, sizeof(name), "%s/none/file", dir);
	assert_int_equal(file_replace(name, "x", 1, false), -ENOENT);
	memset(name, 'x', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	assert_int_equal(file_replace(name, "x", 1, false), -ENAMETOOLONG);
	assert_int_equal(mkdir(path, 0700), 0);		/* a folder stands there */
	assert_int_equal(file_replace(path, "x", 1, false), -EISDIR);
	assert_int_equal(access(beside, F_OK), -1);
	assert_int_equal(rmdir(path), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(replaced, setup, teardown),
		cmocka_unit_test_setup_teardown(left_over, setup, teardown),
		cmocka_unit_test_setup_teardown(no_room, setup, teardown),
		cmocka_unit_test_setup_teardown(no_place, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
