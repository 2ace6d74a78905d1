"""Local response normalization on the GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from paratrain.backends.base import LocalResponseGeometry
from paratrain.backends.cupy.forms import Form, Forms
from paratrain.backends.cupy.packs import pack_of

__all__ = ["CupyLocalResponseNormalization"]

_THREADS = 256  # of a block of the kernels for channels last, which takes tiles of so many values:
_TILE = 1024
_FAR = 2  # channels to each side, which the kernels for packs look at
_USUAL_BETA = 0.75  # the only one that they know
_MOST_SHARED_BYTES = 48 << 10  # that a block may have without asking


class CupyLocalResponseNormalization:
    """LRN by kernels/lrn.cu, see :class:`paratrain.backends.base.LocalResponseNormalization`.

    ``within_channels`` has the window lie in each image's channel, size x size pixels, those outside counted as zeros; alpha
    is divided by size^2 then. :meth:`normalize` and :meth:`gradient` take flat arrays in any form, the Protocol's methods
    plain ones. Nothing is kept of forward, and backward does not look at the top.
    """

    def __init__(
        self, forms: Forms, geometry: LocalResponseGeometry, dtype: npt.DTypeLike, *, within_channels: bool = False
    ) -> None:
        assert geometry.size % 2 == 1, "a window has a middle"
        assert not within_channels or len(geometry.shape) == 4
        self.geometry = g = geometry
        self._forms = forms
        self._dtype = np.dtype(dtype)
        self._is_within = within_channels
        size = g.size**2 if within_channels else g.size
        # k, the factor of the squares, and the power.
        self._numbers = (float(g.k), g.alpha / size, float(g.beta))
        self._ratios: Any = None

    def normalize(self, x: Any, form: Form, y: Any) -> None:
        """Write ``y``, in ``form`` as ``x`` is."""
        if self._launch_packs("packed_forward", form, x, y) or self._launch_tiles(
            "channels_last_forward", form, x, y, tiles=1, sides=2
        ):
            return
        kernels = self._forms.kernels("lrn", form.dtype)
        kernels.launch("window_forward", form.count, x, y, *self._axes(form), *self._numbers)

    def gradient(self, x: Any, dy: Any, form: Form, dx: Any) -> None:
        """Write ``dx``; all three are in ``form``, and ``x`` is that of the last :meth:`normalize`."""
        if self._launch_packs("packed_backward", form, x, dy, dx) or self._launch_tiles(
            "channels_last_backward", form, x, dy, dx, tiles=2, sides=4
        ):
            return
        kernels, sums_dtype = self._forms.kernels("lrn", form.dtype), _sums_dtype(form)
        if self._ratios is None or self._ratios.dtype != sums_dtype:
            self._ratios = self._forms.device.empty(form.count, sums_dtype)
        axes = self._axes(form)
        kernels.launch("window_ratios", form.count, x, dy, self._ratios, *axes, *self._numbers)
        kernels.launch("window_backward", form.count, x, dy, self._ratios, dx, *axes, *self._numbers)

    def _launch_packs(self, name: str, form: Form, *arrays: Any) -> bool:
        """Run a kernel for channels last in whole packs; False where it does not fit."""
        reach, (k, factor, beta) = self.geometry.size // 2, self._numbers
        pack = pack_of(form.dtype, form.channels, *arrays)
        is_simple = form.channels_last and not self._is_within and reach <= _FAR and beta == _USUAL_BETA
        if pack < 2 * _FAR or not is_simple:
            return False
        kernels, count = self._forms.kernels("lrn", form.dtype), form.count // pack
        kernels.launch(name, count, *arrays, form.channels // pack, reach, k, factor)
        return True

    def _launch_tiles(self, name: str, form: Form, *arrays: Any, tiles: int, sides: int) -> bool:
        """Run a kernel for channels last that keeps ``tiles`` tiles, with ``sides`` times the reach of a window beside each, in
        the block; False where it does not fit.
        """
        # Beyond the channels there is nothing to reach.
        reach = min(self.geometry.size // 2, form.channels - 1)
        shared_bytes = tiles * (_TILE + sides * reach) * _sums_dtype(form).itemsize
        if not form.channels_last or self._is_within or shared_bytes > _MOST_SHARED_BYTES:
            return False
        kernels, blocks = self._forms.kernels("lrn", form.dtype), -(-form.count // _TILE)
        arguments = (form.count, *arrays, form.channels, reach, *self._numbers)
        kernels.launch_blocks(name, blocks, _THREADS, *arguments, shared_bytes=shared_bytes)
        return True

    # -- the Protocol ----------------------------------------------------------------------------------------------

    def forward(self, bottom: Any, top: Any) -> None:
        self.normalize(bottom.reshape(-1), self._plain, top.reshape(-1))

    def backward(self, bottom: Any, top: Any, top_diff: Any, bottom_diff: Any) -> None:
        self.gradient(bottom.reshape(-1), top_diff.reshape(-1), self._plain, bottom_diff.reshape(-1))

    @property
    def _plain(self) -> Form:
        return Form.of(self.geometry.shape, self._dtype)

    def _axes(self, form: Form) -> tuple[int, ...]:
        """The kernels' AXES: of each axis of a window its places and their distance, and how far the window reaches."""
        channels, reach = form.channels, self.geometry.size // 2
        if not self._is_within:
            return (channels, 1 if form.channels_last else form.pixels, 1, 1, reach)
        height, width = form.shape[2:]
        step = channels if form.channels_last else 1
        return (height, width * step, width, step, reach)


def _sums_dtype(form: Form) -> np.dtype[Any]:
    """The kernels' ACCUMULATE."""
    return np.dtype(np.float64 if form.dtype == np.float64 else np.float32)
