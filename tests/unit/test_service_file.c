/* test_service_file.c - service_file.h: what user egressd may read, told to root. The user is ours: the machine may have none. */
#include <fcntl.h>
#include <pwd.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "service_file.h"

#define SERVICE 64123

static bool there = true;
static char folder[] = "/tmp/test_service_file.XXXXXX";
static char path[sizeof(folder) + 8];

struct passwd *getpwnam(const char *name)
{
	static struct passwd u = { .pw_uid = SERVICE, .pw_gid = SERVICE };

	return there && strcmp(name, "egressd") == 0 ? &u : NULL;
}

static void file_is(gid_t group, mode_t mode)
{
	assert_int_equal(chown(path, 0, group), 0);
	assert_int_equal(chmod(path, mode), 0);
}

static const char *note(void)
{
	static char text[400];
	int p[2];
	ssize_t n;

	assert_int_equal(pipe(p), 0);
	service_file_note(path, p[1]);
	close(p[1]);
	n = read(p[0], text, sizeof(text) - 1);
	close(p[0]);
	assert_true(n >= 0);
	text[n] = '\0';
	return text;
}

static int make(void **state)
{
	int fd;

	(void)state;
	if (!mkdtemp(folder))
		return -1;
	snprintf(path, sizeof(path), "%s/file", folder);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	return fd < 0 || chmod(folder, 0755) < 0 ? -1 : close(fd);
}

static int unmake(void **state)
{
	(void)state;
	return unlink(path) < 0 || rmdir(folder) < 0 ? -1 : 0;
}

static void root_sees(void **state)
{
	(void)state;
	if (geteuid() != 0)
		skip();
	file_is(0, 0600);
	assert_non_null(strstr(note(), path));
	assert_non_null(strstr(note(), "may not read it: Permission denied: chgrp egressd"));
	file_is(0, 0640);
	assert_string_not_equal(note(), "");
	file_is(SERVICE, 0640);
	assert_string_equal(note(), "");
	file_is(0, 0644);
	assert_string_equal(note(), "");
	assert_int_equal(chmod(folder, 0700), 0);
	assert_string_not_equal(note(), "");	/* the way to it counts */
	assert_int_equal(chmod(folder, 0755), 0);
}

/* Who cannot ask for the service says nothing of it. */
static void cannot_ask(void **state)
{
	(void)state;
	if (geteuid() != 0)
		skip();
	file_is(0, 0600);
	there = false;
	assert_string_equal(note(), "");
	there = true;
	assert_int_equal(seteuid(SERVICE), 0);
	assert_string_equal(note(), "");
	assert_int_equal(seteuid(0), 0);
}

static void open_to_all(void **state)
{
	(void)state;
	assert_int_equal(chmod(path, 0640), 0);
	assert_false(service_file_is_open(path));
	assert_int_equal(chmod(path, 0644), 0);
	assert_true(service_file_is_open(path));
	assert_false(service_file_is_open("/tmp/no such file"));
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(root_sees), cmocka_unit_test(cannot_ask), cmocka_unit_test(open_to_all) };

	return cmocka_run_group_tests(tests, make, unmake);
}
