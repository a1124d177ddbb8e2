/* prefix_set.h - many prefixes, flattened into disjoint ranges that say what is true of each address.
 *
 * A prefix brings a selector bit (all bits of the prefixes around an address are or-ed) or a value (longest match:
 * the value of the longest prefix around it). Used by the policy compiler; the blob keeps the ranges.
 *
 * [PS1] Families  an IPv6 prefix never covers IPv4 addresses, ::/0 neither, although those are held as ::ffff:0:0/96.
 * [PS2] Ranges    after build: ascending, the first starts at ::, neighbours differ in their label, labels are distinct.
 * [PS3] Cost      build is O(n log n); a lookup is a binary search.
 * Threads         one at a time; after build, any number of readers.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "addr.h"
#include "compiler.h"

#define PREFIX_SET_SLOTS 2	/* kinds of values */
#define PREFIX_SET_NONE	 (-1)	/* no prefix with a value of that kind */

struct prefix_set;

struct prefix_range {		/* [start, next start) */
	struct addr start;
	uint32_t label;
};

int prefix_set_new(uint32_t nbits, struct prefix_set **ret_set) MUST_CHECK;
struct prefix_set *prefix_set_free(struct prefix_set *s);	/* takes NULL, returns NULL */

int prefix_set_add(struct prefix_set *s, const struct prefix *p, uint32_t bit) MUST_CHECK;
/* value >= 0. The same prefix put twice: the later value counts. */
int prefix_set_put(struct prefix_set *s, const struct prefix *p, unsigned slot, int32_t value) MUST_CHECK;
int prefix_set_build(struct prefix_set *s) MUST_CHECK;	/* once; 0 or -ENOMEM */

/* After build. */
uint32_t prefix_set_count(const struct prefix_set *s);
const struct prefix_range *prefix_set_range(const struct prefix_set *s, uint32_t i);
uint32_t prefix_set_find(const struct prefix_set *s, const struct addr *a);	/* index of the range */
uint32_t prefix_set_labels(const struct prefix_set *s);
bool prefix_set_bit(const struct prefix_set *s, uint32_t label, uint32_t bit);
int32_t prefix_set_value(const struct prefix_set *s, uint32_t label, unsigned slot);

/* Indexes of the ranges that prefix p meets, IPv4 ones left out for an IPv6 p by prefix_set_meets(). */
void prefix_set_span(const struct prefix_set *s, const struct prefix *p, uint32_t *ret_first, uint32_t *ret_last);
bool prefix_set_meets(const struct prefix_set *s, const struct prefix *p, uint32_t i);

/* Sorts, drops what is covered, joins halves; returns the new count. */
uint32_t prefix_minimize(struct prefix *v, uint32_t n);
bool prefix_covers(const struct prefix *outer, const struct prefix *inner);	/* [PS1] */
bool prefix_is_v4(const struct prefix *p);
/* Sort order: by address, then shorter first. For qsort. */
int prefix_cmp(const void *x, const void *y);
