/* policy_build.h - the parts of a blob while it is being made. For policy_*.c and their tests only.
 *
 * Order: build_rules, build_labels, build_classes, build_check, then policy_compile.c lays them out. Everything lives
 * in the document's arena but the string pool.
 */
#pragma once

#include "policy.h"
#include "policy_doc.h"

struct build_origin {			/* where compiled rule i comes from */
	const struct doc_rule *doc;
	int32_t group;			/* per: group, the one it was split for; else -1 */
};

struct policy_build {
	struct policy_doc *d;
	uint32_t nrules, ncontracts;
	struct policy_rule rule[POLICY_RULES];
	struct build_origin origin[POLICY_RULES];

	struct policy_range *src_range, *dst_range;
	struct policy_src *src;
	struct policy_dst *dst;
	uint32_t nsrc_ranges, ndst_ranges, nsrc, ndst;

	struct policy_exit exit[POLICY_EXITS];
	struct policy_span *span;
	struct policy_class *cls;
	struct policy_bits *service;	/* rules whose ports accept; contracts only for sure */
	uint32_t nspans, nservices, nclasses;

	char *str;			/* malloc'd */
	uint32_t str_len, str_cap;
	bool no_memory;			/* sticky, of the string pool */
};

policy_str build_str(struct policy_build *b, const char *text);
uint32_t build_uid(const char *kind, const char *name);	/* of a host or group */

static inline void bits_set(struct policy_bits *b, uint32_t i)
{
	b->w[i / 64] |= 1ULL << (i % 64);
}

static inline void bits_or(struct policy_bits *b, const struct policy_bits *x)
{
	for (unsigned i = 0; i < POLICY_WORDS; i++)
		b->w[i] |= x->w[i];
}

static inline unsigned bits_count(const struct policy_bits *b)
{
	unsigned n = 0;

	for (unsigned i = 0; i < POLICY_WORDS; i++)
		n += (unsigned)__builtin_popcountll(b->w[i]);
	return n;
}

/* 0 or -ENOMEM; what is wrong with the policy becomes a diag. */
int build_rules(struct policy_build *b) MUST_CHECK;	/* policy_rules.c */
int build_labels(struct policy_build *b) MUST_CHECK;	/* policy_label.c: sources, destinations, exits */
int build_classes(struct policy_build *b) MUST_CHECK;	/* policy_class.c */
int build_check(struct policy_build *b) MUST_CHECK;	/* policy_limit.c: not more judges of a pair than it can hold */
