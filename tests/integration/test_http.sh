#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# test_http.sh BUILD: what is answered over HTTP, also to those who ask in bad faith
set -u
here=$(dirname "$0")
# shellcheck source=tests/integration/cli.sh
. "$here/cli.sh"
begin "$1"

# web STEP NODE [ARGUMENT...]
web()
{
	python3 "$here/test_http.py" "$1" "127.0.0.1:${ports[$2]}" "${@:3}" >"$dir/out" \
		2>"$dir/err" || fail "$1: $(cat "$dir/err")"
}

# patient STEP NODE: the same beside what follows, since the node lets it wait; until joined
patient()
{
	python3 "$here/test_http.py" "$1" "127.0.0.1:${ports[$2]}" 2>"$dir/$1.err" &
	patients[$1]=$!
}

joined()
{
	wait "${patients[$1]}" || fail "$1: $(cat "$dir/$1.err")"
}

# refused PATTERN SETTING...: weftd does not start, and says why
refused()
{
	local sets=() s

	for s in "${@:2}"; do
		sets+=(-o "$s")
	done
	timeout 20 "$build/daemon/weftd" -c /dev/null -o "socket=$dir/x.sock" -o arena_bytes=1M \
		-o hugepages=false "${sets[@]}" >"$dir/out" 2>"$dir/err" && fail "${*:2} is taken"
	says "$1" err
}

declare -A ports=() patients=()
read -r "ports[a]" "ports[b]" < <(python3 -c 'import socket
s = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*[x.getsockname()[1] for x in s])')

start_node a arena_bytes=16M "http_listen=127.0.0.1:${ports[a]}" \
	"peers=({ name = \"b\"; socket = \"$dir/b.sock\"; })"
if grep -q 'built without HTTP' "$dir/a.log"; then
	echo "weftd was built without libmicrohttpd"
	exit 77
fi
start_node b arena_bytes=16M "http_listen=127.0.0.1:${ports[b]}" \
	"peers=({ name = \"a\"; socket = \"$dir/a.sock\"; })" \
	'tenants=({ name = "default"; }, { name = "other"; token = "secret"; })'

head -c 500000 /dev/urandom >"$dir/in"
expect 0 put --block-bytes 64K --key x --socket "$dir/b.sock" "$dir/in"
expect 0 ls --space weft-cli --json --socket "$dir/b.sock"
python3 -c 'import json, sys
blocks = [json.loads(line) for line in sys.stdin]
blocks.sort(key=lambda b: b["depth"])
print("\n".join(b["key"] for b in blocks))' <"$dir/out" >"$dir/keys"
# a space is known where it was opened
expect 3 get --block-bytes 64K --key nothing --socket "$dir/a.sock"

web metrics a
web members a a b
web route a "$dir/keys" b
web route b "$dir/keys" b
# another tenant's blocks are another's
expect 0 put --block-bytes 64K --key x --socket "$dir/b.sock" --token secret "$dir/in"
web foreign b "$dir/keys" secret
patient garbage a
patient loris b

# ---- what comes and goes
read -r "ports[c]" < <(python3 -c 'import socket
print(socket.create_server(("127.0.0.1", 0)).getsockname()[1])')
start_c()
{
	start_node c arena_bytes=16M "http_listen=127.0.0.1:${ports[c]}" \
		'tenants=({ name = "default"; }, { name = "other"; token = "secret"; })'
}
start_c
web events c "$build/cli/weft" "$dir/c.sock" secret
last=$(cat "$dir/out")
# somebody listens while it stops
python3 "$here/test_http.py" events_end "127.0.0.1:${ports[c]}" >"$dir/held" &
listener=$!
until [ -s "$dir/held" ]; do
	kill -0 "$listener" || fail "nobody listens"
	sleep 0.01
done
kill "${nodes[2]}"
wait "${nodes[2]}" || fail "weftd does not stop as it should: $(cat "$dir/c.log")"
wait "$listener" || fail "a stream has no end"
start_c
web events_anew c "$build/cli/weft" "$dir/c.sock" "$last"
web events_slow c "$build/cli/weft" "$dir/c.sock"

web mistakes a
joined garbage
web pipeline a
joined loris
web route a "$dir/keys" b

# ---- settings
refused 'not one IP:PORT' 'http_listen=127.0.0.1:1, 127.0.0.1:2'
refused 'is an address of a network' 'http_listen=192.0.2.1:80'
refused 'the same' 'http_listen=127.0.0.1:7470' 'listen=127.0.0.1:7470' 'transport=tcp'
refused "127.0.0.1:${ports[a]}" "http_listen=127.0.0.1:${ports[a]}"
printf 'http_listen = "127.0.0.1:%s";\n' "${ports[a]}" >"$dir/weftd.conf"
"$build/cli/weft" doctor --config "$dir/weftd.conf" >"$dir/out" 2>"$dir/err"
says "127.0.0.1:${ports[a]}.*taken"

# ---- a node that stops does so while somebody asks
python3 -c 'import socket, sys, time
s = [socket.create_connection(("127.0.0.1", int(sys.argv[1]))) for _ in range(8)]
for x in s:
	x.sendall(b"POST /route HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc")
print("ready", flush=True)
time.sleep(30)' "${ports[a]}" >"$dir/asks" &
nodes+=($!)
until [ -s "$dir/asks" ]; do
	kill -0 "${nodes[-1]}" || fail "nobody asks"
	sleep 0.01
done
kill "${nodes[0]}"
wait "${nodes[0]}" || fail "weftd does not stop as it should: $(cat "$dir/a.log")"
exit 0
