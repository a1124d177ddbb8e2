#!/bin/bash
# lease.sh - credit handed to the kernel: nothing passes beyond a limit, also one that is tightened meanwhile, and at once; what passed by
# lease and by queue is what an independent counter saw; in the end nothing is out. UDP and TCP, IPv4 and IPv6, push and pull.
# Alone: a policy must be in force in a quarter of a second.
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
	local text="$1 $2 $3 IPv$4, limit per $5, GSO $6" pair=1000 host=1000 got p bytes
	GROUP=
	case $5 in
	pair) pair=100 ;;
	host) host=100 ;;
	group) GROUP=100 ;;
	esac
	[ $gso = "$6" ] || lab_gso "$6"
	gso=$6
	if [ "$2" = TCP ]; then who sakura2 "$4"; else who sakura1 "$4"; fi
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
	# How much depends on how evenly it comes: a grant lasts 100 ms at the pair's rate or is none (lender.h [Z3]), and when senders
	# catch up, that is more than an eighth of what is left. 200 destinations share that eighth.
	bytes=$(lease bytes)
	[ "$1" = 200 ] || [ "$bytes" -gt 0 ] && ok "$text: $bytes bytes by lease" || not_ok "$text: none by lease"
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

# --- tightened ---------------------------------------------------------------------------------------------------------
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
lab_egressd_stop && ok "stops" || not_ok "does not stop"
lab_done
