/* nft_set.c - see nft_set.h. */
#include "nft_set.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <libmnl/libmnl.h>
#include <libnftnl/expr.h>
#include <libnftnl/set.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>

#include "nft_batch.h"

#define ELEMS_A_MESSAGE 256	/* their nest's length is a 16-bit number; an element takes up to ~100 bytes */
#define DUMP_TRIES	16

static struct nftnl_set *set_alloc(struct nft_batch *b, const char *table, const char *name, uint32_t id)
{
	struct nftnl_set *s = b->error ? NULL : nftnl_set_alloc();

	if (s && nftnl_set_set_str(s, NFTNL_SET_TABLE, table) == 0 && nftnl_set_set_str(s, NFTNL_SET_NAME, name) == 0) {
		nftnl_set_set_u32(s, NFTNL_SET_FAMILY, NFPROTO_INET);
		if (id)
			nftnl_set_set_u32(s, NFTNL_SET_ID, id);
		return s;
	}
	nft_batch_fail(b, -ENOMEM);
	if (s)
		nftnl_set_free(s);
	return NULL;
}

void nft_set_add(struct nft_batch *b, const char *table, const struct nft_set_spec *spec, const char *what)
{
	struct nftnl_set *s = set_alloc(b, table, spec->name, spec->id);
	struct nftnl_expr *each;
	struct nlmsghdr *nlh;

	if (!s)
		return;
	nftnl_set_set_u32(s, NFTNL_SET_FLAGS, spec->flags);
	nftnl_set_set_u32(s, NFTNL_SET_KEY_TYPE, spec->key_type);
	nftnl_set_set_u32(s, NFTNL_SET_KEY_LEN, spec->key_len);
	if (spec->size)
		nftnl_set_set_u32(s, NFTNL_SET_DESC_SIZE, spec->size);
	if (spec->object)
		nftnl_set_set_u32(s, NFTNL_SET_OBJ_TYPE, spec->object);
	if (spec->nparts && nftnl_set_set_data(s, NFTNL_SET_DESC_CONCAT, spec->parts, spec->nparts) < 0)
		nft_batch_fail(b, -ENOMEM);
	if (spec->timeout_ms)
		nftnl_set_set_u64(s, NFTNL_SET_TIMEOUT, spec->timeout_ms);
	/* The kernel asks for an id when a set is made, used or not. */
	if (!spec->id)
		nftnl_set_set_u32(s, NFTNL_SET_ID, b->nmsg + 0x10000);
	if (spec->each) {
		each = nftnl_expr_alloc(spec->each);
		if (each)
			nftnl_set_add_expr(s, each);
		else
			nft_batch_fail(b, -ENOMEM);
	}
	nlh = nft_batch_msg(b, NFT_MSG_NEWSET, NLM_F_CREATE, what);
	if (nlh)
		nftnl_set_nlmsg_build_payload(nlh, s);
	nft_batch_msg_end(b, nlh);
	nftnl_set_free(s);
}

void nft_set_del(struct nft_batch *b, const char *table, const struct nft_set_spec *spec, const char *what)
{
	struct nftnl_set *s = set_alloc(b, table, spec->name, spec->id);
	struct nlmsghdr *nlh;

	if (!s)
		return;
	nlh = nft_batch_msg(b, NFT_MSG_DELSET, 0, what);
	if (nlh)
		nftnl_set_nlmsg_build_payload(nlh, s);
	nft_batch_msg_end(b, nlh);
	nftnl_set_free(s);
}

static void elems_message(struct nft_batch *b, uint16_t type, const struct nftnl_set *s, const char *what)
{
	struct nlmsghdr *nlh = nft_batch_msg(b, type, type == NFT_MSG_NEWSETELEM ? NLM_F_CREATE : 0, what);

	if (nlh)
		nftnl_set_elems_nlmsg_build_payload(nlh, (struct nftnl_set *)s);
	nft_batch_msg_end(b, nlh);
}

static struct nftnl_set_elem *elem_alloc(const struct nft_set_spec *spec, const struct nft_elem *e, bool full)
{
	struct nftnl_set_elem *x = nftnl_set_elem_alloc();

	if (!x)
		return NULL;
	if (nftnl_set_elem_set(x, NFTNL_SET_ELEM_KEY, e->key, spec->key_len) < 0 ||
	    (spec->nparts && nftnl_set_elem_set(x, NFTNL_SET_ELEM_KEY_END, e->key_end, spec->key_len) < 0)) {
		nftnl_set_elem_free(x);
		return NULL;
	}
	if (e->interval_end)
		nftnl_set_elem_set_u32(x, NFTNL_SET_ELEM_FLAGS, NFT_SET_ELEM_INTERVAL_END);
	if (full && spec->object && nftnl_set_elem_set_str(x, NFTNL_SET_ELEM_OBJREF, e->object) < 0) {
		nftnl_set_elem_free(x);
		return NULL;
	}
	if (full && e->timeout_ms && spec->flags & NFT_SET_TIMEOUT)
		nftnl_set_elem_set_u64(x, NFTNL_SET_ELEM_TIMEOUT, e->timeout_ms);
	return x;
}

static void elems(struct nft_batch *b, uint16_t type, const char *table, const struct nft_set_spec *spec,
		  const struct nft_elem *e, size_t n, const char *what)
{
	for (size_t i = 0; i < n; i += ELEMS_A_MESSAGE) {
		struct nftnl_set *s = set_alloc(b, table, spec->name, spec->id);

		if (!s)
			return;
		for (size_t j = i; j < n && j < i + ELEMS_A_MESSAGE; j++) {
			struct nftnl_set_elem *x = elem_alloc(spec, &e[j], type == NFT_MSG_NEWSETELEM);

			if (x)
				nftnl_set_elem_add(s, x);
			else
				nft_batch_fail(b, -ENOMEM);
		}
		elems_message(b, type, s, what);
		nftnl_set_free(s);
	}
}

void nft_elems_add(struct nft_batch *b, const char *table, const struct nft_set_spec *s, const struct nft_elem *e,
		   size_t n, const char *what)
{
	elems(b, NFT_MSG_NEWSETELEM, table, s, e, n, what);
}

void nft_elems_del(struct nft_batch *b, const char *table, const struct nft_set_spec *s, const struct nft_elem *e,
		   size_t n, const char *what)
{
	elems(b, NFT_MSG_DELSETELEM, table, s, e, n, what);
}

void nft_set_clear(struct nft_batch *b, const char *table, const struct nft_set_spec *spec, const char *what)
{
	struct nftnl_set *s = set_alloc(b, table, spec->name, spec->id);

	if (!s)
		return;
	elems_message(b, NFT_MSG_DELSETELEM, s, what);	/* naming none */
	nftnl_set_free(s);
}

struct dump {
	struct nft_dumped *elem;
	size_t count, cap;
};

static int dump_counter(struct nftnl_expr *e, void *ctx)
{
	struct nft_dumped *d = ctx;

	if (nftnl_expr_is_set(e, NFTNL_EXPR_CTR_PACKETS) &&
	    strcmp(nftnl_expr_get_str(e, NFTNL_EXPR_NAME), "counter") == 0) {
		d->packets = nftnl_expr_get_u64(e, NFTNL_EXPR_CTR_PACKETS);
		d->bytes = nftnl_expr_get_u64(e, NFTNL_EXPR_CTR_BYTES);
	}
	return 0;
}

static int dump_elem(struct nftnl_set_elem *e, void *ctx)
{
	struct dump *d = ctx;
	struct nft_dumped *o;
	uint32_t len = 0;
	const void *key = nftnl_set_elem_get(e, NFTNL_SET_ELEM_KEY, &len);

	if (!key || len > NFT_KEY_MAX)
		return -1;
	if (d->count == d->cap) {
		const size_t cap = d->cap ? d->cap * 2 : 64;

		o = realloc(d->elem, cap * sizeof(*o));
		if (!o)
			return -1;
		d->elem = o;
		d->cap = cap;
	}
	o = &d->elem[d->count++];
	*o = (struct nft_dumped){ 0 };
	memcpy(o->key, key, len);
	key = nftnl_set_elem_get(e, NFTNL_SET_ELEM_KEY_END, &len);
	if (key && len <= NFT_KEY_MAX)
		memcpy(o->key_end, key, len);
	if (nftnl_set_elem_is_set(e, NFTNL_SET_ELEM_FLAGS))
		o->interval_end = nftnl_set_elem_get_u32(e, NFTNL_SET_ELEM_FLAGS) & NFT_SET_ELEM_INTERVAL_END;
	o->timed = nftnl_set_elem_is_set(e, NFTNL_SET_ELEM_EXPIRATION);
	if (o->timed)
		o->expires_ms = nftnl_set_elem_get_u64(e, NFTNL_SET_ELEM_EXPIRATION);
	(void)nftnl_set_elem_expr_foreach(e, dump_counter, o);
	return 0;
}

static int dump_message(const struct nlmsghdr *nlh, void *ctx)
{
	struct nftnl_set *s = nftnl_set_alloc();
	int r = -ENOMEM;

	if (!s)
		return r;
	if (nftnl_set_elems_nlmsg_parse(nlh, s) < 0)
		r = -EBADMSG;
	else if (nftnl_set_elem_foreach(s, dump_elem, ctx) == 0)
		r = 0;
	nftnl_set_free(s);
	return r;
}

int nft_elem_get(struct nft_sock *s, const char *table, const struct nft_set_spec *set, const uint8_t key[NFT_KEY_MAX],
		 struct nft_dumped *ret)
{
	char buf[1024];
	struct nlmsghdr *nlh = nft_query_msg(s, buf, NFT_MSG_GETSETELEM, NLM_F_ACK);
	struct nlattr *list, *elem, *data;
	struct dump d = { 0 };
	int r;

	mnl_attr_put_strz(nlh, NFTA_SET_ELEM_LIST_TABLE, table);
	mnl_attr_put_strz(nlh, NFTA_SET_ELEM_LIST_SET, set->name);
	list = mnl_attr_nest_start(nlh, NFTA_SET_ELEM_LIST_ELEMENTS);
	elem = mnl_attr_nest_start(nlh, NFTA_LIST_ELEM);
	data = mnl_attr_nest_start(nlh, NFTA_SET_ELEM_KEY);
	mnl_attr_put(nlh, NFTA_DATA_VALUE, set->key_len, key);
	mnl_attr_nest_end(nlh, data);
	mnl_attr_nest_end(nlh, elem);
	mnl_attr_nest_end(nlh, list);
	r = nft_query_run(s, nlh, dump_message, &d);
	if (r == 0 && d.count)
		*ret = d.elem[0];
	else if (r == 0)
		r = -ENOENT;
	free(d.elem);
	return r;
}

int nft_set_dump(struct nft_sock *s, const char *table, const char *set, struct nft_dumped **ret_elems,
		 size_t *ret_count)
{
	char buf[1024];
	struct dump d = { 0 };
	int r = -EINTR;

	for (int i = 0; i < DUMP_TRIES && r == -EINTR; i++) {
		struct nlmsghdr *nlh = nft_query_msg(s, buf, NFT_MSG_GETSETELEM, NLM_F_DUMP);

		mnl_attr_put_strz(nlh, NFTA_SET_ELEM_LIST_TABLE, table);
		mnl_attr_put_strz(nlh, NFTA_SET_ELEM_LIST_SET, set);
		d.count = 0;
		r = nft_query_run(s, nlh, dump_message, &d);
	}
	if (r < 0) {
		free(d.elem);
		return r;
	}
	*ret_elems = d.elem;
	*ret_count = d.count;
	return 0;
}

static int elem_order(const void *x, const void *y)
{
	const struct nft_elem *a = x, *b = y;
	const int key = memcmp(a->key, b->key, sizeof(a->key));

	return key ? key : a->interval_end - b->interval_end;
}

static size_t sort_unique(struct nft_elem *e, size_t n)
{
	size_t count = 0;

	if (n)
		qsort(e, n, sizeof(*e), elem_order);
	for (size_t i = 0; i < n; i++) {
		if (!count || elem_order(&e[count - 1], &e[i]) != 0)
			e[count++] = e[i];
	}
	return count;
}

/* A range is its start and, but for the last, its end: the kernel takes them for one when it looks for overlaps. */
static size_t unit_len(const struct nft_elem *e, size_t n, size_t i)
{
	return !e[i].interval_end && i + 1 < n && e[i + 1].interval_end ? 2 : 1;
}

/* What is in a and not in b, both sorted, to the front of `out`. */
static size_t difference(const struct nft_elem *a, size_t na, const struct nft_elem *b, size_t nb, struct nft_elem *out)
{
	size_t count = 0, j = 0, len;

	for (size_t i = 0; i < na; i += len) {
		len = unit_len(a, na, i);
		while (j < nb && elem_order(&b[j], &a[i]) < 0)
			j++;
		if (j < nb && elem_order(&b[j], &a[i]) == 0 && unit_len(b, nb, j) == len &&
		    elem_order(&b[j + len - 1], &a[i + len - 1]) == 0)
			continue;
		for (size_t k = 0; k < len; k++)
			out[count++] = a[i + k];
	}
	return count;
}

void nft_set_sync(struct nft_sock *s, struct nft_batch *b, const char *table, const struct nft_set_spec *set,
		  struct nft_elem *want, size_t n, const char *what)
{
	struct nft_dumped *d = NULL;
	struct nft_elem *have, *out;
	size_t count = 0, nhave = 0;
	const int r = nft_set_dump(s, table, set->name, &d, &count);

	if (r < 0 && r != -ENOENT)
		nft_batch_fail(b, r);
	have = calloc(count + 1, sizeof(*have));
	out = calloc(count + n + 1, sizeof(*out));
	if (have && out) {
		for (size_t i = 0; i < count; i++) {
			if (d[i].timed)
				continue;
			memcpy(have[nhave].key, d[i].key, sizeof(have[nhave].key));
			have[nhave++].interval_end = d[i].interval_end;
		}
		nhave = sort_unique(have, nhave);
		n = sort_unique(want, n);
		nft_elems_del(b, table, set, out, difference(have, nhave, want, n, out), what);
		count = difference(want, n, have, nhave, out);
		nft_elems_add(b, table, set, out, count, what);
		if (set->flags & NFT_SET_TIMEOUT) {	/* that left one with a timeout as it was; if it is gone by now, there is ours */
			nft_elems_del(b, table, set, out, count, what);
			nft_elems_add(b, table, set, out, count, what);
		}
	} else {
		nft_batch_fail(b, -ENOMEM);
	}
	free(d);
	free(have);
	free(out);
}
