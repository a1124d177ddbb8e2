#!/bin/bash
# lease_changed.sh - whoever changes his mind in mid-lease: a limit that is tightened and still ahead, a policy for others, a block by hand, a
# flush, a forged mark; and what status and why say of leases, alert mode, `leases: off`.
# Seconds: 60
set -u
cd "$(dirname "$0")/../.." || exit 2
# shellcheck source=tests/live/lease_lab.sh
. tests/live/lease_lab.sh

# --- what is said ---------------------------------------------------------------------------------------------------------
fresh 1000 1000 block
sending 1 8 -a 8
wait $sender
settled
standing "8 pairs" 8
exact "8 pairs"
# With a byte more or less it would be told: of eight pairs, of status, of both rules.
faults=$(identity_faults -1 -1)
lab_is "9 2" "$(grep -c '^\[I3\].*10.20.0.15\|^\[I3\] status' <<<"$faults") $(grep -c '^\[I4\]' <<<"$faults")" "8 pairs: a byte too many is seen"
# The same for people: of nine accounts, in the words of why and status.
on_lease() { ctl why $src | sed -n 's/.*   on lease \([0-9.]* [kM]*B\)   .*/\1/p' | sort; }
in_words() { awk '{ m = $1 >= 1e6; printf "%.1f %s\n", $1 / (m ? 1e6 : 1e3), m ? "MB" : "kB" }' | sort; }
lab_is "$(ctl --json why $src | jq '.accounts[].outstanding_bytes' | in_words)" "$(on_lease)" "why: credit on lease, of each account"
lab_is 9 "$(on_lease | wc -l)" "why: eight pairs and their host"
ctl status | grep -qF "8 leases ($(lease share | awk '{ printf "%.1f", 100 * $1 }') % of bytes)" && ok "status: leases and their share" ||
	not_ok "status: $(ctl status | head -n 1)"
lab_is "8 0" "$(ctl --json why $src | jq -r '[.pairs[] | .bytes - .leased_bytes] | "\(map(select(. > 0)) | length) \(map(select(. < 0)) | length)"')" \
	"why --json: of each pair some by lease, the first in the queue"
lease_identity "8 pairs"
lab_is "" "$(on_lease)" "why: nothing on lease when all have ended"

# --- tightened, decided, flushed in mid-lease -----------------------------------------------------------------------------
ahead() { # TEXT RULE [OPTION...]: to a limit that is reached 0.4 s later
	local text="tightened, ahead, $1" rule=$2 most p
	shift 2
	fresh 1000 1000 block
	sending 3 8 "$@"
	midway
	most=$(($(passed) / MB + 10))
	if [ "$rule" = pair ]; then policy $most 1000 block; else policy 1000 $most block; fi
	most=$((most * MB))
	ctl apply "$LAB_DIR/policy.yaml" >/dev/null
	wait $sender
	settled
	p=$(passed)
	[ "$p" -le $most ] && [ "$p" -ge $((most / 100 * 98)) ] && ok "$text: $p bytes passed of $most" || not_ok "$text: $p bytes passed of $most"
	exact "$text"
	lease_identity "$text"
}
ahead "a pair" pair
ahead "a host with 8 destinations" host -a 8

fresh 1000 1000 block
sending 3
midway
r=$(lease recalls)
sed -i 's|^inside: \[|&172.16.0.0/12, |' "$LAB_DIR/policy.yaml"	# the kernel's rules change, too
echo '  - {name: others, from: 10.20.0.99, to: outside, per: pair, limit: {1h: 1MB}, action: block}' >>"$LAB_DIR/policy.yaml"
ctl apply "$LAB_DIR/policy.yaml" >/dev/null
lab_is "$r" "$(lease recalls)" "a policy that says something else of others only: no lease ends"
leased && ok "and it stands" || not_ok "no lease stands"
p=$(counter judged)
wait $sender
settled
[ "$(($(counter judged) - p))" -le 1000000 ] && ok "and goes on" || not_ok "$(($(counter judged) - p)) bytes were judged after it"
exact "a policy for others"
lease_identity "a policy for others"

fresh 1000 1000 block
sending 3
midway
ctl block 10.20.0.15 203.0.113.11 --for 1h --reason test >/dev/null
p=$(passed)
wait $sender
settled
lab_is "$p" "$(passed)" "blocked by hand: nothing more leaves when it has returned"
exact "blocked by hand"
lease_identity "blocked by hand"

fresh 1000 1000 block
sending 4
midway
owner=$(in_ns gw nft list table inet egressd 2>/dev/null | grep -c 'flags owner')
name=$(in_ns gw nft list table inet egressd 2>/dev/null | grep -oE 'l[0-9]+g[0-9]+' | head -1)
if [ "$owner" = 1 ]; then
	in_ns gw nft add quota inet egressd "$name" 5000 mbytes >"$LAB_DIR/others" 2>&1 && not_ok "others raise a quota"
	grep -q 'not permitted' "$LAB_DIR/others" && ok "nobody else may change a lease" || not_ok "refused: $(cat "$LAB_DIR/others")"
else
	skip "this kernel has no tables with an owner: others may change leases"
fi
identity_flush
wait $sender
settled
lab_is 0 "$(ctl --json status | jq .unseen_packets)" "flushed: nothing unseen after it is back"
r=$(jq .packets "$LAB_DIR/send.json")
got=$(pairs)
# Between the removal and our rules' return nobody counts: under a second's traffic.
[ "$got" -ge $(((r - PPS) * 1228)) ] && [ "$got" -le $((r * 1228)) ] && ok "flushed: $got of $((r * 1228)) bytes counted" ||
	not_ok "flushed: $got of $((r * 1228)) bytes counted"
policy 900 1000 block
ctl apply "$LAB_DIR/policy.yaml" >/dev/null
lab_is 0 "$(out)" "another limit for all ends all leases"
lease_identity "flushed" $((PPS * 1228)) $((PPS * 1228))

# --- forged marks, alert mode, off ------------------------------------------------------------------------------------------
fresh 20 1000 block
in_ns gw nft 'add chain inet ref forge { type filter hook postrouting priority -200; }; add rule inet ref forge meta mark set 0x10000000'
sending 2
wait $sender
settled
[ "$(passed)" -le $((20 * MB)) ] && ok "a forged mark passes nothing" || not_ok "a forged mark: $(passed) bytes passed"
exact "forged mark"
lease_identity "forged mark"

who sakura1 6
fresh 20 1000 alert
sending 4
wait $sender
settled
standing "alert" 1
exact "alert"
[ "$(lease bytes)" -gt $((40 * MB)) ] && ok "alert: leases go on past the limit" || not_ok "alert: only $(lease bytes) bytes by lease"
lab_is 1 "$(ctl --json findings | jq '[.. | objects | select(.rule.name? == "pair")] | length')" "alert: one finding"
lease_identity "alert"

who sakura1 4
fresh 1000 1000 block leases=off
sending 1
wait $sender
lab_wait 10 agreed
lab_is 0 "$(lease bytes)" "leases: off"
exact "leases: off"
lab_egressd_stop && ok "stops" || not_ok "does not stop"
lab_done
