#!/bin/bash
# lease_trickle.sh - after a burst some pairs go on with a packet a second, others are silent: of each its lease ends by itself in the stated
# 40 s, all credit comes back, and no packet is lost, delivered twice or counted twice, by lease, while it ends and after it.
# Seconds: 22
set -u
cd "$(dirname "$0")/../.." || exit 2
# shellcheck source=tests/live/lease_lab.sh
. tests/live/lease_lab.sh
PAIRS=20

fresh 1000 1000 block
lab_start recv outside "$flood" recv - 9000 100
lab_wait 5 lab_receives outside 9000
sending 2 $((2 * PAIRS)) -a $((2 * PAIRS))	# the first half goes on
wait $sender
all_leased() { [ "$(lease now)" = $((2 * PAIRS)) ]; }
lab_wait 5 all_leased && ok "$((2 * PAIRS)) pairs are leased" || not_ok "$(lease now) leases of $((2 * PAIRS)) pairs"
[ "$(out)" -gt 0 ] || not_ok "nothing is out"
start=${EPOCHREALTIME/[.,]/}
lab_start trickle sakura1 "$flood" send -a $PAIRS $src $dst 9000 $PAIRS 1200 $PAIRS $((60 * PAIRS))
sleep 3
all_leased && ok "a packet a second: by lease while it stands" || not_ok "a packet a second: $(lease now) leases after 3 s"
by_lease=$(lease packets)
[ "$by_lease" -gt 0 ] || not_ok "none of it by lease"
none() { [ "$(lease now)" = 0 ]; }
lab_wait 40 none || not_ok "$(lease now) leases stand after 40 s"
took=$(((${EPOCHREALTIME/[.,]/} - start) / 1000))
[ $took -lt 40000 ] && ok "the credit of all is back after $took ms" || not_ok "the credit of all is back after $took ms"
lab_is 0 "$(out)" "nothing is out"
judged=$(counter judged)
sleep 2.5
lab_is 0 "$(lease now)" "a packet a second is worth no lease"
[ "$(($(counter judged) - judged))" -ge $((PAIRS * 1228)) ] && ok "and is judged" || not_ok "and is not judged"
lab_stop trickle
lab_still 5 0.3 passed
lab_stop recv
sent=$(($(jq .packets "$LAB_DIR/send.json") + $(jq .packets "$LAB_DIR/trickle.log")))
lab_is "$sent 0" "$(jq -r '"\(.packets) \(.duplicates)"' "$LAB_DIR/recv.log")" "every packet came, and once"
lab_is $((sent * 1228)) "$(pairs)" "and is counted once"
lab_is 0 "$(ctl --json status | jq .unseen_packets)" "none unseen"
exact "trickle"
lease_identity "trickle"
lab_egressd_stop && ok "stops" || not_ok "does not stop"
lab_done
