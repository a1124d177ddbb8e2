/* engine.c - the engine's main thread: start, the second's work, the end. See engine.h. */
#include "engine.h"

#include <errno.h>
#include <inttypes.h>
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "area_map.h"
#include "clock.h"
#include "log.h"
#include "nfq.h"
#include "snapshot.h"

#define COPY_RANGE   256
#define QUEUE_MAXLEN 32768
#define STUCK_NS     (5 * NS_PER_S)

/* Places that may be empty; asked before anything opens a descriptor that would take their numbers. */
static struct {
	bool policy, snapshot;
} given;

/* One engine at a time on an area: after a `kill -9` of the supervisor its successor may start us while the old engine's last
 * thread still runs. A POSIX record lock belongs to the process, and goes with it. */
static int wait_for_predecessor(void)
{
	struct flock l = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

	while (fcntl(FD_AREA, F_SETLKW, &l) < 0)
		if (errno != EINTR)
			return -errno;
	return 0;
}

static int load_config(struct config *c)
{
	ssize_t n = pread(FD_CONFIG, c, sizeof(*c), 0);

	if (n < 0)
		return -errno;
	return n == sizeof(*c) && c->magic == CONFIG_MAGIC ? 0 : -EPROTO;
}

static int wake(void *ctx)
{
	struct engine *e = ctx;

	/* The relay at once: the main thread may be waiting for the kernel, which takes its time over a change of the sets. */
	if (eventfd_write(FD_BELL, 1) < 0)
		return -errno;
	return eventfd_write(e->wake, 1) < 0 ? -errno : 0;
}

/* ---- the second ---- */

/* [E3] */
static bool workers_alive(struct engine *e, struct mono now)
{
	bool alive = true;

	for (unsigned i = 0; i < e->nworkers; i++) {
		struct engine_worker *w = &e->worker[i];
		uint64_t beat = atomic_load_explicit(&e->area.h->worker[i].heartbeat_ns, memory_order_relaxed);

		if (beat != w->seen_beat) {
			w->seen_beat = beat;
			w->seen_ns = now.ns;
		}
		alive = alive && now.ns - w->seen_ns < STUCK_NS;
	}
	return alive;
}

static int64_t wall_offset_s(struct mono now)
{
	return (int64_t)(clock_wall_us() / 1000000) - (int64_t)mono_s(now);
}

static void second(struct engine *e)
{
	struct mono now = clock_mono();
	int64_t offset = wall_offset_s(now);

	e->judge.wall_offset_s = offset;
	for (unsigned i = 0; i < e->nworkers; i++)
		__atomic_store_n(&e->worker[i].judge.wall_offset_s, offset, __ATOMIC_RELAXED);
	(void)blocked_settle(e, e->policy);	/* first: what the review deletes or puts in anew counts from zero */
	blocked_review(e, now);
	enforce_health(e, now);
	if (e->policy && !e->rules_due)
		engine_ready(e);
	if (leases_second(e))
		atomic_store_explicit(&e->area.h->settled_ns, now.ns, memory_order_release);	/* after the sums themselves */
	leases_review(e);
	if (workers_alive(e, now))
		engine_tell(FD_SUPER, PROTO_ALIVE, 0, 0, "");
}

/* Every lease has ended and nothing comes any more: all records agree, nothing is out. */
static void add_up(const struct engine *e)
{
	const uint64_t out = leases_outstanding(e);
	const char *why = "";

	if (engine_check(e, &why) < 0)
		log_error("sums do not add up at the end: %s", why);
	if (out)
		log_error("sums do not add up at the end: %" PRIu64 " bytes are out on leases, and none should be left", out);
}

/* Asked to stop: the rules leave while the workers still answer, so that the kernel finds little in the queues to drop with the hook. */
static void leave(struct engine *e)
{
	int r;

	leases_end_all(e);
	r = rules_remove(e->rules);
	if (r < 0)
		log_error("rules left in the kernel: %s", strerror(-r));
	atomic_store_explicit(&e->area.h->rules_in, 0, memory_order_relaxed);
	atomic_store_explicit(&e->area.h->kept_blocks, 0, memory_order_relaxed);	/* nobody puts them back */
	usleep(100000);
	add_up(e);
}

static void run(struct engine *e, int timer, int sigfd)
{
	struct pollfd p[] = {
		{ .fd = FD_PEER, .events = POLLIN },
		{ .fd = e->wake, .events = POLLIN },
		{ .fd = timer, .events = POLLIN },
		{ .fd = FD_SUPER, .events = POLLIN },
		{ .fd = sigfd, .events = POLLIN },
		{ .fd = e->watch, .events = POLLIN },
		{ .fd = e->lease_wake, .events = POLLIN },
		{ .fd = e->lease_grace, .events = POLLIN },
	};
	struct signalfd_siginfo asked;
	uint64_t n;

	for (;;) {
		/* As unsigned numbers -1, which waits for ever, is the largest. */
		unsigned due = MIN_OF((unsigned)answers_due_ms(e, clock_mono()), (unsigned)leases_due_ms(e));
		int ready = poll(p, ARRAY_SIZE(p), (int)due);

		if (ready == 0) {
			answers_review(e, clock_mono());
			leases_review(e);
			leases_go_on(e);
		}
		if (ready <= 0)
			continue;
		if (p[3].revents)
			return;	/* the supervisor is gone: its successor starts an engine of its own */
		if (p[4].revents && read(sigfd, &asked, sizeof(asked)) == sizeof(asked)) {
			if (asked.ssi_signo == SIGUSR1)
				leave(e);
			else
				leases_end_all(e);	/* rules stay; what is out is settled before the snapshot */
			return;
		}
		if (p[6].revents && read(e->lease_wake, &n, sizeof(n)) == sizeof(n))
			leases_review(e);	/* first: packets may wait for it, and who begins again is waked */
		if (p[7].revents && read(e->lease_grace, &n, sizeof(n)) == sizeof(n))
			leases_grace_over(e);
		if (p[5].revents && enforce_watch(e, clock_mono()))
			(void)eventfd_write(FD_BELL, 1);
		if (p[0].revents & POLLHUP)
			p[0].fd = -1;
		else if (p[0].revents)
			command_take(e);
		if (p[1].revents && read(e->wake, &n, sizeof(n)) == sizeof(n)) {
			blocked_review(e, clock_mono());
			(void)eventfd_write(FD_BELL, 1);
		}
		if (p[2].revents && read(timer, &n, sizeof(n)) == sizeof(n)) {
			second(e);
			(void)eventfd_write(FD_BELL, 1);
		}
		leases_go_on(e);
	}
}

/* ---- start ---- */

/* Who has the capability is refused a queue that another process holds. */
static void tell_refused(unsigned queue, int r)
{
	uint32_t holder = nfq_holder((uint16_t)queue);
	char text[200];

	if (r == -EPERM && !confine_net_admin())
		snprintf(text, sizeof(text), "queue %u: not permitted: run as root or with CAP_NET_ADMIN", queue);
	else if (r == -EPERM && holder)
		snprintf(text, sizeof(text), "queue %u is held by another process (netlink port %u, often its process id): stop it, or "
			 "set queues.first to a free number", queue, holder);
	else if (r == -EPERM)
		snprintf(text, sizeof(text), "queue %u is held by another process, or CAP_NET_ADMIN is of a user namespace of its own; "
			 "the holder: sudo cat " NFQ_PROC_FILE " (queue, netlink port)", queue);
	else
		snprintf(text, sizeof(text), "queue %u: %s: is nfnetlink_queue in this kernel? modprobe nfnetlink_queue", queue,
			 strerror(-r));
	engine_tell(FD_SUPER, PROTO_FAILED, 0, r, text);	/* who says it */
}

static int open_queues(struct engine *e)
{
	for (unsigned i = 0; i < e->nworkers; i++) {
		struct engine_worker *w = &e->worker[i];
		struct nfq_info info = { 0 };
		int r;

		w->e = e;
		w->index = i;
		w->fd = FD_QUEUE + (int)i;
		w->queue = (uint16_t)(e->config.queue_first + i);
		r = nfq_setup(w->fd, w->queue, COPY_RANGE, QUEUE_MAXLEN,
			      NFQ_GSO | (e->config.failure == FAILURE_OPEN ? NFQ_FAIL_OPEN : 0), &info);
		if (r < 0) {
			tell_refused(w->queue, r);
			return r;
		}
		if (!(info.flags & NFQ_GSO))
			log_notice("queue %u: this kernel does not hand over large packets whole; more packets, same bytes",
				   w->queue);
		w->judge = e->judge;
		w->judge.counter = e->area.h->worker[i].counter;
		w->judge.notify = wake;
		w->judge.ctx = e;
		w->seen_ns = clock_mono().ns;
		worker_recover(e, i);
		held_recover(e, i);
	}
	return 0;
}

static void restore(struct engine *e, struct mono now)
{
	char why[200] = "";
	uint64_t gap = 0;
	int r;

	if (!given.snapshot)
		return;
	r = snapshot_restore(FD_SNAPSHOT, &e->area, now, clock_wall_us(), &gap, why, sizeof(why));
	close(FD_SNAPSHOT);
	if (r < 0) {
		log_warning("snapshot not restored: %s; sums start at zero", why);
		return;
	}
	atomic_fetch_add_explicit(&e->area.h->gap_ns, gap, memory_order_relaxed);
	atomic_fetch_add_explicit(&e->area.h->health[HEALTH_RESTORED], 1, memory_order_relaxed);
	log_notice("%s", why);	/* "restored, gap 14:02:10-14:03:41" */
}

/* The area is of this boot. */
static void assume_kernel(struct engine *e)
{
	const uint32_t flavour = atomic_load_explicit(&e->area.h->flavour, memory_order_relaxed);
	const bool leases = atomic_load_explicit(&e->area.h->leases_on, memory_order_relaxed);

	if (flavour && (leases || !e->config.leases))	/* else it was not asked for leases */
		rules_assume(e->rules, (enum rules_flavour)flavour, leases);
}

static int start(struct engine *e)
{
	static _Atomic uint64_t own_counters[AC_COUNT];	/* the main thread judges nothing; decisions count here */
	struct mono now = clock_mono();
	size_t size = 0;
	void *mem = NULL;
	int r = load_config(&e->config);

	if (r == 0)
		r = wait_for_predecessor();
	if (r == 0)
		r = area_map(FD_AREA, PROT_READ | PROT_WRITE, &mem, &size);
	if (r == 0)
		r = area_open(mem, size, &e->area);
	if (r < 0) {
		log_error("shared memory of the supervisor: %s", strerror(-r));
		return r;
	}
	e->nworkers = e->config.queue_count;
	e->judge.area = e->area;
	e->judge.counter = own_counters;
	e->judge.wall_offset_s = wall_offset_s(now);	/* the workers' copies begin with it: no contract is young again */
	e->answers = answers_new();
	e->leases = leases_new();
	if (!e->answers || !e->leases)
		return -ENOMEM;
	e->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	e->lease_wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	e->ioctl_fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (e->wake < 0 || e->lease_wake < 0 || e->ioctl_fd < 0)
		return -errno;
	restore(e, now);
	judge_recover(&e->judge);
	lease_recover(&e->judge);
	r = rules_open(FD_NFT_OWNER, FD_NFT_KEEP, &e->rules);
	if (r < 0) {
		log_error("nftables socket: %s", strerror(-r));
		return r;
	}
	assume_kernel(e);
	if (atomic_fetch_add_explicit(&e->area.h->engine_starts, 1, memory_order_relaxed) > 0) {
		area_blind_begin(&e->area, atomic_load_explicit(&e->area.h->engine_started_ns, memory_order_relaxed));
		/* Release: who sees the count sees since when. */
		atomic_fetch_add_explicit(&e->area.h->health[HEALTH_ENGINE_RESTART], 1, memory_order_release);
	}
	atomic_store_explicit(&e->area.h->engine_started_ns, now.ns, memory_order_relaxed);
	e->overflow_seen = area_counter_sum(&e->area, AC_OVERFLOW);
	e->braked_seen = atomic_load_explicit(&e->area.h->braked, memory_order_relaxed);
	return 0;
}

/* The policy that the last engine had: no need to wait for the relay. */
static void inherit_policy(struct engine *e)
{
	uint32_t version = atomic_load_explicit(&e->area.h->policy_version, memory_order_relaxed);
	bool rules_in = atomic_load_explicit(&e->area.h->rules_in, memory_order_relaxed);
	char why[200] = "";
	int fd;

	if (!given.policy)
		return;
	fd = fcntl(FD_POLICY, F_DUPFD_CLOEXEC, FD_QUEUE + AREA_WORKERS);
	close(FD_POLICY);
	if (fd < 0)
		return;
	/* The rules are the dead engine's, of this policy: packets wait, so they are brought up to date after the workers run. */
	if (enforce_policy(e, fd, version, rules_in, why) < 0)
		log_error("policy kept from before the restart: %s; waiting for the relay", why);
}

int engine_main(void)
{
	static struct engine e;
	struct itimerspec each = { .it_interval.tv_sec = 1, .it_value.tv_sec = 1 };
	int timer, sigfd, r;
	sigset_t set;

	given.policy = fcntl(FD_POLICY, F_GETFD) >= 0;
	given.snapshot = fcntl(FD_SNAPSHOT, F_GETFD) >= 0;
	log_open("engine");
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);	/* leave */
	sigaddset(&set, SIGUSR2);	/* a successor comes; SIGTERM (parent died) just ends us, blocks stay */
	sigprocmask(SIG_BLOCK, &set, NULL);	/* before the threads, which inherit it */
	sigfd = signalfd(-1, &set, SFD_CLOEXEC);
	r = sigfd < 0 ? -errno : start(&e);
	if (r < 0)
		return EXIT_FAILURE;
	inherit_policy(&e);	/* before the slots are recovered: what is repeated is judged by it */
	r = open_queues(&e);
	if (r < 0)
		return EXIT_FAILURE;
	r = rules_watch(e.rules, &e.watch);	/* after the queues, which say better what permission is missing */
	if (r < 0) {
		log_error("changes of kernel rules cannot be watched: %s", strerror(-r));
		return EXIT_FAILURE;
	}
	timer = timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC | TFD_NONBLOCK);
	if (timer < 0 || timerfd_settime(timer, 0, &each, NULL) < 0) {
		log_error("timer: %s", strerror(errno));
		return EXIT_FAILURE;
	}
	r = confine_engine();
	if (r < 0)
		log_warning("confinement not complete: %s; going on with what the service manager set", strerror(-r));
	for (unsigned i = 0; i < e.nworkers; i++) {
		r = pthread_create(&e.worker[i].thread, NULL, worker_run, &e.worker[i]);
		if (r != 0) {
			log_error("worker thread: %s", strerror(r));
			return EXIT_FAILURE;
		}
	}
	r = leases_start(&e);
	if (r < 0) {
		log_error("thread for leases: %s", strerror(-r));
		return EXIT_FAILURE;
	}
	if (e.policy) {
		enforce_start(&e);
		if (!e.rules_due)	/* else when they are in: second() */
			engine_ready(&e);
	}
	run(&e, timer, sigfd);
	return EXIT_SUCCESS;
}
