#!/bin/bash
# kill_supervisor.sh - `kill -9` of the supervisor without a service manager that keeps descriptors: blocks hold, what passes is
# counted unseen (or dropped when failure is closed), a restart adopts the tables and restores the sums; a stop removes all.
# Seconds: 70
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
  - {name: high, from: [10.20.0.0/24, "fd00:20::/64"], to: outside, ports: udp/7500-7999, per: pair, limit: {24h: 2MB}, action: block, hold: 30m}
  - {name: brief, from: 10.20.0.15, to: 203.0.113.12, ports: udp/7500-7999, per: pair, limit: {5s: 1MB}, action: block, hold: 5s}
contracts:
  - {name: copy, from: 10.20.0.15, to: 203.0.113.12, ports: udp/7900, budget: {per: total, 24h: 1GB}, until: never}
END
unseen() { in_ns gw nft -j list counter inet egressd_keep unseen | jq '.nftables[] | select(.counter) | .counter.packets'; }
pair_bytes() { ctl --json why 10.20.0.15 "$1" | jq '[.pairs[].bytes] | add'; }
sum() { ctl --json why 10.20.0.15 "$1" | jq '[.. | objects | select(.sum_bytes? != null) | .sum_bytes] | max'; }
reaches() { in_ns "$1" ping -nqc 1 -W 1 "$2" >/dev/null; }

# send DST COUNT [PORT]: as many datagrams of 1000 bytes; what passed on a lease is settled within the second
datagrams() { in_ns sakura1 "$flood" send 10.20.0.15 "$1" "${3:-7000}" 1 972 2000 "$2" >/dev/null; }
send() {
	datagrams "$@"
	lab_still 20 1.2 pair_bytes "$1" 2>/dev/null	# or nobody answers
}
# arrives DST PORT COUNT: how many of as many datagrams do
arrives() {
	lab_start recv outside "$flood" recv "$1" "$2" 60
	lab_wait 5 lab_receives outside "$2"
	datagrams "$1" "$3" "$2"
	sleep 0.3
	lab_stop recv
	jq .packets "$LAB_DIR/recv.log"
}
# What is refused is the service's, of that pair: named by a rule, or beside a contract.
services() { # WHEN WANTED
	lab_is 0 "$(arrives 203.0.113.11 7600 100)" "$1: a block of some ports holds"
	lab_is "$2" "$(arrives 203.0.113.11 7000 100)" "$1: for these only"
	lab_is "$2" "$(arrives 203.0.113.13 7600 100)" "$1: and its pair only"
	lab_is 0 "$(arrives 203.0.113.12 7600 100)" "$1: a block beside a contract holds"
	lab_is "$2" "$(arrives 203.0.113.12 7900 100)" "$1: not for the contract's port"
	reaches sakura1 203.0.113.12 && not_ok "$1: it does not for another protocol" || ok "$1: for other protocols, too"
}
brief() { ctl blocks | grep -q 'brief'; }
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
	send 203.0.113.9 8000	# a second and a half beyond the limit: a recall that is late refuses, and blocks after a second
	send 203.0.113.11 3000 7600
	send 203.0.113.12 1200 7600
	brief && ok "$failure: a brief block" || not_ok "$failure: no brief block: $(ctl blocks)"
	send 203.0.113.12 5000 7100	# port 7600 is blocked with it, by the pair's rule, whose elements the brief one has, too
	ended() { ! brief; }
	lab_wait 20 ended && ok "$failure: the brief one ends" || not_ok "$failure: it does not end: $(ctl blocks)"
	sleep 2
	services "$failure" 100
	send 203.0.113.10 1000
	before=$(pair_bytes 203.0.113.10)
	blocked_sum=$(sum 203.0.113.9)
	lab_is 1000000 "$before" "$failure: a pair has passed 1 MB"
	reaches sakura1 203.0.113.9 && not_ok "$failure: the leaking pair is not blocked" || ok "$failure: the leaking pair is blocked"
	dead
	ok "$failure: supervisor killed, its children are gone"
	reaches sakura1 203.0.113.9 && not_ok "$failure: the block is gone" || ok "$failure: the block holds while all are dead"
	[ $failure = open ] && want=100 || want=0
	services "$failure, dead" $want
	u=$(unseen)
	got=$(arrives 203.0.113.10 7000 500)
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
	got=$(arrives 203.0.113.10 7000 300)
	in_ns gw nft delete table inet others
	lab_is 300 "$(($(unseen) - u))" "$failure: nor does a mark of others pass for ours"
	[ $failure = open ] && want=300 || want=0
	lab_is $want "$got" "$failure: what arrived of it"
	lab_egressd_config "$LAB_DIR/policy.yaml" failure=$failure runtime_dir="$LAB_DIR/policy.yaml/run"
	in_ns gw timeout 10 "$EGRESSD_BUILD/egressd" -c "$LAB_DIR/egressd.yaml" >"$LAB_DIR/failing.log" 2>&1
	lab_is 1 $? "$failure: a start that fails"
	reaches sakura1 203.0.113.9 && not_ok "$failure: takes the block away" || ok "$failure: leaves the block where it is"
	lab_egressd_config "$LAB_DIR/policy.yaml" failure=$failure
	lab_egressd_restart || exit 1
	lab_is "$before" "$(pair_bytes 203.0.113.10)" "$failure: bytes of the pair are restored"
	lab_is "$blocked_sum" "$(sum 203.0.113.9)" "$failure: sums are restored"
	reaches sakura1 203.0.113.9 && not_ok "$failure: the block is gone after the restart" || ok "$failure: the block is still there"
	services "$failure, restarted" 100
	grep -q 'restored, gap ' "$LAB_DIR/egressd.log" && ok "$failure: the gap is told" || not_ok "$failure: no word of the gap"
	send 203.0.113.10 100
	lab_is $((before + 100000)) "$(pair_bytes 203.0.113.10)" "$failure: counting goes on"
	lab_egressd_stop && ok "$failure: stops" || not_ok "$failure: does not stop"
	lab_is "" "$(in_ns gw nft list tables | grep egressd)" "$failure: stop removes rules and blocks"
	reaches sakura1 203.0.113.9 && ok "$failure: and traffic passes" || not_ok "$failure: still blocked after stop"
	rm -rf "$LAB_DIR/state"
done
lab_done
