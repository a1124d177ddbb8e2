/* units.c - sizes and durations as people write them: exactly the units of the manual, never a bare number. */
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "yaml_tree.h"

struct unit {
	const char *name;
	uint64_t factor;
};

static const struct unit sizes[] = {
	{ "B", 1 },
	{ "kB", 1000 },
	{ "MB", 1000000 },
	{ "GB", 1000000000 },
	{ "TB", 1000000000000 },
	{ "KiB", 1ULL << 10 },
	{ "MiB", 1ULL << 20 },
	{ "GiB", 1ULL << 30 },
	{ "TiB", 1ULL << 40 },
	{ NULL, 0 },
};

static const struct unit durations[] = {
	{ "s", 1 }, { "m", 60 }, { "h", 3600 }, { "d", 86400 }, { "w", 604800 }, { NULL, 0 },
};

/* digits [. digits] -> value = whole + fraction / scale; returns what follows. */
static const char *number(const char *p, uint64_t *whole, uint64_t *fraction, uint64_t *scale)
{
	*whole = *fraction = 0;
	*scale = 1;
	if (*p < '0' || *p > '9')
		return NULL;
	for (; *p >= '0' && *p <= '9'; p++)
		if (__builtin_mul_overflow(*whole, 10, whole) || __builtin_add_overflow(*whole, *p - '0', whole))
			return NULL;
	if (*p != '.')
		return p;
	p++;
	if (*p < '0' || *p > '9')
		return NULL;
	for (; *p >= '0' && *p <= '9'; p++) {
		if (*scale >= 1000000000000ULL)
			return NULL;
		*fraction = *fraction * 10 + (uint64_t)(*p - '0');
		*scale *= 10;
	}
	return p;
}

static int parse_units(const char *text, const struct unit *units, uint64_t *ret)
{
	uint64_t whole, fraction, scale, value;
	unsigned __int128 part;		/* 12 digits of TB */
	const char *p = number(text, &whole, &fraction, &scale);

	if (!p)
		return -EINVAL;
	while (*p == ' ')
		p++;
	for (; units->name; units++)
		if (strcmp(units->name, p) == 0)
			break;
	part = (unsigned __int128)fraction * units->factor;
	if (!units->name || __builtin_mul_overflow(whole, units->factor, &value) || part % scale != 0 ||
	    __builtin_add_overflow(value, (uint64_t)(part / scale), &value))
		return -EINVAL;
	*ret = value;
	return 0;
}

int parse_size(const char *text, uint64_t *ret_bytes)
{
	return parse_units(text, sizes, ret_bytes);
}

int parse_duration(const char *text, uint64_t *ret_seconds)
{
	return parse_units(text, durations, ret_seconds);
}

static bool is_number(const char *text)
{
	uint64_t w, f, s;
	const char *end = number(text, &w, &f, &s);

	return end && *end == '\0';
}

static int scalar_units(const struct yaml_node *n, struct diag_list *diags, bool size, uint64_t *ret)
{
	const char *what = size ? "size" : "duration";
	const char *remedy = size ? "write a unit, such as 200MB (B kB MB GB TB KiB MiB GiB TiB)"
				  : "write a unit, such as 30m (s m h d w)";

	if (n->kind != YAML_SCALAR) {
		diag_add(diags, n->line, n->col, remedy, "a %s is expected here", what);
		return -EINVAL;
	}
	if (parse_units(n->text, size ? sizes : durations, ret) == 0)
		return 0;
	if (is_number(n->text))
		diag_add(diags, n->line, n->col, remedy, "%s: bare number", n->text);
	else
		diag_add(diags, n->line, n->col, remedy, "%s: not a %s", n->text, what);
	return -EINVAL;
}

int yaml_size(const struct yaml_node *n, struct diag_list *diags, uint64_t *ret_bytes)
{
	return scalar_units(n, diags, true, ret_bytes);
}

int yaml_duration(const struct yaml_node *n, struct diag_list *diags, uint64_t *ret_seconds)
{
	return scalar_units(n, diags, false, ret_seconds);
}

int yaml_uint(const struct yaml_node *n, struct diag_list *diags, uint64_t min, uint64_t max, uint64_t *ret)
{
	uint64_t whole = 0, f, s;
	const char *end = n->kind == YAML_SCALAR && !n->quoted ? number(n->text, &whole, &f, &s) : NULL;

	if (!end || *end || s != 1) {
		diag_add(diags, n->line, n->col, NULL, "a whole number is expected here");
		return -EINVAL;
	}
	if (whole < min || whole > max) {
		diag_add(diags, n->line, n->col, NULL, "%s: out of range, %llu to %llu", n->text, (unsigned long long)min,
			 (unsigned long long)max);
		return -EINVAL;
	}
	*ret = whole;
	return 0;
}
