"""ContrastiveLoss: pulls similar pairs together and pushes the others apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from paratrain.blob import Blob
from paratrain.errors import ShapeMismatchError
from paratrain.layers.base import LayerContext, register_layer
from paratrain.layers.buffers import Buffer
from paratrain.layers.loss import LossLayer
from paratrain.proto import LayerParameter

__all__ = ["ContrastiveLossLayer"]

_EPSILON = 1e-4  # Caffe adds it to the distance that the gradient is divided by.


@register_layer("ContrastiveLoss")
class ContrastiveLossLayer(LossLayer):
    """loss = sum over pairs of (y d^2 + (1 - y) max(margin - d, 0)^2) / (2 N), where d is the distance of a and b.

    bottom[0] and bottom[1] are a and b, (N, ...), all values of a sample taken together; bottom[2] (N,) is y: pairs
    whose value, its fraction cut off, is not 0 are similar. With ``legacy_version`` the second term is
    max(margin - d^2, 0).

    Gradient by a, and its negative by b: weight / N times a - b for a similar pair; -(margin - d) / (d + 0.0001) (a - b)
    for another one nearer than the margin (with ``legacy_version``, -(a - b)). The small number in it is Caffe's.
    Source: Hadsell, Chopra, LeCun, "Dimensionality reduction by learning an invariant mapping", 2006.
    """

    bottom_range = (3, 3)

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        self._margin = parameter.contrastive_loss_param.margin
        self._legacy = parameter.contrastive_loss_param.legacy_version
        self._difference = Buffer(self.xp)
        self._factor: Any = None

    def allow_force_backward(self, bottom_index: int) -> bool:
        return bottom_index != 2

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        super().reshape(bottom, top)
        self._sizes = (bottom[0].shape[0], bottom[0].count_between(1))
        for index, value_count in ((1, self._sizes[1]), (2, 1)):
            blob = bottom[index]
            if blob.shape[:1] != bottom[0].shape[:1] or blob.count_between(1) != value_count:
                raise self.error(
                    f"{self.bottom_name(index)} is {blob.shape}, {self.bottom_name(0)} {bottom[0].shape}: expected "
                    f"{self._sizes[0]} rows of {value_count} values",
                    ShapeMismatchError,
                )

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        xp, sizes = self.xp, self._sizes
        a, b = self.read(bottom[0]).reshape(sizes), self.read(bottom[1]).reshape(sizes)
        difference = self._difference.get(sizes, a.dtype)
        xp.subtract(a, b, out=difference)
        squared = xp.einsum("nc,nc->n", difference, difference)
        similar = xp.trunc(self.read(bottom[2]).reshape(-1)) != 0
        if self._legacy:
            gap = xp.maximum(self._margin - squared, 0)
            apart, factor = gap, xp.where(gap > 0, -1.0, 0.0)
        else:
            distance = xp.sqrt(squared)
            gap = xp.maximum(self._margin - distance, 0)
            apart, factor = gap * gap, gap / -(distance + _EPSILON)
        self._factor = xp.where(similar, 1.0, factor).astype(a.dtype)[:, None]
        self.write(top[0])[...] = xp.where(similar, squared, apart).sum() / (2.0 * max(sizes[0], 1))

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        if propagate_down[2]:
            raise self.error(
                f"has no gradient by {self.bottom_name(2)}, which pairs are similar; remove its propagate_down"
            )
        weight = self.top_weight(top[0]) / max(self._sizes[0], 1)
        for blob, wanted, sign in zip(bottom, propagate_down, (1.0, -1.0), strict=False):
            if wanted:
                diff = self.write_diff(blob).reshape(self._sizes)
                self.xp.multiply(self._difference.get(self._sizes, blob.dtype), self._factor, out=diff)
                diff *= sign * weight
