#!/bin/bash
# past_limit.sh - a blocking limit is exact: at most the limit leaves by an independent counter at the hook, the receiver gets no
# byte more, and a burst from a quiet subject is not stopped before 99 % of it (limits from 20 MB on). IPv4 and IPv6, TCP and UDP,
# push and pull, 1 and 32 connections over 8 ports, super-packets on and off: pair rules in all of these ways, host and group rules in
# all but for the connections, 1 or 32 each.
# Seconds: 85
set -u
cd "$(dirname "$0")/../.." || exit 2
# shellcheck source=tests/live/lab.sh
. tests/live/lab.sh
LAB_SUMS=own
IDENTITY_PARTIAL=
lab_need jq
lab_up
flood=$EGRESSD_BUILD/tests/live/flood
MB=1000000
LIMIT=$((20 * MB))	# from here on 99 % are promised

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
place() { # a pair of its own of family $1, and a host of its own
	n=$((n + 1))
	case $1 in
	ip) dst=203.0.113.$((20 + n)) src=10.20.0.$((20 + n)) ;;
	ip6) dst=2001:db8:9::$((100 + n)) src=fd00:20::1:$n ;;
	esac
	lab_addr sakura1 eth0 "$src/$([ "$1" = ip ] && echo 24 || echo 64)"
}

tcp() { # FAMILY push|pull CONNECTIONS TEXT
	local name=c$((n + 1)) port=$((20000 + n * 64)) got
	place "$1"
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

# All datagrams are where they go: what passed stands still.
arrived() { # NAME-OF-RECV COUNTER
	lab_still 10 0.3 passed "$2"
	lab_stop "$1"
	jq .bytes "$LAB_DIR/$1.log"
}

udp() { # FAMILY push|pull FLOWS TEXT: pulled ones answer, each on its flow, what the outside sent first
	local name=c$((n + 1)) port=$((20000 + n * 64)) from=()
	place "$1"
	watch "$name" "$1" "$src" "$dst"
	if [ "$2" = pull ]; then
		in_ns outside "$flood" send -s "$port" -p "$3" "$dst" "$src" "$port" 1 64 2000 "$3" >/dev/null
		from=(-s "$port")
	fi
	lab_start "recv$n" outside "$flood" recv "$dst" "$port" 60
	lab_wait 5 lab_receives outside "$port"
	in_ns sakura1 "$flood" send "${from[@]}" "$src" "$dst" "$port" "$3" 1200 60000 25000 >/dev/null
	verdict "$4" "$(arrived "recv$n" "$name")" "$(passed "$name")"
}

ran=
over() { # of all since the last one
	local bytes
	bytes=$(ctl --json status | jq .leases.bytes)
	case $ran in	# a group has a daemon for each case, and 20 MB in a fifth of a second are worth no lease: lease.sh has its groups
	*group*) lab_note "$ran: $bytes bytes by lease" ;;
	*) [ "$bytes" -gt 0 ] && ok "$ran: $bytes bytes by lease" || not_ok "$ran: none by lease" ;;
	esac
	lease_identity "$ran"
}
fresh() { # PER: a daemon without history
	[ -z "$ran" ] || over
	lab_no_connections outside sakura1 sakura2
	lab_egressd_stop
	rm -rf "$LAB_DIR/state"
	policy "$1"
	lab_egressd_start "$LAB_DIR/policy.yaml" >/dev/null || not_ok "egressd starts"
	in_ns gw nft 'flush chain inet ref after'
	ran="all per $1, GSO $gso"
}

# 200 destinations, or one by TCP, under one host's budget; two hosts under a group's.
host_udp() { # GSO
	fresh host
	watch "spread-$1" ip 10.20.0.15 -
	lab_start recv outside "$flood" recv - 9000 60
	lab_wait 5 lab_receives outside 9000
	in_ns sakura1 "$flood" send -a 200 10.20.0.15 203.0.113.11 9000 200 1200 60000 30000 >/dev/null
	verdict "host, UDP to 200 destinations, GSO $1" "$(arrived recv "spread-$1")" "$(passed "spread-$1")"
}
group_of() { # PROTO GSO
	local send=(send) port=9000 sent=(8 1200 30000 15000) name="both-$1-$2"
	fresh group
	watch "$name" ip 10.20.0.0/24 -
	if [ "$1" = TCP ]; then
		lab_start recv outside "$flood" sink -g 2 -c 32 - 9001
		lab_wait 5 lab_listens outside 9001
		send=(push -g 2 -c 16) port=9001 sent=($((LIMIT * 3 / 4)))
	else
		lab_start recv outside "$flood" recv - 9000 60
		lab_wait 5 lab_receives outside 9000
	fi
	lab_start send1 sakura1 "$flood" "${send[@]}" 10.20.0.15 203.0.113.11 $port "${sent[@]}"
	in_ns sakura2 "$flood" "${send[@]}" 10.20.0.16 203.0.113.12 $port "${sent[@]}" >/dev/null
	lab_wait 10 lab_ended send1
	verdict "group, two servers at once, $1, GSO $2" "$(arrived recv "$name")" "$(passed "$name")"
}

version() { if [ "$1" = ip ]; then echo IPv4; else echo IPv6; fi; }
for gso in on off; do
	lab_gso $gso
	fresh pair
	for family in ip ip6; do
		for way in push pull; do
			for flows in 1 32; do
				tcp $family $way $flows "pair, $(version $family), $way, $flows connections, GSO $gso"
				udp $family $way $flows "pair, $(version $family), UDP $way, $flows flows, GSO $gso"
			done
		done
	done
	host_udp $gso
	for per in host group; do
		for family in ip ip6; do
			case $gso-$family in on-ip | off-ip6) flows=32 ;; *) flows=1 ;; esac
			for way in push pull; do
				for what in tcp udp; do
					[ $per = host ] || fresh group
					$what $family $way $flows "$per, $(version $family), ${what^^} $way, $flows at once, GSO $gso"
				done
			done
		done
	done
	group_of UDP $gso
	group_of TCP $gso
done
over
lab_done
