/* rules_probe.c - what the kernel can do: transactions that are checked in full and never come to be. Each waits for grace periods. */
#include <errno.h>

#include "nft_object.h"
#include "nft_rule.h"
#include "rules_internal.h"

#define PROBE "egressd_probe"

void rules_queue_statement(struct nft_rule *r, enum rules_flavour f, uint16_t first, uint16_t count)
{
	if (f == RULES_NATIVE_QUEUE)
		nft_queue(r, first, count);
	else
		nft_queue_xt(r, first, count);
}

/* Whether the kernel takes a rule with that statement, in a table that never comes to be. */
static int probe_flavour(struct rules *r, enum rules_flavour f, const char **ret_what)
{
	struct nft_batch b;
	struct nft_rule rule = nft_rule(PROBE, "probe");

	nft_batch_begin(&b, &r->owner);
	nft_table_add(&b, PROBE, false, "no table can be made: is nf_tables in this kernel? modprobe nf_tables");
	/* Not a base chain: taking its hook back would drop what waits in the queues (measured), at every engine start. */
	nft_chain_add(&b, PROBE, "probe", "probe: chain");
	rules_queue_statement(&rule, f, 0, 1);
	nft_rule_add(&rule, &b, f == RULES_NATIVE_QUEUE ? "probe: nft queue statement" : "probe: xt NFQUEUE target");
	return nft_batch_try(&b, ret_what);
}

/* Whether a set's expression is more to the kernel than an attribute to pass over, as before 5.7: then one that no set may have is
 * refused. Where nothing counts a lease's packets, nobody would know what has passed. */
static bool probe_counters(struct rules *r)
{
	static const struct nft_set_spec odd = { .name = "probe", .key_type = NFT_KEY_IPV4_PAIR, .key_len = 8, .each = "cmp" };
	struct nft_batch b;
	const char *what;

	nft_batch_begin(&b, &r->owner);
	nft_table_add(&b, PROBE, false, "probe: table");
	nft_set_add(&b, PROBE, &odd, "probe: set");
	return nft_batch_try(&b, &what) < 0;
}

static bool probe_leases(struct rules *r)
{
	const struct rules_marks m = { .mask = 3, .leased = 1, .judged = 2 };
	struct nft_batch b;
	const char *what;

	nft_batch_begin(&b, &r->owner);
	nft_table_add(&b, PROBE, false, "probe: table");
	nft_chain_add(&b, PROBE, CHAIN_QUEUE, "probe: chain");
	/* A map to objects of a type that no module has is taken all the same. */
	nft_quota_put(&b, PROBE, "probe", 1, "probe: quota");
	rules_lease_sets(&b, PROBE);
	rules_lease_fill(&b, PROBE, false, &m);
	return nft_batch_try(&b, &what) == 0;
}

int rules_probe(struct rules *r, const char **ret_what)
{
	static const enum rules_flavour try[] = { RULES_NATIVE_QUEUE, RULES_XT_NFQUEUE };
	int e = 0;

	for (size_t i = 0; i < ARRAY_SIZE(try) && !r->flavour; i++) {
		e = probe_flavour(r, try[i], ret_what);
		if (e == 0)
			r->flavour = try[i];
	}
	if (e == -ENOENT)
		*ret_what = "the kernel has neither nft's queue statement nor the xt target NFQUEUE; modprobe nft_queue, or xt_NFQUEUE";
	r->leases = probe_leases(r) && probe_counters(r);
	return e;
}

bool rules_probe_owner(struct rules *r)
{
	struct nft_batch b;
	const char *what;

	nft_batch_begin(&b, &r->owner);
	nft_table_add(&b, PROBE, true, "probe: owner flag");
	return nft_batch_try(&b, &what) == 0;
}
