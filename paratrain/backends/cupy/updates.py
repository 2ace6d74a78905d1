"""The update of flat arrays on the GPU: one launch for all parameters, and sums of products in two.

See ``kernels/updates.cu`` for what is computed. Whatever changes from step to step is brought to the GPU by ``prepare``, in one
small copy; all else are launches on the same arrays, which may be recorded in a CUDA graph and run again after the next
``prepare``.
"""

from __future__ import annotations

import contextlib
import itertools
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from paratrain import gpu
from paratrain.backends.cupy.device import CudaDevice
from paratrain.backends.cupy.forms import Forms
from paratrain.backends.update_rules import (
    MOST_LOSSES,
    AdaDeltaRule,
    AdaGradRule,
    AdamRule,
    MomentumRule,
    NesterovRule,
    Regularization,
    RMSPropRule,
    UpdateOutcome,
    UpdateRule,
)

__all__ = ["CupyUpdate"]

Ranges = Sequence[tuple[int, int]]

# The places in the array of numbers, as in updates.cu.
_FACTOR, _CLIP, _LIMIT, _UNSCALE, _UNFIT, _MET, _NORM, _LOSS = range(8)
_RULE = _LOSS + MOST_LOSSES
_RUNS = _RULE + 9
_NOTHING_MET = [0.0] * (_RULE - _UNFIT)
_GROUP_BYTES = 16
_PIECE_COUNT = 8192
"""Values of a piece, whose products one block of threads adds up."""
_SUM_THREADS = 256
_SLOTS = 4
"""Steps whose numbers may be under way to the GPU at the same time."""

_KERNELS: dict[type[UpdateRule], str] = {
    MomentumRule: "update_sgd",
    NesterovRule: "update_nesterov",
    AdaGradRule: "update_adagrad",
    RMSPropRule: "update_rmsprop",
    AdaDeltaRule: "update_adadelta",
    AdamRule: "update_adam",
}


def _rule_numbers(rule: UpdateRule) -> list[float]:
    match rule:
        case MomentumRule(momentum):
            return [momentum]
        case NesterovRule(momentum):
            return [momentum, 1.0 + momentum]
        case AdaGradRule(delta):
            return [delta]
        case RMSPropRule(decay, delta):
            return [decay, 1.0 - decay, delta]
        case AdaDeltaRule(momentum, delta):
            return [momentum, 1.0 - momentum, delta]
        case AdamRule(momentum, momentum2, correction, delta):
            return [momentum, 1.0 - momentum, momentum2, 1.0 - momentum2, correction, delta]


class CupyUpdate:
    """:class:`paratrain.backends.update_rules.DeviceUpdate` of flat arrays of one dtype; run r ends before ``run_stops[r]``.

    Gives the same bits in each run, and for each way to cut a range into parts. One thread at a time may use it.
    """

    def __init__(self, forms: Forms, run_stops: Sequence[int], dtype: npt.DTypeLike) -> None:
        self._device, self._dtype = forms.device, np.dtype(dtype)
        self._kernels = forms.kernels("updates", dtype)
        self._group = _GROUP_BYTES // self._dtype.itemsize
        self._count, self._run_count = (run_stops[-1] if run_stops else 0), len(run_stops)
        number_type = np.float64 if self._dtype == np.float64 else np.float32
        self._numbers = forms.device.zeros(_RUNS + 2 * self._run_count, number_type)
        self._run_stops = _integers(forms.device, run_stops)
        self._stream = forms.device.stream
        self._uploads = _Uploads(self._numbers, self._stream)
        self._read = gpu.empty_pinned(_RULE, number_type)
        self._read_address = self._read.ctypes.data
        # CuPy hands pinned memory that nobody has to others at once, though a copy may still have to read or write it.
        weakref.finalize(self, _wait_for, self._stream, self._uploads, self._read).atexit = False
        self._tables: dict[tuple[tuple[tuple[int, int], ...], ...], _SumTable] = {}
        self._rule: UpdateRule = MomentumRule(0.0)

    def prepare(
        self,
        rule: UpdateRule,
        rates: Sequence[float],
        decays: Sequence[float],
        *,
        scale: float,
        limit: float = -1.0,
        unscale: float = 1.0,
    ) -> None:
        self._rule = rule
        numbers = [scale, 1.0, limit, unscale, *_NOTHING_MET, *_rule_numbers(rule)]
        numbers += [0.0] * (_RUNS - len(numbers))
        self._uploads.send([*numbers, *rates, *decays])

    def note_losses(self, losses: Sequence[Any]) -> None:
        assert len(losses) <= MOST_LOSSES
        arrays = [*losses, *[None] * (MOST_LOSSES - len(losses))]
        self._kernels.launch_blocks("note_losses", 1, 32, len(losses), *arrays, self._numbers)

    def measure(self, diff: Any, ranges: Ranges) -> None:
        self._launch_sums(self._table([ranges]), [(diff, diff)], self._numbers)

    def run(
        self,
        start: int,
        stop: int,
        data: Any,
        diffs: Sequence[Any],
        history: Sequence[Any],
        regularization: Regularization,
        *,
        kept: Any | None = None,
        guarded: bool = False,
    ) -> None:
        assert start >= 0 and stop <= self._count
        if start >= stop:
            return
        group_count = -(-stop // self._group) - start // self._group
        second_diff = diffs[1] if len(diffs) > 1 else None
        second_history = history[1] if len(history) > 1 else None
        arrays = [data, diffs[0], second_diff, history[0], second_history, kept]
        regularize = regularization.is_l1, regularization.is_decoupled
        flags = *regularize, guarded, self._are_aligned(arrays)
        name, table = _KERNELS[type(self._rule)], (self._run_stops, self._run_count, self._numbers)
        self._kernels.launch(name, group_count, start, stop, *arrays, *table, *flags)

    def send_outcome(self) -> None:
        runtime, size, stream = gpu.library().cuda.runtime, self._read.nbytes, self._stream.ptr
        runtime.memcpyAsync(self._read_address, self._numbers.data.ptr, size, runtime.memcpyDeviceToHost, stream)

    def outcome(self, *, is_sent: bool = False) -> UpdateOutcome:
        if not is_sent:
            self.send_outcome()
        self._stream.synchronize()
        read = self._read.tolist()
        return UpdateOutcome(read[_UNFIT] == 0 and read[_MET] == 0, read[_NORM], tuple(read[_LOSS:]))

    def sum_products(self, ranges: Sequence[Ranges], pairs: Sequence[tuple[Any, Any]]) -> npt.NDArray[np.float64]:
        table = self._table(ranges)
        self._launch_sums(table, pairs, None)
        totals = table.buffers(len(pairs))[1].get()
        found: npt.NDArray[np.float64] = totals.reshape(len(pairs), len(ranges))
        return found

    def _launch_sums(self, table: _SumTable, pairs: Sequence[tuple[Any, Any]], numbers: Any | None) -> None:
        sums, totals = table.buffers(len(pairs))
        for index, (one, other) in enumerate(pairs):
            into = sums[index * table.piece_count : (index + 1) * table.piece_count]
            arguments = table.piece_count, table.bounds, one, other, into, self._are_aligned([one, other])
            self._kernels.launch_blocks("sum_pieces", table.piece_count, _SUM_THREADS, *arguments)
        firsts = table.first_pieces(len(pairs))
        self._kernels.launch_blocks("sum_totals", totals.size, _SUM_THREADS, totals.size, firsts, sums, totals, numbers)

    def _table(self, ranges: Sequence[Ranges]) -> _SumTable:
        key = tuple(tuple(each) for each in ranges)
        if key not in self._tables:
            self._tables[key] = _SumTable(self._device, key)
        return self._tables[key]

    @staticmethod
    def _are_aligned(arrays: Sequence[Any | None]) -> bool:
        return all(array is None or array.data.ptr % _GROUP_BYTES == 0 for array in arrays)


class _SumTable:
    """How sums over ``ranges`` are cut into pieces, on the GPU; and what the pieces give, for so many pairs of arrays."""

    def __init__(self, device: CudaDevice, ranges: Sequence[Ranges]) -> None:
        self._device = device
        bounds: list[int] = []
        self._firsts = [0]
        for each in ranges:
            for start, stop in each:
                for begin in range(start, stop, _PIECE_COUNT):
                    bounds += [begin, min(begin + _PIECE_COUNT, stop)]
            self._firsts.append(len(bounds) // 2)
        self.piece_count = self._firsts[-1]
        self.bounds = _integers(device, bounds)
        self._buffers: dict[int, tuple[Any, Any, Any]] = {}

    def buffers(self, pair_count: int) -> tuple[Any, Any]:
        """The sums of the pieces, and of the ranges, pair after pair."""
        return self._made(pair_count)[:2]

    def first_pieces(self, pair_count: int) -> Any:
        """Where the pieces of each total begin, and at last where those of the last one end."""
        return self._made(pair_count)[2]

    def _made(self, pair_count: int) -> tuple[Any, Any, Any]:
        if pair_count not in self._buffers:
            firsts = [pair * self.piece_count + first for pair in range(pair_count) for first in self._firsts[:-1]]
            self._buffers[pair_count] = (
                self._device.zeros(pair_count * self.piece_count, np.float64),
                self._device.zeros(len(firsts), np.float64),
                _integers(self._device, [*firsts, pair_count * self.piece_count]),
            )
        return self._buffers[pair_count]


class _Uploads:
    """Numbers on their way to ``target`` on the GPU, from pieces of pinned memory that take turns: each is written again when it
    has been read.
    """

    def __init__(self, target: Any, stream: Any) -> None:
        cuda = gpu.library().cuda
        self._runtime, self._target, self._stream = cuda.runtime, target, stream
        self._turn = itertools.cycle(
            [_Slot(gpu.empty_pinned(target.size, target.dtype), cuda.Event(disable_timing=True)) for _ in range(_SLOTS)]
        )

    def send(self, numbers: list[float]) -> None:
        """Put the copy into the stream."""
        slot = next(self._turn)
        slot.sent.synchronize()  # at once for one that has never been recorded
        if slot.numbers != numbers:  # often they are those of the last steps
            slot.values[:] = slot.numbers = numbers
        to, kind = self._target.data.ptr, self._runtime.memcpyHostToDevice
        self._runtime.memcpyAsync(to, slot.address, slot.values.nbytes, kind, self._stream.ptr)
        slot.sent.record(self._stream)


class _Slot:
    """A piece of pinned memory, what was last written to it, and the event that tells that it has been read."""

    def __init__(self, values: Any, sent: Any) -> None:
        self.values, self.sent = values, sent
        self.numbers: list[float] = []
        self.address = int(values.ctypes.data)


def _wait_for(stream: Any, *_memory: object) -> None:
    """Return when what was put into the stream has run, which may use this memory of the host."""
    with contextlib.suppress(RuntimeError):  # of a GPU that has failed others have told
        stream.synchronize()


def _integers(device: CudaDevice, numbers: Sequence[int]) -> Any:
    """Return a new array of these on the GPU."""
    array = device.empty(len(numbers), np.int32)
    device.upload(np.array(numbers, np.int32), array)
    return array
