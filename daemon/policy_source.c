/* policy_source.c - see policy_source.h. */
#include "policy_source.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "clock.h"
#include "devices.h"
#include "file_replace.h"
#include "log.h"
#include "policy.h"
#include "policy_compile.h"
#include "service_file.h"
#include "time_servers.h"

#define BLOB_MAX    (16U << 20)
#define PROTECT_MAX 64

static int read_networks(void *ctx, const char *path, char **ret_text, size_t *ret_len)
{
	struct stat st;

	(void)ctx;
	if (stat(path, &st) == 0 && !S_ISREG(st.st_mode))
		return -EINVAL;		/* of a FIFO nobody knows when it ends */
	return config_read_file(path, POLICY_NETWORKS_MAX, ret_text, ret_len);
}

/* ctx: descriptor for notes, of egressd -n. */
static int check_networks(void *ctx, const char *path, char **ret_text, size_t *ret_len)
{
	int r = read_networks(NULL, path, ret_text, ret_len);

	if (r == 0)
		service_file_note(path, *(const int *)ctx);
	return r;
}

static size_t add_address(const char *text, struct prefix *to, size_t n)
{
	struct addr a;

	if (n == PROTECT_MAX || addr_parse(text, &a) < 0)
		return n;
	to[n] = (struct prefix){ .addr = a, .len = 128 };
	return n + 1;
}

static size_t add_resolvers(struct prefix *to, size_t n)
{
	char *text = NULL, *line, *save = NULL;
	size_t len;

	if (config_read_file("/etc/resolv.conf", 65536, &text, &len) < 0)
		return n;
	for (line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char address[64];

		if (sscanf(line, "nameserver %63s", address) == 1)
			n = add_address(address, to, n);
	}
	free(text);
	return n;
}

/* What must never be cut off by a rule: Redis, the resolvers of this machine and its time servers. */
static size_t built_in_protect(const struct config *c, struct prefix to[PROTECT_MAX])
{
	struct time_servers times = { 0 };
	size_t n = 0;

	if (c->redis && c->redis_host[0]) {
		n = add_address(c->redis_host, to, n);
		if (n == 0 && strcasecmp(c->redis_host, "localhost") != 0)	/* loopback is never refused */
			time_servers_add(&times, c->redis_host);	/* looked up with theirs, and before them */
	}
	n = add_resolvers(to, n);
	time_servers_read("", &times);
	return n + time_servers_addresses(&times, to + n, PROTECT_MAX - n);
}

static int seal(const void *blob, size_t size)
{
	int fd = memfd_create("egressd-policy", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0)
		return -errno;
	if (write(fd, blob, size) != (ssize_t)size ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
		close(fd);
		return -EIO;
	}
	return fd;
}

static void tell(const struct diag_list *d, char *why, size_t size)
{
	char text[DIAG_TEXT];

	for (uint32_t i = 0; i < d->count && i < DIAG_MAX; i++) {
		diag_format(d, i, text, sizeof(text));
		text[strcspn(text, "\n")] = '\0';	/* one line each; `egressctl check` shows the places */
		if (i == 0)
			snprintf(why, size, "%s%s", text, d->count > 1 ? " (and more: egressctl check shows all)" : "");
		log_error("%s", text);
	}
}

/* err: of egressd -n; NULL. */
static int compile(const struct config *c, const char *text, size_t len, const struct prefix *protect, size_t nprotect, int *err,
		   struct diag_list *d, void **ret_blob, size_t *ret_size)
{
	struct policy_role role[CONFIG_ROLES];
	struct policy_env env = {
		.read_file = err ? check_networks : read_networks,
		.ctx = err,
		.zone_known = config_zone_known,
		.role = role,
		.nroles = config_roles(c, role),
		.protect = protect,
		.nprotect = nprotect,
		.now = (int64_t)(clock_wall_us() / 1000000),
	};

	diag_init(d, c->policy, text, len);
	return policy_compile(text, len, &env, d, ret_blob, ret_size);
}

static int compile_and_tell(const struct config *c, const char *text, size_t len, void **ret_blob, size_t *ret_size, char *why,
			    size_t why_size)
{
	struct diag_list *d = malloc(sizeof(*d));
	struct prefix protect[PROTECT_MAX];
	int r;

	if (!d)
		return -ENOMEM;
	r = compile(c, text, len, protect, built_in_protect(c, protect), NULL, d, ret_blob, ret_size);
	if (r == -EINVAL)
		tell(d, why, why_size);
	free(d);
	return r;
}

static void note_device(void *ctx, const char *name, const char *text)
{
	(void)name;
	dprintf(*(const int *)ctx, "note: %s\n", text);
}

static void note_devices(const struct config *c, const void *blob, size_t size, int err)
{
	const char *why;
	struct policy view;

	if (policy_open(blob, size, &view, &why) == 0)
		devices_of_policy(c, &view, note_device, &err);
}

static int check_text(const struct config *c, const char *text, size_t len, int err)
{
	struct diag_list *d = malloc(sizeof(*d));
	char line[DIAG_TEXT];
	void *blob = NULL;
	size_t size;
	int r = d ? compile(c, text, len, NULL, 0, &err, d, &blob, &size) : -ENOMEM;

	for (uint32_t i = 0; d && i < d->count && i < DIAG_MAX; i++) {
		diag_format(d, i, line, sizeof(line));
		dprintf(err, "%s", line);
	}
	if (r == 0)
		note_devices(c, blob, size, err);
	free(blob);
	free(d);
	return r;
}

int policy_source_check(const struct config *c, int err)
{
	char *text, why[CONFIG_READ_WHY];
	size_t len;
	int r = config_read_file(c->policy, POLICY_TEXT_MAX, &text, &len);

	if (r < 0) {
		dprintf(err, "policy %s: %s\n", c->policy, config_read_why(r, POLICY_TEXT_MAX, why));
		return r;
	}
	service_file_note(c->policy, err);
	r = check_text(c, text, len, err);
	free(text);
	return r;
}

int policy_source_compile(const struct config *c, const char *text, size_t len, struct compiled *ret, char *why,
			  size_t why_size)
{
	struct compiled p = { .fd = -1 };
	char *own = NULL, buf[CONFIG_READ_WHY];
	int r = 0;

	if (!text) {
		r = config_read_file(c->policy, POLICY_TEXT_MAX, &own, &len);
		if (r < 0) {
			snprintf(why, why_size, "policy %s: %s%s", c->policy, config_read_why(r, POLICY_TEXT_MAX, buf),
				 r == -EACCES ? "; egressd's group must be able to read it and its folder" : "");
			return r;
		}
		text = own;
	}
	r = compile_and_tell(c, text, len, &p.blob, &p.size, why, why_size);
	free(own);
	if (r < 0)
		return r;
	p.fd = seal(p.blob, p.size);
	if (p.fd < 0) {
		r = p.fd;
		compiled_free(&p);
		return r;
	}
	*ret = p;
	return 0;
}

int policy_source_last(const struct config *c, struct compiled *ret)
{
	struct compiled p = { .fd = -1 };
	char path[CONFIG_PATH + 32], *text;
	const char *why;
	struct policy view;
	int r;

	snprintf(path, sizeof(path), "%s/policy.blob", c->state_dir);
	r = config_read_file(path, BLOB_MAX, &text, &p.size);
	if (r < 0)
		return r;
	p.blob = text;
	r = policy_open(p.blob, p.size, &view, &why);
	if (r == 0) {
		p.fd = seal(p.blob, p.size);
		r = p.fd < 0 ? p.fd : 0;
	}
	if (r < 0) {
		compiled_free(&p);
		return r;
	}
	*ret = p;
	return 0;
}

int policy_source_keep(const struct config *c, const struct compiled *p)
{
	char path[CONFIG_PATH + 32];

	snprintf(path, sizeof(path), "%s/policy.blob", c->state_dir);
	return file_replace(path, p->blob, p->size, true);
}

void compiled_free(struct compiled *p)
{
	if (p->fd >= 0)
		close(p->fd);
	free(p->blob);
	*p = (struct compiled){ .fd = -1 };
}
