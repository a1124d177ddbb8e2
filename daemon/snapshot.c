/* snapshot.c - writing; see snapshot.h for the contract. */
#include "snapshot.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "snapshot_internal.h"

/* To catch an account between two changes; then a millisecond each, as its changer may have lost the CPU. */
#define SPINS 100
#define TRIES (SPINS + 200)

static size_t count_full(const struct table *t)
{
	size_t n = 0;

	for (uint32_t i = 0; i < table_capacity(t); i++)
		n += table_is_full(t, i);
	return n;
}

/* The engine may free the slot and give it to another key meanwhile: false when it is not the same record as before. */
static bool still_there(const struct table *t, uint32_t slot, const void *key)
{
	return table_is_full(t, slot) && table_key_equal(table_key_at(t, slot), key);
}

static bool put_pair(const struct area *a, uint32_t slot, struct snapshot_pair *s)
{
	const struct pair *p = &a->pair[slot];
	const struct pair_cold *c = &a->pair_cold[slot];

	*s = (struct snapshot_pair){
		.key = p->key,
		.bytes = pair_bytes(p, c),
		.packets = pair_packets(p, c),
		.refused = pair_refused(c),
		.refused_packets = atomic_load_explicit(&c->refused_packets, memory_order_relaxed),
		.first_ns = c->first_ns,
		.last_out = c->last_out,
		.slot = slot,
		.port = atomic_load_explicit(&c->port, memory_order_relaxed),
		.proto = atomic_load_explicit(&c->proto, memory_order_relaxed),
		.opened_by = atomic_load_explicit(&c->opened_by, memory_order_relaxed),
		.exit = c->exit,
	};
	return still_there(&a->pairs, slot, &s->key);
}

/* Word by word, each before what is read next: an ordinary copy may be put off past the loads that judge it. */
static void copy_words(const void *from, void *to, size_t size)
{
	const uint64_t *x = from;
	uint64_t *y = to;

	for (size_t i = 0; i < size / sizeof(*x); i++)
		y[i] = __atomic_load_n(&x[i], __ATOMIC_ACQUIRE);
}

static bool same_words(const void *copy, const void *now, size_t size)
{
	const uint64_t *x = copy, *y = now;

	for (size_t i = 0; i < size / sizeof(*x); i++)
		if (x[i] != __atomic_load_n(&y[i], __ATOMIC_ACQUIRE))
			return false;
	return true;
}

_Static_assert(sizeof(struct account_cold) % sizeof(uint64_t) == 0, "words");

/* As of one instant: half-new starts, or starts from before an undo and a total from after it, would make sums too low; a
 * block's bit without its end would end it. Changes of these are made under the lock bit, and all of it read again shows one
 * that was made in between. The bit's holder is another process and may die; the next engine clears it within 100 ms,
 * and we do not wait for ever. */
static bool put_account(const struct area *a, uint32_t slot, struct snapshot_account *s)
{
	const struct account *x = &a->account[slot];
	const struct account_cold *c = &a->account_cold[slot];

	for (unsigned i = 0; i < TRIES; i++) {
		uint32_t state = atomic_load_explicit(&x->state, memory_order_acquire);

		s->key = x->key;
		copy_words(c, &s->cold, sizeof(s->cold));
		/* spent after the rings: a bucket's start must not be above it [W3]. */
		s->spent = atomic_load_explicit(&x->spent, memory_order_acquire);
		/* Leases end with their kernel objects; what they have out counts as passed: never too low. */
		s->spent += s->cold.leased + s->cold.outstanding;
		s->refused = atomic_load_explicit(&x->refused, memory_order_acquire);
		s->state = state & ~(uint32_t)ACCOUNT_LOCK;
		if (!(state & ACCOUNT_LOCK) && atomic_load_explicit(&x->state, memory_order_acquire) == state &&
		    same_words(&s->cold, c, sizeof(s->cold)))
			break;
		if (i < SPINS)
			sched_yield();
		else
			usleep(1000);
	}
	return still_there(&a->accounts, slot, &s->key);
}

static void fill(void *mem, const struct area *a, struct snapshot_head h)
{
	uint8_t *at = (uint8_t *)mem + sizeof(h);
	uint32_t n = 0;

	for (uint32_t i = 0; i < a->h->pairs && n < h.pairs; i++) {
		if (!table_is_full(&a->pairs, i) || !put_pair(a, i, (struct snapshot_pair *)at))
			continue;
		at += sizeof(struct snapshot_pair);
		n++;
	}
	h.pairs = n;
	n = 0;
	for (uint32_t i = 0; i < a->h->accounts && n < h.accounts; i++) {
		struct snapshot_account s = { .pad = 0 };	/* the file's are not cache-aligned */

		if (!table_is_full(&a->accounts, i) || !put_account(a, i, &s))
			continue;
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
		.folded_bytes = atomic_load_explicit(&a->h->folded_bytes, memory_order_relaxed) +
				atomic_load_explicit(&a->h->lost_pair_bytes, memory_order_relaxed),
		.gap_ns = atomic_load_explicit(&a->h->gap_ns, memory_order_relaxed),
		.policy_version = atomic_load_explicit(&a->h->policy_version, memory_order_relaxed),
	};

	memcpy(h.magic, SNAPSHOT_MAGIC, sizeof(h.magic));
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
	char name[SNAPSHOT_NAME], temporary[SNAPSHOT_NAME], older[SNAPSHOT_NAME];
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

uint64_t snapshot_written_us(const char *state_dir)
{
	char name[SNAPSHOT_NAME];
	struct stat st;

	snprintf(name, sizeof(name), "%s/snapshot", state_dir);
	return stat(name, &st) < 0 ? 0 : (uint64_t)st.st_mtim.tv_sec * 1000000 + (uint64_t)st.st_mtim.tv_nsec / 1000;
}
