/* Random policies: what the compiled blob matches against what the text means, evaluated word by word. */
#include "unit/compiled.h"

#include "pair.h"

static uint64_t rng_state = 88172645463325252ULL;

static uint32_t rng(uint32_t below)
{
	rng_state ^= rng_state << 13;
	rng_state ^= rng_state >> 7;
	rng_state ^= rng_state << 17;
	return (uint32_t)(rng_state >> 20) % below;
}

#define SETS  4		/* of each kind of named thing */
#define PREFS 4
#define RULES 10

struct set {
	struct prefix p[PREFS], except[PREFS];
	unsigned n, nexcept;
};

enum word { W_NETWORK, W_HOST, W_GROUP, W_EXIT, W_DEST, W_OUTSIDE, W_INSIDE, W_GATEWAY, W_UNLISTED };

struct entry {
	enum word word;
	unsigned index;
	struct prefix p;
};

struct port_entry {
	uint8_t proto;
	bool whole;
	uint16_t lo, hi;
};

struct model_rule {
	bool contract;
	unsigned per;
	unsigned opener;
	struct entry from[3], to[3];
	struct port_entry port[3];
	unsigned nfrom, nto, nport;
};

struct model {
	char text[16384];
	size_t len;
	struct set inside, host[SETS], group[SETS], exit[SETS], dest[SETS];
	unsigned nexits;
	struct model_rule rule[RULES];
	unsigned nrules;
};

static void PRINTF(2, 3) say(struct model *m, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	m->len += (size_t)vsnprintf(m->text + m->len, sizeof(m->text) - m->len, fmt, ap);
	va_end(ap);
	assert_true(m->len < sizeof(m->text));
}

static struct prefix pfx(const char *text)
{
	struct prefix p;

	if (prefix_parse(text, &p) < 0)
		fail_msg("%s", text);
	return p;
}

static const char *const inner[] = {
	"10.20.0.0/24", "10.20.0.0/16", "10.20.0.128/25", "10.20.0.10", "10.20.0.11", "10.0.0.0/8", "10.20.1.0/24",
	"fd00:20::/64", "fd00:20::10", "fd00::/16", "10.250.0.0/16", "10.250.1.0/24", "10.250.0.10", "fd00:250::/64",
};
static const char *const outer[] = {
	"203.0.113.0/24", "203.0.113.0/28", "203.0.113.9", "198.51.100.0/24", "0.0.0.0/0", "2001:db8:1::/48",
	"2001:db8:1:2::/64", "::/0", "2001:db8::/32", "10.99.0.0/16",
};

static void say_prefix(struct model *m, const struct prefix *p, const char *sep)
{
	char buf[PREFIX_STRLEN];

	say(m, "%s\"%s\"", sep, prefix_format(p, buf));
}

static void say_set(struct model *m, const char *key, const struct prefix *p, unsigned n)
{
	say(m, "%s: [", key);
	for (unsigned i = 0; i < n; i++)
		say_prefix(m, &p[i], i ? ", " : "");
	say(m, "]");
}

static unsigned pick(struct prefix *ret, const char *const *from, unsigned nfrom, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		ret[i] = pfx(from[rng(nfrom)]);
	return n;
}

static void model_names(struct model *m)
{
	m->inside = (struct set){ .p = { pfx("10.0.0.0/8"), pfx("fd00::/16") }, .n = 2 };
	say(m, "version: 1\nmode: enforce\n");
	say_set(m, "inside", m->inside.p, 2);
	say(m, "\nhosts:\n");
	for (unsigned i = 0; i < SETS; i++) {
		char text[32];

		snprintf(text, sizeof(text), "10.20.0.%u", 10 + i);
		m->host[i].p[0] = pfx(text);
		snprintf(text, sizeof(text), i % 2 ? "10.250.0.%u" : "fd00:20::%u", 10 + i);
		m->host[i].p[1] = pfx(text);
		m->host[i].n = 1 + rng(2);
		say(m, "  host%u: {", i);
		say_set(m, "addresses", m->host[i].p, m->host[i].n);
		say(m, "}\n");
	}
	say(m, "groups:\n");
	for (unsigned i = 0; i < SETS; i++) {
		struct set *g = &m->group[i];
		unsigned exit_hosts = i == 3 && m->nexits ? ARRAY_SIZE(inner) - 4 : 0;	/* not with inner hosts in one group */

		g->n = pick(g->p, inner + exit_hosts, exit_hosts ? 3 : m->nexits ? 10 : ARRAY_SIZE(inner), 1 + rng(3));
		for (unsigned k = 0; k < 8 && !g->nexcept && i % 2; k++) {
			g->except[0] = pfx(inner[rng(ARRAY_SIZE(inner))]);
			g->nexcept = prefix_contains(&g->p[0], &g->except[0].addr) && g->except[0].len > g->p[0].len;
		}
		say(m, "  group%u: {", i);
		say_set(m, "hosts", g->p, g->n);
		if (g->nexcept) {
			say(m, ", ");
			say_set(m, "except", g->except, g->nexcept);
		}
		say(m, "}\n");
	}
}

static void model_ways(struct model *m)
{
	if (m->nexits)
		say(m, "exits:\n");
	for (unsigned i = 0; i < m->nexits; i++) {
		struct set *e = &m->exit[i];

		e->p[e->n++] = pfx(i ? "10.251.0.0/16" : "10.250.0.0/16");
		if (rng(2))
			e->p[e->n++] = pfx(i ? "192.0.2.0/24" : "fd00:250::/64");
		say(m, "  exit%u: {interfaces: [%s], ", i, i ? "tun7" : "maint");
		say_set(m, "hosts", e->p, e->n);
		say(m, "}\n");
	}
	say(m, "destinations:\n");
	for (unsigned i = 0; i < SETS; i++) {
		struct set *d = &m->dest[i];

		d->n = pick(d->p, outer, ARRAY_SIZE(outer), 1 + rng(3));
		say(m, "  dest%u: {", i);
		say_set(m, "networks", d->p, d->n);
		say(m, "}\n");
	}
}

static void say_entry(struct model *m, const struct entry *e)
{
	static const char *const names[] = {
		[W_HOST] = "host", [W_GROUP] = "group", [W_EXIT] = "exit", [W_DEST] = "dest",
		[W_OUTSIDE] = "outside", [W_INSIDE] = "inside", [W_GATEWAY] = "gateway", [W_UNLISTED] = "unlisted"
	};

	if (e->word == W_NETWORK)
		say_prefix(m, &e->p, "");
	else if (e->word >= W_OUTSIDE)
		say(m, "%s", names[e->word]);
	else
		say(m, "%s%u", names[e->word], e->index);
}

static bool same_entry(const struct entry *a, const struct entry *b)
{
	return a->word == b->word && a->index == b->index && !memcmp(&a->p, &b->p, sizeof(a->p));
}

static struct entry random_from(const struct model *m, unsigned per)
{
	static const enum word words[] = { W_NETWORK, W_NETWORK, W_HOST, W_GROUP, W_GROUP, W_INSIDE, W_GATEWAY, W_UNLISTED };
	struct entry e = { .word = per == PER_GROUP ? W_GROUP : words[rng(ARRAY_SIZE(words))] };

	if (m->nexits && per != PER_GROUP && !rng(6))
		e.word = W_EXIT;
	if (e.word == W_NETWORK)
		e.p = pfx(inner[rng(ARRAY_SIZE(inner))]);
	else if (e.word < W_OUTSIDE)
		e.index = rng(e.word == W_EXIT ? m->nexits : SETS);
	return e;
}

static struct entry random_to(const struct model *m)
{
	static const enum word words[] = { W_NETWORK, W_DEST, W_DEST, W_OUTSIDE, W_OUTSIDE };
	struct entry e = { .word = words[rng(ARRAY_SIZE(words))] };

	if (m->nexits && !rng(3))
		e.word = W_EXIT;
	if (e.word == W_NETWORK)
		e.p = pfx(outer[rng(ARRAY_SIZE(outer))]);
	else if (e.word < W_OUTSIDE)
		e.index = rng(e.word == W_EXIT ? m->nexits : SETS);
	return e;
}

static unsigned say_entries(struct model *m, const char *key, struct entry *v, bool from, unsigned per)
{
	unsigned n = 1 + rng(3), out = 0;

	say(m, "    %s: [", key);
	for (unsigned i = 0; i < n; i++) {
		struct entry e = from ? random_from(m, per) : random_to(m);
		bool twice = false;

		for (unsigned k = 0; k < out; k++)
			twice |= same_entry(&v[k], &e);
		if (twice)
			continue;
		say(m, "%s", out ? ", " : "");
		say_entry(m, &e);
		v[out++] = e;
	}
	say(m, "]\n");
	return out;
}

static void say_ports(struct model *m, struct model_rule *r)
{
	static const struct {
		const char *text;
		struct port_entry e;
	} words[] = {
		{ "tcp/443", { 6, false, 443, 443 } }, { "tcp/80", { 6, false, 80, 80 } }, { "udp/53", { 17, false, 53, 53 } },
		{ "tcp/400-500", { 6, false, 400, 500 } }, { "tcp", { 6, true, 0, 65535 } }, { "gre", { 47, true, 0, 65535 } },
		{ "udp/1-65535", { 17, false, 1, 65535 } },
	};

	r->nport = rng(3) ? 0 : 1 + rng(3);
	if (!r->nport)
		return;
	say(m, "    ports: [");
	for (unsigned i = 0; i < r->nport; i++) {
		unsigned k = rng(ARRAY_SIZE(words));

		r->port[i] = words[k].e;
		say(m, "%s%s", i ? ", " : "", words[k].text);
	}
	say(m, "]\n");
}

static void model_rules(struct model *m, bool contract)
{
	static const char *const openers[] = { "any", "inside", "outside" };
	unsigned n = rng(RULES / 2 + 1);

	if (n)
		say(m, "%s:\n", contract ? "contracts" : "rules");
	for (unsigned i = 0; i < n; i++) {
		struct model_rule *r = &m->rule[m->nrules];

		r->contract = contract;
		r->per = contract ? PER_TOTAL : PER_PAIR + rng(3);
		say(m, "  - name: %s%u\n", contract ? "contract" : "rule", i);
		r->nfrom = say_entries(m, "from", r->from, true, r->per);
		r->nto = say_entries(m, "to", r->to, false, 0);
		say_ports(m, r);
		r->opener = rng(2) ? 0 : rng(3);
		if (r->opener)
			say(m, "    opened_by: %s\n", openers[r->opener]);
		if (contract)
			say(m, "    budget: {per: total, 1h: 1GB}\n    until: never\n");
		else
			say(m, "    per: %s\n    limit: {1h: 1GB, 1m: 10MB}\n", policy_per_name(r->per));
		m->nrules++;
	}
}

static bool holds(const struct prefix *p, const struct addr *a)
{
	bool v4 = p->len >= 96 && addr_is_v4(&p->addr);

	if (v4 != addr_is_v4(a))
		return false;
	for (unsigned i = 0; i < p->len; i++)
		if ((p->addr.b[i / 8] ^ a->b[i / 8]) >> (7 - i % 8) & 1)
			return false;
	return true;
}

static bool any_holds(const struct prefix *p, unsigned n, const struct addr *a)
{
	for (unsigned i = 0; i < n; i++)
		if (holds(&p[i], a))
			return true;
	return false;
}

static int exit_of(const struct model *m, const struct addr *a)
{
	for (unsigned i = 0; i < m->nexits; i++)
		if (any_holds(m->exit[i].p, m->exit[i].n, a))
			return (int)i;
	return -1;
}

/* Exits of the model do not lie in each other, so one of its networks must cover each prefix. */
static bool wholly_in(const struct set *exit, const struct prefix *p, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		bool in = false;

		for (unsigned k = 0; k < exit->n; k++)
			in |= exit->p[k].len <= p[i].len && holds(&exit->p[k], &p[i].addr);
		if (!in)
			return false;
	}
	return true;
}

static bool from_holds(const struct model *m, const struct entry *e, const struct addr *a)
{
	const struct prefix *p = &e->p;
	unsigned n = 1;
	int exit = exit_of(m, a);

	if (e->word >= W_GATEWAY)
		return !addr_cmp(a, e->word == W_GATEWAY ? &pair_gateway : &pair_unlisted);
	if (exit < 0 && !any_holds(m->inside.p, m->inside.n, a))
		return false;
	if (e->word == W_HOST || e->word == W_GROUP || e->word == W_EXIT || e->word == W_INSIDE) {
		const struct set *s = e->word == W_HOST ? &m->host[e->index] : e->word == W_GROUP ? &m->group[e->index] :
				      e->word == W_EXIT ? &m->exit[e->index] : &m->inside;

		p = s->p;
		n = s->n;
		if (any_holds(s->except, s->nexcept, a))
			return false;
	}
	return any_holds(p, n, a) && (exit < 0 || wholly_in(&m->exit[exit], p, n));
}

static bool to_holds(const struct model *m, const struct entry *e, const struct addr *a, unsigned leaves)
{
	int exit = exit_of(m, a);

	switch (e->word) {
	case W_OUTSIDE:
		return true;	/* who judges it knows that it leaves */
	case W_EXIT:
		return exit == (int)e->index || leaves == e->index + 1;
	case W_DEST:
		return any_holds(m->dest[e->index].p, m->dest[e->index].n, a);
	default:
		return holds(&e->p, a);
	}
}

struct probe {
	struct addr src, dst;
	uint8_t proto;
	bool port_known;
	uint16_t port;
	unsigned opener, exit;
};

static bool service_holds(const struct model_rule *r, const struct probe *b)
{
	const bool hidden = b->proto == 0 || b->proto == 43 || b->proto == 44 || b->proto == 51 || b->proto == 60;
	bool hit = !r->nport || (hidden && !r->contract);

	for (unsigned i = 0; i < r->nport; i++) {
		if (r->port[i].proto != b->proto)
			continue;
		if (b->port_known)
			hit |= r->port[i].lo <= b->port && b->port <= r->port[i].hi;
		else
			hit |= r->port[i].whole || !r->contract;
	}
	if (!hit)
		return false;
	return !r->opener || r->opener == b->opener || (!b->opener && !r->contract);
}

static bool model_match(const struct model *m, const struct model_rule *r, const char *group, const struct probe *b)
{
	bool from = false, to = false;

	for (unsigned i = 0; i < r->nfrom; i++) {
		char name[16];

		snprintf(name, sizeof(name), "group%u", r->from[i].index);
		if (r->per != PER_GROUP || !strcmp(name, group))
			from |= from_holds(m, &r->from[i], &b->src);
	}
	for (unsigned i = 0; i < r->nto; i++)
		to |= to_holds(m, &r->to[i], &b->dst, b->exit);
	return from && to && service_holds(r, b);
}

static struct addr random_addr(const struct model *m)
{
	static const char *const some[] = {
		"10.20.0.10", "10.20.0.11", "10.20.0.12", "10.20.0.13", "10.20.0.200", "10.20.1.1", "10.30.0.1", "10.99.1.1",
		"10.250.0.10", "10.250.0.11", "10.250.1.3", "10.251.0.1", "fd00:20::10", "fd00:20::12", "fd00:21::1",
		"fd00:250::1", "203.0.113.9", "203.0.113.15", "203.0.113.16", "198.51.100.1", "8.8.8.8", "192.0.2.1",
		"2001:db8:1:2::1", "2001:db8:1:3::1", "2001:db8:2::1", "2a00::1", "::1", "172.16.0.1",
	};
	struct addr a;

	(void)m;
	if (!rng(12))
		return rng(2) ? pair_gateway : pair_unlisted;
	if (addr_parse(some[rng(ARRAY_SIZE(some))], &a) < 0)
		fail();
	return a;
}

static struct probe random_probe(const struct model *m)
{
	static const uint8_t protos[] = { 6, 6, 6, 17, 17, 1, 47, 132, 60, 43, 44, 51, 0 };
	static const uint16_t ports[] = { 0, 1, 53, 79, 80, 81, 399, 400, 443, 500, 501, 65535 };
	struct probe b = { .src = random_addr(m), .dst = random_addr(m), .proto = protos[rng(sizeof(protos))] };

	b.port_known = rng(4) && (b.proto == 6 || b.proto == 17);
	b.port = b.port_known ? ports[rng(ARRAY_SIZE(ports))] : 0;
	b.opener = rng(3);
	b.exit = rng(m->nexits + 1);
	return b;
}

static const struct model_rule *model_of(const struct model *m, const struct policy *p, uint32_t i)
{
	const char *name = policy_string(p, p->rule[i].name);
	bool contract = !strncmp(name, "contract", 8);
	unsigned want = (unsigned)strtoul(name + (contract ? 8 : 4), NULL, 10), seen = 0;

	for (unsigned k = 0; k < m->nrules; k++)
		if (m->rule[k].contract == contract && seen++ == want)
			return &m->rule[k];
	fail();
	return NULL;
}

static void check_probe(const struct model *m, const struct policy *p, const struct probe *b)
{
	const struct policy_src *src = policy_src_of(p, &b->src);
	const struct policy_dst *dst = policy_dst_of(p, &b->dst);
	uint32_t c = policy_class_of(p, b->proto, b->port_known, b->port, (enum opener)b->opener, b->exit);
	struct policy_bits bits;

	assert_true(c < p->h->nclasses);
	policy_match(p, src, dst, c, b->exit, &bits);
	for (uint32_t i = 0; i < p->h->nrules; i++) {
		bool want = model_match(m, model_of(m, p, i), policy_string(p, p->rule[i].group_name), b);
		char s[ADDR_STRLEN], t[ADDR_STRLEN];

		if (want != policy_bit(&bits, i))
			fail_msg("rule %s%s: %d expected; %s to %s proto %u port %d opener %u exit %u\n%s",
				 policy_string(p, p->rule[i].name), policy_string(p, p->rule[i].group_name), want,
				 addr_format(&b->src, s), addr_format(&b->dst, t), b->proto, b->port_known ? b->port : -1,
				 b->opener, b->exit, m->text);
	}
	assert_int_equal(!!(src->flags & SRC_INSIDE), any_holds(m->inside.p, m->inside.n, &b->src));
	assert_int_equal(!!(dst->flags & DST_EXIT), exit_of(m, &b->dst) >= 0);
	assert_int_equal(dst->exit, exit_of(m, &b->dst));
	for (int i = 0; i < SETS; i++)
		if (any_holds(m->host[i].p, m->host[i].n, &b->src))
			assert_int_equal(src->host, i);
}

/* Equal class numbers mean equal rules and the same exit; 0 means no constraint and no exit. */
static void check_class_uids(const struct policy *p)
{
	uint32_t exits = p->h->nexits + 1;

	for (uint32_t i = 0; i < p->h->nclasses; i++) {
		for (uint32_t k = 0; k < p->h->nclasses; k++) {
			bool same = i % exits == k % exits && !memcmp(&p->cls[i].match, &p->cls[k].match, sizeof(p->cls[i].match));

			assert_int_equal(p->cls[i].uid == p->cls[k].uid, same);
		}
		if (i % exits)
			assert_int_not_equal(p->cls[i].uid, 0);
	}
}

static void test_model(void **state)
{
	static struct model m;
	unsigned good = 0;

	(void)state;
	for (unsigned round = 0; round < 1500; round++) {
		struct compiled c;

		memset(&m, 0, sizeof(m));
		m.nexits = rng(3);
		model_names(&m);
		model_ways(&m);
		model_rules(&m, false);
		model_rules(&m, true);
		/* The model does not know which policies are refused; the golden files do. */
		if (compile(m.text, &c) < 0)
			continue;
		good++;
		for (unsigned i = 0; i < 300; i++) {
			struct probe b = random_probe(&m);

			check_probe(&m, &c.p, &b);
		}
		check_class_uids(&c.p);
		free(c.blob);
	}
	assert_true(good > 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_model),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
