#!/bin/bash
# Kernel rules (daemon/rules.h) under real traffic: counted once and exactly, refused exactly, nothing lost by an update, and
# what must hold while our processes are dead. rules_tool is the engine's part by hand; table `ref` counts independently.
set -uo pipefail
. "$(dirname "$0")/lab.sh"
tool=$EGRESSD_BUILD/tests/live/rules_tool
lab_need "$tool" nft socat ping
lab_up

ALL='dev=wan,vpn inside=10.0.0.0/8,fd00::/8 exit=10.250.0.0/16,fd00:250::/64'

tool_start() {
	coproc TOOL { exec ip netns exec "$LAB-gw" "$tool" 2>>"$LAB_DIR/tool.log"; }
	lab_tool_pid=$TOOL_PID
	exec {to}>&"${TOOL[1]}" {from}<&"${TOOL[0]}"
}

tool_end() { # SIGNAL
	kill -s "$1" "$lab_tool_pid" 2>/dev/null
	wait "$lab_tool_pid" 2>/dev/null
	exec {to}>&- {from}<&-
}

# t COMMAND...: its answer in $answer; 1 on error.
t() {
	local line
	answer=
	echo "$*" >&"$to"
	while read -t 20 -r line <&"$from"; do
		case $line in
		done) return 0 ;;
		error*) answer+=$line; return 1 ;;
		*) answer+=$line$'\n' ;;
		esac
	done
	answer+='no answer'
	return 1
}

must() { t "$@" || not_ok "rules_tool $*: $answer"; }

# Numbers since the last mark: egress packets and bytes, unseen packets and bytes; the same by the reference.
read_all() {
	must counters
	read -r _ e_p e_b _ u_p u_b <<<"$answer"
	read -r r_p r_b <<<"$(in_ns gw nft list counter inet ref sum | awk '/packets/ { print $2, $4 }')"
}
mark() { read_all; e0_p=$e_p e0_b=$e_b u0_p=$u_p u0_b=$u_b r0_p=$r_p r0_b=$r_b; }
since() {
	read_all
	e_p=$((e_p - e0_p)) e_b=$((e_b - e0_b)) u_p=$((u_p - u0_p)) u_b=$((u_b - u0_b)) r_p=$((r_p - r0_p)) r_b=$((r_b - r0_b))
}
# exact TEXT unseen|judged: egress as the reference has it; all of it unseen, or none.
exact() {
	since
	lab_is "$r_p $r_b" "$e_p $e_b" "$1: egress packets and bytes as the reference"
	[ "$r_p" -gt 0 ] || not_ok "$1: there was no traffic"
	if [ "$2" = unseen ]; then
		lab_is "$r_p $r_b" "$u_p $u_b" "$1: all of it unseen"
	else
		lab_is "0 0" "$u_p $u_b" "$1: nothing unseen"
	fi
}

ref() { # the independent count; oddities of the marks: `left` bits that leave, `kept` bits of others, `reply` state 3
	in_ns gw nft -f - <<-END
		table inet ref {
			counter sum { }
			counter left { }
			counter kept { }
			counter reply { }
			chain before {
				type filter hook postrouting priority -200;
				oifname { wan, vpn } ip6 daddr { fe80::/10, ff02::/16 } return
				oifname { wan, vpn } counter name sum
			}
			chain between {
				type filter hook postrouting priority -153;
				meta mark & 0x300 == 0x300 counter name reply
			}
			chain after {
				type filter hook postrouting priority 300;
				meta mark & 0x300 != 0 counter name left
				meta mark & 0x1000 != 0 counter name kept
			}
		}
	END
}
ref_packets() { in_ns gw nft list counter inet ref "$1" | awk '/packets/ { print $2 }'; }

reaches() { in_ns "$1" ping -nqc 1 -W 1 "$2" >/dev/null 2>&1; }
pings() { in_ns "$1" ping -nqi 0.01 -c "$3" -W 1 "$2" >/dev/null 2>&1; }
expect_reach() { if reaches "$1" "$2"; then ok "$3"; else not_ok "$3: $1 does not reach $2"; fi; }
expect_refused() { if reaches "$1" "$2"; then not_ok "$3: $1 reaches $2"; else ok "$3"; fi; }

# send SPACE ADDRESS BYTES: to the sink on port 7000
send() {
	local a=$2
	[[ $a != *:* ]] || a="[$a]"
	head -c "$3" /dev/zero | in_ns "$1" timeout 30 socat -u - "TCP:$a:7000,connect-timeout=5" 2>>"$LAB_DIR/send.log"
}
sink_has() { [ "$(stat -c %s "$LAB_DIR/sink" 2>/dev/null || echo 0)" -ge "$1" ]; }
no_owned() { ! in_ns gw nft list tables | grep -q 'egressd$'; }
settle() { lab_still 10 0.3 in_ns gw nft list table inet ref; }
established() { in_ns sakura1 ss -Htn state established 'dport = :7000' | grep -q .; }

traffic() { # both families, small and large, forwarded, pulled and of the gateway itself
	: >"$LAB_DIR/sink"
	pings sakura1 203.0.113.9 20
	pings sakura2 2001:db8:9::9 20
	pings sakura1 10.250.0.5 10
	pings sakura1 fd00:250::5 10
	pings gw 203.0.113.10 10
	pings outside 10.20.0.15 10
	send sakura1 203.0.113.9 8000000
	send sakura2 2001:db8:9::9 8000000
	lab_wait 5 sink_has 16000000 || not_ok "$1: the sink got $(stat -c %s "$LAB_DIR/sink") of 16000000 bytes"
	settle
}

ref
tool_start
lab_sink outside 7000 "$LAB_DIR/sink"

if t apply $ALL; then ok "apply: $answer"; else not_ok "apply: $answer"; lab_done; exit; fi
must present
lab_is "present 1" "${answer%$'\n'}" "present after apply"
old_rules() { for c in "egressd lease" "egressd_keep entry" "egressd_keep pass"; do in_ns gw nft list chain inet $c; done | grep -cxE '[[:space:]]*accept'; }
must older
lab_is 3 "$(old_rules)" "kept tables with the chains of older versions"
in_ns gw nft 'add set inet egressd_keep blocked4 { type ipv4_addr; }; add element inet egressd_keep blocked4 { 10.20.0.15 }
	add rule inet egressd_keep gate_forward ip saddr @blocked4 goto refuse'
must apply $ALL
lab_is 0 "$(old_rules)" "apply leaves those chains without rules"
in_ns gw nft list table inet egressd_keep | grep -q 'blocked[46]' && not_ok "its gate sets are there" || ok "its gate sets are gone"

mark
traffic "nobody listens"
exact "nobody listens" unseen
must unseen
lab_is "$u_p $u_b" "$(awk '{ p += $4; b += $6 } END { print p, b }' <<<"$answer")" "unseen by pair adds up to unseen"
if grep -q '^fd00:20::16 2001:db8:9:: packets' <<<"$answer"; then ok "unseen IPv6 pair by its /64"; else not_ok "unseen pairs: $answer"; fi

must judge 0
mark
traffic judged
exact judged judged
must judge 0 repeat
mark
traffic repeated
exact "every packet repeated once" judged
must nojudge

# What is not egress.
mark
pings gw 10.20.0.15 5
pings gw 192.0.2.1 5
in_ns gw ping -nqi 0.01 -c 5 -W 1 -I wan ff02::1 >/dev/null 2>&1
in_ns gw ping -nqi 0.01 -c 3 -W 1 -b -I wan 224.0.0.1 >/dev/null 2>&1
since
lab_is "0" "$e_p" "inside, own and link-scope destinations are not egress"
must apply inside=10.0.0.0/8,fd00::/8 exit=10.250.0.0/16,fd00:250::/64 dev=wan
mark
pings sakura1 10.250.0.5 5
pings sakura1 fd00:250::5 5
exact "exit by address alone" unseen
must apply inside=10.0.0.0/8,fd00::/8 dev=wan
mark
pings sakura1 10.250.0.5 5
pings sakura1 fd00:250::5 5
since
lab_is "0" "$e_p" "neither exit host nor exit device: inside"

# Marks.
must apply $ALL
mark
k0=$(ref_packets kept)
for m in 256 512 768 4352; do	# LEASED, JUDGED, both, and one more bit of somebody else beside LEASED
	echo x | in_ns gw socat -u - "UDP:203.0.113.9:9,setsockopt-int=1:36:$m"
	echo x | in_ns gw socat -u - "UDP:[2001:db8:9::9]:9,setsockopt-int=1:36:$m"
done
exact "forged marks" unseen
lab_is 8 "$(awk "BEGIN { print $u_p }")" "forged marks: every packet was counted"
lab_is 0 "$(ref_packets left)" "no bit of ours leaves"
lab_is 2 "$(($(ref_packets kept) - k0))" "bits of others stay"

must apply $ALL ct
in_ns outside ping -nqc 1 -W 1 203.0.113.9 >/dev/null
c0=$(ref_packets reply)
pings sakura1 203.0.113.9 5
lab_is 0 "$(($(ref_packets reply) - c0))" "opened by inside: not marked as reply"
pings outside 10.20.0.15 5
pings outside fd00:20::15 5
lab_is 10 "$(($(ref_packets reply) - c0))" "opened by outside: its replies are marked"
must judge 0
mark
traffic "with ct"
exact "with ct, judged" judged
must nojudge

# Blocks.
must apply inside=10.0.0.0/8,fd00::/8 dev=wan protect=203.0.113.10,2001:db8:20::/64
for v in 4 6; do
	if [ $v = 4 ]; then
		src=10.20.0.15 dst=203.0.113.9 other=203.0.113.77 prot=203.0.113.10 in=10.250.0.5 url=203.0.113.9
	else
		src=fd00:20::15 dst=2001:db8:9::9 other=2001:db8:20::20 prot=2001:db8:20::20 in=fd00:250::5 url='[2001:db8:9::9]'
	fi
	(while echo x; do sleep 0.02; done) | in_ns sakura1 timeout 20 socat -u - "TCP:$url:7000" 2>"$LAB_DIR/cut.log" &
	open=$!
	lab_wait 5 established
	must block pair reject "$src" "$dst/$([ $v = 4 ] && echo 32 || echo 64)" 60
	start=${EPOCHREALTIME/[.,]/}
	wait $open
	took=$(((${EPOCHREALTIME/[.,]/} - start) / 1000))
	if [ $took -lt 1000 ] && grep -qi 'reset\|broken pipe' "$LAB_DIR/cut.log"; then
		ok "IPv$v: an open connection is cut by RST"
	else
		not_ok "IPv$v: open connection: $took ms, $(cat "$LAB_DIR/cut.log")"
	fi
	if in_ns sakura1 timeout 5 socat -u OPEN:/dev/null "TCP:$url:7000" 2>"$LAB_DIR/cut.log"; then
		not_ok "IPv$v: a new connection gets through"
	elif grep -q refused "$LAB_DIR/cut.log"; then
		ok "IPv$v: a new connection is refused"
	else
		not_ok "IPv$v: new connection: $(cat "$LAB_DIR/cut.log")"
	fi
	said=$(in_ns sakura1 ping -nc 1 -W 1 $dst 2>&1)
	if grep -qi 'filtered\|prohibited' <<<"$said"; then ok "IPv$v: others get ICMP prohibited"; else not_ok "IPv$v: ping said $said"; fi
	[ $v = 4 ] || expect_refused sakura1 2001:db8:9::10 "IPv6: the whole /64 of the pair"
	expect_reach sakura1 $other "IPv$v: the source's other destinations"
	expect_reach sakura2 $dst "IPv$v: other sources"
	must block pair drop "$src" "$dst/$([ $v = 4 ] && echo 32 || echo 64)" 60
	must blocks
	lab_is 1 "$(grep -c "^pair .* $src " <<<"$answer")" "IPv$v: reject becomes drop, one element"
	said=$(in_ns sakura1 ping -nc 2 -i 0.1 -W 1 -s 100 $dst 2>&1)
	grep -qi 'filtered\|prohibited' <<<"$said" && not_ok "IPv$v: drop answered: $said"
	must blocks
	lab_is "packets 2 bytes $([ $v = 4 ] && echo 256 || echo 296)" "$(grep -o "^pair drop $src .*" <<<"$answer" | cut -d' ' -f5-8)" \
		"IPv$v: the element counts what it refuses"
	must unblock pair drop "$src" "$dst/$([ $v = 4 ] && echo 32 || echo 64)"
	must unblock pair reject "$src" "$dst/$([ $v = 4 ] && echo 32 || echo 64)"
	expect_reach sakura1 $dst "IPv$v: unblocked, and again without an element"

	must block host reject $src - 60
	expect_refused sakura1 $dst "IPv$v: host block"
	expect_reach sakura1 $in "IPv$v: a host block leaves inside traffic alone"
	expect_reach sakura1 $prot "IPv$v: a protected address"
	must blocks
	lab_is "packets 1" "$(grep "^host reject $src " <<<"$answer" | cut -d' ' -f5-6)" "IPv$v: only egress is counted as refused"
	must unblock host reject $src -
	must block host reject $src - 1
	sleep 1.3
	expect_reach sakura1 $dst "IPv$v: a block ends by itself"
done
# Blocks of services.
must apply inside=10.0.0.0/8,fd00::/8 dev=wan ct
lab_sink outside 6000 "$LAB_DIR/other"
lab_sink sakura1 7000 "$LAB_DIR/asked"
connects() { # SPACE ADDRESS PORT [OPTION]
	in_ns "$1" timeout 5 socat -u OPEN:/dev/null "TCP:$2:$3,connect-timeout=1${4:-}" 2>"$LAB_DIR/cut.log"
}
expect_service() { # yes|no TEXT SPACE ADDRESS PORT [OPTION]
	local got=no
	if connects "${@:3}"; then got=yes; fi
	lab_is "$1" $got "$2"
}
for v in 4 6; do
	if [ $v = 4 ]; then
		src=10.20.0.15 dst=203.0.113.9 len=32 url=203.0.113.9 back=10.20.0.15 far=203.0.113.10
	else
		src=fd00:20::15 dst=2001:db8:9::9 len=64 url='[2001:db8:9::9]' back='[fd00:20::15]' far='[2001:db8:9:200::1]'
	fi
	for kind in pair host; do
		target=$dst/$len
		[ $kind = pair ] || target=-
		must block $kind reject $src $target 60 6 6500 7999 inside
		expect_service no "IPv$v $kind: a port of the block's" sakura1 "$url" 7000
		grep -q refused "$LAB_DIR/cut.log" || not_ok "IPv$v $kind: not by RST: $(cat "$LAB_DIR/cut.log")"
		expect_service yes "IPv$v $kind: a port that is not" sakura1 "$url" 6000
		expect_reach sakura1 $dst "IPv$v $kind: nor another protocol"
		[ $kind = pair ] || expect_service no "IPv$v $kind: to everybody" sakura1 "$far" 7000
		expect_service yes "IPv$v $kind: who opened is told apart" outside "$back" 7000 ",bind=$url"
		must block $kind reject $src $target 60 6 6500 7999 outside
		expect_service no "IPv$v $kind: opened by outside" outside "$back" 7000 ",bind=$url"
		expect_service yes "IPv$v $kind: other sources" sakura2 "$url" 7000
		must block $kind drop $src $target 60 6 6500 7999 inside
		expect_service no "IPv$v $kind: reject becomes drop" sakura1 "$url" 7000
		grep -q refused "$LAB_DIR/cut.log" && not_ok "IPv$v $kind: drop is answered"
		must block $kind drop $src $target 60 6 8000 65535 inside
		if t block $kind drop $src $target 60 6 7999 8001 inside; then
			not_ok "IPv$v $kind: ranges that overlap are taken"
		else
			lab_is 1 "$(grep -cE 'File exists|Directory not empty' <<<"$answer")" "IPv$v $kind: ranges that overlap are refused"
		fi
		must blocks
		lab_is "6/6500-7999 inside 6/8000-65535 inside " "$(grep "^$kind drop $src .* inside" <<<"$answer" | cut -d' ' -f11- | sort | tr '\n' ' ')" \
			"IPv$v $kind: read back"
		packets=$(grep "^$kind drop $src .* 6/6500-7999 inside" <<<"$answer" | cut -d' ' -f6)
		[ "${packets:-0}" -gt 0 ] && ok "IPv$v $kind: the element counts what it refuses" || not_ok "IPv$v $kind: refused $packets"
		in_ns gw nft list ruleset >"$LAB_DIR/ruleset" && ok "IPv$v $kind: nft can list it" || not_ok "IPv$v $kind: nft cannot list it"
		must unblock $kind drop $src $target 0 6 6500 7999 inside
		must unblock $kind reject $src $target 0 6 6500 7999 outside
		expect_service yes "IPv$v $kind: unblocked" sakura1 "$url" 7000
		must block $kind reject $src $target 1 6 6500 7999 inside
		sleep 1.3
		expect_service yes "IPv$v $kind: a block ends by itself" sakura1 "$url" 7000
	done
	must block host reject $src - 60 6 6500 7999 inside
done
must apply inside=10.0.0.0/8,fd00::/8 dev=wan ct
must blocks
lab_is "" "$(grep -E '(inside|outside)$' <<<"$answer")" "blocks of services are the caller's to add again after an apply"
must apply inside=10.0.0.0/8,fd00::/8 dev=wan

gw4=192.0.2.1
must block host reject $gw4 - 60
expect_refused gw 203.0.113.9 "the gateway's own traffic can be blocked"
must unblock host reject $gw4 -

must many 20000
must many 20000
must blocks
lab_is 20000 "$(grep -c '^pair reject 10\.99\.' <<<"$answer")" "20,000 elements in one transaction, twice"
must block pair reject 10.20.0.15 203.0.113.9/32 60
must apply inside=10.0.0.0/8,fd00::/8 dev=wan
must blocks
lab_is 20001 "$(grep -c '^pair reject ' <<<"$answer")" "blocks stay when the rules are applied again"
expect_refused sakura1 203.0.113.9 "and hold"
must unblock pair reject 10.20.0.15 203.0.113.9/32

# The gate: who is refused by connection alone leaves it with them, who has a block never does, whichever comes first.
gate() { # SET [PATTERN]: elements; of those with it
	in_ns gw nft list set inet egressd_keep "$1" | tr ',' '\n' | grep -E '[0-9a-f]+[.:][0-9a-f.:]+' | grep -cE -- "${2:-.}"
}
said() { echo x | in_ns sakura1 timeout 2 socat -t1 - "UDP:[2001:db8:9::9]:9000,sourceport=40000,bind=[fd00:20::15]" 2>&1; }
must block pair reject fd00:20::16 2001:db8:9::/64 60
must flow fd00:20::16 1
must flow fd00:20::15 1
if grep -qi 'denied\|prohibited\|refused' <<<"$(said)"; then ok "a refused connection is answered"; else not_ok "a refused connection: $(said)"; fi
lab_is "2 1" "$(gate gate6) $(gate gate6 expires)" "the gate holds its source for a while, and that of a block for ever"
must block pair reject fd00:20::15 2001:db8:9::/64 60
must flow fd00:20::15 1
lab_is "2 0" "$(gate gate6) $(gate gate6 expires)" "which it becomes when a block needs it"
must flow fd00:20::5:0:0 1000
lab_is "1002 1000" "$(gate gate6) $(gate gate6 expires)" "1,000 sources"
sleep 6
must flow fd00:20::5:0:0 500
must apply inside=10.0.0.0/8,fd00::/8 dev=wan
lab_is "1002 1000" "$(gate gate6) $(gate gate6 expires)" "applying the rules leaves them alone"
sleep 6
lab_is 502 "$(gate gate6)" "a source stays for its last connection"
sleep 6
lab_is "2 2" "$(gate gate6) $(gate gate6 fd00:20::1)" "and no longer"
expect_refused sakura1 2001:db8:9::9 "a block holds after the refused connections of its source"
expect_refused sakura2 2001:db8:9::9 "and after those that came later"
in_ns gw nft add element inet egressd_keep gate6 '{ fd00:20::17 timeout 1s }'	# as one of a connection
must block host drop fd00:20::17 - 60
in_ns gw nft -f - <<-END
	delete element inet egressd_keep gate6 { fd00:20::17 }
	add element inet egressd_keep gate6 { fd00:20::17 timeout 2s }
END
must apply inside=10.0.0.0/8,fd00::/8 dev=wan
lab_is "3 0" "$(gate gate6) $(gate gate6 expires)" "applying the rules finds who has a block"
must unblock host drop fd00:20::17 -
fill() { # as many others until there is no room: fewer at a time towards the end
	for n in 20000 1000 50 1; do
		for i in $(seq 50); do
			awk -v n=$n -v i=$i 'BEGIN { printf "add element inet egressd_keep gate6 {"
				for (k = 1; k <= n; k++) printf "fd00:%x::%x:%x,", n, i, k
				print "}" }' | in_ns gw nft -f - 2>"$LAB_DIR/fill.log" || break
		done
	done
	grep -c 'Too many open files' "$LAB_DIR/fill.log"
}
lab_is 1 "$(fill)" "a gate has a bound"
must flow fd00:20::5:0:0 3
lab_is 0 "$(gate flow6)" "a full gate is no error, and no connection is answered"
start=${EPOCHREALTIME/[.,]/}
must block host drop fd00:20::18 - 60
took=$(((${EPOCHREALTIME/[.,]/} - start) / 1000))
lab_is "3 1" "$(gate gate6) $(gate gate6 fd00:20::18)" "a block finds room in it, in $took ms: who has none leaves"
expect_refused sakura1 2001:db8:9::9 "and who has one does not"
must unblock pair reject fd00:20::15 2001:db8:9::/64
must unblock pair reject fd00:20::16 2001:db8:9::/64
must unblock host drop fd00:20::18 -

# Applied again and again in mid-traffic.
must apply $ALL
must judge 0
mark
in_ns sakura1 ping -nqi 0.002 -c 1500 -W 1 203.0.113.9 >"$LAB_DIR/p4" 2>&1 & p4=$!
in_ns sakura2 ping -nqi 0.002 -c 1500 -W 1 2001:db8:9::9 >"$LAB_DIR/p6" 2>&1 & p6=$!
n=0
while kill -0 $p4 2>/dev/null || kill -0 $p6 2>/dev/null; do
	must apply protect=10.251.0.0/$((16 + n % 9)) $ALL,10.251.0.0/$((16 + n % 5)) "$([ $((n % 2)) = 0 ] || echo ct)"
	n=$((n + 1))
done
wait $p4 $p6
lab_is "1500 received 1500 received" "$(grep -ho '[0-9]* received' "$LAB_DIR/p4" "$LAB_DIR/p6" | xargs)" \
	"applied $n times in mid-traffic: nothing lost"
exact "applied $n times" judged
must nojudge

# Others.
must block pair reject 10.20.0.15 203.0.113.9/32 600
in_ns gw nft delete table inet egressd 2>/dev/null && not_ok "anybody may delete an owned table"
in_ns gw nft flush chain inet egressd_keep exit
must present
lab_is "present 0" "${answer%$'\n'}" "a flushed chain is noticed"
must apply $ALL
must present
lab_is "present 1" "${answer%$'\n'}" "and put right"
in_ns gw nft flush ruleset
lab_is "table inet egressd" "$(in_ns gw nft list tables)" "nft flush ruleset: the owned table survives"
must present
lab_is "present 0" "${answer%$'\n'}" "nft flush ruleset is noticed"
ref
must apply $ALL
must present
lab_is "present 1" "${answer%$'\n'}" "put back"
said=$(echo "apply $ALL" | in_ns gw "$tool" 2>&1)
if grep -q 'owned by another process' <<<"$said"; then ok "a second daemon is told why not"; else not_ok "second daemon: $said"; fi

# All of us dead.
must block pair reject 10.20.0.15 203.0.113.9/32 600
must judge 0
mark
tool_end KILL
lab_wait 2 no_owned
lab_is "table inet egressd_keep" "$(in_ns gw nft list tables | grep egressd)" "killed: the keep table stays"
expect_refused sakura1 203.0.113.9 "killed: blocks hold"
pings sakura2 203.0.113.9 10
tool_start
exact "killed: still counted" unseen
must apply $ALL
expect_refused sakura1 203.0.113.9 "adopted: blocks hold"
must unblock pair reject 10.20.0.15 203.0.113.9/32

must apply $ALL closed
mark
expect_refused sakura1 203.0.113.9 "failure closed: unseen is dropped"
expect_refused sakura1 2001:db8:9::9 "failure closed: IPv6 too"
exact "failure closed: and counted" unseen
expect_reach gw 10.20.0.15 "failure closed: inside goes on"
must judge 0
expect_reach sakura1 203.0.113.9 "failure closed: judged passes"
must remove
must remove
lab_is "" "$(in_ns gw nft list tables | grep egressd)" "removed"
expect_reach sakura1 203.0.113.9 "removed: traffic flows"
tool_end TERM
lab_done
