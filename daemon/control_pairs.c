/* control_pairs.c - pairs of a host in an answer, and who sends to an address. Reads only. */
#include <inttypes.h>
#include <jansson.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "control_internal.h"

#define SENDERS 5		/* named, of those who send to an address */
#define LOAD(field) atomic_load_explicit(&(field), memory_order_relaxed)	/* shown as it stands */

struct control_chosen *control_choose(struct control_choice *c, uint32_t slot, double rank)
{
	size_t at = c->n;

	c->all++;
	if (at == CONTROL_SHOWN) {
		if (c->v[at - 1].rank >= rank)
			return NULL;
		at--;
	} else {
		c->n++;
	}
	for (; at > 0 && c->v[at - 1].rank < rank; at--)
		c->v[at] = c->v[at - 1];
	c->v[at] = (struct control_chosen){ .slot = slot, .rank = rank };
	return &c->v[at];
}

static json_t *pair_object(const struct control_call *q, const struct control_chosen *v)
{
	const struct area *a = q->ctx->area;
	const struct policy *p = q->ctx->policy;
	const struct pair *x = &a->pair[v->slot];
	const struct pair_cold *c = &a->pair_cold[v->slot];
	char in[ADDR_STRLEN], out[PREFIX_STRLEN];
	struct addr last = c->last_out;
	json_t *o = json_object();

	control_set_text(o, "src", pair_in_format(x->key.in, in));
	control_set_text(o, "dest", pair_out_format(x->key.out, x->key.out_family, out));
	if (x->key.out_family == 6)
		control_set_text(o, "last_dest", addr_format(&last, in));
	control_set(o, "overflow", json_boolean(x->key.class_uid == PAIR_CLASS_OVERFLOW));
	control_set_number(o, "class", x->key.class_uid);
	control_set_number(o, "bytes", v->sums.bytes);
	control_set_number(o, "packets", v->sums.packets);
	control_set_number(o, "leased_bytes", v->sums.leased);	/* of bytes: passed on leases */
	control_set_number(o, "refused_bytes", v->sums.refused);
	control_set_number(o, "refused_packets", LOAD(c->refused_packets));
	control_set_number(o, "unseen_bytes", v->sums.unseen);
	control_set_number(o, "proto", LOAD(c->proto));
	control_set_number(o, "port", LOAD(c->port));
	control_set_text(o, "opened_by", opener_name(LOAD(c->opened_by)));
	control_set(o, "exit", p && c->exit && c->exit <= p->h->nexits ?
				       control_json_text(policy_string(p, p->exit[c->exit - 1].name)) : json_null());
	control_set(o, "first_seen", control_json_time(q, c->first_ns));
	return o;
}

static struct control_sums sums_of(const struct area *a, uint32_t slot)
{
	const struct pair_cold *c = &a->pair_cold[slot];
	const uint64_t leased = LOAD(c->leased_bytes);	/* first: never more than all of them */

	return (struct control_sums){ .bytes = pair_bytes(&a->pair[slot], c), .packets = pair_packets(&a->pair[slot], c),
				      .refused = pair_refused(c), .unseen = LOAD(c->unseen), .leased = leased };
}

static bool pair_is(const struct control_call *q, const struct control_name *in, const struct control_name *out,
		    uint32_t slot)
{
	const struct area *a = q->ctx->area;
	const struct pair_key *k = &a->pair[slot].key;

	if (!table_is_full(&a->pairs, slot) || (in && !control_in_is(q->ctx->policy, in, k->in)))
		return false;
	return control_out_is(out, k->out, k->out_family, a->pair_cold[slot].exit);
}

size_t control_pairs(const struct control_call *q, const struct control_name *in, const struct control_name *out,
		     struct policy_bits *exits, struct control_sums *ret, json_t *reply)
{
	const struct area *a = q->ctx->area;
	const struct policy *p = q->ctx->policy;
	struct control_choice c = { .n = 0 };
	struct control_sums t = { 0 };
	json_t *list = json_array();

	for (uint32_t i = 0; i < a->h->pairs; i++) {
		uint8_t x = a->pair_cold[i].exit;
		struct control_chosen *v;
		struct control_sums s;

		if (!pair_is(q, in, out, i))
			continue;
		s = sums_of(a, i);	/* once: what is shown adds up, whatever passes meanwhile */
		t.bytes += s.bytes;
		t.packets += s.packets;
		t.refused += s.refused;
		t.unseen += s.unseen;
		for (unsigned w = 0; p && x && x <= p->h->nexits && w < POLICY_WORDS; w++)
			exits->w[w] |= p->exit[x - 1].to.w[w];
		v = control_choose(&c, i, (double)s.bytes + (double)s.refused / 2);
		if (v)
			v->sums = s;
	}
	for (size_t i = 0; i < c.n; i++)
		(void)json_array_append_new(list, pair_object(q, &c.v[i]));
	control_set(reply, "pairs", list);
	*ret = t;
	return c.all;
}

uint64_t control_unlisted(const struct area *a)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < a->h->pairs; i++)
		if (table_is_full(&a->pairs, i) && memcmp(a->pair[i].key.in, pair_unlisted.b, 16) == 0)
			sum += pair_bytes(&a->pair[i], &a->pair_cold[i]);
	return sum;
}

/* ---- who sends there ---- */

static const char *sender(const struct control_call *q, uint32_t slot, char buf[ADDR_STRLEN])
{
	const struct policy *p = q->ctx->policy;
	const uint8_t *in = q->ctx->area->pair[slot].key.in;
	int host = p ? policy_host_of_in(p, in) : -1;

	return host >= 0 ? policy_string(p, p->host[host].name) : pair_in_format(in, buf);
}

unsigned control_senders(const struct control_call *q, const struct control_name *out, char *buf, size_t size)
{
	const struct area *a = q->ctx->area;
	struct control_choice c = { .n = 0 };
	char name[ADDR_STRLEN], other[ADDR_STRLEN];
	unsigned n = 0;
	size_t at = 0;

	for (uint32_t i = 0; i < a->h->pairs; i++)
		if (pair_is(q, NULL, out, i))
			(void)control_choose(&c, i, (double)pair_bytes(&a->pair[i], &a->pair_cold[i]));
	buf[0] = '\0';
	for (size_t i = 0; i < c.n && n < SENDERS; i++) {
		size_t k = 0;

		snprintf(name, sizeof(name), "%s", sender(q, c.v[i].slot, other));
		while (k < i && strcmp(sender(q, c.v[k].slot, other), name) != 0)
			k++;
		if (k < i)
			continue;	/* another class of the same, or another of its addresses */
		at += (size_t)snprintf(buf + at, size - at, "%s%s", n ? ", " : "", name);
		if (at >= size)
			break;
		n++;
	}
	return n;
}
