#!/bin/bash
# leases.sh: what leases cost beside the packets. 9,950 pairs send 4,028-byte packets (links of 9,000 bytes), RATE
# (80,000) a second in all: 32 kB/s each, about what this machine can send and judge before the leases stand. When all leases end at once,
# these packets come to the queue, and leave no processor for anything else: what is then waited for is asked at half of it as well.
#   main thread    settle, grants, raises and recalls together: time of the engine's main thread, share of one core, in each of
#                  WINDOWS (15) times two seconds
#   recall         milliseconds from the command that tightens the policy, with all those leases open, to the last packet that passes
#                  by one: leased packets get a DSCP on their way out, and where they arrive no more of them come for 10 ms (RATE / 2)
#   answer         milliseconds until such a command is answered: what passed by leases is in the sums (recalled, in full), the new policy
#                  in force (RATE / 2, and RATE). Of other commands than those whose last packet is looked for: that takes a good part of
#                  a processor.
# Figures are medians; low and high are the 2.5th and 97.5th percentile of the samples.
set -u
cd "$(dirname "$0")/../.." || exit 2
: "${WINDOWS:=15}" "${RATE:=80000}" "${EGRESSD_BUILD:=$PWD/build}"
export EGRESSD_BUILD
# shellcheck source=tests/live/lab.sh
. tests/live/lab.sh
LAB_SUMS=none	# what counts would cost, too
lab_need jq
exec 5>&1 >&2
lab_up
flood=$EGRESSD_BUILD/tests/live/flood
for i in $(seq 100 149); do echo "addr add 10.20.0.$i/24 dev eth0"; done | in_ns sakura1 ip -batch -
in_ns outside nft -f - <<-END
	table ip sink {
		chain arriving {
			type filter hook prerouting priority -300
			udp dport 7000 counter drop
		}
	}
END
policy() { # LIMIT
	cat >"$LAB_DIR/policy.yaml" <<-END
	version: 1
	mode: enforce
	inside: [10.0.0.0/8, "fd00::/8"]
	rules:
	  - {name: pair, from: 10.20.0.0/24, to: outside, per: pair, limit: {1m: $1, 24h: 10TB}, action: block}
	  - {name: host, from: 10.20.0.0/24, to: outside, per: host, limit: {1h: 5TB}, action: block}
	END
}
policy 1TB
lab_egressd_start "$LAB_DIR/policy.yaml" || exit 1
for s in $LAB_SPACES; do
	for d in $(ip -n "$LAB-$s" -o link show | sed -n 's/^[0-9]*: \([^@:]*\).*/\1/p' | grep -v '^lo$'); do
		ip -n "$LAB-$s" link set "$d" mtu 9000 || exit 1
	done
done
flood_at() { # RATE
	lab_start send sakura1 "$flood" send -S 50 -a 199 10.20.0.100 203.0.113.1 7000 9950 4000 "$1" 600s
}
flood_at "$RATE"
open_leases() { ctl --json status | jq .leases.now; }
many() { [ "$(open_leases)" -ge 9000 ]; }
wait_many() { lab_wait 60 many || { echo "only $(open_leases) leases: this machine does not send 13 kB/s to each of 9,950 pairs"; exit 1; }; }
wait_many

# row NAME UNIT [GOAL] < SAMPLES
row() {
	sort -n | awk -v name="$1" -v unit="$2" -v goal="${3:-}" '{ v[NR] = $1 } END {
		lo = v[int(NR * 0.025) + 1]; hi = v[int(NR * 0.975 + 0.999)]; mid = v[int((NR + 1) / 2)]
		printf "{\"name\":\"%s\",\"value\":%.2f,\"low\":%.2f,\"high\":%.2f,\"unit\":\"%s\",\"against\":null,", name, mid, lo, hi, unit
		printf "\"command\":\"tests/bench/leases.sh\",\"aa_low\":null,\"aa_high\":null,"
		if (goal == "") { print "\"verdict\":\"none\"}"; exit }
		printf "\"goal\":\"at most %s\",", goal
		printf "\"verdict\":\"%s\"}\n", hi <= goal ? "met" : mid <= goal ? "inconclusive" : "missed" }' >&5
}
engine=$(lab_child engine)
ran() { cut -d ' ' -f 1 "/proc/$engine/task/$engine/schedstat"; }
counters() { ctl --json status | jq -c '.leases | {now, grants, raises, recalls, bytes}'; }
counters
for _ in $(seq "$WINDOWS"); do
	from=${EPOCHREALTIME/[.,]/} before=$(ran)
	sleep 2
	awk -v ns=$(($(ran) - before)) -v us=$((${EPOCHREALTIME/[.,]/} - from)) 'BEGIN { print ns / us / 10 }'
done | tee >(cat >&2) >"$LAB_DIR/share"
counters
wait_many	# still
row "leases: main thread, 9,950 pairs at full rate" "% of a core" 5 <"$LAB_DIR/share"

in_ns gw nft -f - <<-END
	table inet ref {
		chain between {
			type filter hook postrouting priority -153
			meta mark & 0x30000000 == 0x10000000 ip dscp set cs1
		}
	}
END
in_ns outside nft -f - <<-END
	table inet ref {
		counter leased { }
		chain arriving {
			type filter hook prerouting priority -301
			ip dscp cs1 counter name leased
		}
	}
END
# The counter's value every few milliseconds, by one nft that goes on: "MICROSECONDS BYTES" a line, until the file is gone.
watch() {
	local l now
	coproc NFT { exec ip netns exec "$LAB-outside" nft -i 2>/dev/null; }
	while [ -e "$LAB_DIR/watching" ]; do
		now=${EPOCHREALTIME/[.,]/}
		echo "list counter inet ref leased" >&"${NFT[1]}"
		while read -t 5 -r l <&"${NFT[0]}"; do
			case $l in *bytes*) echo "$now ${l##* }"; break ;; esac
		done
		read -rt 0.002 <&"${NFT[0]}"
	done
	eval "exec ${NFT[1]}>&-"
	wait
}
limit=1000
tighten() {
	limit=$((limit - 1))
	policy ${limit}GB
	wait_many
	sleep 0.1
	from=${EPOCHREALTIME/[.,]/}
	ctl apply "$LAB_DIR/policy.yaml" >/dev/null || exit 1
}
answered() { tighten; echo $(((${EPOCHREALTIME/[.,]/} - from) / 1000)); }
for _ in $(seq "$WINDOWS"); do answered; done | tee >(cat >&2) >"$LAB_DIR/answer.full"

lab_stop send
flood_at $((RATE / 2))
for _ in $(seq "$WINDOWS"); do
	: >"$LAB_DIR/watching"
	watch >"$LAB_DIR/watched" &
	watcher=$!
	tighten
	sleep 0.1
	rm "$LAB_DIR/watching"
	wait "$watcher"
	awk -v from="$from" '$1 < from { next } $2 != was { was = $2; since = $1 } $1 - since > 10000 { print (since - from) / 1000; exit }' \
		"$LAB_DIR/watched" >>"$LAB_DIR/recall"
	answered >>"$LAB_DIR/answer"
	tail -n 1 "$LAB_DIR/recall" "$LAB_DIR/answer" >&2
done
row "leases: last leased packet after a policy is tightened, 9,950 leases open" "ms" 100 <"$LAB_DIR/recall"
row "leases: policy tightened, 9,950 leases open" "ms" 100 <"$LAB_DIR/answer"
row "leases: policy tightened, 9,950 leases open, packets for all of the machine" "ms" <"$LAB_DIR/answer.full"
