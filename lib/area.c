/* area.c - see area.h for the contract. */
#include "area.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

static const char magic[8] = "egarea\1";

struct layout {
	size_t pair_tags, pair_claims, account_tags, account_claims, open;
	size_t pair, account, hot, pair_cold, account_cold, lease_tags, lease_claims, lease, end;
};

static size_t take(size_t *at, size_t len)
{
	size_t here = *at;

	*at = (here + len + 63) & ~(size_t)63;
	return here;
}

static struct layout layout_of(uint32_t pairs, uint32_t accounts)
{
	struct layout l;
	size_t at = 0;

	take(&at, sizeof(struct area_header));
	l.pair_tags = take(&at, table_tags_size(pairs));
	l.pair_claims = take(&at, table_claims_size(pairs));
	l.account_tags = take(&at, table_tags_size(accounts));
	l.account_claims = take(&at, table_claims_size(accounts));
	l.open = take(&at, (size_t)accounts / 8);
	l.pair = take(&at, (size_t)pairs * sizeof(struct pair));
	l.account = take(&at, (size_t)accounts * sizeof(struct account));
	l.hot = at = (at + AREA_HUGE - 1) & ~(AREA_HUGE - 1);
	l.pair_cold = take(&at, (size_t)pairs * sizeof(struct pair_cold));
	l.account_cold = take(&at, (size_t)accounts * sizeof(struct account_cold));
	l.lease_tags = take(&at, table_tags_size(LEASE_SLOTS));
	l.lease_claims = take(&at, table_claims_size(LEASE_SLOTS));
	l.lease = take(&at, LEASE_SLOTS * sizeof(struct lease));
	l.end = at;
	return l;
}

size_t area_size(uint32_t pairs, uint32_t accounts)
{
	return layout_of(pairs, accounts).end;
}

size_t area_hot_size(uint32_t pairs, uint32_t accounts)
{
	return layout_of(pairs, accounts).hot;
}

void area_format(void *mem, uint32_t pairs, uint32_t accounts, uint32_t workers, const struct hash_key *key,
		 uint64_t id, const uint8_t boot_id[16], struct mono now)
{
	struct area_header *h = mem;

	h->layout = AREA_LAYOUT;
	h->pairs = pairs;
	h->accounts = accounts;
	h->workers = workers;
	h->hash_key = *key;
	h->id = id;
	memcpy(h->boot_id, boot_id, sizeof(h->boot_id));
	h->born_ns = now.ns;
	atomic_store_explicit(&h->next_finding, 1, memory_order_relaxed);
	atomic_store_explicit(&h->list_version, 1, memory_order_relaxed);
	memcpy(h->magic, magic, sizeof(magic));	/* [R1] */
}

static int power_of_two(uint32_t n)
{
	return n >= 128 && n <= 1U << 26 && (n & (n - 1)) == 0;
}

int area_open(void *mem, size_t size, struct area *ret)
{
	struct area_header *h = mem;
	struct layout l;
	uint8_t *b = mem;
	struct area a = { .h = h };

	if (size < sizeof(*h) || memcmp(h->magic, magic, sizeof(magic)) != 0 || h->layout != AREA_LAYOUT)
		return -EPROTO;
	if (!power_of_two(h->pairs) || !power_of_two(h->accounts) || h->workers < 1 || h->workers > AREA_WORKERS)
		return -EPROTO;
	l = layout_of(h->pairs, h->accounts);
	if (size < l.end)
		return -EPROTO;
	table_view(&a.pairs, &h->pair_state, b + l.pair_tags, b + l.pair_claims, b + l.pair, sizeof(struct pair),
		   h->pairs);
	table_view(&a.accounts, &h->account_state, b + l.account_tags, b + l.account_claims, b + l.account,
		   sizeof(struct account), h->accounts);
	table_view(&a.leases, &h->lease_state, b + l.lease_tags, b + l.lease_claims, b + l.lease, sizeof(struct lease),
		   LEASE_SLOTS);
	a.lease = (struct lease *)(b + l.lease);
	a.pair = (struct pair *)(b + l.pair);
	a.pair_cold = (struct pair_cold *)(b + l.pair_cold);
	a.account = (struct account *)(b + l.account);
	a.account_cold = (struct account_cold *)(b + l.account_cold);
	a.open = (_Atomic uint64_t *)(b + l.open);
	a.size = l.end;
	*ret = a;
	return 0;
}

void area_blind_begin(struct area *a, uint64_t started_ns)
{
	struct area_header *h = a->h;
	struct area_blind *b = &h->blind;
	uint64_t since = UINT64_MAX;

	if (atomic_load_explicit(&b->since_ns, memory_order_relaxed))
		return;
	for (unsigned w = 0; w < h->workers && w < AREA_WORKERS; w++) {
		uint64_t beat = atomic_load_explicit(&h->worker[w].heartbeat_ns, memory_order_relaxed);

		since = MIN_OF(since, MAX_OF(beat, started_ns));
	}
	b->unseen_packets = atomic_load_explicit(&h->unseen_packets, memory_order_relaxed);
	b->unseen_bytes = atomic_load_explicit(&h->unseen_bytes, memory_order_relaxed);
	b->flushed = atomic_load_explicit(&h->health[HEALTH_RULES_FLUSHED], memory_order_relaxed);
	/* Release: an engine that finds since_ns after a kill finds what stood then. */
	atomic_store_explicit(&b->since_ns, MAX_OF(since, 1), memory_order_release);
}

static void add(_Atomic uint64_t *to, uint64_t n)
{
	/* Single writer. Relaxed: since_ns says when it holds. */
	atomic_store_explicit(to, atomic_load_explicit(to, memory_order_relaxed) + n, memory_order_relaxed);
}

void area_blind_end(struct area *a, struct mono now)
{
	const struct area_header *h = a->h;
	struct area_blind *b = &a->h->blind;
	uint64_t since = atomic_load_explicit(&b->since_ns, memory_order_acquire);

	if (!since)
		return;
	add(&b->packets, atomic_load_explicit(&h->unseen_packets, memory_order_relaxed) - b->unseen_packets);
	add(&b->bytes, atomic_load_explicit(&h->unseen_bytes, memory_order_relaxed) - b->unseen_bytes);
	add(&b->uncounted, atomic_load_explicit(&h->health[HEALTH_RULES_FLUSHED], memory_order_relaxed) - b->flushed);
	atomic_store_explicit(&b->from_ns, since, memory_order_relaxed);
	atomic_store_explicit(&b->to_ns, now.ns, memory_order_relaxed);
	/* Release: pairs with the acquire of who reads the rest. */
	atomic_store_explicit(&b->since_ns, 0, memory_order_release);
}

void area_ring(struct area *a, uint32_t slot)
{
	/* Relaxed: the place only has to be ours alone. */
	uint64_t at = atomic_fetch_add_explicit(&a->h->bell_next, 1, memory_order_relaxed);

	/* Release: the account's rev is stored before; a reader that sees the slot sees it. A reader that comes between the
	 * two lines sees an older slot here, looks at that account for nothing, and finds this one in its full scan. */
	atomic_store_explicit(&a->h->bell[at % AREA_BELL], slot, memory_order_release);
}

static const char *const counter_names[AC_REASON_FIRST] = {
	[AC_PACKETS] = "packets",
	[AC_BYTES] = "bytes",
	[AC_REFUSED_PACKETS] = "refused-packets",
	[AC_REFUSED_BYTES] = "refused-bytes",
	[AC_BATCHES] = "batches",
	[AC_ENOBUFS] = "enobufs",
	[AC_SLOW] = "slow-paths",
	[AC_NEW_PAIRS] = "new-pairs",
	[AC_OVERFLOW] = "table-overflow-packets",
	[AC_BAD_MESSAGE] = "bad-messages",
	[AC_NOTICE] = "netlink-notices",
	[AC_NO_ADDRESS_BYTES] = "no-address-bytes",
	[AC_REPEATED] = "repeated-packets",
	[AC_RECOVERED] = "recovered-packets",
	[AC_HELD] = "held-packets",
	[AC_NOTE_FRAGMENT] = "fragments",
	[AC_NOTE_CUT] = "cut-in-header",
	[AC_NOTE_EXT_DEEP] = "deep-extension-chains",
	[AC_NOTE_BAD_LEN] = "bad-lengths",
	[AC_VERDICT_ERRORS] = "verdict-errors",
};

const char *area_counter_name(unsigned counter)
{
	if (counter < AC_REASON_FIRST)
		return counter_names[counter];
	return packet_reason_name((enum packet_reason)(counter - AC_REASON_FIRST));
}

uint64_t area_counter_sum(const struct area *a, unsigned counter)
{
	uint64_t sum = 0;

	for (unsigned w = 0; w < a->h->workers && w < AREA_WORKERS; w++)
		sum += atomic_load_explicit(&a->h->worker[w].counter[counter], memory_order_relaxed);
	return sum;
}

uint64_t area_passed_bytes(const struct area *a)
{
	return area_counter_sum(a, AC_BYTES) + atomic_load_explicit(&a->h->leased_bytes, memory_order_relaxed);
}

uint64_t area_passed_packets(const struct area *a)
{
	return area_counter_sum(a, AC_PACKETS) + atomic_load_explicit(&a->h->leased_packets, memory_order_relaxed);
}

uint64_t area_pair_hash(const struct area *a, const struct pair_key *key)
{
	return hash_bytes(&a->h->hash_key, key, sizeof(*key));
}

uint64_t area_account_hash(const struct area *a, const struct account_key *key)
{
	return hash_bytes(&a->h->hash_key, key, sizeof(*key));
}

static uint64_t hash_of_key(void *ctx, const struct table_key *key)
{
	const struct area *a = ctx;

	return hash_bytes(&a->h->hash_key, key, sizeof(*key));
}

static int check_pair(const struct area *a, uint32_t slot, const char **ret_why)
{
	const struct pair *p = &a->pair[slot];
	unsigned n = atomic_load_explicit(&p->n_rule, memory_order_relaxed) +
		     (atomic_load_explicit(&p->n_contract, memory_order_relaxed) & ~PAIR_PROTECTED & 0xffU);

	if (n > PAIR_ACCOUNTS) {
		*ret_why = "pair: more accounts than its list can hold";
		return -EINVAL;
	}
	return 0;
}

static int check_lease(const struct area *a, uint32_t slot, const char **ret_why)
{
	const struct lease *l = &a->lease[slot];

	*ret_why = "lease: it names what is not there";
	if (l->nshares > LEASE_ACCOUNTS || l->pair >= a->h->pairs || !table_is_full(&a->pairs, l->pair))
		return -EINVAL;
	for (uint32_t i = 0; i < l->nshares; i++)
		if (l->share[i].account >= a->h->accounts || !table_is_full(&a->accounts, l->share[i].account))
			return -EINVAL;
	*ret_why = "lease: more passed than was granted";
	return l->settled > l->granted ? -EINVAL : 0;
}

/* Sums of what each slot of a table says of leases, every slot with a weight of its own: two tables that agree in them agree slot by
 * slot, but for one chance in 2^64. */
struct lease_sums {
	uint64_t outstanding, leases, pairs;
};

static uint64_t weight(const struct area *a, uint32_t slot)
{
	return hash_bytes(&a->h->hash_key, &slot, sizeof(slot));
}

static int add_lease(const struct area *a, uint32_t slot, struct lease_sums *to, const char **ret_why)
{
	const struct lease *l = &a->lease[slot];
	const int r = check_lease(a, slot, ret_why);

	if (r < 0)
		return r;
	to->pairs += weight(a, l->pair);
	for (uint32_t i = 0; i < l->nshares; i++) {
		const uint64_t x = weight(a, l->share[i].account);

		to->outstanding += x * (l->share[i].granted - l->share[i].settled);
		to->leases += x;
	}
	return 0;
}

/* What each account has out on lease, and how many leases it and each pair have, is what the leases say. */
static int check_leases(const struct area *a, const char **ret_why)
{
	struct lease_sums said = { 0 }, kept = { 0 };

	for (uint32_t i = 0; i < LEASE_SLOTS; i++)
		if (table_is_full(&a->leases, i) && a->lease[i].state == LEASE_OPEN && add_lease(a, i, &said, ret_why) < 0)
			return -EINVAL;
	for (uint32_t i = 0; i < a->h->accounts; i++) {
		const struct account_cold *c = &a->account_cold[i];

		if (!table_is_full(&a->accounts, i) || (!c->outstanding && !c->leases))
			continue;
		kept.outstanding += weight(a, i) * c->outstanding;
		kept.leases += weight(a, i) * c->leases;
	}
	for (uint32_t i = 0; i < a->h->pairs; i++)
		if (table_is_full(&a->pairs, i) && a->pair_cold[i].leases)
			kept.pairs += weight(a, i) * a->pair_cold[i].leases;
	*ret_why = "accounts: what is out on lease is not what the leases say";
	if (said.outstanding != kept.outstanding || said.leases != kept.leases)
		return -EINVAL;
	*ret_why = "pairs: they have more or fewer leases than there are";
	return said.pairs != kept.pairs ? -EINVAL : 0;
}

int area_check(const struct area *a, const char **ret_why)
{
	int r = table_check(&a->pairs, hash_of_key, (void *)a, ret_why);

	if (r == 0)
		r = table_check(&a->accounts, hash_of_key, (void *)a, ret_why);
	if (r == 0)
		r = table_check(&a->leases, hash_of_key, (void *)a, ret_why);
	for (uint32_t i = 0; r == 0 && i < a->h->pairs; i++)
		if (table_is_full(&a->pairs, i))
			r = check_pair(a, i, ret_why);
	for (uint32_t i = 0; r == 0 && i < a->h->accounts; i++)
		if (table_is_full(&a->accounts, i))
			r = account_check(&a->account[i], &a->account_cold[i], ret_why);
	return r == 0 ? check_leases(a, ret_why) : r;
}
