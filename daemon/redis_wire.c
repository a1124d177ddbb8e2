/* redis_wire.c - see redis_wire.h for the contract. */
#include "redis_wire.h"

#include <errno.h>
#include <fcntl.h>
#include <hiredis/hiredis.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#define CHUNK 65536

struct redis_wire {
	redisContext *c;
	redisReplyObjectFunctions fn;	/* hiredis's own, but for arrays */
	void *(*create_array)(const redisReadTask *, int);
	size_t elements, bytes;		/* of the reply that is being read */
	bool too_much;
	struct wire_reply *reply;	/* the tree in hiredis's order, WIRE_ELEMENTS at most */
	redisReply *held;		/* owns its text */
	char error[160];
};

uint64_t wire_clock_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int milliseconds(uint64_t deadline_ns)
{
	uint64_t now = wire_clock_ns();

	return now >= deadline_ns ? 0 : (int)MIN_OF((deadline_ns - now + 999999) / 1000000, 1u << 30);
}

int wire_new(struct redis_wire **ret_wire)
{
	struct redis_wire *w = calloc(1, sizeof(*w));

	if (!w)
		return -ENOMEM;
	*ret_wire = w;
	return 0;
}

static void let_go(struct redis_wire *w)
{
	if (w->held)
		freeReplyObject(w->held);
	free(w->reply);
	w->held = NULL;
	w->reply = NULL;
}

void wire_close(struct redis_wire *w)
{
	let_go(w);
	if (w->c)
		redisFree(w->c);
	w->c = NULL;
}

struct redis_wire *wire_free(struct redis_wire *w)
{
	if (w)
		wire_close(w);
	free(w);
	return NULL;
}

bool wire_is_open(const struct redis_wire *w)
{
	return w->c;
}

const char *wire_error(const struct redis_wire *w)
{
	return w->error;
}

static int broken(struct redis_wire *w, int error, const char *text)
{
	snprintf(w->error, sizeof(w->error), "%s", text);
	wire_close(w);
	return error;
}

/* [W2] hiredis takes memory for all elements as soon as it has read how many. */
static void *create_array(const redisReadTask *task, int elements)
{
	struct redis_wire *w = task->privdata;

	if (elements < 0 || (size_t)elements > WIRE_ELEMENTS - w->elements) {
		w->too_much = true;
		return NULL;
	}
	w->elements += (size_t)elements;
	return w->create_array(task, elements);
}

int wire_open(struct redis_wire *w, const char *unix_path, const char *host, uint16_t port, uint64_t deadline_ns)
{
	int left = milliseconds(deadline_ns), flags, error;
	struct timeval t = { left / 1000, (left % 1000) * 1000 };

	wire_close(w);
	if (!left)
		return broken(w, -ETIMEDOUT, "no time left to connect");
	errno = 0;
	w->c = unix_path ? redisConnectUnixWithTimeout(unix_path, t) : redisConnectWithTimeout(host, port, t);
	error = unix_path && errno == EACCES ? -EACCES : -ECONNREFUSED;
	if (!w->c)
		return broken(w, -ENOMEM, "out of memory");
	if (w->c->err) {
		char text[sizeof(w->error)];

		snprintf(text, sizeof(text), "%s", w->c->errstr);
		return broken(w, error, text);
	}
	flags = fcntl(w->c->fd, F_GETFL);
	if (flags < 0 || fcntl(w->c->fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return broken(w, -errno, strerror(errno));
	w->fn = *w->c->reader->fn;
	w->create_array = w->fn.createArray;
	w->fn.createArray = create_array;
	w->c->reader->fn = &w->fn;
	w->c->reader->privdata = w;
	return 0;
}

/* 0, or -errno when the deadline comes first. */
static int wait_for(struct redis_wire *w, short events, uint64_t deadline_ns)
{
	struct pollfd p = { .fd = w->c->fd, .events = events };
	int r;

	do
		r = poll(&p, 1, milliseconds(deadline_ns));
	while (r < 0 && errno == EINTR);
	return r > 0 ? 0 : r == 0 ? -ETIMEDOUT : -errno;
}

static int send_all(struct redis_wire *w, const char *data, size_t len, uint64_t deadline_ns)
{
	while (len) {
		ssize_t n = send(w->c->fd, data, len, MSG_NOSIGNAL);
		int r = n < 0 ? -errno : 0;

		if (r == -EAGAIN)
			r = wait_for(w, POLLOUT, deadline_ns);
		if (r < 0 && r != -EINTR)
			return broken(w, r, r == -ETIMEDOUT ? "request not taken in time" : strerror(-r));
		if (n > 0) {
			data += n;
			len -= (size_t)n;
		}
	}
	return 0;
}

/* One chunk into hiredis's reader. */
static int feed(struct redis_wire *w, uint64_t deadline_ns)
{
	char chunk[CHUNK];
	ssize_t n;
	int r = wait_for(w, POLLIN, deadline_ns);

	if (r < 0)
		return broken(w, r, r == -ETIMEDOUT ? "no answer in time" : strerror(-r));
	n = recv(w->c->fd, chunk, sizeof(chunk), 0);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n <= 0)
		return broken(w, n ? -errno : -ECONNRESET, n ? strerror(errno) : "the server closed the connection");
	w->bytes += (size_t)n;
	if (w->bytes > WIRE_BYTES)
		return broken(w, -EPROTO, "a reply larger than 4 MiB");
	if (redisReaderFeed(w->c->reader, chunk, (size_t)n) != REDIS_OK)
		return broken(w, -ENOMEM, "out of memory");
	return 0;
}

static int receive(struct redis_wire *w, uint64_t deadline_ns)
{
	void *reply = NULL;

	w->elements = w->bytes = 0;
	w->too_much = false;
	for (;;) {
		int r;

		if (redisReaderGetReply(w->c->reader, &reply) != REDIS_OK)
			return broken(w, -EPROTO, w->too_much ? "a reply of more than 65,536 elements" : w->c->reader->errstr);
		if (reply)
			break;
		/* Between feeds, not only between reads: a peer that is always ready to be read must not outlast the deadline. */
		if (!milliseconds(deadline_ns))
			return broken(w, -ETIMEDOUT, "no answer in time");
		r = feed(w, deadline_ns);
		if (r < 0)
			return r;
	}
	w->held = reply;
	if (w->c->reader->pos != w->c->reader->len)
		return broken(w, -EPROTO, "bytes after the reply that nobody asked for");	/* [W3] */
	return 0;
}

static enum wire_type type_of(int hiredis)
{
	switch (hiredis) {
	case REDIS_REPLY_STATUS:
		return WIRE_STATUS;
	case REDIS_REPLY_STRING:
		return WIRE_STRING;
	case REDIS_REPLY_INTEGER:
		return WIRE_INTEGER;
	case REDIS_REPLY_ARRAY:
		return WIRE_ARRAY;
	case REDIS_REPLY_ERROR:
		return WIRE_ERROR;
	default:
		return WIRE_NIL;
	}
}

/* r into *to, its elements into places from *next on: siblings side by side. Depth is hiredis's, at most 7. */
static void translate(struct redis_wire *w, const redisReply *r, struct wire_reply *to, size_t *next)
{
	struct wire_reply *e = w->reply + *next;

	*to = (struct wire_reply){ .type = type_of(r->type), .number = r->integer, .text = r->str ? r->str : "",
				   .text_len = r->str ? (size_t)r->len : 0, .count = r->elements, .element = e };
	*next += r->elements;
	for (size_t i = 0; i < r->elements; i++)
		translate(w, r->element[i], &e[i], next);
}

/* [W3] Anything there before we ask? */
static int look_first(struct redis_wire *w)
{
	char c;
	ssize_t n = recv(w->c->fd, &c, 1, MSG_PEEK | MSG_DONTWAIT);

	if (n > 0)
		return broken(w, -EPROTO, "bytes that nobody asked for");
	if (n == 0)
		return broken(w, -ECONNRESET, "the server closed the connection");
	return errno == EAGAIN || errno == EINTR ? 0 : broken(w, -errno, strerror(errno));
}

int wire_call(struct redis_wire *w, int argc, const char *const *argv, const size_t *lens, uint64_t deadline_ns,
	      const struct wire_reply **ret_reply)
{
	char *request = NULL;
	size_t next = 1;
	int r, len;

	let_go(w);
	if (!w->c)
		return broken(w, -ENOTCONN, "not connected");
	r = look_first(w);
	if (r < 0)
		return r;
	len = redisFormatCommandArgv(&request, argc, (const char **)argv, lens);
	if (len < 0)
		return broken(w, -ENOMEM, "out of memory");
	r = send_all(w, request, (size_t)len, deadline_ns);
	redisFreeCommand(request);
	if (r == 0)
		r = receive(w, deadline_ns);
	if (r < 0)
		return r;
	w->reply = calloc(w->elements + 1, sizeof(*w->reply));
	if (!w->reply)
		return broken(w, -ENOMEM, "out of memory");
	translate(w, w->held, w->reply, &next);
	*ret_reply = w->reply;
	return 0;
}
