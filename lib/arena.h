/* arena.h - memory that is given back all at once: what lives as long as one compilation.
 *
 * [AR1] Zeroed    every piece is all 0 and aligned for any type.
 * [AR2] Failure   NULL when there is no memory; the arena stays usable and arena_free() takes it.
 */
#pragma once

#include <stddef.h>

#include "compiler.h"

struct arena_chunk;

struct arena {			/* {0} is an empty arena */
	struct arena_chunk *chunk;
};

void *arena_alloc(struct arena *a, size_t size) MUST_CHECK;
void *arena_array(struct arena *a, size_t count, size_t size) MUST_CHECK;	/* NULL on overflow too */
void arena_free(struct arena *a);
