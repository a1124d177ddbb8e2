/* supervisor.c - see supervisor.h for the contract. */
#include "supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "area.h"
#include "area_map.h"
#include "children.h"
#include "clock.h"
#include "control.h"
#include "log.h"
#include "nfq.h"
#include "proto.h"
#include "rules.h"
#include "snapshot.h"
#include "supervisor_kept.h"
#include "supervisor_rules.h"

#define QUEUE_RCVBUF (64U << 20)
#define EARLY_DEATHS 5		/* one after the other before READY, each within EARLY_S of its start: give up */
#define EARLY_S	     20
#define RETRY_NS     NS_PER_S	/* after the start of one that did not become ready, EARLY_DEATHS times in a row */
#define STOP_MS	     6000	/* each child; the relay may wait CONTROL_ANSWER_S for an engine that ends */

enum ending {			/* what becomes of rules and blocks */
	REMOVE_RULES = 1,
	LEAVE_RULES,		/* for a successor */
	STAY_RULES,		/* they are not ours to remove */
};

enum child_role { ENGINE, RELAY, ROLES };

struct child {
	const char *role;
	pid_t pid;
	int ours, theirs;	/* socket pair to the supervisor */
	bool ready;
	unsigned early;		/* deaths in a row within EARLY_S */
	unsigned unready;	/* and before it became ready */
	uint64_t started_ns, alive_ns;
};

/* Names of what the service manager keeps, besides area, policy and queueN. */
#define NFT_OWNER "nft-owner"
#define NFT_KEEP  "nft-keep"
#define RESTART	  "restart"	/* no more than that one was asked for */

#define EXIT_PASSING 71		/* EX_OSERR of sysexits.h: not 1, after which the unit is not started again */

#define RESTART_FAILED "the restart that was asked for has failed: rules and blocks are taken out, as by a stop; the next start that succeeds " \
	"brings the blocks back"

struct supervisor {
	struct config config;
	int config_fd, area, bell, policy, snapshot;
	int owner, keep, queue[AREA_WORKERS];
	int peer[2];		/* [ENGINE], [RELAY] */
	struct child child[ROLES];
	bool told_ready;
	bool refused;		/* a child said that it cannot work, ... */
	char failed[200];	/* ... and why */
	bool took_over;		/* the area was kept by the service manager: rules in the kernel may be our predecessor's */
	bool handed_on;		/* the service manager had something of a predecessor's */
	bool restarted;		/* on request: the policy file is read again */
	bool taken_out;		/* rules of a table that does not fit: nothing is left of them */
	const char *config_path;
};

/* A descriptor that nothing works without, or -errno, and told. */
static int needed(int fd, const char *what)
{
	if (fd < 0)
		log_error("cannot start: %s: %s%s", what, strerror(-fd), fd == -EMFILE ? ": raise LimitNOFILE (ulimit -n)" : "");
	return fd;
}

/* ---- what must outlive the children ---- */

static int sealed_config(const struct config *c)
{
	int fd = memfd_create("egressd-config", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0)
		return -errno;
	if (write(fd, c, sizeof(*c)) != (ssize_t)sizeof(*c) ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
		close(fd);
		return -EIO;
	}
	return child_lift(fd);
}

static void boot_id(uint8_t id[16])
{
	char text[40] = "";
	int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	unsigned n = 0;

	if (fd >= 0 && read(fd, text, sizeof(text) - 1) > 0)
		for (char *p = text; *p && n < 32; p++) {
			unsigned v = *p >= '0' && *p <= '9' ? (unsigned)(*p - '0') :
				     *p >= 'a' && *p <= 'f' ? (unsigned)(*p - 'a' + 10) : 16;

			if (v < 16) {
				id[n / 2] = (uint8_t)(id[n / 2] << 4 | v);
				n++;
			}
		}
	if (fd >= 0)
		close(fd);
}

static uint32_t accounts_for(const struct config *c)
{
	return c->pairs * 2;
}

/* An area kept by the service manager is used when it is of this layout and these sizes, and the rules that stand of these marks. */
static bool area_fits(int fd, const struct config *c)
{
	size_t size = area_size(c->pairs, accounts_for(c));
	struct stat st;
	struct area a;
	void *mem;
	bool fits;

	if (fstat(fd, &st) < 0 || (size_t)st.st_size != size)
		return false;
	mem = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
	if (mem == MAP_FAILED)
		return false;
	fits = area_open(mem, size, &a) == 0 && a.h->pairs == c->pairs && a.h->workers == c->queue_count && a.h->mark_mask == c->mark_mask;
	munmap(mem, size);
	return fits;
}

static int new_area(const struct config *c)
{
	size_t size = area_size(c->pairs, accounts_for(c));
	int fd = memfd_create("egressd-area", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	uint8_t boot[16] = { 0 };
	struct hash_key key;
	uint64_t id;
	void *mem;
	int r;

	if (fd < 0)
		return -errno;
	fd = child_lift(fd);
	if (fd < 0 || ftruncate(fd, (off_t)size) < 0)
		return -errno;
	r = area_map(fd, PROT_READ | PROT_WRITE, &mem, &size);
	if (r < 0)
		return r;
	if (getrandom(&key, sizeof(key), 0) != sizeof(key) || getrandom(&id, sizeof(id), 0) != sizeof(id))
		return -errno;
	boot_id(boot);
	area_format(mem, c->pairs, accounts_for(c), c->queue_count, &key, id & UINT32_MAX, boot, clock_mono());
	((struct area_header *)mem)->mark_mask = c->mark_mask;
	r = area_collapse(mem, area_hot_size(c->pairs, accounts_for(c)));
	if (r < 0)
		log_info("no huge pages for the table (%s): it works, a little slower", strerror(-r));
	munmap(mem, size);
	if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) < 0)
		return -errno;
	return fd;
}

static int open_area(struct supervisor *s, char **names, int n)
{
	int fd = kept_take(names, n, "area");

	if (fd >= 0 && area_fits(fd, &s->config)) {
		s->area = fd;
		s->took_over = true;
		log_notice("took over the running table");
		return 0;
	}
	if (fd >= 0) {
		const int owner = kept_take(names, n, NFT_OWNER), keep = kept_take(names, n, NFT_KEEP);

		log_notice("the kept table is of another layout, size or mark_mask; starting from the snapshot");
		close(fd);
		kept_drop("area");
		/* The new one knows nothing of the packets that wait in the queues, nor of counts and blocks in the kernel. */
		super_take_out(owner, keep);
		s->taken_out = true;
		if (owner >= 0)
			close(owner);
		if (keep >= 0)
			close(keep);
		kept_drop(NFT_OWNER);
		kept_drop(NFT_KEEP);
		kept_drop_rest(names, n);
	}
	s->area = new_area(&s->config);
	if (s->area < 0) {
		log_error("memory for %u pairs (%zu MB address space): %s; set table.pairs lower", s->config.pairs,
			  area_size(s->config.pairs, accounts_for(&s->config)) >> 20, strerror(-s->area));
		return s->area;
	}
	s->snapshot = snapshot_open(s->config.state_dir);
	if (s->snapshot >= 0)
		s->snapshot = child_lift(s->snapshot);
	kept_give(s->area, "area");
	return 0;
}

static int kept_socket(char **names, int n, const char *name)
{
	int fd = kept_take(names, n, name);

	if (fd >= 0)
		return fd;
	fd = nfq_socket(QUEUE_RCVBUF);
	if (fd < 0) {
		log_error("netlink socket: %s%s", strerror(-fd),
			  fd == -EPERM ? ": run as root or with CAP_NET_ADMIN" : "");
		return fd;
	}
	fd = needed(child_lift(fd), "netlink socket");
	if (fd >= 0)
		kept_give(fd, name);
	return fd;
}

static int open_kernel(struct supervisor *s, char **names, int n)
{
	s->owner = kept_socket(names, n, NFT_OWNER);
	s->keep = s->owner < 0 ? -1 : kept_socket(names, n, NFT_KEEP);
	if (s->owner < 0 || s->keep < 0)
		return s->owner < 0 ? s->owner : s->keep;
	for (uint32_t i = 0; i < s->config.queue_count; i++) {
		char name[16];

		snprintf(name, sizeof(name), "queue%u", s->config.queue_first + i);
		s->queue[i] = kept_socket(names, n, name);
		if (s->queue[i] < 0)
			return s->queue[i];
	}
	return 0;
}

static int pair_of_sockets(int *a, int *b)
{
	int p[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, p) < 0)
		return needed(-errno, "socket pair");
	*a = needed(child_lift(p[0]), "socket pair");
	*b = *a < 0 ? *a : needed(child_lift(p[1]), "socket pair");
	return MIN_OF(*a, *b) < 0 ? MIN_OF(*a, *b) : 0;
}

static void free_names(char **names, int n)
{
	for (int i = 0; i < n; i++)
		free(names[i]);
	free(names);
}

/* With descriptors handed over we succeed the process that may still have the socket, and our relay waits for it. */
static int alone(const struct supervisor *s)
{
	char path[CONFIG_PATH + 32];

	snprintf(path, sizeof(path), "%s/control.sock", s->config.runtime_dir);
	if (control_alone(path) != -EADDRINUSE)
		return 0;	/* what else is amiss there the relay finds */
	log_error("cannot start: " ANOTHER_EGRESSD, path);
	return -EADDRINUSE;
}

static int open_all(struct supervisor *s)
{
	char **names = NULL;
	int n = sd_listen_fds_with_names(1, &names), restart, r;

	s->snapshot = -1;
	s->config_fd = needed(sealed_config(&s->config), "memory for the configuration");
	s->bell = needed(child_lift(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)), "eventfd");
	s->policy = kept_take(names, n, "policy");
	restart = kept_take(names, n, RESTART);
	s->restarted = restart >= 0;
	if (s->restarted) {
		close(restart);
		kept_drop(RESTART);
	}
	r = MIN_OF(s->config_fd, s->bell) < 0 ? MIN_OF(s->config_fd, s->bell) : n > 0 ? 0 : alone(s);
	if (r == 0)
		r = open_area(s, names, n);
	if (r == 0)
		r = open_kernel(s, names, n);
	if (r == 0)
		r = pair_of_sockets(&s->peer[ENGINE], &s->peer[RELAY]);
	for (int i = 0; r == 0 && i < ROLES; i++)
		r = pair_of_sockets(&s->child[i].ours, &s->child[i].theirs);
	kept_drop_rest(names, n);
	s->handed_on = n > 0;
	free_names(names, n);
	return r;
}

/* ---- children ---- */

static void start_child(struct supervisor *s, enum child_role role)
{
	struct child *c = &s->child[role];
	bool engine = role == ENGINE;
	struct child_fd fds[FD_QUEUE + AREA_WORKERS - FD_AREA] = {
		{ s->area, FD_AREA },
		{ s->config_fd, FD_CONFIG },
		{ s->peer[role], FD_PEER },
		{ c->theirs, FD_SUPER },
		{ s->bell, FD_BELL },
		{ engine ? s->owner : -1, FD_NFT_OWNER },
		{ engine ? s->keep : -1, FD_NFT_KEEP },
		{ engine ? s->policy : -1, FD_POLICY },
		{ engine ? s->snapshot : -1, FD_SNAPSHOT },
	};
	unsigned n = FD_QUEUE - FD_AREA;

	for (uint32_t i = 0; i < AREA_WORKERS; i++, n++)
		fds[n] = (struct child_fd){ engine && i < s->config.queue_count ? s->queue[i] : -1, FD_QUEUE + (int)i };
	c->ready = false;
	c->pid = child_spawn(c->role, fds, n, engine);
	c->started_ns = clock_mono().ns;
	if (c->pid < 0)
		log_error("cannot start the %s: %s; trying again in a second", c->role, strerror(-(int)c->pid));
	c->alive_ns = c->started_ns;
	if (engine) {
		if (s->snapshot >= 0)
			close(s->snapshot);	/* restored once, into a new area only */
		s->snapshot = -1;
	}
}

/* Too many deaths before anything ever worked: the machine needs an admin, not a storm. [V3] */
static bool hopeless(const struct supervisor *s, const struct child *c)
{
	return !s->told_ready && (s->refused || c->early >= EARLY_DEATHS);
}

static void tell_ready(struct supervisor *s)
{
	for (int i = 0; i < ROLES; i++)
		if (!s->child[i].ready || s->child[i].pid <= 0)
			return;		/* or it has died since: its successor says so again */
	if (s->told_ready)
		return;
	s->told_ready = true;
	sd_notify(0, "READY=1\nSTATUS=judging");
	log_info("ready");
	if (s->restarted)	/* what runs was taken over, its policy with it */
		kill(s->child[RELAY].pid, SIGHUP);
}

static void keep_policy(struct supervisor *s, int fd)
{
	if (s->policy >= 0) {
		close(s->policy);
		kept_drop("policy");
	}
	s->policy = child_lift(fd);
	if (s->policy >= 0)
		kept_give(s->policy, "policy");
}

/* One message; false: there is none. */
static bool hear(struct supervisor *s, enum child_role role)
{
	struct proto_msg m;
	int fd = -1, r = proto_receive(s->child[role].ours, &m, &fd, MSG_DONTWAIT);

	if (r <= 0)
		return false;
	if (m.kind == PROTO_ALIVE) {
		s->child[role].alive_ns = clock_mono().ns;
		if (role == ENGINE)
			sd_notify(0, "WATCHDOG=1");
	} else if (m.kind == PROTO_KEEP_POLICY && role == ENGINE && fd >= 0) {
		keep_policy(s, fd);
		fd = -1;
	} else if (m.kind == PROTO_READY || m.kind == PROTO_RELAY_READY) {
		s->child[role].ready = true;
		tell_ready(s);
	} else if (m.kind == PROTO_FAILED) {
		snprintf(s->failed, sizeof(s->failed), "%.*s", (int)sizeof(m.u.reply.text) - 1, m.u.reply.text);
		s->refused = true;
	}
	if (fd >= 0)
		close(fd);
	return true;
}

static int reap(struct supervisor *s)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		for (int i = 0; i < ROLES; i++) {
			struct child *c = &s->child[i];

			if (c->pid != pid)
				continue;
			c->pid = -1;
			while (hear(s, (enum child_role)i))
				continue;	/* its last words: the policy that the next one begins with */
			c->early = clock_mono().ns - c->started_ns < EARLY_S * NS_PER_S ? c->early + 1 : 0;
			if (hopeless(s, c)) {
				log_error("cannot start: %s", s->failed[0] ? s->failed : "a process dies again and again");
				return -ECHILD;
			}
			log_warning("%s died (%s %d%s%s); starting it again", c->role,
				    WIFSIGNALED(status) ? "signal" : "exit code",
				    WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status), s->failed[0] ? ": " : "",
				    s->failed);
			s->failed[0] = '\0';
			c->unready = c->ready ? 0 : c->unready + 1;
			if (c->unready < EARLY_DEATHS || clock_mono().ns - c->started_ns >= RETRY_NS)
				start_child(s, (enum child_role)i);	/* else watch() does, in its time: no storm */
		}
	return 0;
}

/* [V4] */
static void watch(struct supervisor *s)
{
	static const unsigned silent_s[] = { [ENGINE] = SUPERVISOR_SILENT_S, [RELAY] = SUPERVISOR_RELAY_S };
	const uint64_t now = clock_mono().ns;

	for (int i = 0; i < ROLES; i++) {
		struct child *c = &s->child[i];

		if (c->pid < 0 && now - c->started_ns >= RETRY_NS)
			start_child(s, (enum child_role)i);
		else if (s->told_ready && c->pid > 0 && now - c->alive_ns > silent_s[i] * NS_PER_S) {
			log_error("%s silent for %u s; replacing it", c->role, silent_s[i]);
			kill(c->pid, SIGKILL);
			c->alive_ns = now;
		}
	}
}

/* ---- stop ---- */

static void end(struct child *c, int sig)
{
	bool ended = false;

	if (c->pid <= 0)
		return;
	kill(c->pid, sig);
	kill(c->pid, SIGCONT);
	for (unsigned ms = 0; !ended && ms < STOP_MS; ms += 10) {
		ended = waitpid(c->pid, NULL, WNOHANG) == c->pid;
		if (!ended)
			usleep(10000);
	}
	if (!ended) {
		log_error("the %s has not ended after %d s: killed", c->role, STOP_MS / 1000);
		kill(c->pid, SIGKILL);
		waitpid(c->pid, NULL, 0);
	}
	c->pid = -1;
}

/* A start that failed leaves the kernel as it found it: blocks of a killed predecessor hold, and rules of another egressd
 * stay. rules_in is of this area, so in a new one it speaks of our own engine. */
static bool rules_are_ours(const struct supervisor *s)
{
	struct area_header *h = mmap(NULL, sizeof(*h), PROT_READ, MAP_SHARED, s->area, 0);
	bool in;

	if (h == MAP_FAILED)
		return true;
	in = atomic_load_explicit(&h->rules_in, memory_order_relaxed);
	munmap(h, sizeof(*h));
	return in && !s->took_over;
}

/* [V6] */
static enum ending failed(const struct supervisor *s)
{
	if (s->restarted)
		log_notice(RESTART_FAILED);
	return s->restarted || rules_are_ours(s) ? REMOVE_RULES : STAY_RULES;
}

/* [V5] The engine takes the rules out while it still answers; the cleanup child makes sure, also when it is dead. It ends first: then
 * nothing is out on lease, and what passed is in the relay's last snapshot. */
static void stop(struct supervisor *s, enum ending how)
{
	static const int sig[] = { [REMOVE_RULES] = SIGUSR1, [LEAVE_RULES] = SIGUSR2, [STAY_RULES] = SIGTERM };

	sd_notify(0, "STOPPING=1");
	end(&s->child[ENGINE], sig[how]);
	end(&s->child[RELAY], SIGTERM);
	if (how == REMOVE_RULES)
		super_take_out(s->owner, s->keep);
	else if (how == LEAVE_RULES)
		kept_give(s->bell, RESTART);
	else
		super_tell_left(s->keep, s->took_over);
}

/* [V6] The same before there is anything to stop. */
static int not_started(bool restarted, bool handed_on, int owner, int keep)
{
	if (restarted) {
		log_notice(RESTART_FAILED);
		super_take_out(owner, keep);
	} else {
		super_tell_left(keep, handed_on);
	}
	return EXIT_FAILURE;
}

static int no_config(int why)
{
	char **names = NULL;
	int n = sd_listen_fds_with_names(1, &names), r;

	if (why != -EINVAL)	/* else the child said it */
		log_error("cannot start: a process to read the configuration: %s", strerror(-why));
	r = not_started(kept_take(names, n, RESTART) >= 0, n > 0, kept_take(names, n, NFT_OWNER), kept_take(names, n, NFT_KEEP));
	free_names(names, n);
	return why == -EINVAL ? r : EXIT_PASSING;
}

/* ---- loop ---- */

/* Else nobody would be there for the rules that stay. */
static bool successor_can_start(const struct supervisor *s)
{
	static struct config c;

	if (child_config(s->config_path, &c) == 0)
		return true;
	log_error("the configuration has errors: stopping as by SIGTERM, no successor could start");
	return false;
}

/* enum ending, 0: go on, -errno */
static int signals(struct supervisor *s, int sigfd)
{
	struct signalfd_siginfo si;

	if (read(sigfd, &si, sizeof(si)) != sizeof(si))
		return 0;
	switch (si.ssi_signo) {
	case SIGCHLD:
		return reap(s);
	case SIGHUP:	/* reload: the relay reads the policy again */
		if (s->child[RELAY].pid > 0)
			kill(s->child[RELAY].pid, SIGHUP);
		return 0;
	case SIGUSR2:
		return successor_can_start(s) ? LEAVE_RULES : REMOVE_RULES;
	default:
		return REMOVE_RULES;
	}
}

static int loop(struct supervisor *s, int sigfd)
{
	struct pollfd p[] = {
		{ .fd = sigfd, .events = POLLIN },
		{ .fd = s->child[ENGINE].ours, .events = POLLIN },
		{ .fd = s->child[RELAY].ours, .events = POLLIN },
	};

	for (;;) {
		int r, n = poll(p, ARRAY_SIZE(p), 1000);

		if (n > 0 && p[1].revents & POLLIN)
			(void)hear(s, ENGINE);
		if (n > 0 && p[2].revents & POLLIN)
			(void)hear(s, RELAY);
		r = n > 0 && p[0].revents ? signals(s, sigfd) : 0;
		if (r != 0)
			return r;
		watch(s);
	}
}

int supervisor_main(const char *config_path)
{
	static struct supervisor s = { .owner = -1, .keep = -1, .child = { { .role = "engine", .pid = -1 }, { .role = "relay", .pid = -1 } } };
	sigset_t set;
	int sigfd, r;

	log_open("supervisor");
	s.config_path = config_path;
	r = child_config(config_path, &s.config);
	if (r < 0)
		return no_config(r);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGUSR2);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	sigfd = needed(child_lift(signalfd(-1, &set, SFD_CLOEXEC)), "signalfd");
	r = sigfd < 0 ? sigfd : open_all(&s);
	if (r == -EADDRINUSE)
		return EXIT_FAILURE;	/* what is in the kernel is of the other */
	if (r < 0)
		return not_started(s.restarted && !s.taken_out, s.handed_on, s.owner, s.keep);
	start_child(&s, RELAY);
	start_child(&s, ENGINE);
	r = loop(&s, sigfd);
	stop(&s, r < 0 ? failed(&s) : (enum ending)r);
	return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
