"""Weights as HDF5 files of Caffe's layout: ``data/LAYER/INDEX`` for each parameter, ``diff/LAYER/INDEX`` for gradients."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from paratrain.blob import Blob
from paratrain.data.hdf5 import read_weights, write_weights
from paratrain.errors import ShapeMismatchError, SnapshotError

if TYPE_CHECKING:
    from paratrain.net.net import Net

__all__ = ["copy_arrays", "load", "save"]

logger = logging.getLogger(__name__)

Array = npt.NDArray[Any]


def save(net: Net, path: str | os.PathLike[str], write_diff: bool = False) -> None:
    """Write the parameters (and gradients, when asked); those that layers share are written once, for the first of them.

    The file is whole or not there. Raises SnapshotError, and MissingDependencyError without h5py.
    """
    owned = {(entry.layer_name, entry.blob_index) for entry in net.parameters.entries}
    data: dict[str, dict[int, Array]] = {}
    diff: dict[str, dict[int, Array]] = {}
    for layer in net.layers:
        blobs = dict(enumerate(layer.blobs))
        data[layer.name] = {i: blob.read_data(None) for i, blob in blobs.items() if (layer.name, i) in owned}
        if write_diff:
            diff[layer.name] = {i: blob.read_diff(None) for i, blob in blobs.items()}
    write_weights(path, data, diff if write_diff else None)


def load(net: Net, path: str | os.PathLike[str]) -> None:
    """Copy into ``net`` the parameters of equally named layers in the file.

    Raises SnapshotError and ShapeMismatchError, before anything is copied, where they do not fit.
    """
    copy_arrays(net, read_weights(path))


def copy_arrays(net: Net, source: Mapping[str, Mapping[int, Array]]) -> None:
    """Copy parameters, given by layer name and index, into the layers that ``net`` has of these names.

    A parameter that is missing must be one that the layer shares with another. Raises SnapshotError for missing or
    surplus parameters and ShapeMismatchError for other shapes, before anything is copied.
    """
    owned = {(entry.layer_name, entry.blob_index) for entry in net.parameters.entries}
    layers = dict(zip(net.layer_names, net.layers, strict=True))
    copies: list[tuple[Blob, Array]] = []
    for name, saved in source.items():
        target = layers.get(name)
        if target is None:
            logger.info("Ignoring source layer %s", name)
            continue
        needed = {index for index in range(len(target.blobs)) if (name, index) in owned}
        if not needed <= saved.keys() or not saved.keys() <= set(range(len(target.blobs))):
            raise SnapshotError(
                f"layer '{name}' ({target.type}) has {len(target.blobs)} parameter blobs; the weights hold for it those "
                f"numbered {', '.join(map(str, sorted(saved)))}"
            )
        for index, values in sorted(saved.items()):
            blob = target.blobs[index]
            if values.shape != blob.shape:
                raise ShapeMismatchError(
                    f"layer '{name}' ({target.type}): parameter {index} has shape {blob.shape} in the net and "
                    f"{values.shape} in the weights; to train this layer anew, give it another name, so that it does not match"
                )
            copies.append((blob, values))
    for blob, values in copies:
        blob.data[...] = values
