#!/bin/bash
# The lab: every host reaches what it should, the maintenance box is on the way where the gateway's route says so, and
# nothing is left when a script is stopped half-way.
set -euo pipefail
. "$(dirname "$0")/lab.sh"
lab_up

for host in sakura1 sakura2; do
	for a in 203.0.113.9 203.0.113.177 198.51.100.20 10.250.0.5 203.0.113.200 2001:db8:9::9 2001:db8:9::77 2001:db8:20::20 \
		fd00:250::5 2001:db8:9:200::1; do
		if in_ns "$host" ping -nqc 1 -W 2 "$a" >/dev/null; then ok "$host reaches $a"; else not_ok "$host cannot reach $a"; fi
	done
done
if in_ns outside ping -nqc 1 -W 2 -I 203.0.113.9 10.20.0.15 >/dev/null; then
	ok "outside reaches 10.20.0.15 untranslated"
else
	not_ok "outside cannot reach 10.20.0.15"
fi
before=$(in_ns gw cat /sys/class/net/vpn/statistics/tx_packets)
in_ns sakura1 ping -nqc 3 -i 0.01 203.0.113.200 >/dev/null
after=$(in_ns gw cat /sys/class/net/vpn/statistics/tx_packets)
[ $((after - before)) -ge 3 ] && ok "203.0.113.200 is behind the maintenance box" || not_ok "203.0.113.200 is not behind the box"

lab_sink outside 9000 "$LAB_DIR/got"
head -c 3000000 /dev/zero | in_ns sakura1 socat -u - TCP:203.0.113.177:9000
lab_wait 3 [ -s "$LAB_DIR/got" ]
full() { [ "$(stat -c %s "$LAB_DIR/got")" -eq 3000000 ]; }
lab_wait 3 full && ok "a sink gets every byte" || not_ok "the sink got $(stat -c %s "$LAB_DIR/got") of 3000000 bytes"

for state in off on; do
	lab_gso $state
	lab_is "generic-segmentation-offload: $state" "$(in_ns gw ethtool -k wan | grep '^generic-seg')" "lab_gso $state"
done

# A lab of another shell, stopped in the middle of something.
cat >"$LAB_DIR/victim" <<'END'
. "$1/tests/live/lab.sh"
lab_up
lab_start sleeper gw sleep 60
echo "$LAB $LAB_DIR $(lab_pid sleeper)" >"$2"
in_ns sakura1 sleep 60
END
lab_start victim host timeout 60 bash "$LAB_DIR/victim" "$EGRESSD_SRC" "$LAB_DIR/victim.is"
lab_wait 20 [ -s "$LAB_DIR/victim.is" ]
read -r its_name its_dir its_pid <"$LAB_DIR/victim.is"
lab_stop victim TERM 10 || not_ok "a stopped lab does not end"
ip netns list | grep -q "^$its_name-" && not_ok "namespaces are left" || ok "no namespace is left after TERM"
[ -e "$its_dir" ] && not_ok "$its_dir is left" || ok "no folder is left after TERM"
kill -0 "$its_pid" 2>/dev/null && not_ok "process $its_pid is left" || ok "no process is left after TERM"
lab_done
