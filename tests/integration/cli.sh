# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# cli.sh - for scripts that test the command line: they set build and dir, and source this, or
# source it and call begin
# shellcheck disable=SC2154 # those two

# begin BUILD: sets build, dir, and nodes: those of start_node, which end with the script
begin()
{
	build=$1
	if [ ! -x "$build/daemon/weftd" ] || [ ! -x "$build/cli/weft" ]; then
		echo "weft and weftd are not part of this build"
		exit 77
	fi
	dir=$(mktemp -d)
	nodes=()
	unset WEFT_TOKEN WEFT_SOCKET
	trap '[ ${#nodes[@]} = 0 ] || kill -KILL "${nodes[@]}" 2>/dev/null
		wait; rm -rf "$dir"' EXIT
}

fail()
{
	echo "${0##*/}: $*" >&2
	echo "---- stdout" >&2
	head -c 2000 "$dir/out" >&2
	echo "---- stderr" >&2
	head -c 2000 "$dir/err" >&2
	exit 1
}

# expect STATUS ARGUMENT...: runs weft; its output is in $dir/out and $dir/err
expect()
{
	local want=$1 got=0

	shift
	"$build/cli/weft" "$@" >"$dir/out" 2>"$dir/err" </dev/null || got=$?
	[ "$got" = "$want" ] || fail "weft $*: exit status $got, not $want"
}

# says PATTERN [FILE]
says()
{
	grep -q -e "$1" "$dir/${2:-out}" || fail "no line has '$1' in ${2:-out}"
}

# json EXPRESSION: of what was printed, as d, must hold
json()
{
	python3 -c 'import json, sys
text = sys.stdin.read()
d = json.loads(text.splitlines()[-1] if sys.argv[2] == "lines" else text)
assert eval(sys.argv[1]), d' "$1" "${2:-whole}" <"$dir/out" 2>>"$dir/err" || fail "json: $1"
}

# start_node NODE SETTING...: a weftd at $dir/NODE.sock; its pid is added to the nodes
start_node()
{
	local name=$1 sets=() s

	shift
	for s in "$@"; do
		sets+=(-o "$s")
	done
	"$build/daemon/weftd" -c /dev/null -o "name=$name" -o "socket=$dir/$name.sock" \
		-o hugepages=false "${sets[@]}" 2>"$dir/$name.log" &
	nodes+=($!)
	until "$build/cli/weft" status --socket "$dir/$name.sock" >/dev/null 2>&1; do
		kill -0 "${nodes[-1]}" || fail "a node ended: $(cat "$dir/$name.log")"
		[ "$SECONDS" -lt 60 ] || fail "a node does not start: $(cat "$dir/$name.log")"
	done
}
