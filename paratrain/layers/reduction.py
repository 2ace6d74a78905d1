"""Reduction: one number for all the values of the last axes."""

from __future__ import annotations

from collections.abc import Sequence

from paratrain.blob import Blob
from paratrain.layers.base import Layer, LayerContext, register_layer
from paratrain.layers.buffers import Buffer
from paratrain.layers.checks import canonical_axis, refuse_in_place
from paratrain.proto import LayerParameter
from paratrain.proto.caffe_pb2 import ReductionParameter

__all__ = ["ReductionLayer"]


@register_layer("Reduction")
class ReductionLayer(Layer):
    """y = ``coeff`` times the SUM, ASUM (of |x|), SUMSQ (of x^2) or MEAN of all n values from ``axis`` on.

    Bottom (samples ..., values ...), top (samples ...): the axes before ``axis``; () for axis 0, the default.
    Gradients: dx = c dy for SUM, c dy / n for MEAN, c dy sign(x) for ASUM (0 where x is 0), 2 c dy x for SUMSQ.
    """

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        self._operation = parameter.reduction_param.operation
        self._scratch = Buffer(self.xp)

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        refuse_in_place(self, bottom, top)
        reduction = self.parameter.reduction_param
        axis = canonical_axis(self, bottom[0], reduction.axis, "reduction_param.axis")
        self._sizes = bottom[0].count_between(0, axis), bottom[0].count_between(axis)
        self._coeff = reduction.coeff
        if self._operation == ReductionParameter.MEAN:
            self._coeff /= max(self._sizes[1], 1)
        top[0].reshape(*bottom[0].shape[:axis])

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        xp, x, y = self.xp, self.read(bottom[0]).reshape(self._sizes), self.write(top[0]).reshape(-1)
        if self._operation == ReductionParameter.SUMSQ:
            y[...] = xp.einsum("ij,ij->i", x, x)
        else:
            if self._operation == ReductionParameter.ASUM:
                x = xp.absolute(x, out=self._scratch.get(x.shape, x.dtype))
            xp.sum(x, axis=1, out=y)
        if self._coeff != 1:
            y *= self._coeff

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        if not propagate_down[0]:
            return
        xp, dx = self.xp, self.write_diff(bottom[0]).reshape(self._sizes)
        dy = self.read_diff(top[0]).reshape(-1, 1)
        if self._operation == ReductionParameter.ASUM:
            xp.sign(self.read(bottom[0]).reshape(self._sizes), out=dx)
            dx *= dy * self._coeff
        elif self._operation == ReductionParameter.SUMSQ:
            xp.multiply(self.read(bottom[0]).reshape(self._sizes), dy * (2 * self._coeff), out=dx)
        else:
            dx[...] = dy * self._coeff
