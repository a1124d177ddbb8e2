/* rules_watch.c - what others do to our tables, told by the kernel as it happens.
 *
 * A socket in the nf_tables group gets every change of the namespace. Ours are told apart by the port of the socket that made
 * them and dropped by a filter before they take room: 20,000 blocked elements would fill the buffer, and what is lost must be
 * taken for a change, which would put 20,000 elements in again. One transaction is several messages, its generation the last:
 * only then is it told, so that one flush is one change.
 */
#include "rules.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <libmnl/libmnl.h>
#include <linux/filter.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>

#include "rules_internal.h"

#define WATCH_LEN    65536
#define WATCH_BUFFER (4 << 20)
#define TABLE_ATTR   1	/* the same number in tables, chains, rules, sets, elements, objects and flowtables */

_Static_assert(NFTA_TABLE_NAME == TABLE_ATTR && NFTA_CHAIN_TABLE == TABLE_ATTR && NFTA_RULE_TABLE == TABLE_ATTR &&
	       NFTA_SET_TABLE == TABLE_ATTR && NFTA_SET_ELEM_LIST_TABLE == TABLE_ATTR && NFTA_OBJ_TABLE == TABLE_ATTR &&
	       NFTA_FLOWTABLE_TABLE == TABLE_ATTR, "one attribute names the table");

/* All messages of one buffer come from one transaction: the first tells whose it is. */
static int drop_ours(int fd, uint32_t owner, uint32_t keep)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct nlmsghdr, nlmsg_pid)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ntohl(owner), 1, 0),	/* the load turns its bytes round, too */
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ntohl(keep), 0, 1),
		BPF_STMT(BPF_RET | BPF_K, 0),
		BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
	};
	const struct sock_fprog f = { .len = ARRAY_SIZE(code), .filter = code };

	return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &f, sizeof(f)) < 0 ? -errno : 0;
}

static int subscribe(int fd, uint32_t owner, uint32_t keep)
{
	const struct sockaddr_nl any = { .nl_family = AF_NETLINK };
	int group = NFNLGRP_NFTABLES, size = WATCH_BUFFER, r;

	if (bind(fd, (const struct sockaddr *)&any, sizeof(any)) < 0)
		return -errno;
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size));	/* a smaller one is told when it overflows */
	r = drop_ours(fd, owner, keep);	/* first: nothing of ours may be waiting */
	if (r == 0 && setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof(group)) < 0)
		r = -errno;
	return r;
}

int rules_watch(struct rules *r, int *ret_fd)
{
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_NETFILTER), e;

	if (fd < 0)
		return -errno;
	e = subscribe(fd, r->owner.portid, r->keep.portid);
	r->watch_buf = e == 0 ? malloc(WATCH_LEN) : NULL;
	if (e == 0 && !r->watch_buf)
		e = -ENOMEM;
	if (e < 0) {
		close(fd);
		return e;
	}
	r->watch_fd = fd;
	*ret_fd = fd;
	return 0;
}

void rules_watch_done(struct rules *r)
{
	if (r->watch_buf)
		close(r->watch_fd);
	free(r->watch_buf);
	r->watch_buf = NULL;
}

/* Whatever is taken away or put between our rules. Other additions change nothing of ours. */
static bool disturbs(unsigned type)
{
	switch (type) {
	case NFT_MSG_NEWTABLE:
	case NFT_MSG_NEWCHAIN:
	case NFT_MSG_NEWSET:
	case NFT_MSG_NEWSETELEM:
	case NFT_MSG_NEWOBJ:
	case NFT_MSG_NEWFLOWTABLE:
	case NFT_MSG_NEWGEN:
	case NFT_MSG_TRACE:
		return false;
	default:
		return true;
	}
}

/* The kernel by itself: a quota is used up. */
static void depleted(struct rules *r, const struct nlmsghdr *nlh)
{
	const struct nlattr *a;

	mnl_attr_for_each(a, nlh, sizeof(struct nfgenmsg)) {
		if (mnl_attr_get_type(a) != NFTA_OBJ_NAME || mnl_attr_validate(a, MNL_TYPE_NUL_STRING) < 0)
			continue;
		if (r->ndepleted < RULES_DEPLETED && rules_lease_named(mnl_attr_get_str(a), &r->depleted[r->ndepleted]))
			r->ndepleted++;
	}
}

/* NULL: one of others. `inet`: tables of ours are; what the kernel tells of a packet's doing has the packet's family instead
 * (nft_quota_obj_eval()), and whoever has a table of our name in another family tells of no lease that is open. */
static const char *table_of(const struct nlmsghdr *nlh, bool inet)
{
	const struct nfgenmsg *nfg = mnl_nlmsg_get_payload(nlh);
	const struct nlattr *a;

	if (inet && nfg->nfgen_family != NFPROTO_INET)
		return NULL;
	mnl_attr_for_each(a, nlh, sizeof(*nfg)) {
		if (mnl_attr_get_type(a) != TABLE_ATTR)
			continue;
		if (mnl_attr_validate(a, MNL_TYPE_NUL_STRING) < 0)
			return NULL;
		if (strcmp(mnl_attr_get_str(a), TABLE) == 0)
			return TABLE;
		return strcmp(mnl_attr_get_str(a), TABLE_KEEP) == 0 ? TABLE_KEEP : NULL;
	}
	return NULL;
}

/* By the kernel itself a quota that is used up; by others one that they raised, which is more than we gave. */
static void object_told(struct rules *r, const struct nlmsghdr *nlh)
{
	const bool by_kernel = nlh->nlmsg_pid == 0;
	const char *table = table_of(nlh, !by_kernel);

	if (!table || strcmp(table, TABLE) != 0)
		return;
	if (by_kernel)
		depleted(r, nlh);
	else
		r->disturbed = true;
}

/* True: a transaction that disturbed us is complete. */
static bool take(struct rules *r, int len)
{
	bool told = false;

	for (const struct nlmsghdr *nlh = (void *)r->watch_buf; mnl_nlmsg_ok(nlh, len); nlh = mnl_nlmsg_next(nlh, &len)) {
		const unsigned type = nlh->nlmsg_type & 0xff;

		if (nlh->nlmsg_type >> 8 != NFNL_SUBSYS_NFTABLES || mnl_nlmsg_get_payload_len(nlh) < sizeof(struct nfgenmsg))
			continue;
		if (type == NFT_MSG_NEWGEN) {
			told = told || r->disturbed;
			r->disturbed = false;
		} else if (type == NFT_MSG_NEWOBJ) {
			object_told(r, nlh);
		} else if (disturbs(type) && table_of(nlh, true)) {
			r->disturbed = true;
		}
	}
	return told;
}

int rules_disturbed(struct rules *r)
{
	int result = 0;

	for (;;) {
		struct sockaddr_nl from = { 0 };
		struct iovec iov = { .iov_base = r->watch_buf, .iov_len = WATCH_LEN };
		struct msghdr m = { .msg_name = &from, .msg_namelen = sizeof(from), .msg_iov = &iov, .msg_iovlen = 1 };
		ssize_t n = recvmsg(r->watch_fd, &m, MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return result;
		if (n < 0 && errno != ENOBUFS)
			return -errno;
		if (n < 0 || m.msg_flags & MSG_TRUNC)
			result = result ? result : -ENOBUFS;
		else if (from.nl_pid == 0 && take(r, (int)n))
			result = 1;
	}
}
