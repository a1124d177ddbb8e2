#!/bin/bash
# nfq.sh - daemon/nfq.c against the running kernel: verdicts, marks, lengths, holders, lost buffers, killed readers. IPv4, IPv6.
#   a 10.1.0.2 fd01::2 -- [g] -- b 10.2.0.2 fd02::2     the queue stands in g's postrouting, a counter of marks behind it
# Rules by iptables-nft: the queue statement of nft is not in every kernel.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 2
B=${EGRESSD_BUILD:-$PWD/build}
flood=$B/tests/live/flood tool=$B/tests/live/nfq_tool
NS=nfq$$
pps=20000
[ -z "${EGRESSD_SLOW:-}" ] || pps=2000	# an emulated machine's buffers overflow before it has read them
tmp=$(mktemp -d) || exit 2
bad=0
pids=

down() {
	local p s
	for p in $pids; do kill -KILL "$p" 2>/dev/null; done
	for s in a g b; do ip netns del "$NS$s" 2>/dev/null; done
	rm -rf "$tmp"
}
trap down EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

[ "$(id -u)" -eq 0 ] || { echo "needs root: sudo make check"; exit 77; }
for c in iptables-nft ip6tables-nft nft jq ip ethtool setpriv; do
	command -v $c >/dev/null || { echo "$c is missing (sudo tests/need test)"; exit 77; }
done

in_ns() { local s=$1; shift; ip netns exec "$NS$s" "$@"; }
# is WANT GOT TEXT
is() { if [ "$1" = "$2" ]; then echo "ok - $3"; else echo "not ok - $3: wanted $1, got $2"; bad=1; fi; }
# holds TEXT CONDITION...: arithmetic
holds() { if (($2)); then echo "ok - $1"; else echo "not ok - $1: $2"; bad=1; fi; }
# start FILE SPACE COMMAND...: background, output into FILE; its id in $last
start() {
	local file=$1 s=$2
	shift 2
	ip netns exec "$NS$s" "$@" >"$tmp/$file" 2>"$tmp/$file.err" </dev/null &
	last=$!
	pids="$pids $last"
}
get() { jq -r ".$2" "$tmp/$1"; }
await() { # COMMAND...: up to 5 s
	local i
	for ((i = 0; i < 100; i++)); do
		"$@" >/dev/null 2>&1 && return 0
		sleep 0.05
	done
	echo "not ok - waited in vain: $*"
	bad=1
	return 1
}
bound() { in_ns g grep -q "^ *$1 " /proc/net/netfilter/nfnetlink_queue; }
unbound() { ! bound "$1"; }
hears() { in_ns b ss -Hlun "sport = :$1" | grep -q .; }

up() {
	local s
	for s in a g b; do
		ip netns add "$NS$s"
		ip -n "$NS$s" link set lo up
		in_ns $s sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0 \
			net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
	done
	ip link add eth0 netns "${NS}a" type veth peer name in netns "${NS}g"
	ip link add out netns "${NS}g" type veth peer name eth0 netns "${NS}b"
	ip -n "${NS}a" addr add 10.1.0.2/24 dev eth0
	ip -n "${NS}a" addr add fd01::2/64 dev eth0 nodad
	ip -n "${NS}g" addr add 10.1.0.1/24 dev in
	ip -n "${NS}g" addr add fd01::1/64 dev in nodad
	ip -n "${NS}g" addr add 10.2.0.1/24 dev out
	ip -n "${NS}g" addr add fd02::1/64 dev out nodad
	ip -n "${NS}b" addr add 10.2.0.2/24 dev eth0
	ip -n "${NS}b" addr add fd02::2/64 dev eth0 nodad
	for s in a:eth0 g:in g:out b:eth0; do ip -n "$NS${s%:*}" link set "${s#*:}" up; done
	ip -n "${NS}a" route add default via 10.1.0.1
	ip -n "${NS}a" -6 route add default via fd01::1
	ip -n "${NS}b" route add default via 10.2.0.1
	ip -n "${NS}b" -6 route add default via fd02::1
	for s in 10.2.0.2 fd02::2; do await in_ns a ping -nqc1 -W1 $s || return; done
	in_ns g nft -f - <<-RULES || return
	table inet t {
		chain before { type filter hook prerouting priority 0; iifname "in" udp dport 5000-5099 meta mark set 0x50000022; }
		chain after {
			type filter hook postrouting priority 10;
			oifname "out" meta l4proto udp meta mark & 0x30000000 == 0x20000000 counter comment "judged"
			oifname "out" meta l4proto udp meta mark & 0x30000000 != 0x20000000 counter comment "unseen"
			oifname "out" meta l4proto udp meta mark 0x60000022 counter comment "forwarded"
			oifname "out" meta l4proto udp meta mark 0x20000011 counter comment "local"
			oifname "out" meta l4proto tcp meta mark & 0x30000000 == 0x20000000 counter comment "tcp"
		}
	}
	RULES
	local ipt
	for ipt in iptables-nft ip6tables-nft; do
		in_ns g $ipt -t mangle -A POSTROUTING -o out -p udp --dport 5000:5999 -j NFQUEUE --queue-num 0 || return
		in_ns g $ipt -t mangle -A POSTROUTING -o out -p tcp --dport 6000 -j NFQUEUE --queue-num 1 || return
	done
}

# counter NAME packets|bytes
counter() {
	in_ns g nft -j list chain inet t after | jq "[.nftables[].rule | select(.comment == \"$1\") | .expr[] | .counter // empty |
		.$2] | add // 0"
}
quiet() { local at; at=$(counter tcp bytes); sleep 0.3; [ "$at" = "$(counter tcp bytes)" ]; }

# one FAMILY SRC LOCAL DST: what does not depend on the family
one() {
	local f=$1 src=$2 own=$3 dst=$4 before judged unseen n bytes

	before=$(counter forwarded packets)
	start recv b "$flood" recv -n 1000 - 5000 10; local r=$last
	start tool g "$tool" run -f gso -b 4000000 -n 1000 0 10; local t=$last
	await bound 0; await hears 5000
	in_ns a "$flood" send "$src" "$dst" 5000 4 100 "$pps" 1000 >/dev/null
	wait $t $r
	is 1000 "$(get recv packets)" "$f: batch verdicts let 1,000 packets pass"
	is 1000 "$(($(counter forwarded packets) - before))" "$f: foreign mark bits of a forwarded packet are kept, ours set"
	is $((0x50000022)) "$(get tool first_mark)" "$f: the mark as it came is reported"
	is "1000 0 0" "$(get tool "packets, .bad, .disorder" | xargs)" "$f: each message parsed, ids rise"
	is "$((1000 * ($f == 4 ? 128 : 148)))" "$(get tool bytes)" "$f: lengths are IP lengths"
	is 1000 "$(get tool "proto$f")" "$f: family by hw_protocol"
	is "$(in_ns g cat /sys/class/net/in/ifindex) $(in_ns g cat /sys/class/net/out/ifindex)" \
		"$(get tool "indev, .outdev" | xargs)" "$f: devices"

	before=$(counter local packets)
	start tool g "$tool" run -b 4000000 -n 500 0 10; t=$last
	await bound 0
	in_ns g "$flood" send -m 0x10000011 "$own" "$dst" 5100 1 50 10000 500 >/dev/null
	wait $t
	is 500 "$(($(counter local packets) - before))" "$f: a forged bit is cleared, the sender's others kept"
	is 0 "$(get tool indev)" "$f: a local packet has no incoming device"

	start recv b "$flood" recv -i 1 - 5200 20; r=$last
	start tool g "$tool" run -b 4000000 -a drop -n 1000 0 10; t=$last
	await bound 0; await hears 5200
	in_ns a "$flood" send "$src" "$dst" 5200 4 100 "$pps" 1000 >/dev/null
	wait $t $r
	is "500 500" "$(get recv packets) $(get tool dropped)" "$f: every second one dropped, the others pass"

	start recv b "$flood" recv -i 1 - 5300 20; r=$last
	start tool g "$tool" run -b 4000000 -a repeat:200 -n 700 0 10; t=$last
	await bound 0; await hears 5300
	in_ns a "$flood" send "$src" "$dst" 5300 4 100 "$pps" 500 >/dev/null
	wait $t $r
	is "700 200" "$(get tool "packets, .repeated" | xargs)" "$f: what is repeated comes back as a new message"
	is "500 0" "$(get recv "packets, .duplicates" | xargs)" "$f: and passes once"

	before=$(counter tcp bytes)
	start recv b "$flood" sink - 6000; r=$last
	start tool g "$tool" run -f gso -c 64 -l 4096 -b 4000000 1 20; t=$last
	await bound 1
	await in_ns b sh -c 'ss -Hltn "sport = :6000" | grep -q .'
	in_ns a "$flood" push "$src" "$dst" 6000 50000000 >"$tmp/push"
	wait $r
	await quiet
	kill $t; wait $t
	bytes=$(($(counter tcp bytes) - before))
	is 50000000 "$(get recv bytes)" "$f: 50 MB through the queue"
	is $bytes "$(get tool bytes)" "$f: lengths of super-packets equal the kernel's counter"
	holds "$f: whole super-packets with 64 bytes copied (longest $(get tool longest))" "$(get tool longest) > 40000"
	is 1 "$(get tool flags)" "$f: the flag is on"

	# 400 packets wait while the queue is set up once more.
	start recv b "$flood" recv -n 400 - 5400 10; r=$last
	start tool g "$tool" run -b 4000000 -w 1500 -n 400 0 10; t=$last
	await bound 0; await hears 5400
	in_ns a "$flood" send "$src" "$dst" 5400 1 100 2000 400 >/dev/null
	wait $t $r
	is "400 400" "$(get recv packets) $(get tool packets)" "$f: setting up again loses nothing that waits"

	# Killed at random moments; what it held comes back.
	judged=$(counter judged packets) unseen=$(counter unseen packets)
	start recv b "$flood" recv -i 2 - 5500 30; r=$last
	start tool g "$tool" hold -f open -l 8192 -b 8000000 -d 3 -k 73 0 7; t=$last
	await bound 0; await hears 5500
	in_ns a "$flood" send "$src" "$dst" 5500 8 100 1000 5s >"$tmp/send"
	n=$(get send packets)
	wait $r $t
	holds "$f: a packet a millisecond was sent ($n)" "n > 4500"
	is "$n 0" "$(get recv "packets, .duplicates" | xargs)" "$f: reader killed $(get tool starts) times, nothing lost of $n, nothing twice"
	is "$n 0" "$(($(counter judged packets) - judged)) $(($(counter unseen packets) - unseen))" "$f: and nothing unjudged"
	holds "$f: packets in hand were recovered ($(get tool recovered))" "$(get tool recovered) > 0"
}

refused() {
	start tool g "$tool" run 7 10; local t=$last
	await bound 7
	in_ns g "$tool" run 7 1 >"$tmp/second"
	in_ns g "$tool" drops 7 >"$tmp/drops"
	is -1 "$(get second result)" "a second binder is refused with EPERM"
	is "$t" "$(get drops holder)" "the holder's portid is named"
	kill $t; wait $t
	is "$(get drops holder)" "$(get tool portid)" "as the holder knows it"
	await unbound 7
	in_ns g "$tool" drops 7 >"$tmp/drops"
	is "-2 0" "$(get drops "result, .holder" | xargs)" "nobody holds it afterwards"
	# bare capability: no root
	in_ns g setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps +net_admin --ambient-caps +net_admin \
		"$tool" run 7 0.1 >"$tmp/user"
	is 0 "$(get user result)" "CAP_NET_ADMIN without root is enough"
	in_ns g setpriv --reuid 65534 --regid 65534 --clear-groups "$tool" run 7 0.1 >"$tmp/user"
	is -1 "$(get user result)" "without it: EPERM"
}

# A receive buffer of 20 KB and a slow reader. MODE: closed or open (fail-open flag)
overrun() {
	local mode=$1 judged unseen n flag=gso
	[ "$mode" = closed ] || flag=gso,open
	judged=$(counter judged packets) unseen=$(counter unseen packets)
	start recv b "$flood" recv -i 2 - 5600 30; local r=$last
	start tool g "$tool" run -f $flag -b 10240 -d 5 -l 65536 0 30; local t=$last
	await bound 0; await hears 5600
	in_ns a "$flood" send - 10.2.0.2 5600 8 100 0 20000 >"$tmp/send"
	sleep 0.5
	in_ns a "$flood" send - 10.2.0.2 5600 1 100 100 50 >>"$tmp/send2"
	wait $r
	in_ns g "$tool" drops 0 >"$tmp/drops"
	kill $t; wait $t
	n=$(get recv packets)
	judged=$(($(counter judged packets) - judged)) unseen=$(($(counter unseen packets) - unseen))
	holds "overrun, $mode: ENOBUFS happened and was survived ($(get tool enobufs) times)" "$(get tool enobufs) > 0"
	is "$n" "$((judged + unseen))" "overrun, $mode: received == judged + unseen"
	is "$judged" "$(get tool packets)" "overrun, $mode: judged by us == marked"
	is 0 "$(get recv socket_drops)" "overrun, $mode: the receiver kept up"
	if [ "$mode" = open ]; then
		is 20050 "$n" "overrun, open: all arrived"
		holds "overrun, open: some of them unseen ($unseen)" "$unseen > 0"
	else
		is 0 "$unseen" "overrun, closed: nothing unseen"
		is $((20050 - n)) "$(get drops user_dropped)" "overrun, closed: the kernel counts what it dropped"
	fi
}

up || { echo "not ok - the namespaces could not be made"; exit 1; }
one 4 10.1.0.2 10.2.0.1 10.2.0.2
one 6 fd01::2 fd02::1 fd02::2
refused
overrun closed
overrun open
exit $bad
