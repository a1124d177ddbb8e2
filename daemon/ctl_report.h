/* ctl_report.h - what a replay found, and how it is printed: JSON lines or a table. */
#pragma once

#include <stdbool.h>
#include <stdio.h>

#include "capture.h"
#include "judge.h"

enum report_skip {			/* why a packet is in no pair; capture and packet reasons follow */
	SKIP_SOURCE,			/* not sent by an inside host */
	SKIP_INSIDE,			/* stays inside */
	SKIP_CAPTURE,
	SKIP_PACKET = SKIP_CAPTURE + CAPTURE_REASONS,
	SKIP_COUNT = SKIP_PACKET + PACKET_REASONS
};

struct report_alert {			/* the state of an account as its finding opened */
	uint64_t wall_ns;
	uint32_t rule;			/* index in the policy, ACCOUNT_NO_RULE */
	struct account_key subject;
	struct pair_key pair;		/* of the packet that crossed */
	uint32_t window_s;
	uint64_t observed, limit;
	uint8_t opened_by;
	const char *verdict;
};

struct report {
	uint64_t skipped[SKIP_COUNT];
	struct report_alert *alert;
	size_t nalerts, room;
	uint32_t last_finding;		/* low half of the last finding's id: ids rise */
	uint64_t bell;			/* next doorbell entry to read */
};

/* Add an alert for each finding that opened since the last call. */
int report_alerts(struct report *r, const struct judge *j, uint64_t wall_ns) MUST_CHECK;
void report_reset(struct report *r);	/* frees and zeroes */

/* Everything to `out`; -ENOMEM or -EIO. */
int report_print(struct report *r, const struct judge *j, bool json, FILE *out) MUST_CHECK;
