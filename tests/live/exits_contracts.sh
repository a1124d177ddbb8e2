#!/bin/bash
# exits_contracts.sh - who pays: exits by address and by device, rules about ports and opener, a contract's bytes and those beyond
# it, one budget for all addresses of a named host, many destinations, two servers at once, the gateway itself. Each limit is exact
# by a counter of our own behind egressd's rules: at most the limit passes, and not less than 99 % of it.
# Alone: it measures the rate of a backup.
set -u
cd "$(dirname "$0")/../.." || exit 2
# shellcheck source=tests/live/lab.sh
. tests/live/lab.sh
lab_need jq
lab_up
flood=$EGRESSD_BUILD/tests/live/flood
MB=1000000
LIMIT=$((20 * MB))

in_ns gw nft -f - <<END || exit 1
table inet ref {
	chain after { type filter hook postrouting priority 0; }
}
END
watch() { # NAME MATCH...
	local name=$1
	shift
	in_ns gw nft "add counter inet ref $name; add rule inet ref after $* counter name $name" || exit 1
}
passed() { in_ns gw nft -j list counter inet ref "$1" | jq '.nftables[] | select(.counter) | .counter.bytes'; }

fresh() { # a daemon without history; rules and contracts on stdin
	[ ! -e "$LAB_DIR/egressd.pid" ] || ctl debug check >/dev/null || not_ok "debug check"
	lab_egressd_stop
	rm -rf "$LAB_DIR/state"
	{
		cat <<-END
		version: 1
		mode: enforce
		inside: [10.0.0.0/8, "fd00::/8"]
		hosts:
		  file01: {addresses: [10.20.0.15, "fd00:20::15"]}
		groups:
		  sakura: {hosts: [10.20.0.0/24, "fd00:20::/64"]}
		destinations:
		  backup: {networks: [198.51.100.0/24]}
		END
		cat
	} >"$LAB_DIR/policy.yaml"
	lab_egressd_start "$LAB_DIR/policy.yaml" >/dev/null || not_ok "egressd starts"
}

# exact TEXT LIMIT PAYLOAD COUNTER...: the counters' sum
exact() {
	local text=$1 limit=$2 payload=$3 sum=0 c
	shift 3
	for c in "$@"; do sum=$((sum + $(passed "$c"))); done
	if [ "$payload" -gt "$limit" ] || [ "$sum" -gt "$limit" ]; then
		not_ok "$text: $sum bytes passed, $payload arrived, limit $limit"
	elif [ "$sum" -lt $((limit / 100 * 99)) ]; then
		not_ok "$text: stopped early, $sum bytes passed of $limit"
	else
		ok "$text: $sum of $limit bytes passed, $payload arrived"
	fi
}

# push SPACE SRC SINK-SPACE DST PORT BYTES [CONNECTIONS [GIVE_UP]]: prints what arrived. Several may run at once.
push() {
	local name=s$BASHPID n=${7:-1}
	lab_start "$name" "$3" "$flood" sink -g "${8:-2}" -c "$n" "$4" "$5"
	lab_wait 5 lab_listens "$3" "$5"
	in_ns "$1" "$flood" push -g "${8:-2}" -c "$n" "$2" "$4" "$5" "$6" >"$LAB_DIR/$name.push" 2>&1
	lab_stop "$name"
	jq .bytes "$LAB_DIR/$name.log"
}
# pull SPACE SRC DST PORT BYTES [CONNECTIONS]: DST dials in to SRC; prints what arrived.
pull() {
	local name=s$BASHPID n=${6:-1}
	lab_start "$name" "$1" "$flood" serve -g 2 -c "$n" "$2" "$4" "$5"
	lab_wait 5 lab_listens "$1" "$4"
	in_ns outside "$flood" pull -g 2 -c "$n" "$3" "$2" "$4" | jq .bytes
	lab_stop "$name"
}

# --- exits -----------------------------------------------------------------------------------------------------------
# A policy without that exit: what leaves by the outside device is egress, inside addresses, too. It comes first: the counter is of
# all that leaves, and there would be late packets of reset connections in it.
fresh <<END
exits:
  maint: {interfaces: [tunnel-to-site]}
rules:
  - {name: pair, from: sakura, to: outside, per: pair, limit: {1h: 20MB}, action: block}
END
sed -i '/^exits:/,/^  maint:/d' "$LAB_DIR/policy.yaml"
ctl apply "$LAB_DIR/policy.yaml" >/dev/null || not_ok "apply without exits"
in_ns sakura1 "$flood" send 10.20.0.15 10.99.0.9 7000 1 1000 1000 100 >/dev/null
left() { [ "$(ctl --json status | jq .egress_bytes)" = 102800 ]; }
lab_wait 5 left
lab_is 102800 "$(ctl --json status | jq .egress_bytes)" "an exit's device that the policy names no more: the outside device is still asked about"
lab_is 102800 "$(ctl --json why 10.20.0.15 10.99.0.9 | jq '[.pairs[].bytes] | add')" "and what leaves by it judged"
watch sites ip saddr 10.20.0.15 ip daddr 10.99.0.9
in_ns sakura1 "$flood" send 10.20.0.15 10.99.0.9 7006 8 1200 60000 25000 >/dev/null
exact "an inside address by the outside device: a rule for all that leaves" $((LIMIT - 102800)) "$(passed sites)" sites

fresh <<'END'
exits:
  box: {hosts: [10.250.0.5, "fd00:250::5"]}
rules:
  - {name: vpn, from: sakura, to: box, per: host, limit: {1h: 20MB}, action: block}
END
watch box4 ip saddr 10.20.0.15 ip daddr 10.250.0.5
watch box6 ip6 saddr fd00:20::16 ip6 daddr fd00:250::5
exact "exit by address, an inside one" $LIMIT "$(push sakura1 10.20.0.15 vpn 10.250.0.5 7000 $((2 * LIMIT)))" box4
exact "exit by address, IPv6, 32 connections" $LIMIT "$(push sakura2 fd00:20::16 vpn fd00:250::5 7001 $((2 * LIMIT)) 32)" box6
lab_is $((2 * LIMIT)) "$(push sakura1 10.20.0.15 outside 203.0.113.9 7002 $((2 * LIMIT)))" "another way out is not the exit's"

fresh <<'END'
exits:
  vpn: {interfaces: [maint]}
rules:
  - {name: vpn, from: sakura, to: vpn, per: host, limit: {1h: 20MB}, action: block}
END
watch dev4 oifname vpn ip saddr 10.20.0.15
watch dev6 oifname vpn ip6 saddr fd00:20::16
got=$(push sakura1 10.20.0.15 outside 203.0.113.200 7010 $((LIMIT / 2)))
lab_is $((LIMIT / 2)) "$got" "exit by device: below the limit everything arrives"
# The same budget for whatever leaves by that device, also to an address of the box itself.
exact "exit by device, two destinations" $LIMIT \
	$((got + $(push sakura1 10.20.0.15 vpn 10.250.0.5 7011 $((2 * LIMIT))))) dev4
exact "exit by device, IPv6" $LIMIT "$(push sakura2 fd00:20::16 outside 2001:db8:9:200::1 7012 $((2 * LIMIT)))" dev6
lab_is $((2 * LIMIT)) "$(push sakura1 10.20.0.15 outside 203.0.113.9 7013 $((2 * LIMIT)))" "another device is not the exit's"

# --- ports and opener ------------------------------------------------------------------------------------------------
fresh <<'END'
rules:
  - {name: ssh-pull, from: sakura, to: outside, ports: [tcp/22], opened_by: outside, per: pair, limit: {1h: 20MB}, action: block}
  - {name: udp-dns, from: sakura, to: outside, ports: [udp/53], opened_by: inside, per: pair, limit: {1h: 20MB}, action: block, refuse: drop}
END
watch ssh4 ip saddr 10.20.0.15 ip daddr 203.0.113.31 tcp sport 22
watch ssh6 ip6 saddr fd00:20::15 ip6 daddr 2001:db8:9::31 tcp sport 22
watch dns4 ip saddr 10.20.0.15 ip daddr 203.0.113.32 udp dport 53
watch nodns4 ip saddr 10.20.0.15 ip daddr 203.0.113.32 udp dport 54
exact "port 22 opened by outside" $LIMIT "$(pull sakura1 10.20.0.15 203.0.113.31 22 $((2 * LIMIT)))" ssh4
exact "port 22 opened by outside, IPv6, 32 connections" $LIMIT \
	"$(pull sakura1 fd00:20::15 2001:db8:9::31 22 $((2 * LIMIT)) 32)" ssh6
lab_is $((2 * LIMIT)) "$(pull sakura1 10.20.0.15 203.0.113.31 8022 $((2 * LIMIT)))" \
	"the blocked pair's other port is not the rule's"
lab_is $((2 * LIMIT)) "$(push sakura1 10.20.0.15 outside 203.0.113.31 22 $((2 * LIMIT)))" \
	"nor is the same port when the inside opens"
lab_start dns outside "$flood" recv 203.0.113.32 53 15
lab_start nodns outside "$flood" recv 203.0.113.32 54 15
lab_wait 5 lab_receives outside 54
in_ns sakura1 "$flood" send 10.20.0.15 203.0.113.32 53 8 1200 60000 30000 >/dev/null
in_ns sakura1 "$flood" send 10.20.0.15 203.0.113.32 54 8 1200 60000 20000 >/dev/null
datagrams() { passed dns4; passed nodns4; }
lab_still 10 0.5 datagrams
lab_stop dns
lab_stop nodns
exact "UDP port 53 opened by inside, refuse: drop" $LIMIT "$(jq .bytes "$LAB_DIR/dns.log")" dns4
lab_is $((20000 * 1200)) "$(jq .bytes "$LAB_DIR/nodns.log")" "the blocked pair's other UDP port is not the rule's"

# --- contracts -------------------------------------------------------------------------------------------------------
fresh <<'END'
rules:
  - {name: pair, from: sakura, to: outside, per: pair, limit: {1h: 20MB}, action: block}
  - {name: host, from: sakura, to: outside, per: host, limit: {1h: 60MB}, action: block}
  - {name: group, from: sakura, to: outside, per: group, limit: {1h: 10GB}, action: block}
contracts:
  - {name: nightly, from: file01, to: backup, ports: [tcp/873], budget: {per: total, 24h: 1TB}, until: never, owner: storage}
  - {name: small, from: 10.20.0.16, to: backup, ports: [tcp/874], budget: {per: total, 24h: 20MB}, until: never, owner: storage}
END
watch back ip saddr 10.20.0.15 ip daddr 198.51.100.20 tcp dport 873
watch leak ip saddr 10.20.0.15 ip daddr 203.0.113.41
watch side ip saddr 10.20.0.15 ip daddr 198.51.100.20 tcp dport 80
watch more ip saddr 10.20.0.15 ip daddr 203.0.113.42-203.0.113.43
watch small ip saddr 10.20.0.16 ip daddr 198.51.100.20
lab_start back backup "$flood" sink -g 20 198.51.100.20 873
lab_wait 5 lab_listens backup 873
lab_start backpush sakura1 "$flood" push -g 20 -r $((80 * MB)) 10.20.0.15 198.51.100.20 873 $((100000 * MB))	# until it is ended
rate() { # of one second of the backup
	local a
	a=$(passed back)
	sleep 1
	echo $(($(passed back) - a))
}
floor=$((70 * MB))
[ -z "${EGRESSD_SLOW:-}" ] || floor=$MB
rate_is() {
	local r
	r=$(rate)
	if [ "$r" -gt "$floor" ]; then ok "$1: the backup runs on ($((r / MB)) MB/s)"; else not_ok "$1: the backup runs at $r B/s"; fi
}
runs() { [ "$(passed back)" -gt $MB ]; }
lab_wait 5 runs
rate_is "before"
exact "beside a contract: another destination" $LIMIT "$(push sakura1 10.20.0.15 outside 203.0.113.41 7030 $((2 * LIMIT)))" leak
exact "beside a contract: another port of the backup's pair" $LIMIT \
	"$(push sakura1 10.20.0.15 backup 198.51.100.20 80 $((2 * LIMIT)))" side
rate_is "its pair blocked for the rest"
# The host's budget ends in the second of these; no byte of the contract is in it.
push sakura1 10.20.0.15 outside 203.0.113.42 7031 $((2 * LIMIT)) >/dev/null
push sakura1 10.20.0.15 outside 203.0.113.43 7032 $((2 * LIMIT)) >/dev/null
exact "beside a contract: the host's own limit" $((3 * LIMIT)) 0 leak side more
rate_is "its host blocked for the rest"
lab_stop backpush
lab_wait 25 lab_ended back
lab_is "$(jq .written "$LAB_DIR/backpush.log")" "$(jq .bytes "$LAB_DIR/back.log")" "the whole backup arrived"
exact "beyond a contract's budget the rules judge" $((2 * LIMIT)) "$(push sakura2 10.20.0.16 backup 198.51.100.20 874 $((4 * LIMIT)))" small

# --- whose bytes are summed ------------------------------------------------------------------------------------------
fresh <<'END'
rules:
  - {name: host, from: sakura, to: outside, per: host, limit: {1h: 20MB, 24h: 1GB}, action: block}
  - {name: pair, from: sakura, to: outside, per: pair, limit: {1h: 30MB}, action: block}
  - {name: own, from: gateway, to: outside, per: host, limit: {1h: 20MB}, action: block, refuse: drop}
END
watch file4 ip saddr 10.20.0.15
watch file6 ip6 saddr fd00:20::15
watch host16 ip saddr 10.20.0.16
watch own4 ip saddr 192.0.2.1
push sakura1 10.20.0.15 outside 203.0.113.51 7040 $((2 * LIMIT)) 16 >"$LAB_DIR/a" &
a=$!
push sakura1 fd00:20::15 outside 2001:db8:9::51 7041 $((2 * LIMIT)) 16 >"$LAB_DIR/b"
wait $a
exact "a named host's addresses of both families are one budget" $LIMIT $(($(cat "$LAB_DIR/a") + $(cat "$LAB_DIR/b"))) file4 file6
many=
for i in 0 1 2 3 4 5 6 7; do
	push sakura2 10.20.0.16 outside 203.0.113.$((60 + i)) $((7050 + i)) $((LIMIT / 4)) 4 >"$LAB_DIR/m$i" &
	many="$many $!"
done
# shellcheck disable=SC2086
wait $many
exact "a host's 32 connections to 8 destinations" $LIMIT "$(cat "$LAB_DIR"/m? | jq -s add)" host16
exact "the gateway's own traffic" $LIMIT "$(push gw 192.0.2.1 outside 203.0.113.59 7060 $((2 * LIMIT)))" own4

fresh <<'END'
rules:
  - {name: group, from: sakura, to: outside, per: group, limit: {1h: 20MB}, action: block}
  - {name: host, from: sakura, to: outside, per: host, limit: {1h: 1GB}, action: block}
END
watch g4 oifname wan ip saddr 10.20.0.0/24
watch g6 oifname wan ip6 saddr fd00:20::/64
pull sakura1 10.20.0.15 203.0.113.71 8080 $((2 * LIMIT)) 32 >"$LAB_DIR/a" &
a=$!
pull sakura2 fd00:20::16 2001:db8:9::72 8080 $((2 * LIMIT)) 32 >"$LAB_DIR/b"
wait $a
exact "two servers of a group, both families, pulled" $LIMIT $(($(cat "$LAB_DIR/a") + $(cat "$LAB_DIR/b"))) g4 g6
# What was refused was given back to the accounts that had room.
host_sum() { ctl --json why "$@" | jq '[.accounts[] | select(.rule == "host") | .limits[0].sum_bytes] | add'; }
# Connections of the last daemon were reset; their peers' late packets are answered by 40-byte ones that came before the counters.
hold() {
	low=$(($(host_sum 10.20.0.15 203.0.113.71) + $(host_sum fd00:20::16 2001:db8:9::72)))
	high=$(($(passed g4) + $(passed g6) + 4096))
	[ "$low" -le $high ] && [ "$low" -ge $((high - 8192)) ]
}
if lab_wait 5 hold; then
	ok "the hosts' accounts hold what passed, not what was tried"
else
	not_ok "the hosts' accounts hold $low, $((high - 4096)) passed"
fi

ctl debug check >/dev/null && ok "every structure is consistent" || not_ok "debug check"
lab_done
