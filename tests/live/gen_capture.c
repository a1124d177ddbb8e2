/* gen_capture.c - writes random captures for tests/live/oracle.sh: gen_capture SEED LINK FORMAT PACKETS FILE
 *
 * LINK: ethernet raw sll sll2 null loop. FORMAT: usec nsec swapped pcapng. The same arguments give the same file.
 * Everything a gateway may see and what captures do to it: fragments, IPv4 options, IPv6 extension chains, tunnels,
 * ICMP errors, tags, padding, snapped packets, super-packets, jumbograms, lengths that lie, frames without IP.
 * Left to the unit tests, because the oracle prints no addresses there or others than the header's: header length
 * below 5, total length below the header's, source routes, captures that end inside IPv4 options or before a
 * jumbogram's length.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compiler.h"
#include "pcap_write.h"

#define ROOM 16384

struct frame {
	uint8_t b[ROOM];
	size_t len;		/* bytes built */
	size_t wire;		/* bytes it had, when more than built */
	size_t ip, ip_header;	/* outer IP header: where, and how much must not be cut in two */
};

static uint64_t state;

static uint32_t rnd(uint32_t below)
{
	uint64_t z = state += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return (uint32_t)((z ^ z >> 31) % below);
}

static bool chance(uint32_t percent)
{
	return rnd(100) < percent;
}

static void put(struct frame *f, const void *data, size_t n)
{
	if (f->len + n > ROOM)
		abort();
	memcpy(f->b + f->len, data, n);
	f->len += n;
}

static void put8(struct frame *f, uint32_t v)
{
	uint8_t b = (uint8_t)v;

	put(f, &b, 1);
}

static void put16(struct frame *f, uint32_t v)
{
	put8(f, v >> 8);
	put8(f, v);
}

static void put32(struct frame *f, uint32_t v)
{
	put16(f, v >> 16);
	put16(f, v);
}

static void put_random(struct frame *f, size_t n)
{
	while (n--)
		put8(f, rnd(256));
}

static void set16(struct frame *f, size_t at, size_t v)
{
	f->b[at] = (uint8_t)(v >> 8);
	f->b[at + 1] = (uint8_t)v;
}

static void put_v4_addr(struct frame *f, bool inside)
{
	static const uint32_t outside[] = { 0xcb007109, 0xcb00710a, 0xc6336414, 0x08080808,
					    0xe00000fb, 0xffffffff, 0x09ffffff, 0x0b000000 };

	if (chance(3))
		put32(f, rnd(UINT32_MAX));
	else if (inside)
		put32(f, 0x0a000000 | rnd(3) << 16 | rnd(3));
	else
		put32(f, outside[rnd(ARRAY_SIZE(outside))]);
}

static void put_v6_addr(struct frame *f, bool inside)
{
	static const uint32_t outside[] = { 0x20010db8, 0x2001beef, 0xff020000, 0xfc000000, 0xfe800000 };

	put32(f, inside ? 0xfd000020 : outside[rnd(ARRAY_SIZE(outside))]);
	put32(f, rnd(2) << 16 | rnd(2));
	put32(f, rnd(2));
	put32(f, rnd(4));
}

static void put_ip(struct frame *f, unsigned depth, bool v6);

static void put_ethernet_addresses(struct frame *f)
{
	put(f, "\x02\0\0\0\0\1\x02\0\0\0\0", 11);
	put8(f, 2);
}

static void put_tcp(struct frame *f)
{
	static const uint8_t flags[] = { 0x02, 0x12, 0x10, 0x18, 0x11, 0x04, 0x00, 0xff };

	put16(f, 40000 + rnd(8));
	put16(f, chance(50) ? 443 : 22);
	put_random(f, 8);
	put8(f, 0x50);
	put8(f, flags[rnd(ARRAY_SIZE(flags))]);
	put_random(f, 6);
}

static void put_udp(struct frame *f, unsigned port)
{
	put16(f, 50000 + rnd(100));
	put16(f, port);
	put16(f, 0);		/* patched by nobody: the length of UDP is not what is counted */
	put16(f, 0);
}

/* GRE with IPv4, IPv6 or Ethernet in it. */
static void put_gre(struct frame *f, unsigned depth)
{
	unsigned kind = rnd(3);

	put16(f, 0);
	put16(f, kind == 0 ? 0x0800 : kind == 1 ? 0x86dd : 0x6558);
	if (kind == 2) {
		put_ethernet_addresses(f);
		put16(f, 0x0800);
	}
	put_ip(f, depth + 1, kind == 1);
}

static void put_vxlan(struct frame *f, unsigned depth)
{
	bool v6 = chance(50);

	put_udp(f, 4789);
	put(f, "\x08\0\0\0\0\0\x01\0", 8);
	put_ethernet_addresses(f);
	put16(f, v6 ? 0x86dd : 0x0800);
	put_ip(f, depth + 1, v6);
}

static void put_ah(struct frame *f, unsigned next)
{
	put8(f, next);
	put8(f, 4);
	put_random(f, 22);
}

/* What follows the IP header; returns its protocol number. */
static unsigned put_body(struct frame *f, unsigned depth, bool v6)
{
	unsigned kind = rnd(depth < 3 ? 14 : 8);

	switch (kind) {
	case 0: case 1: case 2:
		put_tcp(f);
		put_random(f, rnd(600));
		return 6;
	case 3: case 4:
		put_udp(f, 50000 + rnd(100));
		put_random(f, rnd(600));
		return 17;
	case 5:
		put16(f, v6 ? 0x8000 : 0x0800);
		put_random(f, 6 + rnd(60));
		return v6 ? 58 : 1;
	case 6:
		put_random(f, 8 + rnd(200));
		return 50;
	case 7:
		put_random(f, rnd(40));
		return 253;
	case 8:		/* an error, with the packet it is about */
		put16(f, v6 ? 0x0100 : 0x0301);
		put_random(f, 6);
		put_ip(f, depth + 1, v6);
		return v6 ? 58 : 1;
	case 9:
		put_ip(f, depth + 1, false);
		return 4;
	case 10:
		put_ip(f, depth + 1, true);
		return 41;
	case 11:
		put_gre(f, depth);
		return 47;
	case 12:
		put_vxlan(f, depth);
		return 17;
	default:
		put_ah(f, 6);
		put_tcp(f);
		return 51;
	}
}

/* Options that say nothing about the way: no operation, router alert, timestamps, unknown ones, end of list. */
static unsigned put_v4_options(struct frame *f)
{
	unsigned words = chance(75) ? 0 : 1 + rnd(10);

	for (unsigned i = 0; i < words; i++)
		switch (rnd(4)) {
		case 0:
			put(f, "\x01\x01\x01\x01", 4);
			break;
		case 1:
			put(f, "\x94\x04\0\0", 4);
			break;
		case 2:
			put(f, "\x5e\x04\xab\xcd", 4);
			break;
		default:
			put(f, "\x01\x5e\x03\xee", 4);
			break;
		}
	return words;
}

static void put_v4(struct frame *f, unsigned depth)
{
	size_t at = f->len;
	unsigned fragment = chance(80) ? 0 : chance(40) ? 0x2000 : chance(50) ? 0x2000 | (1 + rnd(100)) : 1 + rnd(8000);
	bool out = chance(70);

	put16(f, 0x4500);
	put16(f, 0);
	put16(f, rnd(65536));
	put16(f, fragment ? fragment : chance(50) ? 0x4000 : 0);
	put8(f, 64);
	put8(f, 0);
	put16(f, 0);
	put_v4_addr(f, out);
	put_v4_addr(f, chance(15) ? out : !out);
	f->b[at] = (uint8_t)(0x45 + put_v4_options(f));
	if (depth == 0)
		f->ip_header = f->len - at;
	if (fragment & 0x1fff) {
		put_random(f, 8 * (1 + rnd(100)));
		f->b[at + 9] = chance(50) ? 6 : 17;
	} else {
		f->b[at + 9] = (uint8_t)put_body(f, depth, false);
	}
	set16(f, at + 2, f->len - at);
}

/* One extension header; *next_at is where its own number belongs and, afterwards, where its follower's does. false:
 * nothing readable follows. */
static bool put_extension(struct frame *f, bool first, size_t *next_at)
{
	static const uint8_t kinds[] = { 60, 43, 44, 51, 60, 60, 135, 139, 140 };
	unsigned kind = first && chance(30) ? 0 : kinds[rnd(ARRAY_SIZE(kinds))], words = rnd(3);
	size_t at = f->len;

	f->b[*next_at] = (uint8_t)kind;
	*next_at = at;
	if (kind == 51) {
		put_ah(f, 59);
		return true;
	}
	put8(f, 59);
	if (kind == 44) {
		bool later = chance(50);

		put8(f, 0);
		put16(f, later ? 8 * (1 + rnd(1000)) | rnd(2) : rnd(2));
		put_random(f, 4);
		return !later;
	}
	put8(f, words);
	if (kind == 43) {
		put8(f, 253);	/* experimental type, no segments left */
		put8(f, 0);
		put_random(f, 4 + words * 8);
	} else if (kind == 0 || kind == 60) {
		put8(f, 1);	/* PadN over the rest */
		put8(f, 4 + words * 8);
		put(f, "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 4 + words * 8);
	} else {
		put_random(f, 6 + words * 8);
	}
	return kind != 135 && kind != 139;
}

static void put_v6(struct frame *f, unsigned depth)
{
	unsigned chain = chance(60) ? 0 : chance(90) ? 1 + rnd(4) : 10 + rnd(54);
	size_t at = f->len, next_at = at + 6;
	bool out = chance(70), readable = true;

	put32(f, 0x60000000 | rnd(1 << 20));
	put16(f, 0);
	put8(f, 59);
	put8(f, 64);
	put_v6_addr(f, out);
	put_v6_addr(f, chance(15) ? out : !out);
	if (depth == 0)
		f->ip_header = 40;
	for (unsigned i = 0; i < chain && readable; i++)
		readable = put_extension(f, i == 0, &next_at);
	if (!readable)
		put_random(f, rnd(100));
	else if (chance(97))
		f->b[next_at] = (uint8_t)put_body(f, depth, true);
	set16(f, at + 4, f->len - at - 40);
}

static void put_ip(struct frame *f, unsigned depth, bool v6)
{
	if (v6)
		put_v6(f, depth);
	else
		put_v4(f, depth);
}

/* Lengths other than what was built: more bytes on the wire than captured, offload, lies, trailing bytes. */
static void stretch(struct frame *f, bool v6, bool may_pad)
{
	size_t built = f->len - f->ip, large;

	switch (rnd(12)) {
	case 0:		/* the capture has the first part only */
		large = built + rnd(65000 - (uint32_t)built);
		set16(f, f->ip + (v6 ? 4 : 2), v6 ? large - 40 : large);
		f->wire = f->ip + large;
		break;
	case 1:		/* length on the wire counts */
		if (v6)
			break;
		set16(f, f->ip + 2, 0);
		f->wire = f->len + rnd(200000);
		break;
	case 2:		/* claims more than there was */
		set16(f, f->ip + (v6 ? 4 : 2), built + 1 + rnd(2000));
		break;
	case 3:
		if (may_pad)
			put_random(f, 1 + rnd(40));
		break;
	default:
		break;
	}
}

static void put_jumbogram(struct frame *f)
{
	uint32_t payload = 65536 + rnd(3000000);

	put32(f, 0x60000000);
	put16(f, 0);
	put8(f, 0);
	put8(f, 64);
	put_v6_addr(f, true);
	put_v6_addr(f, false);
	put8(f, 6);
	if (chance(50)) {
		put8(f, 0);
	} else {
		put8(f, 1);
		put(f, "\x01\x02\0\0\x01\x02\0\0", 8);
	}
	put16(f, 0xc204);
	put32(f, payload);
	f->ip_header = f->len - f->ip;
	put_tcp(f);
	f->wire = f->ip + 40 + payload;
}

static void put_link_ethernet(struct frame *f, bool v6, size_t *ret_length_at)
{
	static const uint16_t tags[] = { 0x8100, 0x88a8, 0x9100 };
	unsigned kind = rnd(20), tag = 0;

	*ret_length_at = 0;
	put_ethernet_addresses(f);
	for (unsigned n = chance(70) ? 0 : 1 + rnd(3); n; n--) {
		tag = tags[rnd(ARRAY_SIZE(tags))];
		put16(f, tag);
		put16(f, rnd(4095));
	}
	if (kind == 0 && tag != 0x88a8) {	/* tshark looks for no LLC behind a service tag */
		*ret_length_at = f->len;
		put16(f, 0);
		put(f, "\xaa\xaa\x03\0\0", 5);
		put8(f, 0);
	} else if (kind == 1) {
		put(f, "\x88\x47\x00\x01\x00\x40", 6);
		put(f, "\x00\x02\x01\x40", 4);
		return;
	}
	put16(f, v6 ? 0x86dd : 0x0800);
}

/* false: a link that says so itself has plain frames only. */
static bool put_link(struct frame *f, const char *link, bool v6, bool swapped, size_t *ret_length_at)
{
	static const uint8_t inet6[] = { 24, 28, 30 };
	uint32_t family = v6 ? inet6[rnd(ARRAY_SIZE(inet6))] : 2;

	*ret_length_at = 0;
	if (strcmp(link, "ethernet") == 0) {
		size_t before = f->len;

		put_link_ethernet(f, v6, ret_length_at);
		return !*ret_length_at && f->b[before + 12] != 0x88;
	}
	if (strcmp(link, "sll") == 0) {
		put(f, "\0\4\0\1\0\6\2\0\0\0\0\1\0\0", 14);
		put16(f, v6 ? 0x86dd : 0x0800);
	} else if (strcmp(link, "sll2") == 0) {
		put16(f, v6 ? 0x86dd : 0x0800);
		put(f, "\0\0\0\0\0\3\0\1\4\6\2\0\0\0\0\1\0\0", 18);
	} else if (strcmp(link, "loop") == 0 || (strcmp(link, "null") == 0 && swapped)) {
		put32(f, family);
	} else if (strcmp(link, "null") == 0) {
		put32(f, __builtin_bswap32(family));
	}
	return true;
}

static void make_other(struct frame *f)
{
	put_ethernet_addresses(f);
	switch (rnd(4)) {
	case 0:
		put(f, "\x08\x06\0\1\x08\0\6\4\0\1", 10);
		put_random(f, 20);
		break;
	case 1:
		put(f, "\x88\xcc\x02\x07\x04\x02\0\0\0\0\1", 11);
		put_random(f, 20);
		break;
	case 2:
		put(f, "\x00\x26\x42\x42\x03", 5);
		put_random(f, 35);
		break;
	default:
		f->len = rnd(14);
		break;
	}
	f->wire = f->len;
}

/* One frame and how much of it was captured. */
static size_t make_frame(struct frame *f, const char *link, bool swapped)
{
	bool v6 = chance(45), plain, ethernet = strcmp(link, "ethernet") == 0;
	size_t length_at, cut;

	f->len = f->wire = 0;
	if (ethernet && chance(3)) {
		make_other(f);
		return f->len;
	}
	plain = put_link(f, link, v6, swapped, &length_at);
	f->ip = f->len;
	if (v6 && plain && chance(3)) {
		put_jumbogram(f);
	} else {
		put_ip(f, 0, v6);
		if (plain)
			stretch(f, v6, ethernet);
	}
	if (length_at)
		set16(f, length_at, f->len - length_at - 2);
	while (ethernet && plain && f->len < 60)
		put8(f, 0);
	if (f->wire < f->len)
		f->wire = f->len;
	if (!chance(15))
		return f->len;
	cut = f->ip + rnd((uint32_t)(f->len - f->ip));
	/* Not between the fixed header and what else tells address and length. */
	if (cut >= f->ip + (v6 ? 40 : 20) && cut < f->ip + f->ip_header)
		cut = f->ip + f->ip_header;
	return cut;
}

static int linktype_of(const char *link)
{
	static const struct {
		const char *name;
		int number;
	} links[] = { { "ethernet", 1 }, { "raw", 101 }, { "sll", 113 },
		      { "sll2", 276 }, { "null", 0 }, { "loop", 108 } };

	for (size_t i = 0; i < ARRAY_SIZE(links); i++)
		if (strcmp(link, links[i].name) == 0)
			return links[i].number;
	return -1;
}

int main(int argc, char **argv)
{
	struct writer w = { .per_second = 1000000 };
	uint64_t ns = 1700000000ULL * 1000000000;
	static struct frame f;
	int linktype;

	if (argc != 6 || (linktype = linktype_of(argv[2])) < 0) {
		fputs("usage: gen_capture SEED ethernet|raw|sll|sll2|null|loop usec|nsec|swapped|pcapng PACKETS FILE\n",
		      stderr);
		return 2;
	}
	state = strtoull(argv[1], NULL, 10);
	w.swapped = strcmp(argv[3], "swapped") == 0;
	w.pcapng = strcmp(argv[3], "pcapng") == 0;
	if (strcmp(argv[3], "nsec") == 0)
		w.per_second = 1000000000;
	w.out = fopen(argv[5], "we");
	if (!w.out) {
		perror(argv[5]);
		return 1;
	}
	write_head(&w, (uint32_t)linktype);
	for (unsigned long n = strtoul(argv[4], NULL, 10); n; n--) {
		size_t caplen = make_frame(&f, argv[2], w.swapped);

		write_frame(&w, f.b, caplen, f.wire, ns);
		ns += rnd(50000000);
	}
	if (ferror(w.out) | fclose(w.out)) {
		perror(argv[5]);
		return 1;
	}
	return 0;
}
