/* flood_udp.h - part of flood.c: send and recv. */
#pragma once

#define BURST 64
#define FLOWS_MAX 65536		/* rows of recv; what does not fit is summed as "other" */
#define WINDOW 1024		/* packets of a flow in which a duplicate is noticed */

struct stamp {			/* at the start of each payload; recv finds duplicates by it */
	uint64_t magic, seq;
};

#define STAMP_MAGIC 0x666c6f6f64207570u

struct sender {
	int *fd;
	uint64_t *seq;
	unsigned flows, size, naddrs, nports, repeat;
	union address dst;
	uint64_t sent, errors, turn;
	uint8_t *payload;	/* BURST of them */
};

/* n packets of one flow. */
static void send_burst(struct sender *s, unsigned flow, unsigned n)
{
	struct mmsghdr msg[BURST] = { 0 };
	struct iovec iov[BURST];
	union address to[BURST];

	for (unsigned i = 0; i < n; i++, s->turn++) {
		uint8_t *p = s->payload + (size_t)i * s->size;
		struct stamp stamp = { STAMP_MAGIC, s->seq[flow]++ };

		if (s->size >= sizeof(stamp))
			memcpy(p, &stamp, sizeof(stamp));
		to[i] = upwards(s->dst, (uint32_t)(s->turn / s->repeat % s->naddrs),
				(unsigned)(s->turn / s->repeat / s->naddrs % s->nports));
		iov[i] = (struct iovec){ p, s->size };
		msg[i].msg_hdr = (struct msghdr){ .msg_name = &to[i], .msg_namelen = address_len(&to[i]),
						  .msg_iov = &iov[i], .msg_iovlen = 1 };
	}
	for (unsigned i = 0; i < n && !stop;) {
		int r = sendmmsg(s->fd[flow], msg + i, n - i, 0);

		if (r > 0) {
			s->sent += (unsigned)r;
			i += (unsigned)r;
		} else if (errno == EAGAIN) {
			struct pollfd p = { s->fd[flow], POLLOUT, 0 };

			poll(&p, 1, 100);
		} else if (errno != EINTR) {
			s->errors++;	/* refused here: no route, a local firewall */
			i++;
		}
	}
}

static void wait_until(double when)
{
	double left = when - clock_s();
	struct timespec t = { (time_t)left, (long)((left - (double)(time_t)left) * 1e9) };

	if (left > 0)
		nanosleep(&t, NULL);
}

static void send_loop(struct sender *s, double pps, uint64_t count, double end)
{
	double start = clock_s();
	uint64_t done = 0, bursts = 0;

	touched();
	while (!stop && done < count) {
		uint64_t due = pps > 0 ? (uint64_t)((clock_s() - start) * pps) + 1 : count;
		uint64_t n;

		if (end > 0 && clock_s() - start >= end)
			break;
		if (due <= done) {
			wait_until(start + (double)done / pps);
			continue;
		}
		/* A few of each flow in turn; paced, a single one. */
		n = pps > 0 ? 1 : 16;
		n = n < count - done ? n : count - done;
		send_burst(s, (unsigned)(bursts++ / s->repeat % s->flows), (unsigned)n);
		done += n;
	}
	touched();
}

static int cmd_send(const struct options *o, char **arg)
{
	size_t len = strlen(arg[6]);
	struct sender s = { .flows = (unsigned)number(arg[3], 1, 60000), .size = (unsigned)number(arg[4], 0, 65507),
			    .naddrs = o->naddrs, .nports = o->nports, .repeat = o->repeat,
			    .dst = address(arg[1], (unsigned)number(arg[2], 1, 65535)) };
	bool timed = len && arg[6][len - 1] == 's';
	double pps = (double)number(arg[5], 0, 100000000), end = 0;
	union address src = source(arg[0], &s.dst, o->sport);

	if (timed) {
		arg[6][len - 1] = '\0';
		end = seconds(arg[6]);
	}
	s.fd = calloc(s.flows, sizeof(*s.fd));
	s.seq = calloc(s.flows, sizeof(*s.seq));
	s.payload = calloc(BURST, s.size + 1);
	if (!s.fd || !s.seq || !s.payload)
		die(1, "no memory");
	for (unsigned i = 0; i < s.flows; i++) {
		union address a = upwards(src, i % o->nsrcs, o->sport ? i : 0);

		s.fd[i] = new_socket(&s.dst, SOCK_DGRAM, o);
		bind_to(s.fd[i], &a);
	}
	send_loop(&s, pps, timed ? UINT64_MAX : number(arg[6], 0, UINT64_MAX), end);
	printf("{\"mode\":\"send\",\"packets\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"errors\":%" PRIu64 ",", s.sent,
	       s.sent * s.size, s.errors);
	print_times();
	puts("}");
	free(s.fd);
	free(s.seq);
	free(s.payload);
	return 0;
}

/* ---- recv ---- */

struct row {
	struct in6_addr src, dst;
	uint16_t sport, dport;
	bool used, stamped;
	uint64_t packets, bytes, duplicates;
	uint64_t newest;
	uint64_t seen[WINDOW / 64];	/* bit seq % WINDOW of the newest ones */
};

struct counter {
	struct row *row;
	unsigned nrows;
	uint64_t packets, bytes, duplicates, other_packets, other_bytes;
	uint32_t drops[PORTS_MAX];
};

static struct row *find_row(struct counter *c, const struct row *key)
{
	uint64_t h = 0;
	struct row *r;

	for (unsigned i = 0; i < 16; i++)
		h = h * 1099511628211u + (key->src.s6_addr[i] ^ (unsigned)key->dst.s6_addr[i] << 8);
	h = (h * 65537 + key->sport) * 65537 + key->dport;
	for (unsigned at = (unsigned)(h * 0x9e3779b97f4a7c15u >> 47);; at++) {
		r = &c->row[at % (2 * FLOWS_MAX)];
		if (!r->used)
			break;
		if (r->sport == key->sport && r->dport == key->dport && memcmp(&r->src, &key->src, 16) == 0 &&
		    memcmp(&r->dst, &key->dst, 16) == 0)
			return r;
	}
	if (c->nrows == FLOWS_MAX)
		return NULL;
	c->nrows++;
	*r = *key;
	r->used = true;
	return r;
}

static bool bit(struct row *r, uint64_t seq, bool set_it)
{
	uint64_t *word = &r->seen[seq % WINDOW / 64], mask = UINT64_C(1) << seq % 64;
	bool was = *word & mask;

	if (set_it)
		*word |= mask;
	else
		*word &= ~mask;
	return was;
}

/* True: seen before. A sender that starts anew with the same port begins at 0. */
static bool is_duplicate(struct row *r, const uint8_t *payload, size_t len)
{
	struct stamp s;

	if (len < sizeof(s))
		return false;
	memcpy(&s, payload, sizeof(s));
	if (s.magic != STAMP_MAGIC)
		return false;
	if (!r->stamped || (s.seq < WINDOW && r->newest > 2 * WINDOW)) {
		memset(r->seen, 0, sizeof(r->seen));
		r->newest = s.seq;
		r->stamped = true;
	} else if (s.seq > r->newest) {
		if (s.seq - r->newest >= WINDOW)
			memset(r->seen, 0, sizeof(r->seen));
		else
			for (uint64_t i = r->newest + 1; i <= s.seq; i++)
				bit(r, i, false);
		r->newest = s.seq;
	} else if (r->newest - s.seq >= WINDOW) {
		return false;
	}
	return bit(r, s.seq, true);
}

static void count_one(struct counter *c, const struct msghdr *h, unsigned port_index, unsigned port, size_t len)
{
	const struct sockaddr_in6 *from = h->msg_name;
	struct row key = { .src = from->sin6_addr, .sport = ntohs(from->sin6_port), .dport = (uint16_t)port }, *r;

	for (struct cmsghdr *m = CMSG_FIRSTHDR(h); m; m = CMSG_NXTHDR((struct msghdr *)h, m)) {
		if (m->cmsg_level == SOL_IPV6 && m->cmsg_type == IPV6_PKTINFO)
			memcpy(&key.dst, CMSG_DATA(m), sizeof(key.dst));	/* its first member */
		else if (m->cmsg_level == SOL_SOCKET && m->cmsg_type == SO_RXQ_OVFL)
			memcpy(&c->drops[port_index], CMSG_DATA(m), sizeof(uint32_t));
	}
	c->packets++;
	c->bytes += len;
	r = find_row(c, &key);
	if (!r) {
		c->other_packets++;
		c->other_bytes += len;
		return;
	}
	r->packets++;
	r->bytes += len;
	if (is_duplicate(r, h->msg_iov->iov_base, MIN_OF(len, sizeof(struct stamp)))) {
		r->duplicates++;
		c->duplicates++;
	}
}

/* Only a payload's beginning is read; its true length comes by MSG_TRUNC. */
static bool take_burst(struct counter *c, int fd, unsigned port_index, unsigned port)
{
	static uint8_t payload[BURST][sizeof(struct stamp)], control[BURST][128] __attribute__((aligned(8)));
	struct sockaddr_in6 from[BURST];
	struct mmsghdr msg[BURST];
	struct iovec iov[BURST];
	int n;

	for (unsigned i = 0; i < BURST; i++) {
		iov[i] = (struct iovec){ payload[i], sizeof(payload[i]) };
		msg[i].msg_hdr = (struct msghdr){ .msg_name = &from[i], .msg_namelen = sizeof(from[i]), .msg_iov = &iov[i],
						  .msg_iovlen = 1, .msg_control = control[i],
						  .msg_controllen = sizeof(control[i]) };
	}
	n = recvmmsg(fd, msg, BURST, MSG_DONTWAIT | MSG_TRUNC, NULL);
	for (int i = 0; i < n; i++)
		count_one(c, &msg[i].msg_hdr, port_index, port, msg[i].msg_len);
	if (n > 0)
		touched();
	return n == BURST;
}

static const char *print_addr(const struct in6_addr *a, char text[INET6_ADDRSTRLEN])
{
	if (IN6_IS_ADDR_V4MAPPED(a))
		return inet_ntop(AF_INET, a->s6_addr + 12, text, INET6_ADDRSTRLEN);
	return inet_ntop(AF_INET6, a, text, INET6_ADDRSTRLEN);
}

static void print_counter(const struct counter *c, unsigned nports)
{
	char src[INET6_ADDRSTRLEN], dst[INET6_ADDRSTRLEN];
	const char *comma = "";
	uint64_t drops = 0;

	for (unsigned i = 0; i < nports; i++)
		drops += c->drops[i];
	printf("{\"mode\":\"recv\",\"packets\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"duplicates\":%" PRIu64
	       ",\"socket_drops\":%" PRIu64 ",", c->packets, c->bytes, c->duplicates, drops);
	print_times();
	printf(",\"nflows\":%u,\"other\":{\"packets\":%" PRIu64 ",\"bytes\":%" PRIu64 "},\"flows\":[", c->nrows,
	       c->other_packets, c->other_bytes);
	for (unsigned i = 0; i < 2 * FLOWS_MAX; i++) {
		const struct row *r = &c->row[i];

		if (!r->used)
			continue;
		printf("%s{\"src\":\"%s\",\"sport\":%u,\"dst\":\"%s\",\"dport\":%u,\"packets\":%" PRIu64 ",\"bytes\":%" PRIu64
		       "}", comma, print_addr(&r->src, src), r->sport, print_addr(&r->dst, dst), r->dport, r->packets,
		       r->bytes);
		comma = ",";
	}
	puts("]}");
}

/* As an IPv6 socket sees it, which takes both families. */
static union address both_families(const char *text, unsigned port)
{
	union address a = address(text, port), b = { 0 };

	if (a.sa.sa_family == AF_INET6)
		return a;
	b.v6.sin6_family = AF_INET6;
	b.v6.sin6_port = a.v4.sin_port;
	b.v6.sin6_addr.s6_addr[10] = b.v6.sin6_addr.s6_addr[11] = 0xff;
	memcpy(b.v6.sin6_addr.s6_addr + 12, &a.v4.sin_addr, 4);
	return b;
}

static int cmd_recv(const struct options *o, char **arg)
{
	static struct pollfd p[PORTS_MAX];
	static struct counter c;
	unsigned n, port = port_range(arg[1], &n);
	double start = clock_s(), limit = seconds(arg[2]), last = 0;

	c.row = calloc(2 * (size_t)FLOWS_MAX, sizeof(*c.row));
	if (!c.row)
		die(1, "no memory");
	for (unsigned i = 0; i < n; i++) {
		union address a = both_families(arg[0], port + i);

		p[i] = (struct pollfd){ new_socket(&a, SOCK_DGRAM, o), POLLIN, 0 };
		if (set(p[i].fd, SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20) < 0)
			set(p[i].fd, SOL_SOCKET, SO_RCVBUF, 64 << 20);
		if (set(p[i].fd, SOL_IPV6, IPV6_RECVPKTINFO, 1) < 0 || set(p[i].fd, SOL_SOCKET, SO_RXQ_OVFL, 1) < 0)
			die(1, "socket option: %s", strerror(errno));
		bind_to(p[i].fd, &a);
	}
	while (!stop && clock_s() - start < limit && c.packets < o->packets) {
		if (o->idle > 0 && last > 0 && clock_s() - last > o->idle)
			break;
		if (poll(p, n, 50) <= 0)
			continue;
		for (unsigned i = 0; i < n; i++)
			if (p[i].revents)
				while (take_burst(&c, p[i].fd, i, port + i) && c.packets < o->packets)
					;
		last = clock_s();
	}
	/* What waits in the buffers has arrived. */
	for (unsigned i = 0; i < n; i++)
		while (take_burst(&c, p[i].fd, i, port + i))
			;
	print_counter(&c, n);
	free(c.row);
	return 0;
}
