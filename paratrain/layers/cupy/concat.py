"""Concat and Slice along any axis, in the order and type in which most of the values come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from paratrain.backends.cupy.columns import Columns, exchange_columns
from paratrain.backends.cupy.forms import Form
from paratrain.blob import Blob, Memory
from paratrain.layers.base import register_layer
from paratrain.layers.concat import ConcatLayer
from paratrain.layers.cupy.base import CupyLayer
from paratrain.layers.slice import SliceLayer

__all__ = ["CupyConcatLayer", "CupySliceLayer"]


class _SideBySideLayer(CupyLayer):
    """What Concat and Slice share."""

    _axis: int

    def join(self, parts: Sequence[Blob], memories: Sequence[Memory], whole: Blob, memory: Memory) -> None:
        """Copy the parts' memories to that of the whole."""
        dtype, last = self._vote(parts, memories) if self.may_arrange(memory) else self._plain
        arrays = [
            self.copies.read(part, Form.of(blob.shape, dtype, channels_last=last), str(index))
            for index, (blob, part) in enumerate(zip(parts, memories, strict=True))
        ]
        columns = Columns([blob.shape for blob in parts], self._axis, channels_last=last)
        array = self.forms.write(memory, Form.of(whole.shape, dtype, channels_last=last))
        exchange_columns(self.forms, array, arrays, columns, to_whole=True)

    def part(self, parts: Sequence[Blob], memories: Sequence[Memory | None], whole: Blob, memory: Memory) -> None:
        """Copy the memory of the whole to the parts', of which those that are None get nothing."""
        form = self.forms.found(memory, whole.shape)
        dtype, last = form.dtype, form.channels_last
        if not self.may_arrange(*[part for part in memories if part is not None]):
            dtype, last = self._plain
        arrays = [
            None if part is None else self.forms.write(part, Form.of(blob.shape, dtype, channels_last=last))
            for blob, part in zip(parts, memories, strict=True)
        ]
        columns = Columns([blob.shape for blob in parts], self._axis, channels_last=last)
        array = self.copies.read(memory, Form.of(whole.shape, dtype, channels_last=last))
        exchange_columns(self.forms, array, arrays, columns, to_whole=False)

    @property
    def _plain(self) -> tuple[np.dtype[Any], bool]:
        return np.dtype(self.context.dtype), False

    def _vote(self, parts: Sequence[Blob], memories: Sequence[Memory]) -> tuple[np.dtype[Any], bool]:
        """The type of most values, and whether more lie with channels last than second; some lie in both orders."""
        counts: dict[np.dtype[Any], int] = {}
        lead = 0
        for blob, memory in zip(parts, memories, strict=True):
            form = self.forms.found(memory, blob.shape)
            counts[form.dtype] = counts.get(form.dtype, 0) + form.count
            if form.channels_last:
                lead += form.count
            elif Form.of(blob.shape, form.dtype, channels_last=True) != form:
                lead -= form.count
        return max(counts, key=lambda dtype: counts[dtype]), lead > 0


@register_layer("Concat", backend="cupy")
class CupyConcatLayer(_SideBySideLayer, ConcatLayer):
    """Concat in one launch for up to eight bottoms."""

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self.is_capturable = True
        self.join(bottom, [blob.data_memory for blob in bottom], top[0], top[0].data_memory)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        if any(propagate_down):
            parts = [blob.diff_memory if down else None for blob, down in zip(bottom, propagate_down, strict=True)]
            self.part(bottom, parts, top[0], top[0].diff_memory)


@register_layer("Slice", backend="cupy")
class CupySliceLayer(_SideBySideLayer, SliceLayer):
    """Slice in one launch for up to eight tops."""

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self.is_capturable = True
        self.part(top, [blob.data_memory for blob in top], bottom[0], bottom[0].data_memory)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        if propagate_down[0]:
            self.join(top, [blob.diff_memory for blob in top], bottom[0], bottom[0].diff_memory)
