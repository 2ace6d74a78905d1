"""GPUs that are arrays of the host which nobody can use as such, with streams that are as lazy as they may be.

Work that is given to a stream is done when somebody asks whether it is done: one piece for each question, of a stream that is
drawn. So whoever reads before he has waited reads what was there before. Handles are counted, and memory that was given back
cannot be used any more.
"""

from __future__ import annotations

import itertools
import random
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from paratrain.comm.communicator import Array
from paratrain.comm.progress import Condition
from paratrain.errors import DeviceError
from tests.unit.comm.fake_nccl import FakeCollectives, Group

Operation = Callable[[], bool]
"""Does a piece of work and returns True; or returns False where it cannot be done yet."""


class Block:
    """Memory of one GPU."""

    def __init__(self, machine: Machine, gpu: int, count: int, dtype: npt.DTypeLike) -> None:
        self.gpu = gpu
        self.values = np.zeros(count, dtype)
        self.number = machine.new_number()
        self.open_count = [0]
        machine.exported[self.number] = self
        machine.block_count += 1
        weakref.finalize(self, machine.forget, self.open_count)


class FakeArray:
    """A piece of a block, as one rank sees it: its own, or another rank's that it has opened, which keeps no block alive."""

    __array_ufunc__ = None

    def __init__(self, block: Block, start: int, stop: int, mapping: list[bool], *, is_own: bool) -> None:
        self._find, self._owner = weakref.ref(block), block if is_own else None
        self._start, self._stop, self.mapping = start, stop, mapping

    def __getitem__(self, piece: slice) -> FakeArray:
        start, stop, step = piece.indices(len(self))
        assert step == 1
        first, last = self._start + start, self._start + max(start, stop)
        return FakeArray(self.block, first, last, self.mapping, is_own=self._owner is not None)

    def __len__(self) -> int:
        return self._stop - self._start

    def __array__(self, *_: Any, **__: Any) -> Array:
        raise TypeError("memory of a GPU is no memory of the host")

    @property
    def block(self) -> Block:
        block = self._find()
        assert block is not None, "illegal memory access: its owner has freed it"
        return block

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.block.values.dtype

    @property
    def nbytes(self) -> int:
        return len(self) * self.dtype.itemsize

    @property
    def values(self) -> Array:
        """For what a GPU does with it."""
        assert self.mapping[0], "illegal memory access: this was closed"
        return self.block.values[self._start : self._stop]


class Machine:
    """All GPUs, and what CUDA knows of them. One lock: a piece of work is done without interruption."""

    def __init__(self, seed: int = 0) -> None:
        self.lock = threading.RLock()
        self.random = random.Random(seed)
        self.exported: weakref.WeakValueDictionary[int, Block] = weakref.WeakValueDictionary()
        self.block_count = self.opened_count = self.closed_count = self.pinned_count = 0
        self.freed_while_open_count = 0
        self.groups: dict[int, Group] = {}
        self._numbers = itertools.count(1)

    def new_number(self) -> int:
        return next(self._numbers)

    def forget(self, open_count: list[int]) -> None:
        self.block_count -= 1
        self.freed_while_open_count += open_count[0] > 0


class Stream:
    def __init__(self) -> None:
        self.waiting: deque[Operation] = deque()

    def advance(self) -> None:
        if self.waiting and self.waiting[0]():
            self.waiting.popleft()


class FakeDevice:
    """See :class:`paratrain.comm.device.ExchangeDevice`. Each is a process of its own, unless `process` is given."""

    def __init__(
        self, machine: Machine, gpu: int, *, process: str = "", refuses: str = "", pins: bool = True, nccl: str = ""
    ) -> None:
        self.machine, self.gpu, self.refuses, self._pins, self._nccl_problem = machine, gpu, refuses, pins, nccl
        self._process = process or f"process {machine.new_number()}"
        self.compute, self.exchange = Stream(), Stream()
        self.nccl_shares_gpus = False
        self.aborted_count = 0

    @property
    def identity(self) -> str:
        return f"uuid {self.gpu}"

    @property
    def description(self) -> str:
        return f"GPU {self.gpu}"

    @property
    def process(self) -> str:
        return self._process

    # -- memory --------------------------------------------------------------------------------------------------

    def allocate(self, count: int, dtype: npt.DTypeLike) -> FakeArray:
        if self.refuses == "allocate":
            raise DeviceError("cudaErrorMemoryAllocation")
        return FakeArray(Block(self.machine, self.gpu, count, dtype), 0, count, [True], is_own=True)

    def export(self, array: FakeArray) -> bytes:
        assert array._start == 0, "a handle opens the whole block"
        return f"{self._process}/{array.block.number}".encode()

    def open(self, handle: bytes, count: int, dtype: npt.DTypeLike) -> FakeArray:
        if self.refuses == "open":
            raise DeviceError("cudaErrorPeerAccessUnsupported")
        process, _, number = handle.decode().rpartition("/")
        if process == self._process:
            raise DeviceError("cudaErrorInvalidContext")
        with self.machine.lock:
            block = self.machine.exported[int(number)]
            assert (len(block.values), block.values.dtype) == (count, np.dtype(dtype))
            self.machine.opened_count += 1
            block.open_count[0] += 1
        return FakeArray(block, 0, count, [True], is_own=False)

    def close(self, array: FakeArray) -> None:
        with self.machine.lock:
            assert array.mapping[0], "closed twice"
            array.mapping[0] = False
            array.block.open_count[0] -= 1
            self.machine.closed_count += 1

    def reach(self, array: FakeArray) -> None:
        if self.refuses == "reach":
            raise DeviceError("no direct access")

    def pin(self, host: Array) -> bool:
        assert isinstance(host, np.ndarray)
        with self.machine.lock:
            self.machine.pinned_count += self._pins
        return self._pins

    def unpin(self, host: Array) -> None:
        with self.machine.lock:
            self.machine.pinned_count -= 1

    # -- work ----------------------------------------------------------------------------------------------------

    def start(self, stream: Stream, work: Callable[[], object]) -> None:
        def operation() -> bool:
            work()
            return True

        stream.waiting.append(operation)

    def add(self, arrays: Sequence[FakeArray], scale: float, out: FakeArray) -> None:
        def work() -> None:
            total = arrays[0].values.copy()
            for array in arrays[1:]:
                total += array.values
            out.values[...] = total * out.dtype.type(scale)

        self.start(self.exchange, work)

    def copy(self, source: FakeArray, destination: FakeArray) -> None:
        self.start(self.exchange, lambda: np.copyto(destination.values, source.values))

    def download(self, source: FakeArray, host: Array) -> None:
        assert isinstance(host, np.ndarray)
        self.start(self.exchange, lambda: np.copyto(host, source.values))

    def upload(self, host: Array, destination: FakeArray) -> None:
        assert isinstance(host, np.ndarray)
        self.start(self.exchange, lambda: np.copyto(destination.values, host))

    # -- order ---------------------------------------------------------------------------------------------------

    def follow(self) -> None:
        passed = self._mark(self.compute)
        self.exchange.waiting.append(lambda: passed[0])

    def computed(self) -> Condition:
        return self._question(self._mark(self.compute))

    def done(self) -> Condition:
        return self._question(self._mark(self.exchange))

    def synchronize(self) -> None:
        is_done = self.done()
        while not is_done():
            pass

    def _mark(self, stream: Stream) -> list[bool]:
        passed = [False]
        self.start(stream, lambda: passed.__setitem__(0, True))
        return passed

    def _question(self, passed: list[bool]) -> Condition:
        def ask() -> bool:
            with self.machine.lock:
                if not passed[0]:
                    self.machine.random.choice((self.compute, self.exchange)).advance()
                return passed[0]

        return ask

    # -- what tests do in the stream of the computation ------------------------------------------------------------

    def write(self, values: Array, array: FakeArray) -> None:
        self.start(self.compute, lambda: np.copyto(array.values, values))

    def update(self, data: FakeArray, diff: FakeArray) -> None:
        """Start data += diff."""
        self.start(self.compute, lambda: np.add(data.values, diff.values, out=data.values))

    def read(self, array: FakeArray) -> Array:
        """What the computation would see: its own stream's work is done, and of the exchange's what was."""
        with self.machine.lock:
            while self.compute.waiting:
                self.compute.advance()
            return array.values.copy()

    # -- NCCL ----------------------------------------------------------------------------------------------------

    @property
    def nccl_problem(self) -> str:
        return self._nccl_problem

    def nccl_identity(self) -> int:
        return self.machine.new_number()

    def join_nccl(self, identity: int, size: int, rank: int) -> FakeCollectives:
        with self.machine.lock:
            group = self.machine.groups.setdefault(identity, Group(size))
        group.meeting.wait(20)
        return FakeCollectives(group, self, rank)
