"""EuclideanLoss: half the mean squared distance."""

from __future__ import annotations

from collections.abc import Sequence

from paratrain.blob import Blob
from paratrain.layers.base import register_layer
from paratrain.layers.difference_loss import DifferenceLoss

__all__ = ["EuclideanLossLayer"]


@register_layer("EuclideanLoss")
class EuclideanLossLayer(DifferenceLoss):
    """loss = sum of (a - b)^2 / (2 N), for two bottoms a and b of N rows of as many values.

    Gradient: weight (a - b) / N for a and its negative for b; both bottoms may be learned.
    """

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        a, b = (self.read(blob).reshape(-1) for blob in bottom)
        difference = self._difference.get(a.shape, a.dtype)
        self.xp.subtract(a, b, out=difference)
        self.write(top[0])[...] = self.xp.dot(difference, difference) / (2.0 * max(bottom[0].shape[0], 1))

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        weight = self.top_weight(top[0]) / max(bottom[0].shape[0], 1)
        for blob, wanted, sign in zip(bottom, propagate_down, (1.0, -1.0), strict=True):
            if wanted:
                difference = self._difference.get((blob.count,), blob.dtype)
                self.xp.multiply(difference, sign * weight, out=self.write_diff(blob).reshape(-1))
