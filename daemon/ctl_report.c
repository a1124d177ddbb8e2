/* ctl_report.c - see ctl_report.h. */
#include "ctl_report.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include "finding.h"

struct row {
	uint8_t in[16], out[8];
	uint8_t family;
	uint64_t bytes, packets, refused;
};

void report_reset(struct report *r)
{
	free(r->alert);
	memset(r, 0, sizeof(*r));
}

static const char *verdict_of(const struct account *a, const struct policy_rule *rule)
{
	if (atomic_load_explicit(&a->state, memory_order_relaxed) & ACCOUNT_BLOCKED)
		return "block";
	if (rule && rule->kind == RULE_RULE && rule->action == ACTION_BLOCK && !rule->enforce)
		return "would_block";
	return "alert";
}

static void describe(const struct judge *j, uint32_t slot, uint64_t wall_ns, struct report_alert *ret)
{
	const struct account *a = &j->area.account[slot];
	const struct account_cold *c = &j->area.account_cold[slot];
	const struct policy_rule *rule = c->rule < j->policy->h->nrules ? &j->policy->rule[c->rule] : NULL;
	unsigned i = c->over ? (unsigned)__builtin_ctz(c->over) : 0;

	*ret = (struct report_alert){
		.wall_ns = wall_ns,
		.rule = rule ? c->rule : ACCOUNT_NO_RULE,
		.subject = a->key,
		.opened_by = c->opened_by,
		.verdict = verdict_of(a, rule),
	};
	if (c->pair != TABLE_NONE)
		ret->pair = j->area.pair[c->pair].key;
	if (!rule || i >= rule->nlimits)
		return;
	ret->window_s = rule->limit[i].seconds;
	ret->limit = rule->limit[i].bytes;
	/* What has passed, as the daemon's alerts say it: a packet that was refused at the limit is not in it. */
	ret->observed = account_sum(a, c, &rule->limit[i]);
}

static int add_alert(struct report *r, const struct judge *j, uint32_t slot, uint64_t wall_ns)
{
	if (r->nalerts == r->room) {
		size_t room = r->room ? r->room * 2 : 64;
		struct report_alert *more = reallocarray(r->alert, room, sizeof(*more));

		if (!more)
			return -ENOMEM;
		r->alert = more;
		r->room = room;
	}
	describe(j, slot, wall_ns, &r->alert[r->nalerts++]);
	return 0;
}

int report_alerts(struct report *r, const struct judge *j, uint64_t wall_ns)
{
	/* Relaxed here and below: one thread. */
	uint64_t end = atomic_load_explicit(&j->area.h->bell_next, memory_order_relaxed);

	for (; r->bell < end; r->bell++) {
		uint32_t slot = atomic_load_explicit(&j->area.h->bell[r->bell % AREA_BELL], memory_order_relaxed);
		uint32_t id = (uint32_t)j->area.account_cold[slot].finding_id;
		int e;

		if (id <= r->last_finding)
			continue;
		e = add_alert(r, j, slot, wall_ns);
		if (e < 0)
			return e;
		r->last_finding = id;
	}
	return 0;
}

static int row_cmp(const void *x, const void *y)
{
	const struct row *a = x, *b = y;
	int r = memcmp(a->in, b->in, sizeof(a->in));

	if (!r)
		r = (int)a->family - b->family;
	return r ? r : memcmp(a->out, b->out, sizeof(a->out));
}

/* All pairs, classes added up, in order. */
static int collect(const struct area *a, struct row **ret_rows, size_t *ret_count)
{
	size_t live = atomic_load_explicit(&a->h->pair_state.live, memory_order_relaxed), n = 0, kept = 0;
	struct row *row = calloc(live + 1, sizeof(*row));

	if (!row)
		return -ENOMEM;
	for (uint32_t i = 0; i < a->h->pairs && n < live; i++) {
		const struct pair *p = &a->pair[i];
		const struct pair_cold *c = &a->pair_cold[i];

		if (!table_is_full(&a->pairs, i))
			continue;
		memcpy(row[n].in, p->key.in, sizeof(row[n].in));
		memcpy(row[n].out, p->key.out, sizeof(row[n].out));
		row[n].family = p->key.out_family;
		row[n].refused = pair_refused(c);
		row[n].bytes = pair_bytes(p, c) + row[n].refused;
		row[n].packets = pair_packets(p, c) + atomic_load_explicit(&c->refused_packets, memory_order_relaxed);
		n++;
	}
	qsort(row, n, sizeof(*row), row_cmp);
	for (size_t i = 0; i < n; i++) {
		if (!kept || row_cmp(&row[kept - 1], &row[i]) != 0) {
			row[kept++] = row[i];
			continue;
		}
		row[kept - 1].bytes += row[i].bytes;
		row[kept - 1].packets += row[i].packets;
		row[kept - 1].refused += row[i].refused;
	}
	*ret_rows = row;
	*ret_count = kept;
	return 0;
}

static const char *skip_name(unsigned skip)
{
	if (skip == SKIP_SOURCE)
		return "source-not-inside";
	if (skip == SKIP_INSIDE)
		return "stays-inside";
	if (skip < SKIP_PACKET)
		return capture_reason_name((enum capture_reason)(skip - SKIP_CAPTURE));
	return packet_reason_name((enum packet_reason)(skip - SKIP_PACKET));
}

/* Address, named host, group, or "total". */
static const char *subject_name(const struct policy *p, const struct report_alert *a, char buf[ADDR_STRLEN])
{
	int host;

	if (a->subject.kind == SUBJECT_TOTAL)
		return "total";
	if (a->subject.kind == SUBJECT_GROUP)
		return a->rule == ACCOUNT_NO_RULE ? "group" : policy_string(p, p->rule[a->rule].group_name);
	host = policy_host_of_in(p, a->subject.in);
	return host >= 0 ? policy_string(p, p->host[host].name) : pair_in_format(a->subject.in, buf);
}

static void format_time(uint64_t wall_ns, char buf[40])
{
	time_t s = (time_t)((uint64_t)(wall_ns / NS_PER_S));
	struct tm tm;
	size_t n;

	if (!gmtime_r(&s, &tm)) {
		snprintf(buf, 40, "%" PRIu64, (uint64_t)(wall_ns / NS_PER_S));
		return;
	}
	n = strftime(buf, 40, "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(buf + n, 40 - n, ".%06" PRIu64 "Z", (uint64_t)(wall_ns % NS_PER_S / 1000));
}

static int alert_json(const struct policy *p, const struct report_alert *a, FILE *out)
{
	const struct policy_rule *rule = a->rule == ACCOUNT_NO_RULE ? NULL : &p->rule[a->rule];
	char when[40], subject[ADDR_STRLEN], src[ADDR_STRLEN], dst[PREFIX_STRLEN], window[16];
	json_t *o;
	int r;

	format_time(a->wall_ns, when);
	o = json_pack("{ss ss ss ss ss ss ss ss ss ss ss sI sI}", "type", "alert", "time", when, "rule",
		      rule ? policy_string(p, rule->name) : "", "per", policy_per_name(a->subject.kind), "subject",
		      subject_name(p, a, subject), "src", pair_in_format(a->pair.in, src), "dst",
		      pair_out_format(a->pair.out, a->pair.out_family, dst), "severity",
		      policy_severity_name(rule ? rule->severity : SEVERITY_MEDIUM), "verdict", a->verdict, "opened_by",
		      a->opened_by == OPENER_UNKNOWN ? "unknown" : opener_name(a->opened_by), "window",
		      format_duration(a->window_s, window), "observed_bytes", (json_int_t)a->observed, "limit_bytes",
		      (json_int_t)a->limit);
	if (!o)
		return -ENOMEM;
	r = json_dumpf(o, out, JSON_COMPACT | JSON_PRESERVE_ORDER) < 0 || fputc('\n', out) == EOF ? -EIO : 0;
	json_decref(o);
	return r;
}

static int print_json(const struct report *r, const struct policy *p, const struct row *row, size_t rows, FILE *out)
{
	char src[ADDR_STRLEN], dst[PREFIX_STRLEN];

	for (size_t i = 0; i < rows; i++) {
		/* Addresses and numbers need no escaping. */
		fprintf(out, "{\"type\":\"pair\",\"src\":\"%s\",\"dst\":\"%s\"", pair_in_format(row[i].in, src),
			pair_out_format(row[i].out, row[i].family, dst));
		fprintf(out, ",\"bytes\":%" PRIu64 ",\"packets\":%" PRIu64, row[i].bytes, row[i].packets);
		if (row[i].refused)
			fprintf(out, ",\"refused_bytes\":%" PRIu64, row[i].refused);
		fputs("}\n", out);
	}
	for (unsigned i = 0; i < SKIP_COUNT; i++)
		if (r->skipped[i])
			fprintf(out, "{\"type\":\"skipped\",\"reason\":\"%s\",\"packets\":%" PRIu64 "}\n", skip_name(i),
				r->skipped[i]);
	for (size_t i = 0; i < r->nalerts; i++) {
		int e = alert_json(p, &r->alert[i], out);

		if (e < 0)
			return e;
	}
	return 0;
}

static void alert_text(const struct policy *p, const struct report_alert *a, FILE *out)
{
	char when[40], subject[ADDR_STRLEN], dst[PREFIX_STRLEN], observed[16], limit[16], window[16];
	const struct policy_rule *rule = a->rule == ACCOUNT_NO_RULE ? NULL : &p->rule[a->rule];

	format_time(a->wall_ns, when);
	fprintf(out, "%s  %-11s %s (%s)  %s", when, a->verdict, rule ? policy_string(p, rule->name) : "-",
		policy_per_name(a->subject.kind), subject_name(p, a, subject));
	if (a->subject.kind == SUBJECT_PAIR)
		fprintf(out, " -> %s", account_is_shared(&a->subject) ? "other destinations" :
							pair_out_format(a->subject.out, a->subject.out_family, dst));
	fprintf(out, ": %s in %s (limit %s)\n", format_bytes(a->observed, observed),
		format_duration(a->window_s, window), format_bytes(a->limit, limit));
}

static void print_table(const struct report *r, const struct policy *p, const struct row *row, size_t rows, FILE *out)
{
	char src[ADDR_STRLEN], dst[PREFIX_STRLEN], bytes[16];
	uint64_t skipped = 0;

	/* Refused: those of the bytes that would have been. */
	fprintf(out, "%-39s  %-39s  %16s  %10s  %16s  %12s\n", "INSIDE", "OUTSIDE", "BYTES", "SIZE", "REFUSED", "PACKETS");
	for (size_t i = 0; i < rows; i++)
		fprintf(out, "%-39s  %-39s  %16" PRIu64 "  %10s  %16" PRIu64 "  %12" PRIu64 "\n", pair_in_format(row[i].in, src),
			pair_out_format(row[i].out, row[i].family, dst), row[i].bytes,
			format_bytes(row[i].bytes, bytes), row[i].refused, row[i].packets);
	for (unsigned i = 0; i < SKIP_COUNT; i++) {
		if (r->skipped[i])
			fprintf(out, "%s%s %" PRIu64, skipped ? ", " : "\nnot counted, packets: ", skip_name(i),
				r->skipped[i]);
		skipped += r->skipped[i];
	}
	fprintf(out, "%s\n%zu finding%s\n", skipped ? "\n" : "", r->nalerts, r->nalerts == 1 ? "" : "s");
	for (size_t i = 0; i < r->nalerts; i++)
		alert_text(p, &r->alert[i], out);
}

/* Two accounts may cross on one packet, in the order of their slots, which means nothing to people. */
static int alert_cmp(const void *x, const void *y)
{
	const struct report_alert *a = x, *b = y;

	if (a->wall_ns != b->wall_ns)
		return a->wall_ns < b->wall_ns ? -1 : 1;
	return (a->rule > b->rule) - (a->rule < b->rule);
}

int report_print(struct report *r, const struct judge *j, bool json, FILE *out)
{
	struct row *row = NULL;
	size_t rows;
	int e = collect(&j->area, &row, &rows);

	if (e < 0)
		return e;
	if (r->nalerts)
		qsort(r->alert, r->nalerts, sizeof(*r->alert), alert_cmp);
	if (json)
		e = print_json(r, j->policy, row, rows, out);
	else
		print_table(r, j->policy, row, rows, out);
	free(row);
	if (e == 0 && (fflush(out) == EOF || ferror(out)))
		e = -EIO;
	return e;
}
