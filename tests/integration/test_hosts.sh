#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# test_hosts.sh BUILD: the demo across three hosts, which are namespaces, and find each other in
# etcd: prefill on the first, decode on the second; the third, where etcd is, has a node that joins
# them, gets what they hold, and goes on alone
set -u
build=$1
root=$(cd "$(dirname "$0")/../.." && pwd)
dir=$(mktemp -d)
pids=()

# shellcheck source=tests/integration/hosts.sh
. "$(dirname "$0")/hosts.sh"

cleanup()
{
	[ ${#pids[@]} = 0 ] || kill "${pids[@]}" 2>/dev/null
	wait
	hosts_gone
	rm -rf "$dir"
}
trap cleanup EXIT

command -v etcd >/dev/null || skip "etcd is not installed (Debian: etcd-server)"
hosts 3
url=http://$(addr 3):2379
mkdir "$dir/1" "$dir/2"

# weft OUTPUT ARGUMENT...: at the third node
weft()
{
	local out=$dir/$1

	shift
	"$build/cli/weft" "$@" --socket "$dir/c.sock" >"$out" 2>"$dir/weft.out"
}

# until_says EXPRESSION: of the third node's status, as d, holds in the end; p are its peers
until_says()
{
	local end=$((SECONDS + 40))

	until weft status.json status --json && python3 -c 'import json, sys
d = json.load(open(sys.argv[1]))
p = {x["name"]: x["state"] for x in d["peers"]}
sys.exit(not eval(sys.argv[2]))' "$dir/status.json" "$1"; do
		[ $SECONDS -lt $end ] || fail "the third node never says: $1"
		sleep 0.05
	done
}

on_host 3 etcd --data-dir "$dir/etcd" --listen-client-urls "$url" --advertise-client-urls "$url" \
	--listen-peer-urls "http://$(addr 3):2380" \
	--initial-advertise-peer-urls "http://$(addr 3):2380" \
	--initial-cluster "default=http://$(addr 3):2380" >"$dir/etcd.out" 2>&1 &
pids+=($!)
on_host 3 "$build/daemon/weftd" -c /dev/null -o name=node-c -o "socket=$dir/c.sock" --insecure \
	-o arena_bytes=32M -o transport=tcp -o "listen=$(addr 3):7470" \
	-o "membership=etcd:$url" -o member_lease_ms=2s >"$dir/c.out" 2>&1 &
pids+=($!)
until_says 'd["network"]["membership"]["state"] == "ok"'

# demo HOST ARGUMENT...
demo()
{
	local host=$1

	shift
	export TMPDIR=$dir/$host
	on_host "$host" python3 "$root/examples/demo/demo.py" \
		--build "$build" --transport tcp --etcd "$url" --size tiny --max-tokens 4 \
		--generate 40 --arena 32M "$@"
}

demo 2 --here "$(addr 2)" --there "$(addr 1)" --serve >"$dir/b.out" 2>&1 &
far=$!
pids+=("$far")
demo 1 --here "$(addr 1)" --there "$(addr 2)" >"$dir/a.out" 2>&1 &
near=$!
pids+=("$near")

until_says 'p.get("node-a") == p.get("node-b") == "connected"'
head -c 65536 /dev/urandom >"$dir/block"
"$build/cli/weft" put --socket "$(find "$dir/2" -name node-b.sock)" --key of-b "$dir/block" \
	>"$dir/weft.out" 2>&1 || fail "no block is put at the second node"
end=$((SECONDS + 20))
until weft got get --key of-b && cmp -s "$dir/got" "$dir/block"; do
	[ $SECONDS -lt $end ] || fail "the third node does not get what the second has"
	sleep 0.05
done

wait $near || fail "the demo across three namespaces"
wait $far || fail "the demo's second host"
pids=("${pids[@]:0:2}")
grep -q 'all tokens and bytes are right' "$dir/a.out" || fail "what the demo says"
until_says 'not p and len(d["network"]["membership"]["members"]) == 1'
tail -n 22 "$dir/a.out"
