/* held.c - packets of one queue that wait for credit to come back from the kernel: leases.h [M4].
 *
 * Unanswered, they stay in the kernel's queue; all we keep is their ids, in the area. They leave by NF_REPEAT and come back as new
 * messages, to be judged by what there is then. Ids are handed out in order and answered in order: a ring.
 */
#include <stdatomic.h>

#include "engine.h"
#include "nfq.h"

static _Atomic uint64_t *place(const struct engine_worker *w, uint32_t i)
{
	return &w->e->area.h->worker[w->index].held[i % AREA_HELD];
}

bool held_any(const struct engine_worker *w)
{
	return w->held_first != w->held_next;
}

bool held_add(struct engine_worker *w, uint32_t id, struct mono now)
{
	if (w->held_next - w->held_first == AREA_HELD)
		return false;
	if (!held_any(w)) {
		/* Acquire: credit that came back before is seen by who judges later. Pairs with the release in leases_end.c. */
		w->held_epoch = atomic_load_explicit(&w->e->lease_epoch, memory_order_acquire);
		w->held_until_ns = now.ns + LEASE_HOLD_MS * NS_PER_MS;
	}
	/* Release: read by the next process, after this one is dead, if the packet's slot says no more that it is in hand. */
	atomic_store_explicit(place(w, w->held_next), id | AREA_HELD_BIT, memory_order_release);
	w->held_next++;
	return true;
}

static void repeat(struct engine_worker *w)
{
	struct nfq_verdict v[NFQ_BATCH];
	uint32_t from = w->held_first;

	while (from != w->held_next) {
		uint32_t to = from;
		unsigned n = 0;

		for (; to != w->held_next && n < NFQ_BATCH; to++)
			v[n++] = (struct nfq_verdict){ .id = (uint32_t)atomic_load_explicit(place(w, to), memory_order_relaxed),
						       .answer = NFQ_REPEAT };
		if (nfq_answer_each(w->fd, w->queue, v, n, 0, 0) < 0)
			return;	/* again in a moment */
		for (; from != to; from++)
			atomic_store_explicit(place(w, from), 0, memory_order_release);
		w->held_first = from;
	}
}

void held_review(struct engine_worker *w, struct mono now)
{
	if (now.ns >= w->held_until_ns || atomic_load_explicit(&w->e->lease_epoch, memory_order_acquire) != w->held_epoch)
		repeat(w);
}

void held_recover(struct engine *e, unsigned index)
{
	struct engine_worker *w = &e->worker[index];

	for (uint32_t i = 0; i < AREA_HELD; i++) {
		uint64_t id = atomic_load_explicit(place(w, i), memory_order_acquire);
		struct nfq_verdict v = { .id = (uint32_t)id, .answer = NFQ_REPEAT };

		/* Unacknowledged, as in worker_recover(): one that was answered is simply not there. */
		if (id & AREA_HELD_BIT && nfq_answer_single(w->fd, w->queue, &v, 0, 0) == 0)
			atomic_fetch_add_explicit(&e->area.h->worker[index].counter[AC_REPEATED], 1, memory_order_relaxed);
		atomic_store_explicit(place(w, i), 0, memory_order_relaxed);
	}
}
