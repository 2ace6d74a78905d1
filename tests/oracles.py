"""Slow, plain loops over every number: what the fast code must agree with. Written from the definitions, in float64."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["average_pool", "convolve", "convolve_gradients", "local_response", "max_pool", "max_pool_gradient"]

Array = npt.NDArray[Any]


def _terms(
    x_shape: Sequence[int],
    w_shape: Sequence[int],
    out_shape: Sequence[int],
    stride: Sequence[int],
    pad: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Any:
    """Yield the places (in x, in w, in out) of every product that a convolution sums."""
    group_channels, group_outputs = w_shape[1], w_shape[0] // groups
    for n, o in itertools.product(range(x_shape[0]), range(w_shape[0])):
        for pixel in itertools.product(*(range(size) for size in out_shape[2:])):
            for offset in itertools.product(*(range(size) for size in w_shape[2:])):
                place = [p * s - q + k * d for p, s, q, k, d in zip(pixel, stride, pad, offset, dilation, strict=True)]
                if any(not 0 <= a < size for a, size in zip(place, x_shape[2:], strict=True)):
                    continue
                for c in range(group_channels):
                    channel = o // group_outputs * group_channels + c
                    yield (n, channel, *place), (o, c, *offset), (n, o, *pixel)


def _output_shape(x: Array, w: Array, stride: Sequence[int], pad: Sequence[int], dilation: Sequence[int]) -> list[int]:
    sizes = zip(x.shape[2:], w.shape[2:], stride, pad, dilation, strict=True)
    return [x.shape[0], w.shape[0], *((n + 2 * p - (d * (k - 1) + 1)) // s + 1 for n, k, s, p, d in sizes)]


def convolve(
    x: Array, w: Array, stride: Sequence[int], pad: Sequence[int], dilation: Sequence[int], groups: int = 1
) -> Array:
    """Cross-correlate x (N, C, ...) with w (O, C / groups, ...)."""
    out = np.zeros(_output_shape(x, w, stride, pad, dilation))
    for in_x, in_w, in_out in _terms(x.shape, w.shape, out.shape, stride, pad, dilation, groups):
        out[in_out] += float(x[in_x]) * float(w[in_w])
    return out


def convolve_gradients(
    x: Array, w: Array, dy: Array, stride: Sequence[int], pad: Sequence[int], dilation: Sequence[int], groups: int = 1
) -> tuple[Array, Array]:
    """Return (dx, dw) of the sum of dy * convolve(x, w)."""
    dx, dw = np.zeros(x.shape), np.zeros(w.shape)
    for in_x, in_w, in_out in _terms(x.shape, w.shape, dy.shape, stride, pad, dilation, groups):
        dx[in_x] += float(w[in_w]) * float(dy[in_out])
        dw[in_w] += float(x[in_x]) * float(dy[in_out])
    return dx, dw


def _windows(shape: Sequence[int], output: Sequence[int], kernel: Any, stride: Any, pad: Any) -> Any:
    """Yield for every window its place, the pixels inside the image in row order, and its size in the padded image."""
    for y, x in itertools.product(range(output[0]), range(output[1])):
        top, left = y * stride[0] - pad[0], x * stride[1] - pad[1]
        bottom, right = min(top + kernel[0], shape[2] + pad[0]), min(left + kernel[1], shape[3] + pad[1])
        rows, columns = range(max(top, 0), min(bottom, shape[2])), range(max(left, 0), min(right, shape[3]))
        yield (y, x), list(itertools.product(rows, columns)), (bottom - top) * (right - left)


def max_pool(x: Array, output: Any, kernel: Any, stride: Any, pad: Any) -> tuple[Array, Array]:
    """Return the maxima and their indices y * W + x, the first of equals."""
    top, mask = np.zeros((*x.shape[:2], *output)), np.zeros((*x.shape[:2], *output))
    for n, c in np.ndindex(*x.shape[:2]):
        for (i, j), pixels, _ in _windows(x.shape, output, kernel, stride, pad):
            row, column = pixels[0]
            for y, z in pixels[1:]:
                if x[n, c, y, z] > x[n, c, row, column]:
                    row, column = y, z
            top[n, c, i, j] = x[n, c, row, column]
            mask[n, c, i, j] = row * x.shape[3] + column
    return top, mask


def max_pool_gradient(x: Array, mask: Array, dy: Array) -> Array:
    """Return dx: every dy is added where its maximum was."""
    dx = np.zeros(x.shape)
    for n, c, i, j in np.ndindex(*dy.shape):
        index = int(mask[n, c, i, j])
        dx[n, c, index // x.shape[3], index % x.shape[3]] += dy[n, c, i, j]
    return dx


def average_pool(x: Array, output: Any, kernel: Any, stride: Any, pad: Any) -> tuple[Array, Array]:
    """Return the means, and the matrix (pixels, windows) that makes them, for the gradient."""
    matrix = np.zeros((x.shape[2] * x.shape[3], output[0] * output[1]))
    for (i, j), pixels, size in _windows(x.shape, output, kernel, stride, pad):
        for row, column in pixels:
            matrix[row * x.shape[3] + column, i * output[1] + j] = 1 / size
    return (x.reshape(*x.shape[:2], -1) @ matrix).reshape(*x.shape[:2], *output), matrix


def local_response(x: Array, size: int, alpha: float, beta: float, k: float) -> Array:
    """Local response normalization across channels of (N, C, pixels ...)."""
    y = np.zeros(x.shape)
    for place in np.ndindex(*x.shape):
        n, c, *pixel = place
        near = range(max(c - size // 2, 0), min(c + size // 2 + 1, x.shape[1]))
        others: list[tuple[int, ...]] = [(n, other, *pixel) for other in near]
        y[place] = x[place] / (k + alpha / size * sum(float(x[other]) ** 2 for other in others)) ** beta
    return y
