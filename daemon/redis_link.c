/* redis_link.c - see redis_link.h for the contract. The only file that sees hiredis. */
#include "redis_link.h"

#include <errno.h>
#include <hiredis/hiredis.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/time.h>

#include "utf8.h"

#define REPLY_MAX (4U << 20)	/* [L2] */
#define STREAM_MAXLEN "100000"
#define DECISIONS "egress:decisions"
#define CHANNEL	  "egress:alert"

struct redis_link {
	const struct config *config;
	struct timeval timeout;
	redisContext *c;
	char stream[CONFIG_NAME + 16], beat[CONFIG_NAME + 16];
	char error[200];
};

int redis_link_new(const struct config *c, unsigned timeout_ms, struct redis_link **ret_link)
{
	struct redis_link *l = calloc(1, sizeof(*l));

	if (!l)
		return -ENOMEM;
	l->config = c;
	l->timeout = (struct timeval){ timeout_ms / 1000, (suseconds_t)(timeout_ms % 1000) * 1000 };
	snprintf(l->stream, sizeof(l->stream), "egress:alerts:%s", c->gateway);
	snprintf(l->beat, sizeof(l->beat), "egress:gw:%s", c->gateway);
	*ret_link = l;
	return 0;
}

static void drop(struct redis_link *l)
{
	if (l->c)
		redisFree(l->c);
	l->c = NULL;
}

struct redis_link *redis_link_free(struct redis_link *l)
{
	if (!l)
		return NULL;
	drop(l);
	free(l);
	return NULL;
}

const char *redis_link_error(const struct redis_link *l)
{
	return l->error;
}

static void set_error(struct redis_link *l, const char *text)
{
	size_t at = 0, len = strlen(text);

	for (size_t i = 0; i < len && at + 5 < sizeof(l->error);) {
		unsigned n = utf8_printable(text + i, len - i);

		if (n) {
			memcpy(l->error + at, text + i, n);
			at += n;
			i += n;
		} else {
			l->error[at++] = '?';
			i++;
		}
	}
	l->error[at] = '\0';
}

static enum redis_class broken(struct redis_link *l, const char *text, enum redis_class class)
{
	set_error(l, text);
	drop(l);
	return class;
}

static enum redis_class lost(struct redis_link *l)
{
	enum redis_class class = l->c && l->c->err == REDIS_ERR_PROTOCOL ? REDIS_HOSTILE : REDIS_RETRY;

	return broken(l, l->c && l->c->err ? l->c->errstr : "no answer", class);
}

/* [L2] by the first word of the error. */
static enum redis_class class_of(const char *error)
{
	static const char *const operator_s[] = { "NOPERM", "NOAUTH", "WRONGPASS", "WRONGTYPE", "DENIED", NULL };

	for (const char *const *w = operator_s; *w; w++)
		if (strncasecmp(error, *w, strlen(*w)) == 0)
			return REDIS_OPERATOR;
	return REDIS_RETRY;
}

static enum redis_class failed(struct redis_link *l, const redisReply *r)
{
	set_error(l, r->str);
	return class_of(r->str);
}

/* Sum of what a reply holds; over the bound is hostile. */
static size_t weight(const redisReply *r, unsigned depth)
{
	size_t n = 64;

	if (depth > 8)
		return REPLY_MAX + 1;
	if (r->str)
		n += (size_t)r->len;
	for (size_t i = 0; i < r->elements && n <= REPLY_MAX; i++)
		n += weight(r->element[i], depth + 1);
	return n;
}

/* [L4]; REDIS_OK and *ret_reply (not an error reply), else its class. */
static enum redis_class call(struct redis_link *l, int argc, const char **argv, const size_t *len, redisReply **ret_reply)
{
	redisReply *r;

	if (!l->c)
		return broken(l, "not connected", REDIS_RETRY);
	r = redisCommandArgv(l->c, argc, argv, len);
	if (!r)
		return lost(l);
	if (weight(r, 0) > REPLY_MAX) {
		freeReplyObject(r);
		return broken(l, "a reply larger than 4 MiB", REDIS_HOSTILE);
	}
	if (r->type == REDIS_REPLY_ERROR) {
		enum redis_class class = failed(l, r);

		freeReplyObject(r);
		return class;
	}
	*ret_reply = r;
	return REDIS_OK;
}

static enum redis_class hostile(struct redis_link *l, redisReply *r)
{
	freeReplyObject(r);
	return broken(l, "a reply of a type that this command never gives", REDIS_HOSTILE);
}

/* A call whose reply must be of this type and is not needed further. */
static enum redis_class call_simple(struct redis_link *l, int argc, const char **argv, const size_t *len, int type)
{
	redisReply *r;
	enum redis_class class = call(l, argc, argv, len, &r);

	if (class != REDIS_OK)
		return class;
	if (r->type != type)
		return hostile(l, r);
	freeReplyObject(r);
	return REDIS_OK;
}

/* ---- connecting ---- */

static enum redis_class authenticate(struct redis_link *l)
{
	const struct config *c = l->config;
	const char *argv[3] = { "AUTH" };
	char *password = NULL;
	enum redis_class class;
	size_t len;
	int n = 1, r;

	if (!c->redis_password_file[0])
		return REDIS_OK;
	r = config_read_file(c->redis_password_file, 4096, &password, &len);
	if (r < 0) {
		char text[CONFIG_PATH + 64];

		snprintf(text, sizeof(text), "%s: %s", c->redis_password_file, strerror(-r));
		return broken(l, text, REDIS_OPERATOR);
	}
	password[strcspn(password, "\r\n")] = '\0';
	if (c->redis_username[0])
		argv[n++] = c->redis_username;
	argv[n++] = password;
	class = call_simple(l, n, argv, NULL, REDIS_REPLY_STATUS);
	explicit_bzero(password, len);
	free(password);
	return class;
}

enum redis_class redis_connect(struct redis_link *l)
{
	const struct config *c = l->config;
	const char *ping[] = { "PING" };
	enum redis_class class;

	if (l->c)
		return REDIS_OK;
	l->c = c->redis_socket[0] ? redisConnectUnixWithTimeout(c->redis_socket, l->timeout) :
				    redisConnectWithTimeout(c->redis_host, (int)c->redis_port, l->timeout);
	if (!l->c || l->c->err)
		return lost(l);
	if (redisSetTimeout(l->c, l->timeout) != REDIS_OK)	/* [L1] */
		return lost(l);
	class = authenticate(l);
	if (class == REDIS_OK)
		class = call_simple(l, 1, ping, NULL, REDIS_REPLY_STATUS);
	if (class != REDIS_OK)
		drop(l);
	return class;
}

/* ---- alerts ---- */

/* The field "id" of the entry `id` equals alert_id. 1 yes, 0 another or none; class in *ret. */
static int stored_already(struct redis_link *l, const char *id, const char *alert_id, enum redis_class *ret)
{
	const char *argv[] = { "XRANGE", l->stream, id, id };
	redisReply *r, *fields;
	int same = 0;

	*ret = call(l, 4, argv, NULL, &r);
	if (*ret != REDIS_OK)
		return 0;
	if (r->type != REDIS_REPLY_ARRAY) {
		*ret = hostile(l, r);
		return 0;
	}
	fields = r->elements == 1 && r->element[0]->type == REDIS_REPLY_ARRAY && r->element[0]->elements == 2 ?
			 r->element[0]->element[1] : NULL;
	for (size_t i = 0; fields && fields->type == REDIS_REPLY_ARRAY && i + 1 < fields->elements; i += 2)
		if (fields->element[i]->str && fields->element[i + 1]->str && strcmp(fields->element[i]->str, "id") == 0)
			same = strcmp(fields->element[i + 1]->str, alert_id) == 0;
	freeReplyObject(r);
	return same;
}

enum redis_class redis_top(struct redis_link *l, uint64_t *ret_top)
{
	const char *argv[] = { "XREVRANGE", l->stream, "+", "-", "COUNT", "1" };
	redisReply *r;
	enum redis_class class = call(l, 6, argv, NULL, &r);

	if (class != REDIS_OK)
		return class;
	if (r->type != REDIS_REPLY_ARRAY || (r->elements == 1 && (r->element[0]->type != REDIS_REPLY_ARRAY ||
								  r->element[0]->elements != 2 ||
								  !r->element[0]->element[0]->str)))
		return hostile(l, r);
	*ret_top = r->elements ? strtoull(r->element[0]->element[0]->str, NULL, 10) : 0;
	freeReplyObject(r);
	return REDIS_OK;
}

static enum redis_class xadd(struct redis_link *l, const char *id, const char *alert_id, const char *json, size_t len)
{
	const char *argv[] = { "XADD", l->stream, "MAXLEN", "~", STREAM_MAXLEN, id, "eve", json, "id", alert_id };
	size_t lens[ARRAY_SIZE(argv)];

	for (size_t i = 0; i < ARRAY_SIZE(argv); i++)
		lens[i] = strlen(argv[i]);
	lens[7] = len;
	return call_simple(l, (int)ARRAY_SIZE(argv), argv, lens, REDIS_REPLY_STRING);
}

static int smaller_id(const struct redis_link *l)
{
	return strstr(l->error, "equal or smaller") != NULL;
}

/* [L3] */
static enum redis_class store(struct redis_link *l, uint64_t seq, const char *alert_id, const char *json, size_t len,
			      uint64_t *ret_top)
{
	enum redis_class class;
	char id[32];

	snprintf(id, sizeof(id), "%" PRIu64 "-0", seq);
	class = xadd(l, id, alert_id, json, len);
	if (class == REDIS_OK || !l->c || !smaller_id(l))
		return class;
	if (stored_already(l, id, alert_id, &class))
		return REDIS_OK;
	if (class == REDIS_OK)
		class = redis_top(l, ret_top);
	if (class != REDIS_OK)
		return class;
	/* Above a foreign top, keyed by our seq as the second half: the same alert again finds itself there. */
	snprintf(id, sizeof(id), "%" PRIu64 "-%" PRIu64, *ret_top, seq);
	if (stored_already(l, id, alert_id, &class))
		return REDIS_OK;
	if (class != REDIS_OK)
		return class;
	class = xadd(l, id, alert_id, json, len);
	if (class != REDIS_OK && l->c && smaller_id(l)) {
		snprintf(id, sizeof(id), "%" PRIu64 "-%" PRIu64, *ret_top + 1, seq);
		class = xadd(l, id, alert_id, json, len);
	}
	return class;
}

enum redis_class redis_alert(struct redis_link *l, uint64_t seq, const char *alert_id, const char *json, size_t len,
			     uint64_t *ret_top)
{
	const char *argv[] = { "PUBLISH", CHANNEL, json };
	size_t lens[] = { 7, sizeof(CHANNEL) - 1, len };
	enum redis_class class;

	*ret_top = 0;
	class = store(l, seq, alert_id, json, len, ret_top);
	if (class != REDIS_OK)
		return class;
	/* The stream is what counts; a live tail that misses a line loses nothing (FACTS: PUBLISH proves nothing). */
	class = call_simple(l, 3, argv, lens, REDIS_REPLY_INTEGER);
	return class == REDIS_HOSTILE ? class : REDIS_OK;
}

/* ---- decisions ---- */

static void copy_field(struct redis_decision *d, const char *name, const char *value)
{
	const struct {
		const char *name;
		char *to;
		size_t size;
	} field[] = {
		{ "v", d->v, sizeof(d->v) },
		{ "id", d->id, sizeof(d->id) },
		{ "action", d->action, sizeof(d->action) },
		{ "src", d->src, sizeof(d->src) },
		{ "dst", d->dst, sizeof(d->dst) },
		{ "budget", d->budget, sizeof(d->budget) },
		{ "ttl", d->ttl, sizeof(d->ttl) },
		{ "author", d->author, sizeof(d->author) },
		{ "reason", d->reason, sizeof(d->reason) },
		{ "gateway", d->gateway, sizeof(d->gateway) },
	};

	for (size_t i = 0; i < ARRAY_SIZE(field); i++)
		if (strcmp(field[i].name, name) == 0)
			/* Too long is cut; what is cut does not parse, or is prose. */
			snprintf(field[i].to, field[i].size, "%s", value);
}

static int read_entry(const redisReply *e, struct redis_decision *ret)
{
	const redisReply *f;

	memset(ret, 0, sizeof(*ret));
	if (e->type != REDIS_REPLY_ARRAY || e->elements != 2 || !e->element[0]->str ||
	    strlen(e->element[0]->str) >= sizeof(ret->entry))
		return -EBADMSG;
	snprintf(ret->entry, sizeof(ret->entry), "%s", e->element[0]->str);
	f = e->element[1];
	if (f->type != REDIS_REPLY_ARRAY)
		return f->type == REDIS_REPLY_NIL ? 0 : -EBADMSG;
	for (size_t i = 0; i + 1 < f->elements; i += 2)
		if (f->element[i]->str && f->element[i + 1]->str)
			copy_field(ret, f->element[i]->str, f->element[i + 1]->str);
	return 0;
}

enum redis_class redis_decisions(struct redis_link *l, char cursor[32], struct redis_decision *ret, unsigned n,
				 unsigned *ret_count)
{
	char count[16];
	const char *argv[] = { "XREAD", "COUNT", count, "STREAMS", DECISIONS, cursor };
	redisReply *r, *entries;
	enum redis_class class;

	snprintf(count, sizeof(count), "%u", n);
	class = call(l, 6, argv, NULL, &r);
	*ret_count = 0;
	if (class != REDIS_OK)
		return class;
	if (r->type == REDIS_REPLY_NIL) {
		freeReplyObject(r);
		return REDIS_OK;
	}
	if (r->type != REDIS_REPLY_ARRAY || r->elements != 1 || r->element[0]->type != REDIS_REPLY_ARRAY ||
	    r->element[0]->elements != 2 || r->element[0]->element[1]->type != REDIS_REPLY_ARRAY)
		return hostile(l, r);
	entries = r->element[0]->element[1];
	for (size_t i = 0; i < entries->elements && *ret_count < n; i++) {
		if (read_entry(entries->element[i], &ret[*ret_count]) < 0)
			return hostile(l, r);
		(*ret_count)++;
	}
	freeReplyObject(r);
	return REDIS_OK;
}

/* ---- heartbeat ---- */

enum redis_class redis_heartbeat(struct redis_link *l, const char *const *fields, unsigned expire_s)
{
	const char *argv[2 + 32] = { "HSET", l->beat };
	const char *expire[] = { "EXPIRE", l->beat, NULL };
	enum redis_class class;
	char ttl[16];
	int n = 2;

	while (*fields && n < (int)ARRAY_SIZE(argv))
		argv[n++] = *fields++;
	class = call_simple(l, n, argv, NULL, REDIS_REPLY_INTEGER);
	if (class != REDIS_OK)
		return class;
	snprintf(ttl, sizeof(ttl), "%u", expire_s);
	expire[2] = ttl;
	return call_simple(l, 3, expire, NULL, REDIS_REPLY_INTEGER);
}
