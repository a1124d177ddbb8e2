# egressd: make, make check, make demo, make bench, make install. No configure step; objects go to build*/.
#   SAN=address,undefined | thread    sanitizer builds in their own folder
#   CC=clang, V=1, DESTDIR=, PREFIX=

VERSION := 0.1.0

CC      ?= gcc
PREFIX  ?= /usr
ETC     ?= /etc
UNITDIR ?= /lib/systemd/system
empty   :=
space   := $(empty) $(empty)
comma   := ,
B       := build$(if $(SAN),-$(subst $(comma),-,$(SAN)))$(BSUF)
Q       := $(if $(V),,@)

PKGS    := libacl libmnl libnetfilter_queue libnftnl libsodium liburcu-qsbr libsystemd libseccomp libcap-ng jansson yaml-0.1 hiredis libmd
HARDEN  := -fstack-protector-strong -fstack-clash-protection -fcf-protection -fPIE $(if $(SAN),,-D_FORTIFY_SOURCE=2)
WARN    := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wundef
CFLAGS  ?= -O2 -g
BASE    := -std=c17 -D_GNU_SOURCE -Ilib -MMD -MP $(WARN) $(HARDEN) \
           $(if $(SAN),-fsanitize=$(SAN) -fno-omit-frame-pointer -fno-sanitize-recover=all) \
           $(shell pkg-config --cflags $(PKGS) 2>/dev/null)
LDFLAGS += -pie -Wl,-z,relro,-z,now,--as-needed $(if $(SAN),-fsanitize=$(SAN))
LDLIBS  := $(shell pkg-config --libs $(PKGS) 2>/dev/null || echo $(PKGS:lib%=-l%)) -lpthread

lib_src    := $(wildcard lib/*.c)
# Two programs from one folder: egressctl is ctl*.c, egressd everything else.
ctl_src    := $(wildcard daemon/ctl*.c)
daemon_src := $(filter-out $(ctl_src),$(wildcard daemon/*.c))
unit_src   := $(wildcard tests/unit/*.c)
torture_src := $(wildcard tests/torture/*.c)
scenario_src := $(wildcard tests/scenario/*.c)
fuzz_src   := $(wildcard tests/fuzz/fuzz_*.c)
bench_src  := $(wildcard tests/bench/*.c)
live_src   := $(wildcard tests/live/*.c)

obj = $(patsubst %.c,$B/%.o,$(1))
prog = $(patsubst %.c,$B/%,$(1))

all: $B/egressd $B/egressctl

$B/libegress.a: $(call obj,$(lib_src))
	$(Q)rm -f $@; $(AR) rcs $@ $^

$B/egressd: $(call obj,$(daemon_src)) $B/libegress.a
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

# egressctl reads egressd.yaml as egressd does, and knows the devices that are there.
$B/egressctl: $(call obj,$(ctl_src)) $B/daemon/config.o $B/daemon/devices.o $B/libegress.a
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS) -lpcap

$B/%.o: %.c
	@mkdir -p $(@D)
	$(if $(V),,@echo "  CC $<")
	$(Q)$(CC) $(BASE) $(CFLAGS) -c -o $@ $<

$B/daemon/main.o $B/daemon/ctl.o: BASE += -DEGRESSD_VERSION='"$(VERSION)"'
$B/daemon/main.o $B/daemon/ctl.o: Makefile

# Tests, torture and benches: one program a file. Daemon modules they exercise are linked from an archive.
$B/libdaemon.a: $(filter-out $B/daemon/main.o,$(call obj,$(daemon_src)))
	$(Q)rm -f $@; $(AR) rcs $@ $^

$(call prog,$(unit_src) $(scenario_src) $(torture_src) $(bench_src) $(live_src)): $B/%: $B/%.o $B/libdaemon.a $B/libegress.a
	$(Q)$(CC) $(LDFLAGS) -o $@ $< $B/libdaemon.a $B/libegress.a $(LDLIBS) -lcmocka -lpcap -lurcu-cds

$B/tests/%.o: BASE += -Idaemon -Itests

# Their disk fails when it is told to.
$B/tests/unit/test_spool_faults $B/tests/unit/test_spool_crash $B/tests/unit/test_decisions: LDFLAGS += -Wl,--wrap=pwrite,--wrap=pwrite64,--wrap=fdatasync,--wrap=fsync

# egressd in a world that is odd when it is told to be.
$B/tests/live/egressd_odd: $B/daemon/main.o
$B/tests/live/egressd_odd: LDFLAGS += $B/daemon/main.o -Wl,--wrap=clock_gettime,--wrap=sendto \
	-Wl,--wrap=leases_note,--wrap=leases_second,--wrap=rules_lease_depleted,--wrap=held_review

unit: $(call prog,$(unit_src) $(scenario_src))
torture: $(call prog,$(torture_src))
benches: $(call prog,$(bench_src))
live: $(call prog,$(live_src))

# clang's libFuzzer; `make fuzz CC=clang SAN=fuzzer-no-link,address,undefined`
$(call prog,$(fuzz_src)): $B/%: $B/%.o $B/libdaemon.a $B/libegress.a
	$(Q)$(CC) $(LDFLAGS) -fsanitize=fuzzer -o $@ $< $B/libdaemon.a $B/libegress.a $(LDLIBS)
fuzz: $(call prog,$(fuzz_src))

# The torture tests under the thread sanitizer, where the compiler has one.
race:
	$(Q)if echo 'int main(void) { return 0; }' | $(CC) -fsanitize=thread -o /dev/null -x c - 2>/dev/null; then \
		$(MAKE) --no-print-directory SAN=thread torture; fi

check: all unit torture live race
	$(Q)TESTS_RACE=build-thread$(BSUF) tests/run $B

# Live tests under Debian's stock kernel in qemu; VM_TESTS: names from tests/live.
check-vm: all live
	$(Q)tests/need vm
	$(Q)tests/vm/run $B $(VM_TESTS)

demo:
	$(Q)tests/demo

bench: all benches
	$(Q)tests/bench/run $B

# $(call put,FILE,MODE,PLACE): with the paths that it is installed for.
put = sed -e 's|/usr/sbin/|$(PREFIX)/sbin/|; s|/usr/bin/|$(PREFIX)/bin/|; s|/etc/egressd\>|$(ETC)/egressd|' $(1) >$B/put && \
	install -D -m $(2) $B/put $(DESTDIR)$(3)

share_doc := $(patsubst config/%,%,$(wildcard config/*.schema.json config/examples/*.yaml config/redis/*))

install: all
	install -D -m 755 $B/egressd $(DESTDIR)$(PREFIX)/sbin/egressd
	install -D -m 755 $B/egressctl $(DESTDIR)$(PREFIX)/bin/egressctl
	# What an admin has written stays.
	for f in egressd policy; do [ -e $(DESTDIR)$(ETC)/egressd/$$f.yaml ] || \
	  { $(call put,config/$$f.yaml,640,$(ETC)/egressd/$$f.yaml); } || exit 1; done
	$(call put,systemd/egressd.service,644,$(UNITDIR)/egressd.service)
	install -D -m 644 systemd/egressd.sysusers $(DESTDIR)$(PREFIX)/lib/sysusers.d/egressd.conf
	$(call put,systemd/egressd.tmpfiles,644,$(PREFIX)/lib/tmpfiles.d/egressd.conf)
	for m in docs/*.[158]; do install -D -m 644 $$m $(DESTDIR)$(PREFIX)/share/man/man$${m##*.}/$${m##*/} || exit 1; done
	for f in $(share_doc); do install -D -m 644 config/$$f $(DESTDIR)$(PREFIX)/share/doc/egressd/$$f || exit 1; done

# Not what is the admin's: $(ETC)/egressd, the state folder, user and groups.
uninstall:
	rm -f $(DESTDIR)$(PREFIX)/sbin/egressd $(DESTDIR)$(PREFIX)/bin/egressctl $(DESTDIR)$(UNITDIR)/egressd.service \
	  $(DESTDIR)$(PREFIX)/lib/sysusers.d/egressd.conf $(DESTDIR)$(PREFIX)/lib/tmpfiles.d/egressd.conf
	for m in docs/*.[158]; do rm -f $(DESTDIR)$(PREFIX)/share/man/man$${m##*.}/$${m##*/}; done
	for f in $(share_doc); do rm -f $(DESTDIR)$(PREFIX)/share/doc/egressd/$$f; done
	for d in /redis /examples ""; do rmdir $(DESTDIR)$(PREFIX)/share/doc/egressd$$d 2>/dev/null || :; done

clean:
	rm -rf build build-*

.PHONY: all unit torture race benches live fuzz check check-vm demo bench install uninstall clean
.DELETE_ON_ERROR:
.SECONDARY:
-include $(shell [ -d $B ] && find $B -name '*.d')
