"""Biases on the GPU: added, with the ReLU that may follow, and the sums that are their gradients."""

from __future__ import annotations

from typing import Any

import numpy as np

from paratrain.backends.cupy.forms import Form, Forms
from paratrain.backends.cupy.packs import pack_of

__all__ = ["Bias"]

_THREADS = 256  # of the kernels of bias.cu that make sums, which count on it
_MOST_LANES = 32  # threads that lie side by side: they read what lies side by side
_LANES_OVER_PARTS = 8  # fewer, so that more share the many rows
_MOST_BLOCKS = 1024
_LEAST_ROWS = 8  # of a thread
_LEAST_VALUES = 2048  # of a block: fewer are not worth it


class Bias:
    """Kernels for values in any form. Biases and their gradients are flat arrays of float32, or float64 beside float64 values."""

    def __init__(self, forms: Forms) -> None:
        self._forms = forms
        self._sums: Any = None

    def add(self, y: Any, form: Form, bias: Any | None, relu_slope: float | None = None) -> None:
        """y = y + bias, with ``relu_slope`` followed by a ReLU of this negative slope. Nothing where both are None."""
        if bias is None and relu_slope is None:
            return
        has_relu, slope = relu_slope is not None, relu_slope or 0.0
        is_matrix = _is_matrix(form)
        pack = pack_of(form.dtype, form.channels if is_matrix else form.pixels, y)
        arguments = (y, bias, form.channels, form.pixels, is_matrix, has_relu, slope)
        name = "add_bias" if pack == 1 else "add_bias_packed"
        self._forms.kernels("bias", form.dtype).launch(name, form.count // pack, *arguments)

    def backward(
        self,
        dy: Any,
        form: Form,
        bias_diff: Any | None,
        *,
        accumulate: bool = True,
        relu: tuple[Any, Any, float] | None = None,
    ) -> None:
        """bias_diff = (or += to ``accumulate``) the sum of dy over images and pixels; nothing where it is None.

        With ``relu`` (y, dx, slope) dy first goes back through the ReLU of this negative slope that gave y; dx, which may be dy,
        gets that gradient.
        """
        kernels = self._forms.kernels("bias", form.dtype)
        y, dx, slope = relu or (None, None, 0.0)
        if bias_diff is None:
            if relu is not None:
                activation = self._forms.kernels("activation", form.dtype)
                activation.launch("relu_backward", form.count, y, dy, dx, slope)
            return
        if not form.count:
            if not accumulate:
                bias_diff.fill(0)
            return
        if _is_matrix(form):
            self._sum_rows(form, dy, y, dx, slope, bias_diff, accumulate)
            return
        images, channels, pixels = form.shape[0], form.channels, form.pixels
        parts = max(1, min(-(-images * pixels // _LEAST_VALUES), _MOST_BLOCKS // channels))
        sums = bias_diff if parts == 1 else self._room(parts * channels, bias_diff.dtype)
        arguments = (images, channels, pixels, parts, dy, y, dx, slope, sums, accumulate and parts == 1)
        kernels.launch_blocks("sum_planes", channels * parts, _THREADS, *arguments)
        if parts > 1:
            self._add_parts(parts, channels, sums, bias_diff, accumulate)

    def _sum_rows(self, form: Form, dy: Any, y: Any, dx: Any, slope: float, bias_diff: Any, accumulate: bool) -> None:
        kernels, channels = self._forms.kernels("bias", form.dtype), form.channels
        rows = form.count // channels
        pack = pack_of(form.dtype, channels, dy, y, dx)
        lanes, tiles = _lanes(channels // pack)
        parts = max(1, min(-(-rows // (_LEAST_ROWS * _THREADS // lanes)), _MOST_BLOCKS // tiles))
        sums = bias_diff if parts == 1 else self._room(parts * channels, bias_diff.dtype)
        arguments = (rows, channels, lanes, parts, dy, y, dx, slope, sums, accumulate and parts == 1)
        kernels.launch_blocks("sum_rows" if pack == 1 else "sum_rows_packed", tiles * parts, _THREADS, *arguments)
        if parts > 1:
            self._add_parts(parts, channels, sums, bias_diff, accumulate)

    def _add_parts(self, parts: int, channels: int, sums: Any, bias_diff: Any, accumulate: bool) -> None:
        lanes, tiles = _lanes(channels, _LANES_OVER_PARTS)
        work = self._forms.parameter_work
        if work is not None and work.add_parts(sums, parts, channels, lanes, bias_diff, accumulate=accumulate):
            return
        arguments = (parts, channels, lanes, 1, sums, None, None, 0.0, bias_diff, accumulate)
        self._forms.kernels("bias", bias_diff.dtype).launch_blocks("sum_rows", tiles, _THREADS, *arguments)

    def _room(self, count: int, dtype: np.dtype[Any]) -> Any:
        if self._sums is None or self._sums.size < count or self._sums.dtype != dtype:
            self._sums = self._forms.device.empty(count, dtype)
        if self._forms.parameter_work is not None:
            self._forms.parameter_work.settle(self._sums)
        return self._sums


def _is_matrix(form: Form) -> bool:
    """Whether the values lie as (rows, channels)."""
    return form.channels_last or form.pixels == 1


def _lanes(columns: int, most: int = _MOST_LANES) -> tuple[int, int]:
    """How many threads lie side by side over so many columns, and how many such tiles there are."""
    lanes = min(1 << (columns - 1).bit_length(), most)
    return lanes, -(-columns // lanes)
