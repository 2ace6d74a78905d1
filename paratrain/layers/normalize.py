"""Normalize: vectors of length 1, times a learned scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from paratrain.blob import Blob
from paratrain.errors import ShapeMismatchError
from paratrain.layers.base import Layer, LayerContext, register_layer
from paratrain.layers.buffers import Buffer
from paratrain.layers.checks import refuse_in_place
from paratrain.layers.learnable import add_learnable_blob
from paratrain.proto import FillerParameter, LayerParameter

__all__ = ["NormalizeLayer"]


@register_layer("Normalize")
class NormalizeLayer(Layer):
    """y = s x / n over (N, C, ...): n = sqrt(``eps`` + the sum of x^2), of each image, or of each pixel over its channels
    where ``across_spatial`` is false.

    Blob 0 is s, filled by ``scale_filler`` (constant 1): one number of shape (), or (C,) where ``channel_shared`` is
    false. Gradients, with h = x / n and the sums over what n sums: dx = (s dy - h sum(s dy h)) / n; ds = the sum of dy h.
    SSD's own dx sums dy h before it multiplies by s, which is the same only where s is shared; this is the exact one.
    The message is ``norm_param``. Source: Liu, Rabinovich, Berg, "ParseNet", 2015 (SSD's fork, weiliu89/caffe).
    """

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        self._unit, self._scratch = Buffer(self.xp), Buffer(self.xp)
        self._inverse_norm: Any = None

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        parameter = self.parameter.norm_param
        self._check_axes(bottom[0])
        if not parameter.eps >= 0:
            raise self.error(f"norm_param.eps is {parameter.eps:g}; it must be at least 0")
        shape = () if parameter.channel_shared else (bottom[0].shape[1],)
        default = FillerParameter(type="constant", value=1.0)
        filler = parameter.scale_filler if parameter.HasField("scale_filler") else default
        add_learnable_blob(self, shape, bottom[0].dtype, filler)

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        refuse_in_place(self, bottom, top)
        self._check_axes(bottom[0])
        scale, shape = self.blobs[0], bottom[0].shape
        if scale.shape and scale.count != shape[1]:
            raise self.error(
                f"{self.bottom_name(0)} {shape} has {shape[1]} channels; the scale {scale.shape} is for {scale.count}",
                ShapeMismatchError,
            )
        self._sizes = (shape[0], shape[1], bottom[0].count_between(2))
        top[0].reshape_like(bottom[0])

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        xp, x, y = self.xp, self.read(bottom[0]).reshape(self._sizes), self.write(top[0]).reshape(self._sizes)
        squares = xp.einsum("ncs,ncs->n" if self.parameter.norm_param.across_spatial else "ncs,ncs->ns", x, x)
        squares += self.parameter.norm_param.eps
        self._inverse_norm = self._spread(1.0 / xp.sqrt(squares))
        unit = self._unit.get(self._sizes, x.dtype)
        xp.multiply(x, self._inverse_norm, out=unit)
        xp.multiply(unit, self._scale(), out=y)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        xp, top_diff = self.xp, self.read_diff(top[0]).reshape(self._sizes)
        unit = self._unit.get(self._sizes, top_diff.dtype)
        if self.param_propagate_down[0]:
            scale_diff = self.write_diff(self.blobs[0]).reshape(-1)
            sums = xp.einsum("ncs,ncs->c", top_diff, unit)
            scale_diff += sums if self.blobs[0].shape else sums.sum()
        if propagate_down[0]:
            bottom_diff = self.write_diff(bottom[0]).reshape(self._sizes)
            scaled = self._scratch.get(self._sizes, top_diff.dtype)
            xp.multiply(top_diff, self._scale(), out=scaled)
            over = "ncs,ncs->n" if self.parameter.norm_param.across_spatial else "ncs,ncs->ns"
            xp.multiply(unit, self._spread(xp.einsum(over, scaled, unit)), out=bottom_diff)
            xp.subtract(scaled, bottom_diff, out=bottom_diff)
            bottom_diff *= self._inverse_norm

    def _spread(self, values: Any) -> Any:
        """See one value for each image or pixel as (N, 1, 1) or (N, 1, pixels)."""
        return values.reshape(self._sizes[0], 1, 1 if values.ndim == 1 else self._sizes[2])

    def _scale(self) -> Any:
        return self.read(self.blobs[0]).reshape(-1, 1)

    def _check_axes(self, x: Blob) -> None:
        if x.axis_count < 2:
            raise self.error(f"{self.bottom_name(0)} is {x.shape}; it needs (N, C, ...)", ShapeMismatchError)
