"""HingeLoss: one against all, with a margin of 1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from paratrain.blob import Blob
from paratrain.layers.base import LayerContext, register_layer
from paratrain.layers.buffers import Buffer
from paratrain.layers.loss import LossLayer, check_one_label_each, read_labels
from paratrain.proto import HingeLossParameter, LayerParameter

__all__ = ["HingeLossLayer"]


@register_layer("HingeLoss")
class HingeLossLayer(LossLayer):
    """m = max(1 - s x, 0), s being 1 at the label and -1 elsewhere; loss = sum of m / N, with norm L2 sum of m^2 / N.

    bottom[0] (N, ...) holds a score for each class, all values of a sample taken together; bottom[1] (N,) labels.
    Gradient: weight / N times -s where m > 0; with norm L2 times -2 s m.
    """

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        self._squared = parameter.hinge_loss_param.norm == HingeLossParameter.L2
        self._margin = Buffer(self.xp)
        self._label: tuple[Any, Any] | None = None

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        super().reshape(bottom, top)
        check_one_label_each(self, bottom)
        self._sizes = (bottom[0].shape[0], bottom[0].count_between(1))

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        xp, (count, classes) = self.xp, self._sizes
        labels, _ = read_labels(self, bottom[1], classes, 1, None)
        self._label = (xp.asarray(np.arange(count)), xp.asarray(labels))
        x = self.read(bottom[0]).reshape(self._sizes)
        margin = self._margin.get(self._sizes, x.dtype)
        margin[...] = x
        margin[self._label] *= -1
        margin += 1
        xp.maximum(margin, 0, out=margin)
        total = xp.vdot(margin, margin) if self._squared else margin.sum()
        self.write(top[0])[...] = total / max(count, 1)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        self.refuse_label_gradient(propagate_down)
        if not propagate_down[0]:
            return
        xp, weight = self.xp, self.top_weight(top[0]) / max(self._sizes[0], 1)
        diff = self.write_diff(bottom[0]).reshape(self._sizes)
        margin = self._margin.get(self._sizes, diff.dtype)
        if self._squared:
            xp.multiply(margin, 2 * weight, out=diff)
        else:
            xp.multiply(margin > 0, weight, out=diff, dtype=diff.dtype)
        diff[self._label] *= -1
