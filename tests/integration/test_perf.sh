#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# test_perf.sh BUILD: each bench of weft-perf runs, and says what it measured in JSON with the names
# that figures are followed by. What the figures are is no matter here.
set -eu
perf=$1/perf/weft-perf
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

fail()
{
	echo "test_perf: $*" >&2
	exit 1
}

if [ ! -x "$perf" ]; then
	echo "weft-perf is not part of this build"
	exit 77
fi
if ! python3 -c 'import os, sys; sys.exit(not {0, 1} <= os.sched_getaffinity(0))'; then
	echo "the benchmarks need CPUs 0 and 1"
	exit 77
fi

# rows BENCH FILE...: prints "case peer" of each row, after a look at all of its fields
rows()
{
	"$perf" "$@" --json --quick --rounds 1 >"$dir/out" || fail "weft-perf $1 failed"
	python3 - "$1" "$dir/out" <<'END' || fail "weft-perf $1 --json: see above"
import json, sys

for line in open(sys.argv[2]):
    row = json.loads(line)
    want = {"bench", "case", "unit", "weft", "peer", "peer_value", "ratio"}
    assert set(row) - {"skipped"} == want, row
    assert row["bench"] == sys.argv[1], row
    assert row["weft"] >= 0, row
    measured = row["peer"] and "skipped" not in row
    assert bool(measured) == (row["ratio"] is not None) == (row["peer_value"] is not None), row
    print(row["case"], row["peer"])
END
}

# expect BENCH ROW...
expect()
{
	local bench=$1 row
	shift
	rows "$bench" >"$dir/rows"
	for row; do
		grep -qx "$row" "$dir/rows" || fail "$bench: no row '$row'"
	done
}

expect ring 'nop_rtt cacheline_pingpong' 'nop_rtt rte_ring' 'nop_rtt io_uring_nop' \
	'nop_batch32 io_uring_nop_batch32' 'wake futex_wake' 'idle_cpu None'
expect copy 'scatter_256x1KiB memcpy' 'scatter_4096x1KiB memcpy' \
	'unmapped_256x1KiB process_vm_writev' 'large_2MiB_pieces best_copy' \
	'large_2MiB_pieces memcpy'
expect get 'verified_2MiB plain_copy'
expect match 'chain1000 random_line' 'chain1000_rate None' 'state_per_block None'
expect put 'steady uthash_lru' 'steady_rate None'
expect index 'match64 random_line' 'match64_while_writing match64' 'match64_rate None' \
	'match64_p999 bare_loop' 'growth_pause bare_loop' 'state_per_block None' \
	'put_evict uthash_lru'
expect handoff 'by_reference by_reference_4KiB' 'by_reference_each None' \
	'layers_32x64x64KiB bare_layer' 'tp4to1_hnd same_layout' 'tp4to1_nhd same_layout'
expect directory 'announce None' 'lookup_chain64 None' 'announce_and_lookup None'
expect remote 'match64_shm bare_round_trip_64B' 'get_64x64KiB_shm copy_alone'

cat >"$dir/trace.jsonl" <<'END'
{"timestamp": 0, "input_length": 1024, "output_length": 1, "hash_ids": [1, 2]}
{"timestamp": 5, "input_length": 1536, "output_length": 1, "hash_ids": [1, 2, 3]}
END
rows trace "$dir/trace.jsonl" >"$dir/rows"
for row in 'trace_1000 lru' 'trace_30000 s3fifo' 'trace_5000 belady' 'trace_tokens_1000 belady'; do
	grep -qx "$row" "$dir/rows" || fail "trace: no row '$row'"
done
grep -q '"weft":0.4,' "$dir/out" || fail "trace: 2 of 5 blocks hit, said was: $(head -1 "$dir/out")"

{ echo '0,1024,1,1 2' && echo broken && echo '5,1536,1,1 2 3'; } >"$dir/csv.csv"
"$perf" trace --capacity 2,9 --policy lru "$dir/csv.csv" >"$dir/out" 2>"$dir/err" ||
	fail "trace: a CSV file is refused"
grep -q '^csv: 2 requests, 3 distinct blocks, 1 broken lines$' "$dir/out" ||
	fail "trace: a CSV file is read otherwise"
grep -q '^lru  *0.4000  *0.4000$' "$dir/out" || fail "trace: a CSV file is played otherwise"
grep -q 'csv.csv:2: ' "$dir/err" || fail "trace: a broken line is not named"
if command -v gnuplot >/dev/null; then
	"$perf" trace --plot "$dir/hits.png" "$dir/trace.jsonl" >"$dir/out" ||
		fail "trace: no plot"
	head -c 4 "$dir/hits.png" | grep -q PNG || fail "trace: the plot is no PNG"
fi
if PATH="$dir" "$perf" trace --plot "$dir/no.png" "$dir/trace.jsonl" >"$dir/out" 2>"$dir/err"; then
	fail "trace: plots without gnuplot"
fi
grep -q 'wants gnuplot' "$dir/err" || fail "trace: does not say that gnuplot is missing"
expect evict 'touch_evict_10000 lru' 'touch_evict_1000000 lru' 'touch_evict_flat_10000 lru'

# other systems' programs, played by one that speaks as they do
cat >"$dir/peer" <<'END'
#!/bin/sh
while read -r case ops; do
	[ "$ops" -gt 0 ] && echo 1000.5
done
END
chmod +x "$dir/peer"
rows compare "nixl=exec $dir/peer" >"$dir/rows"
for row in 'shm_write_256x1KiB nixl' 'shm_write_4096x1KiB nixl' 'shm_write_256x64KiB nixl'; do
	grep -qx "$row" "$dir/rows" || fail "compare: no row '$row'"
done
grep -q '"peer_value":1000.5,' "$dir/out" || fail "compare: has not what the peer said"
if "$perf" compare 'nixl=echo error: no; cat' >"$dir/out" 2>"$dir/err"; then
	fail "compare: a peer that fails is taken for one that works"
fi
grep -q "the peer's program says: error: no" "$dir/err" ||
	fail "compare: does not say what a peer said"
if "$perf" compare nixl >"$dir/out" 2>"$dir/err"; then
	fail "compare: takes what is no peer"
fi
rows compare >"$dir/rows"
grep -q '"skipped":"not given' "$dir/out" || fail "compare: a peer that was not given has a figure"

# usage STATUS TEXT ARGUMENT...
usage()
{
	local want=$1 text=$2 got=0

	shift 2
	"$perf" "$@" >"$dir/out" 2>"$dir/err" || got=$?
	[ "$got" = "$want" ] || fail "weft-perf $*: exit status $got, not $want"
	grep -q -e "$text" "$dir/err" || fail "weft-perf $* does not say '$text'"
}
usage 2 '--speed is an option of trace' ring --speed 3
usage 2 '--policy is an option of trace' all --policy lru
usage 2 'want --live' trace --socket /nowhere "$dir/rows"
usage 2 'which file' trace
usage 2 "no policy 'nosuch'" trace --policy nosuch "$dir/rows"
usage 1 'no request in it' trace /dev/null

"$perf" --help | grep -q 'examples:' || fail "--help shows no examples"
if "$perf" nosuch 2>/dev/null; then
	fail "a bench that is none is accepted"
fi
