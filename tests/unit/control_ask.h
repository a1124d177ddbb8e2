/* control_ask.h - one request to the world of control_world.h, and its answer. For the unit tests of control*.c. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include <cmocka.h>
#include <jansson.h>

#include "unit/control_world.h"

static struct world w;

static inline int setup(void **state)
{
	(void)state;
	world_make(&w);
	return 0;
}

static inline int teardown(void **state)
{
	(void)state;
	world_free(&w);
	return 0;
}

static inline json_t *ask_as(const char *text, size_t len, int change)
{
	size_t n = 0;
	char *reply = control_request(&w.ctx, text, len, 1000, change, &n);
	json_t *o;

	assert_non_null(reply);
	assert_true(n > 0 && reply[n - 1] == '\n');
	o = json_loadb(reply, n, 0, NULL);
	assert_non_null(o);
	assert_true(json_is_boolean(json_object_get(o, "ok")));
	free(reply);
	return o;
}

static inline json_t *ask(const char *text)
{
	return ask_as(text, strlen(text), 1);
}

static inline bool ok(const json_t *o)
{
	return json_is_true(json_object_get(o, "ok"));
}

static inline const char *text_of(const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s ? s : "";
}

static inline json_int_t number_of(const json_t *o, const char *key)
{
	return json_integer_value(json_object_get(o, key));
}

static inline void must_refuse(const char *text, const char *says)
{
	json_t *o = ask(text);

	if (ok(o) || !strstr(text_of(o, "error"), says))
		fail_msg("%s: not refused with '%s' but '%s'", text, says, text_of(o, "error"));
	json_decref(o);
}

static inline void must_do(const char *text)
{
	json_t *o = ask(text);

	if (!ok(o))
		fail_msg("%s: refused: %s", text, text_of(o, "error"));
	json_decref(o);
}

/* The account of rule `rule` in a why or blocks answer; borrowed. */
static inline json_t *account_of(const json_t *reply, const char *list, const char *rule)
{
	json_t *a;
	size_t i;

	json_array_foreach(json_object_get(reply, list), i, a)
		if (!strcmp(text_of(a, "rule"), rule))
			return a;
	return NULL;
}

static inline int64_t seconds_until(const json_t *o, const char *key)
{
	struct tm tm = { 0 };

	assert_non_null(strptime(text_of(o, key), "%Y-%m-%dT%H:%M:%SZ", &tm));
	/* Not time(): its coarse clock may still be in the second before. */
	return (int64_t)timegm(&tm) - (int64_t)(clock_wall_us() / 1000000);
}
