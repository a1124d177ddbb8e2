/* rules.c - see rules.h: both tables in one transaction, and whether they are still there. */
#include "rules.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <linux/netfilter.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nf_tables.h>

#include "nft_object.h"
#include "nft_rule.h"
#include "nft_set.h"
#include "rules_internal.h"

/* Holds connection tracking: nobody jumps here and its rule is never removed. With the last `ct` of a namespace the kernel
 * takes its hooks out and drops all that waits in queues (measured), so a policy that needs `ct` no more must not end it. */
#define CHAIN_CT "ct_kept"

/* Of older versions, in tables that were kept over an upgrade: their rules would count, or mark, every packet once more. They
 * stay, without rules: taking a base chain away drops what waits in the queues. */
static const struct { const char *table, *name; } old_chain[] = {
	{ TABLE, "lease" }, { TABLE_KEEP, "entry" }, { TABLE_KEEP, "local" }, { TABLE_KEEP, "pass" },
	{ TABLE_KEEP, "forward" }, { TABLE_KEEP, "output" },
};

/* postrouting: before -150, where mangle tables of others may set the whole mark. forward and output: after every chain of others,
 * whatever mark they set. */
const struct rules_chain rules_chain[RULES_CHAINS] = {
	{ TABLE, CHAIN_QUEUE, -155, NF_INET_POST_ROUTING },
	{ TABLE_KEEP, "exit", -151, NF_INET_POST_ROUTING },
	{ TABLE_KEEP, "gate_forward", 1000, NF_INET_FORWARD },
	{ TABLE_KEEP, "gate_output", 1000, NF_INET_LOCAL_OUT },
	{ TABLE_KEEP, "exit_local", 0, -1 },
	{ TABLE_KEEP, "unseen", 0, -1 },
	{ TABLE_KEEP, "refuse", 0, -1 },
	{ TABLE_KEEP, "refuse_local", 0, -1 },
	{ TABLE_KEEP, "refuse_hit", 0, -1 },
	{ TABLE_KEEP, "reject", 0, -1 },
	{ TABLE, CHAIN_CT, 0, -1 },
	{ TABLE, CHAIN_UNLEASED, 0, -1 },
	{ TABLE, CHAIN_LOCAL, 0, -1 },
	{ TABLE, CHAIN_QUEUED, 0, -1 },
};

int rules_open(int owner_fd, int keep_fd, struct rules **ret_rules)
{
	struct rules *r = calloc(1, sizeof(*r));
	int e;

	if (!r)
		return -ENOMEM;
	r->held = true;
	e = nft_sock_init(&r->owner, owner_fd);
	if (e == 0)
		e = nft_sock_init(&r->keep, keep_fd);
	if (e < 0) {
		rules_close(r);
		return e;
	}
	*ret_rules = r;
	return 0;
}

struct rules *rules_close(struct rules *r)
{
	if (r) {
		rules_watch_done(r);
		nft_sock_done(&r->owner);
		nft_sock_done(&r->keep);
		free(r->spec);
		free(r);
	}
	return NULL;
}

void rules_assume(struct rules *r, enum rules_flavour flavour, bool leases)
{
	r->flavour = flavour;
	r->leases = leases;
}

bool rules_leases(const struct rules *r)
{
	return r->leases;
}

/* Owned or not is decided when the table is made: *ret says how it must be named to the kernel now. */
static int table_owned(struct rules *r, bool *ret, const char **ret_what)
{
	struct nft_table_info info = { 0 };
	const int e = nft_table_get(&r->owner, TABLE, &info);

	*ret_what = "table egressd";
	if (e == -ENOENT) {
		*ret = rules_probe_owner(r);
		return 0;
	}
	if (e < 0)
		return e;
	if (info.owned && info.owner != r->owner.portid) {
		*ret_what = "table egressd: owned by another process";
		return -EPERM;
	}
	*ret = info.owned;
	return 0;
}

static void goto_unleased(struct nft_rule *rule, struct nft_batch *b)
{
	nft_verdict(rule, NFT_GOTO, CHAIN_UNLEASED);
	nft_rule_add(rule, b, "egressd: unleased");
}

/* A lease is of a pair, whatever the device; an exit's device may have rules of its own. */
static void leases(struct nft_batch *b, const struct rules_spec *s, const struct rules_marks *m)
{
	struct nft_rule rule;

	if (s->nexit_devices) {
		rule = nft_rule(TABLE, CHAIN_QUEUE);
		rules_device_match(&rule, b, TABLE, s->device, s->nexit_devices);
		goto_unleased(&rule, b);
	}
	rules_lease_fill(b, TABLE, s->needs_ct, m);
}

static void ask_and_go_on(struct nft_batch *b, const struct rules *r, const struct rules_spec *s, const struct rules_marks *m, bool ask)
{
	struct nft_rule rule = nft_rule(TABLE, CHAIN_QUEUE);

	if (s->leases && r->leases && ask)
		leases(b, s, m);
	goto_unleased(&rule, b);
}

/* Egress is asked about, whatever its mark says: others may have set our bits since the gates, and NF_REPEAT comes back with both. */
static void queue_rules(struct nft_batch *b, const struct rules *r, const struct rules_spec *s, const struct rules_marks *m)
{
	const struct rules_split split = { TABLE, CHAIN_UNLEASED, CHAIN_LOCAL, CHAIN_QUEUED };
	struct nft_rule rule = nft_rule(TABLE, CHAIN_UNLEASED);

	rules_mark_is_set(&rule, m);
	rules_mark_put(&rule, m, 0);
	nft_rule_add(&rule, b, "egressd: marks of others");
	rules_egress_split(b, &split, s);
	if (s->needs_ct) {
		rule = nft_rule(TABLE, CHAIN_QUEUED);
		nft_ct(&rule, NFT_CT_DIRECTION, NFT_REG32_00);
		nft_cmp_u8(&rule, NFT_REG32_00, 1 /* IP_CT_DIR_REPLY */);
		rules_mark_load(&rule);
		rules_mark_put(&rule, m, m->mask);
		nft_rule_add(&rule, b, "egressd: ct direction");
	}
	rule = nft_rule(TABLE, CHAIN_QUEUED);
	rules_queue_statement(&rule, r->flavour, s->queue_first, s->queue_count);
	nft_rule_add(&rule, b, "egressd: queue");
}

static void keep_ct(struct nft_batch *b)
{
	struct nft_rule rule = nft_rule(TABLE, CHAIN_CT);

	nft_ct(&rule, NFT_CT_DIRECTION, NFT_REG32_00);
	nft_rule_add(&rule, b, "egressd: ct kept");
}

static void chains(struct nft_batch *b, bool ct)
{
	for (const struct rules_chain *c = rules_chain; c < rules_chain + RULES_CHAINS; c++) {
		if (c->hook < 0)
			nft_chain_add(b, c->table, c->name, c->name);
		else
			nft_base_chain_add(b, c->table, c->name, (uint32_t)c->hook, c->priority, c->name);
	}
	for (const struct rules_chain *c = rules_chain; c < rules_chain + RULES_CHAINS; c++) {
		if (ct || strcmp(c->name, CHAIN_CT))
			nft_chain_flush(b, c->table, c->name, c->name);
	}
}

static int empty_old_chains(struct rules *r, struct nft_batch *b)
{
	for (size_t i = 0; i < ARRAY_SIZE(old_chain); i++) {
		uint32_t use;
		const int e = nft_chain_get(&r->keep, old_chain[i].table, old_chain[i].name, &use);

		if (e == 0)
			nft_chain_flush(b, old_chain[i].table, old_chain[i].name, "chain of an older version");
		else if (e != -ENOENT)
			return e;
	}
	return 0;
}

/* What cannot be read is not compared until the next time: the rules are in all the same. */
static void remember_use(struct rules *r)
{
	for (size_t i = 0; i < RULES_CHAINS; i++)
		if (nft_chain_get(&r->keep, rules_chain[i].table, rules_chain[i].name, &r->use[i]) < 0)
			r->use[i] = 0;
}

static void sets(struct rules *r, struct nft_batch *b, const struct rules_spec *spec, bool owned)
{
	nft_table_add(b, TABLE, owned, "table egressd");
	nft_table_add(b, TABLE_KEEP, false, "table egressd_keep");
	rules_egress_sets(r, b, TABLE, spec);
	rules_keep_sets(r, b, spec);
}

/* Sets older than their rules, see rules_egress.c: a table without chains harms nobody. */
static int first_sets(struct rules *r, const struct rules_spec *spec, bool owned, const char **ret_what)
{
	struct nft_batch b;

	if (rules_egress_has_sets(r, TABLE) && rules_egress_has_sets(r, TABLE_KEEP))
		return 0;
	nft_batch_begin(&b, &r->owner);
	sets(r, &b, spec, owned);
	return nft_batch_commit(&b, ret_what);
}

static struct rules_marks marks_of(const struct rules_spec *s)
{
	const uint32_t low = s->mark_mask & -s->mark_mask;

	return (struct rules_marks){ .mask = s->mark_mask, .leased = low, .judged = s->mark_mask & ~low };
}

int rules_ask_leases(struct rules *r, bool ask)
{
	const struct rules_marks m = marks_of(r->spec);
	struct nft_batch b;
	const char *what;
	int e;

	r->held = r->held || !ask;	/* an apply must not ask them either, whether this succeeds or not */
	nft_batch_begin(&b, &r->owner);
	nft_chain_flush(&b, TABLE, CHAIN_QUEUE, "asking leases");
	ask_and_go_on(&b, r, r->spec, &m, ask);
	e = nft_batch_commit(&b, &what);
	if (e < 0)
		return e;
	r->held = !ask;
	remember_use(r);
	return 0;
}

/* ---- what was applied ---- */

#define LISTS 4

static void lists(const struct rules_spec *s, const void *list[LISTS], size_t len[LISTS])
{
	list[0] = s->inside;
	len[0] = s->ninside * sizeof(*s->inside);
	list[1] = s->exit_host;
	len[1] = s->nexit_host * sizeof(*s->exit_host);
	list[2] = s->protect;
	len[2] = s->nprotect * sizeof(*s->protect);
	list[3] = s->device;
	len[3] = s->ndevices * sizeof(*s->device);
}

static struct rules_spec *copy_of(const struct rules_spec *s)
{
	struct rules_spec *c;
	const void *list[LISTS];
	size_t len[LISTS], all = sizeof(*s);
	uint8_t *to;

	lists(s, list, len);
	for (size_t i = 0; i < LISTS; i++)
		all += len[i];
	c = malloc(all);
	if (!c)
		return NULL;
	*c = *s;
	to = (uint8_t *)(c + 1);
	c->inside = (const struct prefix *)to;
	c->exit_host = (const struct prefix *)(to + len[0]);
	c->protect = (const struct prefix *)(to + len[0] + len[1]);
	c->device = (const char(*)[16])(to + len[0] + len[1] + len[2]);
	for (size_t i = 0; i < LISTS; i++) {
		if (len[i])
			memcpy(to, list[i], len[i]);
		to += len[i];
	}
	return c;
}

bool rules_are(const struct rules *r, const struct rules_spec *s)
{
	const struct rules_spec *a = r->spec;
	const void *list[2][LISTS];
	size_t len[2][LISTS];

	if (!a || a->mark_mask != s->mark_mask || a->queue_first != s->queue_first || a->queue_count != s->queue_count ||
	    a->failure_closed != s->failure_closed || a->needs_ct != s->needs_ct || a->leases != s->leases ||
	    a->nexit_devices != s->nexit_devices)
		return false;
	lists(a, list[0], len[0]);
	lists(s, list[1], len[1]);
	for (size_t i = 0; i < LISTS; i++)
		if (len[0][i] != len[1][i] || (len[0][i] && memcmp(list[0][i], list[1][i], len[0][i]) != 0))
			return false;
	return true;
}

int rules_apply(struct rules *r, const struct rules_spec *spec, enum rules_flavour *ret_flavour, const char **ret_what)
{
	const struct rules_marks m = marks_of(spec);
	struct rules_spec *copy;
	struct nft_batch b;
	bool owned = false;
	int e;

	*ret_what = "mark_mask or queues";
	if (__builtin_popcount(spec->mark_mask) != 2 || !spec->queue_count)
		return -EINVAL;
	e = r->flavour ? 0 : rules_probe(r, ret_what);
	if (e == 0)
		e = table_owned(r, &owned, ret_what);
	if (e < 0)
		return e;
	e = first_sets(r, spec, owned, ret_what);
	if (e < 0)
		return e;
	*ret_what = "memory";
	copy = copy_of(spec);
	if (!copy)
		return -ENOMEM;
	/* The owning socket may write both tables, so both change in the same instant [U1]. */
	nft_batch_begin(&b, &r->owner);
	sets(r, &b, spec, owned);
	chains(&b, spec->needs_ct);
	e = empty_old_chains(r, &b);
	if (e < 0)
		nft_batch_fail(&b, e);
	rules_block_gate_older(&b);
	rules_keep_fill(&b, spec, &m);
	if (spec->needs_ct)
		keep_ct(&b);
	if (spec->leases && r->leases)
		rules_lease_sets(&b, TABLE);
	ask_and_go_on(&b, r, spec, &m, !r->held);
	queue_rules(&b, r, spec, &m);
	e = nft_batch_commit(&b, ret_what);
	if (e < 0) {
		free(copy);
		r->flavour = 0;		/* another kernel than was assumed? */
		return e;
	}
	*ret_flavour = r->flavour;
	free(r->spec);
	r->spec = copy;
	remember_use(r);
	return 0;
}

int rules_regate(struct rules *r)
{
	struct nft_batch b;
	const char *what;

	nft_batch_begin(&b, &r->owner);
	rules_block_regate(r, &b);
	return nft_batch_commit(&b, &what);
}

int rules_counters(struct rules *r, struct rules_counters *ret)
{
	struct rules_counters c = { 0 };
	int e = nft_counter_get(&r->keep, TABLE_KEEP, "unseen", &c.unseen_packets, &c.unseen_bytes);

	/* The larger one last: a packet is counted as egress before it can be counted as unseen. */
	if (e == 0 || e == -ENOENT)
		e = nft_counter_get(&r->keep, TABLE_KEEP, "egress", &c.egress_packets, &c.egress_bytes);
	if (e < 0 && e != -ENOENT)
		return e;
	*ret = c;
	return 0;
}

int rules_present(struct rules *r)
{
	for (size_t i = 0; i < RULES_CHAINS; i++) {
		uint32_t use = 0;
		const int e = nft_chain_get(&r->keep, rules_chain[i].table, rules_chain[i].name, &use);

		if (e == -ENOENT)
			return 0;
		if (e < 0)
			return e;
		if (r->use[i] && use != r->use[i])
			return 0;	/* flushed, or rules of others in our chains */
	}
	return 1;
}

int rules_remove(struct rules *r)
{
	static const char *const table[] = { TABLE, TABLE_KEEP };
	struct nft_batch b;
	const char *what;

	nft_batch_begin(&b, &r->owner);
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		struct nft_table_info info = { 0 };
		const int e = nft_table_get(&r->keep, table[i], &info);

		if (e == 0)
			nft_table_del(&b, table[i], "removing a table");
		else if (e != -ENOENT)
			nft_batch_fail(&b, e);
	}
	return nft_batch_commit(&b, &what);
}

int rules_left(struct rules *r)
{
	static const struct {
		const char *name;
		int bit;
	} table[] = { { TABLE, RULES_LEFT_QUEUE }, { TABLE_KEEP, RULES_LEFT_KEEP } };
	int left = 0;

	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		struct nft_table_info info = { 0 };
		const int e = nft_table_get(&r->keep, table[i].name, &info);

		if (e == 0 && !info.owned)
			left |= table[i].bit;
		else if (e < 0 && e != -ENOENT)
			return e;
	}
	return left;
}
