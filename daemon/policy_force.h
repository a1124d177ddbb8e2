/* policy_force.h - the policy in force: handed to the engine, kept for the next start, taken back when nobody confirms it.
 * Relay only; not thread-safe.
 *
 * [PF1] Whole    a policy is in force when the engine says that it has taken it; before that, and on any error, the view is that
 *                of the one before.
 * [PF2] Kept     what is in force and waits for no confirmation is kept (policy_source_keep()); that it cannot be written
 *                is a warning, the policy stays.
 * [PF3] Back     an applied policy that is not confirmed in time gives way to the one before it; until the engine
 *                has taken that, it is tried each second. One waits at a time, and a reload does not take
 *                its place: it would be lost without a word.
 * [PF4] Start    first an engine's own policy is adopted when the kept blob has its sum; then the policy file; then, with
 *                errors in that, the kept blob, which is told by log and health alert.
 * [PF5] Late     what an engine that did not answer in time puts in force none the less gives way within a second to what the
 *                answer to the command left in force.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "area.h"
#include "compiler.h"
#include "config.h"
#include "mono.h"
#include "policy.h"
#include "policy_source.h"
#include "proto.h"
#include "report.h"

/* One command to the engine with a descriptor, and its answer: 0 or -errno (no answer). */
typedef int (*engine_command_fn)(void *ctx, struct proto_msg *m, int fd, struct proto_reply *ret);

struct policy_force {
	const struct config *config;	/* these five by policy_force_init() */
	const struct area *area;
	struct report *report;
	engine_command_fn command;
	void *ctx;

	struct policy view;		/* to read; valid while `have` */
	bool have;
	uint64_t since_us;		/* wall clock */
	uint64_t confirm_by_ns;		/* a policy waits for its confirmation until then; 0: none */
	uint64_t bad_since_us;		/* the policy file has had errors since then, as far as it was read; 0: none */
	char bad[200];			/* the first of them */

	struct compiled now, before;	/* own: in force; what to go back to */
	char *pending_yaml;
	bool stuck;		/* going back, or putting back, has failed, and that is on the log */
};

void policy_force_init(struct policy_force *f, const struct config *config, const struct area *area,
		       struct report *report, engine_command_fn command, void *ctx);

/* 0, or -errno with the reason in `why`; errors of the policy itself are on the log. */
int policy_force_first(struct policy_force *f, char *why, size_t size) MUST_CHECK;	/* [PF4] */
/* -EBUSY: one waits for its confirmation. Errors are on the log too. */
int policy_force_reload(struct policy_force *f, char *why, size_t size) MUST_CHECK;
/* confirm_s 0: at once for good. -EBUSY: another one waits. */
int policy_force_apply(struct policy_force *f, const char *yaml, size_t len, unsigned confirm_s, char *why,
		       size_t size) MUST_CHECK;
/* *ret_yaml: the confirmed text, malloc'd. -ENOENT: none waits. */
int policy_force_confirm(struct policy_force *f, char **ret_yaml, char *why, size_t size) MUST_CHECK;

void policy_force_second(struct policy_force *f, struct mono now);	/* [PF3] [PF5] */
