/* supervisor.h - the process too small to fail: it owns what must outlive the others, starts them, and watches.
 *
 * [V1] Small     no packet, no YAML, no Redis byte is parsed here: a config child hands over a fixed struct; messages from
 *                the children are fixed-form, and acted on by their kind; a descriptor in one is kept, a text told, as they are.
 * [V2] Owner     memfd of the table, queue and nftables sockets, last good policy; also put into systemd's FD store, so
 *                that an upgrade or `kill -9` of this process loses none of them.
 * [V3] Restart   a dead engine or relay is started again at once, after five in a row that did not become ready a second after the last
 *                one's start; one that cannot start (before the first READY: PROTO_FAILED, or five deaths in a row, each within 20 s) ends
 *                the service with one line, no restart storm.
 * [V4] Watchdog  systemd is fed only while the engine says that every worker advances; an engine silent for
 *                SUPERVISOR_SILENT_S is killed and replaced, in time for systemd's own limit (twice that), a relay for SUPERVISOR_RELAY_S.
 * [V5] Stop      SIGTERM: leases end, rules and blocks leave the kernel, relay writes its snapshot, exit 0. SIGUSR2: they stay, for a successor.
 * [V6] Failure   a start that fails after a restart that was asked for is a stop: what was left for it is taken out. Every other one leaves
 *                the kernel as it found it, and one line tells what stays and how to remove it.
 */
#pragma once

#define SUPERVISOR_SILENT_S 10
#define SUPERVISOR_RELAY_S  60	/* it waits for disks, and 5 s for an engine */

int supervisor_main(const char *config_path);	/* exit code */
