#!/bin/bash
# redis_acl.sh - config/redis/egressd.acl on a real server: the gateway's user may do what redis_link.c does and nothing else, the SOC's
# user may listen and decide, and cannot forge alerts.
set -u
cd "$(dirname "$0")/../.." || exit 2
command -v redis-server >/dev/null && command -v redis-cli >/dev/null || { echo "redis-server is missing (sudo tests/need test)"; exit 77; }
dir=$(mktemp -d) || exit 2
server=
trap 'if [ -n "$server" ]; then kill "$server"; wait "$server" 2>/dev/null; fi; rm -rf "$dir"' EXIT
cp config/redis/egressd.acl "$dir/users.acl"
redis-server --port 0 --unixsocket "$dir/sock" --save '' --daemonize no --dir "$dir" --aclfile "$dir/users.acl" >"$dir/log" 2>&1 &
server=$!
up() { redis-cli -s "$dir/sock" ping 2>&1 | grep -q NOAUTH; }
for _ in $(seq 100); do up && break; sleep 0.05; done
up || { echo "not ok - the server does not take the file"; tail -n 5 "$dir/log"; exit 1; }
failed=0
as() { local user=$1 pass=$2; shift 2; timeout 2 redis-cli -s "$dir/sock" --no-auth-warning --user "$user" --pass "$pass" "$@" 2>&1; }
gw() { as egressd-gw1 change-me-gw1 "$@"; }
soc() { as soc change-me-soc "$@"; }
may() { if "$@" | grep -qE 'NOPERM|Could not connect|WRONGPASS'; then echo "not ok - $*: refused"; failed=1; else echo "ok - may: $*"; fi; }
may_not() { if "$@" | grep -q NOPERM; then echo "ok - may not: $*"; else echo "not ok - $*: allowed"; failed=1; fi; }
may gw ping
may gw xadd egress:alerts:gw1 MAXLEN '~' 100000 1-0 eve '{}' id a-1
may gw xrange egress:alerts:gw1 1-0 1-0
may gw xrevrange egress:alerts:gw1 + - COUNT 1
may gw xread COUNT 1 STREAMS egress:decisions 0
may gw hset egress:gw:gw1 policy 1
may gw expire egress:gw:gw1 20
may gw publish egress:alert '{}'
may_not gw xadd egress:alerts:gw2 '*' eve '{}'
may_not gw xadd egress:decisions '*' v 1
may_not gw publish other x
may_not gw del egress:alerts:gw1
may_not gw flushall
may_not gw config get '*'
may_not gw set egress:gw:gw1 x
may_not gw subscribe egress:alert
may_not gw get egress:policy:current
may_not gw psubscribe 'egress:*'
may_not gw get egress:gw:gw1
may soc xadd egress:decisions '*' v 1 id x
may soc xrange egress:alerts:gw1 - +
may soc hgetall egress:gw:gw1
may_not soc publish egress:alert '{}'
may_not soc xadd egress:alerts:gw1 '*' eve '{}'
may_not soc subscribe other
may_not soc set egress:gw:gw1 x
may_not soc hset egress:gw:gw1 policy 2
may_not soc flushall
users=$(sed -n 's/^user \([^ ]*\) .*/\1/p' config/redis/egressd.acl | xargs)
if [ "$users" = "default egressd-gw1 soc" ]; then echo "ok - nobody else"; else echo "not ok - users: $users"; failed=1; fi
noauth=$(timeout 2 redis-cli -s "$dir/sock" xrange egress:alerts:gw1 - + 2>&1)
if [[ $noauth == NOAUTH* ]]; then echo "ok - nobody without a password"; else echo "not ok - without a password: $noauth"; failed=1; fi
exit $failed
