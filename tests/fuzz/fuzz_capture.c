/* fuzz_capture.c - any bytes as a frame. The first byte chooses the link type, two more are the length on the wire. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "capture.h"
#include "check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const int links[] = { 1, 101, 113, 276, 0, 108, 228, 229, 12, 9 };
	struct capture_ip at = { .offset = SIZE_MAX };
	enum capture_reason reason;
	uint16_t wire;
	uint8_t *block;
	size_t n;

	if (size < 3)
		return 0;
	memcpy(&wire, data + 1, 2);
	n = size - 3;
	block = malloc(n ? n : 1);
	BUG_ON(!block);
	memcpy(block, data + 3, n);
	reason = capture_ip(links[data[0] % ARRAY_SIZE(links)], n ? block : block + 1, n, wire, &at);
	BUG_ON(reason >= CAPTURE_REASONS);
	BUG_ON(reason == CAPTURE_OK ? at.offset > n || (at.offset < n && !at.len) : at.offset != SIZE_MAX);
	free(block);
	return 0;
}
