/* test_yaml_tree.c - strict YAML: each bound at its edge, each thing refused with its place, and places of what is taken. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "yaml_tree.h"

static struct diag_list diags;

static struct yaml_tree *take(const char *text, size_t len)
{
	struct yaml_tree *t = NULL;
	int r;

	diag_init(&diags, "f", text, len);
	r = yaml_tree_parse(text, len, &diags, &t);
	if (r != 0)
		fail_msg("%.80s: %d, %u:%u: %s", text, r, diags.item[0].line, diags.item[0].col, diags.item[0].text);
	assert_non_null(t);
	assert_int_equal(diags.count, 0);
	return t;
}

static struct yaml_tree *take_text(const char *text)
{
	return take(text, strlen(text));
}

/* One error, at this place, with this in it. */
static void refuse(const char *text, size_t len, uint32_t line, uint32_t col, const char *error)
{
	struct yaml_tree *t = (struct yaml_tree *)&diags;

	diag_init(&diags, "f", text, len);
	assert_int_equal(yaml_tree_parse(text, len, &diags, &t), -EINVAL);
	assert_int_equal(t != NULL, strstr(error, "given twice") != NULL);
	yaml_tree_free(t);
	if (diags.count != 1 || diags.item[0].line != line || diags.item[0].col != col ||
	    !strstr(diags.item[0].text, error))
		fail_msg("%.80s: wanted %u:%u: %s, got %u errors, %u:%u: %s", text, line, col, error, diags.count,
			 diags.item[0].line, diags.item[0].col, diags.item[0].text);
}

static void refuse_text(const char *text, uint32_t line, uint32_t col, const char *error)
{
	refuse(text, strlen(text), line, col, error);
}

/* ---- bounds ---- */

static char *filled(const char *head, const char *part, size_t n, const char *tail, size_t *ret_len)
{
	size_t h = strlen(head), p = strlen(part), t = strlen(tail);
	char *text = malloc(h + n * p + t + 1);

	assert_non_null(text);
	memcpy(text, head, h);
	for (size_t i = 0; i < n; i++)
		memcpy(text + h + i * p, part, p);
	memcpy(text + h + n * p, tail, t + 1);
	*ret_len = h + n * p + t;
	return text;
}

static void test_one_mib(void **state)
{
	size_t len;
	char *text = filled("a: b\n", "#\n", ((1U << 20) - 6) / 2, "\n", &len);

	(void)state;
	assert_int_equal(len, 1U << 20);
	yaml_tree_free(take(text, len));
	free(text);
	text = filled("a: b\n", "#\n", ((1U << 20) - 4) / 2, "", &len);
	assert_int_equal(len, (1U << 20) + 1);
	refuse(text, len, 0, 0, "larger than 1 MiB");
	free(text);
}

/* The root counts as 1, a scalar within n lists under it is at n + 2. */
static void test_depth(void **state)
{
	static const char *const forms[][3] = { { "a: ", "[", "]" }, { "a:\n ", "- ", "" }, { "a: ", "{k: ", "}" } };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(forms); i++)
		for (unsigned n = 14; n <= 15; n++) {
			size_t open, whole;
			char *head = filled(forms[i][0], forms[i][1], n, "x", &open);
			char *text = filled(head, forms[i][2], n, "", &whole);

			if (n == 14)
				yaml_tree_free(take(text, whole));
			else	/* at the x; of maps at the key before it; "a:" is a line of its own for "- " */
				refuse(text, whole, i == 1 ? 2 : 1, (uint32_t)open - (i == 0 ? 0 : 3),
				       "nested deeper than 16");
			free(head);
			free(text);
		}
}

/* What would cost the parser much is stopped long before its end. */
static void test_depth_cost(void **state)
{
	size_t len;
	char *text = filled("a: ", "[", 500000, "", &len);

	(void)state;
	refuse(text, len, 1, 3 + 65, "brackets nested deeper than 16");
	free(text);
	text = filled("a: ", "{", 500000, "", &len);
	refuse(text, len, 1, 3 + 65, "brackets nested deeper than 16");
	free(text);
	text = filled("a:\n ", "- ", 500000, "x", &len);
	refuse(text, len, 2, 2 + 2 * 15, "nested deeper than 16");
	free(text);
	text = filled("a:\n ", "? ", 500000, "x", &len);
	refuse(text, len, 2, 2 + 2 * 15, "nested deeper than 16");
	free(text);
}

/* Root, key and list are three. */
static void test_nodes(void **state)
{
	size_t len;
	char *text = filled("a: [", "x,", 49997, "]", &len);
	struct yaml_tree *t = take(text, len);

	(void)state;
	assert_int_equal(yaml_get(yaml_tree_root(t), "a")->count, 49997);
	yaml_tree_free(t);
	free(text);
	text = filled("a: [", "x,", 49998, "]", &len);
	refuse(text, len, 1, 5 + 2 * 49997, "more than 50,000 values");
	free(text);
}

static void test_keys(void **state)
{
	char *text = malloc(20000);
	struct yaml_tree *t;
	size_t at = 0, full = 0;

	(void)state;
	assert_non_null(text);
	for (unsigned i = 0; i <= 1000; i++) {
		full = at;
		at += (size_t)snprintf(text + at, 20000 - at, "k%u: x\n", i);
	}
	t = take(text, full);
	assert_int_equal(yaml_tree_root(t)->count, 1000);
	yaml_tree_free(t);
	refuse(text, at, 1001, 1, "more than 1000 keys");
	free(text);
}

static void test_scalar(void **state)
{
	static const char *const forms[][2] = { { "a: ", "" }, { "a: \"", "\"" }, { "a: '", "'" } };
	struct yaml_tree *t;
	size_t len;
	char *text;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(forms); i++) {
		text = filled(forms[i][0], "x", 4096, forms[i][1], &len);
		t = take(text, len);
		assert_int_equal(strlen(yaml_get(yaml_tree_root(t), "a")->text), 4096);
		yaml_tree_free(t);
		free(text);
		text = filled(forms[i][0], "x", 4097, forms[i][1], &len);
		refuse(text, len, 1, 4, "a value longer than 4 KiB");
		free(text);
	}
	text = filled("a: |\n", " xxxxxxx\n", 513, "", &len);
	refuse(text, len, 1, 4, "a value longer than 4 KiB");
	free(text);
	text = filled("? ", "x", 4097, "\n: b", &len);	/* a key is a scalar too */
	refuse(text, len, 1, 3, "a value longer than 4 KiB");
	free(text);
}

/* ---- refused ---- */

static void test_constructs(void **state)
{
	static const struct {
		const char *text;
		uint32_t line, col;
		const char *error;
	} row[] = {
		{ "a: *x\n", 1, 4, "aliases are not allowed" },
		{ "b: 1\na: [1, *x]\n", 2, 8, "aliases are not allowed" },
		{ "*x : 1\n", 1, 1, "aliases are not allowed" },
		{ "a: &x 1\n", 1, 4, "anchors are not allowed" },
		{ "a: &x [1]\n", 1, 4, "anchors are not allowed" },
		{ "a: &x {b: 1}\n", 1, 4, "anchors are not allowed" },
		{ "&x a: 1\n", 1, 1, "anchors are not allowed" },
		{ "a: !!str 1\n", 1, 4, "tags are not allowed" },
		{ "a: !x [1]\n", 1, 4, "tags are not allowed" },
		{ "a: !<tag:x,2026:y> {b: 1}\n", 1, 4, "tags are not allowed" },
		{ "!!map {a: 1}\n", 1, 1, "tags are not allowed" },
		{ "a: 1\n<<: {b: 2}\n", 2, 1, "merge keys are not allowed" },
		{ "a: 1\nb: 2\na: 3\n", 3, 1, "a: given twice, first on line 1" },
		{ "a: {b: 1, c: 2, \"b\": 3}\n", 1, 17, "b: given twice, first on line 1" },
		{ "[1, 2]: 3\n", 1, 1, "a key must be a plain word" },
		{ "? {a: 1}\n: 3\n", 1, 3, "a key must be a plain word" },
		{ "a: 1\n---\nb: 2\n", 2, 1, "a second document begins here" },
		{ "---\na: 1\n...\n---\nb: 2\n", 4, 1, "a second document begins here" },
		{ "- a\n- b\n", 1, 1, "'key: value' lines are expected" },
		{ "word\n", 1, 1, "'key: value' lines are expected" },
		{ "", 0, 0, "'key: value' lines are expected" },
		{ "# only this\n", 0, 0, "'key: value' lines are expected" },
		{ "a: [1, 2\n", 2, 1, "did not find expected ',' or ']'" },
		{ "a: \"b\n", 2, 1, "unexpected end of stream" },
		{ "a: 1\n b: 2\n", 2, 3, "mapping values are not allowed" },
		{ "%YAML 9.9\n---\na: 1\n", 1, 1, "incompatible YAML document" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(row); i++)
		refuse_text(row[i].text, row[i].line, row[i].col, row[i].error);
}

/* Of several errors the first is looked at. */
static void test_characters(void **state)
{
	static const struct {
		const char *text;
		size_t len;
		uint32_t line, col;
		const char *error;
	} row[] = {
#define ROW(text, line, col, error) { text, sizeof(text) - 1, line, col, error }
		ROW("a: b\0c\n", 1, 5, "control character U+0000"),
		ROW("a: b\n\0", 2, 1, "control character U+0000"),
		ROW("a: \x1b[31m\n", 1, 4, "control character U+001B"),
		ROW("a: b\x7f\n", 1, 5, "control character U+007F"),
		ROW("a: b\xc2\x85" "c\n", 1, 5, "control character U+0085"),
		ROW("a: b\rc: d\n", 1, 5, "control character U+000D"),	/* not a line's end here, one for libyaml */
		ROW("a: b\r", 1, 5, "control character U+000D"),
		ROW("# \x07\na: b\n", 1, 3, "control character U+0007"),	/* in comments too: people read them */
		ROW("\ta: b\n", 1, 1, "tab character"),
		ROW("a:\tb\n", 1, 3, "tab character"),
		ROW("a: b #\t\n", 1, 7, "tab character"),
		ROW("a: \"x\xe2\x80\xaey\"\n", 1, 6, "bidirectional control character U+202E"),
		ROW("# \xe2\x81\xa6\n", 1, 3, "bidirectional control character U+2066"),
		ROW("# \xe2\x80\x8f\n", 1, 3, "bidirectional control character U+200F"),
		ROW("# \xd8\x9c\n", 1, 3, "bidirectional control character U+061C"),
		ROW("a: b\xe2\x80\xa8" "c\n", 1, 5, "U+2028"),
		ROW("\xef\xbb\xbf" "a: b\n", 1, 1, "U+FEFF"),
		ROW("a: \xff\n", 1, 4, "byte 0xff: not UTF-8"),
		ROW("a: \xc0\x80\n", 1, 4, "byte 0xc0"),	/* the long form of NUL */
		ROW("a: b\n# \xe2\x82", 2, 3, "byte 0xe2: not UTF-8"),
		ROW("# \xe5\xb1\xb1\xe7\x94\xb0\na: \xc3\xa9\xc3\xa9\x01\n", 2, 6, "control character U+0001"),
		ROW("\xff\xfe" "a\0:\0", 1, 1, "byte 0xff"),	/* UTF-16 */
		ROW("a: \"\\0\"\n", 1, 4, "control or bidirectional character in a value"),
		ROW("a: \"\\x1b[31m\"\n", 1, 4, "control or bidirectional character in a value"),
		ROW("a: \"\\t\"\n", 1, 4, "control or bidirectional character in a value"),
		ROW("a: \"\\u202e\"\n", 1, 4, "control or bidirectional character in a value"),
		ROW("\"\\e\": b\n", 1, 1, "control or bidirectional character in a value"),
		ROW("a: \"\\ud800\"\n", 1, 7, "invalid Unicode character"),
#undef ROW
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(row); i++) {
		struct yaml_tree *t = (struct yaml_tree *)&diags;

		diag_init(&diags, "f", row[i].text, row[i].len);
		assert_int_equal(yaml_tree_parse(row[i].text, row[i].len, &diags, &t), -EINVAL);
		assert_null(t);
		if (diags.item[0].line != row[i].line || diags.item[0].col != row[i].col ||
		    !strstr(diags.item[0].text, row[i].error))
			fail_msg("row %zu: wanted %u:%u: %s, got %u:%u: %s", i, row[i].line, row[i].col, row[i].error,
				 diags.item[0].line, diags.item[0].col, diags.item[0].text);
	}
}

/* [Y3] */
static void test_all_errors(void **state)
{
	static const char scan[] = "a: \x01\n\tb: \xff\n# \xe2\x80\xae\n", twice[] = "a: 1\na: 2\nb: {c: 1, c: 2}\na: 3\n",
			  twice_list[] = "- {a: 1, a: 2}\n";
	static const uint32_t scan_at[][2] = { { 1, 4 }, { 2, 1 }, { 2, 5 }, { 3, 3 } },
			      twice_at[][2] = { { 2, 1 }, { 3, 11 }, { 4, 1 } };
	struct yaml_tree *t;
	char many[300];

	(void)state;
	diag_init(&diags, "f", scan, strlen(scan));
	assert_int_equal(yaml_tree_parse(scan, strlen(scan), &diags, &t), -EINVAL);
	assert_int_equal(diags.count, ARRAY_SIZE(scan_at));
	for (unsigned i = 0; i < ARRAY_SIZE(scan_at); i++) {
		assert_int_equal(diags.item[i].line, scan_at[i][0]);
		assert_int_equal(diags.item[i].col, scan_at[i][1]);
	}
	diag_init(&diags, "f", twice, strlen(twice));
	assert_int_equal(yaml_tree_parse(twice, strlen(twice), &diags, &t), -EINVAL);
	assert_int_equal(diags.count, ARRAY_SIZE(twice_at));
	for (unsigned i = 0; i < ARRAY_SIZE(twice_at); i++) {
		assert_int_equal(diags.item[i].line, twice_at[i][0]);
		assert_int_equal(diags.item[i].col, twice_at[i][1]);
		assert_non_null(strstr(diags.item[i].text, i == 1 ? "first on line 3" : "first on line 1"));
	}
	assert_non_null(t);	/* with the first of each */
	assert_int_equal(yaml_tree_root(t)->count, 2);
	assert_string_equal(yaml_get(yaml_tree_root(t), "a")->text, "1");
	assert_int_equal(yaml_get(yaml_tree_root(t), "b")->count, 1);
	yaml_tree_free(t);
	diag_init(&diags, "f", twice_list, strlen(twice_list));
	assert_int_equal(yaml_tree_parse(twice_list, strlen(twice_list), &diags, &t), -EINVAL);
	assert_int_equal(diags.count, 2);
	assert_null(t);
	memset(many, 0x01, sizeof(many));	/* a binary file: enough is enough */
	diag_init(&diags, "f", many, sizeof(many));
	assert_int_equal(yaml_tree_parse(many, sizeof(many), &diags, &t), -EINVAL);
	assert_int_equal(diags.count, DIAG_MAX);
	assert_null(t);
}

/* ---- taken ---- */

static void at(const struct yaml_node *n, enum yaml_kind kind, uint32_t line, uint32_t col, const char *text)
{
	assert_non_null(n);
	assert_int_equal(n->kind, kind);
	assert_int_equal(n->line, line);
	assert_int_equal(n->col, col);
	assert_string_equal(n->text, text);
}

static void key_at(const struct yaml_node *n, const char *key, uint32_t line, uint32_t col)
{
	assert_string_equal(n->key, key);
	assert_int_equal(n->key_line, line);
	assert_int_equal(n->key_col, col);
}

static void test_places(void **state)
{
	struct yaml_tree *t = take_text("# first\n---\n"
					"name: gw\n"
					"list: [a, 'b c',\n"
					"       \"d\"]\n"
					"map:\n"
					"  inner:\n"
					"    - x\n"
					"    - {y: 1}\n"
					"text: |\n"
					"  two\n"
					"  lines\n"
					"empty:\n");
	const struct yaml_node *root = yaml_tree_root(t), *n;

	(void)state;
	at(root, YAML_MAP, 3, 1, "");
	assert_null(root->key);
	assert_int_equal(root->count, 5);
	n = root->child;
	at(n, YAML_SCALAR, 3, 7, "gw");
	key_at(n, "name", 3, 1);
	n = n->next;
	at(n, YAML_LIST, 4, 7, "");
	key_at(n, "list", 4, 1);
	assert_int_equal(n->count, 3);
	at(n->child, YAML_SCALAR, 4, 8, "a");
	assert_false(n->child->quoted);
	assert_null(n->child->key);
	at(n->child->next, YAML_SCALAR, 4, 11, "b c");
	assert_true(n->child->next->quoted);
	at(n->child->next->next, YAML_SCALAR, 5, 8, "d");
	assert_true(n->child->next->next->quoted);
	assert_null(n->child->next->next->next);
	n = yaml_get(yaml_get(root, "map"), "inner");
	at(n, YAML_LIST, 8, 5, "");
	key_at(n, "inner", 7, 3);
	at(n->child, YAML_SCALAR, 8, 7, "x");
	at(n->child->next, YAML_MAP, 9, 7, "");
	at(n->child->next->child, YAML_SCALAR, 9, 11, "1");
	key_at(n->child->next->child, "y", 9, 8);
	at(yaml_get(root, "text"), YAML_SCALAR, 10, 7, "two\nlines\n");
	at(yaml_get(root, "empty"), YAML_SCALAR, 13, 7, "");
	assert_null(yaml_get(root, "nowhere"));
	assert_null(yaml_get(yaml_get(root, "name"), "x"));	/* no map: nothing in it */
	yaml_tree_free(t);
}

/* A column is a character of UTF-8, whatever its bytes; lines may end in CR LF. */
static void test_places_utf8(void **state)
{
	struct yaml_tree *t = take_text("\xe5\xb1\xb1\xe7\x94\xb0: [\xc3\xa9, \xf0\x9f\x94\xa5\xf0\x9f\x94\xa5, x]\r\n"
					"# \xe5\xb1\xb1\r\n"
					"b: {\"\xc3\xbc\": y, z: \"\\u00fc\"}\r\n");
	const struct yaml_node *n = yaml_tree_root(t)->child;

	(void)state;
	key_at(n, "\xe5\xb1\xb1\xe7\x94\xb0", 1, 1);
	at(n, YAML_LIST, 1, 5, "");
	at(n->child, YAML_SCALAR, 1, 6, "\xc3\xa9");
	at(n->child->next, YAML_SCALAR, 1, 9, "\xf0\x9f\x94\xa5\xf0\x9f\x94\xa5");
	at(n->child->next->next, YAML_SCALAR, 1, 13, "x");
	n = n->next;
	key_at(n, "b", 3, 1);
	key_at(n->child, "\xc3\xbc", 3, 5);
	at(n->child, YAML_SCALAR, 3, 10, "y");
	key_at(n->child->next, "z", 3, 13);
	at(n->child->next, YAML_SCALAR, 3, 16, "\xc3\xbc");
	yaml_tree_free(t);
}

static void test_known_keys(void **state)
{
	static const char *const known[] = { "limit", "action", NULL };
	struct yaml_tree *t = take_text("limit: 1\nacton: 2\n\"x\\ny\": 3\n");

	(void)state;
	yaml_known_keys(yaml_tree_root(t), known, &diags);
	assert_int_equal(diags.count, 2);
	assert_int_equal(diags.item[0].line, 2);
	assert_string_equal(diags.item[0].text, "acton: unknown key");
	assert_string_equal(diags.item[0].hint, "did you mean 'action'?");
	assert_string_equal(diags.item[1].text, "x\\x0ay: unknown key");
	assert_string_equal(diags.item[1].hint, "");
	yaml_known_keys(yaml_get(yaml_tree_root(t), "limit"), known, &diags);	/* no map: no keys */
	assert_int_equal(diags.count, 2);
	yaml_tree_free(t);
	assert_null(yaml_tree_free(NULL));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_mib),	   cmocka_unit_test(test_depth),       cmocka_unit_test(test_depth_cost),
		cmocka_unit_test(test_nodes),	   cmocka_unit_test(test_keys),	       cmocka_unit_test(test_scalar),
		cmocka_unit_test(test_constructs), cmocka_unit_test(test_characters),  cmocka_unit_test(test_all_errors),
		cmocka_unit_test(test_places),	   cmocka_unit_test(test_places_utf8), cmocka_unit_test(test_known_keys),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
