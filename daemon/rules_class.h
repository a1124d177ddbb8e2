/* rules_class.h - prefix lists that overlap, turned into disjoint ranges with one class each: what a kernel set can
 * hold. Pure: no kernel, no I/O.
 *
 * [K1] The ranges are sorted, disjoint, and no two neighbours that touch have the same class.
 * [K2] Where prefixes of several lists cover an address, the first list decides; a list of class 0 makes a hole.
 * [K3] An IPv4 prefix covers IPv4 addresses only, an IPv6 one IPv6 addresses only (also ::/0).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "addr.h"
#include "compiler.h"

#define RULES_CLASS_LISTS 4

struct rules_list {
	const struct prefix *prefix;
	size_t count;
	uint8_t cls;
};

struct rules_range {
	struct addr lo, hi;	/* both included */
	uint8_t cls;
	bool last;		/* hi is the last address of the family */
};

/* *ret_range is malloc'd, NULL when there is none. nlists <= RULES_CLASS_LISTS. -ENOMEM. */
int rules_ranges(bool v6, const struct rules_list *list, size_t nlists, struct rules_range **ret_range,
		 size_t *ret_count) MUST_CHECK;

/* The address after a. */
struct addr rules_addr_next(const struct addr *a);
