#!/bin/bash
# install.sh - make install with another PREFIX and ETC: every path that the unit and egressd.yaml name is there below DESTDIR, an
# admin's configuration stays, and make uninstall leaves nothing else.
set -u
cd "$(dirname "$0")/../.." || exit 2
: "${EGRESSD_BUILD:=build}"
unset MAKEFLAGS MFLAGS MAKELEVEL DESTDIR PREFIX ETC UNITDIR
dir=$(mktemp -d) || exit 2
trap 'rm -rf "$dir"' EXIT
failed=0
check() { # TEXT COMMAND...
	local text=$1
	shift
	if "$@"; then echo "ok - $text"; else echo "not ok - $text"; failed=1; fi
}
run() { # GOAL [VARIABLE=VALUE...]
	make -s B="$EGRESSD_BUILD" DESTDIR="$root" "$@" >"$dir/make.out" 2>&1 || { cat "$dir/make.out"; return 1; }
}
named() { # our programs that the unit starts, and the policy of the configuration
	grep -hE '^Exec(Start|Reload)=' "$root/lib/systemd/system/egressd.service" | grep -oE '/[a-z/.]+'
	sed -n 's/^policy: *\([^ ]*\).*/\1/p' "$root$1/egressd/egressd.yaml"
	grep -oE '[^ ]*/egressd[^ ]*\.yaml|[^ ]*/policy\.yaml' "$root$2/lib/tmpfiles.d/egressd.conf"
}
documented() { # files and folders of share/doc that the manual names
	local d n=0
	for d in $(grep -ohE 'share/doc/egressd[a-z/.]*' docs/egressd.8 docs/egressd-policy.5); do
		[ -r "$root$prefix/${d%.}" ] || { echo "# missing: $d"; return 1; }
		n=$((n + 1))
	done
	[ "$n" -ge 5 ]
}
no_other() { # ETC
	local left
	left=$(cd "$root" && find . ! -type d | sort | tr '\n' ' ')
	[ "$left" = ".$1/egressd/egressd.yaml .$1/egressd/policy.yaml " ] || { echo "# left: $left"; return 1; }
}

for where in "/usr /etc" "/usr/local /etc" "/opt/egressd /opt/egressd/etc"; do
	read -r prefix etc <<<"$where"
	root=$dir$prefix.root
	vars=()
	[ "$where" = "/usr /etc" ] || vars=(PREFIX="$prefix" ETC="$etc")
	check "$prefix: make install" run install "${vars[@]}"
	missing=$(named "$etc" "$prefix" | while read -r p; do [ -e "$root$p" ] || echo "$p"; done)
	check "$prefix: every path that is named is there $missing" [ -z "$missing" ]
	check "$prefix: and so many are named" [ "$(named "$etc" "$prefix" | wc -l)" -eq 6 ]
	check "$prefix: of programs that can be started" test -x "$root$prefix/sbin/egressd" -a -x "$root$prefix/bin/egressctl"
	check "$prefix: not for everybody to read" [ "$(stat -c %a "$root$etc"/egressd/{egressd,policy}.yaml | sort -u)" = 640 ]
	doc=$(grep -oE 'share/doc/[A-Za-z/]+' daemon/courier.c)
	check "$prefix: what the log names when Redis refuses, and the ACL file beside it" \
		[ -n "$doc" -a -r "$root$prefix/$doc" -a -r "$root$prefix/${doc%/*}/egressd.acl" ]
	check "$prefix: what egressd(8) names below share/doc" documented
	check "$prefix: the unit is" [ "$(stat -c %a "$root/lib/systemd/system/egressd.service")" = 644 ]
	if command -v systemd-analyze >/dev/null; then
		# The programs are not there as long as DESTDIR is not /; nothing else may be wrong.
		complaints=$(systemd-analyze verify --man=no "$root/lib/systemd/system/egressd.service" 2>&1 |
			grep -vE 'is not executable: No such file|Failed to (open|connect)|^$' | grep egressd)
		check "$prefix: systemd-analyze verify finds nothing $complaints" [ -z "$complaints" ]
	else
		echo "skip - systemd-analyze is missing (sudo tests/need test)"
	fi
	echo "# an admin's" >>"$root$etc/egressd/policy.yaml"
	check "$prefix: make install again" run install "${vars[@]}"
	check "$prefix: an admin's policy stays" grep -q "an admin's" "$root$etc/egressd/policy.yaml"
	check "$prefix: make uninstall" run uninstall "${vars[@]}"
	check "$prefix: leaves the configuration alone" no_other "$etc"
	check "$prefix: and no folder of documents" [ ! -e "$root$prefix/share/doc/egressd" ]
done
root=$dir/broken.root
for f in usr/share/man usr/share/doc etc/egressd; do	# where a folder should be
	rm -rf "$root"
	mkdir -p "$root/${f%/*}"
	: >"$root/$f"
	make -s B="$EGRESSD_BUILD" DESTDIR="$root" install >"$dir/make.out" 2>&1 && code=0 || code=$?
	check "/$f cannot be made: make install fails" [ $code -ne 0 ]
done
exit $failed
