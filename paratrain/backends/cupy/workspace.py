"""Memory that everything on a stream lends for the time of one call."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from paratrain.backends.cupy.device import CudaDevice
from paratrain.errors import DeviceError

__all__ = ["Used", "Workspace"]


class Used:
    """What a recorded graph uses, and has to find as long as it may run again: whoever has the graph keeps this."""

    def __init__(self) -> None:
        self.things: list[Any] = []


class Workspace:
    """One block on the GPU: whoever takes it may use it until somebody takes it again, which is right for work on one stream.

    It is allocated when first taken, as large as anybody has said before that he will want it, so that it hardly ever grows.
    Blocks that become too small stay as long as recorded graphs use them.
    """

    def __init__(self, device: CudaDevice) -> None:
        self._device = device
        self._wanted_bytes = 0
        self._block: Any = None
        self._recording: Used | None = None
        self._recorded: weakref.WeakSet[Used] = weakref.WeakSet()

    @contextlib.contextmanager
    def recording(self) -> Iterator[Used]:
        """A context in which work is recorded; gives what is to be kept with the graph."""
        self._recording = used = Used()
        self._recorded.add(used)
        try:
            yield used
        finally:
            self._recording = None

    @property
    def is_recording(self) -> bool:
        """Whether work is recorded right now."""
        return self._recording is not None

    def note_use(self, thing: Any) -> None:
        """Say that work uses this, which has to live as long as a graph that is recorded from it."""
        if self._recording is not None:
            self._recording.things.append(thing)

    def used_by_graphs(self) -> set[int]:
        """The ``id`` of all that graphs use which may run again."""
        return {id(thing) for used in self._recorded for thing in used.things}

    def reserve(self, byte_count: int) -> None:
        """Say that so many bytes will be taken at once."""
        self._wanted_bytes = max(self._wanted_bytes, byte_count)

    @property
    def wanted_bytes(self) -> int:
        """The most that was said to be taken at once."""
        return self._wanted_bytes

    def shrink(self, wanted_bytes: int) -> None:
        """Forget what was said, and taken, since ``wanted_bytes`` were the most."""
        if wanted_bytes < self._wanted_bytes:
            self._wanted_bytes, self._block = wanted_bytes, None

    def take(self, count: int, dtype: npt.DTypeLike) -> Any:
        """Return a flat array of ``count`` values that are not set. Raises DeviceError where memory is short."""
        dtype = np.dtype(dtype)
        byte_count = count * dtype.itemsize
        if self._block is None or self._block.size < byte_count:
            self._block = None  # before the larger one is looked for
            try:
                self._block = self._allocate(max(byte_count, self._wanted_bytes))
            except DeviceError:
                if self._wanted_bytes <= byte_count:
                    raise
                self._block = self._allocate(byte_count)
        self.reserve(byte_count)  # not where there is no such memory: others can do with less
        self.note_use(self._block)
        return self._block[:byte_count].view(dtype)

    def _allocate(self, byte_count: int) -> Any:
        return self._device.empty(-(-byte_count // 512) * 512, np.uint8)
