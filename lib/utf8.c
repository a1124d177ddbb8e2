/* utf8.c - see utf8.h. */
#include "utf8.h"

#include <stdio.h>
#include <string.h>

unsigned utf8_decode(const char *s, size_t len, uint32_t *ret_code)
{
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	const uint8_t *p = (const uint8_t *)s;
	uint32_t code;
	unsigned n;

	if (len == 0)
		return 0;
	if (p[0] < 0x80) {
		*ret_code = p[0];
		return 1;
	}
	n = p[0] >= 0xf0 && p[0] < 0xf8 ? 4 : p[0] >= 0xe0 && p[0] < 0xf0 ? 3 : p[0] >= 0xc0 && p[0] < 0xe0 ? 2 : 0;
	if (n == 0 || len < n)
		return 0;
	code = p[0] & (0xffU >> (n + 1));
	for (unsigned i = 1; i < n; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return 0;
		code = code << 6 | (p[i] & 0x3f);
	}
	if (code < least[n] || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff))
		return 0;
	*ret_code = code;
	return n;
}

bool utf8_is_bidi(uint32_t c)
{
	return c == 0x061c || c == 0x200e || c == 0x200f || (c >= 0x202a && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069);
}

unsigned utf8_printable(const char *p, size_t len)
{
	uint32_t c;
	unsigned n = utf8_decode(p, len, &c);

	if (n == 0 || c < 0x20 || (c >= 0x7f && c <= 0x9f) || utf8_is_bidi(c) || c == 0x2028 || c == 0x2029)
		return 0;
	return (c & 0xfffe) == 0xfffe || (c >= 0xfdd0 && c <= 0xfdef) || c == 0xfeff ? 0 : n;
}

unsigned utf8_show(const char *p, size_t len, char out[static 5], unsigned *ret_took)
{
	unsigned n = utf8_printable(p, len);

	*ret_took = n ? n : 1;
	if (n)
		memcpy(out, p, n);
	else
		n = (unsigned)snprintf(out, 5, "\\x%02x", (unsigned char)*p);
	return n;
}

size_t utf8_escape(const char *p, size_t len, char *out, size_t size)
{
	size_t at = 0;
	unsigned took;

	for (size_t i = 0; i < len; i += took) {
		char piece[5];
		unsigned n = utf8_show(p + i, len - i, piece, &took);

		if (at + n >= size)
			break;
		memcpy(out + at, piece, n);
		at += n;
	}
	out[at] = '\0';
	return at;
}

unsigned utf8_columns(uint32_t c)
{
	static const struct {
		uint32_t first, last;
		unsigned columns;
	} blocks[] = {		/* ascending; whole blocks, that is enough to point into a line */
		{ 0x0300, 0x036f, 0 },	{ 0x1100, 0x115f, 2 },	 { 0x200b, 0x200d, 0 },	  { 0x20d0, 0x20ff, 0 },
		{ 0x2e80, 0x303e, 2 },	{ 0x3041, 0x3098, 2 },	 { 0x3099, 0x309a, 0 },	  { 0x309b, 0x4dbf, 2 },
		{ 0x4e00, 0xa4cf, 2 },	{ 0xa960, 0xa97c, 2 },	 { 0xac00, 0xd7a3, 2 },	  { 0xf900, 0xfaff, 2 },
		{ 0xfe00, 0xfe0f, 0 },	{ 0xfe20, 0xfe2f, 0 },	 { 0xfe30, 0xfe6f, 2 },	  { 0xff01, 0xff60, 2 },
		{ 0xffe0, 0xffe6, 2 },	{ 0x1f300, 0x1f64f, 2 }, { 0x1f900, 0x1f9ff, 2 }, { 0x20000, 0x3fffd, 2 },
	};

	for (size_t i = 0; i < sizeof(blocks) / sizeof(blocks[0]) && c >= blocks[i].first; i++)
		if (c <= blocks[i].last)
			return blocks[i].columns;
	return 1;
}
