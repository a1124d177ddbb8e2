#!/bin/bash
# lease.sh - credit handed to the kernel: nothing passes beyond a limit, whoever dies or changes his mind meanwhile; what passed by
# lease and by queue is what an independent counter saw; in the end nothing is out. LEASE_KILLS (100): engine kills.
set -u
cd "$(dirname "$0")/../.." || exit 2
# shellcheck source=tests/live/lab.sh
. tests/live/lab.sh
lab_need jq
lab_up
flood=$EGRESSD_BUILD/tests/live/flood
LIMIT=100000000
: "${LEASE_KILLS:=100}"

policy() { # PAIR-LIMIT HOST-LIMIT ACTION, in MB
	cat >"$LAB_DIR/policy.yaml" <<-END
	version: 1
	mode: enforce
	inside: [10.0.0.0/8, "fd00::/8"]
	rules:
	  - {name: pair, from: [10.20.0.0/24, "fd00:20::/64"], to: outside, per: pair, limit: {1h: ${1}MB}, action: $3}
	  - {name: host, from: [10.20.0.0/24, "fd00:20::/64"], to: outside, per: host, limit: {1h: ${2}MB}, action: $3}
	END
}
in_ns gw nft -f - <<END
table inet ref {
	counter left {
	}
	chain after {
		type filter hook postrouting priority 0
		ip saddr 10.20.0.15 counter name left
	}
}
END
passed() { in_ns gw nft -j list counter inet ref left | jq '.nftables[] | select(.counter) | .counter.bytes'; }
lease() { ctl --json status | jq ".leases.$1"; }
# Of every account of the server: what is out on lease, and the sum of rule $1.
out() { ctl --json why 10.20.0.15 | jq '[.. | objects | select(.outstanding_bytes? != null) | .outstanding_bytes] | add'; }
sums() { ctl --json why 10.20.0.15 | jq "[.. | objects | select(.rule? == \"$1\" and .limits?) | .limits[0].sum_bytes] | add"; }
pairs() { ctl --json why 10.20.0.15 | jq '[.pairs[].bytes] | add'; }
fresh() { # PAIR-LIMIT HOST-LIMIT ACTION [KEY=VALUE]
	lab_egressd_stop
	rm -rf "$LAB_DIR/state"
	policy "$1" "$2" "$3"
	shift 3
	in_ns gw nft reset counter inet ref left >/dev/null
	lab_egressd_start "$LAB_DIR/policy.yaml" "$@" >/dev/null || not_ok "egressd starts"
}
settled() { sleep 1.3; }	# once a second
# sending SECONDS [FLOWS [OPTION...]]: in the background, 1200-byte payloads at 24 MB/s
sending() {
	local s=$1 flows=${2:-8}
	shift $(($# < 2 ? $# : 2))
	in_ns sakura1 "$flood" send "$@" 10.20.0.15 203.0.113.11 9000 "$flows" 1200 20000 $((s * 20000)) >"$LAB_DIR/send.json" &
	sender=$!
}
exact() { # TEXT: counter, pair records and the host's account agree, nothing is out
	local p
	p=$(passed)
	lab_is "$p" "$(pairs)" "$1: the pairs' records say what left"
	lab_is "$p" "$(sums host)" "$1: and the account was charged that"
	[ "$(ctl --json findings | jq '.total')" = 0 ] ||
		lab_is "$p" "$(ctl --json findings | jq '.findings[0].coverage.seen_bytes')" "$1: and findings say that it was seen"
}

# --- the limit ---------------------------------------------------------------------------------------------------------
limit() { # TEXT PAIR HOST FLOWS LEASES [OPTION...]
	local text=$1 flows=$4 much=$5 got p
	fresh "$2" "$3" block
	shift 5
	lab_start recv outside "$flood" recv -i 1 - 9000 30
	sleep 0.3
	sending 5 "$flows" "$@"
	wait $sender
	settled
	lab_stop recv
	got=$(jq .bytes "$LAB_DIR/recv.log")
	p=$(passed)
	if [ "$p" -gt $LIMIT ] || [ "$got" -gt $LIMIT ]; then
		not_ok "$text: $p bytes passed, $got arrived, limit $LIMIT"
	elif [ "$p" -lt $((LIMIT / 100 * 98)) ]; then
		not_ok "$text: stopped early, $p bytes passed of $LIMIT"
	else
		ok "$text: $p bytes passed, $got arrived"
	fi
	exact "$text"
	lab_is 0 "$(out)" "$text: nothing is out on lease"
	[ "$much" = 0 ] || { [ "$(lease bytes)" -gt $((p / 2)) ] && ok "$text: most of it by lease" ||
		not_ok "$text: only $(lease bytes) of $p bytes by lease"; }
}
limit "1 flow" 100 1000 1 1
limit "1,000 flows" 100 1000 1000 1
limit "200 destinations" 1000 100 200 0 -a 200

# --- the engine dies ---------------------------------------------------------------------------------------------------
fresh 100 1000 block
lab_start recv outside "$flood" recv -i 1 - 9000 90
sleep 0.3
in_ns sakura1 "$flood" send 10.20.0.15 203.0.113.11 9000 8 1200 $((LIMIT / 1228 * 5 / LEASE_KILLS)) 98000 >"$LAB_DIR/send.json" &
sender=$!
killed=0
for ((i = 0; i < LEASE_KILLS * 3 && killed < LEASE_KILLS; i++)); do
	sleep 0.1
	e=$(lab_child engine) && [ "$(lease now)" = 1 ] && kill -KILL "$e" && killed=$((killed + 1))
done
wait $sender
settled
lab_stop recv
p=$(passed)
[ "$killed" -ge $((LEASE_KILLS * 9 / 10)) ] && ok "engine killed $killed times in mid-lease" || not_ok "only $killed kills in mid-lease"
[ "$p" -le $LIMIT ] && [ "$p" -ge $((LIMIT / 100 * 98)) ] && ok "killed: $p bytes passed of $LIMIT" || not_ok "killed: $p bytes passed of $LIMIT"
lab_is 0 "$(ctl --json status | jq .unseen_packets)" "killed: nothing unseen"
s=$(sums host)
[ "$s" -ge "$p" ] && [ "$s" -le $((p + killed * 2 * 1228)) ] && ok "killed: charged $s" || not_ok "killed: charged $s, passed $p"
lab_is 0 "$(out)" "killed: nothing is out on lease"
lab_is "" "$(in_ns gw nft list table inet egressd 2>/dev/null | grep -E 'quota l[0-9]|elements')" "killed: nothing of them is left in the kernel"

# --- tightened, decided, flushed in mid-lease -----------------------------------------------------------------------------
fresh 1000 1000 block
sending 4
sleep 1.5
lab_is 1 "$(lease now)" "leased before the policy is tightened"
policy 20 1000 block
ctl apply "$LAB_DIR/policy.yaml" >/dev/null
p=$(passed)
wait $sender
settled
[ "$(($(passed) - p))" -le 1228 ] && ok "tightened: nothing more leaves when apply has returned" || not_ok "tightened: $(($(passed) - p)) bytes more"
exact "tightened"

fresh 1000 1000 block
sending 4
sleep 1.5
ctl block 10.20.0.15 203.0.113.11 --for 1h --reason test >/dev/null
p=$(passed)
wait $sender
settled
lab_is "$p" "$(passed)" "blocked by hand: nothing more leaves when it has returned"
exact "blocked by hand"

fresh 1000 1000 block
sending 5
sleep 1.5
owner=$(in_ns gw nft list table inet egressd 2>/dev/null | grep -c 'flags owner')
name=$(in_ns gw nft list table inet egressd 2>/dev/null | grep -oE 'l[0-9]+g[0-9]+' | head -1)
if [ "$owner" = 1 ]; then
	in_ns gw nft add quota inet egressd "$name" '{ over 5 gbytes }' 2>/dev/null && not_ok "others raise a quota" || ok "nobody else may change a lease"
else
	echo "skip - this kernel has no tables with an owner: others may change leases"
fi
in_ns gw nft flush ruleset
wait $sender
settled
lab_is 0 "$(ctl --json status | jq .unseen_packets)" "flushed: nothing unseen after it is back"
r=$(jq .packets "$LAB_DIR/send.json")
got=$(pairs)
# Between the removal and our rules' return nobody counts: under a second's traffic.
[ "$got" -ge $(((r - 20000) * 1228)) ] && [ "$got" -le $((r * 1228)) ] && ok "flushed: $got of $((r * 1228)) bytes counted" ||
	not_ok "flushed: $got of $((r * 1228)) bytes counted"
ctl reload >/dev/null
lab_is 0 "$(out)" "reload ends all leases"
ctl debug check >/dev/null && ok "every structure is consistent" || not_ok "debug check: $(ctl debug check)"

# --- forged marks, alert mode, off ------------------------------------------------------------------------------------------
in_ns gw nft -f - <<END
table inet ref {
	counter left {
	}
	chain after {
		type filter hook postrouting priority 0
		ip saddr 10.20.0.15 counter name left
	}
	chain forge {
		type filter hook forward priority 100
		meta mark set 0x10000000
	}
}
END
fresh 20 1000 block
sending 2
wait $sender
settled
[ "$(passed)" -le 20000000 ] && ok "a forged mark passes nothing" || not_ok "a forged mark: $(passed) bytes passed"
exact "forged mark"
in_ns gw nft delete chain inet ref forge

fresh 20 1000 alert
sending 4
wait $sender
settled
exact "alert"
[ "$(lease bytes)" -gt 40000000 ] && ok "alert: leases go on past the limit" || not_ok "alert: only $(lease bytes) bytes by lease"
lab_is 1 "$(ctl --json findings | jq '[.. | objects | select(.rule.name? == "pair")] | length')" "alert: one finding"

fresh 1000 1000 block leases=off
sending 1
wait $sender
lab_is 0 "$(lease bytes)" "leases: off"
exact "leases: off"
lab_egressd_stop && ok "stops" || not_ok "does not stop"
lab_done
