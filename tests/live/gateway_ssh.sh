#!/bin/bash
# gateway_ssh.sh - what the gateway sends from its SSH port is never refused, in the queue or by the kernel's blocked sets: not by a
# rule, not by a decision. The same from another port is, and what is not refused is charged (judge.h [J6]).
set -u
cd "$(dirname "$0")/../.." || exit 2
# shellcheck source=tests/live/lab.sh
. tests/live/lab.sh
lab_need jq ncat socat
lab_up
cat >"$LAB_DIR/policy.yaml" <<END
version: 1
mode: enforce
inside: [10.0.0.0/8, "fd00::/8"]
rules:
  - {name: self, from: gateway, to: outside, per: host, limit: {1h: 1MB}, action: block}
END
lab_egressd_start "$LAB_DIR/policy.yaml" || exit 1
admin4=203.0.113.9 admin6=2001:db8:9::9
lab_addr gw wan 192.0.2.2/24	# nobody listens there
# listen NAME ADDRESS PORT: each line is a number, and answered by so many bytes
listen() {
	lab_start "$1" gw ncat -l -k "$2" "$3" -c 'while read -r n; do head -c "$n" /dev/zero | tr "\0" x; echo; done'
	lab_wait 5 lab_listens gw "$3"
}
listen sshd4 192.0.2.1 22
listen sshd6 2001:db8:1::1 22
listen other-port 192.0.2.1 2222
# A connection that stays: session NAME ADMIN GATEWAY PORT opens it, ask NAME BYTES is answered by so many bytes.
session() {
	mkfifo "$LAB_DIR/$1.in"
	lab_start "$1" outside sh -c "exec ncat -s $2 $3 $4 <>$LAB_DIR/$1.in >$LAB_DIR/$1.out"
}
ask() {
	local want
	want=$(($(stat -c %s "$LAB_DIR/$1.out") + $2 + 1))
	echo "$2" >"$LAB_DIR/$1.in"
	lab_wait 3 answered "$1" $want
}
answered() { [ "$(stat -c %s "$LAB_DIR/$1.out")" -eq "$2" ]; }
session ssh4 $admin4 192.0.2.1 22
session ssh6 $admin6 2001:db8:1::1 22
session other $admin4 192.0.2.1 2222
for s in ssh4 ssh6 other; do
	ask $s 1000 && ok "$s: answered before the limit" || not_ok "$s: not answered before the limit"
done

blocked() { [ "$(ctl --json blocks | jq '.blocks | length')" -ge "$1" ]; }
in_set() { in_ns gw nft list ruleset | grep -A8 "set $1 " | grep -q "$2"; }
ask other 2000000 && not_ok "the rule does not block" || ok "the rule blocks the gateway"
lab_wait 3 blocked 1 && ok "and says so" || not_ok "no block: $(ctl --json blocks)"
ask ssh4 3000000 && ok "SSH goes on beyond the limit" || not_ok "SSH is cut off by a rule"
ask ssh6 100000 && ok "IPv6 SSH goes on" || not_ok "IPv6 SSH is cut off by a rule"
total() { ctl --json why gateway | jq .total.bytes; }
sleep 1.2
[ "$(total)" -gt 4000000 ] && ok "and it is charged: $(total) bytes" || not_ok "not charged: $(total) bytes"

ctl block 192.0.2.1 --for 10m --reason test >/dev/null || not_ok "block 192.0.2.1"
ctl block 192.0.2.2 --for 10m --reason test >/dev/null || not_ok "block 192.0.2.2"
ctl block 2001:db8:1::1 --for 10m --reason test >/dev/null || not_ok "block 2001:db8:1::1"
lab_wait 3 in_set gate4 192.0.2.1 && ok "blocked by hand, in the kernel too" || not_ok "no element in the kernel: $(ctl blocks)"
ask ssh4 10000 && ok "SSH goes on" || not_ok "SSH is cut off by a decision"
ask ssh6 10000 && ok "IPv6 SSH goes on" || not_ok "IPv6 SSH is cut off by a decision"
session again4 $admin4 192.0.2.1 22
session again6 $admin6 2001:db8:1::1 22
ask again4 1000 && ok "a new connection too" || not_ok "no new connection"
ask again6 1000 && ok "a new IPv6 connection too" || not_ok "no new IPv6 connection"
ask other 1000 && not_ok "port 2222 goes on" || ok "port 2222 does not"
lab_sink outside 7000 "$LAB_DIR/sink"
in_ns outside ncat -w 2 --send-only 203.0.113.9 7000 </dev/null && ok "somebody listens" || not_ok "nobody listens"
in_ns gw socat -u /dev/null TCP4:$admin4:7000,bind=192.0.2.2:22,connect-timeout=2 2>"$LAB_DIR/out.err" &&
	not_ok "the gateway opens a connection from port 22" || ok "nor does a connection that the gateway opens from port 22"
grep -q 'E bind' "$LAB_DIR/out.err" && not_ok "it was not tried: $(cat "$LAB_DIR/out.err")"
lab_done
