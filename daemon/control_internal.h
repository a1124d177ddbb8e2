/* control_internal.h - shared by control*.c and their tests only. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "control.h"
#include "mono.h"

#define CONTROL_REQUEST (64U << 10)
#define CONTROL_APPLY	(2304U << 10)	/* a policy of 1 MiB whose every second character JSON must escape */
#define CONTROL_REPLY	(4U << 20)
#define CONTROL_DEPTH	16
#define CONTROL_WHY	4096
#define CONTROL_ADDRS	64		/* addresses of one name */

struct json_t;

struct control_call {			/* one request */
	struct control_ctx *ctx;
	struct json_t *args;
	uint32_t uid;
	struct mono now;
	uint64_t wall_us;
	char why[CONTROL_WHY];		/* of a refusal */
	bool unknown;			/* not refused: the engine may do it yet */
};

struct control_verb {
	const char *name;
	bool change;
	const char *const *keys;	/* arguments it knows, NULL-terminated */
	/* Adds to the reply; 0, or -errno and call->why. */
	int (*run)(struct control_call *q, struct json_t *reply);
};

enum control_level { CONTROL_NONE, CONTROL_READS, CONTROL_CHANGES };
/* control.c: what the peer may, by its groups now; *ret_uid is kept when that cannot be told. */
enum control_level control_level_of(int fd, uint32_t *ret_uid);

/* control.c: values of the request. 0 or -EINVAL and why. Text must be there unless `optional` (then *ret is NULL). */
int control_text(struct control_call *q, const char *key, size_t max, bool optional, const char **ret);
int control_number(struct control_call *q, const char *key, uint64_t min, uint64_t max, bool optional, uint64_t *ret);
int control_refuse(struct control_call *q, int error, const char *fmt, ...) PRINTF(3, 4);

/* control_name.c: what people call an address. */
struct control_name {
	int host;			/* named host of the policy, -1 */
	int exit;			/* named exit: what leaves by its devices too; -1 */
	bool pseudo;			/* gateway, unlisted or others */
	uint32_t n;
	struct prefix prefix[CONTROL_ADDRS];	/* of a pseudo-host: its address in the table */
};

/* `whole`: an address of a named host stands for that host, all its addresses. Sets why. */
int control_name_in(struct control_call *q, const char *text, bool whole, struct control_name *ret);
/* Address, prefix, named host, exit. NULL, "*", "any": everywhere. */
int control_name_out(struct control_call *q, const char *text, struct control_name *ret);
static inline bool control_everywhere(const struct control_name *n)
{
	return n->n == 0 && n->exit < 0;
}
bool control_is_others(const struct control_name *n);
bool control_in_is(const struct policy *p, const struct control_name *n, const uint8_t in[16]);
/* exit: of the pair or account, index + 1. */
bool control_out_is(const struct control_name *n, const uint8_t out[8], uint8_t family, uint8_t exit);
struct addr control_out_addr(const uint8_t out[8], uint8_t family);	/* an IPv6 one: first of its /64 */
/* "file01", "10.20.0.15", "gateway", group or clause: an account's subject for people. */
const char *control_subject(const struct policy *p, const struct account_key *k, const struct policy_rule *r,
			    char buf[CONFIG_PATH]);

/* control_show.c: pieces of answers. Text of any origin becomes valid, printable UTF-8. */
struct json_t *control_json_text(const char *text);
struct json_t *control_json_time(const struct control_call *q, uint64_t ns);	/* boottime; 0: null */
struct json_t *control_json_wall(uint64_t wall_us);				/* 0: null */
void control_set(struct json_t *to, const char *key, struct json_t *value);	/* steals; NULL is null */
void control_set_text(struct json_t *to, const char *key, const char *text);
void control_set_number(struct json_t *to, const char *key, uint64_t n);
const struct policy_rule *control_rule(const struct policy *p, uint32_t uid);
uint32_t control_state(const struct area *a, uint32_t slot);
/* Blocked, or it will be again when blocking is on. */
bool control_has_block(const struct control_call *q, uint32_t slot);
/* A decision in force, a copy of it. */
struct json_t *control_decision(const struct control_call *q, struct area_dynamic *d);
/* control_pairs.c */
#define CONTROL_SHOWN 200		/* pairs, and accounts, of one answer: the largest */

struct control_sums {
	uint64_t bytes, packets, refused, unseen;
	uint64_t leased;	/* of bytes: the kernel's, by leases */
};

struct control_chosen {
	uint32_t slot;
	double rank;
	struct control_sums sums;	/* of a pair, as they were read */
};

struct control_choice {			/* the largest by rank */
	struct control_chosen v[CONTROL_SHOWN];
	size_t n, all;
};

/* Where it was put; NULL: it is too small. */
struct control_chosen *control_choose(struct control_choice *c, uint32_t slot, double rank);
/* Sets "pairs": the largest. *ret: sums of all, of the same readings; *exits: rules by the ways they took. How many. */
size_t control_pairs(const struct control_call *q, const struct control_name *in, const struct control_name *out,
		     struct policy_bits *exits, struct control_sums *ret, struct json_t *reply);
/* Bytes of senders that are not in `inside`: of their pairs, one look at each place of the table. */
uint64_t control_unlisted(const struct area *a);
/* "file01, 10.20.0.16": who sent most to `out`. How many are named. */
unsigned control_senders(const struct control_call *q, const struct control_name *out, char *buf, size_t size);
/* control_kept.c: sets "kept", of these ends (NULL: of all), and "kept_total", all there are; of both the first AREA_KEPT are looked at.
 * The bytes that the listed ones refused. */
uint64_t control_kept(const struct control_call *q, const struct control_name *in, const struct control_name *out, struct json_t *reply);
/* control_why.c: one account with its windows. */
struct json_t *control_account(const struct control_call *q, uint32_t slot);

int control_status(struct control_call *q, struct json_t *reply);
int control_findings(struct control_call *q, struct json_t *reply);
int control_explain(struct control_call *q, struct json_t *reply);
int control_blocks(struct control_call *q, struct json_t *reply);
int control_why(struct control_call *q, struct json_t *reply);
int control_block(struct control_call *q, struct json_t *reply);
int control_unblock(struct control_call *q, struct json_t *reply);
int control_allow(struct control_call *q, struct json_t *reply);
int control_observe(struct control_call *q, struct json_t *reply);
int control_reload(struct control_call *q, struct json_t *reply);
int control_apply(struct control_call *q, struct json_t *reply);
int control_confirm(struct control_call *q, struct json_t *reply);
int control_debug(struct control_call *q, struct json_t *reply);
