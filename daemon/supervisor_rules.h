/* supervisor_rules.h - what becomes of rules and blocks in the kernel when no process of ours stays: taken out, or told. By short-lived
 * children with the supervisor's sockets, which itself reads no word of the kernel [V1]. Sockets < 0: there is none.
 */
#pragma once

#include <stdbool.h>

void super_take_out(int owner, int keep);	/* both tables; what cannot be is on the log, with how to */
/* A start has failed, and whatever is in the kernel stays: one line, when there is something, of what that means and how to remove it.
 * ours: it is known to be there. */
void super_tell_left(int keep, bool ours);

int cleanup_main(void);		/* the children */
int left_main(void);
