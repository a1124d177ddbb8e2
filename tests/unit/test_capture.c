/* test_capture.c - capture.h [CP1]..[CP4]. Frames stand at the end of their own block, as in test_packet. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "capture.h"

#define V4 "\x45\x00\x00\x28\x00\x01\x00\x00\x40\x06\x00\x00\x0a\x00\x00\x05\xcb\x00\x71\x09"
#define V6 "\x60\x00\x00\x00\x00\x14\x06\x40" \
	   "\xfd\0\0\0\0\0\0\0\0\0\0\0\0\0\0\5" "\x20\1\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x09"
#define MACS "\2\2\2\2\2\2\4\4\4\4\4\4"

static enum capture_reason locate(int link, const void *data, size_t n, size_t wire, struct capture_ip *ret)
{
	uint8_t *block = malloc(n ? n : 1);
	enum capture_reason r;

	assert_non_null(block);
	memcpy(block, data, n);
	memset(ret, 0xa5, sizeof(*ret));
	r = capture_ip(link, n ? block : block + 1, n, wire, ret);
	free(block);
	return r;
}

struct link_case {
	const char *name;
	int link;
	const char *head;
	size_t head_len;
	enum capture_reason reason;
};

#define CASE(name, link, head, reason) { name, link, head, sizeof(head) - 1, reason }

static const struct link_case links[] = {
	CASE("ethernet", 1, MACS "\x08\x00", CAPTURE_OK),
	CASE("ethernet ipv6", 1, MACS "\x86\xdd", CAPTURE_OK),
	CASE("arp", 1, MACS "\x08\x06", CAPTURE_NOT_IP),
	CASE("lldp", 1, MACS "\x88\xcc", CAPTURE_NOT_IP),
	CASE("802.1Q", 1, MACS "\x81\x00\x00\x07\x08\x00", CAPTURE_OK),
	CASE("802.1Q arp", 1, MACS "\x81\x00\x00\x07\x08\x06", CAPTURE_NOT_IP),
	CASE("802.1ad 802.1Q", 1, MACS "\x88\xa8\x00\x07\x81\x00\x00\x08\x08\x00", CAPTURE_OK),
	CASE("five tags", 1, MACS "\x88\xa8\0\1\x91\0\0\2\x81\0\0\3\x81\0\0\4\x81\0\0\5\x86\xdd", CAPTURE_OK),
	CASE("snap", 1, MACS "\x00\x1c\xaa\xaa\x03\x00\x00\x00\x08\x00", CAPTURE_OK),
	CASE("snap in a tag", 1, MACS "\x81\x00\x00\x07\x00\x1c\xaa\xaa\x03\x00\x00\x00\x08\x00", CAPTURE_OK),
	CASE("snap of another organisation", 1, MACS "\x00\x1c\xaa\xaa\x03\x00\x00\x0c\x08\x00", CAPTURE_NOT_IP),
	CASE("spanning tree", 1, MACS "\x00\x26\x42\x42\x03\x00\x00\x00\x00\x00", CAPTURE_NOT_IP),
	CASE("mpls", 1, MACS "\x88\x47\x00\x01\x00\x40\x00\x01\x01\x40", CAPTURE_OK),
	CASE("pppoe", 1, MACS "\x88\x64\x11\x00\x00\x01\x00\x16\x00\x21", CAPTURE_OK),
	CASE("pppoe ipv6", 1, MACS "\x88\x64\x11\x00\x00\x01\x00\x16\x00\x57", CAPTURE_OK),
	CASE("pppoe, short protocol", 1, MACS "\x88\x64\x11\x00\x00\x01\x00\x15\x21", CAPTURE_OK),
	CASE("pppoe lcp", 1, MACS "\x88\x64\x11\x00\x00\x01\x00\x16\xc0\x21", CAPTURE_NOT_IP),
	CASE("pppoe discovery", 1, MACS "\x88\x63\x11\x09\x00\x00\x00\x00", CAPTURE_NOT_IP),
	CASE("raw", 12, "", CAPTURE_OK),
	CASE("raw, as in files", 101, "", CAPTURE_OK),
	CASE("ipv4", 228, "", CAPTURE_OK),
	CASE("ipv6", 229, "", CAPTURE_OK),
	CASE("cooked", 113, "\0\0\0\1\0\6\2\2\2\2\2\2\0\0\x08\x00", CAPTURE_OK),
	CASE("cooked tag", 113, "\0\0\0\1\0\6\2\2\2\2\2\2\0\0\x81\x00\0\5\x86\xdd", CAPTURE_OK),
	CASE("cooked arp", 113, "\0\0\0\1\0\6\2\2\2\2\2\2\0\0\x08\x06", CAPTURE_NOT_IP),
	CASE("cooked 2", 276, "\x08\x00\0\0\0\0\0\2\0\1\0\6\2\2\2\2\2\2\0\0", CAPTURE_OK),
	CASE("cooked 2 arp", 276, "\x08\x06\0\0\0\0\0\2\0\1\0\6\2\2\2\2\2\2\0\0", CAPTURE_NOT_IP),
	CASE("null, little end", 0, "\x02\0\0\0", CAPTURE_OK),
	CASE("null, big end", 0, "\0\0\0\x02", CAPTURE_OK),
	CASE("null freebsd ipv6", 0, "\x1c\0\0\0", CAPTURE_OK),
	CASE("loop macos ipv6", 108, "\0\0\0\x1e", CAPTURE_OK),
	CASE("null appletalk", 0, "\x10\0\0\0", CAPTURE_NOT_IP),
	CASE("802.11", 105, MACS MACS, CAPTURE_LINK_TYPE),
};

static void link_layers(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(links); i++) {
		const struct link_case *c = &links[i];
		uint8_t frame[128];
		struct capture_ip at;

		memcpy(frame, c->head, c->head_len);
		memcpy(frame + c->head_len, V4, 20);
		if (locate(c->link, frame, c->head_len + 20, c->head_len + 40, &at) != c->reason)
			fail_msg("%s", c->name);
		if (c->reason != CAPTURE_OK)
			continue;
		if (at.offset != c->head_len || at.len != 40)
			fail_msg("%s: offset %zu, length %u", c->name, at.offset, at.len);
		/* [CP1] cut anywhere in the link header */
		for (size_t n = 0; n < c->head_len; n++)
			if (locate(c->link, frame, n, c->head_len + 40, &at) != CAPTURE_LINK_CUT)
				fail_msg("%s cut at %zu", c->name, n);
		for (size_t n = c->head_len + 1; n < c->head_len + 20; n++)
			assert_int_equal(locate(c->link, frame, n, c->head_len + 40, &at), CAPTURE_OK);
	}
}

static void mpls_without_ip(void **state)
{
	struct capture_ip at;

	(void)state;
	assert_int_equal(locate(1, MACS "\x88\x47\x00\x01\x01\x40\x00\x00\x00\x00", 22, 22, &at), CAPTURE_NOT_IP);
	assert_int_equal(locate(1, MACS "\x88\x47\x00\x01\x01\x40", 18, 64, &at), CAPTURE_LINK_CUT);
}

static uint32_t length(const void *ip, size_t n, size_t wire)
{
	struct capture_ip at;

	assert_int_equal(locate(101, ip, n, wire, &at), CAPTURE_OK);
	assert_int_equal(at.offset, 0);
	return at.len;
}

static void lengths4(void **state)
{
	uint8_t ip[20];

	(void)state;
	memcpy(ip, V4, 20);
	assert_int_equal(length(ip, 20, 20), 40);	/* the wire had less: the header counts all the same */
	assert_int_equal(length(ip, 4, 1500), 40);
	assert_int_equal(length(ip, 3, 1500), 1500);	/* not captured */
	ip[2] = 0xff;
	assert_int_equal(length(ip, 20, 60), 0xff28);
	ip[2] = ip[3] = 0;
	assert_int_equal(length(ip, 20, 64000), 64000);
	ip[3] = 19;
	assert_int_equal(length(ip, 20, 64000), 64000);
	ip[0] = 0x46;
	ip[3] = 23;
	assert_int_equal(length(ip, 20, 64000), 64000);
	ip[3] = 24;
	assert_int_equal(length(ip, 20, 64000), 24);
	assert_int_equal(length(ip, 0, 0), 0);
	assert_int_equal(length(ip, 20, 3), 24);	/* a file that says less was on the wire than captured */
}

static void lengths6(void **state)
{
	uint8_t ip[40];

	(void)state;
	memcpy(ip, V6, 40);
	assert_int_equal(length(ip, 40, 60), 60);
	assert_int_equal(length(ip, 8, 60), 60);
	assert_int_equal(length(ip, 7, 1000), 1000);
	ip[5] = 0;
	assert_int_equal(length(ip, 40, 90000), 90000);	/* offload, no option */
	assert_int_equal(length(ip, 40, 64), 40);	/* padding of a short frame */
	assert_int_equal(length(ip, 40, 65), 65);
	ip[6] = 58;
	assert_int_equal(length(ip, 40, 90000), 40);
	ip[6] = 59;
	assert_int_equal(length(ip, 40, 46), 40);	/* nothing follows: the rest is padding */
	ip[4] = 0xff;
	ip[5] = 0xff;
	assert_int_equal(length(ip, 40, 46), 65575);
}

static void jumbograms(void **state)
{
	static const struct {
		const char *options;
		size_t len;
		uint32_t want;
	} cases[] = {
		{ "\6\0\xc2\4\0\1\x11\x70", 8, 40 + 70000 },
		{ "\6\1\0\0\1\4\0\0\0\0\xc2\4\0\3\0\0", 16, 40 + 0x30000 },	/* behind padding */
		{ "\6\0\xc2\4\0\0\xff\xff", 8, 90000 },	/* forbidden: not beyond 65,535 */
		{ "\6\0\xc2\4\xff\xff\xff\xff", 8, 90000 },	/* beyond 32 bits with its header */
		{ "\6\0\xc2\3\0\1\x11\x70", 8, 90000 },
		{ "\6\0\1\4\0\0\0\0", 8, 90000 },
		{ "\6\0\1\xff\0\0\0\0", 8, 90000 },
		{ "\6\0\0\0\0\0\0\xc2", 8, 90000 },
		{ "\6\xff\1\0\1\0\1\0", 8, 90000 },	/* header ends beyond the capture */
		{ "\6\1\1\2\0\0\xc2\4\0\1\0\0", 12, 40 + 0x10000 },	/* the header's end was not captured */
		{ "\6\1\1\2\0\0\xc2\4\0\1\0", 11, 90000 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		uint8_t ip[64];

		memcpy(ip, V6, 40);
		ip[5] = ip[6] = 0;
		memcpy(ip + 40, cases[i].options, cases[i].len);
		for (size_t n = 0; n < cases[i].len; n++)
			(void)length(ip, 40 + n, 90000);
		if (length(ip, 40 + cases[i].len, 90000) != cases[i].want)
			fail_msg("case %zu: %u", i, length(ip, 40 + cases[i].len, 90000));
	}
}

static void known_links(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(links); i++)
		assert_int_equal(capture_link_known(links[i].link), links[i].reason != CAPTURE_LINK_TYPE);
	assert_false(capture_link_known(-1));
	assert_false(capture_link_known(9999));
}

static void reason_names(void **state)
{
	(void)state;
	for (unsigned i = 0; i < CAPTURE_REASONS; i++)
		for (unsigned k = 0; k < i; k++)
			assert_string_not_equal(capture_reason_name((enum capture_reason)i),
						capture_reason_name((enum capture_reason)k));
	assert_string_equal(capture_reason_name(CAPTURE_REASONS), "unknown");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(link_layers),
		cmocka_unit_test(mpls_without_ip),
		cmocka_unit_test(lengths4),
		cmocka_unit_test(lengths6),
		cmocka_unit_test(jumbograms),
		cmocka_unit_test(known_links),
		cmocka_unit_test(reason_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
