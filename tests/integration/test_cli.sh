#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# test_cli.sh BUILD: every subcommand of weft against a live node, its output and its exit status.
set -u
build=$1
if [ ! -x "$build/daemon/weftd" ] || [ ! -x "$build/cli/weft" ]; then
	echo "weft and weftd are not part of this build"
	exit 77
fi
dir=$(mktemp -d)
node=
export WEFT_SOCKET=$dir/weft.sock
unset WEFT_TOKEN
trap '[ -z "$node" ] || kill "$node" 2>/dev/null; wait; rm -rf "$dir"' EXIT

# shellcheck source=tests/integration/cli.sh
. "$(dirname "$0")/cli.sh"

start()
{
	"$build/daemon/weftd" -c /dev/null -o name=cli -o arena_bytes=64M -o hugepages=false \
		2>"$dir/log" &
	node=$!
	until "$build/cli/weft" status >/dev/null 2>&1; do
		[ "$SECONDS" -lt 60 ] || fail "the node does not start: $(cat "$dir/log")"
		kill -0 "$node" || fail "the node ended: $(cat "$dir/log")"
	done
}

# ---- without a node
for cmd in status stat ls top drain "get --key a" "drop --key a"; do
	# shellcheck disable=SC2086
	expect 4 $cmd
	says "$WEFT_SOCKET" err
done
expect 2
expect 2 stauts
says 'did you mean "status"' err
expect 2 foo
! grep -q 'did you mean' "$dir/err" || fail "a word that resembles none is taken for a typo"
expect 2 get --kee a
says 'did you mean --key' err
expect 2 get
expect 0 help
expect 0 help replay
says Examples
expect 0 version
# what it says depends on the machine, but it says it with its status too
healthy=True
"$build/cli/weft" doctor --json >"$dir/out" 2>"$dir/err" || healthy=False
json "d['healthy'] == $healthy and all(c['check'] for c in d['checks'])"

# ---- blocks
start
head -c 300000 /dev/urandom >"$dir/in"
expect 3 get --key greeting
expect 0 put --key greeting "$dir/in"
expect 0 get --key greeting "$dir/back"
cmp "$dir/in" "$dir/back" || fail "other bytes came back"
expect 0 put --json "$dir/in"
json 'd["key"]'
key=$(python3 -c 'import json, sys; print(json.load(sys.stdin)["key"])' <"$dir/out")
expect 0 get --key "$key" "$dir/back"
cmp "$dir/in" "$dir/back" || fail "other bytes came back under their digest"
head -c 4096 /dev/urandom >"$dir/block"
expect 0 put --raw --key 0x5f2a --block-bytes 4K "$dir/block"
expect 0 get --raw --key 0x5f2a --block-bytes 4K "$dir/back"
cmp "$dir/block" "$dir/back" || fail "another block came back"
expect 0 drop --key greeting
expect 3 get --key greeting
expect 3 drop --key greeting
expect 1 put --key x "$dir/nonexistent"
says nonexistent err

# ---- the node, seen from outside
expect 0 status
says cli
expect 0 status --json
json 'd["node"]["name"] == "cli" and d["tenants"][0]["blocks_held"] > 0'
json 'd["tenants"][0]["slots_filling"] == 0 and len(d["engines"]) >= 1'
expect 0 ls
expect 0 ls --json
json 'sum(s["blocks"] for s in d["spaces"]) > 0'
expect 1 ls --space weft-cli
says '2 spaces are named' err
expect 1 ls --space weft-cly
says 'did you mean "weft-cli"' err
expect 0 ls --json
id=$(python3 -c 'import json, sys; print(json.load(sys.stdin)["spaces"][1]["id"])' <"$dir/out")
expect 0 ls --space "$id"
says '^[0-9a-f]\{32\} *0 dram *held *0 '
expect 0 ls --space "$id" --json
json 'd["state"] == "held" and d["age_ms"] >= d["idle_ms"] and len(d["key"]) == 32' lines
expect 0 stat
says 'reuse gap'
expect 0 stat --json
json 'sum(s["puts"] for s in d["spaces"]) >= 3 and sum(s["hits"] for s in d["spaces"]) > 3'
json 'all(s["slots"] >= s["blocks"] and s["lifetime"]["count"] == 0 for s in d["spaces"])'
expect 0 top --once --interval 20ms
expect 0 top --once --interval 20ms --json
json 'd["ops_per_s"] >= 0' lines
expect 0 top --total
says put
expect 0 top --total --json
json 'd["seconds"] > 0.02' lines
expect 1 status --token wrong
says token err
expect 4 status --socket "$dir/other.sock"

expect 1 tier resize 64M
says 'no SSD tier' err
expect 2 tier
expect 2 tier resize much
says 'is no size' err
expect 2 tier resize 0
says 'is no size' err
expect 0 tier resize --gpu 0
says 'the tier of each GPU has'
expect 0 tier resize --gpu 8M --json
json 'd["bytes"] == 8 << 20'
expect 1 tier resize --gpu 2T
says 'at most 1048576 MiB' err

# ---- spaces go
expect 2 space
says 'wants "remove NAME"' err
expect 2 space remove
expect 1 space remove weft-cly
says 'did you mean "weft-cli"' err
expect 1 space remove weft-cli
says '2 spaces are named' err
expect 0 space remove "$id"
says 'has forgotten weft-cli:'
expect 1 space remove "$id"
says 'no space is named' err
expect 0 ls --json
json 'len(d["spaces"]) == 1'
expect 0 space remove weft-cli --json
json 'd["blocks"] > 0'
expect 0 ls --json
json 'd["spaces"] == []'
expect 3 get --key 0x5f2a --raw --block-bytes 4K
expect 0 put --raw --key 0x5f2a --block-bytes 4K "$dir/block"
expect 0 get --raw --key 0x5f2a --block-bytes 4K "$dir/back"
cmp "$dir/block" "$dir/back" || fail "another block came back"

# ---- traces
"$build/cli/weft" replay --generate 60 --seed 3 >"$dir/trace" || fail "no trace"
"$build/cli/weft" replay --generate 60 --seed 3 | cmp - "$dir/trace" || fail "seeds mean nothing"
[ "$(wc -l <"$dir/trace")" = 60 ] || fail "not 60 requests"
sed -i '5s/.*/{"timestamp": broken/; 9s/.*/{"timestamp": 1}/' "$dir/trace"
expect 0 replay --trace "$dir/trace" --block-bytes 4K --json
says ':5' err
says ':9' err
json 'd["requests"] == 58' lines
expect 0 replay --trace "$dir/trace" --block-bytes 4K --limit 10
expect 1 replay --trace "$dir/nonexistent"
expect 2 replay

# ---- the end
expect 0 drain
wait "$node" || fail "the drained node ended badly: $(cat "$dir/log")"
node=
expect 4 status
