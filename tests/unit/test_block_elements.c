/* Kernel elements of blocks against the judge's own answer, packet by packet, under random policies. block_elements.h, block_owners.h */
#include "unit/credit_world.h"

#include "block_owners.h"

static uint32_t seed;

static uint32_t below(uint32_t n)
{
	seed = seed * 1664525 + 1013904223;
	return (seed >> 8) % n;
}

#define ANY(list) ((list)[below(ARRAY_SIZE(list))])

static const char *const sources[] = { "10.20.0.15", "fd00:20::15", "10.20.0.16", "10.20.0.17", "10.30.0.1" };
static const char *const targets[] = { "203.0.113.9", "203.0.113.10", "198.51.100.1", "2001:db8:9::9" };

/* Rules and contracts that differ in all that decides about elements. */
static void random_policy(void)
{
	static const char *const from[] = { "inside", "10.20.0.15", "file01", "10.20.0.0/24", "[10.20.0.16, file01]", "g" };
	static const char *const to[] = { "outside", "outside", "203.0.113.0/24", "203.0.113.9" };
	static const char *const per[] = { "pair", "pair", "host", "group" };
	static const char *const ports[] = { "", "", "ports: [tcp/443], ", "ports: [tcp/400-500, udp/53], ", "ports: [tcp/450-700], ",
					     "ports: [udp], ", "ports: [icmp, tcp/443], " };
	static const char *const by[] = { "", "", "opened_by: inside, ", "opened_by: outside, " };
	char text[3000];
	int n = snprintf(text, sizeof(text), "hosts:\n  file01: {addresses: [10.20.0.15, \"fd00:20::15\"]}\n"
			 "groups:\n  g: {hosts: [10.20.0.0/24]}\nrules:\n");

	for (unsigned i = 0; i < 3; i++) {
		const char *p = ANY(per);

		n += snprintf(text + n, sizeof(text) - (size_t)n,
			      "  - {name: r%u, from: %s, to: %s, %s%sper: %s, limit: {1h: 1TB}, action: block}\n", i,
			      strcmp(p, "group") == 0 ? "g" : ANY(from), ANY(to), ANY(ports), ANY(by), p);
	}
	n += snprintf(text + n, sizeof(text) - (size_t)n, "contracts:\n");
	for (unsigned i = 0; i < 2; i++)
		n += snprintf(text + n, sizeof(text) - (size_t)n,
			      "  - {name: c%u, from: %s, to: %s, %s%sbudget: {per: total, 24h: 1kB}, until: never}\n", i, ANY(from),
			      ANY(to), ANY(ports), ANY(by));
	world(text);
	for (size_t s = 0; s < ARRAY_SIZE(sources); s++)
		for (size_t t = 0; t < ARRAY_SIZE(targets); t++)
			for (unsigned i = 0; i < 4; i++)
				(void)send_as(sources[s], targets[t], 1000,
					      (struct how){ .opener = (uint8_t)(1 + i % 2), .sport = 443, .dport = i < 2 ? 443 : 460 });
}

struct sample {
	struct addr src, dst;
	uint8_t proto, opener;
	bool ports;
	uint16_t port;		/* the accepting end's; without ports: what the kernel reads there */
};

static struct sample random_packet(void)
{
	static const uint8_t protos[] = { 6, 6, 6, 17, 17, 1, 47, 255, 0, 60 };
	static const uint16_t at[] = { 0, 52, 53, 399, 400, 442, 443, 444, 449, 450, 500, 501, 700, 701, 65535 };
	struct sample k = { .proto = ANY(protos), .opener = (uint8_t)(1 + below(2)), .port = ANY(at) };

	do {
		assert_int_equal(addr_parse(ANY(sources), &k.src), 0);
		assert_int_equal(addr_parse(ANY(targets), &k.dst), 0);
	} while (addr_is_v4(&k.src) != addr_is_v4(&k.dst));
	k.ports = k.proto == 6 || k.proto == 17;
	return k;
}

static bool same_subject(const struct account_key *k, const struct sample *x)
{
	const int host = policy_src_of(&w.policy, &x->src)->host;
	struct pair_key out = { .class_uid = 0 };
	uint8_t in[16] = { 0 };

	pair_out(&out, &x->dst);
	if (host >= 0)
		memcpy(in + 12, &w.policy.host[host].uid, 4);
	else
		memcpy(in, x->src.b, 16);
	if (memcmp(in, k->in, 16) != 0)
		return false;
	return k->kind == SUBJECT_HOST || (out.out_family == k->out_family && memcmp(out.out, k->out, 8) == 0);
}

static uint32_t class_of(const struct sample *x)
{
	return policy_class_of(&w.policy, x->proto, x->ports, x->port, x->opener, 0);
}

/* Mostly of the subject. */
static struct sample packet_of(uint32_t account)
{
	struct sample x = random_packet();

	for (unsigned i = 0; i < 15 && !same_subject(&w.j.area.account[account].key, &x); i++)
		x = random_packet();
	return x;
}

/* Of this very account's block: its rule judges the packet, and no contract does. */
static bool of_block(uint32_t account, uint32_t rule, const struct sample *x)
{
	const struct policy *p = &w.policy;
	const uint32_t cls = class_of(x);
	struct policy_bits bits;

	policy_match(p, policy_src_of(p, &x->src), policy_dst_of(p, &x->dst), cls, 0, &bits);
	for (uint32_t i = 0; i < p->h->ncontracts; i++)
		if (policy_bit(&bits, i))
			return false;
	return policy_bit(&bits, rule) && same_subject(&w.j.area.account[account].key, x);
}

/* As the kernel looks it up. */
static bool matches(const struct rules_block *b, const struct sample *x)
{
	const bool host = b->kind == RULES_BLOCK_HOST || b->kind == RULES_BLOCK_HOST_SERVICE;

	if (addr_cmp(&b->src, &x->src) != 0 || (!host && !prefix_contains(&b->dst, &x->dst)))
		return false;
	return b->kind <= RULES_BLOCK_HOST ||
	       (x->proto >= b->service.proto && x->proto <= b->service.proto_hi && x->port >= b->service.lo &&
		x->port <= b->service.hi && (x->opener == OPENER_OUTSIDE) == b->service.by_outside);
}

static bool in_list(const struct block_list *l, const struct sample *x)
{
	for (size_t i = 0; i < l->n; i++)
		if (matches(&l->item[i], x))
			return true;
	return false;
}

static void list(uint32_t account, struct block_list *l)
{
	memset(l, 0, sizeof(*l));
	block_elements(&w.j.area, &w.policy, account, 0, w.now, l);
}

static bool is_block(uint32_t i, uint32_t *ret_rule)
{
	const struct area *a = &w.j.area;
	int r = table_is_full(&a->accounts, i) ? policy_rule_by_uid(&w.policy, a->account[i].key.rule) : -1;

	*ret_rule = (uint32_t)r;
	return r >= 0 && w.policy.rule[r].kind == RULE_RULE && !account_is_shared(&a->account[i].key) &&
	       memcmp(a->account[i].key.in, pair_others.b, 16) != 0;
}

/* Whether the rule's block of this packet's ends is the kernel's: a host's not for services that a contract to some destination has. */
static bool by_kernel(uint32_t rule, uint32_t account, const struct sample *x)
{
	const struct policy *p = &w.policy;
	const struct policy_src *src = policy_src_of(p, &x->src);

	for (uint32_t i = 0; i < p->h->ncontracts && w.j.area.account[account].key.kind == SUBJECT_HOST; i++)
		if (policy_bit(&p->cls[class_of(x)].match, i) && policy_bit(&src->from, i))
			return false;
	return p->rule[rule].form != FORM_ENGINE &&
	       policy_form_for(p, rule, src,
			       w.j.area.account[account].key.kind == SUBJECT_PAIR ? policy_dst_of(p, &x->dst) : NULL) != FORM_ENGINE;
}

/* What an extension header hides is refused by rules of any ports: in the queue. */
static bool hides_another(uint8_t proto)
{
	return proto == 0 || proto == 60;
}

static void as_the_judge(void **state)
{
	static struct block_list l, again;
	unsigned stopped = 0, services = 0;

	(void)state;
	for (unsigned round = 0; round < 300; round++) {
		seed = round;
		random_policy();
		for (uint32_t i = 0; i < w.j.area.h->accounts; i++) {
			uint32_t rule;

			if (!is_block(i, &rule))
				continue;
			list(i, &l);
			list(i, &again);
			assert_memory_equal(&l, &again, sizeof(l));	/* [EL3] */
			assert_true(l.n <= BLOCK_SHARE);		/* [EL4] */
			for (unsigned n = 0; n < 60; n++) {
				const struct sample x = packet_of(i);
				const bool wanted = of_block(i, rule, &x) && by_kernel(rule, i, &x), found = in_list(&l, &x);

				if (hides_another(x.proto) ? found && !wanted : found != wanted)	/* [EL1], [EL2] */
					fail_msg("round %u, rule %u, account %u: proto %u port %u opener %u: %d, wanted %d", round, rule, i,
						 x.proto, x.port, x.opener, !wanted, wanted);
				stopped += wanted;
				services += wanted && l.item[0].kind > RULES_BLOCK_HOST;
			}
		}
	}
	assert_true(stopped > 10000 && services > 3000);
}

static bool meet(const struct rules_block *a, const struct rules_block *b)
{
	return a->service.lo <= b->service.hi && b->service.lo <= a->service.hi && a->service.proto <= b->service.proto_hi &&
	       b->service.proto <= a->service.proto_hi && a->service.by_outside == b->service.by_outside;
}

/* Blocked and put in. */
static void stand(uint32_t i)
{
	atomic_fetch_or_explicit(&w.j.area.account[i].state, ACCOUNT_BLOCKED, memory_order_relaxed);
	w.j.area.account_cold[i].announced = 1;
	mark_for_review(&w.j.area, i);
}

static uint64_t all_of[2048], spoken_of[2048];

static void sum(void *ctx, uint32_t account, uint64_t all, uint64_t spoken)
{
	(void)ctx;
	assert_true(account < ARRAY_SIZE(all_of) && all_of[account] == 0);
	all_of[account] = all;
	spoken_of[account] = spoken;
}

/* Each element of whoever has it, its bytes all of theirs and once a pair's. */
static void owners(void **state)
{
	static struct block_list l;

	(void)state;
	for (unsigned round = 0; round < 100; round++) {
		struct block_owners o = { 0 };
		uint64_t once = 0, spoken = 0;
		uint32_t rule;

		seed = 1000 + round;
		random_policy();
		memset(all_of, 0, sizeof(all_of));
		memset(spoken_of, 0, sizeof(spoken_of));
		for (uint32_t i = 0; i < w.j.area.h->accounts; i++)
			if (is_block(i, &rule) && below(2))
				stand(i);
		assert_int_equal(block_owners_of(&w.j.area, &w.policy, true, &o), 0);
		for (size_t i = 0; i < o.n; i++) {
			for (size_t k = i + 1; k < o.n; k++) {		/* [EL5] */
				const struct rules_block *a = &o.v[i].element, *b = &o.v[k].element;

				if (a->kind == b->kind && a->kind > RULES_BLOCK_HOST && addr_cmp(&a->src, &b->src) == 0 &&
				    addr_cmp(&a->dst.addr, &b->dst.addr) == 0)
					assert_true(!meet(a, b) || block_element_order(a, b) == 0);
			}
			if (i == 0 || block_element_order(&o.v[i - 1].element, &o.v[i].element) != 0) {
				assert_true(block_owners_count(&o, &o.v[i].element, i + 1));
				once += o.v[i].pair ? i + 1 : 0;	/* those of pairs come first */
			}
		}
		assert_false(block_owners_count(&o, &(struct rules_block){ .kind = RULES_BLOCK_HOST }, 1));
		for (size_t i = 0; i < o.n; i++)
			assert_true(o.v[i].bytes > 0);
		block_owners_sums(&o, sum, NULL);
		for (uint32_t i = 0; i < w.j.area.h->accounts; i++) {
			uint64_t bytes = 0;

			for (size_t k = 0; k < o.n; k++)
				bytes += o.v[k].account == i ? o.v[k].bytes : 0;
			assert_int_equal(all_of[i], bytes);
			assert_true(spoken_of[i] <= bytes);
			spoken += spoken_of[i];
			if (is_block(i, &rule) && w.j.area.account_cold[i].announced) {
				list(i, &l);
				assert_int_equal(bytes > 0, l.n > 0);
			}
		}
		assert_int_equal(spoken, once);				/* [OW3] */
		block_owners_free(&o);
	}
}

/* A policy with more spans of ports than an account may have elements: as many as it may, the same ones. */
static void bound(void **state)
{
	static struct block_list l;
	char text[3900];
	int n = snprintf(text, sizeof(text), "rules:\n  - {name: r, from: inside, to: outside, per: pair, limit: {1h: 1TB}, action: block}\n"
			 "contracts:\n");
	uint32_t rule;

	(void)state;
	for (unsigned i = 0; i < 15; i++) {
		n += snprintf(text + n, sizeof(text) - (size_t)n, "  - {name: c%u, from: inside, to: outside, ports: [", i);
		for (unsigned k = 0; k < 6; k++)
			n += snprintf(text + n, sizeof(text) - (size_t)n, "%stcp/%u", k ? ", " : "", 1000 + i * 100 + k * 10);
		n += snprintf(text + n, sizeof(text) - (size_t)n, "], budget: {per: total, 24h: 1kB}, until: never}\n");
	}
	world(text);
	assert_true(send_as("10.20.0.15", "203.0.113.9", 1000, (struct how){ .opener = OPENER_INSIDE }));
	for (uint32_t i = 0; i < w.j.area.h->accounts; i++)
		if (is_block(i, &rule)) {
			list(i, &l);
			assert_int_equal(l.n, BLOCK_SHARE);
		}
}

/* Pairs that share an account: their block is the queue's, or it would stop those that have one. */
static void shared(void **state)
{
	static struct block_list l;
	unsigned n = 0;

	(void)state;
	world("hosts:\n  file01: {addresses: [10.20.0.15, \"fd00:20::15\"]}\nrules:\n"
	      "  - {name: r, from: inside, to: outside, per: pair, limit: {1h: 1TB}, action: block}\n"
	      "  - {name: s, from: inside, to: outside, per: pair, limit: {1h: 1TB}, action: block}\n");
	judge_policy_changed(&w.j, w.now);
	for (unsigned i = 0; i < 2000; i++) {
		char dst[32];

		snprintf(dst, sizeof(dst), "100.64.%u.%u", i / 250, i % 250 + 1);
		assert_true(send_as(sources[i % 2], i % 2 ? "2001:db8:9::9" : dst, 1, (struct how){ .opener = OPENER_INSIDE }));
		assert_true(send_as("10.20.0.17", dst, 1, (struct how){ .opener = OPENER_INSIDE }));
	}
	for (uint32_t i = 0; i < w.j.area.h->accounts; i++)
		if (table_is_full(&w.j.area.accounts, i) && account_is_shared(&w.j.area.account[i].key)) {
			list(i, &l);
			assert_int_equal(l.n, 0);
			n++;
		}
	assert_int_equal(n, 2 + 2 + 2);
}

static struct prefix prefix_of(const char *text)
{
	struct prefix x = { .len = 0 };

	assert_int_equal(prefix_parse(text, &x), 0);
	return x;
}

/* By hand: one address to anywhere, one address or /64. An allow in force takes away what would stop it, for as long as it lasts. */
static void decisions(void **state)
{
	static const struct {
		const char *src, *dst;
		int kind;	/* -1: none */
	} by_hand[] = {
		{ "10.20.0.15", NULL, RULES_BLOCK_HOST }, { "10.20.0.15", "203.0.113.9", RULES_BLOCK_PAIR },
		{ "10.20.0.0/24", NULL, -1 }, { "10.20.0.15", "203.0.113.0/24", -1 },
		{ "fd00:20::15", "2001:db8:9::9", RULES_BLOCK_PAIR },
	};
	static struct block_list l;
	struct area_dynamic d = { .budget = 1000 };
	struct block_owners o = { 0 };
	uint32_t rule;

	(void)state;
	world("rules:\n  - {name: r, from: inside, to: outside, per: pair, limit: {1h: 1TB}, action: block}\n");
	assert_true(send_as("10.20.0.16", "203.0.113.9", 1000, (struct how){ .opener = OPENER_INSIDE }));
	d.src = prefix_of("10.20.0.0/24");
	d.dst = prefix_of("203.0.113.0/24");
	d.uid = 99;
	d.until_ns = mono_add_s(w.now, 60).ns;
	assert_int_equal(judge_allow(&w.j, &d, w.now), 0);
	for (uint32_t i = 0; i < w.j.area.h->accounts; i++)
		if (is_block(i, &rule)) {
			list(i, &l);
			assert_int_equal(l.n, 1);
			l.n = 0;
			block_elements(&w.j.area, &w.policy, i, 5000, w.now, &l);
			assert_int_equal(l.n, 0);
			block_elements(&w.j.area, &w.policy, i, 5000, mono_add_s(w.now, 61), &l);
			assert_int_equal(l.n, 1);
			assert_int_equal(l.item[0].timeout_ms, 5000);
		}
	for (unsigned i = 0; i < ARRAY_SIZE(by_hand); i++) {
		d = (struct area_dynamic){ .uid = 100 + i, .src = prefix_of(by_hand[i].src), .until_ns = mono_add_s(w.now, 60).ns };
		if (by_hand[i].dst)
			d.dst = prefix_of(by_hand[i].dst);
		assert_int_equal(judge_block(&w.j, &d, w.now), 0);
	}
	assert_int_equal(block_owners_of(&w.j.area, NULL, false, &o), 0);	/* no policy is needed for these */
	for (unsigned i = 0; i < ARRAY_SIZE(by_hand); i++)
		for (size_t k = 0; k < o.n; k++)
			if (o.v[k].rule == 100 + i)
				assert_int_equal(o.v[k].element.kind, by_hand[i].kind);
	assert_int_equal(o.n, 3);
	block_owners_free(&o);
}

/* Elements that would stand for seconds. */
static size_t standing(void)
{
	static struct block_list l;
	uint32_t rule;

	l.n = 0;
	for (uint32_t i = 0; i < w.j.area.h->accounts; i++)
		if (is_block(i, &rule))
			block_elements(&w.j.area, &w.policy, i, 5000, w.now, &l);
	return l.n;
}

/* An allow whose budget is over takes no element away: as the first packet that it has no room for says, or its size. */
static void spent_allow(void **state)
{
	static const struct how how = { .opener = OPENER_INSIDE };
	struct area_dynamic d = { .uid = 99, .src = prefix_of("10.0.0.0/8"), .budget = 2500 };

	(void)state;
	world("rules:\n  - {name: r, from: inside, to: outside, per: pair, limit: {1h: 1kB}, action: block}\n");
	assert_true(send_as("10.20.0.16", "203.0.113.9", 1000, how));
	assert_false(send_as("10.20.0.16", "203.0.113.9", 1000, how));
	assert_int_equal(standing(), 1);
	d.until_ns = mono_add_s(w.now, 3600).ns;
	assert_int_equal(judge_allow(&w.j, &d, w.now), 0);
	assert_int_equal(standing(), 0);
	assert_true(send_as("10.20.0.16", "203.0.113.9", 1000, how));
	assert_true(send_as("10.20.0.16", "203.0.113.9", 1000, how));
	pass_time(1);
	assert_int_equal(standing(), 0);
	assert_false(send_as("10.20.0.16", "203.0.113.9", 1000, how));
	assert_int_equal(standing(), 1);
	pass_time(1);
	assert_false(send_as("10.20.0.16", "203.0.113.9", 100, how));	/* as the kernel does */
	d.uid = 100;
	d.budget = 1;
	assert_int_equal(judge_allow(&w.j, &d, w.now), 0);
	assert_int_equal(standing(), 1);
	sane();
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(as_the_judge), cmocka_unit_test(owners), cmocka_unit_test(bound),
					  cmocka_unit_test(shared), cmocka_unit_test(decisions), cmocka_unit_test(spent_allow) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
