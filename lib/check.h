/* check.h - assertions. None of them is for input errors: those are return values.
 *
 * BUG_ON        always on: the program is wrong, going on would lose what the file's contract promises.
 * DEBUG_ASSERT  on unless NDEBUG: cheap statements of an invariant.
 */
#pragma once

#include <stdio.h>
#include <stdlib.h>

#define BUG_ON(cond)                                                                              \
	do {                                                                                      \
		if (__builtin_expect(!!(cond), 0)) {                                              \
			fprintf(stderr, "BUG %s:%d: %s\n", __FILE__, __LINE__, #cond);            \
			abort();                                                                  \
		}                                                                                 \
	} while (0)

#ifdef NDEBUG
#define DEBUG_ASSERT(cond) ((void)sizeof(!(cond)))
#else
#define DEBUG_ASSERT(cond) BUG_ON(!(cond))
#endif
