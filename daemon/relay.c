/* relay.c - the relay's loop. See relay.h. */
#include "relay.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "area_map.h"
#include "clock.h"
#include "control.h"
#include "control_bounds.h"
#include "courier.h"
#include "decisions.h"
#include "engine.h"
#include "health.h"
#include "history.h"
#include "log.h"
#include "policy_force.h"
#include "proto.h"
#include "report.h"
#include "snapshot.h"
#include "spool.h"

#define SPOOL_CAP     (256ULL << 20)
#define SNAPSHOT_S    60
#define OWN_POLLS     5
#define DECISION_MS   200	/* for an answer; then it is asked again each second */

struct relay {
	struct config config;
	struct area area;
	struct spool *spool;
	pthread_mutex_t spool_lock;
	struct report *report;
	struct courier *courier;
	int control, wake;
	uint64_t token;

	struct policy_force force;
	struct decisions decisions;
	uint64_t seconds;
	struct health health;
	bool spool_sick, spool_untold;
	uint64_t above;			/* courier_above() that was told */
	struct control_lease_work leases;	/* ever, at the last second's look */
	struct control_ctx ctl;
};

/* ---- engine ---- */

/* The answer may be one to the same message sent before. */
static int ask(struct proto_msg *m, int fd, unsigned ms, struct proto_reply *ret)
{
	struct pollfd room = { .fd = FD_PEER, .events = POLLOUT }, p = { .fd = FD_PEER, .events = POLLIN };
	struct mono end = { clock_mono().ns + ms * NS_PER_MS };
	struct proto_msg answer;
	int e, got;

	m->magic = PROTO_MAGIC;
	if (poll(&room, 1, (int)ms) <= 0)
		return -ETIMEDOUT;	/* what was sent before is not read */
	e = proto_send(FD_PEER, m, fd);
	while (e == 0) {
		struct mono t = clock_mono();

		if (t.ns >= end.ns || poll(&p, 1, (int)((end.ns - t.ns) / NS_PER_MS) + 1) <= 0)
			return -ETIMEDOUT;
		e = proto_receive(FD_PEER, &answer, &got, MSG_DONTWAIT);
		if (e == 1 && got >= 0)
			close(got);
		if (e == 1 && answer.kind == PROTO_REPLY && answer.token == m->token) {
			*ret = answer.u.reply;
			return 0;
		}
		e = e == 1 || e == -EAGAIN || e == -EBADMSG ? 0 : -EPIPE;	/* an answer to one given up is dropped */
	}
	return e;
}

static int command(void *relay, struct proto_msg *m, int fd, struct proto_reply *ret)
{
	struct relay *r = relay;

	m->token = ++r->token;
	return ask(m, fd, CONTROL_ANSWER_S * 1000, ret);
}

static int plain_command(void *relay, struct proto_msg *m, struct proto_reply *ret)
{
	return command(relay, m, -1, ret);
}

/* ---- policy ---- */

static int reload(void *relay, char *why, size_t size)
{
	struct relay *r = relay;

	return policy_force_reload(&r->force, why, size);
}

static int apply(void *relay, const char *yaml, size_t len, unsigned confirm_s, char *why, size_t size)
{
	struct relay *r = relay;

	return policy_force_apply(&r->force, yaml, len, confirm_s, why, size);
}

static int confirm(void *relay, char **ret_yaml, char *why, size_t size)
{
	struct relay *r = relay;

	return policy_force_confirm(&r->force, ret_yaml, why, size);
}

/* ---- findings ---- */

static void tell_spool(struct relay *r)
{
	if (!report_health_due(r->report, "spool"))
		return;
	pthread_mutex_lock(&r->spool_lock);
	r->spool_untold = report_health(r->report, "spool", "findings could not be written to disk for a while; see the journal") < 0;
	pthread_mutex_unlock(&r->spool_lock);
}

/* Findings to disk, then to whoever waits. */
static void report_all(struct relay *r, bool all)
{
	int n, e;

	pthread_mutex_lock(&r->spool_lock);
	n = health_report(&r->health, &r->area, r->report);
	if (n >= 0)
		n = report_scan(r->report, all);
	e = spool_sync(r->spool);
	pthread_mutex_unlock(&r->spool_lock);
	if (e == 0)
		decisions_written(&r->decisions);
	if (e < 0 || n < 0) {
		if (!r->spool_sick)
			log_error("spool: %s; findings are kept in memory and tried again", strerror(e < 0 ? -e : -n));
		r->spool_sick = true;
		return;
	}
	health_keep(&r->health, &r->area, r->config.state_dir);
	if (r->spool_sick)
		log_notice("spool: writing again");
	r->spool_untold = r->spool_untold || r->spool_sick;
	r->spool_sick = false;
	if (r->spool_untold)
		tell_spool(r);	/* it goes out with the next findings or second */
	courier_poke(r->courier);
}

/* The alert about it goes above, too: the height that it may raise by one is no news. */
static void tell_above(struct relay *r)
{
	const uint64_t above = courier_above(r->courier);
	char text[200];
	int e;

	if (above <= r->above + (r->above > 0) || !report_health_due(r->report, "stream-ids"))
		return;
	snprintf(text, sizeof(text), "the alert stream holds higher ids (%" PRIu64 ") than this gateway gave: another gateway has its name, "
		 "or had, or the spool was lost; alerts go on above them", above);
	pthread_mutex_lock(&r->spool_lock);
	e = report_health(r->report, "stream-ids", text);
	pthread_mutex_unlock(&r->spool_lock);
	if (e == 0)
		r->above = above;
}

/* ---- decisions ---- */

static int ask_decision(void *relay, struct proto_msg *m, struct proto_reply *ret)
{
	struct relay *r = relay;

	if (!m->token)
		m->token = ++r->token;
	return ask(m, -1, DECISION_MS, ret);
}

static void take_decision(struct relay *r)
{
	decisions_take(&r->decisions, r->force.have ? &r->force.view : NULL);
}

/* ---- loop ---- */

static void snapshot(struct relay *r)
{
	int e = snapshot_write(r->config.state_dir, &r->area, clock_mono(), clock_wall_us());

	if (e < 0)
		log_error("snapshot: %s; the last good one stays", strerror(-e));
}

static void look_at_leases(struct relay *r)
{
	const struct area_header *h = r->area.h;
	/* Relaxed: statistics. */
	const struct control_lease_work now = {
		.grants = atomic_load_explicit(&h->lease_grants, memory_order_relaxed),
		.raises = atomic_load_explicit(&h->lease_raises, memory_order_relaxed),
		.recalls = atomic_load_explicit(&h->lease_recalls, memory_order_relaxed),
	}, was = r->leases;

	r->ctl.last_second = (struct control_lease_work){ now.grants - was.grants, now.raises - was.raises, now.recalls - was.recalls };
	r->leases = now;
}

static void tell(uint16_t kind, const char *text)
{
	struct proto_msg m = { .magic = PROTO_MAGIC, .kind = kind };

	snprintf(m.u.reply.text, sizeof(m.u.reply.text), "%s", text);
	if (proto_send(FD_SUPER, &m, -1) < 0)
		log_warning("message to the supervisor not sent: %s", strerror(errno));
}

static void second(struct relay *r)
{
	r->seconds++;
	look_at_leases(r);
	tell_above(r);
	report_all(r, r->seconds % REPORT_SCAN_S == 0);
	if (r->seconds % SNAPSHOT_S == 0)
		snapshot(r);
	policy_force_second(&r->force, clock_mono());
	take_decision(r);
	tell(PROTO_ALIVE, "");
}

static void serve(struct relay *r)
{
	struct control_ctx *c = &r->ctl;

	c->area = &r->area;
	c->policy = r->force.have ? &r->force.view : NULL;
	c->config = &r->config;
	c->report = r->report;
	c->policy_since_us = r->force.since_us;
	c->confirm_by_us = r->force.confirm_by_ns ? clock_wall_of((struct mono){ r->force.confirm_by_ns }) : 0;
	c->policy_bad_since_us = r->force.bad_since_us;
	snprintf(c->policy_bad, sizeof(c->policy_bad), "%s", r->force.bad);
	courier_state(r->courier, c->redis_state, sizeof(c->redis_state));
	pthread_mutex_lock(&r->spool_lock);
	c->spool_next = spool_next_seq(r->spool);
	c->spool_pending = c->spool_next - 1 - spool_acked(r->spool);
	c->spool_lost = spool_lost(r->spool);
	c->answers_unwritten = r->decisions.unwritten;
	pthread_mutex_unlock(&r->spool_lock);
	c->relay = r;
	c->command = plain_command;
	c->reload = reload;
	c->apply = apply;
	c->confirm = confirm;
	control_serve(r->control, c);
}

static void drain(int fd)
{
	uint64_t n;

	while (read(fd, &n, sizeof(n)) == sizeof(n))
		;
}

static void loop(struct relay *r, int timer, int sigfd)
{
	struct pollfd p[OWN_POLLS + CONTROL_POLLS] = {
		{ .fd = FD_BELL, .events = POLLIN }, { .fd = timer, .events = POLLIN },
		{ .fd = FD_SUPER, .events = POLLIN }, { .fd = r->wake, .events = POLLIN },
		{ .fd = sigfd, .events = POLLIN },
	};
	struct pollfd *control = &p[OWN_POLLS];
	struct signalfd_siginfo si;
	char why[200];

	for (;;) {
		int ms;
		const size_t n = control_polls(r->control, control, &ms);

		if (poll(p, OWN_POLLS + n, ms) < 0)
			continue;
		if (p[2].revents)
			return;	/* the supervisor is gone: one last snapshot */
		if (p[4].revents && read(sigfd, &si, sizeof(si)) == sizeof(si)) {
			if (si.ssi_signo != SIGHUP)
				return;
			(void)!reload(r, why, sizeof(why));	/* logged there */
		}
		if (p[0].revents) {
			drain(FD_BELL);
			report_all(r, false);
		}
		if (p[3].revents) {
			drain(r->wake);
			take_decision(r);
		}
		if (p[1].revents) {
			drain(timer);
			second(r);
		}
		if (n > 1 || control[0].revents)
			serve(r);
	}
}

/* ---- start ---- */

/* Root may write there, too, and the service could not read what it left. */
static int own_state(const struct relay *r, char *why, size_t size)
{
	struct stat st;

	if (geteuid() != 0 || stat(r->config.state_dir, &st) < 0 || st.st_uid == 0)
		return 0;
	snprintf(why, size, "state folder %s belongs to uid %u, and this is root: start the service, or run it as that user, or name "
		 "another state_dir", r->config.state_dir, st.st_uid);
	return -EPERM;
}

/* A disk that is full may have room again: what it cannot take yet waits in memory. */
static int make_folder(const char *path)
{
	char probe[CONFIG_PATH + 64];
	int fd;

	if (mkdir(path, 0750) < 0 && errno != EEXIST)
		return -errno;
	snprintf(probe, sizeof(probe), "%s/probe", path);
	fd = open(probe, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return errno == ENOSPC || errno == EDQUOT ? 0 : -errno;
	close(fd);
	return unlink(probe) < 0 ? -errno : 0;
}

static int open_state(struct relay *r, char *why, size_t size)
{
	char spool[CONFIG_PATH + 32];
	const char *path = r->config.state_dir;
	int e = make_folder(path);

	if (e == 0) {
		snprintf(spool, sizeof(spool), "%s/spool", path);
		path = spool;
		e = make_folder(path);
	}
	if (e == 0)
		e = spool_open(path, SPOOL_CAP, &r->spool);
	if (e == 0 && !r->config.redis)
		spool_unread(r->spool);
	if (e == 0)
		e = report_open(&r->area, &r->config, r->spool, &r->report);
	if (e < 0)
		snprintf(why, size, "state folder %s: %s; it must exist and belong, with all in it, to the user of egressd, uid %u", path,
			 strerror(-e), geteuid());
	return e;
}

static int open_control(struct relay *r, char *why, size_t size)
{
	char path[CONFIG_PATH + 32];

	snprintf(path, sizeof(path), "%s/control.sock", r->config.runtime_dir);
	if (mkdir(r->config.runtime_dir, 0755) < 0 && errno != EEXIST) {
		int e = errno;

		snprintf(why, size, "runtime folder %s: %s; it must exist and belong to the user of egressd", r->config.runtime_dir,
			 strerror(e));
		return -e;
	}
	r->control = control_open(path);
	if (r->control == -EADDRINUSE)
		snprintf(why, size, ANOTHER_EGRESSD, path);
	else if (r->control < 0)
		snprintf(why, size, "control socket %s: %s; its folder must belong to the user of egressd, and no socket of another "
			 "user be in it", path, strerror(-r->control));
	return r->control < 0 ? r->control : 0;
}

static int open_shared(struct relay *r, char *why, size_t size)
{
	size_t len;
	void *mem;

	if (pread(FD_CONFIG, &r->config, sizeof(r->config), 0) == sizeof(r->config) &&
	    area_map(FD_AREA, PROT_READ, &mem, &len) == 0 && area_open(mem, len, &r->area) == 0)	/* [Y1] */
		return 0;
	snprintf(why, size, "shared memory of the supervisor cannot be used");
	return -EPROTO;
}

static int start(struct relay *r, char *why, size_t size)
{
	int e = open_shared(r, why, size);

	if (e == 0)
		e = own_state(r, why, size);	/* before anything is made */
	if (e == 0)
		e = open_control(r, why, size);	/* first: the spool, too, is of who has the socket */
	if (e == 0)
		e = open_state(r, why, size);
	if (e < 0)
		return e;
	r->token = clock_mono().ns;	/* an answer to the relay before is none to us */
	health_init(&r->health, &r->area, r->config.state_dir, r->config.failure == FAILURE_CLOSED);
	r->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (r->wake < 0)
		return -errno;
	e = confine_relay();
	if (e < 0)
		log_warning("confinement not complete: %s; going on with what the service manager set", strerror(-e));
	policy_force_init(&r->force, &r->config, &r->area, r->report, command, r);
	return policy_force_first(&r->force, why, size);
}

int relay_main(void)
{
	static struct relay r = { .spool_lock = PTHREAD_MUTEX_INITIALIZER };
	struct itimerspec each = { .it_interval.tv_sec = 1, .it_value.tv_sec = 1 };
	char why[400] = "";
	int timer, sigfd, e;
	sigset_t set;

	log_open("relay");
	clock_set_zone("UTC");	/* before there are threads; the policy says its own */
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	e = start(&r, why, sizeof(why));
	sigfd = signalfd(-1, &set, SFD_CLOEXEC);
	timer = timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC | TFD_NONBLOCK);
	if (e == 0 && (sigfd < 0 || timer < 0 || timerfd_settime(timer, 0, &each, NULL) < 0))
		e = -errno;
	if (e == 0 && r.config.redis)
		e = courier_start(&r.config, &r.area, r.spool, &r.spool_lock, r.wake, &r.courier);
	if (e < 0) {
		if (!why[0])
			snprintf(why, sizeof(why), "relay: %s", strerror(-e));
		tell(PROTO_FAILED, why);	/* the supervisor says it */
		return EXIT_FAILURE;
	}
	r.decisions = (struct decisions){
		.gateway = r.config.gateway, .courier = r.courier, .report = r.report, .spool = r.spool,
		.spool_lock = &r.spool_lock, .ask = ask_decision, .ctx = &r,
	};
	tell(PROTO_RELAY_READY, "");
	loop(&r, timer, sigfd);
	report_all(&r, true);
	snapshot(&r);	/* what the courier waits for may never come */
	if (courier_stop(r.courier)) {
		report_close(r.report);
		spool_close(r.spool);
	}
	return EXIT_SUCCESS;
}
