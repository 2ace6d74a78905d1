"""Concat and Slice along the channels, in the layout that most blobs come in."""

from __future__ import annotations

from collections.abc import Sequence

from paratrain.backends.onednn.side_by_side import OneDnnSideBySide
from paratrain.blob import Blob, Memory
from paratrain.layers.base import register_layer
from paratrain.layers.concat import ConcatLayer
from paratrain.layers.onednn.arrays import common_layout, owns_memory
from paratrain.layers.onednn.base import OneDnnLayer
from paratrain.layers.slice import SliceLayer

__all__ = ["OneDnnConcatLayer", "OneDnnSliceLayer"]


class _SideBySideLayer(OneDnnLayer[OneDnnSideBySide]):
    """What Concat and Slice share."""

    def choose(self, parts: Sequence[Blob], whole: Blob, sources: Sequence[Memory]) -> OneDnnSideBySide | None:
        """Return what joins or parts these blobs, in the layout of most of ``sources``; None where all of them are plain,
        or the axis is not that of channels.
        """
        shapes = tuple(blob.shape for blob in parts)
        memories = [memory for blob in (*parts, whole) for memory in (blob.data_memory, blob.diff_memory)]
        is_along_channels = (
            2 < whole.axis_count <= 5
            and all(shape[:1] + shape[2:] == whole.shape[:1] + whole.shape[2:] for shape in shapes)
            and sum(shape[1] for shape in shapes) == whole.shape[1]
        )
        if not is_along_channels or not owns_memory(*memories) or not whole.count:
            return None
        # Each source has its own number of channels: they vote by the order of their values.
        found = [
            layout
            for memory, shape in zip(sources, shapes if len(sources) == len(shapes) else [whole.shape], strict=True)
            if (layout := common_layout([memory], shape)) is not None and not layout.is_plain
        ]
        if not found:
            return None
        blocked = [layout for layout in found if layout.channel_block]
        wanted = blocked[0] if 2 * len(blocked) >= len(found) else found[0]
        key = (shapes, wanted.channel_block, wanted.dtype)
        return self.kernel(key, lambda: OneDnnSideBySide(self.arranger, wanted, shapes))


@register_layer("Concat", backend="onednn")
class OneDnnConcatLayer(_SideBySideLayer, ConcatLayer):
    """Concat of channels in the layout that most bottoms come in."""

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        parts = [blob.data_memory for blob in bottom]
        kernel = self.choose(bottom, top[0], parts)
        if kernel is None:
            super().forward(bottom, top)
        else:
            kernel.join(self.copies, parts, top[0].data_memory)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        kernel = self.choose(bottom, top[0], [top[0].diff_memory])
        if kernel is None:
            super().backward(top, propagate_down, bottom)
        elif any(propagate_down):
            parts = [blob.diff_memory if down else None for blob, down in zip(bottom, propagate_down, strict=True)]
            kernel.part(self.copies, top[0].diff_memory, parts)


@register_layer("Slice", backend="onednn")
class OneDnnSliceLayer(_SideBySideLayer, SliceLayer):
    """Slice of channels in the layout of the bottom."""

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        kernel = self.choose(top, bottom[0], [bottom[0].data_memory])
        if kernel is None:
            super().forward(bottom, top)
        else:
            kernel.part(self.copies, bottom[0].data_memory, [blob.data_memory for blob in top])

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        parts = [blob.diff_memory for blob in top]
        kernel = self.choose(top, bottom[0], parts)
        if kernel is None:
            super().backward(top, propagate_down, bottom)
        elif propagate_down[0]:
            kernel.join(self.copies, parts, bottom[0].diff_memory)
