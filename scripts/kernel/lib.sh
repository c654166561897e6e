# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034,SC2154 # from and for others
# Names of kernel trees in the cache; sourced after ../lib.sh.
#
#   $cache/source/linux-source-7.3_<version>.tar.xz	as packaged by Debian
#   $cache/linux/<source>-<series>/			patched source
#   $cache/linux/<source>-<series>/o-<flavour>-<key>/	build directory
#
# A build directory inside its source makes the kernel use relative paths, so
# that a compiler cache (ccache), where there is one, hits across entries.

patches=$top/kernel-patches
FLAVOURS=(nullhz test debug)

# patch_files: the series, one path per line; none without a series file.
patch_files() {
	[[ ! -f $patches/series ]] || sed -e 's/#.*//' -e 's/[[:space:]]*$//' -e '/^$/d' -e "s|^|$patches/|" "$patches/series"
}

# newest_source: the newest packaged source in the cache, or nothing.
newest_source() {
	find "$cache/source" -name "linux-source-${KERNEL_SERIES}_*.tar.xz" 2>/dev/null | sort -V | tail -n 1
}

# source_id: what is built: a package version, or a hash of KERNEL_SRC.
source_id() {
	local file
	if [[ ${KERNEL_SRC-} ]]; then
		[[ -e $KERNEL_SRC ]] || die "KERNEL_SRC=$KERNEL_SRC: no such file or directory"
		if [[ -d $KERNEL_SRC ]]; then
			# Size and time stand for the contents of 90,000 files.
			(cd "$KERNEL_SRC" && find . -name .git -prune -o -type f -printf '%P %s %T@\n') |
				sort | hash | sed 's/^/src-/'
		else
			hash <"$KERNEL_SRC" | sed 's/^/src-/'
		fi
		return
	fi
	file=$(newest_source)
	[[ $file ]] || return 0
	file=${file##*_}
	file=${file%.tar.xz}
	# A path that no shell and no make takes for anything else.
	printf '%s\n' "${file//\~/.}"
}

# tree_dir SOURCE_ID: the patched source.
tree_dir() {
	local files
	mapfile -t files < <(patch_files)
	printf '%s/linux/%s-%s\n' "$cache" "$1" "$(cat "${files[@]}" /dev/null | hash)"
}

# check_version TREE NAME
check_version() {
	local version
	version=$(sed -n 's/^\(VERSION\|PATCHLEVEL\) = //p' "$1/Makefile" 2>/dev/null | paste -sd.) || true
	[[ $version ]] || die "$2 is no Linux source: Linux $KERNEL_SERIES is needed"
	[[ $version = "$KERNEL_SERIES" ]] || die "$2 is Linux $version: Linux $KERNEL_SERIES is needed"
}

# unpack INTO: the source as it is, without the series.
unpack() {
	local archive=${KERNEL_SRC:-$(newest_source)}
	if [[ -d $archive ]]; then
		check_version "$archive" "KERNEL_SRC=$archive"
		if [[ -e $archive/.config || -d $archive/include/config ]]; then
			die "KERNEL_SRC=$archive has been built in: run 'make mrproper' there first, or pass it as KDIR="
		fi
		run kernel-unpack "copy $archive" \
			sh -c 'tar -C "$1" --exclude-vcs -cf - . | tar -C "$2" -xf -' sh "$archive" "$1"
	else
		run kernel-unpack "unpack $(basename "$archive")" \
			tar -C "$1" --strip-components=1 -xf "$archive"
		check_version "$1" "$archive"
	fi
}

# apply_patch TREE FILE: every hunk must fit as it is; git's apply knows no fuzz.
apply_patch() {
	local log=$build/log/kernel-patch.log
	[[ -f $2 ]] || die "kernel-patches/series names $(basename "$2"), which is not there"
	# The ceiling keeps git from taking a repository around the cache for the tree's.
	(cd "$1" && GIT_CEILING_DIRECTORIES=$(dirname "$1") git apply --whitespace=nowarn "$2") >>"$log" 2>&1 ||
		die "kernel-patches/$(basename "$2") does not apply to this source: $(grep -m1 error: "$log" || true); a tree that has the series already is for KDIR=; log: $log"
}

# merged_config FLAVOUR: its fragments as one; the last word on an option counts.
merged_config() {
	local fragments=("$patches/config/nullhz.config")
	[[ $1 = nullhz ]] || fragments+=("$patches/config/test.config")
	[[ $1 != debug ]] || fragments+=("$patches/config/debug.config")
	awk '
		/^CONFIG_[A-Z0-9_]+=/ { name = substr($0, 1, index($0, "=") - 1) }
		/^# CONFIG_[A-Z0-9_]+ is not set$/ { name = $2 }
		name == "" { next }
		!(name in line) { order[++n] = name }
		{ line[name] = $0; name = "" }
		END { for (i = 1; i <= n; i++) print line[order[i]] }
	' "${fragments[@]}"
}

# object_dir TREE FLAVOUR: the build directory, which its contents name.
object_dir() {
	printf '%s/o-%s-%s\n' "$1" "$2" "$({
		merged_config "$2"
		"$RUSTC" -vV
		"clang-$LLVM_VERSION" --version
		"ld.lld-$LLVM_VERSION" --version
		printf 'bindgen %s\n' "$BINDGEN_VERSION"
	} | hash)"
}

# kernel_args TREE OBJ: sets args, what make gets to build the kernel there.
kernel_args() {
	args=(-C "$1" O="$2" "LLVM=-$LLVM_VERSION" RUSTC="$RUSTC" BINDGEN="$bindgen_root/bin/bindgen"
		KBUILD_BUILD_USER=nullhz KBUILD_BUILD_HOST=nullhz KBUILD_BUILD_VERSION=1
		KBUILD_BUILD_TIMESTAMP="$(date -u -R -r "$1/Makefile")")
	if command -v ccache >/dev/null; then
		args+=(CC="ccache clang-$LLVM_VERSION")
	fi
}
