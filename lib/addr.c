/* addr.c - see addr.h. */
#include "addr.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

int addr_parse(const char *text, struct addr *ret)
{
	uint8_t raw[16];

	if (inet_pton(AF_INET, text, raw) == 1) {
		*ret = addr_from_v4(raw);
		return 0;
	}
	if (inet_pton(AF_INET6, text, raw) == 1) {
		*ret = addr_from_v6(raw);
		return 0;
	}
	return -EINVAL;
}

const char *addr_format(const struct addr *a, char buf[ADDR_STRLEN])
{
	if (addr_is_v4(a))
		inet_ntop(AF_INET, a->b + 12, buf, ADDR_STRLEN);
	else
		inet_ntop(AF_INET6, a->b, buf, ADDR_STRLEN);
	return buf;
}

struct addr addr_mask(const struct addr *a, uint8_t len)
{
	struct addr m = { { 0 } };

	memcpy(m.b, a->b, len / 8);
	if (len % 8)
		m.b[len / 8] = a->b[len / 8] & (uint8_t)(0xff << (8 - len % 8));
	return m;
}

/* Decimal 0..max without sign, space or leading zero. */
static int parse_length(const char *text, unsigned max, unsigned *ret)
{
	unsigned long n;
	char *end;

	if (*text < '0' || *text > '9' || (*text == '0' && text[1]))
		return -EINVAL;
	n = strtoul(text, &end, 10);
	if (*end || n > max)
		return -EINVAL;
	*ret = (unsigned)n;
	return 0;
}

int prefix_parse(const char *text, struct prefix *ret)
{
	const char *slash = strchr(text, '/');
	char host[ADDR_STRLEN];
	size_t n = slash ? (size_t)(slash - text) : strlen(text);
	struct addr a;
	unsigned len, base;

	if (n >= sizeof(host))
		return -EINVAL;
	memcpy(host, text, n);
	host[n] = '\0';
	if (addr_parse(host, &a) < 0)
		return -EINVAL;
	base = strchr(host, ':') ? 0 : 96;
	len = 128 - base;
	if (slash && parse_length(slash + 1, 128 - base, &len) < 0)
		return -EINVAL;
	ret->len = (uint8_t)(base + len);
	ret->addr = addr_mask(&a, ret->len);
	return addr_cmp(&ret->addr, &a) == 0 ? 0 : -ERANGE;
}

const char *prefix_format(const struct prefix *p, char buf[PREFIX_STRLEN])
{
	char host[ADDR_STRLEN];
	bool v4 = addr_is_v4(&p->addr) && p->len >= 96;

	addr_format(&p->addr, host);
	snprintf(buf, PREFIX_STRLEN, "%s/%d", host, v4 ? p->len - 96 : p->len);
	return buf;
}

bool prefix_contains(const struct prefix *p, const struct addr *a)
{
	unsigned whole = p->len / 8, rest = p->len % 8;

	if (memcmp(p->addr.b, a->b, whole) != 0)
		return false;
	return rest == 0 || ((p->addr.b[whole] ^ a->b[whole]) >> (8 - rest)) == 0;
}
