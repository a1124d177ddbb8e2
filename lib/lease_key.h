/* lease_key.h - which bytes a lease is of: a pair's, or those of one service of it where the policy tells its services apart. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "judge.h"
#include "lease.h"

/* Worth a lease? From a packet just judged; LEASE_SHIFT says when to ask. */
struct lease_hint {
	uint32_t pair;
	uint16_t port;
	uint8_t proto, opener;		/* opener 0: port and opener are not known */
};

struct lease_hint lease_hint_of(const struct judge_packet *v);

/* The lease that says the hint's packet. -ENOENT: there can be none. */
int lease_key_of(struct judge *j, const struct lease_hint *hint, struct lease_key *ret) MUST_CHECK;

/* A packet that is one of its bytes, as far as it matters who pays, and in no pair's record. */
struct judge_packet lease_packet(const struct policy *p, const struct lease_key *k);

/* All of it or some goes from src to dst; dst of length 0: anywhere. */
bool lease_is_between(const struct lease_key *k, const struct prefix *src, const struct prefix *dst);

/* Under both policies its bytes are judged by the same rules with the same limits, for the same subjects, and it would be a lease of the same
 * bytes: so the accounts, and what they may spend, stay what they are. */
bool lease_is_untouched(const struct lease_key *k, const struct policy *before, const struct policy *after);
