/* ctl_roles.c - see ctl_roles.h. */
#include "ctl_roles.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ctl.h"
#include "devices.h"
#include "policy.h"
#include "yaml_tree.h"

int ctl_roles_read(const char *path, struct ctl_roles *ret)
{
	int e;

	ret->n = 0;
	ret->why = 0;
	if (!path && access(CTL_CONFIG, R_OK) < 0) {
		ret->why = -errno;
		return 0;
	}
	e = config_load(path ? path : CTL_CONFIG, &ret->config, STDERR_FILENO);
	if (e < 0)
		return e;
	ret->n = config_roles(&ret->config, ret->role);
	return 0;
}

static bool names_interfaces(const struct yaml_node *policy)
{
	const struct yaml_node *exits = yaml_get(policy, "exits");

	for (const struct yaml_node *x = exits ? exits->child : NULL; x; x = x->next)
		if (yaml_get(x, "interfaces"))
			return true;
	return false;
}

void ctl_roles_note(const struct ctl_roles *r, const char *policy, size_t len)
{
	struct diag_list *d = r->n ? NULL : malloc(sizeof(*d));
	struct yaml_tree *tree = NULL;

	if (!d)
		return;
	diag_init(d, "", policy, len);	/* what is wrong with it is said elsewhere */
	(void)!yaml_tree_parse(policy, len, d, &tree);
	if (tree && names_interfaces(yaml_tree_root(tree)))
		ctl_complain("note: roles were not resolved, each interface of an exit was taken for a device: %s: %s",
			     CTL_CONFIG, strerror(-r->why));
	yaml_tree_free(tree);
	free(d);
}

static void note_device(void *ctx, const char *name, const char *text)
{
	(void)ctx;
	(void)name;
	ctl_complain("note: %s", text);
}

void ctl_roles_devices(const struct ctl_roles *r, const void *blob, size_t size)
{
	struct policy p;
	const char *why;

	if (r->n && policy_open(blob, size, &p, &why) == 0)
		devices_of_policy(&r->config, &p, note_device, NULL);
}
