/* decide.h - decisions from egress:decisions against the local policy's `decisions:` bounds (DESIGN 8). Pure.
 *
 * Losing or lying Redis never loosens a verdict: an action, budget or ttl that the local policy does not accept is refused.
 */
#pragma once

#include "compiler.h"
#include "policy.h"
#include "proto.h"
#include "redis_link.h"

/* 0 and *ret (kind, decision); 1: for another gateway, no answer due; -EPERM or -EINVAL and why. */
int decide_check(const struct policy *p, const char *gateway, const struct redis_decision *d, struct proto_msg *ret,
		 char *why, size_t why_size) MUST_CHECK;
