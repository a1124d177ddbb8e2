#include "prefix_set.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

#define V4_LEN 96	/* ::ffff:0:0/96 */
#define DEPTH  130	/* prefixes that lie in each other: lengths 0..128 and the root */

struct entry {
	struct prefix p;
	uint32_t seq;		/* order of adding: a stable sort */
	int8_t slot;		/* -1: bit, -2: the IPv4 block's edge */
	int32_t value;		/* or bit */
};

struct label {
	int32_t value[PREFIX_SET_SLOTS];
	uint64_t bits[];
};

struct prefix_set {
	uint32_t words;
	struct entry *entry;
	size_t nentries, cap;

	struct prefix_range *range;
	size_t nranges;
	char *label;		/* struct label, stride bytes each */
	size_t stride, nlabels, label_cap;
	uint32_t *bucket;	/* label number + 1 by hash; a power of two of them */
	size_t nbuckets;
};

struct build {			/* the prefixes around the place the sweep has reached */
	struct prefix_set *s;
	char *level;		/* struct label by depth */
	struct prefix open[DEPTH];
	unsigned depth;		/* level[depth] is the innermost; level 0 is "nothing" */
	struct addr at;		/* pending range start */
	char *pending;		/* its label */
};

bool prefix_is_v4(const struct prefix *p)
{
	return p->len >= V4_LEN && addr_is_v4(&p->addr);
}

bool prefix_covers(const struct prefix *outer, const struct prefix *inner)
{
	if (outer->len > inner->len || prefix_is_v4(outer) != prefix_is_v4(inner))
		return false;
	return prefix_contains(outer, &inner->addr);
}

int prefix_cmp(const void *x, const void *y)
{
	const struct prefix *a = x, *b = y;
	int c = addr_cmp(&a->addr, &b->addr);

	return c ? c : (int)a->len - (int)b->len;
}

/* The first address after the prefix; false when there is none. */
static bool prefix_next(const struct prefix *p, struct addr *ret)
{
	struct addr a = p->addr;
	int byte = (p->len + 7) / 8 - 1;
	unsigned add = p->len % 8 ? 1U << (8 - p->len % 8) : 1;

	for (; byte >= 0; byte--) {
		unsigned sum = a.b[byte] + add;

		a.b[byte] = (uint8_t)sum;
		add = sum >> 8;
		if (!add) {
			*ret = a;
			return true;
		}
	}
	return false;
}

int prefix_set_new(uint32_t nbits, struct prefix_set **ret_set)
{
	struct prefix_set *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	s->words = (nbits + 63) / 64;
	s->stride = sizeof(struct label) + s->words * sizeof(uint64_t);
	*ret_set = s;
	return 0;
}

struct prefix_set *prefix_set_free(struct prefix_set *s)
{
	if (s) {
		free(s->entry);
		free(s->range);
		free(s->label);
		free(s->bucket);
		free(s);
	}
	return NULL;
}

static int entry_add(struct prefix_set *s, const struct prefix *p, int8_t slot, int32_t value)
{
	if (s->nentries == s->cap) {
		size_t cap = s->cap ? s->cap * 2 : 64;
		struct entry *e = reallocarray(s->entry, cap, sizeof(*e));

		if (!e)
			return -ENOMEM;
		s->entry = e;
		s->cap = cap;
	}
	s->entry[s->nentries] = (struct entry){ .p = *p, .seq = (uint32_t)s->nentries, .slot = slot, .value = value };
	s->nentries++;
	return 0;
}

int prefix_set_add(struct prefix_set *s, const struct prefix *p, uint32_t bit)
{
	BUG_ON(bit >= s->words * 64);
	return entry_add(s, p, -1, (int32_t)bit);
}

int prefix_set_put(struct prefix_set *s, const struct prefix *p, unsigned slot, int32_t value)
{
	BUG_ON(slot >= PREFIX_SET_SLOTS || value < 0);
	return entry_add(s, p, (int8_t)slot, value);
}

static int entry_cmp(const void *x, const void *y)
{
	const struct entry *a = x, *b = y;
	int c = prefix_cmp(&a->p, &b->p);

	if (c)
		return c;
	return a->seq < b->seq ? -1 : a->seq > b->seq;
}

static struct label *label_at(char *base, size_t stride, size_t i)
{
	return (struct label *)(void *)(base + i * stride);
}

static uint64_t label_hash(const void *label, size_t len)
{
	const uint32_t *w = label;
	uint64_t h = 0xcbf29ce484222325ULL;

	for (size_t i = 0; i < len / 4; i++) {
		h = (h ^ w[i]) * 0x100000001b3ULL;
		h ^= h >> 29;
	}
	return h;
}

static int labels_grow(struct prefix_set *s)
{
	size_t cap = s->label_cap ? s->label_cap * 2 : 32;
	char *label = reallocarray(s->label, cap, s->stride);
	uint32_t *bucket;

	if (!label)
		return -ENOMEM;
	s->label = label;
	bucket = calloc(cap * 4, sizeof(*bucket));
	if (!bucket)
		return -ENOMEM;
	for (size_t i = 0; i < s->nlabels; i++) {
		size_t b = label_hash(label + i * s->stride, s->stride) & (cap * 4 - 1);

		while (bucket[b])
			b = (b + 1) & (cap * 4 - 1);
		bucket[b] = (uint32_t)i + 1;
	}
	free(s->bucket);
	s->bucket = bucket;
	s->nbuckets = cap * 4;
	s->label_cap = cap;
	return 0;
}

static int label_number(struct prefix_set *s, const char *label, uint32_t *ret)
{
	size_t b;
	int r;

	if (s->nlabels == s->label_cap) {
		r = labels_grow(s);
		if (r < 0)
			return r;
	}
	b = label_hash(label, s->stride) & (s->nbuckets - 1);
	for (; s->bucket[b]; b = (b + 1) & (s->nbuckets - 1)) {
		if (!memcmp(s->label + (s->bucket[b] - 1) * s->stride, label, s->stride)) {
			*ret = s->bucket[b] - 1;
			return 0;
		}
	}
	memcpy(s->label + s->nlabels * s->stride, label, s->stride);
	s->bucket[b] = (uint32_t)++s->nlabels;
	*ret = (uint32_t)s->nlabels - 1;
	return 0;
}

/* The pending range is complete: keep it unless it goes on what its neighbour says. */
static int flush(struct build *b)
{
	struct prefix_set *s = b->s;
	uint32_t number;
	int r = label_number(s, b->pending, &number);

	if (r < 0)
		return r;
	if (s->nranges && s->range[s->nranges - 1].label == number)
		return 0;
	s->range[s->nranges++] = (struct prefix_range){ .start = b->at, .label = number };
	return 0;
}

/* From `at` on, the innermost level is what holds; a later word about the same place replaces an earlier one. */
static int emit(struct build *b, const struct addr *at)
{
	if (addr_cmp(at, &b->at)) {
		int r = flush(b);

		if (r < 0)
			return r;
		b->at = *at;
	}
	memcpy(b->pending, b->level + b->depth * b->s->stride, b->s->stride);
	return 0;
}

static int close_level(struct build *b)
{
	struct addr next;
	bool more = prefix_next(&b->open[b->depth], &next);

	b->depth--;
	return more ? emit(b, &next) : 0;
}

static void open_level(struct build *b, const struct prefix *p, bool edge)
{
	size_t stride = b->s->stride;

	/* The IPv4 block inherits nothing from the IPv6 prefixes around it [PS1]. */
	memcpy(b->level + (b->depth + 1) * stride, b->level + (edge ? 0 : b->depth) * stride, stride);
	b->depth++;
	b->open[b->depth] = *p;
}

static bool inside_open(const struct build *b, const struct prefix *p)
{
	return p->len >= b->open[b->depth].len && prefix_contains(&b->open[b->depth], &p->addr);
}

static int sweep(struct build *b)
{
	const struct entry *e = b->s->entry, *end = e + b->s->nentries;
	int r = 0;

	while (e < end && r == 0) {
		const struct entry *group = e;
		struct label *l;

		while (r == 0 && b->depth && !inside_open(b, &e->p))
			r = close_level(b);
		if (r < 0)
			return r;
		open_level(b, &e->p, e->slot == -2);
		l = label_at(b->level, b->s->stride, b->depth);
		for (; e < end && prefix_cmp(&e->p, &group->p) == 0; e++) {
			if (e->slot == -1)
				l->bits[e->value / 64] |= 1ULL << (e->value % 64);
			else if (e->slot >= 0)
				l->value[(int)e->slot] = e->value;
		}
		r = emit(b, &group->p.addr);
	}
	while (r == 0 && b->depth)
		r = close_level(b);
	return r < 0 ? r : flush(b);
}

static int sort_entries(struct prefix_set *s)
{
	static const struct prefix v4 = { { { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff } }, V4_LEN };
	int r = entry_add(s, &v4, -2, 0);

	if (r < 0)
		return r;
	/* The edge goes before whatever else is said of 0.0.0.0/0. */
	for (size_t i = 0; i + 1 < s->nentries; i++)
		s->entry[i].seq++;
	s->entry[s->nentries - 1].seq = 0;
	qsort(s->entry, s->nentries, sizeof(*s->entry), entry_cmp);
	return 0;
}

int prefix_set_build(struct prefix_set *s)
{
	struct build b = { .s = s };
	struct label *root;
	int r = sort_entries(s);

	if (r < 0)
		return r;
	s->range = calloc(s->nentries * 2 + 1, sizeof(*s->range));
	b.level = calloc(DEPTH + 1, s->stride);
	b.pending = calloc(1, s->stride);
	if (!s->range || !b.level || !b.pending) {
		r = -ENOMEM;
		goto out;
	}
	root = label_at(b.level, s->stride, 0);
	for (unsigned i = 0; i < PREFIX_SET_SLOTS; i++)
		root->value[i] = PREFIX_SET_NONE;
	memcpy(b.pending, b.level, s->stride);
	r = sweep(&b);
out:
	free(b.level);
	free(b.pending);
	return r;
}

uint32_t prefix_set_count(const struct prefix_set *s)
{
	return (uint32_t)s->nranges;
}

const struct prefix_range *prefix_set_range(const struct prefix_set *s, uint32_t i)
{
	return &s->range[i];
}

uint32_t prefix_set_find(const struct prefix_set *s, const struct addr *a)
{
	size_t low = 0, high = s->nranges;

	while (high - low > 1) {
		size_t mid = low + (high - low) / 2;

		if (addr_cmp(&s->range[mid].start, a) <= 0)
			low = mid;
		else
			high = mid;
	}
	return (uint32_t)low;
}

uint32_t prefix_set_labels(const struct prefix_set *s)
{
	return (uint32_t)s->nlabels;
}

bool prefix_set_bit(const struct prefix_set *s, uint32_t label, uint32_t bit)
{
	return label_at(s->label, s->stride, label)->bits[bit / 64] >> (bit % 64) & 1;
}

int32_t prefix_set_value(const struct prefix_set *s, uint32_t label, unsigned slot)
{
	return label_at(s->label, s->stride, label)->value[slot];
}

void prefix_set_span(const struct prefix_set *s, const struct prefix *p, uint32_t *ret_first, uint32_t *ret_last)
{
	struct addr next;

	*ret_first = prefix_set_find(s, &p->addr);
	if (!prefix_next(p, &next)) {
		*ret_last = (uint32_t)s->nranges - 1;
		return;
	}
	*ret_last = prefix_set_find(s, &next);
	if (addr_cmp(&s->range[*ret_last].start, &next) == 0)
		(*ret_last)--;
}

bool prefix_set_meets(const struct prefix_set *s, const struct prefix *p, uint32_t i)
{
	static const struct addr v4_end = { { 0, 0, 0, 0, 0, 0, 0, 0, 0, 1 } };
	const struct addr *next;

	if (prefix_is_v4(p) || !addr_is_v4(&s->range[i].start) || i + 1 == s->nranges)
		return true;
	/* A range that starts at an IPv4 address may run on into IPv6. */
	next = &s->range[i + 1].start;
	return !addr_is_v4(next) && addr_cmp(next, &v4_end) != 0;
}

uint32_t prefix_minimize(struct prefix *v, uint32_t n)
{
	uint32_t out = 0;
	int64_t last_v6 = -1;	/* an IPv6 prefix around the IPv4 block stands before all IPv4 ones */

	qsort(v, n, sizeof(*v), prefix_cmp);
	for (uint32_t i = 0; i < n; i++) {
		struct prefix p = v[i];

		if (out && prefix_covers(&v[out - 1], &p))
			continue;
		if (last_v6 >= 0 && prefix_covers(&v[last_v6], &p))
			continue;
		while (out && v[out - 1].len == p.len && p.len > 0 && p.len != V4_LEN) {
			struct prefix up = { addr_mask(&p.addr, (uint8_t)(p.len - 1)), (uint8_t)(p.len - 1) };

			if (addr_cmp(&up.addr, &v[out - 1].addr))
				break;
			p = up;
			out--;
		}
		v[out++] = p;
		if (!prefix_is_v4(&p))
			last_v6 = out - 1;
	}
	return out;
}
