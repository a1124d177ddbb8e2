/* community_id.c - see community_id.h. */
#include "community_id.h"

#include <netinet/in.h>
#include <sha1.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "compiler.h"

#define TUPLE_MAX (2 + 2 * 16 + 2 + 2 * 2)

struct icmp_pair {		/* a message type and the one that answers it */
	uint8_t ask, answer;
};

static const struct icmp_pair icmp4[] = { { 8, 0 }, { 10, 9 }, { 13, 14 }, { 15, 16 }, { 17, 18 } };
static const struct icmp_pair icmp6[] = { { 128, 129 }, { 130, 131 }, { 133, 134 },
					  { 135, 136 }, { 139, 140 }, { 144, 145 } };

/* The second port of an ICMP flow is the type of the opposite message; false: it has none, and *ret stays the code. */
static bool icmp_answer(const struct icmp_pair *table, size_t n, uint16_t type, uint16_t *ret)
{
	for (size_t i = 0; i < n; i++) {
		if (type == table[i].ask || type == table[i].answer) {
			*ret = type == table[i].ask ? table[i].answer : table[i].ask;
			return true;
		}
	}
	return false;
}

static bool proto_has_ports(uint8_t proto)
{
	switch (proto) {
	case IPPROTO_ICMP:
	case IPPROTO_TCP:
	case IPPROTO_UDP:
	case IPPROTO_ICMPV6:
	case IPPROTO_SCTP:
		return true;
	default:
		return false;
	}
}

static uint8_t *put_addr(uint8_t *to, const struct addr *a)
{
	size_t skip = addr_is_v4(a) ? 12 : 0;

	memcpy(to, a->b + skip, 16 - skip);
	return to + 16 - skip;
}

static uint8_t *put16(uint8_t *to, uint16_t v)
{
	*to++ = (uint8_t)(v >> 8);
	*to++ = (uint8_t)v;
	return to;
}

/* RFC 4648, with padding; ret gets 4 characters for every 3 bytes begun and a NUL. */
static void base64(const uint8_t *in, size_t len, char *ret)
{
	static const char digit[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

	for (size_t i = 0; i < len; i += 3) {
		uint32_t v = (uint32_t)in[i] << 16;

		if (i + 1 < len)
			v |= (uint32_t)in[i + 1] << 8;
		if (i + 2 < len)
			v |= in[i + 2];
		*ret++ = digit[v >> 18];
		*ret++ = digit[v >> 12 & 63];
		*ret++ = i + 1 < len ? digit[v >> 6 & 63] : '=';
		*ret++ = i + 2 < len ? digit[v & 63] : '=';
	}
	*ret = '\0';
}

void community_id(const struct addr *src, const struct addr *dst, uint8_t proto, uint16_t sport, uint16_t dport,
		  uint16_t seed, char ret[COMMUNITY_ID_LEN])
{
	uint8_t tuple[TUPLE_MAX], sum[SHA1_DIGEST_LENGTH], *end;
	int order = addr_cmp(src, dst);
	bool one_way = false;
	SHA1_CTX sha;

	if (proto == IPPROTO_ICMP)
		one_way = !icmp_answer(icmp4, ARRAY_SIZE(icmp4), sport, &dport);
	else if (proto == IPPROTO_ICMPV6)
		one_way = !icmp_answer(icmp6, ARRAY_SIZE(icmp6), sport, &dport);
	/* Both directions of a flow give the same id; a message without an answer keeps its own direction. */
	if (!one_way && (order > 0 || (!order && sport > dport))) {
		const struct addr *a = src;
		uint16_t port = sport;

		src = dst;
		dst = a;
		sport = dport;
		dport = port;
	}
	end = put16(tuple, seed);
	end = put_addr(end, src);
	end = put_addr(end, dst);
	*end++ = proto;
	*end++ = 0;
	if (proto_has_ports(proto)) {
		end = put16(end, sport);
		end = put16(end, dport);
	}
	SHA1Init(&sha);
	SHA1Update(&sha, tuple, (size_t)(end - tuple));
	SHA1Final(sum, &sha);
	ret[0] = '1';
	ret[1] = ':';
	base64(sum, sizeof(sum), ret + 2);
}
