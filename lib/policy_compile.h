/* policy_compile.h - from policy YAML to the blob of policy.h.
 *
 * [PC1] Whole     a policy with any error gives no blob; all errors are reported at once with place and remedy.
 * [PC2] Pure      the same text, environment and files give the same bytes. Files are read by the caller's callback.
 * [PC3] Strict    as egressd-policy(5) says; what is planned but not there (when, grace, throttle, schema keys of later work) is
 *                 refused by name as "not yet supported".
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "addr.h"
#include "compiler.h"
#include "diag.h"
#include "policy.h"

struct policy_role {
	const char *role;	/* name in the policy */
	const char *device[POLICY_IFACES];	/* NULL-terminated unless full */
};

#define POLICY_TEXT_MAX	    (1U << 20)	/* bytes of a policy */
#define POLICY_NETWORKS_MAX (4U << 20)	/* of a networks_file */

struct policy_env {
	/* networks_file: whole content, malloc'd; 0 or -errno, -EFBIG beyond POLICY_NETWORKS_MAX. NULL: such files are refused. */
	int (*read_file)(void *ctx, const char *path, char **ret_text, size_t *ret_len);
	/* Whether this machine has that time zone; the name has the shape of one and is not UTC. NULL: each passes. */
	bool (*zone_known)(void *ctx, const char *name);
	void *ctx;
	const struct policy_role *role;
	size_t nroles;
	const struct prefix *protect;	/* built-in: Redis, resolvers, NTP */
	size_t nprotect;
	int64_t now;		/* unix seconds: a contract whose `until` has passed is an error */
};

/* 0 and a malloc'd blob; -EINVAL with diags; -ENOMEM. */
int policy_compile(const char *text, size_t len, const struct policy_env *env, struct diag_list *diags,
		   void **ret_blob, size_t *ret_size) MUST_CHECK;
