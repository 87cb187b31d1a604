#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Mooncake's store over TCP as a side of `weft-perf compare`.

A master, a client that lends all the memory, and the client that is measured, which lends none:
what it puts and gets crosses the connection between the two, as it does between hosts.
"""

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import side

HOST = "127.0.0.1"
SEGMENT = 512 << 20
LOCAL = 128 << 20
LIMIT_S = 20


def free_port():
    with socket.socket() as s:
        s.bind((HOST, 0))
        return s.getsockname()[1]


def start_master():
    path = shutil.which("mooncake_master", path=os.path.dirname(sys.executable))
    port = free_port()

    def end_with_us():
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)

    subprocess.Popen(
        [path, f"-rpc_port={port}", f"-metrics_port={free_port()}"],
        stdout=sys.stderr,
        preexec_fn=end_with_us,
    )
    end = time.monotonic() + LIMIT_S
    while True:
        try:
            socket.create_connection((HOST, port)).close()
            return f"{HOST}:{port}"
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def client(master, segment):
    from mooncake.store import MooncakeDistributedStore

    store = MooncakeDistributedStore()
    if store.setup(HOST, "P2PHANDSHAKE", segment, LOCAL, "tcp", "", master):
        raise RuntimeError("the store's client does not start")
    return store


def lender(sock):
    store = client(side.hear_text(sock).decode(), SEGMENT)
    sock.sendall(b"r")
    sock.recv(1)  # until the other side ends
    store.close()


class Store:
    """What all cases share."""

    def __init__(self):
        self.sock = side.fork_target(lender, pinned=False)
        master = start_master()
        side.tell_text(self.sock, master.encode())
        side.hear(self.sock, 1)
        self.client = client(master, 0)
        self.runs = 0

    def keys(self, number):
        self.runs += 1
        return [f"{self.runs}/{i}" for i in range(number)]


class Transfers(side.Case):
    """store_put_32x64KiB, store_get_32x64KiB"""

    def __init__(self, store, name):
        import numpy

        _, self.kind, self.number, self.size = side.parse_shape(name)
        self.store = store
        self.buffer = numpy.zeros(self.number * self.size, dtype=numpy.uint8)
        store.client.register_buffer(self.buffer.ctypes.data, self.buffer.nbytes)
        base = self.buffer.ctypes.data
        self.places = [base + i * self.size for i in range(self.number)]
        self.sizes = [self.size] * self.number
        self.data = side.pattern(self.number, self.size, 1)
        self.keys = []
        if self.kind == "get":
            self.fill(self.data)
            self.keys = store.keys(self.number)
            self.put()
            self.fill(bytes(len(self.data)))

    def fill(self, data):
        import numpy

        self.buffer[:] = numpy.frombuffer(data, dtype=numpy.uint8)

    def put(self):
        if any(self.store.client.batch_put_from(self.keys, self.places, self.sizes)):
            raise RuntimeError("a put failed")

    def prepare(self):
        if self.kind == "get":
            return
        if self.keys:
            self.store.client.batch_remove(self.keys)
        self.keys = self.store.keys(self.number)

    def begin(self):
        if self.kind == "put":
            self.fill(self.data)

    def operation(self):
        if self.kind == "put":
            self.put()
            return
        got = self.store.client.batch_get_into(self.keys, self.places, self.sizes)
        if got != self.sizes:
            raise RuntimeError(f"a get failed: {got[:4]}")

    def check(self):
        if self.kind == "put":
            self.fill(bytes(len(self.data)))
            got = self.store.client.batch_get_into(self.keys, self.places, self.sizes)
            if got != self.sizes:
                raise RuntimeError(f"a get failed: {got[:4]}")
        if self.buffer.tobytes() != self.data:
            raise RuntimeError("other bytes came back")


class Exists(side.Case):
    """store_match_64: whether each key of a chain is there"""

    def __init__(self, store, name):
        number = int(name.split("_")[-1])
        self.client = store.client
        self.keys = store.keys(number)
        for key in self.keys:
            if self.client.put(key, b"x" * 4096):
                raise RuntimeError("a put failed")

    def operation(self):
        self.found = self.client.batch_is_exist(self.keys)

    def check(self):
        if self.found != [1] * len(self.keys):
            raise RuntimeError("a key is not found")


if __name__ == "__main__":
    os.environ.setdefault("MC_LOG_LEVEL", "WARNING")
    shared = []

    def make(name):
        if not shared:
            shared.append(Store())
        return (Exists if "match" in name else Transfers)(shared[0], name)

    side.serve(make, pinned=False)
