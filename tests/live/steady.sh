#!/bin/bash
# steady.sh - senders that never pause, against a window of a minute whose oldest bucket (5 s) is counted whole: one that stays below the
# limit in 65 s is never stopped; one that stays below it in 60 s alone may be, and not before a limit's bytes have left. Real time.
# And a snapshot is written each minute.
# Seconds: 83
set -u
cd "$(dirname "$0")/../.." || exit 2
# shellcheck source=tests/live/lab.sh
. tests/live/lab.sh
lab_need jq
lab_up
flood=$EGRESSD_BUILD/tests/live/flood
LIMIT=6000000	# 92 packets of 1,000 bytes a second fill it in 65 s, 100 in 60 s
cat >"$LAB_DIR/policy.yaml" <<END
version: 1
mode: enforce
inside: [10.0.0.0/8]
rules:
  - {name: pair, from: 10.20.0.0/24, to: outside, per: pair, limit: {1m: 6MB}, action: block, hold: 10m}
END
lab_egressd_start "$LAB_DIR/policy.yaml" || exit 1
lab_start recv outside "$flood" recv - 7000 180
lab_wait 5 lab_receives outside 7000
lab_start below sakura1 "$flood" send 10.20.0.15 203.0.113.21 7000 1 972 90 $((90 * 80))
lab_start above sakura2 "$flood" send 10.20.0.16 203.0.113.22 7000 1 972 98 $((98 * 80))
lab_wait 100 lab_ended below || not_ok "it goes on and on"
lab_wait 10 lab_ended above || not_ok "it goes on and on"
left() { ctl --json why "$1" | jq '[.pairs[].bytes] | add'; }
both() { left 10.20.0.15; left 10.20.0.16; }
lab_settled 20 both
lab_is $((90 * 80 * 1000)) "$(left 10.20.0.15)" "below the limit in a minute and a bucket: never stopped"
got=$(left 10.20.0.16)
# Stopped at the earliest when a limit's bytes have left, and at the latest a bucket later.
if [ "$got" -gt $((LIMIT - 1000)) ] && [ "$got" -le $((LIMIT + 98 * 5 * 1000)) ]; then
	ok "below it in a minute, not in a minute and a bucket: stopped after $got bytes, limit $LIMIT"
else
	not_ok "below it in a minute, not in a minute and a bucket: $got bytes left, limit $LIMIT"
fi
age=$(($(date +%s) - $(stat -c %Y "$LAB_DIR/state/snapshot" 2>/dev/null || echo 0)))
[ $age -le 65 ] && ok "a snapshot was written in the last minute" || not_ok "the newest snapshot: $age s"
lab_egressd_stop && ok "stops" || not_ok "does not stop"
lab_done
