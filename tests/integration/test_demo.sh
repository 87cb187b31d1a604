#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# test_demo.sh BUILD: the demo with files of a user's, with bad ones, and stopped in the middle:
# it says what is wrong and leaves no process behind
set -u
build=$1
script=$(cd "$(dirname "$0")/../.." && pwd)/examples/demo/demo.py
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
failed=0

fail()
{
	echo "FAIL: $*"
	failed=1
}

demo()
{
	TMPDIR=$dir python3 "$script" --build "$build" "$@"
}

# processes that name this test's folder: nodes have their sockets in it
left()
{
	pgrep -f -- "socket=$dir/" || true
}

# wants TEXT CMD...: fails, in one sentence that has TEXT in it
wants()
{
	local text=$1 out

	shift
	if out=$("$@" 2>&1); then
		fail "$*: it did not fail"
	fi
	case $out in
	*Traceback*) fail "$*: $out" ;;
	*"$text"*) ;;
	*) fail "$*: no \"$text\" in: $out" ;;
	esac
	[ -z "$(left)" ] || fail "$*: it left processes behind"
}

mkdir "$dir/a place"
printf 'One prompt of two that begin alike, say so.\nOne prompt of two that begin alike, I say.\n' \
	>"$dir/a place/prompts.txt"
printf '%s\n' '{"timestamp":0,"input_length":1024,"output_length":5,"hash_ids":[1,2]}' 'no JSON' \
	'{"timestamp":9,"input_length":1536,"output_length":5,"hash_ids":[1,2,3]}' \
	>"$dir/a place/trace.jsonl"
out=$(cd "$dir/a place" && demo --size tiny --max-tokens 4 --prompts prompts.txt \
	--trace trace.jsonl 2>&1) || fail "a small demo: $out"
case $out in
*"8 of 8"*"all tokens and bytes are right"*) ;;
*) fail "what a small demo says: $out" ;;
esac
[ -z "$(left)" ] || fail "the demo left processes behind"

# nodes that meet over a network, each test run at an address of its own
for way in tcp ucx ucx:posix; do
	transport=${way%%:*}
	device=()
	[ "$way" = "$transport" ] || device=(--device "${way#*:}")
	"$build/cli/weft" doctor | grep -q "transport $transport.*built in" || continue
	here=127.$((RANDOM % 250 + 1)).$((RANDOM % 250)).9
	out=$(demo --size tiny --max-tokens 2 --prompts "$dir/a place/prompts.txt" --generate 20 \
		--transport "$transport" "${device[@]}" --here $here 2>&1) ||
		fail "a demo over $way: $out"
	case $out in
	*"all tokens and bytes are right"*) ;;
	*) fail "what a demo over $way says: $out" ;;
	esac
	[ -z "$(left)" ] || fail "the demo over $way left processes behind"
done

printf 'caf\351\n' >"$dir/latin.txt"
: >"$dir/empty.txt"
wants "prompts.txt: " demo --size tiny --prompts "$dir/none/prompts.txt"
wants "utf-8" demo --size tiny --prompts "$dir/latin.txt"
wants "no prompt" demo --size tiny --prompts "$dir/empty.txt"
wants "'kv8b'" demo --size huge
wants "none.jsonl" demo --size tiny --max-tokens 1 --prompts "$dir/a place/prompts.txt" \
	--trace "$dir/none.jsonl"

for signal in INT TERM HUP; do
	# one of its own: a process of the round before may end late, and its end be read here
	mkfifo "$dir/said.$signal"
	# a script's children ignore SIGINT, unless job control is on
	set -m
	TMPDIR=$dir python3 "$script" --build "$build" --size kv8b --max-tokens 1000 \
		>"$dir/said.$signal" 2>"$dir/errors" &
	pid=$!
	set +m
	exec 3<"$dir/said.$signal"
	while read -r line <&3; do
		case $line in *"single process"*) break ;; esac
	done
	[ -n "$(left)" ] || fail "SIG$signal: no node to leave behind"
	kill -s $signal -- -$pid
	wait $pid 2>/dev/null
	rc=$?
	exec 3<&-
	[ $rc = 1 ] || fail "SIG$signal: status $rc: $(cat "$dir/errors")"
	grep -q "stopped by SIG$signal" "$dir/errors" || fail "SIG$signal: $(cat "$dir/errors")"
	[ -z "$(left)" ] || fail "SIG$signal: it left processes behind"
done
[ -z "$(find "$dir" -name 'weft-demo-*')" ] || fail "it left files behind"
[ $failed = 0 ] && echo "the demo does what it says"
exit $failed
