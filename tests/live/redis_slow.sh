#!/bin/bash
# redis_slow.sh - a backlog on a slow Redis: the heartbeat goes on and decisions are read before all of it is sent. A name server that never
# answers holds up no stop.
set -u
cd "$(dirname "$0")/../.." || exit 2
# shellcheck source=tests/live/lab.sh
. tests/live/lab.sh
lab_need jq /usr/bin/python3
lab_up
etc=/etc/netns/$LAB-gw	# ip netns lays it over /etc for what it starts; lab_down takes it away
flood=$EGRESSD_BUILD/tests/live/flood
cat >"$LAB_DIR/policy.yaml" <<END
version: 1
mode: observe
inside: [10.0.0.0/8]
rules:
  - {name: small, from: inside, to: outside, per: pair, limit: {1h: 1kB}, action: alert}
  - {name: large, from: inside, to: outside, per: pair, limit: {1h: 2kB}, action: alert}
END
# Answers each command after 50 ms, and writes down its name.
cat >"$LAB_DIR/slow.py" <<'END'
import socket, sys, time
s = socket.socket(socket.AF_UNIX)
s.bind(sys.argv[1])
s.listen(1)
while True:
    c = s.accept()[0].makefile("rwb", buffering=0)
    while head := c.readline():
        word = []
        for _ in range(int(head[1:])):
            n = int(c.readline()[1:])
            word.append(c.read(n))
            c.read(2)
        name = word[0].decode()
        print(name, flush=True)
        time.sleep(0.05)
        c.write({"PING": b"+PONG\r\n", "XADD": b"$%d\r\n%s\r\n" % (len(word[-5]), word[-5]) if name == "XADD" else b"",
                 "XREVRANGE": b"*0\r\n", "XREAD": b"*-1\r\n"}.get(name, b":1\r\n"))
END
lab_start slow host /usr/bin/python3 "$LAB_DIR/slow.py" "$LAB_DIR/slow.sock"
lab_wait 5 test -S "$LAB_DIR/slow.sock"
lab_egressd_start "$LAB_DIR/policy.yaml" "redis={socket: $LAB_DIR/slow.sock}" || exit 1
lab_wait 5 grep -q HSET "$LAB_DIR/slow.log"
in_ns sakura1 "$flood" send -a 50 10.20.0.15 203.0.113.10 7000 50 1000 20000 150 >/dev/null
sent() { [ "$(grep -c XADD "$LAB_DIR/slow.log")" -ge 100 ]; }
lab_wait 30 sent && ok "100 alerts reach a slow server" || not_ok "$(grep -c XADD "$LAB_DIR/slow.log") of 100 alerts"
sed -n '/XADD/,$p' "$LAB_DIR/slow.log" | head -n "$(sed -n '/XADD/,$p' "$LAB_DIR/slow.log" | grep -n XADD | sed -n '100s/:.*//p')" >"$LAB_DIR/meanwhile"
grep -q HSET "$LAB_DIR/meanwhile" && ok "the heartbeat went on meanwhile" || not_ok "no heartbeat until all was sent"
[ "$(grep -c XREAD "$LAB_DIR/meanwhile")" -ge 2 ] && ok "and decisions were read" || not_ok "no decision was read until all was sent"
lab_egressd_stop && ok "stops" || not_ok "does not stop"
lab_stop slow

mkdir -p "$etc"
echo "nameserver 127.0.0.1" >"$etc/resolv.conf"
lab_start names gw /usr/bin/python3 -c '
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("127.0.0.1", 53))
while True:
    print(len(s.recv(512)), flush=True)'
rm -rf "$LAB_DIR/state"
LAB_SUMS=none	# nothing is sent, and the stop is timed
lab_egressd_start "$LAB_DIR/policy.yaml" "redis={address: \"redis.example.net:6379\"}" || exit 1
lab_wait 5 test -s "$LAB_DIR/names.log" && ok "a name is asked for, and nobody answers" || not_ok "no name is asked for"
from=${EPOCHREALTIME/[.,]/}
lab_egressd_stop || not_ok "does not stop"
took=$(((${EPOCHREALTIME/[.,]/} - from) / 1000))
[ $took -lt $((5500 * LAB_PATIENCE)) ] && ok "stops all the same, after $took ms" || not_ok "stops after $took ms"
[ -s "$LAB_DIR/state/snapshot" ] && ok "and the sums are on disk" || not_ok "no snapshot"
lab_is "" "$(grep 'has not ended' "$LAB_DIR/egressd.log")" "nobody was killed"
lab_done
