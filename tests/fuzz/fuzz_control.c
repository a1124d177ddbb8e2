/* fuzz_control.c - any bytes as a request of the control socket: one JSON object comes back, in bounds and printable,
 * no reader changes anything, and what reaches the engine is well-formed. The first byte's lowest bit says whether the
 * peer may change.
 */
#include <jansson.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "log.h"
#include "unit/control_world.h"
#include "utf8.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* In place of log.c: a line each would drown the fuzzer's own. The text is still formatted. */
#define SINK(name)                                             \
	void name(const char *fmt, ...)                        \
	{                                                      \
		char text[2048];                               \
		va_list ap;                                    \
							       \
		va_start(ap, fmt);                             \
		BUG_ON(vsnprintf(text, sizeof(text), fmt, ap) < 0); \
		va_end(ap);                                    \
	}

void log_open(const char *process)
{
	(void)process;
}
SINK(log_error)
SINK(log_warning)
SINK(log_notice)
SINK(log_info)

static bool may_change;
static struct world w;

static int command(void *relay, struct proto_msg *m, struct proto_reply *ret)
{
	const struct proto_decision *d = &m->u.decision;

	(void)relay;
	memset(ret, 0, sizeof(*ret));
	if (m->kind == PROTO_CHECK)
		return 0;
	BUG_ON(!may_change);
	BUG_ON(m->kind < PROTO_UNBLOCK || m->kind > PROTO_OBSERVE);
	BUG_ON(!memchr(d->id, '\0', sizeof(d->id)) || !memchr(d->author, '\0', sizeof(d->author)) ||
	       !memchr(d->reason, '\0', sizeof(d->reason)) || !d->reason[0]);
	BUG_ON(d->src.len > 128 || d->dst.len > 128);
	BUG_ON(m->kind != PROTO_OBSERVE && d->src.len == 0 && d->ttl_s == 0);
	ret->count = 1;
	if (d->ttl_s % 3 == 1)
		ret->result = -ENOENT;
	return d->ttl_s % 7 == 2 ? -ETIMEDOUT : 0;
}

static int policy(void *relay, const char *yaml, size_t len, unsigned confirm_s, char *why, size_t why_size)
{
	(void)relay;
	BUG_ON(!may_change || strlen(yaml) != len);
	snprintf(why, why_size, "%.*s", (int)MIN_OF(len, (size_t)100), yaml);
	return confirm_s % 2 ? -EINVAL : 0;
}

static void make(void)
{
	world_make(&w);
	world_send(&w, "10.20.0.15", "203.0.113.9", 21000000, 443);
	world_send(&w, "fd00:20::15", "2001:db8::1", 500000, 443);
	world_send(&w, "10.20.0.15", "10.250.0.7", 500000, 22);
	w.ctx.command = command;
	w.ctx.apply = policy;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t len = 0, used;
	json_error_t e;
	json_t *o;
	char *reply;

	if (size == 0)
		return 0;
	if (!w.mem)
		make();
	may_change = data[0] & 1;
	reply = control_request(&w.ctx, (const char *)data + 1, size - 1, 1000, may_change, &len);
	BUG_ON(!reply || len == 0 || len > 4U << 20 || reply[len - 1] != '\n');
	for (size_t i = 0; i < len - 1; i += used) {
		used = utf8_printable(reply + i, len - 1 - i);
		BUG_ON(used == 0);
	}
	o = json_loadb(reply, len, 0, &e);
	BUG_ON(!o || !json_is_boolean(json_object_get(o, "ok")));
	BUG_ON(json_is_false(json_object_get(o, "ok")) && !json_is_string(json_object_get(o, "error")));
	json_decref(o);
	free(reply);
	return 0;
}
