"""Blobs on the GPU in the forms that kernels ask for: channels second or last, float32 or narrower.

Values stay in the form that the last layer chose until somebody needs another; see docs/design/0005-gpu.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from paratrain.backends.cupy.device import CudaDevice
from paratrain.backends.cupy.modules import KernelModule
from paratrain.backends.cupy.parameter_work import ParameterWork
from paratrain.blob import Memory, SyncedMemory
from paratrain.blob.synced_memory import HostArray

__all__ = ["ArrangedOnDevice", "Copies", "Form", "Forms"]

_MOST_COPIES = 8


@dataclass(frozen=True)
class Form:
    """How the values of a blob of ``shape``, (N, C, *spatial), lie in a flat array: their dtype, and whether channels are the
    innermost axis. Make one with :meth:`of`, so that forms that mean the same bytes are equal.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    channels_last: bool = False

    @classmethod
    def of(cls, shape: tuple[int, ...], dtype: npt.DTypeLike, *, channels_last: bool = False) -> Form:
        """Return the form. Where there is one channel, or one pixel, no order is told apart."""
        orders_differ = len(shape) > 2 and shape[1] > 1 and math.prod(shape[2:]) > 1
        return cls(shape, np.dtype(dtype), channels_last and orders_differ)

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    @property
    def channels(self) -> int:
        """C; 1 where there is no such axis."""
        return self.shape[1] if len(self.shape) > 1 else 1

    @property
    def pixels(self) -> int:
        """The values of each image and channel."""
        return math.prod(self.shape[2:])

    def like(self, shape: tuple[int, ...]) -> Form:
        """The same order and dtype for another shape."""
        return Form.of(shape, self.dtype, channels_last=self.channels_last)

    def plain_order(self) -> Form:
        """The same values with channels second."""
        return Form.of(self.shape, self.dtype)


class ArrangedOnDevice:
    """A flat array on the GPU and the form of its values; what a blob's memory keeps beside, or in place of, its plain array."""

    def __init__(self, forms: Forms, form: Form, memory: SyncedMemory | None = None) -> None:
        self._forms = forms
        self.form = form
        place = None if memory is None else memory.take_place(form.count * form.dtype.itemsize, self)
        self.array = forms.device.empty(form.count, form.dtype) if place is None else place.view(form.dtype)
        if memory is not None:
            # A layer in place may write another form than the layer before it, in every pass. Where every image has a size of
            # its own, arrays of other sizes go, and at once: nothing of them refers to itself.
            kept: dict[Form, ArrangedOnDevice] = memory.arrangements
            for other in [other for other in kept if other.count != form.count]:
                del kept[other]
            kept[form] = self

    def write_plain(self, host: HostArray) -> None:
        """Write the values to the first of the flat ``host`` array, in plain order."""
        device = self._forms.device
        with device.alone():
            plain = device.empty(self.form.count, host.dtype)
            self.write_device(plain)
            device.download(plain, host[: self.form.count])

    def write_device(self, device_array: Any) -> None:
        """Write the values to the first of the flat array on the GPU, in plain order."""
        self._forms.convert(self.array, self.form, device_array, Form.of(self.form.shape, device_array.dtype))


class Forms:
    """Converts values from form to form, and gives blobs' memories to kernels in the forms they ask for."""

    def __init__(self, device: CudaDevice) -> None:
        self.device = device
        self._modules: dict[tuple[str, str], KernelModule] = {}
        self.parameter_work: ParameterWork | None = None
        """What gathers work on parameters, while a pass is recorded."""

    def kernels(self, family: str, dtype: npt.DTypeLike) -> KernelModule:
        """Return the kernels of a family for values of ``dtype``."""
        key = family, np.dtype(dtype).name
        module = self._modules.get(key)
        if module is None:
            module = self._modules[key] = KernelModule(family, dtype)
        return module

    def convert(
        self, source: Any, source_form: Form, target: Any, target_form: Form, *, accumulate: bool = False
    ) -> None:
        """Write (or with ``accumulate`` add) the values of one flat array to another of another form but the same shape.

        One of the two must be plain: float32 (or float64, where the other is) with channels second, if their dtypes differ
        or the values are added.
        """
        assert source_form.shape == target_form.shape
        count, sizes = source_form.count, (source_form.channels, source_form.pixels)
        source_kind, target_kind = source_form.dtype, target_form.dtype
        if source_form == target_form and not accumulate:
            target[:count] = source[:count]
        elif source_kind == target_kind and not accumulate:
            last = target_form.channels_last
            self.kernels("arrange", source_kind).launch("exchange_order", count, source, target, *sizes, last)
        elif _is_plain(target_form):
            last = source_form.channels_last
            self.kernels("arrange", source_kind).launch("to_plain", count, source, target, *sizes, last, accumulate)
        else:
            assert _is_plain(source_form), "one side must be plain"
            assert not accumulate
            last = target_form.channels_last
            self.kernels("arrange", target_kind).launch("to_arranged", count, source, target, *sizes, last)

    def found(self, memory: Memory, shape: tuple[int, ...]) -> Form:
        """The form in which the newest values lie, seen as an array of ``shape``."""
        arrangement = memory.arrangement
        if arrangement is not None and arrangement.form.shape == shape:
            form: Form = arrangement.form
            return form
        return Form.of(shape, memory.dtype)

    def write(self, memory: Memory, form: Form) -> Any:
        """Return the flat array, in ``form``, that is about to get the newest values of ``memory``: all are to be written.

        Where these lie in ``form`` already it still holds them, so that a layer may work in place.
        """
        if form.dtype == memory.dtype and not form.channels_last:
            if isinstance(memory, SyncedMemory):
                return memory.overwritten_device(self.device)[: form.count]
            return memory.mutable_device(self.device)[: form.count]
        assert isinstance(memory, SyncedMemory), "parts of other blocks stay plain"
        kept = self.arrangement(memory, form)
        memory.arrange(kept)
        return kept.array

    def arrangement(self, memory: SyncedMemory, form: Form) -> ArrangedOnDevice:
        """An array in ``form`` for the values of a memory, the same one each time."""
        kept: ArrangedOnDevice | None = memory.kept_arrangement
        if kept is not None and kept.form == form:
            return kept
        found: ArrangedOnDevice | None = memory.arrangements.get(form)
        return ArrangedOnDevice(self, form, memory) if found is None else found


class Copies:
    """Reads blobs' memories in the forms that a layer's kernels ask for, with copies where they lie in another.

    A copy serves until the memory it was made of is written again, so that backward finds what forward has made.
    """

    def __init__(self, forms: Forms) -> None:
        self._forms = forms
        self._made: dict[tuple[str, Form], tuple[Any, Memory, int]] = {}

    def read(self, memory: Memory, form: Form, purpose: str = "") -> Any:
        """Return the newest values of ``memory`` in ``form`` as a flat array, for reading. ``purpose`` tells apart arrays of one
        form that are needed at the same time.

        The first form that is asked of plain values stays with the memory, for other layers to find.
        """
        forms, arrangement = self._forms, memory.arrangement
        if arrangement is not None and arrangement.form == form:
            return arrangement.array
        if form.dtype == memory.dtype and not form.channels_last:
            return memory.device(forms.device)[: form.count]
        plain_form = Form.of(form.shape, memory.dtype)
        if arrangement is None and isinstance(memory, SyncedMemory):
            plain, kept = memory.device(forms.device), forms.arrangement(memory, form)
            forms.convert(plain, plain_form, kept.array, form)
            memory.add_arrangement(kept)
            return kept.array
        made = self._made.get((purpose, form))
        if made is not None and made[1] is memory and made[2] == memory.version:
            return made[0]
        copy = self._new_copy(purpose, form) if made is None else made[0]
        if arrangement is not None and arrangement.form.shape == form.shape and arrangement.form.dtype == form.dtype:
            forms.convert(arrangement.array, arrangement.form, copy, form)
        else:
            forms.convert(memory.device(forms.device), plain_form, copy, form)
        self._made[purpose, form] = (copy, memory, memory.version)
        return copy

    def clear(self) -> None:
        """Give the copies' memory back."""
        self._made.clear()

    def _new_copy(self, purpose: str, form: Form) -> Any:
        alike = [key for key in self._made if key[0] == purpose]
        if len(alike) >= _MOST_COPIES:
            del self._made[alike[0]]
        return self._forms.device.empty(form.count, form.dtype)


def _is_plain(form: Form) -> bool:
    return form.dtype in (np.float32, np.float64) and not form.channels_last
