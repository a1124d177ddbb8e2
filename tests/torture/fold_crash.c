/* An eviction killed at any instruction folds nothing twice and loses nothing: a child is stepped through judge_evict_release() of three
 * pairs with PTRACE_SINGLESTEP and killed after n instructions; the parent recovers and adds up. STEPS (150) values of n, spread over
 * all of them, the last one beyond the end.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "judge.h"

#define PAIRS	 128U
#define ACCOUNTS 256U
#define VICTIMS	 3U

static void *mem, *before;
static size_t size;
static struct judge j;
static _Atomic uint64_t counter[AC_COUNT];

static void send(uint32_t src, uint32_t dst, uint32_t len, unsigned times)
{
	struct judge_packet v = { .p = { .len = len, .proto = 17, .sport = 1, .dport = 53 }, .opener = OPENER_INSIDE };
	uint32_t be[2] = { __builtin_bswap32(src), __builtin_bswap32(dst) };

	v.p.src = addr_from_v4(&be[0]);
	v.p.dst = addr_from_v4(&be[1]);
	for (unsigned i = 0; i < times; i++)
		judge_batch(&j, &v, 1, (struct mono){ 5 * NS_PER_S });
}

static void view(void)
{
	BUG_ON(area_open(mem, size, &j.area) < 0);
	j.counter = counter;
	j.nretired[0] = j.nretired[1] = 0;
}

struct sums {
	uint64_t bytes, packets, refused;
};

static struct sums add_up(void)
{
	struct sums s = { 0 };

	for (uint32_t i = 0; i < PAIRS; i++) {
		if (!table_is_full(&j.area.pairs, i))
			continue;
		s.bytes += pair_bytes(&j.area.pair[i], &j.area.pair_cold[i]);
		s.packets += pair_packets(&j.area.pair[i], &j.area.pair_cold[i]);
		s.refused += pair_refused(&j.area.pair_cold[i]);
	}
	s.bytes += j.area.h->folded_bytes + j.area.h->lost_pair_bytes;
	return s;
}

/* Two hosts, one of them with an overflow record that has something folded in already; three pairs retired. */
static void make_world(void)
{
	struct hash_key key = { { 3 } };
	uint8_t boot[16] = { 0 };

	area_format(mem, PAIRS, ACCOUNTS, 1, &key, 1, boot, (struct mono){ NS_PER_S });
	view();
	for (uint32_t i = 0; i < 40; i++) {
		send(0x0a000001 + i % 2, 0xcb007101 + i, 100 + i, 1 + i % 3);
		if (i == 9) {
			for (uint32_t s = 0; s < PAIRS && j.nretired[0] < 2; s++)
				if (table_retire(&j.area.pairs, s))
					j.retired[0][j.nretired[0]++] = s;
			judge_evict_release(&j);
		}
	}
	for (uint32_t s = 0; s < PAIRS; s++) {
		if (!table_is_full(&j.area.pairs, s) || j.area.pair[s].key.class_uid == PAIR_CLASS_OVERFLOW)
			continue;
		j.area.pair_cold[s].refused = 7000 + s;
		if (j.nretired[0] < VICTIMS && table_retire(&j.area.pairs, s))
			j.retired[0][j.nretired[0]++] = s;
	}
}

static void child(void)
{
	if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0)
		_exit(2);
	raise(SIGSTOP);
	judge_evict_release(&j);
	raise(SIGSTOP);
	_exit(0);
}

/* Instructions done before the second stop, at most n; the child is dead afterwards. */
static unsigned long step(unsigned long n)
{
	unsigned long done = 0;
	int status;
	pid_t pid = fork();

	if (pid == 0)
		child();
	BUG_ON(waitpid(pid, &status, 0) != pid);
	if (!WIFSTOPPED(status)) {
		puts("skip - ptrace is not permitted here");
		exit(77);
	}
	while (done < n) {
		BUG_ON(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) < 0 || waitpid(pid, &status, 0) != pid || !WIFSTOPPED(status));
		if (WSTOPSIG(status) != SIGTRAP)
			break;
		done++;
	}
	kill(pid, SIGKILL);
	BUG_ON(waitpid(pid, &status, 0) != pid || !WIFSIGNALED(status));
	return done;
}

int main(void)
{
	const char *text = getenv("STEPS"), *why = "";
	unsigned long steps = text ? strtoul(text, NULL, 10) : 150, all, folded = 0;
	uint32_t victim[VICTIMS];
	struct sums want, got;

#if defined(__SANITIZE_THREAD__)
	puts("skip - fold_crash: one thread, and a sanitizer's instructions would be stepped through too");
	return 77;
#endif
	size = area_size(PAIRS, ACCOUNTS);
	mem = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	before = malloc(size);
	BUG_ON(mem == MAP_FAILED || !before);
	make_world();
	memcpy(victim, j.retired[0], sizeof(victim));
	want = add_up();
	for (unsigned i = 0; i < VICTIMS; i++) {	/* dying ones do not show */
		want.bytes += j.area.pair[victim[i]].bytes;
		want.packets += j.area.pair[victim[i]].packets;
		want.refused += j.area.pair_cold[victim[i]].refused;
	}
	memcpy(before, mem, size);
	all = step(~0ul);
	BUG_ON(all < 100);
	for (unsigned long i = 0; i <= steps; i++) {
		memcpy(mem, before, size);
		view();
		memcpy(j.retired[0], victim, sizeof(victim));
		j.nretired[0] = VICTIMS;
		(void)step(all * i / steps + i % 3);
		view();
		folded += j.area.h->fold.valid;
		judge_recover(&j);
		got = add_up();
		if (got.bytes != want.bytes || got.packets != want.packets || got.refused != want.refused ||
		    area_check(&j.area, &why) != 0) {
			printf("not ok - killed after %lu of %lu instructions: %lu bytes, %lu packets, %lu refused; wanted %lu, %lu, "
			       "%lu; %s\n", all * i / steps + i % 3, all, got.bytes, got.packets, got.refused, want.bytes,
			       want.packets, want.refused, why);
			return 1;
		}
	}
	BUG_ON(folded == 0);
	printf("ok - %lu kills in %lu instructions, %lu of them with a fold under way: sums exact\n", steps + 1, all, folded);
	return 0;
}
