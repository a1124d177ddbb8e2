/* yaml_tree.c - see yaml_tree.h for the contract. */
#include "yaml_tree.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "utf8.h"

#define TEXT_MAX   (1U << 20)
#define DEPTH_MAX  16
#define NODES_MAX  50000
#define SCALAR_MAX 4096
#define KEYS_MAX   1000		/* of one map: the search for a duplicate looks at all before */
#define CHUNK	   65536

struct chunk {
	struct chunk *next;
	size_t used, size;
	char data[];
};

struct yaml_tree {
	struct chunk *chunks;
	struct yaml_node *root;
	uint32_t nodes;
};

struct builder {
	yaml_parser_t parser;
	struct yaml_tree *tree;
	struct diag_list *diags;
	uint32_t twice;		/* errors after which the tree still is whole */
	bool no_memory;
};

static void *take(struct yaml_tree *t, size_t len)
{
	struct chunk *c = t->chunks;
	void *p;

	len = (len + 7) & ~(size_t)7;
	if (!c || c->size - c->used < len) {
		size_t size = len > CHUNK ? len : CHUNK;

		c = malloc(sizeof(*c) + size);
		if (!c)
			return NULL;
		*c = (struct chunk){ .next = t->chunks, .size = size };
		t->chunks = c;
	}
	p = c->data + c->used;
	c->used += len;
	return p;
}

/* ---- before libyaml sees the text: what it would accept silently or pay too much for ---- */

struct scan {
	uint32_t line, col, depth, deepest;
};

static bool bad_character(struct diag_list *d, const struct scan *s, const char *p, size_t len, unsigned *ret_len)
{
	uint32_t code = 0;
	unsigned n = utf8_decode(p, len, &code);

	*ret_len = n ? n : 1;
	if (n == 0) {
		diag_add(d, s->line, s->col, "save the file as UTF-8", "byte 0x%02x: not UTF-8", (unsigned char)*p);
		return true;
	}
	if (code == '\n' || (code == '\r' && len > 1 && p[1] == '\n') || utf8_printable(p, len))
		return false;
	if (code == '\t')
		diag_add(d, s->line, s->col, "use spaces", "tab character");
	else if (utf8_is_bidi(code))
		diag_add(d, s->line, s->col, "remove it: it can make the text read otherwise than it is",
			 "bidirectional control character U+%04X", code);
	else
		diag_add(d, s->line, s->col, "remove it", "control character U+%04X", code);
	return true;
}

/* Brackets within quotes or comments count too: this bounds the cost of the parser, not the grammar. */
static void brackets(struct scan *s, char c)
{
	if (c == '[' || c == '{')
		s->depth++;
	else if ((c == ']' || c == '}') && s->depth)
		s->depth--;
	if (s->depth > s->deepest)
		s->deepest = s->depth;
}

static bool scan_ok(const char *text, size_t len, struct diag_list *d)
{
	struct scan s = { .line = 1, .col = 1 };
	uint32_t before = d->count;

	if (len > TEXT_MAX) {
		diag_add(d, 0, 0, NULL, "larger than 1 MiB");
		return false;
	}
	for (size_t i = 0; i < len && d->count < DIAG_MAX;) {
		unsigned n;

		(void)bad_character(d, &s, text + i, len - i, &n);
		brackets(&s, text[i]);
		if (s.deepest > 4 * DEPTH_MAX) {
			diag_add(d, s.line, s.col, NULL, "brackets nested deeper than %d", DEPTH_MAX);
			return false;
		}
		if (text[i] == '\n') {
			s.line++;
			s.col = 1;
		} else {
			s.col++;
		}
		i += n;
	}
	return d->count == before;
}

/* ---- events to nodes ---- */

static void complain(struct builder *b, const yaml_mark_t *at, const char *hint, const char *text)
{
	diag_add(b->diags, (uint32_t)at->line + 1, (uint32_t)at->column + 1, hint, "%s", text);
}

static bool next_event(struct builder *b, yaml_event_t *e)
{
	if (yaml_parser_parse(&b->parser, e))
		return true;
	if (b->parser.error == YAML_MEMORY_ERROR)
		b->no_memory = true;
	else
		complain(b, &b->parser.problem_mark, b->parser.context, b->parser.problem ? b->parser.problem : "not YAML");
	return false;
}

static struct yaml_node *new_node(struct builder *b, enum yaml_kind kind, const yaml_event_t *e)
{
	struct yaml_node *n;

	if (++b->tree->nodes > NODES_MAX) {
		complain(b, &e->start_mark, NULL, "more than 50,000 values");
		return NULL;
	}
	n = take(b->tree, sizeof(*n));
	if (!n) {
		b->no_memory = true;
		return NULL;
	}
	*n = (struct yaml_node){
		.kind = kind,
		.line = (uint32_t)e->start_mark.line + 1,
		.col = (uint32_t)e->start_mark.column + 1,
		.text = "",
	};
	return n;
}

static const char *keep_text(struct builder *b, const yaml_event_t *e)
{
	size_t len = e->data.scalar.length;
	char *p;

	if (len > SCALAR_MAX) {
		complain(b, &e->start_mark, NULL, "a value longer than 4 KiB");
		return NULL;
	}
	if (memchr(e->data.scalar.value, 0, len)) {
		complain(b, &e->start_mark, "remove it", "NUL character in a value");
		return NULL;
	}
	p = take(b->tree, len + 1);
	if (!p) {
		b->no_memory = true;
		return NULL;
	}
	memcpy(p, e->data.scalar.value, len);
	p[len] = '\0';
	return p;
}

/* Escapes of double-quoted text can bring in what the scan refused. */
static bool text_clean(struct builder *b, const yaml_event_t *e)
{
	const char *p = (const char *)e->data.scalar.value;

	for (size_t i = 0; i < e->data.scalar.length;) {
		unsigned n = utf8_printable(p + i, e->data.scalar.length - i);

		if (n == 0 && p[i] != '\n') {
			complain(b, &e->start_mark, "remove it", "control or bidirectional character in a value");
			return false;
		}
		i += n ? n : 1;
	}
	return true;
}

static bool plain(struct builder *b, const yaml_char_t *anchor, const yaml_char_t *tag, const yaml_mark_t *at)
{
	if (anchor)
		complain(b, at, "write the value out", "anchors are not allowed");
	else if (tag)
		complain(b, at, "remove it", "tags are not allowed");
	return !anchor && !tag;
}

static struct yaml_node *node_of(struct builder *b, yaml_event_t *e, unsigned depth);

static struct yaml_node *scalar(struct builder *b, const yaml_event_t *e)
{
	struct yaml_node *n;

	if (!plain(b, e->data.scalar.anchor, e->data.scalar.tag, &e->start_mark) || !text_clean(b, e))
		return NULL;
	n = new_node(b, YAML_SCALAR, e);
	if (!n)
		return NULL;
	n->text = keep_text(b, e);
	n->quoted = e->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
	return n->text ? n : NULL;
}

static void append(struct yaml_node *parent, struct yaml_node **last, struct yaml_node *child)
{
	if (*last)
		(*last)->next = child;
	else
		parent->child = child;
	*last = child;
	parent->count++;
}

static struct yaml_node *list(struct builder *b, const yaml_event_t *start, unsigned depth)
{
	struct yaml_node *n = new_node(b, YAML_LIST, start), *last = NULL, *child;
	yaml_event_t e;

	while (n && next_event(b, &e)) {
		if (e.type == YAML_SEQUENCE_END_EVENT) {
			yaml_event_delete(&e);
			return n;
		}
		child = node_of(b, &e, depth + 1);
		yaml_event_delete(&e);
		if (!child)
			return NULL;
		append(n, &last, child);
	}
	return NULL;
}

/* *ret_twice: said, and the value is only read for further errors. */
static bool check_key(struct builder *b, const struct yaml_node *map, const struct yaml_node *key, bool *ret_twice)
{
	*ret_twice = false;
	if (key->kind != YAML_SCALAR) {
		diag_add(b->diags, key->line, key->col, NULL, "a key must be a plain word");
		return false;
	}
	if (map->count == KEYS_MAX) {
		diag_add(b->diags, key->line, key->col, NULL, "more than %d keys in one map", KEYS_MAX);
		return false;
	}
	if (strcmp(key->text, "<<") == 0)
		diag_add(b->diags, key->line, key->col, "write the values out", "merge keys are not allowed");
	for (const struct yaml_node *c = map->child; c; c = c->next)
		if (strcmp(c->key, key->text) == 0) {
			diag_add(b->diags, key->line, key->col, "remove one of them", "%s: given twice, first on line %u",
				 key->text, c->key_line);
			b->twice++;
			*ret_twice = true;
			break;
		}
	return true;
}

static struct yaml_node *map(struct builder *b, const yaml_event_t *start, unsigned depth)
{
	struct yaml_node *n = new_node(b, YAML_MAP, start), *last = NULL, *key, *value;
	yaml_event_t e;
	bool twice;

	while (n && next_event(b, &e)) {
		if (e.type == YAML_MAPPING_END_EVENT) {
			yaml_event_delete(&e);
			return n;
		}
		key = node_of(b, &e, depth + 1);
		yaml_event_delete(&e);
		if (!key || !check_key(b, n, key, &twice) || !next_event(b, &e))
			return NULL;
		value = node_of(b, &e, depth + 1);
		yaml_event_delete(&e);
		if (!value)
			return NULL;
		if (twice)
			continue;
		value->key = key->text;
		value->key_line = key->line;
		value->key_col = key->col;
		append(n, &last, value);
	}
	return NULL;
}

static struct yaml_node *node_of(struct builder *b, yaml_event_t *e, unsigned depth)
{
	if (depth > DEPTH_MAX) {
		complain(b, &e->start_mark, NULL, "nested deeper than 16");
		return NULL;
	}
	switch (e->type) {
	case YAML_SCALAR_EVENT:
		return scalar(b, e);
	case YAML_SEQUENCE_START_EVENT:
		if (!plain(b, e->data.sequence_start.anchor, e->data.sequence_start.tag, &e->start_mark))
			return NULL;
		return list(b, e, depth);
	case YAML_MAPPING_START_EVENT:
		if (!plain(b, e->data.mapping_start.anchor, e->data.mapping_start.tag, &e->start_mark))
			return NULL;
		return map(b, e, depth);
	case YAML_ALIAS_EVENT:
		complain(b, &e->start_mark, "write the value out", "aliases are not allowed");
		return NULL;
	default:
		complain(b, &e->start_mark, NULL, "a value is missing here");
		return NULL;
	}
}

static void document(struct builder *b)
{
	yaml_event_t e;
	bool seen = false;

	while (next_event(b, &e)) {
		yaml_event_type_t type = e.type;

		if (type == YAML_STREAM_END_EVENT) {
			yaml_event_delete(&e);
			return;
		}
		if (type == YAML_DOCUMENT_START_EVENT && seen) {
			complain(b, &e.start_mark, "one file holds one document", "a second document begins here");
			yaml_event_delete(&e);
			return;
		}
		seen = seen || type == YAML_DOCUMENT_START_EVENT;
		if (type == YAML_STREAM_START_EVENT || type == YAML_DOCUMENT_START_EVENT || type == YAML_DOCUMENT_END_EVENT) {
			yaml_event_delete(&e);
			continue;
		}
		b->tree->root = node_of(b, &e, 1);
		yaml_event_delete(&e);
		if (!b->tree->root)
			return;
	}
}

int yaml_tree_parse(const char *text, size_t len, struct diag_list *diags, struct yaml_tree **ret_tree)
{
	struct builder b = { .diags = diags };
	uint32_t before = diags->count;

	*ret_tree = NULL;
	if (!scan_ok(text, len, diags))
		return -EINVAL;
	b.tree = calloc(1, sizeof(*b.tree));
	if (!b.tree || !yaml_parser_initialize(&b.parser)) {
		free(b.tree);
		return -ENOMEM;
	}
	yaml_parser_set_encoding(&b.parser, YAML_UTF8_ENCODING);
	yaml_parser_set_input_string(&b.parser, (const unsigned char *)text, len);
	document(&b);
	yaml_parser_delete(&b.parser);
	if (b.no_memory) {
		yaml_tree_free(b.tree);
		return -ENOMEM;
	}
	if (diags->count - before == b.twice && (!b.tree->root || b.tree->root->kind != YAML_MAP))
		diag_add(diags, b.tree->root ? b.tree->root->line : 0, b.tree->root ? b.tree->root->col : 0, NULL,
			 "'key: value' lines are expected");
	if (diags->count - before != b.twice)
		b.tree = yaml_tree_free(b.tree);
	*ret_tree = b.tree;
	return diags->count != before ? -EINVAL : 0;
}

const struct yaml_node *yaml_tree_root(const struct yaml_tree *t)
{
	return t->root;
}

struct yaml_tree *yaml_tree_free(struct yaml_tree *t)
{
	struct chunk *next;

	if (!t)
		return NULL;
	for (struct chunk *c = t->chunks; c; c = next) {
		next = c->next;
		free(c);
	}
	free(t);
	return NULL;
}

const struct yaml_node *yaml_get(const struct yaml_node *m, const char *key)
{
	for (const struct yaml_node *c = m->kind == YAML_MAP ? m->child : NULL; c; c = c->next)
		if (strcmp(c->key, key) == 0)
			return c;
	return NULL;
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
