/* diag.c - see diag.h for the contract. */
#include "diag.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "utf8.h"

#define LINE_MAX_SHOWN 160	/* bytes of the quoted line; a place beyond has its caret at the end */

void diag_init(struct diag_list *l, const char *file, const char *source, size_t source_len)
{
	memset(l, 0, sizeof(*l));
	l->file = file;
	l->source = source;
	l->source_len = source_len;
}

/* Without a character that the end cuts in two. */
static size_t whole_characters(const char *p, size_t len)
{
	size_t start = len;
	uint32_t code;

	while (start > 0 && len - start < 3 && (p[start - 1] & 0xc0) == 0x80)
		start--;
	if (start == 0 || (unsigned char)p[start - 1] < 0xc0 || utf8_decode(p + start - 1, len - start + 1, &code))
		return len;
	return start - 1;
}

void diag_close(struct diag_list *l, uint32_t line, uint32_t col)
{
	if (l->nclosed < DIAG_CLOSED)
		l->closed[l->nclosed++] = (struct diag_place){ line, col };
}

static bool is_closed(const struct diag_list *l, uint32_t line, uint32_t col)
{
	for (uint32_t i = 0; i < l->nclosed; i++)
		if (l->closed[i].line == line && l->closed[i].col == col)
			return true;
	return false;
}

void diag_add(struct diag_list *l, uint32_t line, uint32_t col, const char *hint, const char *fmt, ...)
{
	char raw[sizeof(l->item[0].text)];
	struct diag *d;
	va_list ap;
	int n;

	if (is_closed(l, line, col) || l->count++ >= DIAG_MAX)	/* [D3] [D1] */
		return;
	d = &l->item[l->count - 1];
	d->line = line;
	d->col = col;
	va_start(ap, fmt);
	n = vsnprintf(raw, sizeof(raw), fmt, ap);
	va_end(ap);
	utf8_escape(raw, n < (int)sizeof(raw) ? strlen(raw) : whole_characters(raw, strlen(raw)), d->text, sizeof(d->text));
	utf8_escape(hint ? hint : "", hint ? strlen(hint) : 0, d->hint, sizeof(d->hint));
}

static bool diag_after(const struct diag *a, const struct diag *b)
{
	return a->line != b->line ? a->line > b->line : a->col > b->col;
}

/* Few, and stable. */
void diag_sort(struct diag_list *l)
{
	uint32_t n = MIN_OF(l->count, (uint32_t)DIAG_MAX);

	for (uint32_t i = 1; i < n; i++) {
		struct diag d = l->item[i];
		uint32_t k = i;

		for (; k > 0 && diag_after(&l->item[k - 1], &d); k--)
			l->item[k] = l->item[k - 1];
		l->item[k] = d;
	}
}

/* The line without its end; *ret_len 0 when there is none. */
static const char *source_line(const struct diag_list *l, uint32_t line, size_t *ret_len)
{
	const char *p = l->source, *end = l->source + l->source_len, *stop;

	for (uint32_t n = 1; p && p < end && n < line; n++) {
		p = memchr(p, '\n', (size_t)(end - p));
		p = p ? p + 1 : end;
	}
	*ret_len = 0;
	if (!p || p >= end || line == 0)
		return "";
	stop = memchr(p, '\n', (size_t)(end - p));
	stop = stop ? stop : end;
	if (stop > p && stop[-1] == '\r')
		stop--;
	*ret_len = (size_t)(stop - p);
	return p;
}

/* Columns that the first `chars` characters take as utf8_escape() shows them: a place counts characters, a terminal does not. */
static int columns(const char *p, size_t len, uint32_t chars)
{
	int sum = 0;

	for (size_t i = 0; i < len && chars > 0; chars--) {
		unsigned n = utf8_printable(p + i, len - i);
		uint32_t code = 0;

		if (n) {
			(void)utf8_decode(p + i, n, &code);
			sum += (int)utf8_columns(code);
		} else {
			n = utf8_decode(p + i, len - i, &code);
			n = n ? n : 1;
			sum += 4 * (int)n;
		}
		i += n;
	}
	return sum;
}

/* [D4] Length of what may be shown: up to a value of `password`, in whatever style it is written. */
static size_t before_secret(const char *p, size_t len)
{
	static const char key[] = "password";
	const size_t key_len = sizeof(key) - 1;

	for (size_t i = 0; i + key_len < len; i++) {
		size_t end = i + key_len;

		if (strncasecmp(p + i, key, key_len) != 0)
			continue;
		while (end < len && strchr(" \t\"'", p[end]))
			end++;
		if (end < len && strchr(":=", p[end]))
			return end + 1;
	}
	return len;
}

int diag_format(const struct diag_list *l, uint32_t i, char *buf, size_t size)
{
	const struct diag *d = &l->item[i];
	char line[4 * LINE_MAX_SHOWN + 1];
	const char *source, *rest = "";
	size_t len, shown;

	if (d->line == 0)
		return snprintf(buf, size, "%s: error: %s%s%s\n", l->file, d->text, d->hint[0] ? "; " : "", d->hint);
	source = source_line(l, d->line, &len);
	if (len > LINE_MAX_SHOWN)
		len = whole_characters(source, LINE_MAX_SHOWN);
	if (len == 0)
		return snprintf(buf, size, "%s:%u:%u: error: %s%s%s\n", l->file, d->line, d->col, d->text,
				d->hint[0] ? "; " : "", d->hint);
	shown = before_secret(source, len);
	if (shown < len)
		rest = " ...";
	utf8_escape(source, shown, line, sizeof(line));
	return snprintf(buf, size, "%s:%u:%u: error: %s\n    %s%s\n    %*s^%s%s\n", l->file, d->line, d->col, d->text, line, rest,
			columns(source, shown, d->col ? d->col - 1 : 0), "", d->hint[0] ? " " : "", d->hint);
}

static unsigned min3(unsigned a, unsigned b, unsigned c)
{
	return MIN_OF(MIN_OF(a, b), c);
}

/* Levenshtein, two rows; words over 63 bytes are not near anything. */
static unsigned distance(const char *a, const char *b)
{
	size_t la = strlen(a), lb = strlen(b);
	unsigned row[64], diagonal, above;

	if (la > 63 || lb > 63)
		return 64;
	for (size_t j = 0; j <= lb; j++)
		row[j] = (unsigned)j;
	for (size_t i = 1; i <= la; i++) {
		diagonal = row[0];
		row[0] = (unsigned)i;
		for (size_t j = 1; j <= lb; j++) {
			above = row[j];
			row[j] = min3(above + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1]));
			diagonal = above;
		}
	}
	return row[lb];
}

const char *diag_nearest(const char *word, const char *const *names)
{
	const char *best = NULL;
	unsigned least = 3;

	for (; *names; names++) {
		unsigned d = distance(word, *names);

		if (d < least && d < strlen(word)) {
			least = d;
			best = *names;
		}
	}
	return best;
}
