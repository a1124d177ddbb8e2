#!/bin/bash
# lease_model.sh - lease.pml, every reachable state: what holds, and that each rule left out is found to be missed.
#   MODEL_MORE=1: larger models besides (minutes; MODEL_MB=12000)   MODEL_MB (4000): memory   MODEL_DEPTH (20000): longest path
set -u
cd "$(dirname "$0")/../.." || exit 2
command -v spin >/dev/null || { echo "spin is missing (sudo tests/need test)"; exit 77; }
dir=$(mktemp -d) || exit 2
trap 'rm -rf "$dir"' EXIT
model=$PWD/tests/torture/lease.pml
failed=0

search() { # DEFINE...: spin's verdict in $dir/out. A search cut short by memory or depth says "not completed".
	(cd "$dir" && spin -a "$@" "$model" >out 2>&1 && gcc -O2 -w -DSAFETY -DCOLLAPSE -DMEMLIM="${MODEL_MB:-4000}" -o pan pan.c &&
		./pan -m"${MODEL_DEPTH:-20000}" >out 2>&1)
}
states() { sed -n 's/^ *\([0-9.e+]*\) states, stored.*/\1/p' "$dir/out"; }
holds() { # TEXT DEFINE...
	local text=$1
	shift
	search "$@"
	if grep -q 'errors: 0$' "$dir/out" && ! grep -qE 'not completed|too small|reached -DMEMLIM' "$dir/out"; then
		echo "ok - $text: no state breaks it, of $(states)"
	else
		failed=1
		echo "not ok - $text: $(grep -m 1 -E '^pan:1|too small|MEMLIM|not completed|rror' "$dir/out")"
	fi
}
finds() { # RULE DEFINE...
	local rule=$1
	shift
	search "-D$rule" "$@"
	if grep -q '^pan:1: assertion violated' "$dir/out"; then
		echo "ok - $rule is found: $(sed -n 's/^pan:1: assertion violated \(.*\) (at.*/\1/p' "$dir/out") does not hold"
	else
		failed=1
		echo "not ok - $rule is not found: $(tail -n 1 "$dir/out")"
	fi
}

killed=(-DLIMIT=2 -DQUEUED=1 -DLEASED=1 -DGRANTS=1 -DKILLS=1)
raised=(-DLIMIT=3 -DQUEUED=0 -DLEASED=3 -DGRANTS=2)
both=(-DLIMIT=3 -DQUEUED=1 -DLEASED=2 -DGRANTS=2 -DKILLS=0)
idle=(-DLIMIT=2 -DQUEUED=1 -DLEASED=2 -DGRANTS=1 -DSLEEPS=2)
two=(-DACCOUNTS=2 -DQUEUED=1 -DLEASED=1 -DGRANTS=1)
holds "a kill after any step, all ended by one rule" "${killed[@]}" -DEND_ALL=1
holds "a second kill, after any step too, of recovery as well" -DLIMIT=2 -DQUEUED=0 -DLEASED=2 -DGRANTS=1 -DKILLS=2
holds "raised and recalled, three leased packets, a kill after any step" "${raised[@]}" -DKILLS=1
holds "two workers beside two grants" "${both[@]}"
holds "two accounts, the first is the tighter, a kill after any step" -DLIMIT=1 -DLIMIT2=2 "${two[@]}" -DKILLS=1
holds "two accounts, the second is the tighter, raised and recalled, a kill after any step" \
	-DACCOUNTS=2 -DLIMIT=3 -DLIMIT2=2 -DQUEUED=0 -DLEASED=2 -DGRANTS=2 -DKILLS=1
holds "asleep, waked and asleep again" "${idle[@]}" -DKILLS=0
holds "asleep and waked, a kill after any step" "${killed[@]}" -DSLEEPS=1
for rule in SLEEP_NO_WAIT SLEEP_WAKED SLEEP_ANY; do
	finds $rule "${idle[@]}" -DKILLS=0
done
for rule in NO_GRACE NO_SECOND_LOOK NO_BARRIER RELATIVE_STEP NO_RETURN; do
	finds $rule "${killed[@]}"
done
for rule in COUNT_FIRST NO_COUNT_BARRIER; do
	finds $rule "${raised[@]}" -DKILLS=0
done
finds ONE_SHARE -DLIMIT=3 -DLIMIT2=2 "${two[@]}" -DKILLS=0
finds NO_UNDO -DLIMIT=2 -DLIMIT2=1 "${two[@]}" -DKILLS=0
if [ "${MODEL_MORE:-0}" = 1 ]; then
	holds "two accounts, the second is the tighter, a kill after any step" -DLIMIT=2 -DLIMIT2=1 "${two[@]}" -DKILLS=1
	holds "two accounts, three leased packets, a kill" -DACCOUNTS=2 -DLIMIT=3 -DLIMIT2=2 -DQUEUED=0 -DLEASED=3 -DGRANTS=2 -DKILLS=1
	holds "two kills, a queued packet" -DLIMIT=2 -DQUEUED=1 -DLEASED=1 -DGRANTS=1 -DKILLS=2
	holds "a kill, two grants, three packets" -DLIMIT=3 -DQUEUED=1 -DLEASED=2 -DGRANTS=2 -DKILLS=1
fi
exit $failed
