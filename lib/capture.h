/* capture.h - where in a captured frame the IP packet begins, and how long that packet truly was.
 *
 * Pure: the caller reads the file and gives link type and bytes.
 *
 * [CP1] Bounds    Reads only data[0..caplen). Any bytes at all may be given (fuzzed).
 * [CP2] Outer     The first IP header is the answer: of GRE, IPIP, 6in4, VXLAN the outer one.
 * [CP3] Length    What the IP header says, not what was captured: IPv4 total length, IPv6 40 + payload length, of a
 *                 jumbogram 40 + the option's length. The length on the wire where a header cannot be right: IPv4
 *                 total length below its own header, IPv6 payload length 0 before TCP or UDP (segmentation offload
 *                 shows both).
 * [CP4] Link      Ethernet with any stack of 802.1Q / 802.1ad tags, MPLS labels, PPPoE, LLC/SNAP; Linux cooked
 *                 (SLL, SLL2); raw IP; BSD loopback (NULL, LOOP).
 * Not here        IP itself (packet.h), file formats (whoever reads the file).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "compiler.h"

enum capture_reason {		/* why there is no IP packet */
	CAPTURE_OK,
	CAPTURE_LINK_TYPE,	/* link type not known */
	CAPTURE_LINK_CUT,	/* ends inside the link header */
	CAPTURE_NOT_IP,		/* ARP, LLDP, IPX, ... */
	CAPTURE_REASONS
};

struct capture_ip {
	size_t offset;		/* of the IP header, <= caplen */
	uint32_t len;		/* [CP3]; 0 only when not one byte of IP was captured */
};

bool capture_link_known(int linktype);

/* linktype: LINKTYPE_ or DLT_ number; wirelen: bytes of the frame on the wire. */
enum capture_reason capture_ip(int linktype, const void *data, size_t caplen, size_t wirelen,
			       struct capture_ip *ret) MUST_CHECK;

const char *capture_reason_name(enum capture_reason reason);	/* "not-ip", ... */
