#!/bin/bash
# inline.sh - what judging costs: CPU time of the whole machine a packet, egressd inline (B) against an empty batched verdict loop
# under the same kernel rules (A). Two labs stand side by side, each with its own gateway; rounds as in ratio.h.
#   ROUNDS (15)   PACKETS a run (240000)   RATE a second (120000)
#   inline.sh [flows|pairs]   64 flows of one pair, or 10,000 pairs; 100-byte IP packets
set -u
cd "$(dirname "$0")/../.." || exit 2
: "${ROUNDS:=15}" "${PACKETS:=240000}" "${RATE:=120000}" "${EGRESSD_BUILD:=$PWD/build}"
export EGRESSD_BUILD
work=${1:-flows}
self=$0

# In the other process: a lab that runs one burst a line on stdin and answers with microseconds of CPU a packet.
side() { # loop|egressd WORK
	# shellcheck source=tests/live/lab.sh
	. tests/live/lab.sh
	exec 5>&1 >&2
	lab_up
	local flood=$EGRESSD_BUILD/tests/live/flood i
	if [ "$2" = pairs ]; then
		for i in $(seq 100 149); do echo "addr add 10.20.0.$i/24 dev eth0"; done | in_ns sakura1 ip -batch -
	fi
	if [ "$1" = egressd ]; then
		cat >"$LAB_DIR/policy.yaml" <<-END
		version: 1
		mode: enforce
		inside: [10.0.0.0/8, "fd00::/8"]
		rules:
		  - {name: pair, from: 10.20.0.0/24, to: outside, per: pair, limit: {1m: 100GB, 24h: 1TB}, action: block}
		  - {name: host, from: 10.20.0.0/24, to: outside, per: host, limit: {1h: 500GB}, action: block}
		END
		lab_egressd_start "$LAB_DIR/policy.yaml" leases=off || exit 1
	else
		mkfifo "$LAB_DIR/in"
		exec 6<>"$LAB_DIR/in"
		ip netns exec "$LAB-gw" "$EGRESSD_BUILD/tests/live/rules_tool" <&6 >"$LAB_DIR/rules.log" 2>&1 &
		echo $! >"$LAB_DIR/rules.pid"
		lab_started="rules $lab_started"
		lab_start loop gw "$EGRESSD_BUILD/tests/bench/empty_loop" 0 1
		lab_wait 5 grep -q ready "$LAB_DIR/loop.log"
		echo "apply inside=10.0.0.0/8,fd00::/8 dev=wan queue=0 queues=2" >&6
		lab_wait 5 grep -q "done" "$LAB_DIR/rules.log" || { cat "$LAB_DIR/rules.log"; exit 1; }
	fi
	in_ns outside nft -f - <<-END
	table ip sink {
		chain arriving { type filter hook prerouting priority -300
			udp dport 7000-7199 counter drop
		}
	}
	END
	arrived() { in_ns outside nft -j list table ip sink | jq '[.nftables[].rule?.expr[]?.counter?.packets // empty] | add'; }
	# All CPUs' time less their idle time, in us. The kernel clocks idleness by its own clock but samples all else 250 times a
	# second, which would be worth +-7 % of a burst.
	busy() {
		awk -v now="${EPOCHREALTIME/[.,]/}" -v n="$(nproc)" '/^cpu / { printf "%.0f\n", n * now - ($5 + $6 + $9) * 10000 }' /proc/stat
	}
	echo up >&5
	while read -r; do
		local before got from to
		before=$(arrived)
		from=$(busy)
		if [ "$2" = pairs ]; then
			in_ns sakura1 "$flood" send -S 50 -a 199 10.20.0.100 203.0.113.1 7000 9950 72 "$RATE" "$PACKETS" >/dev/null
		else
			in_ns sakura1 "$flood" send 10.20.0.15 203.0.113.9 7000 64 72 "$RATE" "$PACKETS" >/dev/null
		fi
		sleep 0.1
		to=$(busy)
		got=$(($(arrived) - before))
		[ "$got" -ge $((PACKETS * 99 / 100)) ] || echo "$1: only $got of $PACKETS arrived" >&2
		awk -v us=$((to - from)) -v n="$got" 'BEGIN { printf "%.4f\n", n ? us / n : 0 }' >&5
	done
	exit 0
}
if [ "${2:-}" = side ]; then
	side "$3" "$work"
fi
pipes=$(mktemp -d) || exit 2
mkfifo "$pipes/a_in" "$pipes/a_out" "$pipes/b_in" "$pipes/b_out"
bash "$self" "$work" side loop <"$pipes/a_in" >"$pipes/a_out" &
bash "$self" "$work" side egressd <"$pipes/b_in" >"$pipes/b_out" &
exec {a_in}>"$pipes/a_in" {a_out}<"$pipes/a_out" {b_in}>"$pipes/b_in" {b_out}<"$pipes/b_out"
rm -rf "$pipes"
read -r up <&"$a_out" && [ "$up" = up ] || { echo "the empty loop's lab does not stand" >&2; exit 1; }
read -r up <&"$b_out" && [ "$up" = up ] || { echo "egressd's lab does not stand" >&2; exit 1; }
run() {
	local c
	if [ "$1" = A ]; then echo >&"$a_in"; read -r c <&"$a_out"; else echo >&"$b_in"; read -r c <&"$b_out"; fi
	echo -n "$c "
}
for _ in $(seq $((ROUNDS + 1))); do
	for s in A B B A A A A A; do run $s; done
	echo
done | tee >(cat >&2) | "$EGRESSD_BUILD/tests/bench/ratio_of" "inline-$work" "empty batched verdict loop, same rules" \
	"tests/bench/inline.sh $work" at-most 1.05
r=$?
exec {a_in}>&- {b_in}>&-
wait 2>/dev/null
exit $r
