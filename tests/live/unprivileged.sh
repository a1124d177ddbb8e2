#!/bin/bash
# unprivileged.sh - egressd as its unit starts it: a user of its own with CAP_NET_ADMIN and nothing else. What each process may; a leak
# stopped at the limit, a reload, a full queue's drops, a stop and a start on the same state, a queue held by another process; and
# what is told where the kernel's file about queues is not ours to read.
set -u
cd "$(dirname "$0")/../.." || exit 2
# shellcheck source=tests/live/lab.sh
. tests/live/lab.sh
lab_need jq setpriv
lab_up
user=64123
flood=$EGRESSD_BUILD/tests/live/flood
queues=/proc/net/netfilter/nfnetlink_queue
policy() { # LIMIT
	cat <<-END
	version: 1
	mode: enforce
	inside: [10.0.0.0/8, "fd00::/8"]
	rules:
	  - {name: pair, from: 10.20.0.15, to: outside, per: pair, limit: {24h: $1}, action: block, refuse: drop, hold: 1h}
	END
}
policy 500kB >"$LAB_DIR/policy.yaml"
in_ns gw nft -f - <<END || exit 1
table inet ref {
	counter first {}
	counter second {}
	chain after {
		type filter hook postrouting priority 0;
		ip saddr 10.20.0.15 ip daddr 203.0.113.20 counter name first
		ip saddr 10.20.0.15 ip daddr 203.0.113.21 counter name second
	}
}
END
left() { in_ns gw nft -j list counter inet ref "$1" | jq '.nftables[] | select(.counter) | .counter.bytes'; }
total() { ctl --json why 10.20.0.15 "$1" | jq '.total.bytes // 0'; }
sum() { ctl --json why 10.20.0.15 "$1" | jq '[.. | objects | select(.sum_bytes? != null) | .sum_bytes] | max'; }
status() { ctl --json status | jq -c "$1"; }
leak() { in_ns sakura1 "$flood" send 10.20.0.15 "$1" 7000 1 972 5000 1000 >/dev/null; }	# 1 MB
field() { awk -v f="$2:" '$1 == f { $1 = ""; print substr($0, 2) }' "/proc/$1/status"; }
start() {
	lab_unit_pre
	lab_egressd_start "$LAB_DIR/policy.yaml" failure=closed
}
# refused PATTERN TEXT: it ends by itself with 1 and says so.
refused() {
	local code=0
	in_ns gw timeout 20 "${LAB_AS[@]}" "$EGRESSD_BUILD/egressd" -c "$LAB_DIR/egressd.yaml" >"$LAB_DIR/refused.log" 2>&1 || code=$?
	lab_is 1 "$code" "$2: exit code"
	grep -qE -- "$1" "$LAB_DIR/refused.log" && ok "$2: is told" || not_ok "$2: no word of '$1'"
}

lab_egressd_as $user
start || { not_ok "does not become ready"; exit 1; }
ok "ready as user $user with CAP_NET_ADMIN alone"

# --- what they may -------------------------------------------------------------------------------------------------------
# process NAME ID SECCOMP CAPABILITIES
process() {
	lab_is "$user $user $user $user" "$(field "$2" Uid)" "$1: user"
	lab_is "" "$(field "$2" Groups | xargs)" "$1: no group but its own"
	lab_is "$4 $4" "$(field "$2" CapEff) $(field "$2" CapPrm)" "$1: capabilities"
	lab_is "1 $3" "$(field "$2" NoNewPrivs) $(field "$2" Seccomp)" "$1: no new privileges, filter"
}
process supervisor "$(lab_pid egressd)" 0 0000000000001000
process engine "$(lab_child engine)" 2 0000000000001000
process relay "$(lab_child relay)" 2 0000000000000000
# The table: the relay reads it, and cannot write it.
area() { awk '/egressd-area/ { print $2 }' "/proc/$1/maps" | sort -u | xargs; }
lab_is "rw-s" "$(area "$(lab_child engine)")" "engine: the table"
lab_is "r--s" "$(area "$(lab_child relay)")" "relay: the table"

# --- a leak, a reload ------------------------------------------------------------------------------------------------------
leak 203.0.113.20
lab_settled 20 total 203.0.113.20
lab_is 500000 "$(left first)" "a leak leaves the limit and not a byte more"
lab_is 500000 "$(total 203.0.113.20)" "egressd says the same"
lab_is '["enforce",1,0,0]' "$(status '[.mode, .blocks, .unseen_packets, .queue_dropped]')" "status"
policy 200kB >"$LAB_DIR/policy.yaml"
ctl reload >/dev/null && ok "reload" || not_ok "reload"
leak 203.0.113.21
lab_settled 20 total 203.0.113.21
lab_is 200000 "$(left second)" "the new limit holds"

# --- a full queue ----------------------------------------------------------------------------------------------------------
# Of a host without a rule: full DST; prints what arrived of 60,000. The engine stands still meanwhile.
full() {
	local engine
	engine=$(lab_child engine)
	lab_start recv outside "$flood" recv -i 2 "$1" 7000 60
	lab_wait 5 lab_receives outside 7000
	kill -STOP "$engine"
	in_ns sakura2 "$flood" send 10.20.0.16 "$1" 7000 1 72 60000 60000 >/dev/null
	kill -CONT "$engine"
	lab_wait 30 lab_ended recv
	sleep 1.2
	jq .packets "$LAB_DIR/recv.log"
}
arrived=$(full 203.0.113.22)
dropped=$(status .queue_dropped+.user_dropped)
[ "$dropped" -gt 0 ] || not_ok "no packet was dropped: the queue was not full"
lab_is 60000 $((arrived + dropped)) "queue full, closed: what arrived ($arrived) and what the kernel dropped ($dropped)"
ctl status | grep -q "kernel queue dropped $dropped packets" && ok "in status" || not_ok "not in status"
told() { grep -q 'health: the kernel dropped packets of our queue' "$LAB_DIR/egressd.log"; }
lab_wait 3 told && ok "as a health alert" || not_ok "no health alert"
# Not to be read for a moment, and again while an engine ends: the same drops are no news then.
unknown() { [ "$(status '[.queue_dropped, .user_dropped]')" = '[null,null]' ]; }
as_before() { [ "$(status .queue_dropped+.user_dropped)" = "$dropped" ]; }
another() { local p; p=$(lab_child engine) && [ "$p" != "$1" ]; }
times=$(status '.health["queue-lost"]')
for moment in 1 2; do
	in_ns gw chgrp 0 $queues
	lab_wait 3 unknown || not_ok "the count can be read"
	if [ $moment = 2 ]; then
		engine=$(lab_child engine)
		kill -KILL "$engine"
		lab_wait 5 another "$engine" || not_ok "no next engine"
	fi
	lab_unit_pre
	lab_wait 3 as_before || not_ok "the count is another: $(status .queue_dropped+.user_dropped) for $dropped"
done
lab_is "$times" "$(status '.health["queue-lost"]')" "told once, although the count could not be read for a while"

# --- stop and start ----------------------------------------------------------------------------------------------------------
before="$(sum 203.0.113.20) $(sum 203.0.113.21) $(status .blocks)"
tables() { in_ns gw nft list tables | grep egressd; }
lab_egressd_stop && ok "stops" || not_ok "does not stop"
lab_is "" "$(tables)" "stop removes rules and blocks"
start || { not_ok "does not start again"; exit 1; }
lab_is "$before" "$(sum 203.0.113.20) $(sum 203.0.113.21) $(status .blocks)" "started again: sums and blocks are as before"
leak 203.0.113.20
lab_is 500000 "$(left first)" "started again: not a byte more leaves"
lab_egressd_stop

# --- a state folder that cannot be written -----------------------------------------------------------------------------------
chmod 555 "$LAB_DIR/state"
refused "state folder $LAB_DIR/state: Permission denied; .* user of egressd, uid $user" "a state folder that cannot be written"
chmod 755 "$LAB_DIR/state"
chown 0 "$LAB_DIR/state/spool"
refused "state folder $LAB_DIR/state/spool: Permission denied; .* user of egressd, uid $user" "one that root left in it"
chown $user "$LAB_DIR/state/spool"

# --- a queue of somebody else ------------------------------------------------------------------------------------------------
holder() { in_ns gw awk '$1 == 1 { print $2 }' $queues; }
held() { [ -n "$(holder)" ]; }
lab_start holder gw "$EGRESSD_BUILD/tests/live/nfq_tool" run 1 60
lab_wait 5 held
refused "queue 1 is held by another process \(netlink port $(holder)\b" "a queue held by another process, its port id"
in_ns gw chgrp 0 $queues
refused "queue 1 is held by another process, or .*sudo cat $queues" "the same, not ours to read: how to look"
grep -q 'run as root' "$LAB_DIR/refused.log" && not_ok "wrong advice" || ok "and no wrong advice"
lab_stop holder

# --- drops that cannot be read -----------------------------------------------------------------------------------------------
lab_egressd_restart || { not_ok "does not start without that file"; exit 1; }
lab_wait 3 unknown && ok "drops not to be read: null" || not_ok "drops not to be read: $(status .queue_dropped)"
ctl status | grep -q 'unknown how many packets' && ok "status says so" || not_ok "no word in status"
sleep 1
lab_is 1 "$(grep -c "unknown: $queues: Permission denied" "$LAB_DIR/egressd.log")" "the journal, once"
lab_unit_pre
known() { [ "$(status .queue_dropped)" = 0 ]; }
lab_wait 3 known && ok "read when they can be" || not_ok "not read when they can be"
lab_egressd_stop && ok "stops at the end" || not_ok "does not stop at the end"
lab_is "" "$(tables)" "nothing is left"
lab_done
