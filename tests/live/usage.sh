#!/bin/bash
# What the two programs say to whom uses them wrongly, or asks how: without a daemon, exit code 2, options by the names they were
# typed with. Needs no root.
set -uo pipefail
: "${EGRESSD_SRC:=$(cd "$(dirname "$0")/../.." && pwd)}"
: "${EGRESSD_BUILD:=$EGRESSD_SRC/build}"
command -v jq >/dev/null || { echo "jq is missing (sudo tests/need test)"; exit 77; }
dir=$(mktemp -d "${TMPDIR:-/tmp}/egressd-usage.XXXXXX") || exit 2
trap 'rm -rf "$dir"' EXIT
failed=0

# says CODE STREAM PATTERN PROGRAM ARGUMENT...: STREAM out or err has a line like PATTERN, the other one has none at all.
says() {
	local want=$1 stream=$2 pattern=$3 got=0 other=out
	shift 3
	[ "$stream" = err ] || other=err
	"$EGRESSD_BUILD/$1" "${@:2}" >"$dir/out" 2>"$dir/err" || got=$?
	if [ "$got" = "$want" ] && grep -qE -- "$pattern" "$dir/$stream" && [ ! -s "$dir/$other" ]; then
		echo "ok - $*"
	else
		echo "not ok - $*: wanted $want and '$pattern' on $stream, got $got, $(cat "$dir/out" "$dir/err")"
		failed=1
	fi
}

long=$(printf 'y%.0s' {1..120})
version=$(sed -n 's/^VERSION := //p' "$EGRESSD_SRC/Makefile")
says 0 out '^  why HOST \[DEST\]$' egressctl --help
says 0 out "^egressctl $version\$" egressctl --version
says 0 out '^usage: egressctl block HOST' egressctl block --help
says 0 out '^usage: egressctl replay' egressctl replay --help
says 0 out '^usage: egressd ' egressd --help
says 0 out "^egressd $version\$" egressd --version
says 2 err 'VERB is missing' egressctl
says 2 err 'unknown option --jsn' egressctl --jsn status
says 2 err '^egressctl: why: HOST is missing$' egressctl why
says 2 err '^egressctl: allow: DEST is missing$' egressctl allow a --budget 1GB --for 1h --reason x
says 2 err '^egressctl: block: --reason TEXT is missing$' egressctl block a --for 1h
says 2 err '^egressctl: --for: not an option of status$' egressctl status --for 1h
says 2 err '^egressctl: status: one argument too many: x$' egressctl status x
says 2 err '^egressctl: why: HOST is empty$' egressctl why ''
says 2 err '^egressctl: why: DEST is empty$' egressctl why a ''
says 2 err '^egressctl: why: HOST is too long$' egressctl why "$long$long"
says 2 err '^egressctl: --budget 0B: 1B to 1024TiB is expected$' egressctl unblock a --budget 0B --reason x
says 2 err '^egressctl: --for 0s: 1s to 366d is expected$' egressctl block a --for 0s --reason x
says 2 err '^egressctl: --for 400d: 0s to 366d is expected$' egressctl observe --for 400d --reason x
says 2 err '^egressctl: --reason: 120 bytes; at most 119' egressctl observe --for 1h --reason "$long"
says 2 err '^egressctl: --confirm 2d: a duration from 1s to 24h' egressctl apply "$dir/policy.yaml" --confirm 2d
says 2 err '^egressctl: explain xyz: the id of a finding is expected' egressctl explain xyz
says 2 err '^egressctl: replay: --policy POLICY is missing$' egressctl replay
says 2 err '^egressctl: replay: PCAP is missing$' egressctl replay --policy "$dir/policy.yaml"
says 1 err 'nobody listens at /nowhere' egressctl --socket /nowhere explain 1f0a5c3e00000007-2

printf 'version: 1\ninside: [10.0.0.0/8]\nrulez: []\n' >"$dir/bad.yaml"
says 1 out '"message": "rulez' egressctl --json apply "$dir/bad.yaml"
if [ "$(jq -r '.[0].line' "$dir/out")" = 3 ]; then echo "ok - errors of apply are JSON"; else echo "not ok - apply: $(cat "$dir/out")"; failed=1; fi

# Of what cannot be checked at all, too, programs get a list.
whole() { # FILE ARGUMENT...: one error, of the whole FILE
	local file=$1 got=0
	shift
	"$EGRESSD_BUILD/egressctl" "$@" >"$dir/out" 2>"$dir/err" || got=$?
	if [ "$got" = 1 ] && [ "$(jq -r 'length, .[0].file, .[0].line, .[0].severity, (.[0].message | length > 0)' "$dir/out" | tr '\n' ' ')" = \
		"1 $file 0 error true " ]; then
		echo "ok - $*: a list"
	else
		echo "not ok - $*: $got, $(cat "$dir/out" "$dir/err")"
		failed=1
	fi
}
whole "$dir/none.yaml" check --format json "$dir/none.yaml"
whole "$dir/none.yaml" --json check "$dir/none.yaml"
whole "$dir/none.yaml" --json apply "$dir/none.yaml"
head -c 1100000 /dev/zero | tr '\0' '#' >"$dir/large.yaml"
whole "$dir/large.yaml" check --format json "$dir/large.yaml"
echo 'gateway: [' >"$dir/broken.yaml"
whole "$dir/broken.yaml" check -c "$dir/broken.yaml" --format json "$dir/bad.yaml"
grep -q 'broken.yaml:2:1: error' "$dir/err" && echo "ok - and its errors" || { echo "not ok - $(cat "$dir/err")"; failed=1; }
whole "$dir/none.yaml" check -c "$dir/none.yaml" --format json "$dir/bad.yaml"
says 1 out "^::error file=$dir/none.yaml::No such file" egressctl check --format github "$dir/none.yaml"
says 1 err "^egressctl: $dir/none.yaml: No such file" egressctl check "$dir/none.yaml"
says 1 err "^egressctl: $dir/large.yaml: larger than 1 MiB$" egressctl check "$dir/large.yaml"

# Sizes and times as they were understood.
cat >"$dir/units.yaml" <<'END'
version: 1
mode: enforce
inside: [10.0.0.0/8, "fd00::/8"]
groups:
  web: {hosts: [10.20.0.0/24, "fd00:20::/64"]}
rules:
  - {name: leak, from: web, to: outside, per: pair, limit: {1m: 200MB, 1h: 1.5GiB}, action: block, hold: 30m, severity: high}
  - {name: sum, from: web, to: outside, per: group, limit: {24h: 1TB}, action: block, mode: observe, hold: 1d}
contracts:
  - {name: backup, from: web, to: 198.51.100.0/24, ports: [tcp/873], budget: {per: total, 24h: 300GB}, until: 2099-12-31, owner: storage}
END
says 0 out '^  rule leak: per pair, limit \{60s: 200000000B, 3600s: 1610612736B\}, block, hold 1800s$' egressctl check "$dir/units.yaml"
says 0 out '^  rule sum: per group web, limit \{86400s: 1000000000000B\}, block \(observed only\), hold 86400s$' egressctl check "$dir/units.yaml"
says 0 out '^  contract backup: per total, budget \{86400s: 300000000000B\}, until 2100-01-01T00:00:00Z$' egressctl check "$dir/units.yaml"
says 0 out '"mode": "enforce"' egressctl --json check "$dir/units.yaml"
got=$(jq -c '[.rules[] | [.name, .enforced, .hold_s, (.limit[] | .window_s, .bytes)]],
	[.contracts[] | [.name, .until, (.budget[] | .window_s, .bytes)]], .decisions.max_budget_bytes' "$dir/out" | tr '\n' ' ')
want='[["leak",true,1800,60,200000000,3600,1610612736],["sum",false,86400,86400,1000000000000]] '
want+='[["backup","2100-01-01T00:00:00Z",86400,300000000000]] 10000000000 '
if [ "$got" = "$want" ]; then echo "ok - check --json: bytes and seconds"; else echo "not ok - check --json: $got"; failed=1; fi
says 0 out '^\[\]$' egressctl check --format json "$dir/units.yaml"

# A policy without any rule is no error, and not passed over either.
noted() { # WANT PATTERN ARGUMENT...: exit code 0 or 1, and so many notes
	local want=$1 pattern=$2
	shift 2
	"$EGRESSD_BUILD/egressctl" "$@" >"$dir/out" 2>"$dir/err"
	if [ "$(grep -cE -- "$pattern" "$dir/err")" = "$want" ]; then echo "ok - $*: $want notes"; else
		echo "not ok - $*: wanted $want times '$pattern', got $(cat "$dir/err")"
		failed=1
	fi
}
printf 'version: 1\nmode: enforce\ninside: [10.0.0.0/8]\n' >"$dir/norule.yaml"
none="^egressctl: note: $dir/norule.yaml: no rule: what leaves is counted, but has no limit, and .mode: enforce. nothing to enforce$"
noted 1 "$none" check "$dir/norule.yaml"
noted 1 "$none" --json check "$dir/norule.yaml"
noted 1 "$none" --socket /nowhere apply "$dir/norule.yaml"
noted 0 'no rule' check "$dir/units.yaml"

# egressd -n reads what a start would read.
config() { # POLICY [PASSWORD_FILE]
	printf 'gateway: gw1\npolicy: %s\ninterfaces: {outside: [lo, absent0]}\n' "$1"
	[ -z "${2:-}" ] || printf 'redis: {socket: /run/redis.sock, password_file: %s}\n' "$2"
}
printf 'version: 1\ninside: [10.0.0.0/8]\nrules: []\n' >"$dir/policy.yaml"
checks() { # CODE PATTERN TEXT: of what config() has written
	local got=0
	"$EGRESSD_BUILD/egressd" -n -c "$dir/egressd.yaml" >"$dir/out" 2>"$dir/err" || got=$?
	if [ "$got" = "$1" ] && grep -qE -- "$2" "$dir/err" && grep -q '^gateway: "gw1"' "$dir/out"; then
		echo "ok - egressd -n: $3"
	else
		echo "not ok - egressd -n: $3: wanted $1 and '$2', got $got, $(cat "$dir/err")"
		failed=1
	fi
}
echo secret >"$dir/password"
config "$dir/policy.yaml" "$dir/password" >"$dir/egressd.yaml"
checks 0 '^note: outside: no device absent0 now$' "all there, but a device, which may come"
printf 'version: 1\ninside: [10.0.0.0/8]\nexits: {vpn: {interfaces: [maimt]}}\n' >"$dir/exit.yaml"
config "$dir/exit.yaml" | sed 's/^interfaces:.*/interfaces: {outside: [lo], maint: [lo]}/' >"$dir/egressd.yaml"
checks 0 "^note: exit vpn: maimt is neither a role of egressd.yaml nor a device now; did you mean 'maint'\?\$" "a role misspelt in the policy"
config "$dir/nowhere.yaml" >"$dir/egressd.yaml"
checks 1 "^policy $dir/nowhere.yaml: No such file" "no policy"
config "$dir/bad.yaml" >"$dir/egressd.yaml"
checks 1 "^$dir/bad.yaml:3:1: error: rulez" "a policy with errors"
config "$dir/policy.yaml" "$dir/nowhere" >"$dir/egressd.yaml"
checks 1 "^redis.password_file $dir/nowhere: No such file" "no password file"
config "$dir/large.yaml" >"$dir/egressd.yaml"
checks 1 "^policy $dir/large.yaml: larger than 1 MiB$" "a policy that is too large"
says 1 err "^$dir/large.yaml: larger than 1 MiB$" egressd -n -c "$dir/large.yaml"
exit $failed
