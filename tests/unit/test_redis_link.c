/* redis_link and redis_wire against servers that lie, drip and hang, and against a real one. The fake server reads whole requests and
 * answers them by a script; its connections are counted, so that a test sees which failures closed one.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "redis_link.h"

#define TIMEOUT 300u
#define LATE	200u		/* on a busy machine */

static char dir[] = "/tmp/egressd-redis.XXXXXX";
static struct config conf;

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void pause_ms(unsigned ms)
{
	nanosleep(&(struct timespec){ ms / 1000, (long)(ms % 1000) * 1000000 }, NULL);
}

static int listen_at(const char *name, struct sockaddr_un *a)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	*a = (struct sockaddr_un){ .sun_family = AF_UNIX };
	snprintf(a->sun_path, sizeof(a->sun_path), "%s/%s", dir, name);
	unlink(a->sun_path);
	assert_int_equal(bind(fd, (struct sockaddr *)a, sizeof(*a)), 0);
	assert_int_equal(listen(fd, 8), 0);
	return fd;
}

/* ---- the fake server ---- */

enum how { SAY, DRIP, HANG, HANG_UP, FLOOD, SAY_LATER };

struct step {			/* what is answered to one request, in turn; PING always gets PONG */
	enum how how;
	const char *text;
	size_t len;		/* 0: strlen */
};

static struct {
	int fd;
	pthread_t thread;
	const struct step *step;
	unsigned nsteps, at;
	atomic_uint connections;
	atomic_bool stop;
} fake;

/* A whole request: "*N", then N times "$LEN" and as many bytes. false: the other side is gone. */
static bool read_request(int fd, char *first, size_t size)
{
	char buf[65536];
	size_t have = 0;

	for (;;) {
		char *p = buf, *end;
		struct pollfd w = { .fd = fd, .events = POLLIN };
		long n = -1;
		ssize_t got;

		buf[have] = '\0';
		if (have && strchr(buf, '\n'))
			n = strtol(buf + 1, &p, 10);
		for (long i = 0; n >= 0 && i < n; i++) {
			char *dollar = memchr(p, '$', (size_t)(buf + have - p));
			long len = dollar ? strtol(dollar + 1, &end, 10) : -1;

			if (len < 0 || end + 2 + len + 2 > buf + have) {
				n = -1;
				break;
			}
			if (i == 0)
				snprintf(first, size, "%.*s", (int)len, end + 2);
			p = end + 2 + len;
		}
		if (n > 0)
			return true;
		while (!atomic_load(&fake.stop) && poll(&w, 1, 20) == 0)
			;
		if (atomic_load(&fake.stop))
			return false;
		got = read(fd, buf + have, sizeof(buf) - 1 - have);
		if (got <= 0)
			return false;
		have += (size_t)got;
	}
}

static bool say(int fd, const char *text, size_t len)
{
	return send(fd, text, len, MSG_NOSIGNAL) == (ssize_t)len;
}

static bool act(int fd, const struct step *s)
{
	size_t len = s->len ? s->len : s->text ? strlen(s->text) : 0;
	static char lots[65536];

	switch (s->how) {
	case SAY:
		return say(fd, s->text, len);
	case SAY_LATER:
		pause_ms(50);
		return say(fd, s->text, len);
	case DRIP:
		for (size_t i = 0; i < len && !atomic_load(&fake.stop); i++) {
			if (!say(fd, s->text + i, 1))
				return false;
			pause_ms(50);
		}
		return true;
	case FLOOD:
		if (!say(fd, s->text, len))
			return false;
		memset(lots, 'x', sizeof(lots));
		while (!atomic_load(&fake.stop) && say(fd, lots, sizeof(lots)))
			;
		return false;
	case HANG:
		while (!atomic_load(&fake.stop))
			pause_ms(10);
		return false;
	case HANG_UP:
		break;
	}
	return false;
}

static void *fake_run(void *arg)
{
	(void)arg;
	while (!atomic_load(&fake.stop)) {
		struct pollfd p = { .fd = fake.fd, .events = POLLIN };
		char verb[32];
		int fd;

		if (poll(&p, 1, 20) <= 0)
			continue;
		fd = accept(fake.fd, NULL, NULL);
		atomic_fetch_add(&fake.connections, 1);
		while (read_request(fd, verb, sizeof(verb))) {
			if (strcmp(verb, "PING") == 0) {
				if (!say(fd, "+PONG\r\n", 7))
					break;
				continue;
			}
			if (fake.at == fake.nsteps || !act(fd, &fake.step[fake.at++]))
				break;
		}
		close(fd);
	}
	return NULL;
}

static struct redis_link *with_fake(const struct step *step, unsigned n)
{
	struct sockaddr_un a;
	struct redis_link *l;

	fake.fd = listen_at("fake", &a);
	fake.step = step;
	fake.nsteps = n;
	fake.at = 0;
	atomic_store(&fake.connections, 0);
	atomic_store(&fake.stop, false);
	snprintf(conf.redis_socket, sizeof(conf.redis_socket), "%s", a.sun_path);
	snprintf(conf.gateway, sizeof(conf.gateway), "gw");
	assert_int_equal(pthread_create(&fake.thread, NULL, fake_run, NULL), 0);
	assert_int_equal(redis_link_new(&conf, TIMEOUT, &l), 0);
	assert_int_equal(redis_connect(l), REDIS_OK);
	return l;
}

static void done(struct redis_link *l)
{
	redis_link_free(l);
	atomic_store(&fake.stop, true);
	pthread_join(fake.thread, NULL);
	close(fake.fd);
}

static bool closed(struct redis_link *l)
{
	unsigned before = atomic_load(&fake.connections);

	assert_int_equal(redis_connect(l), REDIS_OK);
	return atomic_load(&fake.connections) > before;
}

#define FAKE(...)                                                                                                      \
	static const struct step steps[] = { __VA_ARGS__ };                                                            \
	struct redis_link *l = with_fake(steps, ARRAY_SIZE(steps))

static enum redis_class alert(struct redis_link *l, uint64_t seq, const char *id)
{
	uint64_t top;

	return redis_alert(l, seq, id, "{}", 2, &top);
}

/* [L1] */
static void dripping_is_not_waited_for(void **state)
{
	FAKE({ DRIP, "$20\r\n12345678901234567890\r\n", 0 });
	uint64_t from = now_ms();

	(void)state;
	assert_int_equal(alert(l, 1, "a"), REDIS_RETRY);
	assert_in_range(now_ms() - from, TIMEOUT - 5, TIMEOUT + LATE);
	assert_true(closed(l));
	done(l);
}

/* [L1] Each of its commands alone would be in time. */
static void several_commands_share_the_deadline(void **state)
{
	FAKE({ DRIP, "$1\r\n", 0 }, { HANG, NULL, 0 });
	uint64_t from = now_ms();

	(void)state;
	assert_int_equal(alert(l, 1, "a"), REDIS_RETRY);
	assert_in_range(now_ms() - from, TIMEOUT - 5, TIMEOUT + LATE);
	done(l);
}

static void a_hanging_publish_loses_nothing(void **state)
{
	FAKE({ SAY, "$3\r\n1-0\r\n", 0 }, { HANG, NULL, 0 });
	uint64_t from = now_ms();

	(void)state;
	assert_int_equal(alert(l, 1, "a"), REDIS_OK);	/* it stands in the stream */
	assert_in_range(now_ms() - from, TIMEOUT - 5, TIMEOUT + LATE);
	done(l);
}

static void a_server_that_never_reads_is_left(void **state)
{
	FAKE({ HANG, NULL, 0 }, { HANG, NULL, 0 });
	size_t len = 8 << 20;	/* more than socket buffers take */
	char *json = calloc(1, len);
	uint64_t top, from;

	(void)state;
	assert_int_equal(alert(l, 1, "a"), REDIS_RETRY);
	assert_non_null(json);
	from = now_ms();
	assert_int_equal(redis_alert(l, 1, "a", json, len, &top), REDIS_RETRY);
	assert_in_range(now_ms() - from, 0, TIMEOUT + LATE);
	free(json);
	done(l);
}

/* As Debian has Redis make it. */
static void a_socket_of_others_is_the_operators(void **state)
{
	const uid_t me = geteuid();
	struct config c = { .redis = 1, .gateway = "gw1" };
	enum redis_class class;
	struct redis_link *l;
	struct sockaddr_un a;
	int fd = listen_at("closed", &a);

	(void)state;
	assert_int_equal(chmod(dir, 0755), 0);
	assert_int_equal(chmod(a.sun_path, 0), 0);
	snprintf(c.redis_socket, sizeof(c.redis_socket), "%s", a.sun_path);
	assert_int_equal(redis_link_new(&c, TIMEOUT, &l), 0);
	assert_true(me != 0 || seteuid(65534) == 0);	/* root may all */
	class = redis_connect(l);
	assert_int_equal(seteuid(me), 0);
	assert_int_equal(class, REDIS_OPERATOR);
	assert_non_null(strstr(redis_link_error(l), "Permission denied (unixsocketperm 770"));
	assert_null(redis_link_free(l));
	close(fd);
	unlink(a.sun_path);
}

/* [W2] */
static void sizes_are_bounded(void **state)
{
	static const struct step cases[][1] = {
		{ { FLOOD, "$999999999\r\n", 0 } },
		{ { FLOOD, "+", 0 } },
		{ { SAY, "*1000000000\r\n", 0 } },
		{ { SAY, "*2\r\n*65000\r\n", 0 } },
		{ { SAY, "*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n", 0 } },
		{ { SAY, "*-5\r\n", 0 } },
		{ { SAY, "?what\r\n", 0 } },
		{ { SAY, "$2\r\nabXX", 0 } },	/* no end of line; and not the id that XADD answers by */
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct redis_link *l = with_fake(cases[i], 1);
		enum redis_class class = alert(l, 1, "a");

		/* The fourth begins two arrays of which not all comes: in bounds, and then too late. The second may take hiredis, which
		 * looks for the end of the line anew each time, more than its time in a sanitizer's hands. */
		if (class != (i == 3 ? REDIS_RETRY : REDIS_HOSTILE) && !(i == 1 && class == REDIS_RETRY))
			fail_msg("case %zu: class %d: %s", i, class, redis_link_error(l));
		done(l);
	}
}

/* [W3] */
static void unasked_bytes_are_no_answer(void **state)
{
	(void)state;
	{
		FAKE({ SAY, "$3\r\n1-0\r\n:1\r\n", 0 });

		assert_int_equal(alert(l, 1, "a"), REDIS_HOSTILE);
		assert_true(closed(l));
		done(l);
	}
	{
		/* Nobody hears it: stored all the same, and an administrator is told why. */
		FAKE({ SAY, "$3\r\n1-0\r\n", 0 }, { SAY, "-NOPERM no channel\r\n", 0 }, { SAY, "$3\r\n2-0\r\n", 0 }, { SAY, ":1\r\n", 0 });

		assert_int_equal(alert(l, 1, "a"), REDIS_OK);
		assert_string_equal(redis_link_unheard(l), "NOPERM no channel");
		assert_int_equal(alert(l, 2, "b"), REDIS_OK);
		assert_string_equal(redis_link_unheard(l), "");
		done(l);
	}
	{
		FAKE({ SAY, "$3\r\n1-0\r\n", 0 }, { SAY, ":1\r\n", 0 }, { SAY, "*0\r\n", 0 });
		uint64_t top = 7;

		assert_int_equal(alert(l, 1, "a"), REDIS_OK);
		assert_int_equal(redis_top(l, &top), REDIS_OK);
		assert_int_equal(top, 0);
		done(l);
	}
}

static void late_surplus_is_found_before_the_next_request(void **state)
{
	struct sockaddr_un a;
	struct redis_link *l;
	uint64_t top = 7;
	int s = listen_at("plain", &a), fd;
	char buf[4096];

	(void)state;
	snprintf(conf.redis_socket, sizeof(conf.redis_socket), "%s", a.sun_path);
	assert_int_equal(redis_link_new(&conf, 2000, &l), 0);
	/* One process plays both sides: the answer to PING is there before it is asked for. */
	{
		pid_t pid = fork();

		if (pid == 0) {
			fd = accept(s, NULL, NULL);
			(void)!read(fd, buf, sizeof(buf));
			(void)!write(fd, "+PONG\r\n", 7);
			pause_ms(100);
			(void)!write(fd, "*0\r\n", 4);
			pause_ms(3000);
			_exit(0);
		}
		assert_int_equal(redis_connect(l), REDIS_OK);
		pause_ms(300);
		assert_int_equal(redis_top(l, &top), REDIS_HOSTILE);
		assert_int_equal(top, 7);
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
	}
	redis_link_free(l);
	close(s);
}

/* ---- decisions ---- */

#define ONE(id, fields) "*1\r\n*2\r\n$16\r\negress:decisions\r\n*1\r\n*2\r\n" id fields

static void ids_rise_from_the_cursor(void **state)
{
	static const struct {
		const char *text;
		enum redis_class class;
	} cases[] = {
		{ ONE("$3\r\na-b\r\n", "*0\r\n"), REDIS_HOSTILE },
		{ ONE("$1\r\n5\r\n", "*0\r\n"), REDIS_HOSTILE },
		{ ONE("$2\r\n5-\r\n", "*0\r\n"), REDIS_HOSTILE },
		{ ONE("$4\r\n-5-1\r\n", "*0\r\n"), REDIS_HOSTILE },
		{ ONE("$4\r\n5-1 \r\n", "*0\r\n"), REDIS_HOSTILE },
		{ ONE("$22\r\n18446744073709551616-0\r\n", "*0\r\n"), REDIS_HOSTILE },
		{ ONE("$41\r\n18446744073709551615-18446744073709551615\r\n", "*0\r\n"), REDIS_OK },
		{ ONE("$3\r\n2-0\r\n", "*0\r\n"), REDIS_HOSTILE },	/* the cursor itself */
		{ ONE("$3\r\n1-9\r\n", "*0\r\n"), REDIS_HOSTILE },
		{ ONE("$3\r\n2-1\r\n", "*0\r\n"), REDIS_OK },
		{ ONE("$3\r\n2-1\r\n", "$-1\r\n"), REDIS_OK },
		{ ONE("$3\r\n2-1\r\n", "*1\r\n$1\r\nv\r\n"), REDIS_HOSTILE },
		{ ONE("$3\r\n2-1\r\n", ":1\r\n"), REDIS_HOSTILE },
		{ ONE(":2\r\n", "*0\r\n"), REDIS_HOSTILE },
		{ "*0\r\n", REDIS_HOSTILE },
		{ ":1\r\n", REDIS_HOSTILE },
		{ "$-1\r\n", REDIS_OK },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct step s = { SAY, cases[i].text, 0 };
		struct redis_link *l = with_fake(&s, 1);
		struct redis_decision d;
		char cursor[REDIS_ID] = "2-0";
		unsigned n = 9;
		enum redis_class class = redis_decisions(l, cursor, &d, 1, &n);

		if (class != cases[i].class || n > 1 || (class != REDIS_OK && n))
			fail_msg("case %zu: class %d, %u entries", i, class, n);
		assert_string_equal(cursor, "2-0");
		if (n)
			assert_true(redis_cursor_valid(d.entry));
		done(l);
	}
}

static void fields_are_whole_or_bad(void **state)
{
	static const char nul[] = ONE("$3\r\n2-1\r\n", "*4\r\n$1\r\nv\r\n$1\r\n1\r\n$3\r\nsrc\r\n$10\r\n10.0.0.1\0x\r\n");
	static const char twice[] = ONE("$3\r\n2-1\r\n", "*4\r\n$3\r\nttl\r\n$2\r\n1h\r\n$3\r\nttl\r\n$2\r\n9h\r\n");
	static const char too_long[] = ONE("$3\r\n2-1\r\n", "*2\r\n$3\r\nttl\r\n$16\r\n1h00000000000000\r\n");
	static const char fits[] = ONE("$3\r\n2-1\r\n", "*2\r\n$3\r\nttl\r\n$15\r\n1h0000000000000\r\n");
	static const char other[] = ONE("$3\r\n2-1\r\n", "*4\r\n$3\r\nttl\r\n$2\r\n1h\r\n$4\r\no\ner\r\n$1\r\nx\r\n");
	static const char nameless[] = ONE("$3\r\n2-1\r\n", "*4\r\n$3\r\nttl\r\n$2\r\n1h\r\n$0\r\n\r\n$1\r\nx\r\n");
	static const struct {
		const char *text;
		size_t len;
		const char *bad, *unknown;
	} cases[] = {
		{ nul, sizeof(nul) - 1, "src", "" },
		{ twice, sizeof(twice) - 1, "ttl", "" },
		{ too_long, sizeof(too_long) - 1, "ttl", "" },
		{ fits, sizeof(fits) - 1, NULL, "" },
		{ other, sizeof(other) - 1, NULL, "o?er" },
		{ nameless, sizeof(nameless) - 1, NULL, "?" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct step s = { SAY, cases[i].text, cases[i].len };
		struct redis_link *l = with_fake(&s, 1);
		struct redis_decision d;
		char cursor[REDIS_ID] = "0";
		unsigned n = 0;

		assert_int_equal(redis_decisions(l, cursor, &d, 1, &n), REDIS_OK);
		assert_int_equal(n, 1);
		assert_string_equal(d.entry, "2-1");	/* so that it can be answered */
		if (cases[i].bad)
			assert_string_equal(d.bad, cases[i].bad);
		else
			assert_null(d.bad);
		assert_string_equal(d.unknown, cases[i].unknown);
		done(l);
	}
}

static void cursors(void **state)
{
	static const char *const good[] = { "0", "5", "5-9", "18446744073709551615-18446744073709551615" };
	static const char *const bad[] = { "", "$", "-", "5-", "-5", "5-9-3", "18446744073709551616", "+5", "5 " };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		assert_true(redis_cursor_valid(good[i]));
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_false(redis_cursor_valid(bad[i]));
}

/* [L2] */
static void errors_have_their_class(void **state)
{
	static const struct {
		const char *text;
		enum redis_class class;
		bool closes;
	} cases[] = {
		{ "-OOM command not allowed\r\n", REDIS_RETRY, false },
		{ "-MISCONF errors writing\r\n", REDIS_RETRY, false },
		{ "-BUSY script\r\n", REDIS_RETRY, false },
		{ "-READONLY You can't write\r\n", REDIS_RETRY, true },
		{ "-MASTERDOWN Link\r\n", REDIS_RETRY, true },
		{ "-LOADING Redis is loading\r\n", REDIS_RETRY, true },
		{ "-ERR max number of clients reached\r\n", REDIS_RETRY, true },
		{ "-NOPERM this user\r\n", REDIS_OPERATOR, false },
		{ "-NOAUTH Authentication required\r\n", REDIS_OPERATOR, true },
		{ "-WRONGTYPE Operation\r\n", REDIS_OPERATOR, false },
		{ "-ERR unknown command 'XADD'\r\n", REDIS_OPERATOR, false },
		{ "-ERR The stream has exhausted the last possible ID\r\n", REDIS_OPERATOR, false },
		{ "-ERR something new\r\n", REDIS_RETRY, false },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct step s = { SAY, cases[i].text, 0 };
		struct redis_link *l = with_fake(&s, 1);
		enum redis_class class = alert(l, 1, "a");

		if (class != cases[i].class || closed(l) != cases[i].closes)
			fail_msg("%s: class %d", cases[i].text, class);
		done(l);
	}
}

static void a_lying_top_cannot_make_ids_go_round(void **state)
{
	FAKE({ SAY, "-ERR The ID specified in XADD is equal or smaller than the target stream top item\r\n", 0 },
	     { SAY, "*0\r\n", 0 },
	     { SAY, "*1\r\n*2\r\n$22\r\n18446744073709551615-0\r\n*2\r\n$1\r\na\r\n$1\r\nb\r\n", 0 });

	(void)state;
	assert_int_equal(alert(l, 1, "a"), REDIS_OPERATOR);
	done(l);
}

/* An error may hold anything; what people read is one clean line. */
static void errors_are_printable(void **state)
{
	FAKE({ SAY, "-OOM \x1b[31m\x01 caf\xc3\xa9 \xff\r\n", 0 });

	(void)state;
	assert_int_equal(alert(l, 1, "a"), REDIS_RETRY);
	assert_string_equal(redis_link_error(l), "OOM \\x1b[31m\\x01 caf\xc3\xa9 \\xff");
	done(l);
}

/* ---- a real server ---- */

static pid_t server;
static char server_path[108];

static bool server_up(void)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), r;

	memcpy(a.sun_path, server_path, sizeof(a.sun_path));
	r = connect(fd, (struct sockaddr *)&a, sizeof(a));
	close(fd);
	return r == 0;
}

static struct redis_link *with_server(void)
{
	struct redis_link *l;

	snprintf(server_path, sizeof(server_path), "%s/real", dir);
	server = fork();
	if (server == 0) {
		int null = open("/dev/null", O_RDWR);

		dup2(null, 1);
		dup2(null, 2);
		execlp("redis-server", "redis-server", "--port", "0", "--unixsocket", server_path, "--save", "", "--dir", dir,
		       (char *)NULL);
		_exit(127);
	}
	for (unsigned i = 0; i < 500 && !server_up() && waitpid(server, NULL, WNOHANG) == 0; i++)
		pause_ms(10);
	if (!server_up()) {
		print_message("redis-server is missing (tests/need test)\n");
		skip();
	}
	conf = (struct config){ .gateway = "gw" };
	snprintf(conf.redis_socket, sizeof(conf.redis_socket), "%s", server_path);
	assert_int_equal(redis_link_new(&conf, 2000, &l), 0);
	assert_int_equal(redis_connect(l), REDIS_OK);
	return l;
}

static void server_done(struct redis_link *l)
{
	redis_link_free(l);
	kill(server, SIGKILL);
	waitpid(server, NULL, 0);
}

/* One command by hand; true when the answer begins with `want`. */
static bool by_hand(const char *command, const char *want)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char buf[4096] = "";
	ssize_t n;

	memcpy(a.sun_path, server_path, sizeof(a.sun_path));
	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(write(fd, command, strlen(command)), (ssize_t)strlen(command));
	n = read(fd, buf, sizeof(buf) - 1);
	close(fd);
	return n > 0 && strncmp(buf, want, strlen(want)) == 0;
}

static void stored_once(void **state)
{
	struct redis_link *l = with_server();
	uint64_t top = 0;

	(void)state;
	assert_int_equal(alert(l, 5, "a"), REDIS_OK);
	assert_int_equal(alert(l, 5, "a"), REDIS_OK);	/* its answer was lost, say */
	assert_true(by_hand("XLEN egress:alerts:gw\r\n", ":1\r\n"));
	/* The counter went back: another alert under an id that is taken goes above the top, once. */
	assert_int_equal(redis_alert(l, 5, "b", "{}", 2, &top), REDIS_OK);
	assert_int_equal(top, 5);
	assert_int_equal(redis_alert(l, 5, "b", "{}", 2, &top), REDIS_OK);
	assert_true(by_hand("XLEN egress:alerts:gw\r\n", ":2\r\n"));
	assert_int_equal(alert(l, 3, "c"), REDIS_OK);
	assert_true(by_hand("XLEN egress:alerts:gw\r\n", ":3\r\n"));
	server_done(l);
}

static void reactions(void **state)
{
	struct redis_link *l = with_server();
	static const char *const beat[] = { "policy", "1", NULL };

	(void)state;
	assert_true(by_hand("SET egress:alerts:gw x\r\n", "+OK"));
	assert_int_equal(alert(l, 1, "a"), REDIS_OPERATOR);	/* WRONGTYPE */
	assert_true(by_hand("DEL egress:alerts:gw\r\n", ":1"));
	assert_int_equal(alert(l, 1, "a"), REDIS_OK);
	assert_true(by_hand("CONFIG SET maxmemory 1\r\n", "+OK"));
	assert_int_equal(alert(l, 2, "b"), REDIS_RETRY);	/* OOM; PUBLISH would have gone through */
	assert_true(by_hand("CONFIG SET maxmemory 0\r\n", "+OK"));
	assert_int_equal(alert(l, 2, "b"), REDIS_OK);
	assert_true(by_hand("ACL SETUSER default -xadd\r\n", "+OK"));
	assert_int_equal(alert(l, 3, "c"), REDIS_OPERATOR);	/* NOPERM */
	assert_true(by_hand("ACL SETUSER default +xadd\r\n", "+OK"));
	assert_true(by_hand("REPLICAOF 127.0.0.1 1\r\n", "+OK"));
	assert_int_equal(alert(l, 3, "c"), REDIS_RETRY);	/* READONLY, or MASTERDOWN for what reads */
	assert_int_equal(redis_heartbeat(l, beat, 9), REDIS_RETRY);	/* closed: not connected */
	assert_true(by_hand("REPLICAOF NO ONE\r\n", "+OK"));
	assert_int_equal(redis_connect(l), REDIS_OK);
	assert_int_equal(alert(l, 3, "c"), REDIS_OK);
	assert_true(by_hand("XLEN egress:alerts:gw\r\n", ":3\r\n"));
	assert_int_equal(redis_heartbeat(l, beat, 9), REDIS_OK);
	assert_true(by_hand("HGET egress:gw:gw policy\r\n", "$1\r\n1"));
	server_done(l);
}

/* A proxy hands the request on and closes before the answer is through. */
static void a_lost_answer_makes_no_second_entry(void **state)
{
	struct redis_link *l = with_server();
	struct sockaddr_un a;
	int s = listen_at("proxy", &a);
	pid_t pid = fork();

	(void)state;
	if (pid == 0) {
		char buf[65536];

		for (unsigned n = 0;; n++) {
			struct sockaddr_un to = { .sun_family = AF_UNIX };
			int in = accept(s, NULL, NULL), out = socket(AF_UNIX, SOCK_STREAM, 0);

			memcpy(to.sun_path, server_path, sizeof(to.sun_path));
			if (connect(out, (struct sockaddr *)&to, sizeof(to)) < 0)
				_exit(1);
			for (;;) {
				ssize_t got = read(in, buf, sizeof(buf));
				bool add = got > 0 && memmem(buf, (size_t)got, "XADD", 4);

				if (got <= 0 || write(out, buf, (size_t)got) != got)
					break;
				got = read(out, buf, sizeof(buf));
				if (got <= 0 || (n == 0 && add) || write(in, buf, (size_t)got) != got)
					break;
			}
			close(in);
			close(out);
		}
	}
	redis_link_free(l);
	snprintf(conf.redis_socket, sizeof(conf.redis_socket), "%s", a.sun_path);
	assert_int_equal(redis_link_new(&conf, 2000, &l), 0);
	assert_int_equal(redis_connect(l), REDIS_OK);
	assert_int_equal(alert(l, 1, "a"), REDIS_RETRY);
	assert_int_equal(redis_connect(l), REDIS_OK);
	assert_int_equal(alert(l, 1, "a"), REDIS_OK);
	assert_true(by_hand("XLEN egress:alerts:gw\r\n", ":1\r\n"));
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	close(s);
	server_done(l);
}

static int make_dir(void **state)
{
	(void)state;
	signal(SIGPIPE, SIG_IGN);
	return mkdtemp(dir) ? 0 : -1;
}

static int gone(const char *path, const struct stat *st, int kind, struct FTW *at)
{
	(void)st, (void)kind, (void)at;
	return remove(path);
}

static int remove_dir(void **state)
{
	(void)state;
	return nftw(dir, gone, 8, FTW_DEPTH | FTW_PHYS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(dripping_is_not_waited_for),
		cmocka_unit_test(several_commands_share_the_deadline),
		cmocka_unit_test(a_hanging_publish_loses_nothing),
		cmocka_unit_test(a_server_that_never_reads_is_left),
		cmocka_unit_test(a_socket_of_others_is_the_operators),
		cmocka_unit_test(sizes_are_bounded),
		cmocka_unit_test(unasked_bytes_are_no_answer),
		cmocka_unit_test(late_surplus_is_found_before_the_next_request),
		cmocka_unit_test(ids_rise_from_the_cursor),
		cmocka_unit_test(fields_are_whole_or_bad),
		cmocka_unit_test(cursors),
		cmocka_unit_test(errors_have_their_class),
		cmocka_unit_test(a_lying_top_cannot_make_ids_go_round),
		cmocka_unit_test(errors_are_printable),
		cmocka_unit_test(stored_once),
		cmocka_unit_test(reactions),
		cmocka_unit_test(a_lost_answer_makes_no_second_entry),
	};

	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
