/* policy_open.c - trusts no byte of a blob [B1]. Every check stands for a read that an accessor does without asking. */
#include <errno.h>
#include <string.h>

#include "hash.h"
#include "policy.h"
#include "window.h"

#define COUNT_MAX (1U << 24)	/* of anything; keeps every product below 2^32 elements of 4 KiB */

struct view {
	const char *blob;
	size_t size;
	bool bad;		/* a section does not fit */
};

void policy_sum(const void *blob, size_t size, uint8_t ret[32])
{
	struct policy_header h;
	uint8_t two[64];

	memcpy(&h, blob, sizeof(h));
	memset(h.sum, 0, sizeof(h.sum));
	hash_sum(&h, sizeof(h), two);
	hash_sum((const char *)blob + sizeof(h), size - sizeof(h), two + 32);
	hash_sum(two, sizeof(two), ret);
}

static const void *section(struct view *v, uint32_t off, uint32_t count, size_t elem)
{
	if (off % 8 || off < sizeof(struct policy_header) || off > v->size || count > COUNT_MAX ||
	    (v->size - off) / elem < count) {
		v->bad = true;
		return NULL;
	}
	return v->blob + off;
}

static const char *open_sections(struct view *v, struct policy *p)
{
	const struct policy_header *h = p->h;

	p->rule = section(v, h->rules_off, h->nrules, sizeof(*p->rule));
	p->host = section(v, h->hosts_off, h->nhosts, sizeof(*p->host));
	p->host_addr = section(v, h->host_addrs_off, h->nhost_addrs, sizeof(*p->host_addr));
	p->src_range = section(v, h->src_ranges_off, h->nsrc_ranges, sizeof(*p->src_range));
	p->src = section(v, h->src_off, h->nsrc, sizeof(*p->src));
	p->dst_range = section(v, h->dst_ranges_off, h->ndst_ranges, sizeof(*p->dst_range));
	p->dst = section(v, h->dst_off, h->ndst, sizeof(*p->dst));
	p->exit = section(v, h->exits_off, h->nexits, sizeof(*p->exit));
	p->span = section(v, h->spans_off, h->nspans, sizeof(*p->span));
	p->cls = section(v, h->classes_off, h->nclasses, sizeof(*p->cls));
	p->inside = section(v, h->inside_off, h->ninside, sizeof(*p->inside));
	p->protect = section(v, h->protect_off, h->nprotect, sizeof(*p->protect));
	p->exit_prefix = section(v, h->exit_prefixes_off, h->nexit_prefixes, sizeof(*p->exit_prefix));
	p->str = section(v, h->strings_off, h->strings_len, 1);
	if (v->bad)
		return "a section lies outside the blob";
	if (!h->strings_len || p->str[0] || p->str[h->strings_len - 1])
		return "the string pool is not terminated";
	return NULL;
}

static const char *check_counts(const struct policy_header *h)
{
	if (h->nrules > POLICY_RULES || h->ncontracts > h->nrules)
		return "more rules than there can be";
	if (h->nexits > POLICY_EXITS)
		return "more exits than there can be";
	if (!h->nservices || h->nservices > POLICY_SERVICES || h->nclasses != h->nservices * 3 * (h->nexits + 1))
		return "class count does not follow from services and exits";
	if (!h->nsrc_ranges || !h->ndst_ranges || !h->nspans || !h->ninside)
		return "a table that must not be empty is";
	if (h->flags & ~(uint32_t)(POLICY_ENFORCE | POLICY_NEEDS_CT))
		return "unknown flag";
	return NULL;
}

static bool str_ok(const struct policy *p, policy_str s)
{
	return s < p->h->strings_len;
}

static bool bits_ok(const struct policy *p, const struct policy_bits *b)
{
	for (uint32_t i = 0; i < POLICY_WORDS; i++) {
		uint32_t valid = p->h->nrules > i * 64 ? p->h->nrules - i * 64 : 0;

		if (valid < 64 && b->w[i] >> valid)
			return false;
	}
	return true;
}

static bool limits_ok(const struct policy_rule *r)
{
	if (!r->nlimits || r->nlimits > ACCOUNT_LIMITS)
		return false;
	for (unsigned i = 0; i < r->nlimits; i++) {
		const struct account_limit *l = &r->limit[i];
		struct window_spec spec;

		if (window_spec_for(l->seconds, &spec) < 0 || spec.ring != l->spec.ring || spec.buckets != l->spec.buckets)
			return false;
		if (i && l->seconds <= r->limit[i - 1].seconds)
			return false;
	}
	return true;
}

static bool rule_ok(const struct policy *p, uint32_t i)
{
	const struct policy_rule *r = &p->rule[i];

	if (!r->uid || r->kind != (i < p->h->ncontracts ? RULE_CONTRACT : RULE_RULE))
		return false;
	if (!str_ok(p, r->name) || !str_ok(p, r->from_text) || !str_ok(p, r->to_text) || !str_ok(p, r->ports_text) ||
	    !str_ok(p, r->owner) || !str_ok(p, r->group_name))
		return false;
	if (r->per < PER_PAIR || r->per > PER_TOTAL || r->action > ACTION_BLOCK || r->enforce > 1 ||
	    r->severity < SEVERITY_LOW || r->severity > SEVERITY_CRITICAL || r->refuse > REFUSE_DROP ||
	    r->opened_by > OPENER_OUTSIDE || r->form > FORM_HOST_SERVICE || r->alert_on_breach > 1)
		return false;
	if ((r->per == PER_GROUP) != (r->group != 0))
		return false;
	return limits_ok(r);
}

static const char *check_rules(const struct policy *p)
{
	for (uint32_t i = 0; i < p->h->nrules; i++)
		if (!rule_ok(p, i))
			return "a rule has a value out of range";
	return NULL;
}

static const char *check_hosts(const struct policy *p)
{
	for (uint32_t i = 0; i < p->h->nhosts; i++)
		if (!p->host[i].uid || !str_ok(p, p->host[i].name))
			return "a host has no name";
	for (uint32_t i = 0; i < p->h->nhost_addrs; i++) {
		if (p->host_addr[i].host >= p->h->nhosts)
			return "an address belongs to no host";
		if (i && p->host_addr[i].host < p->host_addr[i - 1].host)
			return "host addresses are not sorted";
	}
	return NULL;
}

static bool ranges_ok(const struct policy_range *v, uint32_t n, uint32_t labels)
{
	static const struct addr zero;

	if (addr_cmp(&v[0].start, &zero))
		return false;
	for (uint32_t i = 0; i < n; i++) {
		if (v[i].label >= labels || (i && addr_cmp(&v[i - 1].start, &v[i].start) >= 0))
			return false;
	}
	return true;
}

static const char *check_labels(const struct policy *p)
{
	const struct policy_header *h = p->h;

	if (!ranges_ok(p->src_range, h->nsrc_ranges, h->nsrc) || !ranges_ok(p->dst_range, h->ndst_ranges, h->ndst))
		return "address ranges are not ascending or have no label";
	for (uint32_t i = 0; i < h->nsrc; i++) {
		const struct policy_src *s = &p->src[i];

		if (!bits_ok(p, &s->from) || s->flags & ~(uint32_t)(SRC_INSIDE | SRC_EXIT) || s->host < -1 ||
		    s->host >= (int64_t)h->nhosts)
			return "a source label is out of range";
	}
	for (uint32_t i = 0; i < h->ndst; i++) {
		const struct policy_dst *d = &p->dst[i];

		if (!bits_ok(p, &d->to) || d->flags & ~(uint32_t)(DST_INSIDE | DST_EXIT | DST_PROTECTED) || d->exit < -1 ||
		    d->exit >= (int64_t)h->nexits || (d->exit >= 0) != !!(d->flags & DST_EXIT))
			return "a destination label is out of range";
	}
	return NULL;
}

static const char *check_exits(const struct policy *p)
{
	for (uint32_t i = 0; i < p->h->nexits; i++) {
		const struct policy_exit *e = &p->exit[i];

		if (!str_ok(p, e->name) || e->nifaces > POLICY_IFACES || !bits_ok(p, &e->to))
			return "an exit is out of range";
		for (uint32_t k = 0; k < POLICY_IFACES; k++)
			if (!memchr(e->iface[k], 0, POLICY_IFNAME))
				return "an interface name is not terminated";
	}
	return NULL;
}

static const char *check_classes(const struct policy *p)
{
	const struct policy_header *h = p->h;
	const struct policy_span *s = p->span;

	for (uint32_t i = 0; i < h->nspans; i++) {
		bool first = !i || s[i].proto != s[i - 1].proto;

		if (s[i].service >= h->nservices || (i && s[i].proto < s[i - 1].proto))
			return "port spans are not ascending";
		if (first ? s[i].lo != 0 : s[i].lo <= s[i - 1].lo)
			return "port spans are not ascending";
	}
	if (s[h->nspans - 1].proto != POLICY_SPAN_REST || s[h->nspans - 1].lo)
		return "no port span for the rest";
	for (uint32_t i = 0; i < h->nclasses; i++)
		if (!bits_ok(p, &p->cls[i].match) || p->cls[i].uid == PAIR_CLASS_OVERFLOW)
			return "a class is out of range";
	return NULL;
}

static bool prefix_ok(const struct prefix *x)
{
	struct addr m;

	if (x->len > 128)
		return false;
	m = addr_mask(&x->addr, x->len);
	return addr_cmp(&m, &x->addr) == 0;
}

static const char *check_prefixes(const struct policy *p)
{
	for (uint32_t i = 0; i < p->h->ninside; i++)
		if (!prefix_ok(&p->inside[i]))
			return "inside: not a prefix";
	for (uint32_t i = 0; i < p->h->nprotect; i++)
		if (!prefix_ok(&p->protect[i]))
			return "protect: not a prefix";
	for (uint32_t i = 0; i < p->h->nexit_prefixes; i++)
		if (!prefix_ok(&p->exit_prefix[i].prefix) || p->exit_prefix[i].exit >= p->h->nexits)
			return "exits: not a prefix of an exit";
	return NULL;
}

static const char *check_blob(const void *blob, size_t size, struct policy *p)
{
	static const char *(*const checks[])(const struct policy *) = {
		check_rules, check_hosts, check_labels, check_exits, check_classes, check_prefixes
	};
	struct view v = { .blob = blob, .size = size };
	const struct policy_header *h = blob;
	const char *why;
	uint8_t sum[32];

	if (size < sizeof(*h) || (uintptr_t)blob % 8)
		return "shorter than a header, or not aligned";
	if (memcmp(h->magic, POLICY_MAGIC, sizeof(h->magic)) || h->layout != POLICY_LAYOUT)
		return "not a policy of this version of egressd";
	if (h->size != size)
		return "truncated, or longer than it says";
	policy_sum(blob, size, sum);
	if (memcmp(sum, h->sum, sizeof(sum)))
		return "checksum does not match";
	p->h = h;
	why = check_counts(h);
	if (!why)
		why = open_sections(&v, p);
	if (!why && !str_ok(p, h->timezone))
		why = "timezone is no string";
	for (size_t i = 0; !why && i < ARRAY_SIZE(checks); i++)
		why = checks[i](p);
	return why;
}

int policy_open(const void *blob, size_t size, struct policy *ret, const char **ret_why)
{
	struct policy p = { 0 };
	const char *why = check_blob(blob, size, &p);

	if (why) {
		*ret_why = why;
		return -EBADMSG;
	}
	*ret = p;
	return 0;
}
