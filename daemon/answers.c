/* answers.c - see answers.h for the contract. */
#include "answers.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "engine.h"
#include "log.h"

struct known {			/* a flow in the kernel, or about to be */
	struct answers_item item;
	uint64_t until_ns;
	uint64_t bytes;		/* counted so far */
};

struct answers {
	struct known known[ANSWERS_MAX];
	unsigned n, fresh;	/* the last `fresh` are not in the kernel yet */
	uint64_t added_ns, taken_ns;
};

struct answers *answers_new(void)
{
	return calloc(1, sizeof(struct answers));
}

bool answers_note(struct answers_ring *ring, const struct judge_packet *v, struct mono now)
{
	/* Relaxed: only this thread writes head. [A1] Acquire: the reader is done with the place. */
	uint32_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);
	uint32_t tail = atomic_load_explicit(&ring->tail, memory_order_acquire);

	if (v->refused_by == TABLE_NONE || v->p.notes & PACKET_NO_PORTS || head - tail == ANSWERS_RING)
		return false;
	ring->item[head % ANSWERS_RING] = (struct answers_item){
		.flow = { v->p.src, v->p.dst, v->p.sport, v->p.dport, v->p.proto }, .account = v->refused_by,
	};
	/* [A2] Release: the item before the number; pairs with the acquire in take(). */
	atomic_store_explicit(&ring->head, head + 1, memory_order_release);
	if (now.ns - ring->woken_ns < ANSWERS_WAKE_NS)
		return false;
	ring->woken_ns = now.ns;
	return true;
}

static bool same_flow(const struct rules_flow *a, const struct rules_flow *b)
{
	return a->sport == b->sport && a->dport == b->dport && a->proto == b->proto && addr_cmp(&a->src, &b->src) == 0 &&
	       addr_cmp(&a->dst, &b->dst) == 0;
}

static struct known *find(struct answers *a, const struct rules_flow *f)
{
	for (unsigned i = 0; i < a->n; i++)
		if (same_flow(&a->known[i].item.flow, f))
			return &a->known[i];
	return NULL;
}

/* Elements leave the kernel by their timeout. */
static void expire(struct answers *a, struct mono now)
{
	unsigned kept = 0;

	for (unsigned i = 0; i < a->n; i++)
		if (i >= a->n - a->fresh || now.ns < a->known[i].until_ns)
			a->known[kept++] = a->known[i];
	a->n = kept;
}

static void take(struct engine *e, struct answers_ring *ring, struct mono now)
{
	struct answers *a = e->answers;
	uint32_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
	uint32_t head = atomic_load_explicit(&ring->head, memory_order_acquire);	/* [A2] */

	if (tail != head)
		a->taken_ns = now.ns;
	for (; tail != head; tail++) {
		const struct answers_item *x = &ring->item[tail % ANSWERS_RING];

		if (a->n < ANSWERS_MAX && !find(a, &x->flow) && blocked_wants_answer(e, x->account, &x->flow.src)) {
			a->known[a->n++] = (struct known){ .item = *x };
			a->fresh++;
		}
	}
	atomic_store_explicit(&ring->tail, tail, memory_order_release);	/* [A1] */
}

static void put(struct engine *e, struct mono now)
{
	static struct rules_flow flow[ANSWERS_MAX];	/* large, and there is one main thread */
	struct answers *a = e->answers;
	unsigned n = 0;
	int r;

	for (unsigned i = a->n - a->fresh; i < a->n; i++) {
		a->known[i].until_ns = now.ns + RULES_FLOW_MS * NS_PER_MS;
		flow[n++] = a->known[i].item.flow;
	}
	r = rules_flow_add(e->rules, flow, n);
	if (r < 0) {
		log_warning("refused connections are not answered: %s; they stay refused", strerror(-r));
		a->n -= a->fresh;
	}
	a->fresh = 0;
	a->added_ns = now.ns;
}

void answers_review(struct engine *e, struct mono now)
{
	struct answers *a = e->answers;

	expire(a, now);
	for (unsigned i = 0; i < e->nworkers; i++)
		take(e, &e->worker[i].refused, now);
	if (a->fresh && now.ns - a->added_ns >= ANSWERS_GAP_NS)
		put(e, now);
}

int answers_due_ms(const struct engine *e, struct mono now)
{
	uint64_t due = e->answers->added_ns + ANSWERS_GAP_NS;

	if (e->answers->fresh)
		return now.ns >= due ? 0 : (int)((due - now.ns) / NS_PER_MS) + 1;
	return now.ns - e->answers->taken_ns < ANSWERS_WAKE_NS ? ANSWERS_LOOK_MS : -1;
}

static int counted(void *ctx, const struct rules_flow *f, uint64_t packets, uint64_t bytes)
{
	struct engine *e = ctx;
	struct known *k = find(e->answers, f);

	(void)packets;
	if (k && bytes > k->bytes) {
		blocked_refused(e, k->item.account, bytes - k->bytes);
		k->bytes = bytes;
	}
	return 0;
}

void answers_settle(struct engine *e, struct mono now)
{
	int r = 0;

	if (e->answers->n > e->answers->fresh)
		r = rules_flow_dump(e->rules, counted, e);
	if (r < 0)
		log_warning("answered connections cannot be read: %s", strerror(-r));
	expire(e->answers, now);
}

void answers_forget(struct engine *e, struct mono now)
{
	struct answers *a = e->answers;
	int r;

	if (!a->n)
		return;
	answers_settle(e, now);
	r = rules_flow_forget(e->rules);
	if (r < 0)
		log_warning("answered connections stay refused for up to %u s: %s", RULES_FLOW_MS / 1000, strerror(-r));
	a->n = a->fresh = 0;
}
