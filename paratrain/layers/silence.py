"""Silence: takes blobs that nobody needs."""

from __future__ import annotations

from collections.abc import Sequence

from paratrain.blob import Blob
from paratrain.layers.base import Layer, register_layer

__all__ = ["SilenceLayer"]


@register_layer("Silence")
class SilenceLayer(Layer):
    """Any number of bottoms, no top: they are not outputs of the net then. The gradients are 0."""

    bottom_range = (1, None)
    top_range = (0, 0)
    is_capturable = True

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """There is no top."""

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Nothing to compute."""

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        for blob, wanted in zip(bottom, propagate_down, strict=True):
            if wanted:
                self.write_diff(blob)[...] = 0
