#!/bin/bash
# alert.sh - from the packet that crosses a limit to the subscriber: p50 and p99, beside the p99 of fdatasync on the same disk
# (tail_of.c). Each finding is two datagrams to a fresh destination; its time is the difference between the sending of the second and
# the arrival of the subscriber's line, both read on this machine's clock.
set -u
cd "$(dirname "$0")/../.." || exit 2
exec 5>&1 >&2
# shellcheck source=tests/live/lab.sh
. tests/live/lab.sh
LAB_SUMS=none	# what counts would cost, too
lab_need redis-server
lab_up
: "${FINDINGS:=240}"
# Over 50 new findings of a rule in a minute are one summary: eight rules, each for its own destinations.
{
	printf 'version: 1\nmode: observe\ninside: [10.0.0.0/8]\ndestinations:\n'
	for i in 0 1 2 3 4 5 6 7; do echo "  d$i: {networks: [203.0.113.$((i * 32))/27]}"; done
	echo rules:
	for i in 0 1 2 3 4 5 6 7; do
		echo "  - {name: r$i, from: 10.20.0.0/24, to: d$i, per: pair, limit: {1h: 1kB}, action: alert}"
	done
} >"$LAB_DIR/policy.yaml"
lab_redis_start --loglevel warning
# A shell's read takes a pipe byte by byte: a millisecond for an alert. This one takes the time as the bytes arrive.
cat >"$LAB_DIR/subscriber.py" <<'END'
import socket, sys, time
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.sendall(b"SUBSCRIBE egress:alert\r\n")
rest = b""
while True:
    got = s.recv(1 << 16)
    now = time.time_ns() // 1000
    if not got:
        break
    *lines, rest = (rest + got).split(b"\r\n")
    for line in lines:
        if line.startswith(b"{"):
            print(now, line.decode(), flush=True)
END
lab_start subscriber host /usr/bin/python3 "$LAB_DIR/subscriber.py" "$LAB_REDIS"
lab_egressd_start "$LAB_DIR/policy.yaml" "redis={socket: $LAB_REDIS}" || exit 1
sleep 1
# One process sends and, halfway between two findings, times fdatasync of 1 kB appended in the spool's folder: the reference sees the
# same machine at the same time, and no process is started while a finding is on its way.
cat >"$LAB_DIR/sender.py" <<'END'
import os, socket, sys, time
n, state, sent, sync = int(sys.argv[1]), sys.argv[2], open(sys.argv[3], "w"), open(sys.argv[4], "w")
fd = os.open(state + "/fsync", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("10.20.0.15", 0))
for i in range(n):
    to = ("203.0.113.%d" % (i + 1), 7000)
    s.sendto(b"x" * 600, to)
    t = time.time_ns()
    s.sendto(b"x" * 600, to)
    sent.write("%s %d\n" % (to[0], t // 1000))
    time.sleep(0.04)
    t = time.perf_counter()
    os.write(fd, b"x" * 1024)
    os.fdatasync(fd)
    sync.write("%f\n" % ((time.perf_counter() - t) * 1e3))
    time.sleep(0.04)
END
in_ns sakura1 /usr/bin/python3 "$LAB_DIR/sender.py" "$FINDINGS" "$LAB_DIR/state" "$LAB_DIR/sent" "$LAB_DIR/fsync"
sleep 2
sed 's/^\([0-9]*\) .*"dest_ip":"\([0-9.]*\)".*community.*/\2 \1/' "$LAB_DIR/subscriber.log" | grep '^203' | sort >"$LAB_DIR/heard"
sort "$LAB_DIR/sent" | join - "$LAB_DIR/heard" | awk '{ print ($3 - $2) / 1000 }' >"$LAB_DIR/ms"
n=$(wc -l <"$LAB_DIR/ms")
[ "$n" -ge $((FINDINGS * 9 / 10)) ] || { echo "only $n of $FINDINGS findings were heard"; exit 1; }
# The goal: at most fdatasync's p99 and 5 ms.
"$EGRESSD_BUILD/tests/bench/tail_of" alert fdatasync tests/bench/alert.sh 5 "$LAB_DIR/ms" "$LAB_DIR/fsync" | tee /dev/fd/5
[ "${PIPESTATUS[0]}" -eq 0 ]
