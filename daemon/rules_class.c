/* rules_class.c - see rules_class.h. A sweep over the ends of all prefixes. */
#include "rules_class.h"

#include <errno.h>
#include <stdlib.h>

#include "prefix_set.h"

typedef unsigned __int128 u128;

struct edge {
	u128 at;
	uint8_t list;
	int8_t step;		/* +1 begins, -1 ended before */
};

static u128 number(const struct addr *a)
{
	u128 n = 0;

	for (size_t i = 0; i < sizeof(a->b); i++)
		n = n << 8 | a->b[i];
	return n;
}

static struct addr address(u128 n)
{
	struct addr a;

	for (size_t i = sizeof(a.b); i-- > 0; n >>= 8)
		a.b[i] = (uint8_t)n;
	return a;
}

struct addr rules_addr_next(const struct addr *a)
{
	return address(number(a) + 1);
}

static int edge_order(const void *x, const void *y)
{
	const struct edge *a = x, *b = y;

	return a->at < b->at ? -1 : a->at > b->at;
}

static size_t edges(bool v6, const struct rules_list *list, size_t nlists, struct edge *e)
{
	size_t n = 0;

	for (size_t l = 0; l < nlists; l++) {
		for (size_t i = 0; i < list[l].count; i++) {
			const struct prefix *p = &list[l].prefix[i];
			const u128 rest = p->len >= 128 ? 0 : ~(u128)0 >> p->len;
			const u128 lo = number(&p->addr) & ~rest, hi = lo | rest;

			if (prefix_is_v4(p) == v6)
				continue;
			e[n++] = (struct edge){ .at = lo, .list = (uint8_t)l, .step = 1 };
			if (hi != ~(u128)0)	/* nothing comes after the last address */
				e[n++] = (struct edge){ .at = hi + 1, .list = (uint8_t)l, .step = -1 };
		}
	}
	return n;
}

/* [K2] */
static uint8_t class_of(const struct rules_list *list, size_t nlists, const int *depth)
{
	for (size_t l = 0; l < nlists; l++) {
		if (depth[l])
			return list[l].cls;
	}
	return 0;
}

int rules_ranges(bool v6, const struct rules_list *list, size_t nlists, struct rules_range **ret_range,
		 size_t *ret_count)
{
	const struct addr v4_last = { { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff } };
	const u128 last = v6 ? ~(u128)0 : number(&v4_last);
	int depth[RULES_CLASS_LISTS] = { 0 };
	struct rules_range *range = NULL;
	size_t total = 0, n, count = 0;
	struct edge *e;
	uint8_t open = 0;

	for (size_t l = 0; l < nlists; l++)
		total += list[l].count;
	e = calloc(2 * total + 1, sizeof(*e));
	range = calloc(2 * total + 1, sizeof(*range));
	if (!e || !range) {
		free(e);
		free(range);
		return -ENOMEM;
	}
	n = edges(v6, list, nlists, e);
	qsort(e, n, sizeof(*e), edge_order);
	for (size_t i = 0; i < n;) {
		const u128 at = e[i].at;
		uint8_t cls;

		for (; i < n && e[i].at == at; i++)
			depth[e[i].list] += e[i].step;
		cls = class_of(list, nlists, depth);
		if (cls == open)
			continue;
		if (open)
			range[count - 1].hi = address(at - 1);
		if (cls)
			range[count++] = (struct rules_range){ .lo = address(at), .cls = cls };
		open = cls;
	}
	if (open)
		range[count - 1].hi = address(last);
	if (count && number(&range[count - 1].hi) == last)
		range[count - 1].last = true;
	free(e);
	if (!count) {
		free(range);
		range = NULL;
	}
	*ret_range = range;
	*ret_count = count;
	return 0;
}
