/* config.c - see config.h. One row a key: parser, printer and tests walk the same table. */
#include "config.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "diag.h"
#include "policy_compile.h"
#include "yaml_tree.h"

#define FILE_MAX (1U << 20)

int config_read_file(const char *path, size_t max, char **ret_text, size_t *ret_len)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), r = 0;
	size_t at = 0;
	char *text;

	if (fd < 0)
		return -errno;
	text = malloc(max + 2);
	if (!text)
		r = -ENOMEM;
	while (r == 0 && at <= max) {
		ssize_t n = read(fd, text + at, max + 1 - at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			r = -errno;
		if (n <= 0)
			break;
		at += (size_t)n;
	}
	close(fd);
	if (r == 0 && at > max)
		r = -EFBIG;
	if (r < 0) {
		free(text);
		return r;
	}
	text[at] = '\0';
	*ret_text = text;
	*ret_len = at;
	return 0;
}

const char *config_read_why(int e, size_t max, char buf[CONFIG_READ_WHY])
{
	if (e != -EFBIG)
		return strerror(-e);
	if (max >> 20)
		snprintf(buf, CONFIG_READ_WHY, "larger than %zu MiB", max >> 20);
	else
		snprintf(buf, CONFIG_READ_WHY, "larger than %zu bytes", max);
	return buf;
}

bool config_zone_known(void *ctx, const char *name)
{
	char path[128], *text;
	size_t len;
	bool known;

	(void)ctx;
	snprintf(path, sizeof(path), "/usr/share/zoneinfo/%s", name);
	if (config_read_file(path, FILE_MAX, &text, &len) < 0)
		return false;
	known = len > 4 && memcmp(text, "TZif", 4) == 0;
	free(text);
	return known;
}

/* ---- scalars ---- */

static bool is_name(const char *s)
{
	if (!*s || strlen(s) >= CONFIG_NAME)
		return false;
	for (; *s; s++)
		if (!((*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z') || (*s >= '0' && *s <= '9') || *s == '-' ||
		      *s == '_' || *s == '.'))
			return false;
	return true;
}

static bool is_device(const char *s)
{
	if (!*s || strlen(s) >= CONFIG_IFNAME || strcmp(s, ".") == 0 || strcmp(s, "..") == 0)
		return false;
	for (; *s; s++)		/* as the kernel has it; the policy's compiler passes over others */
		if (*s == '/' || *s == ':' || !isgraph((unsigned char)*s))
			return false;
	return true;
}

static void text_into(const struct yaml_node *n, char *to, size_t size, const char *what, struct diag_list *d)
{
	if (n->kind != YAML_SCALAR || !*n->text)
		diag_add(d, n->line, n->col, NULL, "%s is expected here", what);
	else if (strchr(n->text, '\n'))
		diag_add(d, n->line, n->col, "write it on one line", "%s of several lines", what);
	else if (strlen(n->text) >= size)
		diag_add(d, n->line, n->col, NULL, "longer than %zu characters", size - 1);
	else
		snprintf(to, size, "%s", n->text);
}

static void path_into(const struct yaml_node *n, char to[CONFIG_PATH], struct diag_list *d)
{
	text_into(n, to, CONFIG_PATH, "an absolute path", d);
	if (n->kind == YAML_SCALAR && *n->text && n->text[0] != '/')
		diag_add(d, n->line, n->col, "start it with /", "%s: not an absolute path", n->text);
}

static void name_into(const struct yaml_node *n, char to[CONFIG_NAME], struct diag_list *d)
{
	text_into(n, to, CONFIG_NAME, "a name", d);
	if (n->kind == YAML_SCALAR && *n->text && !is_name(n->text))
		diag_add(d, n->line, n->col, "letters, digits, '-', '_' and '.'", "%s: not a name", n->text);
}

static void choice(const struct yaml_node *n, const char *const *names, uint32_t *ret, struct diag_list *d)
{
	char hint[96];
	const char *near;

	for (uint32_t i = 0; n->kind == YAML_SCALAR && names[i]; i++)
		if (strcmp(names[i], n->text) == 0) {
			*ret = i;
			return;
		}
	near = n->kind == YAML_SCALAR ? diag_nearest(n->text, names) : NULL;
	snprintf(hint, sizeof(hint), near ? "did you mean '%s'?" : "one of: %s, %s", near ? near : names[0], names[1]);
	diag_add(d, n->line, n->col, hint, "%s: unknown value", n->text);
}

/* ---- keys ---- */

static void key_gateway(const struct yaml_node *n, struct config *c, struct diag_list *d)
{
	name_into(n, c->gateway, d);
}

static void key_policy(const struct yaml_node *n, struct config *c, struct diag_list *d)
{
	if (n->kind == YAML_SCALAR && strcmp(n->text, "redis") == 0)
		diag_add(d, n->line, n->col, "name a file", "policy from Redis is not yet supported");
	else
		path_into(n, c->policy, d);
}

static void key_state_dir(const struct yaml_node *n, struct config *c, struct diag_list *d)
{
	path_into(n, c->state_dir, d);
}

static void key_runtime_dir(const struct yaml_node *n, struct config *c, struct diag_list *d)
{
	path_into(n, c->runtime_dir, d);
	if (strlen(c->runtime_dir) > 90)	/* sun_path holds 108 */
		diag_add(d, n->line, n->col, NULL, "longer than 90 characters: a socket's path would not fit");
}

static void key_failure(const struct yaml_node *n, struct config *c, struct diag_list *d)
{
	static const char *const names[] = { "open", "closed", NULL };

	choice(n, names, &c->failure, d);
}

static void key_leases(const struct yaml_node *n, struct config *c, struct diag_list *d)
{
	static const char *const names[] = { "off", "on", NULL };

	choice(n, names, &c->leases, d);
}

static void key_mark_mask(const struct yaml_node *n, struct config *c, struct diag_list *d)
{
	char *end = NULL;
	unsigned long v = n->kind == YAML_SCALAR ? strtoul(n->text, &end, 0) : 0;

	if (!end || *end || n->text[0] < '0' || n->text[0] > '9' || v > UINT32_MAX ||
	    __builtin_popcountl(v) != 2)
		diag_add(d, n->line, n->col, "such as 0x30000000", "mark_mask: exactly two bits are expected");
	else
		c->mark_mask = (uint32_t)v;
}

static void role(const struct yaml_node *n, struct config_role *r, struct diag_list *d)
{
	if (!is_name(n->key))
		diag_add(d, n->key_line, n->key_col, "letters, digits, '-', '_' and '.'", "%s: not a name", n->key);
	snprintf(r->name, sizeof(r->name), "%s", n->key);
	if (n->kind != YAML_LIST || n->count == 0 || n->count > CONFIG_DEVICES) {
		diag_add(d, n->line, n->col, "such as [eth0]", "%s: a list of 1 to %d devices is expected", n->key,
			 CONFIG_DEVICES);
		return;
	}
	for (const struct yaml_node *v = n->child; v; v = v->next) {
		if (v->kind != YAML_SCALAR || !is_device(v->text))
			diag_add(d, v->line, v->col, "at most 15 characters", "%s: not a device name", v->text);
		else
			snprintf(r->device[r->ndevices++], CONFIG_IFNAME, "%s", v->text);
	}
}

static void key_interfaces(const struct yaml_node *n, struct config *c, struct diag_list *d)
{
	const struct yaml_node *outside = yaml_get(n, "outside");

	if (n->kind != YAML_MAP || !outside) {
		if (n->kind != YAML_MAP || yaml_lacks(n, "outside"))
			diag_add(d, n->line, n->col, "such as outside: [eth0]", "interfaces: 'outside' is missing");
		return;
	}
	if (n->count > CONFIG_ROLES) {
		diag_add(d, n->line, n->col, NULL, "more than %d roles", CONFIG_ROLES);
		return;
	}
	role(outside, &c->role[0], d);
	c->nroles = 1;
	for (const struct yaml_node *v = n->child; v; v = v->next)
		if (v != outside)
			role(v, &c->role[c->nroles++], d);
}

static void number(const struct yaml_node *map, const char *key, uint64_t min, uint64_t max, uint32_t *ret,
		   struct diag_list *d)
{
	const struct yaml_node *n = yaml_get(map, key);
	uint64_t v;

	if (n && yaml_uint(n, d, min, max, &v) == 0)
		*ret = (uint32_t)v;
}

static bool map_with(const struct yaml_node *n, const char *const *keys, struct diag_list *d)
{
	if (n->kind != YAML_MAP) {
		diag_add(d, n->line, n->col, NULL, "%s: 'key: value' lines are expected", n->key);
		return false;
	}
	yaml_known_keys(n, keys, d);
	return true;
}

static void key_queues(const struct yaml_node *n, struct config *c, struct diag_list *d)
{
	static const char *const keys[] = { "first", "count", NULL };

	if (!map_with(n, keys, d))
		return;
	number(n, "first", 0, 65535 - 8, &c->queue_first, d);
	number(n, "count", 1, 8, &c->queue_count, d);
}

static void key_table(const struct yaml_node *n, struct config *c, struct diag_list *d)
{
	static const char *const keys[] = { "pairs", NULL };

	if (!map_with(n, keys, d))
		return;
	number(n, "pairs", 1024, 1U << 22, &c->pairs, d);
	if (c->pairs & (c->pairs - 1))
		diag_add(d, n->line, n->col, "such as 65536", "table.pairs: a power of two is expected");
}

/* A name or IPv4 address without colons, or an IPv6 address in brackets, which are taken off: *ret_text, *ret_len. */
static bool host_of(const char *text, size_t len, const char **ret_text, size_t *ret_len)
{
	bool v6 = len > 2 && text[0] == '[' && text[len - 1] == ']';

	text += v6;
	len -= v6 ? 2 : 0;
	if (len == 0 || len >= CONFIG_PATH)
		return false;
	for (size_t i = 0; i < len; i++)
		if (!isalnum((unsigned char)text[i]) && !strchr(v6 ? ":.%" : "-._", text[i]))
			return false;
	*ret_text = text;
	*ret_len = len;
	return !v6 || memchr(text, ':', len);
}

/* "host:port", "[v6]:port" */
static void redis_address(const struct yaml_node *n, struct config *c, struct diag_list *d)
{
	const char *colon = strrchr(n->text, ':'), *host;
	unsigned long port = colon && isdigit((unsigned char)colon[1]) ? strtoul(colon + 1, NULL, 10) : 0;
	size_t len;

	if (!colon || port == 0 || port > 65535 || colon[1 + strspn(colon + 1, "0123456789")] ||
	    !host_of(n->text, (size_t)(colon - n->text), &host, &len)) {
		diag_add(d, n->line, n->col, "such as 10.0.0.5:6379 or [fd00::5]:6379", "%s: host:port is expected", n->text);
		return;
	}
	snprintf(c->redis_host, sizeof(c->redis_host), "%.*s", (int)len, host);
	c->redis_port = (uint32_t)port;
}

static void key_redis(const struct yaml_node *n, struct config *c, struct diag_list *d)
{
	static const char *const keys[] = { "socket", "address", "username", "password_file", NULL };
	const struct yaml_node *v = yaml_get(n, "password");

	if (v) {
		diag_add(d, v->key_line, v->key_col, "put it into a file: password_file: /etc/egressd/redis.password",
			 "password: unknown key");
		diag_close(d, v->key_line, v->key_col);
	}
	if (!map_with(n, keys, d))
		return;
	c->redis = 1;
	v = yaml_get(n, "socket");
	if (v)
		path_into(v, c->redis_socket, d);
	if (yaml_get(n, "address"))
		redis_address(yaml_get(n, "address"), c, d);
	if (!n->partial && !v == !yaml_get(n, "address"))
		diag_add(d, n->line, n->col, NULL, "redis: either socket or address is expected");
	v = yaml_get(n, "username");
	if (v)
		name_into(v, c->redis_username, d);
	v = yaml_get(n, "password_file");
	if (v)
		path_into(v, c->redis_password_file, d);
}

static void key_metrics(const struct yaml_node *n, struct config *c, struct diag_list *d)
{
	(void)c;
	diag_add(d, n->key_line, n->key_col, "remove it", "metrics are not yet supported");
}

static const struct key {
	const char *name;
	void (*parse)(const struct yaml_node *n, struct config *c, struct diag_list *d);
	bool required;
} keys[] = {
	{ "gateway", key_gateway, true },
	{ "policy", key_policy, true },
	{ "state_dir", key_state_dir, false },
	{ "runtime_dir", key_runtime_dir, false },
	{ "failure", key_failure, false },
	{ "interfaces", key_interfaces, true },
	{ "queues", key_queues, false },
	{ "table", key_table, false },
	{ "mark_mask", key_mark_mask, false },
	{ "leases", key_leases, false },
	{ "redis", key_redis, false },
	{ "metrics", key_metrics, false },
};

#define NKEYS (sizeof(keys) / sizeof(keys[0]))

static struct config defaults(void)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	struct config c = {
		.magic = CONFIG_MAGIC,
		.failure = FAILURE_OPEN,
		.queue_count = cpus < 1 ? 1 : cpus > 8 ? 8 : (uint32_t)cpus,
		.pairs = 65536,
		.mark_mask = 0x30000000,
		.leases = 1,
	};

	snprintf(c.state_dir, sizeof(c.state_dir), "/var/lib/egressd");
	snprintf(c.runtime_dir, sizeof(c.runtime_dir), "/run/egressd");
	return c;
}

static void parse(const struct yaml_node *root, struct config *c, struct diag_list *d)
{
	const char *names[NKEYS + 1];

	for (size_t i = 0; i < NKEYS; i++)
		names[i] = keys[i].name;
	names[NKEYS] = NULL;
	yaml_known_keys(root, names, d);
	for (size_t i = 0; i < NKEYS; i++) {
		const struct yaml_node *n = yaml_get(root, keys[i].name);

		if (n)
			keys[i].parse(n, c, d);
		else if (keys[i].required && yaml_lacks(root, keys[i].name))
			diag_add(d, 0, 0, NULL, "'%s' is missing", keys[i].name);
	}
}

static void print_diags(const struct diag_list *d, int err)
{
	char text[DIAG_TEXT];

	for (uint32_t i = 0; i < d->count && i < DIAG_MAX; i++) {
		diag_format(d, i, text, sizeof(text));
		dprintf(err, "%s", text);
	}
	if (d->count > DIAG_MAX)
		dprintf(err, "and %u more errors\n", d->count - DIAG_MAX);
}

int config_parse(const char *text, size_t len, struct diag_list *d, struct config *ret)
{
	struct config c = defaults();
	struct yaml_tree *tree;
	int r = yaml_tree_parse(text, len, d, &tree);

	if (tree)
		parse(yaml_tree_root(tree), &c, d);
	yaml_tree_free(tree);
	diag_sort(d);
	if (r < 0 || d->count)
		return r < 0 ? r : -EINVAL;
	*ret = c;
	return 0;
}

int config_load(const char *path, struct config *ret, int err)
{
	struct diag_list *d = malloc(sizeof(*d));
	char *text = NULL, why[CONFIG_READ_WHY];
	size_t len;
	int r = d ? config_read_file(path, FILE_MAX, &text, &len) : -ENOMEM;

	if (r < 0) {
		dprintf(err, "%s: %s\n", path, config_read_why(r, FILE_MAX, why));
		free(d);
		return r;
	}
	diag_init(d, path, text, len);
	r = config_parse(text, len, d, ret);
	print_diags(d, err);
	if (r < 0 && !d->count)
		dprintf(err, "%s: %s\n", path, strerror(-r));
	free(text);
	free(d);
	return r;
}

size_t config_roles(const struct config *c, struct policy_role *ret)
{
	_Static_assert(CONFIG_DEVICES <= POLICY_IFACES, "every device of a role has a place");
	for (uint32_t i = 0; i < c->nroles; i++) {
		ret[i] = (struct policy_role){ .role = c->role[i].name };
		for (uint32_t k = 0; k < c->role[i].ndevices; k++)
			ret[i].device[k] = c->role[i].device[k];
	}
	return c->nroles;
}

/* Quoted: what is text stays text, whatever stands in it. */
static void print_text(FILE *to, const char *before, const char *text, const char *after)
{
	char quoted[2 * CONFIG_PATH], *at = quoted;

	for (; *text; *at++ = *text++)
		if (*text == '"' || *text == '\\')
			*at++ = '\\';
	*at = '\0';
	fprintf(to, "%s\"%s\"%s", before, quoted, after);
}

static void print_redis(const struct config *c, FILE *to)
{
	char port[16];

	fprintf(to, "redis:\n");
	snprintf(port, sizeof(port), ":%u\"\n", c->redis_port);
	if (c->redis_socket[0])
		print_text(to, "  socket: ", c->redis_socket, "\n");
	else
		fprintf(to, strchr(c->redis_host, ':') ? "  address: \"[%s]%s" : "  address: \"%s%s", c->redis_host, port);
	if (c->redis_username[0])
		print_text(to, "  username: ", c->redis_username, "\n");
	if (c->redis_password_file[0])
		print_text(to, "  password_file: ", c->redis_password_file, "\n");
}

int config_print(const struct config *c, FILE *to)
{
	errno = 0;
	print_text(to, "gateway: ", c->gateway, "\n");
	print_text(to, "policy: ", c->policy, "\n");
	print_text(to, "state_dir: ", c->state_dir, "\n");
	print_text(to, "runtime_dir: ", c->runtime_dir, "\n");
	fprintf(to, "failure: %s\ninterfaces:\n", c->failure == FAILURE_CLOSED ? "closed" : "open");
	for (uint32_t i = 0; i < c->nroles; i++) {
		print_text(to, "  ", c->role[i].name, ": [");
		for (uint32_t k = 0; k < c->role[i].ndevices; k++)
			print_text(to, k ? ", " : "", c->role[i].device[k], "");
		fprintf(to, "]\n");
	}
	fprintf(to, "queues: {first: %u, count: %u}\ntable: {pairs: %u}\nmark_mask: 0x%08x\nleases: %s\n", c->queue_first,
		c->queue_count, c->pairs, c->mark_mask, c->leases ? "on" : "off");
	if (c->redis)
		print_redis(c, to);
	return fflush(to) == 0 && !ferror(to) ? 0 : errno ? -errno : -EIO;
}
