/* courier.c - see courier.h for the contract. */
#include "courier.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <time.h>

#include "clock.h"
#include "file_replace.h"
#include "history.h"
#include "log.h"
#include "service_file.h"

#define TIMEOUT_MS    2000
#define POLL_MS	      500
#define BACKOFF_MIN   200
#define BACKOFF_MAX   30000
#define HEARTBEAT_S   5
#define HEARTBEAT_TTL 20
#define TELL_S	      60
#define TURN_S	      2		/* of sending, before decisions and the heartbeat have theirs */

struct courier {
	const struct config *config;
	const struct area *area;
	struct spool *spool;
	pthread_mutex_t *spool_lock;
	int wake_fd;
	struct redis_link *link;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t poked;
	bool stop, poke;

	bool waiting, answered;		/* a decision lies in `decision`; the main thread has answered it */
	bool unwritten, unsaved;	/* an answer is not on disk yet; the cursor is not */
	struct redis_decision decision;
	char cursor[REDIS_ID];
	char cursor_path[CONFIG_PATH + 32];

	bool up;
	bool unreadable;		/* the spool, and that is told */
	bool looked;			/* at the stream's top, since the last failure */
	uint64_t down_since_us, told_ns, told_unheard_ns, beat_ns;
	uint64_t sent;			/* highest seq that this Redis has */
	unsigned backoff_ms;
	uint64_t above;			/* highest id above ours that the stream held */
	char error[160], unheard[160];
	char where[CONFIG_PATH + 16];	/* the server, for people */
};

/* ---- cursor of egress:decisions ---- */

static void load_cursor(struct courier *c)
{
	char *text;
	size_t len;

	/* "$"-like start is wrong: a decision made while we were down counts. 0 reads the whole stream; ids answered before
	 * are known from the spool. */
	snprintf(c->cursor, sizeof(c->cursor), "0");
	if (config_read_file(c->cursor_path, 64, &text, &len) < 0)
		return;
	if (len > 0 && len < sizeof(c->cursor) && strlen(text) == len && redis_cursor_valid(text))
		snprintf(c->cursor, sizeof(c->cursor), "%s", text);
	free(text);
}

/* False: the next start reads some entries again; their ids are known. */
static bool save_cursor(const struct courier *c)
{
	return file_replace(c->cursor_path, c->cursor, strlen(c->cursor), true) == 0;
}

/* ---- state ---- */

static void worked(struct courier *c)
{
	pthread_mutex_lock(&c->lock);
	if (!c->up && c->down_since_us)
		log_notice("Redis is back");
	c->up = true;
	c->down_since_us = 0;
	c->backoff_ms = 0;
	pthread_mutex_unlock(&c->lock);
}

static const char *advice(enum redis_class class)
{
	switch (class) {
	case REDIS_OPERATOR:
		return "an administrator must mend it (share/doc/egressd/redis/README says what a gateway needs)";
	case REDIS_HOSTILE:
		return "is that a Redis server? Trying again";
	default:
		return "trying again (does it run, and let this gateway in?)";
	}
}

static void failed(struct courier *c, enum redis_class class)
{
	uint64_t now = clock_mono().ns;

	pthread_mutex_lock(&c->lock);
	snprintf(c->error, sizeof(c->error), "%s", redis_link_error(c->link));
	if (!c->down_since_us)
		c->down_since_us = clock_wall_us();
	if (c->up || !c->told_ns || now - c->told_ns > TELL_S * NS_PER_S) {
		log_warning("Redis at %s: %s; %s; findings wait in the spool", c->where, c->error, advice(class));
		c->told_ns = now;
	}
	c->up = c->looked = false;
	c->backoff_ms = c->backoff_ms ? MIN_OF(c->backoff_ms * 2, (unsigned)BACKOFF_MAX) : BACKOFF_MIN;
	pthread_mutex_unlock(&c->lock);
}

/* An alert is in the stream, and nobody who subscribed hears of it. */
static void note_unheard(struct courier *c)
{
	const char *why = redis_link_unheard(c->link);
	uint64_t now = clock_mono().ns;

	pthread_mutex_lock(&c->lock);
	snprintf(c->unheard, sizeof(c->unheard), "%s", why);
	if (*why && (!c->told_unheard_ns || now - c->told_unheard_ns > TELL_S * NS_PER_S)) {
		log_warning("Redis at %s: PUBLISH egress:alert is refused: %s; subscribers hear nothing, the stream has all: grant "
			    "(&egress:alert +publish) to the gateway's user", c->where, why);
		c->told_unheard_ns = now;
	}
	pthread_mutex_unlock(&c->lock);
}

/* [CO5] */
static void note_above(struct courier *c, uint64_t top)
{
	bool higher;

	pthread_mutex_lock(&c->lock);
	higher = top > c->above;
	c->above = MAX_OF(c->above, top);
	pthread_mutex_unlock(&c->lock);
	if (higher)
		log_warning("the alert stream holds higher ids (%llu) than this gateway gave: it was used under this name "
			    "before, or the spool was lost; going on above them", (unsigned long long)top);
}

/* ---- work ---- */

/* One record from spool to stream. 1: done, 0: nothing that can be read, -1: failed. */
static int deliver_one(struct courier *c)
{
	struct report_record rec;
	enum redis_class class;
	uint64_t seq, top = 0;
	char *data, id[48];
	size_t len, at;
	int r;

	pthread_mutex_lock(c->spool_lock);
	r = spool_read(c->spool, c->sent, &seq, &data, &len);
	pthread_mutex_unlock(c->spool_lock);
	if (r < 0 && r != -ENOENT && !c->unreadable)
		log_error("spool: %s: alerts wait until it can be read", strerror(-r));
	c->unreadable = r < 0 && r != -ENOENT;
	if (r < 0)
		return 0;
	class = REDIS_OK;
	at = history_head(data, len, &rec);
	if (at) {
		snprintf(id, sizeof(id), "%016llx-%u", (unsigned long long)rec.finding_id, rec.rev);
		class = redis_alert(c->link, seq, id, data + at, len - at, &top);
	}
	free(data);
	if (class != REDIS_OK) {
		failed(c, class);
		return -1;
	}
	note_unheard(c);
	if (top > seq)
		note_above(c, top);
	c->sent = seq;
	pthread_mutex_lock(c->spool_lock);
	r = spool_ack(c->spool, seq);
	pthread_mutex_unlock(c->spool_lock);
	if (r < 0)
		log_warning("spool: acknowledgement not written: %s; some alerts may be offered again", strerror(-r));
	return 1;
}

/* Hands one decision over and waits for its answer, so that the cursor never passes one that was not answered. [CO3] */
static int take_decisions(struct courier *c)
{
	struct redis_decision d;
	unsigned n = 0;
	enum redis_class class;

	pthread_mutex_lock(&c->lock);
	if (c->waiting && c->answered) {
		snprintf(c->cursor, sizeof(c->cursor), "%s", c->decision.entry);
		c->waiting = c->answered = false;
		c->unsaved = true;
	}
	if (c->unsaved && !c->unwritten)
		c->unsaved = !save_cursor(c);
	n = c->waiting;
	pthread_mutex_unlock(&c->lock);
	if (n)
		return 0;
	class = redis_decisions(c->link, c->cursor, &d, 1, &n);
	if (class != REDIS_OK) {
		failed(c, class);
		return -1;
	}
	if (!n)
		return 0;
	pthread_mutex_lock(&c->lock);
	c->decision = d;
	c->waiting = true;
	pthread_mutex_unlock(&c->lock);
	(void)eventfd_write(c->wake_fd, 1);
	return 1;
}

/* A stream that ends before what was acknowledged was emptied, or belongs to another server. */
static int notice_wipe(struct courier *c)
{
	uint64_t top = 0;
	enum redis_class class = redis_top(c->link, &top);

	if (class != REDIS_OK) {
		failed(c, class);
		return -1;
	}
	if (top < c->sent) {
		log_warning("the alert stream was wiped (newest id %llu of %llu); sending again what the spool has",
			    (unsigned long long)top, (unsigned long long)c->sent);
		c->sent = top;
	}
	c->looked = true;
	return 0;
}

static int heartbeat(struct courier *c)
{
	const struct area_header *h = c->area->h;
	char version[16], packets[24], unseen[24], lag[24];
	const char *fields[] = { "policy", version, "packets", packets, "unseen_bytes", unseen, "lag", lag, NULL };
	uint64_t now = clock_mono().ns;
	enum redis_class class;

	if (c->beat_ns && now - c->beat_ns < HEARTBEAT_S * NS_PER_S)
		return 0;
	if (notice_wipe(c) < 0)
		return -1;
	snprintf(version, sizeof(version), "%u", atomic_load_explicit(&h->policy_version, memory_order_relaxed));
	snprintf(packets, sizeof(packets), "%llu", (unsigned long long)area_passed_packets(c->area));
	snprintf(unseen, sizeof(unseen), "%llu",
		 (unsigned long long)atomic_load_explicit(&h->unseen_bytes, memory_order_relaxed));
	pthread_mutex_lock(c->spool_lock);
	snprintf(lag, sizeof(lag), "%llu",
		 (unsigned long long)(spool_next_seq(c->spool) - 1 - spool_acked(c->spool)));
	pthread_mutex_unlock(c->spool_lock);
	class = redis_heartbeat(c->link, fields, HEARTBEAT_TTL);
	if (class != REDIS_OK) {
		failed(c, class);
		return -1;
	}
	c->beat_ns = now;
	return 0;
}

static void pause_for(struct courier *c, unsigned ms, bool until_poked)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_nsec += (long)(ms % 1000) * 1000000;
	t.tv_sec += ms / 1000 + t.tv_nsec / 1000000000;
	t.tv_nsec %= 1000000000;
	pthread_mutex_lock(&c->lock);
	while (!c->stop && !(until_poked && c->poke))
		if (pthread_cond_timedwait(&c->poked, &c->lock, &t) == ETIMEDOUT)
			break;
	c->poke = false;
	pthread_mutex_unlock(&c->lock);
}

static bool stopping(struct courier *c)
{
	bool s;

	pthread_mutex_lock(&c->lock);
	s = c->stop;
	pthread_mutex_unlock(&c->lock);
	return s;
}

static unsigned jitter(unsigned ms)
{
	uint16_t x = 0;

	if (getrandom(&x, sizeof(x), GRND_NONBLOCK) != sizeof(x))
		x = 0;
	return ms - ms / 4 + x % (ms / 2 + 1);	/* 0.75 to 1.25 */
}

/* What waits, for a turn. 1: more does, 0: no more, -1: failed. */
static int deliver(struct courier *c)
{
	uint64_t end = clock_mono().ns + TURN_S * NS_PER_S;
	int n = 1;

	while (n > 0 && !stopping(c) && clock_mono().ns < end)
		n = deliver_one(c);
	return n;
}

static void *courier_run(void *arg)
{
	struct courier *c = arg;

	while (!stopping(c)) {
		enum redis_class class = redis_connect(c->link);
		int n, more = 0;

		if (class != REDIS_OK) {
			failed(c, class);
			pause_for(c, jitter(c->backoff_ms), false);
			continue;
		}
		n = c->looked ? 0 : notice_wipe(c);	/* before a new alert hides that the old ones are gone */
		if (n == 0)
			n = more = deliver(c);
		if (n >= 0)
			n = take_decisions(c);
		if (n < 0 || heartbeat(c) < 0) {
			pause_for(c, jitter(c->backoff_ms), false);
			continue;
		}
		worked(c);
		pause_for(c, n > 0 || more > 0 ? 1 : POLL_MS, true);
	}
	return NULL;
}

int courier_start(const struct config *config, const struct area *a, struct spool *spool, pthread_mutex_t *lock,
		  int wake_fd, struct courier **ret)
{
	struct courier *c = calloc(1, sizeof(*c));
	pthread_condattr_t attr;
	int r;

	if (!c)
		return -ENOMEM;
	c->config = config;
	c->area = a;
	c->spool = spool;
	c->spool_lock = lock;
	c->wake_fd = wake_fd;
	snprintf(c->cursor_path, sizeof(c->cursor_path), "%s/decisions.cursor", config->state_dir);
	if (config->redis_socket[0])
		snprintf(c->where, sizeof(c->where), "%s", config->redis_socket);
	else
		snprintf(c->where, sizeof(c->where), "%s:%u", config->redis_host, (unsigned)config->redis_port);
	load_cursor(c);
	if (config->redis_password_file[0] && service_file_is_open(config->redis_password_file))
		log_warning("redis.password_file %s: all users may read it: chmod 640", config->redis_password_file);
	c->sent = spool_acked(spool);
	pthread_mutex_init(&c->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&c->poked, &attr);
	r = redis_link_new(config, TIMEOUT_MS, &c->link);
	if (r == 0)
		r = -pthread_create(&c->thread, NULL, courier_run, c);
	if (r < 0) {
		redis_link_free(c->link);
		free(c);
		return r;
	}
	*ret = c;
	return 0;
}

bool courier_stop(struct courier *c)
{
	struct timespec until;

	if (!c)
		return true;
	pthread_mutex_lock(&c->lock);
	c->stop = true;
	pthread_cond_signal(&c->poked);
	pthread_mutex_unlock(&c->lock);
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += TIMEOUT_MS / 1000 + 1;	/* one command's deadline away, or a name server's */
	if (pthread_clockjoin_np(c->thread, NULL, CLOCK_MONOTONIC, &until) != 0)
		return false;
	redis_link_free(c->link);
	free(c);
	return true;
}

void courier_poke(struct courier *c)
{
	if (!c)
		return;
	pthread_mutex_lock(&c->lock);
	c->poke = true;
	pthread_cond_signal(&c->poked);
	pthread_mutex_unlock(&c->lock);
}

void courier_state(struct courier *c, char *buf, size_t size)
{
	char at[24] = "";
	struct tm tm;
	time_t t;

	if (!c) {
		snprintf(buf, size, "not configured");
		return;
	}
	pthread_mutex_lock(&c->lock);
	t = (time_t)(c->down_since_us / 1000000);
	strftime(at, sizeof(at), "%H:%M:%S %Z", localtime_r(&t, &tm));
	if (c->up && c->unheard[0])
		snprintf(buf, size, "ok but PUBLISH: %s", c->unheard);
	else if (c->up)
		snprintf(buf, size, "ok");
	else if (c->down_since_us)
		snprintf(buf, size, "down since %s: %s", at, c->error);
	else
		snprintf(buf, size, "connecting");
	pthread_mutex_unlock(&c->lock);
}

bool courier_decision(struct courier *c, struct redis_decision *ret)
{
	bool have;

	pthread_mutex_lock(&c->lock);
	have = c->waiting && !c->answered;
	if (have)
		*ret = c->decision;
	pthread_mutex_unlock(&c->lock);
	return have;
}

uint64_t courier_above(struct courier *c)
{
	uint64_t above;

	if (!c)
		return 0;
	pthread_mutex_lock(&c->lock);
	above = c->above;
	pthread_mutex_unlock(&c->lock);
	return above;
}

void courier_decided(struct courier *c, bool written)
{
	pthread_mutex_lock(&c->lock);
	c->answered = true;
	c->unwritten = !written;
	c->poke = true;
	pthread_cond_signal(&c->poked);
	pthread_mutex_unlock(&c->lock);
}

void courier_written(struct courier *c)
{
	pthread_mutex_lock(&c->lock);
	c->unwritten = false;
	pthread_mutex_unlock(&c->lock);
}
