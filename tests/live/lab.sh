# shellcheck shell=bash
# lab.sh - network namespaces for live tests: source it, call lab_up; everything is gone when the script ends.
#
#   sakura1 10.20.0.15  fd00:20::15 \                        / outside 203.0.113.0/24 (.9, .10, all), 2001:db8:9::/64
#   sakura2 10.20.0.16  fd00:20::16 - inside [gw] wan - isp -- backup  198.51.100.20, 2001:db8:20::20
#                                             vpn            \ vpn (its own way out)
#                                              \- vpn 10.250.0.5, fd00:250::5: maintenance box, an exit inside
#
# On the gateway the devices are named inside, wan and vpn. No address translation anywhere, no reverse path filter.
# 203.0.113.200 and 2001:db8:9:200::1 are outside too, but the gateway's route to them is the maintenance box, which forwards.
# The whole of 203.0.113.0/24 and 2001:db8:9::/64 answers, so a leak to 200 destinations needs no 200 addresses.
#
# [B1] Names     are unique to the calling shell, so several labs run at once.
# [B2] Clean     lab_down runs on every way out (exit, error, INT, TERM): processes by their ids, then the namespaces, the folder.
# [B3] Ids       every process started here has its id in $LAB_DIR/NAME.pid.
# [B4] Sums      are asked for whenever egressd is asked to end: identity.sh. LAB_SUMS says what a test knows of them.
# Cases are told to tests/run by ok, not_ok and skip; lab_done gives the exit code.

LAB=eg$$
LAB_DIR=
LAB_PATIENCE=1	# what lab_wait waits is so many times as long
[ -z "${EGRESSD_SLOW:-}" ] || LAB_PATIENCE=5
LAB_USER=	# egressd's, and how it becomes that: lab_egressd_as
LAB_AS=()
LAB_SPACES="sakura1 sakura2 gw outside vpn backup switch"
LAB_SUMS="0 0"	# bytes that egressd may count above and below what left; own: the test asks itself; none: something else counts
lab_failed=0
lab_started=
: "${EGRESSD_SRC:=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)}"
: "${EGRESSD_BUILD:=$EGRESSD_SRC/build}"
# shellcheck source=tests/live/identity.sh
. "$EGRESSD_SRC/tests/live/identity.sh"

ok() { echo "ok - $*"; }
not_ok() { echo "not ok - $*"; lab_failed=1; }
skip() { echo "skip - $*"; }
lab_note() { echo "# $*"; }
lab_done() { [ "$lab_failed" -eq 0 ]; }

# lab_no_connections SPACE...: what a block left half done goes on knocking for minutes, unless both ends forget it.
lab_no_connections() {
	local s
	for s in "$@"; do in_ns "$s" ss -HKt >/dev/null; done
}

# lab_is WANT GOT TEXT...
lab_is() {
	local want=$1 got=$2
	shift 2
	if [ "$want" = "$got" ]; then ok "$*"; else not_ok "$*: wanted $want, got $got"; fi
}

# in_ns NAME COMMAND...
in_ns() {
	local name=$1
	shift
	ip netns exec "$LAB-$name" "$@"
}

# lab_start NAME SPACE COMMAND...: in the background; output in NAME.log, id in NAME.pid.
lab_start() {
	local name=$1 space=$2
	shift 2
	# exec all the way down: the id is the program's own.
	if [ "$space" = host ]; then
		"$@" >"$LAB_DIR/$name.log" 2>&1 </dev/null &
	else
		ip netns exec "$LAB-$space" "$@" >"$LAB_DIR/$name.log" 2>&1 </dev/null &
	fi
	echo $! >"$LAB_DIR/$name.pid"
	lab_started="$name $lab_started"
}

lab_pid() { cat "$LAB_DIR/$1.pid"; }

# lab_stop NAME [SIGNAL [SECONDS]]: end it and wait; SIGKILL when it does not. 1 when that was needed.
lab_stop() {
	local name=$1 signal=${2:-TERM} tries=$((${3:-5} * 20)) pid r=0
	[ -e "$LAB_DIR/$name.pid" ] || return 0
	pid=$(cat "$LAB_DIR/$name.pid")
	kill -s "$signal" "$pid" 2>/dev/null || true
	while kill -0 "$pid" 2>/dev/null && [ "$tries" -gt 0 ]; do
		sleep 0.05
		tries=$((tries - 1))
	done
	if kill -0 "$pid" 2>/dev/null; then
		kill -KILL "$pid" 2>/dev/null || true
		r=1
	fi
	wait "$pid" 2>/dev/null || true
	rm -f "$LAB_DIR/$name.pid"
	return $r
}

# lab_wait SECONDS COMMAND...: until it succeeds; on an emulated machine five times as long.
lab_wait() {
	local end=$((${EPOCHREALTIME/[.,]/} + $1 * LAB_PATIENCE * 1000000))
	shift
	until "$@" >/dev/null 2>&1; do
		[ "${EPOCHREALTIME/[.,]/}" -lt "$end" ] || return 1
		sleep 0.05
	done
}

# lab_still SECONDS INTERVAL COMMAND...: until it says the same twice, INTERVAL apart.
lab_still() {
	local end=$((${EPOCHREALTIME/[.,]/} + $1 * 1000000)) every=$2 last now
	shift 2
	now=$("$@")
	while
		last=$now
		sleep "$every"
		now=$("$@")
		[ "$now" != "$last" ]
	do
		[ "${EPOCHREALTIME/[.,]/}" -lt "$end" ] || return 1
	done
}

# lab_settled SECONDS COMMAND...: until it says the same before and after egressd has read what the kernel counted, which it does once a
# second: what passed by lease, and what blocks refused.
lab_settled() {
	local end=$((${EPOCHREALTIME/[.,]/} + $1 * 1000000)) since last now
	shift
	now=$("$@")
	while
		last=$now
		sleep 1
		since=${EPOCHREALTIME/[.,]/}
		lab_wait 5 lab_has_settled "$since" || return 1
		now=$("$@")
		[ "$now" != "$last" ]
	do
		[ "${EPOCHREALTIME/[.,]/}" -lt "$end" ] || return 1
	done
}
lab_has_settled() { [ "$(ctl --json status | jq .engine.settled_us)" -gt "$1" ]; }

# lab_ended NAME: it has ended by itself.
lab_ended() { ! kill -0 "$(lab_pid "$1")" 2>/dev/null; }

lab_need() { # COMMAND...: or skip the whole script
	local c
	for c in "$@"; do
		if ! command -v "$c" >/dev/null && [ ! -x "$c" ]; then
			echo "$c is missing (sudo tests/need test)"
			exit 77
		fi
	done
}

lab_wire() { # SPACE DEVICE BRIDGE: a device in SPACE on a bridge of the switch
	local port="$1-$2"
	ip link add "$2" netns "$LAB-$1" type veth peer name "${port:0:15}" netns "$LAB-switch"
	ip -n "$LAB-switch" link set "${port:0:15}" master "$3" up
	ip -n "$LAB-$1" link set "$2" up
}

lab_addr() { # SPACE DEVICE ADDRESS...
	local space=$1 device=$2 a
	shift 2
	for a in "$@"; do
		case $a in
		*:*) ip -n "$LAB-$space" addr add "$a" dev "$device" nodad ;;
		*) ip -n "$LAB-$space" addr add "$a" dev "$device" ;;
		esac
	done
}

lab_route() { # SPACE ROUTE...
	local space=$1
	shift
	case " $* " in
	*:*) ip -n "$LAB-$space" -6 route add "$@" ;;
	*) ip -n "$LAB-$space" route add "$@" ;;
	esac
}

lab_up() {
	local s h
	if [ "$(id -u)" -ne 0 ]; then
		echo "needs root: sudo make check"
		exit 77
	fi
	lab_need jq
	LAB_DIR=$(mktemp -d "${TMPDIR:-/tmp}/egressd-lab.XXXXXX")
	chmod 755 "$LAB_DIR"
	trap lab_down EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM
	for s in $LAB_SPACES; do
		ip netns add "$LAB-$s"
		ip -n "$LAB-$s" link set lo up
		# No duplicate address detection: link-local addresses are of use at once.
		in_ns "$s" sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0
	done
	for s in gw outside vpn backup; do
		in_ns "$s" sh -c 'sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 \
			net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0 net.ipv4.conf.all.send_redirects=0 \
			net.ipv4.conf.default.send_redirects=0 net.ipv4.icmp_ratelimit=0'
	done
	for s in br-in br-isp br-vpn; do
		ip -n "$LAB-switch" link add "$s" type bridge mcast_snooping 0
		ip -n "$LAB-switch" link set "$s" up
	done

	lab_wire gw inside br-in
	lab_wire gw wan br-isp
	lab_wire gw vpn br-vpn
	lab_addr gw inside 10.20.0.1/24 fd00:20::1/64
	lab_addr gw wan 192.0.2.1/24 2001:db8:1::1/64
	lab_addr gw vpn 10.250.0.1/24 fd00:250::1/64

	for h in 15 16; do
		s=sakura$((h - 14))
		lab_wire "$s" eth0 br-in
		lab_addr "$s" eth0 10.20.0.$h/24 fd00:20::$h/64
		lab_route "$s" default via 10.20.0.1
		lab_route "$s" default via fd00:20::1
	done

	lab_wire outside eth0 br-isp
	lab_addr outside eth0 192.0.2.9/24 2001:db8:1::9/64
	lab_addr outside lo 203.0.113.9/32 203.0.113.10/32 2001:db8:9::9/128 2001:db8:9:200::1/128
	lab_route outside local 203.0.113.0/24 dev lo
	lab_route outside local 2001:db8:9::/64 dev lo
	# Another program may then answer from any of them: replies carry the address that was called.
	lab_wire backup eth0 br-isp
	lab_addr backup eth0 192.0.2.20/24 2001:db8:1::20/64
	lab_addr backup lo 198.51.100.20/32 2001:db8:20::20/128
	lab_wire vpn eth0 br-vpn
	lab_addr vpn eth0 10.250.0.5/24 fd00:250::5/64
	lab_wire vpn wan br-isp
	lab_addr vpn wan 192.0.2.5/24 2001:db8:1::5/64

	for s in gw backup vpn; do
		lab_route "$s" default via 192.0.2.9
		lab_route "$s" default via 2001:db8:1::9
	done
	for s in gw outside vpn; do
		lab_route "$s" 198.51.100.0/24 via 192.0.2.20
		lab_route "$s" 2001:db8:20::/64 via 2001:db8:1::20
	done
	for s in outside backup; do
		lab_route "$s" 10.20.0.0/24 via 192.0.2.1
		lab_route "$s" fd00:20::/64 via 2001:db8:1::1
		lab_route "$s" 10.250.0.0/24 via 192.0.2.1
		lab_route "$s" fd00:250::/64 via 2001:db8:1::1
	done
	lab_route vpn 10.20.0.0/24 via 10.250.0.1
	lab_route vpn fd00:20::/64 via fd00:250::1
	lab_route gw 203.0.113.200 via 10.250.0.5
	lab_route gw 2001:db8:9:200::/64 via fd00:250::5

	# Neighbours are known before the first test packet, which then waits for nothing.
	for s in sakura1 sakura2; do
		for h in 203.0.113.9 198.51.100.20 10.250.0.5 203.0.113.200 2001:db8:9::9 2001:db8:20::20 fd00:250::5 \
			2001:db8:9:200::1; do
			lab_wait 5 in_ns "$s" ping -nqc 1 -W 1 "$h" || { echo "lab: $s cannot reach $h"; return 1; }
		done
	done
}

lab_down() {
	local r=$? f s p
	trap '' INT TERM
	trap - EXIT
	[ -n "$LAB_DIR" ] || exit $r
	if [ $r -ne 0 ] || [ "$lab_failed" -ne 0 ]; then
		for f in "$LAB_DIR"/*.log; do
			[ -s "$f" ] || continue
			echo "# --- ${f##*/}"
			tail -n 15 "$f" | sed 's/^/# /'
		done
	fi
	[ $r -ge 128 ] || lab_sums
	for s in $lab_started; do	# what was started last ends first; nobody gets long
		lab_stop "$s" TERM 2 || true
	done
	lab_added_up
	[ "$lab_failed" -eq 0 ] || [ $r -ne 0 ] || r=1
	for s in $LAB_SPACES; do
		for p in $(ip netns pids "$LAB-$s" 2>/dev/null); do
			kill -KILL "$p" 2>/dev/null || true
		done
		ip netns del "$LAB-$s" 2>/dev/null || true
		rm -rf "/etc/netns/$LAB-$s"	# where a test laid files over /etc: ip-netns(8)
	done
	rm -rf "$LAB_DIR"
	exit $r
}

# lab_gso on|off: super-packets on every device, or one packet a segment.
lab_gso() {
	local s d
	for s in $LAB_SPACES; do
		for d in $(ip -n "$LAB-$s" -o link show type veth | sed 's/^[0-9]*: \([^@:]*\).*/\1/'); do
			in_ns "$s" ethtool -K "$d" tso "$1" gso "$1" gro "$1" >/dev/null 2>&1 ||
				in_ns "$s" ethtool -K "$d" gso "$1" gro "$1" >/dev/null
		done
	done
}

# lab_egressd_as NUMBER: from now on egressd starts as by its unit: user and group NUMBER, no other group, CAP_NET_ADMIN and no way
# to more. Without a service manager's filter and folders.
lab_egressd_as() {
	local only="-all,+net_admin"
	LAB_USER=$1
	# shellcheck disable=SC2016
	LAB_AS=(setpriv --reuid "$1" --regid "$1" --clear-groups --no-new-privs --inh-caps="$only" --ambient-caps="$only"
		--bounding-set="$only" sh -c 'umask 077 && exec "$@"' sh)
}

# What the unit does as root before each start.
lab_unit_pre() {
	local words
	while read -ra words; do
		in_ns gw "${words[@]/#egressd/$LAB_USER}" >/dev/null 2>&1 || true
	done < <(sed -n 's/^ExecStartPre=-+//p' "$EGRESSD_SRC/systemd/egressd.service")
}

# lab_egressd_config POLICY [KEY=VALUE...]: writes egressd.yaml; a KEY replaces the line of that key.
lab_egressd_config() {
	local policy=$1 kv k
	shift
	declare -A conf=(
		[gateway]=lab [policy]=$policy [state_dir]=$LAB_DIR/state [runtime_dir]=$LAB_DIR/run [failure]=open
		[interfaces]='{outside: [wan], maint: [vpn]}' [queues]='{first: 0, count: 2}' [table]='{pairs: 65536}'
	)
	for kv in "$@"; do
		conf[${kv%%=*}]=${kv#*=}
	done
	mkdir -p "$LAB_DIR/state" "$LAB_DIR/run"
	for k in "${!conf[@]}"; do
		echo "$k: ${conf[$k]}"
	done | sort >"$LAB_DIR/egressd.yaml"
	chmod 640 "$LAB_DIR/egressd.yaml"
	[ -z "$LAB_USER" ] || chown "$LAB_USER:$LAB_USER" "$LAB_DIR/state" "$LAB_DIR/run"
	[ -z "$LAB_USER" ] || chgrp "$LAB_USER" "$LAB_DIR/egressd.yaml"
}

# lab_egressd_start POLICY [KEY=VALUE...]: on the gateway; returns when it says READY=1. 1 when it does not in 10 s.
lab_egressd_start() {
	lab_egressd_config "$@"
	lab_egressd_restart
}

# The same configuration again (after lab_egressd_stop or a kill).
lab_egressd_restart() {
	local fresh=
	if [ "$LAB_SUMS" != none ]; then	# what it remembers, the kernel does
		identity_again=true
		[ -n "$(ls -A "$LAB_DIR/state")" ] && in_ns gw nft list table inet identity >/dev/null 2>&1 || fresh=1
		[ -z "$fresh" ] || identity_watch
	fi
	: >"$LAB_DIR/notify.out"
	rm -f "$LAB_DIR/notify.sock"
	lab_stop notify
	lab_start notify host "$EGRESSD_BUILD/tests/live/notify" "$LAB_DIR/notify.sock" "$LAB_DIR/notify.out"
	lab_wait 5 test -S "$LAB_DIR/notify.sock"
	[ -z "$LAB_USER" ] || chown "$LAB_USER" "$LAB_DIR/notify.sock"
	NOTIFY_SOCKET=$LAB_DIR/notify.sock lab_start egressd gw "${LAB_AS[@]}" "$EGRESSD_BUILD/egressd" -c "$LAB_DIR/egressd.yaml"
	lab_wait 10 lab_egressd_settled
	[ -z "$fresh" ] || identity_begin
	lab_egressd_ready || { lab_note "egressd did not become ready"; tail -n 15 "$LAB_DIR/egressd.log"; return 1; }
}

# From now on it is egressd_odd that starts: tests/live/egressd_odd.c.
lab_egressd_odd() {
	mkdir "$LAB_DIR/odd"
	ln -s "$EGRESSD_BUILD/tests/live/egressd_odd" "$LAB_DIR/odd/egressd"
	ln -s "$EGRESSD_BUILD/tests" "$LAB_DIR/odd/tests"
	ln -s "$EGRESSD_BUILD/egressctl" "$LAB_DIR/odd/egressctl"
	EGRESSD_BUILD=$LAB_DIR/odd
}

lab_egressd_ready() { grep -aq 'READY=1' "$LAB_DIR/notify.out"; }
lab_egressd_settled() { lab_egressd_ready || ! kill -0 "$(lab_pid egressd)" 2>/dev/null; }
# Whatever the test was about, sums add up when it ends: the engine looks when it is asked to stop.
lab_egressd_stop() {
	local r=0
	[ "${1:-TERM}" != TERM ] || lab_sums
	lab_stop egressd "${1:-TERM}" 10 || r=1
	lab_added_up
	return $r
}

# [B4]; nobody answers where a test ended egressd by itself.
lab_sums() {
	case $LAB_SUMS in own | none) return ;; esac
	# shellcheck disable=SC2086  # two words
	! ctl status >/dev/null 2>&1 || lease_identity "as it ends" $LAB_SUMS
}

lab_added_up() {
	local why
	[ -e "$LAB_DIR/egressd.log" ] || return 0
	why=$(grep -a 'sums do not add up' "$LAB_DIR/egressd.log") || return 0
	not_ok "$why"
	sed -i 's/sums do not add up/(told) sums did not add up/' "$LAB_DIR/egressd.log"
}

# lab_child engine|relay: process id of that child of the supervisor; 1 when there is none.
lab_child() {
	local p
	for p in $(pgrep -P "$(lab_pid egressd)"); do
		if tr '\0' ' ' <"/proc/$p/cmdline" | grep -qw -- "$1" || grep -qw "$1" "/proc/$p/comm"; then
			echo "$p"
			return 0
		fi
	done 2>/dev/null
	return 1
}

# egressctl against the lab's daemon.
ctl() { "$EGRESSD_BUILD/egressctl" --socket "$LAB_DIR/run/control.sock" "$@"; }

# lab_redis_start [OPTION...]: a server without a port on $LAB_REDIS.
lab_redis_start() {
	LAB_REDIS=$LAB_DIR/redis.sock
	lab_need redis-server redis-cli
	lab_start redis host redis-server --port 0 --unixsocket "$LAB_REDIS" --unixsocketperm 777 --save '' \
		--appendonly no --daemonize no --dir "$LAB_DIR" --logfile '' "$@"
	lab_wait 5 redis-cli -s "$LAB_REDIS" ping
}

lab_redis_stop() { lab_stop redis "${1:-TERM}"; }
lab_redis() { redis-cli -s "$LAB_REDIS" "$@"; }

# lab_sink SPACE PORT FILE [SOCAT-OPTIONS]: a TCP sink that appends what it gets to FILE, any number of connections.
lab_sink() {
	lab_start "sink-$1-$2" "$1" socat -u "TCP6-LISTEN:$2,fork,reuseaddr,ipv6only=0${4:-}" "OPEN:$3,creat,append"
	lab_wait 5 lab_listens "$1" "$2"
}

lab_listens() { in_ns "$1" ss -Hltn "sport = :$2" | grep -q .; }
lab_receives() { in_ns "$1" ss -Hlun "sport = :$2" | grep -q .; }	# UDP
