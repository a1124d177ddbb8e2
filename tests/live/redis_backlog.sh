#!/bin/bash
# redis_backlog.sh - 10,050 findings that Redis did not get when they were made: it is away, then refuses, then hangs, then dies in the
# middle of taking them, and the relay is killed twice meanwhile. Afterwards the stream has each once and none is missing, and no
# packet noticed. It takes 201 rules of 50 senders each: of more findings of one rule a summary would stand for the rest.
# Seconds: 66
set -u
cd "$(dirname "$0")/../.." || exit 2
# shellcheck source=tests/live/lab.sh
. tests/live/lab.sh
lab_need jq redis-cli redis-server
LAB_SUMS=none	# ten thousand counters of a set in a second: the kernel may have no memory for each (identity.sh)
lab_up
flood=$EGRESSD_BUILD/tests/live/flood
for i in $(seq 100 149); do echo "addr add 10.20.0.$i/24 dev eth0"; done | in_ns sakura1 ip -batch -
{
	printf 'version: 1\nmode: observe\ninside: [10.0.0.0/8]\ndestinations:\n'
	for i in $(seq 201); do echo "  d$i: {networks: [203.0.113.$i]}"; done
	echo rules:
	for i in $(seq 201); do echo "  - {name: r$i, from: 10.20.0.0/24, to: d$i, per: pair, limit: {1h: 1kB}, action: alert}"; done
} >"$LAB_DIR/policy.yaml"
stream=egress:alerts:lab
pending() { ctl --json status | jq .spool.pending; }
waiting() { [ "$(pending)" -ge "$1" ]; }
length() { lab_redis xlen $stream; }
grows() { [ "$(length)" -gt "$1" ]; }
sent() { [ "$(pending)" = 0 ]; }
again() { kill -KILL "$(lab_child relay)"; lab_wait 10 ctl status; }

lab_egressd_start "$LAB_DIR/policy.yaml" "redis={socket: $LAB_DIR/redis.sock}" || exit 1
lab_start recv outside "$flood" recv -i 5 203.0.113.250 7000 120
lab_wait 5 lab_receives outside 7000
lab_start send sakura2 "$flood" send 10.20.0.16 203.0.113.250 7000 8 100 1000 60s

# Two packets of 628 bytes to each of 201 places from each of 50 addresses.
in_ns sakura1 "$flood" send -S 50 -a 201 10.20.0.100 203.0.113.1 7000 10050 600 20000 20100 >/dev/null
lab_wait 30 waiting 10050 && ok "10,050 findings wait" || not_ok "$(pending) findings wait"
again
lab_redis_start --loglevel warning --maxmemory 1 --save '' --appendonly yes --appendfsync always
sleep 3
lab_is 0 "$(length)" "a server without memory takes none"
waiting 10050 && ok "and none is forgotten" || not_ok "$(pending) are left"
lab_redis config set maxmemory 0 >/dev/null
lab_wait 30 grows 500 || not_ok "nothing is sent"
kill -STOP "$(lab_pid redis)"
sleep 3
again
kill -CONT "$(lab_pid redis)"
n=$(length)
lab_wait 30 grows "$n" && ok "after a hang and a relay's death it goes on" || not_ok "nothing is sent after the hang"
lab_redis_stop KILL
rm -f "$LAB_REDIS"
lab_redis_start --loglevel warning --save '' --appendonly yes --appendfsync always
lab_wait 60 sent && ok "all is sent" || not_ok "$(pending) still wait"

lab_redis --raw xrange $stream - + | grep -a '^{"schema"' >"$LAB_DIR/entries"
alerts() { jq -c 'select(.event_type == "alert" and .activity == "create")' "$LAB_DIR/entries"; }
lab_is 10050 "$(alerts | jq -r '"\(.src_ip) \(.dest_ip)"' | sort -u | wc -l)" "each of 10,050 pairs has its alert"
lab_is 10050 "$(alerts | wc -l)" "once"
lab_is "$(wc -l <"$LAB_DIR/entries")" "$(jq -r .alert_id "$LAB_DIR/entries" | sort -u | wc -l)" "no alert_id comes twice"
lab_is "$(wc -l <"$LAB_DIR/entries")" "$(jq .seq "$LAB_DIR/entries" | sort -n | uniq | tail -n 1)" "no seq is missing"
lab_wait 70 lab_ended send
lab_wait 20 lab_ended recv
lab_is "$(jq .packets "$LAB_DIR/send.log")" "$(jq .packets "$LAB_DIR/recv.log")" "no packet was lost by all this"
lab_egressd_stop
lab_done
