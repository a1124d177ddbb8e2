#!/bin/bash
# kill_engine.sh - `kill -9` of the engine 100 times under 1,000 packets a second, beside 150 leases in use: every packet arrives, none unseen,
# totals never below and at most one packet a worker and kill above, back in < 100 ms, no descriptor leaked; then without leases.
# There as old as it happens to be, up to 0.3 s: some have not begun yet. KILLS: so many beside leases, a quarter without.
# Alone: it holds the engine to 100 ms.
set -u
cd "$(dirname "$0")/../.." || exit 2
# shellcheck source=tests/live/lab.sh
. tests/live/lab.sh
lab_need jq
lab_up
flood=$EGRESSD_BUILD/tests/live/flood
kills=${KILLS:-100} within=100
[ -z "${EGRESSD_SLOW:-}" ] || { kills=10; within=10000; }	# an emulated machine
cat >"$LAB_DIR/policy.yaml" <<END
version: 1
mode: enforce
inside: [10.0.0.0/8, "fd00::/8"]
rules:
  - {name: pair, from: 10.20.0.0/24, to: outside, per: pair, limit: {1m: 1GB, 24h: 10GB}, action: block}
  - {name: host, from: 10.20.0.0/24, to: outside, per: host, limit: {1h: 2GB}, action: block}
END
sum_of() { jq '[.pairs[].packets] | add' <<<"$1"; }

# kills TEXT COUNT LEASES [AGE]: of 150 pairs that are too slow for a lease each packet meets the queue; another host's are leased, where there are leases
kills() {
	local text=$1 count=$2 lasts=$(($2 / 2 + 100)) supervisor fds killed=0 engine='' next sent why packets low gap unseen
	LAB_SUMS="$((2 * count * 1228)) 0"
	lab_egressd_start "$LAB_DIR/policy.yaml" leases="$3" || exit 1
	supervisor=$(lab_pid egressd)
	fds=$(find "/proc/$supervisor/fd" -type l | wc -l)
	if [ "$3" = on ]; then
		lab_start fast sakura2 "$flood" send -a 150 10.20.0.16 203.0.113.11 7001 150 1200 3000 ${lasts}s
		leased() { [ "$(ctl --json status | jq .leases.now)" = 150 ]; }
		lab_wait 20 leased && ok "$text: 150 pairs are leased" || not_ok "$text: $(ctl status | head -n 1)"
	fi
	lab_start recv outside "$flood" recv -i 3 - 7000 $((lasts + 50))
	lab_wait 5 lab_receives outside 7000
	lab_start send sakura1 "$flood" send -a 150 10.20.0.15 203.0.113.11 7000 150 100 1000 ${lasts}s	# ended when the kills are done
	while [ $killed -lt "$count" ] && kill -0 "$(lab_pid send)" 2>/dev/null; do
		next=$(lab_child engine) && [ "$next" != "$engine" ] || { sleep 0.01; continue; }
		engine=$next
		kill -KILL "$engine"
		killed=$((killed + 1))
		sleep "${4:-0.$(printf %03d $((RANDOM % 300)))}"
	done
	back() { next=$(lab_child engine) && [ "$next" != "$engine" ] && ctl status; }
	lab_wait 10 back || not_ok "$text: no engine after the last kill"
	[ "$3" = off ] || lab_stop fast
	lab_stop send
	lab_wait 20 lab_ended recv
	sent=$(jq .packets "$LAB_DIR/send.log")
	lab_is "$count" "$killed" "$text: killed so often"
	lab_is "$sent" "$(jq .packets "$LAB_DIR/recv.log")" "$text: $killed kills at 1,000 pps: every packet arrived"
	lab_is 0 "$(jq .duplicates "$LAB_DIR/recv.log")" "$text: none twice"
	grep -q 'health: the engine was restarted.*; nobody judged .* to .*; no packet passed unjudged' "$LAB_DIR/egressd.log" &&
		ok "$text: and that is told" || not_ok "$text: told: $(grep 'health: the engine' "$LAB_DIR/egressd.log" | head -n 3)"
	unseen=$(in_ns gw nft -j list counter inet egressd_keep unseen | jq '.nftables[] | select(.counter) | .counter.packets')
	lab_is 0 "$unseen" "$text: none passed unseen"
	why=$(ctl --json why 10.20.0.15)
	packets=$(sum_of "$why")
	if [ "$packets" -ge "$sent" ] && [ "$packets" -le $((sent + 2 * killed)) ]; then
		ok "$text: counted $packets of $sent packets: none less, at most one more a worker and kill"
	else
		not_ok "$text: counted $packets of $sent packets, $killed kills"
	fi
	# The same of the host's account: spent is at least what passed.
	low=$(jq --argjson b $((sent * 128)) '[.accounts[] | select(.rule == "host") | .limits[] | select(.sum_bytes < $b)] | length' <<<"$why")
	lab_is 0 "$low" "$text: no window's sum is below what left"
	# A packet a millisecond: the longest silence at the receiver is the longest time without an engine, and a little more.
	gap=$(($(jq .gap_us "$LAB_DIR/recv.log") / 1000))
	if [ -z "${4:-}" ]; then	# who is killed before it is back was away for longer
		lab_note "$text: nobody judged for $gap ms at most"
	elif [ "$gap" -lt $within ]; then
		ok "$text: back within $gap ms each time"
	else
		not_ok "$text: back after $gap ms"
	fi
	lab_is "$fds" "$(find "/proc/$supervisor/fd" -type l | wc -l)" "$text: the supervisor leaks no descriptor"
	ctl debug check >/dev/null && ok "$text: every structure is consistent" || not_ok "$text: debug check"
	lab_egressd_stop || not_ok "$text: does not stop"
	rm -rf "$LAB_DIR/state"
}
kills "leases in use" "$kills" on 0.17
kills "no leases" $((kills / 4)) off
lab_done
