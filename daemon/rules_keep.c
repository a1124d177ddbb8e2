/* rules_keep.c - table egressd_keep: what must go on while every process of ours is dead.
 *
 *	entry (postrouting -165)   oif loopback, or the address never leaves         -> pass
 *	                           the address is inside                             -> inside
 *	                           else egress: counted, bits cleared
 *	inside                     an outside or exit device: egress; else           pass
 *	pass                       bits set to JUDGED: the queue chain lets it go
 *	exit (postrouting -151)    JUDGED or LEASED: bits cleared; else unseen: counted, counted by pair, (closed) dropped
 *	forward, output (-10)      source has a block at all                         -> refuse
 *	refuse                     loopback, protected, never leaves, inside         go on their way, else
 *	refuse_hit                 the blocked sets                                  -> reject or drop
 *
 * The class of an address is one lookup: never > exit > inside > egress are cut into disjoint ranges beforehand, so an
 * exit host is a hole in inside. A judged packet meets two rules at the entry and one at the exit. */
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

enum { CLASS_NEVER = 1, CLASS_INSIDE };

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

/* Ranges as an anonymous interval set (map: class c goes to chain[c], NULL: accept). Its id, 0 when it would be empty. */
static uint32_t range_set(struct nft_batch *b, bool v6, const struct rules_list *list, size_t nlists,
			  const char *const *chain, const char *what)
{
	struct nft_set_spec s = { .name = chain ? "__map%d" : "__set%d", .id = b->nmsg + 1,
				  .flags = NFT_SET_ANONYMOUS | NFT_SET_CONSTANT | NFT_SET_INTERVAL | (chain ? NFT_SET_MAP : 0),
				  .key_type = v6 ? NFT_KEY_IPV6 : NFT_KEY_IPV4, .key_len = v6 ? 16 : 4 };
	const size_t skip = v6 ? 0 : 12;
	struct rules_range *range = NULL;
	struct nft_elem *e;
	size_t count = 0, n = 0;
	int r = rules_ranges(v6, list, nlists, &range, &count);

	e = r < 0 ? NULL : calloc(2 * count + 1, sizeof(*e));
	if (!e) {
		nft_batch_fail(b, -ENOMEM);
		free(range);
		return 0;
	}
	for (size_t i = 0; i < count; i++) {
		const struct addr end = rules_addr_next(&range[i].hi);

		memcpy(e[n].key, range[i].lo.b + skip, s.key_len);
		if (chain) {
			e[n].chain = chain[range[i].cls];
			e[n].verdict = e[n].chain ? NFT_GOTO : NF_ACCEPT;
		}
		n++;
		/* A range that touches the next one is ended by it. */
		if (range[i].last || (i + 1 < count && addr_cmp(&range[i + 1].lo, &end) == 0))
			continue;
		memcpy(e[n].key, end.b + skip, s.key_len);
		e[n++].interval_end = true;
	}
	if (count) {
		nft_set_add(b, KEEP, &s, what);
		nft_elems_add(b, KEEP, &s, e, n, what);
	}
	free(e);
	free(range);
	return count ? s.id : 0;
}

/* Where to go by the destination's class; falls through for egress. */
static void class_rules(struct nft_batch *b, const struct rules_spec *s, const char *in, const char *const *chain)
{
	struct prefix never[NEVER_MAX];
	const struct rules_list list[] = {
		{ never, never_list(never), CLASS_NEVER },
		{ s->exit_host, s->nexit_host, 0 },
		{ s->inside, s->ninside, CLASS_INSIDE },
	};

	for (int v6 = 0; v6 <= 1; v6++) {
		const uint32_t id = range_set(b, v6, list, ARRAY_SIZE(list), chain, "keep: map of inside addresses");
		struct nft_rule r = nft_rule(KEEP, in);

		family_is(&r, v6);
		daddr(&r, v6, NFT_REG_1);
		nft_vmap(&r, "__map%d", id, NFT_REG_1);
		nft_rule_add(&r, b, "keep: class of the destination");
	}
}

/* Matches when the packet leaves by one of the devices; false: there are none. */
static bool device_match(struct nft_rule *r, struct nft_batch *b, const struct rules_spec *s)
{
	struct nft_set_spec set = { .name = "__set%d", .id = b->nmsg + 1, .flags = NFT_SET_ANONYMOUS | NFT_SET_CONSTANT,
				    .key_type = NFT_KEY_IFNAME, .key_len = 16, .size = (uint32_t)s->ndevices };
	struct nft_elem *e;

	if (!s->ndevices)
		return false;
	nft_meta(r, NFT_META_OIFNAME, NFT_REG_1);
	if (s->ndevices == 1) {
		nft_cmp(r, NFT_REG_1, s->device[0], sizeof(s->device[0]));
		return true;
	}
	e = calloc(s->ndevices, sizeof(*e));
	for (size_t i = 0; e && i < s->ndevices; i++)
		memcpy(e[i].key, s->device[i], strnlen(s->device[i], sizeof(s->device[i])));
	if (!e)
		nft_batch_fail(b, -ENOMEM);
	nft_set_add(b, KEEP, &set, "keep: set of devices");
	nft_elems_add(b, KEEP, &set, e, e ? s->ndevices : 0, "keep: set of devices");
	nft_lookup(r, set.name, set.id, NFT_REG_1);
	free(e);
	return true;
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
	static const char *const to[] = { [CLASS_NEVER] = "pass", [CLASS_INSIDE] = "inside" };
	struct nft_rule r;

	loopback_rule(b, "entry", NFT_GOTO, "pass");
	class_rules(b, s, "entry", to);
	r = nft_rule(KEEP, "entry");
	egress_rule(&r, b, m);

	r = nft_rule(KEEP, "inside");
	if (device_match(&r, b, s)) {
		egress_rule(&r, b, m);
		r = nft_rule(KEEP, "inside");
	}
	nft_verdict(&r, NFT_GOTO, "pass");
	nft_rule_add(&r, b, "keep: inside");

	r = nft_rule(KEEP, "pass");
	mark_set(&r, m->mask, m->judged);
	nft_rule_add(&r, b, "keep: not egress");
}

static void exit_rules(struct nft_batch *b, const struct rules_spec *s, const struct rules_marks *m)
{
	const uint32_t seen[] = { m->judged, m->leased };
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
		const uint32_t second = v6 ? NFT_REG_2 : NFT_REG32_01;

		/* Rules of their own: a full set ends the rule it stands in. */
		r = nft_rule(KEEP, "exit");
		family_is(&r, v6);
		nft_payload(&r, NFT_REG_1, v6 ? V6_SADDR : V4_SADDR, v6 ? 16 : 4);
		daddr(&r, v6, second);
		if (v6)
			nft_bitwise(&r, second, half_v6, zero, 16);
		nft_update_counter(&r, v6 ? "unseen6" : "unseen4", NFT_REG_1);
		nft_rule_add(&r, b, "keep: unseen pairs");
	}
	if (!s->failure_closed)
		return;
	r = nft_rule(KEEP, "exit");
	nft_verdict(&r, NF_DROP, NULL);
	nft_rule_add(&r, b, "keep: failure closed");
}

static void protect_rules(struct nft_batch *b, const struct rules_spec *s)
{
	const struct rules_list list = { s->protect, s->nprotect, 1 };

	for (int v6 = 0; v6 <= 1; v6++) {
		const uint32_t id = range_set(b, v6, &list, 1, NULL, "keep: set of protected addresses");
		struct nft_rule r;

		if (!id)
			continue;
		r = nft_rule(KEEP, "refuse");
		family_is(&r, v6);
		daddr(&r, v6, NFT_REG_1);
		nft_lookup(&r, "__set%d", id, NFT_REG_1);
		nft_verdict(&r, NF_ACCEPT, NULL);
		nft_rule_add(&r, b, "keep: protected");
	}
}

static void refuse_rules(struct nft_batch *b, const struct rules_spec *s)
{
	static const char *const to[] = { [CLASS_NEVER] = NULL, [CLASS_INSIDE] = "refuse_inside" };
	struct nft_rule r;

	loopback_rule(b, "refuse", NF_ACCEPT, NULL);
	protect_rules(b, s);
	class_rules(b, s, "refuse", to);
	r = nft_rule(KEEP, "refuse");
	nft_verdict(&r, NFT_GOTO, "refuse_hit");
	nft_rule_add(&r, b, "keep: refuse");

	r = nft_rule(KEEP, "refuse_inside");
	if (!device_match(&r, b, s))
		nft_verdict(&r, NF_ACCEPT, NULL);
	else
		nft_verdict(&r, NFT_GOTO, "refuse_hit");
	nft_rule_add(&r, b, "keep: refuse inside");

	r = nft_rule(KEEP, "reject");
	nft_meta(&r, NFT_META_L4PROTO, NFT_REG32_00);
	nft_cmp_u8(&r, NFT_REG32_00, IPPROTO_TCP);
	nft_reject(&r, NFT_REJECT_TCP_RST, 0);
	nft_rule_add(&r, b, "keep: reject by RST");
	r = nft_rule(KEEP, "reject");
	nft_reject(&r, NFT_REJECT_ICMPX_UNREACH, NFT_REJECT_ICMPX_ADMIN_PROHIBITED);
	nft_rule_add(&r, b, "keep: reject by ICMP");
}

void rules_keep_sets(struct nft_batch *b)
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
}

void rules_keep_fill(struct nft_batch *b, const struct rules_spec *s, const struct rules_marks *m)
{
	entry_rules(b, s, m);
	exit_rules(b, s, m);
	refuse_rules(b, s);
	rules_block_lookups(b, "refuse_hit", "reject");
	rules_block_gate(b, "forward", "refuse");
	rules_block_gate(b, "output", "refuse");
}
