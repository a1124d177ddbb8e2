#!/bin/bash
# refusals.sh - what egressd cannot start with is one clear line that says what to do, and exit code 1; a running egressd and its
# rules are not touched by it. FAULTS 7, and 9: rules flushed by others are back in a second.
set -u
cd "$(dirname "$0")/../.." || exit 2
# shellcheck source=tests/live/lab.sh
. tests/live/lab.sh
lab_need jq setpriv
lab_up
chmod 755 "$LAB_DIR"
cat >"$LAB_DIR/policy.yaml" <<END
version: 1
mode: enforce
inside: [10.0.0.0/8, "fd00::/8"]
rules:
  - {name: pair, from: 10.20.0.0/24, to: outside, per: pair, limit: {1h: 20MB}, action: block}
END
lab_egressd_start "$LAB_DIR/policy.yaml" || exit 1

# refused TEXT LINES PATTERN SED [PREFIX...]: with the configuration changed by SED
refused() {
	local text=$1 lines=$2 pattern=$3 change=$4 r
	shift 4
	sed "$change" "$LAB_DIR/egressd.yaml" >"$LAB_DIR/other.yaml"
	chmod 644 "$LAB_DIR/other.yaml"
	in_ns gw timeout 20 "$@" "$EGRESSD_BUILD/egressd" -c "$LAB_DIR/other.yaml" >"$LAB_DIR/refused.out" 2>&1
	r=$?
	if [ $r -eq 1 ] && [ "$(wc -l <"$LAB_DIR/refused.out")" -eq "$lines" ] && grep -qE "$pattern" "$LAB_DIR/refused.out"; then
		ok "$text"
	else
		not_ok "$text: exit code $r, $(cat "$LAB_DIR/refused.out")"
	fi
}
mkdir -m 777 "$LAB_DIR/state2" "$LAB_DIR/run2" "$LAB_DIR/state3" "$LAB_DIR/run3"
second="s#/state#/state2#; s#/run#/run2#"
port=$(in_ns gw awk '$1 == 0 { print $2 }' /proc/net/netfilter/nfnetlink_queue)
refused "a queue held by another process: its port is named" 1 "queue 0 is held by another process \(netlink port $port" "$second"
lab_is "2" "$(in_ns gw nft list tables | grep -c egressd)" "the other's tables are untouched"
ctl status | grep -q enforcing && ok "the other goes on" || not_ok "the other does not answer"
refused "a state folder that is not there" 1 "state folder /proc/nope: .*must exist and belong" "s#$LAB_DIR/state#/proc/nope#; s#/run#/run2#"
refused "a configuration with errors: all at once" 7 "other.yaml:.*failure|unknown value" 's/^failure.*/failure: opn/; s/^gateway/gatway/'
cat >"$LAB_DIR/bad.yaml" <<END
version: 1
inside: [10.0.0.0/8]
rules:
  - {name: x, from: 10.20.0.0/24, to: outside, per: pear, limit: {1h: 5}, action: block}
END
refused "a policy with errors: all at once, with place and remedy" 2 "bad.yaml:4:.*did you mean|bad.yaml:4:" \
	"s#/state#/state2#; s#/run#/run2#; s#policy.yaml#bad.yaml#"
cp "$LAB_DIR/policy.yaml" "$LAB_DIR/good.yaml"
cp "$LAB_DIR/bad.yaml" "$LAB_DIR/policy.yaml"
ctl reload >"$LAB_DIR/reload.out" 2>&1 && not_ok "a bad policy is reloaded" || ok "a bad policy is not reloaded"
ctl status | grep -q 'policy 1' && ok "the old one stays" || not_ok "the old one is gone: $(ctl status | head -n 1)"
cp "$LAB_DIR/good.yaml" "$LAB_DIR/policy.yaml"

in_ns gw nft flush ruleset
back() { in_ns gw nft list tables | grep -q egressd_keep; }
lab_wait 2 back && ok "rules flushed by somebody are back" || not_ok "rules flushed by somebody do not come back"
flushed() { ctl --json status | grep -q rules; grep -q 'rules-flushed\|removed egressd' "$LAB_DIR/egressd.log"; }
lab_wait 3 flushed && ok "and it is told" || not_ok "and nobody is told"
engine=$(lab_child engine)
kill -STOP "$engine"
replaced() { [ "$(lab_child engine)" != "$engine" ] && [ ! -d "/proc/$engine" ]; }
lab_wait 20 replaced && ok "a hung engine is replaced" || not_ok "a hung engine stays"
lab_egressd_stop || not_ok "stop"
refused "no permission" 1 "not permitted: run as root or with CAP_NET_ADMIN" "s#/state#/state3#; s#/run#/run3#" \
	setpriv --reuid nobody --regid nogroup --clear-groups --inh-caps=-all --bounding-set=-all
lab_done
