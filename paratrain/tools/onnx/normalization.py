"""Layers that normalize: BatchNorm, BN, LRN, MVN, Normalize."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from paratrain.proto.caffe_pb2 import BNParameter, LRNParameter
from paratrain.tools.onnx.graph import Size
from paratrain.tools.onnx.pooling import Windows, average
from paratrain.tools.onnx.view import LayerView, translates

__all__: list[str] = []

_SEGNET_EPS = 1e-9
_SEGNET_FIELDS = ("scale_filler", "shift_filler", "bn_mode")


@translates("BatchNorm")
def _batch_norm(view: LayerView) -> list[str]:
    parameter, size = view.layer.parameter.batch_norm_param, view.bottoms[0]
    if parameter.HasField("use_global_stats") and not parameter.use_global_stats:
        return _by_the_batch(view, parameter.eps, None)[:1]
    weight = float(view.values(2)[0])
    factor = np.float32(1.0 / weight if weight != 0 else 0.0)
    mean, variance = view.values(0) * factor, view.values(1) * factor
    if size.rank == 1:  # one channel
        y = view.add("Sub", view.inputs[0], view.floats("mean", mean))
        return [view.add("Div", y, view.floats("deviation", np.sqrt(variance + parameter.eps)))]
    ones, zeros = view.floats("one", np.ones_like(mean)), view.floats("zero", np.zeros_like(mean))
    statistics = view.floats("mean", mean), view.floats("variance", variance)
    return [view.add("BatchNormalization", view.inputs[0], ones, zeros, *statistics, epsilon=parameter.eps)]


@translates("BN", "SyncBN")
def _bn(view: LayerView) -> list[str]:
    parameter, channels = view.layer.parameter.bn_param, view.bottoms[0].shape[1]
    if not any(parameter.HasField(field) for field in _SEGNET_FIELDS):
        inputs = [view.parameter(index, (channels,)) for index in range(4)]
        return [view.add("BatchNormalization", view.inputs[0], *inputs, epsilon=parameter.eps)]
    x, statistics = view.inputs[0], []
    if parameter.bn_mode != BNParameter.INFERENCE:
        x, *statistics = _by_the_batch(view, _SEGNET_EPS, view.tops[1:])
    y = view.add("Add", view.add("Mul", x, view.channels_first(0)), view.channels_first(1))
    return [y, *statistics]


def _by_the_batch(view: LayerView, eps: float, statistics: Sequence[Size] | None) -> list[str]:
    """(x - mean) / sqrt(variance + eps) with mean and variance of this very batch; then those, where tops want them."""
    size = view.bottoms[0]
    axes = [axis for axis in range(size.rank) if axis != 1]
    centred, mean = _centred(view, view.inputs[0], axes)
    variance = view.reduce("ReduceMean", view.add("Mul", centred, centred), axes)
    y = view.add("Div", centred, view.add("Sqrt", view.shifted(variance, eps, "eps")))
    kept = size.joined(*[[1] if axis == 1 else [] for axis in range(size.rank)])
    wanted = zip((mean, variance), statistics or (), strict=False)
    return [y, *(view.reshape(value, kept, top) for value, top in wanted)]


def _centred(view: LayerView, x: str, axes: Sequence[int]) -> tuple[str, str]:
    mean = view.reduce("ReduceMean", x, axes)
    return view.add("Sub", x, mean), mean


@translates("MVN")
def _mvn(view: LayerView) -> list[str]:
    parameter = view.layer.parameter.mvn_param
    x = view.reshape(view.inputs[0], view.bottoms[0], view.tops[0])
    axes = [1, 2, 3] if parameter.across_channels else [2, 3]
    y, _ = _centred(view, x, axes)
    if parameter.normalize_variance:
        deviation = view.add("Sqrt", view.reduce("ReduceMean", view.add("Mul", y, y), axes))
        y = view.add("Div", y, view.shifted(deviation, parameter.eps, "eps"))
    return [y]


@translates("Normalize")
def _normalize(view: LayerView) -> list[str]:
    parameter, x, size = view.layer.parameter.norm_param, view.inputs[0], view.bottoms[0]
    axes = list(range(1, size.rank)) if parameter.across_spatial else [1]
    squares = view.shifted(view.reduce("ReduceSum", view.add("Mul", x, x), axes), parameter.eps, "eps")
    unit = view.add("Div", x, view.add("Sqrt", squares))
    scale = view.channels_first(0) if view.layer.blobs[0].shape else view.parameter(0)
    return [view.add("Mul", unit, scale)]


@translates("LRN")
def _lrn(view: LayerView) -> list[str]:
    parameter, x, size = view.layer.parameter.lrn_param, view.inputs[0], view.bottoms[0]
    width = parameter.local_size
    if parameter.norm_region == LRNParameter.WITHIN_CHANNEL:
        image = (view.fixed(size, 2, "the image's height"), view.fixed(size, 3, "the image's width"))
        windows = Windows(image, (width, width), (1, 1), (width // 2, width // 2), image)
        mean = average(view, view.add("Mul", x, x), windows)
        scale = view.shifted(view.scaled(mean, parameter.alpha, "alpha"), 1.0, "one")
        return [view.add("Mul", x, view.add("Pow", scale, view.floats("minus_beta", -parameter.beta)))]
    # Runtimes want images: other shapes become (N, C, pixels, 1).
    image_size = size if size.rank == 4 else size.joined([0], [1], list(range(2, size.rank)), [])
    y = view.add(
        "LRN",
        view.reshape(x, size, image_size),
        size=width,
        alpha=parameter.alpha,
        beta=parameter.beta,
        bias=parameter.k,
    )
    return [view.reshape(y, image_size, size)]
