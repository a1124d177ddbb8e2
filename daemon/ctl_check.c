/* ctl_check.c - what a policy came to: sizes in bytes, times in seconds, whatever units it was written with. */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <time.h>

#include "ctl.h"
#include "policy.h"

/* "2027-04-01T00:00:00Z", the first second after it; "never" */
static const char *until(const struct policy_rule *r, char buf[32])
{
	time_t t = (time_t)r->until;
	struct tm tm;

	if (r->until == POLICY_UNTIL_NEVER || !gmtime_r(&t, &tm) || strftime(buf, 32, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
		snprintf(buf, 32, "never");
	return buf;
}

/* ---- for people ---- */

static void put_rule(const struct policy *p, const struct policy_rule *r)
{
	const bool contract = r->kind == RULE_CONTRACT;
	char when[32];

	printf("  %s ", contract ? "contract" : "rule");
	ctl_put(policy_string(p, r->name));
	printf(": per %s", policy_per_name(r->per));
	if (r->group) {
		putchar(' ');
		ctl_put(policy_string(p, r->group_name));
	}
	printf(", %s {", contract ? "budget" : "limit");
	for (unsigned i = 0; i < r->nlimits; i++)
		printf("%s%us: %" PRIu64 "B", i ? ", " : "", r->limit[i].seconds, r->limit[i].bytes);
	if (contract)
		printf("}, until %s\n", until(r, when));
	else
		printf("}, %s%s, hold %us\n", policy_action_name(r->action),
		       r->action == ACTION_BLOCK && !r->enforce ? " (observed only)" : "", r->hold_s);
}

void ctl_put_policy(const struct policy *p)
{
	for (uint32_t i = p->h->ncontracts; i < p->h->nrules; i++)
		put_rule(p, &p->rule[i]);
	for (uint32_t i = 0; i < p->h->ncontracts; i++)
		put_rule(p, &p->rule[i]);
}

/* ---- for programs ---- */

static json_t *number(uint64_t n)
{
	return json_integer((json_int_t)MIN_OF(n, (uint64_t)INT64_MAX));
}

static json_t *text(const struct policy *p, policy_str s)
{
	return *policy_string(p, s) ? json_string(policy_string(p, s)) : json_null();
}

static json_t *limits(const struct policy_rule *r)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < r->nlimits; i++) {
		json_t *o = json_object();

		json_object_set_new(o, "window_s", number(r->limit[i].seconds));
		json_object_set_new(o, "bytes", number(r->limit[i].bytes));
		json_array_append_new(list, o);
	}
	return list;
}

static json_t *rule(const struct policy *p, const struct policy_rule *r)
{
	json_t *o = json_object();
	char when[32];

	json_object_set_new(o, "name", text(p, r->name));
	json_object_set_new(o, "from", text(p, r->from_text));
	json_object_set_new(o, "to", text(p, r->to_text));
	json_object_set_new(o, "ports", text(p, r->ports_text));
	json_object_set_new(o, "opened_by", json_string(opener_name(r->opened_by)));
	json_object_set_new(o, "per", json_string(policy_per_name(r->per)));
	json_object_set_new(o, "group", text(p, r->group_name));
	json_object_set_new(o, r->kind == RULE_CONTRACT ? "budget" : "limit", limits(r));
	if (r->kind == RULE_CONTRACT) {
		json_object_set_new(o, "on_breach", json_string(r->alert_on_breach ? "alert" : "none"));
		json_object_set_new(o, "until", json_string(until(r, when)));
		json_object_set_new(o, "owner", text(p, r->owner));
		return o;
	}
	json_object_set_new(o, "action", json_string(policy_action_name(r->action)));
	json_object_set_new(o, "enforced", json_boolean(r->enforce));
	json_object_set_new(o, "hold_s", number(r->hold_s));
	json_object_set_new(o, "severity", json_string(policy_severity_name(r->severity)));
	return o;
}

void ctl_print_policy(const char *file, const struct policy *p)
{
	json_t *o = json_object(), *rules = json_array(), *contracts = json_array(), *decisions = json_object();

	for (uint32_t i = 0; i < p->h->nrules; i++)
		json_array_append_new(p->rule[i].kind == RULE_CONTRACT ? contracts : rules, rule(p, &p->rule[i]));
	json_object_set_new(o, "file", json_string(file));
	json_object_set_new(o, "mode", json_string(p->h->flags & POLICY_ENFORCE ? "enforce" : "observe"));
	json_object_set_new(o, "timezone", text(p, p->h->timezone));
	json_object_set_new(o, "rules", rules);
	json_object_set_new(o, "contracts", contracts);
	json_object_set_new(decisions, "max_ttl_s", number(p->h->max_ttl_s));
	json_object_set_new(decisions, "max_budget_bytes", number(p->h->max_budget));
	json_object_set_new(o, "decisions", decisions);
	ctl_print_json(o);
	json_decref(o);
}
