/* Any text as a policy. What compiles must open; everything the engine may ask must be answered within the blob. */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "policy_compile.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int read_file(void *ctx, const char *path, char **ret_text, size_t *ret_len)
{
	static const char text[] = "203.0.113.0/28 # site A\n\n2001:db8:7::/48\n203.0.113.9/24\nnonsense\n";

	(void)ctx;
	if (strchr(path, '!'))
		return -ENOENT;
	*ret_text = strdup(text);
	*ret_len = strlen(path) % sizeof(text);
	return *ret_text ? 0 : -ENOMEM;
}

static void use(const struct policy *p)
{
	for (uint32_t i = 0; i < p->h->nsrc_ranges; i++) {
		const struct policy_src *src = policy_src_of(p, &p->src_range[i].start);

		for (uint32_t k = 0; k < p->h->ndst_ranges && k < 64; k++) {
			const struct policy_dst *dst = policy_dst_of(p, &p->dst_range[k].start);
			uint32_t exit = (i + k) % (p->h->nexits + 1);
			uint32_t c = policy_class_of(p, 6, i & 1, (uint16_t)(k * 443), (enum opener)(k % 3), exit);
			struct policy_bits bits;
			unsigned n = 0;

			policy_match(p, src, dst, c, exit, &bits);
			for (uint32_t r = 0; r < p->h->nrules; r++)
				n += policy_bit(&bits, r);
			BUG_ON(n > PAIR_POLICY);
		}
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct diag_list diags;
	const struct policy_env env = { .read_file = read_file, .now = 1763900000 };
	char text[1024];
	struct policy p;
	const char *why;
	void *blob;
	size_t len;
	int r;

	diag_init(&diags, "fuzz.yaml", (const char *)data, size);
	r = policy_compile((const char *)data, size, &env, &diags, &blob, &len);
	BUG_ON(r == -EINVAL && !diags.count);
	BUG_ON(r == 0 && diags.count);
	for (uint32_t i = 0; i < diags.count && i < DIAG_MAX; i++)
		BUG_ON(diag_format(&diags, i, text, sizeof(text)) < 0);
	if (r < 0)
		return 0;
	BUG_ON(policy_open(blob, len, &p, &why) < 0);
	use(&p);
	free(blob);
	return 0;
}
