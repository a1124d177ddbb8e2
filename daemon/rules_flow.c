/* rules_flow.c - the sets of refused connections in table egressd_keep: address, port, address, port, protocol. */
#include "rules.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>

#include "nft_rule.h"
#include "rules_internal.h"

#define FLOWS_MAX 4096

#define FLOWS .flags = NFT_SET_TIMEOUT, .size = FLOWS_MAX, .timeout_ms = RULES_FLOW_MS, .each = "counter"

static const struct nft_set_spec flow_set[] = {
	{ .name = "flow4", .key_type = NFT_KEY_IPV4_FLOW, .key_len = 20, FLOWS },
	{ .name = "flow6", .key_type = NFT_KEY_IPV6_FLOW, .key_len = 44, FLOWS },
};

/* Where the parts stand in a key, and in the registers from the first on. */
struct place {
	unsigned addr_len, sport, dst, dport, proto;
};

static const struct place place[] = { { 4, 4, 8, 12, 16 }, { 16, 16, 20, 36, 40 } };

void rules_flow_sets(struct nft_batch *b)
{
	for (size_t i = 0; i < ARRAY_SIZE(flow_set); i++)
		nft_set_add(b, TABLE_KEEP, &flow_set[i], "keep: refused connections");
}

void rules_flow_lookups(struct nft_batch *b, const char *chain, const char *reject_chain)
{
	for (unsigned v6 = 0; v6 <= 1; v6++) {
		const struct place *p = &place[v6];
		struct nft_rule r = nft_rule(TABLE_KEEP, chain);

		nft_meta(&r, NFT_META_NFPROTO, NFT_REG32_00);
		nft_cmp_u8(&r, NFT_REG32_00, v6 ? NFPROTO_IPV6 : NFPROTO_IPV4);
		nft_payload(&r, NFT_REG32_00, v6 ? 8 : 12, p->addr_len);
		nft_transport(&r, NFT_REG32_00 + p->sport / 4, 0, 2);
		nft_payload(&r, NFT_REG32_00 + p->dst / 4, v6 ? 24 : 16, p->addr_len);
		nft_transport(&r, NFT_REG32_00 + p->dport / 4, 2, 2);
		nft_meta(&r, NFT_META_L4PROTO, NFT_REG32_00 + p->proto / 4);
		nft_lookup(&r, flow_set[v6].name, 0, NFT_REG32_00);
		nft_verdict(&r, NFT_GOTO, reject_chain);
		nft_rule_add(&r, b, "keep: refused connection lookup");
	}
}

static void key_of(const struct rules_flow *f, bool v6, uint8_t key[NFT_KEY_MAX])
{
	const struct place *p = &place[v6];
	const uint16_t sport = htons(f->sport), dport = htons(f->dport);
	const size_t skip = v6 ? 0 : 12;

	memcpy(key, f->src.b + skip, p->addr_len);
	memcpy(key + p->sport, &sport, sizeof(sport));
	memcpy(key + p->dst, f->dst.b + skip, p->addr_len);
	memcpy(key + p->dport, &dport, sizeof(dport));
	key[p->proto] = f->proto;
}

static struct rules_flow flow_of(const uint8_t *key, bool v6)
{
	const struct place *p = &place[v6];
	struct rules_flow f = { .proto = key[p->proto] };
	uint16_t port[2];

	memcpy(&port[0], key + p->sport, sizeof(port[0]));
	memcpy(&port[1], key + p->dport, sizeof(port[1]));
	f.sport = ntohs(port[0]);
	f.dport = ntohs(port[1]);
	f.src = v6 ? addr_from_v6(key) : addr_from_v4(key);
	f.dst = v6 ? addr_from_v6(key + p->dst) : addr_from_v4(key + p->dst);
	return f;
}

/* e has room for n. */
static int flow_add(struct rules *r, const struct rules_flow *f, size_t n, struct nft_elem *e)
{
	struct nft_batch b;
	const char *what;

	nft_batch_begin(&b, &r->keep);
	for (unsigned v6 = 0; v6 <= 1; v6++) {
		size_t count = 0;

		for (size_t i = 0; i < n; i++) {
			if (addr_is_v4(&f[i].src) == v6 || addr_is_v4(&f[i].dst) == v6)
				continue;
			e[count] = (struct nft_elem){ .timeout_ms = RULES_FLOW_MS };
			key_of(&f[i], v6, e[count++].key);
		}
		nft_elems_add(&b, TABLE_KEEP, &flow_set[v6], e, count, "refused connections: add");
		rules_block_gate_add(r, &b, v6, e, count, RULES_FLOW_MS);
	}
	return nft_batch_commit(&b, &what);
}

int rules_flow_add(struct rules *r, const struct rules_flow *f, size_t n)
{
	struct nft_elem *e = calloc(n + 1, sizeof(*e));
	int error = e ? -ENOENT : -ENOMEM;

	for (int i = 0; i < RULES_EXPIRY_TRIES && error == -ENOENT; i++)
		error = flow_add(r, f, n, e);
	free(e);
	return error == -ENFILE ? 0 : error;
}

int rules_flow_forget(struct rules *r)
{
	struct nft_batch b;
	const char *what;

	nft_batch_begin(&b, &r->keep);
	for (size_t i = 0; i < ARRAY_SIZE(flow_set); i++)
		nft_set_clear(&b, TABLE_KEEP, &flow_set[i], "refused connections: clear");
	return nft_batch_commit(&b, &what);
}

int rules_flow_dump(struct rules *r, int (*each)(void *ctx, const struct rules_flow *f, uint64_t packets, uint64_t bytes),
		    void *ctx)
{
	for (unsigned v6 = 0; v6 <= 1; v6++) {
		struct nft_dumped *d = NULL;
		size_t n = 0;
		int e = nft_set_dump(&r->keep, TABLE_KEEP, flow_set[v6].name, &d, &n);

		for (size_t i = 0; i < n && e == 0; i++) {
			const struct rules_flow f = flow_of(d[i].key, v6);

			e = each(ctx, &f, d[i].packets, d[i].bytes);
		}
		free(d);
		if (e < 0)
			return e;
	}
	return 0;
}
