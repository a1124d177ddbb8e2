/* file_replace.h - a small file of ours that is whole at any time: the old one, or the new one. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "compiler.h"

/* By PATH.new, mode 600, and rename(2). durable: on disk before it takes the old one's place. 0, or -errno: the old one stands, and no PATH.new
 * is left. One caller a path at a time. */
int file_replace(const char *path, const void *data, size_t len, bool durable) MUST_CHECK;
