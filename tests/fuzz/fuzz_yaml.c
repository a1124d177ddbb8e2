/* fuzz_yaml.c - any text as egressd.yaml. The tree keeps its bounds and has places within the text; a configuration that is
 * taken is within its bounds and prints as YAML that parses to the same; every error can be shown. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "config.h"
#include "diag.h"
#include "utf8.h"
#include "yaml_tree.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct diag_list diags;

static void shown(const char *text, bool newline)
{
	for (size_t len = strlen(text), i = 0, n; i < len; i += n) {
		n = newline && text[i] == '\n' ? 1 : utf8_printable(text + i, len - i);
		BUG_ON(n == 0);
	}
}

static void errors_if(int r)
{
	BUG_ON(r != 0 && r != -EINVAL && r != -ENOMEM);
	BUG_ON((r == -EINVAL) != (diags.count != 0));
}

static void errors_shown(void)
{
	char text[DIAG_TEXT];

	for (uint32_t i = 0; i < diags.count && i < 10; i++) {	/* a hundred of one kind would be slow and tell no more */
		int n = diag_format(&diags, i, text, sizeof(text));

		BUG_ON(n <= 0 || (size_t)n >= sizeof(text) || text[n - 1] != '\n');
		shown(text, true);
	}
}

/* ---- the tree ---- */

struct walk {
	uint32_t lines, nodes;
	uint32_t line, col;	/* of the node before: places ascend */
};

static void place(struct walk *w, uint32_t line, uint32_t col)
{
	BUG_ON(line == 0 || col == 0 || line > w->lines);
	BUG_ON(line < w->line || (line == w->line && col < w->col));
	w->line = line;
	w->col = col;
}

static void node(struct walk *w, const struct yaml_node *n, unsigned depth)
{
	uint32_t count = 0;

	BUG_ON(depth > 16);
	if (n->key) {
		shown(n->key, true);
		BUG_ON(strlen(n->key) > 4096);
		place(w, n->key_line, n->key_col);
		w->nodes++;
	}
	place(w, n->line, n->col);
	BUG_ON(++w->nodes > 50000);
	BUG_ON(strlen(n->text) > 4096 || (n->kind != YAML_SCALAR && *n->text));
	shown(n->text, true);
	for (const struct yaml_node *c = n->child; c; c = c->next) {
		BUG_ON(!c->key != (n->kind != YAML_MAP));
		BUG_ON(c->key && yaml_get(n, c->key) != c);	/* no other has this key */
		node(w, c, depth + 1);
		count++;
	}
	BUG_ON(count != n->count || (count && n->kind != YAML_LIST && n->kind != YAML_MAP));
	BUG_ON((n->partial || n->kind == YAML_UNKNOWN) && !diags.count);
}

static void tree(const char *text, size_t len)
{
	struct walk w = { .lines = 2 };		/* the end of a text without "\n" counts as a line of its own */
	struct yaml_tree *t;
	int r;

	diag_init(&diags, "fuzz.yaml", text, len);
	r = yaml_tree_parse(text, len, &diags, &t);
	errors_if(r);
	BUG_ON(r == 0 && !t);
	if (!t)
		return;
	for (size_t i = 0; i < len; i++)
		w.lines += text[i] == '\n';
	BUG_ON(yaml_tree_root(t)->kind != YAML_MAP || yaml_tree_root(t)->key);
	node(&w, yaml_tree_root(t), 1);
	yaml_tree_free(t);
}

/* ---- the configuration ---- */

static void string(const char *text, size_t size, bool path)
{
	BUG_ON(!memchr(text, '\0', size));
	BUG_ON(path && *text && *text != '/');
	shown(text, false);
}

static void roles(const struct config *c)
{
	BUG_ON(c->nroles == 0 || c->nroles > CONFIG_ROLES || strcmp(c->role[0].name, "outside") != 0);
	for (uint32_t i = 0; i < c->nroles; i++) {
		const struct config_role *r = &c->role[i];

		string(r->name, sizeof(r->name), false);
		BUG_ON(!r->name[0] || r->ndevices == 0 || r->ndevices > CONFIG_DEVICES);
		for (uint32_t k = 0; k < r->ndevices; k++) {
			BUG_ON(!r->device[k][0] || !memchr(r->device[k], '\0', CONFIG_IFNAME));
			for (const char *p = r->device[k]; *p; p++)
				BUG_ON(*p == '/' || *p == ':' || !isgraph((unsigned char)*p));
		}
	}
}

static void bounds(const struct config *c)
{
	BUG_ON(c->magic != CONFIG_MAGIC || !c->gateway[0] || !c->policy[0] || !c->state_dir[0] || !c->runtime_dir[0]);
	string(c->gateway, sizeof(c->gateway), false);
	string(c->policy, sizeof(c->policy), true);
	string(c->state_dir, sizeof(c->state_dir), true);
	string(c->runtime_dir, sizeof(c->runtime_dir), true);
	string(c->redis_socket, sizeof(c->redis_socket), true);
	string(c->redis_host, sizeof(c->redis_host), false);
	string(c->redis_username, sizeof(c->redis_username), false);
	string(c->redis_password_file, sizeof(c->redis_password_file), true);
	BUG_ON(c->failure > FAILURE_CLOSED || c->leases > 1 || c->redis > 1);
	BUG_ON(c->queue_count < 1 || c->queue_count > 8 || c->queue_first + c->queue_count > 65536);
	BUG_ON(c->pairs < 1024 || c->pairs > 1U << 22 || c->pairs & (c->pairs - 1));
	BUG_ON(__builtin_popcount(c->mark_mask) != 2);
	BUG_ON(c->redis && !c->redis_socket[0] == !c->redis_host[0]);
	BUG_ON(c->redis_host[0] && (c->redis_port == 0 || c->redis_port > 65535));
	roles(c);
}

static void same_again(const struct config *c)
{
	static char text[1 << 16];
	static struct config again;
	FILE *to = fmemopen(text, sizeof(text), "w");
	size_t n;

	BUG_ON(!to || config_print(c, to) < 0);
	fclose(to);
	n = strlen(text);
	BUG_ON(n == 0);
	diag_init(&diags, "again.yaml", text, n);
	BUG_ON(config_parse(text, n, &diags, &again) != 0);
	BUG_ON(memcmp(c, &again, sizeof(again)) != 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct config c;
	int r;

	tree((const char *)data, size);
	diag_init(&diags, "fuzz.yaml", (const char *)data, size);
	memset(&c, 0x5a, sizeof(c));
	r = config_parse((const char *)data, size, &diags, &c);
	errors_if(r);
	errors_shown();
	if (r < 0)
		return 0;
	bounds(&c);
	same_again(&c);
	return 0;
}
