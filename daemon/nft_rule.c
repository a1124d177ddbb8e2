/* nft_rule.c - see nft_rule.h. */
#include "nft_rule.h"

#include <errno.h>
#include <stdio.h>	/* the library's headers want it */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <libnftnl/expr.h>
#include <libnftnl/rule.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/xt_NFQUEUE.h>
#include <linux/netlink.h>

#include "nft_batch.h"

struct nft_rule nft_rule(const char *table, const char *chain)
{
	struct nft_rule r = { .rule = nftnl_rule_alloc() };

	r.failed = !r.rule;
	if (r.failed)
		return r;
	nftnl_rule_set_u32(r.rule, NFTNL_RULE_FAMILY, NFPROTO_INET);
	r.failed = nftnl_rule_set_str(r.rule, NFTNL_RULE_TABLE, table) < 0 ||
		   nftnl_rule_set_str(r.rule, NFTNL_RULE_CHAIN, chain) < 0;
	return r;
}

void nft_rule_add(struct nft_rule *r, struct nft_batch *b, const char *what)
{
	struct nlmsghdr *nlh;

	if (r->failed)
		nft_batch_fail(b, -ENOMEM);
	nlh = nft_batch_msg(b, NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, what);
	if (nlh)
		nftnl_rule_nlmsg_build_payload(nlh, r->rule);
	nft_batch_msg_end(b, nlh);
	if (r->rule)
		nftnl_rule_free(r->rule);
	r->rule = NULL;
}

/* An expression that already belongs to the rule; NULL when memory is out. */
static struct nftnl_expr *expr(struct nft_rule *r, const char *name)
{
	struct nftnl_expr *e = r->failed ? NULL : nftnl_expr_alloc(name);

	if (!e) {
		r->failed = true;
		return NULL;
	}
	nftnl_rule_add_expr(r->rule, e);
	return e;
}

void nft_meta(struct nft_rule *r, uint32_t key, uint32_t dreg)
{
	struct nftnl_expr *e = expr(r, "meta");

	if (!e)
		return;
	nftnl_expr_set_u32(e, NFTNL_EXPR_META_KEY, key);
	nftnl_expr_set_u32(e, NFTNL_EXPR_META_DREG, dreg);
}

void nft_meta_set(struct nft_rule *r, uint32_t key, uint32_t sreg)
{
	struct nftnl_expr *e = expr(r, "meta");

	if (!e)
		return;
	nftnl_expr_set_u32(e, NFTNL_EXPR_META_KEY, key);
	nftnl_expr_set_u32(e, NFTNL_EXPR_META_SREG, sreg);
}

void nft_ct(struct nft_rule *r, uint32_t key, uint32_t dreg)
{
	struct nftnl_expr *e = expr(r, "ct");

	if (!e)
		return;
	nftnl_expr_set_u32(e, NFTNL_EXPR_CT_KEY, key);
	nftnl_expr_set_u32(e, NFTNL_EXPR_CT_DREG, dreg);
}

static void compare(struct nft_rule *r, uint32_t op, uint32_t sreg, const void *data, uint32_t len)
{
	struct nftnl_expr *e = expr(r, "cmp");

	if (!e)
		return;
	nftnl_expr_set_u32(e, NFTNL_EXPR_CMP_SREG, sreg);
	nftnl_expr_set_u32(e, NFTNL_EXPR_CMP_OP, op);
	nftnl_expr_set(e, NFTNL_EXPR_CMP_DATA, data, len);
}

void nft_cmp(struct nft_rule *r, uint32_t sreg, const void *data, uint32_t len)
{
	compare(r, NFT_CMP_EQ, sreg, data, len);
}

void nft_cmp_u8(struct nft_rule *r, uint32_t sreg, uint8_t v)
{
	nft_cmp(r, sreg, &v, sizeof(v));
}

void nft_cmp_u16(struct nft_rule *r, uint32_t sreg, uint16_t v)
{
	nft_cmp(r, sreg, &v, sizeof(v));
}

void nft_cmp_u32(struct nft_rule *r, uint32_t sreg, uint32_t v)
{
	nft_cmp(r, sreg, &v, sizeof(v));
}

void nft_cmp_not_u32(struct nft_rule *r, uint32_t sreg, uint32_t v)
{
	compare(r, NFT_CMP_NEQ, sreg, &v, sizeof(v));
}

static void bitwise(struct nft_rule *r, uint32_t dreg, uint32_t sreg, const void *mask, const void *xor, uint32_t len)
{
	struct nftnl_expr *e = expr(r, "bitwise");

	if (!e)
		return;
	nftnl_expr_set_u32(e, NFTNL_EXPR_BITWISE_SREG, sreg);
	nftnl_expr_set_u32(e, NFTNL_EXPR_BITWISE_DREG, dreg);
	nftnl_expr_set_u32(e, NFTNL_EXPR_BITWISE_LEN, len);
	nftnl_expr_set(e, NFTNL_EXPR_BITWISE_MASK, mask, len);
	nftnl_expr_set(e, NFTNL_EXPR_BITWISE_XOR, xor, len);
}

void nft_bitwise(struct nft_rule *r, uint32_t reg, const void *mask, const void *xor, uint32_t len)
{
	bitwise(r, reg, reg, mask, xor, len);
}

void nft_mask(struct nft_rule *r, uint32_t dreg, uint32_t sreg, uint32_t mask)
{
	const uint32_t zero = 0;

	bitwise(r, dreg, sreg, &mask, &zero, sizeof(mask));
}

static void payload(struct nft_rule *r, uint32_t base, uint32_t dreg, uint32_t off, uint32_t len)
{
	struct nftnl_expr *e = expr(r, "payload");

	if (!e)
		return;
	nftnl_expr_set_u32(e, NFTNL_EXPR_PAYLOAD_DREG, dreg);
	nftnl_expr_set_u32(e, NFTNL_EXPR_PAYLOAD_BASE, base);
	nftnl_expr_set_u32(e, NFTNL_EXPR_PAYLOAD_OFFSET, off);
	nftnl_expr_set_u32(e, NFTNL_EXPR_PAYLOAD_LEN, len);
}

void nft_payload(struct nft_rule *r, uint32_t dreg, uint32_t off, uint32_t len)
{
	payload(r, NFT_PAYLOAD_NETWORK_HEADER, dreg, off, len);
}

void nft_transport(struct nft_rule *r, uint32_t dreg, uint32_t off, uint32_t len)
{
	payload(r, NFT_PAYLOAD_TRANSPORT_HEADER, dreg, off, len);
}

static void lookup(struct nft_rule *r, const char *set, uint32_t set_id, uint32_t sreg, uint32_t flags)
{
	struct nftnl_expr *e = expr(r, "lookup");

	if (!e)
		return;
	nftnl_expr_set_u32(e, NFTNL_EXPR_LOOKUP_SREG, sreg);
	if (nftnl_expr_set_str(e, NFTNL_EXPR_LOOKUP_SET, set) < 0)
		r->failed = true;
	if (set_id)
		nftnl_expr_set_u32(e, NFTNL_EXPR_LOOKUP_SET_ID, set_id);
	if (flags)
		nftnl_expr_set_u32(e, NFTNL_EXPR_LOOKUP_FLAGS, flags);
}

void nft_lookup(struct nft_rule *r, const char *set, uint32_t set_id, uint32_t sreg)
{
	lookup(r, set, set_id, sreg, 0);
}

void nft_lookup_not(struct nft_rule *r, const char *set, uint32_t sreg)
{
	lookup(r, set, 0, sreg, NFT_LOOKUP_F_INV);
}

void nft_verdict(struct nft_rule *r, int verdict, const char *chain)
{
	struct nftnl_expr *e = expr(r, "immediate");

	if (!e)
		return;
	nftnl_expr_set_u32(e, NFTNL_EXPR_IMM_DREG, NFT_REG_VERDICT);
	nftnl_expr_set_u32(e, NFTNL_EXPR_IMM_VERDICT, (uint32_t)verdict);
	if (chain && nftnl_expr_set_str(e, NFTNL_EXPR_IMM_CHAIN, chain) < 0)
		r->failed = true;
}

void nft_count(struct nft_rule *r, const char *object)
{
	struct nftnl_expr *e = expr(r, "objref");

	if (!e)
		return;
	nftnl_expr_set_u32(e, NFTNL_EXPR_OBJREF_IMM_TYPE, NFT_OBJECT_COUNTER);
	if (nftnl_expr_set_str(e, NFTNL_EXPR_OBJREF_IMM_NAME, object) < 0)
		r->failed = true;
}

void nft_object_of(struct nft_rule *r, const char *map, uint32_t sreg)
{
	struct nftnl_expr *e = expr(r, "objref");

	if (!e)
		return;
	nftnl_expr_set_u32(e, NFTNL_EXPR_OBJREF_SET_SREG, sreg);
	if (nftnl_expr_set_str(e, NFTNL_EXPR_OBJREF_SET_NAME, map) < 0)
		r->failed = true;
}

void nft_update_counter(struct nft_rule *r, const char *set, uint32_t sreg)
{
	struct nftnl_expr *e = expr(r, "dynset"), *counter = nftnl_expr_alloc("counter");

	if (!e || !counter) {
		r->failed = true;
		if (counter)
			nftnl_expr_free(counter);
		return;
	}
	nftnl_expr_set_u32(e, NFTNL_EXPR_DYNSET_SREG_KEY, sreg);
	nftnl_expr_set_u32(e, NFTNL_EXPR_DYNSET_OP, NFT_DYNSET_OP_UPDATE);
	if (nftnl_expr_set_str(e, NFTNL_EXPR_DYNSET_SET_NAME, set) < 0)
		r->failed = true;
	nftnl_expr_add_expr(e, NFTNL_EXPR_DYNSET_EXPR, counter);
}

void nft_reject(struct nft_rule *r, uint32_t type, uint8_t code)
{
	struct nftnl_expr *e = expr(r, "reject");

	if (!e)
		return;
	nftnl_expr_set_u32(e, NFTNL_EXPR_REJECT_TYPE, type);
	nftnl_expr_set_u8(e, NFTNL_EXPR_REJECT_CODE, code);
}

void nft_queue(struct nft_rule *r, uint16_t first, uint16_t count)
{
	struct nftnl_expr *e = expr(r, "queue");

	if (!e)
		return;
	nftnl_expr_set_u16(e, NFTNL_EXPR_QUEUE_NUM, first);
	nftnl_expr_set_u16(e, NFTNL_EXPR_QUEUE_TOTAL, count);
	nftnl_expr_set_u16(e, NFTNL_EXPR_QUEUE_FLAGS, NFT_QUEUE_FLAG_BYPASS);
}

void nft_queue_xt(struct nft_rule *r, uint16_t first, uint16_t count)
{
	struct nftnl_expr *e = expr(r, "target");
	/* x_tables wants the size rounded up to 8. */
	union {
		struct xt_NFQ_info_v3 v3;
		uint64_t align;
	} *info = calloc(1, sizeof(*info));

	if (!e || !info) {
		free(info);
		r->failed = true;
		return;
	}
	info->v3 = (struct xt_NFQ_info_v3){ .queuenum = first, .queues_total = count, .flags = NFQ_FLAG_BYPASS };
	if (nftnl_expr_set_str(e, NFTNL_EXPR_TG_NAME, "NFQUEUE") < 0)
		r->failed = true;
	nftnl_expr_set_u32(e, NFTNL_EXPR_TG_REV, 3);
	nftnl_expr_set(e, NFTNL_EXPR_TG_INFO, info, sizeof(*info));	/* takes the memory over */
}
