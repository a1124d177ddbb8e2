#!/bin/bash
# redis_acl.sh - config/redis/egressd.acl on a real server: the gateway's user may do what redis_link.c does and nothing else, the SOC's
# user may listen and decide, and cannot forge alerts, the policy admin writes policies and nothing else.
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
admin() { as policy-admin change-me-policy "$@"; }
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
may_not gw publish egress:policy:changed x
may_not gw del egress:alerts:gw1
may_not gw flushall
may_not gw config get '*'
may_not gw set egress:policy:current 2
may_not gw hset egress:policy:v:1 yaml x
may_not gw hsetnx egress:policy:v:1 yaml x
may_not gw del egress:policy:v:1
may_not gw subscribe egress:alert
may_not gw subscribe egress:policy:changed egress:alert
may_not gw psubscribe 'egress:*'
may_not gw get egress:gw:gw1
may admin ping
may admin hset egress:policy:v:1 yaml x sha256 y sig z by alice at 1
may admin hsetnx egress:policy:v:2 yaml x
may admin hgetall egress:policy:v:1
may admin exists egress:policy:v:1
may admin set egress:policy:current 1
may admin get egress:policy:current
may admin publish egress:policy:changed 1
may_not admin set egress:policy:v:3 x
may_not admin hset egress:policy:current yaml x
may_not admin del egress:policy:v:1
may_not admin expire egress:policy:v:1 1
may_not admin rename egress:policy:v:1 egress:policy:v:3
may_not admin set egress:gw:gw1 x
may_not admin hset egress:gw:gw1 policy 2
may_not admin xadd egress:decisions '*' v 1
may_not admin xadd egress:alerts:gw1 '*' eve '{}'
may_not admin xrange egress:alerts:gw1 - +
may_not admin publish egress:alert '{}'
may_not admin subscribe egress:policy:changed
may_not admin subscribe egress:alert
may_not admin eval 'return 1' 0
may_not admin keys '*'
may_not admin config get '*'
may_not admin acl list
may_not admin flushall
may gw get egress:policy:current
may gw hgetall egress:policy:v:1
may gw hget egress:policy:v:1 yaml
may gw hmget egress:policy:v:1 sha256 sig
may gw exists egress:policy:v:1
may soc xadd egress:decisions '*' v 1 id x
may soc xrange egress:alerts:gw1 - +
may soc hgetall egress:gw:gw1
may_not soc publish egress:alert '{}'
may_not soc xadd egress:alerts:gw1 '*' eve '{}'
may_not soc subscribe other
may_not soc set egress:policy:current 2
may_not soc hset egress:policy:v:1 yaml x
may_not soc publish egress:policy:changed x
may_not soc subscribe egress:policy:changed
may_not soc flushall
# What may be said also does it: a push as a whole, and its bell at a gateway that waits.
push='MULTI
HSET egress:policy:v:4 yaml x sha256 y sig z by alice at 1
SET egress:policy:current 4
PUBLISH egress:policy:changed 4
EXEC'
if admin <<<"$push" | grep -q NOPERM || [ "$(gw get egress:policy:current)" != 4 ]; then
	echo "not ok - a push in one transaction"
	failed=1
else
	echo "ok - a push in one transaction"
fi
gw subscribe egress:policy:changed >"$dir/heard" &
listener=$!
for _ in $(seq 40); do [ "$(admin publish egress:policy:changed 4)" = 1 ] && break; sleep 0.05; done
wait $listener
if grep -qx 4 "$dir/heard"; then echo "ok - a gateway hears that the policy changed"; else echo "not ok - a gateway hears nothing"; failed=1; fi
noauth=$(timeout 2 redis-cli -s "$dir/sock" get egress:policy:current 2>&1)
if [[ $noauth == NOAUTH* ]]; then echo "ok - nobody without a password"; else echo "not ok - without a password: $noauth"; failed=1; fi
exit $failed
