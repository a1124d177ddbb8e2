/* history.h - what the spool holds: the head of its records, and which findings and decisions they told.
 *
 * [HI1] Head     a record is its head and JSON. Heads of the version before are read as well: an upgrade sends what waits.
 * [HI2] Decided  an entry of egress:decisions is known by itself, and by the id that its writer gave: 64 bits of each, of the
 *                DECIDED newest.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "compiler.h"
#include "finding.h"
#include "spool.h"

#define REPORT_MAGIC 0x65677234u	/* "egr4" */
#define DECIDED	     1024

struct report_record {
	uint32_t magic;			/* REPORT_MAGIC */
	uint32_t event;			/* enum finding_event */
	uint64_t finding_id;
	uint32_t rev;
	uint32_t activity;		/* enum finding_activity */
	uint64_t incident_id;
	uint64_t wall_us;
	uint64_t decision, entry;	/* EVENT_DECISION: decided_name() of its id and of its entry; else 0 */
};

struct decided {			/* answered, the newest */
	uint64_t id[DECIDED], entry[DECIDED];
	unsigned n;
};

struct history_finding {		/* the newest record of one */
	uint64_t finding_id, incident_id;
	uint32_t rev, activity;
};

struct history {
	struct history_finding *finding;	/* by id */
	size_t n, size;
	uint64_t wall_us;		/* of the newest record, 0: there is none */
};

/* Where the JSON begins, with *ret its head; 0: this is no record. */
size_t history_head(const char *data, size_t len, struct report_record *ret);

/* The whole spool; decisions go to *decided. history_free() in any case. */
int history_read(struct spool *s, struct history *ret, struct decided *decided) MUST_CHECK;
const struct history_finding *history_of(const struct history *h, uint64_t finding_id);	/* NULL: not told */
void history_free(struct history *h);

uint64_t decided_name(const char *text);	/* 0: "" */
void decided_note(struct decided *d, uint64_t id, uint64_t entry);
bool decided_has_id(const struct decided *d, const char *id);		/* "" never */
bool decided_has_entry(const struct decided *d, const char *entry);
