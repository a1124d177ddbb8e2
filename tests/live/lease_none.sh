#!/bin/bash
# lease_none.sh - a kernel that cannot lease, because it has no quotas or, before 5.7, does not count by set element: one line says
# so, every packet is judged by the engine, and a limit is as exact as ever. After the engine was killed, too.
# Seconds: 18
set -u
cd "$(dirname "$0")/../.." || exit 2
# shellcheck source=tests/live/lease_lab.sh
. tests/live/lease_lab.sh
lab_egressd_odd
LIMIT=$((20 * MB))
PPS=$((PPS / 4))	# where leases are, most of it would go by them

judged_all() { # TEXT VARIABLE: egressd in that world
	local text=$1 p engine
	export "$2=1"
	fresh 20 1000 block
	lab_is 1 "$(grep -c 'no leases, every packet is judged by the engine' "$LAB_DIR/egressd.log")" "$text: one line says so"
	lab_is false "$(lease on)" "$text: and status"
	sending 4
	lab_wait 5 beyond $((5 * MB)) || not_ok "$text: nothing leaves"
	engine=$(lab_child engine)
	kill -KILL "$engine"
	wait $sender
	lab_wait 5 lab_child engine >/dev/null
	lab_still 10 0.3 passed
	p=$(passed)
	[ "$p" -le $LIMIT ] && [ "$p" -gt $((LIMIT - 4 * 1228)) ] && ok "$text: $p bytes passed of $LIMIT" ||
		not_ok "$text: $p bytes passed of $LIMIT"	# a packet a worker may have been charged twice
	lab_is "0 $p" "$(counter leased) $(counter judged)" "$text: all of it judged"
	lease_identity "$text" $((2 * 1228))
	lab_is 1 "$(grep -c 'no leases, every packet' "$LAB_DIR/egressd.log")" "$text: the next engine does not say it again"
	unset "$2"
}
judged_all "no quotas" EGRESSD_NO_QUOTA
judged_all "no counters in sets" EGRESSD_OLD_SETS

fresh 20 1000 block
sending 4
wait $sender
lab_is "true 0" "$(lease on) $(grep -c 'no leases' "$LAB_DIR/egressd.log")" "a kernel that can"
leased=$(counter leased)
[ "$leased" -gt 0 ] && ok "a kernel that can: $leased bytes by lease" || not_ok "a kernel that can: none by lease"
lab_egressd_stop && ok "stops" || not_ok "does not stop"
lab_done
