/* time_servers.h - the time servers that this machine is set to ask, and others by name, for the built-in protect list. Relay's
 * main thread only.
 *
 * [TS1] Read    ntp.conf (ntp, ntpsec), chrony.conf with the files of its sourcedir and confdir lines, timesyncd.conf
 *               with its .d folder. What is not there or cannot be read names nobody; a line that is not understood is passed over.
 * [TS2] Bound   looking names up takes at most TIME_SERVERS_WAIT_MS in all. An answer that comes later, and the last one of a
 *               name that is not found any more, count at the next call.
 * [TS3] Told    names without an address, and servers beyond the places, are one line each on the log.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "addr.h"

#define TIME_SERVERS_MAX     32		/* each, of addresses and names */
#define TIME_SERVERS_NAME    254
#define TIME_SERVERS_WAIT_MS 1000		/* whole seconds */

struct time_servers {
	uint32_t naddrs, nnames, left_out;
	struct addr addr[TIME_SERVERS_MAX];
	char name[TIME_SERVERS_MAX][TIME_SERVERS_NAME];
};

enum time_syntax { TIME_NTP, TIME_CHRONY, TIME_TIMESYNCD };

/* Adds the servers of one file's text to s, each once. The text is cut up. Folders that chrony would read besides go to `folder`,
 * called with `ctx`, sources: true for sourcedir; folder may be NULL. */
void time_servers_parse(enum time_syntax syntax, char *text, struct time_servers *s,
			void (*folder)(void *ctx, const char *path, bool sources), void *ctx);

/* An address or a name; each once, the first ones have the places. What is neither is passed over. */
void time_servers_add(struct time_servers *s, const char *word);

/* Adds what the files say. root: "" or a folder that stands for /. */
void time_servers_read(const char *root, struct time_servers *s);

/* Their addresses, at most `max`. The count. */
size_t time_servers_addresses(const struct time_servers *s, struct prefix *to, size_t max);
