/* fuzz_netlink.c - any bytes to nfq_parse(): nothing outside them is read, and what it returns lies inside. */
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "nfq.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct nfq_msg m;
	int r = nfq_parse(data, size, &m);

	if (r < 0) {
		BUG_ON(r != -EBADMSG && r != -ENOMSG);
		return 0;
	}
	BUG_ON(m.len < m.caplen);
	BUG_ON(m.caplen && (m.data < data || m.data + m.caplen > data + size));
	for (uint32_t i = 0; i < m.caplen; i++)
		(void)*(const volatile uint8_t *)(m.data + i);	/* really read */
	return 0;
}
