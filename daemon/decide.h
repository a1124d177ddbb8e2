/* decide.h - decisions from egress:decisions against the local policy's `decisions:` bounds. Pure.
 *
 * Losing or lying Redis never loosens a verdict:
 * [DC1] Bounds   an action that the local policy does not accept, a budget or ttl beyond its bounds is refused; so is, by the engine
 *                (commands.c), an unblock without a budget where that of a rule that refuses there (its smallest limit) is beyond
 *                max_budget. A bound is one decision's: each account that an unblock lifts gets the budget.
 * [DC2] Age      the ttl counts from when the entry was written (the milliseconds of its stream id): what is over is refused, of
 *                the others the rest is granted. A gateway that reads the stream from its beginning does not live it again.
 * [DC3] Meant    nothing is guessed: a field that is missing (author and reason too), malformed, too long or unknown is refused and
 *                named, only budget and ttl have defaults. Everywhere is "*", and only a destination may be it. A host of several
 *                addresses is one subject for unblock; elsewhere it is refused, as one of its addresses would be left out.
 * [DC4] Own      no id names an account of the policy's own rules.
 * Not here       ids that are in force or were answered already: judge.h and report.h.
 */
#pragma once

#include "compiler.h"
#include "policy.h"
#include "proto.h"
#include "redis_link.h"

/* 0 and *ret (kind, decision); 1: for another gateway, no answer due; -EPERM (not within bounds, expired) or -EINVAL
 * (malformed) and why. Author and reason are shortened to what fits, at a character's end. */
int decide_check(const struct policy *p, const char *gateway, const struct redis_decision *d, uint64_t wall_us,
		 struct proto_msg *ret, char *why, size_t why_size) MUST_CHECK;

/* What d asks for, whatever the bounds are by now: as decide_check() would say it, but for the ttl, which is 0. To ask whether it was
 * done while they were others. -EINVAL: malformed. */
int decide_meant(const struct policy *p, const struct redis_decision *d, struct proto_msg *ret) MUST_CHECK;
