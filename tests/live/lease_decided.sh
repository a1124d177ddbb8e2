#!/bin/bash
# lease_decided.sh - decisions about a pair while it is leased, by hand and through Redis: when the answer is there, they hold. A block lets
# nothing more pass. Of an allow: what had left before is the rules', what leaves after it is the allow's, to the byte, and when its budget
# is used up the rules pay again.
# Seconds: 50
set -u
cd "$(dirname "$0")/../.." || exit 2
# shellcheck source=tests/live/lease_lab.sh
. tests/live/lease_lab.sh
IDENTITY_PARTIAL="pair host"	# beside an allow, which pays for some of it
lab_redis_start --loglevel warning
eval "$(declare -f policy | sed '1s/policy/plain_policy/')"
policy() {
	plain_policy "$@"
	echo 'decisions: {accept: [block, unblock, allow], max_ttl: 2h, max_budget: 1GB}' >>"$LAB_DIR/policy.yaml"
}
ready() { ctl status 2>/dev/null | grep -q "Redis ok"; }
answered() { lab_redis --raw xrange egress:alerts:lab - + | grep -a '^{"schema"' | grep -q "\"id\":\"$1\".*applied"; }
n=0
redis() { # ACTION [FIELD VALUE...]: returns when it is answered
	n=$((n + 1))
	lab_redis xadd egress:decisions '*' v 1 id "d$n" action "$1" src $src dst $dst "${@:2}" author alice reason CHG-1 gateway '*' >/dev/null
	lab_wait 10 answered "d$n" || not_ok "no answer"
}
allowed() { ctl --json blocks | jq '.allowed[0] | .budget_bytes - .left_bytes'; }

begin() {
	lab_redis flushall >/dev/null
	fresh 1000 1000 block "redis={socket: $LAB_REDIS}"
	lab_wait 5 ready || not_ok "no connection to Redis"
	sending 6	# the command must meet it, also where each step of ours takes half a second
	midway
}
block() { # TEXT COMMAND...
	local text=$1 p start
	begin
	start=${EPOCHREALTIME/[.,]/}
	"${@:2}"
	lab_note "$text: answered after $(((${EPOCHREALTIME/[.,]/} - start) / 1000)) ms"
	p=$(passed)
	wait $sender
	lab_still 10 0.3 passed
	lab_is "$p" "$(passed)" "$text: nothing more leaves when it is answered"
	lab_is "$p $p 0" "$(sums pair) $(sums host) $(out)" "$text: what had left is charged, and nothing is out"
	lease_identity "$text"
}
allow() { # TEXT BUDGET COMMAND...
	local text=$1 budget=$2 before after used rest p l
	begin
	before=$(passed)
	"${@:3}"
	after=$(passed) l=$(counter leased)
	wait $sender
	settled
	p=$(passed) used=$(allowed) rest=$(sums host)
	lab_is "$p" $((used + rest)) "$text: what left is the allow's and the rules'"
	lab_is "$rest" "$(sums pair)" "$text: of both rules the same"
	if [ $((p - before)) -lt "$budget" ]; then
		[ "$rest" -ge "$before" ] && [ "$rest" -le "$after" ] && ok "$text: the rules paid until then, nothing since" ||
			not_ok "$text: the rules paid $rest, $before had left before and $after when it was answered"
	else
		[ "$used" -le "$budget" ] && [ "$used" -gt $((budget - 1228)) ] && ok "$text: its budget is used to the last packet that fits" ||
			not_ok "$text: $used of $budget are used"
	fi
	[ $(($(counter leased) - l)) -gt $(((p - after) / 2)) ] && ok "$text: and leased again" ||
		not_ok "$text: $(($(counter leased) - l)) by lease of $((p - after))"
	lease_identity "$text"
}
hand() { ctl "$@" >/dev/null; }
block "blocked by hand" hand block 10.20.0.15 203.0.113.11 --for 1h --reason test
block "blocked through Redis" redis block ttl 1h
allow "allowed by hand" $((500 * MB)) hand allow 10.20.0.15 203.0.113.11 --budget $((MB / 2))kB --for 1h --reason test
allow "allowed through Redis" $((500 * MB)) redis allow budget $((MB / 2))kB ttl 1h
allow "allowed some" $((20 * MB)) hand allow 10.20.0.15 203.0.113.11 --budget $((MB / 50))kB --for 1h --reason test
lab_egressd_stop && ok "stops" || not_ok "does not stop"
lab_done
