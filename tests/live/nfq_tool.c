/* nfq_tool.c - one queue driven through daemon/nfq.h, for nfq.sh. One line of JSON on stdout at the end.
 *
 *   nfq_tool run  [options] QUEUE SECONDS    reads and answers; ends after SECONDS, after -n packets, or by SIGTERM
 *   nfq_tool hold [options] QUEUE SECONDS    the same in a child, which is killed every -k ms and started again on the same
 *                                            socket; what the dead one had in hand is repeated
 *   nfq_tool drops QUEUE                     nfq_drops() and nfq_holder()
 *     -b RCVBUF  -c COPY-RANGE (256)  -l MAXLEN (1024)  -f gso,open  -d MS between batches  -n PACKETS
 *     -a accept | drop (every second packet) | repeat:N (the first N messages)
 *     -w MS: set up, wait, set up again, then read
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "nfq.h"

#define MASK     0x30000000u
#define JUDGED   0x20000000u
#define SLOT_LEN 768

struct options {
	uint32_t rcvbuf, range, maxlen, flags;
	unsigned delay_ms, kill_ms, wait_ms;
	uint64_t packets, repeat;
	bool drop;
	uint16_t queue;
	double seconds;
};

/* Shared with the child that gets killed; one writer. */
struct shared {
	uint8_t slot[NFQ_BATCH][SLOT_LEN] __attribute__((aligned(64)));
	uint64_t packets, bytes, longest, batches, fullest, enobufs, bad, notices, dropped, repeated, recovered, starts;
	uint64_t indev, outdev, proto4, proto6, disorder;
	uint32_t last_id, first_mark;
	int error;
};

static volatile sig_atomic_t stop;

static void on_signal(int sig)
{
	(void)sig;
	stop = 1;
}

static double clock_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void sleep_ms(unsigned ms)
{
	struct timespec t = { ms / 1000, (long)(ms % 1000) * 1000000 };

	nanosleep(&t, NULL);
}

static uint8_t decide(const struct options *o, struct shared *s)
{
	if (s->repeated < o->repeat) {
		s->repeated++;
		return NFQ_REPEAT;
	}
	if (o->drop && s->packets % 2) {
		s->dropped++;
		return NFQ_DROP;
	}
	return NFQ_ACCEPT;
}

static void take(struct shared *s, const struct nfq_msg *m)
{
	if (s->packets && (int32_t)(m->id - s->last_id) <= 0)
		s->disorder++;
	s->last_id = m->id;
	if (s->packets == 0)
		s->first_mark = m->mark;
	s->packets++;
	s->bytes += m->len;
	s->longest = MAX_OF(s->longest, m->len);
	s->indev |= m->indev;
	s->outdev |= m->outdev;
	s->proto4 += m->hw_protocol == 0x0800;
	s->proto6 += m->hw_protocol == 0x86dd;
}

static int turn(int fd, const struct options *o, struct shared *s)
{
	struct nfq_verdict v[NFQ_BATCH];
	unsigned len[NFQ_BATCH], n = 0;
	int got;

	got = nfq_receive(fd, s->slot[0], SLOT_LEN, SLOT_LEN, NFQ_BATCH, len, 100);
	if (got == -ENOBUFS) {
		s->enobufs++;
		return 0;
	}
	if (got <= 0)
		return got;
	for (int i = 0; i < got; i++) {
		struct nfq_msg m;
		int r = nfq_parse(s->slot[i], len[i], &m);

		if (r < 0) {
			*(r == -ENOMSG ? &s->notices : &s->bad) += 1;
			continue;
		}
		v[n] = (struct nfq_verdict){ m.id, m.mark, decide(o, s) };
		n++;
		take(s, &m);
	}
	s->batches++;
	s->fullest = MAX_OF(s->fullest, n);
	if (o->delay_ms)
		sleep_ms(o->delay_ms);
	got = nfq_answer(fd, o->queue, v, n, MASK, JUDGED);
	for (unsigned i = 0; i < NFQ_BATCH; i++)
		memset(s->slot[i], 0, sizeof(uint32_t));
	return got;
}

/* What the killed one had read: whether it was answered nobody knows, and an id that is gone costs nothing. */
static void recover(int fd, const struct options *o, struct shared *s)
{
	for (unsigned i = 0; i < NFQ_BATCH; i++) {
		struct nfq_verdict v = { .answer = NFQ_REPEAT };
		struct nfq_msg m;
		uint32_t len;

		memcpy(&len, s->slot[i], sizeof(len));
		if (len == 0 || len > SLOT_LEN || nfq_parse(s->slot[i], len, &m) < 0)
			continue;
		v.id = m.id;
		if (nfq_answer_single(fd, o->queue, &v, MASK, JUDGED) == 0)
			s->recovered++;
		memset(s->slot[i], 0, sizeof(uint32_t));
	}
}

static int read_queue(int fd, const struct options *o, struct shared *s)
{
	struct nfq_info info;
	double end = clock_s() + o->seconds;
	int r = nfq_setup(fd, o->queue, o->range, o->maxlen, o->flags, &info);

	if (r == 0 && o->wait_ms) {
		sleep_ms(o->wait_ms);
		r = nfq_setup(fd, o->queue, o->range, o->maxlen, o->flags, &info);
	}
	s->starts++;
	recover(fd, o, s);
	while (r == 0 && !stop && s->packets < o->packets && clock_s() < end)
		r = turn(fd, o, s);
	return r;
}

static void hold(int fd, const struct options *o, struct shared *s)
{
	double end = clock_s() + o->seconds;

	while (!stop && clock_s() < end) {
		pid_t child = fork();

		if (child == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			s->error = read_queue(fd, o, s);
			_exit(0);
		}
		sleep_ms(o->kill_ms);
		if (clock_s() < end)
			kill(child, SIGKILL);
		else
			kill(child, SIGTERM);
		waitpid(child, NULL, 0);
	}
}

static void print(const struct shared *s, const struct nfq_info *info, int r)
{
#define N(name) printf(",\"" #name "\":%" PRIu64, (uint64_t)s->name)
	printf("{\"result\":%d,\"flags\":%u,\"portid\":%u", r, info->flags, info->portid);
	N(packets); N(bytes); N(longest); N(batches); N(fullest); N(enobufs); N(bad); N(notices); N(dropped); N(repeated);
	N(recovered); N(starts); N(indev); N(outdev); N(proto4); N(proto6); N(disorder); N(first_mark); N(last_id);
	puts("}");
}

static uint32_t flags_of(const char *text)
{
	return (strstr(text, "gso") ? NFQ_GSO : 0) | (strstr(text, "open") ? NFQ_FAIL_OPEN : 0);
}

static void read_options(int argc, char **argv, struct options *o)
{
	int c;

	while ((c = getopt(argc, argv, "+b:c:l:f:d:n:a:k:w:")) != -1) {
		unsigned long long v = optarg ? strtoull(optarg, NULL, 0) : 0;

		switch (c) {
		case 'b': o->rcvbuf = (uint32_t)v; break;
		case 'c': o->range = (uint32_t)v; break;
		case 'l': o->maxlen = (uint32_t)v; break;
		case 'f': o->flags = flags_of(optarg); break;
		case 'd': o->delay_ms = (unsigned)v; break;
		case 'n': o->packets = v; break;
		case 'k': o->kill_ms = (unsigned)v; break;
		case 'w': o->wait_ms = (unsigned)v; break;
		case 'a':
			o->drop = strcmp(optarg, "drop") == 0;
			if (strncmp(optarg, "repeat:", 7) == 0)
				o->repeat = strtoull(optarg + 7, NULL, 10);
			break;
		default: exit(2);
		}
	}
}

static int print_drops(uint16_t queue)
{
	uint64_t full = 0, user = 0;
	int r = nfq_drops(queue, &full, &user);

	printf("{\"result\":%d,\"queue_dropped\":%" PRIu64 ",\"user_dropped\":%" PRIu64 ",\"holder\":%u}\n", r, full, user,
	       nfq_holder(queue));
	return 0;
}

int main(int argc, char **argv)
{
	struct options o = { .range = 256, .maxlen = 1024, .kill_ms = 100, .packets = UINT64_MAX };
	struct sigaction sa = { .sa_handler = on_signal };
	struct nfq_info info = { 0 };
	struct shared *s;
	int fd, r;

	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGINT, &sa, NULL);
	if (argc == 3 && strcmp(argv[1], "drops") == 0)
		return print_drops((uint16_t)strtoul(argv[2], NULL, 10));
	if (argc < 4)
		return 2;
	read_options(argc - 1, argv + 1, &o);
	if (argc - 1 - optind != 2)
		return 2;
	o.queue = (uint16_t)strtoul(argv[1 + optind], NULL, 10);
	o.seconds = strtod(argv[2 + optind], NULL);
	s = mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (s == MAP_FAILED)
		return 1;
	fd = nfq_socket(o.rcvbuf);
	if (fd < 0)
		return 1;
	r = nfq_setup(fd, o.queue, o.range, o.maxlen, o.flags, &info);
	if (r == 0 && strcmp(argv[1], "hold") == 0)
		hold(fd, &o, s);
	else if (r == 0)
		r = read_queue(fd, &o, s);
	print(s, &info, r ? r : s->error);
	return 0;
}
