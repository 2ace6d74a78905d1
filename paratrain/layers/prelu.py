"""PReLU: a rectifier that learns the slope of its negative side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from paratrain.blob import Blob
from paratrain.errors import ShapeMismatchError
from paratrain.layers.base import LayerContext, register_layer
from paratrain.layers.buffers import Buffer
from paratrain.layers.learnable import add_learnable_blob
from paratrain.layers.neuron import NeuronLayer
from paratrain.proto import FillerParameter, LayerParameter

__all__ = ["PReLULayer"]


@register_layer("PReLU")
class PReLULayer(NeuronLayer):
    """y = max(x, 0) + a min(x, 0), with one a for each channel of (N, C, ...).

    Blob 0: a, of shape (C,), or () with ``channel_shared``, filled by ``filler`` (constant 0.25 if not given).
    Gradients: dx = dy where x > 0, else a dy; da = sum of dy min(x, 0) over everything that shares it. In place, x is
    kept from forward to backward, where there is one.
    Source: He, Zhang, Ren, Sun, "Delving deep into rectifiers", 2015.
    """

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        self._kept = Buffer(self.xp)

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self._check_axes(bottom[0])
        prelu = self.parameter.prelu_param
        shape = () if prelu.channel_shared else (bottom[0].shape[1],)
        default = FillerParameter(type="constant", value=0.25)
        add_learnable_blob(self, shape, bottom[0].dtype, prelu.filler if prelu.HasField("filler") else default)

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self._check_axes(bottom[0])
        shape, slopes = bottom[0].shape, self.blobs[0]
        if slopes.axis_count and slopes.count != shape[1]:
            raise self.error(
                f"{self.bottom_name(0)} {shape} has {shape[1]} channels; there are {slopes.count} slopes {slopes.shape}",
                ShapeMismatchError,
            )
        super().reshape(bottom, top)
        self._sizes = (shape[0], shape[1], bottom[0].count_between(2))

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        xp, x, y = self.xp, self.read(bottom[0]).reshape(self._sizes), self.write(top[0]).reshape(self._sizes)
        if bottom[0] is top[0] and self.needs_backward:
            self._kept.get(self._sizes, x.dtype)[...] = x
        low = self.forward_scratch(self._sizes, x.dtype)
        xp.minimum(x, 0, out=low)
        low *= self._slopes()
        xp.maximum(x, 0, out=y)
        y += low

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        xp, top_diff = self.xp, self.read_diff(top[0]).reshape(self._sizes)
        in_place = bottom[0] is top[0]
        x = self._kept.get(self._sizes, top_diff.dtype) if in_place else self.read(bottom[0]).reshape(self._sizes)
        scratch = self.scratch.get(self._sizes, top_diff.dtype)
        if self.param_propagate_down[0]:
            xp.minimum(x, 0, out=scratch)
            slopes_diff = self.write_diff(self.blobs[0])
            slopes_diff += xp.einsum("ncs,ncs->c" if slopes_diff.ndim else "ncs,ncs->", top_diff, scratch)
        if propagate_down[0]:
            # The slope: 1 where x > 0 and a elsewhere, as a + (1 - a) [x > 0].
            slopes = self._slopes()
            xp.greater(x, 0, out=scratch)
            scratch *= 1 - slopes
            scratch += slopes
            xp.multiply(top_diff, scratch, out=self.write_diff(bottom[0]).reshape(self._sizes))

    def _slopes(self) -> Any:
        """The slopes as (C or 1, 1), to be repeated over (N, C, pixels)."""
        return self.read(self.blobs[0]).reshape(-1, 1)

    def _check_axes(self, bottom: Blob) -> None:
        if bottom.axis_count < 2:
            raise self.error(f"{self.bottom_name(0)} is {bottom.shape}; PReLU needs (N, C, ...)", ShapeMismatchError)
