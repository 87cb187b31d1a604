#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# test_netns.sh BUILD: the demo between two hosts, which are network namespaces with a wire between
# them. The nodes prove who they are over TLS; meanwhile their certificates are read anew, over and
# over
set -u
build=$1
root=$(cd "$(dirname "$0")/../.." && pwd)
dir=$(mktemp -d)
ns=weft-$$
here=10.98.7.1 there=10.98.7.2
far=

cleanup()
{
	[ -z "$far" ] || kill "$far" 2>/dev/null
	wait
	ip netns del $ns-a 2>/dev/null
	ip netns del $ns-b 2>/dev/null
	rm -rf "$dir"
}
trap cleanup EXIT

skip()
{
	echo "$*"
	exit 77
}

fail()
{
	echo "FAIL: $*"
	tail -n 30 "$dir"/*.out
	exit 1
}

[ "$(id -u)" = 0 ] || skip "only root makes network namespaces"
mountpoint -q / || skip "the root is no mount point: namespaces are not whole here"
command -v ip >/dev/null || skip "iproute2 is not installed"
"$build/cli/weft" pki init "$dir/pki" >/dev/null 2>&1 || skip "built without TLS"
for side in a b; do
	ip netns add $ns-$side 2>/dev/null || skip "no network namespace can be made here"
done
ip link add name $ns-a netns $ns-a type veth peer name $ns-b netns $ns-b 2>/dev/null ||
	skip "no veth can be made here"
ip -n $ns-a addr add $here/24 dev $ns-a
ip -n $ns-b addr add $there/24 dev $ns-b
for side in a b; do
	ip -n $ns-$side link set lo up
	ip -n $ns-$side link set $ns-$side up
	"$build/cli/weft" pki node "$dir/pki" node-$side >/dev/null || fail "no certificate"
done
mkdir "$dir/a" "$dir/b"

# demo SIDE ARGUMENT...
demo()
{
	local side=$1

	shift
	TMPDIR=$dir/$side exec nsenter --net="/run/netns/$ns-$side" \
		python3 "$root/examples/demo/demo.py" \
		--build "$build" --transport tcp --size tiny --max-tokens 4 --generate 40 \
		--arena 32M --pki "$dir/pki" "$@"
}

# without certificates no address of a network is listened on
nsenter --net=/run/netns/$ns-a "$build/daemon/weftd" -c /dev/null -o "socket=$dir/plain.sock" \
	-o transport=tcp -o listen=$here:7470 >"$dir/plain.out" 2>&1
rc=$?
if [ $rc != 2 ] || ! grep -q 'set tls_cert' "$dir/plain.out"; then
	fail "a node listens without certificates"
fi

demo b --here $there --there $here --serve >"$dir/b.out" 2>&1 &
far=$!
demo a --here $here --there $there >"$dir/a.out" 2>&1 &
near=$!

# nodes have this test's folder in the names of their sockets
reloads=0
while kill -0 $near 2>/dev/null; do
	for pid in $(pgrep -f -- "socket=$dir/[ab]/"); do
		if grep -q weftd "/proc/$pid/comm" 2>/dev/null && kill -HUP "$pid" 2>/dev/null; then
			reloads=$((reloads + 1))
		fi
	done
	sleep 0.05
done
wait $near || fail "the demo between two namespaces"
wait $far || fail "the demo's second host"
far=
grep -q 'all tokens and bytes are right' "$dir/a.out" || fail "what the demo says"
[ $reloads -gt 10 ] || fail "certificates were read anew $reloads times only"
tail -n 22 "$dir/a.out"
echo "certificates were read anew $reloads times meanwhile"
