/* yaml_tree.c - see yaml_tree.h for the contract. */
#include "yaml_tree.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "utf8.h"
#include "yaml_scan.h"

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
	struct yaml_scan scan;
	struct yaml_tree *tree;
	struct diag_list *diags;
	struct yaml_node *last;	/* a scalar that was the last thing read, or NULL */
	struct yaml_node *ended[YAML_DEPTH];	/* what ended since, by the indentation of what follows */
	uint32_t nended;
	uint32_t documents;
	bool stopped;		/* [Y4] */
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

/* ---- events to nodes ---- */

static void place_of(const struct builder *b, const yaml_mark_t *at, uint32_t *ret_line, uint32_t *ret_col)
{
	*ret_line = (uint32_t)at->line + 1;
	*ret_col = yaml_scan_col(&b->scan, *ret_line, (uint32_t)at->column + 1);
}

static void complain(struct builder *b, const yaml_mark_t *at, const char *hint, const char *text)
{
	uint32_t line, col;

	place_of(b, at, &line, &col);
	diag_add(b->diags, line, col, hint, "%s", text);
}

static void make_unknown(struct yaml_node *n)
{
	n->kind = YAML_UNKNOWN;
	n->text = "";
	n->child = NULL;
	n->count = 0;
}

/* [Y4] The last scalar may have swallowed what follows: "[a" and on the next line "rules:" is one word. What ended just before
 * may have been meant to go on. */
static void stop(struct builder *b, const yaml_mark_t *at, const char *hint, const char *text)
{
	const char *tabs = b->scan.tab_line && b->scan.tab_line <= at->line + 1 ? ", perhaps because of the tabs" : "";
	uint32_t line, col;

	b->stopped = true;
	place_of(b, at, &line, &col);
	if (b->last)
		make_unknown(b->last);
	for (uint32_t i = 0; i < b->nended; i++)
		b->ended[i]->partial = 1;
	if (!b->scan.end_line || line < b->scan.end_line)	/* else said already: libyaml stumbles over the cut */
		diag_add(b->diags, line, col, hint, "%s%s; nothing after it was read", text, tabs);
}

static void syntax_error(struct builder *b)
{
	const yaml_parser_t *p = &b->parser;
	char hint[100];

	snprintf(hint, sizeof(hint), p->context_mark.line < p->problem_mark.line ? "%s that begins on line %zu" : "%s",
		 p->context ? p->context : "", p->context_mark.line + 1);
	stop(b, &p->problem_mark, p->context ? hint : NULL, p->problem ? p->problem : "not YAML");
}

static bool next_event(struct builder *b, yaml_event_t *e)
{
	if (b->stopped || b->no_memory)
		return false;
	if (yaml_parser_parse(&b->parser, e))
		return true;
	if (b->parser.error == YAML_MEMORY_ERROR)
		b->no_memory = true;
	else
		syntax_error(b);
	return false;
}

/* NULL: no more can be read. */
static struct yaml_node *new_node(struct builder *b, enum yaml_kind kind, const yaml_event_t *e)
{
	struct yaml_node *n;

	if (++b->tree->nodes > NODES_MAX) {
		stop(b, &e->start_mark, NULL, "more than 50,000 values");
		return NULL;
	}
	n = take(b->tree, sizeof(*n));
	if (!n) {
		b->no_memory = true;
		return NULL;
	}
	*n = (struct yaml_node){ .kind = kind, .text = "" };
	place_of(b, &e->start_mark, &n->line, &n->col);
	b->last = kind == YAML_SCALAR ? n : NULL;
	b->nended = 0;
	return n;
}

/* An end that is written is one; that of a block has no length. */
static struct yaml_node *end(struct builder *b, struct yaml_node *n, yaml_event_t *e)
{
	if (e->start_mark.index != e->end_mark.index) {
		b->last = NULL;
		b->nended = 0;
	} else if (b->nended < YAML_DEPTH) {
		b->ended[b->nended++] = n;
	}
	yaml_event_delete(e);
	return n;
}

/* A part of it was left out. With no other it is not known to be empty. */
static struct yaml_node *partial(struct yaml_node *n)
{
	if (n)
		n->partial = 1;
	if (n && !n->count)
		make_unknown(n);
	return n;
}

static const char *keep_text(struct builder *b, const yaml_event_t *e)
{
	size_t len = e->data.scalar.length;
	char *p = take(b->tree, len + 1);

	if (!p) {
		b->no_memory = true;
		return NULL;
	}
	memcpy(p, e->data.scalar.value, len);
	p[len] = '\0';
	return p;
}

/* Escapes of double-quoted text can bring in what the scan refused, NUL too. */
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

static bool text_short(struct builder *b, const yaml_event_t *e)
{
	if (e->data.scalar.length <= SCALAR_MAX)
		return true;
	complain(b, &e->start_mark, NULL, "a value longer than 4 KiB");
	return false;
}

/* Is its text what the file says? */
static bool text_whole(const struct builder *b, const yaml_event_t *e)
{
	return !yaml_scan_within(&b->scan, (uint32_t)e->start_mark.line + 1, (uint32_t)e->start_mark.column + 1,
				 (uint32_t)e->end_mark.line + 1, (uint32_t)e->end_mark.column + 1);
}

/* Is the value what stands there, once anchor and tag are passed over? */
static bool plain(struct builder *b, const yaml_char_t *anchor, const yaml_char_t *tag, const yaml_mark_t *at)
{
	static const char own[] = "tag:yaml.org,2002:";

	if (anchor)
		complain(b, at, "write the value out", "anchors are not allowed");
	if (tag)
		complain(b, at, "remove it", "tags are not allowed");
	return !tag || strcmp((const char *)tag, "!") == 0 || strncmp((const char *)tag, own, sizeof(own) - 1) == 0;
}

static struct yaml_node *node_of(struct builder *b, yaml_event_t *e, unsigned depth);

static struct yaml_node *scalar(struct builder *b, const yaml_event_t *e)
{
	struct yaml_node *n = new_node(b, YAML_SCALAR, e);

	if (!n)
		return NULL;
	if (!plain(b, e->data.scalar.anchor, e->data.scalar.tag, &e->start_mark) || !text_clean(b, e) || !text_short(b, e) ||
	    !text_whole(b, e)) {
		make_unknown(n);
		return n;
	}
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

/* The first event within a list or map that may hold none, as it lies too deep: all up to its end is passed over. */
static struct yaml_node *too_deep(struct builder *b, struct yaml_node *n, yaml_event_t *e)
{
	uint32_t open = 1;

	complain(b, &e->start_mark, NULL, "nested deeper than 16");
	do {
		open += e->type == YAML_SEQUENCE_START_EVENT || e->type == YAML_MAPPING_START_EVENT;
		open -= e->type == YAML_SEQUENCE_END_EVENT || e->type == YAML_MAPPING_END_EVENT;
		yaml_event_delete(e);
	} while (open && next_event(b, e));
	return partial(n);
}

static struct yaml_node *list(struct builder *b, const yaml_event_t *start, unsigned depth)
{
	struct yaml_node *n = new_node(b, YAML_LIST, start), *last = NULL, *child;
	yaml_event_t e;

	while (n && next_event(b, &e)) {
		if (e.type == YAML_SEQUENCE_END_EVENT)
			return end(b, n, &e);
		if (depth == YAML_DEPTH)
			return too_deep(b, n, &e);
		child = node_of(b, &e, depth + 1);
		yaml_event_delete(&e);
		if (child)
			append(n, &last, child);
	}
	return partial(n);	/* [Y4] */
}

/* Of a key given twice the first counts, without what the second says. */
static bool is_twice(struct builder *b, const struct yaml_node *map, const struct yaml_node *key)
{
	for (struct yaml_node *c = map->child; c; c = c->next) {
		if (strcmp(c->key, key->text) != 0)
			continue;
		diag_add(b->diags, key->line, key->col, "remove one of them", "%s: given twice, first on line %u", key->text,
			 c->key_line);
		c->partial = 1;
		return true;
	}
	return false;
}

/* False: said, and the value is only read for further errors. */
static bool check_key(struct builder *b, struct yaml_node *map, const struct yaml_node *key, bool *full)
{
	if (key->kind == YAML_SCALAR && map->count < KEYS_MAX && strcmp(key->text, "<<") != 0)
		return !is_twice(b, map, key);
	map->partial = 1;
	if (key->kind == YAML_LIST || key->kind == YAML_MAP) {
		diag_add(b->diags, key->line, key->col, NULL, "a key must be a plain word");
	} else if (strcmp(key->text, "<<") == 0) {
		diag_add(b->diags, key->line, key->col, "write the values out", "merge keys are not allowed");
	} else if (key->kind == YAML_SCALAR && !*full) {
		diag_add(b->diags, key->line, key->col, NULL, "more than %d keys in one map", KEYS_MAX);
		*full = true;
	}
	return false;	/* YAML_UNKNOWN was said already */
}

static struct yaml_node *map(struct builder *b, const yaml_event_t *start, unsigned depth)
{
	struct yaml_node *n = new_node(b, YAML_MAP, start), *last = NULL, *key, *value;
	bool full = false, keep;
	yaml_event_t e;

	while (n && next_event(b, &e)) {
		if (e.type == YAML_MAPPING_END_EVENT)
			return end(b, n->partial ? partial(n) : n, &e);
		if (depth == YAML_DEPTH)
			return too_deep(b, n, &e);
		key = node_of(b, &e, depth + 1);
		yaml_event_delete(&e);
		keep = key && check_key(b, n, key, &full);
		if (!key || !next_event(b, &e))
			break;
		value = node_of(b, &e, depth + 1);
		yaml_event_delete(&e);
		if (!value)
			break;
		if (!keep)
			continue;
		value->key = key->text;
		value->key_line = key->line;
		value->key_col = key->col;
		append(n, &last, value);
	}
	return partial(n);	/* [Y4] */
}

/* A list or map; what a tag makes of it nobody knows. */
static struct yaml_node *branch(struct builder *b, const yaml_event_t *e, unsigned depth)
{
	bool is_list = e->type == YAML_SEQUENCE_START_EVENT, known;
	struct yaml_node *n;

	if (is_list)
		known = plain(b, e->data.sequence_start.anchor, e->data.sequence_start.tag, &e->start_mark);
	else
		known = plain(b, e->data.mapping_start.anchor, e->data.mapping_start.tag, &e->start_mark);
	n = is_list ? list(b, e, depth) : map(b, e, depth);
	if (n && !known)
		make_unknown(n);
	return n;
}

static struct yaml_node *node_of(struct builder *b, yaml_event_t *e, unsigned depth)
{
	switch (e->type) {
	case YAML_SCALAR_EVENT:
		return scalar(b, e);
	case YAML_SEQUENCE_START_EVENT:
	case YAML_MAPPING_START_EVENT:
		return branch(b, e, depth);
	case YAML_ALIAS_EVENT:
		complain(b, &e->start_mark, "write the value out", "aliases are not allowed");
		return new_node(b, YAML_UNKNOWN, e);
	default:
		stop(b, &e->start_mark, NULL, "a value is missing here");
		return NULL;
	}
}

/* Further documents are read for their errors alone. */
static void documents(struct builder *b)
{
	yaml_event_t e;

	while (next_event(b, &e)) {
		yaml_event_type_t type = e.type;
		struct yaml_node *n;

		b->documents += type == YAML_DOCUMENT_START_EVENT;
		if (type == YAML_DOCUMENT_START_EVENT && b->documents == 2)
			complain(b, &e.start_mark, "one file holds one document", "a second document begins here");
		if (type != YAML_STREAM_START_EVENT && type != YAML_DOCUMENT_START_EVENT &&
		    type != YAML_DOCUMENT_END_EVENT && type != YAML_STREAM_END_EVENT) {
			n = node_of(b, &e, 1);
			b->tree->root = b->documents == 1 ? n : b->tree->root;
		}
		yaml_event_delete(&e);
		if (type == YAML_STREAM_END_EVENT)
			return;
	}
}

/* Where the scan cut the text the parser saw an end: what lies along it may go on, to the last scalar, "" or the half of one. */
static void open_cut(struct builder *b)
{
	struct yaml_node *n = b->tree->root;

	while (n) {
		n->partial = 1;
		if (!n->count)
			make_unknown(n);
		for (n = n->child; n && n->next; n = n->next)
			;
	}
}

static void check_root(struct builder *b)
{
	const struct yaml_node *root = b->tree->root;

	if (b->scan.end_line && b->documents < 2)
		open_cut(b);
	else if (root ? root->kind == YAML_SCALAR || root->kind == YAML_LIST : !b->stopped)
		diag_add(b->diags, root ? root->line : 0, root ? root->col : 0, NULL, "'key: value' lines are expected");
}

/* [Y5] Not before all of the tree's own errors are told. */
static void close_unknown(struct diag_list *d, const struct yaml_node *n)
{
	if (n->kind == YAML_UNKNOWN)
		diag_close(d, n->line, n->col);
	for (const struct yaml_node *c = n->child; c; c = c->next)
		close_unknown(d, c);
}

static int build(struct builder *b)
{
	b->tree = calloc(1, sizeof(*b->tree));
	if (!b->tree || !yaml_parser_initialize(&b->parser))
		return -ENOMEM;
	yaml_parser_set_encoding(&b->parser, YAML_UTF8_ENCODING);
	yaml_parser_set_input_string(&b->parser, (const unsigned char *)b->scan.text, b->scan.len);
	documents(b);
	yaml_parser_delete(&b->parser);
	if (b->no_memory)
		return -ENOMEM;
	check_root(b);
	return 0;
}

int yaml_tree_parse(const char *text, size_t len, struct diag_list *diags, struct yaml_tree **ret_tree)
{
	struct builder b = { .diags = diags };
	uint32_t before = diags->count;
	int r = yaml_scan(text, len, diags, &b.scan);

	*ret_tree = NULL;
	if (r == 0)
		r = build(&b);
	yaml_scan_free(&b.scan);
	if (r < 0 || !b.tree->root || b.tree->root->kind != YAML_MAP || diags->count - before >= DIAG_MAX)
		b.tree = yaml_tree_free(b.tree);
	else if (diags->count != before)
		close_unknown(diags, b.tree->root);
	*ret_tree = b.tree;
	return r == 0 && diags->count != before ? -EINVAL : r;
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
