#!/bin/sh
# Install mwtrace on Debian or Ubuntu, take it away again, or prepare this tree for development.
#
# Needs no terminal, may be run again at any time, and says what it does. Everything of Python's is
# in one folder of its own; nothing is installed into the system's Python.
set -eu

PREFIX=/opt/mwtrace
LINK=/usr/local/bin/mwtrace # sudo's secure_path has this folder
PYTHON=/usr/bin/python3     # the distribution's, whatever else is first in PATH
SOURCE=$(cd "$(dirname "$0")" && pwd)
PACKAGES="clang llvm gcc libc6-dev libbpf-dev libelf-dev zlib1g-dev python3 python3-dev python3-venv"
BCC_PACKAGES="python3-bpfcc"
# systemd: one is booted in tests. It need not be what runs here.
DEV_PACKAGES="make clang-format g++ valgrind age bpfcc-tools systemd util-linux procps"
# What our metrics and alerts are read back by. Their services are none of ours to run.
SERVER_PACKAGES="prometheus prometheus-node-exporter prometheus-alertmanager"
# What tests trace programs with; by these names in Debian 12.
DEV_ALLOCATORS="libjemalloc2 libtcmalloc-minimal4 libmimalloc2.0 musl-tools"
OLDEST_LIBBPF=1.0

usage() {
	cat <<END
usage: $0 [--with-bcc | --dev | --uninstall]

  (nothing)    install the compilers it needs, build mwtrace into $PREFIX,
               and link $LINK to it
  --with-bcc   the same, with the distribution's bcc, for kernels without BTF:
               it compiles what traces allocations there
  --dev        install what 'make check test' needs, and make .venv in this tree;
               Prometheus and its exporters come with their services masked
  --uninstall  remove $LINK and $PREFIX; packages stay
END
}

say() {
	echo "install.sh: $*"
}

refuse() {
	echo "install.sh: $1" >&2
	echo "  $2" >&2
	exit 1
}

need_root() {
	[ "$(id -u)" = 0 ] || refuse "must be run as root" "Run: sudo $*"
}

need_distribution() {
	ID=unknown ID_LIKE=
	# shellcheck source=/dev/null
	[ ! -r /etc/os-release ] || . /etc/os-release
	case " $ID $ID_LIKE " in
	*" debian "* | *" ubuntu "*) ;;
	*) refuse "knows Debian and Ubuntu only, and this is $ID" \
		"Install clang, llvm, gcc, libbpf >= $OLDEST_LIBBPF, libelf, zlib and Python >= 3.9 with their headers, then: pip install $SOURCE" ;;
	esac
}

need_python() {
	[ -x "$PYTHON" ] || return 0 # about to be installed
	"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 9))' ||
		refuse "$PYTHON is $("$PYTHON" -V 2>&1), and mwtrace needs Python 3.9 or later" \
			"Use Debian 11, Ubuntu 22.04 or later."
}

# Before anything is installed: what the distribution would give us.
need_libbpf() {
	version=$(apt-cache show --no-all-versions libbpf-dev 2>/dev/null | sed -n 's/^Version: //p')
	[ -n "$version" ] || refuse "this distribution has no package libbpf-dev" "Use Debian 12, Ubuntu 24.04 or later."
	version=${version#*:}
	dpkg --compare-versions "$version" ge "$OLDEST_LIBBPF" ||
		refuse "this distribution has libbpf $version, and mwtrace needs $OLDEST_LIBBPF or later" \
			"Use Debian 12, Ubuntu 24.04 or later (Ubuntu 22.04 ships 0.5, Debian 11 ships 0.3)."
}

install_packages() {
	missing=
	for package in "$@"; do
		dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
	done
	if [ -z "$missing" ]; then
		need_libbpf
		say "all packages are installed"
		return
	fi
	export DEBIAN_FRONTEND=noninteractive
	say "updating the list of packages"
	# One source that does not answer is no reason to stop: installing will say what is missing.
	apt-get -q -o DPkg::Lock::Timeout=300 update || say "the list could not be updated in full; going on"
	need_libbpf
	say "installing$missing"
	# shellcheck disable=SC2086
	apt-get -q -o DPkg::Lock::Timeout=300 install -y --no-install-recommends $missing
}

# For tests we start these servers ourselves. The distribution's units of those that were not here
# before are masked, so that neither this installation nor the next boot starts them.
install_servers() {
	policy=/usr/sbin/policy-rc.d # asked by packages before they start anything
	written=
	for package in "$@"; do
		dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' && continue
		mkdir -p /etc/systemd/system
		if [ ! -e "/etc/systemd/system/$package.service" ] && [ ! -L "/etc/systemd/system/$package.service" ]; then
			ln -s /dev/null "/etc/systemd/system/$package.service"
			say "masked $package.service; 'systemctl unmask $package' undoes it"
		fi
		[ -e "$policy" ] || written=$policy
	done
	if [ -n "$written" ]; then
		# shellcheck disable=SC2064
		trap "rm -f $policy" EXIT
		printf '#!/bin/sh\nexit 101\n' >"$policy"
		chmod 755 "$policy"
	fi
	install_packages "$@"
	if [ -n "$written" ]; then
		rm -f "$policy"
		trap - EXIT
	fi
}

is_ours() {
	[ -f "$PREFIX/pyvenv.cfg" ] || [ ! -e "$PREFIX" ]
}

install_mwtrace() {
	is_ours || refuse "$PREFIX exists and was not made by this script" "Move it away first."
	if [ -e "$LINK" ] || [ -L "$LINK" ]; then
		[ "$(readlink "$LINK")" = "$PREFIX/bin/mwtrace" ] ||
			refuse "$LINK exists and was not made by this script" "Move it away first."
	fi
	# shellcheck disable=SC2086
	install_packages $PACKAGES "$@"
	need_python

	# A new Python of the distribution leaves an old environment broken: begin anew.
	if ! "$PREFIX/bin/python" -c 'import pip' 2>/dev/null; then
		say "making a Python environment in $PREFIX"
		"$PYTHON" -m venv --clear "$PREFIX"
	fi
	# Built from a copy: the tree may be read-only, and nobody wants root's files in it.
	copy=$(mktemp -d)
	trap 'rm -rf "$copy"' EXIT
	tar -C "$SOURCE" --exclude=./.git --exclude=./.venv --exclude=./build --exclude='./mwtrace/_bpf' --exclude=./tests/.pythons \
		--exclude='*.so' --exclude='*.egg-info' -cf - . | tar -C "$copy" -xf -
	say "building mwtrace and installing it into $PREFIX"
	# From a folder, pip installs the same version again, which is what we want.
	# trace: the disassembler that finds where a probe is cheap. analyze: numpy, for snapshots.
	"$PREFIX/bin/python" -m pip install --quiet --disable-pip-version-check --no-input "${copy}[trace,analyze]"
	(cd / && "$PREFIX/bin/python" -c 'import mwtrace.capi')
	mkdir -p "$(dirname "$LINK")"
	ln -sfn "$PREFIX/bin/mwtrace" "$LINK"
	if [ -d /run/systemd/system ]; then
		"$LINK" service install
		say "it is a service, too: systemctl enable --now mwtrace"
	fi
	say "done: $LINK is mwtrace"
}

# Ubuntu has Chromium as a snap only: the tests of pages are skipped there.
install_browser() {
	if [ -n "$(apt-cache madison chromium-headless-shell 2>/dev/null)" ]; then
		install_packages chromium-headless-shell
	else
		say "no chromium-headless-shell here: tests of pages are skipped"
	fi
}

prepare_development() {
	# shellcheck disable=SC2086
	install_packages $PACKAGES $BCC_PACKAGES $DEV_PACKAGES
	# shellcheck disable=SC2086
	install_servers $SERVER_PACKAGES
	# shellcheck disable=SC2086
	(install_packages $DEV_ALLOCATORS) || say "some allocators could not be had: tests with them are skipped"
	need_python
	install_browser
	say "making $SOURCE/.venv"
	make -C "$SOURCE" PYTHON="$PYTHON" venv
	say "fetching pprof, which reads our profiles back in tests"
	"$SOURCE/tests/tools/fetch-pprof" || say "it could not be had: its tests are skipped"
	say "unpacking newer Pythons into tests/.pythons"
	make -C "$SOURCE" newer-pythons || say "they could not be had: tests go on without those versions"
	say "unpacking other C libraries into tests/.glibcs"
	make -C "$SOURCE" other-glibcs || say "some could not be had: tests go on without them"
	say "done: now 'make check test', and as root 'make test-kernel asan'"
}

uninstall() {
	if [ "$(readlink "$LINK" 2>/dev/null)" = "$PREFIX/bin/mwtrace" ]; then
		# Not a reason to stay: the program may be broken, which is why it goes.
		[ ! -d /run/systemd/system ] || "$LINK" service uninstall || say "its units, if any, stay"
		say "removing $LINK"
		rm -f "$LINK"
	fi
	is_ours || refuse "$PREFIX was not made by this script" "Remove it by hand if you want to."
	if [ -e "$PREFIX" ]; then
		say "removing $PREFIX"
		rm -rf "$PREFIX"
	fi
	say "done; packages were left as they are"
}

mode=install
case "${1-}" in
'') ;;
--with-bcc) mode=with-bcc ;;
--dev) mode=dev ;;
--uninstall) mode=uninstall ;;
-h | --help)
	usage
	exit 0
	;;
*)
	usage >&2
	exit 2
	;;
esac
[ $# -le 1 ] || {
	usage >&2
	exit 2
}

need_root "$0" "$@"
case $mode in
install)
	need_distribution
	need_python
	install_mwtrace
	;;
with-bcc)
	need_distribution
	need_python
	# shellcheck disable=SC2086
	install_mwtrace $BCC_PACKAGES
	;;
dev)
	need_distribution
	need_python
	prepare_development
	;;
uninstall) uninstall ;;
esac
