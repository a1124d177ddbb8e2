/* policy_open() on a good blob that the input changes: records of (offset, how, value). The checksum is made right
 * again, so that the checks behind it are reached; then every accessor runs over all that the blob says it holds.
 * The blob is compiled here, so the corpus outlives changes of its layout. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "policy_compile.h"

#define RECORD 7

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char base[] =
	"version: 1\nmode: enforce\ninside: [10.0.0.0/8, 'fd00::/8']\n"
	"hosts:\n  file01: {addresses: [10.20.0.15, 'fd00:20::15']}\n  www01: {addresses: [10.20.0.80]}\n"
	"groups: {servers: {hosts: [10.20.0.0/24], except: [www01]}}\n"
	"exits:\n  vpn: {interfaces: [wg0], hosts: [10.250.0.0/16]}\n  box: {hosts: [10.251.0.1]}\n"
	"destinations: {cloud: {networks: [203.0.113.0/28]}}\n"
	"rules:\n- {name: a, from: servers, to: outside, per: pair, limit: {1m: 200MB, 24h: 2GB}, action: block}\n"
	"- {name: b, from: [inside, gateway], to: [vpn, cloud], ports: [tcp/22, udp/1-100], per: host, limit: {1h: 1MB}}\n"
	"- {name: c, from: servers, to: outside, per: group, limit: {1h: 1GB}}\n"
	"contracts:\n- {name: d, from: file01, to: cloud, ports: tcp/443, opened_by: inside, budget: {per: total, 24h: 1GB},"
	" until: never}\n"
	"protect: [203.0.113.53]\n";

static void *good;
static size_t good_size;

static void make_good(void)
{
	static struct diag_list diags;
	const struct policy_env env = { .now = 1763900000 };

	diag_init(&diags, "base.yaml", base, sizeof(base) - 1);
	BUG_ON(policy_compile(base, sizeof(base) - 1, &env, &diags, &good, &good_size) < 0);
}

static void use_texts(const struct policy *p)
{
	size_t n = strlen(policy_string(p, p->h->timezone));

	for (uint32_t i = 0; i < p->h->nrules; i++) {
		const struct policy_rule *r = &p->rule[i];

		n += strlen(policy_string(p, r->name)) + strlen(policy_string(p, r->from_text)) +
		     strlen(policy_string(p, r->to_text)) + strlen(policy_string(p, r->ports_text)) +
		     strlen(policy_string(p, r->owner)) + strlen(policy_string(p, r->group_name)) +
		     strlen(policy_action_name(r->action)) + strlen(policy_per_name(r->per)) +
		     strlen(policy_severity_name(r->severity)) + strlen(opener_name(r->opened_by));
		BUG_ON(r->limit[r->nlimits - 1].spec.ring >= WINDOW_RINGS);
		BUG_ON(policy_rule_by_uid(p, r->uid) < 0);
	}
	for (uint32_t i = 0; i < p->h->nexits; i++)
		for (uint32_t k = 0; k < p->exit[i].nifaces; k++)
			n += strlen(policy_string(p, p->exit[i].name)) + strlen(p->exit[i].iface[k]);
	for (uint32_t i = 0; i < p->h->nhost_addrs; i++)
		n += strlen(policy_string(p, p->host[p->host_addr[i].host].name));
	for (uint32_t i = 0; i < p->h->nexit_prefixes; i++)
		n += p->exit[p->exit_prefix[i].exit].nifaces;
	for (uint32_t i = 0; i < p->h->ninside; i++)
		n += p->inside[i].len;
	for (uint32_t i = 0; i < p->h->nprotect; i++)
		n += p->protect[i].len;
	(void)policy_host_by_name(p, n % 2 ? "www01" : "10.20.0.15");
}

static void use_matches(const struct policy *p)
{
	static const uint8_t protos[] = { 0, 6, 17, 47, 255 };

	for (uint32_t i = 0; i < 64; i++) {
		struct addr a = { { 0 } };
		const struct policy_src *src;
		const struct policy_dst *dst;
		struct policy_bits bits;
		uint32_t c;

		memcpy(a.b, (const char *)p->h + i * sizeof(a), sizeof(a));
		src = policy_src_of(p, &a);
		dst = policy_dst_of(p, &a);
		c = policy_class_of(p, protos[i % 5], i % 2, (uint16_t)(i * 1031), (enum opener)(i % 4), i % 40);
		BUG_ON(c >= p->h->nclasses);
		policy_match(p, src, dst, c, i % 40, &bits);
		for (uint32_t k = p->h->nrules; k < POLICY_RULES; k++)
			BUG_ON(policy_bit(&bits, k));
		if (src->host >= 0)
			(void)policy_string(p, p->host[src->host].name);
		if (dst->exit >= 0)
			(void)policy_string(p, p->exit[dst->exit].name);
		for (uint32_t k = 0; k < p->h->nrules; k++) {
			(void)policy_form_for(p, k, src, i % 2 ? dst : NULL);
			(void)policy_class_refused(p, k, i * 7 % p->h->nclasses, src, i % 2 ? dst : NULL);
		}
	}
}

static void change(uint8_t *blob, size_t len, const uint8_t *data, size_t size)
{
	for (; size >= RECORD; data += RECORD, size -= RECORD) {
		uint32_t at, value;

		memcpy(&at, data, 2);
		memcpy(&value, data + 3, 4);
		at = (at & 0xffff) % (uint32_t)(len - 4);
		switch (data[2] % 3) {
		case 0:
			blob[at] = (uint8_t)value;
			break;
		case 1:		/* a field of the header or an aligned word */
			memcpy(blob + (at & ~3U), &value, 4);
			break;
		default:
			blob[at] ^= (uint8_t)(1 << value % 8);
		}
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct policy_header *h;
	struct policy p;
	const char *why;
	uint8_t *blob;
	size_t len;

	if (!good)
		make_good();
	if (size < 2)
		return 0;
	/* The first two bytes cut the blob: mostly not at all. An allocation of its own, so that ASan sees its end. */
	len = data[0] < 224 ? good_size : (size_t)(data[0] - 224) * 256 + data[1];
	len = MIN_OF(len, good_size);
	blob = malloc(len + !len);
	BUG_ON(!blob);
	memcpy(blob, good, len);
	if (len > 4)
		change(blob, len, data + 2, size - 2);
	h = (struct policy_header *)(void *)blob;
	if (len >= sizeof(*h)) {
		if (data[0] % 2)
			h->size = (uint32_t)len;
		policy_sum(blob, len, h->sum);
	}
	if (policy_open(blob, len, &p, &why) == 0) {
		use_texts(&p);
		use_matches(&p);
	} else {
		BUG_ON(!*why);
	}
	free(blob);
	return 0;
}
