/* addr.h - one address type for IPv4 and IPv6, and prefixes of it.
 *
 * An IPv4 address a.b.c.d is held as ::ffff:a.b.c.d (RFC 4291, 2.5.5.2), so sorting and prefix logic exist
 * once; an IPv4 prefix /n is held as /96+n. Network byte order throughout.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "compiler.h"

#define ADDR_STRLEN   46	/* INET6_ADDRSTRLEN */
#define PREFIX_STRLEN 50

struct addr {
	uint8_t b[16];
};

struct prefix {
	struct addr addr;	/* bits beyond len are 0 */
	uint8_t len;		/* 0..128; IPv4 /n is 96+n */
};

static inline bool addr_is_v4(const struct addr *a)
{
	static const uint8_t mapped[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };

	return memcmp(a->b, mapped, sizeof(mapped)) == 0;
}

static inline struct addr addr_from_v4(const void *be4)
{
	struct addr a = { { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff } };

	memcpy(a.b + 12, be4, 4);
	return a;
}

static inline struct addr addr_from_v6(const void *be16)
{
	struct addr a;

	memcpy(a.b, be16, 16);
	return a;
}

static inline int addr_cmp(const struct addr *x, const struct addr *y)
{
	return memcmp(x->b, y->b, sizeof(x->b));
}

/* "10.0.0.1" or "fd00::1" (inet_pton forms, no zone). -EINVAL otherwise. */
int addr_parse(const char *text, struct addr *ret) MUST_CHECK;

/* Always terminated; returns buf. IPv4-mapped addresses print as IPv4. */
const char *addr_format(const struct addr *a, char buf[ADDR_STRLEN]);

/* The first `len` bits of a, the rest 0. */
struct addr addr_mask(const struct addr *a, uint8_t len);

/* "10.0.0.0/8", "fd00::/8", or a bare address (/32, /128). -EINVAL: not an address or length;
 * -ERANGE: bits are set beyond the length (*ret then holds the masked prefix, to suggest it). */
int prefix_parse(const char *text, struct prefix *ret) MUST_CHECK;
const char *prefix_format(const struct prefix *p, char buf[PREFIX_STRLEN]);
bool prefix_contains(const struct prefix *p, const struct addr *a);
