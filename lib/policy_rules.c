/* policy_rules.c - rules of the text to rules of the blob: split by group, numbered for life [B2]. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "hash.h"
#include "policy_build.h"

uint32_t build_uid(const char *kind, const char *name)
{
	char text[160];
	int n = snprintf(text, sizeof(text), "%s\n%s", kind, name);

	return hash_uid(text, MIN_OF((size_t)n, sizeof(text) - 1));
}

/* The words that a rule's account hangs on. Limits and what happens at them may change without starting at zero. */
static int rule_uid(struct policy_build *b, const struct doc_rule *r, const char *group, uint32_t *ret)
{
	size_t size = strlen(r->name) + strlen(r->from_text) + strlen(r->to_text) + strlen(r->ports_canonical) +
		      strlen(group) + 40;
	char *text = arena_alloc(b->d->mem, size);
	int n;

	if (!text)
		return -ENOMEM;
	n = snprintf(text, size, "%u\n%s\n%s\n%s\n%s\n%u\n%u\n%s", r->kind, r->name, r->from_text, r->to_text,
		     r->ports_canonical, r->opened_by, r->per, group);
	*ret = hash_uid(text, (size_t)n);
	return 0;
}

static bool has_kind(const struct doc_refs *refs, uint32_t kind)
{
	for (uint32_t i = 0; i < refs->n; i++)
		if (refs->v[i].kind & kind)
			return true;
	return false;
}

static enum policy_form form_of(const struct policy_doc *d, const struct doc_rule *r)
{
	const bool services = r->ports.count || r->opened_by != OPENER_UNKNOWN;

	if (r->kind != RULE_RULE)
		return FORM_ENGINE;
	if (has_kind(&r->from, DOC_GATEWAY | DOC_UNLISTED))	/* no address that the kernel could compare */
		return FORM_ENGINE;
	if (r->per == PER_HOST)
		return !has_kind(&r->to, DOC_OUTSIDE) ? FORM_ENGINE : services ? FORM_HOST_SERVICE : FORM_HOST;
	if (r->per != PER_PAIR)
		return FORM_ENGINE;
	for (uint32_t i = 0; i < r->to.n && !has_kind(&r->to, DOC_OUTSIDE); i++)
		if (r->to.v[i].kind == DOC_EXIT && d->exit[r->to.v[i].index].nifaces)
			return FORM_ENGINE;
	return services ? FORM_PAIR_SERVICE : FORM_PAIR;
}

static int rule_add(struct policy_build *b, const struct doc_rule *r, int32_t group)
{
	const char *group_name = group >= 0 ? b->d->group[group].name : "";
	struct policy_rule *out = &b->rule[b->nrules];
	int e;

	if (b->nrules == POLICY_RULES) {
		DOC_ERROR(b->d, &r->at, "rules with per: group count once for each of their groups",
			  "more than %u rules and contracts", POLICY_RULES);
		return 0;
	}
	e = rule_uid(b, r, group_name, &out->uid);
	if (e < 0)
		return e;
	b->origin[b->nrules++] = (struct build_origin){ .doc = r, .group = group };
	out->name = build_str(b, r->name);
	out->from_text = build_str(b, r->from_text);
	out->to_text = build_str(b, r->to_text);
	out->ports_text = build_str(b, r->ports_text);
	out->owner = build_str(b, r->owner);
	out->group_name = build_str(b, group_name);
	out->group = group >= 0 ? build_uid("group", group_name) : 0;
	out->kind = r->kind;
	out->per = r->per;
	out->action = r->action;
	out->enforce = b->d->enforce && r->enforce_ok && r->action == ACTION_BLOCK;
	out->severity = r->severity;
	out->refuse = r->refuse;
	out->opened_by = r->opened_by;
	out->form = (uint8_t)form_of(b->d, r);
	out->alert_on_breach = r->alert_on_breach;
	out->nlimits = r->nlimits;
	out->hold_s = r->hold_s;
	out->until = r->until;
	memcpy(out->limit, r->limit, sizeof(out->limit));
	return 0;
}

static void check_uids(struct policy_build *b)
{
	for (uint32_t i = 0; i < b->nrules; i++)
		for (uint32_t k = 0; k < i; k++)
			if (b->rule[i].uid == b->rule[k].uid)
				DOC_ERROR(b->d, &b->origin[i].doc->at, "change one of the names",
					  "name: by chance '%.63s' has the same number as '%.63s'",
					  b->origin[i].doc->name, b->origin[k].doc->name);
}

int build_rules(struct policy_build *b)
{
	int e = 0;

	for (uint32_t i = 0; i < b->d->nrules && e == 0; i++) {
		const struct doc_rule *r = &b->d->rule[i];

		if (r->per != PER_GROUP)
			e = rule_add(b, r, -1);
		for (uint32_t k = 0; r->per == PER_GROUP && k < r->from.n && e == 0; k++)
			e = rule_add(b, r, (int32_t)r->from.v[k].index);
		if (r->kind == RULE_CONTRACT)
			b->ncontracts = b->nrules;
	}
	if (e == 0)
		check_uids(b);
	return e;
}
