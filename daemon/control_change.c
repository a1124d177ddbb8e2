/* control_change.c - what changes something: decisions by hand, policy, the engine's own check. [CT1] */
#include <errno.h>
#include <ifaddrs.h>
#include <inttypes.h>
#include <jansson.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control_bounds.h"
#include "control_internal.h"
#include "finding.h"
#include "log.h"
#include "policy_compile.h"

#define FOR_DEFAULT  3600
#define COMMANDS_MAX 64		/* of one request: addresses of a source times those of a destination */

struct change {			/* arguments of block, unblock, allow */
	const char *host, *dest, *reason;
	struct control_name in, out;
	uint64_t budget, for_s;
};

struct changed {		/* what the engine touched; of an unblock the rest are blocks kept from before */
	uint64_t count, accounts, by_hand;
};

_Static_assert(CONTROL_REASON_MAX == sizeof(((struct proto_decision *)0)->reason) - 1, "a reason fits");

/* error: "" when it is on the log already. */
static void log_change(const struct control_call *q, const char *what, const char *reason, int r, const char *error)
{
	const char *result = r == 0 ? "done" : q->unknown ? "" : "refused";	/* the unknown says so itself */
	char why[200];

	snprintf(why, sizeof(why), "%.199s", error);
	why[strcspn(why, "\n")] = '\0';
	log_notice("uid %u: %s, %s%s: %s%s%s", q->uid, what, reason ? "reason: " : "no reason given", reason ? reason : "", result,
		   *result && r < 0 && why[0] ? ": " : "", r < 0 ? why : "");
}

/* The command waits in the engine's socket: it may be carried out yet. */
static int no_answer(struct control_call *q, int r)
{
	if (r != -ETIMEDOUT && r != -EPIPE)
		return control_refuse(q, r, "the engine cannot be asked: %s", strerror(-r));
	q->unknown = true;
	return control_refuse(q, r, "outcome unknown: the engine did not answer within %u s; look at `egressctl status` and "
			      "`egressctl blocks` before trying again", CONTROL_ANSWER_S);
}

/* Of the relay's own steps with a policy, of which only the engine's answer can be late. */
static int policy_step(struct control_call *q, int r)
{
	return r == -ETIMEDOUT || r == -EPIPE ? no_answer(q, r) : r;
}

/* ---- decisions ---- */

static int read_change(struct control_call *q, bool need_dest, bool need_for, struct change *x)
{
	int r;

	*x = (struct change){ .for_s = FOR_DEFAULT };
	r = control_text(q, "host", CONTROL_NAME_MAX, false, &x->host);
	if (r == 0)
		r = control_text(q, "dest", CONTROL_NAME_MAX, !need_dest, &x->dest);
	if (r == 0)
		r = control_text(q, "reason", CONTROL_REASON_MAX, false, &x->reason);
	if (r == 0)
		r = control_number(q, "for_s", 1, CONTROL_FOR_MAX, !need_for, &x->for_s);
	if (r == 0)
		r = control_name_out(q, x->dest, &x->out);
	if (r == 0 && x->out.n == 0 && x->out.exit >= 0)
		r = control_refuse(q, -EINVAL, "%.60s is an exit without hosts: name an address behind it", x->dest);
	return r;
}

/* One decision; the number makes ids of one request differ. */
static int decide(struct control_call *q, uint16_t kind, const struct change *x, const struct prefix *src,
		  const struct prefix *dst, unsigned number, struct proto_reply *ret)
{
	struct proto_msg m = { .kind = kind };
	struct proto_decision *d = &m.u.decision;
	int r;

	snprintf(d->id, sizeof(d->id), "ctl-%" PRIx64 "-%u", q->wall_us, number);
	snprintf(d->author, sizeof(d->author), "uid %u", q->uid);
	snprintf(d->reason, sizeof(d->reason), "%s", x->reason);
	if (src)
		d->src = *src;
	if (dst)
		d->dst = *dst;
	d->budget = x->budget;
	d->ttl_s = (uint32_t)x->for_s;
	d->uid = q->uid;
	r = q->ctx->command(q->ctx->relay, &m, ret);
	if (r < 0)
		return no_answer(q, r);
	if (ret->result < 0)
		return control_refuse(q, ret->result, "%s", ret->text[0] ? ret->text : strerror(-ret->result));
	return 0;
}

static bool same_family(const struct prefix *a, const struct prefix *b)
{
	return addr_is_v4(&a->addr) == addr_is_v4(&b->addr);
}

/* A network that holds all of IPv4 (which lies within ::ffff:0:0/96) was meant for IPv6 alone. */
static int one_family(struct control_call *q, const struct control_name *n)
{
	const struct addr v4 = addr_from_v4("\0\0\0");
	char text[PREFIX_STRLEN];

	for (uint32_t i = 0; i < n->n; i++)
		if (n->prefix[i].len < 96 && prefix_contains(&n->prefix[i], &v4))
			return control_refuse(q, -EINVAL, "%s holds IPv4 too: name a network of one family, such as 2000::/3 or 0.0.0.0/0",
					      prefix_format(&n->prefix[i], text));
	return 0;
}

/* For every address of the source and of the destination. `none_is_ok`: -ENOENT of one is no failure while another
 * succeeds (unblock: accounts of a named host are one). */
static int decide_all(struct control_call *q, uint16_t kind, const struct change *x, bool none_is_ok, struct changed *ret)
{
	unsigned n = 0, done = 0, outs = x->out.n ? x->out.n : 1;
	struct proto_reply reply = { 0 };
	int r = one_family(q, &x->in);

	if (r == 0)
		r = one_family(q, &x->out);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < x->in.n; i++)
		for (unsigned k = 0; k < outs; k++) {
			const struct prefix *dst = x->out.n ? &x->out.prefix[k] : NULL;

			/* No packet has addresses of both families; an unblock finds a named host by either. */
			if (dst && !none_is_ok && !x->in.pseudo && !same_family(&x->in.prefix[i], dst))
				continue;
			if (n == COMMANDS_MAX)
				return control_refuse(q, -E2BIG,
						      "more than %u pairs of addresses; name fewer (%u are done)",
						      COMMANDS_MAX, done);
			r = decide(q, kind, x, &x->in.prefix[i], dst, n++, &reply);
			if (r == -ENOENT && none_is_ok)
				continue;
			if (r < 0)
				return r;
			done++;
			ret->count += reply.count;
			ret->accounts += reply.accounts;
			ret->by_hand += reply.by_hand;
		}
	if (n == 0)
		return control_refuse(q, -EINVAL, "source and destination have no address family in common");
	return done ? 0 : r;
}

static int only_real(struct control_call *q, const struct change *x, const char *verb)
{
	if (!x->in.pseudo)
		return 0;
	if (strcmp(x->host, "gateway") == 0)
		return control_refuse(q, -EINVAL, "%s: gateway is this machine by whatever address; name one of them", verb);
	if (control_is_others(&x->in))
		return control_refuse(q, -EINVAL, "%s: others are hosts that found no account of their own; name their addresses", verb);
	return control_refuse(q, -EINVAL, "%s: %s is every sender that is not inside; name its address", verb, x->host);
}

/* An address of the gateway: what it sends itself may be named, wherever the address lies. */
static bool is_own(const struct addr *a)
{
	struct ifaddrs *all = NULL;
	bool is = false;

	if (getifaddrs(&all) < 0)
		return true;	/* not known: nothing is refused for it */
	for (const struct ifaddrs *i = all; i && !is; i = i->ifa_next) {
		struct addr own;

		if (!i->ifa_addr)
			continue;
		if (i->ifa_addr->sa_family == AF_INET)
			own = addr_from_v4(&((const struct sockaddr_in *)i->ifa_addr)->sin_addr);
		else if (i->ifa_addr->sa_family == AF_INET6)
			own = addr_from_v6(&((const struct sockaddr_in6 *)i->ifa_addr)->sin6_addr);
		else
			continue;
		is = addr_cmp(&own, a) == 0;
	}
	freeifaddrs(all);
	return is;
}

/* Where it is the destination that was meant, the command that does it. */
static int not_inside(struct control_call *q, const struct change *x, const char *verb, const char *sender)
{
	const struct policy *p = q->ctx->policy;
	const struct prefix *dest = x->out.n ? &x->out.prefix[0] : p->h->ninside ? &p->inside[0] : NULL;
	char text[PREFIX_STRLEN] = "HOST";

	if (x->out.n && !(policy_src_of(p, &dest->addr)->flags & SRC_INSIDE))
		return control_refuse(q, -EINVAL, "%s: %s is not inside; senders that are not inside are one, judged by rules "
				      "`from: unlisted` alone: write such a rule, or add it to the policy's `inside`", verb, sender);
	if (dest)
		prefix_format(dest, text);
	return control_refuse(q, -EINVAL, "%s: %s is not inside. To %s it as a destination: egressctl %s %s %s", verb, sender, verb, verb,
			      text, sender);
}

/* What is not inside has no pairs of its own: a block of it would look like one and stop nothing, or others. */
static int only_inside(struct control_call *q, const struct change *x, const char *verb)
{
	const struct policy *p = q->ctx->policy;
	char text[PREFIX_STRLEN];

	if (!p || x->in.pseudo || x->in.host >= 0)
		return 0;
	for (uint32_t i = 0; i < x->in.n; i++) {
		const struct prefix *in = &x->in.prefix[i];

		if (in->len < 128 || policy_src_of(p, &in->addr)->flags & (SRC_INSIDE | SRC_EXIT) || is_own(&in->addr))
			continue;
		return not_inside(q, x, verb, prefix_format(in, text));
	}
	return 0;
}

/* As it was asked for, within its bounds or not. */
static const char *asked(const struct control_call *q, const char *key, const char *(*format)(uint64_t n, char buf[16]),
			 const char *otherwise, char buf[16])
{
	const json_t *v = json_object_get(q->args, key);

	if (json_is_integer(v) && json_integer_value(v) >= 0)
		return format((uint64_t)json_integer_value(v), buf);
	snprintf(buf, 16, "%s", !v || json_is_null(v) ? otherwise : "?");
	return buf;
}

static void describe(const struct control_call *q, const struct change *x, const char *verb, char *buf, size_t size)
{
	bool budgets = strcmp(verb, "block") != 0;
	char budget[16], time[16], hour[16];

	snprintf(buf, size, "%s %.100s to %.100s%s%s, for %s", verb, x->host, x->dest ? x->dest : "anywhere",
		 budgets ? ", budget " : "", budgets ? asked(q, "budget_bytes", format_bytes, "default", budget) : "",
		 asked(q, "for_s", format_duration, format_duration(FOR_DEFAULT, hour), time));
}

static int finish(struct control_call *q, const char *verb, const struct change *x, int r, uint64_t count, json_t *reply)
{
	char what[400];

	if (x->host && x->reason) {
		describe(q, x, verb, what, sizeof(what));
		log_change(q, what, x->reason, r, q->why);
	}
	if (r == 0)
		control_set_number(reply, "count", count);
	return r;
}

static void set_term(const struct control_call *q, const struct change *x, json_t *reply)
{
	control_set(reply, "until", control_json_time(q, mono_add_s(q->now, x->for_s).ns));
	if (x->budget)
		control_set_number(reply, "budget_bytes", x->budget);
}

int control_block(struct control_call *q, json_t *reply)
{
	struct changed did = { 0 };
	struct change x;
	int r = read_change(q, false, true, &x);

	if (r == 0)
		r = control_name_in(q, x.host, false, &x.in);
	if (r == 0)
		r = only_real(q, &x, "block");
	if (r == 0)
		r = only_inside(q, &x, "block");
	if (r == 0)
		r = decide_all(q, PROTO_BLOCK, &x, false, &did);
	r = finish(q, "block", &x, r, did.count, reply);
	if (r == 0)
		set_term(q, &x, reply);
	return r;
}

int control_unblock(struct control_call *q, json_t *reply)
{
	struct changed did = { 0 };
	struct change x;
	int r = read_change(q, false, false, &x);

	if (r == 0)
		r = control_number(q, "budget_bytes", 1, CONTROL_BUDGET_MAX, true, &x.budget);
	if (r == 0)
		r = control_name_in(q, x.host, true, &x.in);
	if (r == 0)
		r = decide_all(q, PROTO_UNBLOCK, &x, true, &did);
	r = finish(q, "unblock", &x, r, did.count, reply);
	if (r < 0)
		return r;
	control_set_number(reply, "accounts", did.accounts);
	control_set_number(reply, "by_hand", did.by_hand);
	control_set_number(reply, "kept", did.count - did.accounts - did.by_hand);
	if (did.accounts)
		set_term(q, &x, reply);
	else
		control_set(reply, "until", json_null());	/* nothing was granted, so nothing ends */
	return 0;
}

/* Of a host with an address a family, that which can meet `other`: then its budget is one. */
static void narrow(struct control_name *n, const struct control_name *other)
{
	unsigned fit = 0, at = 0;

	for (unsigned i = 0; other->n == 1 && i < n->n; i++)
		if (same_family(&n->prefix[i], &other->prefix[0])) {
			at = i;
			fit++;
		}
	if (fit != 1)
		return;
	n->prefix[0] = n->prefix[at];
	n->n = 1;
}

int control_allow(struct control_call *q, json_t *reply)
{
	struct changed did = { 0 };
	struct change x;
	int r = read_change(q, true, true, &x);

	if (r == 0)
		r = control_number(q, "budget_bytes", 1, CONTROL_BUDGET_MAX, false, &x.budget);
	if (r == 0)
		r = control_name_in(q, x.host, false, &x.in);
	if (r == 0)
		r = only_real(q, &x, "allow");
	if (r == 0)
		r = only_inside(q, &x, "allow");
	if (r == 0) {
		narrow(&x.in, &x.out);
		narrow(&x.out, &x.in);
	}
	if (r == 0 && (x.in.n > 1 || x.out.n > 1))
		/* One budget each would be more than was asked for. */
		r = control_refuse(q, -EINVAL, "allow: name one address or network on each side: its budget is one");
	if (r == 0)
		r = decide_all(q, PROTO_ALLOW, &x, false, &did);
	r = finish(q, "allow", &x, r, did.count, reply);
	if (r == 0)
		set_term(q, &x, reply);
	return r;
}

int control_observe(struct control_call *q, json_t *reply)
{
	struct change x = { .for_s = 0 };
	struct proto_reply answer;
	char what[80], time[16];
	int r = control_text(q, "reason", CONTROL_REASON_MAX, false, &x.reason);

	if (r == 0)
		r = control_number(q, "for_s", 0, CONTROL_FOR_MAX, false, &x.for_s);
	if (r < 0)
		return r;
	r = decide(q, PROTO_OBSERVE, &x, NULL, NULL, 0, &answer);
	if (x.for_s)
		snprintf(what, sizeof(what), "observe, all blocking off for %s", format_duration(x.for_s, time));
	else
		snprintf(what, sizeof(what), "observe ended, blocking is on again");
	log_change(q, what, x.reason, r, q->why);
	if (r == 0)
		control_set(reply, "until", x.for_s ? control_json_time(q, mono_add_s(q->now, x.for_s).ns) : json_null());
	return r;
}

/* ---- policy ---- */

static void set_version(const struct control_call *q, json_t *reply)
{
	control_set_number(reply, "version",
			   atomic_load_explicit(&q->ctx->area->h->policy_version, memory_order_acquire));
	control_set_text(reply, "path", q->ctx->config->policy);
}

static int policy_reason(struct control_call *q, const char **ret)
{
	return control_text(q, "reason", CONTROL_REASON_MAX, true, ret);
}

int control_reload(struct control_call *q, json_t *reply)
{
	const char *reason;
	int r = policy_reason(q, &reason);

	if (r < 0)
		return r;
	r = policy_step(q, q->ctx->reload(q->ctx->relay, q->why, sizeof(q->why)));
	log_change(q, "reload", reason, r, q->unknown ? q->why : "");
	if (r == 0)
		set_version(q, reply);
	return r;
}

int control_apply(struct control_call *q, json_t *reply)
{
	uint64_t confirm_s = 0;
	const char *yaml, *reason;
	char what[80], time[16];
	int r = control_text(q, "policy", POLICY_TEXT_MAX, false, &yaml);

	if (r == 0)
		r = control_number(q, "confirm_s", 1, CONTROL_CONFIRM_MAX, true, &confirm_s);
	if (r == 0)
		r = policy_reason(q, &reason);
	if (r < 0)
		return r;
	r = policy_step(q, q->ctx->apply(q->ctx->relay, yaml, strlen(yaml), (unsigned)confirm_s, q->why, sizeof(q->why)));
	if (confirm_s)
		snprintf(what, sizeof(what), "apply, to be confirmed within %s", format_duration(confirm_s, time));
	else
		snprintf(what, sizeof(what), "apply");
	log_change(q, what, reason, r, r == -EINVAL ? "" : q->why);
	if (r < 0)
		return r;
	set_version(q, reply);
	control_set(reply, "goes_back_at",
		    confirm_s ? control_json_time(q, mono_add_s(q->now, confirm_s).ns) : json_null());
	return 0;
}

int control_confirm(struct control_call *q, json_t *reply)
{
	const char *reason;
	char *yaml = NULL;
	int r = policy_reason(q, &reason);

	if (r < 0)
		return r;
	r = q->ctx->confirm(q->ctx->relay, &yaml, q->why, sizeof(q->why));
	log_change(q, "confirm", reason, r, q->why);
	if (r < 0)
		return r;
	set_version(q, reply);
	/* As it came: the caller installs these very bytes. */
	control_set(reply, "policy", yaml ? json_string(yaml) : json_null());
	free(yaml);
	return 0;
}

/* ---- the engine's own check ---- */

int control_debug(struct control_call *q, json_t *reply)
{
	struct proto_msg m = { .kind = PROTO_CHECK };
	struct proto_reply answer;
	int r = q->ctx->command(q->ctx->relay, &m, &answer);

	(void)reply;
	if (r < 0)
		return control_refuse(q, r, "the engine does not answer: %s", strerror(-r));
	if (answer.result < 0)
		return control_refuse(q, answer.result, "inconsistent: %s", answer.text);
	return 0;
}
