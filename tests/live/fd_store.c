/* fd_store.c - a service manager in small: starts a Type=notify program, keeps the descriptors it hands over, and gives them
 * back to its successor.
 *
 *   fd_store WATCHDOG PROGRAM ARGUMENTS...
 * WATCHDOG: so many seconds without "WATCHDOG=1" after READY end the program by SIGABRT, which is told as "watchdog".
 * SIGUSR1: `kill -9` of the program, SIGUSR2: that signal to it, then it is started again with what was kept (a crash, a restart). SIGTERM: the program is
 * ended by SIGTERM, and so are we. On stdout: "ready N" when start N says READY=1, "kept N" (descriptors) at each start,
 * "exit CODE" at the end. See sd_pid_notify_with_fds(3), sd_listen_fds(3).
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define KEPT_MAX 64

static struct kept {
	int fd;
	char name[64];
} kept[KEPT_MAX];
static int nkept, starts;
static time_t fed;	/* 0: not ready yet */

static void start(char **argv, pid_t *ret_pid)
{
	char names[KEPT_MAX * 65] = "", number[16];
	int moved[KEPT_MAX];
	pid_t pid;

	printf("kept %d\n", nkept);
	fflush(stdout);
	starts++;
	fed = 0;
	pid = fork();
	if (pid < 0)
		exit(1);
	if (pid > 0) {
		*ret_pid = pid;
		return;
	}
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (int i = 0; i < nkept; i++)
		moved[i] = fcntl(kept[i].fd, F_DUPFD, 200);
	for (int i = 0; i < nkept; i++) {
		dup2(moved[i], 3 + i);
		close(moved[i]);
		snprintf(names + strlen(names), sizeof(names) - strlen(names), "%s%s", i ? ":" : "", kept[i].name);
	}
	for (int fd = 3 + nkept; fd < 200; fd++)
		close(fd);
	if (nkept) {
		snprintf(number, sizeof(number), "%d", nkept);
		setenv("LISTEN_FDS", number, 1);
		setenv("LISTEN_FDNAMES", names, 1);
		snprintf(number, sizeof(number), "%d", (int)getpid());
		setenv("LISTEN_PID", number, 1);
	}
	sigprocmask(SIG_UNBLOCK, &(sigset_t){ { ~0UL } }, NULL);
	execv(argv[0], argv);
	_exit(127);
}

static void forget(const char *name)
{
	for (int i = 0; i < nkept;) {
		if (strcmp(kept[i].name, name) == 0) {
			close(kept[i].fd);
			kept[i] = kept[--nkept];
		} else {
			i++;
		}
	}
}

static void field(const char *text, const char *key, char *to, size_t size)
{
	const char *p = strstr(text, key);

	to[0] = '\0';
	if (p)
		snprintf(to, size, "%.*s", (int)strcspn(p + strlen(key), "\n"), p + strlen(key));
}

static void hear(int sock)
{
	char text[4096], name[64], control[CMSG_SPACE(sizeof(int) * 16)];
	struct iovec v = { text, sizeof(text) - 1 };
	struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control) };
	ssize_t n = recvmsg(sock, &m, MSG_CMSG_CLOEXEC);
	int fds[16], count = 0;

	if (n < 0)
		return;
	text[n] = '\0';
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c))
		if (c->cmsg_type == SCM_RIGHTS) {
			count = (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
			memcpy(fds, CMSG_DATA(c), (size_t)count * sizeof(int));
		}
	field(text, "FDNAME=", name, sizeof(name));
	if (strstr(text, "FDSTOREREMOVE=1"))
		forget(name);
	for (int i = 0; i < count; i++) {
		if (strstr(text, "FDSTORE=1") && nkept < KEPT_MAX) {
			kept[nkept].fd = fds[i];
			snprintf(kept[nkept++].name, sizeof(kept[0].name), "%s", name);
		} else {
			close(fds[i]);
		}
	}
	if (strstr(text, "READY=1") || strstr(text, "WATCHDOG=1"))
		fed = time(NULL);
	if (strstr(text, "READY=1")) {
		printf("ready %d\n", starts);
		fflush(stdout);
	}
}

int main(int argc, char **argv)
{
	char path[64];
	long patience;
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int sock = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0), sigfd, status = 0;
	sigset_t set;
	pid_t pid;

	patience = argc < 3 ? 0 : strtol(argv[1], NULL, 10);
	if (patience < 1) {
		fprintf(stderr, "usage: fd_store WATCHDOG PROGRAM ARGUMENTS...\n");
		return 2;
	}
	snprintf(path, sizeof(path), "@egressd-test-%d", (int)getpid());	/* abstract: nothing to clean up */
	memcpy(a.sun_path, path, strlen(path));
	a.sun_path[0] = '\0';
	if (bind(sock, (struct sockaddr *)&a, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path))) < 0)
		return 1;
	setenv("NOTIFY_SOCKET", path, 1);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGUSR2);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	sigfd = signalfd(-1, &set, SFD_CLOEXEC);
	start(argv + 2, &pid);
	for (;;) {
		struct pollfd p[] = { { .fd = sock, .events = POLLIN }, { .fd = sigfd, .events = POLLIN } };
		struct signalfd_siginfo si;

		if (poll(p, 2, 1000) < 0)
			continue;
		if (fed && time(NULL) - fed > patience) {
			puts("watchdog");
			kill(pid, SIGABRT);
			fed = 0;
		}
		if (p[0].revents)
			hear(sock);
		if (!p[1].revents || read(sigfd, &si, sizeof(si)) != sizeof(si))
			continue;
		if (si.ssi_signo == SIGUSR1 || si.ssi_signo == SIGUSR2) {
			kill(pid, si.ssi_signo == SIGUSR1 ? SIGKILL : SIGUSR2);
			waitpid(pid, &status, 0);
			while (poll(p, 1, 0) > 0)	/* its last words, too */
				hear(sock);
			start(argv + 2, &pid);
		} else if (si.ssi_signo == SIGTERM) {
			kill(pid, SIGTERM);
		} else if (waitpid(pid, &status, WNOHANG) == pid) {
			printf("exit %d\n", WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
			return 0;
		}
	}
}
