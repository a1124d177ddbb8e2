/* flood_tcp.h - part of flood.c: push, sink, serve and pull. */
#pragma once

#define CHUNK 65536
#define WAIT_FACTOR 6	/* patience before the first byte, in give-up times, of those who are called */

struct conn {
	int fd;			/* -1: ended */
	bool connecting, shut;
	uint64_t bytes;		/* received, or handed to the kernel */
	uint64_t left;		/* to send */
	uint64_t acked;		/* when it ended */
};

struct tcp {
	const struct options *o;
	bool sends;
	struct conn conn[CONNS_MAX];
	unsigned nconns;	/* made so far */
	unsigned nopen;
	int listener[PORTS_MAX];
	unsigned nlisteners;
	uint64_t share[CONNS_MAX];	/* of the bytes to send */
	unsigned refused, reset;
	double start, moved;	/* last progress */
	uint64_t sent, acked;
};

static uint8_t chunk[CHUNK];

/* Bytes of a connection that the other side has acknowledged. */
static uint64_t acked_of(const struct conn *c)
{
	int waiting = 0;

	if (c->fd < 0)
		return c->acked;
	if (c->connecting || ioctl(c->fd, SIOCOUTQ, &waiting) < 0)
		return 0;
	/* Our FIN takes a number too while it is unacknowledged. */
	return c->bytes - (uint64_t)(c->shut && waiting > 0 ? waiting - 1 : waiting);
}

static void end_conn(struct tcp *t, struct conn *c)
{
	c->acked = t->sends ? acked_of(c) : 0;
	close(c->fd);
	c->fd = -1;
	t->nopen--;
}

static void add_conn(struct tcp *t, int fd, bool connecting)
{
	struct conn *c = &t->conn[t->nconns];

	*c = (struct conn){ .fd = fd, .connecting = connecting, .left = t->share[t->nconns] };
	t->nconns++;
	t->nopen++;
}

static void failed(struct tcp *t, struct conn *c)
{
	if (c->connecting)
		t->refused++;
	else
		t->reset++;
	end_conn(t, c);
}

/* 0 bytes left: close our half and wait for the other's, which says that everything was read. */
static void give(struct tcp *t, struct conn *c)
{
	double allowed = t->o->rate ? (double)t->o->rate * (clock_s() - t->start) + 1 - (double)t->sent : 1e18;
	uint64_t n = MIN_OF(c->left, (uint64_t)CHUNK);
	ssize_t r;

	if (allowed < 1)
		return;
	n = MIN_OF(n, (uint64_t)allowed);
	r = n ? send(c->fd, chunk, n, MSG_NOSIGNAL) : 0;
	if (r < 0) {
		if (errno != EAGAIN && errno != EINTR)
			failed(t, c);
		return;
	}
	c->bytes += (uint64_t)r;
	c->left -= (uint64_t)r;
	t->sent += (uint64_t)r;
	if (c->left == 0) {
		shutdown(c->fd, SHUT_WR);
		c->shut = true;
	}
}

static void take(struct tcp *t, struct conn *c)
{
	/* MSG_TRUNC: TCP counts the bytes and throws them away. A sender looks for the end only. */
	ssize_t r = recv(c->fd, chunk, sizeof(chunk), t->sends ? 0 : MSG_TRUNC);

	if (r > 0 && !t->sends) {
		c->bytes += (uint64_t)r;
		t->moved = clock_s();
		touched();
	} else if (r == 0) {
		end_conn(t, c);
	} else if (r < 0 && errno != EAGAIN && errno != EINTR) {
		failed(t, c);
	}
}

static void work(struct tcp *t, struct conn *c, short events)
{
	int error = 0;
	socklen_t len = sizeof(error);

	if (c->connecting && events & (POLLOUT | POLLERR | POLLHUP)) {
		getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &len);
		if (error) {
			failed(t, c);
			return;
		}
		c->connecting = false;
		t->moved = clock_s();
	}
	if (t->sends && events & POLLOUT && !c->shut)
		give(t, c);
	if (c->fd >= 0 && events & (POLLIN | POLLERR | POLLHUP))
		take(t, c);
}

static void accept_all(struct tcp *t, int listener)
{
	while (t->nconns < t->o->conns) {
		int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (fd < 0)
			return;
		add_conn(t, fd, false);
		t->moved = clock_s();
	}
}

/* A sender's progress is what the other side acknowledges. */
static void look_for_progress(struct tcp *t)
{
	uint64_t acked = 0;

	if (!t->sends)
		return;
	for (unsigned i = 0; i < t->nconns; i++)
		acked += acked_of(&t->conn[i]);
	if (acked != t->acked) {
		t->acked = acked;
		t->moved = clock_s();
		touched();
	}
}

static bool throttled(const struct tcp *t)
{
	return t->o->rate && (double)t->sent >= (double)t->o->rate * (clock_s() - t->start);
}

static void turn(struct tcp *t)
{
	static struct pollfd p[CONNS_MAX + PORTS_MAX];
	static struct conn *of[CONNS_MAX];
	bool full = t->nconns == t->o->conns, slow = throttled(t);
	unsigned n = 0, nconns;

	for (unsigned i = 0; i < t->nconns; i++) {
		struct conn *c = &t->conn[i];
		bool out = c->connecting || (t->sends && !c->shut && !slow);

		if (c->fd < 0)
			continue;
		of[n] = c;
		p[n++] = (struct pollfd){ c->fd, (short)(out ? POLLIN | POLLOUT : POLLIN), 0 };
	}
	nconns = n;
	for (unsigned i = 0; i < t->nlisteners && !full; i++)
		p[n++] = (struct pollfd){ t->listener[i], POLLIN, 0 };
	if (poll(p, n, slow ? 2 : 50) > 0) {
		for (unsigned i = 0; i < nconns; i++)
			if (p[i].revents)
				work(t, of[i], p[i].revents);
		for (unsigned i = nconns; i < n; i++)
			if (p[i].revents)
				accept_all(t, p[i].fd);
	}
	look_for_progress(t);
}

static const char *run(struct tcp *t)
{
	t->start = t->moved = clock_s();
	for (;;) {
		double patience = t->o->give_up * (t->nlisteners && t->nconns == 0 ? WAIT_FACTOR : 1);

		if (t->nconns == t->o->conns && t->nopen == 0)
			return t->refused ? "refused" : t->reset ? "reset" : "done";
		if (stop)
			return "signal";
		/* Between two connections of a sequence nothing is open: whoever called may not call again. */
		if (clock_s() - t->moved > patience)
			return t->nconns && t->nopen == 0 ? "fewer" : "stalled";
		turn(t);
	}
}

static void report(struct tcp *t, const char *mode, uint64_t asked, const char *end)
{
	uint64_t bytes = 0;

	for (unsigned i = 0; i < t->nconns; i++)
		bytes += t->sends ? acked_of(&t->conn[i]) : t->conn[i].bytes;
	printf("{\"mode\":\"%s\",\"bytes\":%" PRIu64 ",\"connections\":%u,\"refused\":%u,\"reset\":%u,\"end\":\"%s\",", mode,
	       bytes, t->nconns, t->refused, t->reset, end);
	if (t->sends)
		printf("\"asked\":%" PRIu64 ",\"written\":%" PRIu64 ",", asked, t->sent);
	print_times();
	printf(",\"per_connection\":[");
	for (unsigned i = 0; i < t->nconns; i++)
		printf("%s%" PRIu64, i ? "," : "", t->sends ? acked_of(&t->conn[i]) : t->conn[i].bytes);
	puts("]}");
}

static struct tcp *new_tcp(const struct options *o, uint64_t asked, bool sends)
{
	static struct tcp t;

	t.o = o;
	t.sends = sends;
	for (unsigned i = 0; i < o->conns; i++)
		t.share[i] = asked / o->conns + (i < asked % o->conns);
	return &t;
}

static void listen_on(struct tcp *t, const char *addr, const char *ports)
{
	unsigned n, port = port_range(ports, &n);

	for (unsigned i = 0; i < n; i++) {
		union address a = both_families(addr, port + i);

		t->listener[i] = new_socket(&a, SOCK_STREAM, t->o);
		bind_to(t->listener[i], &a);
		if (listen(t->listener[i], CONNS_MAX) < 0)
			die(1, "listen: %s", strerror(errno));
	}
	t->nlisteners = n;
}

static void connect_all(struct tcp *t, const char *from, const char *to, const char *ports)
{
	unsigned n, port = port_range(ports, &n);

	for (unsigned i = 0; i < t->o->conns; i++) {
		union address dst = address(to, port + i % n), src = source(from, &dst, t->o->sport ? t->o->sport + i : 0);
		int fd = new_socket(&dst, SOCK_STREAM, t->o);

		bind_to(fd, &src);
		if (connect(fd, &dst.sa, address_len(&dst)) < 0 && errno != EINPROGRESS)
			die(1, "connect: %s", strerror(errno));
		add_conn(t, fd, true);
	}
}

static int cmd_push(const struct options *o, char **arg)
{
	uint64_t asked = number(arg[3], 0, UINT64_MAX / 2);
	struct tcp *t = new_tcp(o, asked, true);

	connect_all(t, arg[0], arg[1], arg[2]);
	report(t, "push", asked, run(t));
	return 0;
}

static int cmd_serve(const struct options *o, char **arg)
{
	uint64_t asked = number(arg[2], 0, UINT64_MAX / 2);
	struct tcp *t = new_tcp(o, asked, true);

	listen_on(t, arg[0], arg[1]);
	report(t, "serve", asked, run(t));
	return 0;
}

static int cmd_sink(const struct options *o, char **arg)
{
	struct tcp *t = new_tcp(o, 0, false);

	listen_on(t, arg[0], arg[1]);
	report(t, "sink", 0, run(t));
	return 0;
}

static int cmd_pull(const struct options *o, char **arg)
{
	struct tcp *t = new_tcp(o, 0, false);

	connect_all(t, arg[0], arg[1], arg[2]);
	report(t, "pull", 0, run(t));
	return 0;
}
