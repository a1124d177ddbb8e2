/* yaml_scan.h - text before the YAML parser sees it: what that would accept silently or pay too much for is told, and a
 * copy goes on that has it no more.
 *
 * [YS1] Characters  NUL, other control, bidi (UAX 9) and tab characters and what is no UTF-8 are errors, each with its place.
 *                   The copy has spaces for a tab, in front of a line up to the next eighth column as editors show it, and
 *                   nothing for the others; a place in it is translated back by yaml_scan_col().
 * [YS2] Cost        brackets nested deeper than YAML_BRACKETS are an error; the copy ends above the line where the outermost
 *                   of them opened, since the parser's time grows with the square of their number (40 KB of them: 3.3 s).
 * [YS3] Bound       1 MiB; of more bad characters than DIAG_MAX all are counted and there is nothing to parse.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "compiler.h"
#include "diag.h"

#define YAML_DEPTH    16
#define YAML_BRACKETS (4 * YAML_DEPTH)	/* those within quotes and comments count, too */

struct yaml_fix {
	uint32_t line, col;	/* in the copy: of the last space, or of what follows */
	int32_t shift;		/* columns that the copy lacks from there on */
};

struct yaml_scan {
	const char *text;	/* to be parsed: what was given, or the copy */
	size_t len;
	char *copy;
	uint32_t tab_line;	/* the first one indented with a tab, or 0 */
	uint32_t end_line;	/* [YS2] the first one that is not in the copy, or 0 */
	uint32_t nfixes;
	struct yaml_fix fix[DIAG_MAX];
};

/* 0; -EINVAL: nothing can be parsed; -ENOMEM. Errors are in `diags` in both of the first cases. */
int yaml_scan(const char *text, size_t len, struct diag_list *diags, struct yaml_scan *ret) MUST_CHECK;
void yaml_scan_free(struct yaml_scan *s);

/* The column that a place of the copy has in the text. Places are 1-based, as in diags. */
uint32_t yaml_scan_col(const struct yaml_scan *s, uint32_t line, uint32_t col);
/* Was a character changed between the first and the last one of what lies from one place up to, without, the other? */
bool yaml_scan_within(const struct yaml_scan *s, uint32_t line, uint32_t col, uint32_t end_line, uint32_t end_col);
