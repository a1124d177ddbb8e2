/* snapshot_internal.h - the file: head, pairs, accounts, every decision, room of records that died amid writing, checksum.
 * Shared by snapshot*.c and their tests only.
 */
#pragma once

#include "area.h"
#include "hash.h"

#define SNAPSHOT_LAYOUT 3U
#define SNAPSHOT_NAME	(256 + 16)	/* CONFIG_PATH and a file name */
#define SNAPSHOT_MAGIC	"egrsnap\1"	/* 8 bytes, without the NUL */

struct snapshot_head {
	char magic[8];
	uint32_t layout, pairs, accounts, dynamics;
	uint64_t size;			/* of the file, checksum included */
	uint64_t wall_us, mono_ns;
	uint8_t boot_id[16];
	uint64_t next_finding, observe_until_ns, folded_bytes, gap_ns;
	uint32_t policy_version, pad;
};

struct snapshot_pair {
	struct pair_key key;
	uint64_t bytes, packets, refused, refused_packets, first_ns;
	struct addr last_out;
	uint32_t slot;			/* in the table it was written from: accounts name it */
	uint16_t port;
	uint8_t proto, opened_by;
	uint8_t exit, pad[7];
};

struct snapshot_account {
	struct account_key key;
	uint64_t spent, refused;
	uint32_t state, pad;
	struct account_cold cold;
};

/* The file is these structs: who changes one of them raises SNAPSHOT_LAYOUT. */
_Static_assert(sizeof(struct snapshot_head) == 104 && sizeof(struct snapshot_pair) == 104 &&
	       sizeof(struct snapshot_account) == 1088 && sizeof(struct area_dynamic) == 272, "raise SNAPSHOT_LAYOUT");
