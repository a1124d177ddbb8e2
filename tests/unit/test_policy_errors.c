/* test_policy_errors.c - [PC1] [Y5]: a policy into which errors were planted. The model is the list of what was planted: exactly that
 * is told, in order of place, whatever else is wrong beside it, and nothing that follows from it. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "policy_compile.h"

#define VARIANTS 7

/* Each part is taken in one of its forms, the first of which is good. A ^ marks the place of an error and is taken out. */
struct form {
	const char *text;
	const char *told[4];	/* the head of each, in order of place */
};

static const struct form parts[][VARIANTS] = {
	{ { "version: 1\n", { 0 } }, { "version: ^&v 1\n", { "anchors" } }, { "version: ^!!int 1\n", { "tags" } },
	  { "version: ^\"1\\e\"\n", { "control or" } }, { "version: ^2\n", { "version: this" } },
	  { "vers^\x01ion: 1\n", { "control char" } } },
	{ { "mode: observe\n", { 0 } }, { "mode: ^*m\n", { "aliases" } }, { "mode: ^obsreve\n", { "mode: must" } },
	  { "mode: obs^\xe2\x80\xae" "erve\n", { "bidirectional" } }, { "mode:^\tobserve\n", { "tab" } },
	  { "mode: observe\n^mode: enforce\n", { "mode: given twice" } }, { "^<<: {mode: observe}\n", { "merge" } } },
	{ { "inside: [10.0.0.0/8, \"fd00::/8\"]\n", { 0 } }, { "inside: ^*nets\n", { "aliases" } },
	  { "inside: [10.0.0.0/8, ^!net x]\n", { "tags" } }, { "inside: ^!x [10.0.0.0/8]\n", { "tags" } },
	  { "inside:\n^\t- 10.0.0.0/8\n^\t- \"fd00::/8\"\n", { "tab", "tab" } },
	  { "inside: [10.0.0.0/8, \"fd00::/^\xff" "8\"]\n", { "byte" } }, { "inside: [10.0.0.0/8, ^*a, ^10.0.0.1/8]\n", { "aliases", "inside: '10.0.0.1/8' has" } } },
	{ { "hosts:\n  file01: {addresses: [10.20.0.15]}\n  file02: {addresses: [\"fd00:20::2\"]}\n", { 0 } },
	  { "hosts: ^*h\n", { "aliases" } },
	  { "hosts:\n  file01: {addresses: ^*a}\n  ^<<: ^*b\n", { "aliases", "merge", "aliases" } },
	  { "hosts:\n  ^*x : {addresses: [10.20.0.15]}\n  file02: ^&f {addresses: [^10.2]}\n", { "aliases", "anchors", "addresses" } },
	  { "hosts:\n  file01: {^[addresses]: [10.20.0.15]}\n  file02: {addresses: 10.20.0.16}\n", { "a key must" } },
	  { "hosts:\n  ^fi le01: {addresses: [10.20.0.15]}\n  file02: {addresses: ^!x 1}\n  file01: {addresses: 10.20.0.16}\n", { "host: 'fi le01'", "tags" } },
	  { "hosts:\n  file01: {addresses: 10.20.0.15}\n  file02: {addresses: \"fd00:20::2\"}\n^hosts:\n  file03: {addresses: 10.20.0.3}\n", { "hosts: given" } } },
	{ { "groups:\n  g: {hosts: [10.20.0.0/24], except: [file01]}\n", { 0 } },
	  { "groups:\n  g: {hosts: ^*x, except: [file01]}\n", { "aliases" } },
	  { "groups:\n  g: {hosts: [^!x 1], except: [^*y]}\n", { "tags", "aliases" } },
	  { "groups:\n  g: {^\"ho\\tsts\": [10.20.0.0/24]}\n", { "control or" } },
	  { "groups:\n  g: {hosts: [10.20.0.0/24], ^expect: [file01]}\n", { "expect: unknown key" } },
	  { "groups:\n  g: ^!include g.yaml\n", { "tags" } } },
	{ { "exits:\n  vpn: {interfaces: [wg-maint], hosts: [10.250.0.0/16]}\n", { 0 } },
	  { "exits:\n  vpn: ^*v\n", { "aliases" } }, { "exits:\n  vpn: {hosts: ^*v}\n", { "aliases" } },
	  { "exits:\n  vpn: {interfaces: [^*v], hosts: [10.250.0.0/16]}\n", { "aliases" } } },
	{ { "destinations:\n  d: {networks: [203.0.113.0/24]}\n", { 0 } }, { "destinations:\n  d: {networks: [^*n]}\n", { "aliases" } },
	  { "destinations: ^!x {d: 1}\n", { "tags" } }, { "destinations:\n  d: {^<<: ^*n}\n", { "merge", "aliases" } } },
	{ { "rules:\n  - {name: a, from: inside, to: outside, per: pair, limit: {1h: 1GB}}\n", { 0 } },
	  { "rules:\n  - {name: a, from: inside, to: outside, per: pair, limit: ^&l {1h: ^500}}\n", { "anchors", "500: bare" } },
	  { "rules:\n  - {name: a, from: ^*f, to: ^*t, per: ^*p, limit: ^*l}\n", { "aliases", "aliases", "aliases", "aliases" } },
	  { "rules:\n  - {name: a, from: inside, to: outside, per: pair, limit: {^*x : 1GB}}\n", { "aliases" } },
	  { "rules:\n  - {^<<: ^*a, name: a, ^limits: {1h: 1GB}}\n", { "merge", "aliases", "limits: unknown" } },
	  { "rules:\n  - ^*r\n  - {name: a, from: inside, to: outside, per: pair, limit: {1h: ^!x 1}}\n", { "aliases", "tags" } },
	  { "rules:\n  - {name: ^!x a, from: inside, to: outside, per: pair, limit: {1h: 1GB}, limit^\xc2\x85s: 1}\n", { "tags", "control" } } },
	{ { "  - {name: b, from: [g, file02], to: [d, vpn], per: host, limit: {24h: 1GB}, hold: 1h}\n", { 0 } },
	  { "  - {name: b, from: g, to: d, per: host, limit: {24h: 1GB}, hold: ^*h}\n", { "aliases" } },
	  { "  - {name: b, from: g, to: d, per: group, limit: {24h: 1GB, ^24h: 2GB}}\n", { "24h: given" } },
	  { "  - {name: b, from: [g, ^*x], to: d, per: group, limit: {24h: 1GB}}\n", { "aliases" } },
	  { "  - ^&b {from: g, name: b, to: d, per: host, limit: {24h: 1GB}, action: ^blck}\n", { "anchors", "action: must" } } },
	{ { "contracts:\n  - {name: c, from: file01, to: d, budget: {per: total, 24h: 1GB}, until: never}\n", { 0 } },
	  { "contracts: ^*c\n", { "aliases" } },
	  { "contracts:\n  - {name: c, from: file01, to: d, budget: ^!b {per: total}, until: ^*u}\n", { "tags", "aliases" } },
	  { "contracts:\n  - {name: c, from: file01, to: d, budget: {^<<: ^*b}, until: never}\n", { "merge", "aliases" } },
	  { "contracts:\n  - {name: c, from: file01, to: d, budget: {per: ^*x, 24h: 1GB}, until: ^2020-01-01}\n", { "aliases", "until" } } },
	{ { "brake: {subjects: 5, in: 10m}\n", { 0 } }, { "brake: {^<<: ^*b}\n", { "merge", "aliases" } }, { "brake: {subjects: ^*s, in: ^5}\n", { "aliases", "5: bare" } },
	  { "brake: ^[[[[[[[[[[[[[[[^[1]]]]]]]]]]]]]]]]\n", { "brake: must", "nested" } } },
	/* nothing after these is read */
	{ { "", { 0 } }, { "protect: [203.0.113.53\nprot^: 1\n", { "did not find" } }, { "decisions:\n  accept: []\n ^max_ttl: 1h\n", { "did not find" } },
	  { "protect: \"203.0.113.53\n^", { "found unexp" } } },
	{ { "", { 0 } }, { "^---\nversion: ^*v\n", { "a second", "aliases" } } },
};

#define LAST ARRAY_SIZE(parts)
#define STOP (LAST - 2)

struct planted {
	uint32_t line, col;
	const char *text;
};

static char policy[8192];
static struct planted planted[64];
static uint32_t nplanted;

/* The text without its marks is added to the policy, the places of these to what was planted. */
static void plant(const struct form *f, uint32_t *line)
{
	char *to = policy + strlen(policy);
	uint32_t col = 1, n = 0;

	for (const char *p = f->text; *p; p++) {
		if (*p == '^') {
			planted[nplanted++] = (struct planted){ *line, col, f->told[n++] };
			continue;
		}
		*to++ = *p;
		col += ((unsigned char)*p & 0xc0) != 0x80;
		if (*p == '\n') {
			++*line;
			col = 1;
		}
	}
	*to = '\0';
	assert_true(n == ARRAY_SIZE(f->told) || !f->told[n]);
}

static void check(void)
{
	static struct diag_list diags;
	const struct policy_env env = { .now = 1763900000 };
	void *blob = NULL;
	size_t size;
	int r;

	diag_init(&diags, "p", policy, strlen(policy));
	r = policy_compile(policy, strlen(policy), &env, &diags, &blob, &size);
	free(blob);
	assert_int_equal(r, nplanted ? -EINVAL : 0);
	for (uint32_t i = 0; i < diags.count || i < nplanted; i++) {
		const struct diag *d = &diags.item[i];
		const struct planted *p = &planted[i];

		if (i < diags.count && i < nplanted && d->line == p->line && d->col == p->col &&
		    strncmp(d->text, p->text, strlen(p->text)) == 0)
			continue;
		fail_msg("%s\nerror %u: wanted %u:%u: %s, got %u:%u: %s", policy, i, i < nplanted ? p->line : 0,
			 i < nplanted ? p->col : 0, i < nplanted ? p->text : "none", i < diags.count ? d->line : 0,
			 i < diags.count ? d->col : 0, i < diags.count ? d->text : "none");
	}
}

static const struct form *form_of(size_t part, uint32_t form)
{
	const struct form *f = &parts[part][form % VARIANTS];

	return f->text ? f : &parts[part][0];
}

static void try(const uint32_t form[LAST])
{
	uint32_t line = 1;

	*policy = '\0';
	nplanted = 0;
	for (size_t i = 0; i < LAST; i++) {
		const struct form *f = form_of(i, form[i]);

		plant(f, &line);
		if (i == STOP && f != &parts[i][0])
			break;
	}
	check();
}

/* Each alone, and each two. */
static void test_pairs(void **state)
{
	uint32_t form[LAST] = { 0 };

	(void)state;
	try(form);
	for (size_t i = 0; i < LAST; i++)
		for (size_t k = 0; k < i; k++)
			for (uint32_t n = 0; n < VARIANTS * VARIANTS; n++) {
				form[i] = n / VARIANTS;
				form[k] = n % VARIANTS;
				try(form);
				form[i] = form[k] = 0;
			}
}

static void test_many(void **state)
{
	uint32_t form[LAST], x = 1;

	(void)state;
	for (uint32_t n = 0; n < 20000; n++) {
		for (size_t i = 0; i < LAST; i++) {
			x = x * 1664525 + 1013904223;
			form[i] = x >> 24;
		}
		try(form);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pairs),
		cmocka_unit_test(test_many),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
