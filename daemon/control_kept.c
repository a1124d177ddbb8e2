/* control_kept.c - blocks that the kernel keeps from before and no account has, in an answer. Reads only. */
#include <jansson.h>
#include <stdatomic.h>

#include "control_internal.h"

#define LOAD(field) atomic_load_explicit(&(field), memory_order_relaxed)	/* shown as it stands */

static bool concerns(const struct area_kept *k, const struct control_name *in, const struct control_name *out)
{
	bool src = !in, dst = !out || control_everywhere(out) || k->dst.len == 0;

	for (uint32_t i = 0; in && i < in->n; i++)
		src |= prefix_contains(&in->prefix[i], &k->src);
	for (uint32_t i = 0; out && i < out->n; i++)
		dst |= prefix_contains(&out->prefix[i], &k->dst.addr) || prefix_contains(&k->dst, &out->prefix[i].addr);
	return src && dst;
}

static json_t *kept_object(const struct control_call *q, const struct area_kept *k)
{
	char src[ADDR_STRLEN], dst[PREFIX_STRLEN];
	json_t *o = json_object();

	control_set_text(o, "src", addr_format(&k->src, src));
	if (k->dst.len == 128)
		control_set_text(o, "dest", addr_format(&k->dst.addr, dst));
	else
		control_set_text(o, "dest", k->dst.len ? prefix_format(&k->dst, dst) : "*");
	control_set_number(o, "refused_bytes", k->refused);
	control_set(o, "blocked_until", control_json_time(q, k->until_ns));
	control_set(o, "left_s", !k->until_ns ? json_null() :
		    json_integer(k->until_ns > q->now.ns ? (json_int_t)((k->until_ns - q->now.ns) / NS_PER_S) : 0));
	return o;
}

uint64_t control_kept(const struct control_call *q, const struct control_name *in, const struct control_name *out, json_t *reply)
{
	const struct area_header *h = q->ctx->area->h;
	const uint32_t all = LOAD(h->kept_blocks);
	json_t *list = json_array();
	uint64_t refused = 0;

	for (uint32_t i = 0; i < MIN_OF(all, (uint32_t)AREA_KEPT); i++) {
		const struct area_kept k = h->kept[i];

		if (!concerns(&k, in, out))
			continue;
		refused += k.refused;
		(void)json_array_append_new(list, kept_object(q, &k));
	}
	control_set(reply, "kept", list);
	control_set_number(reply, "kept_total", all);
	return refused;
}
