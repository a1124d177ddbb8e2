#!/bin/bash
# paths.sh WORKLOAD: what a packet costs on each way through a gateway, side by side. Every path has a lab of its own with its own
# gateway, all of them stand at once; a round runs each path, then each again in opposite order, then each reference four times (A/A).
#
#   paths       forward     forwarding, nothing else                      conntrack   and conntrack
#               leased      egressd                                       leased-ct   and conntrack
#               inline      egressd, leases: off: each packet is judged   loop        an empty batched verdict loop, our rules
#               nftset      an nft dynamic set counts every pair
#               uacctd      pmacct's uacctd over NFLOG                    fastnetmon  FastNetMon over AF_PACKET
#   workloads   flows       64 UDP flows of one pair, 100-byte packets    pairs       the same packets over 9,950 pairs
#               short       1 M flows a minute over 9,950 pairs, 6 packets each
#               bulk        one TCP connection                            bulk-nogso  without GSO, TSO, GRO: a packet a segment
#
# Cost: microseconds of the whole machine's CPU time a packet; bulk: nanoseconds a byte, and for egressd's paths how many packets
# came to user space. Peers that are not installed are left out with a word (tests/need bench).
#   ROUNDS (15)   PATHS: only these   BYTES: of bulk (2e9), of bulk-nogso (4e8)
#   KEEP: a file for the raw costs, a round a line, columns named in its first
set -u
cd "$(dirname "$0")/../.." || exit 2
: "${ROUNDS:=15}" "${EGRESSD_BUILD:=$PWD/build}"
export EGRESSD_BUILD
work=${1:-flows}
self=$0
paths="forward conntrack leased leased-ct inline loop nftset uacctd fastnetmon"
case $work in
flows | pairs) rate=120000 packets=180000 ;;
short) rate=100000 packets=150000 ;;
bulk) bytes=${BYTES:-2000000000} ;;
bulk-nogso) bytes=${BYTES:-400000000} ;;
*) echo "paths.sh: no workload $work" >&2; exit 2 ;;
esac

# ---- one path: a lab that runs one burst a line on stdin and answers with its cost and a second figure (0: none) ----

conntrack_on() {
	in_ns gw nft add table inet tracked
	in_ns gw nft add chain inet tracked c '{ type filter hook forward priority 0; }'
	in_ns gw nft add rule inet tracked c ct state invalid counter
}

start_egressd() { # KEY=VALUE...
	cat >"$LAB_DIR/policy.yaml" <<-END
	version: 1
	mode: enforce
	inside: [10.0.0.0/8, "fd00::/8"]
	rules:
	  - {name: pair, from: 10.20.0.0/24, to: outside, per: pair, limit: {1m: 1TB, 24h: 10TB}, action: block}
	  - {name: host, from: 10.20.0.0/24, to: outside, per: host, limit: {1h: 5TB}, action: block}
	END
	lab_egressd_start "$LAB_DIR/policy.yaml" "$@"
}

start_loop() {
	mkfifo "$LAB_DIR/in"
	exec 6<>"$LAB_DIR/in"
	ip netns exec "$LAB-gw" "$EGRESSD_BUILD/tests/live/rules_tool" <&6 >"$LAB_DIR/rules.log" 2>&1 &
	echo $! >"$LAB_DIR/rules.pid"
	lab_started="rules $lab_started"
	lab_start loop gw "$EGRESSD_BUILD/tests/bench/empty_loop" 0 1
	lab_wait 5 grep -q ready "$LAB_DIR/loop.log"
	echo "apply inside=10.0.0.0/8,fd00::/8 dev=wan queue=0 queues=2" >&6
	lab_wait 5 grep -q "done" "$LAB_DIR/rules.log" || { cat "$LAB_DIR/rules.log"; return 1; }
}

start_nftset() {
	in_ns gw nft -f - <<-END
	table inet count {
		set pairs {
			type ipv4_addr . ipv4_addr
			size 65536
			flags dynamic
			counter
		}
		chain c {
			type filter hook postrouting priority -160
			oifname wan add @pairs { ip saddr . ip daddr }
		}
	}
	END
}

start_uacctd() {
	in_ns gw nft -f - <<-END
	table inet copy {
		chain c {
			type filter hook postrouting priority -160
			oifname wan log group 5 snaplen 128 queue-threshold 64
		}
	}
	END
	cat >"$LAB_DIR/uacctd.conf" <<-END
	daemonize: false
	uacctd_group: 5
	uacctd_nl_size: 16777216
	snaplen: 128
	plugins: memory
	plugin_pipe_size: 67108864
	plugin_buffer_size: 65536
	aggregate: src_host, dst_host
	imt_path: $LAB_DIR/pmacct.pipe
	imt_mem_pools_number: 0
	END
	lab_start peer gw uacctd -f "$LAB_DIR/uacctd.conf"
	lab_wait 10 test -S "$LAB_DIR/pmacct.pipe"
}

start_fastnetmon() {
	echo 10.20.0.0/24 >"$LAB_DIR/networks"
	: >"$LAB_DIR/white"
	sed -E "s|^(interfaces) *=.*|\1 = inside|; s|^(mirror_afpacket) *=.*|\1 = on|; s|^(enable_ban) *=.*|\1 = off|
		s|^(enable_ban_ipv6) *=.*|\1 = off|; s|^(disable_usage_report) *=.*|\1 = on|;
		s|^(networks_list_path) *=.*|\1 = $LAB_DIR/networks|; s|^(white_list_path) *=.*|\1 = $LAB_DIR/white|" \
		/etc/fastnetmon.conf >"$LAB_DIR/fastnetmon.conf"
	printf 'cli_stats_file_path = %s\ncli_stats_ipv6_file_path = %s\n' "$LAB_DIR/stats" "$LAB_DIR/stats6" >>"$LAB_DIR/fastnetmon.conf"
	lab_start peer gw fastnetmon --configuration_file "$LAB_DIR/fastnetmon.conf" --log_file "$LAB_DIR/peer.txt" --disable_pid_logic
	lab_wait 10 grep -q "worker process for inside" "$LAB_DIR/peer.txt"
}

start_path() {
	case $1 in
	forward) ;;
	conntrack) conntrack_on ;;
	leased) start_egressd ;;
	leased-ct) conntrack_on && start_egressd ;;
	inline) start_egressd leases=off ;;
	*) "start_$1" ;;
	esac
}

# A peer does not work in the background of the others' bursts.
peer() { [ ! -e "$LAB_DIR/peer.pid" ] || kill -s "$1" "$(lab_pid peer)" $(pgrep -P "$(lab_pid peer)"); }

arrived() { in_ns outside nft -j list table ip sink | jq '[.nftables[].rule?.expr[]?.counter?.packets // empty] | add'; }
judged() { [ ! -e "$LAB_DIR/egressd.pid" ] && echo 0 || ctl --json status | jq .counters.packets; }

# All CPUs' time less their idle time, in us. The kernel clocks idleness by its own clock but samples all else 250 times a
# second, which would be worth +-7 % of a burst.
busy() {
	awk -v now="${EPOCHREALTIME/[.,]/}" -v n="$(nproc)" '/^cpu / { printf "%.0f\n", n * now - ($5 + $6 + $9) * 10000 }' /proc/stat
}

send_packets() { # COUNT
	case $work in
	flows) set -- 10.20.0.15 203.0.113.9 7000 64 72 "$rate" "$1" ;;
	pairs) set -- -S 50 -a 199 10.20.0.100 203.0.113.1 7000 9950 72 "$rate" "$1" ;;
	short) set -- -k 6 -S 50 -a 199 -p 200 10.20.0.100 203.0.113.1 7000 9950 72 "$rate" "$1" ;;
	esac
	in_ns sakura1 "$flood" send "$@" >/dev/null
}

burst_udp() { # PATH
	local before got from to
	send_packets $((packets / 10))
	before=$(arrived)
	from=$(busy)
	send_packets "$packets"
	sleep 0.1
	to=$(busy)
	got=$(($(arrived) - before))
	[ "$got" -ge $((packets * 99 / 100)) ] || echo "$1: only $got of $packets arrived" >&2
	awk -v us=$((to - from)) -v n="$got" 'BEGIN { printf "%.4f 0\n", n ? us / n : 0 }'
}

burst_tcp() { # PATH
	local before
	in_ns outside "$flood" sink 203.0.113.9 7001 >/dev/null &
	sleep 0.1
	before=$(judged)
	in_ns sakura1 "$flood" push 10.20.0.15 203.0.113.9 7001 "$bytes" >"$LAB_DIR/push.json"
	wait $!
	echo "$(jq --argjson all "$bytes" 'if .bytes == $all then .seconds * 1e9 / .bytes else 0 end' "$LAB_DIR/push.json")" \
		$(($(judged) - before))
}

side() { # PATH
	# shellcheck source=tests/live/lab.sh
	. tests/live/lab.sh
	LAB_SUMS=none	# what counts would cost, too
	exec 5>&1 >&2
	lab_up
	flood=$EGRESSD_BUILD/tests/live/flood
	local i how=burst_udp
	for i in $(seq 100 149); do echo "addr add 10.20.0.$i/24 dev eth0"; done | in_ns sakura1 ip -batch -
	in_ns outside nft -f - <<-END
	table ip sink {
		chain arriving { type filter hook prerouting priority -300
			udp dport 7000-7199 counter drop
		}
	}
	END
	case $work in bulk*) how=burst_tcp ;; esac
	[ "$work" != bulk-nogso ] || lab_gso off
	start_path "$1" || exit 1
	peer STOP
	echo up >&5
	while read -r; do
		peer CONT
		$how "$1" >&5
		peer STOP
	done
	peer CONT
	exit 0
}
if [ "${2:-}" = side ]; then
	side "$3"
fi

# ---- all of them ----

declare -A in out
dir=$(mktemp -d) || exit 2
trap 'rm -rf "$dir"' EXIT
chosen=
for p in ${PATHS:-$paths}; do
	case $p in uacctd | fastnetmon)
		command -v "$p" >/dev/null || { echo "$p is not installed: left out (tests/need bench)" >&2; continue; } ;;
	esac
	mkfifo "$dir/$p.in" "$dir/$p.out"
	bash "$self" "$work" side "$p" <"$dir/$p.in" >"$dir/$p.out" &
	exec {i}>"$dir/$p.in" {o}<"$dir/$p.out"
	in[$p]=$i out[$p]=$o
	read -r up <&"$o" && [ "$up" = up ] || { echo "the lab of $p does not stand" >&2; exit 1; }
	chosen="$chosen $p"
done
run() { # PATH: cost, and the second figure to a file
	local cost extra
	echo >&"${in[$1]}"
	read -r cost extra <&"${out[$1]}"
	echo -n "$cost "
	echo "$extra" >>"$dir/$1.extra"
}
references=conntrack
[[ " $chosen " == *" conntrack "* ]] || references=forward
[[ " $chosen " != *" loop "* ]] || references="$references loop"
again=$(for p in $references; do echo "$p $p $p $p"; done)
{
	# shellcheck disable=SC2086
	echo "$chosen $(echo "$chosen" | tr ' ' '\n' | tac | tr '\n' ' ') $(printf 'aa-%s ' $again)"
	for _ in $(seq $((ROUNDS + 1))); do
		for p in $chosen $(echo "$chosen" | tr ' ' '\n' | tac) $again; do
			run "$p"
		done
		echo
	done
} | tee >(cat >&2) >"$dir/costs"
[ -z "${KEEP:-}" ] || cp "$dir/costs" "$KEEP"

r=0
# ratio PATH AGAINST GOAL FIGURE: B/A of the two paths from every round.
ratio() {
	[[ " $chosen " == *" $1 "* && " $chosen " == *" $2 "* ]] || return 0
	local reference=${references%% *}
	[[ " $references " != *" $2 "* ]] || reference=$2
	awk -v b="$1" -v a="$2" -v ref="aa-$reference" 'NR == 1 { for (i = 1; i <= NF; i++) { if ($i == a) { if (!a1) a1 = i; a2 = i }
		if ($i == b) { if (!b1) b1 = i; b2 = i } if ($i == ref && !aa) aa = i }; next }
		{ print $a1, $b1, $b2, $a2, $aa, $(aa + 1), $(aa + 2), $(aa + 3) }' "$dir/costs" |
		"$EGRESSD_BUILD/tests/bench/ratio_of" "$work: $1 / $2" "$2; A/A of $reference" "tests/bench/paths.sh $work" "$3" "$4" || r=1
}
# Packets of one connection that came to user space: the most of all runs against a figure.
to_user() { # PATH MOST
	[[ " $chosen " == *" $1 "* ]] || return 0
	sort -n "$dir/$1.extra" | awk -v name="$work: packets to user space of $bytes bytes, $1" -v most="$2" -v cmd="tests/bench/paths.sh $work" '
		{ v[NR] = $1 } END { printf "{\"name\":\"%s\",\"value\":%d,\"low\":%d,\"high\":%d,\"unit\":\"packets\",\"against\":null,\"command\":\"%s\"," \
		"\"aa_low\":null,\"aa_high\":null,\"goal\":\"at most %d\",\"verdict\":\"%s\"}\n", name, v[int((NR + 1) / 2)], v[1], v[NR], cmd, most,
		v[NR] <= most ? "met" : "missed" }'
}
case $work in
bulk*)	# throughput at least 0.97 of conntrack's
	ratio leased-ct conntrack at-most 1.0309
	ratio leased forward none 0
	ratio inline conntrack none 0
	for p in loop nftset uacctd fastnetmon; do
		ratio "$p" forward none 0
	done
	# 64 a GB, or a thousandth of the segments
	[ "$work" = bulk ] && most=$((bytes / 1000000000 * 64)) || most=$((bytes / 1448 / 1000))
	to_user leased "$most"
	to_user leased-ct "$most"
	;;
*)
	ratio inline loop at-most 1.05
	case $work in
	flows) ratio leased-ct conntrack at-most 1.10; ratio leased forward at-most 1.12; ratio leased fastnetmon at-most 1 ;;
	*) ratio leased loop at-most 1.05; ratio leased-ct conntrack none 0 ;;
	esac
	for p in conntrack leased inline loop nftset uacctd fastnetmon; do
		[ "$work $p" = "flows leased" ] || ratio "$p" forward none 0
	done
	;;
esac
for p in $chosen; do eval "exec ${in[$p]}>&-"; done
wait 2>/dev/null
exit $r
