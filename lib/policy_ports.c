#include "policy_ports.h"

#include <ctype.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PORT_MAX 65535

static const struct proto_name {
	const char *name;
	uint16_t proto[2];	/* second 0: only one */
	bool ports;
} protos[] = {
	{ "tcp", { IPPROTO_TCP, 0 }, true },
	{ "udp", { IPPROTO_UDP, 0 }, true },
	{ "icmp", { IPPROTO_ICMP, IPPROTO_ICMPV6 }, false },
	{ "sctp", { IPPROTO_SCTP, 0 }, false },
	{ "gre", { IPPROTO_GRE, 0 }, false },
	{ "esp", { IPPROTO_ESP, 0 }, false },
	{ "ipip", { IPPROTO_IPIP, 0 }, false },
	{ "ipv6", { IPPROTO_IPV6, 0 }, false },
};

static int port_number(const char **text, uint16_t *ret)
{
	const char *s = *text;
	uint32_t v = 0;

	if (!isdigit((unsigned char)*s))
		return -EINVAL;
	for (; isdigit((unsigned char)*s); s++) {
		v = v * 10 + (uint32_t)(*s - '0');
		if (v > PORT_MAX)
			return -EINVAL;
	}
	*ret = (uint16_t)v;
	*text = s;
	return 0;
}

static int range_parse(const char *text, struct port_range *ret)
{
	uint16_t lo, hi;

	if (port_number(&text, &lo) < 0)
		return -EINVAL;
	hi = lo;
	if (*text == '-') {
		text++;
		if (port_number(&text, &hi) < 0)
			return -EINVAL;
	}
	if (*text || hi < lo || !lo)
		return -EINVAL;
	ret->lo = lo;
	ret->hi = hi;
	return 0;
}

int ports_parse(const char *text, struct port_range ret[2])
{
	const char *slash = strchr(text, '/');
	size_t len = slash ? (size_t)(slash - text) : strlen(text);

	for (size_t i = 0; i < ARRAY_SIZE(protos); i++) {
		const struct proto_name *p = &protos[i];

		if (strlen(p->name) != len || memcmp(p->name, text, len))
			continue;
		ret[0] = (struct port_range){ .proto = p->proto[0], .lo = 0, .hi = PORT_MAX };
		ret[1] = (struct port_range){ .proto = p->proto[1], .lo = 0, .hi = PORT_MAX };
		if (slash && (!p->ports || range_parse(slash + 1, &ret[0]) < 0))
			return -EINVAL;
		return p->proto[1] ? 2 : 1;
	}
	return -EINVAL;
}

static int range_cmp(const void *x, const void *y)
{
	const struct port_range *a = x, *b = y;

	if (a->proto != b->proto)
		return a->proto < b->proto ? -1 : 1;
	if (a->lo != b->lo)
		return a->lo < b->lo ? -1 : 1;
	return 0;
}

void ports_normalize(struct policy_ports *p)
{
	uint32_t out = 0;

	if (!p->count)
		return;
	qsort(p->range, p->count, sizeof(*p->range), range_cmp);
	for (uint32_t i = 1; i < p->count; i++) {
		struct port_range *last = &p->range[out], *r = &p->range[i];

		if (r->proto == last->proto && r->lo <= (uint32_t)last->hi + 1)
			last->hi = MAX_OF(last->hi, r->hi);
		else
			p->range[++out] = *r;
	}
	p->count = out + 1;
}

char *ports_canonical(const struct policy_ports *p, struct arena *mem)
{
	size_t size = (size_t)p->count * 20 + 1, at = 0;
	char *text = arena_alloc(mem, size);

	if (!text)
		return NULL;
	for (uint32_t i = 0; i < p->count; i++) {
		const struct port_range *r = &p->range[i];

		at += (size_t)snprintf(text + at, size - at, "%s%u/%u-%u", i ? "," : "", r->proto, r->lo, r->hi);
	}
	return text;
}

bool ports_accept(const struct policy_ports *p, uint16_t proto, uint16_t port)
{
	uint32_t low = 0, high = p->count, want = (uint32_t)proto << 16 | port;

	if (!p->count)
		return true;
	while (low < high) {	/* the first range that ends at or behind the port */
		uint32_t mid = low + (high - low) / 2;
		const struct port_range *r = &p->range[mid];

		if (((uint32_t)r->proto << 16 | r->hi) < want)
			low = mid + 1;
		else
			high = mid;
	}
	return low < p->count && p->range[low].proto == proto && p->range[low].lo <= port;
}

bool ports_accept_some(const struct policy_ports *p, uint16_t proto)
{
	if (!p->count)
		return true;
	for (uint32_t i = 0; i < p->count; i++)
		if (p->range[i].proto == proto)
			return true;
	return false;
}

bool ports_accept_all(const struct policy_ports *p, uint16_t proto)
{
	if (!p->count)
		return true;
	for (uint32_t i = 0; i < p->count; i++)
		if (p->range[i].proto == proto && p->range[i].lo == 0 && p->range[i].hi == PORT_MAX)
			return true;
	return false;
}
