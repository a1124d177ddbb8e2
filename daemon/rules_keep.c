/* rules_keep.c - table egressd_keep: what must go on while every process of ours is dead.
 *
 *	entry (postrouting -165)   oif loopback                                      -> pass
 *	                           the address is inside, or never leaves            -> local
 *	                           else egress: counted, bits cleared if any is set
 *	local                      never leaves: pass; an outside or exit device: egress; else pass
 *	pass                       bits set to JUDGED: the queue chain lets it go
 *	exit (postrouting -151)    JUDGED or LEASED: bits cleared; else unseen: counted, counted by pair (a sender that the
 *	                           policy does not know, or the gateway, as such), (closed) dropped
 *	forward, output (-10)      source has a block at all                         -> refuse
 *	refuse, refuse_local       SSH to the gateway, loopback, protected and what is not egress go on their way, else
 *	refuse_hit                 the blocked sets                                  -> reject or drop
 *	                           the sets of refused connections                   -> reject
 *
 * Exit hosts are holes in the set of local addresses, cut beforehand: a judged packet meets one address lookup, one rule
 * in the queue's chain, and one at the exit.
 *
 * The address sets are named and older than the rules that use them, and only elements that differ are changed. A range
 * set (or map) that is made by the transaction that begins to use it misses its elements while the commit goes on, on
 * kernel 6.18 for milliseconds when the transaction is long (measured: 80,000 of 1.2 million packets in 44 commits beside
 * 20,000 other elements; hash sets: none); and kernels before 6.17 may miss elements that are deleted and added again. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include <linux/if_arp.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>

#include "nft_object.h"
#include "nft_rule.h"
#include "nft_set.h"
#include "policy.h"
#include "rules_class.h"
#include "rules_internal.h"

#define NEVER_MAX     35
#define UNSEEN_PAIRS  65536
#define UNSEEN_KEEP   (86400ull * 1000)
#define V4_SADDR      12
#define V4_DADDR      16
#define V6_SADDR      8
#define V6_DADDR      24
#define KEEP	      TABLE_KEEP

static const uint8_t half_v6[16] = { 255, 255, 255, 255, 255, 255, 255, 255 }, zero[16];

/* Link-local and link-scope: they cannot leave by a router, whatever the device. */
static size_t never_list(struct prefix *p)
{
	static const struct { uint8_t a[4], len; } v4[] = {
		{ { 169, 254, 0, 0 }, 16 }, { { 224, 0, 0, 0 }, 24 }, { { 255, 255, 255, 255 }, 32 },
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

static void mark_is(struct nft_rule *r, uint32_t mask, uint32_t state)
{
	nft_meta(r, NFT_META_MARK, NFT_REG32_00);
	nft_bitwise(r, NFT_REG32_00, &mask, zero, sizeof(mask));
	nft_cmp_u32(r, NFT_REG32_00, state);
}

static void mark_set(struct nft_rule *r, uint32_t mask, uint32_t state)
{
	const uint32_t keep = ~mask;

	nft_meta(r, NFT_META_MARK, NFT_REG32_00);
	nft_bitwise(r, NFT_REG32_00, &keep, &state, sizeof(keep));
	nft_meta_set(r, NFT_META_MARK, NFT_REG32_00);
}

static void family_is(struct nft_rule *r, bool v6)
{
	nft_meta(r, NFT_META_NFPROTO, NFT_REG32_00);
	nft_cmp_u8(r, NFT_REG32_00, v6 ? NFPROTO_IPV6 : NFPROTO_IPV4);
}

static void daddr(struct nft_rule *r, bool v6, uint32_t reg)
{
	nft_payload(r, reg, v6 ? V6_DADDR : V4_DADDR, v6 ? 16 : 4);
}

enum address_set { LOCAL, NEVER, PROTECT, KNOWN, ADDRESS_SETS };

#define RANGES(n, type, len) { .name = n, .flags = NFT_SET_INTERVAL, .key_type = type, .key_len = len }
#define V4_RANGES(n)	     RANGES(n, NFT_KEY_IPV4, 4)
#define V6_RANGES(n)	     RANGES(n, NFT_KEY_IPV6, 16)

static const struct nft_set_spec address_set[ADDRESS_SETS][2] = {
	[LOCAL] = { V4_RANGES("local4"), V6_RANGES("local6") },
	[NEVER] = { V4_RANGES("never4"), V6_RANGES("never6") },
	[PROTECT] = { V4_RANGES("protect4"), V6_RANGES("protect6") },
	[KNOWN] = { V4_RANGES("known4"), V6_RANGES("known6") },
};

static void range_set(struct rules *rules, struct nft_batch *b, enum address_set set, bool v6, const struct rules_list *list,
		      size_t nlists)
{
	const struct nft_set_spec *s = &address_set[set][v6];
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
	nft_set_add(b, KEEP, s, "keep: address set");
	nft_set_sync(&rules->keep, b, KEEP, s, e, n, "keep: addresses");
	free(e);
	free(range);
}

static void address_sets(struct rules *rules, struct nft_batch *b, const struct rules_spec *s)
{
	struct prefix never[NEVER_MAX];
	const size_t n = never_list(never);
	/* Inside without exits, and what never leaves: all that is not egress by its address alone. */
	const struct rules_list local[] = { { never, n, 1 }, { s->exit_host, s->nexit_host, 0 }, { s->inside, s->ninside, 1 } };
	const struct rules_list protect = { s->protect, s->nprotect, 1 };
	const struct rules_list known[] = { { s->exit_host, s->nexit_host, 1 }, { s->inside, s->ninside, 1 } };

	for (int v6 = 0; v6 <= 1; v6++) {
		range_set(rules, b, LOCAL, v6, local, ARRAY_SIZE(local));
		range_set(rules, b, NEVER, v6, local, 1);
		range_set(rules, b, PROTECT, v6, &protect, 1);
		range_set(rules, b, KNOWN, v6, known, ARRAY_SIZE(known));
	}
}

/* Destinations in the set go to the verdict. */
static void daddr_rules(struct nft_batch *b, const char *in, enum address_set set, int verdict, const char *chain)
{
	for (int v6 = 0; v6 <= 1; v6++) {
		struct nft_rule r = nft_rule(KEEP, in);

		family_is(&r, v6);
		daddr(&r, v6, NFT_REG_1);
		nft_lookup(&r, address_set[set][v6].name, 0, NFT_REG_1);
		nft_verdict(&r, verdict, chain);
		nft_rule_add(&r, b, "keep: destination");
	}
}

void rules_device_match(struct nft_rule *r, struct nft_batch *b, const char *table, const char (*device)[16], size_t n)
{
	struct nft_set_spec set = { .name = "__set%d", .id = b->nmsg + 1, .flags = NFT_SET_ANONYMOUS | NFT_SET_CONSTANT,
				    .key_type = NFT_KEY_IFNAME, .key_len = 16, .size = (uint32_t)n };
	struct nft_elem *e;

	nft_meta(r, NFT_META_OIFNAME, NFT_REG_1);
	if (n == 1) {
		nft_cmp(r, NFT_REG_1, device[0], sizeof(device[0]));
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

static void loopback_rule(struct nft_batch *b, const char *in, int verdict, const char *chain)
{
	struct nft_rule r = nft_rule(KEEP, in);

	nft_meta(&r, NFT_META_OIFTYPE, NFT_REG32_00);
	nft_cmp_u16(&r, NFT_REG32_00, ARPHRD_LOOPBACK);
	nft_verdict(&r, verdict, chain);
	nft_rule_add(&r, b, "keep: loopback");
}

static void egress_rule(struct nft_rule *r, struct nft_batch *b, const struct rules_marks *m)
{
	nft_count(r, "egress");
	mark_set(r, m->mask, 0);
	nft_verdict(r, NF_ACCEPT, NULL);
	nft_rule_add(r, b, "keep: egress");
}

static void entry_rules(struct nft_batch *b, const struct rules_spec *s, const struct rules_marks *m)
{
	struct nft_rule r;

	loopback_rule(b, "entry", NFT_GOTO, "pass");
	daddr_rules(b, "entry", LOCAL, NFT_GOTO, "local");
	r = nft_rule(KEEP, "entry");
	mark_is(&r, m->mask, 0);	/* nothing to clear: writing a mark costs what an address lookup does */
	nft_count(&r, "egress");
	nft_verdict(&r, NF_ACCEPT, NULL);
	nft_rule_add(&r, b, "keep: egress");
	r = nft_rule(KEEP, "entry");
	egress_rule(&r, b, m);

	daddr_rules(b, "local", NEVER, NFT_GOTO, "pass");
	r = nft_rule(KEEP, "local");
	if (s->ndevices) {
		rules_device_match(&r, b, KEEP, s->device, s->ndevices);
		egress_rule(&r, b, m);
		r = nft_rule(KEEP, "local");
	}
	nft_verdict(&r, NFT_GOTO, "pass");
	nft_rule_add(&r, b, "keep: local");

	r = nft_rule(KEEP, "pass");
	mark_set(&r, m->mask, m->judged);
	nft_rule_add(&r, b, "keep: not egress");
}

/* The pair as the judge names it: who has no row of its own counts as a pseudo-host, whose IPv4 form is its last four bytes.
 * NULL: who has. A rule for each: a full set ends the rule it stands in. */
static void unseen_rule(struct nft_batch *b, bool v6, const struct addr *pseudo)
{
	const uint32_t second = v6 ? NFT_REG_2 : NFT_REG32_01, len = v6 ? 16 : 4;
	struct nft_rule r = nft_rule(KEEP, "exit");

	family_is(&r, v6);
	nft_meta(&r, NFT_META_IIF, NFT_REG32_00);
	if (pseudo == &pair_gateway)
		nft_cmp_u32(&r, NFT_REG32_00, 0);
	else
		nft_cmp_not_u32(&r, NFT_REG32_00, 0);
	nft_payload(&r, NFT_REG_1, v6 ? V6_SADDR : V4_SADDR, len);
	if (pseudo == &pair_unlisted)
		nft_lookup_not(&r, address_set[KNOWN][v6].name, NFT_REG_1);
	else if (!pseudo)
		nft_lookup(&r, address_set[KNOWN][v6].name, 0, NFT_REG_1);
	if (pseudo)
		nft_bitwise(&r, NFT_REG_1, zero, pseudo->b + (v6 ? 0 : 12), len);
	daddr(&r, v6, second);
	if (v6)
		nft_bitwise(&r, second, half_v6, zero, 16);
	nft_update_counter(&r, v6 ? "unseen6" : "unseen4", NFT_REG_1);
	nft_rule_add(&r, b, "keep: unseen pairs");
}

static void exit_rules(struct nft_batch *b, const struct rules_spec *s, const struct rules_marks *m)
{
	const uint32_t seen[] = { m->leased, m->judged };	/* a judged packet has cost far more than one comparison */
	struct nft_rule r;

	for (size_t i = 0; i < ARRAY_SIZE(seen); i++) {
		r = nft_rule(KEEP, "exit");
		mark_is(&r, m->mask, seen[i]);
		mark_set(&r, m->mask, 0);
		nft_verdict(&r, NF_ACCEPT, NULL);
		nft_rule_add(&r, b, "keep: seen");
	}
	r = nft_rule(KEEP, "exit");
	nft_count(&r, "unseen");
	mark_set(&r, m->mask, 0);
	nft_rule_add(&r, b, "keep: unseen");
	for (int v6 = 0; v6 <= 1; v6++) {
		unseen_rule(b, v6, NULL);
		unseen_rule(b, v6, &pair_gateway);
		unseen_rule(b, v6, &pair_unlisted);
	}
	if (!s->failure_closed)
		return;
	r = nft_rule(KEEP, "exit");
	nft_verdict(&r, NF_DROP, NULL);
	nft_rule_add(&r, b, "keep: failure closed");
}

/* As judge.h [J6]: no device that it came in by, from port 22, and not the SYN that opens a connection. */
static void ssh_rule(struct nft_batch *b)
{
	static const uint8_t ack = 0x10;
	struct nft_rule r = nft_rule(KEEP, "refuse");

	nft_meta(&r, NFT_META_IIF, NFT_REG32_00);
	nft_cmp_u32(&r, NFT_REG32_00, 0);
	nft_meta(&r, NFT_META_L4PROTO, NFT_REG32_00);
	nft_cmp_u8(&r, NFT_REG32_00, IPPROTO_TCP);
	nft_transport(&r, NFT_REG32_00, 0, 2);
	nft_cmp_u16(&r, NFT_REG32_00, htons(POLICY_SSH_PORT));
	nft_transport(&r, NFT_REG32_00, 13, 1);
	nft_bitwise(&r, NFT_REG32_00, &ack, zero, sizeof(ack));
	nft_cmp_u8(&r, NFT_REG32_00, ack);
	nft_verdict(&r, NF_ACCEPT, NULL);
	nft_rule_add(&r, b, "keep: SSH to the gateway");
}

static void refuse_rules(struct nft_batch *b, const struct rules_spec *s)
{
	struct nft_rule r;

	ssh_rule(b);
	loopback_rule(b, "refuse", NF_ACCEPT, NULL);
	daddr_rules(b, "refuse", PROTECT, NF_ACCEPT, NULL);
	daddr_rules(b, "refuse", LOCAL, NFT_GOTO, "refuse_local");
	r = nft_rule(KEEP, "refuse");
	nft_verdict(&r, NFT_GOTO, "refuse_hit");
	nft_rule_add(&r, b, "keep: refuse");

	daddr_rules(b, "refuse_local", NEVER, NF_ACCEPT, NULL);
	r = nft_rule(KEEP, "refuse_local");
	if (s->ndevices)
		rules_device_match(&r, b, KEEP, s->device, s->ndevices);
	nft_verdict(&r, s->ndevices ? NFT_GOTO : NF_ACCEPT, s->ndevices ? "refuse_hit" : NULL);
	nft_rule_add(&r, b, "keep: refuse local");

	r = nft_rule(KEEP, "reject");
	nft_meta(&r, NFT_META_L4PROTO, NFT_REG32_00);
	nft_cmp_u8(&r, NFT_REG32_00, IPPROTO_TCP);
	nft_reject(&r, NFT_REJECT_TCP_RST, 0);
	nft_rule_add(&r, b, "keep: reject by RST");
	r = nft_rule(KEEP, "reject");
	nft_reject(&r, NFT_REJECT_ICMPX_UNREACH, NFT_REJECT_ICMPX_ADMIN_PROHIBITED);
	nft_rule_add(&r, b, "keep: reject by ICMP");
}

void rules_keep_sets(struct rules *rules, struct nft_batch *b, const struct rules_spec *spec)
{
	nft_counter_add(b, KEEP, "egress", "keep: counter egress");
	nft_counter_add(b, KEEP, "unseen", "keep: counter unseen");
	for (int v6 = 0; v6 <= 1; v6++) {
		const struct nft_set_spec s = { .name = v6 ? "unseen6" : "unseen4", .flags = NFT_SET_EVAL | NFT_SET_TIMEOUT,
						.key_type = v6 ? NFT_KEY_IPV6_PAIR : NFT_KEY_IPV4_PAIR,
						.key_len = v6 ? 32 : 8, .size = UNSEEN_PAIRS, .timeout_ms = UNSEEN_KEEP };

		nft_set_add(b, KEEP, &s, "keep: set of unseen pairs");
	}
	rules_block_sets(b);
	rules_flow_sets(b);
	rules_block_regate(rules, b);
	address_sets(rules, b, spec);
}

void rules_keep_fill(struct nft_batch *b, const struct rules_spec *s, const struct rules_marks *m)
{
	entry_rules(b, s, m);
	exit_rules(b, s, m);
	refuse_rules(b, s);
	rules_block_lookups(b, "refuse_hit", "reject");
	rules_flow_lookups(b, "refuse_hit", "reject");
	rules_block_gate(b, "forward", "refuse");
	rules_block_gate(b, "output", "refuse");
}
