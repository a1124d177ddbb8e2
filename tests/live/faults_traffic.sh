#!/bin/bash
# faults_traffic.sh - faults beside running traffic, through the whole daemon: forged marks, address translation, a device made
# anew, a queue that overflows, an engine and a single worker that hang, a limit tightened in mid-transfer.
# Seconds: 50
set -u
cd "$(dirname "$0")/../.." || exit 2
# shellcheck source=tests/live/lab.sh
. tests/live/lab.sh
lab_need jq python3
lab_up
flood=$EGRESSD_BUILD/tests/live/flood
policy() { # LIMIT
	cat <<-END
	version: 1
	mode: enforce
	inside: [10.0.0.0/8, "fd00::/8"]
	exits:
	  box: {interfaces: [maint]}
	rules:
	  - {name: own, from: gateway, to: outside, per: pair, limit: {1h: 500kB}, action: block}
	  - {name: box, from: 10.20.0.0/24, to: box, per: host, limit: {1h: 1GB}, action: alert}
	  - {name: tight, from: 10.20.0.16, to: outside, per: pair, limit: {1h: $1}, action: block, refuse: drop}
	END
}
policy 10GB >"$LAB_DIR/policy.yaml"
in_ns gw nft -f - <<END || exit 1
table inet ref {
	counter own {}
	counter tight {}
	chain after {
		type filter hook postrouting priority 0;
		ip saddr 192.0.2.1 ip daddr 203.0.113.20 counter name own
		ip saddr 10.20.0.16 ip daddr 203.0.113.30 counter name tight
	}
}
END
left() { in_ns gw nft -j list counter inet ref "$1" | jq '.nftables[] | select(.counter) | .counter.bytes'; }
why() { ctl --json why "$1" "$2" | jq "$3 // 0"; }
seen() { why 10.20.0.15 "$1" .total.packets; unseen; }
unseen() { in_ns gw nft -j list counter inet egressd_keep unseen | jq '.nftables[] | select(.counter) | .counter.packets'; }
# flow SPACE SRC DST PPS PACKETS: datagrams of 1,000 IP bytes; prints what arrived.
flow() {
	local name=recv$BASHPID
	lab_start "$name" outside "$flood" recv -i 2 "$3" 7000 60
	lab_wait 5 lab_receives outside 7000
	in_ns "$1" "$flood" send "$2" "$3" 7000 1 972 "$4" "$5" >/dev/null
	lab_wait 30 lab_ended "$name"
	jq .packets "$LAB_DIR/$name.log"
}
lab_egressd_start "$LAB_DIR/policy.yaml" || exit 1

# --- marks (35) --------------------------------------------------------------------------------------------------------
in_ns gw "$flood" send -m 0xffffffff 192.0.2.1 203.0.113.20 7000 1 972 5000 1000 >/dev/null
own=$(left own)
if [ "$own" -le 500000 ] && [ "$own" -ge 490000 ]; then ok "all mark bits forged: $own bytes of 500,000 passed"
else not_ok "all mark bits forged: $own bytes passed, limit 500,000"; fi
lab_is "$own" "$(why gateway 203.0.113.20 .total.bytes)" "all mark bits forged: each of them was judged"

# --- address translation (33) --------------------------------------------------------------------------------------------
in_ns gw nft 'add table ip nat; add chain ip nat out { type nat hook postrouting priority 100; }; add rule ip nat out oifname wan masquerade'
lab_is 2000 "$(flow sakura1 10.20.0.15 203.0.113.21 2000 2000)" "masqueraded: all arrive"
lab_is 2000000 "$(why 10.20.0.15 203.0.113.21 .total.bytes)" "masqueraded: charged to the inside host"
in_ns gw nft delete table ip nat

# --- a device made anew (11) ---------------------------------------------------------------------------------------------
box() { ctl --json why 10.20.0.15 | jq '[.accounts[] | select(.rule == "box") | .limits[0].sum_bytes] | add // 0'; }
in_ns sakura1 "$flood" send 10.20.0.15 203.0.113.200 7000 1 972 2000 100 >/dev/null
lab_is 100000 "$(box)" "exit by device: charged to its rule"
ip -n "$LAB-gw" link del vpn
lab_wire gw vpn br-vpn
lab_addr gw vpn 10.250.0.1/24 fd00:250::1/64
lab_route gw 203.0.113.200 via 10.250.0.5
in_ns gw ping -nqc 1 -W 2 10.250.0.5 >/dev/null
sleep 2
in_ns sakura1 "$flood" send 10.20.0.15 203.0.113.200 7000 1 972 2000 100 >/dev/null
lab_is 200000 "$(box)" "the device was made anew: charged to its rule"

# --- queue full (5) ------------------------------------------------------------------------------------------------------
# The engine stands still for a second; one pair is one queue of 32,768.
full() { # DST: prints arrived, judged, unseen
	local before at
	before=$(unseen)
	lab_start recv outside "$flood" recv -i 2 "$1" 7000 60
	lab_wait 5 lab_receives outside 7000
	at=$(lab_child engine)
	kill -STOP "$at"
	in_ns sakura1 "$flood" send 10.20.0.15 "$1" 7000 1 72 60000 60000 >/dev/null
	kill -CONT "$at"
	lab_wait 30 lab_ended recv
	lab_settled 20 seen "$1"
	echo "$(jq .packets "$LAB_DIR/recv.log") $(why 10.20.0.15 "$1" .total.packets) $(($(unseen) - before))"
}
read -r arrived judged past < <(full 203.0.113.22)
if [ "$arrived" -eq $((judged + past)) ] && [ "$past" -gt 0 ]; then
	ok "queue full, open: $arrived arrived = $judged judged + $past unseen"
else
	not_ok "queue full, open: $arrived arrived, $judged judged, $past unseen"
fi

# --- hangs (4) -----------------------------------------------------------------------------------------------------------
# hang TEXT DST SECONDS COMMAND...: it stops all or part of the process given as its last argument; traffic goes on meanwhile.
hang() {
	local text=$1 dst=$2 n=$(($3 * 500)) old before
	shift 3
	old=$(lab_child engine)
	before=$(unseen)
	lab_start recv outside "$flood" recv -i 60 "$dst" 7000 90
	lab_wait 5 lab_receives outside 7000
	lab_start send sakura1 "$flood" send 10.20.0.15 "$dst" 7000 1 972 500 "$n"
	flows() { [ "$(why 10.20.0.15 "$dst" .total.packets)" -gt 0 ]; }
	lab_wait 10 flows
	lab_start hang host "$@" "$old"
	replaced() { local now; now=$(lab_child engine) && [ "$now" != "$old" ]; }
	lab_wait 30 replaced && ok "$text: the engine is replaced" || not_ok "$text: nobody replaced the engine"
	lab_stop hang KILL
	lab_wait 40 lab_ended send
	lab_settled 20 seen "$dst"
	lab_stop recv
	lab_is "$n" "$(jq .packets "$LAB_DIR/recv.log")" "$text: no packet is lost"
	lab_is "$n" "$(($(why 10.20.0.15 "$dst" .total.packets) + $(unseen) - before))" "$text: each was judged or counted unseen"
	ctl debug check >/dev/null && ok "$text: debug check" || not_ok "$text: debug check"
}
# shellcheck disable=SC2016
hang "hanging engine" 203.0.113.23 13 sh -c 'kill -STOP "$1"; sleep 60' -
# One thread alone is held by a debugger's means.
cat >"$LAB_DIR/hold.py" <<'END'
import ctypes, os, sys
pid = int(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long] * 4
worker = min(int(t) for t in os.listdir("/proc/%d/task" % pid) if int(t) != pid)
if libc.ptrace(0x4206, worker, 0, 0) != 0 or libc.ptrace(0x4207, worker, 0, 0) != 0:	# PTRACE_SEIZE, PTRACE_INTERRUPT
    sys.exit("ptrace: %s" % os.strerror(ctypes.get_errno()))
status = 0x7f
while status & 0xff == 0x7f:	# stopped; who traces a thread must also collect it, or its process stays
    status = os.waitpid(worker, 0x40000000)[1]
END
hang "one stuck worker" 203.0.113.24 19 python3 "$LAB_DIR/hold.py"

# --- tightened in mid-transfer (38, without leases) ----------------------------------------------------------------------
lab_start recv outside "$flood" recv -i 2 203.0.113.30 7000 60
lab_wait 5 lab_receives outside 7000
lab_start send sakura2 "$flood" send 10.20.0.16 203.0.113.30 7000 1 972 5000 20000
too_much() { [ "$(left tight)" -gt 1000000 ]; }
lab_wait 10 too_much
policy 1MB >"$LAB_DIR/tighter.yaml"
ctl apply "$LAB_DIR/tighter.yaml" >/dev/null || not_ok "apply"
at=$(left tight)
sleep 1
after=$(($(left tight) - at))
[ "$at" -gt 1000000 ] || not_ok "the transfer had not passed the new limit: $at"
if [ -n "${EGRESSD_SLOW:-}" ]; then skip "tightened: no times on an emulated machine"
elif [ "$after" -le 500000 ]; then ok "tightened in mid-transfer: $after bytes after apply returned, at 5 MB/s"
else not_ok "tightened in mid-transfer: $after bytes after apply returned, 500,000 are 100 ms"; fi
lab_done
