/* rules_block.c - the blocked sets of table egressd_keep, and what is read back from it.
 *
 * Sixteen sets: pair or host, all of it or some ports of a protocol by who opened, IPv4 or IPv6, reject or drop. An element has its
 * timeout and counts what it refuses. Before them, and before the sets of refused connections, stand two gate sets, every source that has
 * one at all: a packet of anybody else meets one lookup. A gate element of a block has no timeout; one that outlives its blocks costs a few
 * lookups until the next apply, or until the set is full. One of refused connections alone ends with the last of them: whoever is refused
 * may make up sources without end. A set that can have timeouts is looked up as fast as one without a size (both are nft_set_rhash_type).
 */
#include "rules.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <linux/netfilter.h>
#include <linux/netfilter/nf_conntrack_tuple_common.h>
#include <linux/netfilter/nf_tables.h>

#include "nft_rule.h"
#include "nft_set.h"
#include "pair.h"
#include "rules_internal.h"

#define BLOCKS_MAX 65536
#define GATE_MAX   (2 * BLOCKS_MAX)

#define V4_PAIR(n) .name = n, .key_type = NFT_KEY_IPV4_PAIR, .key_len = 8
#define V6_PAIR(n) .name = n, .key_type = NFT_KEY_IPV6_PAIR, .key_len = 32
#define V4_HOST(n) .name = n, .key_type = NFT_KEY_IPV4, .key_len = 4
#define V6_HOST(n) .name = n, .key_type = NFT_KEY_IPV6, .key_len = 16
#define BLOCKED	   .flags = NFT_SET_TIMEOUT, .size = BLOCKS_MAX, .each = "counter"
#define GATE	   .flags = NFT_SET_TIMEOUT, .size = GATE_MAX
#define SERVICE(p) .flags = NFT_SET_TIMEOUT | NFT_SET_INTERVAL | NFT_SET_CONCAT, .size = BLOCKS_MAX, .each = "counter", \
		   .parts = (p), .nparts = ARRAY_SIZE(p)
#define V4_PAIR_SERVICE(n) .name = n, .key_type = NFT_KEY_IPV4_SERVICE, .key_len = 20, SERVICE(pair4_part)
#define V6_PAIR_SERVICE(n) .name = n, .key_type = NFT_KEY_IPV6_SERVICE, .key_len = 44, SERVICE(pair6_part)
#define V4_HOST_SERVICE(n) .name = n, .key_type = NFT_KEY_IPV4_HOST_SERVICE, .key_len = 16, SERVICE(host4_part)
#define V6_HOST_SERVICE(n) .name = n, .key_type = NFT_KEY_IPV6_HOST_SERVICE, .key_len = 28, SERVICE(host6_part)

/* Real lengths: of one that is padded, a range of all ports would be many. */
static const uint8_t pair4_part[] = { 4, 4, 1, 2, 1 }, pair6_part[] = { 16, 16, 1, 2, 1 };
static const uint8_t host4_part[] = { 4, 1, 2, 1 }, host6_part[] = { 16, 1, 2, 1 };

/* Index: kind << 2 | v6 << 1 | drop */
static const struct nft_set_spec block_set[] = {
	{ V4_PAIR("pair4_reject"), BLOCKED }, { V4_PAIR("pair4_drop"), BLOCKED },
	{ V6_PAIR("pair6_reject"), BLOCKED }, { V6_PAIR("pair6_drop"), BLOCKED },
	{ V4_HOST("host4_reject"), BLOCKED }, { V4_HOST("host4_drop"), BLOCKED },
	{ V6_HOST("host6_reject"), BLOCKED }, { V6_HOST("host6_drop"), BLOCKED },
	{ V4_PAIR_SERVICE("pair4_service_reject") }, { V4_PAIR_SERVICE("pair4_service_drop") },
	{ V6_PAIR_SERVICE("pair6_service_reject") }, { V6_PAIR_SERVICE("pair6_service_drop") },
	{ V4_HOST_SERVICE("host4_service_reject") }, { V4_HOST_SERVICE("host4_service_drop") },
	{ V6_HOST_SERVICE("host6_service_reject") }, { V6_HOST_SERVICE("host6_service_drop") },
};
static const struct nft_set_spec gate_set[] = { { V4_HOST("gate4"), GATE }, { V6_HOST("gate6"), GATE } };
static const struct nft_set_spec old_gate[] = { { V4_HOST("blocked4") }, { V6_HOST("blocked6") } };
static const char gate_full[] = "blocked sources: add";

enum { SET_DROP = 1, SET_V6 = 2, SET_HOST = 4, SET_SERVICE = 8, BLOCK_SETS = ARRAY_SIZE(block_set) };

_Static_assert(ARRAY_SIZE(block_set) == 16, "four bits");
_Static_assert(SET_HOST == RULES_BLOCK_HOST << 2 && SET_SERVICE == RULES_BLOCK_PAIR_SERVICE << 2, "kind is the upper two");

/* Where the parts of a set's keys stand, in bytes: source, destination (not of hosts); of services protocol, port, direction. */
static size_t src_len(unsigned set)
{
	return set & SET_V6 ? 16 : 4;
}

static size_t service_at(unsigned set)
{
	return src_len(set) * (set & SET_HOST ? 1 : 2);
}

void rules_block_sets(struct nft_batch *b)
{
	for (size_t i = 0; i < BLOCK_SETS; i++)
		nft_set_add(b, TABLE_KEEP, &block_set[i], "keep: blocked set");
	for (size_t i = 0; i < BLOCK_SETS; i++)
		if (i & SET_SERVICE)	/* [U2] */
			nft_set_clear(b, TABLE_KEEP, &block_set[i], "keep: blocked set: clear");
	for (size_t i = 0; i < ARRAY_SIZE(gate_set); i++)
		nft_set_add(b, TABLE_KEEP, &gate_set[i], "keep: set of blocked sources");
}

/* The kernel deletes no set that is not there. */
void rules_block_gate_older(struct nft_batch *b)
{
	for (size_t i = 0; i < ARRAY_SIZE(old_gate); i++) {
		nft_set_add(b, TABLE_KEEP, &old_gate[i], "keep: set of an older version");
		nft_set_del(b, TABLE_KEEP, &old_gate[i], "keep: set of an older version");
	}
}

static void source_load(struct nft_rule *r, bool v6)
{
	nft_meta(r, NFT_META_NFPROTO, NFT_REG32_00);
	nft_cmp_u8(r, NFT_REG32_00, v6 ? NFPROTO_IPV6 : NFPROTO_IPV4);
	nft_payload(r, NFT_REG_1, v6 ? 8 : 12, v6 ? 16 : 4);
}

void rules_block_gate(struct nft_batch *b, const char *chain, const char *refuse_chain)
{
	for (int v6 = 0; v6 <= 1; v6++) {
		struct nft_rule r = nft_rule(TABLE_KEEP, chain);

		source_load(&r, v6);
		nft_lookup(&r, gate_set[v6].name, 0, NFT_REG_1);
		nft_verdict(&r, NFT_GOTO, refuse_chain);
		nft_rule_add(&r, b, "keep: blocked sources");
	}
}

static void key_load(struct nft_rule *r, unsigned set)
{
	static const uint8_t half[16] = { 255, 255, 255, 255, 255, 255, 255, 255 }, zero[16];
	const bool v6 = set & SET_V6;

	source_load(r, v6);
	if (!(set & SET_HOST))
		nft_payload(r, v6 ? NFT_REG_2 : NFT_REG32_01, v6 ? 24 : 16, v6 ? 16 : 4);
	if (!(set & SET_HOST) && v6)
		nft_bitwise(r, NFT_REG_2, half, zero, 16);
}

/* The accepting end's port: of replies the source. */
static void service_load(struct nft_rule *r, uint32_t reg, uint8_t direction)
{
	nft_ct(r, NFT_CT_DIRECTION, reg + 2);
	nft_cmp_u8(r, reg + 2, direction);
	nft_meta(r, NFT_META_L4PROTO, reg);
	nft_transport(r, reg + 1, direction == IP_CT_DIR_REPLY ? 0 : 2, 2);
}

static void lookup_rule(struct nft_batch *b, const char *chain, const char *reject_chain, unsigned set, uint8_t direction)
{
	struct nft_rule r = nft_rule(TABLE_KEEP, chain);

	key_load(&r, set);
	if (set & SET_SERVICE)
		service_load(&r, NFT_REG32_00 + (uint32_t)service_at(set) / 4, direction);
	nft_lookup(&r, block_set[set].name, 0, NFT_REG_1);
	nft_verdict(&r, set & SET_DROP ? NF_DROP : NFT_GOTO, set & SET_DROP ? NULL : reject_chain);
	nft_rule_add(&r, b, "keep: blocked set lookup");
}

void rules_block_lookups(struct nft_batch *b, const char *chain, const char *reject_chain, bool services)
{
	for (unsigned set = 0; set < BLOCK_SETS; set++) {
		if (!(set & SET_SERVICE)) {
			lookup_rule(b, chain, reject_chain, set, 0);
		} else if (services) {
			lookup_rule(b, chain, reject_chain, set, IP_CT_DIR_ORIGINAL);
			lookup_rule(b, chain, reject_chain, set, IP_CT_DIR_REPLY);
		}
	}
}

/* One block as the kernel has it: an element of set[0] (wanted), none of set[0] ^ SET_DROP. */
struct change {
	unsigned set;
	size_t order;
	struct nft_elem elem;
	uint8_t key_end[NFT_KEY_MAX];	/* of services */
	bool have, have_other;
};

static void key_service(uint8_t *key, const struct rules_service *s, uint8_t proto, uint16_t port)
{
	port = htons(port);
	key[0] = proto;
	memcpy(key + 4, &port, sizeof(port));
	key[8] = s->by_outside ? IP_CT_DIR_REPLY : IP_CT_DIR_ORIGINAL;
}

static int change_make(const struct rules_block *b, size_t order, struct change *ret)
{
	const bool v6 = !addr_is_v4(&b->src);
	const struct addr dst = addr_mask(&b->dst.addr, v6 ? 64 : 128);
	const unsigned set = (unsigned)b->kind << 2 | (v6 ? SET_V6 : 0) | (b->reject ? 0 : SET_DROP);
	const size_t len = src_len(set);

	if (set >= BLOCK_SETS || (!(set & SET_HOST) && addr_is_v4(&b->dst.addr) == v6))
		return -EINVAL;
	*ret = (struct change){ .order = order, .set = set };
	ret->elem.timeout_ms = b->timeout_ms;
	memcpy(ret->elem.key, b->src.b + 16 - len, len);
	if (!(set & SET_HOST))
		memcpy(ret->elem.key + len, dst.b + 16 - len, len);
	if (set & SET_SERVICE) {
		memcpy(ret->key_end, ret->elem.key, sizeof(ret->key_end));
		key_service(ret->elem.key + service_at(set), &b->service, b->service.proto, b->service.lo);
		key_service(ret->key_end + service_at(set), &b->service, b->service.proto_hi, b->service.hi);
	}
	return 0;
}

/* Same block apart from reject or drop. */
static int change_same(const struct change *a, const struct change *b)
{
	if ((a->set | SET_DROP) != (b->set | SET_DROP))
		return a->set < b->set ? -1 : 1;
	return memcmp(a->elem.key, b->elem.key, sizeof(a->elem.key));
}

static int change_order(const void *x, const void *y)
{
	const struct change *a = x, *b = y;
	const int same = change_same(a, b);

	return same ? same : a->order < b->order ? -1 : 1;
}

/* 0 is for ever. */
static uint64_t longer(uint64_t a_ms, uint64_t b_ms)
{
	return a_ms && b_ms ? MAX_OF(a_ms, b_ms) : 0;
}

/* Sorted by block, of several for the same block the last, with the longest time. */
static int changes_make(const struct rules_block *b, size_t n, struct change *c, size_t *ret_count)
{
	size_t count = 0;

	for (size_t i = 0; i < n; i++) {
		const int r = change_make(&b[i], i, &c[i]);

		if (r < 0)
			return r;
	}
	qsort(c, n, sizeof(*c), change_order);
	for (size_t i = 0; i < n; i++) {
		if (count && change_same(&c[count - 1], &c[i]) == 0) {
			count--;
			c[i].elem.timeout_ms = longer(c[count].elem.timeout_ms, c[i].elem.timeout_ms);
		}
		c[count++] = c[i];
	}
	*ret_count = count;
	return 0;
}

/* What of it is in the kernel now: deleting what is not there would undo the whole transaction. */
static int change_look(struct rules *r, struct change *c)
{
	for (unsigned other = 0; other <= SET_DROP; other++) {
		struct nft_dumped d = { 0 };
		const int e = nft_elem_get(&r->keep, TABLE_KEEP, &block_set[c->set ^ other], c->elem.key, &d);

		if (e < 0 && e != -ENOENT)
			return e;
		*(other ? &c->have_other : &c->have) = e == 0;
		if (e == 0)	/* several blocks may have the same element, and who ends one deletes it */
			c->elem.timeout_ms = longer(c->elem.timeout_ms, d.expires_ms);
	}
	return 0;
}

/* All elements of one set that the test wants, put into e. */
static size_t changes_pick(const struct change *c, size_t n, unsigned set, bool remove, struct nft_elem *e)
{
	size_t count = 0;

	for (size_t i = 0; i < n; i++) {
		if (remove ? (c[i].set == set && c[i].have) || ((c[i].set ^ SET_DROP) == set && c[i].have_other) :
			     c[i].set == set) {
			e[count] = c[i].elem;
			e[count++].key_end = set & SET_SERVICE ? c[i].key_end : NULL;
		}
	}
	return count;
}

static int key_order(const void *x, const void *y)
{
	const struct nft_elem *a = x, *b = y;

	return memcmp(a->key, b->key, sizeof(a->key));
}

/* By a look at each: adding an element that is there leaves its timeout as it is, or (since Linux 6.12) gives one that it has another. */
void rules_block_gate_add(struct rules *r, struct nft_batch *b, bool v6, const struct nft_elem *e, size_t n, uint64_t timeout_ms)
{
	struct nft_elem *add = calloc(n + 1, sizeof(*add)), *del = calloc(n + 1, sizeof(*del));
	size_t nadd = 0, ndel = 0;
	int error = add && del ? 0 : -ENOMEM;

	for (size_t i = 0; i < n && error == 0; i++) {
		memcpy(add[i].key, e[i].key, gate_set[v6].key_len);
		add[i].timeout_ms = timeout_ms;
	}
	if (n && error == 0)
		qsort(add, n, sizeof(*add), key_order);
	for (size_t i = 0; i < n && error == 0; i++) {
		struct nft_dumped d = { 0 };
		int have;

		if (i && key_order(&add[i - 1], &add[i]) == 0)
			continue;
		have = nft_elem_get(&r->owner, TABLE_KEEP, &gate_set[v6], add[i].key, &d);	/* the batch is of the other socket */
		if (have < 0 && have != -ENOENT)
			error = have;
		if (have == 0 && !d.timed)
			continue;
		if (have == 0)
			del[ndel++] = add[i];
		add[nadd++] = add[i];
	}
	if (error < 0)
		nft_batch_fail(b, error);
	nft_elems_del(b, TABLE_KEEP, &gate_set[v6], del, error ? 0 : ndel, "blocked sources: delete");
	nft_elems_add(b, TABLE_KEEP, &gate_set[v6], add, error ? 0 : nadd, gate_full);
	free(add);
	free(del);
}

static int changes_commit(struct rules *r, const struct change *c, size_t n, struct nft_elem *e, bool add, const char **ret_what)
{
	struct nft_batch b;
	size_t count;

	nft_batch_begin(&b, &r->keep);
	for (unsigned set = 0; set < BLOCK_SETS; set++) {
		count = changes_pick(c, n, set, true, e);
		nft_elems_del(&b, TABLE_KEEP, &block_set[set], e, count, "blocked elements: delete");
		if (!add)
			continue;
		count = changes_pick(c, n, set, false, e);
		nft_elems_add(&b, TABLE_KEEP, &block_set[set], e, count, "blocked elements: add");
		rules_block_gate_add(r, &b, set & SET_V6, e, count, 0);
	}
	return nft_batch_commit(&b, ret_what);
}

static int change_blocks(struct rules *r, const struct rules_block *blocks, size_t n, bool add)
{
	struct change *c;
	const char *what = "";
	struct nft_elem *e;
	bool regated = false;
	size_t count = 0;
	int result;

	if (!n)
		return 0;
	c = calloc(n, sizeof(*c));
	e = calloc(n, sizeof(*e));
	result = c && e ? changes_make(blocks, n, c, &count) : -ENOMEM;
	if (result == 0)
		result = -ENOENT;
	/* An element may expire between look and commit: then the whole is refused, and looked at again. */
	for (int i = 0; i < RULES_EXPIRY_TRIES && result == -ENOENT; i++) {
		result = 0;
		for (size_t j = 0; j < count && result == 0; j++)
			result = change_look(r, &c[j]);
		if (result == 0)
			result = changes_commit(r, c, count, e, add, &what);
		if (result == -ENFILE && what == gate_full && !regated) {
			regated = true;
			result = rules_regate(r) < 0 ? -ENFILE : -ENOENT;
		}
	}
	free(c);
	free(e);
	return result;
}

int rules_block_add(struct rules *r, const struct rules_block *b, size_t n)
{
	return change_blocks(r, b, n, true);
}

int rules_block_del(struct rules *r, const struct rules_block *b, size_t n)
{
	return change_blocks(r, b, n, false);
}

static struct addr key_addr(const uint8_t *key, bool v6)
{
	return v6 ? addr_from_v6(key) : addr_from_v4(key);
}

static struct rules_block key_block(unsigned set, const struct nft_dumped *d)
{
	const bool v6 = set & SET_V6;
	struct rules_block b = { .kind = (uint8_t)(set >> 2),
				 .reject = !(set & SET_DROP),
				 .src = key_addr(d->key, v6),
				 .timeout_ms = d->expires_ms };

	if (!(set & SET_HOST)) {
		b.dst.addr = key_addr(d->key + (v6 ? 16 : 4), v6);
		b.dst.len = v6 ? 64 : 128;
	}
	if (set & SET_SERVICE) {
		const uint8_t *key = d->key + service_at(set), *end = d->key_end + service_at(set);

		b.service = (struct rules_service){ .lo = (uint16_t)(key[4] << 8 | key[5]), .hi = (uint16_t)(end[4] << 8 | end[5]),
						    .proto = key[0], .proto_hi = end[0], .by_outside = key[8] == IP_CT_DIR_REPLY };
	}
	return b;
}

int rules_block_clear_services(struct rules *r)
{
	struct nft_batch b;
	const char *what;

	nft_batch_begin(&b, &r->keep);
	for (size_t i = 0; i < BLOCK_SETS; i++)
		if (i & SET_SERVICE)
			nft_set_clear(&b, TABLE_KEEP, &block_set[i], "blocked elements of services: clear");
	return nft_batch_commit(&b, &what);
}

int rules_block_dump(struct rules *r,
		     int (*each)(void *ctx, const struct rules_block *b, uint64_t packets, uint64_t bytes), void *ctx)
{
	for (unsigned set = 0; set < BLOCK_SETS; set++) {
		struct nft_dumped *d = NULL;
		size_t n = 0;
		int e = nft_set_dump(&r->keep, TABLE_KEEP, block_set[set].name, &d, &n);

		if (e == -ENOENT)	/* tables of an older version */
			continue;
		for (size_t i = 0; i < n && e == 0; i++) {
			const struct rules_block b = key_block(set, &d[i]);

			e = each(ctx, &b, d[i].packets, d[i].bytes);
		}
		free(d);
		if (e < 0)
			return e;
	}
	return 0;
}

/* Keys of the sources of one family's elements. */
static int sources(struct rules *r, bool v6, struct nft_elem **ret_elems, size_t *ret_count)
{
	struct nft_elem *all = NULL;
	size_t count = 0;

	for (unsigned set = 0; set < BLOCK_SETS; set++) {
		struct nft_dumped *d = NULL;
		struct nft_elem *more;
		size_t n = 0;
		int error;

		if (!!(set & SET_V6) != v6)
			continue;
		error = nft_set_dump(&r->keep, TABLE_KEEP, block_set[set].name, &d, &n);
		more = error == 0 || error == -ENOENT ? realloc(all, (count + n + 1) * sizeof(*all)) : NULL;
		if (!more) {
			free(all);
			free(d);
			return error && error != -ENOENT ? error : -ENOMEM;
		}
		all = more;
		memset(all + count, 0, n * sizeof(*all));
		for (size_t i = 0; i < n; i++)
			memcpy(all[count++].key, d[i].key, v6 ? 16 : 4);
		free(d);
	}
	*ret_elems = all;
	*ret_count = count;
	return 0;
}

void rules_block_regate(struct rules *r, struct nft_batch *b)
{
	for (unsigned v6 = 0; v6 <= 1; v6++) {
		struct nft_elem *e = NULL;
		size_t n = 0;
		const int error = sources(r, v6, &e, &n);

		if (error < 0)
			nft_batch_fail(b, error);
		else
			nft_set_sync(&r->keep, b, TABLE_KEEP, &gate_set[v6], e, n, "keep: blocked sources");
		free(e);
	}
}

/* Their IPv4 form: rules_keep.c. No sender has such an address (RFC 1122: 0.0.0.0/8 is no source that is forwarded). */
static struct addr unseen_src(const uint8_t *key, bool v6)
{
	const struct addr a = key_addr(key, v6);

	if (!v6 && memcmp(key, pair_gateway.b + 12, 4) == 0)
		return pair_gateway;
	return !v6 && memcmp(key, pair_unlisted.b + 12, 4) == 0 ? pair_unlisted : a;
}

int rules_unseen_dump(struct rules *r, int (*each)(void *ctx, const struct addr *src, const struct addr *dst,
						   uint64_t packets, uint64_t bytes), void *ctx)
{
	for (int v6 = 0; v6 <= 1; v6++) {
		struct nft_dumped *d = NULL;
		size_t n = 0;
		int e = nft_set_dump(&r->keep, TABLE_KEEP, v6 ? "unseen6" : "unseen4", &d, &n);

		for (size_t i = 0; i < n && e == 0; i++) {
			const struct addr src = unseen_src(d[i].key, v6), dst = key_addr(d[i].key + (v6 ? 16 : 4), v6);

			e = each(ctx, &src, &dst, d[i].packets, d[i].bytes);
		}
		free(d);
		if (e < 0)
			return e;
	}
	return 0;
}
