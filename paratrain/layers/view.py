"""Layers whose top is the bottom in another shape."""

from __future__ import annotations

from collections.abc import Sequence

from paratrain.blob import Blob
from paratrain.layers.base import Layer

__all__ = ["ViewLayer"]


class ViewLayer(Layer):
    """One bottom, one top of as many values; ``data`` and ``diff`` of the top are the bottom's own memory.

    Subclasses call :meth:`share` in ``reshape``. Should a net move one of the blobs afterwards, values are copied.
    """

    def share(self, bottom: Blob, top: Blob) -> None:
        """Put the top, which has its shape already, into the bottom's memory."""
        top.share_data(bottom)
        top.share_diff(bottom)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        shares = [(top[0].data_memory, bottom[0].data_memory), (top[0].diff_memory, bottom[0].diff_memory)]
        self.is_capturable = all(above is below for above, below in shares)
        if top[0].data_memory is not bottom[0].data_memory:
            self.write(top[0])[...] = self.read(bottom[0]).reshape(top[0].shape)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        if propagate_down[0] and top[0].diff_memory is not bottom[0].diff_memory:
            self.write_diff(bottom[0])[...] = self.read_diff(top[0]).reshape(bottom[0].shape)
