#!/bin/bash
# lease_kill.sh - `kill -9` of the engine in mid-lease, 100 times: beside a slow flow, of which every packet arrives, and a fast one that runs into
# the limit. Nothing beyond it passes, none unseen, charged is what passed and at most a packet a worker and kill more, in the end nothing is
# out. IPv6 pull, then IPv4 push. LEASE_KILLS (100).
# Seconds: 30
set -u
cd "$(dirname "$0")/../.." || exit 2
# shellcheck source=tests/live/lease_lab.sh
. tests/live/lease_lab.sh
FEW=5	# in a fast flow, at least
[ -z "${EGRESSD_SLOW:-}" ] || { LEASE_KILLS=10 FEW=1; }
: "${LEASE_KILLS:=100}"
PPS=$((MB / 100))	# 12 MB a second

all=0
strike() {
	local e
	sleep 0.1
	e=$(lab_child engine) && [ "$(lease now)" = 1 ] && kill -KILL "$e" && killed=$((killed + 1))
}
fast() { # SECONDS [OPTION...]: to the limit and beyond
	local before=$killed seconds=$1
	shift
	sending "$seconds" 8 "$@"
	while kill -0 $sender 2>/dev/null; do strike; done
	wait $sender
	fast=$((killed - before))
}
verdict() { # TEXT LIMIT
	local text="$1, $killed kills, $fast of them in a fast flow" p s
	settled
	p=$(passed)
	[ $fast -ge $FEW ] && [ "$p" -le "$2" ] && [ "$p" -ge $(($2 / 100 * 98)) ] && ok "$text: $p bytes passed of $2" ||
		not_ok "$text: $p bytes passed of $2"
	lab_is 0 "$(ctl --json status | jq .unseen_packets)" "$text: nothing unseen"
	s=$(sums host)
	[ "$s" -ge "$p" ] && [ "$s" -le $((p + killed * 2 * 1228)) ] && ok "$text: charged $s" || not_ok "$text: charged $s, passed $p"
	lab_is 0 "$(out)" "$text: nothing is out on lease"
	lab_wait 3 identity_none_left
	lab_is "" "$(identity_left)" "$text: nothing of them is left in the kernel"
	lease_identity "$text" $((killed * 2 * 1228))
	all=$((all + killed))
}

who sakura1 6
fresh 60 1000 block
killed=0
in_ns outside "$flood" send -s 9000 -p 8 $dst $src 20000 1 64 2000 8 >/dev/null
fast 6 -s 20000
verdict "IPv6, pull" $((60 * MB))

# Slowly, so that the limit is not reached before, then fast up to it.
who sakura1 4
fresh 100 1000 block
killed=0
lab_start recv outside "$flood" recv - 9000 250
lab_wait 5 lab_receives outside 9000
lab_start slow sakura1 "$flood" send -s 20000 $src $dst 9000 8 1200 $((PPS / 20)) 1000000
for ((end = SECONDS + 150; SECONDS < end && killed + all + FEW < LEASE_KILLS;)); do strike; done
lab_stop slow
lab_still 10 0.3 passed
lab_stop recv
lab_is "$(jq .packets "$LAB_DIR/slow.log") 0 0" "$(jq -r '"\(.packets) \(.duplicates) \(.socket_drops)"' "$LAB_DIR/recv.log")" \
	"$killed kills beside a slow flow: every packet arrives, and once"
fast 9
verdict "IPv4, push" $((100 * MB))
[ $all -ge "$LEASE_KILLS" ] && ok "engine killed $all times in mid-lease" || not_ok "engine killed $all times in mid-lease"
lab_done
