#!/bin/bash
# What `egressctl replay` says about small captures: openers, contracts, order of alerts, exit codes. Needs no root.
set -uo pipefail
: "${EGRESSD_SRC:=$(cd "$(dirname "$0")/../.." && pwd)}"
: "${EGRESSD_BUILD:=$EGRESSD_SRC/build}"
ctl=$EGRESSD_BUILD/egressctl
for c in text2pcap jq; do
	command -v $c >/dev/null || { echo "$c is missing (sudo tests/need test)"; exit 77; }
done
dir=$(mktemp -d "${TMPDIR:-/tmp}/egressd-replay.XXXXXX") || exit 2
trap 'rm -rf "$dir"' EXIT
failed=0

is() { # WANT GOT TEXT
	if [ "$1" = "$2" ]; then
		echo "ok - $3"
	else
		echo "not ok - $3: wanted $1, got $2"
		failed=1
	fi
}

address() {
	local byte
	IFS=. read -r -a byte <<<"$1"
	printf '%02x ' "${byte[@]}"
}
be16() { printf '%02x %02x ' $(($1 >> 8)) $(($1 & 255)); }

# packet SECOND SRC DST LENGTH SPORT DPORT FLAGS(hex): a TCP packet of which the first 40 bytes were captured.
packet() {
	printf '2026-11-02 %02d:%02d:%02d.000000\n0000 45 00 ' $(($1 / 3600)) $(($1 / 60 % 60)) $(($1 % 60))
	be16 "$4"; printf '00 01 40 00 40 06 00 00 '; address "$2"; address "$3"; be16 "$5"; be16 "$6"
	printf '00 00 00 01 00 00 00 01 50 %s 10 00 00 00 00 00\n' "$7"
}

capture() { text2pcap -q -l 101 -t '%Y-%m-%d %H:%M:%S.%f' - "$dir/$1.pcap" 2>"$dir/err" || cat "$dir/err"; }
replay() { "$ctl" replay --policy "$dir/policy.yaml" --json "$dir/$1.pcap" 2>"$dir/err"; }

cat >"$dir/policy.yaml" <<'YAML'
version: 1
mode: observe
inside: [10.0.0.0/8, "fd00::/8"]
hosts:
  www01: {addresses: [10.0.0.80]}
exits:
  vpn: {hosts: [10.250.0.0/16]}
rules:
  - {name: leak, from: inside, to: outside, per: pair, limit: {1m: 100kB}, action: block, hold: 10s, severity: high}
  - {name: total, from: inside, to: outside, per: host, limit: {1h: 150kB}, action: alert, severity: low}
contracts:
  - {name: www, from: www01, to: outside, ports: [tcp/443], opened_by: outside, budget: {per: total, 24h: 1MB}, until: 2026-11-03, owner: web}
YAML

# Inside to outside counts, to an exit too; the rest is skipped and said.
{
	packet 0 10.0.0.5 203.0.113.9 1000 40000 443 02
	packet 1 203.0.113.9 10.0.0.5 2000 443 40000 12
	packet 2 10.0.0.5 10.0.0.6 3000 40000 443 10
	packet 3 10.0.0.5 10.250.0.7 4000 40000 443 10
	packet 4 10.0.0.5 203.0.113.9 5000 40000 443 10
	packet 5 192.0.2.1 203.0.113.9 6000 40000 443 10
} | capture counts
replay counts >"$dir/out"
is '10.0.0.5 10.250.0.7 4000 1,10.0.0.5 203.0.113.9 6000 2' \
	"$(jq -r 'select(.type == "pair") | "\(.src) \(.dst) \(.bytes) \(.packets)"' "$dir/out" | paste -sd,)" "pairs, sorted"
is 'source-not-inside 2,stays-inside 1' \
	"$(jq -r 'select(.type == "skipped") | "\(.reason) \(.packets)"' "$dir/out" | paste -sd,)" "what is not egress"

# A pull from the web server: its contract pays when the outside's SYN or the answer to it was captured, and only then.
for opening in syn synack none forged; do
	{
		[ $opening != syn ] || packet 0 198.51.100.7 10.0.0.80 60 51000 443 02
		[ $opening != synack ] || packet 0 10.0.0.80 198.51.100.7 60 443 51000 12
		[ $opening != forged ] || { packet 0 10.0.0.80 198.51.100.7 60 443 51000 02; packet 0 10.0.0.80 198.51.100.7 60 443 51000 12; }
		for i in 1 2 3 4; do packet $i 10.0.0.80 198.51.100.7 50000 443 51000 10; done
	} | capture pull
	replay pull >"$dir/out"
	case $opening in
	syn | synack) want='' ;;
	*) want='leak would_block,total alert' ;;
	esac
	is "$want" "$(jq -r 'select(.type == "alert") | "\(.rule) \(.verdict)"' "$dir/out" | paste -sd,)" "pull, opening: $opening"
done

# In order of time; a finding closes after `hold` of silence, and what comes later is a new one.
{
	packet 10 10.0.0.6 203.0.113.9 60000 40000 22 10
	packet 11 10.0.0.5 203.0.113.9 60000 40000 22 10
	packet 12 10.0.0.5 203.0.113.9 60000 40000 22 10
	packet 13 10.0.0.6 203.0.113.9 60000 40000 22 10
	packet 2000 10.0.0.9 203.0.113.9 40 40000 22 10
	packet 2001 10.0.0.5 203.0.113.10 60000 40000 22 10
	packet 2002 10.0.0.5 203.0.113.10 60000 40000 22 10
} | capture order
replay order >"$dir/out"
is '2026-11-02T00:00:12.000000Z leak 10.0.0.5 203.0.113.9,2026-11-02T00:00:13.000000Z leak 10.0.0.6 203.0.113.9,2026-11-02T00:33:21.000000Z total 10.0.0.5 203.0.113.10,2026-11-02T00:33:22.000000Z leak 10.0.0.5 203.0.113.10' \
	"$(jq -r 'select(.type == "alert") | "\(.time) \(.rule) \(.subject) \(.dst)"' "$dir/out" | paste -sd,)" "alerts in order"
is '120000 100000 1m' "$(jq -r 'select(.type == "alert") | "\(.observed_bytes) \(.limit_bytes) \(.window)"' "$dir/out" | head -n 1)" \
	"an alert's figures"

# A packet that is refused at the limit has not passed: an alert's figure stays below, as the daemon's does. The table names it.
cp "$dir/policy.yaml" "$dir/observe.yaml"
sed -i 's/^mode: observe/mode: enforce/' "$dir/policy.yaml"
replay order >"$dir/out"
is '60000 100000 block' "$(jq -r 'select(.type == "alert") | "\(.observed_bytes) \(.limit_bytes) \(.verdict)"' "$dir/out" | head -n 1)" \
	"blocked: what has passed"
"$ctl" replay --policy "$dir/policy.yaml" "$dir/order.pcap" >"$dir/out" 2>"$dir/err"
is 'INSIDE OUTSIDE BYTES SIZE REFUSED PACKETS,10.0.0.5 203.0.113.9 120000 120.0 kB 60000 2' \
	"$(sed -n '1p;/^10.0.0.5 *203.0.113.9/p' "$dir/out" | tr -s ' ' | sed 's/ $//' | paste -sd,)" "the table has the refused bytes"
mv "$dir/observe.yaml" "$dir/policy.yaml"

# A contract that had ended when the capture was taken is an error of the policy, with its place; today's date does not matter.
packet 90000 10.0.0.5 203.0.113.9 60 40000 22 10 | sed 's/^2026-11-02 25/2026-11-09 01/' | capture late
replay late >"$dir/out"
is 1 $? "a contract that ended before the capture: exit code"
is 1 "$(grep -c 'policy.yaml:[0-9]*:[0-9]*: error' "$dir/err")" "a contract that ended before the capture: named"

# A role of egressd.yaml is no device: the same policy, with and without the configuration.
sed 's|vpn: {hosts: .*|&\n  box: {interfaces: [maintenance-of-site-7]}|' "$dir/policy.yaml" >"$dir/role.yaml"
printf 'gateway: g\npolicy: /p\ninterfaces: {outside: [wan], maintenance-of-site-7: [vpn]}\n' >"$dir/egressd.yaml"
replay order >"$dir/out"
"$ctl" replay --policy "$dir/role.yaml" -c "$dir/egressd.yaml" --json "$dir/order.pcap" >"$dir/with" 2>"$dir/err"
is 0 $? "-c: roles are known"
cmp -s "$dir/out" "$dir/with"
is 0 $? "-c: and change no figure"
"$ctl" replay --policy "$dir/role.yaml" -c "$dir/none.yaml" "$dir/order.pcap" >/dev/null 2>"$dir/err"
is 1 $? "-c: no such configuration"
is 1 "$(grep -c 'none.yaml: No such file' "$dir/err")" "-c: named"

# What is broken is said, and what could be read is counted.
head -c -20 "$dir/order.pcap" >"$dir/torn.pcap"
replay torn >"$dir/out"
is 1 $? "torn capture: exit code"
is 6 "$(jq -s '[.[] | select(.type == "pair") | .packets] | add' "$dir/out")" "torn capture: counted up to there"
is 1 "$(grep -c 'counted up to there' "$dir/err")" "torn capture: said"
"$ctl" replay --policy "$dir/policy.yaml" --json - <"$dir/order.pcap" >"$dir/stream"
replay order >"$dir/out"
cmp -s "$dir/out" "$dir/stream"
is 0 $? "a stream gives what the file gives"
"$ctl" replay --policy "$dir/none.yaml" "$dir/order.pcap" >/dev/null 2>&1
is 1 $? "no policy file"
"$ctl" replay --policy "$dir/policy.yaml" "$dir/policy.yaml" >/dev/null 2>&1
is 1 $? "not a capture"
"$ctl" replay "$dir/order.pcap" >/dev/null 2>&1
is 2 $? "usage: no policy"
"$ctl" replay --policy "$dir/policy.yaml" >/dev/null 2>&1
is 2 $? "usage: no capture"
"$ctl" replay --policy "$dir/policy.yaml" "$dir/order.pcap" >"$dir/out" 2>&1
is 1 "$(grep -c '10.0.0.5 .*203.0.113.9 .*120000 .* 2$' "$dir/out")" "table for people"
exit $failed
