"""FocalLoss: a softmax loss in which samples that are already right count less."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from paratrain.blob import Blob
from paratrain.layers.base import LayerContext, register_layer
from paratrain.layers.buffers import Buffer
from paratrain.layers.checks import canonical_axis
from paratrain.layers.loss import LossLayer, check_label_count, loss_normalization, normalizer, read_labels
from paratrain.layers.softmax import softmax
from paratrain.proto import LayerParameter
from paratrain.proto.caffe_pb2 import FocalLossParameter

__all__ = ["FocalLossLayer"]

_LEAST_PROBABILITY = float(np.finfo(np.float32).tiny)


@register_layer("FocalLoss")
class FocalLossLayer(LossLayer):
    """loss = -``alpha`` sum of (1 - p)^``gamma`` log(max(p, FLT_MIN)) / normalizer, p = softmax(bottom[0])[label].

    bottom[0] (outer, classes, inner) holds scores with the classes at ``axis`` (``softmax_param.axis`` if not given),
    bottom[1] a label for each position; ``loss_param`` says what is ignored and how the sum is normalized, as for
    SoftmaxWithLoss. The optional second top is the softmax. Gradient by score k: weight / normalizer
    g (q_k - [k is the label]), q the softmax and g = alpha ((1 - p)^gamma - gamma p (1 - p)^(gamma - 1) log p). ``type``
    LINEAR and its ``beta`` have no meaning for a softmax and are refused. Source: Lin and others, "Focal Loss for Dense
    Object Detection", 2017, in the softmax form of the forks whose message is ``focal_loss_param``.
    """

    top_range = (1, 2)

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        focal, loss = parameter.focal_loss_param, parameter.loss_param
        if focal.type != FocalLossParameter.ORIGIN:
            raise self.error("focal_loss_param.type LINEAR is not defined for a softmax; use ORIGIN")
        if not focal.gamma >= 0 or not focal.alpha > 0:
            raise self.error(
                f"gamma is {focal.gamma:g} and alpha {focal.alpha:g}; gamma must be at least 0, alpha above 0"
            )
        self._alpha, self._gamma = focal.alpha, focal.gamma
        self._normalization = loss_normalization(self)
        self._ignore_label = loss.ignore_label if loss.HasField("ignore_label") else None
        self._probability = Blob((0,), context.dtype)
        self._factor = Buffer(self.xp)

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        super().reshape(bottom, top)
        scores = bottom[0]
        focal = self.parameter.focal_loss_param
        message, given = (
            ("focal_loss_param", focal.axis)
            if focal.HasField("axis")
            else ("softmax_param", self.parameter.softmax_param.axis)
        )
        axis = canonical_axis(self, scores, given, f"{message}.axis")
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

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        xp, (outer, classes, inner) = self.xp, self._sizes
        labels, counted = read_labels(self, bottom[1], classes, inner, self._ignore_label)
        probability = self.write(self._probability)
        softmax(xp, self.read(bottom[0]).reshape(self._sizes), probability.reshape(self._sizes))
        # An ignored position takes class 0, so that every index exists; its factor is 0.
        labels = labels if counted is None else np.where(counted, labels, 0)
        self._chosen = xp.asarray(self._offset + labels * inner)
        count = labels.size if counted is None else int(np.count_nonzero(counted))
        self._normalizer = normalizer(self._normalization, outer, inner, count)
        p = probability.reshape(-1)[self._chosen]
        log, rest = xp.log(xp.maximum(p, _LEAST_PROBABILITY)), xp.maximum(1 - p, 0)
        modulation = rest**self._gamma
        terms = modulation * log
        # (1 - p)^(gamma - 1) log p: at p = 1 its limit is 0 for every gamma above 0.
        slope = xp.where(rest > 0, terms / xp.maximum(rest, _LEAST_PROBABILITY), 0)
        gradient = self._factor.get(p.shape, p.dtype)
        xp.subtract(modulation, self._gamma * p * slope, out=gradient)
        if counted is not None:
            mask = xp.asarray(counted)
            terms *= mask
            gradient *= mask
        gradient *= self._alpha
        self.write(top[0])[...] = terms.sum() * (-self._alpha / self._normalizer)
        if len(top) > 1:
            self.write(top[1])[...] = probability

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        self.refuse_label_gradient(propagate_down)
        if not propagate_down[0]:
            return
        outer, _, inner = self._sizes
        diff: Any = self.write_diff(bottom[0])
        weight = self.top_weight(top[0]) / self._normalizer
        factor = self._factor.get((outer * inner,), bottom[0].dtype) * weight
        probability = self.read(self._probability).reshape(self._sizes)
        self.xp.multiply(probability, factor.reshape(outer, 1, inner), out=diff.reshape(self._sizes))
        diff.reshape(-1)[self._chosen] -= factor
