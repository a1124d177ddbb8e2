/* empty_loop.c - the baseline of the benches: a batched verdict loop that decides nothing. Per turn one recvmmsg of up to 64
 * and one sendmsg with a batch verdict that sets the judged mark; large packets come whole. The same calls with the same
 * buffers as the engine's workers, so that the difference is what judging costs.
 *
 *   empty_loop [-c COPY-RANGE] [-m MASK] QUEUE...
 *
 * One thread a queue. Says "ready" on stderr when all are bound; at SIGTERM or SIGINT prints one line of JSON on stdout:
 * packets, bytes (IP lengths), batches, ENOBUFS, and the CPU seconds of this process.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "compiler.h"
#include "nfq.h"

#define QUEUES_MAX 64
#define SLOT_LEN   768
#define RCVBUF     (64u << 20)
#define MAXLEN     32768

struct loop {
	uint8_t slot[NFQ_BATCH][SLOT_LEN] CACHE_ALIGNED;
	pthread_t thread;
	int fd;
	uint16_t queue;
	uint32_t mask, judged;
	uint64_t packets, bytes, batches, enobufs, errors;
} CACHE_ALIGNED;

static struct loop loops[QUEUES_MAX];
static atomic_bool stop;

static void turn(struct loop *l)
{
	struct nfq_verdict v[NFQ_BATCH];
	unsigned len[NFQ_BATCH], n = 0;
	int got = nfq_receive(l->fd, l->slot[0], SLOT_LEN, SLOT_LEN, NFQ_BATCH, len, 250);

	if (got <= 0) {
		l->enobufs += got == -ENOBUFS;
		return;
	}
	for (int i = 0; i < got; i++) {
		struct nfq_msg m;

		if (nfq_parse(l->slot[i], len[i], &m) < 0)
			continue;
		v[n++] = (struct nfq_verdict){ .id = m.id, .mark = m.mark, .answer = NFQ_ACCEPT };
		l->bytes += m.len;
	}
	l->packets += n;
	l->batches++;
	l->errors += nfq_answer(l->fd, l->queue, v, n, l->mask, l->judged) < 0;
}

static void *run(void *arg)
{
	struct loop *l = arg;

	/* Relaxed: nothing is reached through it; counters are read after pthread_join(). */
	while (!atomic_load_explicit(&stop, memory_order_relaxed))
		turn(l);
	return NULL;
}

static int open_loop(struct loop *l, const char *text, uint32_t range, uint32_t mask)
{
	char *end;
	unsigned long queue = strtoul(text, &end, 10);
	struct nfq_info info;
	int r;

	if (*end || end == text || queue > UINT16_MAX)
		return -EINVAL;
	l->queue = (uint16_t)queue;
	l->mask = mask;
	l->judged = mask & ~(mask & -mask);
	l->fd = nfq_socket(RCVBUF);
	if (l->fd < 0)
		return l->fd;
	r = nfq_setup(l->fd, l->queue, range, MAXLEN, NFQ_GSO | NFQ_FAIL_OPEN, &info);
	if (r == -EPERM)
		fprintf(stderr, "queue %u is held by port %u\n", l->queue, nfq_holder(l->queue));
	return r < 0 ? r : info.flags & NFQ_GSO ? 0 : -EOPNOTSUPP;
}

static void print(int n)
{
	struct {
		uint64_t packets, bytes, batches, enobufs, errors;
	} sum = { 0 };
	struct rusage u;

	for (int i = 0; i < n; i++) {
		sum.packets += loops[i].packets;
		sum.bytes += loops[i].bytes;
		sum.batches += loops[i].batches;
		sum.enobufs += loops[i].enobufs;
		sum.errors += loops[i].errors;
	}
	getrusage(RUSAGE_SELF, &u);
	printf("{\"packets\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"batches\":%" PRIu64 ",\"enobufs\":%" PRIu64 ",\"errors\":%" PRIu64
	       ",\"cpu\":%.6f,\"per_queue\":[", sum.packets, sum.bytes, sum.batches, sum.enobufs, sum.errors,
	       (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6);
	for (int i = 0; i < n; i++)
		printf("%s%" PRIu64, i ? "," : "", loops[i].packets);
	puts("]}");
}

static int usage(void)
{
	fputs("usage: empty_loop [-c COPY-RANGE] [-m MASK] QUEUE...\n", stderr);
	return 2;
}

int main(int argc, char **argv)
{
	uint32_t range = 256, mask = 0x30000000;
	sigset_t signals;
	int c, n, sig;

	while ((c = getopt(argc, argv, "c:m:")) != -1) {
		if (c == 'c')
			range = (uint32_t)strtoul(optarg, NULL, 0);
		else if (c == 'm')
			mask = (uint32_t)strtoul(optarg, NULL, 0);
		else
			return usage();
	}
	n = argc - optind;
	if (n < 1 || n > QUEUES_MAX)
		return usage();
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	pthread_sigmask(SIG_BLOCK, &signals, NULL);
	for (int i = 0; i < n; i++) {
		int r = open_loop(&loops[i], argv[optind + i], range, mask);

		if (r < 0) {
			fprintf(stderr, "queue %s: %s\n", argv[optind + i], strerror(-r));
			return 1;
		}
	}
	for (int i = 0; i < n; i++)
		if (pthread_create(&loops[i].thread, NULL, run, &loops[i]) != 0)
			return 1;
	fputs("ready\n", stderr);
	sigwait(&signals, &sig);
	atomic_store_explicit(&stop, true, memory_order_relaxed);	/* see run() */
	for (int i = 0; i < n; i++)
		pthread_join(loops[i].thread, NULL);
	print(n);
	return 0;
}
