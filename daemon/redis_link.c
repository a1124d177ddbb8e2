/* redis_link.c - see redis_link.h for the contract. */
#include "redis_link.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "redis_wire.h"
#include "utf8.h"

#define STREAM_MAXLEN "100000"
#define DECISIONS "egress:decisions"
#define CHANNEL	  "egress:alert"

struct redis_link {
	const struct config *config;
	unsigned timeout_ms;
	uint64_t deadline_ns;		/* of the public call under way [L1] */
	struct redis_wire *wire;
	char stream[CONFIG_NAME + 16], beat[CONFIG_NAME + 16];
	char error[200], unheard[200];
};

int redis_link_new(const struct config *c, unsigned timeout_ms, struct redis_link **ret_link)
{
	struct redis_link *l = calloc(1, sizeof(*l));

	if (!l || wire_new(&l->wire) < 0) {
		free(l);
		return -ENOMEM;
	}
	l->config = c;
	l->timeout_ms = timeout_ms;
	snprintf(l->stream, sizeof(l->stream), "egress:alerts:%s", c->gateway);
	snprintf(l->beat, sizeof(l->beat), "egress:gw:%s", c->gateway);
	*ret_link = l;
	return 0;
}

struct redis_link *redis_link_free(struct redis_link *l)
{
	if (l)
		wire_free(l->wire);
	free(l);
	return NULL;
}

const char *redis_link_error(const struct redis_link *l)
{
	return l->error;
}

const char *redis_link_unheard(const struct redis_link *l)
{
	return l->unheard;
}

static void begin(struct redis_link *l)
{
	l->deadline_ns = wire_clock_ns() + l->timeout_ms * 1000000ull;
}

static enum redis_class broken(struct redis_link *l, const char *text, enum redis_class class)
{
	utf8_escape(text, strlen(text), l->error, sizeof(l->error));
	wire_close(l->wire);
	return class;
}

static enum redis_class hostile(struct redis_link *l)
{
	return broken(l, "a reply of a type or form that this command never gives", REDIS_HOSTILE);
}

/* [L2] By how the error begins. */
static const struct known_error {
	const char *begins;
	enum redis_class class;
	bool close;			/* another server may answer at this address next time, or this one has hung up */
} known_error[] = {
	{ "NOPERM", REDIS_OPERATOR, false },
	{ "NOAUTH", REDIS_OPERATOR, true },
	{ "WRONGPASS", REDIS_OPERATOR, true },
	{ "WRONGTYPE", REDIS_OPERATOR, false },
	{ "DENIED", REDIS_OPERATOR, true },
	{ "ERR unknown command", REDIS_OPERATOR, false },
	{ "ERR The stream has exhausted", REDIS_OPERATOR, false },
	{ "ERR invalid password", REDIS_OPERATOR, true },
	{ "ERR max number of clients", REDIS_RETRY, true },
	{ "READONLY", REDIS_RETRY, true },
	{ "MASTERDOWN", REDIS_RETRY, true },
	{ "LOADING", REDIS_RETRY, true },
};

static enum redis_class refused(struct redis_link *l, const struct wire_reply *r)
{
	utf8_escape(r->text, r->text_len, l->error, sizeof(l->error));
	for (size_t i = 0; i < ARRAY_SIZE(known_error); i++) {
		const struct known_error *k = &known_error[i];

		if (strncmp(r->text, k->begins, strlen(k->begins)) != 0)
			continue;
		if (k->close)
			wire_close(l->wire);
		return k->class;
	}
	return REDIS_RETRY;
}

/* REDIS_OK and *ret_reply (not an error reply), else its class. */
static enum redis_class call(struct redis_link *l, int argc, const char *const *argv, const size_t *len,
			     const struct wire_reply **ret_reply)
{
	const struct wire_reply *reply;
	int r = wire_call(l->wire, argc, argv, len, l->deadline_ns, &reply);

	if (r < 0)
		return broken(l, wire_error(l->wire), r == -EPROTO ? REDIS_HOSTILE : REDIS_RETRY);
	if (reply->type == WIRE_ERROR)
		return refused(l, reply);
	*ret_reply = reply;
	return REDIS_OK;
}

/* A call whose reply must be of this type and is not needed further. */
static enum redis_class call_simple(struct redis_link *l, int argc, const char *const *argv, const size_t *len,
				    enum wire_type type)
{
	const struct wire_reply *r;
	enum redis_class class = call(l, argc, argv, len, &r);

	if (class == REDIS_OK && r->type != type)
		class = hostile(l);
	return class;
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
	class = call_simple(l, n, argv, NULL, WIRE_STATUS);
	explicit_bzero(password, len);
	free(password);
	return class;
}

enum redis_class redis_connect(struct redis_link *l)
{
	const struct config *c = l->config;
	const char *const ping[] = { "PING" };
	enum redis_class class;
	int r;

	if (wire_is_open(l->wire))
		return REDIS_OK;
	begin(l);
	r = wire_open(l->wire, c->redis_socket[0] ? c->redis_socket : NULL, c->redis_host, (uint16_t)c->redis_port, l->deadline_ns);
	if (r == -EACCES)
		return broken(l, "Permission denied (unixsocketperm 770 in redis.conf, and user egressd in the socket's group)", REDIS_OPERATOR);
	if (r < 0)
		return broken(l, wire_error(l->wire), REDIS_RETRY);
	class = authenticate(l);
	if (class == REDIS_OK)
		class = call_simple(l, 1, ping, NULL, WIRE_STATUS);
	if (class != REDIS_OK)
		wire_close(l->wire);
	return class;
}

/* ---- stream ids ---- */

struct stream_id {
	uint64_t ms, seq;
};

/* Two unsigned 64-bit numbers in decimal: nothing else comes from a stream. */
static bool number_of(const char *text, size_t len, uint64_t *ret)
{
	uint64_t n = 0;

	if (!len)
		return false;
	for (size_t i = 0; i < len; i++) {
		unsigned digit = (unsigned)(text[i] - '0');

		if (digit > 9 || n > (UINT64_MAX - digit) / 10)
			return false;
		n = n * 10 + digit;
	}
	*ret = n;
	return true;
}

static bool id_of(const char *text, size_t len, struct stream_id *ret)
{
	const char *dash = memchr(text, '-', len);
	size_t first = dash ? (size_t)(dash - text) : 0;

	return dash && number_of(text, first, &ret->ms) && number_of(dash + 1, len - first - 1, &ret->seq);
}

static bool id_after(const struct stream_id *a, const struct stream_id *b)
{
	return a->ms != b->ms ? a->ms > b->ms : a->seq > b->seq;
}

bool redis_cursor_valid(const char *text)
{
	struct stream_id id;
	uint64_t n;

	return strlen(text) < REDIS_ID && (number_of(text, strlen(text), &n) || id_of(text, strlen(text), &id));
}

/* [id, [field, value, ...]]: NULL when it is not an entry. A deleted one has nil for its fields. */
static const struct wire_reply *entry_fields(const struct wire_reply *e, struct stream_id *ret_id)
{
	const struct wire_reply *f;

	if (e->type != WIRE_ARRAY || e->count != 2 || e->element[0].type != WIRE_STRING ||
	    !id_of(e->element[0].text, e->element[0].text_len, ret_id) || e->element[0].text_len >= REDIS_ID)
		return NULL;
	f = &e->element[1];
	if (f->type == WIRE_NIL)
		return f;
	if (f->type != WIRE_ARRAY || f->count % 2)
		return NULL;
	for (size_t i = 0; i < f->count; i++)
		if (f->element[i].type != WIRE_STRING)
			return NULL;
	return f;
}

static bool text_is(const struct wire_reply *r, const char *text)
{
	return r->text_len == strlen(text) && memcmp(r->text, text, r->text_len) == 0;
}

/* ---- alerts ---- */

/* The field "id" of the entry `id` equals alert_id. 1 yes, 0 another or none; class in *ret. */
static int stored_already(struct redis_link *l, const char *id, const char *alert_id, enum redis_class *ret)
{
	const char *const argv[] = { "XRANGE", l->stream, id, id };
	const struct wire_reply *r, *fields;
	struct stream_id found;
	int same = 0;

	*ret = call(l, 4, argv, NULL, &r);
	if (*ret != REDIS_OK)
		return 0;
	fields = r->type == WIRE_ARRAY && r->count == 1 ? entry_fields(&r->element[0], &found) : NULL;
	if (r->type != WIRE_ARRAY || r->count > 1 || (r->count && !fields)) {
		*ret = hostile(l);
		return 0;
	}
	for (size_t i = 0; fields && i + 1 < fields->count; i += 2)
		if (text_is(&fields->element[i], "id"))
			same = text_is(&fields->element[i + 1], alert_id);
	return same;
}

static enum redis_class top(struct redis_link *l, uint64_t *ret_top)
{
	const char *const argv[] = { "XREVRANGE", l->stream, "+", "-", "COUNT", "1" };
	struct stream_id id = { 0 };
	const struct wire_reply *r;
	enum redis_class class = call(l, 6, argv, NULL, &r);

	if (class != REDIS_OK)
		return class;
	if (r->type != WIRE_ARRAY || r->count > 1 || (r->count && !entry_fields(&r->element[0], &id)))
		return hostile(l);
	*ret_top = id.ms;
	return REDIS_OK;
}

enum redis_class redis_top(struct redis_link *l, uint64_t *ret_top)
{
	begin(l);
	return top(l, ret_top);
}

static enum redis_class xadd(struct redis_link *l, const char *id, const char *alert_id, const char *json, size_t len)
{
	const char *const argv[] = { "XADD", l->stream, "MAXLEN", "~", STREAM_MAXLEN, id, "eve", json, "id", alert_id };
	size_t lens[ARRAY_SIZE(argv)];
	const struct wire_reply *r;
	enum redis_class class;

	for (size_t i = 0; i < ARRAY_SIZE(argv); i++)
		lens[i] = strlen(argv[i]);
	lens[7] = len;
	class = call(l, (int)ARRAY_SIZE(argv), argv, lens, &r);
	if (class == REDIS_OK && (r->type != WIRE_STRING || !text_is(r, id)))
		class = hostile(l);	/* it answers by the id */
	return class;
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
	if (class != REDIS_RETRY || !smaller_id(l))
		return class;
	if (stored_already(l, id, alert_id, &class))
		return REDIS_OK;
	if (class == REDIS_OK)
		class = top(l, ret_top);
	if (class != REDIS_OK)
		return class;
	if (*ret_top == UINT64_MAX) {
		static const char used_up[] = "the alert stream's ids are used up: rename or delete it";

		utf8_escape(used_up, sizeof(used_up) - 1, l->error, sizeof(l->error));
		return REDIS_OPERATOR;
	}
	/* Above a foreign top, keyed by our seq as the second half: the same alert again finds itself there. */
	snprintf(id, sizeof(id), "%" PRIu64 "-%" PRIu64, *ret_top, seq);
	if (stored_already(l, id, alert_id, &class))
		return REDIS_OK;
	if (class != REDIS_OK)
		return class;
	class = xadd(l, id, alert_id, json, len);
	if (class == REDIS_RETRY && smaller_id(l)) {
		snprintf(id, sizeof(id), "%" PRIu64 "-%" PRIu64, *ret_top + 1, seq);
		class = xadd(l, id, alert_id, json, len);
	}
	return class;
}

enum redis_class redis_alert(struct redis_link *l, uint64_t seq, const char *alert_id, const char *json, size_t len,
			     uint64_t *ret_top)
{
	const char *const argv[] = { "PUBLISH", CHANNEL, json };
	size_t lens[] = { 7, sizeof(CHANNEL) - 1, len };
	enum redis_class class;

	begin(l);
	*ret_top = 0;
	class = store(l, seq, alert_id, json, len, ret_top);
	if (class != REDIS_OK)
		return class;
	/* The stream is what counts; a live tail that misses a line loses nothing: PUBLISH proves nothing. */
	class = call_simple(l, 3, argv, lens, WIRE_INTEGER);
	if (class == REDIS_OK)
		l->unheard[0] = '\0';
	else if (class == REDIS_OPERATOR)
		snprintf(l->unheard, sizeof(l->unheard), "%s", l->error);
	return class == REDIS_HOSTILE ? class : REDIS_OK;
}

/* ---- decisions ---- */

static void copy_unknown(struct redis_decision *d, const struct wire_reply *name)
{
	size_t n = MIN_OF(name->text_len, sizeof(d->unknown) - 1);

	memset(d->unknown, 0, sizeof(d->unknown));
	for (size_t i = 0; i < n; i++)	/* no character is cut in two, and an empty name is one too */
		d->unknown[i] = name->text[i] > ' ' && name->text[i] <= '~' ? name->text[i] : '?';
	if (n == 0)
		d->unknown[0] = '?';
}

/* A value that does not fit, holds a NUL or comes twice is not taken at all: cut, it might say something else. */
static void copy_field(struct redis_decision *d, const struct wire_reply *name, const struct wire_reply *value)
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

	size_t i = 0;

	while (i < ARRAY_SIZE(field) && !text_is(name, field[i].name))
		i++;
	if (i == ARRAY_SIZE(field))
		copy_unknown(d, name);
	else if (field[i].to[0] || value->text_len >= field[i].size || memchr(value->text, '\0', value->text_len))
		d->bad = field[i].name;
	else
		memcpy(field[i].to, value->text, value->text_len);
}

enum redis_class redis_decisions(struct redis_link *l, char cursor[REDIS_ID], struct redis_decision *ret, unsigned n,
				 unsigned *ret_count)
{
	char count[16];
	const char *const argv[] = { "XREAD", "COUNT", count, "STREAMS", DECISIONS, cursor };
	const struct wire_reply *r, *entries, *fields;
	struct stream_id id, last = { 0 };
	enum redis_class class;

	begin(l);
	*ret_count = 0;
	if (!id_of(cursor, strlen(cursor), &last))
		(void)number_of(cursor, strlen(cursor), &last.ms);
	snprintf(count, sizeof(count), "%u", n);
	class = call(l, 6, argv, NULL, &r);
	if (class != REDIS_OK || r->type == WIRE_NIL)
		return class;
	if (r->type != WIRE_ARRAY || r->count != 1 || r->element[0].type != WIRE_ARRAY || r->element[0].count != 2 ||
	    r->element[0].element[1].type != WIRE_ARRAY)
		return hostile(l);
	entries = &r->element[0].element[1];
	for (size_t i = 0; i < entries->count && i < n; i++, last = id) {
		struct redis_decision *d = &ret[i];

		fields = entry_fields(&entries->element[i], &id);
		if (!fields || !id_after(&id, &last))
			return hostile(l);
		memset(d, 0, sizeof(*d));
		memcpy(d->entry, entries->element[i].element[0].text, entries->element[i].element[0].text_len);
		for (size_t f = 0; f + 1 < fields->count; f += 2)
			copy_field(d, &fields->element[f], &fields->element[f + 1]);
	}
	*ret_count = (unsigned)MIN_OF(entries->count, n);
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

	begin(l);
	while (*fields && n < (int)ARRAY_SIZE(argv))
		argv[n++] = *fields++;
	class = call_simple(l, n, argv, NULL, WIRE_INTEGER);
	if (class != REDIS_OK)
		return class;
	snprintf(ttl, sizeof(ttl), "%u", expire_s);
	expire[2] = ttl;
	return call_simple(l, 3, expire, NULL, WIRE_INTEGER);
}
