/* blocked.c - blocks into the kernel's sets: which elements an account's block is, and what they refused. Main thread only.
 *
 * The queue refuses what is blocked in any case; an element spares it the packets, answers the inside host, and holds while all of us
 * are dead. So where an element would say more than the rule (a group, a contract of every service, an allow in force), there is
 * none. One that is of some ports or openers only, or beside a contract that is, has an element for each span of ports that the policy tells apart.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "engine.h"
#include "log.h"

#define BLOCK_BATCH 256
#define BLOCK_SHARE (BLOCK_BATCH / 2)
#define ANEW_S	    10

struct block_list {
	struct rules_block item[BLOCK_BATCH];
	uint32_t account[BLOCK_BATCH];
	size_t n;
	unsigned share;		/* elements of the account that is being put in */
};

static int element_order(const struct rules_block *a, const struct rules_block *b)
{
	const int by_src = addr_cmp(&a->src, &b->src), by_dst = addr_cmp(&a->dst.addr, &b->dst.addr);

	if (a->kind != b->kind)
		return a->kind < b->kind ? -1 : 1;
	if (by_src || by_dst)
		return by_src ? by_src : by_dst;
	return memcmp(&a->service, &b->service, sizeof(a->service));
}

/* Of one account at most BLOCK_SHARE, and always the same ones, whether they stand just now or not: the rest of a block is the
 * queue's, refused there all the same. */
static void add_element(struct block_list *l, uint32_t account, const struct rules_block *b, bool stands)
{
	if (l->share++ >= BLOCK_SHARE || !stands || l->n == BLOCK_BATCH)
		return;
	l->account[l->n] = account;
	l->item[l->n++] = *b;
}

static struct prefix out_prefix(const struct account_key *k)
{
	struct prefix p = { .len = k->out_family == 4 ? 128 : 64 };

	if (k->out_family == 4)
		p.addr = addr_from_v4(k->out);
	else
		memcpy(p.addr.b, k->out, sizeof(k->out));
	return p;
}

/* Addresses of an account's inside part: one, or all of a named host. */
static size_t inside_addresses(const struct policy *p, const uint8_t in[16], struct addr *to, size_t max)
{
	static const uint8_t zero[12];
	uint32_t uid;
	size_t n = 0;

	if (memcmp(in, zero, sizeof(zero)) != 0) {
		to[0] = addr_from_v6(in);
		return 1;
	}
	memcpy(&uid, in + 12, sizeof(uid));
	for (uint32_t i = 0; i < p->h->nhost_addrs && n < max; i++)
		if (p->host[p->host_addr[i].host].uid == uid)
			to[n++] = p->host_addr[i].addr;
	return n;
}

/* An `allow` in force for some of what the element would stop. */
static bool allowed(const struct engine *e, const struct addr *src, const struct prefix *dst, uint64_t now_ns)
{
	for (unsigned i = 0; i < AREA_DYNAMIC; i++) {
		const struct area_dynamic *d = &e->area.h->dynamic[i];

		if (d->kind == DYNAMIC_ALLOW && now_ns < d->until_ns && prefix_contains(&d->src, src) &&
		    (d->dst.len == 0 || dst->len == 0 || prefix_contains(dst, &d->dst.addr) ||
		     prefix_contains(&d->dst, &dst->addr)))
			return true;
	}
	return false;
}

/* Which are in force, as a number; 0: none. */
static uint32_t allows_now(const struct engine *e, uint64_t now_ns)
{
	uint32_t n = 0;

	for (unsigned i = 0; i < AREA_DYNAMIC; i++)
		if (e->area.h->dynamic[i].kind == DYNAMIC_ALLOW && now_ns < e->area.h->dynamic[i].until_ns)
			n = n * 31 + e->area.h->dynamic[i].uid;
	return n;
}

/* One block of one address, as the policy knows its ends. */
struct subject {
	const struct policy *p;
	uint32_t rule, account;
	const struct policy_src *from;
	const struct policy_dst *to;	/* NULL: a host */
	bool stands;
	struct block_list *l;
};

/* Ports b.service.lo..hi of protocols proto..proto_hi, which the policy takes for the same service: by whom they are refused. */
static void service_elements(const struct subject *x, struct rules_block b, uint32_t service)
{
	for (unsigned opener = OPENER_INSIDE; opener <= OPENER_OUTSIDE; opener++) {
		b.service.by_outside = opener == OPENER_OUTSIDE;
		if (policy_class_refused(x->p, x->rule, policy_class_index(x->p, service, opener, 0), x->from, x->to))
			add_element(x->l, x->account, &b, x->stands);
	}
}

/* Every span of ports, and all of the protocols that the policy does not name. */
static void all_services(const struct subject *x, struct rules_block b)
{
	const uint32_t rest = x->p->span[x->p->h->nspans - 1].service;
	unsigned next = 0;	/* protocol number that was not looked at */

	for (uint32_t s = 0; s < x->p->h->nspans && policy_span_ports(x->p, s, &b.service.hi); s++) {
		const struct policy_span *v = &x->p->span[s];

		if (v->proto > next) {
			struct rules_block between = b;

			between.service = (struct rules_service){ .hi = UINT16_MAX, .proto = (uint8_t)next, .proto_hi = (uint8_t)(v->proto - 1) };
			service_elements(x, between, rest);
		}
		next = v->proto + 1U;
		b.service.lo = v->lo;
		b.service.proto = b.service.proto_hi = (uint8_t)v->proto;
		service_elements(x, b, v->service);
	}
	b.service = (struct rules_service){ .hi = UINT16_MAX, .proto = (uint8_t)next, .proto_hi = UINT8_MAX };
	if (next <= UINT8_MAX)
		service_elements(x, b, rest);
}

/* One element, or where it is by service one for each that the rule refuses. */
static void subject_elements(const struct subject *x, struct rules_block b)
{
	static const uint8_t kind[] = { [FORM_PAIR] = RULES_BLOCK_PAIR, [FORM_HOST] = RULES_BLOCK_HOST,
					[FORM_PAIR_SERVICE] = RULES_BLOCK_PAIR_SERVICE, [FORM_HOST_SERVICE] = RULES_BLOCK_HOST_SERVICE };
	const enum policy_form form = policy_form_for(x->p, x->rule, x->from, x->to);

	b.kind = kind[form];
	if (form == FORM_PAIR || form == FORM_HOST)
		add_element(x->l, x->account, &b, x->stands);
	else if (form != FORM_ENGINE)
		all_services(x, b);
}

static void rule_elements(const struct engine *e, const struct policy *p, const struct policy_rule *r, const struct account_key *k,
			  uint32_t slot, uint64_t ms, struct block_list *l)
{
	const bool pair = k->kind == SUBJECT_PAIR;
	const struct prefix dst = pair ? out_prefix(k) : (struct prefix){ 0 };
	const struct policy_dst *to = pair ? policy_dst_of(p, &dst.addr) : NULL;
	struct addr src[BLOCK_BATCH / 4];
	const size_t n = inside_addresses(p, k->in, src, ARRAY_SIZE(src));

	if (r->form == FORM_ENGINE || memcmp(k->in, pair_others.b, sizeof(k->in)) == 0)
		return;
	for (size_t i = 0; i < n; i++) {
		const struct rules_block b = {
			.reject = r->refuse == REFUSE_REJECT, .src = src[i], .dst = dst, .timeout_ms = ms,
		};
		const struct subject x = { .p = p, .rule = (uint32_t)(r - p->rule), .account = slot, .from = policy_src_of(p, &src[i]),
					   .to = to, .stands = !ms || !allowed(e, &src[i], &dst, clock_mono().ns), .l = l };

		if (!pair || addr_is_v4(&src[i]) == (k->out_family == 4))
			subject_elements(&x, b);
	}
}

static void dynamic_elements(const struct engine *e, uint32_t uid, uint32_t slot, uint64_t ms, struct block_list *l)
{
	for (unsigned i = 0; i < AREA_DYNAMIC; i++) {
		const struct area_dynamic *d = &e->area.h->dynamic[i];
		struct rules_block b = { .kind = RULES_BLOCK_HOST, .reject = true, .src = d->src.addr, .timeout_ms = ms };

		/* An ended one still names its addresses until the place is taken again. */
		if (d->uid != uid || d->src.len != 128)
			continue;
		if (d->dst.len) {
			b.kind = RULES_BLOCK_PAIR;
			b.dst = d->dst;
		}
		if (d->dst.len == 0 || d->dst.len == (addr_is_v4(&d->dst.addr) ? 128 : 64))
			add_element(l, slot, &b, true);
	}
}

/* Kernel elements of an account's block, as its rule and key say; none where an element cannot say it. p may be NULL. */
static void elements_by(const struct engine *e, const struct engine_policy *p, uint32_t slot, uint64_t ms, struct block_list *l)
{
	const struct account_cold *c = &e->area.account_cold[slot];
	const struct account_key *k = &e->area.account[slot].key;
	int i;

	l->share = 0;
	if (c->rule == ACCOUNT_DYNAMIC) {
		dynamic_elements(e, k->rule, slot, ms, l);
		return;
	}
	i = p ? policy_rule_by_uid(&p->view, k->rule) : -1;
	if (i >= 0)
		rule_elements(e, &p->view, &p->view.rule[i], k, slot, ms, l);
}

static void elements_of(const struct engine *e, uint32_t slot, uint64_t ms, struct block_list *l)
{
	elements_by(e, e->policy, slot, ms, l);
}

static bool is_blocked(const struct area *a, uint32_t slot)
{
	return atomic_load_explicit(&a->account[slot].state, memory_order_relaxed) & ACCOUNT_BLOCKED;
}

bool blocked_wants_answer(const struct engine *e, uint32_t account, const struct addr *src)
{
	static struct block_list l;	/* large, and there is one main thread */
	const struct account_cold *c = &e->area.account_cold[account];
	int i = e->policy ? policy_rule_by_uid(&e->policy->view, e->area.account[account].key.rule) : -1;

	if (!is_blocked(&e->area, account))
		return false;
	if (c->announced == ANNOUNCED_NONE)
		return c->rule == ACCOUNT_DYNAMIC || (i >= 0 && e->policy->view.rule[i].refuse == REFUSE_REJECT);
	if (c->rule != ACCOUNT_DYNAMIC && (i < 0 || e->policy->view.rule[i].refuse != REFUSE_REJECT))
		return false;
	l.n = 0;
	elements_of(e, account, 1, &l);
	for (size_t k = 0; k < l.n; k++)
		if (l.item[k].kind <= RULES_BLOCK_HOST && addr_cmp(&l.item[k].src, src) == 0)
			return false;
	return true;
}

struct owner {		/* an account and one element of its block; several accounts may share one */
	struct rules_block element;
	uint32_t account;
	uint32_t rule;		/* uid */
	bool pair;		/* its subject is one */
	bool stands;		/* the element was put in for it, too: what it counts is this account's */
	bool speaks;		/* of those whose it is, the one that adds its bytes to the pair */
	uint64_t bytes;		/* that it has refused */
};

struct owners {		/* sorted by element, those of pairs first; by uid, which a restart does not change */
	struct owner *v;
	size_t n, room;
};

static int owner_order(const void *x, const void *y)
{
	const struct owner *a = x, *b = y;
	const int by = element_order(&a->element, &b->element);

	if (by)
		return by;
	if (a->pair != b->pair)
		return a->pair ? -1 : 1;
	return (a->rule > b->rule) - (a->rule < b->rule);
}

static int owners_add(struct owners *o, const struct block_list *l, uint32_t account)
{
	if (o->n + l->n > o->room) {
		size_t room = 2 * (o->n + l->n);
		struct owner *v = realloc(o->v, room * sizeof(*v));

		if (!v)
			return -ENOMEM;
		o->v = v;
		o->room = room;
	}
	for (size_t i = 0; i < l->n; i++)
		o->v[o->n++] = (struct owner){ .element = l->item[i], .account = account };
	return 0;
}

static int owners_add_account(const struct engine *e, struct owners *o, const struct block_list *l, uint32_t account)
{
	const struct account_key *k = &e->area.account[account].key;
	const size_t before = o->n;
	int r = owners_add(o, l, account);

	for (size_t i = before; i < o->n; i++) {
		o->v[i].rule = k->rule;
		o->v[i].pair = k->kind == SUBJECT_PAIR;
		/* Before our first review: the dead engine's, which it put in for whoever is blocked. */
		o->v[i].stands = e->area.account_cold[account].announced == 1 || !e->sets_own;
	}
	return r;
}

/* Blocked, or was: its elements go with the next review. */
static bool has_elements(const struct area *a, uint32_t slot)
{
	return table_is_full(&a->accounts, slot) && (is_blocked(a, slot) || a->account_cold[slot].announced);
}

static int owners_of(const struct engine *e, const struct engine_policy *p, struct owners *o)
{
	static struct block_list l;	/* large, and there is one main thread */
	int r = 0;

	for (uint32_t w = 0; r == 0 && w < e->area.h->accounts / 64; w++)
		for (uint64_t left = atomic_load_explicit(&e->area.open[w], memory_order_relaxed); r == 0 && left;
		     left &= left - 1) {
			uint32_t slot = w * 64 + (uint32_t)__builtin_ctzll(left);

			if (!has_elements(&e->area, slot))
				continue;
			l.n = 0;
			elements_by(e, p, slot, 0, &l);
			r = owners_add_account(e, o, &l, slot);
		}
	if (o->n)
		qsort(o->v, o->n, sizeof(*o->v), owner_order);
	return r;
}

struct sync {
	struct engine *e;
	struct mono now;
	bool begun, ended;	/* some block did */
	bool all;		/* every element goes */
	bool failed;		/* an element of a service */
	struct block_list add, del;
	struct owners gone;	/* elements that were deleted in this review */
};

static size_t first_owner(const struct owners *o, const struct rules_block *b)
{
	size_t lo = 0, hi = o->n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (element_order(&o->v[mid].element, b) < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

/* Owner i is one of element b. */
static bool is_of(const struct owners *o, size_t i, const struct rules_block *b)
{
	return i < o->n && element_order(&o->v[i].element, b) == 0;
}

/* Another block may have had the same element: the next review puts it in again. After this one: who is blocked then stays so. */
static void announce_others(struct sync *s)
{
	struct owners o = { 0 };

	if (s->gone.n && atomic_load_explicit(&s->e->area.h->blocks, memory_order_relaxed) && owners_of(s->e, s->e->policy, &o) == 0)
		for (size_t i = 0; i < s->gone.n; i++) {
			const struct rules_block *b = &s->gone.v[i].element;

			for (size_t k = first_owner(&o, b); is_of(&o, k, b); k++)
				s->e->area.account_cold[o.v[k].account].announced = 0;
		}
	free(o.v);
	free(s->gone.v);
}

/* What went wrong with some elements may be in the way of others: all are put in again, but not each second. */
static void begin_anew(struct engine *e, struct mono now)
{
	static uint64_t again_ns;

	if (now.ns < again_ns || rules_block_clear_services(e->rules) < 0)
		return;
	again_ns = mono_add_s(now, ANEW_S).ns;
	for (uint32_t i = 0; i < e->area.h->accounts; i++)
		if (table_is_full(&e->area.accounts, i) && e->area.account_cold[i].announced) {
			e->area.account_cold[i].announced = 0;
			mark_for_review(&e->area, i);
		}
}

static int change(struct engine *e, const struct block_list *l, bool services,
		  int (*call)(struct rules *r, const struct rules_block *b, size_t n))
{
	static struct rules_block item[BLOCK_BATCH];	/* large, and there is one main thread */
	size_t n = 0;

	for (size_t i = 0; i < l->n; i++)
		if ((l->item[i].kind > RULES_BLOCK_HOST) == services)
			item[n++] = l->item[i];
	return n ? call(e->rules, item, n) : 0;
}

static void flush_blocks(struct sync *s)
{
	for (int services = 0; services <= 1; services++) {	/* apart: a failure of the one kind is not one of the other */
		int r = change(s->e, &s->del, services, rules_block_del);

		if (r == 0)
			r = change(s->e, &s->add, services, rules_block_add);
		for (size_t i = 0; i < s->add.n; i++) {
			struct account_cold *c = &s->e->area.account_cold[s->add.account[i]];

			if ((s->add.item[i].kind > RULES_BLOCK_HOST) != services)
				continue;
			if (r == 0)
				c->kernel_refused = c->kernel_pair = 0;
			else
				c->announced = r == -ENFILE ? ANNOUNCED_NONE : 0;
		}
		if (r == 0)
			continue;
		s->e->sets_known = false;	/* what was not taken out has no account */
		enforce_worry(s->e, HEALTH_RULES_FAILED);
		log_error("blocked sets: %s; blocks hold in the queue%s", strerror(-r), r == -ENFILE ? "" : ", and the sets are tried again");
		s->failed = s->failed || (services && r != -ENFILE);
	}
	if (!s->all && owners_add(&s->gone, &s->del, 0) < 0)
		log_notice("no memory: blocks that share elements with ended ones are the engine's");
	s->add.n = s->del.n = 0;
}

static void block_changed(void *ctx, uint32_t slot)
{
	struct sync *s = ctx;
	struct account_cold *c = &s->e->area.account_cold[slot];

	if (s->add.n > BLOCK_SHARE || s->del.n > BLOCK_SHARE)
		flush_blocks(s);
	if (is_blocked(&s->e->area, slot) && c->blocked_until_ns > s->now.ns) {
		const size_t before = s->add.n;

		s->begun = s->begun || c->leases;
		elements_of(s->e, slot, (c->blocked_until_ns - s->now.ns) / NS_PER_MS + 1, &s->add);
		if (s->add.n == before)
			c->announced = ANNOUNCED_NONE;
	} else {
		elements_of(s->e, slot, 0, &s->del);
		s->ended = true;
	}
}

/* Before the policy changes: elements are named by its words. */
void blocked_forget(struct engine *e)
{
	struct sync s = { .e = e, .now = clock_mono(), .all = true };

	answers_forget(e, s.now);

	for (uint32_t i = 0; i < e->area.h->accounts; i++) {
		if (!table_is_full(&e->area.accounts, i) || !e->area.account_cold[i].announced)
			continue;
		elements_of(e, i, 0, &s.del);
		e->area.account_cold[i].announced = 0;
		mark_for_review(&e->area, i);
		if (s.del.n > BLOCK_SHARE)
			flush_blocks(&s);
	}
	flush_blocks(&s);
	if (rules_block_clear_services(e->rules) < 0)	/* whatever was left: it would be in the way of others */
		log_notice("elements of ended blocks may be in the kernel yet");
}

struct settle {
	struct engine *e;
	struct owners owners;
	struct mono now;
	uint32_t kept;
	uint64_t lost;		/* of elements of ports */
};

/* In place: of one that stays the relay never reads a half. */
static void list_kept(struct settle *s, const struct rules_block *b, uint64_t bytes)
{
	struct area_kept *k;

	if (s->kept++ >= AREA_KEPT)
		return;
	k = &s->e->area.h->kept[s->kept - 1];
	k->src = b->src;
	k->dst = b->dst;
	k->until_ns = b->timeout_ms ? s->now.ns + b->timeout_ms * NS_PER_MS : 0;
	k->refused = bytes;
}

static void tell_kept(struct engine *e, uint32_t n)
{
	const uint32_t before = atomic_exchange_explicit(&e->area.h->kept_blocks, n, memory_order_release);

	if (n > before)
		log_notice("%u block%s of before %s in the kernel until their time, of rules that nobody knows any more: egressctl blocks "
			   "lists them, egressctl unblock takes them out", n, n == 1 ? "" : "s", n == 1 ? "stands" : "stand");
}

/* What the sets refused belongs to the accounts and their pairs. */
static int refused_in_kernel(void *ctx, const struct rules_block *b, uint64_t packets, uint64_t bytes)
{
	struct settle *s = ctx;
	size_t i = first_owner(&s->owners, b);

	(void)packets;
	if (!is_of(&s->owners, i, b)) {
		if (b->kind <= RULES_BLOCK_HOST)
			list_kept(s, b, bytes);
		else
			s->lost += bytes;
	}
	for (bool spoken = false; is_of(&s->owners, i, b); i++) {
		struct owner *o = &s->owners.v[i];

		if (!o->stands)
			continue;
		o->bytes += bytes;
		o->speaks = o->pair && !spoken;
		spoken = true;
	}
	return 0;
}

/* And to the pair that crossed, where the subject is one pair: an element of all of it does not tell its classes apart. */
static void refused_of_pair(struct engine *e, uint32_t account, uint64_t bytes)
{
	uint32_t pair = e->area.account_cold[account].pair;

	if (e->area.account[account].key.kind == SUBJECT_PAIR && pair < e->area.h->pairs && table_is_full(&e->area.pairs, pair))
		atomic_fetch_add_explicit(&e->area.pair_cold[pair].refused, bytes, memory_order_relaxed);
}

static void refused_of_account(struct engine *e, uint32_t account, uint64_t bytes)
{
	atomic_fetch_add_explicit(&e->area.account[account].refused, bytes, memory_order_relaxed);
	__atomic_store_n(&e->area.account_cold[account].last_ns, clock_mono().ns, __ATOMIC_RELAXED);
}

void blocked_refused(struct engine *e, uint32_t account, uint64_t bytes)
{
	refused_of_account(e, account, bytes);
	refused_of_pair(e, account, bytes);
}

static int by_account(const void *x, const void *y)
{
	const struct owner *a = x, *b = y;

	return (a->account > b->account) - (a->account < b->account);
}

/* all: of its elements; spoken: of those for which it speaks. */
static void settle_account(struct engine *e, uint32_t account, uint64_t all, uint64_t spoken)
{
	struct account_cold *c = &e->area.account_cold[account];

	if (all > c->kernel_refused)
		refused_of_account(e, account, all - c->kernel_refused);
	if (spoken > c->kernel_pair)
		refused_of_pair(e, account, spoken - c->kernel_pair);
	c->kernel_refused = all;
	c->kernel_pair = spoken;
}

static void settle_accounts(struct engine *e, struct owners *o)
{
	if (o->n)
		qsort(o->v, o->n, sizeof(*o->v), by_account);
	for (size_t i = 0, next; i < o->n; i = next) {
		uint64_t all = 0, spoken = 0;

		for (next = i; next < o->n && o->v[next].account == o->v[i].account; next++) {
			all += o->v[next].bytes;
			spoken += o->v[next].speaks ? o->v[next].bytes : 0;
		}
		if (o->v[i].stands)
			settle_account(e, o->v[i].account, all, spoken);
	}
}

uint64_t blocked_settle(struct engine *e, const struct engine_policy *p)
{
	struct settle s = { .e = e, .now = clock_mono() };
	const struct area_header *h = e->area.h;
	int r;

	if (!p || (e->sets_known && atomic_load_explicit(&h->blocks, memory_order_relaxed) == 0 &&
		   atomic_load_explicit(&h->kept_blocks, memory_order_relaxed) == 0))
		return 0;
	r = owners_of(e, p, &s.owners);
	if (r == 0)
		r = rules_block_dump(e->rules, refused_in_kernel, &s);
	if (r == 0) {
		settle_accounts(e, &s.owners);
		tell_kept(e, s.kept);
	}
	e->sets_known = r == 0;
	free(s.owners.v);
	return r == 0 ? s.lost : 0;
}

/* ---- blocks of before ---- */

struct lift {
	struct owners owners;
	struct prefix src, dst;
	struct rules_block *v;
	size_t n, room;
};

/* A host's element refuses its packets to any destination, which are of its family. */
static bool refuses(const struct rules_block *b, const struct prefix *src, const struct prefix *dst)
{
	if (b->kind > RULES_BLOCK_HOST || !prefix_contains(src, &b->src))
		return false;
	if (dst->len == 0)
		return true;
	return b->kind == RULES_BLOCK_HOST ? addr_is_v4(&dst->addr) == addr_is_v4(&b->src) : prefix_contains(dst, &b->dst.addr);
}

static int collect_kept(void *ctx, const struct rules_block *b, uint64_t packets, uint64_t bytes)
{
	struct lift *l = ctx;

	(void)packets;
	(void)bytes;
	if (!refuses(b, &l->src, &l->dst) || is_of(&l->owners, first_owner(&l->owners, b), b))
		return 0;
	if (l->n == l->room) {
		const size_t room = l->room ? l->room * 2 : 64;
		struct rules_block *v = reallocarray(l->v, room, sizeof(*v));

		if (!v)
			return -ENOMEM;
		l->v = v;
		l->room = room;
	}
	l->v[l->n++] = *b;
	return 0;
}

int blocked_lift_kept(struct engine *e, const struct prefix *src, const struct prefix *dst, uint32_t *ret_count)
{
	struct lift l = { .src = *src, .dst = *dst };
	int r;

	*ret_count = 0;
	if (!e->policy)
		return 0;
	if (dst->len > 64 && !addr_is_v4(&dst->addr))	/* an outside IPv6 address stands for its /64 */
		l.dst = (struct prefix){ .addr = addr_mask(&dst->addr, 64), .len = 64 };
	r = owners_of(e, e->policy, &l.owners);
	if (r == 0)
		r = rules_block_dump(e->rules, collect_kept, &l);
	for (size_t i = 0; r == 0 && i < l.n; i += BLOCK_BATCH)
		r = rules_block_del(e->rules, &l.v[i], MIN_OF(l.n - i, (size_t)BLOCK_BATCH));
	if (r == 0)
		*ret_count = (uint32_t)l.n;
	if (l.n)
		(void)blocked_settle(e, e->policy);	/* what is listed */
	free(l.owners.v);
	free(l.v);
	return r;
}

void blocked_review(struct engine *e, struct mono now)
{
	struct sync s = { .e = e, .now = now };
	uint32_t allows = allows_now(e, now.ns);

	if (!e->policy)
		return;	/* [BK1] */
	if (allows != e->allows) {
		(void)blocked_settle(e, e->policy);
		blocked_forget(e);	/* which elements may stand has changed; the queue refuses meanwhile */
	}
	e->allows = allows;
	judge_review(&e->judge, now, block_changed, &s);
	flush_blocks(&s);
	e->sets_own = true;
	announce_others(&s);
	if (s.failed)	/* after the review: what ended in it had to be seen as announced */
		begin_anew(e, now);
	if (s.ended)
		answers_forget(e, now);
	if (s.begun)
		leases_end_spent(e);
	answers_review(e, now);
}
