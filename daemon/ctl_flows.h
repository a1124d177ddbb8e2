/* ctl_flows.h - who opened each TCP connection of a capture, as its SYN or SYN+ACK says: replay has no conntrack.
 *
 * One thread. Grows with the number of connections whose opening was captured; forgets none.
 * [F1] First      the first SYN or SYN+ACK decides, as in conntrack: a later SYN+ACK sent by the opener turns nothing
 *                 round. A SYN after FIN or RST is a new connection.
 */
#pragma once

#include "packet.h"

enum flow_opener { FLOW_UNKNOWN, FLOW_BY_SENDER, FLOW_BY_RECEIVER };	/* seen from the packet asked about */

struct flows;

struct flows *flows_new(void);			/* NULL: no memory */
struct flows *flows_free(struct flows *f);	/* takes NULL, returns NULL */

/* Take note of p and say who opened its connection. -ENOMEM. */
int flows_see(struct flows *f, const struct packet *p, enum flow_opener *ret) MUST_CHECK;
