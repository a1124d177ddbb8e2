/* report.c - see report.h for the contract. */
#include "report.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "history.h"
#include "incidents.h"
#include "log.h"
#include "report_fill.h"
#include "snapshot.h"

#define MINUTE_NS (60 * NS_PER_S)
#define KINDS	  16

enum said { SAID_NOTHING, SAID_OPEN, SAID_CLOSED };

struct known {			/* what the spool holds of the last finding seen in an account slot */
	uint64_t finding_id;
	uint64_t incident_id;
	uint32_t rev;		/* seen; told unless said is SAID_NOTHING: held back */
	uint32_t place;		/* incidents.h, 0: in none */
	uint32_t subject;	/* hash of the account's key: the slot may be another's by now */
	enum said said;
};

struct burst {			/* new findings of one rule in this minute */
	uint64_t since_ns;
	uint32_t count, held_back;
};

struct health_kind {
	char kind[32];
	uint64_t last_ns, held_back;
};

struct report {
	const struct area *a;
	const struct config *c;
	struct spool *spool;
	const struct policy *policy;
	uint64_t bell;			/* our cursor */
	struct known *last;		/* by account slot */
	struct incidents *incidents;
	struct burst burst[POLICY_RULES];
	struct health_kind health[KINDS];
	struct decided decided;
	struct finding f;		/* scratch, large */
	char record[sizeof(struct report_record) + FINDING_JSON_MAX];
};

static bool is_open(const struct area *a, uint32_t slot)
{
	return atomic_load_explicit(&a->account[slot].state, memory_order_relaxed) & ACCOUNT_OPEN;
}

static uint64_t finding_of(const struct area *a, uint32_t slot)
{
	/* Acquire: pairs with the release in open_finding() of ledger.c; a new finding's open bit is seen as well. */
	return __atomic_load_n(&a->account_cold[slot].finding_id, __ATOMIC_ACQUIRE);
}

static uint32_t subject_of(const struct area *a, uint32_t slot)
{
	return (uint32_t)area_account_hash(a, &a->account[slot].key);
}

/* ---- what the spool has already ---- */

/* A finding that closed while a relay was there to see it, last at alive_us, and that the spool has not: it was held back, or is older
 * than the spool. */
static bool is_past(const struct report *r, uint32_t slot, uint64_t alive_us)
{
	uint64_t at = clock_wall_of((struct mono){ r->a->account_cold[slot].rev_ns });

	return !is_open(r->a, slot) && at + 2 * REPORT_SCAN_S * 1000000ULL < alive_us;
}

static void recall_finding(struct report *r, const struct history *h, uint32_t slot, uint64_t alive_us)
{
	uint64_t id = finding_of(r->a, slot);
	const struct history_finding *f = id ? history_of(h, id) : NULL;
	struct known *last = &r->last[slot];

	if (!id || (!f && !is_past(r, slot, alive_us)))
		return;
	*last = (struct known){ .finding_id = id, .subject = subject_of(r->a, slot), .said = SAID_CLOSED };
	if (!f)
		return;
	last->rev = f->rev;
	last->incident_id = f->incident_id;
	if (f->activity == ACTIVITY_CLOSE ||
	    (!is_open(r->a, slot) && f->rev == atomic_load_explicit(&r->a->account_cold[slot].rev, memory_order_relaxed)))
		return;
	last->said = SAID_OPEN;
	last->place = incidents_join(r->incidents, r->a->account[slot].key.in, f->incident_id, &last->incident_id);
}

static int recall(struct report *r)
{
	struct history h;
	int e = history_read(r->spool, &h, &r->decided);
	uint64_t alive_us = MAX_OF(h.wall_us, snapshot_written_us(r->c->state_dir));

	for (uint32_t i = 0; e == 0 && i < r->a->h->accounts; i++)
		if (table_is_full(&r->a->accounts, i))
			recall_finding(r, &h, i, alive_us);
	history_free(&h);
	return e;
}

int report_open(const struct area *a, const struct config *c, struct spool *s, struct report **ret)
{
	struct report *r = calloc(1, sizeof(*r));
	int e = -ENOMEM;

	if (!r)
		return e;
	r->a = a;
	r->c = c;
	r->spool = s;
	r->last = calloc(a->h->accounts, sizeof(*r->last));
	if (r->last && incidents_new(a->h->accounts, &r->incidents) == 0)
		e = recall(r);
	if (e < 0) {
		report_close(r);
		return e;
	}
	*ret = r;
	return 0;
}

struct report *report_close(struct report *r)
{
	if (!r)
		return NULL;
	free(r->last);
	incidents_free(r->incidents);
	free(r);
	return NULL;
}

void report_policy(struct report *r, const struct policy *p)
{
	r->policy = p;
	memset(r->burst, 0, sizeof(r->burst));	/* rule numbers are another policy's */
}

/* ---- one record ---- */

static int write_record(struct report *r)
{
	struct report_record rec = {
		.magic = REPORT_MAGIC, .event = r->f.event, .finding_id = r->f.finding_id, .rev = r->f.rev, .activity = r->f.activity,
		.incident_id = r->f.incident_id, .wall_us = r->f.wall_us,
		.decision = decided_name(r->f.decision_id), .entry = decided_name(r->f.decision_entry),
	};
	char line[1024];
	uint64_t seq;
	int n, e;

	r->f.seq = spool_next_seq(r->spool);
	n = finding_json(&r->f, r->record + sizeof(rec), FINDING_JSON_MAX);
	if (n < 0)
		return n;
	memcpy(r->record, &rec, sizeof(rec));
	e = spool_append(r->spool, r->record, sizeof(rec) + (size_t)n, &seq);
	if (e < 0)
		return e;
	(void)!finding_line(&r->f, line, sizeof(line));	/* what fits */
	log_notice("%s", line);
	return 0;
}

/* [RP3] true: this new finding is held back. */
static bool too_many(struct report *r, uint32_t rule, uint64_t now)
{
	struct burst *b;

	if (rule >= POLICY_RULES)
		return false;
	b = &r->burst[rule];
	if (now - b->since_ns >= MINUTE_NS)
		return false;	/* summaries() ends the minute and starts the next */
	return b->count >= REPORT_BURST;
}

static void count_new(struct report *r, uint32_t rule, uint64_t now, bool held_back)
{
	struct burst *b;

	if (rule >= POLICY_RULES)
		return;
	b = &r->burst[rule];
	if (b->count == 0 && b->held_back == 0)
		b->since_ns = now;
	b->count++;
	b->held_back += held_back;
}

static int write_summary(struct report *r, uint32_t rule, uint32_t n)
{
	const struct policy_rule *p = &r->policy->rule[rule];
	char text[160];

	snprintf(text, sizeof(text), "%u more new findings of rule %s within a minute; see: egressctl findings", n,
		 policy_string(r->policy, p->name));
	return report_health(r, "summary", text);
}

static int summaries(struct report *r, uint64_t now)
{
	int e = 0;

	for (uint32_t i = 0; e == 0 && r->policy && i < r->policy->h->nrules; i++) {
		struct burst *b = &r->burst[i];

		if (!b->count || now - b->since_ns < MINUTE_NS)
			continue;
		if (b->held_back)
			e = write_summary(r, i, b->held_back);
		*b = (struct burst){ 0 };
	}
	return e;
}

static int write_finding(struct report *r, const struct known *k, uint32_t rev, enum finding_activity activity)
{
	r->f.finding_id = k->finding_id;
	r->f.incident_id = k->incident_id;
	r->f.rev = rev;
	r->f.activity = activity;
	return write_record(r);
}

/* [RP4] The slot's last finding ended unseen, another one came since: that it is over is all that can be said of it. */
static int close_former(struct report *r, uint32_t slot)
{
	struct known *last = &r->last[slot];
	int e;

	r->f.verdict = VERDICT_ALLOW;
	r->f.until_us = r->f.until_window_s = 0;
	r->f.refused_bytes = 0;
	r->f.how_to_allow[0] = '\0';
	r->f.last_seen_us = r->f.first_seen_us;	/* at the latest */
	e = last->subject == subject_of(r->a, slot) ? write_finding(r, last, last->rev + 1, ACTIVITY_CLOSE) : 0;
	if (e < 0)
		return e;
	incidents_leave(r->incidents, last->place);
	*last = (struct known){ 0 };
	return 0;
}

/* Told for the first time; one that is over by now as it was, with the rev before, so that its end has one of its own. */
static int create(struct report *r, uint32_t slot, uint64_t id, uint32_t rev, bool open)
{
	struct known k = { .finding_id = id, .rev = open || !rev ? rev : rev - 1, .subject = subject_of(r->a, slot), .said = SAID_OPEN };
	int e;

	k.place = incidents_join(r->incidents, r->a->account[slot].key.in, id, &k.incident_id);
	e = write_finding(r, &k, k.rev, ACTIVITY_CREATE);
	if (e < 0)
		incidents_leave(r->incidents, k.place);
	else
		r->last[slot] = k;
	return e;
}

static int update(struct report *r, uint32_t slot, uint32_t rev, bool open)
{
	struct known *last = &r->last[slot];
	int e = write_finding(r, last, rev, open ? ACTIVITY_UPDATE : ACTIVITY_CLOSE);

	if (e < 0)
		return e;
	last->rev = rev;
	if (open)
		return 0;
	last->said = SAID_CLOSED;
	incidents_leave(r->incidents, last->place);
	last->place = 0;
	return 0;
}

/* [RP3] Not told so far: may it be now? */
static bool hold_back(struct report *r, uint32_t slot, uint64_t id, uint32_t rev, bool fresh, bool open, uint64_t now)
{
	uint32_t rule = r->a->account_cold[slot].rule;
	bool hold = too_many(r, rule, now);

	if (!fresh && !open)	/* over, and nobody heard of it */
		hold = true;
	else if (fresh || !hold)
		count_new(r, rule, now, hold);
	if (hold)
		r->last[slot] = (struct known){ .finding_id = id, .rev = rev, .subject = subject_of(r->a, slot),
						.said = fresh || open ? SAID_NOTHING : SAID_CLOSED };
	return hold;
}

/* 1: records were written, 0: nothing new, -errno: tried again at the next scan. */
static int report_account(struct report *r, uint32_t slot, unsigned scans_left, uint64_t now)
{
	struct known *last = &r->last[slot];
	/* Acquire: pairs with the release in ledger_tell(); the finding's fields are at least as new. */
	uint32_t rev = atomic_load_explicit(&r->a->account_cold[slot].rev, memory_order_acquire);
	uint64_t id = finding_of(r->a, slot);
	bool open = is_open(r->a, slot), fresh = id != last->finding_id;
	int e = 0;

	if (!id || (!fresh && (rev == last->rev || last->said == SAID_CLOSED)))
		return 0;
	if (fresh && last->said == SAID_OPEN)
		e = report_fill(r->a, r->policy, r->c, slot, false, &r->f) ? close_former(r, slot) : -ENOENT;
	if (e < 0)
		return e == -ENOENT ? 0 : e;	/* its rule is gone */
	if ((fresh || last->said == SAID_NOTHING) && hold_back(r, slot, id, rev, fresh, open, now))
		return 0;
	if (!report_fill(r->a, r->policy, r->c, slot, scans_left > 0, &r->f))
		return 0;
	if (fresh || last->said == SAID_NOTHING)
		e = create(r, slot, id, rev, open);
	if (e == 0 && rev != last->rev)
		e = update(r, slot, rev, open);
	return e < 0 ? e : 1;
}

uint64_t report_incident(const struct report *r, uint32_t slot)
{
	const struct known *k = &r->last[slot];

	return k->said != SAID_NOTHING && k->finding_id == finding_of(r->a, slot) ? k->incident_id : 0;
}

int report_scan(struct report *r, bool all)
{
	const struct area_header *h = r->a->h;
	uint64_t to = atomic_load_explicit(&h->bell_next, memory_order_acquire), now = clock_mono().ns;
	unsigned written = 0, scans = 20;	/* looking for the largest destinations walks the table: so many a turn */
	int e = 0;

	all = all || to - r->bell > AREA_BELL;
	if (all) {
		for (uint32_t i = 0; e >= 0 && i < h->accounts; i++) {
			/* Tags first: a look at a record that was never used would give it memory. */
			e = table_is_full(&r->a->accounts, i) ? report_account(r, i, scans, now) : 0;
			written += e > 0;
			scans -= e > 0 && scans;
		}
	} else {
		for (uint64_t at = r->bell; e >= 0 && at < to; at++) {
			uint32_t slot = atomic_load_explicit(&h->bell[at % AREA_BELL], memory_order_acquire);

			e = slot < h->accounts && table_is_full(&r->a->accounts, slot) ? report_account(r, slot, scans, now) : 0;
			written += e > 0;
			scans -= e > 0 && scans;
		}
	}
	if (e >= 0) {
		r->bell = to;
		e = summaries(r, now);
	}
	return e < 0 ? e : (int)written;
}

/* ---- health and decisions ---- */

static void plain(struct report *r, enum finding_event event)
{
	struct finding *f = &r->f;

	memset(f, 0, sizeof(*f));
	f->event = event;
	f->wall_us = clock_wall_us();
	f->first_seen_us = f->last_seen_us = f->wall_us;
	snprintf(f->gateway, sizeof(f->gateway), "%s", r->c->gateway);
	f->policy_version = atomic_load_explicit(&r->a->h->policy_version, memory_order_relaxed);
	snprintf(f->subject_kind, sizeof(f->subject_kind), "gateway");
	snprintf(f->subject_name, sizeof(f->subject_name), "%s", r->c->gateway);
	snprintf(f->category, sizeof(f->category), "%s", event == EVENT_HEALTH ? "health" : "decision");
	snprintf(f->action, sizeof(f->action), "alert");
	f->verdict = VERDICT_ALERT;
	f->severity = SEVERITY_MEDIUM;
	f->unseen_bytes = atomic_load_explicit(&r->a->h->unseen_bytes, memory_order_relaxed);
	f->seen_bytes = area_passed_bytes(r->a);
	/* Ids no account has: the seq is never given twice. */
	f->finding_id = (1ULL << 63) | spool_next_seq(r->spool);
	f->incident_id = f->finding_id;
	f->rev = 1;
}

bool report_health_due(const struct report *r, const char *kind)
{
	for (unsigned i = 0; i < KINDS; i++)
		if (strcmp(r->health[i].kind, kind) == 0)
			return !r->health[i].last_ns || clock_mono().ns - r->health[i].last_ns >= MINUTE_NS;
	return true;
}

static struct health_kind *kind_of(struct report *r, const char *kind)
{
	unsigned i;

	for (i = 0; i < KINDS - 1 && r->health[i].kind[0]; i++)
		if (strcmp(r->health[i].kind, kind) == 0)
			break;
	snprintf(r->health[i].kind, sizeof(r->health[i].kind), "%s", kind);
	return &r->health[i];
}

int report_health(struct report *r, const char *kind, const char *text)
{
	struct health_kind *k = kind_of(r, kind);
	uint64_t now = clock_mono().ns;
	int e;

	if (k->last_ns && now - k->last_ns < MINUTE_NS && strcmp(kind, "summary") != 0) {
		k->held_back++;
		return 0;
	}
	plain(r, EVENT_HEALTH);
	r->f.severity = strcmp(kind, "brake") == 0 ? SEVERITY_CRITICAL : SEVERITY_HIGH;
	snprintf(r->f.rule, sizeof(r->f.rule), "%s", kind);
	if (k->held_back)
		snprintf(r->f.signature, sizeof(r->f.signature), "%s (and %llu times more since)", text,
			 (unsigned long long)k->held_back);
	else
		snprintf(r->f.signature, sizeof(r->f.signature), "%s", text);
	e = write_record(r);
	if (e < 0)
		return e;
	k->last_ns = now;
	k->held_back = 0;
	return 0;
}

int report_decision(struct report *r, const struct redis_decision *d, const char *result, const char *why)
{
	struct finding *f = &r->f;
	int e;

	plain(r, EVENT_DECISION);
	f->severity = SEVERITY_LOW;
	snprintf(f->decision_entry, sizeof(f->decision_entry), "%s", d->entry);
	snprintf(f->decision_id, sizeof(f->decision_id), "%s", d->id);
	snprintf(f->decision_action, sizeof(f->decision_action), "%s", d->action);
	snprintf(f->decision_src, sizeof(f->decision_src), "%s", d->src);
	snprintf(f->decision_dst, sizeof(f->decision_dst), "%s", d->dst);
	snprintf(f->decision_budget, sizeof(f->decision_budget), "%s", d->budget);
	snprintf(f->decision_ttl, sizeof(f->decision_ttl), "%s", d->ttl);
	snprintf(f->decision_author, sizeof(f->decision_author), "%s", d->author);
	snprintf(f->decision_reason, sizeof(f->decision_reason), "%s", d->reason);
	snprintf(f->decision_result, sizeof(f->decision_result), "%s", result);
	snprintf(f->decision_why, sizeof(f->decision_why), "%s", why);
	snprintf(f->signature, sizeof(f->signature), "decision %s of %s %s", d->id, d->author, result);
	e = write_record(r);
	if (e == 0)
		decided_note(&r->decided, decided_name(d->id), decided_name(d->entry));
	return e;
}

enum report_decided report_decided(const struct report *r, const struct redis_decision *d)
{
	if (decided_has_entry(&r->decided, d->entry))
		return DECIDED_ANSWERED;
	return decided_has_id(&r->decided, d->id) ? DECIDED_REUSED : DECIDED_NEW;
}
