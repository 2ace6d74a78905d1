"""Making the learnable blobs of a layer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy.typing as npt

from paratrain.blob import Blob
from paratrain.errors import NetError
from paratrain.fillers import fill
from paratrain.layers.base import Layer
from paratrain.proto import FillerParameter
from paratrain.random import generator

__all__ = ["add_learnable_blob"]


def add_learnable_blob(layer: Layer, shape: Sequence[int], dtype: npt.DTypeLike, filler: FillerParameter) -> None:
    """Append a filled blob to ``layer.blobs``; its numbers depend on the seed, the layer's name and the blob's index.

    Raises LayerError that names layer and blob where the filler cannot work.
    """
    blob, index = Blob(shape, dtype), len(layer.blobs)
    # Where nothing is computed, a blob with the second axis cut to 1 shows whether the filler can work.
    filled = (
        Blob((*blob.shape[:1], *(1 for _ in blob.shape[1:2]), *blob.shape[2:])) if layer.context.shapes_only else blob
    )
    try:
        fill(filled, filler, generator(layer.context.seed, "filler", layer.name, index))
    except NetError as error:
        raise layer.error(f"blob {index} {blob.shape}: {error}") from None
    layer.blobs.append(blob)
