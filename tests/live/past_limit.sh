#!/bin/bash
# past_limit.sh - a blocking limit is exact: at most the limit leaves by an independent counter at the hook, the receiver gets no
# byte more, and a burst from a quiet subject is not stopped before 99 % of it. IPv4 and IPv6, TCP and UDP, push and pull, 1 and
# 32 connections over 8 ports, super-packets on and off, pair, host and group.
set -u
cd "$(dirname "$0")/../.." || exit 2
# shellcheck source=tests/live/lab.sh
. tests/live/lab.sh
lab_need jq
lab_up
flood=$EGRESSD_BUILD/tests/live/flood
MB=1000000
LIMIT=$((20 * MB))

policy() { # PER TO-LIMIT: one blocking rule
	cat >"$LAB_DIR/policy.yaml" <<-END
	version: 1
	mode: enforce
	inside: [10.0.0.0/8, "fd00::/8"]
	groups:
	  sakura: {hosts: [10.20.0.0/24, "fd00:20::/64"]}
	rules:
	  - {name: limit, from: sakura, to: outside, per: $1, limit: {1h: 20MB}, action: block, hold: 30m}
	END
}

in_ns gw nft -f - <<END
table inet ref {
	chain after { type filter hook postrouting priority 0; }
}
END

# watch NAME FAMILY SRC DST: count at the hook, behind everything of ours. DST "-": all.
watch() {
	local to=
	[ "$4" = - ] || to="$2 daddr $4"
	in_ns gw nft "add counter inet ref $1; add rule inet ref after oifname wan $2 saddr $3 $to counter name $1"
}
passed() { in_ns gw nft -j list counter inet ref "$1" | jq '.nftables[] | select(.counter) | .counter.bytes'; }

# verdict TEXT PAYLOAD PASSED
verdict() {
	if [ "$2" -gt $LIMIT ] || [ "$3" -gt $LIMIT ]; then
		not_ok "$1: $3 bytes passed, $2 arrived, limit $LIMIT"
	elif [ "$3" -lt $((LIMIT / 100 * 99)) ]; then
		not_ok "$1: stopped early, $3 bytes passed of $LIMIT"
	else
		ok "$1: $3 bytes passed, $2 arrived"
	fi
}

n=0
place() { # next destination of family $1
	n=$((n + 1))
	case $1 in
	ip) dst=203.0.113.$((20 + n)) src=10.20.0.15 ;;
	ip6) dst=2001:db8:9:0:$n::9 src=fd00:20::15 ;;
	esac
}

tcp() { # FAMILY push|pull CONNECTIONS TEXT
	local name=c$((n + 1)) port=$((20000 + n * 16)) got
	place "$1"
	# An outside IPv6 destination is its /64: each case its own.
	if [ "$1" = ip6 ]; then
		dst=2001:db8:9::$((100 + n))
	fi
	watch "$name" "$1" "$src" "$dst"
	if [ "$2" = push ]; then
		lab_start "sink$n" outside "$flood" sink -g 2 -c "$3" "$dst" "$port-$((port + 7))"
		lab_wait 5 lab_listens outside "$port"
		in_ns sakura1 "$flood" push -g 2 -c "$3" "$src" "$dst" "$port-$((port + 7))" $((2 * LIMIT)) >/dev/null
		lab_stop "sink$n"
		got=$(jq .bytes "$LAB_DIR/sink$n.log")
	else
		lab_start "serve$n" sakura1 "$flood" serve -g 2 -c "$3" "$src" "$port-$((port + 7))" $((2 * LIMIT))
		lab_wait 5 lab_listens sakura1 "$port"
		got=$(in_ns outside "$flood" pull -g 2 -c "$3" "$dst" "$src" "$port-$((port + 7))" | jq .bytes)
		lab_stop "serve$n"
	fi
	verdict "$4" "$got" "$(passed "$name")"
}

udp() { # FAMILY FLOWS TEXT
	local name=c$((n + 1)) port=$((20000 + n * 16))
	place "$1"
	watch "$name" "$1" "$src" "$dst"
	lab_start "recv$n" outside "$flood" recv -i 1 "$dst" "$port" 10
	sleep 0.3
	in_ns sakura1 "$flood" send "$src" "$dst" "$port" "$2" 1200 60000 30000 >/dev/null
	sleep 1.2
	lab_stop "recv$n"
	verdict "$3" "$(jq .bytes "$LAB_DIR/recv$n.log")" "$(passed "$name")"
}

fresh() { # PER: a daemon without history
	lab_egressd_stop
	rm -rf "$LAB_DIR/state"
	policy "$1"
	lab_egressd_start "$LAB_DIR/policy.yaml" >/dev/null || not_ok "egressd starts"
	in_ns gw nft 'flush chain inet ref after'
}

for gso in on off; do
	lab_gso $gso
	fresh pair
	for flows in 1 32; do
		tcp ip push $flows "pair, IPv4, push, $flows connections, GSO $gso"
		tcp ip pull $flows "pair, IPv4, pull, $flows connections, GSO $gso"
	done
	udp ip 1 "pair, IPv4, UDP, 1 flow, GSO $gso"
	udp ip 32 "pair, IPv4, UDP, 32 flows, GSO $gso"
	for way in push pull; do
		for flows in 1 32; do
			fresh pair
			tcp ip6 $way $flows "pair, IPv6, $way, $flows connections, GSO $gso"
		done
	done
done

# 200 destinations under one host's budget, then two hosts under a group's.
lab_gso on
fresh host
watch spread ip 10.20.0.15 -
lab_start recv outside "$flood" recv -i 1 - 9000 15
sleep 0.3
in_ns sakura1 "$flood" send -a 200 10.20.0.15 203.0.113.11 9000 200 1200 60000 40000 >/dev/null
sleep 1.2
lab_stop recv
verdict "host, UDP to 200 destinations" "$(jq .bytes "$LAB_DIR/recv.log")" "$(passed spread)"

fresh group
in_ns gw nft 'add counter inet ref both; add rule inet ref after oifname wan ip saddr 10.20.0.0/24 counter name both'
lab_start recv outside "$flood" recv -i 1 - 9000 15
sleep 0.3
lab_start send1 sakura1 "$flood" send 10.20.0.15 203.0.113.11 9000 8 1200 30000 20000
in_ns sakura2 "$flood" send 10.20.0.16 203.0.113.12 9000 8 1200 30000 20000 >/dev/null
sleep 1.5
lab_stop recv
verdict "group, two servers at once" "$(jq .bytes "$LAB_DIR/recv.log")" "$(passed both)"
lab_done
