"""Weights in and out of a net: caffemodel messages, and sharing between nets."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from paratrain.blob import Blob
from paratrain.errors import NetError, ShapeMismatchError, SnapshotError
from paratrain.layers.base import Layer
from paratrain.net.copying import MISMATCH_ADVICE, CopyRules, CopyTable
from paratrain.proto import BlobProto, NetParameter, array_to_blob, blob_shape, blob_to_array, upgrade_net

if TYPE_CHECKING:
    from paratrain.net.net import Net

__all__ = ["copy", "share", "to_proto"]

logger = logging.getLogger(__name__)


def copy(net: Net, source: NetParameter, rules: CopyRules | None = None) -> None:
    """Copy into ``net`` the blobs of every layer of ``source`` that it has by name (Caffe's CopyTrainedLayersFrom). ``source``
    may be in an old form (V0 or V1), its blobs with four legacy axes, and NVCaffe's raw ones.

    With ``rules`` names may change, layers of other shapes may be left out, and the log has a table of what was done.
    Raises SnapshotError for another number of blobs, ShapeMismatchError for other shapes, before anything is copied.
    """
    source = upgrade_net(source)
    table = None if rules is None else CopyTable()
    rules = CopyRules() if rules is None else rules
    source_names = [layer.name for layer in source.layer]
    layers = dict(zip(net.layer_names, net.layers, strict=True))
    copies: list[tuple[Blob, BlobProto]] = []
    for source_layer in source.layer:
        name, why = rules.target(source_layer.name, source_names)
        target = layers.get(name) if name is not None else None
        if target is None:
            logger.info("Ignoring source layer %s", source_layer.name)
            if table is not None and source_layer.blobs:
                table.leave(source_layer.name, why or "not in the network")
            continue
        if not source_layer.blobs:
            continue
        try:
            _check_blobs(target, source_layer.blobs)
        except SnapshotError as error:
            if not rules.allow_mismatch:
                raise
            if table is not None:
                table.leave(source_layer.name, str(error), target.name)
            continue
        except ShapeMismatchError as error:
            if not rules.allow_mismatch:
                raise ShapeMismatchError(f"{error}{MISMATCH_ADVICE}") from None
            if table is not None:
                table.leave(source_layer.name, str(error), target.name)
            continue
        copies += zip(target.blobs, source_layer.blobs, strict=True)
        if table is not None:
            table.take(source_layer.name, target.name, [blob.shape for blob in target.blobs])
    for blob, saved in copies:
        blob.data[...] = blob_to_array(saved).reshape(blob.shape)
    if table is not None:
        table.log(net.params)


def _check_blobs(layer: Layer, saved: Sequence[BlobProto]) -> None:
    if len(saved) != len(layer.blobs):
        raise SnapshotError(
            f"layer '{layer.name}' ({layer.type}) has {len(layer.blobs)} parameter blobs; "
            f"the weights hold {len(saved)} for it"
        )
    for index, blob in enumerate(saved):
        _check_shape(layer, index, blob)


def _check_shape(layer: Layer, index: int, saved: BlobProto) -> None:
    wanted = layer.blobs[index].shape
    found, legacy = blob_shape(saved), not saved.HasField("shape")
    # Files from before shapes had any number of axes store four, filled up with ones in front.
    same = found == (1,) * (4 - len(wanted)) + wanted if legacy and len(wanted) <= 4 else found == wanted
    if not same:
        raise ShapeMismatchError(
            f"layer '{layer.name}' ({layer.type}): parameter {index} has shape {wanted} in the net and {found} in the weights"
        )


def share(net: Net, other: Net) -> None:
    """Let the layers of ``net`` use the parameter memory of equally named layers of ``other``.

    Raises ShapeMismatchError where shapes differ, and NetError where the nets compute on different GPUs. Layers only one of
    the two has keep their own.
    """
    mine_on, theirs_on = net.context.backend.device, other.context.backend.device
    if mine_on is not None and theirs_on is not None and mine_on is not theirs_on:
        raise NetError(
            f"net '{net.name}' cannot share the weights of net '{other.name}': they compute on different GPUs, or by a "
            "backend each, and memory belongs to one; make both after the same set_device(), or with the same backend, or copy "
            "the weights with save() and copy_from()"
        )
    layers = dict(zip(net.layer_names, net.layers, strict=True))
    for source in other.layers:
        target = layers.get(source.name)
        if target is None:
            logger.info("Ignoring source layer %s", source.name)
            continue
        if [blob.shape for blob in target.blobs] != [blob.shape for blob in source.blobs]:
            raise ShapeMismatchError(
                f"layer '{target.name}' ({target.type}): its parameters have shapes "
                f"{[blob.shape for blob in target.blobs]} here and {[blob.shape for blob in source.blobs]} in the other net"
            )
        for mine, theirs in zip(target.blobs, source.blobs, strict=True):
            mine.share_data(theirs)


def to_proto(net: Net, write_diff: bool) -> NetParameter:
    """Return the net's description with the values of every layer's parameters, as Caffe's Net::ToProto."""
    result = NetParameter()
    result.name = net.name
    for layer in net.layers:
        saved = result.layer.add()
        saved.CopyFrom(layer.parameter)
        saved.ClearField("blobs")
        for blob in layer.blobs:
            array_to_blob(blob.read_data(None), saved.blobs.add(), blob.read_diff(None) if write_diff else None)
    return result
