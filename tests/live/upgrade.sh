#!/bin/bash
# upgrade.sh - `kill -9` and a restart of the supervisor under a service manager that keeps its descriptors: nothing lost, nothing unseen, sums
# and blocks as they were. A hanging engine is replaced before that manager's patience ends.
set -u
cd "$(dirname "$0")/../.." || exit 2
# shellcheck source=tests/live/lab.sh
. tests/live/lab.sh
lab_need jq prlimit
lab_up
flood=$EGRESSD_BUILD/tests/live/flood
cat >"$LAB_DIR/policy.yaml" <<END
version: 1
mode: enforce
inside: [10.0.0.0/8, "fd00::/8"]
rules:
  - {name: bulk-leak, from: 10.20.0.0/24, to: outside, per: pair, limit: {1h: 20MB}, action: block, severity: high}
END
lab_egressd_config "$LAB_DIR/policy.yaml"
patience=$(sed -n 's/^WatchdogSec=\([0-9]*\)s$/\1/p' systemd/egressd.service)
lab_start egressd gw "$EGRESSD_BUILD/tests/live/fd_store" "$patience" "$EGRESSD_BUILD/egressd" -c "$LAB_DIR/egressd.yaml"
ready() { grep -qx "ready $1" "$LAB_DIR/egressd.log"; }
lab_wait 10 ready 1 || { not_ok "egressd starts under a service manager"; exit 1; }

# A block that must hold, and a steady stream to another place that must not notice.
lab_start sink outside "$flood" sink 203.0.113.9 7001
lab_wait 5 lab_listens outside 7001
in_ns sakura1 "$flood" push 10.20.0.15 203.0.113.9 7001 40000000 >"$LAB_DIR/push.json"
lab_stop sink
lab_start recv outside "$flood" recv 203.0.113.10 7000-7007 120
lab_wait 5 lab_receives outside 7000-7007
lab_start send sakura1 "$flood" send 10.20.0.15 203.0.113.10 7000 8 100 1000 60s	# ended when the kills are done
policy() { ctl --json status | jq .policy.version; }
restart_signal=$(sed -n 's/^RestartKillSignal=SIG//p' systemd/egressd.service)
for i in 2 3 4 5 6 7 8; do
	sleep 0.7
	[ $i -le 6 ] && signal=USR1 || signal=$restart_signal
	[ $i -ne 8 ] || sed -i 's/severity: high/severity: critical/' "$LAB_DIR/policy.yaml"
	kill -s "$signal" "$(lab_pid egressd)"
	lab_wait 5 ready $i || not_ok "ready again after kill $((i - 1))"
done
critical() { ctl --json check "$LAB_DIR/policy.yaml" >/dev/null; grep -q 'policy .* in force' "$LAB_DIR/egressd.log" && [ "$(policy)" -gt 1 ]; }
lab_wait 5 critical && ok "a restart reads the policy again" || not_ok "a restart does not read the policy: version $(policy)"
kept=$(grep '^kept' "$LAB_DIR/egressd.log" | tail -n 1 | cut -d' ' -f2)
lab_stop send
counted() { ctl --json why 10.20.0.15 203.0.113.10 | jq '[.pairs[].packets] | add'; }
lab_settled 20 counted
lab_stop recv
lab_is 7 "$kept" "area, policy, two nft and two queue sockets were kept, and that a restart was asked for"
lab_is "$(jq .packets "$LAB_DIR/send.log")" "$(jq .packets "$LAB_DIR/recv.log")" "5 kills and 2 restarts at 1,000 pps: every packet arrived"
lab_is 0 "$(in_ns gw nft -j list counter inet egressd_keep unseen | jq '.nftables[] | select(.counter) | .counter.packets')" \
	"none passed unseen"
sum=$(counted)
sent=$(jq .packets "$LAB_DIR/send.log")
if [ "$sum" -ge "$sent" ] && [ "$sum" -le $((sent + 10)) ]; then
	ok "counted $sum of $sent packets: at most one more a worker and kill"
else
	not_ok "counted $sum of $sent packets"
fi
lab_start sink outside "$flood" sink -g 1 203.0.113.9 7001
lab_wait 5 lab_listens outside 7001
in_ns sakura1 "$flood" push -g 1 10.20.0.15 203.0.113.9 7001 100000 >"$LAB_DIR/push2.json"
lab_is 0 "$(jq .bytes "$LAB_DIR/push2.json")" "the block holds"
ctl debug check >/dev/null && ok "every structure is consistent" || not_ok "debug check"

supervisor=$(pgrep -P "$(lab_pid egressd)")
engine=$(pgrep -P "$supervisor" -f '^egressd engine')
kill -STOP "$engine"
replaced() { ! kill -0 "$engine" 2>/dev/null; }
lab_wait $((patience + 5)) replaced && ok "a hanging engine is replaced" || not_ok "a hanging engine is left"
sleep $((patience / 2))	# the manager would have lost patience by now
grep -q watchdog "$LAB_DIR/egressd.log" && not_ok "the service manager ended the service" || ok "before the service manager ends the service"
lab_is "$supervisor" "$(pgrep -P "$(lab_pid egressd)")" "the supervisor goes on"
# A table of another size, and other queues: a stop and a start.
before=$(counted)
lab_egressd_config "$LAB_DIR/policy.yaml" "table={pairs: 131072}" "queues={first: 4, count: 2}"
kill -s "$restart_signal" "$(lab_pid egressd)"
lab_wait 10 ready 9 && ok "a restart with another table" || not_ok "no restart with another table"
again() { [ "$(counted)" = "$before" ] && ctl blocks | grep -q '^10.20.0.15 -> 203.0.113.9'; }
lab_wait 5 again && ok "sums and blocks come from the snapshot" || not_ok "$(counted) of $before packets, blocks: $(ctl blocks)"
in_ns sakura1 "$flood" send 10.20.0.15 203.0.113.11 7000 8 100 1000 100 >/dev/null
lab_is "100 0" "$(ctl --json why 10.20.0.15 203.0.113.11 | jq '[.pairs[].packets] | add') $(ctl --json status | jq .unseen_packets)" "packets are judged"
echo 'mistake: 1' >>"$LAB_DIR/egressd.yaml"
kill -s "$restart_signal" "$(lab_pid egressd)"
lab_wait 10 lab_ended egressd && ok "a restart with a broken file ends" || not_ok "a restart with a broken file"
grep -q 'no successor could start' "$LAB_DIR/egressd.log" && ok "and says so" || not_ok "without a word"
lab_is "" "$(in_ns gw nft list tables | grep egressd)" "and leaves no table behind"
sed -i '/^mistake/d' "$LAB_DIR/egressd.yaml"

# A start that cannot succeed for other reasons: asked for, it is a stop; after a crash what holds goes on to hold, and that is told.
blocked() { ctl blocks | grep -q '^10.20.0.15 -> 203.0.113.9'; }
again() {
	lab_egressd_config "$LAB_DIR/policy.yaml"
	lab_start egressd gw "$EGRESSD_BUILD/tests/live/fd_store" "$patience" "$EGRESSD_BUILD/egressd" -c "$LAB_DIR/egressd.yaml"
	lab_wait 10 ready 1 || not_ok "it does not start again"
	lab_wait 5 blocked || not_ok "the block is not back"
}
tables() { in_ns gw nft list tables | grep egressd | paste -sd, ; }
kept_tables() { in_ns gw nft list tables | grep -q egressd_keep && ok "$1" || not_ok "$1"; }
hopeless() { # SIGNAL: to the service manager
	kill -s "$1" "$(lab_pid egressd)"
	lab_wait 15 lab_ended egressd || not_ok "$1: it does not end"
	lab_is "exit 1" "$(grep '^exit' "$LAB_DIR/egressd.log" | tail -n 1)" "exit code"
}
touch "$LAB_DIR/file"
for what in state_dir runtime_dir; do
	again
	lab_egressd_config "$LAB_DIR/policy.yaml" $what="$LAB_DIR/file/folder"
	hopeless USR2
	lab_is "" "$(tables)" "a restart with a bad $what is a stop: no table is left"
	grep -q 'restart .* failed: .*taken out' "$LAB_DIR/egressd.log" && ok "and it is said" || not_ok "without a word"
done
again
lab_start holder gw "$EGRESSD_BUILD/tests/live/nfq_tool" run 5 60
lab_wait 5 eval 'in_ns gw grep -q "^ *5 " /proc/net/netfilter/nfnetlink_queue' || not_ok "nobody holds queue 5"
lab_egressd_config "$LAB_DIR/policy.yaml" "queues={first: 5, count: 2}"
hopeless USR2
lab_is "" "$(tables)" "a restart with a queue of somebody else is a stop"
lab_stop holder
again
prlimit --pid "$(lab_pid egressd)" --as=300000000
lab_egressd_config "$LAB_DIR/policy.yaml" "table={pairs: 1048576}"
hopeless USR2
lab_is "" "$(tables)" "a restart with a table beyond memory is a stop"
grep -q 'memory for 1048576 pairs' "$LAB_DIR/egressd.log" && ! grep -q 'remove them with' "$LAB_DIR/egressd.log" && ok "and nothing else is said" ||
	not_ok "the log: $(tail -n 3 "$LAB_DIR/egressd.log")"
again
lab_egressd_config "$LAB_DIR/policy.yaml" state_dir="$LAB_DIR/file/folder"
hopeless USR1
kept_tables "a start after a crash with a bad state folder: blocks hold"
lab_is 1 "$(grep -c "remove them with: nft delete table" "$LAB_DIR/egressd.log")" "one line says how to end that"
again
lab_egressd_config "$LAB_DIR/policy.yaml"
echo 'mistake: 1' >>"$LAB_DIR/egressd.yaml"
hopeless USR1
kept_tables "a start after a crash with a broken file: blocks hold"
lab_is 1 "$(grep -c "remove them with: nft delete table" "$LAB_DIR/egressd.log")" "one line says how to end that"
remedy=$(sed -n 's/.*remove them with: //p' "$LAB_DIR/egressd.log")
in_ns gw sh -c "${remedy:-false}" && lab_is "" "$(tables)" "and so it ends"
again
lab_stop egressd TERM 10
lab_is "" "$(tables)" "stop leaves no table"
lab_done
