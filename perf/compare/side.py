# SPDX-License-Identifier: Apache-2.0
"""A side of `weft-perf compare`: reads what to measure, answers with a figure.

A line "CASE OPS" on standard input asks for the median time of OPS operations; the answer is that
time in microseconds, or "error: TEXT". Between two lines a side sleeps. It ends with its standard
input.
"""

import os
import random
import socket
import statistics
import sys
import time
import traceback

INITIATOR_CPU = 0
TARGET_CPU = 1


def pin(cpu):
    """This process, and its threads to come."""
    os.sched_setaffinity(0, {cpu})


def parse_shape(case):
    """ "tcp_write_256x64KiB": ("tcp", "write", 256, 65536)"""
    transport, kind, shape = case.split("_")
    number, size = shape.split("x")
    return transport, kind, int(number), int(size.removesuffix("KiB")) << 10


def shuffled(number):
    """The order in which pieces lie on the far side."""
    order = list(range(number))
    random.Random(number).shuffle(order)
    return order


def pattern(number, size, salt):
    """The bytes of all pieces, one after the other."""
    return random.Random(salt).randbytes(number * size)


def fork_target(main, pinned=True):
    """Runs main(socket) in a child, on the other CPU. Returns the socket to it."""
    mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    if os.fork():
        its.close()
        return mine
    mine.close()
    if pinned:
        pin(TARGET_CPU)
    try:
        main(its)
    except Exception:  # what it is, people see; the other side sees the end
        traceback.print_exc()
    os._exit(0)


def hear(sock, length):
    data = b""
    while len(data) < length:
        more = sock.recv(length - len(data))
        if not more:
            raise ConnectionError("the other side ended")
        data += more
    return data


def compare(here, there, order, size):
    """Piece i here is piece order[i] there."""
    for i, at in enumerate(order):
        if here[i * size : (i + 1) * size] != there[at * size : (at + 1) * size]:
            raise RuntimeError(f"piece {i} has other bytes")


def tell_text(sock, data):
    sock.sendall(len(data).to_bytes(4, "little") + data)


def hear_text(sock):
    return hear(sock, int.from_bytes(hear(sock, 4), "little"))


def median_us(case, ops):
    times = []
    for _ in range(ops):
        case.prepare()
        start = time.perf_counter_ns()
        case.operation()
        times.append(time.perf_counter_ns() - start)
    return statistics.median(times) / 1000


class Case:
    """What is measured; operation() is timed."""

    def begin(self):
        """Before the operations of one line."""

    def prepare(self):
        """Before each operation."""

    def operation(self):
        raise NotImplementedError

    def check(self):
        """After the first operation: raises where bytes are not where they belong."""

    def end(self):
        """After the operations of one line."""


def serve(make, pinned=True):
    """Answers standard input; make(CASE) returns a Case, and is called once for each."""
    # libraries that write to standard output must not get in between
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    if pinned:
        pin(INITIATOR_CPU)
    cases = {}
    for line in sys.stdin:
        try:
            name, ops = line.split()
            if name not in cases:
                cases[name] = make(name)
            case = cases[name]
            case.begin()
            case.prepare()
            case.operation()
            case.check()
            answer = f"{median_us(case, int(ops)):.3f}"
            case.end()
        except Exception as e:
            traceback.print_exc()
            answer = "error: " + " ".join(str(e).split() or [type(e).__name__])
        print(answer, file=answers, flush=True)
    # some of these libraries do not end in peace
    answers.flush()
    os._exit(0)
