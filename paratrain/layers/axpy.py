"""Axpy: scale each channel of one blob and add another."""

from __future__ import annotations

from collections.abc import Sequence

from paratrain.blob import Blob
from paratrain.errors import ShapeMismatchError
from paratrain.layers.base import Layer, register_layer
from paratrain.layers.checks import refuse_in_place

__all__ = ["AxpyLayer"]


@register_layer("Axpy")
class AxpyLayer(Layer):
    """top = a x + y with one factor a for each image and channel: the end of a squeeze-and-excitation block.

    Bottoms a (N, C) or (N, C, 1, ...), x (N, C, ...) and y of x's shape. Gradients: da = sum over pixels of x dy,
    dx = a dy, and dy goes to y as it is. Source: Hu and others, "Squeeze-and-Excitation Networks", 2017 (SENet's fork).
    """

    bottom_range = (3, 3)

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        refuse_in_place(self, bottom, top)
        factor, x, y = bottom
        if x.axis_count < 2 or factor.shape[:2] != x.shape[:2] or factor.count_between(2) != 1:
            raise self.error(
                f"{self.bottom_name(0)}, the factors, is {factor.shape} and {self.bottom_name(1)} is {x.shape}; "
                "there must be one factor for each image and channel: (N, C, 1, 1) for (N, C, H, W)",
                ShapeMismatchError,
            )
        if x.shape != y.shape:
            raise self.error(
                f"{self.bottom_name(1)} {x.shape} and {self.bottom_name(2)} {y.shape} must have the same shape",
                ShapeMismatchError,
            )
        self._sizes = (x.shape[0], x.shape[1], x.count_between(2))
        top[0].reshape_like(x)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        factor = self.read(bottom[0]).reshape(*self._sizes[:2], 1)
        x, y, out = self.read(bottom[1]), self.read(bottom[2]), self.write(top[0])
        self.xp.multiply(x.reshape(self._sizes), factor, out=out.reshape(self._sizes))
        out += y

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        top_diff = self.read_diff(top[0]).reshape(self._sizes)
        if propagate_down[0]:
            x = self.read(bottom[1]).reshape(self._sizes)
            self.write_diff(bottom[0]).reshape(self._sizes[:2])[...] = self.xp.einsum("ncs,ncs->nc", top_diff, x)
        if propagate_down[1]:
            factor = self.read(bottom[0]).reshape(*self._sizes[:2], 1)
            self.xp.multiply(top_diff, factor, out=self.write_diff(bottom[1]).reshape(self._sizes))
        if propagate_down[2]:
            self.write_diff(bottom[2]).reshape(self._sizes)[...] = top_diff
