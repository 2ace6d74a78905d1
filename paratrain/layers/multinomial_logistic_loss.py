"""MultinomialLogisticLoss: the negative logarithm of the label's probability."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from paratrain.blob import Blob
from paratrain.layers.base import LayerContext, register_layer
from paratrain.layers.loss import LOG_THRESHOLD, LossLayer, check_one_label_each, read_labels
from paratrain.proto import LayerParameter

__all__ = ["MultinomialLogisticLossLayer"]


@register_layer("MultinomialLogisticLoss")
class MultinomialLogisticLossLayer(LossLayer):
    """loss = -sum of log(max(p[label], 1e-20)) / N.

    bottom[0] (N, ...) holds probabilities, all values of a sample taken together; bottom[1] (N,) labels. Gradient:
    -weight / (N max(p, 1e-20)) at the label, 0 elsewhere. SoftmaxWithLoss joins it with the softmax, and is more exact.
    """

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        self._label: tuple[Any, Any] | None = None

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        super().reshape(bottom, top)
        check_one_label_each(self, bottom)
        self._sizes = (bottom[0].shape[0], bottom[0].count_between(1))

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        xp, (count, classes) = self.xp, self._sizes
        labels, _ = read_labels(self, bottom[1], classes, 1, None)
        self._label = (xp.asarray(np.arange(count)), xp.asarray(labels))
        likely = xp.maximum(self.read(bottom[0]).reshape(self._sizes)[self._label], LOG_THRESHOLD)
        self.write(top[0])[...] = xp.log(likely).sum() / -max(count, 1)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        self.refuse_label_gradient(propagate_down)
        if not propagate_down[0]:
            return
        likely = self.xp.maximum(self.read(bottom[0]).reshape(self._sizes)[self._label], LOG_THRESHOLD)
        diff = self.write_diff(bottom[0]).reshape(self._sizes)
        diff[...] = 0
        diff[self._label] = -self.top_weight(top[0]) / max(self._sizes[0], 1) / likely
