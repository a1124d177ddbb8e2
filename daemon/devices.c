/* devices.c - see devices.h. */
#include "devices.h"

#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "diag.h"

/* [DV1] */
static bool is_missing(const char *name)
{
	errno = 0;
	return if_nametoindex(name) == 0 && errno == ENODEV;
}

static void near_role(const struct config *c, const char *word, char to[CONFIG_NAME])
{
	const char *names[CONFIG_ROLES + 1];
	const char *near;
	uint32_t n = 0;

	for (uint32_t i = 1; i < c->nroles; i++)	/* no exit may name `outside` */
		names[n++] = c->role[i].name;
	names[n] = NULL;
	near = diag_nearest(word, names);
	snprintf(to, CONFIG_NAME, "%s", near ? near : "");
}

static void near_device(const char *word, char to[CONFIG_NAME])
{
	struct if_nameindex *all = if_nameindex();
	const char **names, *near = NULL;
	size_t n = 0;

	while (all && all[n].if_index)
		n++;
	names = calloc(n + 1, sizeof(*names));
	for (size_t i = 0; names && i < n; i++)
		names[i] = all[i].if_name;
	if (names)
		near = diag_nearest(word, names);
	snprintf(to, CONFIG_NAME, "%s", near ? near : "");
	free(names);
	if (all)
		if_freenameindex(all);
}

/* Where the configuration names it first; NULL. */
static const char *first(const struct config *c, const char *name)
{
	for (uint32_t i = 0; i < c->nroles; i++)
		for (uint32_t k = 0; k < c->role[i].ndevices; k++)
			if (strcmp(c->role[i].device[k], name) == 0)
				return c->role[i].device[k];
	return NULL;
}

static void say(devices_fn tell, void *ctx, const char *name, const char *what, const char *near)
{
	char text[300];

	snprintf(text, sizeof(text), *near ? "%s; did you mean '%s'?" : "%s%s", what, near);
	tell(ctx, name, text);
}

void devices_of_config(const struct config *c, devices_fn tell, void *ctx)
{
	char what[200], near[CONFIG_NAME];

	for (uint32_t i = 0; i < c->nroles; i++)
		for (uint32_t k = 0; k < c->role[i].ndevices; k++) {
			const char *name = c->role[i].device[k];

			if (first(c, name) != name || !is_missing(name))
				continue;
			near_device(name, near);
			snprintf(what, sizeof(what), "%s: no device %s now", c->role[i].name, name);
			say(tell, ctx, name, what, near);
		}
}

void devices_of_policy(const struct config *c, const struct policy *p, devices_fn tell, void *ctx)
{
	char what[200], near[CONFIG_NAME];

	for (uint32_t x = 0; x < p->h->nexits; x++)
		for (uint32_t i = 0; i < p->exit[x].nifaces; i++) {
			const char *name = p->exit[x].iface[i];

			if (first(c, name) || !is_missing(name))
				continue;
			near_role(c, name, near);
			if (!*near)
				near_device(name, near);
			snprintf(what, sizeof(what), "exit %s: %s is neither a role of egressd.yaml nor a device now",
				 policy_string(p, p->exit[x].name), name);
			say(tell, ctx, name, what, near);
		}
}
