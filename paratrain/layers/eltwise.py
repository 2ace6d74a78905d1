"""Eltwise: the product, weighted sum or maximum of several blobs, value by value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from paratrain.blob import Blob
from paratrain.errors import ShapeMismatchError
from paratrain.layers.base import Layer, LayerContext, register_layer
from paratrain.layers.buffers import Buffer
from paratrain.layers.checks import refuse_in_place
from paratrain.proto import LayerParameter
from paratrain.proto.caffe_pb2 import EltwiseParameter

__all__ = ["EltwiseLayer"]


@register_layer("Eltwise")
class EltwiseLayer(Layer):
    """Two or more bottoms of one shape, a top of the same. ``operation``:

    - SUM: y = sum of c_i x_i (``coeff``, 1 if not given); dx_i = c_i dy.
    - PROD: y = product of x_i; dx_i = dy times the product of the others, or dy y / x_i with ``stable_prod_grad: false``.
    - MAX: y = largest x_i; dx_i = dy where bottom i was chosen, else 0. Of equal values Caffe chooses bottom 1 over
      bottom 0, and a later bottom only if it is larger than all before it.
    """

    bottom_range = (2, None)

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        eltwise = parameter.eltwise_param
        self._operation = eltwise.operation
        self._stable = eltwise.stable_prod_grad
        if eltwise.operation not in (EltwiseParameter.SUM, EltwiseParameter.PROD, EltwiseParameter.MAX):
            name = EltwiseParameter.EltwiseOp.Name(eltwise.operation)
            raise self.error(f"operation {name} is not supported; choose SUM, PROD or MAX")
        self._coeffs = list(eltwise.coeff)
        self._scratch, self._chosen, self._mask = Buffer(self.xp), Buffer(self.xp), Buffer(self.xp)
        self.shared_bottom: int | None = None
        """A bottom whose diff may be the top's memory, as a net can tell: nobody changes it while others still read it."""

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        if not self._coeffs:
            self._coeffs = [1.0] * len(bottom)
        elif self._operation != EltwiseParameter.SUM:
            raise self.error("coeff is for operation SUM only; remove it")
        elif len(self._coeffs) != len(bottom):
            raise self.error(
                f"coeff is given {len(self._coeffs)} times for {len(bottom)} bottoms; give one each, or none"
            )

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        refuse_in_place(self, bottom, top)
        for index, blob in enumerate(bottom[1:], start=1):
            if blob.shape != bottom[0].shape:
                raise self.error(
                    f"{self.bottom_name(index)} {blob.shape} and {self.bottom_name(0)} {bottom[0].shape} "
                    "must have the same shape",
                    ShapeMismatchError,
                )
        top[0].reshape_like(bottom[0])

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        values, y = [self.read(blob) for blob in bottom], self.write(top[0])
        if self._operation == EltwiseParameter.SUM:
            self._sum(values, y)
            return
        combine = self.xp.multiply if self._operation == EltwiseParameter.PROD else self.xp.maximum
        combine(values[0], values[1], out=y)
        for x in values[2:]:
            combine(y, x, out=y)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        if not any(propagate_down):
            return
        xp, top_diff = self.xp, self.read_diff(top[0])
        values = [] if self._operation == EltwiseParameter.SUM else [self.read(blob) for blob in bottom]
        chosen = self._choose(values) if self._operation == EltwiseParameter.MAX else None
        for index, (blob, wanted) in enumerate(zip(bottom, propagate_down, strict=True)):
            if not wanted:
                continue
            diff = self.write_diff(blob)
            if self._operation == EltwiseParameter.SUM:
                xp.multiply(top_diff, self._coeffs[index], out=diff)
            elif self._operation == EltwiseParameter.MAX:
                mask = self._mask.get(diff.shape, bool)
                xp.equal(chosen, index, out=mask)
                xp.multiply(top_diff, mask, out=diff)
            elif self._stable:
                factors = [top_diff, *(x for other, x in enumerate(values) if other != index)]
                xp.multiply(factors[0], factors[1], out=diff)
                for factor in factors[2:]:
                    diff *= factor
            else:
                with np.errstate(divide="ignore", invalid="ignore"):  # where x is 0, as in Caffe: not a number
                    xp.divide(self.read(top[0]), values[index], out=diff)
                    diff *= top_diff

    def share_memory(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        index = self.shared_bottom
        if self.is_plain_sum and index is not None and bottom[index].diff_memory is not top[0].diff_memory:
            top[0].share_diff(bottom[index])

    @property
    def is_plain_sum(self) -> bool:
        """Whether this is a sum without coefficients."""
        return self._operation == EltwiseParameter.SUM and all(coeff == 1 for coeff in self._coeffs)

    def _sum(self, values: list[Any], y: Any) -> None:
        if self._coeffs[0] == 1 and self._coeffs[1] == 1:
            self.xp.add(values[0], values[1], out=y)
            start = 2
        else:
            self.xp.multiply(values[0], self._coeffs[0], out=y)
            start = 1
        for x, coeff in zip(values[start:], self._coeffs[start:], strict=True):
            if coeff == 1:
                y += x
            elif coeff == -1:
                y -= x
            else:
                part = self._scratch.get(y.shape, y.dtype)
                self.xp.multiply(x, coeff, out=part)
                y += part

    def _choose(self, values: list[Any]) -> Any:
        """Return the number of the bottom that MAX took, for every value."""
        xp, shape = self.xp, values[0].shape
        chosen, mask = self._chosen.get(shape, np.int32), self._mask.get(shape, bool)
        xp.less_equal(values[0], values[1], out=mask)
        chosen[...] = mask
        if len(values) > 2:
            largest = self._scratch.get(shape, values[0].dtype)
            xp.maximum(values[0], values[1], out=largest)
            for index, x in enumerate(values[2:], start=2):
                xp.greater(x, largest, out=mask)
                chosen[mask] = index
                xp.maximum(largest, x, out=largest)
        return chosen
