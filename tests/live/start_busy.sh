#!/bin/bash
# start_busy.sh - egressd starts amid traffic: what passed before its rules came is nobody's, what passed them is in every record, from the
# first packet on. Stopped and started amid leases it has charged what passed, and a table of another size, too.
# Seconds: 30
set -u
cd "$(dirname "$0")/../.." || exit 2
# shellcheck source=tests/live/lease_lab.sh
. tests/live/lease_lab.sh

lab_start recv outside "$flood" recv - 9000 100
lab_wait 5 lab_receives outside 9000
for n in 1 2 3; do
	lab_start send sakura1 "$flood" send $src $dst 9000 8 100 40000 4000000
	fresh 100000 100000 block
	lab_stop send INT
	identity_begin
	lease_identity "start $n amid traffic"
done

# agree TEXT: sums are of what has a mark of ours; but what waits in the queue as its hook goes is judged, and the kernel drops it: 40 ms
agree() {
	local marked host pair
	lab_settled 10 passed
	marked=$(($(counter leased) + $(counter judged))) host=$(sums host) pair=$(pairs)
	[ $((marked - host)) -le 12280 ] && [ $((host - marked)) -le $MB ] && [ "$host" = "$pair" ] &&
		ok "$1: $marked bytes passed, $host are charged" || not_ok "$1: $marked bytes passed, $host are charged, the pair has $pair"
}
fresh 1000 1000 block
sending 4
lab_wait 10 leased
sleep 1
[ "$(lease outstanding_bytes)" -gt $MB ] || not_ok "little is out on lease"
lab_egressd_stop
wait $sender
lab_egressd_restart >/dev/null || not_ok "egressd starts again"
agree "stopped and started"
lab_egressd_stop

rm -rf "$LAB_DIR/state"
reference
lab_start egressd gw "$EGRESSD_BUILD/tests/live/fd_store" 20 "$EGRESSD_BUILD/egressd" -c "$LAB_DIR/egressd.yaml"
is_ready() { grep -qx "ready $1" "$LAB_DIR/egressd.log"; }
lab_wait 10 is_ready 1 || not_ok "egressd starts under a service manager"
sending 3
lab_wait 10 leased
sleep 1
sed -i 's/65536/131072/' "$LAB_DIR/egressd.yaml"
kill -s USR2 "$(lab_pid egressd)"
lab_wait 10 is_ready 2 || not_ok "it does not start again"
wait $sender
agree "restarted with another table"
# The rules that stand speak of other bits than the next one would.
sed -i 's/^mark_mask:.*//; $ a mark_mask: 0xc0000000' "$LAB_DIR/egressd.yaml"
kill -s USR2 "$(lab_pid egressd)"
lab_wait 10 is_ready 3 || not_ok "it does not start again"
lab_is 2 "$(grep -c 'of another layout, size or mark_mask' "$LAB_DIR/egressd.log")" "and with other marks it takes nothing over"
lab_stop egressd

# A service that was killed, where the kernel removed no rules (the table has no owner), and whose successor has to wait for its policy.
late() { # FAILURE
	local left marked
	lab_egressd_stop
	rm -rf "$LAB_DIR/state"
	in_ns gw nft add table inet egressd
	policy 1000 1000 block
	reference
	lab_egressd_start "$LAB_DIR/policy.yaml" failure="$1" >/dev/null || not_ok "egressd starts"
	all="$(lab_pid egressd) $(pgrep -P "$(lab_pid egressd)")"
	kill -KILL "$(lab_pid egressd)"
	for p in $all; do lab_wait 5 test ! -d "/proc/$p"; done
	rm -rf "$LAB_DIR/state"
	mv "$LAB_DIR/policy.yaml" "$LAB_DIR/late.yaml"
	mkfifo "$LAB_DIR/policy.yaml"
	reference
	sending 3
	(sleep 1 && cat "$LAB_DIR/late.yaml" >"$LAB_DIR/policy.yaml") &
	lab_egressd_restart >/dev/null || not_ok "egressd starts again"
	mv "$LAB_DIR/late.yaml" "$LAB_DIR/policy.yaml"
	wait $sender
	lab_settled 10 passed
	left=$(passed) marked=$(($(counter leased) + $(counter judged)))
	lab_is "$marked" "$(sums host)" "$1: what passed as judged is in the account"
	if [ "$1" = open ]; then
		[ "$(ctl --json status | jq .unseen_bytes)" -gt $MB ] && ok "open: the rest is unseen" || not_ok "open: unseen is only $(ctl --json status | jq .unseen_bytes)"
	else
		lab_is "$marked" "$left" "closed: and nothing else passed"
	fi
}
late open
late closed
lab_done
