/* tests/config/policy: each good_*.yaml compiles to what its .ok says, each bad_*.yaml gives the very text of its .err.
 * Numbers in .ok guard [B2]: a change there loses the accounts of every installation at its next upgrade.
 * GOLDEN_UPDATE=1 writes the files anew; read the difference before you commit it. */
#include <errno.h>
#include <glob.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "policy_compile.h"

#define DIR "tests/config/policy/"
#define NOW 1763900000	/* 23 Nov 2025: the day these policies are checked */

static char *whole_file(const char *path, size_t *ret_len)
{
	FILE *f = fopen(path, "r");
	char *text = f ? malloc(1 << 20) : NULL;

	if (text) {
		*ret_len = fread(text, 1, (1 << 20) - 1, f);
		text[*ret_len] = '\0';
	}
	if (f)
		fclose(f);
	return text;
}

/* The policies name their files as /golden/NAME. */
static int read_file(void *ctx, const char *path, char **ret_text, size_t *ret_len)
{
	char here[256];

	(void)ctx;
	if (strncmp(path, "/golden/", 8))
		return -ENOENT;
	if (strcmp(path, "/golden/secret.txt") == 0)
		return -EACCES;
	if (strcmp(path, "/golden/huge.txt") == 0)
		return -EFBIG;
	snprintf(here, sizeof(here), DIR "%s", path + 8);
	*ret_text = whole_file(here, ret_len);
	return *ret_text ? 0 : -ENOENT;
}

/* Where this is compiled there may be no zoneinfo. */
static bool zone_known(void *ctx, const char *name)
{
	(void)ctx;
	return strcmp(name, "Asia/Tokyo") == 0;
}

static void print_bits(FILE *out, const struct policy *p, const struct policy_bits *b)
{
	for (uint32_t i = 0; i < p->h->nrules; i++) {
		if (!policy_bit(b, i))
			continue;
		fprintf(out, " %s", policy_string(p, p->rule[i].name));
		if (p->rule[i].group)
			fprintf(out, "/%s", policy_string(p, p->rule[i].group_name));
	}
	fprintf(out, "\n");
}

static void print_rule(FILE *out, const struct policy *p, const struct policy_rule *r)
{
	static const char *const forms[] = { "engine", "pair", "host", "pair service", "host service" };

	fprintf(out, "%s %s %08x per %s", r->kind == RULE_CONTRACT ? "contract" : "rule", policy_string(p, r->name), r->uid,
		policy_per_name(r->per));
	if (r->group)
		fprintf(out, " %s %08x", policy_string(p, r->group_name), r->group);
	fprintf(out, " from %s to %s ports %s by %s", policy_string(p, r->from_text), policy_string(p, r->to_text),
		*policy_string(p, r->ports_text) ? policy_string(p, r->ports_text) : "any", opener_name(r->opened_by));
	for (unsigned i = 0; i < r->nlimits; i++)
		fprintf(out, " %us:%llu", r->limit[i].seconds, (unsigned long long)r->limit[i].bytes);
	fprintf(out, " %s%s %s hold %us %s form %s", policy_action_name(r->action), r->enforce ? " enforced" : "",
		r->refuse == REFUSE_DROP ? "drop" : "reject", r->hold_s, policy_severity_name(r->severity), forms[r->form]);
	if (r->kind == RULE_CONTRACT)
		fprintf(out, " until %lld breach %s owner %s", r->until == POLICY_UNTIL_NEVER ? -1LL : (long long)r->until,
			r->alert_on_breach ? "alert" : "none", policy_string(p, r->owner));
	fprintf(out, "\n");
}

static void print_addresses(FILE *out, const struct policy *p)
{
	char text[ADDR_STRLEN];

	for (uint32_t i = 0; i < p->h->nsrc_ranges; i++) {
		const struct policy_src *s = &p->src[p->src_range[i].label];

		fprintf(out, "src %s%s%s%s%s:", addr_format(&p->src_range[i].start, text),
			s->flags & SRC_INSIDE ? " inside" : "", s->flags & SRC_EXIT ? " exit" : "", s->host >= 0 ? " host " : "",
			s->host >= 0 ? policy_string(p, p->host[s->host].name) : "");
		print_bits(out, p, &s->from);
	}
	for (uint32_t i = 0; i < p->h->ndst_ranges; i++) {
		const struct policy_dst *d = &p->dst[p->dst_range[i].label];

		fprintf(out, "dst %s%s%s%s%s:", addr_format(&p->dst_range[i].start, text),
			d->flags & DST_INSIDE ? " inside" : "", d->flags & DST_PROTECTED ? " protected" : "",
			d->exit >= 0 ? " exit " : "", d->exit >= 0 ? policy_string(p, p->exit[d->exit].name) : "");
		print_bits(out, p, &d->to);
	}
}

static void print_services(FILE *out, const struct policy *p)
{
	uint32_t exits = p->h->nexits + 1;

	for (uint32_t i = 0; i < p->h->nexits; i++) {
		fprintf(out, "exit %s", policy_string(p, p->exit[i].name));
		for (uint32_t k = 0; k < p->exit[i].nifaces; k++)
			fprintf(out, " %s", p->exit[i].iface[k]);
		fprintf(out, ":");
		print_bits(out, p, &p->exit[i].to);
	}
	for (uint32_t i = 0; i < p->h->nspans; i++)
		fprintf(out, "span %x/%u service %u\n", p->span[i].proto, p->span[i].lo, p->span[i].service);
	for (uint32_t i = 0; i < p->h->nclasses; i += exits) {
		fprintf(out, "class %u %s %08x:", i / exits / 3, opener_name(i / exits % 3), p->cls[i].uid);
		print_bits(out, p, &p->cls[i].match);
	}
}

static void print_policy(FILE *out, const struct policy *p)
{
	const struct policy_header *h = p->h;

	fprintf(out, "flags %u timezone %s brake %u in %us accept %u max_ttl %us max_budget %llu\n", h->flags,
		policy_string(p, h->timezone), h->brake_subjects, h->brake_s, h->accept, h->max_ttl_s,
		(unsigned long long)h->max_budget);
	for (uint32_t i = 0; i < h->nhosts; i++)
		fprintf(out, "host %s %08x stores %llu %llu\n", policy_string(p, p->host[i].name), p->host[i].uid,
			(unsigned long long)p->host[i].stores_bytes, (unsigned long long)p->host[i].stores_compressed);
	for (uint32_t i = 0; i < h->nrules; i++)
		print_rule(out, p, &p->rule[i]);
	print_addresses(out, p);
	print_services(out, p);
}

static void print_diags(FILE *out, const struct diag_list *l)
{
	char text[8192];

	for (uint32_t i = 0; i < MIN_OF(l->count, (uint32_t)DIAG_MAX); i++) {
		int n = diag_format(l, i, text, sizeof(text));

		assert_true(n > 0 && (size_t)n < sizeof(text));
		fputs(text, out);
	}
	if (l->count > DIAG_MAX)
		fprintf(out, "and %u more\n", l->count - DIAG_MAX);
}

/* What compiling the file says; malloc'd. *ret_good: it compiled. */
static char *outcome(const char *path, bool *ret_good)
{
	static struct diag_list diags;
	const struct policy_env env = { .read_file = read_file, .zone_known = zone_known, .now = NOW };
	char *result = NULL, *text;
	size_t len, size;
	FILE *out = open_memstream(&result, &size);
	void *blob;
	int r;

	text = whole_file(path, &len);
	assert_true(out && text);
	diag_init(&diags, strrchr(path, '/') + 1, text, len);
	r = policy_compile(text, len, &env, &diags, &blob, &size);
	*ret_good = r == 0;
	if (r == 0) {
		const char *why = "";
		struct policy p;

		if (policy_open(blob, size, &p, &why) < 0)
			fail_msg("%s: %s", path, why);
		print_policy(out, &p);
		free(blob);
	} else {
		assert_int_equal(r, -EINVAL);
		print_diags(out, &diags);
	}
	free(text);
	fclose(out);
	return result;
}

static void compare(const char *yaml, const char *suffix, bool want_good)
{
	char path[256];
	bool good;
	char *is = outcome(yaml, &good), *want;
	size_t len;

	if (good != want_good)
		fail_msg("%s: %s", yaml, is);
	snprintf(path, sizeof(path), "%.*s%s", (int)(strlen(yaml) - strlen(".yaml")), yaml, suffix);
	if (getenv("GOLDEN_UPDATE")) {
		FILE *f = fopen(path, "w");

		assert_non_null(f);
		fputs(is, f);
		fclose(f);
	}
	want = whole_file(path, &len);
	if (!want)
		fail_msg("%s is missing", path);
	if (strcmp(is, want))
		fail_msg("%s differs; now:\n%s", path, is);
	free(is);
	free(want);
}

static void all(const char *pattern, const char *suffix, bool good)
{
	glob_t g;

	if (glob(pattern, 0, NULL, &g) != 0)
		fail_msg("nothing like %s; run from the top of the tree", pattern);
	for (size_t i = 0; i < g.gl_pathc; i++)
		compare(g.gl_pathv[i], suffix, good);
	globfree(&g);
}

static void test_good(void **state)
{
	(void)state;
	all(DIR "good_*.yaml", ".ok", true);
}

static void test_bad(void **state)
{
	(void)state;
	all(DIR "bad_*.yaml", ".err", false);
}

/* What we ship must pass, and begin by observing. */
static void test_shipped(void **state)
{
	static const char *const paths[] = {
		"config/policy.yaml", "config/examples/sakura.yaml", "config/examples/web-server.yaml",
		"config/examples/backup.yaml"
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
		bool good;
		char *is = outcome(paths[i], &good);

		if (!good)
			fail_msg("%s: %s", paths[i], is);
		if (i == 0)
			assert_true(strncmp(is, "flags 0 ", 8) == 0 && !strstr(is, " block"));
		free(is);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good),
		cmocka_unit_test(test_bad),
		cmocka_unit_test(test_shipped),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
