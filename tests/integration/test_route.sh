#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# test_route.sh BUILD: three nodes of one host, and what each says is best for a chain
set -u
# shellcheck source=tests/integration/cli.sh
. "$(dirname "$0")/cli.sh"
begin "$1"

# peers NAME...: a setting with these
peers()
{
	local list='' name

	for name in "$@"; do
		list+="${list:+, }{ name = \"$name\"; socket = \"$dir/$name.sock\"; }"
	done
	echo "peers=($list)"
}

# route_until NODE EXPRESSION: of weft route --json, as n, by name, and d, holds in the end
route_until()
{
	local end=$((SECONDS + 40))

	while ! "$build/cli/weft" route --block-bytes 64K --json --socket "$dir/$1.sock" - \
		<"$dir/keys" 2>"$dir/err" | tee "$dir/out" | python3 -c 'import json, sys
d = json.load(sys.stdin)
n = {x["node"]: x for x in d["nodes"]}
sys.exit(not eval(sys.argv[1]))' "$2" 2>>"$dir/err"; do
		[ "$SECONDS" -lt "$end" ] || fail "never came: $2"
		sleep 0.05
	done
}

start_node a arena_bytes=16M "$(peers b c)"
start_node b arena_bytes=16M "$(peers a c)"
start_node c arena_bytes=16M "$(peers a b)"

head -c 1000000 /dev/urandom >"$dir/in"
expect 0 put --block-bytes 64K --key x --socket "$dir/b.sock" "$dir/in"
expect 0 ls --space weft-cli --json --socket "$dir/b.sock"
python3 -c 'import json, sys
blocks = [json.loads(line) for line in sys.stdin]
blocks.sort(key=lambda b: b["depth"])
print("\n".join(b["key"] for b in blocks))' <"$dir/out" >"$dir/keys"
[ "$(wc -l <"$dir/keys")" = 16 ] || fail "16 blocks were put"

# ---- whoever is asked says the same
for node in a b c; do
	route_until $node 'len(n) == 3 and n["b"]["memory"] == 16 and n["a"]["fetch"] == 16'
	json 'd["blocks"] == 16 and d["nodes"][0]["node"] == "b" and d["nodes"][0]["cost_us"] == 0'
	json 'all(x["memory"] == 0 and x["ssd"] == 0 and x["fetch_us"] > 0 for x in d["nodes"][1:])'
	json "[x[\"state\"] for x in d[\"nodes\"] if x[\"node\"] == \"$node\"] == [\"this node\"]"
	json 'all(0 <= x["load"] <= 1 for x in d["nodes"])'
done
# a link that has carried blocks has a speed, which its own node tells everybody
expect 0 get --block-bytes 64K --key x --socket "$dir/a.sock" "$dir/back"
cmp -s "$dir/in" "$dir/back" || fail "other bytes came back"
route_until c 'n["a"]["bytes_per_s"] > 0'

# ---- some of them, by name or id, and as a table
id=$(python3 -c 'import json, sys
print([x["id"] for x in json.load(sys.stdin)["nodes"] if x["node"] == "b"][0])' <"$dir/out")
mapfile -t keys <"$dir/keys"
export WEFT_SOCKET=$dir/c.sock
expect 0 route --block-bytes 64K --nodes "a,$id" --json "${keys[@]}"
json 'sorted(x["node"] for x in d["nodes"]) == ["a", "b"]'
expect 0 route --block-bytes 64K --nodes 0x77 --json "${keys[0]}"
json '[(x["node"], x["state"]) for x in d["nodes"]] == [("-", "dead")]'
expect 0 route --block-bytes 64K --block-time 5ms "${keys[@]}"
says '^NODE .*COST'
says '^b  *up  *16 '
# the space by its name says the same, whole
expect 0 route --space weft-cli --nodes b --json "${keys[@]}"
json '[x["memory"] for x in d["nodes"]] == [16]'
expect 0 route --space weft-cli:bytes --nodes b --json "${keys[@]}"
json '[x["memory"] for x in d["nodes"]] == [16]'
expect 2 route --space weft-cli --block-bytes 64K "${keys[@]}"
says 'beside it' err
expect 1 route --space weft-clo "${keys[@]}"
says 'did you mean "weft-cli"' err
# keys that nobody has cost what computing them takes
expect 0 route --block-bytes 64K --block-time 5ms --json 0123456789abcdef0123456789abcdef
json 'all(x["cost_us"] >= 5000 and x["fetch"] == 0 for x in d["nodes"])'

# ---- mistakes
expect 2 route
says 'wants the keys' err
expect 2 route 0123
says '32 hex digits' err
expect 2 route --nodes cc "${keys[0]}"
says 'did you mean "c"' err
expect 2 route --nodes , "${keys[0]}"

# ---- a space that goes is gone for all
expect 0 space remove weft-cli --socket "$dir/b.sock"
route_until c 'n["b"]["memory"] == 0'
expect 0 put --block-bytes 64K --key x --socket "$dir/b.sock" "$dir/in"
route_until c 'n["b"]["memory"] == 16'

# ---- a node that stops answering is dead, in time; one that is killed is not there any more
kill -STOP "${nodes[0]}"
begin=$(date +%s%N)
route_until c 'n["a"]["state"] == "dead"'
[ $((($(date +%s%N) - begin) / 1000000)) -lt 3000 ] || fail "a dead node was waited for"
json 'd["nodes"][-1]["node"] == "a" and d["nodes"][0]["node"] == "b"'
kill -CONT "${nodes[0]}"
route_until c 'n["a"]["state"] == "up"'
kill -KILL "${nodes[1]}"
route_until c '"b" not in n or n["b"]["state"] == "dead"'
exit 0
