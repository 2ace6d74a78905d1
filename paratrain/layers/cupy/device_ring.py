"""Batches on their way to the GPU: threads fill memory of the host, and copy it to the GPU while layers compute."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from paratrain import gpu
from paratrain.backends.base import warn_once
from paratrain.backends.cupy.backend import CupyBackend
from paratrain.backends.cupy.forms import Form
from paratrain.blob import Blob, SyncedMemory
from paratrain.data.loader import BatchLoader
from paratrain.data.transformer import Transformer
from paratrain.layers.batch_ring import part_of

__all__ = ["DeviceRing", "ImageBytes", "ImageValues", "Sent"]

Shapes = tuple[tuple[int, ...], ...]
Kinds = tuple[tuple[tuple[int, ...], npt.DTypeLike], ...]

_ALIGNMENT = 256
"""Bytes: each array of a batch begins where the GPU reads best."""


class Sent(Protocol):
    """What of a batch is sent to the GPU, and how the tops are made of it there."""

    kinds: Kinds
    """The shapes and types of the arrays; the first axis of each counts the images."""
    shapes: Shapes
    """Of the tops: images, and labels."""

    def fill(self, batch: int, arrays: Sequence[Any], part: slice) -> int:
        """Write a part of batch number ``batch`` to arrays of the host; return how many of its records are bad."""

    def make_tops(self, arrays: Sequence[Any], tops: Sequence[Blob]) -> None:
        """Let the backend's stream make the tops of what has been sent; they have their shapes."""


class _Place:
    """A batch on the host, in pinned memory, and on the GPU: one block each, so that one copy can send all of it."""

    def __init__(self, backend: CupyBackend, kinds: Kinds, piece_count: int) -> None:
        event = gpu.library().cuda.Event
        sizes = [math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in kinds]
        padded = [-(-size // _ALIGNMENT) * _ALIGNMENT for size in sizes]
        stops = np.cumsum(padded).tolist()
        parts = [slice(stop - pad, stop - pad + size) for stop, pad, size in zip(stops, padded, sizes, strict=True)]
        on_host, on_device = _host_bytes(stops[-1]), backend.device.zeros(stops[-1], np.uint8)
        self.host, self.device = (
            [block[part].view(dtype).reshape(shape) for part, (shape, dtype) in zip(parts, kinds, strict=True)]
            for block in (on_host, on_device)
        )
        count = kinds[0][0][0]
        pieces = [part_of(count, piece, piece_count) for piece in range(piece_count)]
        self.copies = [
            [(host[piece], device[piece]) for host, device in zip(self.host, self.device, strict=True)]
            for piece in pieces
        ]
        """Of each piece: what is copied where."""
        if piece_count == 1:
            self.copies = [[(on_host, on_device)]]
        self.arrived = [event(block=True, disable_timing=True) for _ in pieces]
        """Of each piece: it is on the GPU, and may be overwritten on the host."""
        self.used = event(disable_timing=True)
        """The tops have been made of it: it may be overwritten on the GPU."""
        self.used.record(backend.stream)  # before that, the memory may have been somebody else's


class DeviceRing:
    """Places for batches. Threads fill memory of the host and start the copy to the GPU, on a stream of its own. The tops have
    memory of their own, the same for every batch, in which the backend's stream puts their values.

    A thread waits until the last copy out of a place has been made before it fills it; the copying stream waits until the tops
    have been made of what lies on the GPU, whatever the host is at by then. It is a :class:`BatchRing`.
    """

    def __init__(self, backend: CupyBackend, sent: Sent, place_count: int, piece_count: int) -> None:
        self.piece_count = piece_count
        self.bad_counts = [[0] * piece_count for _ in range(place_count)]
        self._backend, self._sent = backend, sent
        self._count = sent.kinds[0][0][0]
        self._places = [_Place(backend, sent.kinds, piece_count) for _ in range(place_count)]
        self._stream = gpu.library().cuda.Stream(non_blocking=True)

    def fill(self, batch: int, piece: int, place: int) -> None:
        there = self._places[place]
        part = part_of(self._count, piece, self.piece_count)
        # Each thread has a current GPU, at first GPU 0. It is never brought back to that one, on which this process would begin
        # to use memory then.
        gpu.library().cuda.Device(self._backend.device.number).use()
        there.arrived[piece].synchronize()
        self.bad_counts[place][piece] = self._sent.fill(batch, there.host, part)
        self._stream.wait_event(there.used)
        for host, device in there.copies[piece]:
            device.set(host, stream=self._stream)
        there.arrived[piece].record(self._stream)

    def lend(self, tops: Sequence[Blob]) -> None:
        """Nothing: the values do not lie in the ring."""

    def show(self, place: int, tops: Sequence[Blob]) -> Shapes:
        there, stream = self._places[place], self._backend.stream
        for event in there.arrived:
            stream.wait_event(event)
        for blob, shape in zip(tops, self._sent.shapes, strict=False):
            if blob.shape != shape:
                blob.reshape(*shape)
        self._sent.make_tops(there.device, tops)
        there.used.record(stream)
        return self._sent.shapes

    def close(self) -> None:
        """Wait for the copies that are on their way, after which the memory may be used for something else."""
        with contextlib.suppress(RuntimeError), gpu.library().cuda.Device(self._backend.device.number):
            self._stream.synchronize()  # of a GPU that has failed others have told


class ImageBytes:
    """Images as bytes, cut out of those of the records; mean, scale and mirroring are the GPU's part.

    The images become a top in the form in which most nets' first layers want it: see ``CupyBackend.prefers_channels_last``.
    """

    def __init__(self, backend: CupyBackend, loader: BatchLoader, transformer: Transformer, shapes: Shapes) -> None:
        images, labels = self.shapes = shapes
        self.kinds: Kinds = ((images, np.uint8), (labels, np.float32), ((images[0], 3), np.int32))
        self._backend, self._loader = backend, loader
        self._scale = transformer.scale
        self._mean, self._mean_size = _mean_on_device(transformer, images[1])

    def fill(self, batch: int, arrays: Sequence[Any], part: slice) -> int:
        pixels, labels, windows = arrays
        return self._loader.fill_bytes(batch, pixels, labels, windows, part)

    def make_tops(self, arrays: Sequence[Any], tops: Sequence[Blob]) -> None:
        pixels, labels, windows = arrays
        forms, memory = self._backend.forms, tops[0].data_memory
        images = self.shapes[0]
        form = Form.of(images, np.float32)
        if isinstance(memory, SyncedMemory):
            last = images[1] > 1 and self._backend.prefers_channels_last
            form = Form.of(images, self._backend.precision.storage, channels_last=last)
        label_top, label_count = None, 0
        if len(tops) > 1:
            label_top, label_count = _plain(self._backend, tops[1]), labels.size
        forms.kernels("transform", form.dtype).launch(
            "transform", form.count // form.channels, pixels, windows, self._mean, forms.write(memory, form), *images[1:],
            *self._mean_size, self._scale, form.channels_last, labels, label_top, label_count,
        )  # fmt: skip


class ImageValues:
    """Images as float32 values that the host has made, and labels."""

    def __init__(self, backend: CupyBackend, loader: BatchLoader, shapes: Shapes) -> None:
        self.shapes = shapes
        self.kinds: Kinds = tuple((shape, np.float32) for shape in shapes)
        self._backend, self._loader = backend, loader

    def fill(self, batch: int, arrays: Sequence[Any], part: slice) -> int:
        return self._loader.fill(batch, arrays[0], arrays[1], part)

    def make_tops(self, arrays: Sequence[Any], tops: Sequence[Blob]) -> None:
        for blob, array in zip(tops, arrays, strict=False):
            self._backend.copy(array, _plain(self._backend, blob))


def _plain(backend: CupyBackend, blob: Blob) -> Any:
    """The blob's flat array on the GPU, all of which is about to be written."""
    return backend.forms.write(blob.data_memory, Form.of(blob.shape, np.float32))


def _host_bytes(count: int) -> Any:
    """Zeros in pinned memory; in ordinary memory, with a line in the log, where the system pins no more."""
    try:
        block = gpu.empty_pinned(count, np.uint8)
    except (RuntimeError, MemoryError) as error:
        warn_once(
            f"batches are copied to the GPU from memory that is not pinned, which is slower: {count:,} bytes could not be pinned "
            f"({error}); ulimit -l and the limits of a container say how much may be, a smaller prefetch needs less"
        )
        return np.zeros(count, np.uint8)
    block[...] = 0
    return block


def _mean_on_device(transformer: Transformer, channels: int) -> tuple[Any, tuple[int, int]]:
    """The mean as an array of the GPU, None for 0, and its (height, width), (0, 0) for a value for each channel."""
    mean = transformer.mean
    if mean is None:
        return None, (0, 0)
    if mean.shape[1:] == (1, 1) and not transformer.has_mean_image:
        values = np.broadcast_to(mean.reshape(-1), channels)
        return gpu.library().asarray(np.ascontiguousarray(values, np.float32)), (0, 0)
    return gpu.library().asarray(np.ascontiguousarray(mean, np.float32)), (mean.shape[1], mean.shape[2])
