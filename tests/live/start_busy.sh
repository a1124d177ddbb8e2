#!/bin/bash
# start_busy.sh - egressd starts amid traffic: what passed before its rules came is nobody's, what passed them is in every record, from the
# first packet on.
# Seconds: 30
set -u
cd "$(dirname "$0")/../.." || exit 2
# shellcheck source=tests/live/lease_lab.sh
. tests/live/lease_lab.sh

lab_start recv outside "$flood" recv - 9000 100
lab_wait 5 lab_receives outside 9000
for n in 1 2 3 4 5 6; do
	lab_start send sakura1 "$flood" send $src $dst 9000 8 100 40000 4000000
	fresh 100000 100000 block
	lab_stop send INT
	identity_begin
	lease_identity "start $n amid traffic"
done
lab_done
