"""The batches of one loader, dealt out to several ranks."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from paratrain.data.loader import WHOLE, BatchLoader
from paratrain.data.transformer import Transformer

__all__ = ["DealtLoader"]

Array = npt.NDArray[Any]


class DealtLoader:
    """Of the batches of ``loader``, which it owns, those of rank ``rank`` of ``size``: its batch b is batch rank + b * size.

    It is a :class:`BatchLoader`.
    """

    def __init__(self, loader: BatchLoader, rank: int, size: int) -> None:
        assert 0 <= rank < size
        self._loader = loader
        self._rank = rank
        self._size = size
        self.image_shape = loader.image_shape

    @property
    def record_count(self) -> int:
        return self._loader.record_count

    def keys(self, batch: int, batch_size: int) -> list[str]:
        return self._loader.keys(self._number(batch), batch_size)

    def reading(self, batch: int) -> list[str]:
        return self._loader.reading(self._number(batch))

    def shape_of(self, batch: int) -> tuple[int, int, int]:
        return self._loader.shape_of(self._number(batch))

    def fill(self, batch: int, data: Array, labels: Array, part: slice = WHOLE) -> int:
        return self._loader.fill(self._number(batch), data, labels, part)

    @property
    def bytes_transformer(self) -> Transformer | None:
        return self._loader.bytes_transformer

    def fill_bytes(
        self, batch: int, pixels: Array, labels: Array, windows: npt.NDArray[np.int32], part: slice = WHOLE
    ) -> int:
        return self._loader.fill_bytes(self._number(batch), pixels, labels, windows, part)

    def close(self) -> None:
        self._loader.close()

    def _number(self, batch: int) -> int:
        return self._rank + batch * self._size
