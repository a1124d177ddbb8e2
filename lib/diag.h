/* diag.h - errors with a place: file:line:col, the line itself, a caret and a remedy; all of them at once.
 *
 * [D1] Bound   at most DIAG_MAX are kept; the rest are counted.
 * [D2] Safe    text taken from the input is escaped (control, bidi and invalid UTF-8 as \xNN) before it is kept.
 * [D3] Closed  of a place that was closed nothing more is told: what it says was refused, and is not known.
 * [D4] Secret  of a quoted line, what follows a key `password` is not shown: errors go to the journal.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "compiler.h"

#define DIAG_MAX  100
#define DIAG_CLOSED (DIAG_MAX + 8)
#define DIAG_TEXT 2048	/* room for any item with a file name of up to 255 bytes */

struct diag {
	uint32_t line, col;	/* 1-based; 0: the whole file */
	char text[200];		/* "limit: bare number; write a unit, such as 200MB" */
	char hint[100];		/* "did you mean 'limit'?", or "" */
};

struct diag_list {
	const char *file;	/* name to print; borrowed */
	const char *source;	/* whole text, to quote lines; borrowed */
	size_t source_len;
	uint32_t count;		/* all, also those beyond DIAG_MAX */
	struct diag item[DIAG_MAX];
	uint32_t nclosed;
	struct diag_place {
		uint32_t line, col;
	} closed[DIAG_CLOSED];
};

void diag_init(struct diag_list *l, const char *file, const char *source, size_t source_len);
void diag_add(struct diag_list *l, uint32_t line, uint32_t col, const char *hint, const char *fmt, ...)
	PRINTF(5, 6);

/* [D3] At most DIAG_CLOSED of them. An error is told for each but a few, so that with more nothing could be kept. */
void diag_close(struct diag_list *l, uint32_t line, uint32_t col);

/* What is kept in order of place; of one place in the order told. */
void diag_sort(struct diag_list *l);

/* "file:3:1: error: text\n    limits: 5\n    ^ did you mean 'limit'?\n" for item i. The caret stands under the place in a
 * terminal, wide and escaped characters counted; at the end of what is shown of a long line. snprintf semantics. */
int diag_format(const struct diag_list *l, uint32_t i, char *buf, size_t size);

/* The nearest of `names` (NULL-terminated) by edit distance <= 2, or NULL. */
const char *diag_nearest(const char *word, const char *const *names);
