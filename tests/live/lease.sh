#!/bin/bash
# lease.sh - credit handed to the kernel: nothing passes beyond a limit, whoever changes his mind meanwhile; what passed by lease and by
# queue is what an independent counter saw; in the end nothing is out. UDP and TCP, IPv4 and IPv6, push and pull.
# Alone: most of a burst must go by lease.
set -u
cd "$(dirname "$0")/../.." || exit 2
# shellcheck source=tests/live/lease_lab.sh
. tests/live/lease_lab.sh
LIMIT=$((100 * MB))

# --- the limit ---------------------------------------------------------------------------------------------------------
offer_UDP_push() { # FLOWS, 200: each to a destination of its own
	local to=()
	[ "$1" != 200 ] || to=(-a 200)
	lab_start recv outside "$flood" recv - 9000 60
	lab_wait 5 lab_receives outside 9000
	sending 3 "$1" -s 20000 "${to[@]}"
	wait $sender
}
offer_UDP_pull() { # each flow was opened by a datagram from outside
	local from=(-s 9000 -p "$1")
	[ "$1" != 200 ] || from=(-s 9000 -p 200 -S 200)
	in_ns outside "$flood" send "${from[@]}" $dst $src 20000 "$1" 64 2000 "$1" >/dev/null
	offer_UDP_push "$1"
}
offer_TCP_push() {
	lab_start recv outside "$flood" sink -g 1 -c "$1" $dst 9000
	lab_wait 5 lab_listens outside 9000
	in_ns "$space" "$flood" push -g 1 -r $((48 * MB)) -c "$1" $src $dst 9000 $((120 * MB)) >/dev/null
}
offer_TCP_pull() {
	lab_start serve "$space" "$flood" serve -g 1 -r $((48 * MB)) -c "$1" $src 9000 $((120 * MB))
	lab_wait 5 lab_listens "$space" 9000
	in_ns outside "$flood" pull -g 1 -c "$1" $dst $src 9000 >"$LAB_DIR/recv.log"
	lab_stop serve
}
gso=on
limit() { # FLOWS PROTO WAY FAMILY RULE GSO
	local text="$1 $2 $3 IPv$4, limit per $5, GSO $6" pair=1000 host=1000 got p
	GROUP=
	case $5 in
	pair) pair=100 ;;
	host) host=100 ;;
	group) GROUP=100 ;;
	esac
	[ $gso = "$6" ] || lab_gso "$6"
	gso=$6
	who $([ "$2" = TCP ] && echo sakura2 || echo sakura1) "$4"
	fresh $pair $host block
	"offer_$2_$3" "$1"
	lab_no_connections outside "$space"
	lab_wait 10 agreed
	lab_still 10 0.3 passed
	lab_stop recv
	got=$(jq .bytes "$LAB_DIR/recv.log")
	p=$(passed)
	if [ "$p" -gt $LIMIT ] || [ "$got" -gt $LIMIT ]; then
		not_ok "$text: $p bytes passed, $got arrived, limit $LIMIT"
	elif [ "$p" -lt $((LIMIT / 100 * 98)) ]; then
		not_ok "$text: stopped early, $p bytes passed of $LIMIT"
	else
		ok "$text: $p bytes passed, $got arrived"
	fi
	exact "$text"
	lab_is 0 "$(out)" "$text: nothing is out on lease"
	[ "$1" = 200 ] || { [ "$(lease bytes)" -gt $((p / 2)) ] && ok "$text: most of it by lease" ||
		not_ok "$text: only $(lease bytes) of $p bytes by lease"; }
	lease_identity "$text"
}
# Each value of a column beside each of every other: all that is possible, 200 destinations are no pair and are not asked for by TCP.
PPS=$((MB / 25))	# 48 MB a second
while read -r -u 3 row; do
	# shellcheck disable=SC2086
	limit $row
done 3<<END
1    UDP push 4 pair  on
200  UDP push 4 host  on
32   TCP push 6 pair  on
1    TCP pull 6 group on
1000 UDP push 6 host  on
32   UDP pull 4 group on
1000 UDP pull 6 pair  off
32   TCP pull 4 host  off
200  UDP pull 6 group off
1000 TCP push 4 group off
1    TCP push 6 host  off
END
lab_gso on
GROUP=
PPS=$((MB / 50))
who sakura1 4

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
within=250	# ms; tests/bench/leases.sh asks for 100, with ten thousand leases and nobody else on the machine
[ -z "${EGRESSD_SLOW:-}" ] || within=10000
fresh 1000 1000 block
sending 3
midway
policy 20 1000 block
before=$(passed)
ctl apply "$LAB_DIR/policy.yaml" >/dev/null
p=$(passed)
wait $sender
settled
[ $((p - before)) -le $((PPS * 1228 / 1000 * within)) ] && ok "tightened: $((p - before)) bytes leave meanwhile" ||
	not_ok "tightened: $((p - before)) bytes leave until apply returns"
[ "$(($(passed) - p))" -le 1228 ] && ok "tightened: nothing more leaves when apply has returned" || not_ok "tightened: $(($(passed) - p)) bytes more"
exact "tightened"
lease_identity "tightened"

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
