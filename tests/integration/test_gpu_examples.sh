#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# test_gpu_examples.sh BUILD: the examples that have their blocks on a GPU, with a mocked driver.
set -u
build=$1
dir=$(mktemp -d)
nodes=()
trap '[ ${#nodes[@]} = 0 ] || kill "${nodes[@]}"; wait; rm -rf "$dir"' EXIT

# shellcheck source=tests/integration/cli.sh
. "$(dirname "$0")/cli.sh"

here=$(dirname "$0")/../../examples/gpu
export LD_LIBRARY_PATH=$build/tests/unit
start_node one arena_bytes=64M
export WEFT_SOCKET=$dir/one.sock WEFT_LIB=$build/daemon/libweft.so.0

# share ARGUMENT...: its output is in $dir/out and $dir/err. Return: its status
share()
{
	"$build/examples/gpu/gpu-share" "$@" >"$dir/out" 2>"$dir/err"
}

for memory in malloc vmm; do
	share $memory || fail "$memory: status $?"
	says '64 blocks of 32768 bytes .* all right'
	share $memory 500 8192 || fail "$memory: status $?"
	says '500 blocks of 8192 bytes .* all right'
done
for memory in malloc vmm; do
	"$build/examples/gpu/gpu-handoff" $memory 300 8192 >"$dir/out" 2>"$dir/err" ||
		fail "gpu-handoff $memory: status $?"
	says '300 blocks of 8192 bytes handed over .* all right'
done
# between two nodes
start_node decode arena_bytes=64M
start_node prefill arena_bytes=64M \
	"peers=({ name = \"decode\"; socket = \"$dir/decode.sock\"; })"
until grep -q 'is connected over' "$dir/prefill.log"; do
	[ "$SECONDS" -lt 60 ] || fail "the nodes do not connect"
done
for memory in malloc vmm; do
	WEFT_SOCKET=$dir/prefill.sock DECODE_SOCKET=$dir/decode.sock \
		"$build/examples/gpu/gpu-handoff" $memory 300 8192 >"$dir/out" 2>"$dir/err" ||
		fail "gpu-handoff $memory between nodes: status $?"
	says '300 blocks of 8192 bytes handed over .* all right'
done
WEFT_SOCKET=$dir/none "$build/examples/gpu/gpu-handoff" vmm >"$dir/out" 2>"$dir/err"
[ $? = 1 ] || fail "gpu-handoff: no node, and all is well"
MOCK_CUDA='0 1 1' "$build/examples/gpu/gpu-handoff" vmm >"$dir/out" 2>"$dir/err"
[ $? = 77 ] || fail "gpu-handoff: no GPU, and no skip"
share managed
[ $? = 2 ] || fail "a kind of memory that there is not"
share malloc 64 100
[ $? = 2 ] || fail "blocks that have no whole layers"
# more than the arena has
share malloc 40000 4096
[ $? = 1 ] || fail "more than fits"
says 'gpu-share: .' err

python3 "$here/gpu_share.py" driver >"$dir/out" 2>"$dir/err" || fail "gpu_share.py: status $?"
says '32 blocks of 65536 bytes .* all right'

# no GPU, no driver, no torch: said, and skipped
MOCK_CUDA='0 1 1' share malloc
[ $? = 77 ] || fail "no GPU, and no skip"
says 'no GPU here'
if ! ldconfig -p | grep -q libcuda.so.1; then
	LD_LIBRARY_PATH='' share malloc
	[ $? = 77 ] || fail "no driver, and no skip"
	LD_LIBRARY_PATH='' python3 "$here/gpu_share.py" driver >"$dir/out" 2>"$dir/err"
	[ $? = 77 ] || fail "gpu_share.py: no driver, and no skip"
	says 'skipped: there is no libcuda.so.1'
fi
if ! python3 -c 'import torch' 2>/dev/null; then
	python3 "$here/gpu_share.py" >"$dir/out" 2>"$dir/err"
	[ $? = 77 ] || fail "gpu_share.py: no torch, and no skip"
	says 'skipped: there is no torch'
fi
# nobody to attach to
WEFT_SOCKET=$dir/none share malloc
[ $? = 1 ] || fail "no node, and all is well"
says 'gpu-share: .*none' err
