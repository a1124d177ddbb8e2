/* log.h - one line a failure, to the journal (sd-daemon priority prefixes on stderr) or a terminal.
 *
 * lib/ never logs; daemon/ logs each failure once, where it is handled, and says what happens next. errno is preserved.
 * Control characters in the text are escaped.
 */
#pragma once

#include "compiler.h"

void log_open(const char *process);	/* "supervisor", "engine", "relay" */
void log_error(const char *fmt, ...) PRINTF(1, 2);
void log_warning(const char *fmt, ...) PRINTF(1, 2);
void log_notice(const char *fmt, ...) PRINTF(1, 2);
void log_info(const char *fmt, ...) PRINTF(1, 2);
