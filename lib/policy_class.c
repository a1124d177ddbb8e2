/* policy_class.c - ports and openers: spans of ports that the same rules accept, and the classes of pairs they make. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hash.h"
#include "policy_build.h"

#define PROTOS	 256
#define NO_CLASS UINT32_MAX

static const struct policy_ports *ports_of(const struct policy_build *b, uint32_t i)
{
	return &b->origin[i].doc->ports;
}

/* ---- services ---- */

static uint32_t service_number(struct policy_build *b, const struct policy_bits *bits)
{
	for (uint32_t i = 0; i < b->nservices; i++)
		if (!memcmp(&b->service[i], bits, sizeof(*bits)))
			return i;
	if (b->nservices == POLICY_SERVICES)
		return NO_CLASS;
	b->service[b->nservices] = *bits;
	return b->nservices++;
}

/* Adds a span unless it goes on what the one before says. */
static bool span_add(struct policy_build *b, uint16_t proto, uint16_t lo, const struct policy_bits *bits)
{
	uint32_t service = service_number(b, bits);
	const struct policy_span *last = b->nspans ? &b->span[b->nspans - 1] : NULL;

	if (service == NO_CLASS)
		return false;
	if (!last || last->proto != proto || last->service != service)
		b->span[b->nspans++] = (struct policy_span){ .proto = proto, .lo = lo, .service = service };
	return true;
}

static bool span_known(struct policy_build *b, uint16_t proto, uint16_t port)
{
	struct policy_bits bits = { { 0 } };

	for (uint32_t i = 0; i < b->nrules; i++)
		if (ports_accept(ports_of(b, i), proto, port))
			bits_set(&bits, i);
	return span_add(b, proto, port, &bits);
}

/* Not knowing the port is no way around a rule, and no way into a contract. */
static bool span_unknown(struct policy_build *b, uint16_t proto)
{
	struct policy_bits bits = { { 0 } };

	for (uint32_t i = 0; i < b->nrules; i++)
		if (i < b->ncontracts ? ports_accept_all(ports_of(b, i), proto) : ports_accept_some(ports_of(b, i), proto))
			bits_set(&bits, i);
	return span_add(b, POLICY_SPAN_UNKNOWN | proto, 0, &bits);
}

/* Nor is hiding the protocol. */
static bool span_hidden(struct policy_build *b)
{
	struct policy_bits bits = { { 0 } };

	for (uint32_t i = 0; i < b->nrules; i++)
		if (i >= b->ncontracts || !ports_of(b, i)->count)
			bits_set(&bits, i);
	return span_add(b, POLICY_SPAN_HIDDEN, 0, &bits);
}

static bool span_rest(struct policy_build *b)
{
	struct policy_bits bits = { { 0 } };

	for (uint32_t i = 0; i < b->nrules; i++)
		if (!ports_of(b, i)->count)
			bits_set(&bits, i);
	return span_add(b, POLICY_SPAN_REST, 0, &bits);
}

static int port_cmp(const void *x, const void *y)
{
	uint32_t a = *(const uint32_t *)x, b = *(const uint32_t *)y;

	return a < b ? -1 : a > b;
}

/* Where what is accepted can change: proto << 16 | port. Sorted, may repeat. */
static int boundaries(struct policy_build *b, uint32_t **ret, size_t *ret_n)
{
	size_t n = 0, max = 0;
	uint32_t *v;

	for (uint32_t i = 0; i < b->nrules; i++)
		max += (size_t)ports_of(b, i)->count * 3;
	v = arena_array(b->d->mem, max, sizeof(*v));
	if (!v)
		return -ENOMEM;
	for (uint32_t i = 0; i < b->nrules; i++) {
		const struct policy_ports *p = ports_of(b, i);

		for (uint32_t k = 0; k < p->count; k++) {
			uint32_t proto = (uint32_t)p->range[k].proto << 16;

			v[n++] = proto;
			v[n++] = proto | p->range[k].lo;
			if (p->range[k].hi < UINT16_MAX)
				v[n++] = proto | (p->range[k].hi + 1U);
		}
	}
	if (n)
		qsort(v, n, sizeof(*v), port_cmp);
	*ret = v;
	*ret_n = n;
	return 0;
}

static int build_spans(struct policy_build *b)
{
	uint32_t *v;
	size_t n;
	bool fits = true;
	int r = boundaries(b, &v, &n);

	if (r < 0)
		return r;
	b->span = arena_array(b->d->mem, n + PROTOS + 2, sizeof(*b->span));
	b->service = arena_array(b->d->mem, POLICY_SERVICES, sizeof(*b->service));
	if (!b->span || !b->service)
		return -ENOMEM;
	for (size_t i = 0; i < n && fits; i++)
		if (!i || v[i] != v[i - 1])
			fits = span_known(b, (uint16_t)(v[i] >> 16), (uint16_t)v[i]);
	for (size_t i = 0; i < n && fits; i++)
		if (!i || v[i] >> 16 != v[i - 1] >> 16)
			fits = span_unknown(b, (uint16_t)(v[i] >> 16));
	if (!fits || !span_hidden(b) || !span_rest(b))
		DOC_ERROR(b->d, &b->origin[0].doc->at, "write fewer, wider port ranges",
			  "ports: the rules cut the ports into more than %u kinds", POLICY_SERVICES);
	return 0;
}

/* ---- classes ---- */

struct constraint {		/* what a rule asks of ports and opener */
	uint32_t rule, uid;	/* uid of the words; 0: asks nothing */
};

struct namer {
	struct constraint c[POLICY_RULES];	/* sorted by uid */
	uint32_t *taken;	/* hash set of uids */
	uint32_t mask;
	struct policy_bits *set;	/* distinct matches */
	uint32_t *uid;		/* by set and exit */
	uint32_t nsets;
};

static int constraint_cmp(const void *x, const void *y)
{
	const struct constraint *a = x, *b = y;

	return a->uid < b->uid ? -1 : a->uid > b->uid;
}

static int name_constraints(struct policy_build *b, struct namer *n)
{
	for (uint32_t i = 0; i < b->nrules; i++) {
		const struct doc_rule *r = b->origin[i].doc;
		size_t size = strlen(r->ports_canonical) + 16;
		char *text;
		int len;

		n->c[i].rule = i;
		if (!r->ports.count && r->opened_by == OPENER_UNKNOWN)
			continue;
		text = arena_alloc(b->d->mem, size);
		if (!text)
			return -ENOMEM;
		len = snprintf(text, size, "%u %u %s", r->kind, r->opened_by, r->ports_canonical);
		n->c[i].uid = hash_uid(text, (size_t)len);
	}
	qsort(n->c, b->nrules, sizeof(n->c[0]), constraint_cmp);
	return 0;
}

/* A number for the words; when chance gave it to other words in this policy, the next. */
static uint32_t take_uid(struct namer *n, char *text, size_t len)
{
	for (;;) {
		uint32_t uid = hash_uid(text, len), i = uid & n->mask;

		while (n->taken[i] && n->taken[i] != uid)
			i = (i + 1) & n->mask;
		if (!n->taken[i] && uid != PAIR_CLASS_OVERFLOW) {
			n->taken[i] = uid;
			return uid;
		}
		text[0]++;
	}
}

/* The accepted constraints' numbers, once each, and the exit's name. */
static uint32_t class_uid(struct policy_build *b, struct namer *n, const struct policy_bits *match, uint32_t exit)
{
	char text[1 + POLICY_RULES * 4 + 80];
	uint32_t last = 0;
	size_t len = 1;

	text[0] = 0;
	for (uint32_t i = 0; i < b->nrules; i++) {
		const struct constraint *c = &n->c[i];

		if (!c->uid || c->uid == last || !policy_bit(match, c->rule))
			continue;
		memcpy(text + len, &c->uid, 4);
		len += 4;
		last = c->uid;
	}
	if (exit)
		len += (size_t)snprintf(text + len, 80, "exit %.64s", b->d->exit[exit - 1].name);
	return len == 1 ? 0 : take_uid(n, text, len);
}

static uint32_t set_number(struct policy_build *b, struct namer *n, const struct policy_bits *match)
{
	uint32_t exits = b->d->nexits + 1, i;

	for (i = 0; i < n->nsets; i++)
		if (!memcmp(&n->set[i], match, sizeof(*match)))
			return i;
	n->set[i] = *match;
	for (uint32_t x = 0; x < exits; x++)
		n->uid[i * exits + x] = class_uid(b, n, match, x);
	n->nsets++;
	return i;
}

static void match_of(const struct policy_build *b, uint32_t service, unsigned opener, struct policy_bits *ret)
{
	*ret = (struct policy_bits){ { 0 } };
	for (uint32_t i = 0; i < b->nrules; i++) {
		unsigned want = b->origin[i].doc->opened_by;

		if (!policy_bit(&b->service[service], i))
			continue;
		if (want == OPENER_UNKNOWN || want == opener || (opener == OPENER_UNKNOWN && i >= b->ncontracts))
			bits_set(ret, i);
	}
}

static int name_classes(struct policy_build *b, struct namer *n)
{
	uint32_t exits = b->d->nexits + 1, sets = b->nservices * 3, buckets = 64;
	int r = name_constraints(b, n);

	if (r < 0)
		return r;
	b->nclasses = sets * exits;
	while (buckets < b->nclasses * 2)
		buckets *= 2;
	n->mask = buckets - 1;
	n->taken = arena_array(b->d->mem, buckets, sizeof(*n->taken));
	n->set = arena_array(b->d->mem, sets, sizeof(*n->set));
	n->uid = arena_array(b->d->mem, b->nclasses, sizeof(*n->uid));
	b->cls = arena_array(b->d->mem, b->nclasses, sizeof(*b->cls));
	if (!n->taken || !n->set || !n->uid || !b->cls)
		return -ENOMEM;
	for (uint32_t i = 0; i < sets; i++) {
		struct policy_bits match;
		uint32_t set;

		match_of(b, i / 3, i % 3, &match);
		set = set_number(b, n, &match);
		for (uint32_t x = 0; x < exits; x++)
			b->cls[i * exits + x] = (struct policy_class){ .uid = n->uid[set * exits + x], .match = match };
	}
	return 0;
}

int build_classes(struct policy_build *b)
{
	struct namer *n = arena_alloc(b->d->mem, sizeof(*n));
	int r;

	if (!n)
		return -ENOMEM;
	r = build_spans(b);
	if (r < 0 || b->d->diags->count)
		return r;
	return name_classes(b, n);
}
