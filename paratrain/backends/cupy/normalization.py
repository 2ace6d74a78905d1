"""Normalization channel by channel on the GPU: BatchNorm, Scale and Bias, alone or as one, with the ReLU that may follow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from paratrain.backends.cupy.forms import Form, Forms
from paratrain.backends.cupy.workspace import Workspace

__all__ = ["Factors", "Normalization"]

# The kernels count on so many threads in a block. How the others are chosen says in which order sums are made, and so in which
# bits they come out: not by the GPU at hand.
_THREADS = 256
_PACK_BYTES = 16
_MOST_COLUMNS = 32
_SUMMING_BLOCKS, _LEAST_ROWS = 1024, 8
# What does not sum: a thread that has read what belongs to its channels should have some rows to use that for.
_BLOCKS, _FEW_BLOCKS, _SOME_ROWS = 8192, 1024, 4


@dataclass(frozen=True)
class Factors:
    """y = (x - mean) inverse_std scale + shift, each a flat array of one number for each channel, or None: 0, 1, 1, 0. Where
    ``rectifies``, values of y below 0 become 0.
    """

    mean: Any = None
    inverse_std: Any = None
    scale: Any = None
    shift: Any = None
    rectifies: bool = False

    @property
    def arguments(self) -> tuple[Any, ...]:
        """What the kernels ask for."""
        return self.mean, self.inverse_std, self.scale, self.shift, self.rectifies


class Normalization:
    """The kernels of normalization.cu for values in one form. What belongs to channels is float32, or float64 beside that.

    Sums are made in an order that follows from the form alone. Their parts lie in the workspace.
    """

    def __init__(self, forms: Forms, workspace: Workspace, form: Form) -> None:
        self.form = form
        self._workspace = workspace
        self._kernels = forms.kernels("normalization", form.dtype)
        self._sum_dtype = np.dtype(np.float64 if form.dtype == np.float64 else np.float32)
        self._rows = form.count // form.channels
        self._is_last = form.channels_last or form.pixels == 1
        neighbours = form.channels if self._is_last else form.pixels
        self._has_packs = neighbours * form.dtype.itemsize % _PACK_BYTES == 0
        most_parts = max(self._sizes(is_wide, is_sum=True)[-1] for is_wide in (False, self._has_packs))
        self._workspace.reserve(3 * form.channels * most_parts * self._sum_dtype.itemsize)

    def moments(
        self, x: Any, eps: float, fraction: float, mean: Any, inverse_std: Any, running: tuple[Any, Any, Any]
    ) -> None:
        """Write mean and 1 / sqrt(variance + eps) of the channels of x; renew the running sums of mean, variance and count:
        each is multiplied by ``fraction`` and gets the new one added, the variance that of an unbiased estimate.
        """
        sizes, suffix = self._shared(x, is_sum=True)
        channels, parts = self.form.channels, sizes[-1]
        partial = self._workspace.take(3 * channels * parts, self._sum_dtype)
        self._launch(f"moments{suffix}", sizes, x, partial)
        arguments = (channels, parts, partial, eps, fraction, mean, inverse_std, *running)
        self._kernels.launch_blocks("finish_moments", channels, _THREADS, *arguments)

    def stored_moments(self, eps: float, running: tuple[Any, Any, Any], mean: Any, inverse_std: Any) -> None:
        """Write mean and 1 / sqrt(variance + eps) of the channels from the running sums."""
        self._kernels.launch("stored_moments", self.form.channels, eps, *running, mean, inverse_std)

    def forward(self, x: Any, y: Any, factors: Factors, kept: Any = None) -> None:
        """Write y, which may be x; ``kept`` gets a copy of x, if it is given."""
        sizes, suffix = self._shared(x, y) if kept is None else self._shared(x, y, kept)
        self._launch(f"normalize{suffix}", sizes, x, y, *factors.arguments, kept)

    def sums(
        self,
        x: Any | None,
        dy: Any,
        factors: Factors,
        *,
        means: Any = None,
        slopes: Any = None,
        scale_diff: tuple[Any, bool] | None = None,
        shift_diff: tuple[Any, bool] | None = None,
    ) -> None:
        """Sum the gradient, and the gradient times x, over images and pixels.

        ``scale_diff`` and ``shift_diff`` (array, whether to add to it) get the gradients of scale and shift, ``means`` and
        ``slopes`` what :meth:`backward` asks for. x may be None for ``shift_diff`` alone, unless the factors rectify.
        """
        arrays = (dy,) if x is None else (x, dy)
        sizes, suffix = self._shared(*arrays, is_sum=True)
        channels, parts = self.form.channels, sizes[-1]
        partial = self._workspace.take(2 * channels * parts, self._sum_dtype)
        self._launch(f"sums{suffix}", sizes, x, dy, *factors.arguments, partial)
        diffs = (*(scale_diff or (None, False)), *(shift_diff or (None, False)))
        arguments = (channels, parts, self._rows, partial, factors.inverse_std, means, slopes, *diffs)
        self._kernels.launch_blocks("finish_sums", channels, _THREADS, *arguments)

    def backward(
        self, x: Any | None, dy: Any, dx: Any, factors: Factors, means: Any = None, slopes: Any = None
    ) -> None:
        """Write dx, which may be dy. ``means`` and ``slopes`` are those of :meth:`sums` where mean and variance are those of x;
        without them these are taken for given, and x may be None unless the factors rectify.
        """
        arrays = (dy, dx) if x is None else (x, dy, dx)
        sizes, suffix = self._shared(*arrays)
        self._launch(f"gradient{suffix}", sizes, x, dy, dx, *factors.arguments, means, slopes)

    def _shared(self, *arrays: Any, is_sum: bool = False) -> tuple[tuple[int, ...], str]:
        """What the kernels ask for first, and the end of their names."""
        is_wide = self._has_packs and all(int(array.data.ptr) % _PACK_BYTES == 0 for array in arrays)
        return self._sizes(is_wide, is_sum=is_sum), "_wide" if is_wide else ""

    def _sizes(self, is_wide: bool, *, is_sum: bool) -> tuple[int, ...]:
        """Images, channels, pixels, whether channels come last, columns, tiles, parts: see normalization.cu."""
        form = self.form
        width = _PACK_BYTES // form.dtype.itemsize if is_wide else 1
        columns, tiles, rows = 1, form.channels, self._rows
        if not self._is_last:
            rows //= width
        else:
            threads = -(-form.channels // width)
            columns = min(1 << (threads - 1).bit_length(), _MOST_COLUMNS)
            tiles = -(-threads // columns)
        rounds = -(-rows // (_THREADS // columns))
        if is_sum:
            parts = max(1, min(_SUMMING_BLOCKS // tiles, rounds // _LEAST_ROWS))
        else:
            parts = max(1, min(_BLOCKS // tiles, max(rounds // _SOME_ROWS, min(rounds, _FEW_BLOCKS // tiles))))
        images = form.count // (form.channels * form.pixels)
        return images, form.channels, form.pixels, int(self._is_last), columns, tiles, parts

    def _launch(self, name: str, sizes: tuple[int, ...], *arguments: Any) -> None:
        self._kernels.launch_blocks(name, sizes[-2] * sizes[-1], _THREADS, *sizes, *arguments)
