#!/bin/bash
# lease_service.sh - a rule about a port and who opened the connection tells services of a pair apart: such a pair is leased by service
# and opener, nothing passes beyond the limit, and what is no such service is not charged. Push and pull, IPv4 and IPv6.
set -u
cd "$(dirname "$0")/../.." || exit 2
# shellcheck source=tests/live/lease_lab.sh
. tests/live/lease_lab.sh
LIMIT=$((60 * MB))
IDENTITY_PARTIAL=pair	# where it judges none of it, which is a case here, it has no account

policy() { # PAIR-LIMIT HOST-LIMIT ACTION, in MB; $opener
	cat >"$LAB_DIR/policy.yaml" <<-END
	version: 1
	mode: enforce
	inside: [10.0.0.0/8, "fd00::/8"]
	rules:
	  - {name: pair, from: [10.20.0.0/24, "fd00:20::/64"], to: outside, ports: [tcp/9000], opened_by: $opener, per: pair,
	     limit: {1h: $(($1 * MB / 1000))kB}, action: $3}
	  - {name: host, from: [10.20.0.0/24, "fd00:20::/64"], to: outside, per: host, limit: {1h: $(($2 * MB / 1000))kB}, action: $3}
	END
}
elements() { in_ns gw nft -j list map inet egressd "$1" | jq '[.nftables[].map?.elem[]?] | length'; }
service() { # TEXT SPACE FAMILY OPENER
	local text=$1 family=$3 p bytes
	opener=$4
	who "$2" "$family"
	fresh 60 1000 block
	if [ "$opener" = inside ]; then
		lab_start peer outside "$flood" sink -g 2 -c 4 $dst 9000
		lab_wait 5 lab_listens outside 9000
		in_ns "$space" "$flood" push -g 2 -r $((24 * MB)) -c 4 $src $dst 9000 $((80 * MB)) >/dev/null &
	else
		lab_start peer "$space" "$flood" serve -g 2 -r $((24 * MB)) -c 4 $src 9000 $((80 * MB))
		lab_wait 5 lab_listens "$space" 9000
		in_ns outside "$flood" pull -g 2 -c 4 $dst $src 9000 >/dev/null &
	fi
	local client=$!
	stands() { [ "$(elements "service$family")" = 1 ]; }	# one that is used up may end, and another begins
	lab_wait 10 beyond $((20 * MB)) && lab_wait 5 stands && ok "$text: leased by its service" || not_ok "$text: no lease stands"
	lab_is 0 "$(elements "lease$family")" "$text: and not by its pair"
	wait $client
	lab_wait 10 agreed
	lab_still 10 0.3 passed
	lab_stop peer
	p=$(passed)
	if [ "$p" -gt $LIMIT ] || [ "$p" -lt $((LIMIT / 100 * 98)) ]; then
		not_ok "$text: $p bytes passed, limit $LIMIT"
	else
		ok "$text: $p bytes passed, limit $LIMIT"
	fi
	exact "$text"
	lab_is "$p" "$(sums pair)" "$text: and so was the service's"
	bytes=$(lease bytes)
	[ "$bytes" -gt 0 ] && ok "$text: $bytes bytes by lease" || not_ok "$text: none by lease"
	lease_identity "$text"
}
service "push" sakura1 4 inside
service "pull, IPv6" sakura1 6 outside
service "push, IPv6" sakura2 6 inside
service "pull" sakura2 4 outside

# The same port the other way round: it is not that service.
who sakura1 4
opener=outside
fresh 60 1000 block
lab_start peer outside "$flood" sink -g 2 $dst 9000
lab_wait 5 lab_listens outside 9000
in_ns "$space" "$flood" push -g 2 -r $((40 * MB)) $src $dst 9000 $((80 * MB)) >/dev/null
lab_stop peer
settled
[ "$(passed)" -gt $((80 * MB)) ] && ok "opened by the other side: not stopped" || not_ok "opened by the other side: stopped at $(passed)"
exact "opened by the other side"
lab_is null "$(sums pair)" "opened by the other side: not charged to the service"
lease_identity "opened by the other side"
lab_egressd_stop && ok "stops" || not_ok "does not stop"
lab_done
