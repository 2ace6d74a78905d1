"""Convolutions over any number of axes by numpy: one product of matrices for each place in the kernel."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Window", "dgrad", "fprop", "rounded_to_tf32", "wgrad"]

Array = npt.NDArray[Any]


class Window:
    """How kernels lie over an image: padding, stride and dilation of each axis."""

    def __init__(self, padding: list[int], stride: list[int], dilation: list[int]) -> None:
        self.padding, self.stride, self.dilation = padding, stride, dilation

    def output(self, spatial: tuple[int, ...], kernel: tuple[int, ...]) -> tuple[int, ...]:
        axes = zip(spatial, kernel, self.padding, self.stride, self.dilation, strict=True)
        return tuple((n + 2 * pad - dilation * (k - 1) - 1) // stride + 1 for n, k, pad, stride, dilation in axes)

    def padded(self, x: Array) -> Array:
        return np.pad(x, [(0, 0), (0, 0), *((pad, pad) for pad in self.padding)])

    def places(self, kernel: tuple[int, ...], output: tuple[int, ...]) -> Any:
        """Each place in the kernel, and the pixels of the padded image that it meets."""
        for place in itertools.product(*map(range, kernel)):
            axes = zip(place, self.dilation, self.stride, output, strict=True)
            yield place, tuple(slice(p * d, p * d + (n - 1) * s + 1, s) for p, d, s, n in axes)


def fprop(x: Array, w: Array, window: Window) -> Array:
    output, groups = window.output(x.shape[2:], w.shape[2:]), x.shape[1] // w.shape[1]
    y = np.zeros((x.shape[0], w.shape[0], *output), x.dtype)
    padded, inputs, outputs = window.padded(x), w.shape[1], w.shape[0] // groups
    for group in range(groups):
        images = padded[:, group * inputs : (group + 1) * inputs]
        kernels, target = (array[:, group * outputs : (group + 1) * outputs] for array in (w.swapaxes(0, 1), y))
        for place, pixels in window.places(w.shape[2:], output):
            target += np.einsum("ck,nc...->nk...", kernels[(..., *place)], images[(..., *pixels)], optimize=True)
    return y


def dgrad(dy: Array, w: Array, shape: tuple[int, ...], window: Window) -> Array:
    groups, inputs = shape[1] // w.shape[1], w.shape[1]
    padded = window.padded(np.zeros(shape, dy.dtype))
    outputs = w.shape[0] // groups
    for group in range(groups):
        kernels, diffs = w[group * outputs : (group + 1) * outputs], dy[:, group * outputs : (group + 1) * outputs]
        target = padded[:, group * inputs : (group + 1) * inputs]
        for place, pixels in window.places(w.shape[2:], dy.shape[2:]):
            target[(..., *pixels)] += np.einsum("kc,nk...->nc...", kernels[(..., *place)], diffs, optimize=True)
    return padded[(..., *(slice(pad, pad + n) for pad, n in zip(window.padding, shape[2:], strict=True)))]


def wgrad(x: Array, dy: Array, shape: tuple[int, ...], window: Window) -> Array:
    groups, inputs = x.shape[1] // shape[1], shape[1]
    outputs, padded, dw = shape[0] // groups, window.padded(x), np.zeros(shape, x.dtype)
    for group in range(groups):
        images = padded[:, group * inputs : (group + 1) * inputs]
        diffs = dy[:, group * outputs : (group + 1) * outputs]
        diffs = np.moveaxis(diffs, 1, 0).reshape(outputs, -1)
        for place, pixels in window.places(shape[2:], dy.shape[2:]):
            columns = np.moveaxis(images[(..., *pixels)], 1, 0).reshape(inputs, -1)
            dw[(slice(group * outputs, (group + 1) * outputs), slice(None), *place)] = diffs @ columns.T
    return dw


def rounded_to_tf32(values: Array) -> Array:
    bits = values.view(np.uint32)
    return ((bits + np.uint32(0x0FFF) + ((bits >> np.uint32(13)) & np.uint32(1))) & np.uint32(0xFFFFE000)).view(
        np.float32
    )
