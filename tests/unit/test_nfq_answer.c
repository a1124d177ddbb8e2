/* test_nfq_answer.c - the bytes of nfq_answer() against a model of the kernel's queue: every packet gets its own verdict and
 * mark, nothing beyond the batch is touched, wherever the ids wrap. No root: the socket is a pair.
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <string.h>
#include <cmocka.h>
#include <arpa/inet.h>
#include <errno.h>
#include <linux/netfilter.h>
#include <linux/netlink.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_queue.h>
#include <sys/socket.h>
#include <unistd.h>

#include "nfq.h"

#define MASK   0x30000000u
#define JUDGED 0x20000000u
#define QUEUE  513

struct held {			/* one packet in the kernel's list */
	uint32_t id, mark;
	int verdict;		/* -1: waits */
};

static int pair[2];

static int setup(void **state)
{
	(void)state;
	return socketpair(AF_UNIX, SOCK_DGRAM, 0, pair);
}

static int teardown(void **state)
{
	(void)state;
	close(pair[0]);
	close(pair[1]);
	return 0;
}

struct order {
	unsigned type;
	uint32_t id, mark;
	int verdict;
	bool marks;
};

static void read_order(const uint8_t *p, size_t len, struct order *o)
{
	struct nlmsghdr h;
	struct nfgenmsg g;
	size_t at = sizeof(h) + sizeof(g);

	memcpy(&h, p, sizeof(h));
	memcpy(&g, p + sizeof(h), sizeof(g));
	assert_int_equal(h.nlmsg_flags, NLM_F_REQUEST);
	assert_int_equal(h.nlmsg_type >> 8, NFNL_SUBSYS_QUEUE);
	assert_int_equal(ntohs(g.res_id), QUEUE);
	*o = (struct order){ .type = h.nlmsg_type & 0xff, .verdict = -1 };
	while (at < len) {
		struct nlattr a;
		uint32_t v[2] = { 0 };

		memcpy(&a, p + at, sizeof(a));
		assert_true(a.nla_len - sizeof(a) <= sizeof(v));
		memcpy(v, p + at + sizeof(a), a.nla_len - sizeof(a));
		if (a.nla_type == NFQA_VERDICT_HDR) {
			o->verdict = (int)ntohl(v[0]);
			o->id = ntohl(v[1]);
		} else {
			assert_int_equal(a.nla_type, NFQA_MARK);
			o->marks = true;
			o->mark = ntohl(v[0]);
		}
		at += NLMSG_ALIGN(a.nla_len);
	}
}

static void answer_one(struct held *p, const struct order *o)
{
	p->verdict = o->verdict;
	if (o->marks)
		p->mark = o->mark;
}

/* As nfnetlink_queue does: a single verdict by id, a batch from the head until an id after its own. */
static void apply(struct held *q, unsigned n, const struct order *o)
{
	bool found = false;

	for (unsigned i = 0; i < n; i++) {
		if (q[i].verdict >= 0)
			continue;	/* no longer in the list */
		if (o->type == NFQNL_MSG_VERDICT && q[i].id == o->id) {
			answer_one(&q[i], o);
			found = true;
			break;
		}
		if (o->type == NFQNL_MSG_VERDICT_BATCH) {
			if ((int)(q[i].id - o->id) > 0)
				break;
			answer_one(&q[i], o);
			found = true;
		}
	}
	assert_true(found);	/* no message for nothing */
}

/* Sends v, gives what arrives to the model; number of netlink messages. */
static unsigned run(struct held *q, unsigned nq, const struct nfq_verdict *v, unsigned n)
{
	uint8_t buf[8192];
	unsigned messages = 0;
	ssize_t len;

	assert_int_equal(nfq_answer(pair[0], QUEUE, v, n, MASK, JUDGED), 0);
	len = recv(pair[1], buf, sizeof(buf), MSG_DONTWAIT);
	assert_true(len > 0);
	assert_int_equal(recv(pair[1], buf + len, 1, MSG_DONTWAIT), -1);	/* one sendmsg */
	for (ssize_t at = 0; at < len; messages++) {
		struct nlmsghdr h;
		struct order o;

		memcpy(&h, buf + at, sizeof(h));
		assert_true(h.nlmsg_len >= sizeof(h) && at + (ssize_t)h.nlmsg_len <= len);
		read_order(buf + at, h.nlmsg_len, &o);
		apply(q, nq, &o);
		at += NLMSG_ALIGN(h.nlmsg_len);
	}
	return messages;
}

static const int kernels[] = { NF_ACCEPT, NF_DROP, NF_REPEAT };

/* n packets received from `first` on, `more` behind them not yet read. */
static unsigned check(uint32_t first, const uint8_t *answers, const uint32_t *marks, unsigned n, unsigned more)
{
	struct held q[NFQ_BATCH + 8];
	struct nfq_verdict v[NFQ_BATCH];
	unsigned messages;

	for (unsigned i = 0; i < n + more; i++)
		q[i] = (struct held){ first + i, i < n ? marks[i] : 0x77, -1 };
	for (unsigned i = 0; i < n; i++)
		v[i] = (struct nfq_verdict){ first + i, marks[i], answers[i] };
	messages = run(q, n + more, v, n);
	for (unsigned i = 0; i < n; i++) {
		assert_int_equal(q[i].verdict, kernels[answers[i]]);
		if (answers[i] == NFQ_ACCEPT)
			assert_true(q[i].mark == ((marks[i] & ~MASK) | JUDGED));
		if (answers[i] == NFQ_REPEAT)
			assert_true(q[i].mark == marks[i]);
	}
	for (unsigned i = n; i < n + more; i++)
		assert_true(q[i].verdict == -1 && q[i].mark == 0x77);
	return messages;
}

static void one_message_for_a_plain_batch(void **state)
{
	uint8_t answers[NFQ_BATCH] = { 0 };
	uint32_t marks[NFQ_BATCH] = { 0 };

	(void)state;
	assert_int_equal(check(1, answers, marks, NFQ_BATCH, 3), 1);
	assert_int_equal(check(0xffffffe0, answers, marks, NFQ_BATCH, 3), 1);
	assert_int_equal(check(0x7fffffe0, answers, marks, NFQ_BATCH, 3), 1);
	memset(answers, NFQ_DROP, sizeof(answers));
	assert_int_equal(check(9, answers, marks, NFQ_BATCH, 3), 1);
	memset(answers, NFQ_REPEAT, sizeof(answers));
	assert_int_equal(check(9, answers, marks, NFQ_BATCH, 3), NFQ_BATCH);
}

static void specials_do_not_split_a_run(void **state)
{
	static const uint8_t answers[] = { 0, 1, 0, 2, 0, 1, 1, 0 };
	uint32_t marks[8] = { 0 };

	(void)state;
	assert_int_equal(check(5, answers, marks, 8, 2), 5);	/* three drops, one repeat, one batch */
}

static void marks_are_kept(void **state)
{
	static const uint8_t answers[6] = { 0 };
	static const uint32_t marks[6] = { 0x1, 0x1, 0x40000002, 0x10000002, 0xffffffff, 0 };

	(void)state;
	assert_int_equal(check(100, answers, marks, 6, 1), 5);
}

static void random_against_the_model(void **state)
{
	uint64_t x = 0x9e3779b97f4a7c15u;

	(void)state;
	for (unsigned round = 0; round < 50000; round++) {
		uint8_t answers[NFQ_BATCH];
		uint32_t marks[NFQ_BATCH], first;
		unsigned n;

		x ^= x << 13, x ^= x >> 7, x ^= x << 17;
		n = 1 + (unsigned)(x % NFQ_BATCH);
		first = round & 1 ? (uint32_t)(x >> 20) : 0u - (uint32_t)(x >> 40) % (NFQ_BATCH + 8);
		for (unsigned i = 0; i < n; i++) {
			x ^= x << 13, x ^= x >> 7, x ^= x << 17;
			answers[i] = (uint8_t)(x % 7 < 4 ? NFQ_ACCEPT : x % 7 < 6 ? NFQ_DROP : NFQ_REPEAT);
			if (i && x >> 62 == 0)
				answers[i] = answers[i - 1];
			marks[i] = (uint32_t)(x >> 33) % 3 << 27;
		}
		assert_true(check(first, answers, marks, n, (unsigned)(x >> 50) % 8) <= n);
	}
}

static void single(void **state)
{
	struct nfq_verdict v = { .id = 0xffffffff, .mark = 0x11, .answer = NFQ_ACCEPT };
	struct order o;
	uint8_t buf[256];
	ssize_t len;

	(void)state;
	assert_int_equal(nfq_answer_single(pair[0], QUEUE, &v, MASK, JUDGED), 0);
	len = recv(pair[1], buf, sizeof(buf), MSG_DONTWAIT);
	assert_true(len > 0);
	read_order(buf, (size_t)len, &o);
	assert_int_equal(o.type, NFQNL_MSG_VERDICT);
	assert_true(o.id == 0xffffffff && o.mark == (0x11 | JUDGED) && o.verdict == NF_ACCEPT);
}

static void nothing_and_errors(void **state)
{
	struct nfq_verdict v = { .id = 1 };

	(void)state;
	assert_int_equal(nfq_answer(pair[0], QUEUE, &v, 0, MASK, JUDGED), 0);
	assert_int_equal(nfq_answer(-1, QUEUE, &v, 1, MASK, JUDGED), -EBADF);
	assert_int_equal(nfq_answer_single(-1, QUEUE, &v, MASK, JUDGED), -EBADF);
}

/* recvmmsg into slots, as the worker has them. */
static void receive_into_slots(void **state)
{
	uint8_t slot[4][64];
	unsigned len[4];

	(void)state;
	assert_int_equal(nfq_receive(pair[1], slot[0], 64, 64, 4, len, 1), 0);
	for (unsigned i = 0; i < 6; i++)
		assert_int_equal(send(pair[0], "abcdef", i + 1, 0), i + 1);
	memset(slot, 0, sizeof(slot));
	assert_int_equal(nfq_receive(pair[1], slot[0], 64, 64, 4, len, 1000), 4);
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(len[i], i + 1);
		assert_memory_equal(slot[i], "abcdef", i + 1);
		assert_int_equal(slot[i][i + 1], 0);
	}
	assert_int_equal(nfq_receive(pair[1], slot[0], 64, 4, 4, len, 1000), 2);
	assert_int_equal(len[1], 4);	/* cut to the slot */
	assert_int_equal(nfq_receive(-1, slot[0], 64, 64, 4, len, 1), -EBADF);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(one_message_for_a_plain_batch, setup, teardown),
		cmocka_unit_test_setup_teardown(specials_do_not_split_a_run, setup, teardown),
		cmocka_unit_test_setup_teardown(marks_are_kept, setup, teardown),
		cmocka_unit_test_setup_teardown(random_against_the_model, setup, teardown),
		cmocka_unit_test_setup_teardown(single, setup, teardown),
		cmocka_unit_test_setup_teardown(nothing_and_errors, setup, teardown),
		cmocka_unit_test_setup_teardown(receive_into_slots, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
