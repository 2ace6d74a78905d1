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
from paratrain.layers.base import Layer
from paratrain.net.copying import MISMATCH_ADVICE, CopyRules, CopyTable

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


def copy_arrays(net: Net, source: Mapping[str, Mapping[int, Array]], rules: CopyRules | None = None) -> None:
    """Copy parameters, given by layer name and index, into the layers that ``net`` has of these names.

    A parameter that is missing must be one that the layer shares with another. Raises SnapshotError for missing or
    surplus parameters and ShapeMismatchError for other shapes, before anything is copied. ``rules``: see weights.copy.
    """
    owned = {(entry.layer_name, entry.blob_index) for entry in net.parameters.entries}
    layers = dict(zip(net.layer_names, net.layers, strict=True))
    copies: list[tuple[Blob, Array]] = []
    table = None if rules is None else CopyTable()
    rules = CopyRules() if rules is None else rules
    for source_name, saved in source.items():
        name, why = rules.target(source_name, source)
        target = layers.get(name) if name is not None else None
        if target is None:
            logger.info("Ignoring source layer %s", source_name)
            if table is not None and saved:
                table.leave(source_name, why or "not in the network")
            continue
        needed = {index for index in range(len(target.blobs)) if (target.name, index) in owned}
        problem = _mismatch(target, saved, needed)
        if problem is not None:
            if not rules.allow_mismatch:
                raise problem
            if table is not None:
                table.leave(source_name, str(problem).removesuffix(MISMATCH_ADVICE), target.name)
            continue
        copies += [(target.blobs[index], values) for index, values in saved.items()]
        if table is not None and saved:
            table.take(source_name, target.name, [values.shape for _, values in sorted(saved.items())])
    for blob, values in copies:
        blob.data[...] = values
    if table is not None:
        table.log(net.params)


def _mismatch(layer: Layer, saved: Mapping[int, Array], needed: set[int]) -> SnapshotError | ShapeMismatchError | None:
    """Why ``saved`` cannot be the parameters of ``layer``; None where it can."""
    if not needed <= saved.keys() or not saved.keys() <= set(range(len(layer.blobs))):
        return SnapshotError(
            f"layer '{layer.name}' ({layer.type}) has {len(layer.blobs)} parameter blobs; the weights hold for it those "
            f"numbered {', '.join(map(str, sorted(saved)))}"
        )
    for index, values in sorted(saved.items()):
        wanted = layer.blobs[index].shape
        if values.shape != wanted:
            return ShapeMismatchError(
                f"layer '{layer.name}' ({layer.type}): parameter {index} has shape {wanted} in the net and "
                f"{values.shape} in the weights{MISMATCH_ADVICE}"
            )
    return None
