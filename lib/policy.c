/* policy.c - lookups in an opened policy. */
#include "policy.h"

#include <netinet/in.h>
#include <string.h>

static uint32_t range_label(const struct policy_range *v, uint32_t n, const struct addr *a)
{
	uint32_t low = 0, high = n;

	while (high - low > 1) {
		uint32_t mid = low + (high - low) / 2;

		if (addr_cmp(&v[mid].start, a) <= 0)
			low = mid;
		else
			high = mid;
	}
	return v[low].label;
}

const struct policy_src *policy_src_of(const struct policy *p, const struct addr *a)
{
	return &p->src[range_label(p->src_range, p->h->nsrc_ranges, a)];
}

const struct policy_dst *policy_dst_of(const struct policy *p, const struct addr *a)
{
	return &p->dst[range_label(p->dst_range, p->h->ndst_ranges, a)];
}

static uint32_t service_of(const struct policy *p, uint32_t proto, uint32_t port)
{
	uint32_t low = 0, high = p->h->nspans, want = proto << 16 | port;

	while (high - low > 1) {
		uint32_t mid = low + (high - low) / 2;
		const struct policy_span *s = &p->span[mid];

		if (((uint32_t)s->proto << 16 | s->lo) <= want)
			low = mid;
		else
			high = mid;
	}
	if (p->span[low].proto != proto)
		low = p->h->nspans - 1;
	return p->span[low].service;
}

static bool hides_another(uint8_t proto)
{
	return proto == IPPROTO_HOPOPTS || proto == IPPROTO_ROUTING || proto == IPPROTO_FRAGMENT || proto == IPPROTO_AH ||
	       proto == IPPROTO_DSTOPTS;
}

uint32_t policy_class_of(const struct policy *p, uint8_t proto, bool port_known, uint16_t port, enum opener opener,
			 uint32_t exit)
{
	uint32_t service = unlikely(hides_another(proto)) ? service_of(p, POLICY_SPAN_HIDDEN, 0) :
			   port_known ? service_of(p, proto, port) : service_of(p, POLICY_SPAN_UNKNOWN | proto, 0);

	if (unlikely((unsigned)opener > OPENER_OUTSIDE))
		opener = OPENER_UNKNOWN;
	if (unlikely(exit > p->h->nexits))
		exit = 0;
	return policy_class_index(p, service, opener, exit);
}

void policy_match(const struct policy *p, const struct policy_src *src, const struct policy_dst *dst, uint32_t c,
		  uint32_t exit, struct policy_bits *ret)
{
	static const struct policy_bits none;
	const struct policy_bits *leave = exit && exit <= p->h->nexits ? &p->exit[exit - 1].to : &none;

	for (unsigned i = 0; i < POLICY_WORDS; i++)
		ret->w[i] = src->from.w[i] & (dst->to.w[i] | leave->w[i]) & p->cls[c].match.w[i];
}

/* By its device, or by an address in a /64 of other ones: whatever the pair's address. */
static bool exit_is_anywhere(const struct policy *p, uint32_t x)
{
	for (uint32_t i = 0; i < p->h->nexit_prefixes; i++) {
		const struct policy_exit_prefix *e = &p->exit_prefix[i];

		if (e->exit == x && e->prefix.len > 64 && !addr_is_v4(&e->prefix.addr))
			return true;
	}
	return p->exit[x].nifaces;
}

/* Contract c may have some of the subject's bytes. */
static bool contract_shares(const struct policy *p, uint32_t c, const struct policy_src *src, const struct policy_dst *dst)
{
	bool to = !dst || policy_bit(&dst->to, c);

	for (uint32_t x = 0; x < p->h->nexits && !to; x++)
		to = policy_bit(&p->exit[x].to, c) && exit_is_anywhere(p, x);
	return to && policy_bit(&src->from, c);
}

static bool is_of_services(const struct policy *p, const struct policy_rule *r)
{
	return r->opened_by != OPENER_UNKNOWN || *policy_string(p, r->ports_text);
}

enum policy_form policy_form_for(const struct policy *p, uint32_t i, const struct policy_src *src,
				 const struct policy_dst *dst)
{
	static const uint8_t by_class[] = { FORM_ENGINE, FORM_PAIR_SERVICE, FORM_HOST_SERVICE, FORM_PAIR_SERVICE, FORM_HOST_SERVICE };
	enum policy_form form = policy_bit(&src->from, i) ? p->rule[i].form : FORM_ENGINE;

	if ((form == FORM_PAIR || form == FORM_PAIR_SERVICE) && !dst)
		return FORM_ENGINE;
	for (uint32_t c = 0; c < p->h->ncontracts; c++) {
		if (!contract_shares(p, c, src, dst))
			continue;
		if (!is_of_services(p, &p->rule[c]))
			return FORM_ENGINE;
		form = by_class[form];
	}
	return form;
}

bool policy_class_refused(const struct policy *p, uint32_t i, uint32_t c, const struct policy_src *src,
			  const struct policy_dst *dst)
{
	const struct policy_bits *match = &p->cls[c].match;

	if (!policy_bit(match, i))
		return false;
	for (uint32_t k = 0; k < p->h->ncontracts; k++)
		if (policy_bit(match, k) && contract_shares(p, k, src, dst))
			return false;
	return true;
}

int policy_host_by_name(const struct policy *p, const char *name)
{
	struct addr a;

	for (uint32_t i = 0; i < p->h->nhosts; i++)
		if (!strcmp(policy_string(p, p->host[i].name), name))
			return (int)i;
	return addr_parse(name, &a) == 0 ? policy_src_of(p, &a)->host : -1;
}

int policy_host_of_in(const struct policy *p, const uint8_t in[16])
{
	struct addr a = addr_from_v6(in);
	uint32_t uid;

	if (!policy_in_is_uid(in, &uid))
		return policy_src_of(p, &a)->host;
	for (uint32_t i = 0; i < p->h->nhosts; i++)
		if (p->host[i].uid == uid)
			return (int)i;
	return -1;
}

int policy_rule_by_uid(const struct policy *p, uint32_t uid)
{
	for (uint32_t i = 0; i < p->h->nrules; i++)
		if (p->rule[i].uid == uid)
			return (int)i;
	return -1;
}

static const char *name_of(const char *const *names, size_t n, unsigned i)
{
	return i < n && names[i] ? names[i] : "?";
}

const char *policy_action_name(unsigned action)
{
	static const char *const names[] = { [ACTION_ALERT] = "alert", [ACTION_BLOCK] = "block" };

	return name_of(names, ARRAY_SIZE(names), action);
}

const char *policy_per_name(unsigned per)
{
	static const char *const names[] = {
		[PER_PAIR] = "pair", [PER_HOST] = "host", [PER_GROUP] = "group", [PER_TOTAL] = "total"
	};

	return name_of(names, ARRAY_SIZE(names), per);
}

const char *policy_severity_name(unsigned severity)
{
	static const char *const names[] = {
		[SEVERITY_LOW] = "low", [SEVERITY_MEDIUM] = "medium", [SEVERITY_HIGH] = "high",
		[SEVERITY_CRITICAL] = "critical"
	};

	return name_of(names, ARRAY_SIZE(names), severity);
}

const char *opener_name(unsigned opener)
{
	static const char *const names[] = {
		[OPENER_UNKNOWN] = "any", [OPENER_INSIDE] = "inside", [OPENER_OUTSIDE] = "outside"
	};

	return name_of(names, ARRAY_SIZE(names), opener);
}
