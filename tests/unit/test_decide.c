/* test_decide.c - decide.h: what a decision from Redis may do here, and every reason to refuse one. */
#include "compiled.h"

#include "decide.h"
#include "hash.h"

#define WALL_US 1763900000000000ULL	/* 23 Nov 2025 */
#define US_S	1000000ULL

static struct compiled c;
static struct proto_msg got;
static char why[200];

static const char head[] =
	"version: 1\nmode: enforce\ninside: [10.0.0.0/8, \"fd00::/8\"]\n"
	"hosts:\n  file01: {addresses: [10.20.0.15]}\n  file02: {addresses: [10.20.0.16, \"fd00:20::16\"]}\n"
	"rules:\n"
	"  - {name: pairs, from: 10.20.0.0/24, to: outside, per: pair, limit: {1h: 20MB, 24h: 1GB}, action: block}\n"
	"  - {name: whole, from: 10.20.0.0/24, to: outside, per: host, limit: {1h: 40MB}, action: block}\n";

static void policy(const char *decisions)
{
	char text[2000];

	free(c.blob);
	snprintf(text, sizeof(text), "%s%s\n", head, decisions);
	must_compile(text, &c);
}

static int setup(void **state)
{
	(void)state;
	policy("decisions: {accept: [block, unblock, allow], max_ttl: 24h, max_budget: 10GB}");
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	free(c.blob);
	c.blob = NULL;
	return 0;
}

/* One that is right, just written. */
static struct redis_decision usual(const char *action)
{
	struct redis_decision d = { .v = "1", .id = "0b5f0c1e-9f5b-4b52-a3c4-6c5a1f0f7c11", .src = "10.20.0.15",
				    .dst = "203.0.113.9", .budget = "5GB", .ttl = "4h", .author = "alice",
				    .reason = "CHG-1182", .gateway = "*" };

	snprintf(d.action, sizeof(d.action), "%s", action);
	snprintf(d.entry, sizeof(d.entry), "%llu-0", (unsigned long long)(WALL_US / 1000));
	return d;
}

/* The answer to d; what is not applied writes no message, and what is refused says why. */
static int check_at(const struct redis_decision *d, uint64_t wall_us)
{
	static const struct proto_msg untouched = { .magic = 4711 };
	int r;

	got = untouched;
	memset(why, 'x', sizeof(why));
	why[0] = '\0';
	r = decide_check(&c.p, "gw1", d, wall_us, &got, why, sizeof(why));
	if (r != 0)
		assert_memory_equal(&got, &untouched, sizeof(got));
	assert_int_equal(why[0] != '\0', r < 0);
	assert_non_null(memchr(why, '\0', sizeof(why)));
	return r;
}

static int check(const struct redis_decision *d)
{
	return check_at(d, WALL_US);
}

static void refused(const struct redis_decision *d, int error, const char *word)
{
	int r = check(d);

	if (r != error || !strstr(why, word))
		fail_msg("%d instead of %d, \"%s\" instead of \"%s\"", r, error, why, word);
}

#define WITH(action_, field, text)                                                                \
	({                                                                                        \
		struct redis_decision with_ = usual(action_);                                     \
		assert_true(sizeof(with_.field) > strlen(text));                                  \
		snprintf(with_.field, sizeof(with_.field), "%s", text);                           \
		with_;                                                                            \
	})
#define REFUSED(action_, field, text, error, word)                                                \
	do {                                                                                      \
		struct redis_decision d_ = WITH(action_, field, text);                            \
		refused(&d_, error, word);                                                        \
	} while (0)

static struct prefix prefix(const char *text)
{
	struct prefix p = { .len = 0 };

	assert_int_equal(prefix_parse(text, &p), 0);
	return p;
}

static void is_prefix(const struct prefix *p, const char *text)
{
	struct prefix want = prefix(text);

	assert_memory_equal(&p->addr, &want.addr, sizeof(want.addr));
	assert_int_equal(p->len, want.len);
}

static void applied(void **state)
{
	static const struct {
		const char *action;
		uint16_t kind;
	} actions[] = { { "allow", PROTO_ALLOW }, { "block", PROTO_BLOCK }, { "unblock", PROTO_UNBLOCK } };

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(actions); i++) {
		struct redis_decision d = usual(actions[i].action);
		const struct proto_decision *x = &got.u.decision;

		assert_int_equal(check(&d), 0);
		assert_int_equal(got.magic, PROTO_MAGIC);
		assert_int_equal(got.kind, actions[i].kind);
		assert_string_equal(x->id, d.id);
		assert_string_equal(x->author, "alice");
		assert_string_equal(x->reason, "CHG-1182");
		is_prefix(&x->src, "10.20.0.15");
		is_prefix(&x->dst, "203.0.113.9");
		assert_int_equal(x->budget, 5000000000);
		assert_int_equal(x->ttl_s, 4 * 3600);
		assert_int_equal(x->uid, 0);
	}
}

/* [DC1] exactly what `accept` names. */
static void accepted_actions(void **state)
{
	static const char *const name[] = { "allow", "block", "unblock" };
	static const char *const lists[] = { "", "allow", "block", "unblock", "allow, block", "block, unblock",
					     "allow, unblock", "allow, block, unblock" };
	static const unsigned bits[] = { 0, 1, 2, 4, 3, 6, 5, 7 };

	(void)state;
	for (unsigned l = 0; l < ARRAY_SIZE(lists); l++) {
		char text[100];

		snprintf(text, sizeof(text), "decisions: {accept: [%s]}", lists[l]);
		policy(text);
		for (unsigned a = 0; a < ARRAY_SIZE(name); a++) {
			struct redis_decision d = usual(name[a]);

			if (bits[l] & 1U << a)
				assert_int_equal(check(&d), 0);
			else
				refused(&d, -EPERM, "does not accept");
		}
	}
	policy("");	/* a policy that says nothing takes nothing */
	for (unsigned a = 0; a < ARRAY_SIZE(name); a++) {
		struct redis_decision d = usual(name[a]);

		refused(&d, -EPERM, "does not accept");
	}
}

static void unknown_actions(void **state)
{
	(void)state;
	REFUSED("", reason, "x", -EINVAL, "action");
	REFUSED("observe", reason, "x", -EINVAL, "action");
	REFUSED("Allow", reason, "x", -EINVAL, "action");
	REFUSED("allow ", reason, "x", -EINVAL, "action");
	REFUSED("allowed", reason, "x", -EINVAL, "action");
	REFUSED("un", reason, "x", -EINVAL, "action");
}

static void versions(void **state)
{
	(void)state;
	REFUSED("block", v, "", -EINVAL, "version");
	REFUSED("block", v, "2", -EINVAL, "version");
	REFUSED("block", v, "01", -EINVAL, "version");
	REFUSED("block", v, "1 ", -EINVAL, "version");
}

static void ttls(void **state)
{
	static const struct {
		const char *text;
		uint32_t s;
	} good[] = { { "24h", 86400 }, { "1s", 1 }, { "1d", 86400 }, { "90m", 5400 }, { "1.5h", 5400 }, { "", 3600 } };
	static const char *const beyond[] = { "86401s", "25h", "2d", "1w", "1000000000w", "4294967297s", "71582789m", "99999999999w" };
	static const char *const malformed[] = { "0s", "0h", "-1h", "+1h", "4", "4 hours", "h", "4H", "4h4", "0x10s", "1.h",
						 ".5h", "1e3s", " 4h", "4h ", "nan", "inf", "0.5s" };

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(good); i++) {
		struct redis_decision d = WITH("block", ttl, good[i].text);

		assert_int_equal(check(&d), 0);
		assert_int_equal(got.u.decision.ttl_s, good[i].s);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(beyond); i++)
		REFUSED("block", ttl, beyond[i], -EPERM, "max_ttl");
	for (unsigned i = 0; i < ARRAY_SIZE(malformed); i++)
		REFUSED("block", ttl, malformed[i], -EINVAL, "ttl");
	/* The default has the bound too. */
	policy("decisions: {accept: [block], max_ttl: 30m}");
	REFUSED("block", ttl, "", -EPERM, "max_ttl");
	REFUSED("block", ttl, "31m", -EPERM, "max_ttl");
	struct redis_decision d = WITH("block", ttl, "30m");
	assert_int_equal(check(&d), 0);
}

static void budgets(void **state)
{
	static const struct {
		const char *text;
		uint64_t bytes;
	} good[] = { { "10GB", 10000000000 }, { "1B", 1 }, { "1.5kB", 1500 }, { "9GiB", 9ULL << 30 }, { "0.5GB", 500000000 } };
	static const char *const beyond[] = { "10000000001B", "10.000000001GB", "10GiB", "11GB", "18000000TB" };
	static const char *const malformed[] = { "5", "5 bytes", "GB", "-5GB", "+5GB", "5gb", "5Gb", "5GB5", "0x5GB", "5,5GB",
						 "5e9B", " 5GB", "5GB ", "1.B", "0.5B", "18446744073709551616B",
						 "99999999TB", "5GB\t", "5PB", "nanGB" };

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(good); i++) {
		struct redis_decision d = WITH("allow", budget, good[i].text);

		assert_int_equal(check(&d), 0);
		assert_int_equal(got.u.decision.budget, good[i].bytes);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(beyond); i++) {
		REFUSED("allow", budget, beyond[i], -EPERM, "max_budget");
		REFUSED("unblock", budget, beyond[i], -EPERM, "max_budget");
	}
	for (unsigned i = 0; i < ARRAY_SIZE(malformed); i++) {
		REFUSED("allow", budget, malformed[i], -EINVAL, "budget");
		REFUSED("unblock", budget, malformed[i], -EINVAL, "budget");
		REFUSED("block", budget, malformed[i], -EINVAL, "budget");
	}
	REFUSED("allow", budget, "", -EINVAL, "budget");
	REFUSED("allow", budget, "0B", -EINVAL, "budget");
	REFUSED("unblock", budget, "0B", -EINVAL, "budget");	/* 0 would mean the default: not what was written */
	struct redis_decision d = WITH("block", budget, "");
	assert_int_equal(check(&d), 0);
}

/* [DC1] without a budget an unblock gives the smallest limit of the rules that refuse there: the engine knows which. */
static void unblock_without_budget(void **state)
{
	struct redis_decision d = WITH("unblock", budget, "");

	(void)state;
	policy("decisions: {accept: [unblock], max_budget: 39MB}");
	assert_int_equal(check(&d), 0);
	assert_int_equal(got.u.decision.budget, 0);
	snprintf(d.budget, sizeof(d.budget), "39MB");
	assert_int_equal(check(&d), 0);
	assert_int_equal(got.u.decision.budget, 39000000);
}

static void gateways(void **state)
{
	static const char *const others[] = { "gw2", "gw", "gw11", "GW1", "gw1 ", "**", "gw*" };
	struct redis_decision d = WITH("block", gateway, "gw1");

	(void)state;
	assert_int_equal(check(&d), 0);
	for (unsigned i = 0; i < ARRAY_SIZE(others); i++) {
		d = WITH("block", gateway, others[i]);
		assert_int_equal(check(&d), 1);
		snprintf(d.v, sizeof(d.v), "7");	/* not ours to answer, whatever else is in it */
		d.bad = "src";
		assert_int_equal(check(&d), 1);
	}
	REFUSED("block", gateway, "", -EINVAL, "gateway");	/* nobody would answer */
}

/* redis_link.h [L4]: named, and refused. */
static void bad_fields(void **state)
{
	static const char *const fields[] = { "id", "src", "dst", "budget", "ttl", "author", "gateway" };

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(fields); i++) {
		struct redis_decision d = usual("block");

		d.bad = fields[i];
		refused(&d, -EINVAL, fields[i]);
	}
	struct redis_decision d = WITH("block", gateway, "gw2");	/* half a name may be anybody's */
	d.bad = "gateway";
	refused(&d, -EINVAL, "gateway");
}

static void sources(void **state)
{
	static const struct {
		const char *text, *means;
	} good[] = { { "10.20.0.15", "10.20.0.15" }, { "10.20.0.0/24", "10.20.0.0/24" }, { "fd00:20::15", "fd00:20::15" },
		     { "fd00:20::/64", "fd00:20::/64" }, { "file01", "10.20.0.15" }, { "10.0.0.0/8", "10.0.0.0/8" } };
	static const char *const bad[] = { "", "*", "10.20.0.300", "10.20.0", "10.20.0.15/33", "10.20.0.15/24", "10.20.0.15/",
					   "10.20.0.15 ", " 10.20.0.15", "10.20.0.15,10.20.0.16", "fd00:20::15/129",
					   "fd00:20::15%eth0", "0.0.0.0/0", "::/0", "::/1", "::/80", "::ffff:0:0/96", "nobody", "pairs",
					   "FILE01", "gateway", "unlisted", "0x0a14000f", "010.020.000.015", "file02" };

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(good); i++) {
		struct redis_decision d = WITH("block", src, good[i].text);

		snprintf(d.dst, sizeof(d.dst), "*");
		assert_int_equal(check(&d), 0);
		is_prefix(&got.u.decision.src, good[i].means);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		REFUSED("block", src, bad[i], -EINVAL, "src");
		REFUSED("allow", src, bad[i], -EINVAL, "src");
	}
	/* A host of two addresses is one subject, found by either: unblock reaches it whole. */
	struct redis_decision d = WITH("unblock", src, "file02");
	assert_int_equal(check(&d), 0);
	is_prefix(&got.u.decision.src, "10.20.0.16");
	REFUSED("block", src, "file02", -EINVAL, "addresses");
}

static void destinations(void **state)
{
	static const struct {
		const char *text, *means;
	} good[] = { { "203.0.113.9", "203.0.113.9" }, { "203.0.113.0/24", "203.0.113.0/24" }, { "2001:db8::/32", "2001:db8::/32" },
		     { "file01", "10.20.0.15" } };
	static const char *const bad[] = { "", "**", "any", "203.0.113.9/24", "203.0.113", "2001:db8::1::2", "203.0.113.9:443",
					   "example.org", "file02", "0.0.0.0/0", "::/0", "::/64" };
	struct redis_decision d = WITH("block", dst, "*");

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(good); i++) {
		struct redis_decision x = WITH("allow", dst, good[i].text);

		if (strchr(good[i].text, ':'))
			snprintf(x.src, sizeof(x.src), "fd00:20::15");
		assert_int_equal(check(&x), 0);
		is_prefix(&got.u.decision.dst, good[i].means);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		REFUSED("allow", dst, bad[i], -EINVAL, "dst");
		REFUSED("block", dst, bad[i], -EINVAL, "dst");
		REFUSED("unblock", dst, bad[i], -EINVAL, "dst");
	}
	assert_int_equal(check(&d), 0);
	assert_int_equal(got.u.decision.dst.len, 0);
	/* Addresses of two families never meet: it would be applied and do nothing. */
	REFUSED("block", dst, "2001:db8::9", -EINVAL, "family");
}

static void ids(void **state)
{
	char id[64];

	(void)state;
	REFUSED("block", id, "", -EINVAL, "id");
	for (unsigned n = 1; n < sizeof(id); n++) {
		struct redis_decision d = usual("block");

		memset(d.id, 'a', n);
		d.id[n] = '\0';
		if (n < sizeof(got.u.decision.id)) {
			assert_int_equal(check(&d), 0);
			assert_string_equal(got.u.decision.id, d.id);
		} else {
			refused(&d, -EINVAL, "id");	/* cut, two would be one */
		}
	}
}

/* [DC4] an account is named by a 32-bit hash of the id: one that hits a rule's would take that rule's budget over. */
static void id_of_a_rule(void **state)
{
	struct redis_decision d = usual("allow");
	struct policy p;
	struct policy_rule rule[2];

	(void)state;
	p = c.p;
	memcpy(rule, c.p.rule, sizeof(rule));
	assert_int_equal(c.p.h->nrules, 2);
	p.rule = rule;
	assert_int_equal(decide_check(&p, "gw1", &d, WALL_US, &got, why, sizeof(why)), 0);
	rule[1].uid = hash_uid(d.id, strlen(d.id));
	assert_int_equal(decide_check(&p, "gw1", &d, WALL_US, &got, why, sizeof(why)), -EINVAL);
	assert_non_null(strstr(why, "id"));
}

/* [DC2] */
static void ages(void **state)
{
	struct redis_decision d = usual("allow");	/* ttl 4h */

	(void)state;
	assert_int_equal(check_at(&d, WALL_US + 999999), 0);
	assert_int_equal(got.u.decision.ttl_s, 4 * 3600);
	assert_int_equal(check_at(&d, WALL_US + 60 * US_S), 0);
	assert_int_equal(got.u.decision.ttl_s, 4 * 3600 - 60);
	assert_int_equal(check_at(&d, WALL_US + (4 * 3600 - 1) * US_S), 0);
	assert_int_equal(got.u.decision.ttl_s, 1);
	assert_int_equal(check_at(&d, WALL_US + 4 * 3600 * US_S), -EPERM);
	assert_non_null(strstr(why, "expired"));
	assert_int_equal(check_at(&d, WALL_US + 400ULL * 86400 * US_S), -EPERM);
	assert_int_equal(check_at(&d, UINT64_MAX), -EPERM);
	/* A clock behind Redis's: as if written now, never longer than the ttl. */
	assert_int_equal(check_at(&d, WALL_US - 7200 * US_S), 0);
	assert_int_equal(got.u.decision.ttl_s, 4 * 3600);
	assert_int_equal(check_at(&d, 0), 0);
	assert_int_equal(got.u.decision.ttl_s, 4 * 3600);
	/* The bound is asked of the whole ttl: what was refused then is not taken later. */
	d = WITH("allow", ttl, "25h");
	assert_int_equal(check_at(&d, WALL_US + 2 * 3600 * US_S), -EPERM);
	assert_non_null(strstr(why, "max_ttl"));
}

/* Ids that a writer made up are no time, or one long ago: not taken as new. */
static void entries(void **state)
{
	static const char *const old[] = { "0-1", "1-1", "1", "1700000000000-0" };
	static const char *const none[] = { "", "-", "x-0", "-1-0", "1763900000000x-0", "18446744073709551616-0" };

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(old); i++)
		REFUSED("allow", entry, old[i], -EPERM, "expired");
	for (unsigned i = 0; i < ARRAY_SIZE(none); i++)
		REFUSED("allow", entry, none[i], -EINVAL, "entry");
	struct redis_decision d = WITH("allow", entry, "18446744073709551615-18446744073709551615");
	assert_int_equal(check(&d), 0);		/* ahead of our clock */
	assert_int_equal(got.u.decision.ttl_s, 4 * 3600);
}

/* Shortened between characters: a half one would show as garbage. */
static void long_words(void **state)
{
	struct redis_decision d = usual("block");

	(void)state;
	for (unsigned lead = 0; lead < 4; lead++) {
		memset(d.author, 0, sizeof(d.author));
		memset(d.reason, 0, sizeof(d.reason));
		memset(d.author, 'a', lead);
		memset(d.reason, 'r', lead);
		while (strlen(d.author) + 3 < sizeof(d.author))
			memcpy(d.author + strlen(d.author), "\xe2\x82\xac", 3);	/* euro sign */
		while (strlen(d.reason) + 2 < sizeof(d.reason))
			memcpy(d.reason + strlen(d.reason), "\xc3\xa9", 2);
		assert_int_equal(check(&d), 0);
		assert_int_equal(strlen(got.u.decision.author), lead + (39 - lead) / 3 * 3);
		assert_int_equal(strlen(got.u.decision.reason), lead + (119 - lead) / 2 * 2);
		assert_int_equal(strncmp(got.u.decision.author, d.author, strlen(got.u.decision.author)), 0);
		assert_int_equal(strncmp(got.u.decision.reason, d.reason, strlen(got.u.decision.reason)), 0);
	}
	memset(d.author, 0xbf, sizeof(d.author) - 1);	/* no characters at all: no harm */
	assert_int_equal(check(&d), 0);
}

/* [DC3] who and why are part of what is written, and a word that nobody knows may have been meant to bound it. */
static void unsigned_or_unknown(void **state)
{
	struct redis_decision d = WITH("block", unknown, "ports");

	(void)state;
	REFUSED("block", author, "", -EINVAL, "author");
	REFUSED("allow", reason, "", -EINVAL, "reason");
	refused(&d, -EINVAL, "unknown field: 'ports'");
	d = WITH("block", gateway, "gw2");
	snprintf(d.unknown, sizeof(d.unknown), "ports");
	assert_int_equal(check(&d), 1);
}

/* What was asked for, when the bounds are others by now; its time is no part of it. */
static void meant(void **state)
{
	static const char *const action[] = { "allow", "block", "unblock" };
	struct redis_decision d;
	struct proto_msg m;

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(action); i++) {
		policy("decisions: {accept: [block, unblock, allow], max_ttl: 24h, max_budget: 10GB}");
		d = usual(action[i]);
		assert_int_equal(check(&d), 0);
		got.u.decision.ttl_s = 0;
		assert_int_equal(decide_meant(&c.p, &d, &m), 0);
		assert_memory_equal(&m, &got, sizeof(m));
		policy("decisions: {accept: [], max_ttl: 1h, max_budget: 1GB}");
		assert_int_equal(check_at(&d, WALL_US + 5 * 3600 * US_S), -EPERM);
		assert_int_equal(decide_meant(&c.p, &d, &m), 0);
		assert_int_equal(m.u.decision.budget, 5000000000);
		is_prefix(&m.u.decision.src, "10.20.0.15");
		assert_string_equal(m.u.decision.reason, "CHG-1182");
	}
	d = WITH("block", src, "nowhere");
	assert_int_equal(decide_meant(&c.p, &d, &m), -EINVAL);
	d = WITH("allow", budget, "");
	assert_int_equal(decide_meant(&c.p, &d, &m), -EINVAL);
	d = WITH("block", budget, "much");
	assert_int_equal(decide_meant(&c.p, &d, &m), -EINVAL);
}

/* Random bytes in every field, and a short `why`: never taken with a bound passed, never written past. */
static void garbage(void **state)
{
	static const char letters[] = "0159.:/*-abfGBkMhs \x80\xff\n";
	uint32_t seed = 1;
	unsigned taken = 0;

	(void)state;
	for (unsigned i = 0; i < 200000; i++) {
		struct redis_decision d = usual(i % 3 == 0 ? "allow" : i % 3 == 1 ? "block" : "unblock");
		char *fields[] = { d.v, d.id, d.src, d.dst, d.budget, d.ttl, d.author, d.reason, d.entry };
		char small[9] = "12345678";
		char *f;
		size_t at;

		seed = seed * 1664525 + 1013904223;
		f = fields[(seed >> 8) % ARRAY_SIZE(fields)];
		at = *f ? (seed >> 16) % strlen(f) : 0;
		f[at] = letters[(seed >> 24) % (sizeof(letters) - 1)];
		if (check(&d) == 0) {
			taken++;
			assert_true(got.u.decision.ttl_s >= 1 && got.u.decision.ttl_s <= 86400);
			assert_true(got.u.decision.budget <= 10000000000);
			assert_true(got.u.decision.src.len > 0 && got.u.decision.src.len <= 128);
			assert_true(got.u.decision.dst.len <= 128);
		}
		(void)!decide_check(&c.p, "gw1", &d, WALL_US, &got, small, 4);
		assert_memory_equal(small + 4, "5678", 5);
	}
	assert_true(taken > 1000);
}

int main(void)
{
#define CASE(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
	const struct CMUnitTest tests[] = {
		CASE(applied), CASE(accepted_actions), CASE(unknown_actions), CASE(versions), CASE(ttls), CASE(budgets),
		CASE(unblock_without_budget), CASE(gateways), CASE(bad_fields), CASE(sources), CASE(destinations), CASE(ids),
		CASE(id_of_a_rule), CASE(ages), CASE(entries), CASE(long_words), CASE(unsigned_or_unknown), CASE(meant),
		CASE(garbage),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
