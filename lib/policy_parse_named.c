/* policy_parse_named.c - hosts, groups, exits and destinations: what rules refer to by name. */
#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "policy_doc.h"

static void name_add(struct policy_doc *d, const struct yaml_node *c, uint32_t kind, uint32_t index)
{
	struct doc_place at = doc_key_at(c);
	struct doc_name *slot = (struct doc_name *)doc_find(d, c->key);	/* an empty one when it is new */

	doc_name_check(d, &at, c->key, strchr(doc_kind_name(kind), ' ') + 1);
	if (kind == DOC_HOST && strcmp(c->key, "others") == 0)	/* to egressctl: hosts that found no account */
		DOC_ERROR(d, &at, "choose another", "host: 'others' has a meaning of its own and cannot be a name");
	if (slot->name) {
		DOC_ERROR(d, &at, "hosts, groups, exits and destinations share their names; choose another",
			  "'%.63s' is already the name of %s (line %u)", c->key, doc_kind_name(slot->kind), slot->at.line);
		return;
	}
	*slot = (struct doc_name){ .name = c->key, .kind = kind, .index = index, .at = at };
	d->name_list[d->nnames++] = c->key;
}

/* All names first: sections may refer to each other in any order of the text. */
static int collect_names(struct policy_doc *d, const struct yaml_node *const map[4])
{
	static const uint32_t kinds[4] = { DOC_HOST, DOC_GROUP, DOC_EXIT, DOC_DESTINATION };
	uint32_t total = 0, buckets = 16;

	for (unsigned i = 0; i < 4; i++)
		total += map[i] ? map[i]->count : 0;
	while (buckets < total * 2)
		buckets *= 2;
	d->names = arena_array(d->mem, buckets, sizeof(*d->names));
	d->name_list = arena_array(d->mem, total + 1, sizeof(*d->name_list));
	if (!d->names || !d->name_list)
		return -ENOMEM;
	d->name_buckets = buckets;
	for (unsigned i = 0; i < 4; i++) {
		uint32_t index = 0;

		for (const struct yaml_node *c = map[i] ? map[i]->child : NULL; c; c = c->next)
			name_add(d, c, kinds[i], index++);
	}
	return 0;
}

static void parse_stores(struct policy_doc *d, const struct yaml_node *n, struct doc_host *h)
{
	static const char *const keys[] = { "bytes", "compressed", NULL };
	const struct yaml_node *c;

	if (!doc_map(d, n, "stores"))
		return;
	doc_keys(d, n, keys);
	c = yaml_get(n, "bytes");
	if (c)
		(void)!yaml_size(c, d->diags, &h->stores_bytes);
	c = yaml_get(n, "compressed");
	if (c)
		(void)!yaml_size(c, d->diags, &h->stores_compressed);
	if (h->stores_bytes && h->stores_compressed > h->stores_bytes)
		DOC_ERROR(d, n, "compressed is what is left after compression", "stores: compressed is more than bytes");
}

static int parse_host(struct policy_doc *d, const struct yaml_node *n, uint32_t index)
{
	static const char *const keys[] = { "addresses", "stores", NULL };
	struct doc_host *h = &d->host[index];
	const struct yaml_node *c;
	uint32_t count;

	*h = (struct doc_host){ .name = n->key, .at = doc_key_at(n) };
	if (!doc_map(d, n, n->key))
		return 0;
	doc_keys(d, n, keys);
	c = yaml_get(n, "stores");
	if (c)
		parse_stores(d, c, h);
	c = yaml_get(n, "addresses");
	if (!c) {
		DOC_MISSING(d, n, &h->at, "such as 'addresses: [10.20.0.15]'", "host %.63s: addresses are missing", h->name);
		return 0;
	}
	count = doc_items(d, c, "addresses", &c);
	h->addr = arena_array(d->mem, count, sizeof(*h->addr));
	if (!h->addr)
		return -ENOMEM;
	for (uint32_t i = 0; i < count; i++, c = c->next) {
		struct doc_prefix *p = &h->addr[h->naddrs];

		if (!doc_network(d, c, "addresses", &p->p))
			continue;
		if (p->p.len != 128) {
			DOC_ERROR(d, c, "a host is one machine; make it a group, or list its addresses",
				  "addresses: '%.60s' is a network", c->text);
			continue;
		}
		p->at = doc_at(c);
		p->owner = index;
		h->naddrs++;
	}
	return 0;
}

static int parse_group(struct policy_doc *d, const struct yaml_node *n, uint32_t index)
{
	static const char *const keys[] = { "hosts", "except", NULL };
	struct doc_group *g = &d->group[index];
	const struct yaml_node *c;
	int r = 0;

	*g = (struct doc_group){ .name = n->key, .at = doc_key_at(n), .exit = -1 };
	if (!doc_map(d, n, n->key))
		return 0;
	doc_keys(d, n, keys);
	c = yaml_get(n, "hosts");
	if (c)
		r = doc_refs(d, c, "hosts", DOC_NETWORK | DOC_HOST, &g->hosts, NULL);
	else
		DOC_MISSING(d, n, &g->at, "such as 'hosts: [10.20.0.0/24]'", "group %.63s: hosts are missing", g->name);
	c = yaml_get(n, "except");
	if (r == 0 && c)
		r = doc_refs(d, c, "except", DOC_NETWORK | DOC_HOST, &g->except, NULL);
	return r;
}

static void add_device(struct policy_doc *d, const struct yaml_node *n, struct doc_exit *e, const char *device)
{
	for (uint32_t i = 0; i < e->nifaces; i++)
		if (!strcmp(e->iface[i], device))
			return;
	if (e->nifaces == POLICY_IFACES) {
		DOC_ERROR(d, n, "make two exits of it", "interfaces: more than %u devices in one exit", POLICY_IFACES);
		return;
	}
	memcpy(e->iface[e->nifaces++], device, strlen(device) + 1);
}

static bool is_device(const char *s)
{
	size_t n = strlen(s);

	if (!n || n >= POLICY_IFNAME || !strcmp(s, ".") || !strcmp(s, ".."))
		return false;
	for (; *s; s++)
		if (*s == '/' || *s == ':' || !isgraph((unsigned char)*s))
			return false;
	return true;
}

static void parse_interface(struct policy_doc *d, const struct yaml_node *n, struct doc_exit *e)
{
	const struct policy_env *env = d->env;

	if (!doc_text(d, n, "interfaces"))
		return;
	if (!strcmp(n->text, "outside")) {
		DOC_ERROR(d, n, "name the devices of this exit", "interfaces: 'outside' is where everything leaves, no exit");
		return;
	}
	for (size_t i = 0; i < env->nroles; i++) {
		if (strcmp(env->role[i].role, n->text))
			continue;
		for (unsigned k = 0; k < POLICY_IFACES && env->role[i].device[k]; k++)
			if (is_device(env->role[i].device[k]))
				add_device(d, n, e, env->role[i].device[k]);
		return;
	}
	if (is_device(n->text))
		add_device(d, n, e, n->text);
	else
		DOC_ERROR(d, n, "a role of egressd.yaml, or a device of at most 15 characters",
			  "interfaces: '%.60s' is neither a role nor a device name", n->text);
}

static int parse_exit(struct policy_doc *d, const struct yaml_node *n, uint32_t index)
{
	static const char *const keys[] = { "interfaces", "hosts", NULL };
	struct doc_exit *e = &d->exit[index];
	const struct yaml_node *c, *i = NULL;
	uint32_t count;

	*e = (struct doc_exit){ .name = n->key, .at = doc_key_at(n) };
	if (!doc_map(d, n, n->key))
		return 0;
	doc_keys(d, n, keys);
	c = yaml_get(n, "interfaces");
	count = c ? doc_items(d, c, "interfaces", &i) : 0;
	for (; count; count--, i = i->next)
		parse_interface(d, i, e);
	if (!c && !yaml_get(n, "hosts"))
		DOC_MISSING(d, n, &e->at, "such as {interfaces: [wg-maint], hosts: [10.250.0.0/16]}",
			    "exit %.63s: needs interfaces, hosts, or both", e->name);
	c = yaml_get(n, "hosts");
	if (!c)
		return 0;
	count = doc_items(d, c, "hosts", &i);
	e->host = arena_array(d->mem, count, sizeof(*e->host));
	if (!e->host)
		return -ENOMEM;
	for (; count; count--, i = i->next) {
		struct doc_prefix *p = &e->host[e->nhosts];

		if (!doc_network(d, i, "hosts", &p->p))
			continue;
		p->at = doc_at(i);
		p->owner = index;
		e->nhosts++;
	}
	return 0;
}

static int parse_destination(struct policy_doc *d, const struct yaml_node *n, uint32_t index)
{
	static const char *const keys[] = { "networks", "networks_file", NULL };
	struct doc_destination *dest = &d->dest[index];
	const struct yaml_node *c, *i;
	uint32_t count;

	*dest = (struct doc_destination){ .name = n->key, .at = doc_key_at(n) };
	if (!doc_map(d, n, n->key))
		return 0;
	doc_keys(d, n, keys);
	c = yaml_get(n, "networks");
	count = c ? doc_items(d, c, "networks", &i) : 0;
	dest->net = arena_array(d->mem, count, sizeof(*dest->net));
	if (!dest->net)
		return -ENOMEM;
	for (; count; count--, i = i->next) {
		struct doc_place at = doc_at(i);

		if (doc_network(d, i, "networks", &dest->net[dest->nnets]) &&
		    doc_by_64(d, &at, "networks", &dest->net[dest->nnets]))
			dest->nnets++;
	}
	if (yaml_get(n, "networks_file"))
		return doc_networks_file(d, yaml_get(n, "networks_file"), dest);
	if (!c)
		DOC_MISSING(d, n, &dest->at, "such as {networks: [203.0.113.0/24]}",
			    "destination %.63s: needs networks or networks_file", dest->name);
	return 0;
}

static int parse_each(struct policy_doc *d, const struct yaml_node *map,
		      int (*fn)(struct policy_doc *, const struct yaml_node *, uint32_t))
{
	uint32_t i = 0;
	int r = 0;

	for (const struct yaml_node *c = map ? map->child : NULL; c && r == 0; c = c->next)
		r = fn(d, c, i++);
	return r;
}

int doc_parse_named(struct policy_doc *d, const struct yaml_node *root)
{
	static const char *const sections[4] = { "hosts", "groups", "exits", "destinations" };
	const struct yaml_node *map[4];
	int r;

	d->all_names = !root->partial;
	for (unsigned i = 0; i < 4; i++) {
		map[i] = doc_section(d, root, sections[i]);
		d->all_names = d->all_names && (map[i] ? !map[i]->partial : yaml_lacks(root, sections[i]));
	}
	r = collect_names(d, map);
	if (r < 0)
		return r;
	d->nhosts = map[0] ? map[0]->count : 0;
	d->ngroups = map[1] ? map[1]->count : 0;
	d->nexits = map[2] ? map[2]->count : 0;
	d->ndests = map[3] ? map[3]->count : 0;
	if (d->ngroups > DOC_GROUPS)
		DOC_ERROR(d, map[1], NULL, "groups: %u of them; at most %u are possible", d->ngroups, DOC_GROUPS);
	if (d->nexits > POLICY_EXITS)
		DOC_ERROR(d, map[2], NULL, "exits: %u of them; at most %u are possible", d->nexits, POLICY_EXITS);
	d->host = arena_array(d->mem, d->nhosts, sizeof(*d->host));
	d->group = arena_array(d->mem, d->ngroups, sizeof(*d->group));
	d->exit = arena_array(d->mem, d->nexits, sizeof(*d->exit));
	d->dest = arena_array(d->mem, d->ndests, sizeof(*d->dest));
	if (!d->host || !d->group || !d->exit || !d->dest)
		return -ENOMEM;
	r = parse_each(d, map[0], parse_host);
	if (r == 0)
		r = parse_each(d, map[1], parse_group);
	if (r == 0)
		r = parse_each(d, map[2], parse_exit);
	return r < 0 ? r : parse_each(d, map[3], parse_destination);
}
