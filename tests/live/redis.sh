#!/bin/bash
# redis.sh - findings on their way out, with a real server: subscriber and stream, relay killed, Redis hung, dead, wiped and refusing;
# one entry per alert_id and none missing; decisions applied within the local policy's bounds and answered once.
# Seconds: 71
set -u
cd "$(dirname "$0")/../.." || exit 2
# shellcheck source=tests/live/lab.sh
. tests/live/lab.sh
lab_need jq redis-cli redis-server
LAB_SUMS=none	# as in redis_backlog.sh: twenty thousand
lab_up
flood=$EGRESSD_BUILD/tests/live/flood
cat >"$LAB_DIR/policy.yaml" <<END
version: 1
mode: enforce
inside: [10.0.0.0/8, "fd00::/8"]
rules:
  - {name: small, from: 10.20.0.15, to: outside, per: pair, limit: {1h: 10kB}, action: alert}
  - {name: block, from: 10.20.0.15, to: outside, per: pair, limit: {1h: 20kB}, action: block}
  - {name: many, from: 10.20.0.128/25, to: outside, per: pair, limit: {1h: 1kB}, action: alert}
decisions: {accept: [block, unblock, allow], max_ttl: 2h, max_budget: 1MB}
END
stream=egress:alerts:lab
entries() { lab_redis --raw xrange $stream - + | grep -a '^{"schema"'; }
alerts() { entries | jq -c 'select(.event_type == "alert") | select(.rule.name == "'"$1"'")'; }
count() { alerts "$1" | wc -l; }
is_count() { [ "$(count "$1")" -eq "$2" ]; }
leak() { # FIRST N: 30 kB to each of N places: one alert by `small`, one block
	in_ns sakura1 "$flood" send -a "$2" 10.20.0.15 "203.0.113.$1" 7000 "$2" 1000 20000 $((30 * $2)) >/dev/null
}
ready() { ctl status 2>/dev/null | grep -q "Redis ok"; }

lab_redis_start --loglevel warning
lab_start subscriber host redis-cli -s "$LAB_REDIS" subscribe egress:alert
lab_wait 3 grep -q egress:alert "$LAB_DIR/subscriber.log"
lab_egressd_start "$LAB_DIR/policy.yaml" "redis={socket: $LAB_REDIS}" || exit 1
lab_wait 5 ready && ok "connected" || not_ok "no connection"

leak 10 10
lab_wait 5 is_count block 10 && ok "10 blocks, 10 entries in the stream" || not_ok "10 blocks, $(count block) entries"
lab_is 10 "$(count small)" "10 alerts, 10 entries"
entries | sort >"$LAB_DIR/entries"
grep -a '^{"schema"' "$LAB_DIR/subscriber.log" | sort >"$LAB_DIR/heard"
cmp -s "$LAB_DIR/entries" "$LAB_DIR/heard" && ok "the subscriber heard the very same" || not_ok "stream and channel differ"
lab_is "$(entries | wc -l)" "$(entries | jq .seq | sort -n | uniq | tail -n 1)" "seq has no gap"
lab_is "1 true" "$(entries | jq -r .gateway.policy_version | sort -u) $(lab_redis ttl egress:gw:lab | awk '{print ($1 > 0 && $1 <= 20) ? "true" : "false"}')" \
	"heartbeat lives and expires"
beat() { lab_redis hget egress:gw:lab "$1"; }
beats_right() { [ "$(beat packets) $(beat unseen_bytes) $(beat lag)" = "$(ctl --json status | jq -r '"\(.counters.packets + .leases.packets) \(.unseen_bytes)"') 0" ]; }
lab_wait 12 beats_right && ok "and says what passed" || not_ok "heartbeat: $(lab_redis hgetall egress:gw:lab | xargs)"

# Meanwhile packets must not notice anything of what follows.
lab_start recv outside "$flood" recv -i 3 203.0.113.250 7000 60
lab_wait 5 lab_receives outside 7000
lab_start send sakura2 "$flood" send 10.20.0.16 203.0.113.250 7000 8 100 1000 30s

kill -STOP "$(lab_pid redis)"
leak 30 5
lab_wait 5 bash -c "$(declare -f ctl); EGRESSD_BUILD=$EGRESSD_BUILD LAB_DIR=$LAB_DIR; ctl status | grep -q 'Redis down'" &&
	ok "a hung server is noticed" || not_ok "a hung server is not noticed"
kill -CONT "$(lab_pid redis)"
lab_wait 40 is_count block 15 && ok "hung: all there afterwards" || not_ok "hung: $(count block) of 15"

lab_redis config set maxmemory 1 >/dev/null
leak 40 5
sleep 1.5
lab_redis config set maxmemory 0 >/dev/null
lab_wait 40 is_count block 20 && ok "out of memory: all there afterwards" || not_ok "out of memory: $(count block) of 20"

kill -KILL "$(lab_child relay)"
leak 50 5
lab_wait 10 is_count block 25 && ok "relay killed: all there afterwards" || not_ok "relay killed: $(count block) of 25"

lab_redis_stop KILL
rm -f "$LAB_REDIS"
leak 60 3
kill -KILL "$(lab_child relay)"
leak 70 2
sleep 1
lab_redis_start --loglevel warning
lab_wait 40 is_count block 30 && ok "Redis came back empty: old and new are there" || not_ok "Redis came back empty: $(count block) of 30"
lab_is 30 "$(count small)" "of the other rule too"
lab_is "" "$(entries | jq -r .alert_id | sort | uniq -d)" "one entry per alert_id"
lab_is "" "$(entries | jq .seq | sort -n | awk 'NR > 1 && $1 != last + 1 { print last, $1 } { last = $1 }')" "no seq is missing"

# A burst larger than the doorbell ring, while nobody reads it, and the next relay finds a server that hangs.
for i in $(seq 128 227); do echo "addr add 10.20.0.$i/24 dev eth0"; done | in_ns sakura1 ip -batch -
relay=$(lab_child relay)
kill -STOP "$relay" "$(lab_pid redis)"
for i in $(seq 128 227); do
	in_ns sakura1 "$flood" send -a 200 "10.20.0.$i" 203.0.113.1 7000 200 600 0 400 >/dev/null
done
kill -KILL "$relay"
hung() { ctl status 2>/dev/null | grep -q "Redis down"; }
lab_wait 20 hung && ok "a full ring, and a server that hangs" || not_ok "a full ring: $(ctl status | head -n 1)"
kill -CONT "$(lab_pid redis)"
told() { # every finding of the burst is told: by its own entry, or counted in a summary
	[ "$(($(count many) + $(entries | jq -r 'select(.rule.name == "summary") | .alert.signature' | awk '{ n += $1 } END { print n + 0 }')))" -ge 20000 ]
}
lab_wait 90 told && ok "20,000 findings at once: each told, singly or in a summary" ||
	not_ok "20,000 findings at once: $(count many) entries, $(entries | jq -r 'select(.rule.name == "summary") | .alert.signature')"
lab_is "" "$(entries | jq -r .alert_id | sort | uniq -d)" "still one entry per alert_id"

decide() { lab_redis xadd egress:decisions '*' v 1 "$@" author alice reason CHG-1 gateway '*' >/dev/null; }
answer() { entries | jq -r 'select(.decision.id? == "'"$1"'") | .decision.result'; }
answered() { [ -n "$(answer "$1")" ]; }
decide id u1 action unblock src 10.20.0.15 dst 203.0.113.10 budget 30kB ttl 1h
decide id a1 action allow src 10.20.0.15 dst 203.0.113.90 budget 2MB ttl 1h
decide id a2 action allow src 10.20.0.15 dst 203.0.113.90 budget 1MB ttl 3h
decide id b1 action block src 10.20.0.16 dst 203.0.113.91 ttl 1h
decide id x1 action reboot src 10.20.0.16 dst '*'
lab_redis xadd egress:decisions '*' v 1 id x2 action block src 10.20.0.16 dst '*' ttl 1h author alice gateway '*' >/dev/null
decide id x3 action block src 10.20.0.16 dst '*' ttl 1h ports tcp/443
decide id b1 action block src 10.20.0.16 dst 203.0.113.92 ttl 1h
decide action block src 10.20.0.16 dst 203.0.113.92 ttl 1h
decide action block src 10.20.0.16 dst 203.0.113.92 ttl 2h
decide id x1 action reboot src 10.20.0.16 dst '*'
why_of() { entries | jq -r 'select(.decision.id? == "'"$1"'") | .decision.why'; }
lab_wait 10 eval '[ "$(answer x1 | wc -l)" = 2 ]' || not_ok "decisions are not answered"
lab_is applied "$(answer u1)" "unblock within bounds"
lab_is refused "$(answer a1)" "a budget beyond the local policy"
lab_is refused "$(answer a2)" "a ttl beyond the local policy"
lab_is "applied refused" "$(answer b1 | paste -sd' ')" "block, and its id used again"
lab_is "refused refused" "$(answer x1 | paste -sd' ')" "an unknown action, twice"
lab_is "reason: the reason is missing: '' unknown field: 'ports'" "$(why_of x2) $(why_of x3)" "without a reason, or with a field that nobody knows"
lab_is "refused refused" "$(answer "" | paste -sd' ')" "without an id each entry is answered"
lab_is "block 10.20.0.16 203.0.113.91 1h alice CHG-1" "$(entries | jq -r 'select(.decision.result? == "applied" and .decision.id == "b1") |
	.decision | [.action, .src, .dst, .ttl, .author, .reason] | join(" ")')" "the answer repeats what was decided"
in_ns sakura2 ping -nqc 1 -W 1 203.0.113.91 >/dev/null && not_ok "the block has no effect" || ok "and it has effect"
kill -KILL "$(lab_child relay)"
decide id u2 action unblock src 10.20.0.15 dst 203.0.113.11 budget 30kB ttl 1h
lab_wait 10 answered u2
lab_is "1 1" "$(answer u1 | wc -l) $(answer u2 | wc -l)" "each answered once, over a relay's death"

lab_redis acl setuser default resetchannels >/dev/null
leak 80 1
unheard() { ctl status | grep -q 'Redis ok but PUBLISH: NOPERM'; }
lab_wait 5 unheard && ok "a channel that it may not speak on is shown" || not_ok "PUBLISH is refused, and status says $(ctl status | head -n 1)"
grep -q 'subscribers hear nothing, the stream has all: grant (&egress:alert +publish)' "$LAB_DIR/egressd.log" && ok "and the log says what to grant" ||
	not_ok "the log does not say what to grant"
grep -q "Redis at $LAB_REDIS: .*; trying again (does it run, and let this gateway in?)" "$LAB_DIR/egressd.log" && ok "lost connections name the server" ||
	not_ok "lost connections: $(grep 'Redis at' "$LAB_DIR/egressd.log" | head -n 2)"
lab_redis acl setuser default allchannels >/dev/null

lab_wait 40 lab_ended send
lab_wait 20 lab_ended recv
lab_is "$(jq .packets "$LAB_DIR/send.log")" "$(jq .packets "$LAB_DIR/recv.log")" "no packet was lost by all this"

lab_egressd_stop
lab_redis acl setuser lab on '>secret' '~*' '&*' +@all >/dev/null
printf secret >"$LAB_DIR/password"
chmod 644 "$LAB_DIR/password"
lab_egressd_start "$LAB_DIR/policy.yaml" "redis={socket: $LAB_REDIS, username: lab, password_file: $LAB_DIR/password}"
lab_is 1 "$(grep -c "^<4>relay: redis.password_file $LAB_DIR/password: all users may read it: chmod 640" "$LAB_DIR/egressd.log")" \
	"a password that all may read is told at start"
lab_done
