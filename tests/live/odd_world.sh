#!/bin/bash
# odd_world.sh - a kernel without a queue statement: one line that says which module is missing. A contract that ran out while
# egressd runs: it pays no more, not for an instant after the engine was killed either.
set -u
cd "$(dirname "$0")/../.." || exit 2
# shellcheck source=tests/live/lab.sh
. tests/live/lab.sh
LAB_SUMS=none	# its clock will be another than egressctl's, by which a policy is checked
lab_need jq
lab_up
flood=$EGRESSD_BUILD/tests/live/flood
lab_egressd_odd
cat >"$LAB_DIR/policy.yaml" <<END
version: 1
mode: enforce
inside: [10.0.0.0/8]
rules:
  - {name: rest, from: inside, to: outside, per: pair, limit: {1h: 1GB}, action: block}
contracts:
  - {name: backup, from: 10.20.0.15, to: 198.51.100.20, budget: {per: total, 24h: 10GB}, owner: storage,
     until: $(date -u -d tomorrow +%F)}
END
export EGRESSD_DAYS=$LAB_DIR/days
: >"$EGRESSD_DAYS"

# --- kernel ----------------------------------------------------------------------------------------------------------
code=0
lab_egressd_config "$LAB_DIR/policy.yaml"
EGRESSD_NO_QUEUE=1 in_ns gw timeout 20 "$EGRESSD_BUILD/egressd" -c "$LAB_DIR/egressd.yaml" >"$LAB_DIR/start.log" 2>&1 || code=$?
lab_is 1 "$code" "no queue statement: exit code"
lab_is 1 "$(grep -c '^<[0-3]>' "$LAB_DIR/start.log")" "no queue statement: one error"
grep -q '^<3>.*cannot start: kernel rules: .*modprobe nft_queue, or xt_NFQUEUE' "$LAB_DIR/start.log" &&
	ok "no queue statement: says what to do" || not_ok "no queue statement: does not say what to do"
lab_is "" "$(in_ns gw nft list tables | grep egressd)" "no queue statement: no table is left"

# --- date ------------------------------------------------------------------------------------------------------------
lab_egressd_start "$LAB_DIR/policy.yaml" leases=off || exit 1
paid() { ctl --json why 10.20.0.15 198.51.100.20 | jq "[.accounts[] | select(.rule == \"$1\") | .limits[0].sum_bytes] | max // 0"; }
send() { in_ns sakura1 "$flood" send 10.20.0.15 198.51.100.20 7000 1 972 2000 "$1" >/dev/null; }
send 1000
sleep 0.2
lab_is 1000000 "$(paid backup)" "the contract pays"
echo -n xxx >"$EGRESSD_DAYS"	# three days later
sleep 6	# the next tick of the windows
send 1000
lab_is 1000000 "$(paid backup)" "it pays no more when it has run out"
lab_is 1000000 "$(paid rest)" "the rule does"
for _ in 1 2 3; do
	engine=$(lab_child engine)
	kill -KILL "$engine"
	send 3000
done
sleep 1.2
lab_is 1000000 "$(paid backup)" "nor after the engine was killed"
[ "$(paid rest)" -ge 10000000 ] && ok "the rule does" || not_ok "the rule has $(paid rest)"
lab_done
