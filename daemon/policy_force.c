/* policy_force.c - see policy_force.h. */
#include "policy_force.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "devices.h"
#include "log.h"

#define SEE_ERRORS "egressctl check %s shows each with its place and remedy"

void policy_force_init(struct policy_force *f, const struct config *config, const struct area *area,
		       struct report *report, engine_command_fn command, void *ctx)
{
	*f = (struct policy_force){
		.config = config,
		.area = area,
		.report = report,
		.command = command,
		.ctx = ctx,
		.now.fd = -1,
		.before.fd = -1,
	};
}

static uint32_t next_version(const struct policy_force *f)
{
	return atomic_load_explicit(&f->area->h->policy_version, memory_order_acquire) + 1;
}

static void tell_device(void *ctx, const char *name, const char *text)
{
	(void)ctx;
	(void)name;
	log_warning("%s (egressctl status names it while it is not there)", text);
}

static int take_view(struct policy_force *f)
{
	const char *why;
	int e = policy_open(f->now.blob, f->now.size, &f->view, &why);

	f->have = e == 0;
	report_policy(f->report, e == 0 ? &f->view : NULL);
	if (e < 0)
		return e;
	clock_set_zone(policy_string(&f->view, f->view.h->timezone));
	devices_of_config(f->config, tell_device, NULL);
	devices_of_policy(f->config, &f->view, tell_device, NULL);
	return 0;
}

/* The engine's answer. */
static int hand_over(struct policy_force *f, const struct compiled *p, char *why, size_t size)
{
	struct proto_msg m = { .kind = PROTO_POLICY };
	struct proto_reply reply = { 0 };
	int e;

	m.u.policy.version = next_version(f);
	m.u.policy.size = (uint32_t)p->size;
	e = f->command(f->ctx, &m, p->fd, &reply);
	if (e < 0)
		snprintf(why, size, "the engine does not answer: %s", strerror(-e));
	else if (reply.result < 0)
		snprintf(why, size, "%s", reply.text);
	return e < 0 ? e : reply.result;
}

/* 0: *p is in force, and empty; on an error it stays the caller's. */
static int put_in_force(struct policy_force *f, struct compiled *p, char *why, size_t size)
{
	const int e = hand_over(f, p, why, size);

	if (e < 0)
		return e;
	compiled_free(&f->before);
	f->before = f->now;
	f->now = *p;
	*p = (struct compiled){ .fd = -1 };
	f->since_us = clock_wall_us();
	return take_view(f);
}

static int put_or_drop(struct policy_force *f, struct compiled *p, char *why, size_t size)
{
	int e = put_in_force(f, p, why, size);

	if (e < 0)
		compiled_free(p);
	return e;
}

static void keep(struct policy_force *f)
{
	int e = policy_source_keep(f->config, &f->now);

	if (e < 0)
		log_warning("policy in force not kept in %s: %s", f->config->state_dir, strerror(-e));
}

static void file_is_bad(struct policy_force *f, const char *why)
{
	if (!f->bad_since_us)
		f->bad_since_us = clock_wall_us();
	snprintf(f->bad, sizeof(f->bad), "%s", why);
}

static int one_waits(char *why, size_t size)
{
	snprintf(why, size, "a policy waits for confirmation: keep it by `egressctl confirm`, or wait until it goes back");
	return -EBUSY;
}

int policy_force_reload(struct policy_force *f, char *why, size_t size)
{
	struct compiled p;
	int e = f->confirm_by_ns ? one_waits(why, size) : policy_source_compile(f->config, NULL, 0, &p, why, size);

	if (e < 0 && e != -EBUSY)
		file_is_bad(f, why);
	if (e == -EINVAL) {	/* every error is on the log, one line each */
		log_error("policy not reloaded, the one in force stays: " SEE_ERRORS, f->config->policy);
		return e;
	}
	if (e == 0)
		e = put_or_drop(f, &p, why, size);
	if (e < 0) {
		log_error("policy not reloaded, the one in force stays: %s", why);
		return e;
	}
	f->bad_since_us = 0;
	keep(f);
	log_notice("policy reloaded from %s", f->config->policy);
	return 0;
}

int policy_force_apply(struct policy_force *f, const char *yaml, size_t len, unsigned confirm_s, char *why, size_t size)
{
	struct compiled p;
	int e;

	if (f->confirm_by_ns)
		return one_waits(why, size);
	e = policy_source_compile(f->config, yaml, len, &p, why, size);
	if (e == 0)
		e = put_or_drop(f, &p, why, size);
	if (e < 0)
		return e;
	if (!confirm_s) {
		f->bad_since_us = 0;	/* it becomes the file */
		keep(f);
		return 0;
	}
	free(f->pending_yaml);
	f->pending_yaml = strndup(yaml, len);
	f->confirm_by_ns = mono_add_s(clock_mono(), confirm_s).ns;
	return 0;
}

int policy_force_confirm(struct policy_force *f, char **ret_yaml, char *why, size_t size)
{
	if (!f->confirm_by_ns) {
		snprintf(why, size, "no policy waits for confirmation");
		return -ENOENT;
	}
	f->confirm_by_ns = 0;
	f->stuck = false;
	f->bad_since_us = 0;
	keep(f);
	*ret_yaml = f->pending_yaml;
	f->pending_yaml = NULL;
	return 0;
}

static void go_back(struct policy_force *f)
{
	struct compiled p = f->before;
	char why[200] = "";

	f->before = (struct compiled){ .fd = -1 };
	if (put_in_force(f, &p, why, sizeof(why)) < 0) {
		f->before = p;	/* tried again each second: nobody may be there to do it by hand */
		if (!f->stuck)
			log_error("policy not confirmed in time, and the one before cannot be put back yet: %s", why);
		f->stuck = true;
		return;
	}
	f->confirm_by_ns = 0;
	f->stuck = false;
	log_warning("policy not confirmed in time; the one before is in force again");
}

static bool is_in_force(const struct policy_force *f, const struct compiled *p)
{
	const struct policy_header *h = p->blob;

	return memcmp(h->sum, f->area->h->policy_sum, sizeof(h->sum)) == 0;
}

/* [PF5] */
static void put_back(struct policy_force *f)
{
	char why[200] = "";

	if (hand_over(f, &f->now, why, sizeof(why)) < 0) {
		if (!f->stuck)
			log_error("the engine has put a policy in force that it was too late for, and the one before cannot be put back yet: %s", why);
		f->stuck = true;
		return;
	}
	f->stuck = false;
	log_warning("the engine has put a policy in force after its answer was waited for: the one before is in force again");
}

/* A relay that starts beside a running engine: the policy in force is the kept blob when the sums agree. */
static int adopt(struct policy_force *f)
{
	struct compiled p;

	if (policy_source_last(f->config, &p) < 0)
		return -ENOENT;
	if (!is_in_force(f, &p)) {
		compiled_free(&p);
		return -ENOENT;
	}
	f->now = p;
	f->since_us = clock_wall_us();
	return take_view(f);
}

int policy_force_first(struct policy_force *f, char *why, size_t size)
{
	struct compiled p;
	bool told;
	int e;

	if (atomic_load_explicit(&f->area->h->rules_in, memory_order_acquire) && adopt(f) == 0)
		return 0;
	e = policy_source_compile(f->config, NULL, 0, &p, why, size);
	told = e == -EINVAL;	/* every error, one line each */
	if (e < 0 && policy_source_last(f->config, &p) == 0) {
		if (!told)
			log_error("%s", why);
		log_error("starting with the last good policy instead of %s", f->config->policy);
		file_is_bad(f, why);
		if (report_health(f->report, "policy", "the policy file has errors; the last good policy is in force") < 0)
			log_warning("health alert not written");
		e = 0;
	} else if (told) {
		snprintf(why, size, "the policy has errors, told above: " SEE_ERRORS, f->config->policy);
	}
	if (e == 0)
		e = put_or_drop(f, &p, why, size);
	if (e == 0)
		keep(f);
	return e;
}

void policy_force_second(struct policy_force *f, struct mono now)
{
	if (f->confirm_by_ns && now.ns >= f->confirm_by_ns)
		go_back(f);
	else if (f->have && !is_in_force(f, &f->now))
		put_back(f);
}
