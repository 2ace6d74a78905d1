"""What BatchNorm, Scale and Bias on the GPU share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from paratrain.backends.cupy.forms import ArrangedOnDevice, Form
from paratrain.backends.cupy.normalization import Normalization
from paratrain.blob import Blob
from paratrain.layers.base import LayerContext
from paratrain.layers.buffers import Buffer
from paratrain.layers.cupy.base import CupyLayer
from paratrain.proto import LayerParameter

__all__ = ["ChannelLayer"]

_MOST_KERNELS = 8


class ChannelLayer(CupyLayer):
    """Takes the form that the bottom comes in, and keeps the bottom's values for backward without a copy where it can."""

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        self._normalizations: dict[Form, Normalization] = {}
        self._pair: tuple[ArrangedOnDevice, ArrangedOnDevice] | None = None
        self._kept_plain, self._channel_values = Buffer(self.xp), Buffer(self.xp)
        self.latest: Normalization | None = None
        """The kernels of the last forward pass; None where the plain layer computed it."""
        self.source: Any = None
        """The values from which the last forward pass has computed; None where they are still the bottom's."""
        self.kept: Any = None
        """Where this pass has to copy the bottom to; None where it need not."""

    def choose(self, bottom: Blob, top: Blob) -> Normalization | None:
        """Return the kernels for the form of the bottom; None where the values may not be left in any form, or there are none."""
        memories = (bottom.diff_memory, top.data_memory, top.diff_memory)
        if not bottom.count or not bottom.shape or not self.may_arrange(*memories):
            return None
        form = self.found(bottom)
        found = self._normalizations.get(form)
        if found is None:
            if len(self._normalizations) >= _MOST_KERNELS:
                self._normalizations.clear()
            found = self._normalizations[form] = Normalization(self.forms, self.gpu.workspace, form)
        return found

    def choose_by_channel(self, bottom: Sequence[Blob], top: Sequence[Blob], axis: int) -> Normalization | None:
        """Choose the kernels of this pass, where the learned factors are one for each channel of (N, C, ...)."""
        x, kernel = bottom[0], None
        if len(bottom) == 1 and x.axis_count > 1 and axis % x.axis_count == 1 and self.blobs[0].shape == x.shape[1:2]:
            kernel = self.choose(x, top[0])
        self.latest, self.is_capturable = kernel, kernel is not None
        return kernel

    def sides(self, kernel: Normalization, bottom: Blob, top: Blob, keeps: bool) -> tuple[Any, Any]:
        """Return the arrays where to read the bottom and where to write the top.

        In place with ``keeps``, the top is written to another buffer than the bottom was, and the blob has that one from then
        on; whoever writes the blob next does so there, and the two change places. Plain arrays stay where they are: then the
        bottom has to be copied to ``kept`` on the way.
        """
        memory: Any = top.data_memory
        x = self.copies.read(bottom.data_memory, kernel.form)
        self.source = self.kept = None
        if bottom is top and keeps:
            kept = memory.kept_arrangement
            if kept is not None and kept.array is x:
                memory.arrangements[kept.form] = other = self._other_than(kept)
                memory.arrange(other)
                self.source = x
                return x, other.array
            self.kept = self.source = self._kept_plain.get((kernel.form.count,), x.dtype)
        return x, self.forms.write(memory, kernel.form)

    def source_of(self, kernel: Normalization, bottom: Blob) -> Any:
        """The values from which the last forward pass has computed."""
        return self.copies.read(bottom.data_memory, kernel.form) if self.source is None else self.source

    def diff_of(self, index: int) -> tuple[Any, bool] | None:
        """Where the gradient of a blob goes, and whether it is added; None where it is not wanted."""
        if not self.param_propagate_down[index]:
            return None
        accumulate = self.accumulates(index)
        memory = self.blobs[index].diff_memory
        return memory.mutable_device(self.forms.device)[: self.blobs[index].count], accumulate

    def _other_than(self, arranged: ArrangedOnDevice) -> ArrangedOnDevice:
        """The other buffer of the two between which a blob changes."""
        if self._pair is None or not any(arranged is one for one in self._pair):
            self._pair = arranged, ArrangedOnDevice(self.forms, arranged.form)
        first, second = self._pair
        return second if arranged is first else first
