/* policy_source.h - from a policy file to a sealed blob, with all errors told. Relay only.
 *
 * [PS1] Whole    any error: no descriptor; -EINVAL: every error on the log and in `why` (the first, and whether there are
 *                more); another: in `why` alone.
 * [PS2] Last     the blob in force is kept as state_dir/policy.blob, so that a gateway whose policy file is broken at boot
 *                goes on with what it had.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "compiler.h"
#include "config.h"
#include "diag.h"

struct compiled {
	int fd;			/* sealed memfd */
	void *blob;		/* malloc'd copy for the relay's own view */
	size_t size;
};

/* text NULL: read c->policy. Diags may be NULL. 0; -EINVAL errors in the policy; other -errno. */
int policy_source_compile(const struct config *c, const char *text, size_t len, struct compiled *ret, char *why,
			  size_t why_size) MUST_CHECK;
/* egressd -n: the errors of the policy file, with their places, or notes on devices that are not there,
 * and on files that the service could not read, to `err`. 0 or -errno. */
int policy_source_check(const struct config *c, int err) MUST_CHECK;
int policy_source_last(const struct config *c, struct compiled *ret) MUST_CHECK;
int policy_source_keep(const struct config *c, const struct compiled *p) MUST_CHECK;
void compiled_free(struct compiled *p);
