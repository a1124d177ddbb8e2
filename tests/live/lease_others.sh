#!/bin/bash
# lease_others.sh - what other admins do to leases while they pass packets: quotas reset, the ruleset flushed just below a limit, marks
# forged by a local sender. A limit is passed by no more than what flows until it is noticed, under a second, and it is told.
# Seconds: 63
set -u
cd "$(dirname "$0")/../.." || exit 2
# shellcheck source=tests/live/lab.sh
. tests/live/lab.sh
LAB_SUMS=own
IDENTITY_PARTIAL=
lab_need jq
lab_up
flood=$EGRESSD_BUILD/tests/live/flood
LIMIT=60000000
RATE=9824000	# bytes a second: 8,000 packets of 1,228
cat >"$LAB_DIR/policy.yaml" <<END
version: 1
mode: enforce
inside: [10.0.0.0/8, "fd00::/8"]
rules:
  - {name: pair, from: 10.20.0.0/24, to: outside, per: pair, limit: {1h: 60MB}, action: block}
END
# Forwarded and local packets, past all of ours; forged: what leaves the server, before us.
in_ns gw nft -f - <<END
table inet ref {
	counter left {
	}
	chain after {
		type filter hook postrouting priority 0
		ip daddr 203.0.113.11 counter name left
	}
}
END
keep_ref="$(in_ns gw nft list table inet ref)"
passed() { in_ns gw nft -j list counter inet ref left | jq '.nftables[] | select(.counter) | .counter.bytes'; }
lease() { ctl --json status | jq ".leases.$1"; }
told() { grep -cE "$1" "$LAB_DIR/egressd.log"; }
fresh() {
	lab_egressd_stop
	rm -rf "$LAB_DIR/state"
	in_ns gw nft delete table inet ref
	in_ns gw nft -f - <<<"$keep_ref"
	in_ns gw nft reset counter inet ref left >/dev/null
	lab_egressd_start "$LAB_DIR/policy.yaml" >/dev/null || not_ok "egressd starts"
}
sending() { # SECONDS
	in_ns sakura1 "$flood" send 10.20.0.15 203.0.113.11 9000 8 1200 8000 $(($1 * 8000)) >"$LAB_DIR/send.json" &
	sender=$!
}
past() { [ "$(passed)" -ge "$1" ]; }
leased() { [ "$(lease now)" = 1 ]; }
more() { # TEXT MOST: over the limit by at most so much
	local p
	p=$(passed)
	if [ "$p" -le $((LIMIT + $2)) ]; then ok "$1: $p bytes passed, limit $LIMIT"; else not_ok "$1: $p bytes passed, limit $LIMIT"; fi
}

# --- quotas reset: the kernel lets others do it even where the table has an owner ------------------------------------------
fresh
sending 8
lab_wait 8 past 25000000
lab_wait 2 leased && ok "leased" || not_ok "no lease at 25 MB"
works() { ctl status | grep -qE '^  leases: [0-9.]+ [kM]B of credit out; in the last second [0-9]+ granted, [1-9][0-9]* raised, [0-9]+ recalled$'; }
lab_wait 5 works && ok "status says what is out, and what a second costs" || not_ok "status: $(ctl status)"
in_ns gw nft reset quotas table inet egressd >/dev/null || not_ok "nft reset quotas"
wait $sender
more "quotas reset" "$RATE"
sleep 1.3
beyond=$(lease beyond_bytes)
[ "$beyond" -gt 0 ] && [ "$beyond" -ge $(($(passed) - LIMIT)) ] && ok "quotas reset: $beyond of them beyond what was granted" ||
	not_ok "quotas reset: $beyond bytes beyond what was granted"
lab_is 1 "$(told 'somebody raised or reset a quota of ours: [0-9]* bytes passed')" "quotas reset: told once, with what passed"
lab_is 1 "$(told 'health: somebody raised, reset, .* so far [0-9.]* [kM]B passed beyond')" "quotas reset: a health alert"
ctl status | grep -q 'B passed on leases beyond what was granted' && ok "quotas reset: and status" || not_ok "quotas reset: status: $(ctl status)"
lab_is "$(passed)" "$(ctl --json why 10.20.0.15 | jq '[.pairs[].bytes] | add')" "quotas reset: what passed is counted"
lease_identity "quotas reset"

# --- the ruleset flushed -------------------------------------------------------------------------------------------------
fresh
sending 8
lab_wait 8 past 25000000
p=$(passed)
identity_flush
in_ns gw nft -f - <<<"$keep_ref"
wait $sender
[ "$(passed)" -gt 0 ] && ok "ruleset flushed below the limit" || not_ok "ruleset flushed at $p bytes: nothing left after it"
p=$((p + $(passed)))	# and what left between those two commands
[ "$p" -le $((LIMIT + RATE)) ] && ok "ruleset flushed: $p bytes passed, limit $LIMIT" || not_ok "ruleset flushed: $p bytes passed, limit $LIMIT"
sleep 1.3
[ "$(told 'health: .*rules')" -ge 1 ] && ok "ruleset flushed: a health alert" || not_ok "ruleset flushed: no health alert"
lab_is 0 "$(lease now)" "ruleset flushed: blocked, nothing is leased"
lease_identity "ruleset flushed" $RATE $RATE

# --- rules removed beside running leases, with an exit: put back once, and leases go on -----------------------------------
cat >>"$LAB_DIR/policy.yaml" <<END
exits:
  maint: {interfaces: [vpn]}
END
fresh
flushed() { ctl --json status | jq '.health["rules-flushed"]'; }
sending 6
lab_wait 4 leased || not_ok "no lease"
in_ns gw nft flush chain inet egressd_keep unseen
again() { [ "$(flushed)" = 1 ] && leased; }
lab_wait 3 again && ok "a chain flushed: leased again" || not_ok "a chain flushed: told $(flushed) times, $(lease now) leases"
sleep 2.5
lab_is "1 1" "$(flushed) $(lease now)" "a chain flushed: told once, and leases go on"
wait $sender
lease_identity "a chain flushed"

# --- a sender on the gateway that forges our marks while its destination is leased by others ---------------------------------
fresh
sending 2
lab_wait 4 leased || not_ok "no lease"
before=$(ctl --json status | jq .unseen_packets)
got=0
for mark in 0x10000000 0x20000000 0x30000000; do
	in_ns gw "$flood" send -m $((mark)) 192.0.2.1 203.0.113.11 9100 1 1200 1000 500 >/dev/null
	got=$((got + 500 * 1228))
done
wait $sender
sleep 1.3
lab_is "$got" "$(ctl --json why gateway | jq '[.pairs[] | select(.dest == "203.0.113.11") | .bytes] | add')" \
	"forged marks: every byte of it is judged and counted"
lab_is "$before" "$(ctl --json status | jq .unseen_packets)" "forged marks: nothing unseen"
none() { [ "$(lease now)" = 0 ]; }
lab_wait 40 none && ok "a lease that nobody uses comes back by itself" || not_ok "still leased 40 s after the last packet"
lab_is 0 "$(ctl --json why 10.20.0.15 | jq '[.accounts[].outstanding_bytes] | add')" "and all of its credit"
# It comes again: leased after its first 64 KiB and the next, not when somebody looks by chance.
judged() { ctl --json status | jq .counters.packets; }
before=$(judged)
sending 1
wait $sender
n=$(($(judged) - before))
[ $n -lt 400 ] && ok "a pair that rested: $n of 8000 packets in the queue" || not_ok "a pair that rested: $n of 8000 packets in the queue"
lab_wait 40 none || not_ok "still leased 40 s after that"
lease_identity "a pair that rested"
lab_egressd_stop
lab_done
