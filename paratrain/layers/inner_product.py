"""The InnerProduct layer."""

from __future__ import annotations

from collections.abc import Sequence

from paratrain.blob import Blob
from paratrain.errors import ShapeMismatchError
from paratrain.layers.base import Layer, register_layer
from paratrain.layers.checks import canonical_axis, refuse_in_place
from paratrain.layers.learnable import add_learnable_blob

__all__ = ["InnerProductLayer"]


@register_layer("InnerProduct")
class InnerProductLayer(Layer):
    """``y = x W^T + b``: the axes from ``axis`` on are one vector of K values, those before it count samples.

    Bottom (samples ..., K values ...), top (samples ..., num_output). Blobs: weights (num_output, K), or (K, num_output)
    with ``transpose``; bias (num_output,) unless ``bias_term`` is false.
    Gradients: dx = dy W, dW = dy^T x, db = sum of dy over the samples.
    """

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        parameter = self.parameter.inner_product_param
        if parameter.num_output < 1:
            raise self.error("inner_product_param.num_output must be given and be at least 1")
        self._outputs = parameter.num_output
        self._transpose = parameter.transpose
        self._axis = canonical_axis(self, bottom[0], parameter.axis, "inner_product_param.axis")
        self._inputs = bottom[0].count_between(self._axis)
        shapes: list[tuple[int, ...]] = [
            (self._inputs, self._outputs) if self._transpose else (self._outputs, self._inputs)
        ]
        fillers = [parameter.weight_filler]
        if parameter.bias_term:
            shapes.append((self._outputs,))
            fillers.append(parameter.bias_filler)
        for shape, filler in zip(shapes, fillers, strict=True):
            add_learnable_blob(self, shape, bottom[0].dtype, filler)

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        refuse_in_place(self, bottom, top)
        shape = bottom[0].shape
        inputs = bottom[0].count_between(self._axis)
        if len(shape) <= self._axis or inputs != self._inputs:
            raise self.error(
                f"{self.bottom_name(0)} is {shape}: {inputs} values from axis {self._axis} on; "
                f"the weights {self.blobs[0].shape} take {self._inputs}",
                ShapeMismatchError,
            )
        self._samples = bottom[0].count_between(0, self._axis)
        top[0].reshape(*shape[: self._axis], self._outputs)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        weights = self.read(self.blobs[0])
        x = self.read(bottom[0]).reshape(self._samples, self._inputs)
        y = self.write(top[0]).reshape(self._samples, self._outputs)
        self.backend.matrix_product(x, weights if self._transpose else weights.T, y)
        if len(self.blobs) > 1:
            self.xp.add(y, self.read(self.blobs[1]), out=y)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        x = self.read(bottom[0]).reshape(self._samples, self._inputs)
        dy = self.read_diff(top[0]).reshape(self._samples, self._outputs)
        if self.param_propagate_down[0]:
            accumulate = self.accumulates(0)
            weights_diff = self.write_diff(self.blobs[0])
            a, b = (x.T, dy) if self._transpose else (dy.T, x)
            self.backend.matrix_product(a, b, weights_diff, accumulate=accumulate)
        if len(self.blobs) > 1 and self.param_propagate_down[1]:
            bias_diff = self.write_diff(self.blobs[1])
            self.xp.add(bias_diff, dy.sum(axis=0), out=bias_diff)
        if propagate_down[0]:
            weights = self.read(self.blobs[0])
            dx = self.write_diff(bottom[0]).reshape(self._samples, self._inputs)
            self.backend.matrix_product(dy, weights.T if self._transpose else weights, dx)
