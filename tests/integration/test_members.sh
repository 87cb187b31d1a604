#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# test_members.sh BUILD: nodes that find each other, by a file and by etcd; what weft says of it;
# settings and tenants that change while they run.
set -u
build=$1
if [ ! -x "$build/daemon/weftd" ] || [ ! -x "$build/cli/weft" ]; then
	echo "weft and weftd are not part of this build"
	exit 77
fi
dir=$(mktemp -d)
declare -A pids=()
etcd=
unset WEFT_TOKEN WEFT_SOCKET
# shellcheck disable=SC2154
trap '[ ${#pids[@]} = 0 ] || kill -KILL "${pids[@]}" 2>/dev/null
	[ -z "$etcd" ] || kill -KILL "$etcd" 2>/dev/null; wait; rm -rf "$dir"' EXIT

# shellcheck source=tests/integration/cli.sh
. "$(dirname "$0")/cli.sh"

# node NAME [SETTING...]: on return it listens
node()
{
	local name=$1 sets=() set

	shift
	for set in "name=${name%%.*}" "socket=$dir/$name.sock" arena_bytes=8M hugepages=false \
		"$@"; do
		sets+=(-o "$set")
	done
	"$build/daemon/weftd" -c /dev/null "${sets[@]}" 2>>"$dir/$name.log" &
	pids[$name]=$!
	until "$build/cli/weft" status --socket "$dir/$name.sock" >/dev/null 2>&1; do
		[ "$SECONDS" -lt 100 ] || fail "$name does not start: $(cat "$dir/$name.log")"
		kill -0 "${pids[$name]}" || fail "$name ended: $(cat "$dir/$name.log")"
	done
}

# gone NAME SIGNAL: it ends by that
gone()
{
	kill "-$2" "${pids[$1]}"
	wait "${pids[$1]}" 2>/dev/null
	unset "pids[$1]"
}

# until_says NODE EXPRESSION: of weft status --json, as d, holds in the end. m are members by name,
# c is what is said of the cluster, p the state of peers by name
until_says()
{
	local end=$((SECONDS + 40))

	while ! "$build/cli/weft" status --json --socket "$dir/$1.sock" 2>"$dir/err" |
		tee "$dir/out" | python3 -c 'import json, sys
d = json.load(sys.stdin)
c = d["network"]["membership"]
m = {x["name"]: x for x in c["members"]}
p = {x["name"]: x["state"] for x in d["peers"]}
t = {x["name"]: x for x in d["tenants"]}
r = {x["key"]: x["why"] for x in c["refused"]}
sys.exit(not eval(sys.argv[1]))' "$2" 2>"$dir/err"; do
		[ "$SECONDS" -lt "$end" ] || fail "$1 never says: $2: $(cat "$dir/$1.log")"
	done
}

# ports NR: below those that connections get: who calls a port of those can meet itself there
ports()
{
	python3 -c 'import random, socket, sys
s = []
while len(s) < int(sys.argv[1]):
    x = socket.socket()
    try:
        x.bind(("127.0.0.1", random.randrange(20000, 32000)))
        s.append(x)
    except OSError:
        pass
print(*[x.getsockname()[1] for x in s])' "$1"
}

# ---- a file
write()
{
	cat >"$dir/members.new"
	mv "$dir/members.new" "$dir/members.json"
}

write <<END
{ "members": [ { "name": "a", "socket": "$dir/a.sock" },
               { "name": "b", "socket": "$dir/b.sock" } ] }
END
node a "membership=file:$dir/members.json"
node b "membership=file:$dir/members.json"
node c "membership=file:$dir/members.json"
until_says a 'p.get("b") == "connected" and len(m) == 2 and c["state"] == "ok"'
until_says b 'p.get("a") == "connected"'
until_says c 'not p and c["state"] == "refused" and "does not name" in c["why"]'
write <<END
{ "members": [ { "name": "a", "socket": "$dir/a.sock" },
               { "name": "c", "socket": "$dir/c.sock" } ],
  "settings": { "lease_ms": "12s", "op_timeout_ms": "soon", "policy": "lru", "nonsense": 1 },
  "tenants": { "blue": { "token": "azure", "arena_bytes": "4M", "weight": 2 },
               "bad": { "arena_bytes": 7 } } }
END
until_says a 'p.get("c") == "connected" and "b" not in p'
says 'node b is no member any more' a.log
until_says b 'not p and c["state"] == "refused"'
until_says a 't["blue"]["weight"] == 2 and "bad" not in t and len(r) == 4'
until_says a '"restart" in r["settings/policy"] and "soon" in r["settings/op_timeout_ms"]'
expect 0 status --socket "$dir/a.sock" --token azure
expect 0 put --socket "$dir/a.sock" --token azure --key k "$0"
expect 0 members --socket "$dir/a.sock"
says 'refused: settings/policy'
says '^c .*connected *- *- *- '
expect 0 members --json --socket "$dir/a.sock"
json 'd["kind"] == "file" and len(d["members"]) == 2'
# what is no file of members changes nothing
echo '{ "members": [ { "name": "x/y" } ] }' | write
until_says a 'c["state"] == "away" and "is none" in c["why"] and p.get("c") == "connected"'
write <<END
{ "members": [ { "name": "a", "socket": "$dir/a.sock" } ], "tenants": {} }
END
until_says a 'c["state"] == "ok" and not p and not r'
expect 1 status --socket "$dir/a.sock" --token azure
says 'no tenant' err
for n in a b c; do
	gone $n TERM
done
# what can't be given now is told, and leaves what was: it may be given later, or be asked for anew
write <<END
{ "tenants": { "blue": { "token": "azure", "arena_bytes": "8M" } } }
END
node a "membership=file:$dir/members.json" memory_bytes=8M arena_bytes=16M
until_says a 't["blue"]["floor_bytes"] == 0'
head -c 7M /dev/urandom >"$dir/data"
expect 0 put --socket "$dir/a.sock" --key k "$dir/data"
write <<END
{ "tenants": { "blue": { "token": "azure", "arena_bytes": "8M", "floor_bytes": "3M" },
               "green": { "token": "grass", "arena_bytes": "8M", "floor_bytes": "3M" } } }
END
until_says a 'set(r) == {"tenants/blue", "tenants/green"} and "green" not in t'
expect 0 drop --socket "$dir/a.sock" --key k
space=$("$build/cli/weft" ls --json --socket "$dir/a.sock" |
	python3 -c 'import json, sys; print(json.load(sys.stdin)["spaces"][0]["id"])')
expect 0 space remove --socket "$dir/a.sock" "$space"
write <<END
{ "tenants": { "blue": { "token": "azure", "arena_bytes": "8M", "floor_bytes": "3M" },
               "green": { "token": "grass", "arena_bytes": "4M" } } }
END
until_says a 'not r and t["blue"]["floor_bytes"] == 3 << 20'
until_says a 't["green"]["arena_bytes"] == 4 << 20'
gone a TERM
# a file that is not there yet is said once, and is read when it comes
node d "membership=file:$dir/late.json"
until_says d 'c["state"] == "connecting" and "No such file" in c["why"]'
cat >"$dir/late.new" <<END
{ "members": [ { "name": "d", "socket": "$dir/d.sock" } ] }
END
mv "$dir/late.new" "$dir/late.json"
until_says d 'c["state"] == "ok"'
[ "$(grep -c "late.json: No such file" "$dir/d.log")" = 1 ] ||
	fail "that is not said once: $(cat "$dir/d.log")"
gone d TERM
# those of two hosts call each other once
read -r port_e port_f < <(ports 2)
write <<END
{ "members": [ { "name": "e", "address": "127.0.0.1:$port_e" },
               { "name": "f", "address": "127.0.0.1:$port_f" } ] }
END
node e "membership=file:$dir/members.json" transport=tcp "listen=127.0.0.1:$port_e"
node f "membership=file:$dir/members.json" transport=tcp "listen=127.0.0.1:$port_f"
until_says e 'p.get("f") == "connected"'
until_says f 'p.get("e") == "connected"'
until_says e 'len(d["peers"]) == 1'
until_says f 'len(d["peers"]) == 1'
gone e TERM
gone f TERM

# ---- etcd
if ! command -v etcd >/dev/null || ! command -v etcdctl >/dev/null; then
	echo "members: etcd and etcdctl are not installed: tested with a file only"
	exit 0
fi
"$build/daemon/weftd" -c /dev/null -o membership=etcd:http://127.0.0.1:1 -o "socket=$dir/x.sock" \
	>"$dir/out" 2>&1 &
pids[x]=$!
until grep -q -e "no etcd" -e "onnect" "$dir/out"; do
	kill -0 "${pids[x]}" || break
done
if grep -q "no etcd" "$dir/out"; then
	echo "members: this build has no etcd: tested with a file only"
	unset 'pids[x]'
	exit 0
fi
gone x TERM
read -r port peer_port < <(ports 2)
url=http://127.0.0.1:$port
start_etcd()
{
	etcd --data-dir "$dir/etcd" --listen-client-urls "$url" --advertise-client-urls "$url" \
		--listen-peer-urls "http://127.0.0.1:$peer_port" --heartbeat-interval 50 \
		--initial-advertise-peer-urls "http://127.0.0.1:$peer_port" --election-timeout 500 \
		--initial-cluster "default=http://127.0.0.1:$peer_port" >>"$dir/etcd.log" 2>&1 &
	etcd=$!
	until ctl endpoint health; do
		[ "$SECONDS" -lt 100 ] || fail "etcd does not start: $(tail -n 5 "$dir/etcd.log")"
	done
}

ctl()
{
	ETCDCTL_API=3 etcdctl --endpoints "$url" "$@" >/dev/null 2>&1
}

start_etcd
by=("membership=etcd:$url" cluster=test member_lease_ms=1s)
for n in a b c; do
	node $n "${by[@]}"
done
until_says a 'len(m) == 3 and p == {"b": "connected", "c": "connected"} and c["state"] == "ok"'
until_says b 'len(p) == 2 and all(s == "connected" for s in p.values())'
until_says a 'all(x["incarnation"] != "0" and x["capacity"] >= 8 << 20 for x in m.values())'
expect 0 members --socket "$dir/b.sock"
says '^a .*connected'
"$build/cli/weft" doctor --json --socket "$dir/a.sock" >"$dir/out" 2>/dev/null
json '[x["result"] for x in d["checks"] if x["check"] == "membership"] == ["ok"]'
# settings and tenants, for all at once; what a tenant can't become is refused
ctl put /weft/test/settings/lease_ms 9s
ctl put /weft/test/tenants/blue '{"token": "azure", "arena_bytes": "4M"}'
ctl put /weft/test/settings/tenants '({ name = "z"; })'
for n in a b; do
	until_says $n 'list(r) == ["settings/tenants"]'
	until_says $n '"blue" in t and p.get("c") == "connected"'
	expect 0 put --socket "$dir/$n.sock" --token azure --key k "$0"
done
ctl put /weft/test/tenants/blue '{"token": "azure", "arena_bytes": "8M"}'
# every value was looked at four times by now; the log says once what was refused
[ "$(grep -c 'settings/tenants is refused' "$dir/a.log")" = 1 ] ||
	fail "a refused value is logged again: $(cat "$dir/a.log")"
until_says a '"t change" in r.get("tenants/blue", "") and t["blue"]["arena_bytes"] == 4 << 20'
expect 0 status --socket "$dir/a.sock" --token azure
# a drain is everybody's to see; then it goes
"$build/cli/weft" top --socket "$dir/c.sock" --interval 50ms >/dev/null 2>&1 &
pids[top]=$!
until_says c 'any(e["name"] == "weft" for e in d["engines"])'
expect 0 drain --socket "$dir/c.sock"
until_says a 'm.get("c", {"draining": True})["draining"]'
gone top KILL
wait "${pids[c]}" || fail "the drained node ended badly: $(cat "$dir/c.log")"
unset 'pids[c]'
until_says a 'set(m) == {"a", "b"} and set(p) == {"b"}'
# one name, two nodes
node b.2 "${by[@]}"
until_says b.2 'c["state"] == "refused" and "another node is b" in c["why"] and not p'
grep -q "another node is b in cluster test" "$dir/b.2.log" || fail "it does not say so"
"$build/cli/weft" doctor --json --socket "$dir/b.2.sock" >"$dir/out" 2>/dev/null
json '[x["result"] for x in d["checks"] if x["check"] == "membership"] == ["fail"]'
until_says a 'p == {"b": "connected"} and m["b"]["socket"].endswith("/b.sock")'
gone b.2 TERM
# one that stands still longer than its lease is dropped, and comes back with a later epoch
epoch=$("$build/cli/weft" members --json --socket "$dir/a.sock" |
	python3 -c 'import json, sys
print([x["epoch"] for x in json.load(sys.stdin)["members"] if x["name"] == "b"][0])')
kill -STOP "${pids[b]}"
until_says a '"b" not in m and not p'
kill -CONT "${pids[b]}"
until_says a "m.get('b', {'epoch': 0})['epoch'] > $epoch and p == {'b': 'connected'}"
# killed, and started anew: another incarnation, at once
gone b KILL
node b "${by[@]}"
until_says a 'p == {"b": "connected"}'
gone b KILL
until_says a '"b" not in m'
# etcd goes away and comes back: nodes serve what they know, and that is all of it
node b "${by[@]}"
until_says a 'p == {"b": "connected"}'
kill -KILL "$etcd"
wait "$etcd" 2>/dev/null
until_says a 'c["state"] == "away" and p == {"b": "connected"} and len(m) == 2'
expect 0 status --socket "$dir/a.sock"
says 'cluster  test: away'
expect 0 put --socket "$dir/a.sock" --token azure --key k "$0"
gone b TERM
node b "${by[@]}"
until_says b 'c["state"] == "connecting" and not m and not p'
start_etcd
until_says a 'c["state"] == "ok" and p == {"b": "connected"} and len(m) == 2'
for n in a b; do
	gone $n TERM
done
