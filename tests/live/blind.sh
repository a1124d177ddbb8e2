#!/bin/bash
# blind.sh - the engine hangs while more is sent than its queue holds, failure: open. Its successor's alert says since when and until
# when nobody judged, and how many packets passed meanwhile, as the kernel counted them.
set -u
cd "$(dirname "$0")/../.." || exit 2
# shellcheck source=tests/live/lab.sh
. tests/live/lab.sh
lab_need jq
lab_up
flood=$EGRESSD_BUILD/tests/live/flood
cat >"$LAB_DIR/policy.yaml" <<END
version: 1
mode: enforce
inside: [10.0.0.0/8, "fd00::/8"]
rules:
  - {name: pair, from: 10.20.0.0/24, to: outside, per: pair, limit: {1h: 1TB}, action: block}
END
lab_egressd_start "$LAB_DIR/policy.yaml" || exit 1
unseen() { in_ns gw nft -j list counter inet egressd_keep unseen | jq '.nftables[] | select(.counter) | .counter.packets'; }
ms_of() { date -u -d "$1" +%s%3N; }
now_ms() { date +%s%3N; }

lab_is 0 "$(unseen)" "before: nothing unseen"
old=$(lab_child engine)
before=$(now_ms)
kill -STOP "$old"
after=$(now_ms)
# One pair is one queue: 32,768 packets wait, the rest passes.
in_ns sakura1 "$flood" send 10.20.0.15 203.0.113.9 7000 1 72 20000 50000 >/dev/null
told() { grep 'health: the engine was restarted' "$LAB_DIR/egressd.log"; }
lab_wait 30 told || { not_ok "nobody tells of a restart"; exit 1; }
ok "the engine is replaced, and it is told"
end=$(now_ms)
[[ $(told) =~ nobody\ judged\ from\ (.*)\ to\ (.*)\ UTC\;\ ([0-9]+)\ packets\ \((.*)\)\ passed\ unjudged$ ]] ||
	{ not_ok "told in other words: $(told)"; exit 1; }
from=$(ms_of "${BASH_REMATCH[1]}") to=$(ms_of "${BASH_REMATCH[2]}") packets=${BASH_REMATCH[3]}
lab_note "$(told)"
# A worker turns four times a second when nothing comes.
if [ "$from" -ge $((before - 1000)) ] && [ "$from" -le "$after" ]; then
	ok "blind since the last turn before the hang"
else
	not_ok "blind since $from: stopped between $before and $after"
fi
if [ "$to" -gt $((after + 5000)) ] && [ "$to" -le "$end" ]; then
	ok "until the next engine judges"
else
	not_ok "until $to: stopped at $after, told at $end"
fi
passed=$(unseen)
if [ "$passed" -gt 0 ] && [ "$packets" = "$passed" ]; then
	ok "$packets packets told = counted by the kernel"
else
	not_ok "$packets packets told, the kernel counted $passed"
fi
lab_is "$passed" "$(ctl --json status | jq .unseen_packets)" "status says the same"
lab_done
