"""L1Loss and SmoothL1Loss: distances that grow in proportion to the error."""

from __future__ import annotations

from collections.abc import Sequence

from paratrain.blob import Blob
from paratrain.errors import ShapeMismatchError
from paratrain.layers.base import LayerContext, register_layer
from paratrain.layers.buffers import Buffer
from paratrain.layers.difference_loss import DifferenceLoss
from paratrain.layers.loss import LossLayer
from paratrain.proto import LayerParameter

__all__ = ["L1LossLayer", "SmoothL1LossLayer"]


@register_layer("L1Loss")
class L1LossLayer(DifferenceLoss):
    """loss = sum of |a - b| / N, for two bottoms a and b of N rows of as many values.

    Gradient: weight sign(a - b) / N for a, with sign(0) = 0, and its negative for b. Source: NVIDIA/caffe.
    """

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        a, b = (self.read(blob).reshape(-1) for blob in bottom)
        difference = self._difference.get(a.shape, a.dtype)
        self.xp.subtract(a, b, out=difference)
        total = self.xp.abs(difference).sum()
        self.write(top[0])[...] = total / max(bottom[0].shape[0], 1)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        weight = self.top_weight(top[0]) / max(bottom[0].shape[0], 1)
        for blob, wanted, sign in zip(bottom, propagate_down, (1.0, -1.0), strict=True):
            if wanted:
                diff = self.write_diff(blob).reshape(-1)
                self.xp.sign(self._difference.get((blob.count,), blob.dtype), out=diff)
                diff *= sign * weight


@register_layer("SmoothL1Loss")
class SmoothL1LossLayer(LossLayer):
    """loss = sum of o f(d) / N, d = i (a - b); f(d) = (``sigma`` d)^2 / 2 where |d| < 1 / sigma^2, else |d| - 0.5 / sigma^2.

    Two to four bottoms of one shape, N rows: predictions a, targets b, "inside" weights i and "outside" weights o, both 1
    where they are left out. Gradient: weight o i f'(d) / N for a and its negative for b, f'(d) = sigma^2 d or sign(d);
    none for the weights. Source: Girshick, "Fast R-CNN", 2015, and py-faster-rcnn's fork; SSD's takes three bottoms.
    """

    bottom_range = (2, 4)

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        self._square = parameter.smooth_l1_loss_param.sigma**2
        if not self._square > 0:
            raise self.error(
                f"smooth_l1_loss_param.sigma is {parameter.smooth_l1_loss_param.sigma:g}; it must not be 0"
            )
        self._difference, self._scratch, self._shared = Buffer(self.xp), Buffer(self.xp), Buffer(self.xp)

    def allow_force_backward(self, bottom_index: int) -> bool:
        return bottom_index < 2

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        super().reshape(bottom, top)
        for index in range(1, len(bottom)):
            if bottom[index].shape != bottom[0].shape:
                raise self.error(
                    f"{self.bottom_name(index)} {bottom[index].shape} and {self.bottom_name(0)} {bottom[0].shape} "
                    "must have the same shape",
                    ShapeMismatchError,
                )

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        # With m = min(|d|, 1 / sigma^2): f(d) = m sigma^2 (|d| - m / 2), in both parts.
        xp, shape, dtype = self.xp, bottom[0].shape, bottom[0].dtype
        difference = self._difference.get(shape, dtype)
        xp.subtract(self.read(bottom[0]), self.read(bottom[1]), out=difference)
        if len(bottom) > 2:
            difference *= self.read(bottom[2])
        size, inner = self._scratch.get(shape, dtype), self._shared.get(shape, dtype)
        xp.abs(difference, out=size)
        xp.minimum(size, 1.0 / self._square, out=inner)
        inner *= -0.5
        size += inner
        inner *= -2.0 * self._square
        if len(bottom) > 3:
            inner *= self.read(bottom[3])
        total = xp.dot(size.reshape(-1), inner.reshape(-1))
        self.write(top[0])[...] = total / max(shape[0], 1)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        for index in range(2, len(bottom)):
            if propagate_down[index]:
                raise self.error(
                    f"has no gradient by {self.bottom_name(index)}, the weights; remove its propagate_down"
                )
        if not any(propagate_down):
            return
        xp, shape, dtype = self.xp, bottom[0].shape, bottom[0].dtype
        slope = self._scratch.get(shape, dtype)
        xp.multiply(self._difference.get(shape, dtype), self._square, out=slope)
        xp.clip(slope, -1, 1, out=slope)
        for blob in bottom[2:]:
            slope *= self.read(blob)
        weight = self.top_weight(top[0]) / max(shape[0], 1)
        for blob, wanted, sign in zip(bottom, propagate_down, (1.0, -1.0, 0.0, 0.0), strict=False):
            if wanted:
                xp.multiply(slope, sign * weight, out=self.write_diff(blob))
