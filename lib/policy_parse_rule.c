/* policy_parse_rule.c - sections rules and contracts. */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>

#include "policy_doc.h"

#define MINUTE_S 60U
#define DAY_S	 (24U * 3600)
#define FROM_KINDS                                                                                             \
	(DOC_NETWORK | DOC_HOST | DOC_GROUP | DOC_EXIT | DOC_INSIDE | DOC_GATEWAY | DOC_UNLISTED)
#define TO_KINDS (DOC_NETWORK | DOC_EXIT | DOC_DESTINATION | DOC_OUTSIDE)

static const char *const openers[] = { "any", "inside", "outside", NULL };	/* by enum opener */

static void window_text(uint64_t s, char *buf, size_t size)
{
	static const struct {
		uint32_t s;
		char unit;
	} units[] = { { DAY_S, 'd' }, { 3600, 'h' }, { MINUTE_S, 'm' }, { 1, 's' } };

	for (size_t i = 0; i < ARRAY_SIZE(units); i++) {
		if (s % units[i].s == 0) {
			snprintf(buf, size, "%llu%c", (unsigned long long)(s / units[i].s), units[i].unit);
			return;
		}
	}
}

/* The nearest windows that a ring can hold, below and above. */
static void nearest_windows(uint64_t s, char *hint, size_t size)
{
	uint64_t longest = 30ULL * DAY_S, low = MIN_OF(s, longest), high = s + 1;
	char a[24], b[24];
	struct window_spec spec;

	while (low > 0 && window_spec_for(low, &spec) < 0)
		low--;
	while (high <= longest && window_spec_for(high, &spec) < 0)
		high++;
	if (low)
		window_text(low, a, sizeof(a));
	if (high <= longest)
		window_text(high, b, sizeof(b));
	if (low && high <= longest)
		snprintf(hint, size, "the nearest are %s and %s", a, b);
	else if (low)
		snprintf(hint, size, "the longest is %s", a);
	else
		snprintf(hint, size, "the shortest is %s", b);
}

static bool one_limit(struct policy_doc *d, const struct yaml_node *c, struct account_limit *ret)
{
	struct doc_place at = doc_key_at(c);
	char hint[100];
	uint64_t s;

	memset(ret, 0, sizeof(*ret));
	if (parse_duration(c->key, &s) < 0) {
		DOC_ERROR(d, &at, "write such as 5m, 1h, 24h or 30d", "window '%.40s' is not a duration", c->key);
		return false;
	}
	if (window_spec_for(s, &ret->spec) < 0) {
		nearest_windows(s, hint, sizeof(hint));
		DOC_ERROR(d, &at, hint, "window %.40s is not possible", c->key);
		return false;
	}
	ret->seconds = (uint32_t)s;
	if (yaml_size(c, d->diags, &ret->bytes) < 0)
		return false;
	if (ret->bytes && ret->bytes <= (uint64_t)INT64_MAX)
		return true;
	DOC_ERROR(d, c, "to let nothing out, write 1B", "window %.40s: a limit must be 1B to 8388607TiB", c->key);
	return false;
}

static int limit_cmp(const void *x, const void *y)
{
	const struct account_limit *a = x, *b = y;

	return a->seconds < b->seconds ? -1 : a->seconds > b->seconds;
}

/* Children of `map` but `skip` are windows. */
static void parse_limits(struct policy_doc *d, const struct yaml_node *map, const char *skip, struct doc_rule *r)
{
	uint32_t seen = 0;

	for (const struct yaml_node *c = map->child; c; c = c->next) {
		struct doc_place at = doc_key_at(c);
		struct account_limit l;

		if (skip && !strcmp(c->key, skip))
			continue;
		seen++;
		if (!one_limit(d, c, &l))
			continue;
		for (unsigned i = 0; i < r->nlimits; i++) {
			if (r->limit[i].seconds == l.seconds) {
				DOC_ERROR(d, &at, "keep one of them", "window %.40s is given twice", c->key);
				goto next;
			}
		}
		if (r->nlimits == ACCOUNT_LIMITS) {
			DOC_ERROR(d, &at, "make a second rule", "more than %u windows", ACCOUNT_LIMITS);
			return;
		}
		r->limit[r->nlimits++] = l;
next:;
	}
	if (!seen)
		DOC_MISSING(d, map, map, "such as {1h: 500MB, 24h: 2GB}", "%s: no window", skip ? "budget" : "limit");
	qsort(r->limit, r->nlimits, sizeof(r->limit[0]), limit_cmp);
}

static int parse_ports(struct policy_doc *d, const struct yaml_node *n, struct doc_rule *r)
{
	const struct yaml_node *c;
	uint32_t count = doc_items(d, n, "ports", &c);
	size_t size = 1, at = 0;
	char *text;

	for (const struct yaml_node *i = c; i && size < SIZE_MAX / 2; i = i == n ? NULL : i->next)
		size += strlen(i->text) + 2;
	text = arena_alloc(d->mem, size);
	r->ports.range = arena_array(d->mem, (size_t)count * 2, sizeof(*r->ports.range));
	if (!text || !r->ports.range)
		return -ENOMEM;
	r->ports_text = text;
	for (uint32_t i = 0; i < count; i++, c = c->next) {
		int k;

		if (!doc_text(d, c, "ports"))
			continue;
		at += (size_t)snprintf(text + at, size - at, "%s%s", at ? ", " : "", c->text);
		k = ports_parse(c->text, &r->ports.range[r->ports.count]);
		if (k < 0)
			DOC_ERROR(d, c, "write tcp/443, udp/6000-6100, tcp, udp, icmp, gre, esp, sctp, ipip or ipv6",
				  "ports: '%.40s' is not a protocol and port", c->text);
		else
			r->ports.count += (uint32_t)k;
	}
	ports_normalize(&r->ports);
	return 0;
}

/* What rules and contracts have in common: name, from, to, ports, opened_by. */
static int parse_common(struct policy_doc *d, const struct yaml_node *n, struct doc_rule *r)
{
	const struct yaml_node *c = yaml_get(n, "name"), *from = yaml_get(n, "from"), *to = yaml_get(n, "to");
	int e = 0;

	r->at = doc_at(n);
	r->name = r->owner = r->ports_text = "";
	r->from_text = r->to_text = "";
	if (!c) {
		DOC_MISSING(d, n, n, "such as 'name: bulk-leak'", "name: is missing");
	} else if (doc_text(d, c, "name")) {
		r->at = doc_at(c);
		r->name = c->text;
		doc_name_check(d, &r->at, c->text, "name");
	}
	r->from_at = r->at;
	if (from) {
		r->from_at = doc_at(from);
		e = doc_refs(d, from, "from", FROM_KINDS, &r->from, &r->from_text);
	} else {
		DOC_MISSING(d, n, n, "name a host, group or network", "from: is missing");
	}
	if (e == 0 && to)
		e = doc_refs(d, to, "to", TO_KINDS, &r->to, &r->to_text);
	else if (!to)
		DOC_MISSING(d, n, n, "name outside, a destination or an exit", "to: is missing");
	for (uint32_t i = 0; i < r->to.n; i++)
		if (r->to.v[i].kind == DOC_NETWORK)
			doc_by_64(d, &r->to.v[i].at, "to", &r->to.v[i].p);
	c = yaml_get(n, "ports");
	if (e == 0 && c)
		e = parse_ports(d, c, r);
	if (e < 0)
		return e;
	r->opened_by = (uint8_t)doc_choice(d, yaml_get(n, "opened_by"), "opened_by", openers, OPENER_UNKNOWN);
	r->ports_canonical = ports_canonical(&r->ports, d->mem);
	return r->ports_canonical ? 0 : -ENOMEM;
}

static void parse_per(struct policy_doc *d, const struct yaml_node *map, const char *const *names, struct doc_rule *r)
{
	const struct yaml_node *n = yaml_get(map, "per");
	int i = doc_choice(d, n, "per", names, 0);

	for (r->per = PER_PAIR; r->per < PER_TOTAL && strcmp(policy_per_name(r->per), names[i]); r->per++)
		;
	if (!n)
		DOC_MISSING(d, map, map, "say whose bytes are summed", "per: is missing; it is %s, %s or %s", names[0],
			    names[1], names[2]);
	if (n && r->per == PER_GROUP) {
		for (uint32_t k = 0; k < r->from.n; k++)
			if (r->from.v[k].kind != DOC_GROUP)
				DOC_ERROR(d, &r->from.v[k].at, "name groups only, or write per: host",
					  "per: group, but '%.63s' is not a group", r->from.v[k].text);
	}
}

static void parse_hold(struct policy_doc *d, const struct yaml_node *n, struct doc_rule *r)
{
	uint64_t v;

	r->hold_s = 30 * MINUTE_S;
	if (!n || yaml_duration(n, d->diags, &v) < 0)
		return;
	if (v < 1 || v > 30 * DAY_S)
		DOC_ERROR(d, n, "write 1s to 30d", "hold: '%.20s' is out of range", n->text);
	else
		r->hold_s = (uint32_t)v;
}

static void parse_action(struct policy_doc *d, const struct yaml_node *n, struct doc_rule *r)
{
	static const char *const actions[] = { "alert", "block", NULL };

	if (n && n->kind == YAML_SCALAR && !strcmp(n->text, "throttle"))
		DOC_ERROR(d, n, "use alert or block", "action: throttle is not yet supported by this version");
	else
		r->action = (uint8_t)doc_choice(d, n, "action", actions, ACTION_ALERT);
}

static int parse_rule(struct policy_doc *d, const struct yaml_node *n, struct doc_rule *r)
{
	static const char *const keys[] = {
		"name", "from", "to", "ports", "opened_by", "per", "limit", "action", "hold", "severity", "mode",
		"refuse", NULL
	};
	static const char *const pers[] = { "pair", "host", "group", NULL };
	static const char *const severities[] = { "low", "medium", "high", "critical", NULL };
	static const char *const modes[] = { "observe", "enforce", NULL };
	static const char *const refuses[] = { "reject", "drop", NULL };
	const struct yaml_node *limit = yaml_get(n, "limit");
	int e;

	doc_keys(d, n, keys);
	r->kind = RULE_RULE;
	e = parse_common(d, n, r);
	if (e < 0)
		return e;
	parse_per(d, n, pers, r);
	parse_action(d, yaml_get(n, "action"), r);
	parse_hold(d, yaml_get(n, "hold"), r);
	r->severity = (uint8_t)(doc_choice(d, yaml_get(n, "severity"), "severity", severities, 1) + SEVERITY_LOW);
	r->enforce_ok = doc_choice(d, yaml_get(n, "mode"), "mode", modes, 1) == 1;
	r->refuse = (uint8_t)doc_choice(d, yaml_get(n, "refuse"), "refuse", refuses, REFUSE_REJECT);
	r->until = POLICY_UNTIL_NEVER;
	if (!limit)
		DOC_MISSING(d, n, n, "such as {1h: 500MB, 24h: 2GB}", "limit: is missing");
	else if (doc_map(d, limit, "limit"))
		parse_limits(d, limit, NULL, r);
	return 0;
}

static bool leap(int y)
{
	return (y % 4 == 0 && y % 100 != 0) || y % 400 == 0;
}

/* Unix seconds at the end of that day, UTC. */
static int date_end(const char *s, int64_t *ret)
{
	static const uint8_t days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
	int y, m, day;
	int64_t n;

	for (unsigned i = 0; i < 10; i++)
		if (i == 4 || i == 7 ? s[i] != '-' : !isdigit((unsigned char)s[i]))
			return -EINVAL;
	if (s[10])
		return -EINVAL;
	y = (s[0] - '0') * 1000 + (s[1] - '0') * 100 + (s[2] - '0') * 10 + s[3] - '0';
	m = (s[5] - '0') * 10 + s[6] - '0';
	day = (s[8] - '0') * 10 + s[9] - '0';
	if (y < 1970 || m < 1 || m > 12 || day < 1 || day > days[m - 1] + (m == 2 && leap(y)))
		return -EINVAL;
	n = day;
	for (int i = 1; i < m; i++)
		n += days[i - 1] + (i == 2 && leap(y));
	y--;
	n += (int64_t)y * 365 + y / 4 - y / 100 + y / 400 - (1969 * 365 + 1969 / 4 - 1969 / 100 + 1969 / 400);
	*ret = n * DAY_S;
	return 0;
}

static void parse_until(struct policy_doc *d, const struct yaml_node *n, struct doc_rule *r)
{
	if (!doc_text(d, n, "until"))
		return;
	if (!strcmp(n->text, "never"))
		r->until = POLICY_UNTIL_NEVER;
	else if (date_end(n->text, &r->until) < 0)
		DOC_ERROR(d, n, "write a date such as 2027-03-31, or never", "until: '%.40s' is not a date", n->text);
	else if (r->until <= d->env->now)
		DOC_ERROR(d, n, "ask the owner whether to extend it; else remove the contract",
			  "until: the contract ran out at the end of %s", n->text);
}

static void parse_budget(struct policy_doc *d, const struct yaml_node *n, struct doc_rule *r)
{
	static const char *const pers[] = { "pair", "host", "total", NULL };

	if (!doc_map(d, n, "budget"))
		return;
	parse_per(d, n, pers, r);
	parse_limits(d, n, "per", r);
}

static int parse_contract(struct policy_doc *d, const struct yaml_node *n, struct doc_rule *r)
{
	static const char *const keys[] = {
		"name", "from", "to", "ports", "opened_by", "budget", "until", "on_breach", "owner", NULL
	};
	static const char *const breaches[] = { "none", "alert", NULL };
	const struct yaml_node *budget = yaml_get(n, "budget"), *until = yaml_get(n, "until"), *owner;
	int e;

	doc_keys(d, n, keys);
	r->kind = RULE_CONTRACT;
	r->severity = SEVERITY_MEDIUM;
	r->hold_s = 30 * MINUTE_S;
	e = parse_common(d, n, r);
	if (e < 0)
		return e;
	r->per = PER_PAIR;
	if (budget)
		parse_budget(d, budget, r);
	else
		DOC_MISSING(d, n, n, "such as {per: total, 24h: 300GB}", "budget: is missing");
	if (until)
		parse_until(d, until, r);
	else
		DOC_MISSING(d, n, n, "write the last day, such as 2027-03-31, or never", "until: is missing");
	r->alert_on_breach = doc_choice(d, yaml_get(n, "on_breach"), "on_breach", breaches, 1) == 1;
	owner = yaml_get(n, "owner");
	if (owner && doc_text(d, owner, "owner"))
		r->owner = owner->text;
	return 0;
}

static int parse_list(struct policy_doc *d, const struct yaml_node *list, const char *what,
		      int (*fn)(struct policy_doc *, const struct yaml_node *, struct doc_rule *))
{
	int r = 0;

	for (const struct yaml_node *c = list ? list->child : NULL; c && r == 0; c = c->next) {
		if (c->kind != YAML_MAP)
			DOC_ERROR(d, c, "write '- name: ...'", "%s: each one must be a map", what);
		else
			r = fn(d, c, &d->rule[d->nrules++]);
	}
	return r;
}

static const struct yaml_node *a_list(struct policy_doc *d, const struct yaml_node *n, const char *what)
{
	if (!n || n->kind == YAML_LIST)
		return n;
	DOC_ERROR(d, n, "write '- name: ...' lines below it", "%s: must be a list", what);
	return NULL;
}

int doc_parse_rules(struct policy_doc *d, const struct yaml_node *rules, const struct yaml_node *contracts)
{
	size_t count;
	int r;

	rules = a_list(d, rules, "rules");
	contracts = a_list(d, contracts, "contracts");
	count = (size_t)(rules ? rules->count : 0) + (contracts ? contracts->count : 0);
	if (count > POLICY_RULES) {
		DOC_ERROR(d, rules ? rules : contracts, "'from', 'to' and 'ports' take lists: make one of several",
			  "%zu rules and contracts; at most %u are possible", count, POLICY_RULES);
		return 0;
	}
	d->rule = arena_array(d->mem, count, sizeof(*d->rule));
	if (!d->rule)
		return -ENOMEM;
	r = parse_list(d, contracts, "contracts", parse_contract);
	d->ncontracts = d->nrules;
	if (r == 0)
		r = parse_list(d, rules, "rules", parse_rule);
	return r;
}
