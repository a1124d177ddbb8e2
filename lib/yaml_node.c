/* yaml_node.c - what is asked of a tree that was read; see yaml_tree.h. */
#include <stdio.h>
#include <string.h>

#include "yaml_tree.h"

const struct yaml_node *yaml_get(const struct yaml_node *m, const char *key)
{
	for (const struct yaml_node *c = m->kind == YAML_MAP ? m->child : NULL; c; c = c->next)
		if (strcmp(c->key, key) == 0)
			return c;
	return NULL;
}

bool yaml_lacks(const struct yaml_node *m, const char *key)
{
	return m->kind == YAML_MAP && !m->partial && !yaml_get(m, key);
}

bool yaml_whole(const struct yaml_node *n)
{
	if (!n)
		return true;
	if (n->partial || n->kind == YAML_UNKNOWN)
		return false;
	for (const struct yaml_node *c = n->child; c; c = c->next)
		if (!yaml_whole(c))
			return false;
	return true;
}

void yaml_known_keys(const struct yaml_node *m, const char *const *known, struct diag_list *diags)
{
	char hint[96];

	for (const struct yaml_node *c = m->kind == YAML_MAP ? m->child : NULL; c; c = c->next) {
		const char *const *k = known;
		const char *near;

		while (*k && strcmp(*k, c->key) != 0)
			k++;
		if (*k)
			continue;
		near = diag_nearest(c->key, known);
		snprintf(hint, sizeof(hint), "did you mean '%s'?", near ? near : "");
		diag_add(diags, c->key_line, c->key_col, near ? hint : NULL, "%s: unknown key", c->key);
	}
}
