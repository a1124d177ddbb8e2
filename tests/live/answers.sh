#!/bin/bash
# answers.sh - blocks that no blocked set can say (ports, groups) answer all the same: the inside host's connection is reset, its
# datagrams get ICMP prohibited, other services of the pair go on, refused bytes are counted, and an unblock holds at once.
set -u
cd "$(dirname "$0")/../.." || exit 2
# shellcheck source=tests/live/lab.sh
. tests/live/lab.sh
lab_need jq python3
lab_up
flood=$EGRESSD_BUILD/tests/live/flood
cat >"$LAB_DIR/policy.yaml" <<END
version: 1
mode: enforce
inside: [10.0.0.0/8, "fd00::/8"]
groups:
  both: {hosts: [10.20.0.15, 10.20.0.16]}
destinations:
  there: {networks: [203.0.113.60/32]}
rules:
  - {name: web, from: 10.20.0.15, to: outside, ports: [tcp/443], per: pair, limit: {1h: 1MB}, action: block}
  - {name: web6, from: "fd00:20::15", to: outside, ports: [tcp/445], per: pair, limit: {1h: 1MB}, action: block}
  - {name: quiet, from: 10.20.0.15, to: outside, ports: [tcp/444], per: pair, limit: {1h: 1MB}, action: block, refuse: drop}
  - {name: dns, from: 10.20.0.15, to: outside, ports: [udp/53], per: pair, limit: {1h: 100kB}, action: block}
  - {name: group, from: both, to: there, per: group, limit: {1h: 1MB}, action: block}
END
# What is offered to the firewall and what leaves it, for the exact sum of what was refused.
in_ns gw nft -f - <<END || exit 1
table inet ref {
	counter offered {}
	counter left {}
	chain before { type filter hook forward priority -100; ip saddr 10.20.0.15 ip daddr 203.0.113.61 counter name offered; }
	chain after { type filter hook postrouting priority 0; ip saddr 10.20.0.15 ip daddr 203.0.113.61 counter name left; }
}
END
count() { in_ns gw nft -j list counter inet ref "$1" | jq '.nftables[] | select(.counter) | .counter.bytes'; }
lab_egressd_start "$LAB_DIR/policy.yaml" || exit 1

# tcp SPACE FROM TO PORT: "done N", "reset N", "unreachable N" or "silent N" with N milliseconds; 20 MB are offered, 4 s given.
cat >"$LAB_DIR/client.py" <<'END'
import errno, socket, sys, time
src, dst, port, kind = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
sport = int(sys.argv[5]) if len(sys.argv) > 5 else 0
family = socket.AF_INET6 if ":" in dst else socket.AF_INET
s = socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind((src, sport))
s.settimeout(4)
start, what, sent = time.time(), "done", 0
try:
    s.connect((dst, port))
    while sent < 20000000 and time.time() - start < 4:
        sent += s.send(b"x" * (65536 if kind == "tcp" else 1000))
        if kind == "udp":
            time.sleep(0.005)
    if kind == "udp":
        what = "silent"
except socket.timeout:
    what = "silent"
except ConnectionResetError:
    what = "reset"
except (BrokenPipeError, ConnectionRefusedError):
    what = "reset"
except OSError as e:
    what = {errno.EHOSTUNREACH: "unreachable", errno.EACCES: "unreachable"}.get(e.errno, str(e))
print(what, int((time.time() - start) * 1000))
END
client() { in_ns "$1" python3 "$LAB_DIR/client.py" "${@:2}"; }
sink() { # ADDRESS PORT
	lab_start "sink$2" outside "$flood" sink -g 30 -c 50 "$1" "$2"
	lab_wait 5 lab_listens outside "$2"
}
is() { # WANTED GOT TEXT
	case $2 in "$1 "*) ok "$3: $2 ms" ;; *) not_ok "$3: wanted $1, got $2 ms" ;; esac
}
lab_start udpsink outside "$flood" recv -i 30 203.0.113.61 53 60
sink 203.0.113.61 443
sink 203.0.113.61 80
sink 203.0.113.61 444
sink 203.0.113.60 8443
sink 2001:db8:9::61 445

is reset "$(client sakura1 10.20.0.15 203.0.113.61 443 tcp)" "a block by port resets the connection"
is "done" "$(client sakura1 10.20.0.15 203.0.113.61 80 tcp)" "another service of the pair goes on"
is silent "$(client sakura1 10.20.0.15 203.0.113.61 444 tcp)" "refuse: drop stays silent"
is unreachable "$(client sakura1 10.20.0.15 203.0.113.61 53 udp)" "datagrams are answered by ICMP prohibited"
is reset "$(client sakura1 10.20.0.15 203.0.113.60 8443 tcp)" "a group's block resets the connection"
is reset "$(client sakura2 10.20.0.16 203.0.113.60 8443 tcp)" "and that of another host of the group"
gated() { in_ns gw nft list set inet egressd_keep gate4 | grep -q "$1"; }
gated 10.20.0.16 && ok "whose address stands in the gate" || not_ok "whose address is not in the gate"
left() { ! gated 10.20.0.16; }
lab_wait 13 left && gated 10.20.0.15 && ok "as long as the connection does; a blocked one stays" || not_ok "the gate: $(in_ns gw nft list set inet egressd_keep gate4)"

# Everything offered either left or is counted as refused, whoever refused it.
sum_is_right() {
	local offered left refused
	offered=$(count offered) left=$(count left)
	refused=$(ctl --json why 10.20.0.15 203.0.113.61 | jq .total.refused_bytes)
	why="offered $offered, left $left, refused $refused"
	[ "$offered" -eq $((left + refused)) ]
}
why=
lab_wait 5 sum_is_right && ok "every refused byte is counted: $why" || not_ok "refused bytes: $why"

# An unblock holds at once, for the very connection that was just answered.
client sakura1 10.20.0.15 203.0.113.60 8443 tcp 40001 >/dev/null
listed() { in_ns gw nft list set inet egressd_keep flow4 | grep -q 40001; }
lab_wait 3 listed && ok "the refused connection stands in the kernel" || not_ok "the refused connection is not in the kernel"
ctl unblock 10.20.0.15 203.0.113.60 --budget 100MB --for 1h --reason test >/dev/null || not_ok "unblock"
is "done" "$(client sakura1 10.20.0.15 203.0.113.60 8443 tcp 40001)" "after an unblock the same connection passes"
listed && not_ok "the connection is still in the kernel" || ok "and is out of the kernel"

is reset "$(client sakura1 fd00:20::15 2001:db8:9::61 445 tcp)" "IPv6"
