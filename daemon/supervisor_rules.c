/* supervisor_rules.c - see supervisor_rules.h. */
#include "supervisor_rules.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "children.h"
#include "compiler.h"
#include "log.h"
#include "nfq.h"
#include "proto.h"
#include "rules.h"

#define CHILD_MS 5000

/* ---- parent ---- */

/* Its exit code; -1: it did not run, or not to its end. */
static int run(const char *role, int owner, int keep)
{
	const struct child_fd fds[] = { { owner, FD_NFT_OWNER }, { keep, FD_NFT_KEEP } };
	const pid_t pid = owner < 0 || keep < 0 ? -1 : child_spawn(role, fds, ARRAY_SIZE(fds), true);
	int status = 0;

	for (unsigned i = 0; pid > 0 && i < CHILD_MS; i += 10) {
		if (waitpid(pid, &status, WNOHANG) == pid)
			return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
		usleep(10000);
	}
	if (pid > 0) {
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
	}
	return -1;
}

void super_take_out(int owner, int keep)
{
	const int code = run("cleanup", owner, keep);

	if (code != EXIT_SUCCESS && code != EXIT_FAILURE)	/* else it has said so */
		log_error("rules left in the kernel; remove them with: " RULES_REMEDY);
}

void super_tell_left(int keep, bool ours)
{
	const int fd = keep < 0 ? child_lift(nfq_socket(0)) : keep;

	if (run("left", fd, fd) != 0 && ours)
		log_warning("rules and blocks from before stay in the kernel, if there are any; remove them with: " RULES_REMEDY);
}

/* ---- children ---- */

int cleanup_main(void)
{
	struct rules *r = NULL;
	int e;

	log_open("cleanup");
	e = rules_open(FD_NFT_OWNER, FD_NFT_KEEP, &r);
	if (e == 0)
		e = rules_remove(r);
	rules_close(r);
	if (e < 0)
		log_error("rules left in the kernel: %s; remove them with: " RULES_REMEDY, strerror(-e));
	return e < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

int left_main(void)
{
	struct rules *r = NULL;
	int e;

	log_open("left");
	e = rules_open(FD_NFT_OWNER, FD_NFT_KEEP, &r);
	if (e == 0)
		e = rules_left(r);
	rules_close(r);
	if (e > 0)
		log_warning("kernel rules of egressd stay: blocks hold until their time, and with `failure: closed` whatever leaves is "
			    "dropped; unless another egressd runs, remove them with: %s", e & RULES_LEFT_QUEUE ? RULES_REMEDY_ALL : RULES_REMEDY);
	return e < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
