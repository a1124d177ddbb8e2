/* supervisor_kept.h - descriptors that the service manager keeps for the next process of ours (sd_pid_notify_with_fds(3), FDSTORE). Without such
 * a manager giving does nothing and there is none to take. names: of sd_listen_fds_with_names(3), n of them; NULL: none.
 */
#pragma once

void kept_give(int fd, const char *name);		/* fd stays ours, too */
void kept_drop(const char *name);			/* it is kept no longer */
int kept_take(char **names, int n, const char *name);	/* once; -ENOENT */
void kept_drop_rest(char **names, int n);		/* what nobody took: queues of other numbers, or of a table that does not fit */
