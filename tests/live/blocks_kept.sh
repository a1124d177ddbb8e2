#!/bin/bash
# blocks_kept.sh - blocks that outlive the service in the kernel's sets: what they refuse meanwhile is their accounts' when the policy
# comes, however late; those whose account or rule is lost are told, shown and can be lifted. engine.h [BK1] to [BK3].
# Seconds: 60
set -u
cd "$(dirname "$0")/../.." || exit 2
# shellcheck source=tests/live/lab.sh
. tests/live/lab.sh
lab_need jq
lab_up
flood=$EGRESSD_BUILD/tests/live/flood
policy() { # MORE-RULES
	cat <<-END
	version: 1
	mode: enforce
	inside: [10.0.0.0/8, "fd00::/8"]
	rules:
	  - {name: pair, from: [10.20.0.15, "fd00:20::15"], to: outside, per: pair, limit: {24h: 1MB}, action: block, hold: 30m}
	  - {name: host, from: 10.20.0.16, to: outside, per: host, limit: {24h: 1MB}, action: block, hold: 30m}
	$1
	END
}
high='  - {name: high, from: 10.20.0.15, to: outside, ports: udp/7500-7999, per: pair, limit: {24h: 500kB}, action: block, hold: 30m}
  - {name: low, from: 10.20.0.15, to: 203.0.113.12, ports: udp/7100-7199, per: pair, limit: {24h: 300kB}, action: block, hold: 30m}
  - {name: mid, from: 10.20.0.15, to: 203.0.113.12, ports: udp/7150-7299, per: pair, limit: {24h: 300kB}, action: block, hold: 30m}'
policy "$high" >"$LAB_DIR/policy.yaml"
# send SPACE SRC DST COUNT [PORT]: datagrams of 1000 bytes
send() { in_ns "$1" "$flood" send "$2" "$3" "${5:-7000}" 1 972 2000 "$4" >/dev/null; }
refused() { # DEST RULE
	ctl --json why 10.20.0.15 "$1" | jq --arg r "$2" '.accounts[] | select(.rule == $r) | .refused_bytes'
}
of_pair() { ctl --json why 10.20.0.15 "$1" | jq '[.pairs[].refused_bytes] | add'; }
shared() { echo "$(refused 203.0.113.12 low) $(refused 203.0.113.12 mid) $(of_pair 203.0.113.12)"; }
reaches() { in_ns "$1" ping -nqc 1 -W 1 "$2" >/dev/null; }
refuses() { reaches "$1" "$2" && not_ok "$3: passes" || ok "$3"; }
passes() { reaches "$1" "$2" && ok "$3" || not_ok "$3: is refused"; }
dead() { # supervisor and both children
	local all p
	all="$(lab_pid egressd) $(pgrep -P "$(lab_pid egressd)" | tr '\n' ' ')"
	kill -KILL "$(lab_pid egressd)"
	for p in $all; do
		lab_wait 5 test ! -d "/proc/$p" || not_ok "process $p outlives the supervisor"
	done
	lab_stop egressd
}
counted() { in_ns gw nft -j list set inet egressd_keep host4_reject | jq '.nftables[].set.elem[0].elem.counter.bytes // empty'; }
late() { # the file with the policy is there, and is read seconds after the engine began
	mv "$LAB_DIR/policy.yaml" "$LAB_DIR/late.yaml"
	mkfifo "$LAB_DIR/policy.yaml"
	(
		sleep 3.2
		cat "$LAB_DIR/late.yaml" >"$LAB_DIR/policy.yaml"
	) &
	lab_egressd_restart || exit 1
	mv "$LAB_DIR/late.yaml" "$LAB_DIR/policy.yaml"
	sleep 1.2
}

# --- what is refused while we are dead ---------------------------------------------------------------------------------
lab_egressd_start "$LAB_DIR/policy.yaml" || exit 1
send sakura1 10.20.0.15 203.0.113.9 2000
send sakura1 10.20.0.15 203.0.113.11 1000 7600
lab_settled 20 refused 203.0.113.9 pair
send sakura1 10.20.0.15 203.0.113.12 400 7110
send sakura1 10.20.0.15 203.0.113.12 400 7210
lab_settled 20 shared
lab_is "100000 100000 200000" "$(shared)" "two blocks of ports of one pair"
send sakura1 10.20.0.15 203.0.113.12 150 7160
lab_settled 20 shared
lab_is "250000 250000 350000" "$(shared)" "of ports that both refuse each has the bytes, and the pair has them once"
lab_is "1000000 500000" "$(refused 203.0.113.9 pair) $(refused 203.0.113.11 high)" "refused by a block of a pair, and of a pair's ports"
send sakura1 10.20.0.15 203.0.113.14 1100
by_hand() { echo "$(refused 203.0.113.14 pair) $(ctl --json blocks | jq '[.by_hand[].refused_bytes] | add') $(of_pair 203.0.113.14)"; }
lab_settled 20 by_hand
lab_is "100000 null 100000" "$(by_hand)" "a block of a rule"
ctl block 10.20.0.15 203.0.113.14 --for 10m --reason INC-1 >"$LAB_DIR/ctl.log"
send sakura1 10.20.0.15 203.0.113.14 80
lab_settled 20 by_hand
lab_is "180000 80000 180000" "$(by_hand)" "one by hand puts its element in anew: no block loses bytes"
send sakura1 10.20.0.15 203.0.113.14 50
ctl unblock 10.20.0.15 203.0.113.14 --reason INC-1 >"$LAB_DIR/ctl.log"
lab_is "230000 null 230000" "$(by_hand)" "and none when both are lifted"
grep -q '^done: credit for 1 account, until .*; 1 block by hand lifted$' "$LAB_DIR/ctl.log" && ok "and both are told" || not_ok "$(cat "$LAB_DIR/ctl.log")"

dead
send sakura1 10.20.0.15 203.0.113.9 300
send sakura1 10.20.0.15 203.0.113.11 200 7600
send sakura1 10.20.0.15 203.0.113.12 70 7160
late
lab_is "1300000 700000" "$(refused 203.0.113.9 pair) $(refused 203.0.113.11 high)" "with what was refused while all were dead"
lab_is 1300000 "$(of_pair 203.0.113.9)" "and in the pair"
lab_is "320000 320000 420000" "$(shared)" "once, where two blocks refuse"
lab_is "4 0" "$(ctl --json blocks | jq -r '"\(.total) \(.kept_total)"')" "a policy that comes seconds late ends no block, and all have their account"
refuses sakura1 203.0.113.9 "they hold"
lab_is 0 "$(ctl --json status | jq .kept_lost_bytes)" "nothing is in no account"

# --- another policy ------------------------------------------------------------------------------------------------------
dead
send sakura1 10.20.0.15 203.0.113.9 50
send sakura1 10.20.0.15 203.0.113.11 70 7600
send sakura1 10.20.0.15 203.0.113.12 90 7160
policy "" >"$LAB_DIR/policy.yaml"
lab_egressd_restart || exit 1
sleep 1.2
n=$(refused 203.0.113.9 pair)
[ "$n" -ge 1350000 ] && [ "$n" -le 1351000 ] && ok "a rule that is there yet has its bytes" || not_ok "$n of 1350000 and a ping"
lab_is 160000 "$(ctl --json status | jq .kept_lost_bytes)" "those of a rule that is gone are told"
ctl status | grep -q '160.0 kB refused by blocks of before are in no account' && ok "by status, too" || not_ok "status: $(ctl status)"

# --- the accounts are lost -----------------------------------------------------------------------------------------------
send sakura2 10.20.0.16 203.0.113.9 1200
six() { in_ns sakura1 "$flood" send fd00:20::15 2001:db8:9::9 7000 1 952 2000 "$1" >/dev/null; }
six 1200
three() { [ "$(ctl --json blocks | jq '[.blocks[] | select(.in_kernel)] | length')" = 3 ]; }
lab_wait 5 three || not_ok "not three blocks: $(ctl blocks)"
dead
rm -rf "$LAB_DIR/state"
mkdir "$LAB_DIR/state"
before=$(counted)
send sakura2 10.20.0.16 203.0.113.10 40
lab_egressd_restart || exit 1
kept() { ctl --json blocks | jq -r "[.kept[] | $1] | sort | join(\" \")"; }
lab_is "10.20.0.15>203.0.113.9 10.20.0.16>* fd00:20::15>2001:db8:9::/64" "$(kept '"\(.src)>\(.dest)"')" "blocks lists those that no account has"
lab_is "0 3" "$(ctl --json blocks | jq -r '"\(.total) \(.kept_total)"')" "as kept"
lab_is 3 "$(ctl --json blocks | jq '[.kept[] | select(.left_s > 1700 and .left_s < 130000 and .blocked_until != null)] | length')" "with their time"
lab_is 3 "$(ctl blocks | grep -c 'rule unknown   BLOCKED until .* left), kept by the kernel from before')" "for people, too"
grep -q '3 blocks of before stand in the kernel until their time' "$LAB_DIR/egressd.log" && ok "the journal says so" || not_ok "no line of it"
ctl status | grep -q '3 blocks are kept by the kernel from before' && ok "and status" || not_ok "status: $(ctl status)"
lab_is "$((before + 40000)) $(counted)" "$(counted) $(ctl --json blocks | jq '.kept[] | select(.dest == "*") | .refused_bytes')" "what they refused"
why() { ctl --json why "$@" | jq -r '[.kept[].dest] | join(" ")'; }
lab_is "203.0.113.9//*" "$(why 10.20.0.15 203.0.113.9)/$(why 10.20.0.15 203.0.113.10)/$(why 10.20.0.16 203.0.113.10)" "why says it of what it refuses"
ctl why 10.20.0.15 203.0.113.9 | grep -q 'egressctl unblock 10.20.0.15 203.0.113.9' && ok "and how it ends" || not_ok "why: $(ctl why 10.20.0.15 203.0.113.9)"
sleep 1.2	# a second's work leaves them
refuses sakura1 203.0.113.9 "they hold"
refuses sakura2 203.0.113.10 "the host's, too"

# others take everything away
identity_flush
again() { in_ns gw nft list ruleset | grep -q gate4 && [ "$(ctl --json blocks | jq .kept_total)" = 3 ]; }
lab_wait 5 again && ok "others flush the tables: they are back" || not_ok "after a flush: $(ctl blocks)"
sleep 1.2
lab_is "10.20.0.15>203.0.113.9 10.20.0.16>* fd00:20::15>2001:db8:9::/64" "$(kept '"\(.src)>\(.dest)"')" "the same"
lab_is 3 "$(ctl --json blocks | jq '[.kept[] | select(.left_s > 1700 and .left_s < 130000)] | length')" "with their time"
refuses sakura1 203.0.113.9 "they hold"
refuses sakura2 203.0.113.10 "the host's, too"

unblock() { ctl --json unblock "$@" --reason INC-1 | jq -r 'if .ok then .count else .error end'; }
lab_is "nothing is blocked there" "$(unblock 10.20.0.15 203.0.113.10)" "unblock of another destination finds nothing"
lab_is 3 "$(ctl --json blocks | jq .kept_total)" "and lifts nothing"
lab_is 1 "$(unblock 10.20.0.15 203.0.113.9)" "unblock of the pair"
passes sakura1 203.0.113.9 "it passes"
lab_is "10.20.0.16>* fd00:20::15>2001:db8:9::/64" "$(kept '"\(.src)>\(.dest)"')" "and is not listed any more"
lab_is 1 "$(unblock 10.20.0.16 203.0.113.10)" "a host's, by one of the destinations that it refuses"
passes sakura2 203.0.113.9 "all of them pass"
lab_is 1 "$(unblock fd00:20::/64)" "a network's"
passes sakura1 2001:db8:9::9 "IPv6, too"
lab_is "nothing is blocked" "$(ctl blocks)" "nothing is left"
send sakura1 10.20.0.15 203.0.113.9 1500
lab_settled 20 refused 203.0.113.9 pair
lab_is "1 0" "$(ctl --json blocks | jq -r '"\(.total) \(.kept_total)"')" "the next block is of an account"
lab_is 1 "$(unblock 10.20.0.15 203.0.113.9)" "and lifted as one"
lab_is "" "$(in_ns gw nft list set inet egressd_keep pair4_reject | grep elements)" "its element is gone"

# --- blocks that end with the start, and all blocking off ----------------------------------------------------------------
send sakura2 10.20.0.16 203.0.113.9 1200
one() { [ "$(ctl --json blocks | jq '[.blocks[] | select(.in_kernel)] | length')" = 1 ]; }
lab_wait 5 one || not_ok "no block: $(ctl blocks)"
none() { ctl --json blocks | jq -e '[.blocks[].in_kernel] == [false]' >/dev/null; }
ctl allow 10.0.0.0/8 any --budget 1500B --for 1h --reason INC-2 >"$LAB_DIR/ctl.log"
lab_wait 5 none && ok "an allowance: what it covers is the engine's" || not_ok "$(ctl blocks)"
send sakura2 10.20.0.16 203.0.113.9 2
lab_wait 5 one && ok "used up: the block is the kernel's again" || not_ok "$(ctl blocks)"
dead
refuses sakura2 203.0.113.9 "and holds while all are dead"
sed -i 's/^mode: enforce/mode: observe/' "$LAB_DIR/policy.yaml"
lab_egressd_restart || exit 1
sleep 1.2
passes sakura2 203.0.113.9 "started with a policy that only observes: blocks have ended"
lab_is "0 0" "$(ctl --json blocks | jq -r '"\(.total) \(.kept_total)"')" "none is listed"
lab_is "" "$(in_ns gw nft list set inet egressd_keep host4_reject | grep elements)" "and no element is left"
sed -i 's/^mode: observe/mode: enforce/' "$LAB_DIR/policy.yaml"
ctl reload --reason CHG-1 >"$LAB_DIR/ctl.log"
send sakura2 10.20.0.16 203.0.113.9 1200
lab_wait 5 one || not_ok "no block: $(ctl blocks)"
dead
rm -rf "$LAB_DIR/state"
mkdir "$LAB_DIR/state"
lab_egressd_restart || exit 1
refuses sakura2 203.0.113.9 "a block without account"
ctl observe --for 10m --reason INC-2 >"$LAB_DIR/ctl.log"
passes sakura2 203.0.113.9 "observe: all blocking is off, that of before, too"
lab_is 0 "$(ctl --json blocks | jq .kept_total)" "none is listed"
lab_egressd_stop && ok "stops" || not_ok "does not stop"
lab_done
