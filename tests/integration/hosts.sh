# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# hosts.sh - for scripts whose hosts are network namespaces on one bridge: they set build and dir,
# and source this
# shellcheck disable=SC2154 # those two

ns=weft-$$
nr_hosts=0

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

# hosts NR: makes them, or skips the test. They are 1 to NR; where $(addr I) is
hosts()
{
	local i

	[ "$(id -u)" = 0 ] || skip "only root makes network namespaces"
	mountpoint -q / || skip "the root is no mount point: namespaces are not whole here"
	command -v ip >/dev/null || skip "iproute2 is not installed"
	nr_hosts=$1
	for ((i = 0; i <= nr_hosts; i++)); do
		ip netns add $ns-$i 2>/dev/null || skip "no network namespace can be made here"
	done
	# the first one is the wire
	ip -n $ns-0 link add hub type bridge 2>/dev/null || skip "no bridge can be made here"
	ip -n $ns-0 link set hub up
	for ((i = 1; i <= nr_hosts; i++)); do
		ip -n $ns-0 link add wire$i type veth peer name eth0 netns $ns-$i 2>/dev/null ||
			skip "no veth can be made here"
		ip -n $ns-0 link set wire$i master hub up
		ip -n $ns-$i addr add "$(addr $i)/24" dev eth0
		ip -n $ns-$i link set lo up
		ip -n $ns-$i link set eth0 up
	done
}

addr()
{
	echo "10.98.7.$1"
}

# on_host I CMD...: becomes CMD there. Mounts are its own as well: nodes that share them take each
# other for nodes of one host
on_host()
{
	local i=$1

	shift
	exec nsenter --net="/run/netns/$ns-$i" unshare --mount "$@"
}

hosts_gone()
{
	local i

	for ((i = 0; i <= nr_hosts; i++)); do
		ip netns del $ns-$i 2>/dev/null
	done
}
