/* worker.c - one queue: receive a batch into the shared slots, judge it, answer it. */
#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <urcu-qsbr.h>

#include "clock.h"
#include "engine.h"
#include "log.h"
#include "nfq.h"

#define RECEIVE_MS 250	/* a heartbeat at least this often */
#define HELD_MS	   1	/* while packets wait for credit */
#define HELD	   0xff	/* in place of an answer: none now */

struct batch {
	unsigned n;		/* packets to be answered */
	unsigned slot[AREA_SLOTS];
	struct nfq_verdict verdict[AREA_SLOTS];
	unsigned njudged;
	uint8_t judged_at[AREA_SLOTS];	/* index in verdict[] */
	struct judge_packet judge[AREA_SLOTS];
};

static struct area_worker *area_of(const struct engine_worker *w)
{
	return &w->e->area.h->worker[w->index];
}

static void count(struct area_worker *a, unsigned counter, uint64_t n)
{
	uint64_t was = atomic_load_explicit(&a->counter[counter], memory_order_relaxed);

	/* Single writer; relaxed: a statistic. */
	atomic_store_explicit(&a->counter[counter], was + n, memory_order_relaxed);
}

static uint8_t exit_of(const struct engine_policy *p, uint32_t outdev)
{
	for (uint32_t i = 0; p && i < p->nifaces; i++)
		if (__atomic_load_n(&p->iface[i].index, __ATOMIC_RELAXED) == outdev)
			return p->iface[i].exit;
	return 0;
}

/* The two mark bits as the queue rule left them: both set is the reply direction (rules.h). */
static uint8_t opener_of(const struct engine *e, const struct engine_policy *p, uint32_t mark)
{
	if (!p || !(p->view.h->flags & POLICY_NEEDS_CT))
		return OPENER_UNKNOWN;
	return (mark & e->config.mark_mask) == e->config.mark_mask ? OPENER_OUTSIDE : OPENER_INSIDE;
}

/* Its packet is parsed: what else the judge asks about it. */
static void judged(struct engine_worker *w, const struct engine_policy *p, const struct nfq_msg *m, struct batch *b)
{
	struct judge_packet *v = &b->judge[b->njudged];

	v->opener = opener_of(w->e, p, m->mark);
	v->exit = exit_of(p, m->outdev);
	v->local = m->indev == 0;
	v->journal = &area_of(w)->state[b->slot[b->n]];
	b->judged_at[b->njudged++] = (uint8_t)b->n;
}

static void take(struct engine_worker *w, const struct engine_policy *p, unsigned slot, unsigned len, struct batch *b)
{
	struct area_worker *a = area_of(w);
	enum packet_reason reason;
	struct nfq_msg m;
	int r;

	/* Relaxed: read after this process is dead only. */
	atomic_store_explicit(&a->state[slot], SLOT_RECEIVED, memory_order_relaxed);
	r = nfq_parse(a->slot[slot], len, &m);
	if (r < 0) {
		/* -ENOMSG: an acknowledgement, or the id of a verdict was gone already. */
		count(a, r == -ENOMSG ? AC_NOTICE : AC_BAD_MESSAGE, 1);
		return;
	}
	b->slot[b->n] = slot;
	b->verdict[b->n] = (struct nfq_verdict){ .id = m.id, .mark = m.mark, .answer = NFQ_ACCEPT };
	reason = packet_parse(m.data, m.caplen, m.len, &b->judge[b->njudged].p);
	if (likely(reason == PACKET_OK)) {
		judged(w, p, &m, b);
	} else {
		bool drop = w->e->config.failure == FAILURE_CLOSED;

		count(a, AC_REASON_FIRST + reason, 1);
		count(a, AC_NO_ADDRESS_BYTES, m.len);
		b->verdict[b->n].answer = drop ? NFQ_DROP : NFQ_ACCEPT;
		atomic_store_explicit(&a->state[slot], drop ? SLOT_DROP : SLOT_PASS, memory_order_relaxed);
	}
	b->n++;
}

static uint32_t judged_bit(const struct engine *e)
{
	return e->config.mark_mask & ~(e->config.mark_mask & -e->config.mark_mask);	/* the higher of the two */
}

static void refuse(struct engine_worker *w, const struct judge_packet *v, struct nfq_verdict *to, struct mono now)
{
	to->answer = NFQ_DROP;
	if (answers_note(&w->refused, v, now))
		(void)w->judge.notify(w->judge.ctx);
}

static void leave_out_held(struct batch *b)
{
	unsigned n = 0;

	for (unsigned i = 0; i < b->n; i++)
		if (b->verdict[i].answer != HELD)
			b->verdict[n++] = b->verdict[i];
	b->n = n;
}

static void answer(struct engine_worker *w, struct batch *b, uint32_t bit, struct mono now)
{
	struct area_worker *a = area_of(w);
	bool wake = false;
	int r;

	for (unsigned i = 0; i < b->njudged; i++) {
		const struct judge_packet *v = &b->judge[i];
		struct nfq_verdict *to = &b->verdict[b->judged_at[i]];

		if (likely(v->pass && !v->busy))
			continue;
		wake |= (v->busy || v->hold) && leases_note(w, v);
		if (v->hold)
			to->answer = held_add(w, to->id, now) ? HELD : NFQ_REPEAT;
		else if (!v->pass)
			refuse(w, v, to, now);
	}
	if (unlikely(wake))
		(void)eventfd_write(w->e->lease_wake, 1);	/* lost: the main thread looks each second */
	if (unlikely(held_any(w))) {
		leave_out_held(b);
		r = nfq_answer_each(w->fd, w->queue, b->verdict, b->n, w->e->config.mark_mask, bit);
	} else {
		r = nfq_answer(w->fd, w->queue, b->verdict, b->n, w->e->config.mark_mask, bit);
	}
	if (likely(r == 0))
		return;
	for (unsigned i = 0; i < b->n; i++)
		if (nfq_answer_single(w->fd, w->queue, &b->verdict[i], w->e->config.mark_mask, bit) < 0)
			count(a, AC_VERDICT_ERRORS, 1);
}

static void arm(struct area_worker *a, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		memset(a->slot[i], 0, sizeof(uint32_t));	/* nlmsg_len: [N2] */
		atomic_store_explicit(&a->state[i], SLOT_ARMED, memory_order_release);
	}
}

static void turn(struct engine_worker *w, struct batch *b)
{
	struct area_worker *a = area_of(w);
	const struct engine_policy *p;
	unsigned len[AREA_SLOTS];
	struct mono now;
	int n;

	urcu_qsbr_thread_offline();
	n = nfq_receive(w->fd, a->slot[0], AREA_SLOT_LEN, AREA_SLOT_LEN, AREA_SLOTS, len,
			held_any(w) ? HELD_MS : RECEIVE_MS);
	urcu_qsbr_thread_online();
	now = clock_mono();
	atomic_store_explicit(&a->heartbeat_ns, now.ns, memory_order_relaxed);
	if (unlikely(held_any(w)))
		held_review(w, now);
	if (n <= 0) {
		if (n == -ENOBUFS)
			count(a, AC_ENOBUFS, 1);
		return;
	}
	p = rcu_dereference(w->e->policy);
	w->judge.policy = p ? &p->view : NULL;
	w->judge.policy_no = p ? p->no : 0;
	b->n = b->njudged = 0;
	for (int i = 0; i < n; i++)
		take(w, p, (unsigned)i, len[i], b);
	if (likely(p))
		judge_batch(&w->judge, b->judge, b->njudged, now);
	else
		b->njudged = 0;		/* rules of a dead one stand: to them it is unseen, and with failure: closed dropped */
	if (b->n)
		answer(w, b, p ? judged_bit(w->e) : 0, now);
	arm(a, (unsigned)n);
	count(a, AC_BATCHES, 1);
	urcu_qsbr_quiescent_state();
}

void worker_grace(void)
{
	urcu_qsbr_synchronize_rcu();
}

void *worker_run(void *arg)
{
	struct engine_worker *w = arg;
	static _Thread_local struct batch batch;

	urcu_qsbr_register_thread();
	for (;;)
		turn(w, &batch);
	return NULL;
}

void worker_recover(struct engine *e, unsigned index)
{
	struct engine_worker *w = &e->worker[index];
	struct area_worker *a = area_of(w);
	uint32_t mask = e->config.mark_mask;

	for (unsigned i = 0; i < AREA_SLOTS; i++) {
		uint32_t state = atomic_load_explicit(&a->state[i], memory_order_acquire);
		struct nfq_verdict v = { 0 };
		struct nfq_msg m;
		uint32_t len;

		memcpy(&len, a->slot[i], sizeof(len));
		if (len == 0 || len > AREA_SLOT_LEN || nfq_parse(a->slot[i], len, &m) < 0)
			continue;
		v.id = m.id;
		v.mark = m.mark;
		v.answer = state == SLOT_PASS ? NFQ_ACCEPT : state == SLOT_DROP ? NFQ_DROP : NFQ_REPEAT;
		/* Unacknowledged: an id that was answered before the kill is simply not there any more. */
		if (nfq_answer_single(w->fd, w->queue, &v, mask, judged_bit(e)) < 0)
			count(a, AC_VERDICT_ERRORS, 1);
		count(a, v.answer == NFQ_REPEAT ? AC_REPEATED : AC_RECOVERED, 1);
	}
	arm(a, AREA_SLOTS);
}
