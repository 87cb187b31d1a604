#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# test_pki.sh BUILD: weft pki makes what nodes and OpenSSL take, and never writes over a file
set -u
build=$1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
# shellcheck source=tests/integration/cli.sh
. "$(dirname "$0")/cli.sh"
umask 022
ca=$dir/pki

"$build/cli/weft" pki init "$dir/probe" >"$dir/out" 2>"$dir/err"
if grep -q 'built without TLS' "$dir/err"; then
	echo "built without TLS"
	exit 77
fi

expect 0 pki init "$ca" --domain prod.example
says 'ca\.crt and .*ca\.key'
expect 0 pki node "$ca" node-a --host 192.0.2.1,2001:db8::1,node-a.example --json
json 'd["cert"].endswith("/node-a.crt") and d["key"].endswith("/node-a.key")'
[ "$(stat -c %a "$ca/ca.key" "$ca/node-a.key" "$ca")" = $'600\n600\n700' ] ||
	fail "keys, or their folder, are for others to read"

expect 0 pki show "$ca/node-a.crt" --json
json 'd["id"] == "spiffe://prod.example/weft/node/node-a" and not d["ca"]'
json 'd["hosts"] == "192.0.2.1, 2001:db8::1, node-a.example"'
json '364 * 86400 < d["until"] - d["from"] < 367 * 86400'
expect 0 pki show "$ca/ca.crt"
says '^ca *spiffe://prod.example$'

# nothing is written over, and half of a pair is not left behind
sum=$(cat "$ca"/* | sha256sum)
expect 1 pki init "$ca"
says 'is there already' err
expect 1 pki node "$ca" node-a
says 'is there already' err
: >"$ca/node-b.key"
expect 1 pki node "$ca" node-b
says 'node-b.key is there already' err
[ ! -e "$ca/node-b.crt" ] || fail "a certificate without its key is left behind"
rm "$ca/node-b.key"
[ "$(cat "$ca"/* | sha256sum)" = "$sum" ] || fail "files were changed"

expect 1 pki node "$ca" 'no/name'
says 'is no name' err
expect 1 pki node "$ca" ca
expect 1 pki node "$ca" node-c --host 'a b'
says 'neither an IP address nor a host name' err
expect 1 pki node "$dir/nowhere" node-a
says 'ca.crt: No such file' err
expect 1 pki init "$dir/other" --domain 'Not A Domain'
says 'is no trust domain' err
expect 1 pki show "$ca/node-a.key"
says 'no certificate' err
expect 2 pki
expect 2 pki sign
expect 2 pki node "$ca"
expect 1 pki node "$ca" node-c --host node-c.example,
says 'neither an IP address nor a host name' err
expect 2 pki init "$dir/other" --days 1000000
expect 2 pki init "$dir/other" --days 0
says '1 to 36500' err

# a certificate does not outlive its CA
expect 0 pki init "$dir/short" --days 2
expect 0 pki node "$dir/short" node-a --days 100
expect 0 pki show "$dir/short/node-a.crt" --json
json 'd["until"] - d["from"] < 3 * 86400'

if command -v openssl >/dev/null; then
	for purpose in sslclient sslserver; do
		openssl verify -x509_strict -purpose $purpose -CAfile "$ca/ca.crt" \
			"$ca/node-a.crt" >"$dir/out" 2>"$dir/err" || fail "openssl verify $purpose"
	done
fi
echo "weft pki does what it says"
