#!/bin/bash
# unseen_pairs.sh - what the kernel counts past us by pair is in `egressctl why`, to the byte: of a pair whose rules have ports, of
# one whose /64 is not all outside, of one never judged before, of the gateway, of an exit's host, and of senders that the policy
# does not know.
set -u
cd "$(dirname "$0")/../.." || exit 2
# shellcheck source=tests/live/lab.sh
. tests/live/lab.sh
lab_need jq ping
lab_up
flood=$EGRESSD_BUILD/tests/live/flood
cat >"$LAB_DIR/policy.yaml" <<END
version: 1
mode: enforce
inside: [10.20.0.0/16, "fd00::/8", "2001:db8:9::99/128"]
exits:
  maintenance: {interfaces: [maint], hosts: [10.250.0.0/16]}
rules:
  - {name: web, from: inside, to: outside, ports: [udp/7000], per: pair, limit: {1h: 1GB}, action: block}
END
lab_route vpn 203.0.113.54 via 10.250.0.1
lab_addr sakura1 eth0 172.31.0.7/32 172.31.0.8/32
lab_egressd_start "$LAB_DIR/policy.yaml" || exit 1

unseen() { ctl --json why "$@" | jq .total.unseen_bytes; }
all_unseen() { ctl --json status | jq .unseen_bytes; }
# pings SPACE COUNT DST [OPTION...]: 84 bytes each, IPv6 104; nobody need answer
pings() {
	local space=$1 count=$2 dst=$3
	shift 3
	in_ns "$space" ping -nqi 0.002 -c "$count" -W 0.2 "$@" "$dst" >/dev/null
	return 0
}
in_ns sakura1 "$flood" send 10.20.0.15 203.0.113.50 7000 1 972 2000 100 >/dev/null
pings sakura1 10 2001:db8:9::9
sleep 1.2
lab_is 0 "$(all_unseen)" "before: nothing unseen"
classes() { ctl --json why 10.20.0.15 203.0.113.50 | jq '[.pairs[] | select(.class != 0)] | length'; }
lab_is 1 "$(classes)" "the pair has a class of its own"

supervisor=$(lab_pid egressd)
children=$(pgrep -P "$supervisor")
kill -KILL "$supervisor"
for p in $children; do
	lab_wait 5 test ! -d "/proc/$p" || not_ok "process $p outlives the supervisor"
done
in_ns sakura1 "$flood" send 10.20.0.15 203.0.113.50 7000 1 972 2000 300 >/dev/null
pings sakura1 20 2001:db8:9::9
pings sakura2 30 203.0.113.51
pings gw 40 203.0.113.52
pings gw 5 203.0.113.52 -I 10.20.0.1
pings gw 10 2001:db8:9::52
pings sakura1 10 203.0.113.53 -I 172.31.0.7
pings sakura1 15 203.0.113.53 -I 172.31.0.8
pings vpn 25 203.0.113.54 -I 10.250.0.5
lab_egressd_restart || exit 1
sleep 1.2
said() {
	lab_is 300000 "$(unseen 10.20.0.15 203.0.113.50)" "$1: a pair whose rules have ports"
	lab_is $((20 * 104)) "$(unseen fd00:20::15 2001:db8:9::9)" "$1: a pair whose /64 is not all outside"
	lab_is $((30 * 84)) "$(unseen 10.20.0.16 203.0.113.51)" "$1: a pair that nobody judged before"
	lab_is $((45 * 84)) "$(unseen gateway 203.0.113.52)" "$1: the gateway, whatever its address"
	lab_is $((10 * 104)) "$(unseen gateway 2001:db8:9::52)" "$1: the gateway, IPv6"
	lab_is $((25 * 84)) "$(unseen unlisted 203.0.113.53)" "$1: two senders that the policy does not know"
	lab_is $((25 * 84)) "$(unseen 10.250.0.5 203.0.113.54)" "$1: an exit's host"
}
said "after the restart"
more=$(all_unseen)
lab_is 300000 "$(ctl --json why 10.20.0.15 | jq .total.unseen_bytes)" "the host's total"
ctl why 10.20.0.15 203.0.113.50 | grep -q '300.0 kB unseen' && ok "and as people read it" ||
	not_ok "$(ctl why 10.20.0.15 203.0.113.50)"

# Not twice: another engine reads the same counters, and they go on.
kill -KILL "$(lab_child engine)"
sleep 1.5
said "the engine killed"
lab_is "$more" "$(all_unseen)" "the total too"
lab_done
