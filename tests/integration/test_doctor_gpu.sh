#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# test_doctor_gpu.sh BUILD: what weft doctor says of GPUs, with a mocked driver, and without one.
set -u
build=$1
if [ ! -x "$build/cli/weft" ] || [ ! -e "$build/tests/unit/libcuda.so.1" ]; then
	echo "weft and the mock of the CUDA driver are not part of this build"
	exit 77
fi
dir=$(mktemp -d)
unset WEFT_TOKEN WEFT_SOCKET
trap 'rm -rf "$dir"' EXIT

# shellcheck source=tests/integration/cli.sh
. "$(dirname "$0")/cli.sh"

# doctor HOW: with the driver's mock as HOW says
doctor()
{
	MOCK_CUDA=$1 LD_LIBRARY_PATH=$build/tests/unit "$build/cli/weft" doctor --json \
		--config "$dir/conf" --socket "$dir/no" >"$dir/out" 2>"$dir/err"
}

# found CHECK RESULT TEXT [WHAT-TO-DO]
found()
{
	json "[c for c in d['checks'] if c['check'] == '$1' and c['result'] == '$2' and
		'''$3''' in c['found'] and '''${4:-}''' in c['todo']]"
}

touch "$dir/conf"
doctor '2 1 1'
if grep -q 'built without CUDA' "$dir/out"; then
	found gpu ok 'built without CUDA'
	exit 0
fi
found 'gpu 0' ok 'Mock GPU, 80.0 GiB, sm_90, 132 multiprocessors, driver of CUDA 13.0'
found 'gpu 1' ok 'PCI 0000:a1:00.0; dma-buf export: yes'
found 'gpu 0 and gpu 1' ok 'peer access, links of rank 0'
doctor '2 0 0'
found 'gpu 0' warn 'dma-buf export: no' 'open kernel module'
found 'gpu 0 and gpu 1' warn 'no peer access' 'nvidia-smi topo'
doctor '1 1 1'
json "not any('gpu 1' in c['check'] for c in d['checks'])"
doctor '0 1 1'
json "any(c['check'] == 'gpu' and 'shows none' in c['found'] + c['todo'] for c in d['checks'])"

# ---- drivers that do not work
doctor '1 1 1 cuInit 803'
json "any(c['check'] == 'gpu' and 'two versions' in c['found'] + c['todo'] for c in d['checks'])"
doctor '1 1 1 cuDeviceGetAttribute 46'
found 'gpu 0' fail 'does not say what it is' 'nvidia-smi'
grep -q 'in use by another process' "$dir/err" || fail "the log does not say why"
doctor '2 1 1 cuDeviceGetP2PAttribute 999'
found 'gpu 0 and gpu 1' fail ''
