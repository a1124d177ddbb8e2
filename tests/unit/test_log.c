/* test_log.c - one line a message, whatever stands in it; errno survives. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <string.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "log.h"

static int saved_stderr, reader;
static char got[8192];

/* stderr becomes one end of a pair that keeps message borders: one write, one message. */
static void divert(void)
{
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
	saved_stderr = dup(STDERR_FILENO);
	assert_true(saved_stderr >= 0);
	assert_true(dup2(pair[1], STDERR_FILENO) >= 0);
	close(pair[1]);
	reader = pair[0];
}

static void restore(void)
{
	assert_true(dup2(saved_stderr, STDERR_FILENO) >= 0);
	close(saved_stderr);
	close(reader);
}

static const char *logged(void (*fn)(const char *fmt, ...), const char *text)
{
	ssize_t n;

	divert();
	log_open("engine");
	errno = ENOTTY;
	fn("%s", text);
	assert_int_equal(errno, ENOTTY);
	n = recv(reader, got, sizeof(got) - 1, MSG_DONTWAIT);
	assert_true(n > 0);
	got[n] = '\0';
	assert_int_equal(recv(reader, got + n, 1, MSG_DONTWAIT), -1);	/* one write */
	restore();
	assert_int_equal(got[n - 1], '\n');
	assert_null(memchr(got, '\n', (size_t)n - 1));
	return got;
}

static void levels(void **state)
{
	(void)state;
	assert_string_equal(logged(log_error, "a"), "<3>engine: a\n");
	assert_string_equal(logged(log_warning, "b"), "<4>engine: b\n");
	assert_string_equal(logged(log_notice, "c"), "<5>engine: c\n");
	assert_string_equal(logged(log_info, ""), "<6>engine: \n");
}

static void control_characters(void **state)
{
	char text[3] = "";

	(void)state;
	assert_string_equal(logged(log_info, "a\nb\r\t\033[31mc\177"), "<6>engine: a\\x0ab\\x0d\\x09\\x1b[31mc\\x7f\n");
	for (int c = 1; c < 256; c++) {
		text[0] = (char)c;
		text[1] = 'z';
		logged(log_info, text);
		for (const char *p = got; *p != '\n'; p++)
			assert_true((unsigned char)*p >= 0x20 && (unsigned char)*p < 0x7f);
	}
}

static void utf8_passes(void **state)
{
	(void)state;
	assert_string_equal(logged(log_info, "\xe6\xa1\x9c \xc3\xa9 \xf0\x9f\x8c\xb8"),
			    "<6>engine: \xe6\xa1\x9c \xc3\xa9 \xf0\x9f\x8c\xb8\n");
}

static void utf8_that_is_none(void **state)
{
	static const struct {
		const char *in, *out;
	} t[] = {
		{ "\xc3", "\\xc3" },					/* cut */
		{ "\xc0\x8a", "\\xc0\\x8a" },				/* a long way to write a line end */
		{ "\xe0\x80\x8a", "\\xe0\\x80\\x8a" },
		{ "\xed\xa0\x80", "\\xed\\xa0\\x80" },			/* surrogate */
		{ "\xf5\x80\x80\x80", "\\xf5\\x80\\x80\\x80" },	/* beyond the last */
		{ "\xc2\x9b" "31m", "\\xc2\\x9b31m" },			/* a terminal's control, in one character */
		{ "\xe2\x80\xae", "\\xe2\\x80\\xae" },			/* right to left */
		{ "\xe2\x80\xa8", "\\xe2\\x80\\xa8" },			/* line separator */
	};
	char want[64];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		snprintf(want, sizeof(want), "<6>engine: %s\n", t[i].out);
		assert_string_equal(logged(log_info, t[i].in), want);
	}
}

static void long_text_is_cut(void **state)
{
	static char text[100000];
	size_t n;

	(void)state;
	memset(text, 'x', sizeof(text) - 1);
	n = strlen(logged(log_error, text));
	assert_true(n > 1000 && n < 1100);
	assert_string_equal(got + n - 5, "x...\n");
	memset(text, '\n', sizeof(text) - 1);	/* the worst: four for one */
	n = strlen(logged(log_error, text));
	assert_true(n > 4000 && n < 4200);
}

static void closed_stderr(void **state)
{
	int saved = dup(STDERR_FILENO);

	(void)state;
	assert_true(saved >= 0);
	close(STDERR_FILENO);
	errno = EIO;
	log_error("nobody hears this");
	assert_int_equal(errno, EIO);
	assert_true(dup2(saved, STDERR_FILENO) >= 0);
	close(saved);
}

static void on_a_terminal(void **state)
{
	int master = posix_openpt(O_RDWR | O_NOCTTY), slave;
	ssize_t n;

	(void)state;
	if (master < 0 || grantpt(master) < 0 || unlockpt(master) < 0) {
		print_message("no pseudo terminals here\n");
		skip();
	}
	slave = open(ptsname(master), O_RDWR | O_NOCTTY);
	assert_true(slave >= 0);
	saved_stderr = dup(STDERR_FILENO);
	dup2(slave, STDERR_FILENO);
	log_open("relay");
	log_warning("x");
	dup2(saved_stderr, STDERR_FILENO);
	close(saved_stderr);
	close(slave);
	n = read(master, got, sizeof(got) - 1);
	close(master);
	assert_true(n > 0);
	got[n] = '\0';
	assert_string_equal(got, "egressd relay: warning: x\r\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(levels),
		cmocka_unit_test(control_characters),
		cmocka_unit_test(utf8_passes),
		cmocka_unit_test(utf8_that_is_none),
		cmocka_unit_test(long_text_is_cut),
		cmocka_unit_test(closed_stderr),
		cmocka_unit_test(on_a_terminal),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
