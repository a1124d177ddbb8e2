#!/bin/bash
# decisions.sh - decisions while the engine hangs and while processes die: each is answered once, by what became of it, and applied once.
set -u
cd "$(dirname "$0")/../.." || exit 2
# shellcheck source=tests/live/lab.sh
. tests/live/lab.sh
lab_need jq ping redis-cli redis-server
lab_up
flood=$EGRESSD_BUILD/tests/live/flood
cat >"$LAB_DIR/policy.yaml" <<END
version: 1
mode: enforce
inside: [10.0.0.0/8]
rules:
  - {name: block, from: 10.20.0.15, to: outside, per: pair, limit: {1h: 20kB}, action: block}
decisions: {accept: [block, unblock], max_ttl: 2h, max_budget: 1MB}
END
entries() { lab_redis --raw xrange egress:alerts:lab - + | grep -a '^{"schema"'; }
ready() { ctl status 2>/dev/null | grep -q "Redis ok"; }
leak() { in_ns sakura1 "$flood" send 10.20.0.15 "$1" 7000 1 1000 20000 60 >/dev/null; }	# 60 kB
decide() { lab_redis xadd egress:decisions '*' v 1 "$@" author alice reason CHG-1 gateway '*' >/dev/null; }
answer() { entries | jq -r 'select(.decision.id? == "'"$1"'") | .decision.result + .decision.why'; }
answered() { [ -n "$(answer "$1")" ]; }
passes() { in_ns sakura1 ping -nqc 1 -W 1 "$1" >/dev/null; }
in_force() { ctl --json blocks | jq '[.. | objects | select(.id? == "'"$1"'")] | length'; }
# another NAME PID: that child is no longer PID
another() { local p; p=$(lab_child "$1") && [ "$p" != "$2" ]; }
# Not while it waits for the engine's answer: in its loop it polls six descriptors.
rests() {
	local n
	kill -STOP "$relay"
	sleep 0.05
	read -r _ _ n _ <"/proc/$relay/syscall" && [ "$n" = 0x6 ] && return
	kill -CONT "$relay"
	return 1
}
refused() { ! in_ns sakura2 ping -nqc 1 -W 1 "$1" >/dev/null; }

lab_redis_start --loglevel warning
lab_egressd_start "$LAB_DIR/policy.yaml" "redis={socket: $LAB_REDIS}" || exit 1
lab_wait 5 ready || not_ok "no connection"
for i in 11 12 13; do
	leak 203.0.113.$i
	passes 203.0.113.$i && not_ok "203.0.113.$i is not blocked"
done

engine=$(lab_child engine)
kill -STOP "$engine"
decide id u1 action unblock src 10.20.0.15 dst 203.0.113.11 budget 100kB ttl 1h
sleep 4.5
start=${EPOCHREALTIME/[.,]/}
ctl status >/dev/null || not_ok "no status"
took=$(((${EPOCHREALTIME/[.,]/} - start) / 1000))
if [ $took -lt 1000 ]; then ok "the relay answers others meanwhile, after $took ms"; else not_ok "the relay answers others after $took ms"; fi
kill -CONT "$engine"
lab_wait 15 answered u1 || not_ok "no answer"
sleep 2.1
lab_is applied "$(answer u1)" "an unblock while the engine hangs: its one answer"
passes 203.0.113.11 && ok "and it has effect" || not_ok "and it has no effect"

# The engine hangs until it is replaced.
decide id b1 action block src 10.20.0.16 dst 203.0.113.91 ttl 1h
kill -STOP "$engine"
decide id b2 action block src 10.20.0.16 dst 203.0.113.92 ttl 1h
lab_wait 20 another engine "$engine" || not_ok "the engine is not replaced"
lab_wait 15 answered b2 || not_ok "no answer"
lab_is "applied applied" "$(answer b1) $(answer b2)" "two blocks over an engine's end: their answers"
lab_is "1 1" "$(in_force b1) $(in_force b2)" "each in force once"

# Asked, done and undone; then both die before the answer is written.
engine=$(lab_child engine) relay=$(lab_child relay)
kill -STOP "$engine"
decide id u2 action unblock src 10.20.0.15 dst 203.0.113.12 budget 30kB ttl 1h
sleep 2.5
kill -STOP "$relay"
kill -CONT "$engine"
lab_wait 5 passes 203.0.113.12 && ok "an unblock: done before the relay hears of it" || not_ok "an unblock: not done"
leak 203.0.113.12
passes 203.0.113.12 && not_ok "it is not blocked again"
kill -KILL "$engine"
lab_wait 5 another engine "$engine" || not_ok "no new engine"
kill -KILL "$relay"
lab_wait 15 answered u2 || not_ok "no answer"
sleep 2.1
lab_is applied "$(answer u2)" "the next relay hears of it from the next engine"
passes 203.0.113.12 && not_ok "it was granted twice" || ok "and nothing is granted twice"

# The same word later is another decision.
decide id u3 action unblock src 10.20.0.15 dst 203.0.113.12 budget 30kB ttl 1h
decide id u2 action unblock src 10.20.0.15 dst 203.0.113.13 budget 30kB ttl 1h
lab_wait 5 eval '[ "$(answer u2 | wc -l)" = 2 ]' || not_ok "no answer"
lab_is applied "$(answer u3)" "the same asked anew is done anew"
lab_is "applied refusedid: another entry had it, each decision needs its own" "$(answer u2 | paste -sd' ')" "an id used again"

# Done, and its time is over before a relay hears of it.
engine=$(lab_child engine) relay=$(lab_child relay)
kill -STOP "$engine"
decide id b4 action block src 10.20.0.16 dst 203.0.113.94 ttl 6s
sleep 2.5
lab_wait 5 rests || not_ok "the relay does not rest"
kill -CONT "$engine"
lab_wait 5 refused 203.0.113.94 || not_ok "no block"
sleep 4.5
kill -KILL "$relay"
lab_wait 15 answered b4 || not_ok "no answer"
lab_is applied "$(answer b4)" "a block that was done, and its time over by the time it is answered"

# As it waits for a hanging engine, which will do it.
engine=$(lab_child engine) relay=$(lab_child relay)
kill -STOP "$engine"
decide id b5 action block src 10.20.0.16 dst 203.0.113.95 ttl 3s
sleep 2
kill -KILL "$relay"
sleep 3
answered b5 && not_ok "it is answered by nobody who knows: $(answer b5)"
kill -CONT "$engine"
lab_wait 15 answered b5 || not_ok "no answer"
lab_is applied "$(answer b5)" "one whose time is over before the engine does it"
decide id b6 action block src 10.20.0.16 dst 203.0.113.96 ttl 3h
lab_wait 5 answered b6 || not_ok "no answer"
lab_is "refusedbeyond the local policy's max_ttl of 7200 s 0" "$(answer b6) $(in_force b6)" "one that nobody has done is refused"

# Done, and all end before the relay hears of it.
engine=$(lab_child engine) relay=$(lab_child relay)
kill -STOP "$engine"
decide id b3 action block src 10.20.0.16 dst 203.0.113.93 ttl 1h
sleep 2.5
lab_wait 5 rests || not_ok "the relay does not rest"
kill -CONT "$engine"
lab_wait 5 refused 203.0.113.93 || not_ok "no block"
lab_egressd_stop || not_ok "does not stop"
answered b3 && not_ok "the relay has answered it"
lab_egressd_restart || exit 1
lab_wait 15 answered b3
lab_is "applied 1" "$(answer b3) $(in_force b3)" "a block that was kept, and its answer not"
refused 203.0.113.93 && ok "and it has effect" || not_ok "and it has no effect"
lab_egressd_stop || not_ok "does not stop"
lab_done
