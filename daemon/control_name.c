/* control_name.c - from names that people use to addresses, and back. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control_internal.h"
#include "diag.h"

static int add(struct control_name *n, const struct prefix *p)
{
	if (n->n == CONTROL_ADDRS)
		return -E2BIG;
	n->prefix[n->n++] = *p;
	return 0;
}

static int add_host(const struct policy *p, int host, struct control_name *n)
{
	int r = 0;

	n->host = host;
	for (uint32_t i = 0; r == 0 && i < p->h->nhost_addrs; i++)
		if (p->host_addr[i].host == (uint32_t)host) {
			struct prefix x = { .addr = p->host_addr[i].addr, .len = 128 };

			r = add(n, &x);
		}
	return r;
}

static int exit_by_name(const struct policy *p, const char *text)
{
	for (uint32_t x = 0; x < p->h->nexits; x++)
		if (strcmp(policy_string(p, p->exit[x].name), text) == 0)
			return (int)x;
	return -1;
}

static int add_exit(const struct policy *p, const char *text, struct control_name *n)
{
	int r = 0;

	n->exit = exit_by_name(p, text);
	if (n->exit < 0)
		return -ENOENT;
	for (uint32_t i = 0; r == 0 && i < p->h->nexit_prefixes; i++)
		if (p->exit_prefix[i].exit == (uint32_t)n->exit)
			r = add(n, &p->exit_prefix[i].prefix);
	return r;
}

/* The nearest name that would do, or NULL. */
static const char *nearest(const struct policy *p, const char *text, bool out)
{
	const char **names = calloc((size_t)p->h->nhosts + p->h->nexits + 4, sizeof(*names)), *best;
	size_t n = 0;

	if (!names)
		return NULL;
	for (uint32_t i = 0; i < p->h->nhosts; i++)
		names[n++] = policy_string(p, p->host[i].name);
	for (uint32_t i = 0; out && i < p->h->nexits; i++)
		names[n++] = policy_string(p, p->exit[i].name);
	names[n++] = out ? "any" : "gateway";
	names[n++] = out ? NULL : "unlisted";
	names[n++] = out ? NULL : "others";
	best = diag_nearest(text, names);
	free(names);
	return best;
}

/* A group or a destination of the policy: a rule is about it. */
static bool is_set(const struct policy *p, const char *text)
{
	for (uint32_t i = 0; i < p->h->nrules; i++)
		if (strcmp(policy_string(p, p->rule[i].from_text), text) == 0 ||
		    strcmp(policy_string(p, p->rule[i].to_text), text) == 0 ||
		    strcmp(policy_string(p, p->rule[i].group_name), text) == 0)
			return true;
	return false;
}

static int unknown(struct control_call *q, const char *text, bool out)
{
	const struct policy *p = q->ctx->policy;
	const char *near = p ? nearest(p, text, out) : NULL;

	if (p && !out && exit_by_name(p, text) >= 0)
		return control_refuse(q, -ENOENT, "%.60s is an exit: name it as the destination, after a host", text);
	if (p && is_set(p, text))
		return control_refuse(q, -ENOENT, "%.60s stands for many; name one of its members, or a network", text);
	return control_refuse(q, -ENOENT, "%.60s: neither an address nor a host%s of the policy in force%s%.60s%s", text,
			      out ? " or exit" : "", near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
}

static int many(struct control_call *q, const char *text)
{
	return control_refuse(q, -E2BIG, "%.60s: more than %u addresses; name one of them", text, CONTROL_ADDRS);
}

static const struct addr *pseudo_of(const char *text)
{
	static const struct {
		const char *name;
		const struct addr *addr;
	} pseudo[] = { { "gateway", &pair_gateway }, { "unlisted", &pair_unlisted }, { "others", &pair_others } };

	for (size_t i = 0; i < ARRAY_SIZE(pseudo); i++)
		if (strcmp(text, pseudo[i].name) == 0)
			return pseudo[i].addr;
	return NULL;
}

bool control_is_others(const struct control_name *n)
{
	return n->pseudo && addr_cmp(&n->prefix[0].addr, &pair_others) == 0;
}

int control_name_in(struct control_call *q, const char *text, bool whole, struct control_name *ret)
{
	const struct policy *p = q->ctx->policy;
	struct control_name n = { .host = -1, .exit = -1 };
	const struct addr *pseudo;
	struct prefix x;
	int host = -1, r = prefix_parse(text, &x);

	if (r == -ERANGE)
		return control_refuse(q, r, "%.60s: bits are set beyond the length of the network", text);
	if (r == 0) {
		if (p && whole && x.len == 128)
			host = policy_src_of(p, &x.addr)->host;
	} else if (p && (host = policy_host_by_name(p, text)) >= 0) {
		x = (struct prefix){ .len = 128 };
	} else if ((pseudo = pseudo_of(text))) {
		n.pseudo = true;
		x = (struct prefix){ .addr = *pseudo, .len = 128 };
	} else {
		return unknown(q, text, false);
	}
	r = host >= 0 ? add_host(p, host, &n) : add(&n, &x);
	if (r < 0)
		return many(q, text);
	*ret = n;
	return 0;
}

int control_name_out(struct control_call *q, const char *text, struct control_name *ret)
{
	const struct policy *p = q->ctx->policy;
	struct control_name n = { .host = -1, .exit = -1 };
	struct prefix x;
	int r, host;

	if (!text || strcmp(text, "*") == 0 || strcmp(text, "any") == 0) {
		*ret = n;
		return 0;
	}
	r = prefix_parse(text, &x);
	if (r == -ERANGE)
		return control_refuse(q, r, "%.60s: bits are set beyond the length of the network", text);
	if (r == 0) {
		r = add(&n, &x);
	} else {
		host = p ? policy_host_by_name(p, text) : -1;
		r = host >= 0 ? add_host(p, host, &n) : p ? add_exit(p, text, &n) : -ENOENT;
		if (r == -ENOENT)
			return unknown(q, text, true);
	}
	if (r < 0)
		return many(q, text);
	*ret = n;
	return 0;
}

bool control_in_is(const struct policy *p, const struct control_name *n, const uint8_t in[16])
{
	struct addr a = addr_from_v6(in);
	uint32_t uid;

	if (policy_in_is_uid(in, &uid)) {
		int host = p ? policy_host_of_in(p, in) : -1;

		if (host < 0 || host == n->host)
			return host >= 0;
		for (uint32_t i = 0; n->host < 0 && !n->pseudo && i < p->h->nhost_addrs; i++)
			if (p->host_addr[i].host == (uint32_t)host &&
			    prefix_contains(&n->prefix[0], &p->host_addr[i].addr))
				return true;
		return false;
	}
	for (uint32_t i = 0; i < n->n; i++)
		if (prefix_contains(&n->prefix[i], &a))
			return true;
	return false;
}

struct addr control_out_addr(const uint8_t out[8], uint8_t family)
{
	struct addr a = { { 0 } };

	if (family == 4)
		return addr_from_v4(out);
	memcpy(a.b, out, 8);
	return a;
}

bool control_out_is(const struct control_name *n, const uint8_t out[8], uint8_t family, uint8_t exit)
{
	struct addr a = control_out_addr(out, family);

	if (control_everywhere(n) || (n->exit >= 0 && exit == n->exit + 1))
		return true;
	for (uint32_t i = 0; i < n->n; i++) {
		const struct prefix *x = &n->prefix[i];

		if (family == 6 && x->len > 64) {	/* an outside IPv6 address is its /64 */
			if (memcmp(x->addr.b, out, 8) == 0)
				return true;
		} else if (family && prefix_contains(x, &a)) {
			return true;
		}
	}
	return false;
}

const char *control_subject(const struct policy *p, const struct account_key *k, const struct policy_rule *r,
			    char buf[CONFIG_PATH])
{
	char in[ADDR_STRLEN];
	int host = -1;

	if (k->kind == SUBJECT_GROUP || k->kind == SUBJECT_TOTAL) {
		snprintf(buf, CONFIG_PATH, "%s",
			 !r ? "?" : policy_string(p, k->kind == SUBJECT_GROUP ? r->group_name : r->name));
		return buf;
	}
	if (p)
		host = policy_host_of_in(p, k->in);
	snprintf(buf, CONFIG_PATH, "%s", host >= 0 ? policy_string(p, p->host[host].name) : pair_in_format(k->in, in));
	return buf;
}
