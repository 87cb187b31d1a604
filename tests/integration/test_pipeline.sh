#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# test_pipeline.sh BUILD: tinylm in two processes, in one node and over two, gives the tokens of one
set -u
build=$1
tinylm=$build/examples/tinylm
if [ ! -x "$build/daemon/weftd" ] || [ ! -x "$tinylm/tinylm-pipeline" ]; then
	echo "weftd and tinylm are not part of this build"
	exit 77
fi
dir=$(mktemp -d)
nodes=()
unset WEFT_TOKEN WEFT_SOCKET
trap '[ ${#nodes[@]} = 0 ] || kill "${nodes[@]}" 2>/dev/null; wait; rm -rf "$dir"' EXIT

# shellcheck source=tests/integration/cli.sh
. "$(dirname "$0")/cli.sh"

# pipeline SOCKET SECOND ARGUMENT...: its tokens are those of tinylm with these arguments
pipeline()
{
	local one=$dir/$1.sock two=$dir/$2.sock

	shift 2
	"$tinylm/tinylm" --embedded "$@" 2>"$dir/err" | sed 's/.*: //' >"$dir/want"
	"$tinylm/tinylm-pipeline" --socket "$one" --second "$two" "$@" >"$dir/out" 2>"$dir/err" ||
		fail "$*: it failed"
	cmp -s "$dir/want" "$dir/out" || fail "$*: tinylm says $(head -c 300 "$dir/want")"
}

start_node b arena_bytes=64M
start_node a arena_bytes=64M "peers=({ name = \"b\"; socket = \"$dir/b.sock\"; })"

long=$(head -c 700 "$0")
pipeline a a --prompt 'Once upon a time' --max-tokens 24
pipeline a a --size small --seed 7 --prompt "$long" --max-tokens 8
until "$build/cli/weft" status --socket "$dir/a.sock" | grep -q 'b.*connected'; do
	[ "$SECONDS" -lt 60 ] || fail "the nodes do not connect"
	sleep 0.1
done
pipeline a b --prompt 'Once upon a time' --max-tokens 24
pipeline b a --prompt "$long" --max-tokens 8
if "$tinylm/tinylm-pipeline" --prompt x --size huge >"$dir/out" 2>"$dir/err"; then
	fail "a size that is none is taken"
fi
says usage: err
