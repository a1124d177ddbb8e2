/* supervisor_kept.c - see supervisor_kept.h. */
#include "supervisor_kept.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <systemd/sd-daemon.h>

#include "children.h"
#include "log.h"

void kept_give(int fd, const char *name)
{
	char state[64];
	int r;

	snprintf(state, sizeof(state), "FDSTORE=1\nFDNAME=%s", name);
	r = sd_pid_notify_with_fds(0, 0, state, &fd, 1);
	if (r < 0)
		log_warning("service manager did not take descriptor %s: %s", name, strerror(-r));
}

void kept_drop(const char *name)
{
	sd_notifyf(0, "FDSTOREREMOVE=1\nFDNAME=%s", name);
}

int kept_take(char **names, int n, const char *name)
{
	for (int i = 0; i < n; i++)
		if (names && strcmp(names[i], name) == 0) {
			int fd = child_lift(SD_LISTEN_FDS_START + i);

			names[i][0] = '\0';
			return fd;
		}
	return -ENOENT;
}

void kept_drop_rest(char **names, int n)
{
	for (int i = 0; names && i < n; i++)
		if (names[i][0]) {
			close(SD_LISTEN_FDS_START + i);
			kept_drop(names[i]);
			names[i][0] = '\0';
		}
}
