/* snapshot_restore.c - reading; see snapshot.h for the contract. */
#include "snapshot.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "log.h"
#include "snapshot_internal.h"

#define PAIRS_MAX  (1U << 22)		/* config's table.pairs at most; twice as many accounts */
#define SIZE_LIMIT (PAIRS_MAX * (sizeof(struct snapshot_pair) + 2 * sizeof(struct snapshot_account)) * 2)
#define JUMP_NS    (60 * NS_PER_S)	/* wall and boot clock are apart by less when nobody set either */
#define TIME_MAX   (100ULL * 365 * 86400 * NS_PER_S)	/* longer gaps are as good as this one, and the arithmetic holds */

static const uint32_t states = ACCOUNT_BLOCKED | ACCOUNT_OPEN | ACCOUNT_BRAKED;

/* ---- checking ---- */

static int read_all(int fd, void *to, size_t size)
{
	for (size_t at = 0; at < size;) {
		ssize_t n = pread(fd, (uint8_t *)to + at, size - at, (off_t)at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -EBADMSG;	/* cut while we read */
		at += (size_t)n;
	}
	return 0;
}

static size_t room_for(const struct snapshot_head *h)
{
	return sizeof(*h) + (size_t)h->pairs * sizeof(struct snapshot_pair) +
	       (size_t)h->accounts * sizeof(struct snapshot_account) + AREA_DYNAMIC * sizeof(struct area_dynamic) +
	       HASH_SUM_LEN;
}

/* The head of a file of `size`, before as much memory is asked for: what holds in every version. */
static int check_head(const struct snapshot_head *h, size_t size, char *why, size_t why_size)
{
	if (memcmp(h->magic, SNAPSHOT_MAGIC, sizeof(h->magic)) == 0 && h->size == size && size <= SIZE_LIMIT)
		return 0;
	snprintf(why, why_size, "damaged: not a snapshot, or cut short");
	return -EBADMSG;
}

static int check_layout(const struct snapshot_head *h, char *why, size_t why_size)
{
	if (h->layout != SNAPSHOT_LAYOUT || h->dynamics != AREA_DYNAMIC) {
		snprintf(why, why_size, "written by another version of egressd (layout %u, this one reads %u)", h->layout,
			 SNAPSHOT_LAYOUT);
		return -EPROTO;
	}
	if (h->pairs > PAIRS_MAX || h->accounts > 2 * PAIRS_MAX || room_for(h) > h->size || h->mono_ns > TIME_MAX) {
		snprintf(why, why_size, "damaged: counts and size contradict");
		return -EBADMSG;
	}
	return 0;
}

static int check_sum(const uint8_t *mem, size_t size, char *why, size_t why_size)
{
	uint8_t sum[HASH_SUM_LEN];

	hash_sum(mem, size - sizeof(sum), sum);
	if (memcmp(sum, mem + size - sizeof(sum), sizeof(sum)) == 0)
		return 0;
	snprintf(why, why_size, "damaged: its checksum does not match");
	return -EBADMSG;
}

/* What the engine would look up by these numbers without asking again. */
static bool decision_is_sane(const struct area_dynamic *d)
{
	return d->kind <= DYNAMIC_BLOCK && d->src.len <= 128 && d->dst.len <= 128 &&
	       memchr(d->id, 0, sizeof(d->id)) && memchr(d->author, 0, sizeof(d->author)) &&
	       memchr(d->reason, 0, sizeof(d->reason));
}

static const uint8_t *decisions_of(const uint8_t *mem, const struct snapshot_head *h)
{
	return mem + room_for(h) - HASH_SUM_LEN - AREA_DYNAMIC * sizeof(struct area_dynamic);
}

static int check_decisions(const uint8_t *mem, const struct snapshot_head *h, char *why, size_t why_size)
{
	const uint8_t *at = decisions_of(mem, h);

	for (unsigned i = 0; i < AREA_DYNAMIC; i++) {
		struct area_dynamic d;

		memcpy(&d, at + i * sizeof(d), sizeof(d));
		if (decision_is_sane(&d))
			continue;
		snprintf(why, why_size, "damaged: a decision in it is none");
		return -EBADMSG;
	}
	return 0;
}

static int check_file(int fd, struct snapshot_head *h, size_t *ret_size, char *why, size_t why_size)
{
	struct stat st;
	int r;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode)) {
		snprintf(why, why_size, "not a file");
		return -EBADMSG;
	}
	if ((size_t)st.st_size < sizeof(*h) + HASH_SUM_LEN) {
		snprintf(why, why_size, st.st_size ? "damaged: not a snapshot, or cut short" : "damaged: empty");
		return -EBADMSG;
	}
	r = read_all(fd, h, sizeof(*h));
	if (r < 0)
		return r;
	r = check_head(h, (size_t)st.st_size, why, why_size);
	if (r == 0)
		*ret_size = (size_t)st.st_size;
	return r;
}

/* All of it, checked. Read, not mapped: a bad sector is an error then, and who may write the file cannot change what was
 * checked. Free *ret. */
static int read_file(int fd, uint8_t **ret, char *why, size_t why_size)
{
	struct snapshot_head h;
	uint8_t *mem = NULL;
	size_t size = 0;
	int r;

	snprintf(why, why_size, "%s", "");
	r = check_file(fd, &h, &size, why, why_size);
	if (r == 0) {
		mem = malloc(size);
		r = mem ? read_all(fd, mem, size) : -ENOMEM;
	}
	if (r == 0 && memcmp(mem, &h, sizeof(h)) != 0)
		r = -EBADMSG;
	if (r == 0)
		r = check_sum(mem, size, why, why_size);
	if (r == 0)
		r = check_layout(&h, why, why_size);
	if (r == 0)
		r = check_decisions(mem, &h, why, why_size);
	if (r < 0) {
		if (!why[0])
			snprintf(why, why_size, "cannot be read: %s", strerror(-r));
		free(mem);
		return r == -EIO ? -EBADMSG : r;
	}
	*ret = mem;
	return 0;
}

static int open_good(const char *name)
{
	int fd = open(name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY), r;
	uint8_t *mem;
	char why[120];

	if (fd < 0 && errno == ENOENT)
		return -ENOENT;
	if (fd < 0) {
		r = -errno;
		log_warning("%s: %s; not restored", name, r == -ELOOP ? "a symbolic link" : strerror(-r));
		return r;
	}
	r = read_file(fd, &mem, why, sizeof(why));
	if (r == 0) {
		free(mem);
		return fd;
	}
	log_warning("%s: %s; not restored", name, why);
	close(fd);
	return r;
}

int snapshot_open(const char *state_dir)
{
	static const char *const names[] = { "snapshot", "snapshot.1" };
	char name[SNAPSHOT_NAME];
	bool bad = false;

	for (unsigned i = 0; i < 2; i++) {
		int fd;

		snprintf(name, sizeof(name), "%s/%s", state_dir, names[i]);
		fd = open_good(name);
		if (fd >= 0 && bad)
			log_notice("%s: taken instead, it is older", name);
		if (fd >= 0)
			return fd;
		bad |= fd != -ENOENT;
	}
	if (bad)
		log_warning("no good snapshot in %s; sums start at zero", state_dir);
	return -ENOENT;
}

/* ---- into an area ---- */

struct restore {
	struct area *a;
	const struct snapshot_head *h;
	struct mono old, now;		/* the same instant: by the clock of the writing (gap included), and by ours */
	bool same_boot;
	uint32_t *slot;			/* of a pair, by its slot in the table that was written */
	uint32_t nslots;
	uint32_t lost_pairs, lost_accounts;
};

/* Differences to now stay right when a shifted time lies before this boot: unsigned arithmetic wraps both ways. */
static uint64_t shifted(uint64_t ns, const struct restore *t)
{
	return ns ? ns - t->old.ns + t->now.ns : 0;
}

/* Deadlines are compared, so one that lies before this boot is simply over. */
static uint64_t shifted_deadline(uint64_t ns, const struct restore *t)
{
	if (ns <= t->old.ns)
		return t->old.ns - ns < t->now.ns && ns ? t->now.ns - (t->old.ns - ns) : 0;
	return ns - t->old.ns < UINT64_MAX - t->now.ns ? t->now.ns + (ns - t->old.ns) : UINT64_MAX;
}

/* No place in a smaller table: its host's overflow record takes the bytes, as when a pair is evicted. */
static void fold(struct restore *t, const struct snapshot_pair *s)
{
	struct area *a = t->a;
	struct pair_key k = s->key;
	uint64_t packets;
	uint32_t to;
	int r;

	t->lost_pairs++;
	memset(k.out, 0, sizeof(k.out));
	k.out_family = 0;
	k.class_uid = PAIR_CLASS_OVERFLOW;
	r = table_insert(&a->pairs, area_pair_hash(a, &k), (const struct table_key *)&k, &to);
	if (r < 0 && r != -EEXIST) {
		atomic_fetch_add_explicit(&a->h->folded_bytes, s->bytes, memory_order_relaxed);
		return;
	}
	packets = pair_packets(&a->pair[to], &a->pair_cold[to]) + s->packets;
	atomic_store_explicit(&a->pair[to].packets, (uint32_t)packets, memory_order_relaxed);
	atomic_store_explicit(&a->pair_cold[to].packets_high, (uint32_t)(packets >> 32), memory_order_relaxed);
	atomic_fetch_add_explicit(&a->pair[to].bytes, s->bytes, memory_order_relaxed);
	atomic_fetch_add_explicit(&a->pair_cold[to].refused, s->refused, memory_order_relaxed);
	atomic_fetch_add_explicit(&a->pair_cold[to].refused_packets, s->refused_packets, memory_order_relaxed);
}

static void get_pair(struct restore *t, const struct snapshot_pair *s)
{
	struct area *a = t->a;
	struct pair_cold *c;
	uint32_t slot;
	int r = table_insert(&a->pairs, area_pair_hash(a, &s->key), (const struct table_key *)&s->key, &slot);

	if (r < 0 && r != -EEXIST) {
		fold(t, s);
		return;
	}
	/* Added: an overflow record may have taken in others by now. */
	c = &a->pair_cold[slot];
	uint64_t packets = pair_packets(&a->pair[slot], c) + s->packets;

	atomic_fetch_add_explicit(&a->pair[slot].bytes, s->bytes, memory_order_relaxed);
	atomic_store_explicit(&a->pair[slot].packets, (uint32_t)packets, memory_order_relaxed);
	atomic_store_explicit(&c->packets_high, (uint32_t)(packets >> 32), memory_order_relaxed);
	atomic_fetch_add_explicit(&c->refused, s->refused, memory_order_relaxed);
	atomic_fetch_add_explicit(&c->refused_packets, s->refused_packets, memory_order_relaxed);
	atomic_store_explicit(&c->port, s->port, memory_order_relaxed);
	atomic_store_explicit(&c->proto, s->proto, memory_order_relaxed);
	atomic_store_explicit(&c->opened_by, s->opened_by, memory_order_relaxed);
	c->first_ns = shifted(s->first_ns, t);
	c->last_out = s->last_out;
	c->exit = s->exit;
	if (s->slot < t->nslots)
		t->slot[s->slot] = slot;
}

/* Starts that fell were caught amid a change of an engine that died: every window counts from the lowest, too much rather than
 * too little. */
static void mend_rings(struct window_rings *w, uint64_t spent)
{
	const char *why;
	uint64_t least = spent;

	if (window_check(w, spent, &why) == 0)
		return;
	for (unsigned i = 0; i < WINDOW_SLOTS; i++)
		least = MIN_OF(least, w->start[i]);
	for (unsigned i = 0; i < WINDOW_SLOTS; i++)
		w->start[i] = least;
}

static void rebase(struct account_cold *c, uint64_t spent, const struct restore *t)
{
	struct mono old = t->old;

	/* Advanced while the file was being written, so a little after the head's time. */
	if (c->rings.tick > mono_tick(old))
		old = mono_of_tick(c->rings.tick);
	window_rebase(&c->rings, spent, old, t->now);
}

static void get_account(struct restore *t, const struct snapshot_account *s)
{
	struct area *a = t->a;
	struct account_cold *c;
	struct account *x;
	uint32_t slot;

	if (table_insert(&a->accounts, area_account_hash(a, &s->key), (const struct table_key *)&s->key, &slot) != 0) {
		t->lost_accounts++;
		return;
	}
	x = &a->account[slot];
	c = &a->account_cold[slot];
	memcpy(c, &s->cold, sizeof(*c));
	c->outstanding = c->leased = 0;	/* in spent, see snapshot.c */
	c->leases = c->holds = 0;
	c->hold_until_ns = c->rest_until_ns = 0;
	c->pair = c->pair < t->nslots ? t->slot[c->pair] : TABLE_NONE;
	c->announced = 0;
	if (!t->same_boot)	/* else the elements may have outlived us, and go on counting */
		c->kernel_refused = c->kernel_pair = 0;
	if (c->kernel_pair == 0)	/* another account did it, and may be gone */
		c->kernel_pair = c->kernel_refused;
	if (c->rule != ACCOUNT_DYNAMIC)
		c->policy = 0;
	c->born_ns = shifted(c->born_ns, t);
	c->blocked_at_ns = shifted(c->blocked_at_ns, t);
	c->opened_ns = shifted(c->opened_ns, t);
	c->last_ns = shifted(c->last_ns, t);
	c->rev_ns = shifted(c->rev_ns, t);
	c->grant_until_ns = shifted_deadline(c->grant_until_ns, t);
	c->blocked_until_ns = shifted_deadline(c->blocked_until_ns, t);
	if (!(s->state & ACCOUNT_BLOCKED) && c->rule != ACCOUNT_DYNAMIC && t->h->observe_until_ns <= t->h->mono_ns)
		c->blocked_until_ns = 0;	/* unblocked, by a version that kept the time */
	mend_rings(&c->rings, s->spent);
	if (t->old.ns != t->now.ns)
		rebase(c, s->spent, t);
	atomic_store_explicit(&x->spent, s->spent, memory_order_relaxed);
	atomic_store_explicit(&x->refused, s->refused, memory_order_relaxed);
	atomic_store_explicit(&x->state, s->state & states, memory_order_relaxed);
}

/* Those that stand for more than one pair, or for a block or finding, come first to their place. */
static bool is_idle(const struct snapshot_account *s)
{
	return s->key.kind == SUBJECT_PAIR && !account_is_shared(&s->key) && !(s->state & states) && s->cold.grant_until_ns == 0;
}

static void get_all(struct restore *t, const uint8_t *mem)
{
	struct area_header *to = t->a->h;
	const struct snapshot_head *h = t->h;
	const uint8_t *pairs = mem + sizeof(*h), *accounts = pairs + h->pairs * sizeof(struct snapshot_pair);
	struct snapshot_account s;
	struct snapshot_pair p;

	atomic_store_explicit(&to->folded_bytes, h->folded_bytes, memory_order_relaxed);
	for (uint32_t i = 0; i < h->pairs; i++) {
		memcpy(&p, pairs + i * sizeof(p), sizeof(p));
		get_pair(t, &p);
	}
	for (unsigned idle = 0; idle < 2; idle++)
		for (uint32_t i = 0; i < h->accounts; i++) {
			memcpy(&s, accounts + i * sizeof(s), sizeof(s));
			if (is_idle(&s) == idle)
				get_account(t, &s);
		}
	memcpy(to->dynamic, decisions_of(mem, h), sizeof(to->dynamic));
	for (unsigned i = 0; i < AREA_DYNAMIC; i++) {
		to->dynamic[i].since_ns = shifted(to->dynamic[i].since_ns, t);
		to->dynamic[i].until_ns = shifted_deadline(to->dynamic[i].until_ns, t);
	}
	atomic_store_explicit(&to->next_finding, h->next_finding, memory_order_relaxed);
	atomic_store_explicit(&to->observe_until_ns, shifted_deadline(h->observe_until_ns, t), memory_order_relaxed);
	atomic_store_explicit(&to->gap_ns, h->gap_ns, memory_order_relaxed);
	atomic_store_explicit(&to->policy_version, h->policy_version, memory_order_relaxed);
}

/* Slots of the pairs, for the accounts that name one. */
static int make_slots(struct restore *t, const uint8_t *mem)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < t->h->pairs; i++) {
		struct snapshot_pair p;

		memcpy(&p, mem + sizeof(*t->h) + i * sizeof(p), sizeof(p));
		if (p.slot < PAIRS_MAX)
			n = MAX_OF(n, p.slot + 1);
	}
	t->slot = malloc((n + 1) * sizeof(*t->slot));
	if (!t->slot)
		return -ENOMEM;
	for (uint32_t i = 0; i < n; i++)
		t->slot[i] = TABLE_NONE;
	t->nslots = n;
	return 0;
}

/* ---- words ---- */

static void clock_text(uint64_t wall_us, bool with_date, char to[32])
{
	time_t at = (time_t)(wall_us / 1000000);
	struct tm tm;

	if (!localtime_r(&at, &tm) || !strftime(to, 32, with_date ? "%Y-%m-%d %H:%M:%S" : "%H:%M:%S", &tm))
		snprintf(to, 32, "?");
}

static void tell(const struct restore *t, uint64_t gap_ns, uint64_t wall_us, char *why, size_t size)
{
	uint64_t from = wall_us - gap_ns / 1000;
	bool back = !t->same_boot && wall_us < t->h->wall_us, dates = back || gap_ns >= 86400 * NS_PER_S;
	char x[32], y[32];
	size_t n;

	clock_text(back ? t->h->wall_us : from, dates, x);
	clock_text(wall_us, dates, y);
	if (back)
		snprintf(why, size, "restored, gap unknown and counted as none: written at %s, the clock now says %s", x, y);
	else
		snprintf(why, size, dates ? "restored, gap %s - %s" : "restored, gap %s-%s", x, y);
	n = strlen(why);
	if (t->lost_pairs + t->lost_accounts)
		snprintf(why + n, size - n, "; the smaller table has no place for %u pairs and %u accounts", t->lost_pairs,
			 t->lost_accounts);
}

int snapshot_restore(int fd, struct area *a, struct mono now, uint64_t wall_us, uint64_t *ret_gap_ns, char *why,
		     size_t why_size)
{
	struct restore t = { .a = a, .now = now };
	struct snapshot_head h;
	uint64_t gap = 0;
	uint8_t *mem;
	int r = read_file(fd, &mem, why, why_size);

	if (r < 0)
		return r;
	memcpy(&h, mem, sizeof(h));
	t.h = &h;
	t.same_boot = memcmp(h.boot_id, a->h->boot_id, sizeof(h.boot_id)) == 0 && now.ns >= h.mono_ns;
	if (wall_us > h.wall_us)
		gap = MIN_OF(wall_us - h.wall_us, TIME_MAX / 1000) * 1000;
	/* Unless the boot clock is that of another time namespace now: never late. */
	if (t.same_boot && (wall_us < h.wall_us || now.ns - h.mono_ns < gap + JUMP_NS))
		gap = now.ns - h.mono_ns;
	t.old.ns = h.mono_ns + gap;
	r = make_slots(&t, mem);
	if (r == 0) {
		get_all(&t, mem);
		tell(&t, gap, wall_us, why, why_size);
		*ret_gap_ns = gap;
	} else {
		snprintf(why, why_size, "cannot be read: %s", strerror(-r));
	}
	free(t.slot);
	free(mem);
	return r;
}
