/* log.c - one write() a line, so that lines of several threads and processes do not mix. */
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

#include "log.h"

#define TEXT_MAX 1024
#define LINE_MAX_LEN (TEXT_MAX * 4 + 96)	/* an escaped byte takes four */

static char process[32];
static bool plain;	/* a terminal, not the journal */

void log_open(const char *name)
{
	snprintf(process, sizeof(process), "%s", name);
	plain = isatty(STDERR_FILENO) == 1;
}

/* Length of the valid UTF-8 sequence at s, *ret the character; 0 when it is none. */
static size_t utf8(const unsigned char *s, size_t n, uint32_t *ret)
{
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	size_t len = s[0] < 0x80 ? 1 : s[0] >> 5 == 6 ? 2 : s[0] >> 4 == 14 ? 3 : s[0] >> 3 == 30 ? 4 : 0;
	uint32_t c = len == 1 ? s[0] : len ? s[0] & (0x7fu >> len) : 0;

	if (len == 0 || len > n)
		return 0;
	for (size_t i = 1; i < len; i++) {
		if (s[i] >> 6 != 2)
			return 0;
		c = c << 6 | (s[i] & 0x3f);
	}
	if (c < least[len] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
		return 0;
	*ret = c;
	return len;
}

/* Moves a terminal's cursor, ends a line, or turns the reading direction round. */
static bool harmful(uint32_t c)
{
	return c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0x061c || c == 0x200e || c == 0x200f ||
	       (c >= 0x2028 && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069) || c == 0xfeff;
}

static size_t escape(char *out, const char *text)
{
	static const char hex[] = "0123456789abcdef";
	const unsigned char *s = (const unsigned char *)text;
	size_t n = strlen(text), at = 0;

	while (n > 0) {
		uint32_t c = 0;
		size_t len = utf8(s, n, &c);
		bool bad = len == 0 || harmful(c);

		len = len ? len : 1;
		for (size_t i = 0; i < len; i++) {
			if (bad) {
				out[at++] = '\\';
				out[at++] = 'x';
				out[at++] = hex[s[i] >> 4];
				out[at++] = hex[s[i] & 15];
			} else {
				out[at++] = (char)s[i];
			}
		}
		s += len;
		n -= len;
	}
	return at;
}

static PRINTF(3, 0) void line(int priority, const char *word, const char *fmt, va_list ap)
{
	char text[TEXT_MAX], out[LINE_MAX_LEN];
	int saved = errno, n;
	size_t len;

	n = vsnprintf(text, sizeof(text), fmt, ap);
	if (n < 0)
		snprintf(text, sizeof(text), "message could not be formatted: %.900s", fmt);
	else if ((size_t)n >= sizeof(text))
		memcpy(text + sizeof(text) - 4, "...", 4);
	if (plain)
		n = snprintf(out, 96, "egressd %s: %s", process, word);
	else
		n = snprintf(out, 96, "<%d>%s: ", priority, process);
	len = (size_t)n + escape(out + n, text);
	out[len++] = '\n';
	/* Nowhere to report that the log itself cannot be written. */
	if (write(STDERR_FILENO, out, len) < 0)
		errno = 0;
	errno = saved;
}

#define LEVEL(name, priority, word)                                                               \
	void name(const char *fmt, ...)                                                           \
	{                                                                                         \
		va_list ap;                                                                       \
												  \
		va_start(ap, fmt);                                                                \
		line(priority, word, fmt, ap);                                                    \
		va_end(ap);                                                                       \
	}

LEVEL(log_error, LOG_ERR, "error: ")
LEVEL(log_warning, LOG_WARNING, "warning: ")
LEVEL(log_notice, LOG_NOTICE, "")
LEVEL(log_info, LOG_INFO, "")
