/* rules_egress.c - which packets are egress, and our bits of the mark: rules that stand in both tables.
 *
 *	a chain        oif loopback                                 accepted
 *	               the address is inside, or never leaves       -> its local chain
 *	               else                                         -> egress
 *	local chain    never leaves: accepted; an outside or exit device -> egress; else it falls out
 *
 * Exit hosts are holes in the set of local addresses, cut beforehand: a packet that leaves meets one address lookup.
 *
 * The address sets are named and older than the rules that use them, and only elements that differ are changed. A range
 * set (or map) that is made by the transaction that begins to use it misses its elements while the commit goes on, on
 * kernel 6.18 for milliseconds when the transaction is long (measured: 80,000 of 1.2 million packets in 44 commits beside
 * 20,000 other elements; hash sets: none); and kernels before 6.17 may miss elements that are deleted and added again. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <linux/if_arp.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>

#include "nft_rule.h"
#include "rules_internal.h"

#define NEVER_MAX 35
#define V4_DADDR  16
#define V6_DADDR  24
#define MARK	  NFT_REG32_12
#define MARK_OURS NFT_REG32_13

/* ---- mark ---- */

void rules_mark_load(struct nft_rule *r)
{
	nft_meta(r, NFT_META_MARK, MARK);
}

void rules_mark_is(struct nft_rule *r, const struct rules_marks *m, uint32_t state)
{
	rules_mark_load(r);
	nft_mask(r, MARK_OURS, MARK, m->mask);
	nft_cmp_u32(r, MARK_OURS, state);
}

void rules_mark_is_set(struct nft_rule *r, const struct rules_marks *m)
{
	rules_mark_load(r);
	nft_mask(r, MARK_OURS, MARK, m->mask);
	nft_cmp_not_u32(r, MARK_OURS, 0);
}

void rules_mark_put(struct nft_rule *r, const struct rules_marks *m, uint32_t state)
{
	const uint32_t keep = ~m->mask;

	nft_bitwise(r, MARK, &keep, &state, sizeof(keep));
	nft_meta_set(r, NFT_META_MARK, MARK);
}

/* ---- addresses ---- */

void rules_family(struct nft_rule *r, bool v6)
{
	nft_meta(r, NFT_META_NFPROTO, NFT_REG32_00);
	nft_cmp_u8(r, NFT_REG32_00, v6 ? NFPROTO_IPV6 : NFPROTO_IPV4);
}

void rules_daddr(struct nft_batch *b, const char *table, const char *chain, const struct nft_set_spec set[2], int verdict,
		 const char *to)
{
	for (int v6 = 0; v6 <= 1; v6++) {
		struct nft_rule r = nft_rule(table, chain);

		rules_family(&r, v6);
		nft_payload(&r, NFT_REG_1, v6 ? V6_DADDR : V4_DADDR, v6 ? 16 : 4);
		nft_lookup(&r, set[v6].name, 0, NFT_REG_1);
		nft_verdict(&r, verdict, to);
		nft_rule_add(&r, b, "destination");
	}
}

/* Link-local of IPv6 and link-scope: they cannot leave by a router, whatever the device. Link-local of IPv4 (169.254.0.0/16) can: Linux
 * forwards it by its routes, as any other (RFC 3927 says it must not). */
static size_t never_list(struct prefix *p)
{
	static const struct { uint8_t a[4], len; } v4[] = {
		{ { 224, 0, 0, 0 }, 24 }, { { 255, 255, 255, 255 }, 32 },
	};
	size_t n = 0;

	for (size_t i = 0; i < ARRAY_SIZE(v4); i++)
		p[n++] = (struct prefix){ .addr = addr_from_v4(v4[i].a), .len = (uint8_t)(96 + v4[i].len) };
	p[n++] = (struct prefix){ .addr = { { 0xfe, 0x80 } }, .len = 10 };
	for (uint8_t flags = 0; flags < 0xf; flags++) {	/* ffx1 and ffx2; flags 0xf are reserved */
		p[n++] = (struct prefix){ .addr = { { 0xff, (uint8_t)(flags << 4 | 1) } }, .len = 16 };
		p[n++] = (struct prefix){ .addr = { { 0xff, (uint8_t)(flags << 4 | 2) } }, .len = 16 };
	}
	return n;
}

void rules_range_set(struct rules *rules, struct nft_batch *b, const char *table, const struct nft_set_spec set[2], bool v6,
		     const struct rules_list *list, size_t nlists)
{
	const struct nft_set_spec *s = &set[v6];
	const size_t skip = v6 ? 0 : 12;
	struct rules_range *range = NULL;
	struct nft_elem *e;
	size_t count = 0, n = 0;
	int r = rules_ranges(v6, list, nlists, &range, &count);

	e = r < 0 ? NULL : calloc(2 * count + 1, sizeof(*e));
	if (!e) {
		nft_batch_fail(b, -ENOMEM);
		free(range);
		return;
	}
	for (size_t i = 0; i < count; i++) {
		const struct addr end = rules_addr_next(&range[i].hi);

		memcpy(e[n++].key, range[i].lo.b + skip, s->key_len);
		if (range[i].last)
			break;
		memcpy(e[n].key, end.b + skip, s->key_len);
		e[n++].interval_end = true;
	}
	nft_set_add(b, table, s, "set of addresses");
	nft_set_sync(&rules->keep, b, table, s, e, n, "addresses");
	free(e);
	free(range);
}

static const struct nft_set_spec local_set[2] = { RULES_RANGES4("local4"), RULES_RANGES6("local6") };
static const struct nft_set_spec never_set[2] = { RULES_RANGES4("never4"), RULES_RANGES6("never6") };

void rules_egress_sets(struct rules *rules, struct nft_batch *b, const char *table, const struct rules_spec *s)
{
	struct prefix never[NEVER_MAX];
	const size_t n = never_list(never);
	/* Inside without exits, and what never leaves: all that is not egress by its address alone. */
	const struct rules_list local[] = { { never, n, 1 }, { s->exit_host, s->nexit_host, 0 }, { s->inside, s->ninside, 1 } };

	for (int v6 = 0; v6 <= 1; v6++) {
		rules_range_set(rules, b, table, local_set, v6, local, ARRAY_SIZE(local));
		rules_range_set(rules, b, table, never_set, v6, local, 1);
	}
}

bool rules_egress_has_sets(struct rules *r, const char *table)
{
	struct nft_dumped *d = NULL;
	size_t n;
	const int e = nft_set_dump(&r->keep, table, local_set[0].name, &d, &n);

	free(d);
	return e == 0;
}

/* ---- rules ---- */

void rules_device_match(struct nft_rule *r, struct nft_batch *b, const char *table, const char (*device)[16], size_t n)
{
	struct nft_set_spec set = { .name = "__set%d", .id = b->nmsg + 1, .flags = NFT_SET_ANONYMOUS | NFT_SET_CONSTANT,
				    .key_type = NFT_KEY_IFNAME, .key_len = 16, .size = (uint32_t)n };
	struct nft_elem *e;

	nft_meta(r, NFT_META_OIFNAME, NFT_REG_1);
	if (n == 1) {
		char name[16] = "";	/* the kernel's have no other bytes behind them */

		memcpy(name, device[0], strnlen(device[0], sizeof(name)));
		nft_cmp(r, NFT_REG_1, name, sizeof(name));
		return;
	}
	e = calloc(n, sizeof(*e));
	for (size_t i = 0; e && i < n; i++)
		memcpy(e[i].key, device[i], strnlen(device[i], sizeof(device[i])));
	if (!e)
		nft_batch_fail(b, -ENOMEM);
	nft_set_add(b, table, &set, "set of devices");
	nft_elems_add(b, table, &set, e, e ? n : 0, "set of devices");
	nft_lookup(r, set.name, set.id, NFT_REG_1);
	free(e);
}

void rules_egress_split(struct nft_batch *b, const struct rules_split *p, const struct rules_spec *s)
{
	struct nft_rule r = nft_rule(p->table, p->chain);

	nft_meta(&r, NFT_META_OIFTYPE, NFT_REG32_00);
	nft_cmp_u16(&r, NFT_REG32_00, ARPHRD_LOOPBACK);
	nft_verdict(&r, NF_ACCEPT, NULL);
	nft_rule_add(&r, b, "loopback");
	rules_daddr(b, p->table, p->chain, local_set, NFT_GOTO, p->local_chain);
	r = nft_rule(p->table, p->chain);
	nft_verdict(&r, NFT_GOTO, p->egress_chain);
	nft_rule_add(&r, b, "egress by its address");

	rules_daddr(b, p->table, p->local_chain, never_set, NF_ACCEPT, NULL);
	if (!s->ndevices)
		return;
	r = nft_rule(p->table, p->local_chain);
	rules_device_match(&r, b, p->table, s->device, s->ndevices);
	nft_verdict(&r, NFT_GOTO, p->egress_chain);
	nft_rule_add(&r, b, "egress by its device");
}
