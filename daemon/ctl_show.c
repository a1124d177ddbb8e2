/* ctl_show.c - answers as tables for people. */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "ctl.h"
#include "finding.h"

#define SILENT_S 2

static bool is_null(const json_t *o, const char *key)
{
	const json_t *v = json_object_get(o, key);

	return !v || json_is_null(v);
}

static const char *plural(uint64_t n)
{
	return n == 1 ? "" : "s";
}

/* ---- status ---- */

static void put_seen(const json_t *s)
{
	uint64_t unseen = ctl_number(s, "unseen_bytes");
	double seen = json_number_value(json_object_get(s, "seen_percent"));

	if (is_null(s, "seen_percent"))
		printf("no egress since start");
	else if (unseen == 0)
		printf("100 %% of egress seen");
	else if (seen > 99.99)	/* never rounded up to all */
		printf("99.99 %% of egress seen");
	else
		printf("%.2f %% of egress seen", seen);
}

static void put_leases(const json_t *l)
{
	uint64_t n = ctl_number(l, "now");

	if (!ctl_true(l, "on"))
		printf(", leases off\n");
	else
		printf(", %" PRIu64 " lease%s (%.1f %% of bytes)\n", n, plural(n),
		       100 * json_real_value(json_object_get(l, "share")));
}

static void put_headline(const json_t *s)
{
	const json_t *p = json_object_get(s, "policy");
	uint64_t blocks = ctl_number(s, "blocks");
	char ago[32];

	printf("egressd ");
	ctl_put(ctl_string(s, "gateway"));
	printf(": ");
	if (strcmp(ctl_string(s, "mode"), "enforce") == 0)
		printf("enforcing %" PRIu64 " of %" PRIu64 " rules", ctl_number(s, "enforcing"),
		       ctl_number(s, "rules"));
	else if (strcmp(ctl_string(s, "mode"), "observe") == 0)
		printf("observing, %" PRIu64 " rule%s, none blocks", ctl_number(s, "rules"), plural(ctl_number(s, "rules")));
	else
		printf("no policy in force");
	if (ctl_number(p, "version"))
		printf(" (policy %" PRIu64 ", %s)", ctl_number(p, "version"), ctl_ago(p, "since", ago));
	printf(", ");
	put_seen(s);
	printf(", %" PRIu64 " block%s", blocks, plural(blocks));
	if (strcmp(ctl_string(s, "redis"), "none") != 0) {
		printf(", Redis ");
		ctl_put(ctl_string(s, "redis"));
	}
	put_leases(json_object_get(s, "leases"));
}

/* An idle worker turns four times a second. */
static void put_silence(uint64_t seconds, const json_t *s)
{
	if (seconds >= SILENT_S)
		printf("  THE ENGINE HAS NOT JUDGED FOR %" PRIu64 " s: packets wait, those that find its queue full %s (failure: %s)\n",
		       seconds, strcmp(ctl_string(s, "failure"), "closed") == 0 ? "are dropped" : "pass unseen",
		       ctl_string(s, "failure"));
}

static void put_unusual(const json_t *s)
{
	const json_t *p = json_object_get(s, "policy"), *e = json_object_get(s, "engine");
	const json_t *spool = json_object_get(s, "spool");
	uint64_t dropped = ctl_number(s, "queue_dropped") + ctl_number(s, "user_dropped");
	char when[32], bytes[16];

	if (!is_null(s, "observe_until"))
		printf("  all blocking is off until %s\n", ctl_when(s, "observe_until", when));
	if (!is_null(p, "goes_back_at"))
		printf("  policy %" PRIu64 " waits for `egressctl confirm`; the one before returns at %s\n",
		       ctl_number(p, "version"), ctl_when(p, "goes_back_at", when));
	if (!ctl_true(e, "rules_in_kernel"))
		printf("  KERNEL RULES ARE NOT IN PLACE: nothing is judged\n");
	put_silence(ctl_number(e, "silent_s"), s);
	if (!is_null(p, "errors_since")) {
		printf("  the policy file has errors since %s, policy %" PRIu64 " stays: ", ctl_when(p, "errors_since", when),
		       ctl_number(p, "version"));
		ctl_put(ctl_string(p, "error"));
		putchar('\n');
	}
	if (ctl_number(s, "braked"))
		printf("  brake: %" PRIu64 " subject%s beyond the limit, only alerted\n", ctl_number(s, "braked"),
		       plural(ctl_number(s, "braked")));
	if (ctl_number(s, "unseen_bytes"))
		printf("  unseen: %s left without being judged (%" PRIu64 " packet%s; failure: %s)\n",
		       ctl_bytes(s, "unseen_bytes", bytes), ctl_number(s, "unseen_packets"),
		       plural(ctl_number(s, "unseen_packets")), ctl_string(s, "failure"));
	if (dropped)
		printf("  kernel queue dropped %" PRIu64 " packet%s\n", dropped, plural(dropped));
	if (ctl_number(s, "gap_seconds"))
		printf("  sums have gaps of %" PRIu64 " s together (restored from a snapshot)\n",
		       ctl_number(s, "gap_seconds"));
	if (ctl_number(e, "restarts"))
		printf("  engine restarted %" PRIu64 " time%s, last %s\n", ctl_number(e, "restarts"),
		       plural(ctl_number(e, "restarts")), ctl_when(e, "started", when));
	if (ctl_number(spool, "pending"))
		printf("  %" PRIu64 " alert%s for Redis\n", ctl_number(spool, "pending"),
		       ctl_number(spool, "pending") == 1 ? " waits" : "s wait");
	if (ctl_number(spool, "lost"))
		printf("  %" PRIu64 " alert%s lost: the spool was full, or its files were damaged\n", ctl_number(spool, "lost"),
		       ctl_number(spool, "lost") == 1 ? " was" : "s were");
}

static void put_table(const json_t *s, const char *key)
{
	const json_t *t = json_object_get(s, key);
	char live[32], capacity[32];

	printf("%s %s of %s", key, ctl_count(ctl_number(t, "live"), live),
	       ctl_count(ctl_number(t, "capacity"), capacity));
}

static void put_list(const char *title, const json_t *o)
{
	const char *key, *gap = "";
	json_t *v;
	char n[32];
	bool any = false;

	json_object_foreach((json_t *)o, key, v) {
		if (json_integer_value(v) <= 0)
			continue;
		if (!any)
			printf("  %s: ", title);
		printf("%s", gap);
		ctl_put(key);
		printf(" %s", ctl_count((uint64_t)json_integer_value(v), n));
		gap = ", ";
		any = true;
	}
	if (any)
		putchar('\n');
}

void ctl_show_status(const json_t *s)
{
	put_headline(s);
	put_unusual(s);
	printf("  ");
	put_table(s, "pairs");
	printf(", ");
	put_table(s, "accounts");
	putchar('\n');
	put_list("health since start", json_object_get(s, "health"));
	put_list("counted", json_object_get(s, "counters"));
}

/* ---- accounts ---- */

static void put_who(const json_t *a)
{
	ctl_put(ctl_string(a, "subject"));
	if (*ctl_string(a, "dest")) {
		printf(" -> ");
		ctl_put(ctl_string(a, "dest"));
	}
	printf("   %s ", ctl_string(a, "kind"));
	ctl_put(ctl_string(a, "rule"));
	printf(" (%s)", ctl_string(a, "per"));
}

/* "BLOCKED until 15:32 (24h window has room 03:10; hold 30m)" */
static void put_blocked(const json_t *a)
{
	char when[32], hold[16], window[16];
	const json_t *l;
	size_t i;

	printf("   BLOCKED until %s (", ctl_when(a, "blocked_until", when));
	json_array_foreach(json_object_get(a, "limits"), i, l)
		if (!is_null(l, "room_at"))
			printf("%s window has room %s; ", format_duration(ctl_number(l, "window_s"), window),
			       ctl_when(l, "room_at", when));
	if (is_null(a, "until_window_s"))
		printf("hold %s)", format_duration(ctl_number(a, "hold_s"), hold));
	else
		printf("the %s window decides)", format_duration(ctl_number(a, "until_window_s"), window));
}

static void put_state(const json_t *a)
{
	if (ctl_true(a, "blocked"))
		put_blocked(a);
	else if (ctl_true(a, "braked"))
		printf("   over its limit; the brake holds: only alerted");
	else if (ctl_true(a, "open") && ctl_true(a, "enforced") && ctl_true(a, "protected"))
		printf("   protected: only alerted");
	else if (ctl_true(a, "open") && !ctl_true(a, "enforced") && strcmp(ctl_string(a, "action"), "block") == 0)
		printf("   over its limit; would block");
	else if (ctl_true(a, "open"))
		printf("   open finding");
	putchar('\n');
}

static void put_sums(const json_t *a)
{
	char sum[16], limit[16], window[16], bytes[16], when[32];
	const json_t *l;
	size_t i;

	json_array_foreach(json_object_get(a, "limits"), i, l)
		printf("  %s   sum %s of %s ", format_duration(ctl_number(l, "window_s"), window),
		       ctl_bytes(l, "sum_bytes", sum), ctl_bytes(l, "limit_bytes", limit));
	printf("  refused %s", ctl_bytes(a, "refused_bytes", bytes));
	if (ctl_number(a, "outstanding_bytes"))
		printf("   on lease %s", ctl_bytes(a, "outstanding_bytes", bytes));
	printf("   counting since %s\n", ctl_when(a, "counting_since", when));
}

static void put_account(const json_t *a)
{
	const json_t *g = json_object_get(a, "grant");
	char bytes[16], when[32];

	put_who(a);
	put_state(a);
	put_sums(a);
	if (g)
		printf("  granted by hand: %s left until %s\n", ctl_bytes(g, "left_bytes", bytes),
		       ctl_when(g, "until", when));
	if (*ctl_string(a, "how_to_allow")) {
		printf("  to let it go on: ");
		ctl_put(ctl_string(a, "how_to_allow"));
		putchar('\n');
	}
}

static void put_decision(const json_t *d)
{
	char bytes[16], left[16], when[32];

	printf("%s by hand: ", ctl_string(d, "action"));
	ctl_put(ctl_string(d, "src"));
	printf(" -> ");
	ctl_put(ctl_string(d, "dest"));
	if (is_null(d, "left_bytes"))
		printf("   refused %s", ctl_bytes(d, "refused_bytes", bytes));
	else
		printf("   %s left of %s", ctl_bytes(d, "left_bytes", left), ctl_bytes(d, "budget_bytes", bytes));
	printf("   until %s   by ", ctl_when(d, "until", when));
	ctl_put(ctl_string(d, "author"));
	printf(": ");
	ctl_put(ctl_string(d, "reason"));
	putchar('\n');
}

static size_t put_decisions(const json_t *list)
{
	const json_t *d;
	size_t i;

	json_array_foreach(list, i, d)
		put_decision(d);
	return json_array_size(list);
}

void ctl_show_blocks(const json_t *reply)
{
	const json_t *list = json_object_get(reply, "blocks"), *a;
	size_t i, n = json_array_size(list);
	char when[32];

	put_silence(ctl_number(reply, "engine_silent_s"), reply);
	if (!is_null(reply, "observe_until"))
		printf("  all blocking is off until %s: what is listed here passes\n", ctl_when(reply, "observe_until", when));
	json_array_foreach(list, i, a)
		put_account(a);
	if (ctl_number(reply, "total") > n)
		printf("and %" PRIu64 " more\n", ctl_number(reply, "total") - n);
	n += put_decisions(json_object_get(reply, "by_hand"));
	if (n == 0)
		puts("nothing is blocked");
	put_decisions(json_object_get(reply, "allowed"));
}

/* ---- why ---- */

static const char *proto_name(uint64_t proto)
{
	return proto == 6		   ? "tcp"
	       : proto == 17		   ? "udp"
	       : proto == 1 || proto == 58 ? "icmp"
	       : proto == 132		   ? "sctp"
					   : "";
}

static void put_service(const json_t *p)
{
	uint64_t proto = ctl_number(p, "proto"), port = ctl_number(p, "port");

	if (*proto_name(proto))
		printf("   %s", proto_name(proto));
	else if (proto)
		printf("   protocol %" PRIu64, proto);
	if (port)
		printf("/%" PRIu64, port);
	if (strcmp(ctl_string(p, "opened_by"), "any") != 0)
		printf(" opened by %s", ctl_string(p, "opened_by"));
	if (*ctl_string(p, "exit")) {
		printf(" by exit ");
		ctl_put(ctl_string(p, "exit"));
	}
}

static void put_pair(const json_t *p)
{
	char bytes[16], packets[32];
	bool many = ctl_true(p, "overflow");

	printf("  ");
	ctl_put(ctl_string(p, "src"));
	printf(" -> ");
	ctl_put(many ? "(destinations folded: table full)" : ctl_string(p, "dest"));
	printf("   %s in %s packets", ctl_bytes(p, "bytes", bytes), ctl_count(ctl_number(p, "packets"), packets));
	if (ctl_number(p, "refused_bytes"))
		printf("   refused %s", ctl_bytes(p, "refused_bytes", bytes));
	if (ctl_number(p, "unseen_bytes"))
		printf("   unseen %s", ctl_bytes(p, "unseen_bytes", bytes));
	put_service(p);
	putchar('\n');
}

static void put_total(const json_t *reply)
{
	const json_t *t = json_object_get(reply, "total");
	char bytes[16], refused[16], unseen[16], stored[16], packets[32];

	ctl_put(ctl_string(reply, "host"));
	printf(": %s left", ctl_bytes(t, "bytes", bytes));
	if (!is_null(reply, "dest")) {
		printf(" to ");
		ctl_put(ctl_string(reply, "dest"));
	}
	printf(" in %s packets, %s refused, %s unseen", ctl_count(ctl_number(t, "packets"), packets),
	       ctl_bytes(t, "refused_bytes", refused), ctl_bytes(t, "unseen_bytes", unseen));
	if (ctl_number(reply, "stores_bytes"))
		printf("; it stores %s", ctl_bytes(reply, "stores_bytes", stored));
	if (ctl_number(reply, "gap_seconds"))
		printf("; not counted: %" PRIu64 " s", ctl_number(reply, "gap_seconds"));
	putchar('\n');
}

void ctl_show_why(const json_t *reply)
{
	const json_t *accounts = json_object_get(reply, "accounts"), *pairs = json_object_get(reply, "pairs"), *x;
	uint64_t all_pairs = ctl_number(json_object_get(reply, "total"), "pairs");
	size_t i;

	json_array_foreach(accounts, i, x)
		put_account(x);
	if (ctl_number(reply, "accounts_total") > json_array_size(accounts))
		printf("and %" PRIu64 " accounts more, less full\n",
		       ctl_number(reply, "accounts_total") - json_array_size(accounts));
	put_decisions(json_object_get(reply, "decisions"));
	if (json_array_size(accounts) == 0)
		puts("no rule or contract has counted anything of it");
	put_total(reply);
	json_array_foreach(pairs, i, x)
		put_pair(x);
	if (all_pairs > json_array_size(pairs))
		printf("  and %" PRIu64 " more\n", all_pairs - json_array_size(pairs));
}

/* ---- findings ---- */

static void put_finding(const json_t *f)
{
	const json_t *v = json_object_get(f, "verdict");
	char bytes[16], when[32];

	printf("%-8s ", ctl_string(f, "severity_name"));
	ctl_put(ctl_string(json_object_get(f, "subject"), "name"));
	if (*ctl_string(f, "dest_ip")) {
		printf(" -> ");
		ctl_put(ctl_string(f, "dest_ip"));
	}
	printf("   ");
	ctl_put(ctl_string(json_object_get(f, "alert"), "signature"));
	printf("   %s", ctl_true(f, "open") ? ctl_string(v, "action") : "closed");
	if (ctl_true(f, "open") && !is_null(v, "until"))
		printf(" until %s", ctl_when(v, "until", when));
	if (ctl_number(f, "refused_bytes"))
		printf("   refused %s", ctl_bytes(f, "refused_bytes", bytes));
	printf("   last %s   id ", ctl_when(f, "last_seen", when));
	ctl_put(ctl_string(f, "finding_id"));
	putchar('\n');
}

void ctl_show_findings(const json_t *reply)
{
	const json_t *list = json_object_get(reply, "findings"), *f;
	size_t i;

	json_array_foreach(list, i, f)
		put_finding(f);
	printf("%" PRIu64 " finding%s, %" PRIu64 " open", ctl_number(reply, "total"),
	       plural(ctl_number(reply, "total")), ctl_number(reply, "open"));
	if (ctl_number(reply, "total") > json_array_size(list))
		printf("; the %zu newest are shown", json_array_size(list));
	putchar('\n');
}

void ctl_show_explain(const json_t *reply)
{
	const json_t *f = json_object_get(reply, "finding"), *t;
	char bytes[16], first[32], last[32];
	size_t i;

	put_finding(f);
	printf("  first seen %s, last %s\n", ctl_when(f, "first_seen", first), ctl_when(f, "last_seen", last));
	printf("  opened by %s%s", ctl_string(f, "opened_by"), is_null(f, "exit") ? "" : ", by exit ");
	ctl_put(ctl_string(f, "exit"));
	putchar('\n');
	json_array_foreach(json_object_get(f, "top"), i, t) {
		printf("  ");
		ctl_put(ctl_string(t, "src_ip"));
		printf(" -> ");
		ctl_put(ctl_string(t, "dest_ip"));
		printf("   %s", ctl_bytes(t, "bytes", bytes));
		if (ctl_number(t, "port"))
			printf("   port %" PRIu64, ctl_number(t, "port"));
		putchar('\n');
	}
	put_account(json_object_get(reply, "account"));
}

/* ---- changes ---- */

void ctl_show_change(const json_t *reply)
{
	uint64_t n = ctl_number(reply, "count");
	char bytes[16], when[32];

	printf("done");
	if (n)
		printf(": %" PRIu64 " account%s or decision%s", n, plural(n), plural(n));
	if (ctl_number(reply, "budget_bytes"))
		printf(", %s", ctl_bytes(reply, "budget_bytes", bytes));
	if (!is_null(reply, "until"))
		printf(", until %s", ctl_when(reply, "until", when));
	if (ctl_number(reply, "version"))
		printf(": policy %" PRIu64 " in force", ctl_number(reply, "version"));
	putchar('\n');
}
