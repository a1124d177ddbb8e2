/* service_file.h - files that the service reads as user egressd: what root sees of them may be more.
 */
#pragma once

#include <stdbool.h>

/* Could the service not read it, a line to `err`. A child asks the kernel as that user, so only root's call can say anything, and
 * where there is such a user. No thread may run. */
void service_file_note(const char *path, int err);

/* Its mode lets all users read it. */
bool service_file_is_open(const char *path);
