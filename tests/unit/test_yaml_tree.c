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
	assert_true(!t || yaml_tree_root(t)->kind == YAML_MAP);
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
		assert_true(!t || yaml_tree_root(t)->kind == YAML_MAP);
		yaml_tree_free(t);
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
	yaml_tree_free(t);
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
	memset(many, 0x01, sizeof(many));	/* a binary file: counted, and enough is enough */
	diag_init(&diags, "f", many, sizeof(many));
	assert_int_equal(yaml_tree_parse(many, sizeof(many), &diags, &t), -EINVAL);
	assert_int_equal(diags.count, sizeof(many));
	assert_null(t);
}

/* ---- what is given after errors ---- */

static void show(FILE *out, const struct yaml_node *n)
{
	if (n->kind == YAML_UNKNOWN)
		fprintf(out, "?");
	else if (n->kind == YAML_SCALAR)
		fprintf(out, n->quoted ? "'%s'" : "%s", n->text);
	if (n->kind == YAML_UNKNOWN || n->kind == YAML_SCALAR)
		return;
	fprintf(out, n->kind == YAML_MAP ? "{" : "[");
	for (const struct yaml_node *c = n->child; c; c = c->next) {
		fprintf(out, c->key ? "%s:" : "", c->key);
		show(out, c);
		fprintf(out, c->next ? " " : "");
	}
	fprintf(out, "%s%s", n->kind == YAML_MAP ? "}" : "]", n->partial ? "~" : "");
}

/* Each place with the head of what is told, then the tree: ? is unknown, ~ partial. */
static char *told(const char *text, size_t len)
{
	struct yaml_tree *t;
	char *result = NULL;
	size_t size;
	FILE *out = open_memstream(&result, &size);

	assert_non_null(out);
	diag_init(&diags, "f", text, len);
	assert_int_equal(yaml_tree_parse(text, len, &diags, &t), -EINVAL);
	for (uint32_t i = 0; i < diags.count; i++)
		fprintf(out, "%u:%u %.12s%s|", diags.item[i].line, diags.item[i].col, diags.item[i].text,
			strstr(diags.item[i].text, "nothing ") ? ".." : "");
	if (t)
		show(out, yaml_tree_root(t));
	yaml_tree_free(t);
	fclose(out);
	return result;
}

/* [Y3] [Y4] */
static void test_goes_on(void **state)
{
	static const struct {
		const char *text, *want;
	} row[] = {
		{ "a: &x 1\nb: *x\nc: 3\n", "1:4 anchors are |2:4 aliases are |{a:1 b:? c:3}" },
		{ "a: &x [1, *x]\n*x : 5\n", "1:4 anchors are |1:11 aliases are |2:1 aliases are |{a:[1 ?]}~" },
		{ "a: &x !!str 1\nb: !!map {c: 2}\nd: ! e\n",
		  "1:4 anchors are |1:4 tags are not|2:4 tags are not|3:4 tags are not|{a:1 b:{c:2} d:e}" },
		{ "a: !include f\nb: !x [1, &y 2]\nc: 3\n", "1:4 tags are not|2:4 tags are not|2:11 anchors are |{a:? b:? c:3}" },
		{ "!x {a: 1}\n", "1:1 tags are not|" },
		{ "a: 1\n<<: {b: *x}\nc: {<<: *y}\nd: 4\n",
		  "2:1 merge keys a|2:9 aliases are |3:5 merge keys a|3:9 aliases are |{a:1 c:? d:4}~" },
		{ "[1]: *x\n? {a: &y b}\n: 2\nc: 3\n", "1:1 a key must b|1:6 aliases are |2:7 anchors are |2:3 a key must b|{c:3}~" },
		{ "a: 1\n---\nb: &x 2\n---\nc: *x\n", "2:1 a second doc|3:4 anchors are |5:4 aliases are |{a:1}" },
		{ "a: 1\n---\nb: [\n", "2:1 a second doc|4:1 did not find..|{a:1}" },
		{ "a: {b: 1}\na: {c: 2}\nd: *x\n", "2:1 a: given twi|3:4 aliases are |{a:{b:1}~ d:?}" },
		/* characters: within a value it is unknown, at its edge or beside it not */
		{ "a: b\x01" "c\nd: e\x01\nf: \x01g\n\x01h: i\n", "1:5 control char|2:5 control char|3:4 control char|4:1 control char|{a:? d:e f:g h:i}" },
		{ "a\x01" "b: c\nd: 'e\x01'\n# \x01\n", "1:2 control char|2:6 control char|3:3 control char|{d:?}~" },
		{ "\xef\xbb\xbf" "a: *x\nb: 2\n", "1:1 control char|1:5 aliases are |{a:? b:2}" },
		{ "a: \x01\x02" "b\x03 # \xff\nc: *x\n", "1:4 control char|1:5 control char|1:7 control char|1:11 byte 0xff: n|2:4 aliases are |{a:b c:?}" },
		{ "a: [b\xff, *x]\n", "1:6 byte 0xff: n|1:9 aliases are |{a:[b ?]}" },
		{ "a: \"\\0\"\n\"\\e\": 1\nb: *x\n", "1:4 control or b|2:1 control or b|3:4 aliases are |{a:? b:?}~" },
		{ "a: b\rc\nd: *x\r\n", "1:5 control char|2:4 aliases are |{a:? d:?}" },
		{ "a: b\t# c\nd:\t\t*x\n", "1:5 tab characte|2:3 tab characte|2:4 tab characte|2:5 aliases are |{a:b d:?}" },
		{ "a:\n\t- b\n\t- *x\nc: 3\n", "2:1 tab characte|3:1 tab characte|3:4 aliases are |{a:[b ?] c:3}" },
		{ "a:\n  b:\n\tc: \t*x\n\n \t\te: *y\n", "3:1 tab characte|3:5 tab characte|5:2 tab characte|5:3 tab characte|3:6 aliases are |5:4 did not find..|{a:{b:{c:?}~}~}~" },
		{ "a:\n  b: 1\n\tc: 2\nd: *x\n", "3:1 tab characte|3:3 mapping valu..|{a:{b:?}~}~" },
		/* what cannot be read on, once where an empty value has the same place */
		{ "a: {b [c]}\n", "1:7 did not find..|{a:{b:?}~}~" },
		{ "a: *x\nb: [1, 2\n", "1:4 aliases are |3:1 did not find..|{a:? b:[1 ?]~}~" },
		{ "a: *x\nb: [1, 2\nc: 3\n", "1:4 aliases are |3:2 did not find..|{a:? b:[1 ?]~}~" },
		{ "a: *x\nb: {c: 1, d: \"e\nf: 3\n", "1:4 aliases are |4:1 found unexpe..|{a:? b:{c:1}~}~" },
		{ "a:\n- b: 1\n  c: 2\n d: 3\n", "4:2 did not find..|{a:[{b:1 c:?}~]~}~" },
		{ "a: {b: {c: 1}}\n d: 3\n", "2:2 did not find..|{a:{b:{c:1}}}~" },
		{ "a: *x\nb: [\n", "1:4 aliases are |3:1 did not find..|{a:? b:?}~" },
		{ "b: [\n", "2:1 did not find..|{b:?}~" },
		{ "a: \"x", "1:6 found unexpe..|" },
		{ "%YAML 9.9\n---\na: 1\n", "1:1 found incomp..|" },
		/* too deep: passed over, with all in it */
		{ "a: [[[[[[[[[[[[[[[*x, &y 1]]]]]]]]]]]]]]]\nb: *x\n", "1:19 nested deepe|2:4 aliases are |{a:[[[[[[[[[[[[[[?]]]]]]]]]]]]]] b:?}" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(row); i++) {
		char *is = told(row[i].text, strlen(row[i].text));

		if (strcmp(is, row[i].want) != 0)
			fail_msg("row %zu: %s: wanted\n%s, got\n%s", i, row[i].text, row[i].want, is);
		free(is);
	}
}

/* What stands before the line where brackets begin that cost too much is read, and all that lies open there is partial. */
static void test_cut(void **state)
{
	static const char *const heads[][2] = {
		{ "a: *x\nb:\n  - {c: 1}\n  - d: 2\n    e:\n    f: ", "{a:? b:[{c:1} {d:2 e:?}~]~}~" },
		{ "a: *x\nb: ", "{a:?}~" },
		{ "a: *x\nb: [1, 2] # ]]\nc: 'd\ne: [[", "{a:? b:[1 ?]~}~" },
	};
	char want[200];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(heads); i++) {
		size_t len;
		char *text = filled(heads[i][0], "[", 40000, "", &len), *is = told(text, len);

		snprintf(want, sizeof(want), "%s|1:4 aliases are |%s", i == 0 ? "6:72 brackets nes.." : i == 1 ? "2:68 brackets nes.." :
			 "4:68 brackets nes..", heads[i][1]);
		if (strcmp(is, want) != 0)
			fail_msg("%s: wanted\n%s, got\n%s", heads[i][0], want, is);
		free(is);
		free(text);
	}
}

/* [Y2] Errors are paid for, too: as many as fit into 1 MiB, of each kind that is read on after. */
static void test_many_errors(void **state)
{
	static const char *const parts[] = { "*x,", "&a b,", "!t b,", "{*x : 1},", "{<<: 1},", "{[]: 1},", "\"\\0\",", "\x01,", "{a: 1, a: 2}," };
	char *text, *p;
	struct yaml_tree *t;
	size_t len, n;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		text = filled("a: [", parts[i], (1U << 20) / strlen(parts[i]) - 4, "]", &len);
		diag_init(&diags, "f", text, len);
		assert_int_equal(yaml_tree_parse(text, len, &diags, &t), -EINVAL);
		assert_true(diags.count > DIAG_MAX);
		assert_null(t);
		free(text);
	}
	text = p = malloc(1U << 20);
	assert_non_null(text);
	for (n = 0; n < 60000; n++)
		p += snprintf(p, 16, "k%zu: 1\n", n);
	diag_init(&diags, "f", text, (size_t)(p - text));
	assert_int_equal(yaml_tree_parse(text, (size_t)(p - text), &diags, &t), -EINVAL);
	yaml_tree_free(t);
	free(text);
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
		cmocka_unit_test(test_goes_on),   cmocka_unit_test(test_cut),	       cmocka_unit_test(test_many_errors),
		cmocka_unit_test(test_places),	   cmocka_unit_test(test_places_utf8), cmocka_unit_test(test_known_keys),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
