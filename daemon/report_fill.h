/* report_fill.h - the words and numbers of one finding, from the table as it stands. Reads only. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "area.h"
#include "policy.h"
#include "report.h"

/* The command that lets go on what account `slot` blocks, with what it grants by itself as budget: of a group or total by a member, which
 * reaches the whole account. "": nothing is blocked, or no member is known. */
const char *report_way_on(const struct area *a, const struct policy *p, uint32_t slot, char *buf, size_t size);
