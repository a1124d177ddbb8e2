/* control_show.c - status, findings, explain, blocks: the area as JSON. Reads only. */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "clock.h"
#include "control_internal.h"
#include "devices.h"
#include "finding.h"
#include "health.h"
#include "report.h"
#include "rules.h"
#include "utf8.h"

#define FINDINGS 500		/* in one answer, the newest; an answer has its bound */
#define BLOCKS	 2000

/* ---- values ---- */

void control_set(json_t *to, const char *key, json_t *value)
{
	/* Fails for lack of memory alone: then the key is missing, and the answer still is JSON. */
	(void)json_object_set_new(to, key, value ? value : json_null());
}

json_t *control_json_text(const char *text)
{
	char out[1024];

	return json_stringn(out, utf8_escape(text, strlen(text), out, sizeof(out)));
}

void control_set_text(json_t *to, const char *key, const char *text)
{
	control_set(to, key, control_json_text(text));
}

void control_set_number(json_t *to, const char *key, uint64_t n)
{
	control_set(to, key, json_integer((json_int_t)MIN_OF(n, (uint64_t)INT64_MAX)));
}

json_t *control_json_wall(uint64_t wall_us)
{
	time_t t = (time_t)(wall_us / 1000000);
	char text[32];
	struct tm tm;

	if (wall_us == 0 || !gmtime_r(&t, &tm) || strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
		return json_null();
	return json_string(text);
}

json_t *control_json_time(const struct control_call *q, uint64_t ns)
{
	/* Signed: instants before this boot are wrapped numbers, those to come are ahead; the difference stays right. */
	return ns ? control_json_wall(q->wall_us + (uint64_t)((int64_t)(ns - q->now.ns) / 1000)) : json_null();
}

const struct policy_rule *control_rule(const struct policy *p, uint32_t uid)
{
	int i = p ? policy_rule_by_uid(p, uid) : -1;

	return i < 0 ? NULL : &p->rule[i];
}

bool control_has_block(const struct control_call *q, uint32_t slot)
{
	return control_state(q->ctx->area, slot) & ACCOUNT_BLOCKED ||
	       __atomic_load_n(&q->ctx->area->account_cold[slot].blocked_until_ns, __ATOMIC_RELAXED) > q->now.ns;
}

uint32_t control_state(const struct area *a, uint32_t slot)
{
	/* Relaxed: shown as it stands. */
	return atomic_load_explicit(&a->account[slot].state, memory_order_relaxed);
}

#define LOAD(field) atomic_load_explicit(&(field), memory_order_relaxed)	/* shown as it stands */

/* ---- status ---- */

static bool observing(const struct control_call *q)
{
	return q->now.ns < LOAD(q->ctx->area->h->observe_until_ns);
}

static void set_observe(const struct control_call *q, json_t *to)
{
	control_set(to, "observe_until",
		    observing(q) ? control_json_time(q, LOAD(q->ctx->area->h->observe_until_ns)) : json_null());
}

/* Rules as the file has them: one for several groups is split, its parts follow each other. */
static void count_rules(const struct policy *p, bool off, json_t *to)
{
	uint32_t rules = 0, enforcing = 0, contracts = 0;

	for (uint32_t i = 0; p && i < p->h->nrules; i++) {
		const struct policy_rule *r = &p->rule[i];

		if (i && p->rule[i - 1].kind == r->kind &&
		    strcmp(policy_string(p, p->rule[i - 1].name), policy_string(p, r->name)) == 0)
			continue;
		contracts += r->kind == RULE_CONTRACT;
		rules += r->kind == RULE_RULE;
		enforcing += r->kind == RULE_RULE && r->enforce && !off;
	}
	control_set_number(to, "rules", rules);
	control_set_number(to, "enforcing", enforcing);
	control_set_number(to, "contracts", contracts);
}

static void set_policy(const struct control_call *q, json_t *to)
{
	const struct control_ctx *c = q->ctx;
	json_t *o = json_object();

	control_set_number(o, "version", LOAD(c->area->h->policy_version));
	control_set(o, "since", control_json_wall(c->policy_since_us));
	control_set_text(o, "path", c->config->policy);
	control_set(o, "goes_back_at", control_json_wall(c->confirm_by_us));
	control_set(o, "errors_since", control_json_wall(c->policy_bad_since_us));	/* of the file */
	if (c->policy_bad_since_us)
		control_set_text(o, "error", c->policy_bad);
	control_set(to, "policy", o);
}

static void set_drops(json_t *to, const char *key, uint64_t n)
{
	if (n == AREA_UNKNOWN)
		control_set(to, key, json_null());
	else
		control_set_number(to, key, n);
}

static void set_coverage(const struct control_call *q, json_t *to)
{
	const struct area_header *h = q->ctx->area->h;
	uint64_t egress = LOAD(h->egress_bytes), unseen = LOAD(h->unseen_bytes);

	control_set_number(to, "egress_bytes", egress);
	control_set_number(to, "unseen_bytes", unseen);
	control_set_number(to, "unseen_packets", LOAD(h->unseen_packets));
	control_set(to, "seen_percent",
		    egress ? json_real(100.0 * (1.0 - (double)MIN_OF(unseen, egress) / (double)egress)) : json_null());
	set_drops(to, "queue_dropped", LOAD(h->queue_dropped));
	set_drops(to, "user_dropped", LOAD(h->user_dropped));
	control_set_number(to, "gap_seconds", LOAD(h->gap_ns) / NS_PER_S);
	control_set_number(to, "unlisted_bytes", control_unlisted(q->ctx->area));
	control_set_number(to, "folded_bytes", LOAD(h->folded_bytes) + LOAD(h->lost_pair_bytes));
	control_set_number(to, "blocks", LOAD(h->blocks));
	control_set_number(to, "kept_blocks", LOAD(h->kept_blocks));
	control_set_number(to, "kept_lost_bytes", LOAD(h->kept_lost));
	control_set_number(to, "braked", LOAD(h->braked));
}

static void add_device(void *ctx, const char *name, const char *text)
{
	(void)text;
	(void)json_array_append_new(ctx, control_json_text(name));
}

static void set_devices(const struct control_ctx *c, json_t *to)
{
	json_t *list = json_array();

	devices_of_config(c->config, add_device, list);
	if (c->policy)
		devices_of_policy(c->config, c->policy, add_device, list);
	control_set(to, "devices_missing", list);
}

/* Of the worker whose last turn is the longest ago; 0: one has had none yet. */
static uint64_t heartbeat(const struct area_header *h)
{
	uint64_t oldest = UINT64_MAX;

	for (uint32_t i = 0; i < h->workers; i++)
		oldest = MIN_OF(oldest, LOAD(h->worker[i].heartbeat_ns));
	return oldest == UINT64_MAX ? 0 : oldest;
}

/* For how long a queue has not been judged. */
static uint64_t silent_s(const struct control_call *q)
{
	uint64_t beat = heartbeat(q->ctx->area->h);

	return beat && beat < q->now.ns ? (q->now.ns - beat) / NS_PER_S : 0;
}

static const char *failure_name(const struct config *c)
{
	return c->failure == FAILURE_CLOSED ? "closed" : "open";
}

static void set_engine(const struct control_call *q, json_t *to)
{
	const struct area_header *h = q->ctx->area->h;
	uint64_t starts = LOAD(h->engine_starts), settled = LOAD(h->settled_ns);
	json_t *o = json_object();

	control_set_number(o, "restarts", starts ? starts - 1 : 0);
	control_set(o, "started", control_json_time(q, LOAD(h->engine_started_ns)));
	control_set(o, "heartbeat", control_json_time(q, heartbeat(h)));
	control_set_number(o, "silent_s", silent_s(q));
	control_set_number(o, "settled_us", settled ? clock_wall_of((struct mono){ settled }) : 0);
	control_set(o, "rules_in_kernel", json_boolean(LOAD(h->rules_in)));
	control_set_text(o, "queue", LOAD(h->flavour) == RULES_XT_NFQUEUE ? "iptables-nft" : "native");
	control_set_number(o, "workers", h->workers);
	control_set(to, "engine", o);
}

static void set_table(json_t *to, const char *key, const struct table *t)
{
	json_t *o = json_object();

	control_set_number(o, "live", LOAD(t->state->live));
	control_set_number(o, "capacity", table_capacity(t));
	control_set(to, key, o);
}

static void set_spool(const struct control_ctx *c, json_t *to)
{
	json_t *o = json_object();

	control_set_number(o, "written", c->spool_next ? c->spool_next - 1 : 0);
	control_set_number(o, "pending", c->config->redis ? c->spool_pending : 0);
	control_set_number(o, "lost", c->spool_lost);
	control_set_number(o, "answers_unwritten", c->answers_unwritten);
	control_set(to, "spool", o);
}

static void set_counters(const struct control_ctx *c, json_t *to)
{
	json_t *o = json_object();

	for (unsigned i = 0; i < HEALTH_COUNT; i++)
		control_set_number(o, health_kind(i), LOAD(c->area->h->health[i]));
	control_set(to, "health", o);
	o = json_object();
	for (unsigned i = 0; i < AC_COUNT; i++)
		if (i != AC_REASON_FIRST)	/* PACKET_OK is no reason */
			control_set_number(o, area_counter_name(i), area_counter_sum(c->area, i));
	control_set(to, "counters", o);
	control_set_number(to, "malformed_requests", c->malformed);
}

static void set_leases(const struct control_ctx *c, json_t *reply)
{
	const struct area *a = c->area;
	const struct area_header *h = a->h;
	uint64_t leased = LOAD(h->leased_bytes), queued = area_counter_sum(a, AC_BYTES), out = 0;
	json_t *o = json_object(), *second = json_object();

	for (uint32_t i = 0; i < LEASE_SLOTS; i++)
		if (table_is_full(&a->leases, i))
			out += __atomic_load_n(&a->lease[i].granted, __ATOMIC_RELAXED) -
			       __atomic_load_n(&a->lease[i].settled, __ATOMIC_RELAXED);
	control_set(o, "on", json_boolean(LOAD(h->leases_on)));
	control_set_number(o, "now", LOAD(h->lease_state.live));
	control_set_number(o, "outstanding_bytes", out);
	control_set_number(o, "bytes", leased);
	control_set_number(o, "packets", LOAD(h->leased_packets));
	control_set(o, "share", json_real(leased + queued ? (double)leased / (double)(leased + queued) : 0));
	control_set_number(o, "grants", LOAD(h->lease_grants));
	control_set_number(o, "raises", LOAD(h->lease_raises));
	control_set_number(o, "recalls", LOAD(h->lease_recalls));
	control_set_number(o, "beyond_bytes", LOAD(h->lease_beyond));	/* passed by quotas that others raised or made */
	control_set_number(o, "lost_bytes", LOAD(h->lease_lost));	/* assumed passed, for leases that others removed */
	control_set_number(second, "grants", c->last_second.grants);
	control_set_number(second, "raises", c->last_second.raises);
	control_set_number(second, "recalls", c->last_second.recalls);
	control_set(o, "last_second", second);
	control_set(reply, "leases", o);
}

int control_status(struct control_call *q, json_t *reply)
{
	const struct control_ctx *c = q->ctx;
	bool off = observing(q), enforce = c->policy && c->policy->h->flags & POLICY_ENFORCE;

	control_set_text(reply, "gateway", c->config->gateway);
	control_set_text(reply, "mode", !c->policy ? "no policy" : enforce && !off ? "enforce" : "observe");
	set_observe(q, reply);
	control_set_text(reply, "failure", failure_name(c->config));
	count_rules(c->policy, off, reply);
	set_policy(q, reply);
	set_coverage(q, reply);
	set_devices(c, reply);
	control_set_text(reply, "redis", c->config->redis ? c->redis_state : "none");
	set_spool(c, reply);
	set_leases(c, reply);
	set_engine(q, reply);
	set_table(reply, "pairs", &c->area->pairs);
	set_table(reply, "accounts", &c->area->accounts);
	set_counters(c, reply);
	return 0;
}

/* ---- findings ---- */

struct pick {
	uint32_t slot;
	bool open;
	int64_t age;		/* ns since its last packet */
};

static int by_pick(const void *x, const void *y)
{
	const struct pick *a = x, *b = y;

	if (a->open != b->open)
		return a->open ? -1 : 1;
	return (a->age > b->age) - (a->age < b->age);
}

/* The one that its alerts name; null: none was told, egressd.8 says when. */
static void set_incident(const struct control_ctx *c, uint32_t slot, json_t *o)
{
	uint64_t incident = c->report ? report_incident(c->report, slot) : 0;
	char id[24];

	snprintf(id, sizeof(id), "%016" PRIx64, incident);
	control_set(o, "incident_id", incident ? json_string(id) : json_null());
}

static json_t *finding_object(const struct control_call *q, uint32_t slot, bool scan)
{
	const struct control_ctx *c = q->ctx;
	char text[FINDING_JSON_MAX];
	struct finding *f = malloc(sizeof(*f));
	json_t *o = NULL;
	int n = -1;

	if (f && report_fill(c->area, c->policy, c->config, slot, scan, f))
		n = finding_json(f, text, sizeof(text));
	if (n > 0)
		o = json_loadb(text, (size_t)n, 0, NULL);
	if (o) {
		/* Of the stored alert, not of the state: `explain` says what is, the stream what was said. */
		json_object_del(o, "seq");
		json_object_del(o, "activity");
		control_set_text(o, "schema", "egress.finding/1");
		set_incident(c, slot, o);
		control_set(o, "open", json_boolean(control_state(c->area, slot) & ACCOUNT_OPEN));
	}
	free(f);
	return o;
}

static int pick_all(struct control_call *q, struct pick **ret, size_t *ret_n)
{
	const struct area *a = q->ctx->area;
	size_t n = 0, size = 1024;
	struct pick *v = malloc(size * sizeof(*v)), *w;

	if (!v)
		return control_refuse(q, -ENOMEM, "out of memory");
	for (uint32_t i = 0; i < a->h->accounts; i++) {
		const struct account_cold *c = &a->account_cold[i];

		if (!table_is_full(&a->accounts, i) || !c->finding_id ||
		    !control_rule(q->ctx->policy, a->account[i].key.rule))
			continue;
		if (n == size) {
			w = realloc(v, (size *= 2) * sizeof(*v));
			if (!w) {
				free(v);
				return control_refuse(q, -ENOMEM, "out of memory");
			}
			v = w;
		}
		v[n++] = (struct pick){ i, control_state(a, i) & ACCOUNT_OPEN,
					(int64_t)(q->now.ns - __atomic_load_n(&c->last_ns, __ATOMIC_RELAXED)) };
	}
	*ret = v;
	*ret_n = n;
	return 0;
}

int control_findings(struct control_call *q, json_t *reply)
{
	json_t *list;
	struct pick *v = NULL;
	size_t n = 0, open = 0;
	int r = pick_all(q, &v, &n);

	if (r < 0)
		return r;
	list = json_array();
	qsort(v, n, sizeof(*v), by_pick);
	for (size_t i = 0; i < n; i++) {
		json_t *o = i < FINDINGS ? finding_object(q, v[i].slot, false) : NULL;

		open += v[i].open;
		if (o)
			(void)json_array_append_new(list, o);
	}
	free(v);
	control_set_number(reply, "open", open);
	control_set_number(reply, "total", n);
	control_set(reply, "findings", list);
	return 0;
}

static int parse_id(const char *text, uint64_t *ret)
{
	size_t n = strcspn(text, "-");	/* an alert's id is the finding's and its revision */
	uint64_t id = 0;

	if (n == 0 || n > 16)
		return -EINVAL;
	for (size_t i = 0; i < n; i++) {
		const char *digits = "0123456789abcdef", *d = strchr(digits, text[i] | 0x20);

		if (!d || !*d)
			return -EINVAL;
		id = id << 4 | (uint64_t)(d - digits);
	}
	*ret = id;
	return 0;
}

int control_explain(struct control_call *q, json_t *reply)
{
	const struct area *a = q->ctx->area;
	const char *text;
	uint64_t id = 0;
	int r = control_text(q, "id", 64, false, &text);

	if (r < 0)
		return r;
	if (parse_id(text, &id) < 0 || id == 0)
		return control_refuse(q, -EINVAL, "id: the finding_id or alert_id of an alert is expected, in hex");
	for (uint32_t i = 0; i < a->h->accounts; i++) {
		json_t *o;

		if (!table_is_full(&a->accounts, i) || a->account_cold[i].finding_id != id)
			continue;
		o = finding_object(q, i, true);
		if (!o)
			break;
		control_set(reply, "finding", o);
		control_set(reply, "account", control_account(q, i));
		return 0;
	}
	return control_refuse(q, -ENOENT, "no finding %.40s here: another gateway's, replaced by a later one of the same "
			      "subject, or its rule is gone", text);
}

/* ---- blocks ---- */

json_t *control_decision(const struct control_call *q, struct area_dynamic *d)
{
	const struct area *a = q->ctx->area;
	struct account_key k = { .kind = SUBJECT_TOTAL, .rule = d->uid };
	uint32_t slot = table_find(&a->accounts, area_account_hash(a, &k), (const struct table_key *)&k);
	char src[PREFIX_STRLEN], dst[PREFIX_STRLEN];
	json_t *o = json_object();
	bool found = slot != TABLE_NONE;

	/* The engine may be writing it. */
	d->id[sizeof(d->id) - 1] = d->author[sizeof(d->author) - 1] = d->reason[sizeof(d->reason) - 1] = '\0';
	control_set_text(o, "action", d->kind == DYNAMIC_ALLOW ? "allow" : "block");
	control_set_text(o, "id", d->id);
	control_set_text(o, "src", prefix_format(&d->src, src));
	control_set_text(o, "dest", d->dst.len ? prefix_format(&d->dst, dst) : "*");
	control_set_text(o, "author", d->author);
	control_set_text(o, "reason", d->reason);
	control_set(o, "since", control_json_time(q, d->since_ns));
	control_set(o, "until", control_json_time(q, d->until_ns));
	if (d->kind == DYNAMIC_ALLOW) {
		uint64_t to = found ? a->account_cold[slot].grant_to : 0;
		uint64_t spent = found ? account_total(&a->account[slot], &a->account_cold[slot]) : 0;

		control_set_number(o, "budget_bytes", d->budget);
		control_set_number(o, "left_bytes", to > spent ? to - spent : 0);
	} else {
		control_set_number(o, "refused_bytes", found ? LOAD(a->account[slot].refused) : 0);
	}
	return o;
}

static void set_decisions(const struct control_call *q, json_t *reply)
{
	const struct area *a = q->ctx->area;
	json_t *blocks = json_array(), *allows = json_array();

	for (unsigned i = 0; i < AREA_DYNAMIC; i++) {
		struct area_dynamic d = a->h->dynamic[i];

		if (d.kind != DYNAMIC_NONE && q->now.ns < d.until_ns)
			(void)json_array_append_new(d.kind == DYNAMIC_ALLOW ? allows : blocks,
						    control_decision(q, &d));
	}
	control_set(reply, "by_hand", blocks);
	control_set(reply, "allowed", allows);
}

int control_blocks(struct control_call *q, json_t *reply)
{
	const struct area *a = q->ctx->area;
	json_t *list = json_array();
	size_t n = 0;

	for (uint32_t i = 0; i < a->h->accounts; i++) {
		if (!table_is_full(&a->accounts, i) || !control_has_block(q, i) ||
		    !control_rule(q->ctx->policy, a->account[i].key.rule))
			continue;
		if (n++ < BLOCKS)
			(void)json_array_append_new(list, control_account(q, i));
	}
	control_set_number(reply, "total", n);
	control_set(reply, "blocks", list);
	set_decisions(q, reply);
	(void)control_kept(q, NULL, NULL, reply);
	/* What makes this list another thing than what passes. */
	set_observe(q, reply);
	control_set_number(reply, "engine_silent_s", silent_s(q));
	control_set_text(reply, "failure", failure_name(q->ctx->config));
	return 0;
}
