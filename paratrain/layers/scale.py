"""Scale: multiply by a learned or given factor along some axes, and add a bias."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from paratrain.blob import Blob
from paratrain.errors import ShapeMismatchError
from paratrain.layers.base import Layer, LayerContext, register_layer
from paratrain.layers.buffers import Buffer
from paratrain.layers.covering import covered_shape, covering_sizes
from paratrain.layers.learnable import add_learnable_blob
from paratrain.proto import FillerParameter, LayerParameter

__all__ = ["ScaleLayer"]


@register_layer("Scale")
class ScaleLayer(Layer):
    """y = s x + b. s and b have the shape of ``num_axes`` axes of x from ``axis`` on and are repeated along the others.

    With one bottom s is blob 0, filled by ``filler`` (constant 1 if not given); ``num_axes`` -1 means all axes that
    follow, 0 one number. With two bottoms s is bottom[1]. With ``bias_term`` b is the last blob, filled by
    ``bias_filler`` (constant 0). Gradients: dx = s dy; ds = sum of x dy and db = sum of dy over the repeated axes.
    Works in place in bottom[0]; x is then kept for ds, where there is a backward pass to compute it.
    """

    bottom_range = (1, 2)

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        self._kept = Buffer(self.xp)

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        scale = self.parameter.scale_param
        two = len(bottom) > 1
        shape = bottom[1].shape if two else covered_shape(self, bottom[0], scale.axis, scale.num_axes, "scale_param")
        if len(bottom) == 1:
            default = FillerParameter(type="constant", value=1.0)
            add_learnable_blob(self, shape, bottom[0].dtype, scale.filler if scale.HasField("filler") else default)
        if scale.bias_term:
            add_learnable_blob(self, shape, bottom[0].dtype, scale.bias_filler)

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        x, factor = bottom[0], self._factor_blob(bottom)
        if len(bottom) > 1 and (bottom[1] is top[0] or bottom[1] is bottom[0]):
            raise self.error(f"{self.bottom_name(1)}, the factor, must not also be the top or the first bottom")
        owner = self.bottom_name(1) if len(bottom) > 1 else "the factor"
        axis = self.parameter.scale_param.axis
        self._sizes = covering_sizes(self, x, factor, axis, "scale_param", owner)
        if self.parameter.scale_param.bias_term and self.blobs[-1].shape != factor.shape:
            raise self.error(f"bias {self.blobs[-1].shape} does not fit factor {factor.shape}", ShapeMismatchError)
        top[0].reshape_like(x)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        x, y = self.read(bottom[0]).reshape(self._sizes), self.write(top[0]).reshape(self._sizes)
        learns = len(bottom) > 1 or self.param_propagate_down[0]
        if bottom[0] is top[0] and self.needs_backward and learns:
            self._kept.get(self._sizes, x.dtype)[...] = x
        self.xp.multiply(x, self._column(self.read(self._factor_blob(bottom))), out=y)
        if self.parameter.scale_param.bias_term:
            y += self._column(self.read(self.blobs[-1]))

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        xp, top_diff = self.xp, self.read_diff(top[0]).reshape(self._sizes)
        if self.parameter.scale_param.bias_term and self.param_propagate_down[-1]:
            diff = self.write_diff(self.blobs[-1]).reshape(-1)
            diff += top_diff.sum(axis=(0, 2))
        two = len(bottom) > 1
        if propagate_down[1] if two else self.param_propagate_down[0]:
            in_place = bottom[0] is top[0]
            x = self._kept.get(self._sizes, top_diff.dtype) if in_place else self.read(bottom[0]).reshape(self._sizes)
            factor_diff = xp.einsum("ocs,ocs->c", top_diff, x)
            if two:
                self.write_diff(bottom[1]).reshape(-1)[...] = factor_diff
            else:
                diff = self.write_diff(self.blobs[0]).reshape(-1)
                diff += factor_diff
        if propagate_down[0]:
            factor = self._column(self.read(self._factor_blob(bottom)))
            xp.multiply(top_diff, factor, out=self.write_diff(bottom[0]).reshape(self._sizes))

    def _factor_blob(self, bottom: Sequence[Blob]) -> Blob:
        return bottom[1] if len(bottom) > 1 else self.blobs[0]

    @staticmethod
    def _column(values: Any) -> Any:
        """The values as (count, 1), to be repeated over (outer, count, inner)."""
        return values.reshape(-1, 1)
