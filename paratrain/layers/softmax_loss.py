"""SoftmaxWithLoss: softmax and the multinomial logistic loss in one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from paratrain.blob import Blob
from paratrain.layers.base import LayerContext, register_layer
from paratrain.layers.checks import canonical_axis
from paratrain.layers.loss import LossLayer, check_label_count, loss_normalization, normalizer, read_labels
from paratrain.layers.softmax import softmax
from paratrain.proto import LayerParameter

__all__ = ["SoftmaxWithLossLayer"]

_LEAST_PROBABILITY = float(np.finfo(np.float32).tiny)


@register_layer("SoftmaxWithLoss")
class SoftmaxWithLossLayer(LossLayer):
    """p = softmax of bottom[0] along ``softmax_param.axis``; loss = -sum of log(max(p[label], FLT_MIN)) / normalizer.

    bottom[0] (outer, classes, inner) holds scores, bottom[1] (outer * inner values) labels; labels equal to
    ``ignore_label`` count neither in the loss nor in the gradient. The normalizer is that of
    ``loss_param.normalization``. The optional second top is p. Gradient: weight / normalizer * (p - 1 at the label).
    """

    top_range = (1, 2)

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        loss = parameter.loss_param
        self._normalization = loss_normalization(self)
        self._ignore_label = loss.ignore_label if loss.HasField("ignore_label") else None
        self._probability = Blob((0,), context.dtype)
        self._offset = np.zeros(0, np.int64)
        self._chosen: Any = None
        self._ignored: tuple[Any, Any] | None = None

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        super().reshape(bottom, top)
        scores = bottom[0]
        axis = canonical_axis(self, scores, self.parameter.softmax_param.axis, "softmax_param.axis")
        check_label_count(self, scores, bottom[1], axis)
        outer, classes, inner = scores.count_between(0, axis), scores.shape[axis], scores.count_between(axis + 1)
        self._sizes = (outer, classes, inner)
        # The flat index of class 0 at every position: the label's is ``label * inner`` further.
        self._offset = np.add.outer(np.arange(outer) * (classes * inner), np.arange(inner)).reshape(-1)
        if self._probability.dtype != scores.dtype:
            self._probability = Blob(scores.shape, scores.dtype)
        self._probability.reshape_like(scores)
        if len(top) > 1:
            top[1].reshape_like(scores)
            top[1].share_data(self._probability)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        xp, (outer, classes, inner) = self.xp, self._sizes
        labels, counted = read_labels(self, bottom[1], classes, inner, self._ignore_label)
        probability = self.write(self._probability)
        softmax(xp, self.read(bottom[0]).reshape(self._sizes), probability.reshape(self._sizes))
        chosen = self._offset + labels * inner
        self._ignored = None
        if counted is not None:
            row, pixel = np.divmod(np.flatnonzero(~counted), inner)
            self._ignored = (xp.asarray(row), xp.asarray(pixel))
            chosen = chosen[counted]
        self._chosen = xp.asarray(chosen)
        self._normalizer = normalizer(self._normalization, outer, inner, len(chosen))
        likely = probability.reshape(-1)[self._chosen]
        xp.maximum(likely, _LEAST_PROBABILITY, out=likely)
        xp.log(likely, out=likely)
        self.write(top[0])[...] = likely.sum() / -self._normalizer
        if len(top) > 1 and top[1].data_memory is not self._probability.data_memory:
            self.write(top[1])[...] = probability

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        self.refuse_label_gradient(propagate_down)
        if not propagate_down[0]:
            return
        weight = self.top_weight(top[0]) / self._normalizer
        diff = self.write_diff(bottom[0])
        self.xp.multiply(self.read(self._probability), weight, out=diff)
        diff.reshape(-1)[self._chosen] -= weight
        if self._ignored is not None:
            row, pixel = self._ignored
            diff.reshape(self._sizes)[row, :, pixel] = 0
