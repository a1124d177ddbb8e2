/* test_confine.c - what an engine and a relay may do no more, asked in a child that was confined (threat-model.md, Privilege). */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "compiler.h"
#include "engine.h"

static char path[64];

/* 0, or errno of a call that did not work. */
static int got(long r)
{
	return r < 0 ? errno : 0;
}

static int may_socket(void) { return got(socket(AF_UNIX, SOCK_STREAM, 0)); }
static int may_write(void) { return got(open(path, O_WRONLY)); }
static int may_change(void) { return got(open(path, O_RDWR)); }
static int may_create(void) { return got(open("/tmp/egressd-test-confine.new", O_RDONLY | O_CREAT, 0600)); }
static int may_truncate(void) { return got(open(path, O_RDONLY | O_TRUNC)); }
static int may_unlink(void) { return got(unlink(path)); }
static int may_rename(void) { return got(rename(path, path)); }
static int may_chmod(void) { return got(chmod(path, 0600)); }
static int may_read(void) { return got(open(path, O_RDONLY)); }
static int may_event(void) { return got(eventfd(0, 0)); }
static int may_memory(void) { return mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? errno : 0; }

static int may_exec(void)
{
	execl("/bin/true", "true", (char *)NULL);
	return errno;
}

static int may_namespace(void) { return got(unshare(CLONE_NEWUTS)); }
static int may_root(void) { return got(setuid(0)); }

static const struct {
	const char *what;
	int (*call)(void);
	int engine, relay;
} row[] = {
	{ "socket", may_socket, EPERM, 0 },
	{ "open to write", may_write, EPERM, 0 },
	{ "open to change", may_change, EPERM, 0 },
	{ "create", may_create, EPERM, 0 },
	{ "truncate", may_truncate, EPERM, 0 },
	{ "rename", may_rename, EPERM, 0 },
	{ "chmod", may_chmod, EPERM, 0 },
	{ "exec", may_exec, EPERM, EPERM },
	{ "unshare", may_namespace, EPERM, EPERM },
	{ "setuid", may_root, EPERM, EPERM },
	{ "open to read", may_read, 0, 0 },
	{ "eventfd", may_event, 0, 0 },
	{ "memory", may_memory, 0, 0 },
	{ "unlink", may_unlink, EPERM, 0 },
};

/* A bit of each row that came out otherwise; of an engine without CAP_NET_ADMIN to keep: 255. */
static int asked(bool engine)
{
	if ((engine ? confine_engine() : confine_relay()) < 0)
		return 255;
	for (size_t i = 0; i < ARRAY_SIZE(row); i++)
		if (row[i].call() != (engine ? row[i].engine : row[i].relay))
			return (int)i + 1;
	return 0;
}

static void confined(bool engine)
{
	pid_t pid;
	int status, fd;

	snprintf(path, sizeof(path), "/tmp/egressd-test-confine.XXXXXX");
	fd = mkstemp(path);
	assert_true(fd >= 0);
	close(fd);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		_exit(asked(engine));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	unlink(path);
	unlink("/tmp/egressd-test-confine.new");
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 255 && engine && geteuid() != 0)
		skip();
	if (WEXITSTATUS(status) == 255)
		fail_msg("not confined");
	if (WEXITSTATUS(status))
		fail_msg("%s: otherwise", row[WEXITSTATUS(status) - 1].what);
}

static void engine(void **state)
{
	(void)state;
	confined(true);
}

static void relay(void **state)
{
	(void)state;
	confined(false);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(engine),
		cmocka_unit_test(relay),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
