#!/bin/bash
# Bytes and packets of each pair as `egressctl replay` counts them equal what tshark prints of the same capture: IPv4 total length,
# IPv6 40 + payload length (a jumbogram: 40 + the option's), by the outer addresses, nothing reassembled. Random captures of
# every link type and file format. ORACLE_SEED and ORACLE_ROUNDS choose others. Needs no root.
set -uo pipefail
: "${EGRESSD_SRC:=$(cd "$(dirname "$0")/../.." && pwd)}"
: "${EGRESSD_BUILD:=$EGRESSD_SRC/build}"
gen=$EGRESSD_BUILD/tests/live/gen_capture
ctl=$EGRESSD_BUILD/egressctl
seed=${ORACLE_SEED:-1}
rounds=${ORACLE_ROUNDS:-1}
for c in tshark jq; do
	command -v $c >/dev/null || { echo "$c is missing (sudo tests/need test)"; exit 77; }
done
dir=$(mktemp -d "${TMPDIR:-/tmp}/egressd-oracle.XXXXXX") || exit 2
trap 'rm -rf "$dir"' EXIT
failed=0

# Classes by port and opener, contracts, a budget that runs out, blocks: none of it may change what was counted.
cat >"$dir/policy.yaml" <<'YAML'
version: 1
mode: enforce
inside: [10.0.0.0/8, "fd00::/8"]
hosts:
  file01: {addresses: [10.1.0.1, "fd00:20::1"]}
rules:
  - {name: pair, from: inside, to: outside, per: pair, limit: {1m: 200kB, 1h: 1MB}, action: block, hold: 5s, severity: high}
  - {name: host, from: inside, to: outside, per: host, limit: {1h: 20MB}, action: alert}
contracts:
  - {name: web, from: inside, to: outside, ports: [tcp/443], opened_by: outside, budget: {per: pair, 24h: 1MB}, until: never, owner: web}
  - {name: shell, from: file01, to: outside, ports: [tcp/22], budget: {per: total, 24h: 1MB}, until: never, owner: ops}
YAML

# src, dst, bytes -> sums by pair; IPv6 addresses are written out, outside ones cut to their /64.
sums() {
	awk -F'\t' '
	function hextets(a, n,    half, left, right, l, r, i, out) {
		sub(/\/.*/, "", a)
		if (index(a, ".")) return a
		split(a, half, "::")
		l = split(half[1], left, ":"); r = split(half[2], right, ":")
		for (i = 1; i <= n; i++)
			out = out sprintf("%04s:", i <= l ? left[i] : i > 8 - r ? right[i - 8 + r] : "0")
		gsub(/ /, "0", out)
		return out
	}
	{ k = hextets($1, 8) " " hextets($2, 4); bytes[k] += $3; packets[k] += $4 }
	END { for (k in bytes) printf "%s %.0f %d\n", k, bytes[k], packets[k] }' | sort
}

# Which of ip and ipv6 comes first in frame.protocols is the outer one; its fields are the first occurrence.
tshark_pairs() {
	tshark -n -r "$1" -o ip.defragment:FALSE -o ipv6.defragment:FALSE -T fields -E occurrence=f -E separator=/t \
		-e frame.protocols -e ip.src -e ip.dst -e ip.len -e ipv6.src -e ipv6.dst -e ipv6.plen -e ipv6.opt.jumbo \
		2>"$dir/tshark.err" |
		awk -F'\t' -v OFS='\t' '
		function inside(a) { return a ~ /^10\./ || a ~ /^fd[0-9a-f][0-9a-f]:/ }
		{
			four = 0; six = 0
			n = split($1, layer, ":")
			for (i = 1; i <= n && !four && !six; i++) { four = layer[i] == "ip"; six = layer[i] == "ipv6" }
			# An IPv6 packet under the type of IPv4 is an IPv6 packet.
			if (four && layer[i] == "ipv6" && $2 == "") { four = 0; six = 1 }
			if (four && $3 != "" && inside($2) && !inside($3)) print $2, $3, $4, 1
			if (six && $6 != "" && inside($5) && !inside($6))
				print $5, $6, 40 + ($7 == 0 && $8 != "" ? $8 : $7), 1
		}' | sums
}

check() { # LINK FORMAT SEED PACKETS
	local file=$dir/$1.pcap total
	"$gen" "$3" "$1" "$2" "$4" "$file" || { echo "not ok - $1 $2: no capture"; failed=1; return; }
	tshark_pairs "$file" >"$dir/want"
	if ! "$ctl" replay --policy "$dir/policy.yaml" --json "$file" >"$dir/lines" 2>"$dir/err"; then
		echo "not ok - $1 $2 seed $3: $(head -n 3 "$dir/err")"
		failed=1
		return
	fi
	jq -r 'select(.type == "pair") | [.src, .dst, .bytes, .packets] | @tsv' "$dir/lines" | sums >"$dir/got"
	total=$(jq -s '[.[] | select(.type != "alert") | .packets] | add' "$dir/lines")
	if ! cmp -s "$dir/want" "$dir/got"; then
		echo "not ok - $1 $2 seed $3: tshark (<) and replay (>) differ"
		diff "$dir/want" "$dir/got" | head -n 10
		failed=1
	elif [ "$total" != "$4" ]; then
		echo "not ok - $1 $2 seed $3: $total packets in the report, $4 in the capture"
		failed=1
	elif [ "$(wc -l <"$dir/want")" -lt 20 ]; then
		echo "not ok - $1 $2 seed $3: only $(wc -l <"$dir/want") pairs: the capture says nothing"
		failed=1
	else
		echo "ok - $1 $2 seed $3: $(wc -l <"$dir/got") pairs, $(awk '{ b += $3; p += $4 } END { printf "%d packets, %.0f bytes", p, b }' "$dir/got")"
	fi
}

for ((i = 0; i < rounds; i++)); do
	for link in ethernet raw sll sll2 null loop; do
		check $link usec $((seed + i)) 3000
	done
	for format in nsec swapped pcapng; do
		check ethernet $format $((seed + i + 1000)) 3000
	done
done
exit $failed
