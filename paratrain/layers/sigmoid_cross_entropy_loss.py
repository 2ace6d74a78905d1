"""SigmoidCrossEntropyLoss: the logistic loss of many independent yes-or-no questions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from paratrain.blob import Blob
from paratrain.errors import ShapeMismatchError
from paratrain.layers.base import LayerContext, register_layer
from paratrain.layers.loss import LossLayer, loss_normalization, normalizer
from paratrain.proto import LayerParameter, LossParameter

__all__ = ["SigmoidCrossEntropyLossLayer"]


@register_layer("SigmoidCrossEntropyLoss")
class SigmoidCrossEntropyLossLayer(LossLayer):
    """loss = -sum of (t log s(x) + (1 - t) log(1 - s(x))) / normalizer, s(x) = 1 / (1 + exp(-x)).

    bottom[0] holds the scores x, bottom[1] as many targets t, from 0 to 1. Computed as max(x, 0) - x t +
    log(1 + exp(-|x|)), which cannot overflow. Targets that, with their fraction cut off, equal
    ``loss_param.ignore_label`` count neither in the loss nor in the gradient. The normalizer is that of
    ``loss_param.normalization``, which is BATCH_SIZE unless given. Gradient: weight / normalizer * (s(x) - t).
    """

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        loss = parameter.loss_param
        given = loss.HasField("normalization") or loss.HasField("normalize")
        mode = loss_normalization(self)
        self._normalization = mode if given else LossParameter.BATCH_SIZE
        self._ignore_label = loss.ignore_label if loss.HasField("ignore_label") else None
        self._ignored: Any = None
        self._normalizer = 1.0

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        super().reshape(bottom, top)
        if bottom[0].count != bottom[1].count:
            raise self.error(
                f"{self.bottom_name(0)} {bottom[0].shape} and {self.bottom_name(1)} {bottom[1].shape} "
                f"must hold as many values; they hold {bottom[0].count} and {bottom[1].count}",
                ShapeMismatchError,
            )

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        xp, x, target = self.xp, self.read(bottom[0]).reshape(-1), self.read(bottom[1]).reshape(-1)
        loss = xp.abs(x)
        xp.negative(loss, out=loss)
        xp.exp(loss, out=loss)
        xp.log1p(loss, out=loss)
        loss += xp.maximum(x, 0)
        loss -= x * target
        valid = x.size
        self._ignored = None
        if self._ignore_label is not None:
            self._ignored = xp.trunc(target) == self._ignore_label
            loss[self._ignored] = 0
            valid -= int(self._ignored.sum())
        outer, inner = bottom[0].shape[0], bottom[0].count_between(1)
        self._normalizer = normalizer(self._normalization, outer, inner, valid)
        self.write(top[0])[...] = loss.sum() / self._normalizer

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        self.refuse_label_gradient(propagate_down)
        if not propagate_down[0]:
            return
        xp, diff = self.xp, self.write_diff(bottom[0]).reshape(-1)
        xp.multiply(self.read(bottom[0]).reshape(-1), 0.5, out=diff)
        xp.tanh(diff, out=diff)  # s(x) = 0.5 tanh(0.5 x) + 0.5
        diff *= 0.5
        diff += 0.5
        diff -= self.read(bottom[1]).reshape(-1)
        diff *= self.top_weight(top[0]) / self._normalizer
        if self._ignored is not None:
            diff[self._ignored] = 0
