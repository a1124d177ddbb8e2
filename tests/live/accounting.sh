#!/bin/bash
# accounting.sh - mixed traffic through the gateway: bytes and packets of every pair, as `egressctl why` says them, equal a counter
# of our own at the hook, 0 difference. TCP by super-packets and by segments, UDP, fragments, ICMP and ICMP errors, other
# protocols, IPv6, pushes and pulls, blocked pairs, behind masquerading, untracked, the gateway itself, sources that are nobody's.
# The second round needs connection tracking, and then fragments come reassembled.
set -u
cd "$(dirname "$0")/../.." || exit 2
# shellcheck source=tests/live/lab.sh
. tests/live/lab.sh
lab_need jq
lab_up
flood=$EGRESSD_BUILD/tests/live/flood
MB=1000000

policy() { # PORTS-OF-A-RULE
	cat >"$LAB_DIR/policy.yaml" <<-END
	version: 1
	mode: enforce
	inside: [10.0.0.0/8, "fd00::/8"]
	exits:
	  vpn: {interfaces: [maint]}
	rules:
	  - {name: total, from: inside, to: outside, per: host, limit: {30d: 100GB}, action: alert}
	  - {name: pair, from: inside, to: outside, per: pair, limit: {1h: 30MB}, action: block}
	  $1
	END
}

# What leaves, by pair: an IPv6 destination by its /64. Behind all of egressd's chains, before source NAT.
in_ns gw nft -f - <<'END' || exit 1
table inet ref {
	set pairs4 { type ipv4_addr . ipv4_addr; flags dynamic; size 65536; }
	set pairs6 { type ipv6_addr . ipv6_addr; flags dynamic; size 65536; }
	chain after {
		type filter hook postrouting priority -100;
		oifname { wan, vpn } update @pairs4 { ip saddr . ip daddr counter }
		oifname { wan, vpn } ip6 daddr != { fe80::/10, ff00::/8 } update @pairs6 { ip6 saddr . ip6 daddr & ffff:ffff:ffff:ffff:: counter }
	}
}
END
# "SRC DST BYTES PACKETS" a line
counted() {
	local s
	for s in pairs4 pairs6; do in_ns gw nft -j list set inet ref $s; done |
		jq -r '.nftables[] | .set // empty | .elem[]?.elem | (.val.concat | join(" ")) + " \(.counter.bytes) \(.counter.packets)"'
}

# Addresses as egressd names them.
subject() {
	case $1 in
	192.0.2.1 | 10.20.0.1 | 10.250.0.1 | 2001:db8:1::1 | fd00:20::1 | fd00:250::1) echo gateway ;;
	10.* | fd*) echo "$1" ;;
	*) echo unlisted ;;
	esac
}

# Both sides of every pair: sum, npackets and got by "SRC DST" as egressd names them, whole by host. Late ACKs and FINs go on leaving
# for a while, and what passes by lease is settled once a second: egressd is asked while the counter stands still.
state() { counted | sort; ctl --json status | jq .egress_bytes; }
read_both() {
	local src dst bytes packets k
	for _ in 1 2 3 4 5; do
		lab_settled 30 state || break
		counted | sort >"$LAB_DIR/counted"
		sum=() npackets=() got=() whole=()
		while read -r src dst bytes packets; do
			k="$(subject "$src") $dst"
			sum[$k]=$((${sum[$k]:-0} + bytes))
			npackets[$k]=$((${npackets[$k]:-0} + packets))
		done <"$LAB_DIR/counted"
		for k in "${!sum[@]}"; do
			read -r src dst <<<"$k"
			got[$k]=$(ctl --json why "$src" "$dst" | jq -r '"\(.total.bytes) \([.pairs[].packets] | add)"')
		done
		for k in 10.20.0.15 fd00:20::16; do
			whole[$k]=$(ctl --json why "$k" |
				jq -r '"\(.total.bytes) \([.accounts[] | select(.rule == "total") | .limits[0].sum_bytes] | max)"')
		done
		unlisted=$(ctl --json status | jq .unlisted_bytes)
		counted | sort | cmp -s - "$LAB_DIR/counted" && return
	done
	not_ok "$1: the counter never stands still"
}

compare() { # TEXT
	local k host n=0 bad=0 bytes want_bytes=0 unlisted=
	declare -A sum npackets got whole
	read_both "$1"
	for k in "${!sum[@]}"; do
		n=$((n + 1))
		want_bytes=$((want_bytes + ${sum[$k]}))
		if [ "${got[$k]}" != "${sum[$k]} ${npackets[$k]}" ]; then
			bad=$((bad + 1))
			not_ok "$1: ${k/ / -> }: the counter says ${sum[$k]} ${npackets[$k]}, egressd ${got[$k]}"
		fi
	done
	[ $n -ge 15 ] || not_ok "$1: only $n pairs were seen"
	[ $bad -ne 0 ] || ok "$1: $n pairs, $want_bytes bytes, no difference"
	[ -n "${sum[10.20.0.15 169.254.7.7]:-}" ] || not_ok "$1: nothing went to a link-local address"
	for host in 10.20.0.15 fd00:20::16; do
		bytes=0
		for k in "${!sum[@]}"; do
			[ "${k% *}" != "$host" ] || bytes=$((bytes + ${sum[$k]}))
		done
		lab_is "$bytes" "${whole[$host]% *}" "$1: all that left $host"
		lab_is "$bytes" "${whole[$host]#* }" "$1: charged to its host's account"
	done
	bytes=0
	for k in "${!sum[@]}"; do
		[ "${k% *}" != unlisted ] || bytes=$((bytes + ${sum[$k]}))
	done
	lab_is "$bytes" "$unlisted" "$1: status shows what those who are not inside sent"
	lab_is 0 "$(in_ns gw nft -j list counter inet egressd_keep unseen | jq '.nftables[] | select(.counter) | .counter.packets')" \
		"$1: nothing unseen"
	ctl debug check >/dev/null && ok "$1: every structure is consistent" || not_ok "$1: debug check"
}

# --- traffic ---------------------------------------------------------------------------------------------------------
tcp_push() { # SPACE SRC SINK DST PORT BYTES CONNECTIONS
	lab_start "sink$5" "$3" "$flood" sink -g 2 -c "$7" "$4" "$5"
	lab_wait 5 lab_listens "$3" "$5"
	in_ns "$1" "$flood" push -g 1 -c "$7" "$2" "$4" "$5" "$6" >/dev/null
	lab_stop "sink$5"
}
tcp_pull() { # SPACE SRC DST PORT BYTES CONNECTIONS
	lab_start "serve$4" "$1" "$flood" serve -g 2 -c "$6" "$2" "$4" "$5"
	lab_wait 5 lab_listens "$1" "$4"
	in_ns outside "$flood" pull -g 1 -c "$6" "$3" "$2" "$4" >/dev/null
	lab_stop "serve$4"
}
udp() { # SPACE SRC DST PORT SIZE COUNT
	in_ns "$1" "$flood" send "$2" "$3" "$4" 4 "$5" 20000 "$6" >/dev/null
}
pings() { in_ns "$1" ping -qnA -c "$3" -s "$4" "$2" >/dev/null; }
# Datagrams of protocol $4, each of 700 bytes.
other() { head -c 14000 /dev/zero | in_ns "$1" socat -u -b 700 - "$2:$3:$4" 2>/dev/null; }

traffic() {
	local pids=
	tcp_push sakura1 10.20.0.15 outside 203.0.113.9 7000 $((20 * MB)) 4 &
	pids="$pids $!"
	tcp_pull sakura2 10.20.0.16 203.0.113.12 7001 $((20 * MB)) 4 &
	pids="$pids $!"
	tcp_push sakura2 fd00:20::16 outside 2001:db8:9::9 7002 $((20 * MB)) 4 &
	pids="$pids $!"
	udp sakura1 10.20.0.15 203.0.113.13 7003 1200 4000 &
	pids="$pids $!"
	udp sakura1 fd00:20::15 2001:db8:20::20 7004 900 4000
	# shellcheck disable=SC2086
	wait $pids
	# Stopped in the middle: what was refused is in neither count.
	tcp_push sakura1 10.20.0.15 outside 203.0.113.14 7005 $((50 * MB)) 8
	tcp_pull sakura1 fd00:20::15 2001:db8:9::15 7006 $((50 * MB)) 8
	# By way of the exit.
	tcp_push sakura2 10.20.0.16 vpn 10.250.0.5 7007 $((5 * MB)) 2
	udp sakura1 10.20.0.15 203.0.113.200 7008 1000 1000
	# Fragments.
	udp sakura1 10.20.0.15 203.0.113.16 7009 20000 300
	udp sakura2 fd00:20::16 2001:db8:9::9 7010 20000 300
	pings sakura1 203.0.113.17 100 8000
	pings sakura2 2001:db8:20::20 100 8000
	pings sakura1 203.0.113.17 200 56
	# ICMP errors: the outside knocks at a closed port, its packets run out of hops at the gateway.
	in_ns sakura1 sysctl -qw net.ipv4.icmp_ratelimit=0 net.ipv4.icmp_ratemask=0
	in_ns sakura1 sysctl -qw net.ipv6.icmp.ratelimit=0
	in_ns outside "$flood" send 203.0.113.18 10.20.0.15 7999 4 800 2000 500 >/dev/null
	in_ns outside "$flood" send 2001:db8:9::18 fd00:20::15 7999 4 800 2000 500 >/dev/null
	in_ns outside ping -qn -i 0.01 -c 50 -W 0.2 -t 1 -I 203.0.113.19 10.20.0.15 >/dev/null
	# The gateway itself, and somebody whom the policy does not know.
	pings gw 203.0.113.20 50 500
	tcp_push gw 192.0.2.1 outside 203.0.113.21 7011 $((3 * MB)) 1
	udp vpn 172.31.0.1 203.0.113.22 7012 700 500
	# Link-local, which Linux forwards by its routes.
	udp sakura1 10.20.0.15 169.254.7.7 7013 1000 1000
	# Neither TCP nor UDP nor ICMP.
	other sakura1 IP4-SENDTO 203.0.113.23 47
	other sakura1 IP4-SENDTO 203.0.113.24 50
	other sakura2 IP6-SENDTO '[2001:db8:9::25]' 47
	# A stray segment of no connection, and its answer.
	other outside IP4-SENDTO 10.20.0.15 132
}

ip -n "$LAB-vpn" addr add 172.31.0.1/32 dev lo
lab_route vpn 203.0.113.22 via 10.250.0.1

policy '- {name: vpn, from: inside, to: vpn, per: host, limit: {24h: 1GB}, action: block}'
lab_egressd_start "$LAB_DIR/policy.yaml" || exit 1
in_ns gw nft 'flush set inet ref pairs4; flush set inet ref pairs6'
traffic
lab_gso off
traffic
compare "without connection tracking"
lab_egressd_stop
rm -rf "$LAB_DIR/state"

lab_gso on
in_ns gw nft -f - <<'END' || exit 1
table inet others {
	chain raw { type filter hook prerouting priority -300; ip saddr 10.20.0.16 notrack; ip daddr 10.20.0.16 notrack; }
	chain post { type nat hook postrouting priority 100; oifname wan ip saddr 10.20.0.15 masquerade; }
}
END
policy '- {name: ssh, from: inside, to: outside, ports: [tcp/22, tcp/7000], opened_by: inside, per: pair, limit: {24h: 1GB}, action: block}'
lab_egressd_start "$LAB_DIR/policy.yaml" || exit 1
in_ns gw nft 'flush set inet ref pairs4; flush set inet ref pairs6'
traffic
compare "with connection tracking, masqueraded and untracked"
lab_done
