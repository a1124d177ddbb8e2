/* commands.c - what the relay asks of the engine: policies, decisions, a check; and the answers. Main thread. See engine.h. */
#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clock.h"
#include "engine.h"
#include "hash.h"
#include "log.h"

#define BY_HAND_ONLY 64
#define CHECK_NS NS_PER_S	/* how long sums may be caught in between */

/* ---- to the supervisor and the relay ---- */

static void tell(int sock, uint16_t kind, uint64_t token, const struct proto_reply *x)
{
	const struct proto_msg m = { .magic = PROTO_MAGIC, .kind = kind, .token = token, .u.reply = *x };

	if (proto_send(sock, &m, -1) < 0)
		log_warning("message %u to %s not sent: %s", kind, sock == FD_SUPER ? "supervisor" : "relay", strerror(errno));
}

void engine_tell(int sock, uint16_t kind, uint64_t token, int32_t result, const char *text)
{
	struct proto_reply x = { .result = result };

	snprintf(x.text, sizeof(x.text), "%s", text);
	tell(sock, kind, token, &x);
}

static void keep_policy(struct engine *e)
{
	struct proto_msg m = { .magic = PROTO_MAGIC, .kind = PROTO_KEEP_POLICY };

	m.u.policy.version = e->policy->version;
	m.u.policy.size = (uint32_t)e->policy->size;
	if (proto_send(FD_SUPER, &m, e->policy->fd) < 0)
		log_warning("policy not handed to the supervisor: %s; an engine restart will wait for the relay", strerror(errno));
}

void engine_ready(struct engine *e)
{
	if (e->ready)
		return;
	e->ready = true;
	enforce_look_back(e);
	if (e->flavour == RULES_XT_NFQUEUE && atomic_load_explicit(&e->area.h->engine_starts, memory_order_relaxed) == 1)
		log_notice("this kernel has no nft queue statement; the xt NFQUEUE target does the same");
	engine_tell(FD_SUPER, PROTO_READY, 0, 0, "");
}

/* ---- commands ---- */

static struct area_dynamic dynamic_of(const struct proto_decision *d, struct mono now)
{
	struct area_dynamic x = { .src = d->src, .dst = d->dst, .budget = d->budget };

	snprintf(x.id, sizeof(x.id), "%s", d->id);
	snprintf(x.author, sizeof(x.author), "%s", d->author);
	snprintf(x.reason, sizeof(x.reason), "%s", d->reason);
	x.uid = hash_uid(x.id, strlen(x.id));
	x.since_ns = now.ns;
	x.until_ns = mono_add_s(now, d->ttl_s).ns;
	return x;
}

static void set_policy(struct engine *e, const struct proto_msg *m, int fd)
{
	char why[200] = "";
	int r = -EBADMSG;

	if (fd < 0)
		snprintf(why, sizeof(why), "no descriptor came with the policy");
	else
		r = enforce_policy(e, fd, m->u.policy.version, false, why);
	if (r == 0) {
		keep_policy(e);
		engine_ready(e);
		log_info("policy %u in force", m->u.policy.version);
	} else if (e->policy) {		/* else the relay's answer to it is the line */
		log_notice("policy %u not applied: %s; keeping the one in force", m->u.policy.version, why);
	}
	engine_tell(FD_PEER, PROTO_REPLY, m->token, r, why);
}

int engine_check(const struct engine *e, const char **ret_why)
{
	const uint64_t until = clock_mono().ns + CHECK_NS;

	/* Workers go on meanwhile: a count caught in between is looked at again. */
	for (;;) {
		const int r = area_check(&e->area, ret_why);

		if (r == 0 || clock_mono().ns >= until)
			return r;
		usleep(5000);
	}
}

static void check_area(const struct engine *e, const struct proto_msg *m)
{
	const char *why = "";
	const int r = engine_check(e, &why);

	engine_tell(FD_PEER, PROTO_REPLY, m->token, r, r < 0 ? why : "");
}

static void say_wider(const struct area_dynamic *d, char text[200])
{
	char src[PREFIX_STRLEN], dst[PREFIX_STRLEN] = "anywhere";

	if (d->dst.len)
		prefix_format(&d->dst, dst);
	snprintf(text, 200, "a block by hand reaches further, %s to %s by %.40s: unblock just that, or wait for its end",
		 prefix_format(&d->src, src), dst, d->author);
}

/* Those of before, too, which no account has: after r of judge_unblock(). */
static int unblock_kept(struct engine *e, const struct proto_decision *d, int r, struct proto_reply *ret)
{
	uint32_t n = 0;
	const int error = blocked_lift_kept(e, &d->src, &d->dst, &n);

	if (error < 0) {
		snprintf(ret->text, sizeof(ret->text), "blocks of before are in the kernel yet: %s%s", strerror(-error),
			 r == 0 ? "; the others are lifted" : "");
		return error == -ENOENT ? -EAGAIN : error;	/* the first means that nothing was there */
	}
	ret->count += n;
	return n ? 0 : r;
}

/* decide.h [DC1]: of a decision from Redis without a budget. */
static int within_bounds(struct engine *e, const struct proto_decision *d, char text[200])
{
	const struct policy *p = e->judge.policy;
	const uint64_t own = p && d->entry && !d->budget ? judge_unblock_default(&e->judge, &d->src, &d->dst) : 0;

	if (!own || own <= p->h->max_budget)
		return 0;
	snprintf(text, 200, "no budget, and the rule's own of %" PRIu64 " B is beyond the local policy's max_budget of %" PRIu64 " B: name "
		 "one", own, p->h->max_budget);
	return -EPERM;
}

static int unblock(struct engine *e, const struct proto_decision *d, struct mono now, struct proto_reply *ret)
{
	struct judge_unblocked did = { 0 };
	int r = within_bounds(e, d, ret->text);

	if (r < 0)
		return r;
	r = judge_unblock(&e->judge, &d->src, &d->dst, d->budget, d->ttl_s, now, &did);
	if (r == -EBUSY) {
		say_wider(did.wider, ret->text);
		return r;
	}
	ret->accounts = did.accounts;
	ret->by_hand = did.by_hand;
	ret->count = did.accounts + did.by_hand;
	return unblock_kept(e, d, r, ret);
}

static int observe(struct engine *e, uint32_t ttl_s, struct mono now, char text[200])
{
	const struct prefix all = { .len = 0 };
	uint32_t n;
	int r = 0;

	atomic_store_explicit(&e->area.h->observe_until_ns, ttl_s ? mono_add_s(now, ttl_s).ns : 0, memory_order_relaxed);
	judge_policy_changed(&e->judge, now);	/* caps follow the mode at once */
	if (ttl_s)	/* the review ends the others */
		r = blocked_lift_kept(e, &all, &all, &n);
	if (r < 0)
		snprintf(text, 200, "blocking is off, but blocks of before are in the kernel yet: %s; try again", strerror(-r));
	return r == -ENOENT ? -EAGAIN : r;
}

/* Done but not remembered: by an engine killed at that moment, or in an area before this one. Another entry with the same id and words
 * the relay refuses. */
static bool stands(const struct engine *e, const struct proto_msg *m, struct mono now)
{
	const struct area_dynamic d = dynamic_of(&m->u.decision, now);

	if (!m->u.decision.entry || (m->kind != PROTO_ALLOW && m->kind != PROTO_BLOCK))
		return false;
	return judge_stands(&e->judge, &d, m->kind == PROTO_ALLOW ? DYNAMIC_ALLOW : DYNAMIC_BLOCK);
}

/* Those that come by Redis leave places for people at the gateway. */
static bool is_full_for(const struct area *a, const struct proto_decision *d)
{
	unsigned n = 0;

	for (unsigned i = 0; d->entry && i < AREA_DYNAMIC; i++)
		n += a->h->dynamic[i].kind != DYNAMIC_NONE;
	return n >= AREA_DYNAMIC - BY_HAND_ONLY;
}

static int decide(struct engine *e, const struct proto_msg *m, struct mono now, struct proto_reply *ret)
{
	const struct proto_decision *d = &m->u.decision;
	struct area_dynamic x;

	if ((m->kind == PROTO_ALLOW || m->kind == PROTO_BLOCK) && is_full_for(&e->area, d) && !stands(e, m, now))
		return -ENOSPC;
	ret->count = m->kind != PROTO_UNBLOCK;
	switch (m->kind) {
	case PROTO_UNBLOCK:
		return unblock(e, d, now, ret);
	case PROTO_ALLOW:
		x = dynamic_of(d, now);
		return judge_allow(&e->judge, &x, now);
	case PROTO_BLOCK:
		x = dynamic_of(d, now);
		return judge_block(&e->judge, &x, now);
	case PROTO_OBSERVE:
		return observe(e, d->ttl_s, now, ret->text);
	default:
		return -EBADMSG;
	}
}

static const char *no_room(const struct area *a, const struct proto_decision *d)
{
	_Static_assert(AREA_DYNAMIC == 256 && BY_HAND_ONLY == 64, "the texts below");
	if (is_full_for(a, d))
		return "192 decisions are in force, which is all that Redis may make: `egressctl blocks` lists them; wait until one ends";
	for (unsigned i = 0; i < AREA_DYNAMIC; i++)
		if (a->h->dynamic[i].kind == DYNAMIC_NONE)
			return "the table of accounts is full: raise table.pairs of egressd.yaml, and restart";
	return "256 decisions are in force, which is all that fit: `egressctl blocks` lists them; unblock one, or wait until one ends";
}

static const struct area_answer *answered(const struct area_header *h, uint64_t entry)
{
	/* Acquire: pairs with the release of the engine before. */
	for (unsigned i = 0; entry && i < AREA_ANSWERS; i++)
		if (atomic_load_explicit(&h->answer[i].entry, memory_order_acquire) == entry)
			return &h->answer[i];
	return NULL;
}

/* [M3] */
static void remember(struct area_header *h, uint64_t entry, const struct proto_reply *r)
{
	struct area_answer *x = &h->answer[h->answers++ % AREA_ANSWERS];

	/* Acquire, then release: a kill in between leaves no entry with another's answer. */
	(void)atomic_exchange_explicit(&x->entry, 0, memory_order_acquire);
	x->result = r->result;
	x->count = r->count;
	snprintf(x->text, sizeof(x->text), "%s", r->text);
	atomic_store_explicit(&x->entry, entry, memory_order_release);
}

/* What it came to; no more of it than `result` and `text` when that is an error. */
static struct proto_reply carry_out(struct engine *e, const struct proto_msg *m, struct mono now)
{
	struct proto_reply x = { 0 };
	const char *why = NULL;

	x.result = decide(e, m, now, &x);
	if (x.result == -EEXIST && stands(e, m, now))
		x.result = 0;
	if (x.result == 0)
		return x;
	if (x.result == -ENOENT)
		why = "nothing is blocked there";
	else if (x.result == -ENOSPC)
		why = no_room(&e->area, &m->u.decision);
	else if (x.result == -EEXIST)
		why = "a decision with this id is in force";
	if (why)
		snprintf(x.text, sizeof(x.text), "%s", why);
	x.count = x.accounts = x.by_hand = 0;
	return x;
}

static void decision(struct engine *e, const struct proto_msg *m)
{
	const struct area_answer *before = answered(e->area.h, m->u.decision.entry);
	const struct mono now = clock_mono();
	struct proto_reply x = { 0 };

	if (before) {
		x = (struct proto_reply){ .result = before->result, .count = before->count };
		snprintf(x.text, sizeof(x.text), "%s", before->text);
		tell(FD_PEER, PROTO_REPLY, m->token, &x);
		return;
	}
	if (m->inquiry) {	/* [M4] */
		x.result = stands(e, m, now) ? 0 : -ENODATA;
		x.count = x.result == 0;
		tell(FD_PEER, PROTO_REPLY, m->token, &x);
		return;
	}
	(void)blocked_settle(e, e->policy);	/* elements that it takes out or puts in anew count no more, or from zero */
	x = carry_out(e, m, now);
	if (m->u.decision.entry)
		remember(e->area.h, m->u.decision.entry, &x);
	/* What it concerns is judged by it at once. An unblock and the end of observing only give: what was leased stays paid. */
	if (x.result == 0 && (m->kind == PROTO_BLOCK || m->kind == PROTO_ALLOW))
		leases_end_between(e, &m->u.decision.src, &m->u.decision.dst);
	blocked_review(e, now);
	tell(FD_PEER, PROTO_REPLY, m->token, &x);
}

void command_take(struct engine *e)
{
	struct proto_msg m;
	int fd = -1, r = proto_receive(FD_PEER, &m, &fd, MSG_DONTWAIT);

	if (r <= 0) {
		if (r == -EBADMSG)
			log_warning("a malformed message from the relay was dropped");
		return;
	}
	if (m.kind == PROTO_POLICY) {
		set_policy(e, &m, fd);
		return;
	}
	if (fd >= 0)
		close(fd);
	if (m.kind == PROTO_CHECK)
		check_area(e, &m);
	else
		decision(e, &m);
}
