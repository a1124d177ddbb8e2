/* pair.c - see pair.h for the contract. */
#include "pair.h"

#include <stdatomic.h>
#include <stdio.h>

const struct addr pair_gateway = { { 0x01, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1 } };
const struct addr pair_unlisted = { { 0x01, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2 } };
const struct addr pair_others = { { 0x01, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3 } };

const char *pair_out_format(const uint8_t out[8], uint8_t family, char buf[PREFIX_STRLEN])
{
	uint8_t full[16] = { 0 };
	struct addr a;

	if (family == 4) {
		a = addr_from_v4(out);
		return addr_format(&a, buf);
	}
	if (family != 6) {
		snprintf(buf, PREFIX_STRLEN, "*");
		return buf;
	}
	memcpy(full, out, 8);
	a = addr_from_v6(full);
	addr_format(&a, buf);
	strncat(buf, "/64", PREFIX_STRLEN - strlen(buf) - 1);
	return buf;
}

const char *pair_in_format(const uint8_t in[16], char buf[ADDR_STRLEN])
{
	struct addr a = addr_from_v6(in);

	if (addr_cmp(&a, &pair_gateway) == 0)
		snprintf(buf, ADDR_STRLEN, "gateway");
	else if (addr_cmp(&a, &pair_unlisted) == 0)
		snprintf(buf, ADDR_STRLEN, "unlisted");
	else if (addr_cmp(&a, &pair_others) == 0)
		snprintf(buf, ADDR_STRLEN, "others");
	else
		addr_format(&a, buf);
	return buf;
}

static uint64_t load64(const _Atomic uint64_t *x)
{
	return atomic_load_explicit(x, memory_order_relaxed);	/* sums */
}

uint64_t pair_packets(const struct pair *p, const struct pair_cold *c)
{
	/* A wrap between the two loads shows 2^32 packets too few for one moment. */
	return ((uint64_t)atomic_load_explicit(&c->packets_high, memory_order_relaxed) << 32 |
		atomic_load_explicit(&p->packets, memory_order_relaxed)) + load64(&c->folded_packets) +
	       load64(&c->leased_packets);
}

uint64_t pair_bytes(const struct pair *p, const struct pair_cold *c)
{
	return load64(&p->bytes) + load64(&c->folded_bytes) + load64(&c->leased_bytes);
}

uint64_t pair_refused(const struct pair_cold *c)
{
	return load64(&c->refused) + load64(&c->folded_refused);
}
