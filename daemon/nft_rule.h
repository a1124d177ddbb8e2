/* nft_rule.h - one rule of an inet table, expression by expression. Building failures stick to the batch (nft_batch.h [B4]).
 *
 *	struct nft_rule r = nft_rule("table", "chain");
 *	nft_meta(&r, NFT_META_OIFTYPE, NFT_REG32_00);
 *	nft_cmp_u16(&r, NFT_REG32_00, ARPHRD_LOOPBACK);
 *	nft_verdict(&r, NF_ACCEPT, NULL);
 *	nft_rule_add(&r, batch, "rule: loopback");
 *
 * Registers: NFT_REG32_00.. of 4 bytes; an address of 16 takes four of them.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct nft_batch;
struct nftnl_rule;

struct nft_rule {
	struct nftnl_rule *rule;
	bool failed;
};

struct nft_rule nft_rule(const char *table, const char *chain);
void nft_rule_add(struct nft_rule *r, struct nft_batch *b, const char *what);

void nft_meta(struct nft_rule *r, uint32_t key, uint32_t dreg);
void nft_meta_set(struct nft_rule *r, uint32_t key, uint32_t sreg);
void nft_ct(struct nft_rule *r, uint32_t key, uint32_t dreg);
void nft_cmp(struct nft_rule *r, uint32_t sreg, const void *data, uint32_t len);
void nft_cmp_u8(struct nft_rule *r, uint32_t sreg, uint8_t v);
void nft_cmp_u16(struct nft_rule *r, uint32_t sreg, uint16_t v);
void nft_cmp_u32(struct nft_rule *r, uint32_t sreg, uint32_t v);
void nft_cmp_not_u32(struct nft_rule *r, uint32_t sreg, uint32_t v);
/* reg = (reg & mask) ^ xor */
void nft_bitwise(struct nft_rule *r, uint32_t reg, const void *mask, const void *xor, uint32_t len);
/* dreg = sreg & mask, 4 bytes */
void nft_mask(struct nft_rule *r, uint32_t dreg, uint32_t sreg, uint32_t mask);
/* len bytes at off of the network header */
void nft_payload(struct nft_rule *r, uint32_t dreg, uint32_t off, uint32_t len);
/* The same of the transport header; a later fragment or a packet without one does not match. */
void nft_transport(struct nft_rule *r, uint32_t dreg, uint32_t off, uint32_t len);
/* Goes on with the rule when found; set_id 0: a set that was there before this batch. */
void nft_lookup(struct nft_rule *r, const char *set, uint32_t set_id, uint32_t sreg);
/* Goes on when not found. */
void nft_lookup_not(struct nft_rule *r, const char *set, uint32_t sreg);
void nft_verdict(struct nft_rule *r, int verdict, const char *chain);
/* The object that `map` names for sreg; the rule ends when there is none, or a quota is over. */
void nft_object_of(struct nft_rule *r, const char *map, uint32_t sreg);
void nft_count(struct nft_rule *r, const char *object);
/* Add to or refresh in `set`, a counter in each element. */
void nft_update_counter(struct nft_rule *r, const char *set, uint32_t sreg);
void nft_reject(struct nft_rule *r, uint32_t type, uint8_t code);
/* With bypass: no listener, no stop. */
void nft_queue(struct nft_rule *r, uint16_t first, uint16_t count);
void nft_queue_xt(struct nft_rule *r, uint16_t first, uint16_t count);
