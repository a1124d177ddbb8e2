/* test_nfq_parse.c - what the kernel sends, and everything it never would. No root: bytes only. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <errno.h>
#include <arpa/inet.h>
#include <linux/netlink.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_queue.h>

#include "nfq.h"

struct message {
	size_t len;
	uint8_t buf[1024];
};

static void put(struct message *m, unsigned type, const void *data, size_t len)
{
	struct nlattr a = { .nla_len = (uint16_t)(sizeof(a) + len), .nla_type = (uint16_t)type };

	memcpy(m->buf + m->len, &a, sizeof(a));
	memcpy(m->buf + m->len + sizeof(a), data, len);
	m->len += NLMSG_ALIGN(sizeof(a) + len);
}

static void put32(struct message *m, unsigned type, uint32_t v)
{
	v = htonl(v);
	put(m, type, &v, sizeof(v));
}

static void seal(struct message *m)
{
	uint32_t len = (uint32_t)m->len;

	memcpy(m->buf, &len, sizeof(len));
}

static void begin(struct message *m, unsigned type, uint16_t queue)
{
	struct nlmsghdr h = { .nlmsg_type = (uint16_t)type };
	struct nfgenmsg g = { .nfgen_family = 2, .res_id = htons(queue) };

	memset(m, 0, sizeof(*m));
	memcpy(m->buf, &h, sizeof(h));
	memcpy(m->buf + sizeof(h), &g, sizeof(g));
	m->len = sizeof(h) + sizeof(g);
}

static void begin_packet(struct message *m, uint16_t queue)
{
	begin(m, NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_PACKET, queue);
}

static void put_head(struct message *m, uint32_t id)
{
	struct nfqnl_msg_packet_hdr h = { htonl(id), htons(0x86dd), 4 };

	put(m, NFQA_PACKET_HDR, &h, sizeof(h));
}

/* As a kernel writes it, attributes of no interest among them. */
static void good(struct message *m, uint32_t id)
{
	uint8_t payload[70], hw[12] = { 0, 6 };

	for (size_t i = 0; i < sizeof(payload); i++)
		payload[i] = (uint8_t)i;
	begin_packet(m, 0x1234);
	put_head(m, id);
	put32(m, NFQA_IFINDEX_INDEV, 7);
	put32(m, NFQA_IFINDEX_OUTDEV, 9);
	put32(m, NFQA_MARK, 0xdeadbeef);
	put(m, NFQA_HWADDR, hw, sizeof(hw));
	put32(m, NFQA_CAP_LEN, 64000);
	put32(m, NFQA_SKB_INFO, 3);
	put32(m, 77, 1);	/* of a kernel to come */
	put(m, NFQA_PAYLOAD, payload, sizeof(payload));
	m->len -= 2;	/* the kernel does not pad the payload */
	seal(m);
}

static int parse(const struct message *m, struct nfq_msg *ret)
{
	/* Exactly the bytes, on the heap: the address sanitizer sees the first one beyond. */
	uint8_t *copy = malloc(m->len ? m->len : 1);
	int r;

	assert_non_null(copy);
	memcpy(copy, m->buf, m->len);
	r = nfq_parse(copy, m->len, ret);
	if (r == 0 && ret->data) {
		assert_true(ret->data >= copy && ret->data + ret->caplen <= copy + m->len);
		ret->data = m->buf + (ret->data - copy);
	}
	free(copy);
	return r;
}

static void everything_is_read(void **state)
{
	struct message m;
	struct nfq_msg p;

	(void)state;
	good(&m, 42);
	assert_int_equal(parse(&m, &p), 0);
	assert_int_equal(p.id, 42);
	assert_int_equal(p.queue, 0x1234);
	assert_int_equal(p.hw_protocol, 0x86dd);
	assert_int_equal(p.hook, 4);
	assert_int_equal(p.indev, 7);
	assert_int_equal(p.outdev, 9);
	assert_true(p.mark == 0xdeadbeef);
	assert_int_equal(p.len, 64000);
	assert_int_equal(p.caplen, 70);
	for (unsigned i = 0; i < 70; i++)
		assert_int_equal(p.data[i], i);
}

static void what_is_absent_is_zero(void **state)
{
	struct message m;
	struct nfq_msg p;

	(void)state;
	begin_packet(&m, 0);
	put_head(&m, 1);
	put(&m, NFQA_PAYLOAD, "abc", 3);
	m.len -= 1;
	seal(&m);
	assert_int_equal(parse(&m, &p), 0);
	assert_int_equal(p.mark | p.indev | p.outdev, 0);
	assert_int_equal(p.len, 3);	/* no CAP_LEN: the payload is whole */

	begin_packet(&m, 0);
	put_head(&m, 5);
	seal(&m);
	assert_int_equal(parse(&m, &p), 0);	/* can be answered */
	assert_int_equal(p.id, 5);
	assert_int_equal(p.caplen, 0);
	assert_int_equal(p.len, 0);
}

static void ids_beyond_2_31(void **state)
{
	static const uint32_t id[] = { 0, 0x7fffffff, 0x80000000, 0x80000001, 0xfffffffe, 0xffffffff };
	struct message m;
	struct nfq_msg p;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(id); i++) {
		good(&m, id[i]);
		assert_int_equal(parse(&m, &p), 0);
		assert_true(p.id == id[i]);
	}
}

static void truncated_at_every_length(void **state)
{
	struct message whole, m;
	struct nfq_msg p;

	(void)state;
	good(&whole, 42);
	for (size_t len = 0; len < whole.len; len++) {
		m = whole;
		m.len = len;
		assert_int_equal(parse(&m, &p), -EBADMSG);	/* says more than there is */
		if (len < sizeof(uint32_t))
			continue;
		seal(&m);	/* says what there is */
		memset(&p, 0xa5, sizeof(p));
		if (parse(&m, &p) == 0) {
			assert_int_equal(p.id, 42);
			assert_true(p.caplen <= m.len && p.len >= p.caplen);
			assert_true(p.caplen == 0 || (p.data >= m.buf && p.data + p.caplen <= m.buf + m.len));
		}
	}
}

/* Offset of the first attribute of a type. */
static size_t find(const struct message *m, unsigned type)
{
	size_t at = sizeof(struct nlmsghdr) + sizeof(struct nfgenmsg);

	while (at < m->len) {
		struct nlattr a;

		memcpy(&a, m->buf + at, sizeof(a));
		if (a.nla_type == type)
			return at;
		at += NLMSG_ALIGN(a.nla_len);
	}
	fail();
	return 0;
}

static void wrong_attribute_lengths(void **state)
{
	static const unsigned type[] = { NFQA_PACKET_HDR, NFQA_MARK, NFQA_IFINDEX_INDEV, NFQA_IFINDEX_OUTDEV,
					 NFQA_CAP_LEN };
	struct message whole, m;
	struct nfq_msg p;

	(void)state;
	good(&whole, 42);
	for (size_t i = 0; i < ARRAY_SIZE(type); i++) {
		size_t at = find(&whole, type[i]);
		uint16_t right;

		memcpy(&right, whole.buf + at, sizeof(right));
		for (unsigned len = 0; len < 0x10000; len++) {
			uint16_t v = (uint16_t)len;

			if (v == right)
				continue;
			m = whole;
			memcpy(m.buf + at, &v, sizeof(v));
			assert_int_equal(nfq_parse(m.buf, m.len, &p), -EBADMSG);
		}
	}
	for (unsigned len = 0; len < 0x10000; len++) {
		uint16_t v = (uint16_t)len;

		m = whole;
		memcpy(m.buf + find(&whole, NFQA_PAYLOAD), &v, sizeof(v));
		/* A shorter one makes attributes of the payload's rest: parse() looks at the bounds. */
		if (len < sizeof(struct nlattr) || len > 70 + sizeof(struct nlattr))
			assert_int_equal(parse(&m, &p), -EBADMSG);
		else
			(void)!parse(&m, &p);
	}
}

static void not_a_packet(void **state)
{
	struct message m;
	struct nfq_msg p;

	(void)state;
	for (unsigned type = 0; type < 0x10000; type++) {
		uint16_t t = (uint16_t)type;
		int want = t == (NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_PACKET) ? 0 : t < NLMSG_MIN_TYPE ? -ENOMSG : -EBADMSG;

		good(&m, 1);
		memcpy(m.buf + offsetof(struct nlmsghdr, nlmsg_type), &t, sizeof(t));
		assert_int_equal(nfq_parse(m.buf, m.len, &p), want);
	}
	begin_packet(&m, 0);
	put32(&m, NFQA_MARK, 1);
	seal(&m);
	assert_int_equal(parse(&m, &p), -EBADMSG);	/* no id */
}

static void a_small_cap_len_hides_nothing(void **state)
{
	struct message m;
	struct nfq_msg p;

	(void)state;
	begin_packet(&m, 0);
	put_head(&m, 1);
	put32(&m, NFQA_CAP_LEN, 1);
	put(&m, NFQA_PAYLOAD, "0123456789", 10);
	seal(&m);
	assert_int_equal(parse(&m, &p), 0);
	assert_int_equal(p.len, 10);
}

static void random_bytes(void **state)
{
	struct message m;
	struct nfq_msg p;
	uint64_t x = 88172645463325252u;

	(void)state;
	for (unsigned round = 0; round < 200000; round++) {
		good(&m, round);
		for (unsigned i = 0; i < 3; i++) {
			x ^= x << 13, x ^= x >> 7, x ^= x << 17;
			m.buf[x % m.len] = (uint8_t)(x >> 32);
		}
		(void)!parse(&m, &p);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(everything_is_read),
		cmocka_unit_test(what_is_absent_is_zero),
		cmocka_unit_test(ids_beyond_2_31),
		cmocka_unit_test(truncated_at_every_length),
		cmocka_unit_test(wrong_attribute_lengths),
		cmocka_unit_test(not_a_packet),
		cmocka_unit_test(a_small_cap_len_hides_nothing),
		cmocka_unit_test(random_bytes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
