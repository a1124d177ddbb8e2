/* ctl_roles.h - the roles of egressd.yaml for verbs that compile a policy themselves: check, apply, replay.
 *
 * [CR1] Same     the file is read by the daemon's own parser; one with errors is refused, because what the daemon would
 *                make of the policy cannot be said then.
 * [CR2] Default  no file named: CTL_CONFIG when it is there and may be read, else the roles are unknown and every
 *                interface of an exit is taken for a device.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "compiler.h"
#include "config.h"
#include "policy_compile.h"

#define CTL_CONFIG "/etc/egressd/egressd.yaml"

struct ctl_roles {
	struct config config;
	struct policy_role role[CONFIG_ROLES];
	size_t n;		/* 0: unknown; a configuration has at least `outside` */
	int why;		/* unknown: -errno of CTL_CONFIG */
};

/* path NULL: [CR2]. 0; -errno with the reason on stderr: [CR1], or a named file that cannot be read. The roles point into
 * *ret, which must not move. */
int ctl_roles_read(const char *path, struct ctl_roles *ret) MUST_CHECK;

/* A line on stderr when the roles are unknown and an exit of this policy names interfaces. */
void ctl_roles_note(const struct ctl_roles *r, const char *policy, size_t len);

/* A line on stderr for each device of an exit that is neither a role nor there. None while the roles are unknown. */
void ctl_roles_devices(const struct ctl_roles *r, const void *blob, size_t size);
