/* yaml_scan.c - see yaml_scan.h for the contract. */
#include "yaml_scan.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "utf8.h"

#define TEXT_MAX (1U << 20)
#define TAB_STOP 8

struct at {			/* where the scan is */
	uint32_t line, col;
	int32_t gone;		/* columns of this line that the copy lacks */
	uint32_t depth;
	uint32_t open_line;	/* of the outermost bracket, and where that line begins in the copy */
	size_t open_at, line_at;
	bool indent;		/* so far the line is blank */
};

/* Length of the character; *ret_bad: told. */
static unsigned character(struct diag_list *d, const struct at *a, const char *p, size_t len, bool *ret_bad)
{
	uint32_t code = 0;
	unsigned n = utf8_decode(p, len, &code);

	*ret_bad = n == 0 || (code != '\n' && (code != '\r' || len < 2 || p[1] != '\n') && !utf8_printable(p, len));
	if (!*ret_bad)
		return n;
	if (n == 0)
		diag_add(d, a->line, a->col, "save the file as UTF-8", "byte 0x%02x: not UTF-8", (unsigned char)*p);
	else if (code == '\t')
		diag_add(d, a->line, a->col, "use spaces", "tab character");
	else if (utf8_is_bidi(code))
		diag_add(d, a->line, a->col, "remove it: it can make the text read otherwise than it is",
			 "bidirectional control character U+%04X", code);
	else
		diag_add(d, a->line, a->col, "remove it", "control character U+%04X", code);
	return n ? n : 1;
}

static void brackets(struct at *a, char c)
{
	if (c == '[' || c == '{') {
		if (a->depth++ > 0)
			return;
		a->open_line = a->line;
		a->open_at = a->line_at;
	} else if ((c == ']' || c == '}') && a->depth) {
		a->depth--;
	}
}

static int own_copy(struct yaml_scan *s, const char *text, size_t len)
{
	if (s->copy)
		return 0;
	s->copy = malloc(len + DIAG_MAX * TAB_STOP);
	if (!s->copy)
		return -ENOMEM;
	memcpy(s->copy, text, s->len);
	s->text = s->copy;
	return 0;
}

/* One bad character: spaces instead of a tab, nothing instead of others. */
static void put_fix(struct yaml_scan *s, struct at *a, char c)
{
	uint32_t col = (uint32_t)((int32_t)a->col - a->gone), spaces = 0;

	if (s->nfixes == DIAG_MAX)
		return;		/* [YS3] */
	if (c == '\t')
		spaces = a->indent ? TAB_STOP - (col - 1) % TAB_STOP : 1;
	if (c == '\t' && a->indent && !s->tab_line)
		s->tab_line = a->line;
	memset(s->copy + s->len, ' ', spaces);
	s->len += spaces;
	a->gone += 1 - (int32_t)spaces;
	s->fix[s->nfixes++] = (struct yaml_fix){ a->line, spaces ? col + spaces - 1 : col, 1 - (int32_t)spaces };
}

static void put_good(struct yaml_scan *s, const char *p, unsigned n)
{
	if (s->copy)
		memcpy(s->copy + s->len, p, n);
	s->len += n;
}

static void step(struct at *a, const struct yaml_scan *s, char c, bool bad)
{
	if (c == '\n') {
		*a = (struct at){ .line = a->line + 1, .col = 1, .depth = a->depth, .open_line = a->open_line,
				  .open_at = a->open_at, .line_at = s->len, .indent = true };
		return;
	}
	a->col++;
	a->indent = a->indent && (c == ' ' || bad);
}

/* [YS2] */
static void cut(struct yaml_scan *s, const struct at *a, struct diag_list *d)
{
	diag_add(d, a->line, a->col, NULL, "brackets nested deeper than %d; nothing from line %u on was read", YAML_DEPTH,
		 a->open_line);
	s->end_line = a->open_line;
	s->len = a->open_at;
}

int yaml_scan(const char *text, size_t len, struct diag_list *diags, struct yaml_scan *ret)
{
	struct at a = { .line = 1, .col = 1, .indent = true };
	uint32_t before = diags->count;

	ret->text = text;
	ret->copy = NULL;
	ret->len = ret->tab_line = ret->end_line = ret->nfixes = 0;
	if (len > TEXT_MAX) {
		diag_add(diags, 0, 0, NULL, "larger than 1 MiB");
		return -EINVAL;
	}
	for (size_t i = 0; i < len;) {
		bool bad;
		unsigned n = character(diags, &a, text + i, len - i, &bad);

		if (bad && own_copy(ret, text, len) < 0)
			return -ENOMEM;
		if (bad)
			put_fix(ret, &a, text[i]);
		else
			put_good(ret, text + i, n);
		brackets(&a, text[i]);
		if (a.depth > YAML_BRACKETS) {
			cut(ret, &a, diags);
			break;
		}
		step(&a, ret, text[i], bad);
		i += n;
	}
	return diags->count - before < DIAG_MAX ? 0 : -EINVAL;
}

void yaml_scan_free(struct yaml_scan *s)
{
	free(s->copy);
	s->copy = NULL;
}

uint32_t yaml_scan_col(const struct yaml_scan *s, uint32_t line, uint32_t col)
{
	int32_t shift = 0;

	for (uint32_t i = 0; i < s->nfixes; i++)
		if (s->fix[i].line == line && s->fix[i].col <= col)
			shift += s->fix[i].shift;
	return (uint32_t)((int32_t)col + shift);
}

static bool before(uint32_t line, uint32_t col, uint32_t than_line, uint32_t than_col)
{
	return line != than_line ? line < than_line : col < than_col;
}

bool yaml_scan_within(const struct yaml_scan *s, uint32_t line, uint32_t col, uint32_t end_line, uint32_t end_col)
{
	for (uint32_t i = 0; i < s->nfixes; i++)
		if (before(line, col, s->fix[i].line, s->fix[i].col) &&
		    before(s->fix[i].line, s->fix[i].col, end_line, end_col))
			return true;
	return false;
}
