/* devices.h - devices that egressd.yaml or a policy names and this machine does not have: they may come, or have another name.
 *
 * [DV1] Missing  is what the kernel says that it does not know; when it cannot be asked, nothing is.
 * [DV2] Once     a device is told once, for who names it first.
 */
#pragma once

#include "config.h"
#include "policy.h"

/* name: as written. text: "outside: no device eht0 now; did you mean 'eth0'?" */
typedef void (*devices_fn)(void *ctx, const char *name, const char *text);

void devices_of_config(const struct config *c, devices_fn tell, void *ctx);
/* Of the policy's exits, whom a device belongs to once, but for the configuration's: such a name may be that of a role, misspelt. */
void devices_of_policy(const struct config *c, const struct policy *p, devices_fn tell, void *ctx);
