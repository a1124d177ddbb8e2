/* test_diag.c - errors with a place: the caret under the right column, what was meant, and how many are kept. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "diag.h"
#include "utf8.h"

static struct diag_list list;

static const char *formatted(const char *source, uint32_t line, uint32_t col, const char *hint, const char *text)
{
	static char buf[DIAG_TEXT];
	int n;

	diag_init(&list, "p.yaml", source, strlen(source));
	diag_add(&list, line, col, hint, "%s", text);
	assert_int_equal(list.count, 1);
	n = diag_format(&list, 0, buf, sizeof(buf));
	assert_int_equal(n, strlen(buf));
	return buf;
}

static void test_format(void **state)
{
	static const struct {
		const char *source;
		uint32_t line, col;
		const char *hint, *want;
	} row[] = {
		{ "a: 1\nlimits: 5\n", 2, 1, "did you mean 'limit'?",
		  "p.yaml:2:1: error: x\n    limits: 5\n    ^ did you mean 'limit'?\n" },
		{ "a: 1\nlimits: 5", 2, 9, NULL, "p.yaml:2:9: error: x\n    limits: 5\n            ^\n" },
		{ "a: 1\r\nb: 2\r\n", 1, 4, "", "p.yaml:1:4: error: x\n    a: 1\n       ^\n" },
		{ "a: 1\n", 1, 99, "h", "p.yaml:1:99: error: x\n    a: 1\n        ^ h\n" },	/* behind the line: its end */
		{ "a: 1\n", 1, 0, NULL, "p.yaml:1:0: error: x\n    a: 1\n    ^\n" },
		{ "a: 1\n", 0, 0, NULL, "p.yaml: error: x\n" },			/* the whole file */
		{ "a: 1\n", 0, 0, "h", "p.yaml: error: x; h\n" },
		{ "a: 1\n", 2, 1, "h", "p.yaml:2:1: error: x; h\n" },		/* behind the last line: none to quote */
		{ "a: 1\n", 9, 1, NULL, "p.yaml:9:1: error: x\n" },
		{ "a: 1\n\nb: 2\n", 2, 1, NULL, "p.yaml:2:1: error: x\n" },	/* an empty line */
		{ "", 1, 1, NULL, "p.yaml:1:1: error: x\n" },
		/* [D4] */
		{ "redis: {socket: /a, password: s3cret}\n", 1, 21, "h", "p.yaml:1:21: error: x\n"
		  "    redis: {socket: /a, password: ...\n                        ^ h\n" },
		{ "  Password : s3cret\n", 1, 14, NULL, "p.yaml:1:14: error: x\n      Password : ...\n                ^\n" },
		{ "\"password\": s3cret", 1, 1, NULL, "p.yaml:1:1: error: x\n    \"password\": ...\n    ^\n" },
		{ "password=s3cret\n", 1, 1, NULL, "p.yaml:1:1: error: x\n    password= ...\n    ^\n" },
		{ "password_file: a\n", 1, 16, NULL, "p.yaml:1:16: error: x\n    password_file: a\n                   ^\n" },
		{ "password:\n", 1, 1, NULL, "p.yaml:1:1: error: x\n    password:\n    ^\n" },
		{ "a: password\n", 1, 1, NULL, "p.yaml:1:1: error: x\n    a: password\n    ^\n" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(row); i++)
		assert_string_equal(formatted(row[i].source, row[i].line, row[i].col, row[i].hint, "x"), row[i].want);
}

/* A place counts characters. What a terminal shows of them may be wider, longer, or nothing. */
static void test_caret_columns(void **state)
{
	static const struct {
		const char *source;
		uint32_t col;
		const char *shown;
		unsigned indent;
	} row[] = {
		{ "owner: J\xc3\xbcrgen, x\n", 16, "owner: J\xc3\xbcrgen, x", 15 },
		{ "\xe5\xb1\xb1\xe7\x94\xb0: x\n", 5, "\xe5\xb1\xb1\xe7\x94\xb0: x", 6 },		/* two wide ones */
		{ "\xf0\x9f\x94\xa5: x\n", 4, "\xf0\x9f\x94\xa5: x", 4 },
		{ "e\xcc\x81: x\n", 5, "e\xcc\x81: x", 3 },						/* combining accent */
		{ "\xef\xbd\xb1: x\n", 4, "\xef\xbd\xb1: x", 3 },					/* halfwidth kana */
		{ "a\tb\tc\n", 4, "a\\x09b\\x09c", 6 },
		{ "a\xe2\x80\xae" "b!\n", 4, "a\\xe2\\x80\\xaeb!", 14 },				/* one character, three bytes */
		{ "a\xff\xfe!\n", 4, "a\\xff\\xfe!", 9 },						/* no characters: a byte each */
	};
	char want[200];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(row); i++) {
		snprintf(want, sizeof(want), "p.yaml:1:%u: error: x\n    %s\n    %*s^\n", row[i].col, row[i].shown,
			 (int)row[i].indent, "");
		assert_string_equal(formatted(row[i].source, 1, row[i].col, NULL, "x"), want);
	}
}

/* Only the beginning of a long line is quoted, and never half a character. */
static void test_long_line(void **state)
{
	char source[400], *shown, *caret;
	const char *out;

	(void)state;
	for (unsigned shift = 0; shift < 3; shift++) {
		memset(source, 'a', shift);
		for (size_t i = shift; i + 3 < sizeof(source); i += 3)
			memcpy(source + i, "\xe2\x82\xac", 4);
		out = formatted(source, 1, 300, NULL, "x");
		assert_null(strstr(out, "\\x"));
		shown = strchr(out, '\n') + 5;
		caret = strchr(shown, '\n') + 1;
		assert_in_range(caret - 1 - shown, 158, 160);
		assert_int_equal(strcspn(caret, "^"), 4 + shift + (size_t)(caret - 1 - shown - shift) / 3);
	}
	/* The worst line of all still fits. */
	memset(source, 0x01, sizeof(source) - 1);
	source[sizeof(source) - 1] = '\0';
	out = formatted(source, 1, 400, "hint", "x");
	assert_true(strlen(out) < DIAG_TEXT - 1 - 255 - 200 - 100);
	assert_string_equal(out + strlen(out) - 7, "^ hint\n");
}

/* [D2] in text and hint; cut at the end without half a character. */
static void test_escaped(void **state)
{
	char text[400], hint[200];
	const char *p;

	(void)state;
	assert_string_equal(formatted("", 0, 0, "\x1b[31m", "a\nb\xe2\x80\xae\xff"),
			    "p.yaml: error: a\\x0ab\\xe2\\x80\\xae\\xff; \\x1b[31m\n");
	for (unsigned shift = 0; shift < 4; shift++) {
		memset(text, 'a', shift);
		for (size_t i = shift; i + 4 < sizeof(text); i += 4)
			memcpy(text + i, "\xf0\x9f\x94\xa5", 5);
		memcpy(hint, text, sizeof(hint) - 1);
		hint[sizeof(hint) - 1] = '\0';
		formatted("", 0, 0, hint, text);
		for (p = list.item[0].text; *p; p += utf8_printable(p, strlen(p)))
			assert_true(utf8_printable(p, strlen(p)) != 0 && *p != '\\');
		for (p = list.item[0].hint; *p; p += utf8_printable(p, strlen(p)))
			assert_true(utf8_printable(p, strlen(p)) != 0 && *p != '\\');
		assert_in_range(strlen(list.item[0].text), sizeof(list.item[0].text) - 5, sizeof(list.item[0].text) - 1);
		assert_in_range(strlen(list.item[0].hint), sizeof(list.item[0].hint) - 5, sizeof(list.item[0].hint) - 1);
	}
	memset(text, 0x01, sizeof(text) - 1);	/* four columns a byte: never half an escape */
	text[sizeof(text) - 1] = '\0';
	formatted("", 0, 0, text, text);
	assert_int_equal(strlen(list.item[0].text) % 4, 0);
	assert_int_equal(strlen(list.item[0].hint) % 4, 0);
}

/* [D1] */
static void test_all_kept(void **state)
{
	char buf[DIAG_TEXT], want[100];

	(void)state;
	diag_init(&list, "f", "", 0);
	for (uint32_t i = 0; i < DIAG_MAX + 50; i++) {
		assert_int_equal(list.count, i);
		diag_add(&list, i + 1, i + 2, "h", "error %u", i);
	}
	assert_int_equal(list.count, DIAG_MAX + 50);
	for (uint32_t i = 0; i < DIAG_MAX; i++) {
		snprintf(want, sizeof(want), "f:%u:%u: error: error %u; h\n", i + 1, i + 2, i);
		assert_true(diag_format(&list, i, buf, sizeof(buf)) > 0);
		assert_string_equal(buf, want);
	}
	diag_init(&list, "f", "", 0);
	assert_int_equal(list.count, 0);
}

static void test_small_buffer(void **state)
{
	char buf[20];

	(void)state;
	memset(buf, 'z', sizeof(buf));
	diag_init(&list, "p.yaml", "a: 1\n", 5);
	diag_add(&list, 1, 4, "h", "x");
	assert_int_equal(diag_format(&list, 0, buf, 10), strlen("p.yaml:1:4: error: x\n    a: 1\n       ^ h\n"));
	assert_string_equal(buf, "p.yaml:1:");
	assert_int_equal(buf[10], 'z');
}

/* [D3] */
static void test_closed(void **state)
{
	(void)state;
	diag_init(&list, "p", "", 0);
	diag_add(&list, 2, 5, NULL, "told before");
	diag_close(&list, 2, 5);
	diag_add(&list, 2, 5, NULL, "told after");
	diag_add(&list, 2, 6, NULL, "beside it");
	diag_add(&list, 3, 5, NULL, "below it");
	assert_int_equal(list.count, 3);
	assert_string_equal(list.item[0].text, "told before");
	assert_string_equal(list.item[1].text, "beside it");
	for (uint32_t i = 0; i < 2 * DIAG_CLOSED; i++)	/* no more than there is room for */
		diag_close(&list, i, 1);
	assert_int_equal(list.nclosed, DIAG_CLOSED);
	assert_int_equal(list.count, 3);
}

/* Against the places' order one by one, and those of one place as they came. */
static void test_sort(void **state)
{
	uint32_t x = 7;

	(void)state;
	for (unsigned round = 0; round < 200; round++) {
		diag_init(&list, "p", "", 0);
		for (uint32_t i = 0; i < round; i++) {
			x = x * 1664525 + 1013904223;
			diag_add(&list, x >> 28, x >> 25 & 7, NULL, "%03u", i);
		}
		diag_sort(&list);
		assert_int_equal(list.count, round);
		for (uint32_t i = 1; i < round && i < DIAG_MAX; i++) {
			const struct diag *a = &list.item[i - 1], *b = &list.item[i];

			assert_true(a->line < b->line || (a->line == b->line && a->col < b->col) ||
				    (a->line == b->line && a->col == b->col && strcmp(a->text, b->text) < 0));
		}
	}
}

static void test_nearest(void **state)
{
	static const char *const names[] = { "limit", "limits", "action", "per", "to", "from", "hold", NULL };
	static const char *const none[] = { NULL };
	static const struct {
		const char *word, *near;
	} row[] = {
		{ "limit", "limit" },	{ "limt", "limit" },	/* one missing */
		{ "limitt", "limit" },	{ "lamit", "limit" },	/* one more, one other: the first of equals */
		{ "limti", "limit" },	/* two swapped are two */
		{ "actn", "action" },	{ "actoin", "action" }, { "axtiom", "action" },
		{ "axxiom", NULL },	/* three */
		{ "limits", "limits" }, { "limitss", "limits" }, { "frm", "from" },
		{ "pr", "per" },	{ "per", "per" },	{ "t", NULL },	/* as much to change as there is */
		{ "", NULL },		{ "x", NULL },		{ "xy", NULL },
		{ "LIMIT", NULL },	{ "Limit", "limit" },
	};
	static const char *const long_names[] = {
		"a23456789012345678901234567890123456789012345678901234567890123",
		"b234567890123456789012345678901234567890123456789012345678901234", NULL
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(row); i++) {
		const char *near = diag_nearest(row[i].word, names);

		if (row[i].near ? !near || strcmp(near, row[i].near) != 0 : near != NULL)
			fail_msg("'%s': wanted %s, got %s", row[i].word, row[i].near ? row[i].near : "none",
				 near ? near : "none");
	}
	assert_null(diag_nearest("limit", none));
	/* 63 bytes are compared, 64 are near nothing. */
	assert_ptr_equal(diag_nearest("x23456789012345678901234567890123456789012345678901234567890123", long_names),
			 long_names[0]);
	assert_null(diag_nearest("b234567890123456789012345678901234567890123456789012345678901234", long_names));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_format),	 cmocka_unit_test(test_caret_columns), cmocka_unit_test(test_long_line),
		cmocka_unit_test(test_escaped),	 cmocka_unit_test(test_all_kept),      cmocka_unit_test(test_small_buffer),
		cmocka_unit_test(test_nearest),	 cmocka_unit_test(test_closed),	       cmocka_unit_test(test_sort),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
