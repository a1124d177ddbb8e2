/* decide.c - see decide.h. */
#include "decide.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "yaml_tree.h"

#define DEFAULT_TTL_S 3600

static int bad(char *why, size_t size, const char *what, const char *value)
{
	snprintf(why, size, "%s: '%.60s'", what, value);
	return -EINVAL;
}

/* Address, prefix, name of a host in the policy, or "*". A name with several addresses cannot be one prefix. */
static int subject(const struct policy *p, const char *text, struct prefix *ret)
{
	int host;

	memset(ret, 0, sizeof(*ret));
	if (strcmp(text, "*") == 0 || !*text)
		return 0;
	if (prefix_parse(text, ret) == 0)
		return 0;
	host = policy_host_by_name(p, text);
	for (uint32_t i = 0; host >= 0 && i < p->h->nhost_addrs; i++)
		if (p->host_addr[i].host == (uint32_t)host) {
			*ret = (struct prefix){ .addr = p->host_addr[i].addr, .len = 128 };
			return 0;
		}
	return -EINVAL;
}

static int kind_of(const char *action, uint16_t *ret_kind, uint32_t *ret_bit)
{
	static const struct {
		const char *name;
		uint16_t kind;
		uint32_t bit;
	} known[] = {
		{ "allow", PROTO_ALLOW, ACCEPT_ALLOW },
		{ "block", PROTO_BLOCK, ACCEPT_BLOCK },
		{ "unblock", PROTO_UNBLOCK, ACCEPT_UNBLOCK },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(known); i++)
		if (strcmp(known[i].name, action) == 0) {
			*ret_kind = known[i].kind;
			*ret_bit = known[i].bit;
			return 0;
		}
	return -EINVAL;
}

int decide_check(const struct policy *p, const char *gateway, const struct redis_decision *d, struct proto_msg *ret,
		 char *why, size_t size)
{
	struct proto_msg m = { .magic = PROTO_MAGIC };
	struct proto_decision *x = &m.u.decision;
	uint64_t ttl = DEFAULT_TTL_S;
	uint32_t bit;

	if (strcmp(d->gateway, "*") != 0 && strcmp(d->gateway, gateway) != 0)
		return 1;
	if (d->bad)
		return bad(why, size, "a field is too long, comes twice or holds a NUL", d->bad);
	if (strcmp(d->v, "1") != 0)
		return bad(why, size, "unknown version", d->v);
	if (!d->id[0] || strlen(d->id) >= sizeof(x->id))
		return bad(why, size, "id missing or longer than 39 characters", d->id);
	if (kind_of(d->action, &m.kind, &bit) < 0)
		return bad(why, size, "unknown action", d->action);
	if (subject(p, d->src, &x->src) < 0 || x->src.len == 0)
		return bad(why, size, "src: an address or a host of the policy is due", d->src);
	if (subject(p, d->dst, &x->dst) < 0)
		return bad(why, size, "dst: an address or * is due", d->dst);
	if (d->budget[0] && parse_size(d->budget, &x->budget) < 0)
		return bad(why, size, "budget: a size such as 5GB is due", d->budget);
	if (d->ttl[0] && (parse_duration(d->ttl, &ttl) < 0 || ttl == 0 || ttl > UINT32_MAX))
		return bad(why, size, "ttl: a duration such as 4h is due", d->ttl);
	if (m.kind == PROTO_ALLOW && !x->budget)
		return bad(why, size, "allow needs a budget", "");
	snprintf(why, size, "the local policy does not accept this: action %s", d->action);
	if (!(p->h->accept & bit))
		return -EPERM;
	snprintf(why, size, "beyond the local policy's max_ttl of %u s", p->h->max_ttl_s);
	if (ttl > p->h->max_ttl_s)
		return -EPERM;
	snprintf(why, size, "beyond the local policy's max_budget of %llu B", (unsigned long long)p->h->max_budget);
	if (x->budget > p->h->max_budget)
		return -EPERM;
	why[0] = '\0';
	x->ttl_s = (uint32_t)ttl;
	snprintf(x->id, sizeof(x->id), "%s", d->id);
	snprintf(x->author, sizeof(x->author), "%.39s", d->author);
	snprintf(x->reason, sizeof(x->reason), "%.119s", d->reason);
	*ret = m;
	return 0;
}
