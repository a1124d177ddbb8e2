/* policy_parse_util.c - pieces that every section of a policy is read with. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "policy_doc.h"
#include "prefix_set.h"

#define KEYS_MAX 32

struct doc_place doc_at(const struct yaml_node *n)
{
	return (struct doc_place){ n->line, n->col };
}

struct doc_place doc_key_at(const struct yaml_node *n)
{
	return (struct doc_place){ n->key_line, n->key_col };
}

uint32_t doc_items(struct policy_doc *d, const struct yaml_node *n, const char *what, const struct yaml_node **ret_first)
{
	*ret_first = NULL;
	if (n->kind == YAML_SCALAR && *n->text) {
		*ret_first = n;
		return 1;
	}
	if (n->kind == YAML_LIST && n->count) {
		*ret_first = n->child;
		return n->count;
	}
	if (n->kind == YAML_MAP)
		DOC_ERROR(d, n, "write [a, b]", "%s: must be a list, not a map", what);
	else
		DOC_ERROR(d, n, "name at least one, or leave the key out", "%s: is empty", what);
	return 0;
}

const struct yaml_node *doc_map(struct policy_doc *d, const struct yaml_node *n, const char *what)
{
	if (n->kind == YAML_MAP)
		return n;
	DOC_ERROR(d, n, "write {key: value} or indented lines 'key: value'", "%s: must be a map", what);
	return NULL;
}

const struct yaml_node *doc_section(struct policy_doc *d, const struct yaml_node *root, const char *key)
{
	const struct yaml_node *n = yaml_get(root, key);

	return n ? doc_map(d, n, key) : NULL;
}

static bool in_list(const char *word, const char *const *list)
{
	for (; *list; list++)
		if (!strcmp(word, *list))
			return true;
	return false;
}

void doc_keys(struct policy_doc *d, const struct yaml_node *map, const char *const *known)
{
	static const char *const planned[] = { "when", "grace", "detect", "throttle", "baseline", "countries", NULL };
	const char *all[KEYS_MAX + 1];
	unsigned n = 0;

	for (; *known && n < KEYS_MAX - ARRAY_SIZE(planned); known++)
		all[n++] = *known;
	for (unsigned i = 0; planned[i]; i++)
		all[n++] = planned[i];
	all[n] = NULL;
	yaml_known_keys(map, all, d->diags);
	for (const struct yaml_node *c = map->child; c; c = c->next) {
		struct doc_place at = doc_key_at(c);

		if (c->key && in_list(c->key, planned))
			DOC_ERROR(d, &at, "remove it", "%s: not yet supported by this version", c->key);
	}
}

const char *doc_text(struct policy_doc *d, const struct yaml_node *n, const char *what)
{
	if (n->kind == YAML_SCALAR && *n->text)
		return n->text;
	DOC_ERROR(d, n, NULL, "%s: must be one word or text", what);
	return NULL;
}

static void choice_error(struct policy_doc *d, const struct yaml_node *n, const char *what, const char *const *names)
{
	char list[100] = "", hint[100] = "";
	const char *near = diag_nearest(n->text, names);
	size_t at = 0;

	for (unsigned i = 0; names[i] && at < sizeof(list); i++) {
		const char *sep = !i ? "" : names[i + 1] ? ", " : " or ";

		at += (size_t)snprintf(list + at, sizeof(list) - at, "%s%s", sep, names[i]);
	}
	if (near)
		snprintf(hint, sizeof(hint), "did you mean '%s'?", near);
	DOC_ERROR(d, n, hint, "%s: must be %s, not '%.40s'", what, list, n->text);
}

int doc_choice(struct policy_doc *d, const struct yaml_node *n, const char *what, const char *const *names, unsigned dflt)
{
	if (!n || !doc_text(d, n, what))
		return (int)dflt;
	for (unsigned i = 0; names[i]; i++)
		if (!strcmp(n->text, names[i]))
			return (int)i;
	choice_error(d, n, what, names);
	return (int)dflt;
}

static const char *const reserved[] = { "outside", "inside", "gateway", "unlisted", "any", "all", "none", "never", NULL };

/* Letters, digits, . _ -, at most 63, not an address, not reserved. */
static bool is_name(const char *text)
{
	struct prefix p;
	size_t n = strlen(text);

	if (!n || n > 63 || !isalnum((unsigned char)text[0]) || in_list(text, reserved))
		return false;
	for (size_t i = 0; i < n; i++)
		if (!isalnum((unsigned char)text[i]) && !strchr("._-", text[i]))
			return false;
	return prefix_parse(text, &p) == -EINVAL;
}

void doc_name_check(struct policy_doc *d, const struct doc_place *at, const char *name, const char *what)
{
	if (is_name(name))
		return;
	if (in_list(name, reserved))
		DOC_ERROR(d, at, "choose another", "%s: '%s' has a meaning of its own and cannot be a name", what, name);
	else
		DOC_ERROR(d, at, "letters, digits, '.', '_' and '-', at most 63, starting with a letter or digit",
			  "%s: '%.70s' cannot be a name", what, name);
}

bool doc_network(struct policy_doc *d, const struct yaml_node *n, const char *what, struct prefix *ret)
{
	char text[PREFIX_STRLEN], hint[100];
	struct prefix p;
	int r;

	if (!doc_text(d, n, what))
		return false;
	r = prefix_parse(n->text, &p);
	if (r == 0) {
		*ret = p;
		return true;
	}
	if (r == -ERANGE) {
		snprintf(hint, sizeof(hint), "write %s", prefix_format(&p, text));
		DOC_ERROR(d, n, hint, "%s: '%.60s' has bits set beyond its length", what, n->text);
	} else {
		DOC_ERROR(d, n, "write 10.20.0.15, 10.20.0.0/24 or \"fd00:20::/64\"",
			  "%s: '%.70s' is not an address or network", what, n->text);
	}
	return false;
}

bool doc_by_64(struct policy_doc *d, const struct doc_place *at, const char *what, const struct prefix *p)
{
	char text[PREFIX_STRLEN], up_text[PREFIX_STRLEN], hint[100];
	struct prefix up = { addr_mask(&p->addr, 64), 64 };

	if (prefix_is_v4(p) || p->len <= 64)
		return true;
	snprintf(hint, sizeof(hint), "write %s", prefix_format(&up, up_text));
	DOC_ERROR(d, at, hint, "%s: %s: bytes to IPv6 destinations are counted by their /64", what,
		  prefix_format(p, text));
	return false;
}

static uint32_t text_hash(const char *s)
{
	uint32_t h = 2166136261U;

	for (; *s; s++)
		h = (h ^ (unsigned char)*s) * 16777619U;
	return h;
}

const struct doc_name *doc_find(const struct policy_doc *d, const char *name)
{
	uint32_t i;

	if (!d->name_buckets)
		return NULL;
	for (i = text_hash(name) & (d->name_buckets - 1); d->names[i].name; i = (i + 1) & (d->name_buckets - 1))
		if (!strcmp(d->names[i].name, name))
			break;
	return &d->names[i];
}

const char *doc_kind_name(uint32_t kind)
{
	switch (kind) {
	case DOC_NETWORK:
		return "a network";
	case DOC_HOST:
		return "a host";
	case DOC_GROUP:
		return "a group";
	case DOC_EXIT:
		return "an exit";
	case DOC_DESTINATION:
		return "a destination";
	default:
		return "a word of the policy language";
	}
}

static void unknown_name(struct policy_doc *d, const struct yaml_node *n, const char *what)
{
	char hint[100] = "";
	const char *near = NULL;

	if (!d->all_names)	/* it may have been among those */
		return;
	if (d->diags->count < DIAG_MAX) {	/* beyond that nobody reads it, and a search costs */
		if (d->name_list)
			near = diag_nearest(n->text, d->name_list);
		if (!near)
			near = diag_nearest(n->text, reserved);
	}
	if (near)
		snprintf(hint, sizeof(hint), "did you mean '%.63s'?", near);
	else
		snprintf(hint, sizeof(hint), "define it, or write an address such as 10.20.0.15 or 10.20.0.0/24");
	DOC_ERROR(d, n, hint, "%s: unknown name '%.70s'", what, n->text);
}

static uint32_t word_kind(const char *text)
{
	static const struct {
		const char *word;
		uint32_t kind;
	} words[] = {
		{ "outside", DOC_OUTSIDE }, { "inside", DOC_INSIDE },
		{ "gateway", DOC_GATEWAY }, { "unlisted", DOC_UNLISTED },
	};

	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		if (!strcmp(text, words[i].word))
			return words[i].kind;
	return 0;
}

static bool ref_of(struct policy_doc *d, const struct yaml_node *n, const char *what, uint32_t allowed,
		   struct doc_ref *ret)
{
	const struct doc_name *name;

	if (!doc_text(d, n, what))
		return false;
	*ret = (struct doc_ref){ .at = doc_at(n), .text = n->text, .kind = word_kind(n->text) };
	name = ret->kind ? NULL : doc_find(d, n->text);
	if (name && name->name) {
		ret->kind = name->kind;
		ret->index = name->index;
	} else if (!ret->kind) {
		if (strpbrk(n->text, "/:") || prefix_parse(n->text, &ret->p) != -EINVAL) {
			if (!doc_network(d, n, what, &ret->p))
				return false;
			ret->kind = DOC_NETWORK;
		} else {
			unknown_name(d, n, what);
			return false;
		}
	}
	if (ret->kind & allowed)
		return true;
	if (allowed & DOC_OUTSIDE)
		DOC_ERROR(d, n, "name outside, a destination, an exit or a network",
			  "%s: '%.63s' is %s; bytes to it do not leave", what, n->text, doc_kind_name(ret->kind));
	else
		DOC_ERROR(d, n, allowed & DOC_GROUP ? "name hosts, groups, exits or networks, or inside, gateway, unlisted"
						    : "name hosts and networks",
			  "%s: '%.63s' is %s, which cannot stand here", what, n->text, doc_kind_name(ret->kind));
	return false;
}

static int join_text(struct policy_doc *d, const struct yaml_node *first, uint32_t n, const char **ret)
{
	const struct yaml_node *c = first;
	size_t size = 1, at = 0;
	char *text;

	for (uint32_t i = 0; i < n; i++, c = c->next)
		size += strlen(c->text) + 2;
	text = arena_alloc(d->mem, size);
	if (!text)
		return -ENOMEM;
	c = first;
	for (uint32_t i = 0; i < n; i++, c = c->next)
		at += (size_t)snprintf(text + at, size - at, "%s%s", i ? ", " : "", c->text);
	*ret = text;
	return 0;
}

int doc_refs(struct policy_doc *d, const struct yaml_node *n, const char *what, uint32_t allowed, struct doc_refs *ret,
	     const char **ret_text)
{
	const struct yaml_node *c;
	uint32_t count = doc_items(d, n, what, &c);

	if (!count)
		return 0;
	if (ret_text && join_text(d, c, count, ret_text) < 0)
		return -ENOMEM;
	ret->v = arena_array(d->mem, count, sizeof(*ret->v));
	if (!ret->v)
		return -ENOMEM;
	for (uint32_t i = 0; i < count; i++, c = c->next)
		if (ref_of(d, c, what, allowed, &ret->v[ret->n]))
			ret->n++;
	return 0;
}
