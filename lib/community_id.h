/* community_id.h - Community ID v1 flow hash (Corelight spec 1.0): "1:" base64(SHA1(seed . tuple)). */
#pragma once

#include <stdint.h>

#include "addr.h"

#define COMMUNITY_ID_LEN 31	/* "1:" + 28 + NUL */

/* Ports in host byte order; for ICMP and ICMPv6 the message's type and code, mapped as the specification says. Both
 * directions of a flow give the same id. Ports are looked at for TCP, UDP, SCTP and ICMP only, as specified.
 */
void community_id(const struct addr *src, const struct addr *dst, uint8_t proto, uint16_t sport,
		  uint16_t dport, uint16_t seed, char ret[COMMUNITY_ID_LEN]);
