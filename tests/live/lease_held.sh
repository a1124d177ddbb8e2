#!/bin/bash
# lease_held.sh - the end of a host's budget while much of it is out on the lease of a pair that is silent: packets of its other pairs wait
# for the recall, pass with what comes back, and the host's limit is used up to the last packet that fits. They wait 20 ms at most. An engine
# killed meanwhile loses none of them.
# Seconds: 44
set -u
cd "$(dirname "$0")/../.." || exit 2
# shellcheck source=tests/live/lease_lab.sh
. tests/live/lease_lab.sh
LIMIT=$((20 * MB))
PPS=$((MB / 125))	# 8,000: of the pairs that wait, 199 with too little each to be leased

in_time=0
lent() { # TEXT: sets credit, what is out; a receiver of what the others send
	fresh 1000 20 block
	lab_start recv outside "$flood" recv - 9001 100
	lab_wait 5 lab_receives outside 9001
	# 6 MB in a second to one, which is leased for five more of them.
	in_ns "$space" "$flood" send $src $dst 9000 8 1200 $((PPS / 8 * 5)) $((PPS / 4 * 3)) >/dev/null
	sleep 3	# its rate falls: no second's look wants more for it
	credit=$(out)
	[ "$credit" -gt $((MB * 2)) ] && leased || not_ok "$1: only $credit bytes are out"
}
others() { in_ns "$space" "$flood" send -a 199 $src 203.0.113.12 9001 199 1200 $PPS "$1" >/dev/null; } # PACKETS
held() { # TEXT
	local text=$1 credit n ms p
	lent "$text"
	others $((2 * PPS))
	lab_still 10 0.3 passed
	lab_stop recv
	n=$(ctl --json status | jq '.counters["held-packets"]') p=$(passed)
	[ "$n" -gt 0 ] && ok "$text: $n packets waited" || not_ok "$text: none waited"
	# What comes while others wait does too: so many milliseconds of packets. Where a recall takes longer, some are refused.
	ms=$((n * 1000 / PPS))
	if [ $ms -le 25 ]; then
		in_time=$((in_time + 1))
		lab_is $((LIMIT / 1228 * 1228)) "$p" "$text: they waited $ms ms, and the limit is used to the last packet that fits"
	else
		[ "$p" -le $LIMIT ] && ok "$text: the recall took $ms ms, and $p bytes passed" || not_ok "$text: $p bytes passed, limit $LIMIT"
	fi
	lab_is "1 1 0" "$(lease grants) $(lease recalls) $(lease now)" "$text: one lease, recalled"
	# What went by lease has its place, all else was judged, once each, however often it waited.
	lab_is "$(passed)" $(($(counter leased) + $(ctl --json status | jq .counters.bytes))) "$text: whoever waited is charged once"
	lab_is "0 0" "$(jq -r '"\(.duplicates) \(.socket_drops)"' "$LAB_DIR/recv.log")" "$text: and arrives once"
	lab_note "$text: longest gap at the receiver $(jq .gap_us "$LAB_DIR/recv.log") us, $credit bytes were out"
	exact "$text"
	lease_identity "$text"
}
for i in 1 2 3 4 5 6; do	# three on a machine that has nothing else to do
	[ $in_time -ge 3 ] || held "time $i"
done
[ $in_time -ge 2 ] && ok "the recall was in time $in_time times" || not_ok "the recall was in time $in_time times"

# The other pair is leased, too: the credit comes back before anybody must wait for it, or he waits.
PPS=$((MB / 50)) LIMIT=$((100 * MB))
fresh 1000 100 block
sending 1
wait $sender
[ "$(out)" -gt $((20 * MB)) ] || not_ok "two pairs: only $(out) bytes are out"
in_ns "$space" "$flood" send $src 203.0.113.12 9000 8 1200 $PPS $((4 * PPS)) >/dev/null
lab_still 10 0.3 passed
lab_is $((LIMIT / 1228 * 1228)) "$(passed)" "two pairs: the limit, to the last packet that fits"
[ "$(lease grants)" -ge 2 ] && ok "two pairs: both were leased" || not_ok "two pairs: $(lease grants) leases"
exact "two pairs"
lease_identity "two pairs"

# The engine is killed while they wait, with half of what was out: they all fit.
lab_egressd_odd
export EGRESSD_MUTE=$LAB_DIR/mute
head -c 8 /dev/zero >"$EGRESSD_MUTE"	# nobody lets them go
PPS=$((MB / 125)) LIMIT=$((20 * MB))
lent "killed"
sent=$(((LIMIT - $(passed) - $(lease outstanding_bytes) / 2) / 1228))
before=$(passed)
others $sent
lab_still 10 0.3 passed
n=$((sent - ($(passed) - before) / 1228))
[ $n -gt 0 ] && [ $n = "$(ctl --json status | jq '.counters["held-packets"]')" ] && ok "killed: $n packets wait" || not_ok "killed: $n packets wait"
kill -KILL "$(lab_child engine)"
: >"$EGRESSD_MUTE"
all_left() { [ "$(passed)" = $((before + sent * 1228)) ]; }
lab_wait 5 all_left
lab_stop recv
lab_is "$sent 0 0" "$(jq -r '"\(.packets) \(.duplicates) \(.socket_drops)"' "$LAB_DIR/recv.log")" "killed: every packet arrives, and once"
lab_is "0 $n" "$(ctl --json status | jq -r '"\(.unseen_packets) \(.counters["repeated-packets"])"')" "killed: none unseen, those that waited are judged again"
exact "killed"
lease_identity "killed"
lab_egressd_stop && ok "stops" || not_ok "does not stop"
lab_done
