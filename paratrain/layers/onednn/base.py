"""What the layers on oneDNN share."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from paratrain.backends.onednn.arranged import Copies
from paratrain.backends.onednn.backend import OneDnnBackend
from paratrain.backends.onednn.layout import Layout
from paratrain.backends.onednn.library import UnsupportedError
from paratrain.backends.onednn.names import DataType
from paratrain.blob import Blob, Memory, SyncedMemory
from paratrain.layers.base import Layer, LayerContext
from paratrain.proto import LayerParameter

__all__ = ["OneDnnLayer"]

logger = logging.getLogger(__name__)

P = TypeVar("P")
A = TypeVar("A")

_MOST_KERNELS = 8


def _first_built(build: Callable[[A], P], *choices: A) -> P:
    """What ``build`` makes of the first of these for which oneDNN has a kernel. Raises UnsupportedError where it has none."""
    for choice in choices[:-1]:
        with contextlib.suppress(UnsupportedError):
            return build(choice)
    return build(choices[-1])


class OneDnnLayer(Layer, Generic[P]):
    """A layer with kernels ``P`` of oneDNN, one for each shape and layout that its bottoms come in.

    Mixed in before the plain layer. ``forward`` and ``backward`` ask :meth:`kernel` for what computes; it is None where
    oneDNN has nothing fit, and then the plain layer's methods run, on the blobs' plain arrays.
    """

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        assert isinstance(context.backend, OneDnnBackend)
        self.arranger = context.backend.arranger
        self.copies = Copies(self.arranger)
        self._kernels: dict[Hashable, P | None] = {}
        self._latest: tuple[Hashable, P | None] | None = None

    def kernel(self, key: Hashable, build: Callable[[], P]) -> P | None:
        """Return what ``build`` made for ``key``, shapes and layouts, when it first came; None where oneDNN has nothing fit."""
        if self._latest is not None and self._latest[0] == key:
            return self._latest[1]
        if key not in self._kernels:
            if len(self._kernels) >= _MOST_KERNELS:
                self._kernels.clear()
                self.copies.clear()
            try:
                self._kernels[key] = build()
            except UnsupportedError as error:
                self._kernels[key] = None
                self._report(error)
        self._latest = (key, self._kernels[key])
        return self._kernels[key]

    def no_kernel(self) -> P | None:
        """Say that the plain layer computes this forward pass, and backward after it; return None."""
        self._latest = None
        return None

    def give_up(self, error: UnsupportedError) -> None:
        """Let the plain layer compute backward, and from now on whatever comes in these shapes and layouts."""
        assert self._latest is not None
        self._kernels[self._latest[0]] = None
        self._latest = (self._latest[0], None)
        self._report(error)

    @property
    def latest_kernel(self) -> P | None:
        """What computed the last forward pass; None where the plain layer did."""
        return None if self._latest is None else self._latest[1]

    def layout_of(self, memory: Memory, shape: tuple[int, ...]) -> Layout:
        """The layout in which the newest values of a blob lie, seen as an array of ``shape``."""
        return self.arranger.layout_of(memory, shape)

    def _report(self, error: UnsupportedError) -> None:
        logger.info("Layer %s is computed by numpy: %s", self.name, error)

    def in_dtype(self, layout: Layout, build: Callable[[Layout], P]) -> P:
        """Return what ``build`` makes for ``layout``, or for the same order of float32 where oneDNN has no kernel for bfloat16.

        Raises UnsupportedError where it has none for either.
        """
        in_float32 = layout.cast(DataType.F32)
        return _first_built(build, layout, *([] if in_float32 in (None, layout) else [in_float32]))

    def in_own_dtype(self, build: Callable[[DataType], P]) -> P:
        """The same for kernels that choose layouts: ``build`` gets the type in which the backend computes, then float32."""
        return _first_built(build, *dict.fromkeys((self.arranger.dtype, DataType.F32)))

    @staticmethod
    def may_arrange(*blobs: Blob) -> bool:
        """Whether the values of these blobs may be left in any layout: they have memory of their own, and some values."""
        return all(isinstance(blob.data_memory, SyncedMemory) and blob.count for blob in blobs)
