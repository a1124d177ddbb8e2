/* yaml_tree.h - strict YAML: text in, small checked tree with places out. The only file that sees libyaml.
 *
 * [Y1] Strict   alias, anchor, tag, merge key, duplicate key, second document, complex key, tab indentation, NUL, other
 *               control, bidi (UAX 9) and non-UTF-8 characters are errors with a place.
 * [Y2] Bounds   1 MiB of text, depth 16, 50,000 nodes, 4 KiB a scalar; checked before the cost is paid (FACTS libyaml).
 * [Y3] All      as many errors as can be told apart are reported, not only the first. Keys given twice alone leave a tree, with the
 *               first of each: what is wrong in it can be told as well.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "compiler.h"
#include "diag.h"

enum yaml_kind { YAML_SCALAR, YAML_LIST, YAML_MAP };

struct yaml_node {
	enum yaml_kind kind;
	uint32_t line, col;		/* 1-based */
	const char *text;		/* scalar, NUL-terminated; "" otherwise */
	int quoted;			/* scalar was quoted: text, never a number */
	const char *key;		/* in a map: the key, else NULL */
	uint32_t key_line, key_col;
	uint32_t count;			/* children */
	struct yaml_node *child, *next;	/* first child; next sibling */
};

struct yaml_tree;

/* 0; -EINVAL with diags added, and *ret_tree NULL unless [Y3]; -ENOMEM. The root is a map. The caller frees the tree in any case. */
int yaml_tree_parse(const char *text, size_t len, struct diag_list *diags, struct yaml_tree **ret_tree) MUST_CHECK;
const struct yaml_node *yaml_tree_root(const struct yaml_tree *t);
struct yaml_tree *yaml_tree_free(struct yaml_tree *t);	/* takes NULL, returns NULL */

const struct yaml_node *yaml_get(const struct yaml_node *map, const char *key);	/* NULL: absent */

/* Scalars with units. 0, or -EINVAL with a diag that says the remedy. Sizes: B kB MB GB TB KiB MiB GiB TiB, decimal
 * fractions allowed when the result is whole; durations: s m h d w; a bare number is an error. */
int yaml_size(const struct yaml_node *n, struct diag_list *diags, uint64_t *ret_bytes) MUST_CHECK;
int yaml_duration(const struct yaml_node *n, struct diag_list *diags, uint64_t *ret_seconds) MUST_CHECK;
int yaml_uint(const struct yaml_node *n, struct diag_list *diags, uint64_t min, uint64_t max, uint64_t *ret) MUST_CHECK;

/* Every key of `map` is one of `known` (NULL-terminated), else a diag with "did you mean". */
void yaml_known_keys(const struct yaml_node *map, const char *const *known, struct diag_list *diags);

/* The same scalar forms for command lines: 0 or -EINVAL. */
int parse_size(const char *text, uint64_t *ret_bytes) MUST_CHECK;
int parse_duration(const char *text, uint64_t *ret_seconds) MUST_CHECK;
