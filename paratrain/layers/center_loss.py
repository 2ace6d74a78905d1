"""CenterLoss: pull features to the centre of their class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from paratrain.blob import Blob
from paratrain.errors import ShapeMismatchError
from paratrain.layers.base import LayerContext, register_layer
from paratrain.layers.buffers import Buffer
from paratrain.layers.checks import canonical_axis
from paratrain.layers.learnable import add_learnable_blob
from paratrain.layers.loss import LossLayer, read_labels
from paratrain.proto import LayerParameter

__all__ = ["CenterLossLayer"]


@register_layer("CenterLoss")
class CenterLossLayer(LossLayer):
    """loss = sum over i of |x_i - c_label(i)|^2 / (2 M), for M rows x_i of K values, the axes from ``axis`` on.

    bottom[0] (M, K values ...), bottom[1] M labels; blob 0 holds the centres c (``num_output`` classes, K), filled by
    ``center_filler``. Gradient: weight (x_i - c_label(i)) / M for x. The "gradient" of the centre of class j is not the
    loss's: it is the sum over its n_j rows of c_j - x_i, divided by 1 + n_j, whatever the loss weight; ``lr_mult`` of the
    blob times the learning rate is the paper's alpha. With several ranks centres move by the mean of the ranks' moves.
    Source: Wen and others, "A Discriminative Feature Learning Approach for Deep Face Recognition", 2016 (caffe-face).
    """

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        self._difference = Buffer(self.xp)
        self._labels = np.zeros(0, np.int64)

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        parameter = self.parameter.center_loss_param
        if parameter.num_output < 1:
            raise self.error("center_loss_param.num_output, the number of classes, must be given and be at least 1")
        self._axis = canonical_axis(self, bottom[0], parameter.axis, "center_loss_param.axis")
        shape = (parameter.num_output, bottom[0].count_between(self._axis))
        add_learnable_blob(self, shape, bottom[0].dtype, parameter.center_filler)

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        super().reshape(bottom, top)
        features = bottom[0]
        self._rows, self._width = features.count_between(0, self._axis), features.count_between(self._axis)
        if features.axis_count <= self._axis or self._width != self.blobs[0].shape[1]:
            raise self.error(
                f"{self.bottom_name(0)} is {features.shape}: {self._width} values from axis {self._axis} on; "
                f"the centres {self.blobs[0].shape} have {self.blobs[0].shape[1]}",
                ShapeMismatchError,
            )
        if bottom[1].count != self._rows:
            raise self.error(
                f"{self.bottom_name(0)} {features.shape} with axis {self._axis} needs {self._rows} labels; "
                f"{self.bottom_name(1)} {bottom[1].shape} has {bottom[1].count}",
                ShapeMismatchError,
            )

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        xp, centres = self.xp, self.read(self.blobs[0])
        self._labels, _ = read_labels(self, bottom[1], centres.shape[0], 1, None)
        x = self.read(bottom[0]).reshape(self._rows, self._width)
        difference = self._difference.get(x.shape, x.dtype)
        xp.subtract(x, centres[xp.asarray(self._labels)], out=difference)
        flat = difference.reshape(-1)
        self.write(top[0])[...] = xp.dot(flat, flat) / (2.0 * max(self._rows, 1))

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        self.refuse_label_gradient(propagate_down)
        xp = self.xp
        difference = self._difference.get((self._rows, self._width), bottom[0].dtype)
        if self.param_propagate_down[0] and self._rows:
            classes, inverse, counts = np.unique(self._labels, return_inverse=True, return_counts=True)
            # Row by class: -1 / (1 + n_j) for the rows of class j.
            shares = np.zeros((len(classes), self._rows), bottom[0].dtype)
            shares[inverse, np.arange(self._rows)] = (-1.0 / (1.0 + counts))[inverse]
            centres_diff = self.write_diff(self.blobs[0])
            centres_diff[xp.asarray(classes)] += xp.matmul(xp.asarray(shares), difference)
        if propagate_down[0]:
            diff = self.write_diff(bottom[0]).reshape(self._rows, self._width)
            xp.multiply(difference, self.top_weight(top[0]) / max(self._rows, 1), out=diff)
