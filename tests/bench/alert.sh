#!/bin/bash
# alert.sh - from the packet that crosses a limit to the subscriber: p50 and p99, beside the p99 of fsync on the same disk. Each
# finding is one small datagram burst to a fresh destination; its time is the difference between the sender's last packet and the
# subscriber's line, both read on this machine's clock.
set -u
cd "$(dirname "$0")/../.." || exit 2
exec 5>&1 >&2
# shellcheck source=tests/live/lab.sh
. tests/live/lab.sh
lab_need jq redis-cli redis-server
lab_up
: "${FINDINGS:=120}"
flood=$EGRESSD_BUILD/tests/live/flood
# Over 50 new findings of a rule in a minute are one summary: ten rules, each for its own destinations.
{
	printf 'version: 1\nmode: observe\ninside: [10.0.0.0/8]\ndestinations:\n'
	for i in 0 1 2 3 4 5 6 7; do echo "  d$i: {networks: [203.0.113.$((i * 32))/27]}"; done
	echo rules:
	for i in 0 1 2 3 4 5 6 7; do
		echo "  - {name: r$i, from: 10.20.0.0/24, to: d$i, per: pair, limit: {1h: 1kB}, action: alert}"
	done
} >"$LAB_DIR/policy.yaml"
lab_redis_start --loglevel warning
lab_start subscriber host bash -c 'redis-cli -s "$1" subscribe egress:alert | while IFS= read -r l; do
	case $l in "{"*) echo "${EPOCHREALTIME/[.,]/} $l";; esac; done' _ "$LAB_REDIS"
lab_egressd_start "$LAB_DIR/policy.yaml" "redis={socket: $LAB_REDIS}" || exit 1
sleep 1
for i in $(seq "$FINDINGS"); do
	in_ns sakura1 "$flood" send 10.20.0.15 "203.0.113.$((i + 1))" 7000 1 600 0 2 | jq -r "\"203.0.113.$((i + 1)) \(.last_us)\""
	sleep 0.05
done >"$LAB_DIR/sent"
sleep 2
sed 's/^\([0-9]*\) .*"dest_ip":"\([0-9.]*\)".*community.*/\2 \1/' "$LAB_DIR/subscriber.log" | grep '^203' | sort >"$LAB_DIR/heard"
sort "$LAB_DIR/sent" | join - "$LAB_DIR/heard" | awk '{ print ($3 - $2) / 1000 }' | sort -n >"$LAB_DIR/ms"
# fsync of 1 kB appended, as the spool does it
/usr/bin/python3 - "$LAB_DIR/state" >"$LAB_DIR/fsync" <<'END'
import os, sys, time
fd = os.open(sys.argv[1] + "/fsync", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
for _ in range(200):
    os.write(fd, b"x" * 1024)
    t = time.perf_counter()
    os.fdatasync(fd)
    print((time.perf_counter() - t) * 1e3)
    time.sleep(0.01)
END
sort -n "$LAB_DIR/fsync" -o "$LAB_DIR/fsync"
at() { awk -v p="$2" '{ v[NR] = $1 } END { i = int(NR * p + 0.999); print v[i < 1 ? 1 : i] }' "$1"; }
n=$(wc -l <"$LAB_DIR/ms")
[ "$n" -ge $((FINDINGS * 9 / 10)) ] || { echo "only $n of $FINDINGS findings were heard"; exit 1; }
p50=$(at "$LAB_DIR/ms" 0.5) p99=$(at "$LAB_DIR/ms" 0.99) f99=$(printf %.2f "$(at "$LAB_DIR/fsync" 0.99)")
low=$(head -n 1 "$LAB_DIR/ms") high=$(tail -n 1 "$LAB_DIR/ms")
row() { # NAME VALUE GOAL VERDICT
	echo "{\"name\":\"$1\",\"value\":$2,\"low\":$low,\"high\":$high,\"unit\":\"ms\",\"against\":\"fdatasync p99 $f99 ms\"," \
		"\"command\":\"tests/bench/alert.sh\",\"aa_low\":null,\"aa_high\":null$3,\"verdict\":\"$4\"}" >&5
}
row alert-p50 "$p50" "" none
verdict=$(awk -v a="$p99" -v f="$f99" 'BEGIN { print a <= f + 5 ? "met" : "missed" }')
row alert-p99 "$p99" ",\"goal\":\"at most fsync's p99 and 5 ms\"" "$verdict"
echo "$n findings: p50 $p50 ms, p99 $p99 ms; fdatasync p99 $f99 ms"
