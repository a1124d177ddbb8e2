/* scenario.c - plays scenarios: policies as admins write them, packets and decisions in simulated time, and what is expected. The
 * very code of the engine judges; nothing sleeps, no root. Each file is a case.
 *
 *     usage: scenario FILE.scn...
 *
 * A file is a policy, or "file: PATH" of one from the top of the tree, a line "---", and steps in the order of their time, '#' begins a
 * comment. Sizes and durations as in a policy:
 *
 *   at TIME out PROTO SRC[:PORT] > DST[:PORT] len BYTES [times N] [every TIME] [opened inside|outside] [exit NAME] [gateway] [ack]
 *       expect pass | refused [RULE] | SIZE [refused RULE]
 *           SIZE: of the packets as many pass as fit into it, the next is refused (by RULE), and none later. IPv6 in brackets
 *           when a port follows. A prefix in place of an address: its addresses take turns. every: between two of them.
 *           ack: TCP with that flag; else with none.
 *   at TIME sum RULE SRC [> DST] WINDOW expect SIZE
 *   at TIME total RULE expect SIZE                ever charged, all its subjects
 *   at TIME finding RULE SRC [> DST] expect none | open | blocked | over
 *   at TIME findings expect N                     opened so far
 *   at TIME unblock SRC > DST [budget SIZE] for TIME expect N      budgets given
 *   at TIME allow SRC > DST budget SIZE for TIME
 *   at TIME block SRC > DST for TIME              DST any: everywhere
 *   at TIME observe TIME                          blocking off for so long
 *   at TIME crash                                 the engine is killed, the next one recovers
 *   at TIME policy                                the lines up to the next "---" come into force
 *
 * Once a simulated second accounts are reviewed, and after each step the structures are checked. The clock begins on Monday 5
 * January 2026, 00:00 UTC.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "check.h"
#include "diag.h"
#include "judge_internal.h"
#include "policy_compile.h"
#include "yaml_tree.h"

#define WALL_S	  1767571200	/* 5 January 2026, 00:00 UTC */
#define BORN_S	  1000		/* boottime then */
#define PAIRS	  4096U
#define REVIEWS	  100000	/* seconds of one step that are gone through one by one */

#include "scenario_words.h"

/* ---- time ---- */

static void go_on_until(struct scenario *s, struct mono then)
{
	if (mono_s(then) > s->reviewed_s + REVIEWS)
		s->reviewed_s = mono_s(then) - REVIEWS;
	while (s->reviewed_s < mono_s(then))
		judge_review(&s->judge, (struct mono){ ++s->reviewed_s * NS_PER_S }, NULL, NULL);
	s->now = then;
}

/* ---- packets ---- */

static struct addr nth(const struct prefix *p, uint64_t n)
{
	const unsigned bits = 128U - p->len;
	struct addr a = p->addr;

	for (unsigned i = 15, left = MIN_OF(bits, 32U); left && n; i--, n >>= 8) {
		const unsigned part = MIN_OF(left, 8U);

		a.b[i] = (uint8_t)(a.b[i] | (n & ((1U << part) - 1)));
		left -= part;
	}
	return a;
}

struct flow {
	struct judge_packet v;
	struct ends ends;
	uint64_t len, times, every_ns;
	/* what came of it */
	uint64_t passed, passed_after;	/* bytes; after the first refusal */
	uint32_t refused_by;		/* the first refusal's account */
};

static uint8_t proto_of(struct scenario *s, const char *name)
{
	static const struct {
		const char *name;
		uint8_t number;
	} known[] = { { "tcp", 6 }, { "udp", 17 }, { "icmp", 1 }, { "gre", 47 }, { "esp", 50 }, { "sctp", 132 } };

	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		if (strcmp(name, known[i].name) == 0)
			return known[i].number;
	fail(s, "protocol %s is not known", name);
}

static uint8_t exit_of(struct scenario *s, const char *name)
{
	const struct policy *p = &s->policy;

	for (uint32_t i = 0; i < p->h->nexits; i++)
		if (strcmp(policy_string(p, p->exit[i].name), name) == 0)
			return (uint8_t)(i + 1);
	fail(s, "the policy has no exit %s", name);
}

static void take_opener(struct scenario *s, struct flow *f)
{
	const char *who = take(s, "inside or outside");

	f->v.opener = strcmp(who, "inside") == 0 ? OPENER_INSIDE : OPENER_OUTSIDE;
	if (strcmp(who, opener_name(f->v.opener)) != 0)
		fail(s, "opened inside or outside, not %s", who);
}

static struct flow take_flow(struct scenario *s)
{
	struct flow f = { .times = 1, .refused_by = TABLE_NONE };

	f.v.p.proto = proto_of(s, take(s, "protocol"));
	f.ends = take_ends(s, true);
	if (f.ends.anywhere)
		fail(s, "a packet has one destination");
	take_word(s, "len");
	f.len = take_number(s, "bytes");
	while (s->at < s->nwords && strcmp(s->word[s->at], "expect") != 0) {
		if (take_if(s, "times"))
			f.times = take_number(s, "how often");
		else if (take_if(s, "every"))
			f.every_ns = take_ns(s);
		else if (take_if(s, "opened"))
			take_opener(s, &f);
		else if (take_if(s, "exit"))
			f.v.exit = exit_of(s, take(s, "exit"));
		else if (take_if(s, "gateway"))
			f.v.local = 1;
		else if (take_if(s, "ack"))
			f.v.p.tcp_flags = 0x10;
		else
			fail(s, "%s is not known here", s->word[s->at]);
	}
	return f;
}

static void note_verdict(struct flow *f, const struct judge_packet *v)
{
	if (!v->pass && f->refused_by == TABLE_NONE)
		f->refused_by = v->refused_by;
	if (v->pass)
		*(f->refused_by == TABLE_NONE ? &f->passed : &f->passed_after) += v->p.len;
}

/* In batches where no time goes by. */
static void send_all(struct scenario *s, struct flow *f)
{
	static struct judge_packet v[AREA_SLOTS];

	for (uint64_t i = 0; i < f->times;) {
		const unsigned n = f->every_ns ? 1 : (unsigned)MIN_OF(f->times - i, (uint64_t)AREA_SLOTS);

		if (i && f->every_ns)
			go_on_until(s, (struct mono){ s->now.ns + f->every_ns });
		for (unsigned k = 0; k < n; k++) {
			v[k] = f->v;
			v[k].p.src = nth(&f->ends.src, i + k);
			v[k].p.dst = nth(&f->ends.dst, i + k);
			v[k].p.sport = f->ends.sport ? f->ends.sport : 40000;
			v[k].p.dport = f->ends.dport ? f->ends.dport : 443;
			v[k].p.len = (uint32_t)f->len;
		}
		judge_batch(&s->judge, v, n, s->now);
		for (unsigned k = 0; k < n; k++)
			note_verdict(f, &v[k]);
		i += n;
	}
}

static const char *rule_name(const struct scenario *s, uint32_t account)
{
	int r;

	if (account == TABLE_NONE)
		return "nobody";
	r = policy_rule_by_uid(&s->policy, s->judge.area.account[account].key.rule);
	return r >= 0 ? policy_string(&s->policy, s->policy.rule[r].name) : "decision";
}

static void expect_refused_by(struct scenario *s, const struct flow *f)
{
	const char *rule;

	if (s->at == s->nwords)
		return;
	rule = take(s, "rule");
	if (strcmp(rule, rule_name(s, f->refused_by)) != 0)
		fail(s, "refused by %s, not by %s", rule_name(s, f->refused_by), rule);
}

static void step_out(struct scenario *s)
{
	struct flow f = take_flow(s);
	uint64_t all = f.len * f.times, size;

	take_word(s, "expect");
	send_all(s, &f);
	if (take_if(s, "pass")) {
		if (f.passed != all)
			fail(s, "%" PRIu64 " of %" PRIu64 " bytes passed, then refused by %s", f.passed, all, rule_name(s, f.refused_by));
		return;
	}
	size = take_if(s, "refused") ? 0 : take_size(s);
	if (f.refused_by == TABLE_NONE)
		fail(s, "all %" PRIu64 " bytes passed", all);
	if (f.passed > size || size - f.passed >= f.len)
		fail(s, "%" PRIu64 " bytes passed, expected %" PRIu64 " or up to a packet less", f.passed, size);
	if (f.passed_after)
		fail(s, "%" PRIu64 " bytes passed after a refusal", f.passed_after);
	if (size)
		(void)take_if(s, "refused");
	expect_refused_by(s, &f);
}

/* ---- what is known ---- */

static bool is_named(const struct scenario *s, uint32_t rule, const char *name)
{
	return strcmp(policy_string(&s->policy, s->policy.rule[rule].name), name) == 0;
}

/* Account of the rule and the ends' subject; TABLE_NONE: nothing of it was charged. */
static uint32_t account_of(struct scenario *s, const char *name, const struct ends *e, const struct policy_rule **ret_rule)
{
	const struct area *a = &s->judge.area;
	const int host = policy_src_of(&s->policy, &e->src.addr)->host;
	struct pair_key out = { .out_family = 0 };
	bool known = false;

	if (!e->anywhere)
		pair_out(&out, &e->dst.addr);
	for (uint32_t r = 0; r < s->policy.h->nrules; r++) {
		const struct policy_rule *rule = &s->policy.rule[r];
		struct account_key k = { .rule = rule->uid, .kind = rule->per };
		uint32_t slot;

		if (!is_named(s, r, name))
			continue;
		known = true;
		subject_in(&s->policy, rule->per, e->src.addr.b, host, rule->group, k.in);
		if (rule->per == PER_PAIR) {
			memcpy(k.out, out.out, sizeof(k.out));
			k.out_family = out.out_family;
		}
		slot = table_find(&a->accounts, area_account_hash(a, &k), (const struct table_key *)&k);
		*ret_rule = rule;
		if (slot != TABLE_NONE)
			return slot;
	}
	if (!known)
		fail(s, "the policy has no rule %s", name);
	return TABLE_NONE;
}

static void expect_size(struct scenario *s, uint64_t got)
{
	uint64_t want;

	take_word(s, "expect");
	want = take_size(s);
	if (got != want)
		fail(s, "it is %" PRIu64 ", expected %" PRIu64, got, want);
}

static void step_sum(struct scenario *s)
{
	const char *name = take(s, "rule");
	const struct ends e = take_ends(s, false);
	const uint64_t window_s = take_ns(s) / NS_PER_S;
	const struct policy_rule *rule;
	const uint32_t slot = account_of(s, name, &e, &rule);

	for (uint32_t i = 0; i < rule->nlimits; i++)
		if (rule->limit[i].seconds == window_s) {
			expect_size(s, slot == TABLE_NONE ? 0 : account_peek_sum(&s->judge.area.account[slot],
				    &s->judge.area.account_cold[slot], &rule->limit[i], mono_tick(s->now)));
			return;
		}
	fail(s, "rule %s has no such window", name);
}

static void step_total(struct scenario *s)
{
	const struct area *a = &s->judge.area;
	const char *name = take(s, "rule");
	uint64_t sum = 0;

	for (uint32_t i = 0; i < a->h->accounts; i++)
		if (table_is_full(&a->accounts, i) && strcmp(rule_name(s, i), name) == 0)
			sum += account_total(&a->account[i], &a->account_cold[i]);
	expect_size(s, sum);
}

static void step_finding(struct scenario *s)
{
	const char *name = take(s, "rule"), *is = "none", *want;
	const struct ends e = take_ends(s, false);
	const struct policy_rule *rule;
	const uint32_t slot = account_of(s, name, &e, &rule);

	take_word(s, "expect");
	want = take(s, "none, open, blocked or over");
	if (slot != TABLE_NONE) {
		const uint32_t state = atomic_load_explicit(&s->judge.area.account[slot].state, memory_order_relaxed);

		is = state & ACCOUNT_BLOCKED ? "blocked" : state & ACCOUNT_OPEN ? "open" :
		     s->judge.area.account_cold[slot].finding_id ? "over" : "none";
	}
	if (strcmp(is, want) != 0)
		fail(s, "it is %s, not %s", is, want);
}

static void step_findings(struct scenario *s)
{
	const uint64_t got = atomic_load_explicit(&s->judge.area.h->next_finding, memory_order_relaxed) - 1;
	uint64_t want;

	take_word(s, "expect");
	want = take_number(s, "how many");
	if (got != want)
		fail(s, "%" PRIu64 " findings, expected %" PRIu64, got, want);
}

/* ---- decisions ---- */

static void step_unblock(struct scenario *s)
{
	const struct ends e = take_ends(s, true);
	const struct prefix anywhere = { .len = 0 };
	uint64_t budget = 0, want;
	struct judge_unblocked did = { 0 };
	uint32_t got, ttl_s;

	if (take_if(s, "budget"))
		budget = take_size(s);
	take_word(s, "for");
	ttl_s = (uint32_t)(take_ns(s) / NS_PER_S);
	take_word(s, "expect");
	want = take_number(s, "how many");
	if (judge_unblock(&s->judge, &e.src, e.anywhere ? &anywhere : &e.dst, budget, ttl_s, s->now, &did) < 0)
		did = (struct judge_unblocked){ 0 };
	got = did.accounts + did.by_hand;
	if (got != want)
		fail(s, "%" PRIu32 " unblocked, expected %" PRIu64, got, want);
}

static void decide(struct scenario *s, bool allow)
{
	const struct ends e = take_ends(s, true);
	struct area_dynamic d = { .uid = 0x80000000U + ++s->decisions, .src = e.src, .dst = e.dst, .since_ns = s->now.ns };
	int r;

	if (allow) {
		take_word(s, "budget");
		d.budget = take_size(s);
	}
	take_word(s, "for");
	d.until_ns = s->now.ns + take_ns(s);
	r = allow ? judge_allow(&s->judge, &d, s->now) : judge_block(&s->judge, &d, s->now);
	if (r < 0)
		fail(s, "%s", strerror(-r));
}

static void step_allow(struct scenario *s)
{
	decide(s, true);
}

static void step_block(struct scenario *s)
{
	decide(s, false);
}

static void step_observe(struct scenario *s)
{
	atomic_store_explicit(&s->judge.area.h->observe_until_ns, s->now.ns + take_ns(s), memory_order_relaxed);
}

/* ---- the file ---- */

static char *whole_file(const char *path)
{
	FILE *f = fopen(path, "re");
	char *text = calloc(1, 1 << 16);

	if (!f || !text) {
		printf("not ok - %s: cannot be read\n", path);
		exit(1);
	}
	BUG_ON(fread(text, 1, (1 << 16) - 1, f) == (1 << 16) - 1);
	fclose(f);
	return text;
}

/* Behind comments "file: PATH" stands for the policy that is there. NULL: it is here. */
static char *policy_elsewhere(const char *text)
{
	char path[200];

	while (*text == '#') {
		text += strcspn(text, "\n");
		text += *text == '\n';
	}
	return sscanf(text, "file: %199[^\n]", path) == 1 ? whole_file(path) : NULL;
}

static void force_policy(struct scenario *s)
{
	struct policy_env env = { .now = WALL_S + (int64_t)(mono_s(s->now) - BORN_S) };
	static struct diag_list diags;
	char *text = s->next, *end = strncmp(text, "---\n", 4) == 0 ? text : strstr(text, "\n---\n"), error[2000] = "";
	char *elsewhere;
	const char *policy;
	void *old = s->blob;
	const char *why;
	size_t size;

	if (!end)
		fail(s, "the policy ends with a line \"---\"");
	end += *end == '\n';
	s->next = end + 4;
	*end = '\0';
	elsewhere = policy_elsewhere(text);
	policy = elsewhere ? elsewhere : text;
	diag_init(&diags, s->path, policy, strlen(policy));
	if (policy_compile(policy, strlen(policy), &env, &diags, &s->blob, &size) < 0) {
		diag_format(&diags, 0, error, sizeof(error));
		fail(s, "policy: %s", error);
	}
	if (policy_open(s->blob, size, &s->policy, &why) < 0)
		fail(s, "policy: %s", why);
	for (const char *c = text; *c; c++)
		s->line += *c == '\n';
	s->line++;
	s->judge.policy = &s->policy;
	s->judge.policy_no++;
	if (old) {
		judge_policy_changed(&s->judge, s->now);
		judge_review(&s->judge, s->now, NULL, NULL);
	}
	free(elsewhere);
	free(old);
}

static void open_area(struct scenario *s)
{
	if (area_open(s->mem, s->size, &s->judge.area) < 0)
		fail(s, "area");
	s->judge.counter = s->counter;
	s->judge.wall_offset_s = WALL_S - BORN_S;
}

/* A new process over the same area. */
static void step_crash(struct scenario *s)
{
	const uint32_t policy_no = s->judge.policy_no;

	memset(&s->judge, 0, sizeof(s->judge));
	open_area(s);
	s->judge.policy = &s->policy;
	s->judge.policy_no = policy_no + 1;
	judge_recover(&s->judge);
	judge_policy_changed(&s->judge, s->now);
}

static void begin(struct scenario *s)
{
	static const uint8_t no_boot[16];
	struct hash_key key = { { 1 } };

	s->now = (struct mono){ BORN_S * NS_PER_S };
	s->reviewed_s = BORN_S;
	s->size = area_size(PAIRS, 2 * PAIRS);
	s->mem = mmap(NULL, s->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	BUG_ON(s->mem == MAP_FAILED);
	area_format(s->mem, PAIRS, 2 * PAIRS, 1, &key, 1, no_boot, s->now);
	open_area(s);
	force_policy(s);
}

static const struct {
	const char *word;
	void (*run)(struct scenario *s);
} verbs[] = {
	{ "out", step_out },	     { "sum", step_sum },	{ "total", step_total },   { "finding", step_finding },
	{ "findings", step_findings }, { "unblock", step_unblock }, { "allow", step_allow },   { "block", step_block },
	{ "observe", step_observe }, { "crash", step_crash },	{ "policy", force_policy },
};

static void step(struct scenario *s)
{
	const char *what, *why = "";
	struct mono then;
	size_t i = 0;

	take_word(s, "at");
	then = (struct mono){ BORN_S * NS_PER_S + take_ns(s) };
	if (then.ns < s->now.ns)
		fail(s, "the step before was later: %.3f s", (double)(s->now.ns - BORN_S * NS_PER_S) / (double)NS_PER_S);
	go_on_until(s, then);
	what = take(s, "what happens");
	while (i < ARRAY_SIZE(verbs) && strcmp(what, verbs[i].word) != 0)
		i++;
	if (i == ARRAY_SIZE(verbs))
		fail(s, "%s is not known", what);
	verbs[i].run(s);
	take_end(s);
	if (area_check(&s->judge.area, &why) < 0)
		fail(s, "afterwards: %s", why);
}

static unsigned play(const char *path)
{
	static struct scenario s;
	unsigned steps = 0;

	s = (struct scenario){ .path = path, .text = whole_file(path) };
	s.next = s.text;
	begin(&s);
	while (next_step(&s)) {
		if (s.nwords) {
			step(&s);
			steps++;
		}
	}
	munmap(s.mem, s.size);
	free(s.blob);
	free(s.text);
	return steps;
}

int main(int argc, char **argv)
{
	if (argc < 2) {
		fputs("usage: scenario FILE.scn...\n", stderr);
		return 2;
	}
	for (int i = 1; i < argc; i++) {
		const unsigned steps = play(argv[i]);

		if (!steps) {
			printf("not ok - %s: no steps\n", argv[i]);
			return 1;
		}
		printf("ok - %s: %u steps\n", argv[i], steps);
	}
	return 0;
}
