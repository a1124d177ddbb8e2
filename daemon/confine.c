/* confine.c - after start a process gives up what it will not need: capabilities and system calls. */
#include <cap-ng.h>
#include <errno.h>
#include <fcntl.h>
#include <seccomp.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "compiler.h"
#include "engine.h"

static bool holds_exactly(int capability)
{
	if (capng_get_caps_process() < 0)
		return false;
	for (unsigned i = 0; i <= CAP_LAST_CAP; i++) {
		bool want = (int)i == capability;

		if ((capng_have_capability(CAPNG_EFFECTIVE, i) != 0) != want ||
		    (capng_have_capability(CAPNG_PERMITTED, i) != 0) != want)
			return false;
	}
	return true;
}

bool confine_net_admin(void)
{
	return capng_get_caps_process() == 0 && capng_have_capability(CAPNG_EFFECTIVE, CAP_NET_ADMIN);
}

static int keep_capability(int capability)	/* -1: none */
{
	/* Under the service manager nothing is left to give up, and its filter refuses the call that would. */
	if (holds_exactly(capability))
		return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ? -errno : 0;
	capng_clear(CAPNG_SELECT_BOTH);
	if (capability >= 0 &&
	    capng_update(CAPNG_ADD, CAPNG_EFFECTIVE | CAPNG_PERMITTED, (unsigned)capability) < 0)
		return -EPERM;
	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
		return -errno;
	/* Bounding set too where we may (root, CAP_SETPCAP); where we may not, no_new_privs says the same. */
	if (capng_apply(CAPNG_SELECT_BOTH) < 0 && capng_apply(CAPNG_SELECT_CAPS) < 0)
		return -EPERM;
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ? -errno : 0;
}

static int deny(scmp_filter_ctx f, const int *call, size_t n)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < n; i++)
		if (call[i] != __NR_SCMP_ERROR)
			r = seccomp_rule_add(f, SCMP_ACT_ERRNO(EPERM), call[i], 0);
	return r;
}

static const int never[] = {
	SCMP_SYS(execve), SCMP_SYS(execveat), SCMP_SYS(ptrace), SCMP_SYS(process_vm_readv), SCMP_SYS(process_vm_writev),
	SCMP_SYS(mount), SCMP_SYS(umount2), SCMP_SYS(pivot_root), SCMP_SYS(chroot), SCMP_SYS(setns), SCMP_SYS(unshare),
	SCMP_SYS(bpf), SCMP_SYS(perf_event_open), SCMP_SYS(init_module), SCMP_SYS(finit_module), SCMP_SYS(delete_module),
	SCMP_SYS(kexec_load), SCMP_SYS(reboot), SCMP_SYS(swapon), SCMP_SYS(swapoff), SCMP_SYS(keyctl), SCMP_SYS(add_key),
	SCMP_SYS(userfaultfd), SCMP_SYS(io_uring_setup), SCMP_SYS(mknod), SCMP_SYS(mknodat), SCMP_SYS(setuid),
	SCMP_SYS(setgid), SCMP_SYS(setreuid), SCMP_SYS(setregid), SCMP_SYS(setresuid), SCMP_SYS(setresgid),
	SCMP_SYS(capset), SCMP_SYS(personality), SCMP_SYS(acct), SCMP_SYS(settimeofday), SCMP_SYS(clock_settime),
};

static const int not_in_engine[] = {
	SCMP_SYS(socket), SCMP_SYS(socketpair), SCMP_SYS(bind), SCMP_SYS(connect), SCMP_SYS(listen), SCMP_SYS(accept),
	SCMP_SYS(accept4), SCMP_SYS(creat), SCMP_SYS(unlink), SCMP_SYS(unlinkat), SCMP_SYS(rename), SCMP_SYS(renameat),
	SCMP_SYS(renameat2), SCMP_SYS(link), SCMP_SYS(linkat), SCMP_SYS(symlink), SCMP_SYS(symlinkat), SCMP_SYS(mkdir),
	SCMP_SYS(mkdirat), SCMP_SYS(rmdir), SCMP_SYS(chmod), SCMP_SYS(fchmod), SCMP_SYS(fchmodat), SCMP_SYS(chown),
	SCMP_SYS(fchown), SCMP_SYS(fchownat), SCMP_SYS(lchown), SCMP_SYS(truncate), SCMP_SYS(fork), SCMP_SYS(vfork),
	SCMP_SYS(openat2), SCMP_SYS(kill), SCMP_SYS(tkill),
};

/* Opening for reading only: the access mode must be O_RDONLY and nothing may be created. */
static int read_only_open(scmp_filter_ctx f)
{
	const uint64_t bit[] = { O_WRONLY, O_RDWR, O_CREAT, O_TRUNC };
	int r = 0;

	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(bit); i++) {
		r = seccomp_rule_add(f, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(openat), 1,
				     SCMP_A2(SCMP_CMP_MASKED_EQ, bit[i], bit[i]));
		if (r == 0)
			r = seccomp_rule_add(f, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(open), 1,
					     SCMP_A1(SCMP_CMP_MASKED_EQ, bit[i], bit[i]));
	}
	return r;
}

static int confine(bool engine)
{
	scmp_filter_ctx f = seccomp_init(SCMP_ACT_ALLOW);
	int r;

	if (!f)
		return -ENOMEM;
	r = deny(f, never, ARRAY_SIZE(never));
	if (r == 0 && engine)
		r = deny(f, not_in_engine, ARRAY_SIZE(not_in_engine));
	if (r == 0 && engine)
		r = read_only_open(f);
	if (r == 0)
		r = seccomp_load(f);
	seccomp_release(f);
	return r;
}

int confine_engine(void)
{
	int r = keep_capability(CAP_NET_ADMIN);

	return r < 0 ? r : confine(true);
}

int confine_relay(void)
{
	int r = keep_capability(-1);

	return r < 0 ? r : confine(false);
}
