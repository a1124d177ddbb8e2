#!/bin/bash
# transitions.sh - while one thing follows another no byte is anybody else's: a policy that judges by other rules of the kernel, an exit that
# is added, a flush by others with bytes unseen before and after it; and what a block refuses is counted while it ends, while the policy
# changes and while the engine dies, but for a few packets (5 ms of them).
# Seconds: 45
set -u
cd "$(dirname "$0")/../.." || exit 2
# shellcheck source=tests/live/lease_lab.sh
. tests/live/lease_lab.sh
lab_start recv outside "$flood" recv - 9000 200
sum_of() { ctl --json why "$src" "$dst" | jq "[.accounts[] | select(.rule == \"$1\") | .limits[0].sum_bytes] | add // 0"; }

# --- a contract that pays under both policies, where only the first asks who opened ---------------------------------------
with_contract() { # ITS-SERVICE
	cat <<-END
	version: 1
	mode: enforce
	inside: [10.0.0.0/8, "fd00::/8"]
	rules:
	  - {name: pair, from: 10.20.0.0/24, to: outside, per: pair, limit: {1h: 20kB}, action: block}
	contracts:
	  - {name: www, from: 10.20.0.15, to: outside, $1 budget: {per: total, 24h: 100GB}, until: never}
	END
}
with_contract "opened_by: outside, ports: [tcp/9000]," >"$LAB_DIR/policy.yaml"
with_contract "" >"$LAB_DIR/wider.yaml"
cp "$LAB_DIR/policy.yaml" "$LAB_DIR/narrow.yaml"
reference
lab_egressd_start "$LAB_DIR/policy.yaml" >/dev/null || not_ok "egressd starts"
lab_start serve sakura1 "$flood" serve -c 4 -r 20000000 10.20.0.15 9000 4000000000
lab_wait 5 lab_listens sakura1 9000
lab_start pull outside "$flood" pull -c 4 203.0.113.11 10.20.0.15 9000
lab_wait 5 beyond $MB || not_ok "nothing is pulled"
for _ in 1 2 3; do
	ctl apply "$LAB_DIR/wider.yaml" >/dev/null || not_ok "apply"
	sleep 0.3
	ctl apply "$LAB_DIR/narrow.yaml" >/dev/null || not_ok "apply"
	sleep 0.3
done
lab_is "0 nothing is blocked" "$(sum_of pair) $(ctl blocks | head -n 1)" "the contract pays all under both policies"
lab_stop pull
lab_stop serve KILL

# --- what is egress from now on -------------------------------------------------------------------------------------------
dst=10.250.0.5
lab_start box vpn "$flood" recv - 9000 100
fresh 1000 1000 block leases=off
sed '/^rules:/i exits: {box: {hosts: [10.250.0.5]}}' "$LAB_DIR/policy.yaml" >"$LAB_DIR/new.yaml"
echo '  - {name: box, from: 10.20.0.0/24, to: box, per: pair, limit: {1h: 1GB}, action: block}' >>"$LAB_DIR/new.yaml"
sending 2
sleep 0.5
ctl apply "$LAB_DIR/new.yaml" >/dev/null || not_ok "apply"
wait $sender
lab_settled 10 pairs
p=$(ctl --json why $src $dst | jq '[.pairs[].bytes] | add')
[ "$p" -gt $MB ] && lab_is "$p" "$(sum_of box)" "an exit is added: its first packet is in the account" || not_ok "an exit is added: $p bytes"
lab_stop box KILL

# --- unseen, flushed, unseen ------------------------------------------------------------------------------------------------
dst=203.0.113.22
fresh 1000 1000 block leases=off
unseen() { echo "$(ctl --json status | jq .unseen_bytes) $(ctl --json why $src $dst | jq '[.pairs[].unseen_bytes // 0] | add')"; }
hanging() { # PACKETS that meet a queue that is full
	local engine
	engine=$(lab_child engine)
	kill -STOP "$engine"
	in_ns sakura1 "$flood" send $src $dst 7000 1 72 60000 "$1" >/dev/null
	kill -CONT "$engine"
	lab_settled 20 unseen
}
hanging 75000
in_ns gw nft flush ruleset
lab_settled 20 unseen
hanging 85000
read -r all pair <<<"$(unseen)"
[ "$all" -gt 5000000 ] || not_ok "only $all bytes were unseen"
lab_is "$all" "$pair" "unseen before and after a flush: all of it is the pair's"

# --- refused --------------------------------------------------------------------------------------------------------------
dst=203.0.113.14
refusing() { # LIMIT HOLD
	lab_egressd_stop
	rm -rf "$LAB_DIR/state"
	cat >"$LAB_DIR/policy.yaml" <<-END
	version: 1
	mode: enforce
	inside: [10.0.0.0/8, "fd00::/8"]
	rules:
	  - {name: pair, from: 10.20.0.0/24, to: outside, per: pair, limit: {$1}, action: block, hold: $2}
	END
	in_ns gw nft -f - <<-END
	table inet came { }
	delete table inet came
	table inet came {
		counter came { }
		chain c { type filter hook prerouting priority -500; ip saddr $src ip daddr $dst counter name came; }
	}
	END
	lab_egressd_start "$LAB_DIR/policy.yaml" >/dev/null || not_ok "egressd starts"
	lab_start send sakura1 "$flood" send $src $dst 9000 1 1200 5000 4000000
}
left_or_refused() { ctl --json why $src $dst | jq '[.pairs[] | .bytes + .refused_bytes] | add'; }
slack=30000	# bytes
[ -z "${EGRESSD_SLOW:-}" ] || slack=300000
accounted() { # TEXT TIMES
	local came said
	lab_stop send INT
	lab_settled 20 left_or_refused
	came=$(in_ns gw nft -j list counter inet came came | jq '.nftables[] | select(.counter) | .counter.bytes') said=$(left_or_refused)
	[ "$said" -le "$came" ] && [ $((came - said)) -le $(($2 * slack)) ] && ok "$1: $came bytes came, $said left or were refused" ||
		not_ok "$1: $came bytes came, $said left or were refused"
}
refusing "5s: 1MB" 1s
sleep 12
accounted "blocks that end" 2
refusing "1h: 1MB" 30m
sleep 1.5
for n in 1 2 3; do
	sed "s|^inside: \[|&192.168.$n.0/24, |" "$LAB_DIR/policy.yaml" >"$LAB_DIR/new.yaml"
	ctl apply "$LAB_DIR/new.yaml" >/dev/null || not_ok "apply"
	sleep 0.3
done
accounted "policies that change the rules" 3
refusing "1h: 1MB" 30m
sleep 1.5
for _ in 1 2 3; do
	kill -KILL "$(lab_child engine)"
	sleep 0.7
done
accounted "engines that die" 3
lab_egressd_stop || not_ok "does not stop"
lab_done
