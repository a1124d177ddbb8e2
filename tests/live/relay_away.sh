#!/bin/bash
# relay_away.sh - what happens while the relay is away, or cannot write, is told afterwards and once; so is a stream with higher ids
# than ours.
set -u
cd "$(dirname "$0")/../.." || exit 2
# shellcheck source=tests/live/lab.sh
. tests/live/lab.sh
lab_need jq nft redis-cli redis-server
lab_up
cat >"$LAB_DIR/policy.yaml" <<END
version: 1
mode: enforce
inside: [10.0.0.0/8]
rules:
  - {name: block, from: 10.20.0.15, to: outside, per: pair, limit: {1h: 20kB}, action: block}
decisions: {accept: [block], max_ttl: 2h, max_budget: 1MB}
END
entries() { lab_redis --raw xrange egress:alerts:lab - + | grep -a '^{"schema"'; }
ready() { ctl status 2>/dev/null | grep -q "Redis ok"; }
health() { entries | jq -c 'select(.event_type == "health" and .rule.name == "'"$1"'")' | wc -l; }
is_told() { [ "$(health "$1")" -ge 1 ]; }
answer() { entries | jq -r 'select(.decision.id? == "'"$1"'") | .decision.result + .decision.why'; }
answered() { [ -n "$(answer "$1")" ]; }
another() { local p; p=$(lab_child "$1") && [ "$p" != "$2" ]; }
next_relay() {
	local relay
	relay=$(lab_child relay)
	kill -KILL "$relay"
	lab_wait 5 another relay "$relay" && lab_wait 10 ready
}

# The spool is on a small disk of its own, which egressd alone sees.
build=$EGRESSD_BUILD
mkdir "$LAB_DIR/build"
ln -s "$build/tests" "$build/egressctl" "$LAB_DIR/build"
cat >"$LAB_DIR/build/egressd" <<END
#!/bin/sh
mkdir -p $LAB_DIR/state/spool && mount -t tmpfs -o size=256k none $LAB_DIR/state/spool && exec $build/egressd "\$@"
END
chmod 755 "$LAB_DIR/build/egressd"
EGRESSD_BUILD=$LAB_DIR/build
spool=

lab_redis_start --loglevel warning
lab_redis xadd egress:alerts:lab 5000-0 eve '{}' >/dev/null
lab_egressd_start "$LAB_DIR/policy.yaml" "redis={socket: $LAB_REDIS}" || exit 1
spool=/proc/$(lab_pid egressd)/root$LAB_DIR/state/spool
lab_wait 5 ready || not_ok "no connection"
lab_is "0 0 0" "$(health stream-ids) $(health rules-flushed) $(health restored)" "no health alert at the start"

flushed() { in_ns gw nft list table inet egressd_keep >/dev/null; }
relay=$(lab_child relay)
kill -STOP "$relay"
identity_flush
lab_wait 5 flushed || not_ok "the rules are not back"
sleep 1.2
next_relay || not_ok "no next relay"
lab_wait 5 is_told rules-flushed && ok "rules flushed while no relay was there: told" || not_ok "rules flushed while no relay was there: not told"
lab_wait 5 is_told stream-ids && ok "a stream of higher ids: a health alert" || not_ok "a stream of higher ids: no health alert"
next_relay || not_ok "no next relay"
sleep 2.2
lab_is 1 "$(health rules-flushed)" "the flush is told once"

dd if=/dev/zero of="$spool/full" bs=4k 2>/dev/null
[ -s "$spool/full" ] || not_ok "the spool's disk is not full"
# The last page of the spool takes some of them.
for i in 1 2 3 4 5; do
	for gateway in elsewhere '*'; do
		lab_redis xadd egress:decisions '*' v 1 id "b$i" action block src 10.20.0.16 dst "203.0.113.9$i" ttl 1h author alice \
			reason CHG-1 gateway "$gateway" >/dev/null
	done
done
lab_wait 10 grep -q 'answer to decision b[1-5] not written' "$LAB_DIR/egressd.log" || not_ok "the answers could be written"
sleep 2.2
lab_is 1 "$(grep -c 'answer to decision b[1-5] not written' "$LAB_DIR/egressd.log")" "an answer that cannot be written: on the log once"
answered b5 && not_ok "and it counts as given"
done_now() { ctl --json blocks | jq -e '[.. | objects | .id? // empty | select(startswith("b"))] | unique | length == 5' >/dev/null; }
lab_wait 5 done_now && ok "all of them are done meanwhile" || not_ok "those after it wait: $(ctl blocks)"
unwritten=$(ctl --json status | jq .spool.answers_unwritten)
if [ "$unwritten" -ge 1 ] && [ "$unwritten" -le 5 ]; then ok "status has $unwritten answers in memory"; else not_ok "status has $unwritten answers in memory"; fi
kill -KILL "$(lab_child relay)"
rm -f "$spool/full"
lab_wait 20 answered b5
lab_is "applied applied applied applied applied" "$(for i in 1 2 3 4 5; do answer b$i; done | paste -sd' ')" "it is given by the next relay, as are others"
lab_is "5 0" "$(ctl --json blocks | jq '[.. | objects | .id? // empty | select(startswith("b"))] | length') $(ctl --json status | jq .spool.answers_unwritten)" \
	"each is in force once, and no answer is in memory alone"
lab_is "$(entries | wc -l)" "$(entries | jq -r .alert_id | sort -u | wc -l)" "no alert_id comes twice"
lab_egressd_stop || not_ok "does not stop"
lab_done
