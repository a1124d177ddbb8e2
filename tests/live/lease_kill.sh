#!/bin/bash
# lease_kill.sh - `kill -9` of the engine in mid-lease, 100 times under one limit: nothing beyond it passes, none unseen, charged is what
# passed and at most a packet a worker and kill more, in the end nothing is out. LEASE_KILLS (100).
set -u
cd "$(dirname "$0")/../.." || exit 2
# shellcheck source=tests/live/lease_lab.sh
. tests/live/lease_lab.sh
LIMIT=$((100 * MB))
[ -z "${EGRESSD_SLOW:-}" ] || LEASE_KILLS=10
: "${LEASE_KILLS:=100}"

# Slowly until the last kill, so that the limit is not reached before, then fast up to the limit.
fresh 100 1000 block
lab_start recv outside "$flood" recv - 9000 250
lab_wait 5 lab_receives outside 9000
lab_start slow sakura1 "$flood" send 10.20.0.15 203.0.113.11 9000 8 1200 $((PPS / 40)) 1000000
killed=0
for ((end = SECONDS + 150; SECONDS < end && killed < LEASE_KILLS;)); do
	sleep 0.1
	e=$(lab_child engine) && [ "$(lease now)" = 1 ] && kill -KILL "$e" && killed=$((killed + 1))
done
lab_stop slow
sending 5
wait $sender
settled
lab_stop recv
p=$(passed)
lab_is "$LEASE_KILLS" "$killed" "engine killed so often in mid-lease"
[ "$p" -le $LIMIT ] && [ "$p" -ge $((LIMIT / 100 * 98)) ] && ok "killed: $p bytes passed of $LIMIT" || not_ok "killed: $p bytes passed of $LIMIT"
lab_is 0 "$(ctl --json status | jq .unseen_packets)" "killed: nothing unseen"
s=$(sums host)
[ "$s" -ge "$p" ] && [ "$s" -le $((p + killed * 2 * 1228)) ] && ok "killed: charged $s" || not_ok "killed: charged $s, passed $p"
lab_is 0 "$(out)" "killed: nothing is out on lease"
lab_wait 3 identity_none_left
lab_is "" "$(identity_left)" "killed: nothing of them is left in the kernel"
lease_identity "killed" $((killed * 2 * 1228))
lab_done
