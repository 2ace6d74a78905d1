"""A small net that is given images, whose first output can be computed by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

import paratrain as caffe

__all__ = ["CLASSES", "SIZE", "score", "write_net"]

SIZE = 6
CLASSES = 3

NET = """
name: "means"
layer { name: "data" type: "Input" top: "data"
        input_param { shape { dim: 4 dim: %(channels)d dim: %(size)d dim: %(size)d } } }
layer { name: "pool" type: "Pooling" bottom: "data" top: "pool" pooling_param { pool: AVE kernel_size: 2 stride: 2 } }
layer { name: "score" type: "InnerProduct" bottom: "pool" top: "score"
        inner_product_param { num_output: 3 weight_filler { type: "gaussian" std: 0.1 } bias_filler { value: 0.25 } } }
"""


def write_net(folder: Path, channels: int = 3) -> npt.NDArray[np.float32]:
    """Write ``deploy.prototxt`` and ``w.caffemodel``; return the weights (classes, values of the pooled image)."""
    (folder / "deploy.prototxt").write_text(NET % {"channels": channels, "size": SIZE})
    net = caffe.Net(str(folder / "deploy.prototxt"), caffe.TEST)
    weights = np.random.default_rng(5).normal(0, 0.1, net.params["score"][0].shape).astype(np.float32)
    net.params["score"][0].data[...] = weights
    net.params["score"][1].data[...] = 0.25
    net.save(str(folder / "w.caffemodel"))
    return weights


def score(prepared: npt.NDArray[np.float32], weights: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """What the net says of an image as it takes it, (C, 6, 6), by plain sums."""
    pooled = [
        float(prepared[c, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].mean())
        for c in range(len(prepared))
        for y in range(SIZE // 2)
        for x in range(SIZE // 2)
    ]
    return np.array([sum(w * p for w, p in zip(row, pooled, strict=True)) + 0.25 for row in weights.astype(float)])
