/* ctl_policy.c - check, apply, confirm: policies as files. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "control_bounds.h"
#include "ctl.h"
#include "ctl_roles.h"
#include "yaml_tree.h"

static int read_networks(void *ctx, const char *path, char **ret, size_t *ret_len)
{
	(void)ctx;
	return config_read_file(path, POLICY_NETWORKS_MAX, ret, ret_len);
}

/* ---- diags ---- */

static void print_text(const struct diag_list *d)
{
	char text[DIAG_TEXT];

	for (uint32_t i = 0; i < d->count && i < DIAG_MAX; i++) {
		diag_format(d, i, text, sizeof(text));
		fputs(text, stdout);
	}
	if (d->count > DIAG_MAX)
		printf("and %u errors more\n", d->count - DIAG_MAX);
}

static void print_json(const struct diag_list *d)
{
	json_t *list = json_array();

	for (uint32_t i = 0; i < d->count && i < DIAG_MAX; i++) {
		const struct diag *x = &d->item[i];

		json_array_append_new(list, json_pack("{ss si si ss ss ss}", "file", d->file, "line", (int)x->line,
						      "col", (int)x->col, "severity", "error", "message", x->text,
						      "hint", x->hint));
	}
	ctl_print_json(list);
	json_decref(list);
}

/* Data of a workflow command: % and line ends are escaped, in properties , and : too. */
static void put_github(const char *text, bool property)
{
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;

		if (c == '%' || c < 0x20 || (property && (c == ',' || c == ':')))
			printf("%%%02X", c);
		else
			putchar(c);
	}
}

static void print_github(const struct diag_list *d)
{
	for (uint32_t i = 0; i < d->count && i < DIAG_MAX; i++) {
		const struct diag *x = &d->item[i];

		fputs("::error file=", stdout);
		put_github(d->file, true);
		if (x->line)
			printf(",line=%u,col=%u", x->line, x->col ? x->col : 1);
		fputs("::", stdout);
		put_github(x->text, false);
		if (x->hint[0]) {
			fputs("; ", stdout);
			put_github(x->hint, false);
		}
		putchar('\n');
	}
}

static void print_ok(const char *file, const void *blob, size_t size, bool json)
{
	struct policy p;
	const char *why = "";
	uint32_t blocking = 0, rules;

	if (policy_open(blob, size, &p, &why) < 0) {
		ctl_complain("%s: compiled policy: %s", file, why);
		return;
	}
	if (json) {
		ctl_print_policy(file, &p);
		return;
	}
	rules = p.h->nrules - p.h->ncontracts;
	for (uint32_t i = p.h->ncontracts; i < p.h->nrules; i++)
		blocking += p.rule[i].enforce;
	ctl_put(file);
	printf(": ok: mode %s, %u rule%s (%u blocking), %u contract%s, %u host%s\n",
	       p.h->flags & POLICY_ENFORCE ? "enforce" : "observe", rules, ctl_plural(rules), blocking, p.h->ncontracts,
	       ctl_plural(p.h->ncontracts), p.h->nhosts, ctl_plural(p.h->nhosts));
	ctl_put_policy(&p);
}

/* No error: rules may come later. */
static void note_no_rule(const char *file, const void *blob, size_t size)
{
	struct policy p;
	const char *why = "";

	if (policy_open(blob, size, &p, &why) < 0 || p.h->nrules > p.h->ncontracts)
		return;
	ctl_complain("note: %s: no rule: what leaves is counted, but has no limit%s", file,
		     p.h->flags & POLICY_ENFORCE ? ", and `mode: enforce` nothing to enforce" : "");
}

static void print_diags(const struct diag_list *d, const char *format)
{
	if (strcmp(format, "json") == 0)
		print_json(d);
	else if (strcmp(format, "github") == 0)
		print_github(d);
	else
		print_text(d);
}

/* Nothing could be checked: for programs an error of the whole file, for people `why`, unless NULL: they have been told. */
static int not_checked(const char *format, const char *file, const char *why)
{
	struct diag_list *d;

	if (strcmp(format, "text") == 0) {
		if (why)
			ctl_complain("%s: %s", file, why);
		return CTL_NO;
	}
	d = malloc(sizeof(*d));
	if (d) {
		diag_init(d, file, "", 0);
		diag_add(d, 0, 0, NULL, "%s", why ? why : "the policy cannot be checked without the roles in it; standard error tells why");
		print_diags(d, format);
	}
	free(d);
	return CTL_NO;
}

/* `alone`: the answer is all; else the text goes on to the daemon, which knows its roles. */
static int check_text(const struct ctl *c, const char *text, size_t len, const char *format, bool alone)
{
	static struct ctl_roles roles;
	struct policy_env env = { .read_file = read_networks, .zone_known = config_zone_known, .now = time(NULL) };
	struct diag_list *d;
	const char *file = c->arg[0];
	void *blob = NULL;
	size_t size = 0;
	int r;

	if (ctl_roles_read(c->config, &roles) < 0)
		return not_checked(format, c->config ? c->config : CTL_CONFIG, NULL);
	env.role = roles.role;
	env.nroles = roles.n;
	d = malloc(sizeof(*d));
	if (!d)
		return not_checked(format, file, strerror(ENOMEM));
	diag_init(d, file, text, len);
	r = policy_compile(text, len, &env, d, &blob, &size);
	if (r < 0 && r != -EINVAL)
		diag_add(d, 0, 0, NULL, "%s", strerror(-r));
	if (r < 0 || strcmp(format, "github") == 0 || (alone && c->format && strcmp(format, "json") == 0))
		print_diags(d, format);
	else if (alone)
		print_ok(file, blob, size, strcmp(format, "json") == 0);
	if (r == 0)
		note_no_rule(file, blob, size);
	if (r < 0 || alone)
		ctl_roles_note(&roles, text, len);
	if (r == 0)
		ctl_roles_devices(&roles, blob, size);
	free(blob);
	free(d);
	return r < 0 ? CTL_NO : CTL_OK;
}

static int read_policy(const char *format, const char *path, char **ret, size_t *ret_len)
{
	int r = config_read_file(path, POLICY_TEXT_MAX, ret, ret_len);
	char why[CONFIG_READ_WHY];

	return r < 0 ? not_checked(format, path, config_read_why(r, POLICY_TEXT_MAX, why)) : CTL_OK;
}

int ctl_check(const struct ctl *c)
{
	const char *format = c->format ? c->format : c->json ? "json" : "text";
	char *text;
	size_t len;
	int code;

	if (strcmp(format, "json") != 0 && strcmp(format, "github") != 0 && strcmp(format, "text") != 0) {
		ctl_complain("--format %s: json or github is expected", format);
		return CTL_USAGE;
	}
	if (read_policy(format, c->arg[0], &text, &len) != CTL_OK)
		return CTL_NO;
	code = check_text(c, text, len, format, true);
	free(text);
	return code;
}

/* ---- installing ---- */

static int sync_folder(const char *path)
{
	char folder[PATH_MAX];
	int fd, r;

	snprintf(folder, sizeof(folder), "%.*s", (int)(strrchr(path, '/') - path) + 1, path);
	fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	r = fsync(fd) < 0 ? -errno : 0;
	close(fd);
	return r;
}

static int write_new(int fd, const char *path, const char *text, size_t len)
{
	struct stat st;

	/* Whoever could read the old one can read the new one. */
	if (stat(path, &st) == 0) {
		if (fchown(fd, st.st_uid, st.st_gid) < 0 || fchmod(fd, st.st_mode & 0777) < 0)
			return -errno;
	} else if (fchmod(fd, 0640) < 0) {
		return -errno;
	}
	while (len > 0) {
		ssize_t n = write(fd, text, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		text += n;
		len -= (size_t)n;
	}
	return fsync(fd) < 0 ? -errno : 0;
}

/* Whole or not at all, also when the power fails. */
static int install(const char *to, const char *text, size_t len)
{
	char real[PATH_MAX], temporary[PATH_MAX + 16];
	int fd, r;

	if (!realpath(to, real))	/* a link stays a link */
		snprintf(real, sizeof(real), "%s", to);
	snprintf(temporary, sizeof(temporary), "%s.XXXXXX", real);
	fd = mkostemp(temporary, O_CLOEXEC);
	if (fd < 0)
		return -errno;
	r = write_new(fd, real, text, len);
	close(fd);
	if (r == 0 && rename(temporary, real) < 0)
		r = -errno;
	if (r < 0) {
		unlink(temporary);
		return r;
	}
	return sync_folder(real);
}

static int make_last(const json_t *reply, const char *text, size_t len)
{
	const char *path = ctl_string(reply, "path");
	int r;

	if (path[0] != '/')
		return CTL_OK;	/* not from a file */
	r = install(path, text, len);
	if (r == 0)
		return CTL_OK;
	ctl_complain("in force, but not written to %s: %s; a restart brings the old policy back", path, strerror(-r));
	return CTL_NO;
}

/* ---- apply, confirm ---- */

static json_t *apply_request(const struct ctl *c, const char *text, size_t len, uint64_t confirm_s)
{
	json_t *o = json_object(), *policy = json_stringn(text, len);

	json_object_set_new(o, "verb", json_string("apply"));
	json_object_set_new(o, "policy", policy ? policy : json_null());
	if (confirm_s)
		json_object_set_new(o, "confirm_s", json_integer((json_int_t)confirm_s));
	if (c->reason)
		json_object_set_new(o, "reason", json_string(c->reason));
	return o;
}

static void tell_applied(const json_t *reply, const struct ctl *c)
{
	char when[32];

	printf("policy %" PRIu64 " in force", ctl_number(reply, "version"));
	if (c->confirm)
		printf("; at %s the one before returns, unless: egressctl confirm",
		       ctl_when(reply, "goes_back_at", when));
	putchar('\n');
}

int ctl_apply(const struct ctl *c)
{
	const char *format = c->json ? "json" : "text";
	uint64_t confirm_s = 0;
	json_t *reply;
	char *text;
	size_t len;
	int code;

	if (c->confirm && (parse_duration(c->confirm, &confirm_s) < 0 || confirm_s == 0 || confirm_s > CONTROL_CONFIRM_MAX)) {
		ctl_complain("--confirm %s: a duration from 1s to 24h, such as 10m, is expected", c->confirm);
		return CTL_USAGE;
	}
	if (read_policy(format, c->arg[0], &text, &len) != CTL_OK)
		return CTL_NO;
	code = check_text(c, text, len, format, false);	/* all errors with their places, before it is sent */
	reply = code == CTL_OK ? ctl_ask(c, apply_request(c, text, len, confirm_s)) : NULL;
	if (reply) {
		code = ctl_verdict(reply);
		if (c->json)
			ctl_print_json(reply);
		else if (code == CTL_OK)
			tell_applied(reply, c);
		if (code == CTL_OK && !c->confirm)
			code = make_last(reply, text, len);
		json_decref(reply);
	} else {
		code = CTL_NO;
	}
	free(text);
	return code;
}

int ctl_confirm(const struct ctl *c)
{
	json_t *reply = ctl_ask(c, json_pack("{ss, ss*}", "verb", "confirm", "reason", c->reason));
	const char *text;
	int code;

	if (!reply)
		return CTL_NO;
	code = ctl_verdict(reply);
	text = ctl_string(reply, "policy");
	if (code == CTL_OK && !c->json)
		printf("policy %" PRIu64 " stays\n", ctl_number(reply, "version"));
	if (code == CTL_OK && text[0])
		code = make_last(reply, text, strlen(text));
	if (c->json)
		ctl_print_json(reply);
	json_decref(reply);
	return code;
}
