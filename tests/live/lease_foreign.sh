#!/bin/bash
# lease_foreign.sh - leases in a table without an owner, as old kernels have it: another admin raises a quota, deletes an element, the
# element and its object, the counter, lends it to another pair. Noticed within a second, told, the budget exceeded by no more than what flows until then, and
# that is charged, or unseen where nobody of ours lent it. (Where the table is owned nobody else can: lease_changed.sh.)
# Seconds: 55
set -u
cd "$(dirname "$0")/../.." || exit 2
# shellcheck source=tests/live/lab.sh
. tests/live/lab.sh
LAB_SUMS=own
IDENTITY_PARTIAL=
lab_need jq nft
lab_up
flood=$EGRESSD_BUILD/tests/live/flood
LIMIT=50000000
SECOND=$((8000 * 1228))	# bytes that the sender offers in one
SENT=60000
[ -z "${EGRESSD_SLOW:-}" ] || SENT=100000
cat >"$LAB_DIR/policy.yaml" <<END
version: 1
mode: enforce
inside: [10.0.0.0/8, "fd00::/8"]
rules:
  - {name: pair, from: 10.20.0.0/24, to: outside, per: pair, limit: {1h: 50MB}, action: block}
END
passed() { in_ns gw nft -j list counter inet ref left | jq '.nftables[] | select(.counter) | .counter.bytes'; }
charged() { ctl --json why 10.20.0.15 | jq '[.accounts[].limits[0].sum_bytes] | add'; }
out() { ctl --json why 10.20.0.15 | jq '[.accounts[].outstanding_bytes] | add'; }
lease() { ctl --json status | jq ".leases.$1"; }
quota() { in_ns gw nft list map inet egressd lease4 2>/dev/null | grep -oE 'l[0-9]+g[0-9]+'; }
stands() { [ "$(passed)" -gt 10000000 ] && [ "$(lease now)" = 1 ] && [ -n "$(quota)" ]; }
state() { passed; charged; out; }

# foreign TEXT WORD COMMAND...: beside a sender that goes on until all is blocked; WORD is what the log must say.
foreign() {
	local text=$1 word=$2 p took start
	shift 2
	lab_egressd_stop
	rm -rf "${LAB_DIR:?}/state"
	in_ns gw nft -f - <<-END
	table inet ref { }
	delete table inet ref
	table inet ref {
		counter left { }
		chain after { type filter hook postrouting priority 0; ip saddr 10.20.0.15 counter name left; }
	}
	table inet egressd { }
	END
	lab_egressd_start "$LAB_DIR/policy.yaml" >/dev/null || not_ok "$text: egressd starts"
	lab_is 0 "$(in_ns gw nft list table inet egressd 2>/dev/null | grep -c 'flags owner')" "$text: the table has no owner"
	lab_start send sakura1 "$flood" send 10.20.0.15 203.0.113.11 9000 8 1200 8000 $SENT
	lab_wait 10 stands || not_ok "$text: no lease stands"
	start=${EPOCHREALTIME/[.,]/}
	"$@" || not_ok "$text: $*"
	told() { grep -q "$word" "$LAB_DIR/egressd.log"; }
	lab_wait 10 told && ok "$text: it is told" || not_ok "$text: nobody tells: $(tail -n 3 "$LAB_DIR/egressd.log")"
	alerted() { grep -qE 'health: somebody (removed or changed|raised, reset, made or removed)' "$LAB_DIR/egressd.log"; }
	lab_wait 10 alerted && ok "$text: a health alert" || not_ok "$text: no health alert"
	took=$(((${EPOCHREALTIME/[.,]/} - start) / 1000))
	[ $took -lt 1500 ] && ok "$text: after $took ms" || not_ok "$text: after $took ms"	# its second, and how long we took to see
	lab_wait 30 lab_ended send
	lab_settled 20 state
	p=$(passed)
	if [ "$p" -le $((LIMIT + SECOND)) ] && [ "$p" -ge $((LIMIT / 100 * 98 - SECOND)) ]; then ok "$text: $p bytes passed of $LIMIT"
	else not_ok "$text: $p bytes passed of $LIMIT"; fi
	unseen=$(ctl --json status | jq .unseen_bytes)
	[ $(($(charged) + unseen)) -ge "$p" ] && ok "$text: all of it is charged ($(charged)), or unseen ($unseen)" ||
		not_ok "$text: charged $(charged) of $p, $unseen unseen"
	lab_is 0 "$(out)" "$text: nothing is out"
	lease_identity "$text" "$(lease lost_bytes)" "$unseen"
	lab_note "$(lease beyond_bytes) beyond, $(lease lost_bytes) lost; $(grep -c . "$LAB_DIR/egressd.log") lines in the log"
	grep -aE '^<[0-4]>' "$LAB_DIR/egressd.log" | sed 's/^/# /' | cut -c1-160
}
raise() { in_ns gw nft add quota inet egressd "$(quota)" 5000 mbytes; }
drop_element() { in_ns gw nft delete element inet egressd lease4 '{ 10.20.0.15 . 203.0.113.11 }'; }
drop_object() {
	local name
	name=$(quota)
	in_ns gw nft "delete element inet egressd lease4 { 10.20.0.15 . 203.0.113.11 }; delete quota inet egressd $name"
}
drop_counter() { in_ns gw nft delete element inet egressd leased4 '{ 10.20.0.15 . 203.0.113.11 }'; }
lend() {
	in_ns gw nft "add element inet egressd leased4 { 10.20.0.15 . 203.0.113.12 counter }
		add element inet egressd lease4 { 10.20.0.15 . 203.0.113.12 : \"$(quota)\" }"
	in_ns sakura1 "$flood" send 10.20.0.15 203.0.113.12 9000 1 1200 8000 800 >/dev/null
}
foreign "quota raised" 'somebody removed' raise
foreign "element deleted" 'somebody removed' drop_element
foreign "element and object deleted" 'somebody removed' drop_object
foreign "counter deleted" 'somebody removed' drop_counter
lab_is 0 "$(ctl --json status | jq .unseen_bytes)" "nothing unseen until now"
foreign "lent to another pair" 'somebody made leases' lend
lab_is 0 $((unseen % 1228)) "lent to another pair: $unseen bytes are unseen"
[ "$unseen" -gt 0 ] && ok "and those are not none" || not_ok "none is unseen"
lab_done
