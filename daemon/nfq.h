/* nfq.h - one NFQUEUE: configure, receive a batch into given slots, answer a batch.
 *
 * The socket is made by the supervisor and inherited, so the queue and what waits in it survive the engine.
 *
 * [N1] Acked      every configuration flag is its own acked message; a kernel that does not know one says so and the others
 *                 hold (measured). The result tells which are on.
 * [N2] Slots      recvmmsg writes straight into the slots, whose first 4 bytes (nlmsg_len) the caller has zeroed: after
 *                 a kill, a slot with a non-zero length holds a packet that was received.
 * [N3] Ids        are 32-bit and wrap.
 * [N4] Untrusted  nfq_parse() reads only the given bytes (fuzzed).
 * [N5] Marks      the verdict's mark keeps all bits outside mark_mask as the packet came.
 * [N6] Waiting    nfq_setup() takes no packet off the socket: what waits for a dead engine's successor stays, and an answer of
 *                 the kernel that stands behind such packets is left for the reader (nfq_parse: -ENOMSG).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "compiler.h"

/* Root's, readable for its group, which the service's unit sets to egressd's. */
#define NFQ_PROC_FILE "/proc/net/netfilter/nfnetlink_queue"

#define NFQ_BATCH 64		/* messages of one receive and one answer, at most */
#define NFQ_OVERHEAD 192	/* a slot of copy range + this never cuts a message */

enum nfq_flag { NFQ_GSO = 1, NFQ_FAIL_OPEN = 2, NFQ_UID_GID = 4 };

struct nfq_info {		/* what nfq_setup achieved */
	uint32_t flags;		/* enum nfq_flag that are on */
	uint32_t portid;
};

struct nfq_msg {		/* one received packet; pointers into the slot */
	uint32_t id;
	uint32_t mark;		/* 0 when the message carries none */
	uint32_t indev, outdev;	/* ifindex, 0: none */
	uint32_t len;		/* true IP length: CAP_LEN, else the payload's */
	uint16_t queue;
	uint16_t hw_protocol;	/* host order: ETH_P_IP, ETH_P_IPV6 */
	uint8_t hook;
	const uint8_t *data;
	uint32_t caplen;
};

enum nfq_answer { NFQ_ACCEPT, NFQ_DROP, NFQ_REPEAT };

struct nfq_verdict {
	uint32_t id;
	uint32_t mark;		/* as it came */
	uint8_t answer;		/* enum nfq_answer */
};

/* A bound netlink socket (SOCK_CLOEXEC) with NETLINK_NO_ENOBUFS off, rcvbuf forced. fd or -errno. */
int nfq_socket(uint32_t rcvbuf) MUST_CHECK;

/* Bind queue `num` on fd and set it up: copy `range` bytes, maxlen, flags wanted. One socket, one queue. Binding twice from
 * one socket is not an error. -EPERM: another process holds it or no CAP_NET_ADMIN (nfq_holder() tells). Opens a second
 * socket for a moment, to ask for flags. */
int nfq_setup(int fd, uint16_t num, uint32_t range, uint32_t maxlen, uint32_t want_flags,
	      struct nfq_info *ret) MUST_CHECK;

/* portid of the process that holds queue num, from NFQ_PROC_FILE; 0: nobody, or not readable. */
uint32_t nfq_holder(uint16_t num);

/* Waits up to timeout_ms for the first message, then takes what is there, at most n. slot[i] has slot_len bytes and is
 * zeroed in its first 4. *ret_len[i]: bytes written. Number of messages, 0 on timeout, -ENOBUFS (go on), other -errno. */
int nfq_receive(int fd, uint8_t *slot, size_t slot_stride, size_t slot_len, unsigned n, unsigned ret_len[],
		int timeout_ms) MUST_CHECK;

/* 0 and *ret; -EBADMSG not a packet message or broken; -ENOMSG a netlink error or done message; *ret is then worth nothing
 * (filled in place: a copy of what was just stored in pieces waits for the stores). A message without payload is a packet with
 * caplen 0: its id can be answered. */
int nfq_parse(const void *buf, size_t len, struct nfq_msg *ret) MUST_CHECK;

/* Answers a batch in one sendmsg: repeats and short runs of drops one by one, first; the rest as one VERDICT_BATCH per run of
 * equal answer and mark, in id order. v must be in the order received and hold every id received and unanswered on this queue
 * up to its last. Every accept sets (mark & ~mask) | judged; a repeat keeps its mark. An id that is gone (its device went
 * down) costs nothing but a -ENOMSG message. 0 or -errno of the send. n <= NFQ_BATCH. */
int nfq_answer(int fd, uint16_t num, const struct nfq_verdict *v, unsigned n, uint32_t mask, uint32_t judged) MUST_CHECK;

/* The same one by one, for a queue where others than v wait for an answer: a batch verdict would catch them. */
int nfq_answer_each(int fd, uint16_t num, const struct nfq_verdict *v, unsigned n, uint32_t mask, uint32_t judged) MUST_CHECK;

/* Answers one by one (after a restart, where a batch could catch ids not yet read). */
int nfq_answer_single(int fd, uint16_t num, const struct nfq_verdict *v, uint32_t mask, uint32_t judged) MUST_CHECK;

/* queue_dropped and user_dropped of queue num, from NFQ_PROC_FILE; 0 or -errno (-EACCES: not ours to read; -ENOENT: no such
 * queue). */
int nfq_drops(uint16_t num, uint64_t *ret_queue, uint64_t *ret_user) MUST_CHECK;
