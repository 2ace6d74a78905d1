"""Blob: values and gradients of one shape, the thing that layers exchange."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from paratrain.blob.limits import check_count
from paratrain.blob.synced_memory import Device, Head, HostArray, Memory, SyncedMemory
from paratrain.errors import ShapeMismatchError

__all__ = ["Blob"]


class Blob:
    """``data`` and ``diff`` (the gradient of the loss by ``data``), of one shape, any number of axes.

    A blob of images is (N, C, H, W). A blob of no axes holds one value, as in Caffe: a loss has shape ().
    Both halves are zero until written and take memory only when first touched. ``data`` and ``diff`` are numpy
    arrays that alias the blob: writing into them writes the blob, as in pycaffe.
    """

    def __init__(self, shape: Sequence[int] = (0,), dtype: npt.DTypeLike = np.float32) -> None:
        self._dtype = np.dtype(dtype)
        self._shape: tuple[int, ...] = ()
        self._count = 0
        self.reshape(*shape)

    def reshape(self, *shape: int) -> None:
        """Give the blob another shape. Memory grows when it must and is kept when it suffices; values are then undefined.

        Raises ShapeMismatchError for a negative axis, and for more than ``limits.LARGEST_COUNT`` values.
        """
        try:
            new_shape = tuple(int(axis) for axis in shape)
        except TypeError:
            raise TypeError(f"reshape takes the axes one by one, as in reshape(1, 3, 8, 8); found {shape}") from None
        if any(axis < 0 for axis in new_shape):
            raise ShapeMismatchError(f"a blob cannot have the shape {new_shape}: an axis is negative")
        count = check_count(new_shape)
        if not hasattr(self, "_data") or count > self._data.count:
            self._data: Memory = SyncedMemory(count, self._dtype)
        if not hasattr(self, "_diff") or count > self._diff.count:
            self._diff: Memory = SyncedMemory(count, self._dtype)
        self._shape, self._count = new_shape, count

    def reshape_like(self, other: Blob) -> None:
        """Take the shape of ``other``."""
        self.reshape(*other.shape)

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape

    @property
    def count(self) -> int:
        """The number of values: the product of all axes (1 where there are none)."""
        return self._count

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._dtype

    @property
    def axis_count(self) -> int:
        return len(self._shape)

    def count_between(self, start: int, stop: int | None = None) -> int:
        """The product of the axes ``start`` to ``stop`` (not included; to the last where None); 1 for an empty range."""
        return math.prod(self._shape[start:stop])

    def canonical_axis(self, axis: int) -> int:
        """Return ``axis`` counted from the front; -1 is the last. Raises ShapeMismatchError when there is no such axis."""
        if not -len(self._shape) <= axis < len(self._shape):
            raise ShapeMismatchError(f"axis {axis} does not exist: the blob has {len(self._shape)} axes, {self._shape}")
        return axis % len(self._shape)

    # -- the host's view, pycaffe's names ------------------------------------------------------------------------

    @property
    def data(self) -> HostArray:
        """The values as a numpy array of the blob's shape that may be written."""
        return self._data.mutable_host()[: self._count].reshape(self._shape)

    @property
    def diff(self) -> HostArray:
        """The gradients as a numpy array of the blob's shape that may be written."""
        return self._diff.mutable_host()[: self._count].reshape(self._shape)

    @property
    def num(self) -> int:
        return self._legacy_axis(0)

    @property
    def channels(self) -> int:
        return self._legacy_axis(1)

    @property
    def height(self) -> int:
        return self._legacy_axis(2)

    @property
    def width(self) -> int:
        return self._legacy_axis(3)

    def _legacy_axis(self, index: int) -> int:
        """Caffe's four-axis names: axes that a blob of fewer lacks count as 1."""
        if len(self._shape) > 4:
            raise ShapeMismatchError(
                f"num, channels, height and width need at most 4 axes; this blob has {self._shape}"
            )
        return self._shape[index] if index < len(self._shape) else 1

    # -- where a backend works -----------------------------------------------------------------------------------

    def read_data(self, device: Device | None) -> Any:
        """The values where ``device`` (None: the host) works, for reading only."""
        return self._view(self._data.host() if device is None else self._data.device(device))

    def write_data(self, device: Device | None) -> Any:
        """The values where ``device`` (None: the host) works, for writing."""
        return self._view(self._data.mutable_host() if device is None else self._data.mutable_device(device))

    def read_diff(self, device: Device | None) -> Any:
        """The gradients where ``device`` (None: the host) works, for reading only."""
        return self._view(self._diff.host() if device is None else self._diff.device(device))

    def write_diff(self, device: Device | None) -> Any:
        """The gradients where ``device`` (None: the host) works, for writing."""
        return self._view(self._diff.mutable_host() if device is None else self._diff.mutable_device(device))

    def _view(self, flat: Any) -> Any:
        return flat[: self._count].reshape(self._shape)

    # -- sharing -------------------------------------------------------------------------------------------------

    @property
    def data_memory(self) -> Memory:
        return self._data

    @property
    def diff_memory(self) -> Memory:
        return self._diff

    @property
    def diff_is_untouched(self) -> bool:
        """Whether nobody has asked for the gradients yet: then they are zero and take no memory."""
        return isinstance(self._diff, SyncedMemory) and self._diff.head is Head.UNINITIALIZED

    def share_data(self, other: Blob) -> None:
        """Make ``data`` the same memory as that of ``other``, which must hold as many values."""
        self.use_memory(data=other.data_memory)

    def share_diff(self, other: Blob) -> None:
        """Make ``diff`` the same memory as that of ``other``, which must hold as many values."""
        self.use_memory(diff=other.diff_memory)

    def use_memory(self, data: Memory | None = None, diff: Memory | None = None) -> None:
        """Put the blob's halves into memory that somebody else owns; the blob's own values are dropped."""
        for memory in (data, diff):
            if memory is not None:
                assert memory.count >= self._count and memory.dtype == self._dtype
        self._data = self._data if data is None else data
        self._diff = self._diff if diff is None else diff
