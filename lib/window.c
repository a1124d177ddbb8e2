/* window.c - see window.h for the contract. */
#include "window.h"

#include <errno.h>
#include <string.h>

static const struct ring {
	uint32_t ticks;		/* length of a bucket */
	uint8_t count, first;	/* buckets, index of the first in start[] */
} rings[WINDOW_RINGS] = {
	{ 1, 13, 0 },
	{ 12, 11, 13 },
	{ 60, 13, 13 + 11 },
	{ 720, 25, 13 + 11 + 13 },
	{ 17280, 31, 13 + 11 + 13 + 25 },
};

uint32_t window_bucket_s(unsigned ring)
{
	return rings[ring].ticks * TICK_S;
}

int window_spec_for(uint64_t seconds, struct window_spec *ret)
{
	for (unsigned r = 0; r < WINDOW_RINGS; r++) {
		uint64_t bucket = window_bucket_s(r), n = seconds / bucket;

		if (n >= 1 && seconds % bucket == 0 && n < rings[r].count) {
			*ret = (struct window_spec){ .ring = (uint8_t)r, .buckets = (uint8_t)n };
			return 0;
		}
	}
	return -EINVAL;
}

static uint64_t *start_of(struct window_rings *w, const struct ring *r, uint32_t bucket)
{
	return &w->start[r->first + bucket % r->count];
}

static uint64_t read_start(const struct window_rings *w, const struct ring *r, uint32_t bucket)
{
	/* Relaxed: the relay reads while the engine writes; a whole value is all it needs. */
	return __atomic_load_n(&w->start[r->first + bucket % r->count], __ATOMIC_RELAXED);
}

static void advance_ring(struct window_rings *w, const struct ring *r, uint64_t total, uint32_t tick)
{
	uint32_t from = w->tick / r->ticks, to = tick / r->ticks;

	if (to - from > r->count)
		from = to - r->count;
	for (uint32_t b = from + 1; b <= to; b++)
		__atomic_store_n(start_of(w, r, b), total, __ATOMIC_RELAXED);
}

void window_advance(struct window_rings *w, uint64_t total, uint32_t tick)
{
	if (w->tick == 0) {
		for (unsigned i = 0; i < WINDOW_SLOTS; i++)
			w->start[i] = total;
	} else if (tick <= w->tick) {
		return;
	} else {
		for (unsigned r = 0; r < WINDOW_RINGS; r++)
			advance_ring(w, &rings[r], total, tick);
	}
	/* Last: a kill before this line makes the next advance write the same buckets again. */
	__atomic_store_n(&w->tick, tick, __ATOMIC_RELEASE);
}

uint64_t window_start(const struct window_rings *w, struct window_spec spec, uint64_t total, uint32_t tick)
{
	const struct ring *r = &rings[spec.ring];
	uint32_t current = __atomic_load_n(&w->tick, __ATOMIC_ACQUIRE);
	uint32_t oldest;

	if (current == 0)
		return total;
	oldest = (tick > current ? tick : current) / r->ticks - spec.buckets;
	if (oldest > current / r->ticks)
		return total;
	return read_start(w, r, oldest);
}

uint32_t window_room_tick(const struct window_rings *w, struct window_spec spec, uint64_t total, uint64_t limit)
{
	const struct ring *r = &rings[spec.ring];
	uint32_t now = w->tick / r->ticks;
	uint32_t b = now - spec.buckets;

	while (b <= now && total - read_start(w, r, b) >= limit)
		b++;
	if (b == now - spec.buckets)
		return w->tick;
	return (b + spec.buckets) * r->ticks;
}

void window_undo(struct window_rings *w, uint32_t since, uint64_t n)
{
	for (unsigned i = 0; i < WINDOW_RINGS; i++) {
		const struct ring *r = &rings[i];
		uint32_t from = since / r->ticks + 1, to = w->tick / r->ticks;
		uint64_t before = 0;	/* what no start may fall below [W3] */

		if (to - since / r->ticks >= r->count)
			from = to - r->count + 1;	/* every bucket of the ring began with it */
		else
			before = *start_of(w, r, from - 1);
		for (uint32_t b = from; b <= to; b++) {
			uint64_t *s = start_of(w, r, b);

			*s = *s - before < n ? before : *s - n;
			before = *s;
		}
	}
}

/* How far into its bucket t is; TICK_BASE is whole buckets of every ring. */
static uint64_t phase(const struct ring *r, struct mono t)
{
	return t.ns % (r->ticks * (uint64_t)TICK_S * NS_PER_S);
}

void window_rebase(struct window_rings *w, uint64_t total, struct mono old, struct mono now)
{
	uint32_t now_tick = mono_tick(now);
	struct window_rings was;

	if (w->tick == 0)
		return;
	window_advance(w, total, mono_tick(old));
	was = *w;
	for (unsigned i = 0; i < WINDOW_RINGS; i++) {
		const struct ring *r = &rings[i];
		uint32_t ob = was.tick / r->ticks, nb = now_tick / r->ticks;
		/* Bytes must not look older than they are: when the new bucket is further on than the old one was, by
		 * whatever part of a tick, the two youngest old buckets share the current one. */
		uint32_t shift = phase(r, now) > phase(r, old);

		for (uint32_t age = 0; age < r->count; age++) {
			uint32_t from = age + shift < r->count ? age + shift : r->count - 1U;

			*start_of(w, r, nb - age) = *start_of(&was, r, ob - from);
		}
	}
	w->tick = now_tick;
}

int window_check(const struct window_rings *w, uint64_t total, const char **ret_why)
{
	if (w->tick == 0)
		return 0;
	for (unsigned i = 0; i < WINDOW_RINGS; i++) {
		const struct ring *r = &rings[i];
		uint32_t now = w->tick / r->ticks;
		uint64_t last = total;

		for (uint32_t age = 0; age < r->count; age++) {
			uint64_t s = read_start(w, r, now - age);

			if (s > last) {
				*ret_why = "window: a bucket starts above a younger one or the total";
				return -EINVAL;
			}
			last = s;
		}
	}
	return 0;
}
