#!/bin/bash
# The service's sandbox: exposure by systemd's own measure is at most 1.5, and what packets need is not locked away.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 2
unit=systemd/egressd.service
bad=0
check() { # TEXT COMMAND...
	local text=$1
	shift
	if "$@"; then echo "ok - $text"; else echo "not ok - $text"; bad=1; fi
}

if ! command -v systemd-analyze >/dev/null; then
	echo "systemd-analyze is missing (sudo tests/need test)"
	exit 77
fi
report=$(systemd-analyze security --offline=true --no-pager "$unit" 2>&1)
level=$(sed -n 's/.*exposure level for [^:]*: \([0-9.]*\).*/\1/p' <<<"$report")
if [ -z "$level" ]; then
	echo "$report" | tail -n 5
	echo "this systemd-analyze cannot judge a file (--offline)"
	exit 77
fi
echo "exposure $level"
check "exposure at most 1.5" awk -v l="$level" 'BEGIN { exit !(l <= 1.5) }'

# A child user namespace cannot bind a queue; without these families there are no packets, no Redis, no control socket.
check "no user namespace" bash -c '! grep -q "^PrivateUsers=yes" '"$unit"
for family in AF_NETLINK AF_UNIX AF_INET AF_INET6; do
	check "$family is allowed" grep -Eq "^RestrictAddressFamilies=.*$family( |\$)" "$unit"
done
check "CAP_NET_ADMIN, and nothing else" [ "$(grep -E '^(Ambient|CapabilityB)' "$unit" | sort)" = \
"AmbientCapabilities=CAP_NET_ADMIN
CapabilityBoundingSet=CAP_NET_ADMIN" ]

# The paths of our programs are not there before make install; nothing else may be wrong.
complaints=$(systemd-analyze verify --man=no "$unit" 2>&1 |
	grep -vE 'is not executable: No such file|Failed to (open|connect)|^$' | grep egressd)
[ -z "$complaints" ] || echo "$complaints"
check "systemd-analyze verify finds nothing" [ -z "$complaints" ]
exit $bad
