/* nft_set.h - sets of an inet table, their elements, and a dump of elements that count. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "compiler.h"

struct nft_batch;
struct nft_sock;

#define NFT_KEY_MAX 44	/* a connection of IPv6 */

/* Types by which `nft list` prints keys. */
enum {
	NFT_KEY_IPV4 = 7,
	NFT_KEY_IPV6 = 8,
	NFT_KEY_IFNAME = 41,
	NFT_KEY_IPV4_PAIR = 7 << 6 | 7,
	NFT_KEY_IPV6_PAIR = 8 << 6 | 8,
	/* address . port . address . port . protocol, each padded to four bytes */
	NFT_KEY_IPV4_FLOW = (((7 << 6 | 13) << 6 | 7) << 6 | 13) << 6 | 12,
	/* address . address . protocol . port . conntrack direction */
	NFT_KEY_IPV4_SERVICE = (((7 << 6 | 7) << 6 | 12) << 6 | 13) << 6 | 27,
	NFT_KEY_IPV6_SERVICE = (((8 << 6 | 8) << 6 | 12) << 6 | 13) << 6 | 27,
	/* address . protocol . port . conntrack direction */
	NFT_KEY_IPV4_HOST_SERVICE = ((7 << 6 | 12) << 6 | 13) << 6 | 27,
	NFT_KEY_IPV6_HOST_SERVICE = ((8 << 6 | 12) << 6 | 13) << 6 | 27,
	NFT_KEY_IPV6_FLOW = (((8 << 6 | 13) << 6 | 8) << 6 | 13) << 6 | 12,
};

struct nft_set_spec {
	const char *name;	/* anonymous sets: "__set%d" */
	uint32_t id;		/* for rules of the same batch; 0: none */
	uint32_t flags;		/* NFT_SET_* */
	uint32_t key_type, key_len;
	uint32_t size;		/* 0: no bound */
	uint64_t timeout_ms;	/* default of its elements */
	const char *each;	/* expression of every element: "counter", of its matches; NULL: none */
	uint32_t object;	/* NFT_OBJECT_*: a map to objects of that type; 0: a set */
	const uint8_t *parts;	/* NFT_SET_CONCAT: lengths of the key's parts, of each a range; no two elements may overlap */
	uint32_t nparts;
};

struct nft_elem {
	uint8_t key[NFT_KEY_MAX];
	bool interval_end;
	uint64_t timeout_ms;	/* 0: the set's */
	const char *object;	/* its name, in a map to objects */
	const uint8_t *key_end;	/* NFT_SET_CONCAT: the last of each part's range, key: the first */
};

/* An existing set of the same form stays, elements and all. */
void nft_set_add(struct nft_batch *b, const char *table, const struct nft_set_spec *s, const char *what);
void nft_elems_add(struct nft_batch *b, const char *table, const struct nft_set_spec *s, const struct nft_elem *e,
		   size_t n, const char *what);
void nft_elems_del(struct nft_batch *b, const char *table, const struct nft_set_spec *s, const struct nft_elem *e,
		   size_t n, const char *what);

void nft_set_del(struct nft_batch *b, const char *table, const struct nft_set_spec *s, const char *what);

/* All of them. */
void nft_set_clear(struct nft_batch *b, const char *table, const struct nft_set_spec *s, const char *what);

/* Make the set hold just `want`, which is sorted here, by deleting and adding what differs from what s tells of it now:
 * an element that stays is not touched (rules_egress.c says why). The set may come to be in this very batch. Elements that
 * have a timeout are left to it; one that is wanted becomes one without. */
void nft_set_sync(struct nft_sock *s, struct nft_batch *b, const char *table, const struct nft_set_spec *set,
		  struct nft_elem *want, size_t n, const char *what);

struct nft_dumped {
	uint8_t key[NFT_KEY_MAX], key_end[NFT_KEY_MAX];
	bool interval_end, timed;	/* timed: it ends in expires_ms, which may be 0 */
	uint64_t packets, bytes, expires_ms;
};

/* The one element with this key; -ENOENT. */
int nft_elem_get(struct nft_sock *s, const char *table, const struct nft_set_spec *set, const uint8_t key[NFT_KEY_MAX],
		 struct nft_dumped *ret) MUST_CHECK;

/* *ret_elems is malloc'd (NULL when there is none). -ENOENT: no such set. */
int nft_set_dump(struct nft_sock *s, const char *table, const char *set, struct nft_dumped **ret_elems,
		 size_t *ret_count) MUST_CHECK;
