/* flood.c - traffic with exact counts for live tests and benches, IPv4 and IPv6. One line of JSON on stdout at the end.
 *
 *   flood send [-m MARK] [-s SPORT] [-a N] [-S N] [-p N] [-k N] SRC DST PORT FLOWS SIZE PPS COUNT|SECONDSs
 *        UDP: FLOWS source ports (from SPORT on, else the kernel's) send SIZE bytes of payload in turn, PPS packets a second in
 *        all (0: as fast as it goes), COUNT packets or for so many seconds ("5s"). -a, -p: N destination addresses and ports
 *        upwards from DST and PORT; -S: N source addresses upwards from SRC; -k: N turns (packets, if paced) to each before the next.
 *   flood recv [-n PACKETS] [-i IDLE] ADDR PORT[-LAST] SECONDS
 *        UDP: counts by (source, source port, destination, port); ends after SECONDS, after PACKETS, or IDLE seconds after the
 *        last packet. "socket_drops" is what this program was too slow for: 0, or the counts say nothing about the network.
 *        "duplicates": packets seen twice within the last 1,024 of their flow (SIZE >= 16).
 *   flood push  [-m MARK] [-c CONNECTIONS] [-r BYTES/S] [-g GIVE_UP] SRC DST PORT[-LAST] BYTES
 *   flood sink  [-c CONNECTIONS] [-g GIVE_UP] ADDR PORT[-LAST]
 *        TCP: push connects and sends BYTES in all, sink takes them.
 *   flood serve [-m MARK] [-c CONNECTIONS] [-r BYTES/S] [-g GIVE_UP] ADDR PORT[-LAST] BYTES
 *   flood pull  [-m MARK] [-c CONNECTIONS] [-g GIVE_UP] SRC DST PORT[-LAST]
 *        TCP: serve sends BYTES in all on the connections it accepts, pull connects and takes them.
 *        Connection i uses port PORT + i % ports. All end when every connection has ended, or after GIVE_UP seconds (default
 *        5) without a byte moving ("end": "stalled"; before the first byte sink and serve wait six times as long). "bytes" is
 *        payload: received, or acknowledged by the other side.
 * SRC and ADDR may be "-": any. SIGTERM and SIGINT end it in good order. Exit: 0 also when traffic was blocked, 1 on an
 * error here, 2 usage. Times: *_us is the wall clock, gap_us the longest time between two readings that brought something, seconds
 * from the first to the last packet or byte.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <linux/sockios.h>
#include <time.h>
#include <unistd.h>

#include "compiler.h"

#define CONNS_MAX 1024
#define PORTS_MAX 1024

struct options {
	unsigned mark, sport, naddrs, nsrcs, nports, conns, repeat;
	uint64_t packets, rate;
	double idle, give_up;
};

union address {
	struct sockaddr sa;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

static volatile sig_atomic_t stop;
static uint64_t first_us, last_us, gap_us;

static void on_signal(int sig)
{
	(void)sig;
	stop = 1;
}

static void __attribute__((noreturn, format(printf, 2, 3))) die(int code, const char *fmt, ...)
{
	va_list ap;

	fputs("flood: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(code);
}

static double clock_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void touched(void)
{
	struct timespec t;
	uint64_t at;

	clock_gettime(CLOCK_REALTIME, &t);
	at = (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
	if (first_us && at - last_us > gap_us)
		gap_us = at - last_us;
	last_us = at;
	if (!first_us)
		first_us = last_us;
}

static void print_times(void)
{
	printf("\"first_us\":%" PRIu64 ",\"last_us\":%" PRIu64 ",\"gap_us\":%" PRIu64 ",\"seconds\":%.6f", first_us, last_us, gap_us,
	       (double)(last_us - first_us) / 1e6);
}

static uint64_t number(const char *text, uint64_t least, uint64_t most)
{
	char *end;
	unsigned long long v;

	errno = 0;
	v = strtoull(text, &end, 0);
	if (errno || end == text || *end || *text == '-' || v < least || v > most)
		die(2, "%s: a number from %" PRIu64 " to %" PRIu64 " is expected", text, least, most);
	return v;
}

static double seconds(const char *text)
{
	char *end;
	double v = strtod(text, &end);

	if (end == text || *end || !(v > 0) || v > 1e6)
		die(2, "%s: seconds are expected", text);
	return v;
}

/* ---- addresses ---- */

static union address address(const char *text, unsigned port)
{
	union address a = { 0 };

	if (strcmp(text, "-") == 0)
		text = "::";
	if (inet_pton(AF_INET, text, &a.v4.sin_addr) == 1) {
		a.v4.sin_family = AF_INET;
		a.v4.sin_port = htons((uint16_t)port);
	} else if (inet_pton(AF_INET6, text, &a.v6.sin6_addr) == 1) {
		a.v6.sin6_family = AF_INET6;
		a.v6.sin6_port = htons((uint16_t)port);
	} else {
		die(2, "%s: an address is expected", text);
	}
	return a;
}

static socklen_t address_len(const union address *a)
{
	return a->sa.sa_family == AF_INET ? sizeof(a->v4) : sizeof(a->v6);
}

/* The address n further up, the port m further up. */
static union address upwards(union address a, uint32_t n, unsigned m)
{
	uint32_t last;

	if (a.sa.sa_family == AF_INET) {
		a.v4.sin_addr.s_addr = htonl(ntohl(a.v4.sin_addr.s_addr) + n);
		a.v4.sin_port = htons((uint16_t)(ntohs(a.v4.sin_port) + m));
	} else {
		memcpy(&last, a.v6.sin6_addr.s6_addr + 12, 4);
		last = htonl(ntohl(last) + n);
		memcpy(a.v6.sin6_addr.s6_addr + 12, &last, 4);
		a.v6.sin6_port = htons((uint16_t)(ntohs(a.v6.sin6_port) + m));
	}
	return a;
}

static unsigned port_range(const char *text, unsigned *ret_n)
{
	char copy[16], *dash;
	unsigned first, last;

	snprintf(copy, sizeof(copy), "%s", text);
	dash = strchr(copy, '-');
	if (dash)
		*dash++ = '\0';
	first = (unsigned)number(copy, 1, 65535);
	last = dash ? (unsigned)number(dash, first, 65535) : first;
	*ret_n = last - first + 1;
	if (*ret_n > PORTS_MAX)
		die(2, "%s: at most %d ports", text, PORTS_MAX);
	return first;
}

static int set(int fd, int level, int option, int value)
{
	return setsockopt(fd, level, option, &value, sizeof(value));
}

static int new_socket(const union address *a, int type, const struct options *o)
{
	int fd = socket(a->sa.sa_family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		die(1, "socket: %s", strerror(errno));
	if (o->mark && set(fd, SOL_SOCKET, SO_MARK, (int)o->mark) < 0)
		die(1, "mark: %s", strerror(errno));
	set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
	set(fd, SOL_IP, IP_FREEBIND, 1);
	if (a->sa.sa_family == AF_INET6)
		set(fd, SOL_IPV6, IPV6_V6ONLY, 0);
	return fd;
}

static void bind_to(int fd, const union address *a)
{
	if (bind(fd, &a->sa, address_len(a)) < 0)
		die(1, "bind: %s", strerror(errno));
}

static union address source(const char *text, const union address *dst, unsigned port)
{
	if (strcmp(text, "-") == 0)
		text = dst->sa.sa_family == AF_INET ? "0.0.0.0" : "::";
	return address(text, port);
}

#include "flood_udp.h"
#include "flood_tcp.h"

static const struct {
	const char *name;
	int args;
	int (*run)(const struct options *o, char **arg);
	const char *usage;
} verbs[] = {
	{ "send", 7, cmd_send, "SRC DST PORT FLOWS SIZE PPS COUNT|SECONDSs" },
	{ "recv", 3, cmd_recv, "ADDR PORT[-LAST] SECONDS" },
	{ "push", 4, cmd_push, "SRC DST PORT[-LAST] BYTES" },
	{ "sink", 2, cmd_sink, "ADDR PORT[-LAST]" },
	{ "serve", 3, cmd_serve, "ADDR PORT[-LAST] BYTES" },
	{ "pull", 3, cmd_pull, "SRC DST PORT[-LAST]" },
};

static void __attribute__((noreturn)) usage(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
		fprintf(stderr, "usage: flood %s [options] %s\n", verbs[i].name, verbs[i].usage);
	fputs("options and output: at the top of tests/live/flood.c\n", stderr);
	exit(2);
}

static void read_options(int argc, char **argv, struct options *o)
{
	int c;

	while ((c = getopt(argc, argv, "+m:s:a:S:p:k:n:i:c:r:g:")) != -1) {
		switch (c) {
		case 'm': o->mark = (unsigned)number(optarg, 0, UINT32_MAX); break;
		case 's': o->sport = (unsigned)number(optarg, 1, 65535); break;
		case 'a': o->naddrs = (unsigned)number(optarg, 1, 1 << 24); break;
		case 'S': o->nsrcs = (unsigned)number(optarg, 1, 1 << 24); break;
		case 'p': o->nports = (unsigned)number(optarg, 1, 65535); break;
		case 'k': o->repeat = (unsigned)number(optarg, 1, 1 << 24); break;
		case 'n': o->packets = number(optarg, 1, UINT64_MAX); break;
		case 'i': o->idle = seconds(optarg); break;
		case 'c': o->conns = (unsigned)number(optarg, 1, CONNS_MAX); break;
		case 'r': o->rate = number(optarg, 1, UINT64_MAX / 2); break;
		case 'g': o->give_up = seconds(optarg); break;
		default: usage();
		}
	}
}

int main(int argc, char **argv)
{
	struct options o = { .naddrs = 1, .nsrcs = 1, .nports = 1, .conns = 1, .repeat = 1, .packets = UINT64_MAX, .give_up = 5 };
	struct sigaction sa = { .sa_handler = on_signal };
	struct rlimit files;

	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGINT, &sa, NULL);
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {	/* a socket a flow */
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	if (argc < 2)
		usage();
	read_options(argc - 1, argv + 1, &o);
	argc -= 1 + optind;
	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
		if (strcmp(argv[1], verbs[i].name) == 0 && argc == verbs[i].args)
			return verbs[i].run(&o, argv + 1 + optind);
	usage();
}
