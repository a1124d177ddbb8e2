/* test_utf8.c - what is a character, what may be shown, and that escapes are whole: against an encoder of one line a length. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "compiler.h"
#include "utf8.h"

/* RFC 3629, section 3. 0: no scalar value. */
static unsigned encode(uint32_t c, uint8_t out[4])
{
	unsigned n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;

	if (c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
		return 0;
	for (unsigned i = n - 1; i > 0; i--, c >>= 6)
		out[i] = 0x80 | (c & 0x3f);
	out[0] = (uint8_t)(n == 1 ? c : (0xf00 >> n) | c);
	return n;
}

static void every_code_point(void **state)
{
	(void)state;
	for (uint32_t c = 0; c <= 0x110000; c++) {
		uint8_t b[4] = { 0 };
		unsigned n = encode(c, b);
		uint32_t code = ~c;

		if (n == 0)
			continue;
		assert_int_equal(utf8_decode((char *)b, n, &code), n);
		assert_int_equal(code, c);
		for (unsigned cut = 0; cut < n; cut++)
			assert_int_equal(utf8_decode((char *)b, cut, &code), 0);
	}
}

/* Whatever is taken is what the encoder gives of it: no second form of a character, no half of a pair. */
static void every_start(void **state)
{
	(void)state;
	for (uint32_t x = 0; x <= 0xffffff; x++) {
		uint8_t in[4] = { x >> 16, x >> 8, x, 0x80 }, b[4];
		uint32_t code;
		unsigned n = utf8_decode((char *)in, sizeof(in), &code);

		if (n != 0 && (encode(code, b) != n || memcmp(in, b, n) != 0))
			fail_msg("%06x: %u bytes, taken for U+%04X", x, n, code);
	}
}

static void not_shown(void **state)
{
	static const struct {
		uint32_t first, last;
	} hidden[] = {
		{ 0, 0x1f }, { 0x7f, 0x9f }, { 0x61c, 0x61c }, { 0x200e, 0x200f }, { 0x2028, 0x202e },
		{ 0x2066, 0x2069 }, { 0xfdd0, 0xfdef }, { 0xfeff, 0xfeff },
	};

	(void)state;
	for (uint32_t c = 0; c <= 0x10ffff; c++) {
		bool want = (c & 0xffff) >= 0xfffe;
		uint8_t b[4];
		unsigned n = encode(c, b);

		for (size_t i = 0; i < ARRAY_SIZE(hidden); i++)
			want |= c >= hidden[i].first && c <= hidden[i].last;
		if (n != 0 && utf8_printable((char *)b, n) != (want ? 0 : n))
			fail_msg("U+%04X is%s to be shown", c, want ? " not" : "");
	}
}

static void escaped(void **state)
{
	static const struct {
		const char *in;
		size_t len;
		const char *out;
	} cases[] = {
		{ "", 0, "" }, { "plain", 5, "plain" }, { "a\0b", 3, "a\\x00b" }, { "\n\x7f", 2, "\\x0a\\x7f" },
		{ "stra\xc3\x9f" "e", 7, "stra\xc3\x9f" "e" }, { "\xc3", 1, "\\xc3" }, { "\xc3(", 2, "\\xc3(" },
		{ "\xe2\x80\xaex", 4, "\\xe2\\x80\\xaex" },	/* right to left */
		{ "\xf0\x9f\x98\x80", 4, "\xf0\x9f\x98\x80" }, { "\xf0\x9f\x98", 3, "\\xf0\\x9f\\x98" },
		{ "\\x00", 4, "\\x00" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		size_t whole = strlen(cases[i].out);
		char out[32];

		assert_int_equal(utf8_escape(cases[i].in, cases[i].len, out, sizeof(out)), whole);
		assert_string_equal(out, cases[i].out);
		/* In every smaller space a beginning of it, and no byte beyond. */
		for (size_t size = 1; size <= whole; size++) {
			size_t n;

			memset(out, '#', sizeof(out));
			n = utf8_escape(cases[i].in, cases[i].len, out, size);
			assert_in_range(n, size > 4 ? size - 4 : 0, size - 1);
			assert_int_equal(out[n], '\0');
			assert_memory_equal(out, cases[i].out, n);
			for (size_t k = size; k < sizeof(out); k++)
				assert_int_equal(out[k], '#');
		}
	}
}

/* A piece is whole or is not there. */
static void in_pieces(void **state)
{
	static const char in[] = "a\xf0\x9f\x98\x80\x01";
	static const size_t lengths[] = { 0, 0, 1, 1, 1, 1, 5, 5, 5, 5, 9 };
	char out[16];

	(void)state;
	for (size_t size = 1; size < ARRAY_SIZE(lengths); size++)
		assert_int_equal(utf8_escape(in, sizeof(in) - 1, out, size), lengths[size]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_code_point), cmocka_unit_test(every_start), cmocka_unit_test(not_shown),
		cmocka_unit_test(escaped), cmocka_unit_test(in_pieces),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
