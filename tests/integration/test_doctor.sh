#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# test_doctor.sh BUILD: what weft doctor says of an SSD tier is what weftd makes of it at its start.
set -u
build=$1
if [ ! -x "$build/daemon/weftd" ] || [ ! -x "$build/cli/weft" ]; then
	echo "weft and weftd are not part of this build"
	exit 77
fi
dir=$(mktemp -d)
node='' loop=''
unset WEFT_TOKEN WEFT_SOCKET

cleanup()
{
	[ -z "$node" ] || kill "$node" 2>/dev/null
	wait
	mountpoint -q "$dir/small" && umount -l "$dir/small"
	[ -z "$loop" ] || losetup -d "$loop"
	rm -rf "$dir"
}
trap cleanup EXIT

# shellcheck source=tests/integration/cli.sh
. "$(dirname "$0")/cli.sh"

# start NAME: a node with the settings in $dir/conf
start()
{
	"$build/daemon/weftd" -c "$dir/conf" -o "name=$1" -o "socket=$dir/$1" 2>"$dir/log" &
	node=$!
	until "$build/cli/weft" status --socket "$dir/$1" >/dev/null 2>&1; do
		kill -0 "$node" || fail "the node ended: $(cat "$dir/log")"
		[ "$SECONDS" -lt 100 ] || fail "the node does not start: $(cat "$dir/log")"
	done
}

stop()
{
	kill "$node"
	wait
	node=
}

# doctor RESULT TEXT: of the tier
doctor()
{
	"$build/cli/weft" doctor --json --config "$dir/conf" --socket "$dir/no" \
		>"$dir/out" 2>"$dir/err"
	json "[c for c in d['checks'] if c['check'] == 'ssd tier' and c['result'] == '$1' and
		'''$2''' in c['found'] and (c['result'] == 'ok' or c['todo'])]"
}

# settings PATH [BYTES [NAME]]
settings()
{
	cat >"$dir/conf" <<END
name = "${3:-mine}";
tier_path = "$1";
tier_bytes = "${2:-16M}";
arena_bytes = "2M";
hugepages = false;
END
}

# agree STATE TEXT: what the doctor says and what the node has are the same
agree()
{
	case $1 in
	ok) doctor ok "$2" ;;
	*) doctor fail "$2" ;;
	esac
	start mine
	until expect 0 status --json --socket "$dir/mine" && ! grep -q '"opening"' "$dir/out"; do
		[ "$SECONDS" -lt 100 ] || fail "the tier does not open"
	done
	json "d['tiers'][0]['state'] == '$1' and ('$1' == 'ok' or '''$2''' in d['tiers'][0]['why'])"
	if [ "$1" != ok ]; then
		"$build/cli/weft" doctor --config "$dir/conf" --socket "$dir/mine" >"$dir/out"
		says "its SSD tier is $1"
	fi
	stop
}

echo 'arena_bytes = "2M";' >"$dir/conf"
doctor ok 'no tier_path'
echo 'arena_bytes = "2 apples";' >"$dir/conf"
doctor fail 'arena_bytes'

# ---- files
settings "$dir/tier"
agree ok 'to be made'
agree ok 'a tier of this node'
settings "$dir/tier" 256M
agree ok 'a tier of this node' # it keeps its size
settings "$dir/empty"
truncate -s 1M "$dir/empty"
agree ok 'empty'
settings "$dir/no/folder/tier"
agree off 'No such file or directory'
settings "$dir"
agree off 'Is a directory'
settings /dev/null
agree off 'Invalid argument'
head -c 100000 /dev/urandom >"$dir/photos"
cp "$dir/photos" "$dir/before"
settings "$dir/photos"
agree refused 'what is in it is no tier'
cmp "$dir/photos" "$dir/before" || fail "a file of somebody else was written to"

# ---- another node's, another version's, and one that is in use
settings "$dir/tier" 16M theirs
sed -i 's/^name.*/name = "mine"; node_id = "0x77";/' "$dir/conf"
agree refused 'holds blocks of node'
settings "$dir/tier"
start mine
doctor ok 'which a node has open now'
stop
python3 - "$dir/tier" <<'END'
import struct, sys

def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff

with open(sys.argv[1], "r+b") as f:
    for page in range(2):
        f.seek(4096 * page)
        head = bytearray(f.read(124))
        head[8:12] = struct.pack("<I", 2)
        f.seek(4096 * page)
        f.write(head + struct.pack("<I", crc32c(head)))
END
agree refused 'format version 2'

# ---- no room, nobody may write: where this can be had
mkdir "$dir/small"
if mount -t tmpfs -o size=6M weft-test "$dir/small" 2>/dev/null; then
	settings "$dir/small/tier"
	doctor fail 'no space left on device'
	mount -o remount,ro "$dir/small"
	settings "$dir/small/tier" 1M
	doctor fail 'Read-only file system'
fi

# ---- devices, too
truncate -s 64M "$dir/image"
if loop=$(losetup -f --show "$dir/image" 2>/dev/null); then
	settings "$loop" 32M
	agree ok 'empty'
	agree ok 'a tier of this node'
	settings "$loop" 1G
	agree ok 'a tier of this node'
	dd if=/dev/zero of="$loop" bs=64K count=1 conv=fsync 2>/dev/null
	doctor fail 'tier_bytes is 1.0 GiB'
	settings "$loop" 32M
	if mkfs.ext4 -q "$loop" 2>/dev/null; then
		agree refused 'what is in it is no tier'
		umount "$dir/small" 2>/dev/null
		# the kernel lets go of what a node had a moment after the node's end
		for ((i = 0; i < 100; i++)); do
			! mount "$loop" "$dir/small" 2>"$dir/err" || break
			sleep 0.1
		done
		mountpoint -q "$dir/small" || fail "the device cannot be mounted"
		agree off 'is mounted'
		umount "$dir/small"
	fi
else
	loop=
fi
