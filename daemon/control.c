/* control.c - the control socket: who asks, finding a request's verb, its reply. See control.h. */
#include <errno.h>
#include <grp.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/acl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "clock.h"
#include "control_internal.h"
#include "log.h"

#define BACKLOG	 32
#define OWNER_MS 5000		/* a predecessor's last work */
#define GROUPS	 1024		/* of a peer; more are not looked at */

static struct {			/* looked up once, before the process is confined */
	gid_t read, change;
	bool have_read, have_change;
} who;

static const char *const no_keys[] = { NULL };
static const char *const why_keys[] = { "host", "dest", NULL };
static const char *const id_keys[] = { "id", NULL };
static const char *const block_keys[] = { "host", "dest", "for_s", "reason", NULL };
static const char *const grant_keys[] = { "host", "dest", "budget_bytes", "for_s", "reason", NULL };
static const char *const observe_keys[] = { "for_s", "reason", NULL };
static const char *const apply_keys[] = { "policy", "confirm_s", "reason", NULL };
static const char *const reason_keys[] = { "reason", NULL };

static const struct control_verb verbs[] = {
	{ "status", false, no_keys, control_status },
	{ "findings", false, no_keys, control_findings },
	{ "why", false, why_keys, control_why },
	{ "explain", false, id_keys, control_explain },
	{ "blocks", false, no_keys, control_blocks },
	{ "debug check", false, no_keys, control_debug },
	{ "block", true, block_keys, control_block },
	{ "unblock", true, grant_keys, control_unblock },
	{ "allow", true, grant_keys, control_allow },
	{ "observe", true, observe_keys, control_observe },
	{ "reload", true, reason_keys, control_reload },
	{ "apply", true, apply_keys, control_apply },
	{ "confirm", true, reason_keys, control_confirm },
};

/* ---- requests ---- */

int control_refuse(struct control_call *q, int error, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(q->why, sizeof(q->why), fmt, ap);
	va_end(ap);
	return error;
}

int control_text(struct control_call *q, const char *key, size_t max, bool optional, const char **ret)
{
	const json_t *v = json_object_get(q->args, key);

	if ((!v || json_is_null(v)) && optional) {
		*ret = NULL;
		return 0;
	}
	if (!json_is_string(v) || json_string_length(v) == 0)
		return control_refuse(q, -EINVAL, "%s: a text is expected", key);
	if (json_string_length(v) > max)
		return control_refuse(q, -EINVAL, "%s: longer than %zu bytes", key, max);
	*ret = json_string_value(v);
	return 0;
}

int control_number(struct control_call *q, const char *key, uint64_t min, uint64_t max, bool optional, uint64_t *ret)
{
	const json_t *v = json_object_get(q->args, key);

	if ((!v || json_is_null(v)) && optional)
		return 0;
	if (!json_is_integer(v) || json_integer_value(v) < 0 || (uint64_t)json_integer_value(v) < min ||
	    (uint64_t)json_integer_value(v) > max)
		return control_refuse(q, -EINVAL, "%s: a whole number from %" PRIu64 " to %" PRIu64 " is expected", key, min,
				      max);
	*ret = (uint64_t)json_integer_value(v);
	return 0;
}

/* The parser recurses for each level: known before it starts. */
static bool too_deep(const char *s, size_t len)
{
	unsigned depth = 0;
	bool text = false;

	for (size_t i = 0; i < len; i++) {
		if (text && s[i] == '\\')
			i++;
		else if (s[i] == '"')
			text = !text;
		else if (!text && (s[i] == '{' || s[i] == '['))
			depth++;
		else if (!text && (s[i] == '}' || s[i] == ']') && depth)
			depth--;
		if (depth > CONTROL_DEPTH)
			return true;
	}
	return false;
}

static const struct control_verb *verb_of(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
		if (strcmp(verbs[i].name, name) == 0)
			return &verbs[i];
	return NULL;
}

static bool known_key(const struct control_verb *v, const char *key)
{
	if (strcmp(key, "verb") == 0)
		return true;
	for (const char *const *k = v->keys; *k; k++)
		if (strcmp(*k, key) == 0)
			return true;
	return false;
}

/* -EBADMSG: not a request at all. */
static int understand(struct control_call *q, size_t len, const struct control_verb **ret_verb)
{
	const char *name = json_string_value(json_object_get(q->args, "verb"));
	const struct control_verb *v;
	const char *key;
	json_t *value;

	if (!name)
		return control_refuse(q, -EBADMSG, "not a request: an object with \"verb\" is expected");
	v = verb_of(name);
	if (!v)
		return control_refuse(q, -EBADMSG, "unknown verb '%.40s'", name);
	if (len > CONTROL_REQUEST && v->run != control_apply)
		return control_refuse(q, -EBADMSG, "request longer than %u bytes", CONTROL_REQUEST);
	json_object_foreach(q->args, key, value)
		if (!known_key(v, key))
			return control_refuse(q, -EBADMSG, "%s: unknown argument '%.40s'", name, key);
	*ret_verb = v;
	return 0;
}

static int parse(struct control_call *q, const char *buf, size_t len)
{
	json_error_t e;

	if (len > CONTROL_APPLY)
		return control_refuse(q, -EBADMSG, "request longer than %u bytes", CONTROL_APPLY);
	if (too_deep(buf, len))
		return control_refuse(q, -EBADMSG, "nested deeper than %u levels", CONTROL_DEPTH);
	q->args = json_loadb(buf, len, JSON_REJECT_DUPLICATES, &e);
	if (!q->args)
		return control_refuse(q, -EBADMSG, "not JSON: %s at byte %d", e.text, e.position);
	return 0;
}

static int run(struct control_call *q, const char *buf, size_t len, int change, json_t *reply)
{
	const struct policy *p = q->ctx->policy;
	const struct control_verb *v = NULL;
	int r = parse(q, buf, len);

	if (r == 0)
		r = understand(q, len, &v);
	if (r < 0) {
		q->ctx->malformed++;
		return r;
	}
	if (v->change && !change) {
		r = control_refuse(q, -EACCES, "%s: root or a member of group egressd-admin may do this", v->name);
		log_notice("uid %u: %s refused: not permitted", q->uid, v->name);
		return r;
	}
	/* Clock times are printed in the policy's zone. */
	control_set_text(reply, "timezone", p ? policy_string(p, p->h->timezone) : "");
	return v->run(q, reply);
}

static char *to_text(json_t *reply, size_t *ret_len)
{
	char *text = json_dumps(reply, JSON_COMPACT);
	size_t len = text ? strlen(text) : 0;

	if (!text)
		return NULL;
	if (len + 1 > CONTROL_REPLY) {
		static const char large[] = "{\"ok\":false,\"error\":\"the answer would be longer than 4 MiB\"}\n";

		free(text);
		*ret_len = sizeof(large) - 1;
		return strdup(large);
	}
	text[len] = '\n';	/* in place of the NUL: whoever sends it knows the length */
	*ret_len = len + 1;
	return text;
}

char *control_request(struct control_ctx *ctx, const char *buf, size_t len, uint32_t uid, int change, size_t *ret_len)
{
	struct control_call q = { .ctx = ctx, .uid = uid, .now = clock_mono(), .wall_us = clock_wall_us() };
	json_t *reply = json_object();
	char *text;
	int r;

	if (!reply)
		return NULL;
	control_set(reply, "ok", json_true());
	r = run(&q, buf, len, change, reply);
	if (r < 0) {
		json_object_clear(reply);
		control_set(reply, "ok", json_false());
		control_set_text(reply, "error", q.why[0] ? q.why : strerror(-r));
		if (q.unknown)
			control_set_text(reply, "outcome", "unknown");
	}
	text = to_text(reply, ret_len);
	json_decref(reply);
	json_decref(q.args);
	return text;
}

/* ---- who asks ---- */

static bool in_group(gid_t own, const gid_t *groups, size_t n, bool have, gid_t wanted)
{
	if (!have)
		return false;
	for (size_t i = 0; i < n; i++)
		if (groups[i] == wanted)
			return true;
	return own == wanted;
}

enum control_level control_level_of(int fd, uint32_t *ret_uid)
{
	static gid_t groups[GROUPS];
	socklen_t len = sizeof(struct ucred), size = sizeof(groups);
	struct ucred peer;
	size_t n = 0;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0)
		return CONTROL_NONE;
	*ret_uid = peer.uid;
	if (peer.uid == 0)
		return CONTROL_CHANGES;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &size) == 0)
		n = size / sizeof(groups[0]);
	if (in_group(peer.gid, groups, n, who.have_change, who.change))
		return CONTROL_CHANGES;
	return in_group(peer.gid, groups, n, who.have_read, who.read) ? CONTROL_READS : CONTROL_NONE;
}

static bool group_of(const char *name, gid_t *ret)
{
	struct group g, *found = NULL;
	char buf[16384];

	if (getgrnam_r(name, &g, buf, sizeof(buf), &found) != 0 || !found)
		return false;
	*ret = found->gr_gid;
	return true;
}

/* ---- the socket ---- */

static int address_of(const char *path, struct sockaddr_un *ret)
{
	*ret = (struct sockaddr_un){ .sun_family = AF_UNIX };
	if (strlen(path) >= sizeof(ret->sun_path))
		return -ENAMETOOLONG;
	memcpy(ret->sun_path, path, strlen(path));
	return 0;
}

/* By a socket of another type, which a stream socket refuses by EPROTOTYPE: no connection comes of it. */
static int has_owner(const struct sockaddr_un *a)
{
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0), r;

	if (fd < 0)
		return -errno;
	r = connect(fd, (const struct sockaddr *)a, sizeof(*a)) < 0 ? -errno : 1;
	close(fd);
	if (r == -ECONNREFUSED || r == -ENOENT)
		return 0;
	return r == -EPROTOTYPE ? 1 : r;
}

int control_alone(const char *path)
{
	struct sockaddr_un a;
	int r = address_of(path, &a);

	if (r == 0)
		r = has_owner(&a);
	for (unsigned ms = 0; r > 0 && ms < OWNER_MS; ms += 50) {
		usleep(50000);
		r = has_owner(&a);
	}
	return r > 0 ? -EADDRINUSE : r;
}

/* Never a file of somebody else's: only a socket is replaced. */
static int clear_stale(const char *path)
{
	struct stat st;
	int r = control_alone(path);

	if (r < 0)
		return r;
	if (lstat(path, &st) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(st.st_mode))
		return -EEXIST;
	return unlink(path) < 0 ? -errno : 0;
}

/* Mode and ACL let both groups connect; [CT1] is asked anew of each connection. */
static int admit_admins(const char *path)
{
	char text[80];
	acl_t acl;
	int r;

	snprintf(text, sizeof(text), "u::rw,g::rw,g:%lu:rw,m::rw,o::-", (unsigned long)who.change);
	acl = acl_from_text(text);
	if (!acl)
		return -errno;
	r = acl_set_file(path, ACL_TYPE_ACCESS, acl) < 0 ? -errno : 0;
	(void)acl_free(acl);
	return r;
}

/* The service runs in that group, and its filter knows no chown. */
static int admit_readers(const char *path)
{
	struct stat st;

	if (stat(path, &st) == 0 && st.st_gid == who.read)
		return 0;
	return chown(path, (uid_t)-1, who.read) < 0 ? -errno : 0;
}

static void admit(const char *path)
{
	int r = who.have_read ? admit_readers(path) : 0;

	if (r < 0)
		log_warning("control socket %s: group egressd cannot be set: %s; its members cannot ask", path, strerror(-r));
	r = who.have_change ? admit_admins(path) : 0;
	if (r < 0)
		log_warning("control socket %s: no ACL for group egressd-admin: %s; its members must be in group egressd, too", path,
			    strerror(-r));
}

int control_open(const char *path)
{
	struct sockaddr_un a;
	int fd, r = address_of(path, &a);

	if (r < 0)
		return r;
	who.have_read = group_of("egressd", &who.read);
	who.have_change = group_of("egressd-admin", &who.change);
	r = clear_stale(path);
	if (r < 0)
		return r;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || chmod(path, 0660) < 0 || listen(fd, BACKLOG) < 0) {
		r = -errno;
		close(fd);
		return r;
	}
	admit(path);
	return fd;
}
