"""What a file holds, by its first bytes, so that a wrong file is called by its name in the error."""

from __future__ import annotations

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from paratrain.proto import caffe_pb2
from paratrain.proto.schema import descriptor_of, is_repeated
from paratrain.proto.wire import BYTES, FIXED32, FIXED64, VARINT, fields

__all__ = ["describe_content", "disagreement"]

_SIGNATURES = (
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (0, b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"PK\x03\x04", "a zip archive (a numpy .npz, perhaps)"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"\x93NUMPY", "a numpy array"),
    (0, b"\x7fELF", "a program"),
    (16, b"\xde\xc0\xef\xbe", "the data file of an LMDB database"),
)

# What Caffe writes to files of its own, in the order in which a guess is tried.
_FILE_MESSAGES = (
    (caffe_pb2.NetParameter, "a network with weights (caffemodel)"),
    (caffe_pb2.SolverState, "the state of a solver (solverstate)"),
    (caffe_pb2.BlobProto, "a blob (binaryproto, such as a mean image)"),
    (caffe_pb2.Datum, "a database record (Datum)"),
    (caffe_pb2.BlobProtoVector, "several blobs (BlobProtoVector)"),
)
_FIELDS_LOOKED_AT = 1000

_Type = FieldDescriptor
_WIRE_TYPES = {
    _Type.TYPE_DOUBLE: FIXED64,
    _Type.TYPE_FLOAT: FIXED32,
    _Type.TYPE_INT64: VARINT,
    _Type.TYPE_UINT64: VARINT,
    _Type.TYPE_INT32: VARINT,
    _Type.TYPE_UINT32: VARINT,
    _Type.TYPE_BOOL: VARINT,
    _Type.TYPE_ENUM: VARINT,
    _Type.TYPE_STRING: BYTES,
    _Type.TYPE_BYTES: BYTES,
    _Type.TYPE_MESSAGE: BYTES,
}


def describe_content(data: bytes) -> str:
    """Say in a few words what ``data``, the contents of a file or their beginning, seems to be: "a PNG image"."""
    if not data:
        return "an empty file"
    for offset, signature, name in _SIGNATURES:
        if data[offset : offset + len(signature)] == signature:
            return name
    if _is_text(data):
        return "a text file"
    for message_type, name in _FILE_MESSAGES:
        if disagreement(data, descriptor_of(message_type)) is None:
            return name
    return "a binary file of unknown kind"


def disagreement(data: bytes, descriptor: Descriptor) -> str | None:
    """Say why ``data`` is not a serialized message of this type, or return None if its outermost fields agree with it.

    Numbers that the type does not have are what a fork may have added; but some field has to be a known one.
    """
    by_number = {field.number: field for field in descriptor.fields}
    known_count = 0
    try:
        for index, found in enumerate(fields(data)):
            if index == _FIELDS_LOOKED_AT:
                break
            expected = by_number.get(found.number)
            if expected is None:
                continue
            # Repeated numbers come packed or one by one, whatever the schema says.
            packed = found.wire_type == BYTES and is_repeated(expected)
            if found.wire_type != _WIRE_TYPES[expected.type] and not packed:
                return f"field {found.number} ('{expected.name}' in a {descriptor.name}) has another type"
            known_count += 1
    except ValueError as error:
        return f"it is not in protobuf's binary format ({error})"
    if known_count == 0:
        return f"it has no field of a {descriptor.name}"
    return None


def _is_text(data: bytes) -> bool:
    """Whether there are no control characters but blanks and line ends in the first 4 KB."""
    return not any((byte < 32 and byte not in b"\t\n\r\f\v") or byte == 127 for byte in data[:4096])
