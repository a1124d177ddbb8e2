/* fuzz_packet.c - any bytes as a packet, at the end of their own block; the first four are true_len, 0: not known. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "packet.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	enum packet_reason reason;
	uint32_t true_len;
	struct packet p;
	uint8_t *block;
	size_t n;

	if (size < 4)
		return 0;
	memcpy(&true_len, data, 4);
	n = size - 4;
	block = malloc(n ? n : 1);
	BUG_ON(!block);
	memcpy(block, data + 4, n);
	reason = packet_parse(n ? block : block + 1, n, true_len, &p);
	BUG_ON(reason >= PACKET_REASONS);
	if (reason == PACKET_OK) {
		BUG_ON(n < (block[0] >> 4 == 4 ? 20u : 40u));
		BUG_ON(true_len && p.len != true_len);
		BUG_ON(!p.len);
		BUG_ON(p.notes & PACKET_NO_PORTS && (p.sport || p.dport || p.tcp_flags));
		BUG_ON(p.notes & (PACKET_CUT | PACKET_EXT_DEEP) && !(p.notes & PACKET_NO_PORTS));
	}
	free(block);
	return 0;
}
