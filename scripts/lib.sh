# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034 # used by those who source it
# Shared by the build scripts; sourced, never run.

set -euo pipefail
# A make that runs us has its own variables and job server; ours start afresh.
unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES KBUILD_OUTPUT KCFLAGS KRUSTFLAGS
export LC_ALL=C.UTF-8

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
build=${NULLHZ_BUILD:-$top/build}
cache=${NULLHZ_CACHE:-${XDG_CACHE_HOME:-${HOME:-/nonexistent}/.cache}/nullhz}
[[ $cache = /* ]] || cache=$PWD/$cache

# With make's O=, `make clean` empties only a folder with this mark. One that
# held something when the build came does not get it.
if [[ ${NULLHZ_BUILD-} && -z $(ls -A "$build" 2>/dev/null) ]]; then
	{ mkdir -p "$build" && : >"$build/.nullhz-build"; } 2>/dev/null || :
fi

RUSTC=${RUSTC:-/usr/bin/rustc}
# rustdoc, rustfmt, clippy-driver and cargo must be rustc's own: a rustup
# toolchain earlier in PATH would be another version.
PATH=$(dirname "$RUSTC"):$PATH:/usr/sbin:/sbin

BINDGEN_VERSION=0.72.1
bindgen_root=$cache/tools/bindgen-$BINDGEN_VERSION
LLVM_VERSION=19
KERNEL_SERIES=7.3

say() {
	printf '%s\n' "$*" >&2
}

die() {
	say "nullhz: $*"
	exit 1
}

# elapsed START: time since START (a value of SECONDS), for people.
elapsed() {
	printf '%dm%02ds' $(((SECONDS - $1) / 60)) $(((SECONDS - $1) % 60))
}

# explain LOG WHAT RC: ends the run with the one line that says what went wrong.
explain() {
	local log=$1 what=$2 rc=$3 line
	if grep -qsE 'No space left on device|Wrote only [0-9]+ of' "$log"; then
		die "$what: disk full; free some space (cache: $cache, build: $build) and run again"
	fi
	if grep -qsE 'Could not resolve|Temporary failure (resolving|in name)|Could not connect|Unable to connect|Network is unreachable|Connection (refused|timed out)|failed to (download|get) |spurious network error' "$log"; then
		die "$what: no network, or the server does not answer; log: $log"
	fi
	line=$(grep -m1 -aE '(^|[^[:alnum:]_-])(error|Error|ERROR|E)(\[[A-Z0-9]+\])?: |\*\*\* |command not found' "$log" || tail -n 1 "$log")
	die "$what failed (exit status $rc): ${line:-no message}; log: $log"
}

# run LOG WHAT COMMAND...: a long step: one progress line, output to the log.
# COMMAND must be a program, not a shell function (set -e would not hold in it).
run() {
	local log=$build/log/$1.log what=$2 start=$SECONDS rc=0
	shift 2
	mkdir -p "$build/log" || die "cannot write to $build"
	say "  ...     $what"
	"$@" >"$log" 2>&1 </dev/null || rc=$?
	((rc == 0)) || explain "$log" "$what" "$rc"
	say "  done    $what ($(elapsed "$start"))"
}

# lock NAME: one run at a time does the work behind NAME, for the rest of this
# process; the others wait.
lock() {
	local fd
	mkdir -p "$cache/lock" || die "cannot write to the cache $cache (NULLHZ_CACHE= chooses another)"
	exec {fd}>"$cache/lock/$1"
	if ! flock -n "$fd"; then
		say "  wait    another run is making $1"
		flock "$fd"
	fi
}

# need_space DIR MIB WHAT: says so before a step fails half-way.
need_space() {
	local free
	mkdir -p "$1"
	free=$(df -Pm "$1" | awk 'NR == 2 { print $4 }')
	((free >= $2)) || die "$3 needs $2 MiB in $1, which has $free MiB: free some, or set NULLHZ_CACHE= to another disk"
}

# need COMMAND...: the tools that a script calls.
need() {
	local tool missing=()
	for tool; do
		command -v "$tool" >/dev/null || missing+=("$tool")
	done
	((${#missing[@]} == 0)) || die "missing: ${missing[*]}; 'make setup' as root installs what the build needs"
}

# hash: 12 hex digits that stand for standard input.
hash() {
	sha256sum | cut -c1-12
}

# private_apt SUITE...: an apt of our own, which reads and writes nothing of
# the machine's but its sources, keyrings, proxy settings and list of installed
# packages. Sets apt_opts and apt_dir; the directory goes when the script ends.
private_apt() {
	apt_dir=$(mktemp -d "${TMPDIR:-/var/tmp}/nullhz-apt.XXXXXX")
	trap 'rm -rf "$apt_dir"' EXIT
	mkdir -p "$apt_dir"/{lists,archives}/partial "$apt_dir/get"
	"$top/scripts/apt-sources" "$@" >"$apt_dir/nullhz.sources"
	# apt drops to this user while it downloads.
	chmod 755 "$apt_dir"
	[[ $EUID != 0 ]] || ! id _apt >/dev/null 2>&1 || chown _apt: "$apt_dir/get"
	apt_opts=(
		-q
		-o Dir::Etc::sourcelist="$apt_dir/nullhz.sources"
		-o Dir::Etc::sourceparts=-
		-o Dir::State::lists="$apt_dir/lists"
		-o Dir::Cache="$apt_dir"
		-o Acquire::Languages=none
		-o Acquire::Retries=3
		-o Dpkg::Use-Pty=false
	)
}
