"""Two layers written in Python: a source of data, and a loss."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

import paratrain as caffe
from paratrain.tools.mnist import read_digits

CLASS_COUNT = 10


class DigitData(caffe.Layer):
    """MNIST's digits from its own files, with no database: the tops are images, one-hot targets, and labels.

    ``param_str`` is JSON: the files ``images`` and ``labels``, the ``batch_size``, and which ``records`` to take, [first, end].
    The ranks of a job share the records: each takes those whose number leaves its rank when divided by the count of ranks.
    """

    def setup(self, bottom: Sequence[caffe.Blob], top: Sequence[caffe.Blob]) -> None:
        settings = json.loads(self.param_str)
        images, self.labels = read_digits(settings["images"], settings["labels"], *settings["records"])
        self.images = images.astype(np.float32) / 256
        self.batch_size = settings["batch_size"]
        self.carried_blobs.add_blob(1)  # where to go on; snapshots keep it, so that a resumed run goes on there
        self.carried_blobs[0].data[0] = self.rank

    def reshape(self, bottom: Sequence[caffe.Blob], top: Sequence[caffe.Blob]) -> None:
        top[0].reshape(self.batch_size, 1, *self.images.shape[1:])
        top[1].reshape(self.batch_size, CLASS_COUNT)
        top[2].reshape(self.batch_size)

    def forward(self, bottom: Sequence[caffe.Blob], top: Sequence[caffe.Blob]) -> None:
        position = self.carried_blobs[0].data
        records = (int(position[0]) + self.size * np.arange(self.batch_size)) % len(self.images)
        position[0] = (position[0] + self.size * self.batch_size) % len(self.images)
        top[0].data[...] = self.images[records, None]
        top[1].data[...] = np.eye(CLASS_COUNT)[self.labels[records]]
        top[2].data[...] = self.labels[records]

    def backward(self, top: Sequence[caffe.Blob], propagate_down: Sequence[bool], bottom: Sequence[caffe.Blob]) -> None:
        """Nothing to do: there are no bottoms."""


class EuclideanLoss(caffe.Layer):
    """sum((bottom[0] - bottom[1])^2) / (2 N), as the layer type EuclideanLoss computes it."""

    def setup(self, bottom: Sequence[caffe.Blob], top: Sequence[caffe.Blob]) -> None:
        if len(bottom) != 2:
            raise ValueError(f"needs two bottoms, what is predicted and what is wanted; there are {len(bottom)}")

    def reshape(self, bottom: Sequence[caffe.Blob], top: Sequence[caffe.Blob]) -> None:
        if bottom[0].count != bottom[1].count:
            raise ValueError(f"the bottoms hold {bottom[0].count} and {bottom[1].count} values")
        self.difference = np.zeros(bottom[0].data.shape, np.float32)
        top[0].reshape()

    def forward(self, bottom: Sequence[caffe.Blob], top: Sequence[caffe.Blob]) -> None:
        self.difference[...] = bottom[0].data - bottom[1].data
        top[0].data[...] = np.sum(self.difference**2) / (2 * bottom[0].num)

    def backward(self, top: Sequence[caffe.Blob], propagate_down: Sequence[bool], bottom: Sequence[caffe.Blob]) -> None:
        for index, sign in enumerate((1, -1)):
            if propagate_down[index]:
                bottom[index].diff[...] = sign * self.difference * (top[0].diff / bottom[index].num)
