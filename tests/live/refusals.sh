#!/bin/bash
# refusals.sh - a start that cannot succeed: each error once and with what to do, exit code 1, no restart storm, nothing left
# behind; a running egressd and its rules are not touched by it. Then what a running one survives: a bad policy at reload, rules
# flushed by others, a hung engine.
set -u
cd "$(dirname "$0")/../.." || exit 2
# shellcheck source=tests/live/lab.sh
. tests/live/lab.sh
lab_need jq setpriv unshare prlimit
lab_up
good() {
	cat <<-END
	version: 1
	mode: enforce
	inside: [10.0.0.0/8, "fd00::/8"]
	rules:
	  - {name: pair, from: 10.20.0.0/24, to: outside, per: pair, limit: {1h: 20MB}, action: block}
	END
}
good >"$LAB_DIR/policy.yaml"
two_errors() { good | sed 's/per: pair/per: pear/; s/20MB/5/'; }

tables() { in_ns gw nft list tables | grep egressd | sort; }
processes() { ip netns pids "$LAB-gw" | sort -n; }
no_more() { [ "$(processes)" = "$1" ]; }	# an ended process may take a moment to be gone

# refused TEXT ERRORS PATTERN [COMMAND...]: egressd on the gateway ends by itself with 1 and tells so many errors.
refused() {
	local text=$1 errors=$2 pattern=$3 code=0 failed=$lab_failed tables processes
	shift 3
	tables=$(tables)
	processes=$(processes)
	lab_failed=0
	in_ns gw timeout 20 "$@" "$EGRESSD_BUILD/egressd" -c "$LAB_DIR/egressd.yaml" >"$LAB_DIR/start.out" 2>&1 || code=$?
	lab_is 1 "$code" "$text: exit code"
	grep -qE -- "$pattern" "$LAB_DIR/start.out" && ok "$text: says why" || not_ok "$text: no word of '$pattern'"
	lab_is "$errors" "$(grep -cE '^<[0-3]>|^/.*: ' "$LAB_DIR/start.out")" "$text: each error once"
	lab_is "$tables" "$(tables)" "$text: the kernel's rules are as before"
	lab_wait 2 no_more "$processes" && ok "$text: no process is left" || not_ok "$text: a process is left"
	[ "$lab_failed" -eq 0 ] || sed 's/^/# /' "$LAB_DIR/start.out"
	[ "$failed" -eq 0 ] || lab_failed=$failed
}
nobody=(setpriv --reuid 65534 --regid 65534 --clear-groups)

# --- queue -----------------------------------------------------------------------------------------------------------
holder() { in_ns gw awk -v q="$1" '$1 == q { print $2 }' /proc/net/netfilter/nfnetlink_queue; }
held() { [ -n "$(holder 1)" ]; }
lab_egressd_config "$LAB_DIR/policy.yaml"
lab_start holder gw "$EGRESSD_BUILD/tests/live/nfq_tool" run 1 60
lab_wait 5 held
refused "queue of another program" 1 "queue 1 is held by another process \(netlink port $(holder 1)\b"
lab_stop holder

# --- limits ----------------------------------------------------------------------------------------------------------
lab_egressd_config "$LAB_DIR/policy.yaml" table='{pairs: 1048576}'
refused "memory" 1 "memory for 1048576 pairs .*set table.pairs lower" prlimit --as=300000000
lab_egressd_config "$LAB_DIR/policy.yaml"
refused "descriptors" 1 "raise LimitNOFILE" prlimit --nofile=12

# --- folders ---------------------------------------------------------------------------------------------------------
touch "$LAB_DIR/file"
lab_egressd_config "$LAB_DIR/policy.yaml" state_dir="$LAB_DIR/file/state"
refused "state folder below a file" 1 "state folder $LAB_DIR/file/state: Not a directory"
lab_egressd_config "$LAB_DIR/policy.yaml" state_dir=/proc/egressd
refused "state folder that nobody can make" 1 "state folder /proc/egressd: .*must exist and belong"
lab_egressd_config "$LAB_DIR/policy.yaml" runtime_dir="$LAB_DIR/file/run"
refused "runtime folder below a file" 1 "runtime folder $LAB_DIR/file/run: Not a directory"
lab_egressd_config "$LAB_DIR/policy.yaml" runtime_dir=/proc/egressd
refused "runtime folder that nobody can make" 1 "runtime folder /proc/egressd: .*must exist and belong"
mkdir "$LAB_DIR/ro"
lab_egressd_config "$LAB_DIR/policy.yaml" state_dir="$LAB_DIR/ro"
refused "state folder read-only" 1 "state folder $LAB_DIR/ro: Read-only file system" \
	unshare -m sh -c "mount -t tmpfs -o ro none $LAB_DIR/ro && exec \"\$@\"" sh

# --- permission ------------------------------------------------------------------------------------------------------
lab_egressd_config "$LAB_DIR/policy.yaml"
chmod 644 "$LAB_DIR/egressd.yaml"
chown -R 65534:65534 "$LAB_DIR/state" "$LAB_DIR/run"
refused "no capability" 1 "not permitted: run as root or with CAP_NET_ADMIN" "${nobody[@]}" --inh-caps=-all --bounding-set=-all
rm -rf "$LAB_DIR/run"
refused "root over the state folder of another user" 1 "state folder $LAB_DIR/state belongs to uid 65534, and this is root: start the service"
lab_is "" "$(find "$LAB_DIR/state" "$LAB_DIR/run" -user 0 2>/dev/null)" "root over the state folder of another user: nothing is root's"
mkdir "$LAB_DIR/run"
chown -R 0:0 "$LAB_DIR/state"
refused "capability in a user namespace" 1 "queue 0 is .* CAP_NET_ADMIN is of a user namespace of its own" unshare -U -r
chmod 600 "$LAB_DIR/egressd.yaml"
refused "configuration not readable" 1 "egressd.yaml: Permission denied" "${nobody[@]}"

# --- policy and configuration ----------------------------------------------------------------------------------------
lab_egressd_config "$LAB_DIR/none.yaml"
refused "no policy" 1 "policy $LAB_DIR/none.yaml: No such file"
echo 'gateway: [' >"$LAB_DIR/egressd.yaml"
refused "configuration that is not YAML" 1 "egressd.yaml:2:1: error: "
lab_egressd_config "$LAB_DIR/policy.yaml" queues='{first: 0, count: 2000}'
refused "a number out of bounds" 1 "egressd.yaml:[0-9]+:[0-9]+: error: 2000: out of range"
lab_egressd_config "$LAB_DIR/policy.yaml" failure=opn
sed -i 's/^gateway/gatway/' "$LAB_DIR/egressd.yaml"
refused "configuration with three errors" 3 "egressd.yaml: error: 'gateway' is missing"
lab_is 2 "$(grep -c "did you mean '\(gateway\|open\)'" "$LAB_DIR/start.out")" "configuration with three errors: what was meant"
printf 'version: 1\ninside: [10.0.0.0/8]\nrulez: []\n' >"$LAB_DIR/bad.yaml"
lab_egressd_config "$LAB_DIR/bad.yaml"
remedy() { # TEXT: the last line says what to do
	tail -n 1 "$LAB_DIR/start.out" | grep -q "cannot start: the policy has errors, told above: egressctl check $LAB_DIR/bad.yaml shows" &&
		ok "$1: and at the end what to do" || not_ok "$1: the end is: $(tail -n 1 "$LAB_DIR/start.out")"
}
refused "policy with an error" 2 "bad.yaml:3:1: error: rulez"
remedy "policy with an error"
two_errors >"$LAB_DIR/bad.yaml"
refused "policy with two errors" 3 "bad.yaml:5:[0-9]+: error: 5: bare number"
remedy "policy with two errors"
lab_is 1 "$(grep -c "bad.yaml:5:[0-9]*: error: .*not 'pear'" "$LAB_DIR/start.out")" "policy with two errors: the other one too"

# --- beside a running one --------------------------------------------------------------------------------------------
lab_egressd_start "$LAB_DIR/policy.yaml" && ok "all of it right: it starts" || { not_ok "does not start"; exit 1; }
lab_egressd_config "$LAB_DIR/policy.yaml" state_dir="$LAB_DIR/state2" runtime_dir="$LAB_DIR/run2"
refused "queue of another egressd" 1 "queue 0 is held by another process \(netlink port $(holder 0)\b"
lab_is 2 "$(tables | wc -l)" "the other's tables are there"
ctl status | grep -q enforcing && ok "the other goes on" || not_ok "the other does not answer"
lab_egressd_config "$LAB_DIR/policy.yaml"
files() { (cd "$LAB_DIR" && find state run -printf '%p %i %s\n' | sort); }
lab_still 10 2.5 files
before=$(files)
refused "the same configuration again" 1 "another egressd runs here, its control socket is $LAB_DIR/run/control.sock: stop it first"
lab_is 1 "$(wc -l <"$LAB_DIR/start.out")" "the same configuration again: one line"
lab_is "$before" "$(files)" "its files are as before"
ctl status | grep -q enforcing && ok "and it answers" || not_ok "it does not answer any more"
two_errors >"$LAB_DIR/policy.yaml"
ctl reload >"$LAB_DIR/reload.out" 2>&1 && not_ok "a bad policy is reloaded" || ok "a bad policy is not reloaded"
lab_is 1 "$(grep -c "policy.yaml:.*bare number" "$LAB_DIR/egressd.log")" "its errors are on the log once"
grep -q "policy not reloaded, the one in force stays: egressctl check $LAB_DIR/policy.yaml shows" "$LAB_DIR/egressd.log" &&
	ok "with what to do" || not_ok "no word of what to do"
ctl status | grep -q 'policy 1' && ok "the old one stays" || not_ok "the old one is gone: $(ctl status | head -n 1)"
good >"$LAB_DIR/policy.yaml"

identity_flush
back() { tables | grep -q egressd_keep; }
lab_wait 2 back && ok "rules flushed by somebody are back" || not_ok "rules flushed by somebody do not come back"
flushed() { grep -q "health: somebody removed or changed egressd's kernel rules" "$LAB_DIR/egressd.log"; }
lab_wait 3 flushed && ok "and it is told" || not_ok "and nobody is told"
engine=$(lab_child engine)
kill -STOP "$engine"
replaced() { [ "$(lab_child engine)" != "$engine" ] && [ ! -d "/proc/$engine" ]; }
lab_wait 20 replaced && ok "a hung engine is replaced" || not_ok "a hung engine stays"
lab_egressd_stop && ok "it ends when asked" || not_ok "it does not end when asked"
lab_done
