# shellcheck shell=bash
# identity.sh - do all that count bytes agree? Part of lab.sh, which asks whenever a test ends egressd: identity_watch before it starts,
# identity_begin when it judges, lease_identity when traffic is over. Per pair of a server's addresses with the outside, to the byte:
#
#   [I1] kernel   what left the gateway at its last hook = what had the mark of leases there + what had the mark of verdicts, and
#                 what had neither is the pair's unseen bytes
#   [I2] lease    a quota that stands: passed by it <= used <= quota, and of the pair's queued bytes the quota saw no more than there were
#   [I3] pair     bytes = left, but for those unseen; leased_bytes = left by lease (`why`), and the leased bytes of all pairs those of
#                 `status`; both count from the last start (identity_again)
#   [I4] account  what the quotas have left is out, as status says; and each rule that judges all of it: its sums are its pairs' bytes,
#                 what it has out is what status says
#   [I5] the end  when every lease has ended nothing is out, nothing of a lease is in the kernel, and I3, I4 hold still
#
# What the kernel counts here is asked of nobody of ours: a table of its own, by the two mark bits and by none. What someone else's
# `flush ruleset` takes is kept (identity_flush). A pair's counters are made with its first packet, from memory that is there without
# waiting (alloc_percpu, GFP_ATOMIC: nft_counter_clone() in net/netfilter/nft_counter.c); of thousands of pairs at once some first
# packets may find none, and are not counted here.

# Rules that judge only some of a pair's bytes, or "*": their sums are another test's.
: "${IDENTITY_PARTIAL:=*}"

identity_again=false	# egressd began anew since identity_watch, with the sums that it had
identity_watch() {
	rm -f "$LAB_DIR"/identity.kept.*
	identity_again=false
	echo '{}' >"$LAB_DIR/identity.before"
	identity_table
}

# Connections of a case before may knock on while nobody judges: what has no mark until now is not asked about.
identity_begin() {
	local before
	echo '{}' >"$LAB_DIR/identity.before"
	before=$(identity_kernel | jq -c 'map_values(.left - .leased - .judged)')
	echo "$before" >"$LAB_DIR/identity.before"
}

identity_table() {
	local chain set at k
	{
		echo 'table inet identity { }; delete table inet identity; table inet identity {'
		for set in left leased judged; do
			echo "set ${set}4 { type ipv4_addr . ipv4_addr; size 65536; flags dynamic; counter; }"
			echo "set ${set}6 { type ipv6_addr . ipv6_addr; size 65536; flags dynamic; counter; }"
		done
		for chain in 'left 0' 'leased -153 0x10000000' 'judged -153 0x20000000'; do
			read -r set at k <<<"$chain"
			[ -z "$k" ] || k="meta mark & 0x30000000 == $k"
			echo "chain $set { type filter hook postrouting priority $at
				ip saddr 10.20.0.0/24 ip saddr != 10.20.0.1 ip daddr != 10.0.0.0/8 $k update @${set}4 { ip saddr . ip daddr counter }
				ip6 saddr fd00:20::/64 ip6 saddr != fd00:20::1 ip6 daddr 2000::/3 $k update @${set}6 { ip6 saddr . ip6 daddr & ffff:ffff:ffff:ffff:: counter }
			}"
		done
		echo '}'
	} | in_ns gw nft -f -
}

# The whole ruleset, by somebody; what we know survives, but for what passes just then.
identity_flush() {
	identity_dump >"$LAB_DIR/identity.kept.$(find "$LAB_DIR" -name 'identity.kept.*' | wc -l)"
	in_ns gw nft flush ruleset
	identity_table
}

identity_dump() {
	local set
	for set in left4 left6 leased4 leased6 judged4 judged6; do in_ns gw nft -j list set inet identity $set || return; done
}

# {"SRC DST": {left, leased, judged}}
identity_kernel() (
	set -o pipefail
	{
		identity_dump || exit
		find "$LAB_DIR" -name 'identity.kept.*' -exec cat {} +
	} | jq -cs --slurpfile before "$LAB_DIR/identity.before" '
		[.[].nftables[].set // empty | (.name | rtrimstr("4") | rtrimstr("6")) as $set | .elem[]?.elem |
			{key: (.val.concat | join(" ")), value: {($set): .counter.bytes}}] |
		reduce .[] as $x ({}; .[$x.key] |= reduce ($x.value | to_entries[]) as $v
			(. // {left: 0, leased: 0, judged: 0}; .[$v.key] += $v.value)) |
		with_entries(.value.left -= ($before[0][.key] // 0) | select(.value.left > 0))'
)

# All that egressd says of the hosts and pairs of $1: {pairs: {"SRC DST": {bytes, leased, unseen}}, rules: {NAME: {sum, out}}, status}
identity_daemon() (
	set -o pipefail
	{
		# An answer has the 200 largest: of a host with very many pairs each is asked for.
		jq -r '[keys[] | split(" ")] | group_by(.[0])[] | if length < 150 then .[0][0] else .[] | join(" ") end' <<<"$1" |
			while read -r src dst; do ctl --json why "$src" ${dst:+"$dst"} || exit; done || exit
		ctl --json status
	} | jq -cs '
		([.[:-1][].pairs[] | select(.overflow | not)] | unique_by([.src, .dest, .class])) as $pairs |
		([.[:-1][].accounts[]] | unique_by([.rule, .subject, .dest])) as $accounts |
		{pairs: (reduce $pairs[] as $p ({}; .[$p.src + " " + ($p.dest | rtrimstr("/64"))] |= {bytes: (.bytes + $p.bytes),
			leased: (.leased + $p.leased_bytes), unseen: (.unseen + $p.unseen_bytes)})),
		rules: (reduce ($accounts[] | select(.rule != "identity")) as $a ({};
			.[$a.rule] |= {sum: (.sum + $a.limits[0].sum_bytes), out: (.out + $a.outstanding_bytes)})),
		status: .[-1].leases}'
)

# Of each lease that stands: {pair, quota, used, by}. Fails where one began or ended between the readings.
identity_quotas() (
	set -o pipefail
	{
		in_ns gw nft -j list quotas
		for name in lease4 lease6 service4 service6; do in_ns gw nft -j list map inet egressd $name; done
		for name in leased4 leased6 served4 served6; do in_ns gw nft -j list set inet egressd $name; done
		true	# without leases there are no such maps
	} 2>/dev/null | jq -cs '
		def ends: [.concat[] | if type == "object" then .prefix.addr else . end | tostring] | join(" ");
		[.[].nftables[]] | ([.[].quota // empty | {key: .name, value: {quota: .bytes, used}}] | from_entries) as $quota |
		([.[].set // empty | (.name | sub("leased"; "lease") | sub("served"; "service")) as $of | .elem[]?.elem |
			{key: ($of + (.val | ends)), value: .counter.bytes}] | from_entries) as $by |
		[.[].map // empty | .name as $of | .elem[]? | {pair: (.[0] | ends | split(" ")[0:2] | join(" ")), by: $by[$of + (.[0] | ends)]}
			+ ($quota[.[1]] // error("amid a change"))]'
)

# identity_faults ABOVE BELOW: what does not agree, a line each.
identity_faults() {
	local kernel quotas daemon
	for _ in 1 2 3 4 5; do quotas=$(identity_quotas 2>/dev/null) && break; done
	kernel=$(identity_kernel) && [ -n "$quotas" ] && daemon=$(identity_daemon "$kernel") || { echo "who counts does not say"; return; }
	jq -r <<<"$daemon" --slurpfile kernel <(echo "$kernel") --slurpfile quotas <(echo "$quotas") --argjson above "$1" --argjson below "$2" \
		--arg partial " $IDENTITY_PARTIAL " --argjson again "$identity_again" \
		--argjson closed "$(grep -q '^failure: closed' "$LAB_DIR/egressd.yaml" && echo true || echo false)" '
		def near($want): . <= $want + $above and . >= $want - $below;
		def by_lease($want): if $again then . <= $want else near($want) end;
		$kernel[0] as $kernel | $quotas[0] as $quotas | . as $said |
		([$kernel[].left] | add // 0) as $left | ([$kernel[].leased] | add // 0) as $leased |
		(select($left == 0 and ($partial | contains(" * ") | not)) | "nothing left"),	# a case is about something
		($kernel | to_entries[] | .value as $k | $said.pairs[.key] as $p |
			(if $closed then 0 else $p.unseen // 0 end) as $unseen |	# what was dropped unseen did not leave
			(if $below == 0 then $k.leased + $k.judged else $k.left end) as $want |
			(select($below == 0 and $k.left != $want + $unseen) | "[I1] \(.) \($p)"),
			(select(($p.bytes // 0 | near($want) | not) or ($p.leased // 0 | by_lease($k.leased) | not)) | "[I3] \(.) \($p)")),
		($quotas[] | $kernel[.pair] as $pair |
			select(.by > .used or .used > .quota or .by > $pair.leased + $above or .used - .by > $pair.judged + $above) | "[I2] \(.) \($pair)"),
		(.status.bytes | select(by_lease($leased) | not) | "[I3] status says \(.) by lease, it was \($leased)"),
		(.rules | to_entries[] | .key as $rule | select($partial | contains(" * ") or contains(" \($rule) ") | not) |
			(select(.value.sum | near($left) | not) | "[I4] rule \(.key): sum \(.value.sum), left \($left)"),
			(select(.value.out != $said.status.outstanding_bytes) |
				"[I4] rule \(.key): \(.value.out) out, status \($said.status.outstanding_bytes)")),
		(.status.outstanding_bytes | select(. < ([$quotas[] | .quota - .used] | add // 0) or . > ([$quotas[] | .quota - .by] | add // 0)) |
			"[I4] \(.) out, quotas \($quotas)")'
}

# Quotas and elements of leases in the kernel.
identity_left() {
	local m
	in_ns gw nft list quotas | grep -E 'quota l[0-9]'
	for m in lease4 lease6 service4 service6; do in_ns gw nft list map inet egressd $m; done 2>/dev/null | grep elements
	for m in leased4 leased6 served4 served6; do in_ns gw nft list set inet egressd $m; done 2>/dev/null | grep elements
}
identity_none_left() { [ -z "$(identity_left)" ]; }
identity_moves() { identity_kernel; ctl --json status | jq -c '[.leases.bytes, .leases.outstanding_bytes]'; }

# A rule more that says something of every lease, and stops nothing: that ends all.
identity_ended=0
identity_end() {
	local policy=$LAB_DIR/policy.yaml r=0
	cp "$policy" "$LAB_DIR/identity.policy"	# what is applied becomes the file
	sed '/^rules:/a\  - {name: identity, from: inside, to: outside, per: host, limit: {1h: '$identity_ended'TB}, action: alert}' \
		"$policy" >"$LAB_DIR/identity.yaml"
	ctl apply "$LAB_DIR/identity.yaml" >"$LAB_DIR/identity.applied" 2>&1 || { r=1; cat "$LAB_DIR/identity.applied"; }
	cp "$LAB_DIR/identity.policy" "$policy"
	return $r
}

identity_asked() { # ABOVE BELOW: as they stand, then as they end
	identity_faults "$1" "$2"
	[ -f "$LAB_DIR/policy.yaml" ] && ctl check "$LAB_DIR/policy.yaml" >/dev/null 2>&1 || return 0	# the test broke it
	identity_end || echo "[I5] no policy that ends all leases"
	lab_wait 3 identity_none_left
	identity_faults "$1" "$2" | sed 's/^/[I5] /'
	identity_left | sed 's/^/[I5] /'
	ctl --json status | jq -r '.leases | select(.now != 0 or .outstanding_bytes != 0) | "[I5] \(.)"'
	ctl debug check >"$LAB_DIR/identity.check" || cat "$LAB_DIR/identity.check"
}

# lease_identity TEXT [ABOVE [BELOW]]: traffic is over. ABOVE, BELOW: egressd may count so many bytes more or fewer than left: where an
# engine was killed, or others took away what counts. Ends all leases.
lease_identity() {
	local faults
	identity_ended=$((identity_ended + 1))	# another each time
	identity_none_left || lab_settled 30 identity_moves || not_ok "$1: it goes on and on"	# else there is nothing to settle
	faults=$(identity_asked "${2:-0}" "${3:-0}" 2>&1)
	[ -z "$faults" ] && ok "$1: kernel, pairs and accounts agree, and nothing is out" || not_ok "$1: $faults"
}
