/* test_packet.c - packet.h [K1]..[K5]. Every packet stands at the very end of its own heap block, so that the address
 * sanitizer sees a read of one byte too many.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "packet.h"

#define BUF 2048

struct bytes {
	uint8_t b[BUF];
	size_t len;
};

static void put(struct bytes *o, const void *data, size_t n)
{
	assert_true(o->len + n <= BUF);
	memcpy(o->b + o->len, data, n);
	o->len += n;
}

static void put8(struct bytes *o, unsigned v)
{
	put(o, &(uint8_t){ (uint8_t)v }, 1);
}

static void put16(struct bytes *o, unsigned v)
{
	put8(o, v >> 8);
	put8(o, v & 255);
}

static void put_zero(struct bytes *o, size_t n)
{
	for (size_t i = 0; i < n; i++)
		put8(o, 0);
}

/* Version byte with header length, total length, fragment field, protocol. 10.0.0.5 -> 203.0.113.9. */
static void put_v4(struct bytes *o, unsigned ihl, unsigned total, unsigned fragment, unsigned proto)
{
	put8(o, 0x40 | ihl);
	put8(o, 0);
	put16(o, total);
	put16(o, 0x1234);
	put16(o, fragment);
	put8(o, 64);
	put8(o, proto);
	put16(o, 0);
	put(o, "\x0a\x00\x00\x05\xcb\x00\x71\x09", 8);
}

/* fd00:20::5 -> 2001:db8:9::9 */
static void put_v6(struct bytes *o, unsigned payload, unsigned next)
{
	static const uint8_t src[16] = { 0xfd, 0, 0, 0x20, [15] = 5 };
	static const uint8_t dst[16] = { 0x20, 1, 0x0d, 0xb8, 0, 9, [15] = 9 };

	put(o, "\x60\x00\x00\x00", 4);
	put16(o, payload);
	put8(o, next);
	put8(o, 64);
	put(o, src, 16);
	put(o, dst, 16);
}

static void put_tcp(struct bytes *o, unsigned sport, unsigned dport, unsigned flags)
{
	put16(o, sport);
	put16(o, dport);
	put_zero(o, 8);
	put8(o, 0x50);
	put8(o, flags);
	put_zero(o, 6);
}

/* The payload length of an IPv6 packet, now that it is complete. */
static void finish_v6(struct bytes *o)
{
	o->b[4] = (uint8_t)((o->len - 40) >> 8);
	o->b[5] = (uint8_t)(o->len - 40);
}

static enum packet_reason parse_n(const struct bytes *o, size_t n, uint32_t true_len, struct packet *ret)
{
	uint8_t *block = malloc(n ? n : 1);
	enum packet_reason r;

	assert_non_null(block);
	memcpy(block, o->b, n);
	r = packet_parse(n ? block : block + 1, n, true_len, ret);
	free(block);
	return r;
}

static struct packet parse(const struct bytes *o, uint32_t true_len)
{
	struct packet p;

	memset(&p, 0xa5, sizeof(p));
	assert_int_equal(parse_n(o, o->len, true_len, &p), PACKET_OK);
	return p;
}

static void check_v4_addresses(const struct packet *p)
{
	struct addr src = addr_from_v4("\x0a\x00\x00\x05"), dst = addr_from_v4("\xcb\x00\x71\x09");

	assert_memory_equal(&p->src, &src, sizeof(src));
	assert_memory_equal(&p->dst, &dst, sizeof(dst));
}

static void check_v6_addresses(const struct packet *p)
{
	assert_int_equal(p->src.b[0], 0xfd);
	assert_int_equal(p->src.b[15], 5);
	assert_int_equal(p->dst.b[0], 0x20);
	assert_int_equal(p->dst.b[15], 9);
}

static void plain_tcp4(void **state)
{
	struct bytes o = { .len = 0 };
	struct packet p;

	(void)state;
	put_v4(&o, 5, 40, 0x4000, 6);
	put_tcp(&o, 40000, 443, 0x12);
	p = parse(&o, 0);
	check_v4_addresses(&p);
	assert_int_equal(p.len, 40);
	assert_int_equal(p.sport, 40000);
	assert_int_equal(p.dport, 443);
	assert_int_equal(p.proto, 6);
	assert_int_equal(p.tcp_flags, 0x12);
	assert_int_equal(p.notes, 0);
}

static void options4(void **state)
{
	struct packet p;

	(void)state;
	for (unsigned ihl = 6; ihl <= 15; ihl++) {
		struct bytes o = { .len = 0 };

		put_v4(&o, ihl, ihl * 4 + 20, 0, 6);
		put_zero(&o, (ihl - 5) * 4);
		put_tcp(&o, 1, 2, 2);
		p = parse(&o, 0);
		assert_int_equal(p.notes, 0);
		assert_int_equal(p.dport, 2);
		assert_int_equal(p.tcp_flags, 2);
	}
}

static void ports_by_protocol(void **state)
{
	static const struct {
		uint8_t proto;
		bool ports;
	} cases[] = { { 6, true },   { 17, true },  { 33, true },  { 132, true }, { 136, true },
		      { 1, false },  { 2, false },  { 4, false },  { 41, false }, { 47, false },
		      { 50, false }, { 51, false }, { 0, false },  { 255, false } };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct bytes o = { .len = 0 };
		struct packet p;

		put_v4(&o, 5, 40, 0, cases[i].proto);
		put_tcp(&o, 7, 8, 0x10);
		p = parse(&o, 0);
		assert_int_equal(p.proto, cases[i].proto);
		assert_int_equal(p.notes, cases[i].ports ? 0 : PACKET_NO_PORTS);
		assert_int_equal(p.sport, cases[i].ports ? 7 : 0);
		assert_int_equal(p.dport, cases[i].ports ? 8 : 0);
		assert_int_equal(p.tcp_flags, cases[i].proto == 6 ? 0x10 : 0);
	}
}

static void no_addresses(void **state)
{
	struct bytes o = { .len = 0 };
	struct packet p, before;

	(void)state;
	put_v4(&o, 5, 40, 0, 6);
	put_tcp(&o, 1, 2, 0);
	memset(&p, 0x5a, sizeof(p));
	before = p;
	assert_int_equal(parse_n(&o, 0, 40, &p), PACKET_EMPTY);
	for (size_t n = 1; n < 20; n++)
		assert_int_equal(parse_n(&o, n, 40, &p), PACKET_SHORT);
	for (unsigned version = 0; version < 16; version++) {
		if (version == 4 || version == 6)
			continue;
		o.b[0] = (uint8_t)(version << 4 | 5);
		assert_int_equal(parse_n(&o, o.len, 40, &p), PACKET_VERSION);
	}
	o.len = 0;
	put_v6(&o, 0, 59);
	for (size_t n = 1; n < 40; n++)
		assert_int_equal(parse_n(&o, n, 40, &p), PACKET_SHORT);
	assert_memory_equal(&p, &before, sizeof(p));
}

static void bad_lengths4(void **state)
{
	struct packet p;

	(void)state;
	for (unsigned ihl = 0; ihl < 5; ihl++) {
		struct bytes o = { .len = 0 };

		put_v4(&o, ihl, 40, 0, 6);
		put_tcp(&o, 1, 2, 2);
		p = parse(&o, 0);
		check_v4_addresses(&p);
		assert_int_equal(p.len, 40);
		assert_int_equal(p.notes, PACKET_BAD_LEN | PACKET_NO_PORTS);
		assert_int_equal(p.dport, 0);
	}
	for (unsigned total = 1; total < 20; total++) {
		struct bytes o = { .len = 0 };

		put_v4(&o, 5, total, 0, 6);
		put_tcp(&o, 1, 2, 2);
		p = parse(&o, 0);
		assert_int_equal(p.len, 40);	/* [K3]: not free of charge */
		assert_true(p.notes & PACKET_BAD_LEN);
		p = parse(&o, 1500);
		assert_int_equal(p.len, 1500);
		assert_true(p.notes & PACKET_BAD_LEN);
	}
}

/* Header longer than the packet, packet longer than what was received. */
static void contradictions4(void **state)
{
	struct bytes o = { .len = 0 };
	struct packet p;

	(void)state;
	put_v4(&o, 7, 24, 0, 6);
	put_zero(&o, 8);
	put_tcp(&o, 1, 2, 2);
	p = parse(&o, 0);
	assert_int_equal(p.len, 24);
	assert_int_equal(p.notes, PACKET_BAD_LEN | PACKET_NO_PORTS);

	o.len = 0;
	put_v4(&o, 5, 1000, 0, 6);
	put_tcp(&o, 1, 2, 2);
	p = parse(&o, 40);
	assert_int_equal(p.len, 40);
	assert_int_equal(p.notes, PACKET_BAD_LEN);
	assert_int_equal(p.dport, 2);
	p = parse(&o, 0);
	assert_int_equal(p.len, 1000);
	assert_int_equal(p.notes, 0);
}

/* What stands behind the packet's own end (Ethernet padding) is never taken for ports. */
static void padding_is_no_header(void **state)
{
	struct bytes o = { .len = 0 };
	struct packet p;

	(void)state;
	put_v4(&o, 5, 22, 0, 17);
	put16(&o, 53);
	put_zero(&o, 24);
	p = parse(&o, 0);
	assert_int_equal(p.len, 22);
	assert_int_equal(p.sport, 0);
	assert_int_equal(p.notes, PACKET_BAD_LEN | PACKET_NO_PORTS);

	o.len = 0;
	put_v6(&o, 2, 17);
	put16(&o, 53);
	put_zero(&o, 24);
	p = parse(&o, 0);
	assert_int_equal(p.len, 42);
	assert_int_equal(p.notes, PACKET_BAD_LEN | PACKET_NO_PORTS);
}

static void super_packets(void **state)
{
	struct bytes o = { .len = 0 };
	struct packet p;

	(void)state;
	put_v4(&o, 5, 0, 0, 6);
	put_tcp(&o, 1, 2, 0x18);
	p = parse(&o, 200000);
	assert_int_equal(p.len, 200000);
	assert_int_equal(p.notes, 0);
	assert_int_equal(p.tcp_flags, 0x18);
	p = parse(&o, 0);
	assert_int_equal(p.len, 40);
	assert_int_equal(p.notes, PACKET_BAD_LEN);

	o.len = 0;
	put_v6(&o, 0, 6);	/* newer kernels: no jumbo option */
	put_tcp(&o, 1, 2, 0x18);
	p = parse(&o, 200000);
	assert_int_equal(p.len, 200000);
	assert_int_equal(p.notes, 0);
	assert_int_equal(p.dport, 2);
	p = parse(&o, 0);
	assert_int_equal(p.len, 60);
	assert_int_equal(p.notes, PACKET_BAD_LEN);

	o.len = 0;
	put_v6(&o, 0, 0);
	put(&o, "\x06\x00\xc2\x04\x00\x03\x00\x00", 8);
	put_tcp(&o, 1, 2, 0x18);
	p = parse(&o, 0x30000 + 40);
	assert_int_equal(p.len, 0x30000 + 40);
	assert_int_equal(p.proto, 6);
	assert_int_equal(p.notes, 0);
}

static void fragments4(void **state)
{
	static const struct {
		unsigned field;
		unsigned notes;
	} cases[] = {
		{ 0x0000, 0 },
		{ 0x8000, 0 },	/* the reserved bit alone */
		{ 0x2000, PACKET_FRAGMENT },
		{ 0x6000, PACKET_FRAGMENT },
		{ 0x2001, PACKET_FRAGMENT | PACKET_NO_PORTS },
		{ 0x0001, PACKET_FRAGMENT | PACKET_NO_PORTS },
		{ 0x1fff, PACKET_FRAGMENT | PACKET_NO_PORTS },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct bytes o = { .len = 0 };
		struct packet p;

		put_v4(&o, 5, 40, cases[i].field, 6);
		put_tcp(&o, 40000, 443, 2);
		p = parse(&o, 0);
		assert_int_equal(p.notes, cases[i].notes);
		assert_int_equal(p.proto, 6);
		assert_int_equal(p.dport, cases[i].notes & PACKET_NO_PORTS ? 0 : 443);
		assert_int_equal(p.tcp_flags, cases[i].notes & PACKET_NO_PORTS ? 0 : 2);
	}
}

static void put_ext(struct bytes *o, unsigned next, unsigned words8)
{
	put8(o, next);
	put8(o, words8);
	put_zero(o, 6 + words8 * 8);
}

static void fragments6(void **state)
{
	static const struct {
		unsigned field;
		unsigned notes;
	} cases[] = {
		{ 0x0000, PACKET_FRAGMENT },	/* atomic */
		{ 0x0006, PACKET_FRAGMENT },	/* reserved bits */
		{ 0x0001, PACKET_FRAGMENT },
		{ 0x0008, PACKET_FRAGMENT | PACKET_NO_PORTS },
		{ 0x0009, PACKET_FRAGMENT | PACKET_NO_PORTS },
		{ 0xfff8, PACKET_FRAGMENT | PACKET_NO_PORTS },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct bytes o = { .len = 0 };
		struct packet p;

		put_v6(&o, 0, 0);
		put_ext(&o, 44, 1);
		put8(&o, 17);
		put8(&o, 0xff);		/* reserved: not a length */
		put16(&o, cases[i].field);
		put_zero(&o, 4);
		put16(&o, 5353);
		put16(&o, 53);
		put_zero(&o, 4);
		finish_v6(&o);
		p = parse(&o, 0);
		check_v6_addresses(&p);
		assert_int_equal(p.len, o.len);
		assert_int_equal(p.notes, cases[i].notes);
		assert_int_equal(p.proto, 17);
		assert_int_equal(p.dport, cases[i].notes & PACKET_NO_PORTS ? 0 : 53);
	}
}

/* A later fragment ends the walk, whatever its next header says. */
static void later_fragment_of_extensions(void **state)
{
	struct bytes o = { .len = 0 };
	struct packet p;

	(void)state;
	put_v6(&o, 0, 44);
	put(&o, "\x3c\x00\x05\xa8\x00\x00\x00\x01", 8);
	put_ext(&o, 6, 0);
	put_tcp(&o, 1, 443, 2);
	finish_v6(&o);
	p = parse(&o, 0);
	assert_int_equal(p.proto, 60);
	assert_int_equal(p.notes, PACKET_FRAGMENT | PACKET_NO_PORTS);
	assert_int_equal(p.dport, 0);
}

static void extension_kinds(void **state)
{
	static const struct {
		uint8_t kind;
		bool walked;
	} cases[] = { { 0, true }, { 43, true }, { 60, true }, { 135, false }, { 139, false }, { 140, false },
		      { 253, false }, { 254, false }, { 59, false }, { 50, false }, { 58, false }, { 41, false } };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct bytes o = { .len = 0 };
		struct packet p;

		put_v6(&o, 0, cases[i].kind);
		put_ext(&o, 6, 2);
		put_tcp(&o, 1, 443, 2);
		finish_v6(&o);
		p = parse(&o, 0);
		assert_int_equal(p.len, o.len);
		assert_int_equal(p.proto, cases[i].walked ? 6 : cases[i].kind);
		assert_int_equal(p.dport, cases[i].walked ? 443 : 0);
		assert_int_equal(p.notes, cases[i].walked ? 0 : PACKET_NO_PORTS);
	}
}

/* AH counts words of four bytes. Behind it everything is readable; behind ESP nothing is. */
static void authentication_header(void **state)
{
	struct bytes o = { .len = 0 };
	struct packet p;

	(void)state;
	put_v6(&o, 0, 51);
	put8(&o, 17);
	put8(&o, 4);		/* (4 + 2) * 4 = 24 bytes */
	put_zero(&o, 22);
	put16(&o, 500);
	put16(&o, 4500);
	put_zero(&o, 4);
	finish_v6(&o);
	p = parse(&o, 0);
	assert_int_equal(p.proto, 17);
	assert_int_equal(p.sport, 500);
	assert_int_equal(p.dport, 4500);
	assert_int_equal(p.notes, 0);
}

static void no_next_header(void **state)
{
	struct bytes o = { .len = 0 };
	struct packet p;

	(void)state;
	put_v6(&o, 0, 59);
	p = parse(&o, 0);
	assert_int_equal(p.len, 40);
	assert_int_equal(p.proto, 59);
	assert_int_equal(p.notes, PACKET_NO_PORTS);
}

static void deep_chains(void **state)
{
	(void)state;
	for (unsigned depth = 0; depth <= 64; depth++) {
		struct bytes o = { .len = 0 };
		struct packet p;

		put_v6(&o, 0, depth ? 60 : 6);
		for (unsigned i = 1; i <= depth; i++)
			put_ext(&o, i == depth ? 6 : 60, 0);
		put_tcp(&o, 1, 443, 2);
		finish_v6(&o);
		p = parse(&o, 0);
		check_v6_addresses(&p);
		assert_int_equal(p.len, o.len);
		if (depth <= PACKET_EXT_MAX) {
			assert_int_equal(p.notes, 0);
			assert_int_equal(p.dport, 443);
		} else {
			assert_int_equal(p.notes, PACKET_EXT_DEEP | PACKET_NO_PORTS);
			assert_int_equal(p.dport, 0);
			assert_int_equal(p.proto, 60);
		}
	}
}

/* [K2] */
static void mapped_addresses(void **state)
{
	struct bytes o = { .len = 0 };
	struct addr v4;
	struct packet p;
	char text[ADDR_STRLEN];

	(void)state;
	assert_int_equal(addr_parse("203.0.113.53", &v4), 0);
	put_v6(&o, 0, 6);
	put_tcp(&o, 1, 443, 2);
	finish_v6(&o);
	memcpy(o.b + 8, v4.b, 16);
	memcpy(o.b + 24, v4.b, 16);
	p = parse(&o, 0);
	assert_string_equal(addr_format(&p.src, text), "::ffff:0:cb00:7135");
	assert_string_equal(addr_format(&p.dst, text), "::ffff:0:cb00:7135");
	assert_false(addr_is_v4(&p.dst));
}

static void extension_beyond_the_end(void **state)
{
	struct bytes o = { .len = 0 };
	struct packet p;

	(void)state;
	put_v6(&o, 8, 60);
	put(&o, "\x06\xff\0\0\0\0\0\0", 8);	/* says 2048 bytes */
	p = parse(&o, 0);
	assert_int_equal(p.proto, 6);
	assert_int_equal(p.notes, PACKET_BAD_LEN | PACKET_NO_PORTS);
	o.b[4] = 0x10;				/* now they are in the packet, but not in the capture */
	p = parse(&o, 0);
	assert_int_equal(p.len, 40 + 0x1008);
	assert_int_equal(p.notes, PACKET_CUT | PACKET_NO_PORTS);
}

/* Whatever is cut: addresses and length stand from the fixed header on, ports only when whole [K2] [K3] [K4]. */
static void check_cut(const struct bytes *o, size_t header, size_t ports, bool v6)
{
	for (size_t n = 0; n <= o->len; n++) {
		struct packet p;
		enum packet_reason r = parse_n(o, n, 0, &p);

		assert_int_equal(r, !n ? PACKET_EMPTY : n < header ? PACKET_SHORT : PACKET_OK);
		if (r != PACKET_OK)
			continue;
		if (v6)
			check_v6_addresses(&p);
		else
			check_v4_addresses(&p);
		assert_int_equal(p.len, o->len);
		assert_int_equal(p.dport, n >= ports + 4 ? 443 : 0);
		assert_int_equal(p.notes, n >= ports + 4 ? 0 : PACKET_CUT | PACKET_NO_PORTS);
		assert_int_equal(p.tcp_flags, n >= ports + 14 ? 0x18 : 0);
		assert_int_equal(parse_n(o, n, (uint32_t)o->len, &p), PACKET_OK);
		assert_int_equal(p.len, o->len);
		assert_int_equal(p.notes, n >= ports + 4 ? 0 : PACKET_CUT | PACKET_NO_PORTS);
	}
}

static void cut_at_every_length(void **state)
{
	struct bytes o = { .len = 0 };
	size_t ports;

	(void)state;
	put_v4(&o, 8, 72, 0, 6);
	put_zero(&o, 12);
	put_tcp(&o, 40000, 443, 0x18);
	put_zero(&o, 20);
	check_cut(&o, 20, 32, false);

	o.len = 0;
	put_v6(&o, 0, 0);
	put_ext(&o, 43, 1);
	put_ext(&o, 51, 0);
	put8(&o, 60);
	put8(&o, 1);
	put_zero(&o, 10);
	put_ext(&o, 6, 3);
	ports = o.len;
	put_tcp(&o, 40000, 443, 0x18);
	put_zero(&o, 20);
	finish_v6(&o);
	check_cut(&o, 40, ports, true);
}

/* Random bytes at every length: an answer that keeps the contract, and no read outside (sanitizer). */
static void random_bytes(void **state)
{
	uint64_t s = 0x9e3779b97f4a7c15;

	(void)state;
	for (unsigned i = 0; i < 200000; i++) {
		struct bytes o = { .len = 0 };
		struct packet p;
		size_t n;

		for (unsigned k = 0; k < 128; k++) {
			s = s * 6364136223846793005 + 1442695040888963407;
			put8(&o, s >> 56);
		}
		o.b[0] = (uint8_t)((i & 1 ? 0x60 : 0x40) | (o.b[0] & 15));
		if (i & 1)	/* often an extension header */
			o.b[6] = "\x00\x2b\x2c\x33\x3c\x06\x11\x3b"[o.b[6] & 7];
		n = s >> 40 & 127;
		if (parse_n(&o, n, i & 2 ? 1500 : 0, &p) != PACKET_OK) {
			assert_true(n < (i & 1 ? 40u : 20u));
			continue;
		}
		assert_true(n >= (i & 1 ? 40u : 20u));
		assert_true(p.len > 0);
		if (i & 2)
			assert_int_equal(p.len, 1500);
		if (p.notes & PACKET_NO_PORTS)
			assert_int_equal(p.sport | p.dport | p.tcp_flags, 0);
		else
			assert_false(p.notes & (PACKET_CUT | PACKET_EXT_DEEP));
	}
}

static void reason_names(void **state)
{
	(void)state;
	for (unsigned i = 0; i < PACKET_REASONS; i++) {
		const char *name = packet_reason_name((enum packet_reason)i);

		assert_true(*name);
		assert_string_not_equal(name, "unknown");
		for (unsigned k = 0; k < i; k++)
			assert_string_not_equal(name, packet_reason_name((enum packet_reason)k));
	}
	assert_string_equal(packet_reason_name(PACKET_REASONS), "unknown");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(plain_tcp4),
		cmocka_unit_test(options4),
		cmocka_unit_test(ports_by_protocol),
		cmocka_unit_test(no_addresses),
		cmocka_unit_test(bad_lengths4),
		cmocka_unit_test(contradictions4),
		cmocka_unit_test(padding_is_no_header),
		cmocka_unit_test(super_packets),
		cmocka_unit_test(fragments4),
		cmocka_unit_test(fragments6),
		cmocka_unit_test(later_fragment_of_extensions),
		cmocka_unit_test(extension_kinds),
		cmocka_unit_test(authentication_header),
		cmocka_unit_test(no_next_header),
		cmocka_unit_test(deep_chains),
		cmocka_unit_test(mapped_addresses),
		cmocka_unit_test(extension_beyond_the_end),
		cmocka_unit_test(cut_at_every_length),
		cmocka_unit_test(random_bytes),
		cmocka_unit_test(reason_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
