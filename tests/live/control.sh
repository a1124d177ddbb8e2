#!/bin/bash
# egressctl against a running daemon: what it shows is what left, what it changes holds, who may, and policies by apply.
set -euo pipefail
. "$(dirname "$0")/lab.sh"
lab_need jq socat setpriv python3
lab_up
# Groups of this gateway alone: ip netns lays /etc/netns/NAME over /etc for what it starts.
mkdir -p "/etc/netns/$LAB-gw"
sed '/^egressd/d' /etc/group >"/etc/netns/$LAB-gw/group"
printf 'egressd:x:64001:\negressd-admin:x:64002:\n' >>"/etc/netns/$LAB-gw/group"

policy() { # LIMIT
	cat <<-END
	version: 1
	mode: enforce
	inside: [10.0.0.0/8, "fd00::/8"]
	hosts:
	  file01: {addresses: [10.20.0.15, "fd00:20::15"]}
	rules:
	  - {name: bulk-leak, from: inside, to: outside, per: pair, limit: {1h: $1}, action: block, hold: 30m, severity: high}
	  - {name: server-total, from: inside, to: outside, per: host, limit: {24h: 500MB}, action: alert}
	END
}
policy 5MB >"$LAB_DIR/policy.yaml"
lab_egressd_start "$LAB_DIR/policy.yaml" gateway=gw1
lab_sink outside 8080 "$LAB_DIR/got"

send() { # ADDRESS BYTES
	head -c "$2" /dev/zero | in_ns sakura1 timeout 5 socat -u - "TCP:$1:8080,connect-timeout=2" >"$LAB_DIR/send.log" 2>&1 || true
}
says() { # TEXT PATTERN COMMAND...
	local text=$1 pattern=$2 out
	shift 2
	out=$("$@" 2>&1) || true
	if grep -qE -- "$pattern" <<<"$out"; then ok "$text"; else not_ok "$text: no '$pattern' in: $out"; fi
}
code() { # TEXT CODE COMMAND...
	local text=$1 want=$2 got=0
	shift 2
	"$@" >"$LAB_DIR/code.log" 2>&1 || got=$?
	lab_is "$want" "$got" "$text"
}
total() { ctl --json why "$@" | jq .total.bytes; }

# --- shown -----------------------------------------------------------------------------------------------------------
says "status is one line that says all" '^egressd gw1: enforcing 1 of 2 rules \(policy 1, .* ago\), .*, 0 blocks, [0-9]+ leases? \([0-9.]+ % of bytes\)$' ctl status
in_ns gw nft -f - <<-END
	table inet lab {
		counter v4 {}
		chain after { type filter hook postrouting priority -100
			oifname wan ip saddr 10.20.0.15 ip daddr 203.0.113.9 counter name v4
		}
	}
END
send 203.0.113.9 10000000
send '[2001:db8:9::9]' 1000000
left() { in_ns gw nft -j list counter inet lab v4 | jq '.nftables[] | select(.counter) | .counter.bytes'; }
counted() { left; total file01 203.0.113.9; }
lab_settled 20 counted
lab_is "$(left)" \
	"$(total file01 203.0.113.9)" "why counts what the kernel counts"
says "why says what is blocked" '^file01 -> 203.0.113.9   rule bulk-leak \(pair\)   BLOCKED until .*hold 30m\)$' ctl why file01 203.0.113.9
says "and how to go on" 'egressctl unblock file01 203.0.113.9 --budget 5MB --for 1h' ctl why 10.20.0.15
says "status counts the block" ', 1 block,' ctl status
says "findings" '^high +file01 -> 203.0.113.9 .* block until' ctl findings
id=$(ctl --json findings | jq -r '.findings[0].finding_id')
says "explain" 'rule bulk-leak' ctl explain "$id"
says "when, to the second" '^  first seen [0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2} [A-Z]+, last [0-9-]+ [0-9:]+' ctl explain "$id"
lab_is "egress.finding/1 $id" "$(ctl --json explain "$id" | jq -r '.finding | "\(.schema) \(.incident_id)"')" "its schema, and the incident that its alerts name"
says "which is shown" '^  incident [0-9a-f]{16}$' ctl explain "$id"
says "blocks" '^file01 -> 203.0.113.9' ctl blocks
says "clock times say the policy's zone, and by default that is UTC" ' until ([0-9]+ [A-Z][a-z]+ )?[0-9:]+ UTC ' env TZ=America/New_York "$EGRESSD_BUILD/egressctl" \
	--socket "$LAB_DIR/run/control.sock" findings
grep -qE 'alert high: file01 -> 203.0.113.9 .* blocked until ([0-9]+ [A-Z][a-z]+ )?[0-9:]+ UTC' "$LAB_DIR/egressd.log" && ok "so does the log" ||
	not_ok "no zone in the log: $(grep 'alert high' "$LAB_DIR/egressd.log" | head -1)"
lab_is 2 "$(ctl --json why file01 | jq '.pairs | length')" "one host, both its families"
code "debug check" 0 ctl debug check

# --- changed ---------------------------------------------------------------------------------------------------------
paste=$(ctl why file01 203.0.113.9 | sed -n "s/.*to let it go on: egressctl //p" | sed "s/'...'/INC-1/")
# shellcheck disable=SC2086
says "the line that why prints can be pasted" '^done: credit for 1 account, 5.0 MB, until ' ctl $paste
before=$(total file01 203.0.113.9)
send 203.0.113.9 10000000
after=$(total file01 203.0.113.9)
if [ $((after - before)) -le 5000000 ] && [ $((after - before)) -ge 4900000 ]; then
	ok "unblock gives the budget and no more"
else
	not_ok "unblock gave $((after - before)) bytes of 5000000"
fi
code "block by hand" 0 ctl block 10.20.0.16 203.0.113.10 --for 10m --reason CHG-2
lab_wait 2 sh -c "! ip netns exec $LAB-sakura2 ping -nqc 1 -W 1 203.0.113.10" && ok "it blocks" || not_ok "it does not block"
in_ns sakura2 ping -nqc 1 -W 1 203.0.113.9 >/dev/null && ok "and nothing else" || not_ok "another destination is blocked too"
says "shown as by hand" '^block by hand: 10.20.0.16/32 -> 203.0.113.10/32 .*by uid 0: CHG-2$' ctl blocks
says "unblock lifts it" '^done: 1 block by hand lifted$' ctl unblock 10.20.0.16 203.0.113.10 --reason CHG-3
lab_wait 3 in_ns sakura2 ping -nqc 1 -W 1 203.0.113.10 && ok "it passes again" || not_ok "it does not pass again"
code "nothing to unblock is an answer" 1 ctl unblock 10.20.0.16 203.0.113.10 --reason CHG-3
says "an outside address sends nothing" 'not inside. To block it as a destination: egressctl block 10.0.0.0/8 203.0.113.10' \
	ctl block 203.0.113.10 --for 10m --reason CHG-3
says "a network is of one family" 'holds IPv4 too: name a network of one family' ctl block ::/0 --for 10m --reason CHG-3
code "an address of the gateway" 0 ctl block 192.0.2.1 203.0.113.77 --for 10m --reason CHG-3
code "block a network" 0 ctl block 10.20.0.0/24 203.0.113.99 --for 10m --reason CHG-3
says "a wider block is named" 'reaches further, 10.20.0.0/24 to 203.0.113.99.* by uid 0: unblock just that' \
	ctl unblock 10.20.0.16 203.0.113.99 --reason CHG-3
in_ns sakura2 ping -nqc 1 -W 1 203.0.113.99 >/dev/null && not_ok "an unblock took the wider block back" || ok "and stands"
code "unblock just that" 0 ctl unblock 10.20.0.0/24 203.0.113.99 --reason CHG-3
code "allow" 0 ctl allow 10.20.0.15 203.0.113.77 --budget 8MB --for 1h --reason CHG-4
send 203.0.113.77 20000000
n=$(total file01 203.0.113.77)
# The allowed bytes are charged to it alone; then the rule's own limit.
if [ "$n" -le 13000000 ] && [ "$n" -ge 12800000 ]; then ok "allow, then the rule"; else not_ok "allow let $n bytes of 13000000 out"; fi
ctl findings | grep '   last ' | sed 's/   last .*//' >"$LAB_DIR/columns"
lab_is "2 1" "$(wc -l <"$LAB_DIR/columns") $(awk '{print length}' "$LAB_DIR/columns" | sort -u | wc -l)" "findings stand in columns"
code "observe" 0 ctl observe --for 10m --reason INC-5
says "status says so" 'observing.*' ctl status
says "and the block stands" 'let pass while blocking is off; BLOCKED again until ' ctl blocks
before=$(total file01 203.0.113.9)
lab_wait 3 sh -c "ip netns exec $LAB-sakura1 ping -nqc 1 -W 1 203.0.113.9" && ok "observe: nothing is blocked" || not_ok "still blocked"
code "observe ends" 0 ctl observe --for 0s --reason INC-5
says "enforcing again" 'enforcing 1 of 2' ctl status
again() { ctl blocks | grep -q 'BLOCKED until'; }
lab_wait 3 again && ok "the block is back" || not_ok "blocks: $(ctl blocks)"
engine=$(lab_child engine)
kill -STOP "$engine"
says "an engine that hangs: nobody knows what becomes of it" 'outcome unknown: the engine did not answer within 5 s' \
	ctl observe --for 10m --reason INC-7
says "status says that nobody judges" 'THE ENGINE HAS NOT JUDGED FOR [5-9] s: packets wait' ctl status
says "blocks too" 'THE ENGINE HAS NOT JUDGED FOR [5-9] s' ctl blocks
kill -CONT "$engine"
observing() { ctl status | grep -q observing; }
lab_wait 3 observing && ok "and it did become true" || not_ok "the command is lost"
grep -q 'uid 0: observe.*INC-7: outcome unknown' "$LAB_DIR/egressd.log" && ok "the log does not say refused" || not_ok "no such log line"
code "a block by hand meanwhile" 0 ctl block 10.20.0.16 203.0.113.10 --for 10m --reason INC-7
says "blocks says that it does not hold" 'all blocking is off until .*: what is listed here passes' ctl blocks
in_ns sakura2 ping -nqc 1 -W 1 203.0.113.10 >/dev/null && ok "nor does it" || not_ok "it holds, and blocks says that it does not"
code "and is lifted" 0 ctl unblock 10.20.0.16 203.0.113.10 --reason INC-7
code "observe ends again" 0 ctl observe --for 0s --reason INC-7
says "a reason that is not UTF-8" 'reason: not UTF-8: .x' ctl reload --reason $'\xa4x'
code "is none" 2 ctl reload --reason $'\xa4x'
code "nor a name" 2 ctl why $'\xa4x'
full() { "$@" >/dev/full; }
code "an answer that cannot be written" 1 full ctl --json status
says "is told" 'standard output: No space' full ctl status
says "egressd -n, too" 'standard output: No space' full "$EGRESSD_BUILD/egressd" -n -c "$LAB_DIR/egressd.yaml"
code "no reason, no change" 2 ctl observe --for 10m
code "no unit" 2 ctl block 10.20.0.16 --for 10 --reason x
grep -q 'uid 0: block 10.20.0.16 to 203.0.113.10.*CHG-2' "$LAB_DIR/egressd.log" && ok "changes are logged with uid and reason" ||
	not_ok "no log line of the block"

# --- who -------------------------------------------------------------------------------------------------------------
lab_is "660 64001" "$(stat -c '%a %g' "$LAB_DIR/run/control.sock")" "mode and group of the socket"
as() { # GROUPS VERB...
	local groups=$1
	shift
	setpriv --reuid 65534 --regid 65534 --groups "$groups" "$EGRESSD_BUILD/egressctl" --socket "$LAB_DIR/run/control.sock" "$@"
}
code "group egressd reads" 0 as 64001 status
code "and does not change" 1 as 64001 reload
says "and is told who may" 'egressd-admin' as 64001 reload
code "group egressd-admin reads" 0 as 64002 status
code "and changes" 0 as 64002 observe --for 0s --reason INC-6
grep -q 'uid 65534: observe ended.*INC-6' "$LAB_DIR/egressd.log" && ok "logged with that uid" || not_ok "no log line of uid 65534"
code "a stranger gets no connection" 1 as 65534 status
says "and is told why" 'member of group egressd' as 65534 status
# Readers who ask for ever: 64 connections of one that drip, or do nothing but ask.
cat >"$LAB_DIR/readers.py" <<'END'
import os, socket, sys, threading, time
os.setgroups([64001])
os.setgid(65534)
os.setuid(65534)
def one():
    while True:
        try:
            s = socket.socket(socket.AF_UNIX)
            s.connect(sys.argv[1])
            while sys.argv[2] == "drip":
                s.send(b" ")
                time.sleep(0.2)
            s.send(b'{"verb":"findings"}\n')
            while s.recv(65536):
                pass
        except OSError:
            time.sleep(0.001)
for i in range(64):
    threading.Thread(target=one, daemon=True).start()
time.sleep(60)
END
quickly() { # TEXT COMMAND...: done within two seconds
	local text=$1 start=${EPOCHREALTIME/[.,]/} got=0
	shift
	"$@" >"$LAB_DIR/code.log" 2>&1 || got=$?
	start=$(((${EPOCHREALTIME/[.,]/} - start) / 1000))
	if [ $got = 0 ] && [ $start -lt 2000 ]; then ok "$text: $start ms"; else not_ok "$text: $start ms, exit code $got"; fi
}
for how in drip ask; do
	lab_start readers gw python3 "$LAB_DIR/readers.py" "$LAB_DIR/run/control.sock" $how
	sleep 1.5
	quickly "amid readers who $how: root's status" ctl status
	quickly "an admin's change" as 64002 observe --for 0s --reason INC-6
	[ $how = ask ] || says "who has too many connections is told" 'too many connections at once' as 64001 status
	quickly "another reader's status" setpriv --reuid 65533 --regid 65533 --groups 64001 "$EGRESSD_BUILD/egressctl" --socket "$LAB_DIR/run/control.sock" status
	lab_stop readers
done
chmod 666 "$LAB_DIR/run/control.sock"	# whoever gets that far is still asked who he is
says "nor an answer" 'root or a member of group egressd may ask' as 65534 status

# --- policy ----------------------------------------------------------------------------------------------------------
policy 6MB >"$LAB_DIR/new.yaml"
printf 'version: 1\ninside: [10.0.0.0/8]\nrulez: []\n' >"$LAB_DIR/bad.yaml"
code "check: good" 0 ctl check "$LAB_DIR/new.yaml"
says "one is one" 'ok: mode enforce, 2 rules \(1 blocking\), 0 contracts, 1 host$' ctl check "$LAB_DIR/new.yaml"
code "check: errors" 1 ctl check "$LAB_DIR/bad.yaml"
says "with place and remedy" "bad.yaml:3:1: error: rulez: .*" ctl check "$LAB_DIR/bad.yaml"
lab_is 3 "$(ctl check --format json "$LAB_DIR/bad.yaml" | jq '.[0].line')" "check --format json"
says "check --format github" '^::error file=.*bad.yaml,line=3,col=1::' ctl check --format github "$LAB_DIR/bad.yaml"
exits() { # INTERFACES...: two of the roles of egressd.yaml would do
	policy 6MB
	printf 'exits:\n  vpn: {interfaces: [%s]}\n' "$*"
}
sed "s/^interfaces:.*/interfaces: {outside: [wan], maintenance-of-site-7: [vpn], many: [d1, d2, d3, d4, d5, d6, d7, d8]}/" \
	"$LAB_DIR/egressd.yaml" >"$LAB_DIR/roles.yaml"
exits many, d9 >"$LAB_DIR/many.yaml"
exits maintenance-of-site-7 >"$LAB_DIR/role.yaml"
bare() { # SETUP COMMAND...: with an empty /etc, after SETUP has filled it
	unshare -m sh -c 'mount -t tmpfs none /etc && mkdir /etc/egressd && eval "$0" && exec "$@"' "$@"
}
check() { bare "$1" "$EGRESSD_BUILD/egressctl" check "${@:2}"; }
code "check -c: a role stands for its devices" 1 check : -c "$LAB_DIR/roles.yaml" "$LAB_DIR/many.yaml"
says "and the error is the daemon's" 'more than 8 devices in one exit' check : "$LAB_DIR/many.yaml" -c "$LAB_DIR/roles.yaml"
sed 's/^interfaces:.*/interfaces: {outside: [wan], maint: [vpn, absent0]}/' "$LAB_DIR/egressd.yaml" >"$LAB_DIR/two.yaml"
exits mainr, maint >"$LAB_DIR/misspelt.yaml"
code "check -c: neither a role nor a device is no error" 0 check : -c "$LAB_DIR/two.yaml" "$LAB_DIR/misspelt.yaml"
lab_is "egressctl: note: exit vpn: mainr is neither a role of egressd.yaml nor a device now; did you mean 'maint'?" \
	"$(check : -c "$LAB_DIR/two.yaml" "$LAB_DIR/misspelt.yaml" 2>&1 >/dev/null)" "but it is noted"
code "check -c: no device has the role's name" 0 check : -c "$LAB_DIR/roles.yaml" "$LAB_DIR/role.yaml"
lab_is "" "$(check : -c "$LAB_DIR/roles.yaml" "$LAB_DIR/role.yaml" 2>&1 >/dev/null)" "nothing to note then"
put="cp $LAB_DIR/roles.yaml /etc/egressd/egressd.yaml"
code "without -c: the file in /etc" 1 check "$put" "$LAB_DIR/many.yaml"
code "none there: roles are taken for devices" 0 check : "$LAB_DIR/many.yaml"
says "which is noted" 'note: roles were not resolved.*/etc/egressd/egressd.yaml: No such file' check : "$LAB_DIR/many.yaml"
lab_is '[]' "$(check : --format json "$LAB_DIR/many.yaml" 2>/dev/null)" "beside the JSON"
lab_is "" "$(check : "$LAB_DIR/new.yaml" 2>&1 >/dev/null)" "no interface in the policy: no note"
code "none there: such a name is no device's" 1 check : "$LAB_DIR/role.yaml"
says "also noted" 'note: roles were not resolved' check : "$LAB_DIR/role.yaml"
code "a configuration that is not there" 1 check : -c "$LAB_DIR/nowhere.yaml" "$LAB_DIR/new.yaml"
says "is named" 'nowhere.yaml: No such file' check : -c "$LAB_DIR/nowhere.yaml" "$LAB_DIR/new.yaml"
code "a configuration with errors" 1 check "echo 'gatway: x' >/etc/egressd/egressd.yaml" "$LAB_DIR/new.yaml"
says "is told" "egressd.yaml:1:1: error: gatway" check "echo 'gatway: x' >/etc/egressd/egressd.yaml" "$LAB_DIR/new.yaml"

# --- what root may read, and the service not -------------------------------------------------------------------------
sed "s|^policy:.*|policy: /etc/egressd/policy.yaml|" "$LAB_DIR/egressd.yaml" >"$LAB_DIR/root.yaml"
echo 'redis: {socket: /run/redis.sock, password_file: /etc/egressd/password}' >>"$LAB_DIR/root.yaml"
{ policy 5MB; printf 'destinations: {cloud: {networks_file: /etc/egressd/cloud}}\n'; } >"$LAB_DIR/cloud.yaml"
noted() { # SETUP: names and modes that egressd -n notes, and how many lines there are
	bare "umask 077; echo 'egressd:x:64001:64001::/:' >/etc/passwd; cd /etc/egressd; cp $LAB_DIR/root.yaml egressd.yaml
		cp $LAB_DIR/cloud.yaml policy.yaml; echo secret >password; echo 203.0.113.0/24 >cloud; $1" \
		"$EGRESSD_BUILD/egressd" -n -c /etc/egressd/egressd.yaml 2>&1 >/dev/null |
		sed -nE 's|^note: (redis.password_file )?/etc/egressd/([a-z.]*): .* may (not )?read it: .*chmod (640).*|\2|p' | sort | xargs
}
lab_is "cloud egressd.yaml password policy.yaml" "$(noted :)" "egressd -n notes what user egressd may not read"
lab_is "" "$(noted 'chgrp 64001 *; chmod 640 *')" "and nothing when its group may"
lab_is "password" "$(noted 'chmod 644 *')" "but a password that all may read"
code "apply refuses errors" 1 ctl apply "$LAB_DIR/bad.yaml"
says "the old one stays" 'policy 1,' ctl status
code "apply --confirm" 0 ctl apply "$LAB_DIR/new.yaml" --confirm 3s
says "in force, and waits" 'waits for .egressctl confirm' ctl status
limit() { ctl --json why file01 203.0.113.9 | jq '.accounts[] | select(.rule == "bulk-leak") | .limits[0].limit_bytes'; }
lab_is 6000000 "$(limit)" "the new limit holds"
code "reload does not take its place" 1 ctl reload
says "and says what would" 'waits for confirmation: keep it by .egressctl confirm' ctl reload
lab_is 6000000 "$(limit)" "it still waits"
back() { [ "$(limit)" = 5000000 ]; }
lab_wait 6 back && ok "not confirmed: the old one returns" || not_ok "not confirmed, still $(limit)"
cmp -s "$LAB_DIR/policy.yaml" "$LAB_DIR/new.yaml" && not_ok "the file was changed" || ok "the file was not touched"
engine=$(lab_child engine)
code "apply --confirm, and the engine hangs when the time is up" 0 ctl apply "$LAB_DIR/new.yaml" --confirm 1s
kill -STOP "$engine"
stuck() { grep -q 'cannot be put back yet' "$LAB_DIR/egressd.log"; }
lab_wait 9 stuck && ok "it is told" || not_ok "nobody is told"
kill -CONT "$engine"
lab_wait 9 back && ok "the old one returns none the less" || not_ok "still $(limit)"
lab_is 1 "$(grep -c 'cannot be put back yet' "$LAB_DIR/egressd.log")" "told once"
in_force() { grep -c '^<6>engine: policy [0-9]* in force' "$LAB_DIR/egressd.log"; }
n=$(in_force)
kill -STOP "$engine"
says "apply --confirm, and the engine hangs" 'outcome unknown: the engine did not answer' ctl apply "$LAB_DIR/new.yaml" --confirm 8s
kill -CONT "$engine"
put_back() { [ "$(in_force)" = $((n + 2)) ] && grep -q 'the one before is in force again' "$LAB_DIR/egressd.log"; }
lab_wait 9 put_back && ok "what it does too late is taken back" || not_ok "it is not taken back: $(tail -n 3 "$LAB_DIR/egressd.log")"
says "and nothing waits" 'no policy waits for confirmation' ctl confirm
code "apply --confirm again" 0 ctl apply "$LAB_DIR/new.yaml" --confirm 10m --reason CHG-9
code "another apply meanwhile" 1 ctl apply "$LAB_DIR/new.yaml"
lab_is "false true" "$(ctl --json apply "$LAB_DIR/new.yaml" 2>"$LAB_DIR/code.log" | jq -r '"\(.ok) \(.error | length > 0)"' || true)" \
	"refused, --json prints the reply"
code "confirm" 0 ctl confirm --reason CHG-10
reasons() { grep -oE 'uid 0: (apply|confirm).*CHG-[0-9]+: done' "$LAB_DIR/egressd.log" | grep -oE 'CHG-[0-9]+' | tr '\n' ' '; }
lab_is "CHG-9 CHG-10 " "$(reasons)" "both are logged with their reasons"
cmp -s "$LAB_DIR/policy.yaml" "$LAB_DIR/new.yaml" && ok "confirmed: it is the file, to the byte" || not_ok "the file is not the confirmed one"
code "confirm without anything to confirm" 1 ctl confirm
policy 7MB >"$LAB_DIR/new.yaml"
code "apply" 0 ctl apply "$LAB_DIR/new.yaml"
cmp -s "$LAB_DIR/policy.yaml" "$LAB_DIR/new.yaml" && ok "applied: it is the file" || not_ok "the file is not the applied one"
grep -q 'uid 0: apply, no reason given: done' "$LAB_DIR/egressd.log" && ok "logged, and that no reason was given" || not_ok "no log line of apply"
policy 8MB >"$LAB_DIR/policy.yaml"
code "reload" 0 ctl reload --reason CHG-11
grep -q 'uid 0: reload, reason: CHG-11: done' "$LAB_DIR/egressd.log" && ok "logged with its reason" || not_ok "no log line of reload"
lab_is 8000000 "$(limit)" "the file's limit holds"
cp "$LAB_DIR/bad.yaml" "$LAB_DIR/policy.yaml"
says "a bad file: the first error is told" 'rulez' ctl reload
lab_is 8000000 "$(limit)" "and the old one stays"
says "status says so" 'the policy file has errors since [0-9:]+( [A-Z]+)?, policy [0-9]+ stays: .*rulez' ctl status
policy 8MB >"$LAB_DIR/policy.yaml"
code "the file is good again" 0 ctl reload
lab_is null "$(ctl --json status | jq .policy.errors_since)" "and that is over"

# --- a device that is not there --------------------------------------------------------------------------------------
missing() { ctl --json status | jq -c .devices_missing; }
{ policy 8MB; printf 'exits:\n  vpn: {interfaces: [maint, wg-lat0]}\n'; } >"$LAB_DIR/new.yaml"
lab_is '[]' "$(missing)" "every device is there"
code "apply a policy whose exit has another" 0 ctl apply "$LAB_DIR/new.yaml"
lab_is '["wg-lat0"]' "$(missing)" "status --json names it"
says "so does status" '^  devices of egressd.yaml or the policy that are not there: wg-lat0$' ctl status
lab_is 1 "$(grep -c '^<4>relay: exit vpn: wg-lat0 is neither a role' "$LAB_DIR/egressd.log")" "the log warns"
ip -n "$LAB-gw" link add wg-lat0 type veth peer name wg-peer
lab_is '[]' "$(missing)" "until it comes"
ctl status | grep -q 'not there' && not_ok "status still names it" || ok "then status says nothing of it"

# --- no room ---------------------------------------------------------------------------------------------------------
many=0
while [ $many -lt 300 ] && ctl block "10.99.$((many / 200)).$((many % 200 + 1))" 203.0.113.99 --for 1h --reason CHG-8 >"$LAB_DIR/many.log" 2>&1; do
	many=$((many + 1))
done
[ $many -gt 250 ] && ok "$many blocks by hand and allowances fit" || not_ok "only $many: $(cat "$LAB_DIR/many.log")"
says "then it says how many, and what to do" '256 decisions are in force.*unblock one' cat "$LAB_DIR/many.log"

# --- nobody there ----------------------------------------------------------------------------------------------------
code "a verb of later" 2 ctl top
code "no verb" 2 ctl
lab_egressd_stop TERM
code "egressd does not run" 1 ctl status
says "and that is said" 'does not run' ctl status
lab_done
