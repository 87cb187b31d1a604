#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tensors in and out: blocks from one tensor on a GPU to another, through libweft.

    gpu_share.py [torch|driver]

Two engines of this process attach to the node at WEFT_SOCKET. One publishes blocks out of a tensor,
by its data_ptr(), the other gets them into its own: its stream waits for the get, its host does
not. With "driver" there are no tensors, and no torch: memory comes from CUDA's driver. Exit status
77: there is no GPU, or no torch.
WEFT_LIB names libweft.so.0, where the loader does not find it.
"""
import ctypes
import os
import sys

NR = 32
BLOCK = 64 << 10
PUT, GET = 3, 5
F_COPY, F_VERIFY, F_SIGNAL = 1, 8, 64
REGION_GPU = 1


class Opts(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("mode", ctypes.c_uint32), ("reserved", ctypes.c_uint32),
                ("socket", ctypes.c_char_p), ("token", ctypes.c_char_p), ("name", ctypes.c_char_p),
                ("arena_bytes", ctypes.c_uint64)]


class SpaceOpts(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("block_bytes", ctypes.c_uint64),
                ("model", ctypes.c_char_p), ("layout", ctypes.c_char_p),
                ("tokens_per_block", ctypes.c_uint32), ("nr_layers", ctypes.c_uint32),
                ("dtype", ctypes.c_uint32), ("verify", ctypes.c_uint32),
                ("max_blocks", ctypes.c_uint64), ("replicas", ctypes.c_uint32),
                ("reserved", ctypes.c_uint32)]


class RegionOpts(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("addr", ctypes.c_void_p), ("len", ctypes.c_uint64),
                ("fd", ctypes.c_int), ("kind", ctypes.c_uint32), ("fd_off", ctypes.c_uint64),
                ("segment_bytes", ctypes.c_uint64), ("segment_stride", ctypes.c_uint64),
                ("block_stride", ctypes.c_uint64), ("nr_segments", ctypes.c_uint32),
                ("reserved", ctypes.c_uint32)]


class Key(ctypes.Structure):
    _fields_ = [("lo", ctypes.c_uint64), ("hi", ctypes.c_uint64)]


class Place(ctypes.Structure):
    _fields_ = [("off", ctypes.c_uint64), ("region", ctypes.c_uint32), ("len", ctypes.c_uint32)]


class Signal(ctypes.Structure):
    _fields_ = [("addr", ctypes.c_uint64), ("value", ctypes.c_uint32),
                ("reserved", ctypes.c_uint32)]


class Completion(ctypes.Structure):
    _fields_ = [("user_data", ctypes.c_uint64), ("res", ctypes.c_int32), ("op", ctypes.c_uint8),
                ("flags", ctypes.c_uint8), ("layer", ctypes.c_uint16),
                ("nr_layers", ctypes.c_uint16), ("reserved", ctypes.c_uint16),
                ("first_block", ctypes.c_uint32), ("nr_blocks", ctypes.c_uint32),
                ("reserved2", ctypes.c_uint32), ("handle", ctypes.c_uint64)]


class Op(ctypes.Structure):
    _fields_ = [("op", ctypes.c_uint8), ("flags", ctypes.c_uint8), ("reserved", ctypes.c_uint16),
                ("nr", ctypes.c_uint32), ("user_data", ctypes.c_uint64),
                ("space", ctypes.c_void_p), ("parent", ctypes.c_void_p),
                ("keys", ctypes.POINTER(Key)), ("places", ctypes.POINTER(Place)),
                ("slots", ctypes.c_void_p), ("results", ctypes.c_void_p),
                ("where", ctypes.c_void_p), ("ticket", ctypes.c_void_p),
                ("stat", ctypes.c_void_p), ("handle", ctypes.c_uint64),
                ("timeout_us", ctypes.c_uint32), ("layer", ctypes.c_uint32),
                ("nr_layers", ctypes.c_uint32), ("first_block", ctypes.c_uint32),
                ("trace", ctypes.c_void_p), ("message", ctypes.c_void_p),
                ("layout", ctypes.c_void_p), ("routes", ctypes.c_void_p),
                ("nr_routes", ctypes.c_uint32), ("block_us", ctypes.c_uint32),
                ("signal", ctypes.POINTER(Signal))]


lib = ctypes.CDLL(os.environ.get("WEFT_LIB", "libweft.so.0"))
lib.weft_why.restype = ctypes.c_char_p


def check(ret):
    if ret < 0:
        raise OSError(-ret, lib.weft_why().decode())
    return ret


def sized(struct, /, **fields):
    return struct(size=ctypes.sizeof(struct), **fields)


class Engine:
    """A session with one space, one ring, and one region: a buffer on the GPU."""

    def __init__(self, name, addr, length):
        self.w, self.space, self.ring = (ctypes.c_void_p() for _ in range(3))
        self.region = ctypes.c_uint32()
        check(lib.weft_open(ctypes.byref(sized(Opts, name=name)), ctypes.byref(self.w)))
        geometry = sized(SpaceOpts, block_bytes=BLOCK, model=b"gpu-share-py", layout=b"flat",
                         tokens_per_block=1)
        check(lib.weft_space_open(self.w, ctypes.byref(geometry), ctypes.byref(self.space)))
        check(lib.weft_ring_open(self.w, None, ctypes.byref(self.ring)))
        region = sized(RegionOpts, addr=addr, len=length, fd=-1, kind=REGION_GPU)
        check(lib.weft_region_reg(self.w, ctypes.byref(region), ctypes.byref(self.region)))

    def event(self, handle):
        """A number for an event that a put is to wait for."""
        number = ctypes.c_uint32()
        check(lib.weft_event_reg(self.w, ctypes.c_void_p(handle), self.region,
                                 ctypes.byref(number)))
        return number.value

    def signals(self):
        """From now on streams can wait for what move() returns."""
        check(lib.weft_signals_open(self.ring, self.region))

    def wait(self, signal, stream):
        """What the stream is asked for from now on begins when the get has ended."""
        check(lib.weft_signal_wait(self.ring, ctypes.byref(signal), ctypes.c_void_p(stream)))

    def moved(self):
        """How many blocks the next completion says have moved."""
        done = Completion()
        check(lib.weft_wait(self.ring, ctypes.byref(done), 1, ctypes.c_uint64(0)))
        return check(done.res)

    def move(self, what, flags, tokens, order, event=0):
        """All blocks of a prompt, block i at place order[i]; returns the signal of a get."""
        prompt = (ctypes.c_uint32 * len(tokens))(*tokens)
        keys = (Key * len(tokens))()
        check(lib.weft_key_chain(self.space, None, prompt, ctypes.c_size_t(len(tokens)), keys,
                                 len(tokens)))
        places = (Place * len(tokens))(*(Place(BLOCK * at, self.region.value, 0) for at in order))
        op = Op(op=what, flags=flags, nr=len(tokens), space=self.space, keys=keys, places=places,
                handle=event)
        signal = Signal()
        if flags & F_SIGNAL:
            op.signal = ctypes.pointer(signal)
        check(lib.weft_submit(self.ring, ctypes.byref(op), 1))
        return signal

    def close(self):
        lib.weft_close(self.w)


class Tensors:
    """torch's memory; what it computes is sure to be there when an event behind it has come."""

    def __init__(self):
        try:
            import torch
        except ImportError:
            skip("there is no torch")
        if not torch.cuda.is_available():
            skip("torch sees no GPU")
        self.torch = torch

    def new(self, data):
        return self.torch.frombuffer(bytearray(data), dtype=self.torch.uint8).cuda()

    def record(self):
        self.behind = self.torch.cuda.Event(interprocess=True)
        self.behind.record()
        return self.behind.cuda_event

    def addr(self, t):
        return t.data_ptr()

    def stream(self):
        self.order = self.torch.cuda.Stream()
        return self.order.cuda_stream

    def read(self, t):
        with self.torch.cuda.stream(self.order):
            return bytes(t.cpu().numpy())


class Driver:
    """The same of the driver alone."""

    def __init__(self):
        try:
            self.cuda = ctypes.CDLL("libcuda.so.1")
        except OSError:
            skip("there is no libcuda.so.1")
        ctx, dev = ctypes.c_void_p(), ctypes.c_int()
        res = self.cuda.cuInit(0) or self.cuda.cuDeviceGet(ctypes.byref(dev), 0) or \
            self.cuda.cuDevicePrimaryCtxRetain(ctypes.byref(ctx), dev) or \
            self.cuda.cuCtxPushCurrent_v2(ctx)
        if res:
            skip(f"CUDA's driver says {res}")

    def copy(self, dst, src, length, stream=None):
        res = self.cuda.cuMemcpyAsync(ctypes.c_uint64(dst), ctypes.c_uint64(src),
                                      ctypes.c_size_t(length), stream) or \
            self.cuda.cuCtxSynchronize()
        if res:
            raise OSError(f"CUDA's driver says {res}")

    def new(self, data):
        mem = ctypes.c_uint64()
        if self.cuda.cuMemAlloc_v2(ctypes.byref(mem), ctypes.c_size_t(len(data))):
            raise MemoryError("no GPU memory")
        buf = ctypes.create_string_buffer(data, len(data))
        self.copy(mem.value, ctypes.addressof(buf), len(data))
        return mem.value

    def record(self):
        event = ctypes.c_void_p()
        if self.cuda.cuEventCreate(ctypes.byref(event), 2 | 4) or \
                self.cuda.cuEventRecord(event, None):
            raise OSError("no event")
        return event.value

    def addr(self, mem):
        return mem

    def stream(self):
        self.order = ctypes.c_void_p()
        if self.cuda.cuStreamCreate(ctypes.byref(self.order), 1):
            raise OSError("no stream")
        return self.order.value

    def read(self, mem):
        buf = ctypes.create_string_buffer(NR * BLOCK)
        self.copy(ctypes.addressof(buf), mem, NR * BLOCK, self.order)
        return buf.raw


def skip(why):
    print(f"skipped: {why}")
    sys.exit(77)


def main():
    memory = {"torch": Tensors, "driver": Driver}[sys.argv[1] if len(sys.argv) > 1 else "torch"]()
    blocks = [os.urandom(BLOCK) for _ in range(NR)]
    tokens = list(range(NR))
    backwards = tokens[::-1]
    source = memory.new(b"".join(blocks))
    target = memory.new(bytes(NR * BLOCK))
    prefill = Engine(b"prefill", memory.addr(source), NR * BLOCK)
    decode = Engine(b"decode", memory.addr(target), NR * BLOCK)
    # another prompt each time: blocks are immutable, and may still be there
    prompt = [int.from_bytes(os.urandom(4), "little") for _ in tokens]
    behind = prefill.event(memory.record())
    prefill.move(PUT, F_COPY, prompt, tokens, behind)
    assert prefill.moved() == NR
    decode.signals()
    decode.wait(decode.move(GET, F_VERIFY | F_SIGNAL, prompt, backwards), memory.stream())
    arrived = memory.read(target)
    assert decode.moved() == NR
    assert arrived == b"".join(blocks[::-1]), "other bytes arrived"
    decode.close()
    prefill.close()
    print(f"{NR} blocks of {BLOCK} bytes from one buffer on a GPU to another: all right")


main()
