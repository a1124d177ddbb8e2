/* children.c - see children.h. */
#include "children.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define SAID_WHY 1	/* exit code of a config child */

int child_lift(int fd)
{
	int up, r;

	if (fd < 0)
		return -errno;
	up = fcntl(fd, F_DUPFD_CLOEXEC, CHILD_FD_FLOOR);
	r = errno == EINVAL ? -EMFILE : -errno;		/* the floor itself is above the limit */
	close(fd);
	return up < 0 ? r : up;
}

static void place(const struct child_fd *fds, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		if (fds[i].fd < 0)
			close(fds[i].place);
		else if (dup2(fds[i].fd, fds[i].place) < 0)
			_exit(126);
	}
}

pid_t child_spawn(const char *role, const struct child_fd *fds, unsigned n, bool privileged)
{
	pid_t parent = getpid(), pid = fork();
	sigset_t none;

	if (pid != 0)
		return pid < 0 ? -errno : pid;
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent)
		_exit(126);	/* it died before the line above */
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	/* With an empty ambient set a process that is not root has no capability after exec. */
	if (!privileged)
		prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	place(fds, n);
	execl("/proc/self/exe", "egressd", role, (char *)NULL);
	_exit(126);
}

static int read_all(int fd, void *buf, size_t len)
{
	size_t at = 0;

	while (at < len) {
		ssize_t n = read(fd, (char *)buf + at, len - at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		at += (size_t)n;
	}
	return 0;
}

static NORETURN void config_child(const char *path, int to)
{
	struct config c;

	if (config_load(path, &c, STDERR_FILENO) < 0)
		_exit(SAID_WHY);
	_exit(write(to, &c, sizeof(c)) == (ssize_t)sizeof(c) ? 0 : SAID_WHY + 1);
}

int child_config(const char *path, struct config *ret)
{
	int p[2], status = 0, r;
	pid_t pid;

	if (pipe2(p, O_CLOEXEC) < 0)
		return -errno;
	pid = fork();
	if (pid == 0)
		config_child(path, p[1]);
	close(p[1]);
	r = pid < 0 ? -errno : read_all(p[0], ret, sizeof(*ret));
	close(p[0]);
	if (pid > 0 && waitpid(pid, &status, 0) == pid && status != 0)
		r = WIFEXITED(status) && WEXITSTATUS(status) == SAID_WHY ? -EINVAL : -ECHILD;
	return r == 0 && ret->magic != CONFIG_MAGIC ? -EIO : r;
}
