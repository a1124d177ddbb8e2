/* decisions.c - see decisions.h for the contract. */
#include "decisions.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "clock.h"
#include "decide.h"
#include "history.h"
#include "log.h"

/* ---- answers ---- */

void decisions_written(struct decisions *d)
{
	if (d->full)
		log_notice("answers to decisions are on disk: decisions are taken again");
	d->full = false;
	if (d->unwritten && d->courier)
		courier_written(d->courier);
	d->unwritten = 0;
}

static int sync_spool(struct decisions *d)
{
	int e;

	pthread_mutex_lock(d->spool_lock);
	e = spool_sync(d->spool);
	pthread_mutex_unlock(d->spool_lock);
	if (e == 0)
		decisions_written(d);
	return e;
}

/* 0: it will be in the spool, at the latest when the disk is written again. -errno: no memory for it. */
static int answer(struct decisions *d, const struct redis_decision *x, const char *result, const char *why)
{
	int e;

	pthread_mutex_lock(d->spool_lock);
	e = report_decision(d->report, x, result, why);
	pthread_mutex_unlock(d->spool_lock);
	if (e < 0) {
		if (d->failed != d->asked.u.decision.entry)
			log_error("answer to decision %s, %s, not written: %s; tried again", x->id, result, strerror(-e));
		d->failed = d->asked.u.decision.entry;
		return e;
	}
	e = sync_spool(d);
	if (e < 0 && d->unwritten++ == 0)
		log_error("answer to decision %s not written: %s; tried again; of those that follow %u are kept in memory", x->id,
			  strerror(-e), DECISIONS_UNWRITTEN - 1);
	return 0;
}

static int answer_as(struct decisions *d, const struct redis_decision *x, const struct proto_reply *reply)
{
	if (d->asked.inquiry && reply->result == -ENODATA)
		return answer(d, x, "refused", d->asked_why);
	return answer(d, x, reply->result == 0 ? "applied" : "refused", reply->text);
}

/* [DS3] One more and the engine would forget the first of them, which a next relay would ask for again. */
static bool has_room(struct decisions *d)
{
	if (d->unwritten < DECISIONS_UNWRITTEN || sync_spool(d) == 0)
		return true;
	if (d->full)
		return false;
	d->full = d->untold = true;
	log_error("%u answers to decisions wait for the disk: no more decisions are taken until it can be written (see: df; state_dir)",
		  d->unwritten);
	return false;
}

static void tell_waits(struct decisions *d)
{
	if (!report_health_due(d->report, "decisions-wait"))
		return;
	pthread_mutex_lock(d->spool_lock);
	d->untold = report_health(d->report, "decisions-wait",
				  "decisions waited: answers to those before could not be written to disk; see the journal") < 0;
	pthread_mutex_unlock(d->spool_lock);
}

/* ---- decisions ---- */

/* True: an answer is due. d->asked is for the engine then, and stays as it is until it was answered: the engine may have done it. So
 * may one before have, asked by a relay before, when it was within bounds yet: what is to be refused is asked about. [DS1] */
static bool check(struct decisions *d, const struct policy *p, const struct redis_decision *x)
{
	const enum report_decided known = report_decided(d->report, x);
	const uint64_t entry = decided_name(x->entry);
	char why[sizeof(d->asked_why)] = "";
	struct proto_msg m;
	int e;

	if (known == DECIDED_ANSWERED)
		return false;
	if (d->asked.u.decision.entry == entry)
		return true;
	e = decide_check(p, d->gateway, x, clock_wall_us(), &m, why, sizeof(why));
	if (e > 0)
		return false;
	if (e == 0 && known == DECIDED_REUSED)
		snprintf(why, sizeof(why), "id: another entry had it, each decision needs its own");
	if (known == DECIDED_REUSED || (e < 0 && decide_meant(p, x, &m) < 0))
		m = (struct proto_msg){ .kind = PROTO_UNBLOCK };	/* by its entry alone */
	m.inquiry = why[0] != '\0';
	m.u.decision.entry = entry;
	d->asked = m;
	memcpy(d->asked_why, why, sizeof(why));
	return true;
}

void decisions_take(struct decisions *d, const struct policy *p)
{
	struct proto_reply reply = { 0 };
	struct redis_decision x;

	if (d->untold)
		tell_waits(d);
	if (!d->courier || !p || !courier_decision(d->courier, &x))
		return;
	if (check(d, p, &x) && (!has_room(d) || d->ask(d->ctx, &d->asked, &reply) < 0 || answer_as(d, &x, &reply) < 0))
		return;
	courier_decided(d->courier, d->unwritten == 0);
	courier_poke(d->courier);
}
