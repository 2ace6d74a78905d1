"""Fillers: the first values of learnable blobs, as Caffe defines them.

Sizes come from the blob's shape: ``fan_in = count / shape[0]``; ``fan_out = count / shape[1]`` where there is a second
axis, else ``count``. A filler is a function ``(data, parameter, rng)`` that fills ``data``, the blob's own array.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from paratrain.blob import Blob
from paratrain.errors import NetError
from paratrain.proto import FillerParameter
from paratrain.registry import Registry

__all__ = ["FILLERS", "Filler", "fan_in_and_out", "fill"]

Array = npt.NDArray[Any]
Filler = Callable[[Array, FillerParameter, np.random.Generator], None]

FILLERS: Registry[Filler] = Registry("filler")


def fill(blob: Blob, filler: FillerParameter, rng: np.random.Generator) -> None:
    """Fill ``blob.data`` (on the host) by ``filler``, drawing from ``rng``; the diff is left alone.

    Float32 and float64 blobs are drawn in their own dtype, others in float32. Raises UnknownNameError for a type that
    nobody registered, NetError for settings or a shape that the filler cannot work with.
    """
    make = FILLERS.get(filler.type)
    if filler.HasField("sparse") and filler.sparse != -1 and filler.type != "gaussian":
        raise NetError(f"filler '{filler.type}' does not take 'sparse'; only 'gaussian' does")
    data = blob.data
    if data.dtype in (np.float32, np.float64):
        make(data, filler, rng)
    else:
        drawn = np.empty(data.shape, np.float32)
        make(drawn, filler, rng)
        data[...] = drawn


def fan_in_and_out(shape: tuple[int, ...]) -> tuple[float, float]:
    """Return (fan_in, fan_out) of a blob of this shape: how many inputs feed an output, and outputs an input."""
    count = math.prod(shape)
    fan_in = count / shape[0] if shape and shape[0] else float(count)
    fan_out = count / shape[1] if len(shape) > 1 and shape[1] else float(count)
    return fan_in, fan_out


@FILLERS.register("constant")
def _constant(data: Array, parameter: FillerParameter, _rng: np.random.Generator) -> None:
    """Every value is ``value``."""
    data[...] = parameter.value


@FILLERS.register("uniform")
def _uniform(data: Array, parameter: FillerParameter, rng: np.random.Generator) -> None:
    """Uniform in [``min``, ``max``)."""
    _draw_uniform(data, parameter.min, parameter.max, rng)


@FILLERS.register("gaussian")
def _gaussian(data: Array, parameter: FillerParameter, rng: np.random.Generator) -> None:
    """Normal with ``mean`` and ``std``. A ``sparse`` s >= 0 keeps a value with probability s / shape[0], else it is 0."""
    _draw_normal(data, parameter.mean, parameter.std, rng)
    sparse = parameter.sparse
    if sparse < -1:
        raise NetError(f"filler 'gaussian': sparse is {sparse}; give the mean number of non-zero inputs, or -1 for all")
    if sparse >= 0:
        if not data.ndim or sparse > data.shape[0]:
            raise NetError(f"filler 'gaussian': sparse is {sparse}, more than the first axis of the shape {data.shape}")
        data[rng.random(data.shape) >= sparse / data.shape[0]] = 0


@FILLERS.register("positive_unitball")
def _positive_unitball(data: Array, _parameter: FillerParameter, rng: np.random.Generator) -> None:
    """Uniform in [0, 1), then each ``data[i]`` is divided by its sum, so that it adds up to 1."""
    _draw_uniform(data, 0.0, 1.0, rng)
    rows = data.reshape(data.shape[0] if data.ndim else 1, -1)
    rows /= rows.sum(axis=1, keepdims=True)


@FILLERS.register("xavier")
def _xavier(data: Array, parameter: FillerParameter, rng: np.random.Generator) -> None:
    """Uniform in +-sqrt(3 / n), so that the variance is 1 / n; n by ``variance_norm``.

    Source: Glorot, Bengio, "Understanding the difficulty of training deep feedforward neural networks", 2010.
    """
    limit = math.sqrt(3.0 / _variance_count(data.shape, parameter))
    _draw_uniform(data, -limit, limit, rng)


@FILLERS.register("msra")
def _msra(data: Array, parameter: FillerParameter, rng: np.random.Generator) -> None:
    """Normal with mean 0 and standard deviation sqrt(2 / n); n by ``variance_norm``.

    Source: He, Zhang, Ren, Sun, "Delving deep into rectifiers", 2015.
    """
    _draw_normal(data, 0.0, math.sqrt(2.0 / _variance_count(data.shape, parameter)), rng)


@FILLERS.register("bilinear")
def _bilinear(data: Array, _parameter: FillerParameter, _rng: np.random.Generator) -> None:
    """Bilinear interpolation for upsampling by a deconvolution: every (K, K) kernel is the same.

    value(y, x) = (1 - |x / f - c|) (1 - |y / f - c|), f = ceil(K / 2), c = (K - 1) / (2 f).
    """
    if data.ndim != 4 or data.shape[2] != data.shape[3]:
        raise NetError(f"filler 'bilinear' needs a blob of 4 axes with square kernels; this one is {data.shape}")
    size = data.shape[3]
    half = math.ceil(size / 2)
    line = 1.0 - np.abs(np.arange(size) / max(half, 1) - (size - 1) / (2.0 * max(half, 1)))
    data[...] = np.outer(line, line)


def _variance_count(shape: tuple[int, ...], parameter: FillerParameter) -> float:
    """The n of xavier and msra: fan_in (the default), fan_out, or their mean."""
    fan_in, fan_out = fan_in_and_out(shape)
    if parameter.variance_norm == FillerParameter.AVERAGE:
        return max((fan_in + fan_out) / 2, 1.0)
    return max(fan_out if parameter.variance_norm == FillerParameter.FAN_OUT else fan_in, 1.0)


def _draw_uniform(data: Array, low: float, high: float, rng: np.random.Generator) -> None:
    if high < low:
        raise NetError(f"filler: the range from {low} to {high} is empty; min must not exceed max")
    rng.random(dtype=data.dtype, out=data)
    data *= high - low
    data += low


def _draw_normal(data: Array, mean: float, std: float, rng: np.random.Generator) -> None:
    if std < 0:
        raise NetError(f"filler: std is {std}; a standard deviation is not negative")
    rng.standard_normal(dtype=data.dtype, out=data)
    data *= std
    data += mean
