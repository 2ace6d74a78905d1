"""Small pieces of work on the parameters of all layers, which a recording does all at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from paratrain.backends.cupy.modules import KernelModule

if TYPE_CHECKING:
    from paratrain.backends.cupy.forms import Form, Forms

__all__ = ["ParameterWork"]

_COLUMNS = 8  # of a row, see kernels/table.cuh
_MOST_ROWS = 2048
_THREADS = 256
_VALUES = _THREADS * 8  # of a block of the kernels of conversions.cu


@dataclass
class _Rows:
    """What one launch of a kernel does."""

    module: KernelModule
    kernel: str
    numbers: list[int] = field(default_factory=list)
    block_count: int = 0


class ParameterWork:
    """What a pass does with parameters: copies of them for products, and what is left of their gradients after those.

    Each is a kernel that runs for some microseconds, for most of which it waits for the kernel before. In a recording copies
    are made by one launch before it, and gradients are finished by one at its end. Addresses lie in a table on the GPU, which
    has to be there before anything is recorded and is filled afterwards.
    """

    def __init__(self, forms: Forms, storage: npt.DTypeLike) -> None:
        self._forms, self._storage = forms, np.dtype(storage)
        self._table = forms.device.empty(_MOST_ROWS * _COLUMNS, np.int64)
        self._filled: list[int] = []
        self._row_count = 0
        self._early: list[_Rows] = []
        self._before: list[Callable[[], None]] = []
        self._late: list[_Rows] = []
        self._pending: set[int] = set()  # where late work reads and writes
        self._arrays: list[Any] = []  # they live as long as the recording
        conversions, bias = forms.kernels("conversions", storage), forms.kernels("bias", np.float32)
        self._weights = conversions, "convert_weights"
        self._gradients = conversions, "convert_gradients"
        self._parts = bias, "add_parts"
        # Each runs once, on a row without values: CUDA loads a kernel when it first runs, which perhaps cannot be recorded.
        # The sum of nothing goes to the row behind.
        address = int(self._table.data.ptr)
        nothing = [address, address + 8 * _COLUMNS, 0, 1, 1, 0, 0, 0]
        forms.device.upload(np.array(nothing, np.int64), self._table[:_COLUMNS])
        for module, kernel in (self._weights, self._gradients, self._parts):
            module.launch_blocks(kernel, 1, _THREADS, 1, self._table)

    def gather(self, run: Callable[[], None]) -> None:
        """Call ``run``, and then do at once what it has left for later; while the stream captures."""
        self._forms.parameter_work = self
        try:
            run()
        finally:
            self._forms.parameter_work = None
        self._do_late()

    def be_ready(self) -> None:
        """Fill the table, when the capture is over. The recording needs it as long as it may run again."""
        self._before = [rows.module.prepared(*self._launch_of(rows)) for rows in self._early]
        self._forms.device.upload(np.array(self._filled, np.int64), self._table[: len(self._filled)])

    def do_early(self) -> None:
        """Make the copies; to be called before each replay."""
        for launch in self._before:
            launch()

    def prepare(self, parameters: Any, prepared: Any, form: Form) -> bool:
        """prepared (in ``form``) = parameters (plain), before the recording runs; False where that has to be done otherwise."""
        if form.dtype != self._storage or not self._has_room:
            return False
        self._add(self._early, self._weights, parameters, prepared, form)
        return True

    def convert(self, gradient: Any, form: Form, plain: Any, *, accumulate: bool) -> bool:
        """plain = gradient (in ``form``), or plain += gradient, at the end; False where that has to be done otherwise."""
        if form.dtype != self._storage or plain.dtype != np.float32 or not self._has_room:
            return False
        self._add(self._late, self._gradients, gradient, plain, form, accumulate)
        return True

    def add_parts(
        self, parts: Any, part_count: int, channels: int, lanes: int, total: Any, *, accumulate: bool
    ) -> bool:
        """total (channels) = the sum of parts (part_count, channels), or +=, at the end; False as above."""
        if total.dtype != np.float32 or not self._has_room:
            return False
        numbers = [int(parts.data.ptr), int(total.data.ptr), part_count, channels, lanes, 0, int(accumulate)]
        self._add_row(self._late, self._parts, numbers, -(-channels // lanes), parts, total)
        return True

    def settle(self, *arrays: Any) -> None:
        """Do now what is pending, if it reads or writes one of these: somebody is about to write there."""
        if any(int(array.data.ptr) in self._pending for array in arrays):
            self._do_late()

    def _add(
        self,
        rows: list[_Rows],
        kernel: tuple[KernelModule, str],
        source: Any,
        target: Any,
        form: Form,
        accumulate: bool = False,
    ) -> None:
        if form.count:
            blocks = -(-form.count // _VALUES)
            sizes = [form.count, form.channels, form.pixels, int(form.channels_last), int(accumulate)]
            numbers = [int(source.data.ptr), int(target.data.ptr), *sizes]
            self._add_row(rows, kernel, numbers, blocks, source, target)

    def _add_row(
        self, rows: list[_Rows], kernel: tuple[KernelModule, str], numbers: list[int], blocks: int, *arrays: Any
    ) -> None:
        if rows is self._late:
            self.settle(*arrays)
            self._pending.update(numbers[:2])
        found = next((one for one in rows if one.kernel == kernel[1]), None)
        if found is None:
            rows.append(found := _Rows(*kernel))
        found.numbers += [*numbers, found.block_count]
        found.block_count += blocks
        self._arrays += arrays
        self._row_count += 1

    @property
    def _has_room(self) -> bool:
        return self._row_count < _MOST_ROWS

    def _do_late(self) -> None:
        for rows in self._late:
            rows.module.launch_blocks(*self._launch_of(rows))
        self._late.clear()
        self._pending.clear()

    def _launch_of(self, rows: _Rows) -> tuple[Any, ...]:
        """The arguments of the launch, whose rows go into the table."""
        start, stop = len(self._filled), len(self._filled) + len(rows.numbers)
        self._filled += rows.numbers
        count, table = len(rows.numbers) // _COLUMNS, self._table[start:stop]
        return rows.kernel, rows.block_count, _THREADS, count, table
