/* diag.c - see diag.h for the contract. */
#include "diag.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "utf8.h"

void diag_init(struct diag_list *l, const char *file, const char *source, size_t source_len)
{
	memset(l, 0, sizeof(*l));
	l->file = file;
	l->source = source;
	l->source_len = source_len;
}

/* [D2] */
static void escape(const char *in, size_t len, char *out, size_t size)
{
	size_t at = 0;

	for (size_t i = 0; i < len;) {
		unsigned n = utf8_printable(in + i, len - i);

		if (n && at + n < size) {
			memcpy(out + at, in + i, n);
			at += n;
			i += n;
		} else if (!n && at + 4 < size) {
			snprintf(out + at, 5, "\\x%02x", (unsigned char)in[i]);
			at += 4;
			i++;
		} else {
			break;
		}
	}
	out[at] = '\0';
}

void diag_add(struct diag_list *l, uint32_t line, uint32_t col, const char *hint, const char *fmt, ...)
{
	char raw[sizeof(l->item[0].text)];
	struct diag *d;
	va_list ap;

	if (l->count++ >= DIAG_MAX)	/* [D1] */
		return;
	d = &l->item[l->count - 1];
	d->line = line;
	d->col = col;
	va_start(ap, fmt);
	vsnprintf(raw, sizeof(raw), fmt, ap);
	va_end(ap);
	escape(raw, strlen(raw), d->text, sizeof(d->text));
	escape(hint ? hint : "", hint ? strlen(hint) : 0, d->hint, sizeof(d->hint));
}

static size_t quote(const struct diag_list *l, uint32_t line, char *out, size_t size)
{
	const char *p = l->source, *end = l->source + l->source_len, *stop;

	for (uint32_t n = 1; p && p < end && n < line; n++) {
		p = memchr(p, '\n', (size_t)(end - p));
		p = p ? p + 1 : end;
	}
	if (!p || p >= end || line == 0)
		return 0;
	stop = memchr(p, '\n', (size_t)(end - p));
	stop = stop ? stop : end;
	if (stop > p && stop[-1] == '\r')
		stop--;
	escape(p, MIN_OF((size_t)(stop - p), (size_t)160), out, size);
	return strlen(out);
}

int diag_format(const struct diag_list *l, uint32_t i, char *buf, size_t size)
{
	const struct diag *d = &l->item[i];
	char line[400] = "";
	int indent;

	if (d->line == 0)
		return snprintf(buf, size, "%s: error: %s%s%s\n", l->file, d->text, d->hint[0] ? "; " : "", d->hint);
	if (quote(l, d->line, line, sizeof(line)) == 0)
		return snprintf(buf, size, "%s:%u:%u: error: %s%s%s\n", l->file, d->line, d->col, d->text,
				d->hint[0] ? "; " : "", d->hint);
	indent = (int)MIN_OF(d->col ? d->col - 1 : 0, (uint32_t)strlen(line));
	return snprintf(buf, size, "%s:%u:%u: error: %s\n    %s\n    %*s^%s%s\n", l->file, d->line, d->col, d->text, line,
			indent, "", d->hint[0] ? " " : "", d->hint);
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
