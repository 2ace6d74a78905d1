"""InfogainLoss: the multinomial logistic loss with a weight for every pair of true and guessed class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from paratrain.blob import Blob
from paratrain.errors import ShapeMismatchError, SnapshotError
from paratrain.layers.base import LayerContext, register_layer
from paratrain.layers.buffers import Buffer
from paratrain.layers.checks import canonical_axis
from paratrain.layers.loss import (
    LOG_THRESHOLD,
    LossLayer,
    check_label_count,
    loss_normalization,
    normalizer,
    read_labels,
)
from paratrain.layers.softmax import softmax
from paratrain.proto import BlobProto, LayerParameter, blob_to_array, read_binary

__all__ = ["InfogainLossLayer"]


@register_layer("InfogainLoss")
class InfogainLossLayer(LossLayer):
    """p = softmax of bottom[0] along ``axis``; loss = -sum over k of H[label, k] log(max(p[k], 1e-20)) / normalizer.

    bottom[0] (outer, classes, inner) holds scores, bottom[1] (outer * inner values) labels, and H (classes * classes
    values) is bottom[2], or the BlobProto in the file ``source``. The identity makes it SoftmaxWithLoss. Labels equal to
    ``loss_param.ignore_label`` count neither in the loss nor in the gradient; the normalizer is that of
    ``loss_param.normalization``. The optional second top is p.
    Gradient: weight / normalizer * (p[k] sum over j of H[label, j] - H[label, k]).
    """

    bottom_range = (2, 3)
    top_range = (1, 2)

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        if parameter.loss_param.HasField("normalize"):
            raise self.error("loss_param.normalize is not read by InfogainLoss; use loss_param.normalization")
        loss = parameter.loss_param
        self._normalization = loss_normalization(self)
        self._ignore_label = loss.ignore_label if loss.HasField("ignore_label") else None
        self._probability, self._weights = Buffer(self.xp), Buffer(self.xp)
        self._row_sum: Any = None
        self._matrix: Any = None

    def allow_force_backward(self, bottom_index: int) -> bool:
        return bottom_index == 0

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        if len(bottom) > 2:
            return
        source = self.parameter.infogain_loss_param.source
        if not source:
            raise self.error(
                "infogain_loss_param.source, the file of the matrix H, is missing; give it, or a third bottom"
            )
        try:
            matrix = blob_to_array(read_binary(source, BlobProto))
        except SnapshotError as error:
            raise self.error(f"infogain_loss_param.source: {error}") from None
        self._matrix = self.xp.asarray(matrix.astype(bottom[0].dtype))

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        super().reshape(bottom, top)
        scores = bottom[0]
        axis = canonical_axis(self, scores, self.parameter.infogain_loss_param.axis, "infogain_loss_param.axis")
        check_label_count(self, scores, bottom[1], axis)
        self._sizes = (scores.count_between(0, axis), scores.shape[axis], scores.count_between(axis + 1))
        classes, shape = self._sizes[1], bottom[2].shape if len(bottom) > 2 else self._matrix.shape
        if (bottom[2].count if len(bottom) > 2 else self._matrix.size) != classes * classes:
            owner = self.bottom_name(2) if len(bottom) > 2 else f"'{self.parameter.infogain_loss_param.source}'"
            raise self.error(
                f"{owner} has the shape {shape}; {classes} classes need ({classes}, {classes})", ShapeMismatchError
            )
        if len(top) > 1:
            top[1].reshape_like(scores)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        xp, (outer, classes, inner) = self.xp, self._sizes
        labels, counted = read_labels(self, bottom[1], classes, inner, self._ignore_label)
        matrix = (self.read(bottom[2]) if len(bottom) > 2 else self._matrix).reshape(classes, classes)
        scores = self.read(bottom[0]).reshape(self._sizes)
        probability = self._probability.get(self._sizes, scores.dtype)
        softmax(xp, scores, probability)
        weights = self._weights.get((outer, inner, classes), scores.dtype)
        if counted is None:
            weights[...] = matrix[xp.asarray(labels).reshape(outer, inner)]
        else:
            labels[~counted] = 0
            weights[...] = matrix[xp.asarray(labels).reshape(outer, inner)]
            weights[~xp.asarray(counted).reshape(outer, inner)] = 0
        self._row_sum = weights.sum(axis=2)
        valid = labels.size if counted is None else int(counted.sum())
        self._normalizer = normalizer(self._normalization, outer, inner, valid)
        logarithm = xp.log(xp.maximum(probability, LOG_THRESHOLD))
        self.write(top[0])[...] = xp.einsum("oci,oic->", logarithm, weights) / -self._normalizer
        if len(top) > 1:
            self.write(top[1])[...] = probability.reshape(bottom[0].shape)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        self.refuse_label_gradient(propagate_down)
        if len(propagate_down) > 2 and propagate_down[2]:
            raise self.error(f"has no gradient by {self.bottom_name(2)}, the matrix; remove its propagate_down")
        if not propagate_down[0]:
            return
        outer, classes, inner = self._sizes
        diff = self.write_diff(bottom[0]).reshape(self._sizes)
        self.xp.multiply(self._probability.get(self._sizes, diff.dtype), self._row_sum[:, None, :], out=diff)
        diff -= self._weights.get((outer, inner, classes), diff.dtype).transpose(0, 2, 1)
        diff *= self.top_weight(top[0]) / self._normalizer
