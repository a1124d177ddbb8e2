/* finding.h - what is reported: one (rule, subject), its numbers with bounds, and its JSON.
 *
 * The JSON is one object, EVE-shaped, at most FINDING_JSON_MAX bytes, as config/alert.schema.json says; 64-bit ids are
 * strings; every text is valid UTF-8 with control characters escaped.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "addr.h"
#include "compiler.h"

#define FINDING_JSON_MAX 16384
#define FINDING_TOP	 10
#define FINDING_REASONS	 8
#define FINDING_TEXT	 128

enum finding_event { EVENT_ALERT, EVENT_HEALTH, EVENT_DECISION };
enum finding_activity { ACTIVITY_CREATE, ACTIVITY_UPDATE, ACTIVITY_CLOSE };
enum finding_verdict { VERDICT_ALLOW, VERDICT_ALERT, VERDICT_THROTTLE, VERDICT_BLOCK, VERDICT_WOULD_BLOCK };

struct finding_reason {		/* one window at or beyond its limit */
	uint32_t window_s;
	uint64_t observed, limit;
};

struct finding_top {
	char src_ip[ADDR_STRLEN], dest_ip[PREFIX_STRLEN], name[FINDING_TEXT];	/* src_ip "": null, name says who */
	uint16_t port;
	uint64_t bytes;		/* of a pair: observed; else all that its record has counted, whatever the rule and window */
};

struct finding {
	enum finding_event event;
	uint64_t wall_us;		/* timestamp: microseconds since the epoch */
	uint64_t finding_id, incident_id, seq;
	uint32_t rev;			/* alert_id is "<finding_id>-<rev>": 16 hex digits, decimal */
	enum finding_activity activity;
	char gateway[FINDING_TEXT];
	uint32_t policy_version;
	char subject_kind[8], subject_name[FINDING_TEXT], subject_ip[ADDR_STRLEN];	/* ip "": null */
	char rule[FINDING_TEXT], per[8];
	uint8_t opened_by;		/* enum opener */
	char exit[FINDING_TEXT];	/* "" : null */
	char signature[256], category[64], action[16];
	uint8_t severity;		/* enum policy_severity: EVE's number is 5 - severity (1 is the gravest) */
	uint64_t observed_bytes, limit_bytes, refused_bytes;
	uint32_t window_s;
	uint32_t nreasons;
	struct finding_reason reason[FINDING_REASONS];
	uint32_t ntop;
	struct finding_top top[FINDING_TOP];
	enum finding_verdict verdict;
	uint64_t until_us;		/* 0: null */
	int32_t zone_s;			/* east of UTC at until_us: the hour that finding_line() says */
	char zone[8];			/* and what that is called; "": not said */
	uint32_t until_window_s;	/* 0: hold decides */
	uint64_t first_seen_us, last_seen_us;
	uint64_t stored_compressed;	/* 0: unknown, share_of_stored is null */
	uint64_t seen_bytes, unseen_bytes;
	char how_to_allow[256];		/* "" : nothing is blocked */
	char src_ip[ADDR_STRLEN], dest_ip[PREFIX_STRLEN];	/* pair only, else "" */
	char community_id[32];		/* "" : absent */
	/* EVENT_HEALTH: signature says what; EVENT_DECISION: */
	char decision_id[64], decision_result[16], decision_why[256];
	/* as they were written, "": not; the entry is a stream id */
	char decision_entry[48], decision_action[16], decision_src[64], decision_dst[64], decision_budget[24], decision_ttl[16];
	char decision_author[64], decision_reason[160];
};

/* Length without NUL, or -EMSGSIZE when it would not fit (top is shortened first). */
int finding_json(const struct finding *f, char *buf, size_t size) MUST_CHECK;

/* "alert high: file01 -> 203.0.113.9 bulk-leak: 500.0 MB in 1h (limit 500.0 MB), blocked until 15:32 JST, refused 88.1 MB"; one line,
 * escaped. The time is zone_s's, with its date ("3 Nov 15:32") when that is not wall_us's. */
int finding_line(const struct finding *f, char *buf, size_t size) MUST_CHECK;

/* "500.0 MB", decimal units, the nearest tenth; buf of 16. */
const char *format_bytes(uint64_t bytes, char buf[16]);
const char *format_duration(uint64_t seconds, char buf[16]);	/* "1h", "24h", "30d", "90s" */
