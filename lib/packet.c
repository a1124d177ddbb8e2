/* packet.c - see packet.h for the contract. */
#include "packet.h"

#include <netinet/in.h>
#include <stdbool.h>
#include <string.h>

#define IP4_HEADER 20
#define IP6_HEADER 40

struct reach {			/* how far a header may be read */
	const uint8_t *data;
	size_t limit;		/* bytes that are both captured and inside the packet */
	size_t at;
	bool cut;		/* the packet goes on where limit ends */
};

static inline uint16_t be16(const uint8_t *b)
{
	return (uint16_t)(b[0] << 8 | b[1]);
}

/* n bytes at the current place, or NULL and the note that says who ends too early: the capture or the packet. */
static const uint8_t *reach_bytes(const struct reach *r, size_t n, uint8_t *notes)
{
	if (r->at <= r->limit && n <= r->limit - r->at)
		return r->data + r->at;
	*notes |= r->cut ? PACKET_CUT : PACKET_BAD_LEN;
	return NULL;
}

/* [K3]; `said` is what the header's length field claims, `known` whether it can be true. */
static void packet_length(struct packet *p, struct reach *r, size_t caplen, uint32_t true_len, uint32_t said,
			  bool known)
{
	if (true_len)
		p->len = true_len;
	else
		p->len = known ? said : (uint32_t)MIN_OF(caplen, UINT32_MAX);
	/* What stands behind the packet's own end is padding. */
	r->limit = MIN_OF(caplen, (size_t)(known ? MIN_OF(said, p->len) : p->len));
	r->cut = r->limit == caplen && p->len > caplen;
}

static bool has_ports(uint8_t proto)
{
	switch (proto) {
	case IPPROTO_TCP:
	case IPPROTO_UDP:
	case IPPROTO_DCCP:
	case IPPROTO_SCTP:
	case IPPROTO_UDPLITE:
		return true;
	default:
		return false;
	}
}

static void parse_ports(struct packet *p, const struct reach *r)
{
	const uint8_t *b = has_ports(p->proto) ? reach_bytes(r, 4, &p->notes) : NULL;

	if (!b) {
		p->notes |= PACKET_NO_PORTS;
		return;
	}
	p->sport = be16(b);
	p->dport = be16(b + 2);
	if (p->proto == IPPROTO_TCP && r->limit - r->at >= 14)
		p->tcp_flags = b[13];
}

static enum packet_reason parse_v4(const uint8_t *data, size_t caplen, uint32_t true_len, struct packet *p)
{
	struct reach r = { .data = data };
	uint32_t said, header, fragment;

	if (caplen < IP4_HEADER)
		return PACKET_SHORT;
	*p = (struct packet){ .len = 0 };
	header = (data[0] & 15u) * 4;
	said = be16(data + 2);
	fragment = be16(data + 6) & 0x3fffu;	/* more-fragments and offset */
	p->src = addr_from_v4(data + 12);
	p->dst = addr_from_v4(data + 16);
	p->proto = data[9];
	packet_length(p, &r, caplen, true_len, said, said >= IP4_HEADER);
	/* Total length 0 beside a known length is a super-packet (BIG TCP), not an error. */
	if (header < IP4_HEADER || (said ? said < header || said > p->len : !true_len))
		p->notes |= PACKET_BAD_LEN;
	if (fragment)
		p->notes |= PACKET_FRAGMENT;
	if (header < IP4_HEADER || fragment & 0x1fff) {
		p->notes |= PACKET_NO_PORTS;
		return PACKET_OK;
	}
	r.at = header;
	parse_ports(p, &r);
	return PACKET_OK;
}

/* Headers that something may follow and that Linux walks too. Mobility (135), HIP (139), Shim6 (140), ESP and "no next
 * header" end the walk: ports behind them would be ports that no receiver reads, and contracts trust ports. */
static bool is_extension(uint8_t proto)
{
	switch (proto) {
	case IPPROTO_HOPOPTS:
	case IPPROTO_ROUTING:
	case IPPROTO_FRAGMENT:
	case IPPROTO_AH:
	case IPPROTO_DSTOPTS:
		return true;
	default:
		return false;
	}
}

/* One step of the walk; false: it ends here without ports. */
static bool walk_extension(struct packet *p, struct reach *r)
{
	const uint8_t *b = reach_bytes(r, 8, &p->notes);
	uint8_t kind = p->proto;

	if (!b)
		return false;
	p->proto = b[0];
	if (kind == IPPROTO_FRAGMENT) {
		r->at += 8;
		p->notes |= PACKET_FRAGMENT;
		return !(be16(b + 2) & 0xfff8);
	}
	/* AH counts 4-byte words less two (RFC 4302), the others 8-byte words less one. */
	r->at += kind == IPPROTO_AH ? (b[1] + 2u) * 4 : (b[1] + 1u) * 8;
	return true;
}

/* [K2] */
static struct addr v6_address(const uint8_t *b)
{
	struct addr a = addr_from_v6(b);

	if (unlikely(addr_is_v4(&a))) {		/* ::ffff:a.b.c.d becomes ::ffff:0:a.b.c.d */
		memset(a.b + 8, 0xff, 2);
		memset(a.b + 10, 0, 2);
	}
	return a;
}

static enum packet_reason parse_v6(const uint8_t *data, size_t caplen, uint32_t true_len, struct packet *p)
{
	struct reach r = { .data = data, .at = IP6_HEADER };
	uint32_t payload;
	bool known;

	if (caplen < IP6_HEADER)
		return PACKET_SHORT;
	*p = (struct packet){ .len = 0 };
	payload = be16(data + 4);
	p->src = v6_address(data + 8);
	p->dst = v6_address(data + 24);
	p->proto = data[6];
	/* Payload length 0 with a payload: jumbogram or super-packet, whose length the caller knows. */
	known = payload || p->proto == IPPROTO_NONE;
	packet_length(p, &r, caplen, true_len, IP6_HEADER + payload, known);
	if (known ? IP6_HEADER + payload > p->len : !true_len)
		p->notes |= PACKET_BAD_LEN;
	for (unsigned n = 0; is_extension(p->proto); n++) {
		if (n == PACKET_EXT_MAX)
			p->notes |= PACKET_EXT_DEEP;
		if (n == PACKET_EXT_MAX || !walk_extension(p, &r)) {
			p->notes |= PACKET_NO_PORTS;
			return PACKET_OK;
		}
	}
	parse_ports(p, &r);
	return PACKET_OK;
}

/* Written where it is wanted: a copy of what was just stored in pieces waits for the stores (5 ns). */
enum packet_reason packet_parse(const void *data, size_t caplen, uint32_t true_len, struct packet *ret)
{
	const uint8_t *b = data;

	if (!caplen)
		return PACKET_EMPTY;
	switch (b[0] >> 4) {
	case 4:
		return parse_v4(b, caplen, true_len, ret);
	case 6:
		return parse_v6(b, caplen, true_len, ret);
	default:
		return PACKET_VERSION;
	}
}

const char *packet_reason_name(enum packet_reason reason)
{
	switch (reason) {
	case PACKET_OK:
		return "ok";
	case PACKET_EMPTY:
		return "empty";
	case PACKET_VERSION:
		return "not-ip-version";
	case PACKET_SHORT:
		return "too-short";
	case PACKET_REASONS:
		break;
	}
	return "unknown";
}
