/* policy_compile.c - runs the stages and lays their results out as one block. */
#include "policy_compile.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "policy_build.h"

#define STR_FIRST 4096

policy_str build_str(struct policy_build *b, const char *text)
{
	size_t len = strlen(text) + 1;
	policy_str at;

	if (len == 1 && b->str_len)
		return 0;
	if (b->str_cap - b->str_len < len) {
		size_t cap = MAX_OF((size_t)b->str_cap * 2, b->str_len + len + STR_FIRST);
		char *str = cap > UINT32_MAX / 2 ? NULL : realloc(b->str, cap);

		if (!str) {
			b->no_memory = true;
			return 0;
		}
		b->str = str;
		b->str_cap = (uint32_t)cap;
	}
	at = b->str_len;
	memcpy(b->str + at, text, len);
	b->str_len += (uint32_t)len;
	return at;
}

/* ---- layout ---- */

struct layout {
	char *blob;		/* NULL: only measure */
	size_t size;
};

static void put(struct layout *l, uint32_t *ret_off, uint32_t *ret_n, const void *data, uint32_t n, size_t elem)
{
	*ret_off = (uint32_t)l->size;
	*ret_n = n;
	if (l->blob && n)
		memcpy(l->blob + l->size, data, n * elem);
	l->size += (n * elem + 7) & ~(size_t)7;
}

struct flat {			/* arrays that the blob has and the document has otherwise */
	struct policy_host *host;
	struct policy_host_addr *addr;
	struct prefix *inside;
	struct policy_exit_prefix *exit;
	uint32_t naddrs, ninside, nexits;
};

static int flat_hosts(struct policy_build *b, struct flat *f)
{
	const struct policy_doc *d = b->d;
	uint32_t total = 0;

	for (uint32_t i = 0; i < d->nhosts; i++)
		total += d->host[i].naddrs;
	f->host = arena_array(d->mem, d->nhosts, sizeof(*f->host));
	f->addr = arena_array(d->mem, total, sizeof(*f->addr));
	if (!f->host || !f->addr)
		return -ENOMEM;
	for (uint32_t i = 0; i < d->nhosts; i++) {
		const struct doc_host *h = &d->host[i];

		f->host[i].uid = build_uid("host", h->name);
		f->host[i].name = build_str(b, h->name);
		f->host[i].stores_bytes = h->stores_bytes;
		f->host[i].stores_compressed = h->stores_compressed;
		for (uint32_t k = 0; k < h->naddrs; k++) {
			f->addr[f->naddrs].host = i;
			f->addr[f->naddrs++].addr = h->addr[k].p.addr;
		}
	}
	return 0;
}

static int exit_prefix_cmp(const void *x, const void *y)
{
	const struct policy_exit_prefix *a = x, *b = y;

	return prefix_cmp(&a->prefix, &b->prefix);
}

static int flat_prefixes(struct policy_build *b, struct flat *f)
{
	const struct policy_doc *d = b->d;
	uint32_t total = 0;

	for (uint32_t i = 0; i < d->nexits; i++)
		total += d->exit[i].nhosts;
	f->inside = arena_array(d->mem, d->ninside, sizeof(*f->inside));
	f->exit = arena_array(d->mem, total, sizeof(*f->exit));
	if (!f->inside || !f->exit)
		return -ENOMEM;
	for (uint32_t i = 0; i < d->ninside; i++)
		f->inside[i] = d->inside[i].p;
	f->ninside = prefix_minimize(f->inside, d->ninside);
	for (uint32_t i = 0; i < d->nexits; i++) {
		for (uint32_t k = 0; k < d->exit[i].nhosts; k++) {
			f->exit[f->nexits].prefix = d->exit[i].host[k].p;
			f->exit[f->nexits++].exit = i;
		}
	}
	if (f->nexits)
		qsort(f->exit, f->nexits, sizeof(*f->exit), exit_prefix_cmp);
	return 0;
}

static void put_all(const struct policy_build *b, const struct flat *f, struct layout *l, struct policy_header *h)
{
	const struct policy_doc *d = b->d;

	put(l, &h->rules_off, &h->nrules, b->rule, b->nrules, sizeof(b->rule[0]));
	put(l, &h->hosts_off, &h->nhosts, f->host, d->nhosts, sizeof(*f->host));
	put(l, &h->host_addrs_off, &h->nhost_addrs, f->addr, f->naddrs, sizeof(*f->addr));
	put(l, &h->src_ranges_off, &h->nsrc_ranges, b->src_range, b->nsrc_ranges, sizeof(*b->src_range));
	put(l, &h->src_off, &h->nsrc, b->src, b->nsrc, sizeof(*b->src));
	put(l, &h->dst_ranges_off, &h->ndst_ranges, b->dst_range, b->ndst_ranges, sizeof(*b->dst_range));
	put(l, &h->dst_off, &h->ndst, b->dst, b->ndst, sizeof(*b->dst));
	put(l, &h->exits_off, &h->nexits, b->exit, d->nexits, sizeof(b->exit[0]));
	put(l, &h->spans_off, &h->nspans, b->span, b->nspans, sizeof(*b->span));
	put(l, &h->classes_off, &h->nclasses, b->cls, b->nclasses, sizeof(*b->cls));
	put(l, &h->inside_off, &h->ninside, f->inside, f->ninside, sizeof(*f->inside));
	put(l, &h->protect_off, &h->nprotect, d->protect, d->nprotect, sizeof(*d->protect));
	put(l, &h->exit_prefixes_off, &h->nexit_prefixes, f->exit, f->nexits, sizeof(*f->exit));
	put(l, &h->strings_off, &h->strings_len, b->str, b->str_len, 1);
}

static uint32_t flags_of(const struct policy_build *b)
{
	uint32_t flags = b->d->enforce ? POLICY_ENFORCE : 0;

	for (uint32_t i = 0; i < b->nrules; i++)
		if (b->origin[i].doc->ports.count || b->origin[i].doc->opened_by != OPENER_UNKNOWN)
			flags |= POLICY_NEEDS_CT;
	return flags;
}

static int lay_out(struct policy_build *b, void **ret_blob, size_t *ret_size)
{
	struct policy_header h;
	struct layout l = { .size = sizeof(h) };
	struct policy_doc *d = b->d;
	struct flat f = { 0 };
	policy_str timezone;
	int r = flat_hosts(b, &f);

	if (r == 0)
		r = flat_prefixes(b, &f);
	if (r < 0)
		return r;
	d->nprotect = prefix_minimize(d->protect, d->nprotect);
	timezone = build_str(b, d->timezone);
	if (b->no_memory)
		return -ENOMEM;
	memset(&h, 0, sizeof(h));	/* padding too: the same text gives the same bytes [PC2] */
	put_all(b, &f, &l, &h);		/* measure */
	if (l.size > UINT32_MAX)
		return -ENOMEM;
	l.blob = calloc(1, l.size);
	if (!l.blob)
		return -ENOMEM;
	memcpy(h.magic, POLICY_MAGIC, sizeof(h.magic));
	h.layout = POLICY_LAYOUT;
	h.timezone = timezone;
	h.size = (uint32_t)l.size;
	h.flags = flags_of(b);
	h.ncontracts = b->ncontracts;
	h.nservices = b->nservices;
	h.brake_subjects = d->brake_subjects;
	h.brake_s = d->brake_s;
	h.accept = d->accept;
	h.max_ttl_s = d->max_ttl_s;
	h.max_budget = d->max_budget;
	*ret_size = l.size;
	l.size = sizeof(h);
	put_all(b, &f, &l, &h);
	memcpy(l.blob, &h, sizeof(h));
	policy_sum(l.blob, *ret_size, ((struct policy_header *)(void *)l.blob)->sum);
	*ret_blob = l.blob;
	return 0;
}

/* ---- stages ---- */

static int build_all(struct policy_build *b, void **ret_blob, size_t *ret_size)
{
	static int (*const stages[])(struct policy_build *) = { build_rules, build_labels, build_classes, build_check };

	(void)build_str(b, "");		/* offset 0 is "" */
	for (size_t i = 0; i < ARRAY_SIZE(stages); i++) {
		int r = stages[i](b);

		if (r < 0)
			return r;
		if (b->d->diags->count)
			return -EINVAL;
	}
	return lay_out(b, ret_blob, ret_size);
}

static int compile_doc(struct policy_doc *d, const struct yaml_node *root, void **ret_blob, size_t *ret_size)
{
	struct policy_build *b;
	int r = doc_parse(d, root);

	if (r == 0)
		r = doc_check(d);
	if (r < 0)
		return r;
	if (d->diags->count)
		return -EINVAL;
	b = arena_alloc(d->mem, sizeof(*b));
	if (!b)
		return -ENOMEM;
	b->d = d;
	r = build_all(b, ret_blob, ret_size);
	free(b->str);
	return r;
}

int policy_compile(const char *text, size_t len, const struct policy_env *env, struct diag_list *diags, void **ret_blob,
		   size_t *ret_size)
{
	struct arena mem = { 0 };
	struct policy_doc d = { .mem = &mem, .diags = diags, .env = env };
	struct yaml_tree *tree;
	int r = yaml_tree_parse(text, len, diags, &tree);

	if (tree)
		r = compile_doc(&d, yaml_tree_root(tree), ret_blob, ret_size);	/* diags so far, too, make it fail */
	prefix_set_free(d.base);
	arena_free(&mem);
	yaml_tree_free(tree);
	if (r == -EINVAL)
		diag_sort(diags);	/* sections are read in the order they need each other; people read from top to bottom */
	return r;
}
