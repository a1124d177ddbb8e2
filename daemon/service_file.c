/* service_file.c - see service_file.h. */
#include "service_file.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define USER	   "egressd"
#define CANNOT_ASK 255

/* With the groups that a service manager gives it. 0, errno or CANNOT_ASK. */
static int open_as_service(const char *path)
{
	const struct passwd *u = getpwnam(USER);

	if (!u || initgroups(USER, u->pw_gid) < 0 || setgid(u->pw_gid) < 0 || setuid(u->pw_uid) < 0)
		return CANNOT_ASK;
	return open(path, O_RDONLY | O_CLOEXEC) < 0 ? errno : 0;
}

void service_file_note(const char *path, int err)
{
	int status = 0;
	pid_t pid = geteuid() == 0 ? fork() : -1;

	if (pid == 0)
		_exit(open_as_service(path));
	if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
		return;
	if (WEXITSTATUS(status) != 0 && WEXITSTATUS(status) != CANNOT_ASK)
		dprintf(err, "note: %s: the service, user " USER ", may not read it: %s: chgrp " USER " and chmod 640, and its folders "
			"must let that group in\n", path, strerror(WEXITSTATUS(status)));
}

bool service_file_is_open(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && st.st_mode & S_IROTH;
}
