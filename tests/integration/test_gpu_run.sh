#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# test_gpu_run.sh BUILD: tests/gpu/run as on a GPU machine, from a kit, with a mocked driver.
set -u
build=$1
if [ ! -x "$build/tests/unit/gpu_real" ] || [ ! -x "$build/perf/weft-perf" ] ||
	[ ! -x "$build/examples/gpu/gpu-share" ] ||
	[ ! -e "$build/gpu/kernels/weft.fatbin" ]; then
	echo "weft-perf and kernels for GPUs are not part of this build"
	exit 77
fi
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

# shellcheck source=tests/integration/cli.sh
. "$(dirname "$0")/cli.sh"

here=$(dirname "$0")/../gpu/run
"$here" --kit "$dir/kit" --build "$build" >"$dir/out" 2>"$dir/err" || fail "no kit"
cp "$build/tests/unit/libcuda.so.1" "$dir/kit/lib/"
mkdir "$dir/results"
OUT=$dir/results "$dir/kit/run" --quick >"$dir/out" 2>"$dir/err" || fail "status $?"
says ' 0 failed'
[ "$(grep -c 'all right$' "$dir/out")" -ge 9 ] || fail "not all blocks between processes"
says 'pieces under .* go to it by a kernel'
for row in gather_512B scatter_32KiB nhd_to_hnd tp4to1 crc32c bf16_to_fp8 fp8_to_bf16 \
	to_host_32KiB from_host_32KiB gather_256_small ipc_handoff; do
	says "$row"
done
cmp <(grep '^gpu ' "$dir/out") <(grep '^gpu ' "$dir/results/gpu.txt") || fail "other rows in OUT"

# no GPU, and a driver that does not work
MOCK_CUDA='0 1 1' "$dir/kit/run" --quick >"$dir/out" 2>"$dir/err"
[ $? = 1 ] || fail "no GPU, and all is well"
rm "$dir/kit/lib/libcuda.so.1"
if ! ldconfig -p | grep -q libcuda.so.1; then
	"$dir/kit/run" --quick >"$dir/out" 2>"$dir/err"
	[ $? = 77 ] || fail "no driver, and no skip"
	says 'libcuda.so.1 is not here'
fi
"$here" --what >"$dir/out" 2>"$dir/err"
[ $? = 2 ] || fail "a wrong option is not refused"
