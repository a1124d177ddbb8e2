/* report.c - see report.h for the contract. */
#include "report.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "log.h"
#include "report_fill.h"

#define MINUTE_NS (60 * NS_PER_S)
#define DECISIONS 1024	/* answered ids remembered, newest */
#define KINDS	  16

struct known {			/* what the spool holds of a finding */
	uint64_t finding_id;
	uint32_t rev;
};

struct incident {		/* findings of one inside address that belong together */
	uint8_t in[16];
	uint64_t id;
	uint32_t open;
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
	uint64_t *incident_of;		/* by account slot */
	struct incident *incidents;	/* open addressing by address, as many as accounts */
	struct burst burst[POLICY_RULES];
	struct health_kind health[KINDS];
	uint32_t decided[DECISIONS];
	unsigned ndecided;
	uint32_t health_rev;
	struct finding f;		/* scratch, large */
	char record[sizeof(struct report_record) + FINDING_JSON_MAX];
};

/* ---- what the spool has already ---- */

struct history {
	struct known *item;
	size_t n, size;
};

static int remember(struct history *h, const struct report_record *rec)
{
	if (h->n == h->size) {
		size_t size = h->size ? h->size * 2 : 1024;
		struct known *p = realloc(h->item, size * sizeof(*p));

		if (!p)
			return -ENOMEM;
		h->item = p;
		h->size = size;
	}
	h->item[h->n++] = (struct known){ rec->finding_id, rec->rev };
	return 0;
}

static int by_id(const void *x, const void *y)
{
	const struct known *a = x, *b = y;

	if (a->finding_id != b->finding_id)
		return a->finding_id < b->finding_id ? -1 : 1;
	return (a->rev > b->rev) - (a->rev < b->rev);
}

static void note_decided(struct report *r, uint32_t uid)
{
	r->decided[r->ndecided++ % DECISIONS] = uid;
}

static int read_spool(struct report *r, struct history *h)
{
	uint64_t seq = 0;
	int e = 0;

	while (e == 0) {
		struct report_record rec;
		char *data;
		size_t len;

		e = spool_read(r->spool, seq, &seq, &data, &len);
		if (e < 0)
			break;
		if (len >= sizeof(rec)) {
			memcpy(&rec, data, sizeof(rec));
			if (rec.magic == REPORT_MAGIC && rec.event == EVENT_ALERT)
				e = remember(h, &rec);
			else if (rec.magic == REPORT_MAGIC && rec.event == EVENT_DECISION)
				note_decided(r, rec.uid);
		}
		free(data);
	}
	return e == -ENOENT ? 0 : e;
}

static uint32_t written_rev(const struct history *h, uint64_t finding_id)
{
	size_t low = 0, high = h->n;

	while (low < high) {	/* first beyond finding_id */
		size_t mid = (low + high) / 2;

		if (h->item[mid].finding_id <= finding_id)
			low = mid + 1;
		else
			high = mid;
	}
	return low && h->item[low - 1].finding_id == finding_id ? h->item[low - 1].rev : 0;
}

static struct incident *incident_for(struct report *r, const uint8_t in[16])
{
	uint32_t mask = r->a->h->accounts - 1, at = hash_uid(in, 16) & mask;

	while (r->incidents[at].id && memcmp(r->incidents[at].in, in, 16) != 0)
		at = (at + 1) & mask;	/* never full: one an account at most, and places are kept for their address */
	return &r->incidents[at];
}

static void join_incident(struct report *r, uint32_t slot, uint64_t finding_id)
{
	struct incident *i = incident_for(r, r->a->account[slot].key.in);

	if (!i->open) {
		memcpy(i->in, r->a->account[slot].key.in, sizeof(i->in));
		i->id = finding_id;
	}
	i->open++;
	r->incident_of[slot] = i->id;
}

static void leave_incident(struct report *r, uint32_t slot)
{
	struct incident *i = incident_for(r, r->a->account[slot].key.in);

	if (i->open)
		i->open--;
}

static bool is_open(const struct area *a, uint32_t slot)
{
	return atomic_load_explicit(&a->account[slot].state, memory_order_relaxed) & ACCOUNT_OPEN;
}

static int recall(struct report *r)
{
	struct history h = { 0 };
	int e = read_spool(r, &h);

	if (h.n)
		qsort(h.item, h.n, sizeof(*h.item), by_id);
	for (uint32_t i = 0; e == 0 && i < r->a->h->accounts; i++) {
		uint64_t id = table_is_full(&r->a->accounts, i) ? r->a->account_cold[i].finding_id : 0;
		uint32_t rev = id ? written_rev(&h, id) : 0;

		if (!rev)
			continue;
		r->last[i] = (struct known){ id, rev };
		if (is_open(r->a, i))
			join_incident(r, i, id);
	}
	free(h.item);
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
	r->incident_of = calloc(a->h->accounts, sizeof(*r->incident_of));
	r->incidents = calloc(a->h->accounts, sizeof(*r->incidents));
	if (r->last && r->incident_of && r->incidents)
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
	free(r->incident_of);
	free(r->incidents);
	free(r);
	return NULL;
}

void report_policy(struct report *r, const struct policy *p)
{
	r->policy = p;
	memset(r->burst, 0, sizeof(r->burst));	/* rule numbers are another policy's */
}

/* ---- one record ---- */

static int write_record(struct report *r, uint32_t uid)
{
	struct report_record rec = {
		.magic = REPORT_MAGIC, .event = r->f.event, .finding_id = r->f.finding_id, .rev = r->f.rev, .uid = uid,
	};
	char line[512];
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
	if (finding_line(&r->f, line, sizeof(line)) >= 0)
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

/* 1: a record was written, 0: nothing new, -errno. */
static int report_account(struct report *r, uint32_t slot, unsigned scans_left, uint64_t now)
{
	const struct account_cold *c = &r->a->account_cold[slot];
	struct known *last = &r->last[slot];
	/* Acquire: pairs with the release in ledger_report(); the finding's fields are at least as new. */
	uint32_t rev = atomic_load_explicit(&c->rev, memory_order_acquire);
	bool fresh = c->finding_id != last->finding_id, open = is_open(r->a, slot);
	int e;

	if (!c->finding_id || (!fresh && rev == last->rev))
		return 0;
	if (fresh) {
		bool hold = too_many(r, c->rule, now);

		count_new(r, c->rule, now, hold);
		if (hold) {
			*last = (struct known){ c->finding_id, rev };
			return 0;
		}
	}
	if (!report_fill(r->a, r->policy, r->c, slot, scans_left > 0, &r->f))
		return 0;
	if (fresh)
		join_incident(r, slot, c->finding_id);
	r->f.rev = rev;
	r->f.activity = !open ? ACTIVITY_CLOSE : fresh ? ACTIVITY_CREATE : ACTIVITY_UPDATE;
	r->f.incident_id = r->incident_of[slot] ? r->incident_of[slot] : c->finding_id;
	e = write_record(r, 0);
	if (e < 0)
		return e;	/* tried again at the next scan: last is as it was */
	*last = (struct known){ c->finding_id, rev };
	if (!open)
		leave_incident(r, slot);
	return 1;
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
	e = write_record(r, 0);
	if (e < 0)
		return e;
	k->last_ns = now;
	k->held_back = 0;
	return 0;
}

int report_decision(struct report *r, const char *id, const char *author, const char *result, const char *why)
{
	int e;

	plain(r, EVENT_DECISION);
	r->f.severity = SEVERITY_LOW;
	snprintf(r->f.decision_id, sizeof(r->f.decision_id), "%s", id);
	snprintf(r->f.decision_result, sizeof(r->f.decision_result), "%s", result);
	snprintf(r->f.decision_why, sizeof(r->f.decision_why), "%s", why);
	snprintf(r->f.signature, sizeof(r->f.signature), "decision %s of %s %s", id, author, result);
	e = write_record(r, hash_uid(id, strlen(id)));
	if (e == 0)
		note_decided(r, hash_uid(id, strlen(id)));
	return e;
}

bool report_decided(const struct report *r, const char *id)
{
	uint32_t uid = hash_uid(id, strlen(id));

	for (unsigned i = 0; i < DECISIONS && i < r->ndecided; i++)
		if (r->decided[i] == uid)
			return true;
	return false;
}
