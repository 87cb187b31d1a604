#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# test_netns.sh BUILD: the demo between two hosts, which are network namespaces with a wire between
# them. The nodes prove who they are over TLS; meanwhile their certificates are read anew, over and
# over
set -u
build=$1
root=$(cd "$(dirname "$0")/../.." && pwd)
dir=$(mktemp -d)
far=

# shellcheck source=tests/integration/hosts.sh
. "$(dirname "$0")/hosts.sh"

cleanup()
{
	[ -z "$far" ] || kill "$far" 2>/dev/null
	wait
	hosts_gone
	rm -rf "$dir"
}
trap cleanup EXIT

hosts 2
"$build/cli/weft" pki init "$dir/pki" >/dev/null 2>&1 || skip "built without TLS"
for side in a b; do
	"$build/cli/weft" pki node "$dir/pki" node-$side >/dev/null || fail "no certificate"
done
mkdir "$dir/1" "$dir/2"

# demo HOST ARGUMENT...
demo()
{
	local host=$1

	shift
	export TMPDIR=$dir/$host
	on_host "$host" python3 "$root/examples/demo/demo.py" \
		--build "$build" --transport tcp --size tiny --max-tokens 4 --generate 40 \
		--arena 32M --pki "$dir/pki" "$@"
}

# without certificates no address of a network is listened on
(on_host 1 "$build/daemon/weftd" -c /dev/null -o "socket=$dir/plain.sock" \
	-o transport=tcp -o listen="$(addr 1):7470") >"$dir/plain.out" 2>&1
rc=$?
if [ $rc != 2 ] || ! grep -q 'set tls_cert' "$dir/plain.out"; then
	fail "a node listens without certificates"
fi

demo 2 --here "$(addr 2)" --there "$(addr 1)" --serve >"$dir/b.out" 2>&1 &
far=$!
demo 1 --here "$(addr 1)" --there "$(addr 2)" >"$dir/a.out" 2>&1 &
near=$!

# nodes have this test's folder in the names of their sockets
reloads=0
while kill -0 $near 2>/dev/null; do
	for pid in $(pgrep -f -- "socket=$dir/[12]/"); do
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
