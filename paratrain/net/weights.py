"""Weights in and out of a net: caffemodel messages, and sharing between nets."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from paratrain.blob import Blob
from paratrain.errors import ShapeMismatchError, SnapshotError
from paratrain.layers.base import Layer
from paratrain.proto import BlobProto, NetParameter, array_to_blob, blob_shape, blob_to_array, upgrade_net

if TYPE_CHECKING:
    from paratrain.net.net import Net

__all__ = ["copy", "share", "to_proto"]

logger = logging.getLogger(__name__)


def copy(net: Net, source: NetParameter) -> None:
    """Copy into ``net`` the blobs of every layer of ``source`` that it has by name (Caffe's CopyTrainedLayersFrom). ``source``
    may be in an old form (V0 or V1), its blobs with four legacy axes, and NVCaffe's raw ones.

    Raises SnapshotError for another number of blobs, ShapeMismatchError for other shapes, before anything is copied.
    """
    source = upgrade_net(source)
    layers = dict(zip(net.layer_names, net.layers, strict=True))
    copies: list[tuple[Blob, BlobProto]] = []
    for source_layer in source.layer:
        target = layers.get(source_layer.name)
        if target is None:
            logger.info("Ignoring source layer %s", source_layer.name)
            continue
        if not source_layer.blobs:
            continue
        if len(source_layer.blobs) != len(target.blobs):
            raise SnapshotError(
                f"layer '{target.name}' ({target.type}) has {len(target.blobs)} parameter blobs; "
                f"the weights hold {len(source_layer.blobs)} for it"
            )
        for index, saved in enumerate(source_layer.blobs):
            _check_shape(target, index, saved)
            copies.append((target.blobs[index], saved))
    for blob, saved in copies:
        blob.data[...] = blob_to_array(saved).reshape(blob.shape)


def _check_shape(layer: Layer, index: int, saved: BlobProto) -> None:
    wanted = layer.blobs[index].shape
    found, legacy = blob_shape(saved), not saved.HasField("shape")
    # Files from before shapes had any number of axes store four, filled up with ones in front.
    same = found == (1,) * (4 - len(wanted)) + wanted if legacy and len(wanted) <= 4 else found == wanted
    if not same:
        raise ShapeMismatchError(
            f"layer '{layer.name}' ({layer.type}): parameter {index} has shape {wanted} in the net and {found} in the "
            "weights; to train this layer anew, give it another name, so that it does not match"
        )


def share(net: Net, other: Net) -> None:
    """Let the layers of ``net`` use the parameter memory of equally named layers of ``other``.

    Raises ShapeMismatchError where shapes differ. Layers only one of the two has keep their own.
    """
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
