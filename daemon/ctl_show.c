/* ctl_show.c - answers as tables for people. */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "ctl.h"
#include "finding.h"

/* ---- accounts ---- */

/* Of an account: those that have none of their own share it. */
static const char *dest_of(const json_t *o, const char *key)
{
	const char *dest = ctl_string(o, key);

	return strcmp(dest, "*") == 0 ? "other destinations" : dest;
}

static void put_who(const json_t *a)
{
	ctl_put(ctl_string(a, "subject"));
	if (*ctl_string(a, "dest")) {
		printf(" -> ");
		ctl_put(dest_of(a, "dest"));
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
		if (!ctl_null(l, "room_at"))
			printf("%s window has room %s; ", format_duration(ctl_number(l, "window_s"), window),
			       ctl_when(l, "room_at", when));
	if (ctl_null(a, "until_window_s"))
		printf("hold %s)", format_duration(ctl_number(a, "hold_s"), hold));
	else
		printf("the %s window decides)", format_duration(ctl_number(a, "until_window_s"), window));
}

static void put_state(const json_t *a)
{
	char when[32];

	if (ctl_true(a, "blocked"))
		put_blocked(a);
	else if (!ctl_null(a, "blocked_until"))
		printf("   let pass while blocking is off; BLOCKED again until %s", ctl_when(a, "blocked_until", when));
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
	if (ctl_null(d, "left_bytes"))
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

static const char *left_of(uint64_t s, char buf[32])
{
	if (s < 120)
		snprintf(buf, 32, "%" PRIu64 " s", s);
	else if (s < 7200)
		snprintf(buf, 32, "%" PRIu64 " min", s / 60);
	else
		snprintf(buf, 32, "%" PRIu64 " h", s / 3600);
	return buf;
}

static void put_kept(const json_t *k)
{
	char when[32], left[32], bytes[16];
	const char *dest = ctl_string(k, "dest");

	ctl_put(ctl_string(k, "src"));
	printf(" -> ");
	ctl_put(dest);
	printf("   rule unknown   BLOCKED ");
	if (!ctl_null(k, "left_s"))
		printf("until %s (%s left), ", ctl_when(k, "blocked_until", when), left_of(ctl_number(k, "left_s"), left));
	printf("kept by the kernel from before\n  refused %s\n  to let it go on: egressctl unblock ", ctl_bytes(k, "refused_bytes", bytes));
	ctl_put(ctl_string(k, "src"));
	if (strcmp(dest, "*") != 0) {
		putchar(' ');
		ctl_put(dest);
	}
	printf(" --reason '...'\n");
}

static size_t put_all_kept(const json_t *list)
{
	const json_t *k;
	size_t i;

	json_array_foreach(list, i, k)
		put_kept(k);
	return json_array_size(list);
}

/* Those that the engine did not list. */
static void put_kept_more(uint64_t all, size_t listed)
{
	if (all > listed)
		printf("and %" PRIu64 " more that the kernel keeps from before: egressctl unblock takes them out, too\n", all - listed);
}

void ctl_show_blocks(const json_t *reply)
{
	const json_t *list = json_object_get(reply, "blocks"), *a;
	size_t i, kept, n = json_array_size(list);
	char when[32];

	ctl_put_silence(ctl_number(reply, "engine_silent_s"), reply);
	if (!ctl_null(reply, "observe_until"))
		printf("  all blocking is off until %s: what is listed here passes\n", ctl_when(reply, "observe_until", when));
	json_array_foreach(list, i, a)
		put_account(a);
	if (ctl_number(reply, "total") > n)
		printf("and %" PRIu64 " more\n", ctl_number(reply, "total") - n);
	n += put_decisions(json_object_get(reply, "by_hand"));
	kept = put_all_kept(json_object_get(reply, "kept"));
	put_kept_more(ctl_number(reply, "kept_total"), kept);
	n += kept;
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
	printf("   %s in %s packet%s", ctl_bytes(p, "bytes", bytes), ctl_count(ctl_number(p, "packets"), packets),
	       ctl_plural(ctl_number(p, "packets")));
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

	if (ctl_number(t, "pairs") == 0 && strcmp(ctl_string(reply, "host"), "others") == 0) {
		puts("others: hosts that found no account of their own when the table was full; what each sent is under its address");
		return;
	}
	ctl_put(ctl_string(reply, "host"));
	printf(": %s left", ctl_bytes(t, "bytes", bytes));
	if (!ctl_null(reply, "dest")) {
		printf(" to ");
		ctl_put(ctl_string(reply, "dest"));
	}
	printf(" in %s packet%s, %s refused, %s unseen", ctl_count(ctl_number(t, "packets"), packets),
	       ctl_plural(ctl_number(t, "packets")), ctl_bytes(t, "refused_bytes", refused), ctl_bytes(t, "unseen_bytes", unseen));
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
		printf("and %" PRIu64 " more, less full\n", ctl_number(reply, "accounts_total") - json_array_size(accounts));
	put_decisions(json_object_get(reply, "decisions"));
	put_all_kept(json_object_get(reply, "kept"));
	if (json_array_size(accounts) == 0)
		puts("no rule or contract has counted anything of it");
	put_total(reply);
	json_array_foreach(pairs, i, x)
		put_pair(x);
	if (all_pairs > json_array_size(pairs))
		printf("  and %" PRIu64 " more\n", all_pairs - json_array_size(pairs));
}

/* ---- findings ---- */

struct finding_line {
	char who[200], what[200], verdict[80];
};

static struct finding_line line_of(const json_t *f)
{
	const json_t *v = json_object_get(f, "verdict");
	const char *dest = dest_of(f, "dest_ip");
	bool open = ctl_true(f, "open"), until = open && !ctl_null(v, "until");
	struct finding_line l;
	char when[32];

	snprintf(l.who, sizeof(l.who), "%s%s%s", ctl_string(json_object_get(f, "subject"), "name"), *dest ? " -> " : "", dest);
	snprintf(l.what, sizeof(l.what), "%s", ctl_string(json_object_get(f, "alert"), "signature"));
	snprintf(l.verdict, sizeof(l.verdict), "%.30s%s%s", open ? ctl_string(v, "action") : "closed", until ? " until " : "",
		 until ? ctl_when(v, "until", when) : "");
	return l;
}

static void put_column(const char *text, int width)
{
	ctl_put(text);
	printf("%*s", width - (int)strlen(text) + 3, "");
}

/* `wide`: texts as long as the longest of each column. */
static void put_finding(const json_t *f, const struct finding_line *wide)
{
	const struct finding_line l = line_of(f);
	char bytes[16], when[32];

	printf("%-8s ", ctl_string(f, "severity_name"));
	put_column(l.who, (int)strlen(wide->who));
	put_column(l.what, (int)strlen(wide->what));
	put_column(l.verdict, (int)strlen(wide->verdict));
	printf("refused %-8s   last %-12s   id ", ctl_bytes(f, "refused_bytes", bytes), ctl_when(f, "last_seen", when));
	ctl_put(ctl_string(f, "finding_id"));
	putchar('\n');
}

static void widen(char *to, size_t size, const char *text)
{
	if (strlen(text) > strlen(to))
		snprintf(to, size, "%s", text);
}

void ctl_show_findings(const json_t *reply)
{
	const json_t *list = json_object_get(reply, "findings"), *f;
	struct finding_line wide = { .who = "" };
	size_t i;

	json_array_foreach(list, i, f) {
		const struct finding_line l = line_of(f);

		widen(wide.who, sizeof(wide.who), l.who);
		widen(wide.what, sizeof(wide.what), l.what);
		widen(wide.verdict, sizeof(wide.verdict), l.verdict);
	}
	json_array_foreach(list, i, f)
		put_finding(f, &wide);
	printf("%" PRIu64 " finding%s, %" PRIu64 " open", ctl_number(reply, "total"),
	       ctl_plural(ctl_number(reply, "total")), ctl_number(reply, "open"));
	if (ctl_number(reply, "total") > json_array_size(list))
		printf("; the %zu newest are shown", json_array_size(list));
	putchar('\n');
}

void ctl_show_explain(const json_t *reply)
{
	const json_t *f = json_object_get(reply, "finding"), *t;
	const struct finding_line own = line_of(f);
	char bytes[16], first[40], last[40];
	size_t i;

	put_finding(f, &own);
	printf("  first seen %s, last %s\n", ctl_moment(f, "first_seen", first), ctl_moment(f, "last_seen", last));
	if (!ctl_null(f, "incident_id"))
		printf("  incident %s\n", ctl_string(f, "incident_id"));
	printf("  opened by %s%s", ctl_string(f, "opened_by"), ctl_null(f, "exit") ? "" : ", by exit ");
	ctl_put(ctl_string(f, "exit"));
	putchar('\n');
	json_array_foreach(json_object_get(f, "top"), i, t) {
		printf("  ");
		ctl_put(*ctl_string(t, "src_ip") ? ctl_string(t, "src_ip") : ctl_string(t, "name"));
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

static void put_lifted(const char **between, uint64_t n, const char *which)
{
	if (!n)
		return;
	printf("%s%" PRIu64 " block%s %s lifted", *between, n, ctl_plural(n), which);
	*between = "; ";
}

static void put_credit(const char **between, const json_t *reply)
{
	uint64_t n = ctl_number(reply, "accounts");
	char bytes[16], when[32];

	if (!n)
		return;
	printf("%scredit for %" PRIu64 " account%s", *between, n, ctl_plural(n));
	if (ctl_number(reply, "budget_bytes"))
		printf(", %s%s", ctl_bytes(reply, "budget_bytes", bytes), n > 1 ? " each" : "");
	printf(", until %s", ctl_when(reply, "until", when));
	*between = "; ";
}

void ctl_show_unblock(const json_t *reply)
{
	const char *between = "done: ";

	put_credit(&between, reply);
	put_lifted(&between, ctl_number(reply, "by_hand"), "by hand");
	put_lifted(&between, ctl_number(reply, "kept"), "kept from before");
	putchar('\n');
}

void ctl_show_change(const json_t *reply)
{
	uint64_t n = ctl_number(reply, "count");
	char bytes[16], when[32];

	printf("done");
	if (n)
		printf(": %" PRIu64 " decision%s", n, ctl_plural(n));
	if (ctl_number(reply, "budget_bytes"))
		printf(", %s", ctl_bytes(reply, "budget_bytes", bytes));
	if (!ctl_null(reply, "until"))
		printf(", until %s", ctl_when(reply, "until", when));
	if (ctl_number(reply, "version"))
		printf(": policy %" PRIu64 " in force", ctl_number(reply, "version"));
	putchar('\n');
}
