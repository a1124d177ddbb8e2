/* ctl_status.c - the answer of `status` for people: one line that says all, then what is unusual. */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "ctl.h"

#define SILENT_S 2		/* an idle worker turns four times a second */

static void put_seen(const json_t *s)
{
	uint64_t unseen = ctl_number(s, "unseen_bytes");
	double seen = json_number_value(json_object_get(s, "seen_percent"));

	if (ctl_null(s, "seen_percent"))
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
		printf(", %" PRIu64 " lease%s (%.1f %% of bytes)\n", n, ctl_plural(n),
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
		printf("observing, %" PRIu64 " rule%s, none blocks", ctl_number(s, "rules"), ctl_plural(ctl_number(s, "rules")));
	else
		printf("no policy in force");
	if (ctl_number(p, "version"))
		printf(" (policy %" PRIu64 ", %s)", ctl_number(p, "version"), ctl_ago(p, "since", ago));
	printf(", ");
	put_seen(s);
	printf(", %" PRIu64 " block%s", blocks, ctl_plural(blocks));
	if (strcmp(ctl_string(s, "redis"), "none") != 0) {
		printf(", Redis ");
		ctl_put(ctl_string(s, "redis"));
	}
	put_leases(json_object_get(s, "leases"));
}

void ctl_put_silence(uint64_t seconds, const json_t *s)
{
	if (seconds >= SILENT_S)
		printf("  THE ENGINE HAS NOT JUDGED FOR %" PRIu64 " s: packets wait, those that find its queue full %s (failure: %s)\n",
		       seconds, strcmp(ctl_string(s, "failure"), "closed") == 0 ? "are dropped" : "pass unseen",
		       ctl_string(s, "failure"));
}

static void put_devices(const json_t *names)
{
	if (json_array_size(names) == 0)
		return;
	printf("  devices of egressd.yaml or the policy that are not there:");
	for (size_t i = 0; i < json_array_size(names); i++) {
		printf("%s ", i ? "," : "");
		ctl_put(json_string_value(json_array_get(names, i)));
	}
	putchar('\n');
}

static void put_unusual(const json_t *s)
{
	const json_t *p = json_object_get(s, "policy"), *e = json_object_get(s, "engine");
	const json_t *spool = json_object_get(s, "spool"), *leases = json_object_get(s, "leases");
	uint64_t dropped = ctl_number(s, "queue_dropped") + ctl_number(s, "user_dropped");
	char when[32], bytes[16];

	if (!ctl_null(s, "observe_until"))
		printf("  all blocking is off until %s\n", ctl_when(s, "observe_until", when));
	if (!ctl_null(p, "goes_back_at"))
		printf("  policy %" PRIu64 " waits for `egressctl confirm`; the one before returns at %s\n",
		       ctl_number(p, "version"), ctl_when(p, "goes_back_at", when));
	if (!ctl_true(e, "rules_in_kernel"))
		printf("  KERNEL RULES ARE NOT IN PLACE: nothing is judged\n");
	ctl_put_silence(ctl_number(e, "silent_s"), s);
	if (!ctl_null(p, "errors_since")) {
		printf("  the policy file has errors since %s, policy %" PRIu64 " stays: ", ctl_when(p, "errors_since", when),
		       ctl_number(p, "version"));
		ctl_put(ctl_string(p, "error"));
		putchar('\n');
	}
	put_devices(json_object_get(s, "devices_missing"));
	if (ctl_number(s, "braked"))
		printf("  brake: %" PRIu64 " subject%s beyond the limit, only alerted\n", ctl_number(s, "braked"),
		       ctl_plural(ctl_number(s, "braked")));
	if (ctl_number(s, "kept_blocks"))
		printf("  %" PRIu64 " block%s kept by the kernel from before, of rules that nobody knows any more: egressctl blocks\n",
		       ctl_number(s, "kept_blocks"), ctl_number(s, "kept_blocks") == 1 ? " is" : "s are");
	if (ctl_number(s, "kept_lost_bytes"))
		printf("  %s refused by blocks of before are in no account: their rules were unknown\n",
		       ctl_bytes(s, "kept_lost_bytes", bytes));
	if (ctl_number(s, "unseen_bytes"))
		printf("  unseen: %s left without being judged (%" PRIu64 " packet%s; failure: %s)\n",
		       ctl_bytes(s, "unseen_bytes", bytes), ctl_number(s, "unseen_packets"),
		       ctl_plural(ctl_number(s, "unseen_packets")), ctl_string(s, "failure"));
	if (ctl_number(leases, "beyond_bytes"))
		printf("  %s passed on leases beyond what was granted: somebody raised, reset or made them\n",
		       ctl_bytes(leases, "beyond_bytes", bytes));
	if (ctl_number(leases, "lost_bytes"))
		printf("  %s are charged as passed that nobody can count any more: somebody removed leases\n",
		       ctl_bytes(leases, "lost_bytes", bytes));
	if (ctl_null(s, "queue_dropped"))
		printf("  unknown how many packets the kernel dropped at a full queue: the engine may not read its count\n");
	if (ctl_number(s, "unlisted_bytes"))
		printf("  unlisted: %s of senders that are not in `inside`; where to: egressctl why unlisted\n",
		       ctl_bytes(s, "unlisted_bytes", bytes));
	if (dropped)
		printf("  kernel queue dropped %" PRIu64 " packet%s\n", dropped, ctl_plural(dropped));
	if (ctl_number(s, "gap_seconds"))
		printf("  sums have gaps of %" PRIu64 " s together (restored from a snapshot)\n",
		       ctl_number(s, "gap_seconds"));
	if (ctl_number(e, "restarts"))
		printf("  engine restarted %" PRIu64 " time%s, last %s\n", ctl_number(e, "restarts"),
		       ctl_plural(ctl_number(e, "restarts")), ctl_when(e, "started", when));
	if (ctl_number(spool, "pending"))
		printf("  %" PRIu64 " alert%s for Redis\n", ctl_number(spool, "pending"),
		       ctl_number(spool, "pending") == 1 ? " waits" : "s wait");
	if (ctl_number(spool, "lost"))
		printf("  %" PRIu64 " alert%s lost: the spool was full, or its files were damaged\n", ctl_number(spool, "lost"),
		       ctl_number(spool, "lost") == 1 ? " was" : "s were");
	if (ctl_number(spool, "answers_unwritten"))
		printf("  %" PRIu64 " answer%s to decisions cannot be written to disk; beyond 64 decisions wait\n",
		       ctl_number(spool, "answers_unwritten"), ctl_plural(ctl_number(spool, "answers_unwritten")));
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

static void put_lease_work(const json_t *l)
{
	const json_t *w = json_object_get(l, "last_second");
	char bytes[16];

	if (ctl_number(l, "now"))
		printf("  leases: %s of credit out; in the last second %" PRIu64 " granted, %" PRIu64 " raised, %" PRIu64 " recalled\n",
		       ctl_bytes(l, "outstanding_bytes", bytes), ctl_number(w, "grants"), ctl_number(w, "raises"), ctl_number(w, "recalls"));
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
	put_lease_work(json_object_get(s, "leases"));
	put_list("health since start", json_object_get(s, "health"));
	put_list("counted packet by packet", json_object_get(s, "counters"));
}
