/* control_serve.c - the control socket's connections: reading requests, whose turn it is, sending replies. See control.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clock.h"
#include "control_internal.h"

#define SILENT_MS 1000		/* a peer that sends or takes nothing */
#define TOTAL_MS  3000		/* a peer that does so slowly */
#define READERS	  48		/* of CONTROL_PEERS */
#define OF_UID	  16

enum state { READING, WHOLE, SENDING };

struct peer {
	int fd;
	uint32_t uid;
	enum control_level level;
	enum state state;
	char *text;		/* request so far, then reply */
	size_t len, size, sent;
	uint64_t silent_ns, end_ns;	/* dropped at the first of them, unless it waits for its turn */
};

static struct peer peer[CONTROL_PEERS];	/* the oldest first */
static size_t npeers;

static void say(int fd, const char *error)
{
	char text[200];
	int n = snprintf(text, sizeof(text), "{\"ok\":false,\"error\":\"%s\"}\n", error);

	(void)!send(fd, text, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static uint64_t in_ms(uint64_t ms)
{
	return clock_mono().ns + ms * NS_PER_MS;
}

static void enter(struct peer *p, enum state state)
{
	p->state = state;
	p->silent_ns = in_ms(SILENT_MS);
	p->end_ns = in_ms(TOTAL_MS);
}

static bool late(const struct peer *p)
{
	return clock_mono().ns >= MIN_OF(p->silent_ns, p->end_ns);
}

static bool has_room(enum control_level level, uint32_t uid)
{
	size_t readers = 0, own = 0;

	for (size_t i = 0; i < npeers; i++) {
		readers += peer[i].level == CONTROL_READS;
		own += peer[i].uid == uid;
	}
	return npeers < CONTROL_PEERS && (level == CONTROL_CHANGES || (readers < READERS && own < OF_UID));
}

/* Gone again, or out of descriptors: the next turn tries again. */
static void admit(int listen_fd)
{
	for (unsigned i = 0; i < CONTROL_PEERS; i++) {
		struct peer p = { .fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK), .uid = UINT32_MAX };

		if (p.fd < 0)
			return;
		p.level = control_level_of(p.fd, &p.uid);
		if (p.level != CONTROL_NONE && has_room(p.level, p.uid)) {
			enter(&p, READING);
			peer[npeers++] = p;
			continue;
		}
		say(p.fd, p.level == CONTROL_NONE ? "root or a member of group egressd may ask" : "too many connections at once");
		close(p.fd);
	}
}

/* Up to the newline or the peer's shutdown: 0. -EAGAIN: more is to come; -E2BIG. */
static int receive(struct peer *p)
{
	const size_t max = p->level == CONTROL_CHANGES ? CONTROL_APPLY : CONTROL_REQUEST;

	for (;;) {
		ssize_t n;

		if (p->len == p->size) {
			const size_t size = MIN_OF(p->size ? p->size * 4 : CONTROL_REQUEST, max);
			char *text = p->len < max ? realloc(p->text, size) : NULL;

			if (!text)
				return p->len < max ? -ENOMEM : -E2BIG;
			p->text = text;
			p->size = size;
		}
		n = recv(p->fd, p->text + p->len, p->size - p->len, MSG_DONTWAIT);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : 0;
		p->len += (size_t)n;
		p->silent_ns = in_ms(SILENT_MS);
		if (p->text[p->len - 1] == '\n') {
			p->len--;
			return 0;
		}
	}
}

/* False: all is sent, or its answer is nobody's. */
static bool send_more(struct peer *p)
{
	while (p->sent < p->len) {
		ssize_t n = send(p->fd, p->text + p->sent, p->len - p->sent, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN && !late(p);
		p->sent += (size_t)n;
		p->silent_ns = in_ms(SILENT_MS);
	}
	return false;
}

static bool goes_on(struct peer *p, struct control_ctx *ctx)
{
	int r;

	if (p->state != READING)
		return p->state == WHOLE || send_more(p);
	r = receive(p);
	if (r == 0)
		p->state = WHOLE;
	if (r == 0 || (r == -EAGAIN && !late(p)))
		return true;
	ctx->malformed++;
	if (r == -E2BIG)
		say(p->fd, "request too long");
	return false;
}

static void step(size_t i, struct control_ctx *ctx)
{
	if (goes_on(&peer[i], ctx))
		return;
	close(peer[i].fd);
	free(peer[i].text);
	memmove(&peer[i], &peer[i + 1], (--npeers - i) * sizeof(peer[0]));
}

static bool takes_reply(uint32_t uid)
{
	for (size_t i = 0; i < npeers; i++)
		if (peer[i].uid == uid && peer[i].state == SENDING)
			return true;
	return false;
}

/* Whose turn it is; npeers: nobody's. */
static size_t next(void)
{
	size_t best = npeers;

	for (size_t i = 0; i < npeers; i++) {
		const struct peer *p = &peer[i];

		if (p->state == WHOLE && (best == npeers || p->level > peer[best].level) &&
		    (p->level == CONTROL_CHANGES || !takes_reply(p->uid)))
			best = i;
	}
	return best;
}

/* The engine may take seconds, which count against nobody. */
static void answer(struct peer *p, struct control_ctx *ctx)
{
	const uint64_t start = clock_mono().ns;
	size_t len = 0;
	char *text = control_request(ctx, p->text, p->len, p->uid, p->level == CONTROL_CHANGES, &len);
	const uint64_t took = clock_mono().ns - start;

	for (size_t i = 0; i < npeers; i++) {
		peer[i].silent_ns += took;
		peer[i].end_ns += took;
	}
	if (!text)
		say(p->fd, "out of memory");
	free(p->text);
	p->text = text;
	p->len = len;
	enter(p, SENDING);
}

size_t control_polls(int listen_fd, struct pollfd p[CONTROL_POLLS], int *ret_ms)
{
	const uint64_t now = clock_mono().ns;
	uint64_t due = UINT64_MAX;

	p[0] = (struct pollfd){ .fd = listen_fd, .events = POLLIN };
	for (size_t i = 0; i < npeers; i++) {
		const bool waits = peer[i].state == WHOLE;

		p[i + 1] = (struct pollfd){ .fd = waits ? -1 : peer[i].fd, .events = peer[i].state == SENDING ? POLLOUT : POLLIN };
		if (!waits)
			due = MIN_OF(due, MIN_OF(peer[i].silent_ns, peer[i].end_ns));
	}
	*ret_ms = due == UINT64_MAX ? -1 : due > now ? (int)((due - now) / NS_PER_MS) + 1 : 0;
	if (next() < npeers)
		*ret_ms = 0;
	return npeers + 1;
}

void control_serve(int listen_fd, struct control_ctx *ctx)
{
	size_t turn;

	admit(listen_fd);
	for (size_t i = npeers; i-- > 0;)
		step(i, ctx);
	turn = next();
	if (turn == npeers)
		return;
	answer(&peer[turn], ctx);
	step(turn, ctx);
}
