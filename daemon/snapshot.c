/* snapshot.c - see snapshot.h for the contract. */
#include "snapshot.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "hash.h"

#define SNAPSHOT_LAYOUT 1
#define NAME_MAX_LEN	288

struct snapshot_head {
	char magic[8];
	uint32_t layout, pairs, accounts, dynamics;
	uint64_t size;			/* of the file, checksum included */
	uint64_t wall_us, mono_ns;
	uint8_t boot_id[16];
	uint64_t next_finding, observe_until_ns, folded_bytes, gap_ns;
	uint32_t policy_version, pad;
};

struct snapshot_pair {
	struct pair_key key;
	uint64_t bytes, packets, refused, refused_packets, first_ns;
	struct addr last_out;
	uint32_t last_tick;
	uint16_t port;
	uint8_t proto, opened_by;
	uint8_t exit, pad[7];
};

struct snapshot_account {
	struct account_key key;
	uint64_t spent, refused;
	uint32_t state, pad;
	struct account_cold cold;
};

static const char magic[8] = "egrsnap\1";

/* ---- writing ---- */

static size_t count_full(const struct table *t)
{
	size_t n = 0;

	for (uint32_t i = 0; i < table_capacity(t); i++)
		n += table_is_full(t, i);
	return n;
}

static void put_pair(const struct area *a, uint32_t slot, struct snapshot_pair *s)
{
	const struct pair *p = &a->pair[slot];
	const struct pair_cold *c = &a->pair_cold[slot];

	*s = (struct snapshot_pair){
		.key = p->key,
		.bytes = atomic_load_explicit(&p->bytes, memory_order_relaxed),
		.packets = pair_packets(p, c),
		.refused = atomic_load_explicit(&c->refused, memory_order_relaxed),
		.refused_packets = atomic_load_explicit(&c->refused_packets, memory_order_relaxed),
		.first_ns = c->first_ns,
		.last_out = c->last_out,
		.last_tick = atomic_load_explicit(&c->last_tick, memory_order_relaxed),
		.port = atomic_load_explicit(&c->port, memory_order_relaxed),
		.proto = atomic_load_explicit(&c->proto, memory_order_relaxed),
		.opened_by = atomic_load_explicit(&c->opened_by, memory_order_relaxed),
		.exit = c->exit,
	};
}

/* Not in the middle of an advance: half-new starts would make sums too low. The holder of the lock bit is another process
 * and may die; then the next engine clears it, and we do not wait for ever. */
static void copy_cold(const struct area *a, uint32_t slot, struct account_cold *ret)
{
	const struct account *x = &a->account[slot];
	const struct account_cold *c = &a->account_cold[slot];

	for (unsigned i = 0; i < 10000; i++) {
		uint32_t tick = __atomic_load_n(&c->rings.tick, __ATOMIC_ACQUIRE);

		*ret = *c;
		if (!(atomic_load_explicit(&x->state, memory_order_acquire) & ACCOUNT_LOCK) &&
		    __atomic_load_n(&c->rings.tick, __ATOMIC_ACQUIRE) == tick)
			return;
		sched_yield();
	}
}

static void put_account(const struct area *a, uint32_t slot, struct snapshot_account *s)
{
	const struct account *x = &a->account[slot];

	s->key = x->key;
	copy_cold(a, slot, &s->cold);
	/* spent after the rings: a bucket's start must not be above it [W3]. */
	s->spent = atomic_load_explicit(&x->spent, memory_order_acquire);
	s->refused = atomic_load_explicit(&x->refused, memory_order_relaxed);
	s->state = atomic_load_explicit(&x->state, memory_order_relaxed) & ~(uint32_t)ACCOUNT_LOCK;
	s->pad = 0;
}

static void fill(void *mem, const struct area *a, struct snapshot_head h)
{
	uint8_t *at = (uint8_t *)mem + sizeof(h);
	uint32_t n = 0;

	for (uint32_t i = 0; i < a->h->pairs && n < h.pairs; i++)
		if (table_is_full(&a->pairs, i)) {
			put_pair(a, i, (struct snapshot_pair *)at);
			at += sizeof(struct snapshot_pair);
			n++;
		}
	h.pairs = n;
	n = 0;
	for (uint32_t i = 0; i < a->h->accounts && n < h.accounts; i++)
		if (table_is_full(&a->accounts, i)) {
			struct snapshot_account s;	/* the file's are not cache-aligned */

			put_account(a, i, &s);
			memcpy(at, &s, sizeof(s));
			at += sizeof(s);
			n++;
		}
	h.accounts = n;
	memcpy(at, a->h->dynamic, sizeof(a->h->dynamic));
	memcpy(mem, &h, sizeof(h));
	hash_sum(mem, h.size - HASH_SUM_LEN, (uint8_t *)mem + h.size - HASH_SUM_LEN);
}

static struct snapshot_head head_of(const struct area *a, struct mono now, uint64_t wall_us)
{
	struct snapshot_head h = {
		.layout = SNAPSHOT_LAYOUT,
		.pairs = (uint32_t)count_full(&a->pairs),
		.accounts = (uint32_t)count_full(&a->accounts),
		.dynamics = AREA_DYNAMIC,
		.wall_us = wall_us,
		.mono_ns = now.ns,
		.next_finding = atomic_load_explicit(&a->h->next_finding, memory_order_relaxed),
		.observe_until_ns = atomic_load_explicit(&a->h->observe_until_ns, memory_order_relaxed),
		.folded_bytes = atomic_load_explicit(&a->h->folded_bytes, memory_order_relaxed),
		.gap_ns = atomic_load_explicit(&a->h->gap_ns, memory_order_relaxed),
		.policy_version = atomic_load_explicit(&a->h->policy_version, memory_order_relaxed),
	};

	memcpy(h.magic, magic, sizeof(magic));
	memcpy(h.boot_id, a->h->boot_id, sizeof(h.boot_id));
	/* Space for what is there now: records born while we write come with the next snapshot; those that die leave zeroes
	 * at the end, which the counts exclude. */
	h.size = sizeof(h) + h.pairs * sizeof(struct snapshot_pair) + h.accounts * sizeof(struct snapshot_account) +
		 sizeof(a->h->dynamic) + HASH_SUM_LEN;
	return h;
}

static int write_to(int fd, const struct area *a, struct mono now, uint64_t wall_us)
{
	struct snapshot_head h = head_of(a, now, wall_us);
	void *mem;
	int r = posix_fallocate(fd, 0, (off_t)h.size);	/* disk full is an error here, not a SIGBUS later */

	if (r != 0)
		return -r;
	mem = mmap(NULL, h.size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (mem == MAP_FAILED)
		return -errno;
	fill(mem, a, h);
	r = msync(mem, h.size, MS_SYNC) < 0 ? -errno : 0;
	munmap(mem, h.size);
	if (r == 0 && fsync(fd) < 0)
		r = -errno;
	return r;
}

static int sync_dir(const char *dir)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = 0;

	if (fd < 0)
		return -errno;
	if (fsync(fd) < 0)
		r = -errno;
	close(fd);
	return r;
}

int snapshot_write(const char *state_dir, const struct area *a, struct mono now, uint64_t wall_us)
{
	char name[NAME_MAX_LEN], temporary[NAME_MAX_LEN], older[NAME_MAX_LEN];
	int fd, r;

	snprintf(name, sizeof(name), "%s/snapshot", state_dir);
	snprintf(temporary, sizeof(temporary), "%s/snapshot.new", state_dir);
	snprintf(older, sizeof(older), "%s/snapshot.1", state_dir);
	fd = open(temporary, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	r = write_to(fd, a, now, wall_us);
	close(fd);
	if (r == 0 && rename(name, older) < 0 && errno != ENOENT)
		r = -errno;
	if (r == 0 && rename(temporary, name) < 0)
		r = -errno;
	if (r == 0)
		return sync_dir(state_dir);
	unlink(temporary);
	return r;
}

/* ---- reading ---- */

static int map_file(int fd, void **ret, size_t *ret_size)
{
	struct stat st;
	void *mem;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (st.st_size == 0)
		return -ENOENT;
	mem = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (mem == MAP_FAILED)
		return -errno;
	*ret = mem;
	*ret_size = (size_t)st.st_size;
	return 0;
}

static int verify(const void *mem, size_t size, const char **ret_why)
{
	const struct snapshot_head *h = mem;
	uint8_t sum[HASH_SUM_LEN];
	uint64_t need;

	*ret_why = "not a snapshot, or cut short";
	if (size < sizeof(*h) + HASH_SUM_LEN || memcmp(h->magic, magic, sizeof(magic)) != 0 || h->size != size)
		return -EBADMSG;
	*ret_why = "of another version of egressd";
	if (h->layout != SNAPSHOT_LAYOUT || h->dynamics != AREA_DYNAMIC)
		return -EPROTO;
	*ret_why = "damaged: its checksum does not match";
	hash_sum(mem, size - HASH_SUM_LEN, sum);
	if (memcmp(sum, (const uint8_t *)mem + size - HASH_SUM_LEN, sizeof(sum)) != 0)
		return -EBADMSG;
	*ret_why = "damaged: counts and size contradict";
	need = sizeof(*h) + (uint64_t)h->pairs * sizeof(struct snapshot_pair) +
	       (uint64_t)h->accounts * sizeof(struct snapshot_account) + sizeof(struct area_dynamic) * AREA_DYNAMIC +
	       HASH_SUM_LEN;
	return need <= size ? 0 : -EBADMSG;
}

static int good(int fd)
{
	const char *why;
	size_t size;
	void *mem;
	int r = map_file(fd, &mem, &size);

	if (r < 0)
		return r;
	r = verify(mem, size, &why);
	munmap(mem, size);
	return r;
}

int snapshot_open(const char *state_dir)
{
	static const char *const names[] = { "snapshot", "snapshot.1" };
	char name[NAME_MAX_LEN];
	int last = -1;

	for (unsigned i = 0; i < 2; i++) {
		int fd;

		snprintf(name, sizeof(name), "%s/%s", state_dir, names[i]);
		fd = open(name, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			continue;
		if (good(fd) == 0) {
			if (last >= 0)
				close(last);
			return fd;
		}
		if (last < 0)
			last = fd;	/* none is good: the engine says what is wrong with the newest */
		else
			close(fd);
	}
	return last >= 0 ? last : -ENOENT;
}

struct shift {
	bool same_boot;
	int64_t ns;		/* add to a boottime of the snapshot */
	uint32_t old_tick, now_tick;
};

/* Differences to now stay right when a shifted time lies before this boot: unsigned arithmetic wraps both ways. */
static uint64_t shifted(uint64_t ns, const struct shift *s)
{
	return ns ? ns + (uint64_t)s->ns : 0;
}

/* Deadlines are compared, so one that lies before this boot is simply over. */
static uint64_t shifted_deadline(uint64_t ns, const struct shift *s)
{
	return (int64_t)ns + s->ns > 0 && ns ? ns + (uint64_t)s->ns : 0;
}

static void get_pair(struct area *a, const struct snapshot_pair *s, const struct shift *t)
{
	struct pair_cold *c;
	uint32_t slot;

	if (table_insert(&a->pairs, area_pair_hash(a, &s->key), (const struct table_key *)&s->key, &slot) != 0) {
		atomic_fetch_add_explicit(&a->h->folded_bytes, s->bytes, memory_order_relaxed);
		return;	/* a smaller table than before */
	}
	c = &a->pair_cold[slot];
	atomic_store_explicit(&a->pair[slot].bytes, s->bytes, memory_order_relaxed);
	atomic_store_explicit(&a->pair[slot].packets, (uint32_t)s->packets, memory_order_relaxed);
	atomic_store_explicit(&c->packets_high, (uint32_t)(s->packets >> 32), memory_order_relaxed);
	atomic_store_explicit(&c->refused, s->refused, memory_order_relaxed);
	atomic_store_explicit(&c->refused_packets, s->refused_packets, memory_order_relaxed);
	atomic_store_explicit(&c->port, s->port, memory_order_relaxed);
	atomic_store_explicit(&c->proto, s->proto, memory_order_relaxed);
	atomic_store_explicit(&c->opened_by, s->opened_by, memory_order_relaxed);
	c->first_ns = shifted(s->first_ns, t);
	c->last_out = s->last_out;
	c->exit = s->exit;
}

static void get_account(struct area *a, const struct snapshot_account *s, const struct shift *t)
{
	struct account_cold *c;
	struct account *x;
	uint32_t slot;

	if (table_insert(&a->accounts, area_account_hash(a, &s->key), (const struct table_key *)&s->key, &slot) != 0)
		return;
	x = &a->account[slot];
	c = &a->account_cold[slot];
	memcpy(c, &s->cold, sizeof(*c));
	c->outstanding = 0;	/* leases ended with their kernel objects; what they had is counted as passed */
	c->pair = TABLE_NONE;
	c->announced = 0;
	c->kernel_refused = c->kernel_seen = 0;
	if (c->rule != ACCOUNT_DYNAMIC)
		c->policy = 0;
	c->born_ns = shifted(c->born_ns, t);
	c->blocked_at_ns = shifted(c->blocked_at_ns, t);
	c->opened_ns = shifted(c->opened_ns, t);
	c->last_ns = shifted(c->last_ns, t);
	c->rev_ns = shifted(c->rev_ns, t);
	c->grant_until_ns = shifted_deadline(c->grant_until_ns, t);
	c->blocked_until_ns = shifted_deadline(c->blocked_until_ns, t);
	if (!t->same_boot)
		window_rebase(&c->rings, s->spent, t->old_tick, t->now_tick);
	atomic_store_explicit(&x->spent, s->spent, memory_order_relaxed);
	atomic_store_explicit(&x->refused, s->refused, memory_order_relaxed);
	atomic_store_explicit(&x->state, s->state, memory_order_relaxed);
}

static void get_all(struct area *a, const void *mem, const struct shift *t)
{
	const struct snapshot_head *h = mem;
	const uint8_t *at = (const uint8_t *)mem + sizeof(*h);

	for (uint32_t i = 0; i < h->pairs; i++, at += sizeof(struct snapshot_pair)) {
		struct snapshot_pair s;

		memcpy(&s, at, sizeof(s));
		get_pair(a, &s, t);
	}
	for (uint32_t i = 0; i < h->accounts; i++, at += sizeof(struct snapshot_account)) {
		struct snapshot_account s;

		memcpy(&s, at, sizeof(s));
		get_account(a, &s, t);
	}
	memcpy(a->h->dynamic, at, sizeof(a->h->dynamic));
	for (unsigned i = 0; i < AREA_DYNAMIC; i++) {
		a->h->dynamic[i].since_ns = shifted(a->h->dynamic[i].since_ns, t);
		a->h->dynamic[i].until_ns = shifted_deadline(a->h->dynamic[i].until_ns, t);
	}
	atomic_store_explicit(&a->h->next_finding, h->next_finding, memory_order_relaxed);
	atomic_store_explicit(&a->h->observe_until_ns, shifted_deadline(h->observe_until_ns, t), memory_order_relaxed);
	atomic_store_explicit(&a->h->folded_bytes, h->folded_bytes, memory_order_relaxed);
	atomic_store_explicit(&a->h->gap_ns, h->gap_ns, memory_order_relaxed);
	atomic_store_explicit(&a->h->policy_version, h->policy_version, memory_order_relaxed);
}

static void tell_gap(uint64_t from_us, uint64_t to_us, char *why, size_t size)
{
	time_t from = (time_t)(from_us / 1000000), to = (time_t)(to_us / 1000000);
	char x[16], y[16];
	struct tm tm;

	strftime(x, sizeof(x), "%H:%M:%S", localtime_r(&from, &tm));
	strftime(y, sizeof(y), "%H:%M:%S", localtime_r(&to, &tm));
	snprintf(why, size, "restored, gap %s-%s", x, y);
}

int snapshot_restore(int fd, struct area *a, struct mono now, uint64_t wall_us, uint64_t *ret_gap_ns, char *why,
		     size_t why_size)
{
	const struct snapshot_head *h;
	const char *what = "cannot be read";
	struct shift t;
	uint64_t gap;
	size_t size;
	void *mem;
	int r = map_file(fd, &mem, &size);

	if (r < 0)
		return r;
	r = verify(mem, size, &what);
	if (r < 0) {
		snprintf(why, why_size, "%s", what);
		munmap(mem, size);
		return r;
	}
	h = mem;
	t.same_boot = memcmp(h->boot_id, a->h->boot_id, sizeof(h->boot_id)) == 0 && now.ns >= h->mono_ns;
	gap = t.same_boot ? now.ns - h->mono_ns : wall_us > h->wall_us ? (wall_us - h->wall_us) * 1000 : 0;
	t.ns = t.same_boot ? 0 : (int64_t)(now.ns - (h->mono_ns + gap));
	t.old_tick = mono_tick((struct mono){ h->mono_ns + gap });
	t.now_tick = mono_tick(now);
	get_all(a, mem, &t);
	tell_gap(wall_us - gap / 1000, wall_us, why, why_size);
	munmap(mem, size);
	*ret_gap_ns = gap;
	return 0;
}
