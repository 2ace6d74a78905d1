"""Pooling on the GPU."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from paratrain.backends.base import PoolingGeometry, PoolMethod
from paratrain.backends.cupy.forms import Form, Forms
from paratrain.backends.cupy.packs import pack_of

__all__ = ["CupyPooling"]

_MOST_PLACES_OF_A_BYTE = 255  # in a window; 255 itself says that none was taken
_GLOBAL_THREADS = 256
_GLOBAL_CHANNELS = (8, 32)  # of a block of global_forward, with channels second and last


class CupyPooling:
    """Pooling by kernels/pooling.cu, see :class:`paratrain.backends.base.Pooling`.

    :meth:`pool` and :meth:`unpool` take flat arrays in any form, the Protocol's methods plain ones. What MAX and STOCHASTIC took
    of each window is kept, by default in a byte, so that backward needs neither bottom nor top.
    """

    def __init__(self, forms: Forms, geometry: PoolingGeometry, dtype: npt.DTypeLike) -> None:
        self.geometry = g = geometry
        self._forms = forms
        self._dtype = np.dtype(dtype)
        self._is_global = g.kernel == g.spatial and g.output == (1, 1) and not any(g.pad)
        is_wide = g.kernel[0] * g.kernel[1] > _MOST_PLACES_OF_A_BYTE or (self._is_global and g.method is PoolMethod.MAX)
        self._chosen_dtype = np.dtype(np.int32 if is_wide else np.uint8)
        self._suffix = "_wide" if is_wide else ""
        self._chosen: Any = None
        self._channels_last = False
        """The order of ``_chosen``."""

    @property
    def bottom_shape(self) -> tuple[int, ...]:
        """(N, C, H, W)."""
        return (self.geometry.batch, self.geometry.channels, *self.geometry.spatial)

    @property
    def _top_count(self) -> int:
        return self.geometry.batch * self.geometry.channels * math.prod(self.geometry.output)

    def pool(self, bottom: Any, form: Form, top: Any, *, keeps: bool = True) -> None:
        """Write ``top``, in the order and dtype of the bottom's ``form``; MAX or AVE. ``keeps``: :meth:`unpool` or
        :meth:`write_indices` follows.
        """
        assert form.shape == self.bottom_shape
        is_maximum = self.geometry.method is PoolMethod.MAX
        if is_maximum:
            self._channels_last = form.channels_last
        chosen = self._room() if is_maximum and keeps else None
        if self._is_global:
            batch, channels = self.geometry.batch, self.geometry.channels
            blocks = batch * -(-channels // _GLOBAL_CHANNELS[form.channels_last])
            arguments = (batch, bottom, top, chosen, channels, form.pixels, form.channels_last, is_maximum)
            kernels = self._forms.kernels("pooling", form.dtype)
            kernels.launch_blocks("global_forward", blocks, _GLOBAL_THREADS, *arguments)
        elif is_maximum:
            self._launch("max_forward" + self._suffix, self._top_count, form, bottom, top, chosen)
        else:
            self._launch("average_forward", self._top_count, form, bottom, top)

    def unpool(self, top_diff: Any, form: Form, bottom_diff: Any) -> None:
        """Write ``bottom_diff``, in ``form``; ``top_diff`` is in that order and dtype. MAX and STOCHASTIC take the order of the
        last :meth:`pool`.
        """
        if self.geometry.method is PoolMethod.AVE:
            self._launch("average_backward", form.count, form, top_diff, bottom_diff)
            return
        assert form.channels_last == self._channels_last
        self._launch("chosen_backward" + self._suffix, form.count, form, top_diff, self._chosen, bottom_diff)

    def write_indices(self, indices: Any) -> None:
        """Write the index y * width + x of each maximum of the last :meth:`pool`, in the net's dtype and in plain order."""
        self._launch_rare("chosen_indices", self._channels_last, self._chosen, indices)

    # -- the Protocol ----------------------------------------------------------------------------------------------

    def forward(self, bottom: Any, top: Any, mask: Any | None) -> None:
        form = Form.of(self.bottom_shape, self._dtype)
        if self.geometry.method is not PoolMethod.STOCHASTIC:
            self.pool(bottom.reshape(-1), form, top.reshape(-1))
            if mask is not None:
                self.write_indices(mask.reshape(-1))
            return
        assert mask is not None, "stochastic pooling needs a random number for each window"
        self._channels_last = False
        self._launch_rare("stochastic_forward", False, bottom, mask, top, self._room())

    def backward(self, bottom: Any, top_diff: Any, bottom_diff: Any) -> None:
        form = Form.of(self.bottom_shape, self._dtype)
        self.unpool(top_diff.reshape(-1), form, bottom_diff.reshape(-1))

    def _launch(self, name: str, count: int, form: Form, *arrays: Any) -> None:
        """Run a kernel that comes packed as well, unless marks are wide."""
        is_rare = name.endswith("_wide")
        pack = pack_of(form.dtype, self.geometry.channels, *arrays) if form.channels_last and not is_rare else 1
        kernels = self._forms.kernels("pooling_rare" if is_rare else "pooling", form.dtype)
        windows = self._windows(pack, channels_last=form.channels_last)
        kernels.launch(name + ("_packed" if pack > 1 else ""), count // pack, *arrays, *windows)

    def _launch_rare(self, name: str, channels_last: bool, *arrays: Any) -> None:
        """Run a kernel that works on values of the net's dtype, one for each window."""
        kernels = self._forms.kernels("pooling_rare", self._dtype)
        kernels.launch(name + self._suffix, self._top_count, *arrays, *self._windows(1, channels_last=channels_last))

    def _windows(self, pack: int, *, channels_last: bool) -> tuple[int, ...]:
        """The kernels' WINDOWS, channels counted in packs."""
        g = self.geometry
        return (g.channels // pack, *g.spatial, *g.output, *g.kernel, *g.stride, *g.pad, channels_last)

    def _room(self) -> Any:
        if self._chosen is None:
            self._chosen = self._forms.device.empty(self._top_count, self._chosen_dtype)
        return self._chosen
