/* rules_lease.c - see rules_lease.h for the contract. */
#include "rules_lease.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/membarrier.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_conntrack_tuple_common.h>
#include <linux/netfilter/nf_tables.h>

#include "nft_object.h"
#include "nft_rule.h"
#include "pair.h"
#include "rules_internal.h"

#define NAME_LEN 40

enum { PAIR4, PAIR6, SERVICE4, SERVICE6, FORMS };

#define MAP(n, type, len) { .name = n, .flags = NFT_SET_OBJECT, .key_type = type, .key_len = len, .size = LEASE_SLOTS, \
			    .object = NFT_OBJECT_QUOTA }
#define SET(n, type, len) { .name = n, .key_type = type, .key_len = len, .size = LEASE_SLOTS, .each = "counter" }

static const struct nft_set_spec map[FORMS] = {
	[PAIR4] = MAP("lease4", NFT_KEY_IPV4_PAIR, 8),
	[PAIR6] = MAP("lease6", NFT_KEY_IPV6_PAIR, 32),
	[SERVICE4] = MAP("service4", NFT_KEY_IPV4_SERVICE, 20),
	[SERVICE6] = MAP("service6", NFT_KEY_IPV6_SERVICE, 44),
};
static const struct nft_set_spec set[FORMS] = {
	[PAIR4] = SET("leased4", NFT_KEY_IPV4_PAIR, 8),
	[PAIR6] = SET("leased6", NFT_KEY_IPV6_PAIR, 32),
	[SERVICE4] = SET("served4", NFT_KEY_IPV4_SERVICE, 20),
	[SERVICE6] = SET("served6", NFT_KEY_IPV6_SERVICE, 44),
};

static bool is_v6(unsigned form)
{
	return form == PAIR6 || form == SERVICE6;
}

static bool has_service(unsigned form)
{
	return form >= SERVICE4;
}

/* ---- keys ---- */

static unsigned form_of(const struct lease_key *k)
{
	return (k->opener == OPENER_UNKNOWN ? PAIR4 : SERVICE4) + (k->out_family == 6);
}

static struct nft_elem elem_of(const struct lease_key *k, const char *object)
{
	const unsigned form = form_of(k), len = is_v6(form) ? 16 : 4, rest = 2 * len;
	const uint16_t port = htons(k->port);
	struct nft_elem e = { .object = object };

	memcpy(e.key, k->in + (is_v6(form) ? 0 : 12), len);
	memcpy(e.key + len, k->out, is_v6(form) ? 8 : 4);
	if (has_service(form)) {
		e.key[rest] = k->proto;
		memcpy(e.key + rest + 4, &port, sizeof(port));
		e.key[rest + 8] = k->opener == OPENER_OUTSIDE ? IP_CT_DIR_REPLY : IP_CT_DIR_ORIGINAL;
	}
	return e;
}

static struct lease_key key_of(const uint8_t *b, unsigned form)
{
	const unsigned len = is_v6(form) ? 16 : 4, rest = 2 * len;
	struct lease_key k = { .out_family = is_v6(form) ? 6 : 4 };
	const struct addr in = is_v6(form) ? addr_from_v6(b) : addr_from_v4(b);
	uint16_t port;

	memcpy(k.in, in.b, sizeof(k.in));
	memcpy(k.out, b + len, is_v6(form) ? 8 : 4);
	if (has_service(form)) {
		memcpy(&port, b + rest + 4, sizeof(port));
		k.proto = b[rest];
		k.port = ntohs(port);
		k.opener = b[rest + 8] == IP_CT_DIR_REPLY ? OPENER_OUTSIDE : OPENER_INSIDE;
	}
	return k;
}

static const char *name_of(const struct rules_lease *l, char name[NAME_LEN])
{
	snprintf(name, NAME_LEN, "l%" PRIu32 "g%" PRIu64, l->slot, l->generation);
	return name;
}

bool rules_lease_named(const char *name, struct rules_lease *ret)
{
	int end = 0;

	*ret = (struct rules_lease){ 0 };
	return sscanf(name, "l%" SCNu32 "g%" SCNu64 "%n", &ret->slot, &ret->generation, &end) == 2 && !name[end];
}

/* ---- rules ---- */

void rules_lease_sets(struct nft_batch *b, const char *table)
{
	for (unsigned form = 0; form < FORMS; form++) {
		nft_set_add(b, table, &map[form], "egressd: map of leases");
		nft_set_add(b, table, &set[form], "egressd: set of leases");
	}
}

/* Nothing else is asked: what has an element is egress by its addresses alone, and nobody has judged it yet. */
static struct nft_rule begin(const char *table, unsigned form)
{
	struct nft_rule r = nft_rule(table, CHAIN_QUEUE);

	rules_family(&r, is_v6(form));
	return r;
}

/* Source and destination into the first registers, an IPv6 destination by its /64. */
static void addresses(struct nft_rule *r, bool v6)
{
	static const uint8_t half[16] = { 255, 255, 255, 255, 255, 255, 255, 255 }, zero[16];

	nft_payload(r, NFT_REG32_00, v6 ? 8 : 12, v6 ? 16 : 4);
	nft_payload(r, v6 ? NFT_REG32_04 : NFT_REG32_01, v6 ? 24 : 16, v6 ? 16 : 4);
	if (v6)
		nft_bitwise(r, NFT_REG32_04, half, zero, 16);
}

static void finish(struct nft_rule *r, struct nft_batch *b, unsigned form, const struct rules_marks *m)
{
	nft_object_of(r, map[form].name, NFT_REG32_00);
	nft_lookup(r, set[form].name, 0, NFT_REG32_00);
	rules_mark_load(r);
	rules_mark_put(r, m, m->leased);
	nft_verdict(r, NF_ACCEPT, NULL);
	nft_rule_add(r, b, "egressd: lease");
}

static void service_rule(struct nft_batch *b, const char *table, unsigned form, uint8_t direction, const struct rules_marks *m)
{
	struct nft_rule r = begin(table, form);
	const uint32_t rest = NFT_REG32_00 + (is_v6(form) ? 8 : 2);

	nft_ct(&r, NFT_CT_DIRECTION, rest + 2);
	nft_cmp_u8(&r, rest + 2, direction);
	addresses(&r, is_v6(form));
	nft_meta(&r, NFT_META_L4PROTO, rest);
	nft_transport(&r, rest + 1, direction == IP_CT_DIR_ORIGINAL ? 2 : 0, 2);
	finish(&r, b, form, m);
}

void rules_lease_fill(struct nft_batch *b, const char *table, bool ct, const struct rules_marks *m)
{
	for (unsigned form = PAIR4; form <= PAIR6; form++) {
		struct nft_rule r = begin(table, form);

		addresses(&r, is_v6(form));
		finish(&r, b, form, m);
	}
	for (unsigned form = SERVICE4; ct && form <= SERVICE6; form++) {
		service_rule(b, table, form, IP_CT_DIR_ORIGINAL, m);
		service_rule(b, table, form, IP_CT_DIR_REPLY, m);
	}
}

/* ---- elements ---- */

int rules_lease_put(struct rules *r, const struct rules_lease *v, size_t n)
{
	char name[NAME_LEN];
	struct nft_batch b;
	const char *what;

	nft_batch_begin(&b, &r->owner);
	for (size_t i = 0; i < n; i++) {
		const unsigned form = form_of(&v[i].key);
		const struct nft_elem e = elem_of(&v[i].key, name_of(&v[i], name));

		nft_quota_put(&b, TABLE, name, v[i].quota, "lease: quota");
		if (v[i].fresh)
			nft_elems_add(&b, TABLE, &set[form], &e, 1, "lease: counter");
		if (v[i].fresh || v[i].asleep)
			nft_elems_add(&b, TABLE, &map[form], &e, 1, "lease: element");
	}
	return nft_batch_commit(&b, &what);
}

static void delete_element(struct nft_batch *b, const struct nft_set_spec *of, const struct rules_lease *l)
{
	const struct nft_elem e = elem_of(&l->key, NULL);

	nft_elems_del(b, TABLE, &of[form_of(&l->key)], &e, 1, "lease: end");
}

int rules_lease_end(struct rules *r, const struct rules_lease *v, size_t n)
{
	struct nft_batch b;
	const char *what;

	nft_batch_begin(&b, &r->owner);
	for (size_t i = 0; i < n; i++)
		if (!v[i].asleep)
			delete_element(&b, map, &v[i]);
	return nft_batch_commit(&b, &what);
}

int rules_lease_forget(struct rules *r, const struct rules_lease *v, size_t n)
{
	char name[NAME_LEN];
	struct nft_batch b;
	const char *what;

	nft_batch_begin(&b, &r->owner);
	for (size_t i = 0; i < n; i++) {
		delete_element(&b, set, &v[i]);
		nft_quota_del(&b, TABLE, name_of(&v[i], name), "lease: quota");
	}
	return nft_batch_commit(&b, &what);
}

static int clear(struct rules *r, const struct nft_set_spec *of)
{
	for (unsigned form = 0; form < FORMS; form++) {
		struct nft_batch b;
		const char *what;
		int e;

		nft_batch_begin(&b, &r->owner);
		nft_set_clear(&b, TABLE, &of[form], "lease: clear");
		e = nft_batch_commit(&b, &what);
		if (e < 0 && e != -ENOENT)
			return e;
	}
	return 0;
}

/* By one rule, however many they are: thousands of elements take 20 ms, and nobody is to wait for them. */
int rules_lease_end_all(struct rules *r)
{
	return r->spec ? rules_ask_leases(r, false) : clear(r, map);
}

struct doomed {
	struct nft_batch batch;
	unsigned n;
};

static int doom(void *ctx, const char *quota)
{
	struct doomed *d = ctx;

	if (d->n == 4 * RULES_LEASES)
		return 0;	/* in the next round: the kernel's answers must find room */
	nft_quota_del(&d->batch, TABLE, quota, "lease: quota");
	d->n++;
	return 0;
}

int rules_lease_forget_all(struct rules *r)
{
	int e = clear(r, map);

	if (e == 0)
		e = clear(r, set);
	while (e == 0) {
		struct doomed d = { .n = 0 };
		const char *what;

		/* A query between the messages of a batch is no part of it. */
		nft_batch_begin(&d.batch, &r->owner);
		e = nft_quota_dump(&r->keep, TABLE, doom, &d);
		if (e < 0 || d.n == 0) {
			nft_batch_drop(&d.batch);
			break;
		}
		e = nft_batch_commit(&d.batch, &what);
	}
	if (e == -ENOENT)
		e = 0;
	if (e < 0 || !r->held)
		return e;
	e = r->spec ? rules_ask_leases(r, true) : -EAGAIN;
	return e == -ENOENT ? -EAGAIN : e;
}

void rules_lease_grace(void)
{
	/* Without it (CONFIG_MEMBARRIER=n, nohz_full), and with one CPU, where it does nothing, the wait is as long as any packet is
	 * amid the rules. */
	if (syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) < 0 || sysconf(_SC_NPROCESSORS_ONLN) == 1)
		usleep(20000);
}

/* ---- counts ---- */

int rules_lease_counts(struct rules *r, rules_lease_count_fn *each, void *ctx)
{
	for (unsigned form = 0; form < FORMS; form++) {
		struct nft_dumped *d = NULL;
		size_t n = 0;
		int e = nft_set_dump(&r->keep, TABLE, set[form].name, &d, &n);

		for (size_t i = 0; i < n; i++) {
			const struct lease_key k = key_of(d[i].key, form);

			each(ctx, &k, d[i].packets, d[i].bytes);
		}
		free(d);
		if (e < 0)
			return e;
	}
	return 0;
}

int rules_lease_count(struct rules *r, const struct rules_lease *l, uint64_t *ret_packets, uint64_t *ret_bytes)
{
	const struct nft_elem e = elem_of(&l->key, NULL);
	struct nft_dumped d;
	int error = nft_elem_get(&r->keep, TABLE, &set[form_of(&l->key)], e.key, &d);

	if (error < 0)
		return error;
	*ret_packets = d.packets;
	*ret_bytes = d.bytes;
	return 0;
}

int rules_lease_used(struct rules *r, const struct rules_lease *l, uint64_t *ret_used, uint64_t *ret_quota)
{
	struct nft_quota q = { 0 };
	char name[NAME_LEN];
	const int error = nft_quota_get(&r->keep, TABLE, name_of(l, name), &q);

	*ret_used = q.used;
	*ret_quota = q.bytes;
	return error;
}

size_t rules_lease_depleted(struct rules *r, struct rules_lease *ret, size_t n)
{
	size_t taken = MIN_OF(n, r->ndepleted);

	memcpy(ret, r->depleted, taken * sizeof(*ret));
	r->ndepleted -= taken;
	memmove(r->depleted, r->depleted + taken, r->ndepleted * sizeof(*ret));
	return taken;
}
