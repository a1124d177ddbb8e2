/* What a compiled policy must say: defaults, modes, forms, what is stable over reloads, and the blob's own checks. */
#include "unit/compiled.h"

#define HEAD "version: 1\nmode: enforce\ninside: [10.0.0.0/8]\n"

static const struct policy_rule *rule_of(const struct policy *p, const char *name)
{
	for (uint32_t i = 0; i < p->h->nrules; i++)
		if (!strcmp(policy_string(p, p->rule[i].name), name))
			return &p->rule[i];
	fail_msg("no rule %s", name);
	return NULL;
}

static void test_defaults(void **state)
{
	struct compiled c;
	const struct policy_rule *r;

	(void)state;
	must_compile("version: 1\ninside: 10.0.0.0/8\nrules:\n"
		     "- {name: a, from: 10.1.0.0/16, to: outside, per: pair, limit: {24h: 1GB, 1m: 1MB}, action: block}\n", &c);
	r = rule_of(&c.p, "a");
	assert_int_equal(c.p.h->flags, 0);
	assert_int_equal(r->action, ACTION_BLOCK);
	assert_int_equal(r->enforce, 0);	/* the file observes */
	assert_int_equal(r->severity, SEVERITY_MEDIUM);
	assert_int_equal(r->hold_s, 1800);
	assert_int_equal(r->refuse, REFUSE_REJECT);
	assert_int_equal(r->nlimits, 2);
	assert_int_equal(r->limit[0].seconds, 60);
	assert_int_equal(r->limit[1].bytes, 1000000000);
	assert_int_equal(c.p.h->brake_subjects, 0);
	assert_int_equal(c.p.h->accept, 0);
	assert_string_equal(policy_string(&c.p, c.p.h->timezone), "UTC");
	free(c.blob);
}

static void test_observe_wins(void **state)
{
	static const struct {
		const char *file, *rule, *action;
		int enforce;
	} rows[] = {
		{ "enforce", "enforce", "block", 1 }, { "enforce", "observe", "block", 0 },
		{ "observe", "enforce", "block", 0 }, { "enforce", "enforce", "alert", 0 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct compiled c;
		char text[512];

		snprintf(text, sizeof(text), "version: 1\nmode: %s\ninside: 10.0.0.0/8\nrules:\n"
			 "- {name: a, from: inside, to: outside, per: pair, limit: {1m: 1MB}, action: %s, mode: %s}\n",
			 rows[i].file, rows[i].action, rows[i].rule);
		must_compile(text, &c);
		assert_int_equal(rule_of(&c.p, "a")->enforce, rows[i].enforce);
		free(c.blob);
	}
}

#define STABLE_A "- {name: a, from: g, to: d, per: pair, ports: [tcp/443], limit: {1m: 1MB}}\n"
#define STABLE_A2 "- {name: a, from: g, to: d, per: pair, ports: [tcp/443], limit: {1h: 9MB}, action: block, hold: 1h}\n"
#define STABLE_A3 "- {name: a, from: g, to: d, per: host, ports: [tcp/443], limit: {1m: 1MB}}\n"
#define STABLE_B "- {name: b, from: inside, to: outside, per: pair, limit: {1m: 1MB}}\n"

static uint32_t class_at(const struct policy *p, uint16_t port)
{
	return p->cls[policy_class_of(p, 6, true, port, OPENER_INSIDE, 0)].uid;
}

static void test_stable_numbers(void **state)
{
	static const char *const named = HEAD "groups: {g: {hosts: [10.1.0.0/16]}}\ndestinations: {d: {networks: [192.0.2.0/24]}}\n";
	struct compiled c, d, e, f;
	char text[1024];
	uint32_t uid;

	(void)state;
	snprintf(text, sizeof(text), "%srules:\n" STABLE_A, named);
	must_compile(text, &c);
	snprintf(text, sizeof(text), "%srules:\n" STABLE_B STABLE_A2, named);
	must_compile(text, &d);
	snprintf(text, sizeof(text), "%srules:\n" STABLE_A3, named);
	must_compile(text, &e);
	uid = rule_of(&c.p, "a")->uid;
	assert_int_equal(uid, rule_of(&d.p, "a")->uid);
	assert_int_not_equal(uid, rule_of(&e.p, "a")->uid);
	assert_int_equal(policy_rule_by_uid(&d.p, uid), 1);
	assert_int_equal(policy_rule_by_uid(&e.p, uid), -1);
	assert_int_equal(class_at(&c.p, 443), class_at(&d.p, 443));
	assert_int_not_equal(class_at(&c.p, 443), 0);
	assert_int_equal(class_at(&c.p, 80), 0);
	snprintf(text, sizeof(text), "%srules:\n" STABLE_A, named);
	must_compile(text, &f);
	assert_int_equal(c.size, f.size);
	assert_memory_equal(c.blob, f.blob, c.size);	/* [PC2] */
	free(c.blob);
	free(d.blob);
	free(e.blob);
	free(f.blob);
}

static void test_forms(void **state)
{
	struct compiled c;
	struct addr file, other, cloud, out;

	(void)state;
	must_compile(HEAD "hosts: {file01: {addresses: [10.1.0.1]}}\n"
		     "exits: {vpn: {interfaces: [maint], hosts: [10.250.0.0/16]}, box: {hosts: [10.251.0.1]}}\n"
		     "destinations: {cloud: {networks_file: /nets}}\n"
		     "rules:\n"
		     "- {name: pair, from: inside, to: outside, per: pair, limit: {1m: 1MB}}\n"
		     "- {name: box, from: inside, to: box, per: pair, limit: {1m: 1MB}}\n"
		     "- {name: vpn, from: inside, to: vpn, per: pair, limit: {1m: 1MB}}\n"
		     "- {name: ports, from: inside, to: outside, per: pair, ports: udp, limit: {1m: 1MB}}\n"
		     "- {name: host, from: inside, to: outside, per: host, limit: {1m: 1MB}}\n"
		     "- {name: hostto, from: inside, to: cloud, per: host, limit: {1m: 1MB}}\n"
		     "- {name: gw, from: gateway, to: outside, per: host, limit: {1m: 1MB}}\n"
		     "- {name: second, from: 10.1.0.2, to: outside, per: pair, limit: {1m: 1MB}}\n"
		     "contracts:\n"
		     "- {name: backup, from: file01, to: cloud, budget: {per: total, 24h: 1GB}, until: 2027-03-31}\n", &c);
	assert_int_equal(rule_of(&c.p, "pair")->form, FORM_PAIR);
	assert_int_equal(rule_of(&c.p, "box")->form, FORM_PAIR);
	assert_int_equal(rule_of(&c.p, "vpn")->form, FORM_ENGINE);
	assert_int_equal(rule_of(&c.p, "ports")->form, FORM_PAIR_SERVICE);
	assert_int_equal(rule_of(&c.p, "host")->form, FORM_HOST);
	assert_int_equal(rule_of(&c.p, "hostto")->form, FORM_ENGINE);
	assert_int_equal(rule_of(&c.p, "gw")->form, FORM_ENGINE);
	assert_int_equal(rule_of(&c.p, "backup")->until, 1806537600);	/* date -ud '2027-03-31 + 1 day' +%s */

	assert_int_equal(addr_parse("10.1.0.1", &file) | addr_parse("10.1.0.2", &other) |
			 addr_parse("203.0.113.3", &cloud) | addr_parse("192.0.2.1", &out), 0);
	assert_int_equal(policy_form_for(&c.p, 1, policy_src_of(&c.p, &file), policy_dst_of(&c.p, &out)), FORM_PAIR);
	assert_int_equal(policy_form_for(&c.p, 1, policy_src_of(&c.p, &file), policy_dst_of(&c.p, &cloud)), FORM_ENGINE);
	assert_int_equal(policy_form_for(&c.p, 5, policy_src_of(&c.p, &file), NULL), FORM_ENGINE);
	assert_int_equal(policy_form_for(&c.p, 5, policy_src_of(&c.p, &other), NULL), FORM_HOST);
	assert_int_equal(policy_form_for(&c.p, 4, policy_src_of(&c.p, &file), policy_dst_of(&c.p, &out)), FORM_PAIR_SERVICE);
	assert_int_equal(policy_form_for(&c.p, 4, policy_src_of(&c.p, &file), NULL), FORM_ENGINE);
	assert_int_equal(policy_form_for(&c.p, 8, policy_src_of(&c.p, &file), policy_dst_of(&c.p, &out)), FORM_ENGINE);	/* not named */
	assert_int_equal(policy_form_for(&c.p, 8, policy_src_of(&c.p, &other), policy_dst_of(&c.p, &out)), FORM_PAIR);
	assert_int_equal(policy_host_by_name(&c.p, "file01"), 0);
	assert_int_equal(policy_host_by_name(&c.p, "10.1.0.1"), 0);
	assert_int_equal(policy_host_by_name(&c.p, "10.1.0.2"), -1);
	assert_int_equal(c.p.exit[0].nifaces, 2);
	assert_string_equal(c.p.exit[0].iface[1], "wg1");
	free(c.blob);
}

/* Span by span, the elements of a rule's block say what the judge says of every port: R and no contract that shares. */
static void test_refused_services(void **state)
{
	struct compiled c;
	struct addr file, other, cloud;
	const struct policy_src *from[2];
	const struct policy_dst *to[2];
	unsigned refused = 0, left = 0;

	(void)state;
	must_compile(HEAD "exits: {vpn: {interfaces: [maint]}}\n"
		     "destinations: {cloud: {networks: [203.0.113.0/24]}}\n"
		     "rules:\n"
		     "- {name: every, from: inside, to: outside, per: pair, limit: {1m: 1MB}}\n"
		     "- {name: web, from: inside, to: outside, per: pair, ports: [tcp/443, tcp/8000-8100], opened_by: inside, limit: {1m: 1MB}}\n"
		     "- {name: host, from: inside, to: outside, per: host, opened_by: outside, limit: {1m: 1MB}}\n"
		     "contracts:\n"
		     "- {name: copy, from: 10.1.0.1, to: cloud, ports: [tcp/873, tcp/8050], budget: {per: total, 24h: 1GB}, until: never}\n"
		     "- {name: away, from: 10.1.0.2, to: vpn, ports: udp, budget: {per: total, 24h: 1GB}, until: never}\n", &c);
	assert_int_equal(addr_parse("10.1.0.1", &file) | addr_parse("10.1.0.3", &other) | addr_parse("203.0.113.3", &cloud), 0);
	from[0] = policy_src_of(&c.p, &file);
	from[1] = policy_src_of(&c.p, &other);
	to[0] = policy_dst_of(&c.p, &cloud);
	to[1] = NULL;
	assert_int_equal(rule_of(&c.p, "every")->form, FORM_PAIR);
	assert_int_equal(rule_of(&c.p, "web")->form, FORM_PAIR_SERVICE);
	assert_int_equal(rule_of(&c.p, "host")->form, FORM_HOST_SERVICE);
	assert_int_equal(policy_form_for(&c.p, 2, from[0], to[0]), FORM_PAIR_SERVICE);
	assert_int_equal(policy_form_for(&c.p, 2, from[1], to[0]), FORM_PAIR);
	assert_int_equal(policy_form_for(&c.p, 4, from[0], NULL), FORM_HOST_SERVICE);
	assert_int_equal(addr_parse("10.1.0.2", &other), 0);	/* may leave by the exit's device to any address */
	assert_int_equal(policy_form_for(&c.p, 2, policy_src_of(&c.p, &other), to[0]), FORM_PAIR_SERVICE);
	for (unsigned i = 2; i < c.p.h->nrules; i++)
		for (unsigned who = 0; who < 4; who++) {
			const struct policy_src *src = from[who & 1];
			const struct policy_dst *dst = to[who >> 1];

			for (uint32_t s = 0; s < c.p.h->nspans; s++) {
				const struct policy_span *span = &c.p.span[s];
				uint16_t hi;

				if (!policy_span_ports(&c.p, s, &hi))
					continue;
				assert_in_range(hi, span->lo, UINT16_MAX);
				for (uint32_t port = span->lo; port <= hi; port++)
					for (unsigned by = OPENER_INSIDE; by <= OPENER_OUTSIDE; by++) {
						const bool says = policy_class_refused(&c.p, i, policy_class_index(&c.p, span->service, by, 0), src, dst);
						const struct policy_class *k = &c.p.cls[policy_class_of(&c.p, (uint8_t)span->proto, true, (uint16_t)port, by, 0)];
						const bool copy = src == from[0] && span->proto == 6 && (port == 873 || port == 8050);

						assert_int_equal(says, policy_bit(&k->match, i) && !copy);
						says ? refused++ : left++;
					}
			}
		}
	assert_int_not_equal(refused, 0);
	assert_int_not_equal(left, 0);
	free(c.blob);
}

static void test_group_split(void **state)
{
	struct compiled c;

	(void)state;
	must_compile(HEAD "groups: {a: {hosts: [10.1.0.0/16]}, b: {hosts: [10.2.0.0/16]}}\n"
		     "rules:\n- {name: r, from: [a, b], to: outside, per: group, limit: {1m: 1MB}}\n", &c);
	assert_int_equal(c.p.h->nrules, 2);
	assert_string_equal(policy_string(&c.p, c.p.rule[0].name), "r");
	assert_string_equal(policy_string(&c.p, c.p.rule[1].group_name), "b");
	assert_int_not_equal(c.p.rule[0].uid, c.p.rule[1].uid);
	assert_int_not_equal(c.p.rule[0].group, c.p.rule[1].group);
	free(c.blob);
}

static void test_broken_blobs(void **state)
{
	struct compiled c;
	struct policy p;
	const char *why;
	char *copy;

	(void)state;
	must_compile(HEAD "rules:\n- {name: r, from: inside, to: outside, per: pair, limit: {1m: 1MB}}\n", &c);
	copy = malloc(c.size);
	assert_non_null(copy);
	for (size_t n = 0; n < c.size; n++) {
		memcpy(copy, c.blob, c.size);
		assert_int_equal(policy_open(copy, n, &p, &why), -EBADMSG);
		copy[n] ^= (char)(1 << (n % 8));
		assert_int_equal(policy_open(copy, c.size, &p, &why), -EBADMSG);
	}
	memcpy(copy, c.blob, c.size);
	assert_int_equal(policy_open(copy, c.size, &p, &why), 0);
	free(copy);
	free(c.blob);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_observe_wins),
		cmocka_unit_test(test_stable_numbers),
		cmocka_unit_test(test_forms),
		cmocka_unit_test(test_refused_services),
		cmocka_unit_test(test_group_split),
		cmocka_unit_test(test_broken_blobs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
