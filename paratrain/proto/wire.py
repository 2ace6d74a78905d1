"""The protobuf wire format, as far as it is needed to look into a file without a schema.

protobuf's Python interface hands out repeated numbers one by one; their packed bytes can only be had from here. And a
file that is not what it should be is described by its outermost fields.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

__all__ = [
    "BYTES",
    "FIXED32",
    "FIXED64",
    "LARGEST_BYTES",
    "VARINT",
    "Field",
    "encode_header",
    "encode_length_delimited",
    "fields",
]

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

# A message may be this long: its readers measure it in signed 32-bit numbers. (Its writers do not always look.)
LARGEST_BYTES = 2**31 - 1


class Field(NamedTuple):
    """One field of a serialized message: its number, wire type, and where its value lies: ``data[start:stop]``."""

    number: int
    wire_type: int
    start: int
    stop: int


def fields(data: bytes | memoryview) -> Iterator[Field]:
    """Yield the outermost fields of a serialized message.

    Raises ValueError where ``data`` is not in the wire format. The last field's ``stop`` may lie behind the end of ``data``:
    then the file was cut off. Groups (wire types 3 and 4), which Caffe never had, count as not in the format.
    """
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        number, wire_type = key >> 3, key & 7
        if number == 0:
            raise ValueError(f"field number 0 at byte {position}")
        if wire_type == VARINT:
            _, stop = _varint(data, position)
        elif wire_type == FIXED64:
            stop = position + 8
        elif wire_type == FIXED32:
            stop = position + 4
        elif wire_type == BYTES:
            length, position = _varint(data, position)
            stop = position + length
        else:
            raise ValueError(f"wire type {wire_type} at byte {position}")
        yield Field(number, wire_type, position, stop)
        position = stop


def encode_length_delimited(number: int, value: bytes | memoryview) -> bytes:
    """Return field ``number`` with these bytes (a string, a message, packed numbers), serialized."""
    return b"".join((encode_header(number, len(value)), value))


def encode_header(number: int, length_bytes: int) -> bytes:
    """Return what stands before the bytes of field ``number`` (a string, a message, packed numbers) of this length."""
    return _encode_varint(number << 3 | BYTES) + _encode_varint(length_bytes)


def _varint(data: bytes | memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            raise ValueError("the data ends inside a number")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError(f"a number of more than 10 bytes at byte {position}")


def _encode_varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
