/* control_world.h - what the control socket shows and changes, in one process: a policy, an area, a judge that
 * plays the engine. For the unit test and the fuzzer of control_request().
 */
#pragma once

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "clock.h"
#include "control.h"
#include "judge.h"
#include "policy_compile.h"

#define WORLD_PAIRS 1024

struct world {
	void *mem, *blob;
	struct area area;
	struct policy policy;
	struct judge judge;
	struct config config;
	struct control_ctx ctx;
	unsigned commands, reloads, applies;
	uint32_t kept;			/* blocks of before, which an unblock lifts */
	int engine_error;		/* the engine does not answer: -errno */
	uint64_t observe_s;
	char *applied;
	unsigned confirm_s;
};

static const char world_policy[] =
	"version: 1\nmode: enforce\ninside: [10.0.0.0/8, \"fd00::/8\"]\n"
	"hosts:\n  file01: {addresses: [10.20.0.15, \"fd00:20::15\"], stores: {bytes: 2TiB, compressed: 700GiB}}\n"
	"  multi: {addresses: [10.20.0.21, 10.20.0.22]}\n"
	"groups:\n  servers: {hosts: [10.20.0.0/24, \"fd00:20::/64\"]}\n"
	"exits:\n  vpn: {interfaces: [maint], hosts: [10.250.0.0/16]}\n"
	"  wire: {interfaces: [wire0]}\n"
	"protect: [203.0.113.53]\n"
	"rules:\n"
	"  - {name: pair-limit, from: servers, to: outside, per: pair, limit: {1h: 20MB, 24h: 1GB}, "
	"action: block, hold: 30m, severity: high}\n"
	"  - {name: host-limit, from: servers, to: outside, per: host, limit: {1h: 100MB}, action: alert}\n"
	"  - {name: group-limit, from: servers, to: vpn, per: group, limit: {1h: 500MB}, action: block}\n"
	"contracts:\n"
	"  - {name: backup, from: file01, to: 198.51.100.0/24, ports: [tcp/873], "
	"budget: {per: total, 24h: 1TB}, until: never, owner: storage}\n";

static inline int world_command(void *relay, struct proto_msg *m, struct proto_reply *ret)
{
	struct world *w = relay;
	const struct proto_decision *d = &m->u.decision;
	struct judge_unblocked did = { 0 };
	struct mono now = clock_mono();
	struct area_dynamic x = { .src = d->src, .dst = d->dst, .budget = d->budget, .since_ns = now.ns };

	w->commands++;
	memset(ret, 0, sizeof(*ret));
	if (w->engine_error)
		return w->engine_error;
	ret->count = 1;
	if (m->kind == PROTO_CHECK) {
		const char *why = "";

		ret->result = area_check(&w->area, &why);
		snprintf(ret->text, sizeof(ret->text), "%s", why);
		return 0;
	}
	snprintf(x.id, sizeof(x.id), "%s", d->id);
	snprintf(x.author, sizeof(x.author), "%s", d->author);
	snprintf(x.reason, sizeof(x.reason), "%s", d->reason);
	x.uid = hash_uid(x.id, strlen(x.id));
	x.until_ns = mono_add_s(now, d->ttl_s).ns;
	if (m->kind == PROTO_UNBLOCK) {
		ret->result = judge_unblock(&w->judge, &d->src, &d->dst, d->budget, d->ttl_s, now, &did);
		ret->accounts = did.accounts;
		ret->by_hand = did.by_hand;
		ret->count = did.accounts + did.by_hand + w->kept;
		ret->result = w->kept ? 0 : ret->result;
	} else if (m->kind == PROTO_ALLOW) {
		ret->result = judge_allow(&w->judge, &x, now);
	} else if (m->kind == PROTO_BLOCK) {
		ret->result = judge_block(&w->judge, &x, now);
	} else if (m->kind == PROTO_OBSERVE) {
		w->observe_s = d->ttl_s;
		atomic_store_explicit(&w->area.h->observe_until_ns, d->ttl_s ? mono_add_s(now, d->ttl_s).ns : 0,
				      memory_order_relaxed);
	}
	if (ret->result < 0)
		snprintf(ret->text, sizeof(ret->text), "nothing is blocked there");
	return 0;
}

static inline int world_reload(void *relay, char *why, size_t size)
{
	struct world *w = relay;

	if (w->reloads++ == 0)
		return 0;
	snprintf(why, size, "policy.yaml:3:7: error: limits: unknown key");
	return -EINVAL;
}

static inline int world_apply(void *relay, const char *yaml, size_t len, unsigned confirm_s, char *why, size_t size)
{
	struct world *w = relay;

	w->applies++;
	if (w->engine_error) {
		snprintf(why, size, w->engine_error == -EBUSY ? "one waits" : "version: 1: an error");
		return w->engine_error;
	}
	free(w->applied);
	w->applied = strndup(yaml, len);
	w->confirm_s = confirm_s;
	return 0;
}

static inline int world_confirm(void *relay, char **ret_yaml, char *why, size_t size)
{
	struct world *w = relay;

	if (!w->applied || !w->confirm_s) {
		snprintf(why, size, "no policy waits for confirmation");
		return -ENOENT;
	}
	*ret_yaml = w->applied;
	w->applied = NULL;
	return 0;
}

/* One packet of len bytes; whether it passed. */
static inline bool world_packet(struct world *w, const char *src, const char *dst, uint32_t len, uint16_t dport)
{
	struct judge_packet v = { .opener = OPENER_INSIDE };

	BUG_ON(addr_parse(src, &v.p.src) < 0 || addr_parse(dst, &v.p.dst) < 0);
	v.p.len = len;
	v.p.proto = 6;
	v.p.sport = 40000;
	v.p.dport = dport;
	judge_batch(&w->judge, &v, 1, clock_mono());
	return v.pass;
}

static inline void world_send(struct world *w, const char *src, const char *dst, uint64_t bytes, uint16_t dport)
{
	for (; bytes; bytes -= MIN_OF(bytes, 50000))
		(void)world_packet(w, src, dst, (uint32_t)MIN_OF(bytes, 50000), dport);
}

static inline void world_review(struct world *w)
{
	judge_review(&w->judge, clock_mono(), NULL, NULL);
}

static inline void world_make(struct world *w)
{
	struct policy_env env = { .now = 1763900000 };
	struct diag_list *d = malloc(sizeof(*d));
	size_t size = area_size(WORLD_PAIRS, 2 * WORLD_PAIRS), blob_size = 0;
	const char *why = "";

	memset(w, 0, sizeof(*w));
	w->mem = aligned_alloc(64, (size + 63) & ~(size_t)63);
	BUG_ON(!d || !w->mem);
	memset(w->mem, 0, size);
	area_format(w->mem, WORLD_PAIRS, 2 * WORLD_PAIRS, 1, &(struct hash_key){ { 1 } }, 7, (const uint8_t[16]){ 1 },
		    clock_mono());
	BUG_ON(area_open(w->mem, size, &w->area) < 0);
	diag_init(d, "world.yaml", world_policy, sizeof(world_policy) - 1);
	BUG_ON(policy_compile(world_policy, sizeof(world_policy) - 1, &env, d, &w->blob, &blob_size) < 0);
	free(d);
	BUG_ON(policy_open(w->blob, blob_size, &w->policy, &why) < 0);
	w->judge = (struct judge){ .area = w->area, .policy = &w->policy, .policy_no = 1,
				   .counter = w->area.h->worker[0].counter };
	snprintf(w->config.gateway, sizeof(w->config.gateway), "gw1");
	snprintf(w->config.policy, sizeof(w->config.policy), "/etc/egressd/policy.yaml");
	atomic_store_explicit(&w->area.h->policy_version, 41, memory_order_relaxed);
	w->ctx = (struct control_ctx){ .area = &w->area, .policy = &w->policy, .config = &w->config, .relay = w,
				       .command = world_command, .reload = world_reload, .apply = world_apply,
				       .confirm = world_confirm, .policy_since_us = clock_wall_us() };
}

static inline void world_free(struct world *w)
{
	free(w->applied);
	free(w->blob);
	free(w->mem);
}
