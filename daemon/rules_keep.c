/* rules_keep.c - table egressd_keep: what must go on while every process of ours is dead.
 *
 *	exit (postrouting -151)    JUDGED or LEASED: counted as egress, bits cleared; else it is asked whether it is egress
 *	                           (rules_egress.c): then it is unseen
 *	unseen                     counted, counted by pair (a sender that the policy does not know, or the gateway, as such),
 *	                           (closed) dropped
 *	gate_forward, gate_output  (forward and output 1000) bits that others set are cleared; the source has a block at all
 *	                           -> refuse
 *	refuse, refuse_local       SSH to the gateway, protected and what is not egress go on their way, else
 *	refuse_hit                 the blocked sets                                  -> reject or drop
 *	                           the sets of refused connections                   -> reject
 */
#include <arpa/inet.h>
#include <netinet/in.h>

#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>

#include "nft_object.h"
#include "nft_rule.h"
#include "nft_set.h"
#include "policy.h"
#include "rules_internal.h"

#define UNSEEN_PAIRS  65536
#define UNSEEN_KEEP   (86400ull * 1000)
#define V4_SADDR      12
#define V4_DADDR      16
#define V6_SADDR      8
#define V6_DADDR      24
#define KEEP	      TABLE_KEEP

static const uint8_t half_v6[16] = { 255, 255, 255, 255, 255, 255, 255, 255 }, zero[16];

static const struct nft_set_spec protect_set[2] = { RULES_RANGES4("protect4"), RULES_RANGES6("protect6") };
static const struct nft_set_spec known_set[2] = { RULES_RANGES4("known4"), RULES_RANGES6("known6") };

static void address_sets(struct rules *rules, struct nft_batch *b, const struct rules_spec *s)
{
	const struct rules_list protect = { s->protect, s->nprotect, 1 };
	const struct rules_list known[] = { { s->exit_host, s->nexit_host, 1 }, { s->inside, s->ninside, 1 } };

	rules_egress_sets(rules, b, KEEP, s);
	for (int v6 = 0; v6 <= 1; v6++) {
		rules_range_set(rules, b, KEEP, protect_set, v6, &protect, 1);
		rules_range_set(rules, b, KEEP, known_set, v6, known, ARRAY_SIZE(known));
	}
}

/* The pair as the judge names it: who has no row of its own counts as a pseudo-host, whose IPv4 form is its last four bytes.
 * NULL: who has. A rule for each: a full set ends the rule it stands in. */
static void unseen_rule(struct nft_batch *b, bool v6, const struct addr *pseudo)
{
	const uint32_t second = v6 ? NFT_REG_2 : NFT_REG32_01, len = v6 ? 16 : 4;
	struct nft_rule r = nft_rule(KEEP, "unseen");

	rules_family(&r, v6);
	nft_meta(&r, NFT_META_IIF, NFT_REG32_00);
	if (pseudo == &pair_gateway)
		nft_cmp_u32(&r, NFT_REG32_00, 0);
	else
		nft_cmp_not_u32(&r, NFT_REG32_00, 0);
	nft_payload(&r, NFT_REG_1, v6 ? V6_SADDR : V4_SADDR, len);
	if (pseudo == &pair_unlisted)
		nft_lookup_not(&r, known_set[v6].name, NFT_REG_1);
	else if (!pseudo)
		nft_lookup(&r, known_set[v6].name, 0, NFT_REG_1);
	if (pseudo)
		nft_bitwise(&r, NFT_REG_1, zero, pseudo->b + (v6 ? 0 : 12), len);
	nft_payload(&r, second, v6 ? V6_DADDR : V4_DADDR, len);
	if (v6)
		nft_bitwise(&r, second, half_v6, zero, 16);
	nft_update_counter(&r, v6 ? "unseen6" : "unseen4", NFT_REG_1);
	nft_rule_add(&r, b, "keep: unseen pairs");
}

static void unseen_rules(struct nft_batch *b, const struct rules_spec *s, const struct rules_marks *m)
{
	struct nft_rule r = nft_rule(KEEP, "unseen");

	nft_count(&r, "egress");
	nft_count(&r, "unseen");
	rules_mark_load(&r);
	rules_mark_put(&r, m, 0);
	nft_rule_add(&r, b, "keep: unseen");
	for (int v6 = 0; v6 <= 1; v6++) {
		unseen_rule(b, v6, NULL);
		unseen_rule(b, v6, &pair_gateway);
		unseen_rule(b, v6, &pair_unlisted);
	}
	if (!s->failure_closed)
		return;
	r = nft_rule(KEEP, "unseen");
	nft_verdict(&r, NF_DROP, NULL);
	nft_rule_add(&r, b, "keep: failure closed");
}

static void exit_rules(struct nft_batch *b, const struct rules_spec *s, const struct rules_marks *m)
{
	const uint32_t seen[] = { m->leased, m->judged };	/* a judged packet has cost far more than one comparison */
	const struct rules_split split = { KEEP, "exit", "exit_local", "unseen" };

	for (size_t i = 0; i < ARRAY_SIZE(seen); i++) {
		struct nft_rule r = nft_rule(KEEP, "exit");

		rules_mark_is(&r, m, seen[i]);
		nft_count(&r, "egress");
		rules_mark_put(&r, m, 0);
		nft_verdict(&r, NF_ACCEPT, NULL);
		nft_rule_add(&r, b, "keep: seen");
	}
	rules_egress_split(b, &split, s);
	unseen_rules(b, s, m);
}

/* Before any verdict of ours: nobody comes with one. */
static void gate_rules(struct nft_batch *b, const char *chain, const struct rules_marks *m)
{
	struct nft_rule r = nft_rule(KEEP, chain);

	rules_mark_is_set(&r, m);
	rules_mark_put(&r, m, 0);
	nft_rule_add(&r, b, "keep: marks of others");
	rules_block_gate(b, chain, "refuse");
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
	const struct rules_split split = { KEEP, "refuse", "refuse_local", "refuse_hit" };
	struct nft_rule r;

	ssh_rule(b);
	rules_daddr(b, KEEP, "refuse", protect_set, NF_ACCEPT, NULL);
	rules_egress_split(b, &split, s);

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
	exit_rules(b, s, m);
	refuse_rules(b, s);
	rules_block_lookups(b, "refuse_hit", "reject", s->needs_ct);
	rules_flow_lookups(b, "refuse_hit", "reject");
	gate_rules(b, "gate_forward", m);
	gate_rules(b, "gate_output", m);
}
