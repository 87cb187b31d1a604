#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# test_trace_live.sh BUILD: weft-perf trace --live plays a trace on weftd, checks each byte, and
# finds what the simulation finds.
set -u
build=$1
perf=$build/perf/weft-perf
if [ ! -x "$build/daemon/weftd" ] || [ ! -x "$build/cli/weft" ] || [ ! -x "$perf" ]; then
	echo "weft, weftd and weft-perf are not all part of this build"
	exit 77
fi
if ! python3 -c 'import os, sys; sys.exit(0 not in os.sched_getaffinity(0))'; then
	echo "the benchmarks need CPU 0"
	exit 77
fi
dir=$(mktemp -d)
node=
unset WEFT_TOKEN WEFT_SOCKET
trap '[ -z "$node" ] || kill "$node" 2>/dev/null; wait; rm -rf "$dir"' EXIT

# shellcheck source=tests/integration/cli.sh
. "$(dirname "$0")/cli.sh"

# start SETTING...
start()
{
	local sets=() s

	for s in "$@"; do
		sets+=(-o "$s")
	done
	"$build/daemon/weftd" -c /dev/null -o "socket=$dir/sock" -o hugepages=false \
		-o arena_bytes=2M "${sets[@]}" 2>"$dir/log" &
	node=$!
	until "$build/cli/weft" status --socket "$dir/sock" >/dev/null 2>&1; do
		kill -0 "$node" || fail "the node ended: $(cat "$dir/log")"
		[ "$SECONDS" -lt 60 ] || fail "the node does not start: $(cat "$dir/log")"
	done
}

stop()
{
	kill "$node"
	wait
	node=
}

# live STATUS ARGUMENT...
live()
{
	local want=$1 got=0

	shift
	"$perf" trace --live --socket "$dir/sock" --block-bytes 16K "$@" >"$dir/out" 2>"$dir/err" ||
		got=$?
	[ "$got" = "$want" ] || fail "trace --live $*: exit status $got, not $want"
}

# rows EXPRESSION: of the values by case, as v, and of the peers', as p
rows()
{
	python3 -c 'import json, sys
rows = [json.loads(line) for line in sys.stdin]
v = {r["case"]: r["weft"] for r in rows}
p = {r["case"]: r["peer_value"] for r in rows}
assert eval(sys.argv[1]), rows' "$1" <"$dir/out" 2>>"$dir/err" || fail "rows: $1"
}

expect 0 replay --generate 300 --seed 7
cp "$dir/out" "$dir/small.jsonl"

# ---- memory alone: 128 blocks, far fewer than the trace has
start policy=lru
live 0 "$dir/small.jsonl"
says 'room for 128 blocks of 16384 bytes, policy lru'
says '^wrong bytes  *0$'
says '^evicted before get  *0$'
live 0 --json "$dir/small.jsonl"
rows '0.2 < v["small_live"] < 0.9'
rows 'abs(v["small_live"] - p["small_live"]) < 0.01'
rows 'abs(v["small_live_tokens"] - p["small_live_tokens"]) < 0.01'
rows 'v["small_live_below"] == 0 and v["small_live_rate"] > 0 and v["small_live_requests"] > 0'
rows 'all(0 < v[f"small_live_{op}_p50"] <= v[f"small_live_{op}_p99"] <= v[f"small_live_{op}_p999"]
          for op in ("match", "get", "put"))'
# nothing is left of it
expect 0 ls --json --socket "$dir/sock"
json 'd["spaces"] == []'
# at a speed: the first ten requests span some seconds
head -n 10 "$dir/small.jsonl" >"$dir/ten.jsonl"
live 0 --json --speed 100 "$dir/ten.jsonl"
python3 -c 'import json, sys
ms = [json.loads(line)["timestamp"] for line in open(sys.argv[1])]
rate = [r["weft"] for r in map(json.loads, open(sys.argv[2])) if r["case"] == "ten_live_requests"]
assert rate[0] <= 10 / ((ms[-1] - ms[0]) / 1e3 / 100), (ms, rate)' "$dir/ten.jsonl" "$dir/out" \
	2>>"$dir/err" || fail "--speed is not kept to"
live 2 --plot "$dir/no.png" "$dir/small.jsonl"
says 'no --policy' err
live 1 "$dir/no-such-file"
says 'No such file' err
stop

# ---- the same memory above an SSD tier that holds all: nothing is lost, and some is below
start policy=lru "tier_path=$dir/tier" tier_bytes=64M tier_write_bytes=0
live 0 --json "$dir/small.jsonl"
rows 'v["small_live"] > p["small_live"] and v["small_live_below"] > 0'
expect 0 status --json --socket "$dir/sock"
json 'd["tiers"][0]["blocks"] == 0'
stop
live 1 "$dir/small.jsonl"
says 'is weftd running' err
