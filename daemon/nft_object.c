/* nft_object.c - see nft_object.h. The messages are a few strings each: built with libmnl alone. */
#include "nft_object.h"

#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <string.h>

#include <libmnl/libmnl.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>

#include "nft_batch.h"

#define QUERY_LEN 1024	/* header and a few names of at most NFT_NAME_MAXLEN, used with our own short ones */

void nft_table_add(struct nft_batch *b, const char *table, bool owned, const char *what)
{
	struct nlmsghdr *nlh = nft_batch_msg(b, NFT_MSG_NEWTABLE, NLM_F_CREATE, what);

	if (!nlh)
		return;
	mnl_attr_put_strz(nlh, NFTA_TABLE_NAME, table);
	mnl_attr_put_u32(nlh, NFTA_TABLE_FLAGS, htonl(owned ? NFT_TABLE_F_OWNER : 0));
	nft_batch_msg_end(b, nlh);
}

void nft_table_del(struct nft_batch *b, const char *table, const char *what)
{
	struct nlmsghdr *nlh = nft_batch_msg(b, NFT_MSG_DELTABLE, 0, what);

	if (!nlh)
		return;
	mnl_attr_put_strz(nlh, NFTA_TABLE_NAME, table);
	nft_batch_msg_end(b, nlh);
}

void nft_chain_add(struct nft_batch *b, const char *table, const char *chain, const char *what)
{
	struct nlmsghdr *nlh = nft_batch_msg(b, NFT_MSG_NEWCHAIN, NLM_F_CREATE, what);

	if (!nlh)
		return;
	mnl_attr_put_strz(nlh, NFTA_CHAIN_TABLE, table);
	mnl_attr_put_strz(nlh, NFTA_CHAIN_NAME, chain);
	nft_batch_msg_end(b, nlh);
}

void nft_base_chain_add(struct nft_batch *b, const char *table, const char *chain, uint32_t hook, int32_t priority,
			const char *what)
{
	struct nlmsghdr *nlh = nft_batch_msg(b, NFT_MSG_NEWCHAIN, NLM_F_CREATE, what);
	struct nlattr *nest;

	if (!nlh)
		return;
	mnl_attr_put_strz(nlh, NFTA_CHAIN_TABLE, table);
	mnl_attr_put_strz(nlh, NFTA_CHAIN_NAME, chain);
	nest = mnl_attr_nest_start(nlh, NFTA_CHAIN_HOOK);
	mnl_attr_put_u32(nlh, NFTA_HOOK_HOOKNUM, htonl(hook));
	mnl_attr_put_u32(nlh, NFTA_HOOK_PRIORITY, htonl((uint32_t)priority));
	mnl_attr_nest_end(nlh, nest);
	mnl_attr_put_strz(nlh, NFTA_CHAIN_TYPE, "filter");
	nft_batch_msg_end(b, nlh);
}

void nft_chain_flush(struct nft_batch *b, const char *table, const char *chain, const char *what)
{
	struct nlmsghdr *nlh = nft_batch_msg(b, NFT_MSG_DELRULE, 0, what);

	if (!nlh)
		return;
	mnl_attr_put_strz(nlh, NFTA_RULE_TABLE, table);
	mnl_attr_put_strz(nlh, NFTA_RULE_CHAIN, chain);
	nft_batch_msg_end(b, nlh);
}

void nft_counter_add(struct nft_batch *b, const char *table, const char *counter, const char *what)
{
	struct nlmsghdr *nlh = nft_batch_msg(b, NFT_MSG_NEWOBJ, NLM_F_CREATE, what);
	struct nlattr *nest;

	if (!nlh)
		return;
	mnl_attr_put_strz(nlh, NFTA_OBJ_TABLE, table);
	mnl_attr_put_strz(nlh, NFTA_OBJ_NAME, counter);
	mnl_attr_put_u32(nlh, NFTA_OBJ_TYPE, htonl(NFT_OBJECT_COUNTER));
	nest = mnl_attr_nest_start(nlh, NFTA_OBJ_DATA);
	mnl_attr_nest_end(nlh, nest);
	nft_batch_msg_end(b, nlh);
}

void nft_quota_put(struct nft_batch *b, const char *table, const char *quota, uint64_t bytes, const char *what)
{
	struct nlmsghdr *nlh = nft_batch_msg(b, NFT_MSG_NEWOBJ, NLM_F_CREATE, what);
	struct nlattr *nest;

	if (!nlh)
		return;
	mnl_attr_put_strz(nlh, NFTA_OBJ_TABLE, table);
	mnl_attr_put_strz(nlh, NFTA_OBJ_NAME, quota);
	mnl_attr_put_u32(nlh, NFTA_OBJ_TYPE, htonl(NFT_OBJECT_QUOTA));
	nest = mnl_attr_nest_start(nlh, NFTA_OBJ_DATA);
	mnl_attr_put_u64(nlh, NFTA_QUOTA_BYTES, htobe64(bytes));
	mnl_attr_put_u32(nlh, NFTA_QUOTA_FLAGS, 0);
	mnl_attr_nest_end(nlh, nest);
	nft_batch_msg_end(b, nlh);
}

void nft_quota_del(struct nft_batch *b, const char *table, const char *quota, const char *what)
{
	struct nlmsghdr *nlh = nft_batch_msg(b, NFT_MSG_DELOBJ, 0, what);

	if (!nlh)
		return;
	mnl_attr_put_strz(nlh, NFTA_OBJ_TABLE, table);
	mnl_attr_put_strz(nlh, NFTA_OBJ_NAME, quota);
	mnl_attr_put_u32(nlh, NFTA_OBJ_TYPE, htonl(NFT_OBJECT_QUOTA));
	nft_batch_msg_end(b, nlh);
}

/* Attributes of a message or nest by type; those that do not fit the kernel's own form are left out. */
struct attrs {
	const struct nlattr *at[16];
};

static int attrs_one(const struct nlattr *a, void *data)
{
	struct attrs *t = data;

	if (mnl_attr_get_type(a) < 16)
		t->at[mnl_attr_get_type(a)] = a;
	return MNL_CB_OK;
}

static uint32_t attrs_u32(const struct attrs *t, unsigned type)
{
	const struct nlattr *a = t->at[type];

	return a && mnl_attr_get_payload_len(a) == 4 ? ntohl(mnl_attr_get_u32(a)) : 0;
}

static uint64_t attrs_u64(const struct attrs *t, unsigned type)
{
	const struct nlattr *a = t->at[type];

	return a && mnl_attr_get_payload_len(a) == 8 ? be64toh(mnl_attr_get_u64(a)) : 0;
}

static int table_answer(const struct nlmsghdr *nlh, void *ctx)
{
	struct nft_table_info *info = ctx;
	struct attrs t = { 0 };

	(void)mnl_attr_parse(nlh, sizeof(struct nfgenmsg), attrs_one, &t);
	info->owned = attrs_u32(&t, NFTA_TABLE_FLAGS) & NFT_TABLE_F_OWNER;
	info->owner = attrs_u32(&t, NFTA_TABLE_OWNER);
	return 0;
}

int nft_table_get(struct nft_sock *s, const char *table, struct nft_table_info *ret)
{
	char buf[QUERY_LEN];
	struct nlmsghdr *nlh = nft_query_msg(s, buf, NFT_MSG_GETTABLE, NLM_F_ACK);

	mnl_attr_put_strz(nlh, NFTA_TABLE_NAME, table);
	return nft_query_run(s, nlh, table_answer, ret);
}

static int chain_answer(const struct nlmsghdr *nlh, void *ctx)
{
	struct attrs t = { 0 };

	(void)mnl_attr_parse(nlh, sizeof(struct nfgenmsg), attrs_one, &t);
	*(uint32_t *)ctx = attrs_u32(&t, NFTA_CHAIN_USE);
	return 0;
}

int nft_chain_get(struct nft_sock *s, const char *table, const char *chain, uint32_t *ret_use)
{
	char buf[QUERY_LEN];
	struct nlmsghdr *nlh = nft_query_msg(s, buf, NFT_MSG_GETCHAIN, NLM_F_ACK);

	mnl_attr_put_strz(nlh, NFTA_CHAIN_TABLE, table);
	mnl_attr_put_strz(nlh, NFTA_CHAIN_NAME, chain);
	return nft_query_run(s, nlh, chain_answer, ret_use);
}

struct counter_values {
	uint64_t packets, bytes;
};

static int counter_answer(const struct nlmsghdr *nlh, void *ctx)
{
	struct counter_values *v = ctx;
	struct attrs t = { 0 }, data = { 0 };

	(void)mnl_attr_parse(nlh, sizeof(struct nfgenmsg), attrs_one, &t);
	if (!t.at[NFTA_OBJ_DATA])
		return -EBADMSG;
	(void)mnl_attr_parse_nested(t.at[NFTA_OBJ_DATA], attrs_one, &data);
	v->packets = attrs_u64(&data, NFTA_COUNTER_PACKETS);
	v->bytes = attrs_u64(&data, NFTA_COUNTER_BYTES);
	return 0;
}

int nft_counter_get(struct nft_sock *s, const char *table, const char *counter, uint64_t *ret_packets,
		    uint64_t *ret_bytes)
{
	char buf[QUERY_LEN];
	struct nlmsghdr *nlh = nft_query_msg(s, buf, NFT_MSG_GETOBJ, NLM_F_ACK);
	struct counter_values v = { 0 };
	int r;

	mnl_attr_put_strz(nlh, NFTA_OBJ_TABLE, table);
	mnl_attr_put_strz(nlh, NFTA_OBJ_NAME, counter);
	mnl_attr_put_u32(nlh, NFTA_OBJ_TYPE, htonl(NFT_OBJECT_COUNTER));
	r = nft_query_run(s, nlh, counter_answer, &v);
	if (r < 0)
		return r;
	*ret_packets = v.packets;
	*ret_bytes = v.bytes;
	return 0;
}

static int quota_answer(const struct nlmsghdr *nlh, void *ctx)
{
	struct attrs t = { 0 }, data = { 0 };

	(void)mnl_attr_parse(nlh, sizeof(struct nfgenmsg), attrs_one, &t);
	if (!t.at[NFTA_OBJ_DATA])
		return -EBADMSG;
	(void)mnl_attr_parse_nested(t.at[NFTA_OBJ_DATA], attrs_one, &data);
	*(struct nft_quota *)ctx = (struct nft_quota){ .bytes = attrs_u64(&data, NFTA_QUOTA_BYTES),
						       .used = attrs_u64(&data, NFTA_QUOTA_CONSUMED) };
	return 0;
}

int nft_quota_get(struct nft_sock *s, const char *table, const char *quota, struct nft_quota *ret)
{
	char buf[QUERY_LEN];
	struct nlmsghdr *nlh = nft_query_msg(s, buf, NFT_MSG_GETOBJ, NLM_F_ACK);

	mnl_attr_put_strz(nlh, NFTA_OBJ_TABLE, table);
	mnl_attr_put_strz(nlh, NFTA_OBJ_NAME, quota);
	mnl_attr_put_u32(nlh, NFTA_OBJ_TYPE, htonl(NFT_OBJECT_QUOTA));
	return nft_query_run(s, nlh, quota_answer, ret);
}

struct names {
	int (*each)(void *ctx, const char *quota);
	void *ctx;
};

static int name_answer(const struct nlmsghdr *nlh, void *ctx)
{
	const struct names *n = ctx;
	struct attrs t = { 0 };

	(void)mnl_attr_parse(nlh, sizeof(struct nfgenmsg), attrs_one, &t);
	if (!t.at[NFTA_OBJ_NAME] || mnl_attr_validate(t.at[NFTA_OBJ_NAME], MNL_TYPE_NUL_STRING) < 0)
		return -EBADMSG;
	return n->each(n->ctx, mnl_attr_get_str(t.at[NFTA_OBJ_NAME]));
}

int nft_quota_dump(struct nft_sock *s, const char *table, int (*each)(void *ctx, const char *quota), void *ctx)
{
	char buf[QUERY_LEN];
	struct nlmsghdr *nlh = nft_query_msg(s, buf, NFT_MSG_GETOBJ, NLM_F_DUMP);
	struct names n = { each, ctx };

	mnl_attr_put_strz(nlh, NFTA_OBJ_TABLE, table);
	mnl_attr_put_u32(nlh, NFTA_OBJ_TYPE, htonl(NFT_OBJECT_QUOTA));
	return nft_query_run(s, nlh, name_answer, &n);
}
