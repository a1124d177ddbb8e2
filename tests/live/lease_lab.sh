# shellcheck shell=bash
# lease_lab.sh - the lab of the lease tests: source it. One blocking rule per pair and one per host, and a reference that counts what
# left the server whose leak it is ($space, $src to $dst), by lease and by queue.
# shellcheck source=tests/live/lab.sh
. tests/live/lab.sh
LAB_SUMS=own
IDENTITY_PARTIAL=
lab_need jq
lab_up
flood=$EGRESSD_BUILD/tests/live/flood
MB=1000000
[ -z "${EGRESSD_SLOW:-}" ] || MB=100000	# an emulated machine: a tenth of all limits and rates
PPS=$((MB / 50))			# of 1200-byte payloads: 24 MB a second

GROUP=	# where it is set, its limit: both servers together
policy() { # PAIR-LIMIT HOST-LIMIT ACTION, in MB
	cat >"$LAB_DIR/policy.yaml" <<-END
	version: 1
	mode: enforce
	inside: [10.0.0.0/8, "fd00::/8"]
	groups: {both: {hosts: [10.20.0.0/24, "fd00:20::/64"]}}
	rules:
	  - {name: pair, from: [10.20.0.0/24, "fd00:20::/64"], to: outside, per: pair, limit: {1h: $(($1 * MB / 1000))kB}, action: $3}
	  - {name: host, from: [10.20.0.0/24, "fd00:20::/64"], to: outside, per: host, limit: {1h: $(($2 * MB / 1000))kB}, action: $3}
	END
	[ -z "$GROUP" ] ||
		echo "  - {name: group, from: both, to: outside, per: group, limit: {1h: $((GROUP * MB / 1000))kB}, action: $3}" >>"$LAB_DIR/policy.yaml"
}
# What left the server, and of that by whom it was let go: the two bits of the mark say so until -150 (rules.h).
reference() {
	local ip=ip
	[[ $src != *:* ]] || ip=ip6
	in_ns gw nft -f - <<-END
	table inet ref { }
	delete table inet ref
	table inet ref {
		counter left { }
		counter leased { }
		counter judged { }
		chain between {
			type filter hook postrouting priority -153
			$ip saddr $src meta mark & 0x30000000 == 0x10000000 counter name leased
			$ip saddr $src meta mark & 0x30000000 == 0x20000000 counter name judged
		}
		chain after {
			type filter hook postrouting priority 0
			$ip saddr $src counter name left
		}
	}
	END
}
counter() { in_ns gw nft -j list counter inet ref "$1" | jq '.nftables[] | select(.counter) | .counter.bytes'; }
passed() { counter left; }
lease() { ctl --json status | jq ".leases.$1"; }
leased() { [ "$(lease now)" -ge 1 ]; }
# Whose leak it is. TCP has a server of its own: connections that were blocked go on knocking long after.
who() { # SPACE FAMILY
	space=$1
	case $* in
	"sakura1 4") src=10.20.0.15 dst=203.0.113.11 ;;
	"sakura1 6") src=fd00:20::15 dst=2001:db8:9::11 ;;
	"sakura2 4") src=10.20.0.16 dst=203.0.113.11 ;;
	"sakura2 6") src=fd00:20::16 dst=2001:db8:9::11 ;;
	esac
}
who sakura1 4
# Of every account of the server: what is out on lease, and the sum of rule $1.
out() { ctl --json why $src | jq '[.. | objects | select(.outstanding_bytes? != null) | .outstanding_bytes] | add'; }
sums() { ctl --json why $src | jq "[.. | objects | select(.rule? == \"$1\" and .limits?) | .limits[0].sum_bytes] | add"; }
pairs() { ctl --json why $src | jq '[.pairs[].bytes] | add'; }
fresh() { # PAIR-LIMIT HOST-LIMIT ACTION [KEY=VALUE]
	lab_egressd_stop
	rm -rf "$LAB_DIR/state"
	policy "$1" "$2" "$3"
	shift 3
	reference
	lab_egressd_start "$LAB_DIR/policy.yaml" "$@" >/dev/null || not_ok "egressd starts"
}
state() { passed; pairs; sums host; out; }
settled() { lab_settled 20 state || not_ok "it goes on and on"; }
agreed() { # no lease stands any more: what passed is settled when both say the same
	local p
	p=$(passed)
	[ "$p" = "$(pairs)" ] && [ "$p" = "$(sums host)" ] && [ "$(out)" = 0 ]
}
# sending SECONDS [FLOWS [OPTION...]]: in the background
sending() {
	local s=$1 flows=${2:-8}
	shift $(($# < 2 ? $# : 2))
	in_ns "$space" "$flood" send "$@" $src $dst 9000 "$flows" 1200 $PPS $((s * PPS)) >"$LAB_DIR/send.json" &
	# shellcheck disable=SC2034  # to wait for
	sender=$!
}
beyond() { [ "$(passed)" -gt "$1" ]; }
midway() { lab_wait 10 beyond $((30 * MB)) && lab_wait 5 leased || not_ok "no lease stands"; }
exact() { # TEXT: counters, pair records and the host's account agree
	local p l
	p=$(passed) l=$(counter leased)
	lab_is "$p" "$(pairs)" "$1: the pairs' records say what left"
	lab_is "$p" "$(sums host)" "$1: and the account was charged that"
	lab_is "$p" "$((l + $(counter judged)))" "$1: by lease or by the queue"
	lab_is "$l" "$(lease bytes)" "$1: by lease what status says"
	[ "$(ctl --json findings | jq .total)" != 0 ] || return 0
	l=$(ctl --json findings | jq '.findings[0].coverage.seen_bytes')	# of all hosts: neighbours are asked for too
	[ "$l" -ge "$p" ] && [ "$l" -le $((p + 10000)) ] && ok "$1: and findings say that it was seen" || not_ok "$1: $p bytes left, seen $l"
}
# standing TEXT PAIRS: traffic has stopped, leases stand. Of each: what its quota saw went by lease or, used up, on to the queue; what
# it has left is out on its pair's account, the sum of all on the host's, and nothing of that is in a sum.
standing() {
	local text=$1 n=0 bad=0 left=0 name from to quota used by bytes sum out
	while read -r name from to quota used by; do
		n=$((n + 1))
		read -r bytes sum out < <(ctl --json why "$from" "${to%/*}" | jq -r '"\([.pairs[].bytes] | add) " +
			([.accounts[] | select(.rule == "pair") | "\(.limits[0].sum_bytes) \(.outstanding_bytes)"] | first)')
		left=$((left + out))
		# What it sent on while it was being raised is credit that returns with its end: between used and by.
		if [ "$used" -lt "$by" ] || [ "$used" -gt "$bytes" ] || [ "$sum" != "$bytes" ] ||
			[ "$out" -lt $((quota - used)) ] || [ "$out" -gt $((quota - by)) ]; then
			bad=$((bad + 1))
			not_ok "$text: $from -> $to: quota $quota, used $used, by lease $by; pair $bytes, sum $sum, outstanding $out"
		fi
	done < <({
		in_ns gw nft -j list quotas
		for name in lease4 lease6; do in_ns gw nft -j list map inet egressd $name; done
		for name in leased4 leased6; do in_ns gw nft -j list set inet egressd $name; done
	} | jq -rs '
		def ends: [.concat[] | if type == "object" then .prefix.addr else . end] | join(" ");
		[.[].nftables[]] | ([.[].quota // empty | {key: .name, value: "\(.bytes) \(.used)"}] | from_entries) as $quota |
		([.[].set // empty | .elem[]?.elem | {key: (.val | ends), value: .counter.bytes}] | from_entries) as $by |
		.[].map // empty | .elem[]? | "\(.[1]) \(.[0] | ends) \($quota[.[1]]) \($by[.[0] | ends])"')
	lab_is "$2" $n "$text: so many leases stand"
	[ $bad -ne 0 ] || ok "$text: of each, its quota and its pair's account say the same"
	lab_is $left "$(ctl --json why $src | jq '[.accounts[] | select(.rule == "host") | .outstanding_bytes] | add')" \
		"$text: what all quotas have left is out on the host's account"
	lab_is $left "$(lease outstanding_bytes)" "$text: and in status"
}
