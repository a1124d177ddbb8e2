/* config.h - egressd.yaml as a fixed struct without pointers, so that the supervisor gets it from a short-lived child
 * through a pipe and parses no YAML itself.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "compiler.h"

#define CONFIG_PATH   256
#define CONFIG_NAME   64
#define CONFIG_ROLES  16
#define CONFIG_DEVICES 8
#define CONFIG_IFNAME 16
#define CONFIG_MAGIC  0x65677231u	/* "egr1": layout of this struct */

enum config_failure { FAILURE_OPEN, FAILURE_CLOSED };

struct config_role {			/* role[0] is "outside" */
	char name[CONFIG_NAME];
	uint32_t ndevices;
	char device[CONFIG_DEVICES][CONFIG_IFNAME];
};

struct config {
	uint32_t magic;
	char gateway[CONFIG_NAME];
	char policy[CONFIG_PATH];
	char state_dir[CONFIG_PATH];	/* default /var/lib/egressd */
	char runtime_dir[CONFIG_PATH];	/* default /run/egressd; control.sock in it */
	uint32_t failure;		/* enum config_failure */
	uint32_t nroles;
	struct config_role role[CONFIG_ROLES];
	uint32_t queue_first, queue_count;	/* default 0, number of CPUs at most 8 */
	uint32_t pairs;			/* default 65536, a power of two; accounts: twice as many */
	uint32_t mark_mask;		/* exactly two bits; default 0x30000000 */
	uint32_t leases;		/* 0: inline only */
	uint32_t redis;			/* 1: the following are set */
	char redis_socket[CONFIG_PATH], redis_host[CONFIG_PATH];
	uint32_t redis_port;
	char redis_username[CONFIG_NAME], redis_password_file[CONFIG_PATH];
};

/* Parse the file. 0; -EINVAL with errors printed to `err` as file:line:col lines; other -errno when it cannot be read. */
int config_load(const char *path, struct config *ret, int err) MUST_CHECK;

struct diag_list;
struct policy_role;

/* As config_load() of a text; errors go to `d`, which was made for it. 0, -EINVAL, -ENOMEM. */
int config_parse(const char *text, size_t len, struct diag_list *d, struct config *ret) MUST_CHECK;

/* The roles as policy_compile.h takes them, CONFIG_ROLES have room in ret; they point into *c. Returns how many. */
size_t config_roles(const struct config *c, struct policy_role *ret);

/* The parsed configuration as YAML that parses to the same (egressd -n). 0, or -errno: not all of it was written. */
int config_print(const struct config *c, FILE *to);

/* Whole small file, malloc'd and NUL-terminated; 0 or -errno (-EFBIG over max). */
int config_read_file(const char *path, size_t max, char **ret_text, size_t *ret_len) MUST_CHECK;
/* What its -errno means, with the bound where it is that. */
#define CONFIG_READ_WHY 40
const char *config_read_why(int e, size_t max, char buf[CONFIG_READ_WHY]);
/* struct policy_env's zone_known(): libc takes a name that it does not find for UTC, without a word. */
bool config_zone_known(void *ctx, const char *name);
