#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# test_move.sh BUILD: a warm cache goes from one node to another, by weft export and weft import.
set -u
# shellcheck source=tests/integration/cli.sh
. "$(dirname "$0")/cli.sh"
begin "$1"

# at STATUS NODE ARGUMENT...: runs weft there
at()
{
	export WEFT_SOCKET=$dir/$2.sock
	expect "$1" "${@:3}"
}

# flip FILE OFFSET: changes a byte
flip()
{
	python3 -c 'import sys
with open(sys.argv[1], "r+b") as f:
	f.seek(int(sys.argv[2]))
	b = f.read(1)
	f.seek(int(sys.argv[2]))
	f.write(bytes([b[0] ^ 4]))' "$1" "$2"
}

start_node a arena_bytes=16M
start_node b arena_bytes=16M
start_node small arena_bytes=1M
start_node other arena_bytes=16M "tenants=({ name = \"default\"; salt = \"$(printf '%064d' 7)\"; })"

# ---- there, and all of it
head -c 3000000 /dev/urandom >"$dir/in"
head -c 100000 /dev/urandom >"$dir/in2"
at 0 a put --block-bytes 64K --key x "$dir/in"
at 0 a put --block-bytes 64K --key y "$dir/in2"
at 0 a export weft-cli "$dir/warm" --json
json 'd == {"blocks": 48, "bytes": 48 << 16, "evicted_meanwhile": 0, "bad": 0}'
[ "$(stat -c %s "$dir/warm")" = $((384 + 48 * (64 + 65536))) ] || fail "not as long as described"
at 0 b import "$dir/warm" --json
json 'd == {"put": 48, "held_before": 0, "no_room": 0, "bad": 0, "truncated": False}'
for k in x y; do
	at 0 b get --block-bytes 64K --key $k "$dir/back"
	cmp "$dir/back" "$dir/in$([ $k = x ] || echo 2)" || fail "other bytes came over"
done
# chains are chains there, too
at 0 b ls --space weft-cli --json
[ "$(grep -c '"depth": 45' "$dir/out")" = 1 ] || fail "the chain was not kept"
at 0 b import "$dir/warm" weft-cli --json
json 'd["put"] == 0 and d["held_before"] == 48'

# ---- files that are not as they were
head -c 1000000 "$dir/warm" >"$dir/short"
at 0 b drop --block-bytes 64K --key x
at 1 b import "$dir/short" --json
json 'd["truncated"] and d["put"] + d["held_before"] == 15 and not d["bad"]'
says 'shorter than it says: 48' err
cp "$dir/warm" "$dir/bad"
flip "$dir/bad" $((384 + 64 + 1000)) # bytes of the first block
flip "$dir/bad" $((384 + 3 * (64 + 65536) + 10)) # header of the fourth
at 0 b drop --block-bytes 64K --key y
at 1 b import "$dir/bad" --json
json 'd["bad"] == 2 and d["put"] + d["held_before"] == 46 and not d["truncated"]'
says '2 blocks are not as they were exported' err
cp "$dir/warm" "$dir/bad"
flip "$dir/bad" 100
at 1 b import "$dir/bad"
says 'header is not whole' err
cp "$dir/warm" "$dir/bad"
flip "$dir/bad" 8
at 1 b import "$dir/bad"
says 'a file of version 5; this weft reads version 1' err
at 1 b import "$dir/in"
says 'no file of weft export' err
head -c 20 "$dir/warm" >"$dir/short"
at 1 b import "$dir/short"
says 'header is not whole' err
at 1 b import "$dir/nonexistent"
says nonexistent err

# ---- other spaces
at 0 b put --raw --block-bytes 4K --key 0x01 <(head -c 4096 /dev/zero)
at 0 b ls --json
id=$(python3 -c 'import json, sys
spaces = json.load(sys.stdin)["spaces"]
print([s["id"] for s in spaces if s["block_bytes"] == 4096][0])' <"$dir/out")
at 1 b import "$dir/warm" "$id"
says 'the file has weft-cli:bytes, 65536 bytes .*; the space weft-cli:bytes, 4096 bytes' err
at 1 b export weft-clo "$dir/none"
says '2 spaces\|did you mean "weft-cli"' err
at 1 other import "$dir/warm"
says 'one salt' err

# ---- what is there stays, unless told otherwise
at 0 small put --block-bytes 64K --key z "$dir/in2"
at 0 small import "$dir/warm" --json
json 'd["put"] == 14 and d["no_room"] == 34'
at 0 small get --block-bytes 64K --key z "$dir/back"
cmp "$dir/back" "$dir/in2" || fail "what was there has changed"
at 0 small import --evict "$dir/warm" --json
json 'd["no_room"] == 0 and d["put"] >= 34'

# ---- no room for the file: none is left behind
(
	ulimit -f 1000
	at 1 a export weft-cli "$dir/large"
	says 'large' err
) || exit 1
if unshare -rm true 2>/dev/null; then
	mkdir "$dir/mnt"
	# shellcheck disable=SC2016
	unshare -rm bash -c 'mount -t tmpfs -o size=1m none "$1/mnt" || exit 0
		"$2/cli/weft" export weft-cli "$1/mnt/warm" --socket "$1/a.sock" 2>"$1/err"
		[ $? = 1 ] && grep -q "No space left" "$1/err" && [ -z "$(ls "$1/mnt")" ]
		' - "$dir" "$build" || fail "a full disk"
fi
[ -z "$(find "$dir" -name 'large*')" ] || fail "half a file is left"

# ---- while blocks come and go
for ((i = 0; i < 20; i++)); do
	"$build/cli/weft" put --block-bytes 64K --socket "$dir/small.sock" "$dir/in2" \
		>/dev/null
done &
at 0 small export weft-cli "$dir/moving" --json
wait $!
json 'd["bad"] == 0 and d["blocks"] + d["evicted_meanwhile"] > 0'
at 0 b import "$dir/moving" --json
json 'd["bad"] == 0 and not d["truncated"]'
