/* bench_judge.c - a packet's whole way through user space: netlink message and packet parsed, its pair looked up, four accounts
 * charged, the verdict written. Random packets of 100,000 pairs (and of 1,000), batches of 64, as a worker does it but for the
 * two system calls. The figure is nanoseconds a packet; cost of making the messages is measured by itself and taken off.
 * The tables are as the daemon makes them for table.pairs: 131072, the least that holds those pairs; and for twice as much.
 */
#include <arpa/inet.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_queue.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "area_map.h"
#include "check.h"
#include "diag.h"
#include "judge.h"
#include "nfq.h"
#include "policy_compile.h"
#include "ratio.h"

#define BATCH  64
#define ROUNDS 41
#define OPS    400000u

static const char policy_text[] =
	"version: 1\nmode: enforce\ninside: [10.0.0.0/8, \"fd00::/8\"]\ngroups:\n  g: {hosts: [10.0.0.0/8]}\nrules:\n"
	"  - {name: a, from: g, to: outside, per: pair, limit: {1m: 500GB, 1h: 900GB}, action: block}\n"
	"  - {name: b, from: g, to: outside, per: pair, limit: {24h: 5000GB}, action: block}\n"
	"  - {name: c, from: g, to: outside, per: host, limit: {1h: 500TB}, action: block}\n"
	"  - {name: d, from: g, to: outside, per: group, limit: {1h: 900TB}, action: block}\n";

static struct judge judge;
static struct policy policy;
static uint8_t slot[BATCH][AREA_SLOT_LEN];
static uint32_t len[BATCH];
static _Atomic uint32_t journal[BATCH];
static uint32_t seed = 1;

/* A message as the kernel writes it: header, mark, devices, true length, the first bytes of the packet. */
static uint32_t make_message(uint8_t *buf, uint32_t id)
{
	struct nlmsghdr *h = mnl_nlmsg_put_header(buf);
	struct nfgenmsg *g = mnl_nlmsg_put_extra_header(h, sizeof(*g));
	struct nfqnl_msg_packet_hdr ph = { .packet_id = htonl(id), .hw_protocol = htons(0x0800), .hook = 4 };
	uint8_t packet[128] = { 0x45, 0, 0, 128, 0, 0, 0, 0, 64, 17 };

	h->nlmsg_type = NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_PACKET;
	packet[20] = 1;
	packet[23] = 53;
	mnl_attr_put(h, NFQA_PACKET_HDR, sizeof(ph), &ph);
	mnl_attr_put_u32(h, NFQA_MARK, htonl(5));
	mnl_attr_put_u32(h, NFQA_IFINDEX_INDEV, htonl(2));
	mnl_attr_put_u32(h, NFQA_IFINDEX_OUTDEV, htonl(3));
	mnl_attr_put_u32(h, NFQA_CAP_LEN, htonl(128));
	mnl_attr_put(h, NFQA_PAYLOAD, sizeof(packet), packet);
	return h->nlmsg_len;
}

static void address(uint8_t *buf, uint32_t n, uint32_t pairs)
{
	/* The payload is the last attribute: its addresses are 12 bytes into the packet. */
	uint8_t *ip = buf + len[0] - 128;
	uint32_t hosts = pairs / 100 ? pairs / 100 : 1, src = htonl(0x0a000000 + n % hosts),
		 dst = htonl(0xcb007100 + n / hosts * 7);

	memcpy(ip + 12, &src, 4);
	memcpy(ip + 16, &dst, 4);
}

static void make_batch(uint32_t pairs)
{
	for (unsigned i = 0; i < BATCH; i++) {
		seed = seed * 1664525 + 1013904223;
		address(slot[i], (uint32_t)((uint64_t)seed * pairs >> 32), pairs);
	}
}

static void judge_slots(struct mono now)
{
	static struct judge_packet v[BATCH];

	for (unsigned i = 0; i < BATCH; i++) {
		struct nfq_msg m;

		BUG_ON(nfq_parse(slot[i], len[i], &m) < 0);
		BUG_ON(packet_parse(m.data, m.caplen, m.len, &v[i].p) != PACKET_OK);
		v[i].opener = OPENER_UNKNOWN;
		v[i].exit = 0;
		v[i].local = m.indev == 0;
		v[i].journal = &journal[i];
	}
	judge_batch(&judge, v, BATCH, now);
	for (unsigned i = 0; i < BATCH; i++)
		BUG_ON(!v[i].pass);
}

static double cpu(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void open_judge(uint32_t pairs)
{
	static struct diag_list d;
	struct policy_env env = { .now = 1 };
	struct hash_key key = { { 9 } };
	int fd = memfd_create("bench", MFD_CLOEXEC);
	uint8_t boot[16] = { 0 };
	const char *why;
	size_t size;
	void *blob, *mem;

	diag_init(&d, "policy", policy_text, strlen(policy_text));
	BUG_ON(policy_compile(policy_text, strlen(policy_text), &env, &d, &blob, &size) < 0);
	BUG_ON(policy_open(blob, size, &policy, &why) < 0);
	size = area_size(pairs, 2 * pairs);
	BUG_ON(ftruncate(fd, (off_t)size) < 0 || area_map(fd, PROT_READ | PROT_WRITE, &mem, &size) < 0);
	area_format(mem, pairs, 2 * pairs, 1, &key, 1, boot, (struct mono){ NS_PER_S });
	if (area_collapse(mem, area_hot_size(pairs, 2 * pairs)) < 0)	/* as the supervisor does */
		fputs("bench_judge: no huge pages\n", stderr);
	BUG_ON(area_open(mem, size, &judge.area) < 0);
	judge.policy = &policy;
	judge.policy_no = 1;
	judge.counter = judge.area.h->worker[0].counter;
}

static void measure(uint32_t pairs, const char *table, enum ratio_goal goal)
{
	static double cost[ROUNDS];
	struct mono now = { 1000 * NS_PER_S };
	char name[64];

	for (uint32_t n = 0; n < pairs + BATCH; n += BATCH) {	/* every pair and account is there, and of this tick */
		for (unsigned i = 0; i < BATCH; i++)
			address(slot[i], (n + i) % pairs, pairs);
		judge_slots(now);
	}
	for (unsigned r = 0; r < ROUNDS; r++) {
		double a = cpu(), b, c;

		for (unsigned n = 0; n < OPS; n += BATCH)
			make_batch(pairs);
		b = cpu();
		for (unsigned n = 0; n < OPS; n += BATCH) {
			make_batch(pairs);
			judge_slots(now);
		}
		c = cpu();
		cost[r] = (c - b - (b - a)) / OPS;
	}
	BUG_ON(judge.counter[AC_OVERFLOW]);
	snprintf(name, sizeof(name), "packet-to-decision-%u-pairs%s", pairs, table);
	ratio_print_range(&(struct ratio_label){ .name = name, .unit = "ns", .command = "build/tests/bench/bench_judge",
						 .goal = goal, .figure = 100 },
			  ratio_bootstrap(cost, ROUNDS), NULL);
}

int main(void)
{
	open_judge(131072);
	for (unsigned i = 0; i < BATCH; i++)
		len[i] = make_message(slot[i], i + 1);
	measure(1000, "", GOAL_NONE);
	measure(100000, "", GOAL_AT_MOST);
	memset(&judge, 0, sizeof(judge));
	open_judge(262144);
	measure(100000, "-of-262144", GOAL_NONE);
	return 0;
}
