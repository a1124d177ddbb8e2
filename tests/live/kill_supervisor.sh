#!/bin/bash
# kill_supervisor.sh - `kill -9` of the supervisor without a service manager that keeps descriptors: blocks hold, what passes is
# counted unseen (or dropped when failure is closed), a restart adopts the tables and restores the sums; a stop removes all.
# FAULTS row 3.
set -u
cd "$(dirname "$0")/../.." || exit 2
# shellcheck source=tests/live/lab.sh
. tests/live/lab.sh
lab_need jq
lab_up
flood=$EGRESSD_BUILD/tests/live/flood
cat >"$LAB_DIR/policy.yaml" <<END
version: 1
mode: enforce
inside: [10.0.0.0/8, "fd00::/8"]
rules:
  - {name: pair, from: [10.20.0.0/24, "fd00:20::/64"], to: outside, per: pair, limit: {24h: 5MB}, action: block, hold: 30m}
END
unseen() { in_ns gw nft -j list counter inet egressd_keep unseen | jq '.nftables[] | select(.counter) | .counter.packets'; }
pair_bytes() { ctl --json why 10.20.0.15 "$1" | jq '[.pairs[].bytes] | add'; }
sum() { ctl --json why 10.20.0.15 "$1" | jq '[.. | objects | select(.sum_bytes? != null) | .sum_bytes] | max'; }
reaches() { in_ns "$1" ping -nqc 1 -W 1 "$2" >/dev/null; }

# send DST COUNT: as many datagrams of 1000 bytes; what passed on a lease is settled within the second
send() {
	in_ns sakura1 "$flood" send 10.20.0.15 "$1" 7000 1 972 2000 "$2" >/dev/null
	lab_still 20 1.2 pair_bytes "$1" 2>/dev/null	# or nobody answers
}
dead() { # supervisor and both children
	local all
	all="$(lab_pid egressd) $(pgrep -P "$(lab_pid egressd)" | tr '\n' ' ')"
	kill -KILL "$(lab_pid egressd)"
	for p in $all; do
		lab_wait 5 test ! -d "/proc/$p" || not_ok "process $p outlives the supervisor"
	done
}

for failure in open closed; do
	lab_egressd_start "$LAB_DIR/policy.yaml" failure=$failure || exit 1
	send 203.0.113.9 6000
	send 203.0.113.10 1000
	before=$(pair_bytes 203.0.113.10)
	blocked_sum=$(sum 203.0.113.9)
	lab_is 1000000 "$before" "$failure: a pair has passed 1 MB"
	reaches sakura1 203.0.113.9 && not_ok "$failure: the leaking pair is not blocked" || ok "$failure: the leaking pair is blocked"
	dead
	ok "$failure: supervisor killed, its children are gone"
	reaches sakura1 203.0.113.9 && not_ok "$failure: the block is gone" || ok "$failure: the block holds while all are dead"
	u=$(unseen)
	lab_start recv outside "$flood" recv 203.0.113.10 7000 60
	lab_wait 5 lab_receives outside 7000
	send 203.0.113.10 500
	lab_stop recv
	got=$(jq .packets "$LAB_DIR/recv.log")
	if [ $failure = open ]; then
		lab_is 500 "$got" "open: what nobody judges passes"
		lab_is 500 "$(($(unseen) - u))" "open: and is counted unseen, exactly"
	else
		lab_is 0 "$got" "closed: what nobody judges is dropped"
	fi
	# A firewall of others that marks as we do: mangle's place and one long after the filter.
	in_ns gw nft "table inet others {
		chain early { type filter hook forward priority -150; meta mark set 0x10000000; }
		chain late { type filter hook forward priority 300; meta mark set 0x20000000; }
	}"
	u=$(unseen)
	lab_start recv outside "$flood" recv 203.0.113.10 7000 60
	lab_wait 5 lab_receives outside 7000
	send 203.0.113.10 300
	lab_stop recv
	in_ns gw nft delete table inet others
	lab_is 300 "$(($(unseen) - u))" "$failure: nor does a mark of others pass for ours"
	[ $failure = open ] && want=300 || want=0
	lab_is $want "$(jq .packets "$LAB_DIR/recv.log")" "$failure: what arrived of it"
	lab_egressd_config "$LAB_DIR/policy.yaml" failure=$failure runtime_dir="$LAB_DIR/policy.yaml/run"
	in_ns gw timeout 10 "$EGRESSD_BUILD/egressd" -c "$LAB_DIR/egressd.yaml" >"$LAB_DIR/failing.log" 2>&1
	lab_is 1 $? "$failure: a start that fails"
	reaches sakura1 203.0.113.9 && not_ok "$failure: takes the block away" || ok "$failure: leaves the block where it is"
	lab_egressd_config "$LAB_DIR/policy.yaml" failure=$failure
	lab_egressd_restart || exit 1
	lab_is "$before" "$(pair_bytes 203.0.113.10)" "$failure: bytes of the pair are restored"
	lab_is "$blocked_sum" "$(sum 203.0.113.9)" "$failure: sums are restored"
	reaches sakura1 203.0.113.9 && not_ok "$failure: the block is gone after the restart" || ok "$failure: the block is still there"
	grep -q 'restored, gap ' "$LAB_DIR/egressd.log" && ok "$failure: the gap is told" || not_ok "$failure: no word of the gap"
	send 203.0.113.10 100
	lab_is $((before + 100000)) "$(pair_bytes 203.0.113.10)" "$failure: counting goes on"
	lab_egressd_stop && ok "$failure: stops" || not_ok "$failure: does not stop"
	lab_is "" "$(in_ns gw nft list tables | grep egressd)" "$failure: stop removes rules and blocks"
	reaches sakura1 203.0.113.9 && ok "$failure: and traffic passes" || not_ok "$failure: still blocked after stop"
	rm -rf "$LAB_DIR/state"
done
lab_done
