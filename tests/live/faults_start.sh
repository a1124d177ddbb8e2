#!/bin/bash
# faults_start.sh - a start that cannot succeed: one clear line that says what to do, exit code 1, no restart storm, nothing left
# in the kernel. FAULTS rows 7, 19 and "bad input".
set -u
cd "$(dirname "$0")/../.." || exit 2
# shellcheck source=tests/live/lab.sh
. tests/live/lab.sh
lab_need jq setpriv
lab_up
cat >"$LAB_DIR/policy.yaml" <<'END'
version: 1
inside: [10.0.0.0/8]
rules:
  - {name: pair, from: inside, to: outside, per: pair, limit: {1h: 20MB}, action: alert}
END

# refused TEXT PATTERN [COMMAND...]: egressd on the gateway ends by itself with 1; its error lines are one, and it says so.
refused() {
	local text=$1 pattern=$2 code=0 errors left
	shift 2
	in_ns gw timeout 20 "$@" "$EGRESSD_BUILD/egressd" -c "$LAB_DIR/egressd.yaml" >"$LAB_DIR/start.log" 2>&1 || code=$?
	lab_is 1 "$code" "$text: exit code"
	grep -qE -- "$pattern" "$LAB_DIR/start.log" && ok "$text: says why" || not_ok "$text: no word of '$pattern'"
	errors=$(grep -cE '^<[0-3]>|^/.*: ' "$LAB_DIR/start.log")
	lab_is 1 "$errors" "$text: in one line"
	left=$(in_ns gw nft list tables | grep egressd)
	lab_is "" "$left" "$text: nothing is left in the kernel"
	left=$(ip netns pids "$LAB-gw" | while read -r p; do [ "$(cat "/proc/$p/comm")" != egressd ] || echo "$p"; done)
	lab_is "" "$left" "$text: no process is left"
	[ "$lab_failed" -eq 0 ] || sed 's/^/# /' "$LAB_DIR/start.log"
}

# --- queue -----------------------------------------------------------------------------------------------------------
lab_egressd_config "$LAB_DIR/policy.yaml"
lab_start holder gw "$EGRESSD_BUILD/tests/live/nfq_tool" run 1 60
holder() { in_ns gw awk '$1 == 1 { print $2 }' /proc/net/netfilter/nfnetlink_queue; }
held() { [ -n "$(holder)" ]; }
lab_wait 5 held
refused "queue of another process" "queue 1 is held by another process \(netlink port $(holder)"
lab_stop holder

# --- folders ---------------------------------------------------------------------------------------------------------
touch "$LAB_DIR/file"
lab_egressd_config "$LAB_DIR/policy.yaml" state_dir="$LAB_DIR/file/state"
refused "state folder below a file" "state folder $LAB_DIR/file/state: Not a directory"
lab_egressd_config "$LAB_DIR/policy.yaml" state_dir=/proc/egressd
refused "state folder that nobody can make" "state folder /proc/egressd: "
lab_egressd_config "$LAB_DIR/policy.yaml" runtime_dir="$LAB_DIR/file/run"
refused "runtime folder below a file" "runtime folder $LAB_DIR/file/run: Not a directory"
lab_egressd_config "$LAB_DIR/policy.yaml"
mkdir "$LAB_DIR/ro"
lab_egressd_config "$LAB_DIR/policy.yaml" state_dir="$LAB_DIR/ro"
refused "state folder read-only" "state folder $LAB_DIR/ro: Read-only file system" \
	unshare -m sh -c "mount -t tmpfs -o ro none $LAB_DIR/ro && exec \"\$@\"" sh

# --- permission ------------------------------------------------------------------------------------------------------
lab_egressd_config "$LAB_DIR/policy.yaml"
chmod 644 "$LAB_DIR/egressd.yaml"
chown -R 65534:65534 "$LAB_DIR/state" "$LAB_DIR/run"
refused "no capability" "run as root or with CAP_NET_ADMIN" setpriv --reuid 65534 --regid 65534 --clear-groups \
	--inh-caps=-all --bounding-set=-all
lab_egressd_config "$LAB_DIR/policy.yaml"
chown -R 0:0 "$LAB_DIR/state" "$LAB_DIR/run"
chmod 600 "$LAB_DIR/egressd.yaml"
refused "configuration not readable" "egressd.yaml: Permission denied" setpriv --reuid 65534 --regid 65534 --clear-groups

# --- policy and configuration ----------------------------------------------------------------------------------------
lab_egressd_config "$LAB_DIR/none.yaml"
refused "no policy" "policy $LAB_DIR/none.yaml: No such file"
echo 'gateway: [' >"$LAB_DIR/egressd.yaml"
refused "configuration that is not YAML" "egressd.yaml:2:1: error: "
lab_egressd_config "$LAB_DIR/policy.yaml" queues='{first: 0, count: 2000}'
refused "a number out of bounds" "egressd.yaml:[0-9]+:[0-9]+: error: 2000: out of range"
printf 'version: 1\ninside: [10.0.0.0/8]\nrulez: []\n' >"$LAB_DIR/bad.yaml"
lab_egressd_config "$LAB_DIR/bad.yaml"
refused "policy with an error" "bad.yaml:3:1: error: rulez"
printf 'version: 1\ninside: [10.0.0.0/8]\nrulez: []\nmood: enforce\n' >"$LAB_DIR/bad.yaml"
code=0
in_ns gw timeout 20 "$EGRESSD_BUILD/egressd" -c "$LAB_DIR/egressd.yaml" >"$LAB_DIR/start.log" 2>&1 || code=$?
lab_is 1 $code "policy with two errors: exit code"
lab_is "3:1 4:1" "$(sed -nE 's/.*bad.yaml:([0-9]+:[0-9]+): error.*/\1/p' "$LAB_DIR/start.log" | paste -sd' ')" \
	"policy with two errors: each is told, once"

# And with all of it right it starts.
lab_egressd_start "$LAB_DIR/policy.yaml" && ok "starts" || not_ok "does not start"
lab_done
