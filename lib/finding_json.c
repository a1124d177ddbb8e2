/* finding_json.c - a finding as the EVE-shaped object of config/alert.schema.json. The one file in lib that sees jansson. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "finding.h"
#include "utf8.h"

#define SCHEMA "egress.alert/1"

/* Any bytes as valid UTF-8. */
static json_t *text(const char *s)
{
	char out[1024];

	return json_stringn(out, utf8_escape(s, strlen(s), out, sizeof(out)));
}

static json_t *text_or_null(const char *s)
{
	return *s ? text(s) : json_null();
}

static json_t *hex64(uint64_t v)
{
	char buf[20];

	snprintf(buf, sizeof(buf), "%016llx", (unsigned long long)v);
	return json_string(buf);
}

/* RFC 3339 with microseconds, UTC. */
static json_t *time_of(uint64_t us)
{
	time_t s = (time_t)(us / 1000000);
	char date[24], buf[40];
	struct tm tm;

	if (!us || !gmtime_r(&s, &tm))
		return json_null();
	strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(buf, sizeof(buf), "%s.%06uZ", date, (unsigned)(us % 1000000));
	return json_string(buf);
}

static json_t *bytes(uint64_t n)
{
	return json_integer((json_int_t)(n > INT64_MAX ? INT64_MAX : n));
}

static json_t *window_of(uint32_t s)
{
	char buf[16];

	return s ? json_string(format_duration(s, buf)) : json_null();
}

static json_t *reasons(const struct finding *f)
{
	json_t *a = json_array();

	for (uint32_t i = 0; i < f->nreasons && i < FINDING_REASONS; i++)
		json_array_append_new(a, json_pack("{s:o,s:o,s:o}", "window", window_of(f->reason[i].window_s),
						   "observed_bytes", bytes(f->reason[i].observed), "limit_bytes",
						   bytes(f->reason[i].limit)));
	return a;
}

static json_t *top(const struct finding *f, uint32_t n)
{
	json_t *a = json_array();

	for (uint32_t i = 0; i < f->ntop && i < n; i++) {
		const struct finding_top *t = &f->top[i];

		json_array_append_new(a, json_pack("{s:o,s:o,s:o,s:o,s:o}", "src_ip", text_or_null(t->src_ip), "dest_ip",
						   text(t->dest_ip), "name", text_or_null(t->name), "port",
						   t->port ? json_integer(t->port) : json_null(), "bytes",
						   bytes(t->bytes)));
	}
	return a;
}

static json_t *share(const struct finding *f)
{
	return f->stored_compressed ? json_real((double)f->observed_bytes / (double)f->stored_compressed) : json_null();
}

static const char *name_of(const char *const *names, unsigned n, unsigned i)
{
	return names[i < n ? i : 0];
}

/* What an alert says of the attacker: exfiltration (ATT&CK T1048). Health and decisions speak of ourselves. */
static json_t *attack(const struct finding *f)
{
	return f->event == EVENT_ALERT ? json_pack("[s]", "T1048") : json_array();
}

static void put_alert(json_t *o, const struct finding *f, uint32_t ntop)
{
	static const char *const openers[] = { "unknown", "inside", "outside" };
	static const char *const verdicts[] = { "allow", "alert", "throttle", "block", "would_block" };

	json_object_set_new(o, "subject",
			    json_pack("{s:o,s:o,s:o}", "kind", text(f->subject_kind), "name", text(f->subject_name), "ip",
				      text_or_null(f->subject_ip)));
	json_object_set_new(o, "rule", json_pack("{s:o,s:o}", "name", text(f->rule), "per", text_or_null(f->per)));
	json_object_set_new(o, "direction", json_string("outbound"));
	json_object_set_new(o, "opened_by", json_string(name_of(openers, 3, f->opened_by)));
	json_object_set_new(o, "exit", text_or_null(f->exit));
	json_object_set_new(o, "observed_bytes", bytes(f->observed_bytes));
	json_object_set_new(o, "limit_bytes", bytes(f->limit_bytes));
	json_object_set_new(o, "window", window_of(f->window_s));
	json_object_set_new(o, "refused_bytes", bytes(f->refused_bytes));
	json_object_set_new(o, "reasons", reasons(f));
	json_object_set_new(o, "top", top(f, ntop));
	json_object_set_new(o, "verdict",
			    json_pack("{s:s,s:o,s:o}", "action", name_of(verdicts, 5, f->verdict), "until",
				      time_of(f->until_us), "until_window", window_of(f->until_window_s)));
	json_object_set_new(o, "first_seen", time_of(f->first_seen_us));
	json_object_set_new(o, "last_seen", time_of(f->last_seen_us));
	json_object_set_new(o, "share_of_stored", share(f));
	json_object_set_new(o, "attack", attack(f));
	json_object_set_new(o, "coverage", json_pack("{s:o,s:o}", "seen_bytes", bytes(f->seen_bytes), "unseen_bytes",
						     bytes(f->unseen_bytes)));
	json_object_set_new(o, "how_to_allow", text_or_null(f->how_to_allow));
	if (f->src_ip[0])
		json_object_set_new(o, "src_ip", text(f->src_ip));
	if (f->dest_ip[0])
		json_object_set_new(o, "dest_ip", text(f->dest_ip));
	if (f->community_id[0])
		json_object_set_new(o, "community_id", text(f->community_id));
}

static json_t *decision(const struct finding *f)
{
	const struct {
		const char *key, *value;
	} field[] = {
		{ "entry", f->decision_entry },	  { "action", f->decision_action }, { "src", f->decision_src },
		{ "dst", f->decision_dst },	  { "budget", f->decision_budget }, { "ttl", f->decision_ttl },
		{ "author", f->decision_author }, { "reason", f->decision_reason },
	};
	json_t *o = json_pack("{s:o,s:o,s:o}", "id", text(f->decision_id), "result", text(f->decision_result), "why",
			      text_or_null(f->decision_why));

	for (size_t i = 0; i < ARRAY_SIZE(field); i++)
		json_object_set_new(o, field[i].key, text_or_null(field[i].value));
	return o;
}

static json_t *build(const struct finding *f, uint32_t ntop)
{
	static const char *const events[] = { "alert", "health", "decision" };
	static const char *const activities[] = { "create", "update", "close" };
	static const char *const severities[] = { "low", "low", "medium", "high", "critical" };
	char id[40];
	json_t *o = json_object();

	snprintf(id, sizeof(id), "%016llx-%u", (unsigned long long)f->finding_id, f->rev);
	json_object_set_new(o, "schema", json_string(SCHEMA));
	json_object_set_new(o, "timestamp", time_of(f->wall_us ? f->wall_us : 1));
	json_object_set_new(o, "event_type", json_string(name_of(events, 3, f->event)));
	json_object_set_new(o, "alert_id", json_string(id));
	json_object_set_new(o, "finding_id", hex64(f->finding_id));
	json_object_set_new(o, "incident_id", hex64(f->incident_id));
	json_object_set_new(o, "activity", json_string(name_of(activities, 3, f->activity)));
	json_object_set_new(o, "seq", bytes(f->seq));
	json_object_set_new(o, "gateway",
			    json_pack("{s:o,s:I}", "name", text(f->gateway), "policy_version",
				      (json_int_t)f->policy_version));
	json_object_set_new(o, "alert",
			    json_pack("{s:o,s:i,s:o,s:o}", "signature", text(f->signature), "severity",
				      5 - (f->severity >= 1 && f->severity <= 4 ? f->severity : 1), "category",
				      text(f->category), "action", text(f->action)));
	json_object_set_new(o, "severity_name", json_string(name_of(severities, 5, f->severity)));
	put_alert(o, f, ntop);
	if (f->event == EVENT_DECISION)
		json_object_set_new(o, "decision", decision(f));
	return o;
}

int finding_json(const struct finding *f, char *buf, size_t size)
{
	for (uint32_t n = FINDING_TOP;; n /= 2) {
		json_t *o = build(f, n);
		size_t len;

		if (!o)
			return -ENOMEM;
		len = json_dumpb(o, buf, size, JSON_COMPACT | JSON_REAL_PRECISION(6));
		json_decref(o);
		if (len > 0 && len < size) {
			buf[len] = '\0';
			return (int)len;
		}
		if (n == 0)
			return -EMSGSIZE;
	}
}
