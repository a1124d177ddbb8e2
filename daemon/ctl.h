/* ctl.h - egressctl: arguments, the control socket, tables. Shared by ctl*.c.
 *
 * [CL1] Exit     0 done, 1 the answer is no (or nobody answers), 2 wrong use.
 * [CL2] Safe     text of any origin is escaped before it reaches a terminal; --json is ASCII.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "compiler.h"

#define CTL_SOCKET "/run/egressd/control.sock"
#define CTL_ARGS   4

enum ctl_exit { CTL_OK, CTL_NO, CTL_USAGE };

struct json_t;
struct policy;

struct ctl {
	const char *socket;
	bool json;
	const char *verb;
	const char *arg[CTL_ARGS];
	unsigned narg;
	const char *time, *budget, *reason, *confirm, *format;	/* options; NULL: not given. time: --for */
	const char *config;	/* -c */
};

/* ctl_link.c: one request, one answer. NULL and a line on stderr when nobody answers; steals `request`. */
struct json_t *ctl_ask(const struct ctl *c, struct json_t *request);
/* The answer's error on stderr and CTL_NO, or CTL_OK. */
int ctl_verdict(const struct json_t *reply);
void ctl_print_json(const struct json_t *reply);

/* ctl_policy.c */
int ctl_check(const struct ctl *c);
int ctl_apply(const struct ctl *c);
int ctl_confirm(const struct ctl *c);

/* ctl_check.c: rules and contracts of a policy, in bytes and seconds. */
void ctl_put_policy(const struct policy *p);
void ctl_print_policy(const char *file, const struct policy *p);

/* ctl_status.c, ctl_show.c: an answer as people read it. */
void ctl_show_status(const struct json_t *reply);
void ctl_show_findings(const struct json_t *reply);
void ctl_show_explain(const struct json_t *reply);
void ctl_show_blocks(const struct json_t *reply);
void ctl_show_why(const struct json_t *reply);
void ctl_show_unblock(const struct json_t *reply);
void ctl_show_change(const struct json_t *reply);
/* The line that says so, when the engine has not judged for long; `reply` knows `failure`. */
void ctl_put_silence(uint64_t seconds, const struct json_t *reply);

/* ctl_text.c */
void ctl_put(const char *text);			/* [CL2] */
void ctl_complain(const char *fmt, ...) PRINTF(1, 2);	/* "egressctl: ..." on stderr, escaped */
uint64_t ctl_number(const struct json_t *o, const char *key);
const char *ctl_string(const struct json_t *o, const char *key);	/* "" when absent */
bool ctl_null(const struct json_t *o, const char *key);	/* absent too */
const char *ctl_plural(uint64_t n);		/* "" or "s" */
bool ctl_true(const struct json_t *o, const char *key);
const char *ctl_bytes(const struct json_t *o, const char *key, char buf[16]);
/* "15:32", "3 Nov 15:32", "3 Nov 2025"; "?" when absent. */
const char *ctl_when(const struct json_t *o, const char *key, char buf[32]);
const char *ctl_moment(const struct json_t *o, const char *key, char buf[40]);	/* "2026-11-03 15:32:08 UTC" */
const char *ctl_ago(const struct json_t *o, const char *key, char buf[32]);	/* "2 min ago" */
const char *ctl_count(uint64_t n, char buf[32]);	/* 1,234,567 */
void ctl_timezone(const char *name);		/* of the policy: clock times are printed in it */
