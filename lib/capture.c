/* capture.c - see capture.h. */
#include "capture.h"

/* Of the tcpdump.org registry. Raw IP has another number in files than in the interface of some systems. */
enum link_type {
	LINK_NULL = 0,
	LINK_ETHERNET = 1,
	LINK_RAW = 12,
	LINK_RAW_OPENBSD = 14,
	LINK_RAW_FILE = 101,
	LINK_LOOP = 108,
	LINK_SLL = 113,
	LINK_IPV4 = 228,
	LINK_IPV6 = 229,
	LINK_SLL2 = 276,
};

enum ether_type {
	ETHER_LENGTH_MAX = 1500,	/* up to here it is a length, and LLC follows */
	ETHER_IPV4 = 0x0800,
	ETHER_VLAN = 0x8100,
	ETHER_IPV6 = 0x86dd,
	ETHER_MPLS = 0x8847,
	ETHER_MPLS_UPSTREAM = 0x8848,
	ETHER_PPPOE = 0x8864,
	ETHER_SERVICE_VLAN = 0x88a8,
	ETHER_OLD_QINQ = 0x9100,
};

#define ETHERNET_MIN 64		/* with its checksum */

struct frame {
	const uint8_t *data;
	size_t caplen;
	size_t at;
};

static inline uint32_t be16(const uint8_t *b)
{
	return (uint32_t)b[0] << 8 | b[1];
}

static inline uint32_t be32(const uint8_t *b)
{
	return be16(b) << 16 | be16(b + 2);
}

/* The next n bytes, which are stepped over; NULL: not captured. */
static const uint8_t *take(struct frame *f, size_t n)
{
	const uint8_t *b = f->data + f->at;

	if (n > f->caplen - f->at)
		return NULL;
	f->at += n;
	return b;
}

/* Labels have no type: what follows the last one is told by its version, as routers do. */
static enum capture_reason skip_mpls(struct frame *f)
{
	const uint8_t *b;

	do {
		b = take(f, 4);
		if (!b)
			return CAPTURE_LINK_CUT;
	} while (!(b[2] & 1));
	if (f->at == f->caplen)
		return CAPTURE_LINK_CUT;
	return b[4] >> 4 == 4 || b[4] >> 4 == 6 ? CAPTURE_OK : CAPTURE_NOT_IP;
}

static enum capture_reason skip_pppoe(struct frame *f)
{
	const uint8_t *b = take(f, 7);
	uint32_t protocol;

	if (!b)
		return CAPTURE_LINK_CUT;
	protocol = b[6];
	if (!(protocol & 1)) {	/* not the one-byte form */
		if (!take(f, 1))
			return CAPTURE_LINK_CUT;
		protocol = protocol << 8 | b[7];
	}
	return protocol == 0x0021 || protocol == 0x0057 ? CAPTURE_OK : CAPTURE_NOT_IP;
}

/* From the type field on, however many tags. */
static enum capture_reason skip_ether(struct frame *f, uint32_t type)
{
	const uint8_t *b;

	for (;;) {
		switch (type) {
		case ETHER_IPV4:
		case ETHER_IPV6:
			return CAPTURE_OK;
		case ETHER_MPLS:
		case ETHER_MPLS_UPSTREAM:
			return skip_mpls(f);
		case ETHER_PPPOE:
			return skip_pppoe(f);
		case ETHER_VLAN:
		case ETHER_SERVICE_VLAN:
		case ETHER_OLD_QINQ:
			b = take(f, 4);
			if (!b)
				return CAPTURE_LINK_CUT;
			type = be16(b + 2);
			continue;
		default:
			break;
		}
		if (type > ETHER_LENGTH_MAX)
			return CAPTURE_NOT_IP;
		/* LLC: only a SNAP header (RFC 1042, OUI 0) carries a type. */
		b = take(f, 8);
		if (!b)
			return CAPTURE_LINK_CUT;
		if (be32(b) != 0xaaaa0300u || b[4] || b[5])
			return CAPTURE_NOT_IP;
		type = be16(b + 6);
		if (type <= ETHER_LENGTH_MAX)
			return CAPTURE_NOT_IP;
	}
}

/* The address family of a BSD system, in its own byte order (NULL) or the network's (LOOP). */
static enum capture_reason skip_family(struct frame *f)
{
	const uint8_t *b = take(f, 4);
	uint32_t family;

	if (!b)
		return CAPTURE_LINK_CUT;
	family = be32(b);
	if (family & 0xff000000u)	/* the other order: families are small numbers */
		family = __builtin_bswap32(family);
	switch (family) {
	case 2:				/* AF_INET everywhere */
	case 10:			/* AF_INET6 of Linux, NetBSD and OpenBSD, FreeBSD, macOS */
	case 24:
	case 28:
	case 30:
		return CAPTURE_OK;
	default:
		return CAPTURE_NOT_IP;
	}
}

static enum capture_reason skip_link(struct frame *f, int linktype)
{
	const uint8_t *b;

	switch (linktype) {
	case LINK_RAW:
	case LINK_RAW_OPENBSD:
	case LINK_RAW_FILE:
	case LINK_IPV4:
	case LINK_IPV6:
		return CAPTURE_OK;
	case LINK_NULL:
	case LINK_LOOP:
		return skip_family(f);
	case LINK_ETHERNET:
		b = take(f, 14);
		return b ? skip_ether(f, be16(b + 12)) : CAPTURE_LINK_CUT;
	case LINK_SLL:
		b = take(f, 16);
		return b ? skip_ether(f, be16(b + 14)) : CAPTURE_LINK_CUT;
	case LINK_SLL2:
		b = take(f, 20);
		return b ? skip_ether(f, be16(b)) : CAPTURE_LINK_CUT;
	default:
		return CAPTURE_LINK_TYPE;
	}
}

bool capture_link_known(int linktype)
{
	struct frame empty = { .data = (const uint8_t *)"" };

	return skip_link(&empty, linktype) != CAPTURE_LINK_TYPE;
}

/* RFC 2675: the length in the hop-by-hop header that comes first. 0: there is none, or it was not captured. */
static uint32_t jumbo_length(const uint8_t *ip, size_t n)
{
	size_t at = 42, end;

	if (n < 48 || ip[6] != 0)
		return 0;
	end = 40 + (ip[41] + 1u) * 8;
	if (end > n)
		end = n;
	while (at < end) {
		if (ip[at] == 0) {	/* Pad1 */
			at++;
			continue;
		}
		if (at + 2 > end)
			return 0;
		if (ip[at] == 0xc2)
			return ip[at + 1] == 4 && at + 6 <= end ? be32(ip + at + 2) : 0;
		at += 2u + ip[at + 1];
	}
	return 0;
}

/* IPv6 payload length 0: only TCP, UDP and jumbograms are sent so; of others a gateway forwards no byte more than the
 * header says. What fits the shortest frame may be padding. */
static bool super_packet(uint8_t next, size_t frame)
{
	return (next == 6 || next == 17 || next == 0) && frame > ETHERNET_MIN;
}

/* `at` bytes of link header, then n captured ones of `wire`. */
static uint32_t true_length(const uint8_t *ip, size_t n, size_t wire, size_t at)
{
	uint32_t on_wire = (uint32_t)MIN_OF(wire, UINT32_MAX), len;

	if (n >= 4 && ip[0] >> 4 == 4) {
		len = be16(ip + 2);
		return len >= 20 && len >= (ip[0] & 15u) * 4 ? len : on_wire;
	}
	if (n >= 8 && ip[0] >> 4 == 6) {
		len = be16(ip + 4);
		if (len || !super_packet(ip[6], at + wire))
			return 40 + len;
		len = jumbo_length(ip, n);
		/* Up to 65,535 bytes the option is forbidden: such a packet is dropped, and no length to believe. */
		return len > UINT16_MAX && len <= UINT32_MAX - 40 ? 40 + len : on_wire;
	}
	return on_wire;
}

enum capture_reason capture_ip(int linktype, const void *data, size_t caplen, size_t wirelen, struct capture_ip *ret)
{
	struct frame f = { .data = data, .caplen = caplen };
	enum capture_reason reason = skip_link(&f, linktype);

	if (reason != CAPTURE_OK)
		return reason;
	ret->offset = f.at;
	ret->len = true_length(f.data + f.at, caplen - f.at, MAX_OF(wirelen, caplen) - f.at, f.at);
	return CAPTURE_OK;
}

const char *capture_reason_name(enum capture_reason reason)
{
	switch (reason) {
	case CAPTURE_OK:
		return "ok";
	case CAPTURE_LINK_TYPE:
		return "link-type";
	case CAPTURE_LINK_CUT:
		return "link-too-short";
	case CAPTURE_NOT_IP:
		return "not-ip";
	case CAPTURE_REASONS:
		break;
	}
	return "unknown";
}
