/* yaml_tree.h - strict YAML: text in, small checked tree with places out. The only file that sees libyaml.
 *
 * [Y1] Strict   alias, anchor, tag, merge key, duplicate key, second document, complex key, tab indentation, NUL, other
 *               control, bidi (UAX 9) and non-UTF-8 characters are errors with a place.
 * [Y2] Bounds   1 MiB of text, depth 16, 50,000 nodes, 4 KiB a scalar; checked before the cost is paid (yaml_scan.h).
 * [Y3] All      every error is told, not only the first. Reading goes on with the best substitute: an anchor or a tag of
 *               YAML's own is passed over; of a key given twice the first counts, and it is partial; what a tag of another
 *               kind, an alias, a value with refused characters, too long or too deep stands for is YAML_UNKNOWN; a key
 *               of that kind, a merge key, a complex key and keys beyond 1,000 are left out, and their map is partial.
 * [Y4] Rest     only where libyaml cannot go on, brackets would cost too much, or nodes run out, the rest is not read; the
 *               error says so. What was open there is partial.
 * [Y5] Quiet    the tree then is for finding further errors, and gives no false ones: the place of a YAML_UNKNOWN is closed
 *               (diag.h [D3]); what a partial map lacks may have been there.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "compiler.h"
#include "diag.h"

enum yaml_kind { YAML_SCALAR, YAML_LIST, YAML_MAP, YAML_UNKNOWN };

struct yaml_node {
	enum yaml_kind kind;
	uint32_t line, col;		/* 1-based */
	const char *text;		/* scalar, NUL-terminated; "" otherwise */
	int quoted;			/* scalar was quoted: text, never a number */
	int partial;			/* a map or list of which something was left out [Y3] */
	const char *key;		/* in a map: the key, else NULL */
	uint32_t key_line, key_col;
	uint32_t count;			/* children */
	struct yaml_node *child, *next;	/* first child; next sibling */
};

struct yaml_tree;

/* 0; -EINVAL with diags added, and *ret_tree NULL unless the root is a map and fewer than DIAG_MAX were; -ENOMEM. The caller
 * frees the tree in any case. */
int yaml_tree_parse(const char *text, size_t len, struct diag_list *diags, struct yaml_tree **ret_tree) MUST_CHECK;
const struct yaml_node *yaml_tree_root(const struct yaml_tree *t);
struct yaml_tree *yaml_tree_free(struct yaml_tree *t);	/* takes NULL, returns NULL */

const struct yaml_node *yaml_get(const struct yaml_node *map, const char *key);	/* NULL: absent */
/* Is the key neither there nor can it have been among what was left out? Only then its absence is an error. */
bool yaml_lacks(const struct yaml_node *map, const char *key);
/* Nothing below it was left out; NULL is whole. */
bool yaml_whole(const struct yaml_node *n);

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
