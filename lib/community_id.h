/* community_id.h - Community ID v1 flow hash (Corelight spec 1.0): "1:" base64(SHA1(seed . tuple)). */
#pragma once

#include <stdint.h>

#include "addr.h"

#define COMMUNITY_ID_LEN 31	/* "1:" + 28 + NUL */

/* Ports in host byte order; for ICMP they are type and code as the specification maps them. */
void community_id(const struct addr *src, const struct addr *dst, uint8_t proto, uint16_t sport,
		  uint16_t dport, uint16_t seed, char ret[COMMUNITY_ID_LEN]);
