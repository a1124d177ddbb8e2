/* decide.c - see decide.h. */
#include "decide.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hash.h"
#include "yaml_tree.h"

#define DEFAULT_TTL_S 3600

static int bad(char *why, size_t size, const char *what, const char *value)
{
	snprintf(why, size, "%s: '%.60s'", what, value);
	return -EINVAL;
}

/* All of IPv4 lies within ::ffff:0:0/96, so a short IPv6 prefix may have it too. */
static bool covers_ipv4(const struct prefix *x)
{
	struct addr any = addr_from_v4("\0\0\0");

	return x->len <= 96 && prefix_contains(x, &any);
}

/* Address, prefix or name of a host in the policy; -E2BIG: it has several addresses, *ret is the first. */
static int subject(const struct policy *p, const char *text, struct prefix *ret)
{
	int host, r = -EINVAL;

	if (prefix_parse(text, ret) == 0)
		return covers_ipv4(ret) ? -EINVAL : 0;
	host = policy_host_by_name(p, text);
	for (uint32_t i = 0; host >= 0 && i < p->h->nhost_addrs; i++) {
		if (p->host_addr[i].host != (uint32_t)host)
			continue;
		if (r == 0)
			return -E2BIG;
		*ret = (struct prefix){ .addr = p->host_addr[i].addr, .len = 128 };
		r = 0;
	}
	return r;
}

static int check_ends(const struct policy *p, const struct redis_decision *d, struct proto_msg *m, char *why, size_t size)
{
	struct proto_decision *x = &m->u.decision;
	int r = subject(p, d->src, &x->src);

	if (r == -E2BIG && m->kind != PROTO_UNBLOCK)
		return bad(why, size, "src: this host has several addresses, name one", d->src);
	if (r < 0 && r != -E2BIG)
		return bad(why, size, "src: an address, a network or a host of the policy is expected", d->src);
	if (strcmp(d->dst, "*") == 0) {
		memset(&x->dst, 0, sizeof(x->dst));
		return 0;
	}
	r = subject(p, d->dst, &x->dst);
	if (r == -E2BIG)
		return bad(why, size, "dst: this host has several addresses, name one", d->dst);
	if (r < 0)
		return bad(why, size, "dst: an address, a network or * is expected", d->dst);
	if (m->kind != PROTO_UNBLOCK && addr_is_v4(&x->src.addr) != addr_is_v4(&x->dst.addr))
		return bad(why, size, "dst: not of the address family of src", d->dst);
	return 0;
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

static int check_id(const struct policy *p, const char *id, size_t room, char *why, size_t size)
{
	if (!id[0] || strlen(id) >= room)
		return bad(why, size, "id missing or longer than 39 characters", id);
	if (policy_rule_by_uid(p, hash_uid(id, strlen(id))) >= 0)	/* [DC4] */
		return bad(why, size, "id: another one is expected, this one's hash is that of a rule", id);
	return 0;
}

/* Milliseconds since the epoch: the first half of a stream id. */
static int written_ms(const char *entry, uint64_t *ret)
{
	char *end;

	errno = 0;
	if (*entry < '0' || *entry > '9')
		return -EINVAL;
	*ret = strtoull(entry, &end, 10);
	return errno || (*end && *end != '-') ? -EINVAL : 0;
}

/* [DC1], [DC2] *ret_left: seconds of the ttl that are left. */
static int check_time(const struct policy *p, const struct redis_decision *d, uint64_t wall_us, uint32_t *ret_left,
		      char *why, size_t size)
{
	uint64_t ttl = DEFAULT_TTL_S, at, age;

	if (d->ttl[0] && (parse_duration(d->ttl, &ttl) < 0 || ttl == 0))
		return bad(why, size, "ttl: a duration such as 4h is expected", d->ttl);
	if (written_ms(d->entry, &at) < 0)
		return bad(why, size, "entry: not a stream id", d->entry);
	if (ttl > p->h->max_ttl_s) {
		snprintf(why, size, "beyond the local policy's max_ttl of %u s", p->h->max_ttl_s);
		return -EPERM;
	}
	age = wall_us / 1000 > at ? (wall_us / 1000 - at) / 1000 : 0;
	if (age >= ttl) {
		snprintf(why, size, "expired: written %llu s ago, for %llu s", (unsigned long long)age, (unsigned long long)ttl);
		return -EPERM;
	}
	*ret_left = (uint32_t)(ttl - age);
	return 0;
}

static int read_budget(const struct redis_decision *d, struct proto_msg *m, char *why, size_t size)
{
	uint64_t *budget = &m->u.decision.budget;

	if (d->budget[0] && (parse_size(d->budget, budget) < 0 || *budget == 0))
		return bad(why, size, "budget: a size such as 5GB is expected", d->budget);
	if (m->kind == PROTO_ALLOW && !d->budget[0])
		return bad(why, size, "allow needs a budget", "");
	return 0;
}

static int check_budget(const struct policy *p, const struct proto_msg *m, char *why, size_t size)
{
	if (m->u.decision.budget <= p->h->max_budget)
		return 0;
	snprintf(why, size, "beyond the local policy's max_budget of %llu B", (unsigned long long)p->h->max_budget);
	return -EPERM;
}

/* For people: what fits, and no half of a character. */
static void shorten(const char *from, char *to, size_t size)
{
	size_t fits = strnlen(from, size - 1), n = fits;

	while (n > 0 && fits - n < 3 && ((unsigned char)from[n] & 0xc0) == 0x80)
		n--;
	memcpy(to, from, n);
	to[n] = '\0';
}

static bool for_us(const char *gateway, const struct redis_decision *d)
{
	if (!d->gateway[0] || (d->bad && strcmp(d->bad, "gateway") == 0))
		return true;	/* nobody else would answer */
	return strcmp(d->gateway, "*") == 0 || strcmp(d->gateway, gateway) == 0;
}

/* What is asked for, as far as it is well formed. */
static int check_form(const struct policy *p, const struct redis_decision *d, struct proto_msg *m, uint32_t *ret_bit,
		      char *why, size_t size)
{
	struct proto_decision *x = &m->u.decision;
	int r;

	if (d->bad)
		return bad(why, size, "a field is too long, comes twice or holds a NUL", d->bad);
	if (!d->gateway[0])
		return bad(why, size, "gateway: a name or * is expected", d->gateway);
	if (strcmp(d->v, "1") != 0)
		return bad(why, size, "unknown version", d->v);
	if (d->unknown[0])
		return bad(why, size, "unknown field", d->unknown);
	r = check_id(p, d->id, sizeof(x->id), why, size);
	if (r < 0)
		return r;
	if (kind_of(d->action, &m->kind, ret_bit) < 0)
		return bad(why, size, "unknown action", d->action);
	if (!d->author[0] || !d->reason[0])
		return bad(why, size, !d->author[0] ? "author: who decides is missing" : "reason: the reason is missing", "");
	return check_ends(p, d, m, why, size);
}

static void put_words(const struct redis_decision *d, struct proto_decision *x)
{
	shorten(d->id, x->id, sizeof(x->id));
	shorten(d->author, x->author, sizeof(x->author));
	shorten(d->reason, x->reason, sizeof(x->reason));
}

int decide_meant(const struct policy *p, const struct redis_decision *d, struct proto_msg *ret)
{
	struct proto_msg m = { .magic = PROTO_MAGIC };
	char why[200];
	uint32_t bit;
	int r = check_form(p, d, &m, &bit, why, sizeof(why));

	if (r == 0)
		r = read_budget(d, &m, why, sizeof(why));
	if (r < 0)
		return r;
	put_words(d, &m.u.decision);
	*ret = m;
	return 0;
}

int decide_check(const struct policy *p, const char *gateway, const struct redis_decision *d, uint64_t wall_us,
		 struct proto_msg *ret, char *why, size_t size)
{
	struct proto_msg m = { .magic = PROTO_MAGIC };
	struct proto_decision *x = &m.u.decision;
	uint32_t bit;
	int r;

	if (!for_us(gateway, d))
		return 1;
	r = check_form(p, d, &m, &bit, why, size);
	if (r == 0 && !(p->h->accept & bit)) {
		snprintf(why, size, "the local policy does not accept this: action %s", d->action);
		r = -EPERM;
	}
	if (r == 0)
		r = read_budget(d, &m, why, size);
	if (r == 0)
		r = check_budget(p, &m, why, size);
	if (r == 0)
		r = check_time(p, d, wall_us, &x->ttl_s, why, size);
	if (r < 0)
		return r;
	put_words(d, x);
	*ret = m;
	return 0;
}
