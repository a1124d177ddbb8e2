/* policy_parse.c - the sections of a policy that name nothing, and the order in which all are read. */
#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "policy_doc.h"
#include "prefix_set.h"

#define DAY_S		(24U * 3600)
#define DEFAULT_BUDGET	(10ULL * 1000 * 1000 * 1000)

static void parse_version(struct policy_doc *d, const struct yaml_node *root)
{
	const struct yaml_node *n = yaml_get(root, "version");

	if (!n)
		DOC_MISSING(d, root, root, "begin the file with 'version: 1'", "version: is missing");
	else if (n->kind != YAML_SCALAR || strcmp(n->text, "1"))
		DOC_ERROR(d, n, "write 'version: 1'", "version: this egressd reads version 1 only");
}

/* The shape of an IANA name; whether the machine knows it is for zone_known() to see. */
static bool is_timezone(const char *s)
{
	static const char *const areas[] = {
		"Africa", "America", "Antarctica", "Arctic", "Asia", "Atlantic", "Australia", "Europe", "Indian",
		"Pacific", "Etc", NULL
	};
	const char *slash = strchr(s, '/');
	char area[16];

	if (!strcmp(s, "UTC"))
		return true;
	if (!slash || slash - s >= (ptrdiff_t)sizeof(area) || strlen(s) > 63)
		return false;
	memcpy(area, s, (size_t)(slash - s));
	area[slash - s] = '\0';
	for (unsigned i = 0; areas[i]; i++) {
		if (strcmp(area, areas[i]))
			continue;
		for (s = slash; *s; s++)
			if (*s == '/' ? !isalpha((unsigned char)s[1]) : !isalnum((unsigned char)*s) && !strchr("_+-", *s))
				return false;
		return true;
	}
	return false;
}

static void parse_head(struct policy_doc *d, const struct yaml_node *root)
{
	static const char *const modes[] = { "observe", "enforce", NULL };
	const struct yaml_node *n = yaml_get(root, "timezone");

	parse_version(d, root);
	d->enforce = doc_choice(d, yaml_get(root, "mode"), "mode", modes, 0) == 1;
	d->timezone = "UTC";
	if (!n || !doc_text(d, n, "timezone"))
		return;
	if (!is_timezone(n->text))
		DOC_ERROR(d, n, "write UTC or Area/City, such as Asia/Tokyo", "timezone: '%.60s' is no time zone name",
			  n->text);
	else if (strcmp(n->text, "UTC") && d->env->zone_known && !d->env->zone_known(d->env->ctx, n->text))
		DOC_ERROR(d, n, "take a name from /usr/share/zoneinfo (of the package tzdata), or write UTC",
			  "timezone: this machine knows no '%.60s'", n->text);
	else
		d->timezone = n->text;
}

static int parse_inside(struct policy_doc *d, const struct yaml_node *root)
{
	const struct yaml_node *n = yaml_get(root, "inside"), *c;
	uint32_t count;

	if (!n) {
		DOC_MISSING(d, root, root, "such as 'inside: [10.0.0.0/8]'",
			    "inside: is missing; name the networks that are yours");
		return 0;
	}
	count = doc_items(d, n, "inside", &c);
	d->inside = arena_array(d->mem, count, sizeof(*d->inside));
	if (!d->inside)
		return -ENOMEM;
	for (uint32_t i = 0; i < count; i++, c = c->next) {
		struct doc_prefix *p = &d->inside[d->ninside];

		if (!doc_network(d, c, "inside", &p->p))
			continue;
		p->at = doc_at(c);
		d->ninside++;
		if (p->p.len == (prefix_is_v4(&p->p) ? 96 : 0))
			DOC_ERROR(d, c, "name only networks that are yours",
				  "inside: %s is every address; nothing would ever leave", c->text);
	}
	return 0;
}

static void protect_add(struct policy_doc *d, const struct prefix *p)
{
	struct prefix wide = *p;

	/* A pair with an IPv6 destination is its /64: protecting one address protects that. */
	if (!prefix_is_v4(p) && p->len > 64)
		wide = (struct prefix){ addr_mask(&p->addr, 64), 64 };
	d->protect[d->nprotect++] = wide;
}

static int parse_protect(struct policy_doc *d, const struct yaml_node *root)
{
	const struct yaml_node *n = yaml_get(root, "protect"), *c = NULL;
	uint32_t count = n ? doc_items(d, n, "protect", &c) : 0;
	struct prefix p;

	d->protect = arena_array(d->mem, count + d->env->nprotect, sizeof(*d->protect));
	if (!d->protect)
		return -ENOMEM;
	for (size_t i = 0; i < d->env->nprotect; i++)
		protect_add(d, &d->env->protect[i]);
	for (; count; count--, c = c->next)
		if (doc_network(d, c, "protect", &p))
			protect_add(d, &p);
	return 0;
}

static void parse_brake(struct policy_doc *d, const struct yaml_node *root)
{
	static const char *const keys[] = { "subjects", "in", NULL };
	const struct yaml_node *n = doc_section(d, root, "brake"), *subjects, *in;
	uint64_t v;

	if (!n)
		return;
	doc_keys(d, n, keys);
	subjects = yaml_get(n, "subjects");
	in = yaml_get(n, "in");
	if (!subjects || !in) {
		DOC_MISSING(d, n, n, "such as {subjects: 5, in: 10m}", "brake: needs subjects and in");
		return;
	}
	if (yaml_uint(subjects, d->diags, 1, POLICY_BRAKE, &v) == 0)
		d->brake_subjects = (uint32_t)v;
	if (yaml_duration(in, d->diags, &v) < 0)
		return;
	if (v < 1 || v > DAY_S)
		DOC_ERROR(d, in, "write 1s to 1d", "brake: in: '%.20s' is out of range", in->text);
	else
		d->brake_s = (uint32_t)v;
}

static void parse_accept(struct policy_doc *d, const struct yaml_node *n)
{
	static const char *const names[] = { "allow", "block", "unblock", NULL };
	const struct yaml_node *c = n->child;

	if (n->kind != YAML_LIST) {	/* an empty list is the way to accept nothing */
		DOC_ERROR(d, n, "write [block, unblock, allow], or [] for none", "accept: must be a list");
		return;
	}
	for (; c; c = c->next) {
		uint32_t count = d->diags->count;
		int i = doc_choice(d, c, "accept", names, 0);

		if (d->diags->count == count)
			d->accept |= 1U << i;
	}
}

static void parse_decisions(struct policy_doc *d, const struct yaml_node *root)
{
	static const char *const keys[] = { "accept", "max_ttl", "max_budget", NULL };
	const struct yaml_node *n = doc_section(d, root, "decisions"), *c;
	uint64_t v;

	d->max_ttl_s = DAY_S;
	d->max_budget = DEFAULT_BUDGET;
	if (!n)
		return;
	doc_keys(d, n, keys);
	c = yaml_get(n, "accept");
	if (c)
		parse_accept(d, c);
	c = yaml_get(n, "max_ttl");
	if (c && yaml_duration(c, d->diags, &v) == 0) {
		if (v < 1 || v > 30 * DAY_S)
			DOC_ERROR(d, c, "write 1s to 30d", "max_ttl: '%.20s' is out of range", c->text);
		else
			d->max_ttl_s = (uint32_t)v;
	}
	c = yaml_get(n, "max_budget");
	if (c && yaml_size(c, d->diags, &v) == 0)
		d->max_budget = v;
}

/* All that says what an address is. */
static bool is_whole(const struct yaml_node *root)
{
	static const char *const sections[] = { "inside", "hosts", "groups", "exits", "destinations" };

	for (size_t i = 0; i < ARRAY_SIZE(sections); i++)
		if (!yaml_whole(yaml_get(root, sections[i])))
			return false;
	return !root->partial;
}

int doc_parse(struct policy_doc *d, const struct yaml_node *root)
{
	static const char *const keys[] = {
		"version", "mode", "timezone", "inside", "hosts", "groups", "exits", "destinations", "rules",
		"contracts", "protect", "brake", "decisions", NULL
	};
	int r;

	d->whole = is_whole(root);
	doc_keys(d, root, keys);
	parse_head(d, root);
	r = parse_inside(d, root);
	if (r == 0)
		r = doc_parse_named(d, root);
	if (r == 0)
		r = doc_parse_rules(d, yaml_get(root, "rules"), yaml_get(root, "contracts"));
	if (r == 0)
		r = parse_protect(d, root);
	if (r < 0)
		return r;
	parse_brake(d, root);
	parse_decisions(d, root);
	return 0;
}
