#!/bin/bash
# lease_notice.sh - the kernel's word alone, that a quota is used up, has the lease raised: while the workers are silent, whose packets of
# it might all be refused, and so is the second's look. Without that word, too, nothing raises it, which shows that it was the word.
# Seconds: 38
set -u
cd "$(dirname "$0")/../.." || exit 2
# shellcheck source=tests/live/lease_lab.sh
. tests/live/lease_lab.sh
lab_egressd_odd
export EGRESSD_MUTE=$LAB_DIR/mute	# egressd_odd.c says which bit is what
mute() { head -c "$1" /dev/zero >"$EGRESSD_MUTE"; }
mute 0
PPS=$((PPS / 4 * 3))

# muted BITS: a sender that uses a grant up in a second, and again; from 20 MB on with those silent. Sets raises, by_lease, judged: since
# then, and credit: what was out then and what may have been granted on the way.
muted() {
	local l j r
	fresh 140 1000 block
	sending 5
	lab_wait 10 beyond $((20 * MB)) && lab_wait 5 leased || not_ok "no lease stands"
	mute "$1"
	r=$(lease raises) l=$(counter leased) j=$(counter judged) credit=$(lease outstanding_bytes)
	wait $sender
	lab_still 10 0.3 passed
	raises=$(($(lease raises) - r)) by_lease=$(($(counter leased) - l)) judged=$(($(counter judged) - j))
	lab_note "silent $1: $raises raises, $by_lease bytes by lease, $judged judged, $credit were out"
	mute 0
}
by_word() { # SPACE FAMILY: the kernel's word remains, which names the packet's family
	who "$1" "$2"
	muted 5
	[ $raises -ge 2 ] && ok "IPv$2: the kernel's word alone: raised $raises times" || not_ok "IPv$2: the kernel's word alone: raised $raises times"
	[ $judged -lt $by_lease ] && ok "IPv$2: and it goes by lease" || not_ok "IPv$2: $judged judged, $by_lease by lease"
	lease_identity "IPv$2: the kernel's word alone"
}
by_word sakura1 6
by_word sakura1 4

muted 7	# nobody's
lab_is 0 $raises "nobody's word: raised"
[ $by_lease -le "$credit" ] && ok "nobody's word: by lease what was granted" || not_ok "nobody's word: $by_lease by lease, $credit were out"
[ $judged -gt $((20 * MB)) ] && ok "nobody's word: the rest is judged" || not_ok "nobody's word: only $judged judged"
lease_identity "nobody's word"

muted 6	# the workers' remains
[ $raises -ge 2 ] && ok "the workers' hints alone: raised $raises times" || not_ok "the workers' hints alone: raised $raises times"
lease_identity "the workers' hints alone"
lab_egressd_stop && ok "stops" || not_ok "does not stop"
lab_done
