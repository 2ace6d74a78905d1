"""Caffe's file formats: the messages, reading and writing them, and what happens to a net before it is built.

``read_prototxt`` -> ``upgrade_solver`` / ``upgrade_net`` -> ``filter_net`` -> ``insert_splits`` -> a Net.
"""

from __future__ import annotations

from paratrain.proto import caffe_pb2
from paratrain.proto.binary import read_binary, replace_atomically, write_atomically, write_binary, write_pieces
from paratrain.proto.blob_proto import array_to_blob, blob_shape, blob_to_array
from paratrain.proto.caffe_pb2 import (
    TEST,
    TRAIN,
    BlobProto,
    BlobProtoVector,
    BlobShape,
    Datum,
    FillerParameter,
    HingeLossParameter,
    LayerParameter,
    LossParameter,
    NetParameter,
    NetState,
    NetStateRule,
    ParamSpec,
    Phase,
    SolverParameter,
    SolverState,
    TransformationParameter,
    V0LayerParameter,
    V1LayerParameter,
)
from paratrain.proto.content import describe_content
from paratrain.proto.filter import filter_net
from paratrain.proto.forks import fork_fields, fork_of
from paratrain.proto.format import format_prototxt
from paratrain.proto.splits import insert_splits
from paratrain.proto.text import parse_prototxt, read_prototxt
from paratrain.proto.upgrade import upgrade_net, upgrade_solver

__all__ = [
    "TEST",
    "TRAIN",
    "BlobProto",
    "BlobProtoVector",
    "BlobShape",
    "Datum",
    "FillerParameter",
    "HingeLossParameter",
    "LayerParameter",
    "LossParameter",
    "NetParameter",
    "NetState",
    "NetStateRule",
    "ParamSpec",
    "Phase",
    "SolverParameter",
    "SolverState",
    "TransformationParameter",
    "V0LayerParameter",
    "V1LayerParameter",
    "array_to_blob",
    "blob_shape",
    "blob_to_array",
    "caffe_pb2",
    "describe_content",
    "filter_net",
    "fork_fields",
    "fork_of",
    "format_prototxt",
    "insert_splits",
    "parse_prototxt",
    "read_binary",
    "read_prototxt",
    "replace_atomically",
    "upgrade_net",
    "upgrade_solver",
    "write_atomically",
    "write_binary",
    "write_pieces",
]
