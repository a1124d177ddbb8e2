/* children.h - start a role of this very program with descriptors at fixed numbers (proto.h). */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "compiler.h"
#include "config.h"

#define CHILD_FD_FLOOR 64	/* the supervisor's own descriptors live above, so that places 3.. are free to fill */

struct child_fd {
	int fd;		/* in the supervisor; < 0: place stays closed */
	int place;	/* number in the child */
};

/* Move fd above the floor, close-on-exec. New number or -errno (fd is closed either way); of an fd < 0 what errno says. */
int child_lift(int fd) MUST_CHECK;

/* fork + exec of /proc/self/exe ROLE; the child dies with us. Not privileged: ambient capabilities are not passed on. pid or
 * -errno. */
pid_t child_spawn(const char *role, const struct child_fd *fds, unsigned n, bool privileged) MUST_CHECK;

/* Parse the configuration in a child; the struct comes through a pipe. 0; -EINVAL: the child said why; -errno: nobody did. */
int child_config(const char *path, struct config *ret) MUST_CHECK;
