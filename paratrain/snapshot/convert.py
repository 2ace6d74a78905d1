"""Weights from one kind of file to another: caffemodel, Caffe's HDF5, npz and safetensors."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from paratrain.data.hdf5 import is_hdf5, read_weights, write_weights
from paratrain.data.tensor_files import Tensors, is_tensor_file, read_tensors, write_tensors
from paratrain.errors import ParatrainError, SnapshotError
from paratrain.net import Net
from paratrain.proto import (
    BlobProto,
    LayerParameter,
    NetParameter,
    array_to_blob,
    blob_to_array,
    format_prototxt,
    parse_prototxt,
    read_binary,
    upgrade_net,
    write_binary,
)
from paratrain.proto.caffe_pb2 import FLOAT16

__all__ = ["WEIGHT_ENDINGS", "net_tensors", "read_any", "write_any"]

WEIGHT_ENDINGS = (".caffemodel", ".caffemodel.h5", ".h5", ".npz", ".safetensors")
"""How a file of weights may end; the ending says of what kind it is to be."""

# Blobs of old files have four axes, filled up with ones in front. Those of blob 0 that count, where they are not one:
_AXES = {"Convolution": 4, "Deconvolution": 4, "InnerProduct": 2, "Embed": 2}


def read_any(path: str | os.PathLike[str]) -> Tensors:
    """Read a file of weights of any kind, known by its content.

    Half precision of NVCaffe's caffemodels stays half precision. Gradients are left behind. Raises SnapshotError.
    """
    if is_hdf5(path):
        return Tensors(read_weights(path))
    if is_tensor_file(path):
        return read_tensors(path)
    net = upgrade_net(read_binary(path, NetParameter))
    layers = {
        layer.name: {index: _values(layer, index, blob) for index, blob in enumerate(layer.blobs)}
        for layer in net.layer
        if layer.blobs
    }
    for layer in net.layer:
        layer.ClearField("blobs")
    return Tensors(layers, format_prototxt(net))


def _values(layer: LayerParameter, index: int, blob: BlobProto) -> npt.NDArray[np.floating]:
    values = blob_to_array(blob)
    if blob.HasField("raw_data") and blob.raw_data_type == FLOAT16:
        values = values.astype(np.float16)
    if not blob.HasField("shape") and values.ndim == 4:
        least = _AXES.get(layer.type, 1) if index == 0 else 1
        lead = next((axis for axis, size in enumerate(values.shape) if size != 1), 3)
        values = values.reshape(values.shape[min(lead, 4 - least) :])
    return values


def net_tensors(net: Net) -> Tensors:
    """The weights of a net; those that layers share are there once, for the first of them."""
    owned = {(entry.layer_name, entry.blob_index) for entry in net.parameters.entries}
    layers = {
        layer.name: {i: blob.read_data(None) for i, blob in enumerate(layer.blobs) if (layer.name, i) in owned}
        for layer in net.layers
        if layer.blobs
    }
    return Tensors({name: blobs for name, blobs in layers.items() if blobs}, format_prototxt(net.parameter))


def write_any(path: str | os.PathLike[str], tensors: Tensors) -> None:
    """Write weights as the kind of file that the ending of ``path`` names; the file is whole or not there.

    A caffemodel holds float32, or float64 where the weights do, and the network's description where it is known; HDF5 holds
    the weights alone. Raises SnapshotError.
    """
    name = Path(path).name
    if name.endswith((".npz", ".safetensors")):
        write_tensors(path, tensors)
    elif name.endswith(".h5"):
        write_weights(path, tensors.layers)
    elif name.endswith(".caffemodel"):
        write_binary(path, _message(path, tensors))
    else:
        raise SnapshotError(
            f"{path}: the name must end in one of {', '.join(WEIGHT_ENDINGS)}, which says what to write"
        )


def _message(path: str | os.PathLike[str], tensors: Tensors) -> NetParameter:
    try:
        net = parse_prototxt(tensors.net, NetParameter)
    except ParatrainError as error:
        raise SnapshotError(f"{path}: the description that lies beside the weights cannot be read: {error}") from None
    known = {layer.name: layer for layer in net.layer}
    for name, blobs in tensors.layers.items():
        if sorted(blobs) != list(range(len(blobs))):
            there = ", ".join(map(str, sorted(blobs)))
            raise SnapshotError(
                f"{path}: a caffemodel holds all parameters of a layer, and of layer '{name}' only those numbered {there} "
                "are there; write .caffemodel.h5, .npz or .safetensors"
            )
        layer = known[name] if name in known else net.layer.add(name=name)
        for index in sorted(blobs):
            values = blobs[index]
            array_to_blob(
                values if values.dtype == np.float64 else values.astype(np.float32, copy=False), layer.blobs.add()
            )
    return net
