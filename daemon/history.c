/* history.c - see history.h for the contract. */
#include "history.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hash.h"

#define MAGIC_3 0x65677233u	/* "egr3" */

struct head_3 {
	uint32_t magic, event;
	uint64_t finding_id;
	uint32_t rev, uid;
};

/* ---- heads ---- */

size_t history_head(const char *data, size_t len, struct report_record *ret)
{
	struct head_3 old;
	uint32_t magic;

	if (len < sizeof(magic))
		return 0;
	memcpy(&magic, data, sizeof(magic));
	if (magic == REPORT_MAGIC && len >= sizeof(*ret)) {
		memcpy(ret, data, sizeof(*ret));
		return sizeof(*ret);
	}
	if (magic != MAGIC_3 || len < sizeof(old))
		return 0;
	memcpy(&old, data, sizeof(old));
	*ret = (struct report_record){
		.magic = magic, .event = old.event, .finding_id = old.finding_id, .rev = old.rev, .activity = ACTIVITY_UPDATE,
		.incident_id = old.finding_id,
	};
	return sizeof(old);
}

/* ---- decisions ---- */

uint64_t decided_name(const char *text)
{
	uint8_t sum[HASH_SUM_LEN];
	uint64_t name;

	if (!*text)
		return 0;
	hash_sum(text, strlen(text), sum);
	memcpy(&name, sum, sizeof(name));
	return name ? name : 1;
}

void decided_note(struct decided *d, uint64_t id, uint64_t entry)
{
	d->id[d->n % DECIDED] = id;
	d->entry[d->n++ % DECIDED] = entry;
}

static bool has(const uint64_t name[DECIDED], unsigned n, uint64_t wanted)
{
	for (unsigned i = 0; wanted && i < DECIDED && i < n; i++)
		if (name[i] == wanted)
			return true;
	return false;
}

bool decided_has_id(const struct decided *d, const char *id)
{
	return has(d->id, d->n, decided_name(id));
}

bool decided_has_entry(const struct decided *d, const char *entry)
{
	return has(d->entry, d->n, decided_name(entry));
}

/* ---- the spool ---- */

static int remember(struct history *h, const struct report_record *rec)
{
	if (h->n == h->size) {
		size_t size = h->size ? h->size * 2 : 1024;
		struct history_finding *p = realloc(h->finding, size * sizeof(*p));

		if (!p)
			return -ENOMEM;
		h->finding = p;
		h->size = size;
	}
	h->finding[h->n++] = (struct history_finding){ rec->finding_id, rec->incident_id, rec->rev, rec->activity };
	return 0;
}

static int by_id(const void *x, const void *y)
{
	const struct history_finding *a = x, *b = y;

	if (a->finding_id != b->finding_id)
		return a->finding_id < b->finding_id ? -1 : 1;
	return (a->rev > b->rev) - (a->rev < b->rev);
}

int history_read(struct spool *s, struct history *h, struct decided *decided)
{
	uint64_t seq = 0;
	int e = 0;

	*h = (struct history){ 0 };
	while (e == 0) {
		struct report_record rec;
		char *data;
		size_t len;

		e = spool_read(s, seq, &seq, &data, &len);
		if (e < 0)
			break;
		if (history_head(data, len, &rec)) {
			h->wall_us = rec.wall_us;
			if (rec.event == EVENT_ALERT)
				e = remember(h, &rec);
			else if (rec.event == EVENT_DECISION)
				decided_note(decided, rec.decision, rec.entry);
		}
		free(data);
	}
	if (h->n)
		qsort(h->finding, h->n, sizeof(*h->finding), by_id);
	return e == -ENOENT ? 0 : e;
}

const struct history_finding *history_of(const struct history *h, uint64_t finding_id)
{
	size_t low = 0, high = h->n;

	while (low < high) {	/* first beyond finding_id */
		size_t mid = (low + high) / 2;

		if (h->finding[mid].finding_id <= finding_id)
			low = mid + 1;
		else
			high = mid;
	}
	return low && h->finding[low - 1].finding_id == finding_id ? &h->finding[low - 1] : NULL;
}

void history_free(struct history *h)
{
	free(h->finding);
	h->finding = NULL;
	h->n = h->size = 0;
}
