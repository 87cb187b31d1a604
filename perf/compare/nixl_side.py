#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""NIXL over UCX as a side of `weft-perf compare`.

Two agents in two processes, one CPU each. Descriptors are prepared once and the transfer's handle
is used again, as NIXL's documentation advises. The agents have no thread of their own to make
progress: on two CPUs it costs milliseconds. The target polls instead while it is measured.
"""

import os

import side

TLS = {"shm": "posix,sysv,cma,tcp,self", "tcp": "tcp,self"}


def agent(name):
    from nixl._api import nixl_agent, nixl_agent_config

    return nixl_agent(name, nixl_agent_config(enable_prog_thread=False, backends=["UCX"]))


def memory(nixl, length):
    import numpy

    buffer = numpy.zeros(length, dtype=numpy.uint8)
    nixl.register_memory(nixl.get_reg_descs([(buffer.ctypes.data, length, 0, "")], "DRAM"))
    return buffer


def target(sock):
    import numpy

    nixl = agent("target")
    number, size = (int(x) for x in side.hear_text(sock).split())
    buffer = memory(nixl, number * 2 * size)
    side.tell_text(sock, nixl.get_agent_metadata())
    side.tell_text(sock, str(buffer.ctypes.data).encode())
    nixl.add_remote_agent(side.hear_text(sock))
    pieces = buffer.reshape(number, 2 * size)[:, :size]
    while order := sock.recv(1):
        if order == b"f":  # fill
            data = side.pattern(number, size, 1)
            pieces[:] = numpy.frombuffer(data, dtype=numpy.uint8).reshape(number, size)
            sock.sendall(b"f")
        elif order == b"t":  # tell
            sock.sendall(pieces.tobytes())
        elif order == b"p":  # poll until told otherwise
            sock.setblocking(False)
            while True:
                for _ in range(64):
                    nixl.get_new_notifs()
                try:
                    sock.recv(1)
                    break
                except BlockingIOError:
                    pass
            sock.setblocking(True)
            sock.sendall(b"p")


class Pieces(side.Case):
    def __init__(self, name):
        import numpy

        transport, kind, self.number, self.size = side.parse_shape(name)
        os.environ["UCX_TLS"] = TLS[transport]
        self.sock = side.fork_target(target)
        side.tell_text(self.sock, f"{self.number} {self.size}".encode())
        self.nixl = agent("initiator")
        self.kind = kind
        stride = 2 * self.size
        self.buffer = memory(self.nixl, self.number * stride)
        self.pieces = self.buffer.reshape(self.number, stride)[:, : self.size]
        remote = self.nixl.add_remote_agent(side.hear_text(self.sock))
        base = int(side.hear_text(self.sock))
        side.tell_text(self.sock, self.nixl.get_agent_metadata())
        self.order = side.shuffled(self.number)
        here = [(self.buffer.ctypes.data + i * stride, self.size, 0) for i in range(self.number)]
        there = [(base + i * stride, self.size, 0) for i in self.order]
        self.here = self.nixl.prep_xfer_dlist("NIXL_INIT_AGENT", here, "DRAM")
        self.there = self.nixl.prep_xfer_dlist(remote, there, "DRAM")
        indices = numpy.arange(self.number, dtype=numpy.int32)
        self.xfer = self.nixl.make_prepped_xfer(
            kind.upper(), self.here, indices, self.there, indices
        )
        data = side.pattern(self.number, self.size, 2)
        if kind == "write":
            array = numpy.frombuffer(data, dtype=numpy.uint8)
            self.pieces[:] = array.reshape(self.number, self.size)
        else:
            self.sock.sendall(b"f")
            side.hear(self.sock, 1)

    def begin(self):
        if self.kind == "read":
            self.pieces[:] = 0
        self.sock.sendall(b"p")

    def operation(self):
        state = self.nixl.transfer(self.xfer)
        while state == "PROC":
            state = self.nixl.check_xfer_state(self.xfer)
        if state != "DONE":
            raise RuntimeError(f"transfer: {state}")

    def end(self):
        self.sock.sendall(b"s")
        side.hear(self.sock, 1)

    def check(self):
        if self.kind == "read":
            there = side.pattern(self.number, self.size, 1)
            here = self.pieces.tobytes()
        else:
            self.end()
            self.sock.sendall(b"t")
            there = side.hear(self.sock, self.number * self.size)
            here = self.pieces.tobytes()
            self.sock.sendall(b"p")
        side.compare(here, there, self.order, self.size)


if __name__ == "__main__":
    side.serve(Pieces)
