#!/bin/bash
# restarts.sh - a child that dies again and again before it ever worked ends the service; deaths that lie apart do not (supervisor.h
# [V3]); later it is tried each second. A policy that comes seconds after the engine is none of its failures.
# Seconds: 100
set -u
cd "$(dirname "$0")/../.." || exit 2
# shellcheck source=tests/live/lab.sh
. tests/live/lab.sh
lab_up
mkfifo "$LAB_DIR/policy.yaml"	# nobody writes to it: the relay waits, and egressd does not become ready
lab_egressd_config "$LAB_DIR/policy.yaml"
lab_start egressd gw "$EGRESSD_BUILD/egressd" -c "$LAB_DIR/egressd.yaml"
running() { kill -0 "$(lab_pid egressd)" 2>/dev/null; }
another() { local p; p=$(lab_child relay) && [ "$p" != "$1" ]; }

# kill_relays COUNT: each as soon as it is there
killed=0
kill_relays() {
	for _ in $(seq "$1"); do
		lab_wait 5 another "$killed" || return 1
		killed=$(lab_child relay)
		kill -KILL "$killed"
	done
}
kill_relays 4
lab_wait 5 another "$killed" && ok "four deaths at once: started again" || not_ok "four deaths at once: not started again"
sleep 21
kill_relays 1
lab_wait 5 another "$killed" && ok "a fifth one much later: started again" || not_ok "a fifth one much later: not started again"
kill_relays 4
lab_wait 5 another "$killed" && running && ok "four more at once: started again" || not_ok "four more at once: not started again"
kill_relays 1
code=0
wait "$(lab_pid egressd)" || code=$?
lab_is 1 "$code" "the fifth in a row ends the service"
lab_is 1 "$(grep -c 'cannot start: a process dies again and again' "$LAB_DIR/egressd.log")" "and it says why, once"

cat >"$LAB_DIR/late.yaml" <<END
version: 1
mode: enforce
inside: [10.0.0.0/8]
rules:
  - {name: pair, from: inside, to: outside, per: pair, limit: {24h: 5GB}, action: block}
END
(
	sleep 3.2
	cat "$LAB_DIR/late.yaml" >"$LAB_DIR/policy.yaml"
) &
lab_egressd_restart || exit 1
sleep 1.5	# a health alert comes with the second
lab_is "" "$(grep -E '^<[0-4]>|health:' "$LAB_DIR/egressd.log")" "a policy that comes late: no error, no alert"

# The relay cannot begin any more, and all else goes on.
mv "$LAB_DIR/state" "$LAB_DIR/state.away"
: >"$LAB_DIR/state"
kill -KILL "$(lab_child relay)"
sleep 5
n=$(grep -c 'relay died' "$LAB_DIR/egressd.log")
[ "$n" -ge 6 ] && [ "$n" -le 11 ] && ok "a relay that cannot begin is tried again each second: $n deaths in 5 s" || not_ok "$n deaths in 5 s"
lab_child engine >/dev/null && ok "and the engine goes on" || not_ok "no engine"
rm "$LAB_DIR/state"
mv "$LAB_DIR/state.away" "$LAB_DIR/state"
lab_wait 5 ctl status >/dev/null && ok "the relay is back when it can begin" || not_ok "no relay"

stopped=$(lab_child relay)
kill -STOP "$stopped"
lab_wait 75 another "$stopped" && ok "a relay that hangs is replaced" || not_ok "a relay that hangs stays"
lab_is 1 "$(grep -c 'relay silent for 60 s; replacing it' "$LAB_DIR/egressd.log")" "which is told"
lab_wait 5 ctl status >/dev/null && ok "the next one answers" || not_ok "the next one does not answer"
lab_egressd_stop && ok "stops" || not_ok "does not stop"
lab_done
