/* policy_ports.h - which accepting ports a rule asks for: "tcp/443", "udp/6000-6100", "tcp", "icmp". */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "arena.h"
#include "compiler.h"

struct port_range {
	uint16_t proto, lo, hi;
};

struct policy_ports {		/* count 0: any protocol, any port */
	struct port_range *range;	/* sorted, disjoint, minimal */
	uint32_t count;
};

/* One entry. "icmp" gives two ranges (IPv4's and IPv6's protocol), everything else one. Number of ranges or -EINVAL. */
int ports_parse(const char *text, struct port_range ret[2]) MUST_CHECK;

/* Sorts and joins v[0..n). */
void ports_normalize(struct policy_ports *p);

/* The same set has the same text: "6/443-443,17/443-444". NULL: no memory. */
char *ports_canonical(const struct policy_ports *p, struct arena *mem) MUST_CHECK;

bool ports_accept(const struct policy_ports *p, uint16_t proto, uint16_t port);
/* Port not known: some port of the protocol is accepted / every one is. */
bool ports_accept_some(const struct policy_ports *p, uint16_t proto);
bool ports_accept_all(const struct policy_ports *p, uint16_t proto);
