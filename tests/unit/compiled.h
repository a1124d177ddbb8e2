/* compiled.h - for unit tests: text of a policy to an opened policy. */
#pragma once

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

#define NOW 1763900000	/* 23 Nov 2025 */

struct compiled {
	void *blob;
	size_t size;
	struct policy p;
};

static inline int compiled_read(void *ctx, const char *path, char **ret_text, size_t *ret_len)
{
	const char *text = ctx;

	if (!text || strcmp(path, "/nets"))
		return -ENOENT;
	*ret_text = strdup(text);
	*ret_len = strlen(text);
	return 0;
}

static struct diag_list diags;

static inline int compile(const char *text, struct compiled *ret)
{
	static const struct policy_role role = { .role = "maint", .device = { "wg0", "wg1" } };
	const struct policy_env env = {
		.read_file = compiled_read, .ctx = (void *)(uintptr_t)"203.0.113.0/28 # a\n\n2001:db8:7::/48\n", .role = &role,
		.nroles = 1, .now = NOW,
	};
	const char *why = "";
	int r;

	diag_init(&diags, "test.yaml", text, strlen(text));
	r = policy_compile(text, strlen(text), &env, &diags, &ret->blob, &ret->size);
	if (r < 0)
		return r;
	r = policy_open(ret->blob, ret->size, &ret->p, &why);
	if (r < 0)
		fail_msg("a compiled blob does not open: %s", why);
	return 0;
}

static inline void must_compile(const char *text, struct compiled *ret)
{
	if (compile(text, ret) == 0)
		return;
	for (uint32_t i = 0; i < diags.count && i < DIAG_MAX; i++)
		print_message("%u:%u: %s (%s)\n", diags.item[i].line, diags.item[i].col, diags.item[i].text,
			      diags.item[i].hint);
	fail_msg("does not compile:\n%s", text);
}
