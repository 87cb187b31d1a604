#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# test_install.sh BUILD: installs into an empty folder, then builds and runs a program against what
# lies there, as a user of the package would: pkg-config, headers, shared library.
set -eu
build=$1
here=$(cd "$(dirname "$0")" && pwd)
dest=$(mktemp -d)
trap 'rm -rf "$dest"' EXIT

fail()
{
	echo "test_install: $*" >&2
	exit 1
}

meson install -C "$build" --no-rebuild --destdir "$dest" >"$dest/log" 2>&1 || {
	cat "$dest/log" >&2
	fail "meson install failed"
}
lib=$(find "$dest" -name 'libweft.so' | head -n 1)
if [ -z "$lib" ]; then
	echo "libweft is not part of this build"
	exit 77
fi
pc=$(find "$dest" -name weft.pc)
[ -n "$pc" ] || fail "no weft.pc"

# shared libraries give away what the map names, and nothing else
foreign=$(nm -D --defined-only "$lib" | awk '$2 != "A" && $3 !~ /^weft_/ { print $3 }')
[ -z "$foreign" ] || fail "libweft.so exports more than weft_*: $foreign"
nm -D --defined-only "$lib" | grep -q ' weft_open@@WEFT_0.1$' || fail "weft_open has no version"

# its own thread runs until the process ends
readelf -d "$lib" | grep -q NODELETE || fail "libweft.so can be unloaded"

export PKG_CONFIG_PATH=${pc%/*} PKG_CONFIG_SYSROOT_DIR=$dest
read -ra flags <<<"$(pkg-config --cflags --libs weft)"
"${CC:-cc}" -std=c17 -Wall -Werror -o "$dest/user" "$here/install_user.c" "${flags[@]}"
LD_LIBRARY_PATH=${lib%/*} "$dest/user"
