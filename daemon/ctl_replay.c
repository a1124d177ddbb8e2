/* ctl_replay.c - see ctl_replay.h. The only file that sees libpcap. */
#include "ctl_replay.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <pcap.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>

#include "ctl_flows.h"
#include "ctl_report.h"
#include "ctl_roles.h"

#define PAIRS_FIRST  (1U << 16)
#define PAIRS_STREAM (1U << 20)		/* of what can be read only once */
#define PAIRS_MOST   (1U << 24)
#define TEXT_MAX     (16U << 20)	/* policy or networks file */
#define DAY_S	     86400

struct replay {
	const char *policy_path, *config_path, *capture_path;
	bool json;
	void *blob;
	struct policy policy;
	struct judge judge;
	void *mem;
	size_t mem_size;
	struct flows *flows;
	struct report report;
	uint64_t base_s;	/* wall clock at the fake clock's 0: the midnight before the first packet */
	uint64_t now_ns;	/* wall; never goes back, whatever the timestamps do */
	uint64_t reviewed_ns;
};

struct source {			/* the open capture and its first packet */
	pcap_t *pcap;
	int link;
	struct pcap_pkthdr *header;
	const u_char *data;
	int more;		/* of pcap_next_ex: 1 there is a packet, PCAP_ERROR_BREAK end, else error */
};

static int usage(FILE *to)
{
	fputs("usage: egressctl replay --policy POLICY [-c CONFIG] [--json] PCAP\n", to);
	return to == stdout ? 0 : 2;
}

/* Whole file, NUL-terminated. */
static int read_text(void *ctx, const char *path, char **ret_text, size_t *ret_len)
{
	FILE *f = fopen(path, "re");
	char *text = NULL;
	size_t n = 0, room = 0;
	int r = 0;

	(void)ctx;
	if (!f)
		return -errno;
	while (r == 0 && !feof(f)) {
		if (room - n < 4096) {
			char *more = realloc(text, room = room * 2 + 65536);

			if (!more) {
				r = -ENOMEM;
				break;
			}
			text = more;
		}
		n += fread(text + n, 1, room - n - 1, f);
		if (ferror(f))
			r = -EIO;
		else if (n > TEXT_MAX)
			r = -EFBIG;
	}
	fclose(f);
	if (r < 0) {
		free(text);
		return r;
	}
	text[n] = '\0';
	*ret_text = text;
	*ret_len = n;
	return 0;
}

static void print_diags(const struct diag_list *diags)
{
	char text[DIAG_TEXT];

	for (uint32_t i = 0; i < diags->count && i < DIAG_MAX; i++)
		if (diag_format(diags, i, text, sizeof(text)) > 0)
			fputs(text, stderr);
	if (diags->count > DIAG_MAX)
		fprintf(stderr, "%" PRIu32 " more errors\n", diags->count - DIAG_MAX);
}

/* `now`: a contract is judged at the time of the capture, not of today. Roles decide only whether the policy is one, [RP1]. */
static int load_policy(struct replay *r, int64_t now)
{
	struct policy_env env = { .read_file = read_text, .zone_known = config_zone_known, .now = now };
	static struct diag_list diags;
	static struct ctl_roles roles;
	const char *why;
	char *text;
	size_t len, size;
	int e = ctl_roles_read(r->config_path, &roles);

	if (e < 0)
		return e;
	env.role = roles.role;
	env.nroles = roles.n;
	e = read_text(NULL, r->policy_path, &text, &len);
	if (e < 0) {
		fprintf(stderr, "egressctl: %s: %s\n", r->policy_path, strerror(-e));
		return e;
	}
	diag_init(&diags, r->policy_path, text, len);
	e = policy_compile(text, len, &env, &diags, &r->blob, &size);
	if (e < 0) {
		print_diags(&diags);
		ctl_roles_note(&roles, text, len);
	}
	free(text);
	if (e < 0)
		return e;
	e = policy_open(r->blob, size, &r->policy, &why);
	if (e < 0)
		fprintf(stderr, "egressctl: %s: compiled policy: %s\n", r->policy_path, why);
	return e;
}

static void area_drop(struct replay *r)
{
	if (r->mem)
		munmap(r->mem, r->mem_size);
	r->mem = NULL;
}

/* The same capture gives the same report: the first try's hash key is fixed. Later ones are random, or a capture could
 * be made to collide at every size. */
static int area_make(struct replay *r, uint32_t pairs, bool first)
{
	static const uint8_t no_boot[16];
	struct hash_key key = { { 0 } };
	int e;

	area_drop(r);
	if (!first && getrandom(&key, sizeof(key), 0) != (ssize_t)sizeof(key))
		return -EIO;
	r->mem_size = area_size(pairs, 2 * pairs);
	r->mem = mmap(NULL, r->mem_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (r->mem == MAP_FAILED) {
		r->mem = NULL;
		return -ENOMEM;
	}
	area_format(r->mem, pairs, 2 * pairs, 1, &key, 0, no_boot, (struct mono){ 0 });
	memset(&r->judge, 0, sizeof(r->judge));
	e = area_open(r->mem, r->mem_size, &r->judge.area);
	if (e < 0)
		return e;
	r->judge.policy = &r->policy;
	r->judge.policy_no = 1;
	r->judge.counter = r->judge.area.h->worker[0].counter;
	r->judge.wall_offset_s = (int64_t)r->base_s;
	return 0;
}

static int source_open(const char *path, struct source *ret)
{
	char why[PCAP_ERRBUF_SIZE];

	ret->pcap = pcap_open_offline_with_tstamp_precision(path, PCAP_TSTAMP_PRECISION_NANO, why);
	if (!ret->pcap) {
		fprintf(stderr, "egressctl: %s\n", why);
		return -EIO;
	}
	ret->link = pcap_datalink(ret->pcap);
	if (!capture_link_known(ret->link)) {
		const char *name = pcap_datalink_val_to_name(ret->link);

		fprintf(stderr, "egressctl: %s: link type %s (%d) is not supported\n", path, name ? name : "?",
			ret->link);
		pcap_close(ret->pcap);
		return -EOPNOTSUPP;
	}
	ret->more = pcap_next_ex(ret->pcap, &ret->header, &ret->data);
	return 0;
}

static uint64_t wall_ns_of(const struct pcap_pkthdr *h)
{
	return h->ts.tv_sec < 0 ? 0 : (uint64_t)h->ts.tv_sec * NS_PER_S + (uint64_t)h->ts.tv_usec % NS_PER_S;
}

static int skip(struct replay *r, unsigned reason)
{
	r->report.skipped[reason]++;
	return 0;
}

/* Blocks end and findings close by themselves, about once a second of the capture's time. */
static void review(struct replay *r, struct mono now)
{
	struct area_header *h = r->judge.area.h;

	if (r->now_ns - r->reviewed_ns < NS_PER_S)
		return;
	r->reviewed_ns = r->now_ns;
	if (atomic_load_explicit(&h->bell_next, memory_order_relaxed))
		judge_review(&r->judge, now, NULL, NULL);
}

static int judge_one(struct replay *r, const struct packet *p, enum flow_opener opener)
{
	struct mono now = { r->now_ns - r->base_s * NS_PER_S };
	struct judge_packet v = { .p = *p };

	if (!(policy_src_of(&r->policy, &p->src)->flags & SRC_INSIDE))
		return skip(r, SKIP_SOURCE);
	if ((policy_dst_of(&r->policy, &p->dst)->flags & (DST_INSIDE | DST_EXIT)) == DST_INSIDE)
		return skip(r, SKIP_INSIDE);
	if (opener != FLOW_UNKNOWN)
		v.opener = opener == FLOW_BY_SENDER ? OPENER_INSIDE : OPENER_OUTSIDE;
	review(r, now);
	judge_batch(&r->judge, &v, 1, now);
	return report_alerts(&r->report, &r->judge, r->now_ns);
}

static int one_packet(struct replay *r, const struct source *s)
{
	enum flow_opener opener;
	struct capture_ip at;
	struct packet p;
	unsigned reason;
	int e;

	reason = capture_ip(s->link, s->data, s->header->caplen, s->header->len, &at);
	if (reason != CAPTURE_OK)
		return skip(r, SKIP_CAPTURE + reason);
	reason = packet_parse(s->data + at.offset, s->header->caplen - at.offset, at.len, &p);
	if (reason != PACKET_OK)
		return skip(r, SKIP_PACKET + reason);
	r->now_ns = MAX_OF(r->now_ns, wall_ns_of(s->header));
	e = flows_see(r->flows, &p, &opener);
	return e < 0 ? e : judge_one(r, &p, opener);
}

/* -ENOSPC: a table overflowed. -EBADMSG: the capture is broken off, what came before was counted. */
static int run(struct replay *r, struct source *s)
{
	const _Atomic uint64_t *overflow = &r->judge.counter[AC_OVERFLOW];

	for (; s->more == 1; s->more = pcap_next_ex(s->pcap, &s->header, &s->data)) {
		int e = one_packet(r, s);

		if (e < 0)
			return e;
		if (atomic_load_explicit(overflow, memory_order_relaxed))
			return -ENOSPC;
	}
	return s->more == PCAP_ERROR_BREAK ? 0 : -EBADMSG;
}

static void start_clock(struct replay *r, const struct source *s)
{
	uint64_t first_s = s->more == 1 ? wall_ns_of(s->header) / NS_PER_S : (uint64_t)time(NULL);

	r->base_s = first_s - first_s % DAY_S;
	r->now_ns = r->reviewed_ns = first_s * NS_PER_S;
}

static int pass_over(struct replay *r, uint32_t pairs)
{
	bool first = !r->blob;
	struct source s;
	int e = source_open(r->capture_path, &s);

	if (e < 0)
		return e;
	start_clock(r, &s);
	report_reset(&r->report);
	r->flows = flows_free(r->flows);
	r->flows = flows_new();
	e = r->flows ? 0 : -ENOMEM;
	if (e == 0 && first)
		e = load_policy(r, (int64_t)(r->now_ns / NS_PER_S));
	if (e == 0)
		e = area_make(r, pairs, first);
	if (e == 0) {
		e = run(r, &s);
		if (e == -EBADMSG)
			fprintf(stderr, "egressctl: %s: %s; counted up to there\n", r->capture_path,
				pcap_geterr(s.pcap));
	}
	pcap_close(s.pcap);
	return e;
}

static bool is_file(const char *path)
{
	struct stat st;

	return strcmp(path, "-") != 0 && stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

static int replay(struct replay *r)
{
	bool again = is_file(r->capture_path);
	uint32_t pairs = again ? PAIRS_FIRST : PAIRS_STREAM;
	int e = pass_over(r, pairs), printed;

	while (e == -ENOSPC && again && pairs < PAIRS_MOST) {
		pairs *= 4;
		e = pass_over(r, pairs);
	}
	if (e == -ENOSPC)
		fprintf(stderr, "egressctl: %s: too many pairs; %s\n", r->capture_path,
			again ? "split the capture" : "give a file instead of a stream");
	else if (e == -ENOMEM)
		fputs("egressctl: out of memory\n", stderr);
	if (e < 0 && e != -EBADMSG)
		return e;
	printed = report_print(&r->report, &r->judge, r->json, stdout);
	if (printed < 0)
		fprintf(stderr, "egressctl: output: %s\n", strerror(-printed));
	return e < 0 ? e : printed;
}

/* 0; 1: help is asked for; -EINVAL and said why. */
static int parse_args(int argc, char **argv, struct replay *r)
{
	static const struct option options[] = {
		{ "help", no_argument, NULL, 'h' },
		{ "policy", required_argument, NULL, 'p' },
		{ "json", no_argument, NULL, 'j' },
		{ NULL, 0, NULL, 0 },
	};
	int c;

	optind = 0;		/* the caller has used getopt before */
	while ((c = getopt_long(argc, argv, "c:h", options, NULL)) != -1) {
		if (c == 'p')
			r->policy_path = optarg;
		else if (c == 'c')
			r->config_path = optarg;
		else if (c == 'j')
			r->json = true;
		else
			return c == 'h' ? 1 : -EINVAL;
	}
	if (!r->policy_path || argc - optind != 1) {
		fprintf(stderr, "egressctl: replay: %s\n", !r->policy_path	 ? "--policy POLICY is missing"
							   : optind == argc ? "PCAP is missing"
									    : "one argument too many");
		return -EINVAL;
	}
	r->capture_path = argv[optind];
	return 0;
}

int ctl_replay(int argc, char **argv)
{
	struct replay r = { .json = false };
	int e = parse_args(argc, argv, &r);

	if (e != 0)
		return usage(e > 0 ? stdout : stderr);
	e = replay(&r);
	report_reset(&r.report);
	r.flows = flows_free(r.flows);
	area_drop(&r);
	free(r.blob);
	return e < 0 ? 1 : 0;
}
