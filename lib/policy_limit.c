/* policy_limit.c - no pair may have more judges than its record holds accounts (PAIR_POLICY). */
#include <errno.h>
#include <string.h>

#include "policy_build.h"

struct some {			/* distinct sets of rules, and an address that has each */
	struct policy_bits *bits;
	struct addr *addr;
	uint32_t n;
};

static void some_add(struct some *s, const struct policy_bits *bits, const struct addr *a)
{
	if (bits_count(bits) <= PAIR_POLICY)
		return;
	for (uint32_t i = 0; i < s->n; i++) {
		if (memcmp(&s->bits[i], bits, sizeof(*bits)))
			continue;
		if (!addr_is_v4(&s->addr[i]) && addr_is_v4(a))	/* the example that most readers know */
			s->addr[i] = *a;
		return;
	}
	s->bits[s->n] = *bits;
	s->addr[s->n++] = *a;
}

static int some_new(struct policy_build *b, struct some *s, size_t max)
{
	s->bits = arena_array(b->d->mem, max, sizeof(*s->bits));
	s->addr = arena_array(b->d->mem, max, sizeof(*s->addr));
	return s->bits && s->addr ? 0 : -ENOMEM;
}

/* Can a packet whose port and opener are known be of this class? */
static bool is_known(const struct policy_build *b, uint32_t c)
{
	uint32_t exits = b->d->nexits + 1, service = c / exits / 3;

	if (c / exits % 3 == OPENER_UNKNOWN)
		return false;
	for (uint32_t i = 0; i < b->nspans; i++)
		if (b->span[i].service == service &&
		    (b->span[i].proto < POLICY_SPAN_UNKNOWN || b->span[i].proto == POLICY_SPAN_REST))
			return true;
	return false;
}

static void too_many(struct policy_build *b, const struct policy_bits *m, const struct addr *src, const struct addr *dst,
		     bool known)
{
	char from[ADDR_STRLEN], to[ADDR_STRLEN];
	uint32_t seen = 0, at = 0;

	for (uint32_t i = 0; i < b->nrules && seen <= PAIR_POLICY; i++) {
		if (policy_bit(m, i)) {
			at = i;
			seen++;
		}
	}
	pair_in_format(src->b, from);
	DOC_ERROR(b->d, &b->origin[at].doc->at, known ? "narrow from, to or ports" : "narrow from or to",
		  "'%.63s': %u rules and contracts would judge one pair (such as %s to %s)%s; at most %u can",
		  b->origin[at].doc->name, bits_count(m), from, addr_format(dst, to),
		  known ? "" : ", as to packets whose port is unknown", PAIR_POLICY);
}

/* All rules that from and to let through, in the class that lets most through; false after an error. */
static bool pair_fits(struct policy_build *b, const struct policy_bits *from, const struct policy_bits *to,
		      const struct addr *src, const struct addr *dst)
{
	struct policy_bits m, worst = { { 0 } };
	bool known = false;

	for (unsigned i = 0; i < POLICY_WORDS; i++)
		m.w[i] = from->w[i] & to->w[i];
	if (bits_count(&m) <= PAIR_POLICY)
		return true;
	for (uint32_t c = 0; c < b->nclasses && !known; c += b->d->nexits + 1) {
		struct policy_bits x;

		for (unsigned i = 0; i < POLICY_WORDS; i++)
			x.w[i] = m.w[i] & b->cls[c].match.w[i];
		if (bits_count(&x) <= PAIR_POLICY)
			continue;
		worst = x;
		known = is_known(b, c);
	}
	if (bits_count(&worst) <= PAIR_POLICY)
		return true;
	too_many(b, &worst, src, dst, known);
	return false;
}

/* A range of destinations: by its addresses, and by each exit's device. */
static void add_range(const struct policy_build *b, struct some *dst, uint32_t i)
{
	const struct policy_bits *to = &b->dst[b->dst_range[i].label].to;

	some_add(dst, to, &b->dst_range[i].start);
	for (uint32_t x = 0; x < b->d->nexits; x++) {
		struct policy_bits both = b->exit[x].to;

		bits_or(&both, to);
		some_add(dst, &both, &b->dst_range[i].start);
	}
}

int build_check(struct policy_build *b)
{
	struct some src = { 0 }, dst = { 0 };
	int r;

	if (b->nrules <= PAIR_POLICY)
		return 0;
	r = some_new(b, &src, b->nsrc_ranges);
	if (r == 0)
		r = some_new(b, &dst, (size_t)b->ndst_ranges * (b->d->nexits + 1));
	if (r < 0)
		return r;
	for (uint32_t i = 0; i < b->nsrc_ranges; i++)
		some_add(&src, &b->src[b->src_range[i].label].from, &b->src_range[i].start);
	for (uint32_t i = 0; src.n && i < b->ndst_ranges; i++)
		if (!(b->dst[b->dst_range[i].label].flags & DST_INSIDE))
			add_range(b, &dst, i);
	for (uint32_t i = 0; src.n && i < b->ndst_ranges; i++)	/* the likelier example first */
		if (b->dst[b->dst_range[i].label].flags & DST_INSIDE)
			add_range(b, &dst, i);
	for (uint32_t i = 0; i < src.n; i++)
		for (uint32_t k = 0; k < dst.n; k++)
			if (!pair_fits(b, &src.bits[i], &dst.bits[k], &src.addr[i], &dst.addr[k]))
				return 0;	/* one example is enough: the next would be like it */
	return 0;
}
