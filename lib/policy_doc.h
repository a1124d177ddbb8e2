/* policy_doc.h - a policy as its text says it: units read, names resolved, nothing flattened.
 *
 * policy_parse*.c fill it from the YAML tree, policy_check.c asks whether it makes sense, policy_label.c, policy_class.c
 * and policy_compile.c turn it into the blob. Everything lives in `mem` and the YAML tree; nothing is freed alone.
 *
 * [PD1] An error is a diag with its place and the parse goes on; only -ENOMEM is returned. When diags were added the
 *       document may lack what was wrong, and must not be compiled.
 * [PD2] What was refused while YAML was read gives no second error: where the tree is partial [Y3], absence is none.
 */
#pragma once

#include <stdint.h>

#include "arena.h"
#include "diag.h"
#include "policy_compile.h"
#include "policy_ports.h"
#include "prefix_set.h"
#include "yaml_tree.h"

#define DOC_GROUPS   256
#define DOC_NETWORKS 500000		/* prefixes of all destinations together */

enum doc_kind {			/* what a word in from, to, hosts can be; bits, so that sets of them can be said */
	DOC_NETWORK = 1, DOC_HOST = 2, DOC_GROUP = 4, DOC_EXIT = 8, DOC_DESTINATION = 16,
	DOC_OUTSIDE = 32, DOC_INSIDE = 64, DOC_GATEWAY = 128, DOC_UNLISTED = 256,
};

struct doc_place {
	uint32_t line, col;
};

struct doc_prefix {
	struct prefix p;
	struct doc_place at;
	uint32_t owner;			/* index of the exit or host */
};

struct doc_ref {
	uint32_t kind;			/* enum doc_kind, one bit */
	uint32_t index;			/* of host, group, exit, destination */
	struct prefix p;		/* DOC_NETWORK */
	struct doc_place at;
	const char *text;
};

struct doc_refs {
	struct doc_ref *v;
	uint32_t n;
};

struct doc_host {
	const char *name;
	struct doc_place at;
	struct doc_prefix *addr;	/* full length each */
	uint32_t naddrs;
	uint64_t stores_bytes, stores_compressed;
};

struct doc_group {
	const char *name;
	struct doc_place at;
	struct doc_refs hosts, except;
	int32_t exit;			/* lies wholly in this exit (policy_check.c), or -1 */
};

struct doc_exit {
	const char *name;
	struct doc_place at;
	char iface[POLICY_IFACES][POLICY_IFNAME];
	uint32_t nifaces;
	struct doc_prefix *host;
	uint32_t nhosts;
};

struct doc_destination {
	const char *name;
	struct doc_place at;
	struct prefix *net;
	uint32_t nnets;
};

struct doc_rule {			/* a rule or contract */
	uint8_t kind, per, action, severity, refuse, opened_by;
	bool enforce_ok;		/* its own mode is not observe */
	bool alert_on_breach;
	uint8_t nlimits;
	uint32_t hold_s;
	int64_t until;
	const char *name, *owner;
	const char *from_text, *to_text, *ports_text;
	struct doc_place at, from_at;
	struct doc_refs from, to;
	struct policy_ports ports;
	const char *ports_canonical;
	struct account_limit limit[ACCOUNT_LIMITS];
};

struct doc_name {			/* one name space for hosts, groups, exits and destinations */
	const char *name;
	uint32_t kind, index;
	struct doc_place at;
};

struct policy_doc {
	struct arena *mem;
	struct diag_list *diags;
	const struct policy_env *env;

	bool enforce;
	const char *timezone;
	struct doc_prefix *inside;
	struct doc_host *host;
	struct doc_group *group;
	struct doc_exit *exit;
	struct doc_destination *dest;
	struct doc_rule *rule;		/* contracts, then rules */
	struct prefix *protect;
	uint32_t ninside, nhosts, ngroups, nexits, ndests, nrules, ncontracts, nprotect;
	uint32_t brake_subjects, brake_s, accept, max_ttl_s;
	uint64_t max_budget;

	struct doc_name *names;		/* hash table by text */
	uint32_t name_buckets;		/* a power of two, 0: none */
	const char **name_list;		/* NULL-terminated, for "did you mean" */
	uint32_t nnames, nnetworks;
	bool all_names;			/* no section that names things was lost, wholly or in part [PD2] */
	bool whole;			/* nor anything of them or of inside */

	struct prefix_set *base;	/* bit DOC_BASE_INSIDE, and exits as values in slot DOC_BASE_EXIT */
};

#define DOC_BASE_INSIDE 0
#define DOC_BASE_EXIT	1

#define DOC_ERROR(doc, place, hint, ...) diag_add((doc)->diags, (place)->line, (place)->col, hint, __VA_ARGS__)

/* A key that must be in `map`. [PD2] */
#define DOC_MISSING(doc, map, place, hint, ...)                                                                        \
	do {                                                                                                           \
		if (!(map)->partial)                                                                                   \
			DOC_ERROR(doc, place, hint, __VA_ARGS__);                                                      \
	} while (0)

/* policy_parse.c */
int doc_parse(struct policy_doc *d, const struct yaml_node *root) MUST_CHECK;

/* policy_parse_named.c: sections hosts, groups, exits, destinations. */
int doc_parse_named(struct policy_doc *d, const struct yaml_node *root) MUST_CHECK;

/* policy_parse_rule.c: sections rules and contracts. */
int doc_parse_rules(struct policy_doc *d, const struct yaml_node *rules, const struct yaml_node *contracts) MUST_CHECK;

/* policy_parse_util.c: pieces of both. */
struct doc_place doc_at(const struct yaml_node *n);
struct doc_place doc_key_at(const struct yaml_node *n);
/* Entries of a list, or the scalar itself: *ret_first and how many. An empty list or a map is an error and 0. */
uint32_t doc_items(struct policy_doc *d, const struct yaml_node *n, const char *what, const struct yaml_node **ret_first);
/* A map, or a diag and NULL. what: "hosts". */
const struct yaml_node *doc_map(struct policy_doc *d, const struct yaml_node *n, const char *what);
/* The map under a key of the root; NULL when it is not there, or a diag and NULL when it is no map. */
const struct yaml_node *doc_section(struct policy_doc *d, const struct yaml_node *root, const char *key);
/* Keys that are planned and not there yet are told apart from misspelt ones. */
void doc_keys(struct policy_doc *d, const struct yaml_node *map, const char *const *known);
const char *doc_text(struct policy_doc *d, const struct yaml_node *n, const char *what);	/* scalar or diag and NULL */
int doc_choice(struct policy_doc *d, const struct yaml_node *n, const char *what, const char *const *names,
	       unsigned dflt);	/* index in names (NULL-terminated); dflt when n is NULL or wrong */
void doc_name_check(struct policy_doc *d, const struct doc_place *at, const char *name, const char *what);
bool doc_network(struct policy_doc *d, const struct yaml_node *n, const char *what, struct prefix *ret);
/* IPv6 destinations are accounted by /64: a longer prefix is an error. */
bool doc_by_64(struct policy_doc *d, const struct doc_place *at, const char *what, const struct prefix *p);
const char *doc_kind_name(uint32_t kind);	/* "a host" */
const struct doc_name *doc_find(const struct policy_doc *d, const char *name);
int doc_refs(struct policy_doc *d, const struct yaml_node *n, const char *what, uint32_t allowed,
	     struct doc_refs *ret, const char **ret_text) MUST_CHECK;

/* policy_files.c: a destination's networks_file, appended to dest->net. */
int doc_networks_file(struct policy_doc *d, const struct yaml_node *n, struct doc_destination *dest) MUST_CHECK;

/* policy_check.c: what single keys cannot know. Sets base and group.exit; base is freed by the caller. */
int doc_check(struct policy_doc *d) MUST_CHECK;
/* The exit that all addresses of ref lie in, or -1. After doc_check(). */
int32_t doc_ref_exit(const struct policy_doc *d, const struct doc_ref *ref);
/* The addresses ref names: calls fn for each prefix until it returns non-zero, which is returned. */
int doc_ref_each(const struct policy_doc *d, const struct doc_ref *ref, int (*fn)(void *ctx, const struct prefix *p),
		 void *ctx);
