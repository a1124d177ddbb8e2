/* utf8.h - which bytes may be shown to people: valid UTF-8 (RFC 3629) without control or bidi characters (UAX 9). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Length 1..4 of the well-formed character at p, 0 if there is none; *ret_code its code point. */
unsigned utf8_decode(const char *p, size_t len, uint32_t *ret_code);

/* As utf8_decode, and 0 for control characters (C0 with tab, DEL, C1), bidi controls, line separators and noncharacters. */
unsigned utf8_printable(const char *p, size_t len);

/* What is shown of the bytes at p, len > 0: a printable character as it is, of any other byte \xNN, escaped so in out. Length 1..4 of it,
 * without a NUL; *ret_took bytes of p. */
unsigned utf8_show(const char *p, size_t len, char out[static 5], unsigned *ret_took);

/* As much of that as fits into size > 0 bytes with a NUL, nothing in part. Its length. */
size_t utf8_escape(const char *p, size_t len, char *out, size_t size);

/* Columns of a terminal that a printable character takes: 2 for wide ones (UAX 11: W, F), 0 for combining marks, else 1. */
unsigned utf8_columns(uint32_t code);

bool utf8_is_bidi(uint32_t code);
