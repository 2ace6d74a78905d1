"""BlobVector: the list of blobs that a layer owns."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from paratrain.blob.blob import Blob

__all__ = ["BlobVector"]


class BlobVector(list[Blob]):
    """A list of blobs (pycaffe's ``BlobVec``, which ``net.params[name]`` is)."""

    def __init__(self, blobs: Iterable[Blob] = (), dtype: npt.DTypeLike = np.float32) -> None:
        super().__init__(blobs)
        self._dtype = dtype

    def add_blob(self, *shape: int) -> None:
        """Append a blob of zeros; fill it through its ``data`` (pycaffe's name)."""
        self.append(Blob(shape, self._dtype))
