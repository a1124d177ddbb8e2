/* packet.h - what one IP packet says about itself.
 *
 * [K1] Bounds     Reads only data[0..caplen). Any bytes at all may be given (fuzzed).
 * [K2] Addresses  If the two addresses can be read, the answer is 0 and the packet is accounted, however broken the
 *                 rest is: malformed packets are never a way around the accounting. `notes` says what was broken.
 *                 An IPv4-mapped address in an IPv6 header is no IPv4 address: it is given as the IPv4-translated one, which
 *                 is nobody's any more (RFC 4291, RFC 6052).
 * [K3] Length     len is true_len when the caller knows it (CAP_LEN or skb length: BIG TCP has total length 0), else
 *                 the header's: IPv4 total length, IPv6 40 + payload length. A byte of egressd is a byte of this.
 *                 A header that cannot be right (total length below 20, payload length 0 with a payload) and no
 *                 true_len: caplen, so that a forged field makes no packet free of charge.
 * [K4] Ports      Only from the first fragment and only when wholly captured; otherwise 0 and PACKET_NO_PORTS.
 * [K5] Work       At most PACKET_EXT_MAX IPv6 extension headers are walked (RFC 8200); beyond that PACKET_EXT_DEEP.
 *                 Hop-by-hop, routing, fragment, destination options and AH are walked, as Linux does; all others end
 *                 the walk and are the protocol. IPv4 has no walk: AH is a protocol there.
 * Not here        checksums, link layers (capture files: pcap reader), reassembly.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "addr.h"

#define PACKET_EXT_MAX 16

enum packet_note {		/* bits of struct packet.notes */
	PACKET_NO_PORTS = 1,	/* protocol without ports, later fragment, or cut before them */
	PACKET_FRAGMENT = 2,	/* any fragment, the first one too */
	PACKET_CUT	= 4,	/* capture ends inside a header */
	PACKET_EXT_DEEP = 8,	/* extension chain longer than PACKET_EXT_MAX */
	PACKET_BAD_LEN	= 16,	/* header length field contradicts the header or the packet */
};

enum packet_reason {		/* why the addresses cannot be read; index of counters */
	PACKET_OK,
	PACKET_EMPTY,		/* no byte */
	PACKET_VERSION,		/* neither 4 nor 6 */
	PACKET_SHORT,		/* ends before both addresses */
	PACKET_REASONS
};

struct packet {
	struct addr src, dst;
	uint32_t len;		/* IP bytes [K3] */
	uint16_t sport, dport;	/* host byte order */
	uint8_t proto;		/* IANA protocol number after the extension walk */
	uint8_t tcp_flags;	/* of TCP with 14 bytes captured, else 0 */
	uint8_t notes;
};

/* true_len 0: not known. PACKET_OK and *ret filled, or the reason and *ret untouched. */
enum packet_reason packet_parse(const void *data, size_t caplen, uint32_t true_len,
				struct packet *ret) MUST_CHECK;

const char *packet_reason_name(enum packet_reason reason);	/* "too-short", ... for counters and replay */
