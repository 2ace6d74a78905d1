"""Accuracy: the share of labels that are found."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from paratrain.blob import Blob
from paratrain.errors import ShapeMismatchError
from paratrain.layers.base import Layer, LayerContext, register_layer
from paratrain.layers.checks import canonical_axis, refuse_in_place
from paratrain.layers.loss import check_label_count, read_labels
from paratrain.proto import LayerParameter

__all__ = ["AccuracyLayer"]


@register_layer("Accuracy")
class AccuracyLayer(Layer):
    """The share of positions whose label is among the ``top_k`` highest scores along ``axis``; no gradient.

    bottom[0] (outer, classes, inner) holds scores, bottom[1] (outer * inner values) labels; those equal to
    ``ignore_label`` do not count. A position is right when fewer than top_k other classes score at least as high as
    its label: ties count against it. A position with a score that is not a number is wrong where that leaves the
    order open. top[0] () is 0 where nothing counts; the optional top[1] (classes,) is the share for each class, 0 for
    one that does not occur.
    """

    bottom_range = (2, 2)
    top_range = (1, 2)

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        accuracy = parameter.accuracy_param
        self._top_k = accuracy.top_k
        self._ignore_label = accuracy.ignore_label if accuracy.HasField("ignore_label") else None
        self._offset = np.zeros(0, np.int64)

    def allow_force_backward(self, bottom_index: int) -> bool:
        return False

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        refuse_in_place(self, bottom, top)
        scores = bottom[0]
        axis = canonical_axis(self, scores, self.parameter.accuracy_param.axis, "accuracy_param.axis")
        check_label_count(self, scores, bottom[1], axis)
        outer, classes, inner = scores.count_between(0, axis), scores.shape[axis], scores.count_between(axis + 1)
        if not 1 <= self._top_k <= classes:
            raise self.error(
                f"top_k is {self._top_k}, but {self.bottom_name(0)} {scores.shape} has {classes} classes (axis {axis})",
                ShapeMismatchError,
            )
        self._sizes = (outer, classes, inner)
        self._offset = np.add.outer(np.arange(outer) * (classes * inner), np.arange(inner)).reshape(-1)
        top[0].reshape()
        if len(top) > 1:
            top[1].reshape(classes)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        xp, (outer, classes, inner) = self.xp, self._sizes
        labels, counted = read_labels(self, bottom[1], classes, inner, self._ignore_label)
        chosen = self._offset + labels * inner
        if counted is not None:
            chosen[~counted] = 0
        scores = self.read(bottom[0]).reshape(self._sizes)
        wanted = scores.reshape(-1)[xp.asarray(chosen)].reshape(outer, 1, inner)
        not_lower = classes - 1 - (scores < wanted).sum(axis=1).reshape(-1)
        right = not_lower < self._top_k
        if counted is not None:
            labels, right = labels[counted], right[xp.asarray(counted)]
        self.write(top[0])[...] = right.sum() / max(len(labels), 1)
        if len(top) > 1:
            found = xp.bincount(xp.asarray(labels), weights=right.astype(np.float64), minlength=classes)
            self.write(top[1])[...] = found / xp.asarray(np.maximum(np.bincount(labels, minlength=classes), 1))

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        if any(propagate_down):
            raise self.error("has no gradient; remove its loss_weight and propagate_down")
