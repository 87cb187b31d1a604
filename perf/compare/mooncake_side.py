#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Mooncake's transfer engine over TCP as a side of `weft-perf compare`.

Two engines in two processes that find each other without a metadata server, one batch an operation.
"""

import os

import side

HOST = "127.0.0.1"


def engine():
    from mooncake.engine import TransferEngine

    te = TransferEngine()
    if te.initialize(HOST, "P2PHANDSHAKE", "tcp", ""):
        raise RuntimeError("the transfer engine does not start")
    return te


def memory(te, length):
    import numpy

    buffer = numpy.zeros(length, dtype=numpy.uint8)
    if te.register_memory(buffer.ctypes.data, length):
        raise RuntimeError("memory cannot be registered")
    return buffer


def target(sock):
    import numpy

    number, size = (int(x) for x in side.hear_text(sock).split())
    te = engine()
    buffer = memory(te, number * 2 * size)
    side.tell_text(sock, f"{HOST}:{te.get_rpc_port()} {buffer.ctypes.data}".encode())
    pieces = buffer.reshape(number, 2 * size)[:, :size]
    while order := sock.recv(1):
        if order == b"f":  # fill
            data = side.pattern(number, size, 1)
            pieces[:] = numpy.frombuffer(data, dtype=numpy.uint8).reshape(number, size)
            sock.sendall(b"f")
        elif order == b"t":  # tell
            sock.sendall(pieces.tobytes())


class Pieces(side.Case):
    def __init__(self, name):
        import numpy

        _, self.kind, self.number, self.size = side.parse_shape(name)
        self.sock = side.fork_target(target, pinned=False)
        side.tell_text(self.sock, f"{self.number} {self.size}".encode())
        self.te = engine()
        stride = 2 * self.size
        self.buffer = memory(self.te, self.number * stride)
        self.pieces = self.buffer.reshape(self.number, stride)[:, : self.size]
        self.peer, base = side.hear_text(self.sock).decode().split()
        self.order = side.shuffled(self.number)
        self.here = [self.buffer.ctypes.data + i * stride for i in range(self.number)]
        self.there = [int(base) + i * stride for i in self.order]
        self.lengths = [self.size] * self.number
        if self.kind == "write":
            self.transfer = self.te.batch_transfer_sync_write
            array = numpy.frombuffer(side.pattern(self.number, self.size, 2), dtype=numpy.uint8)
            self.pieces[:] = array.reshape(self.number, self.size)
        else:
            self.transfer = self.te.batch_transfer_sync_read
            self.sock.sendall(b"f")
            side.hear(self.sock, 1)

    def begin(self):
        if self.kind == "read":
            self.pieces[:] = 0

    def operation(self):
        if self.transfer(self.peer, self.here, self.there, self.lengths):
            raise RuntimeError("the transfer failed")

    def check(self):
        here = self.pieces.tobytes()
        if self.kind == "read":
            there = side.pattern(self.number, self.size, 1)
        else:
            self.sock.sendall(b"t")
            there = side.hear(self.sock, self.number * self.size)
        side.compare(here, there, self.order, self.size)


if __name__ == "__main__":
    os.environ.setdefault("MC_LOG_LEVEL", "WARNING")
    side.serve(Pieces, pinned=False)
