"""Messages as text, in the form in which Caffe writes them (its numbers look like 1 and 1e-05, not 1.0)."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.text_encoding import CEscape

from paratrain.proto.schema import is_repeated

__all__ = ["format_prototxt"]


def format_prototxt(message: Message) -> str:
    """Return ``message`` as Caffe's text: fields by number, two blanks of indentation, every line ended.

    Numbers have as few digits as read back to the same value, so reading the text gives an equal message.
    """
    return "".join(f"{line}\n" for line in _lines(message, ""))


def _lines(message: Message, indent: str) -> Iterator[str]:
    for field, value in message.ListFields():
        for item in value if is_repeated(field) else [value]:
            if field.message_type is not None:
                yield f"{indent}{field.name} {{"
                yield from _lines(item, indent + "  ")
                yield f"{indent}}}"
            else:
                yield f"{indent}{field.name}: {_scalar(field, item)}"


def _scalar(field: FieldDescriptor, value: Any) -> str:
    if field.enum_type is not None:
        return str(field.enum_type.values_by_number[value].name)
    if field.type == FieldDescriptor.TYPE_BOOL:
        return "true" if value else "false"
    if field.type == FieldDescriptor.TYPE_STRING:
        return f'"{CEscape(value, as_utf8=True)}"'
    if field.type == FieldDescriptor.TYPE_BYTES:
        return f'"{CEscape(value, as_utf8=False)}"'
    if field.type == FieldDescriptor.TYPE_FLOAT:
        return _shortest(value, "<f", 6, 9)
    if field.type == FieldDescriptor.TYPE_DOUBLE:
        return _shortest(value, "<d", 15, 17)
    return str(value)


def _shortest(value: float, layout: str, fewest: int, most: int) -> str:
    """The number with as few significant digits, from ``fewest`` on, as keep its value in this binary layout."""
    if math.isnan(value):
        return "nan"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    for digits in range(fewest, most):
        text = f"{value:.{digits}g}"
        try:
            if struct.unpack(layout, struct.pack(layout, float(text)))[0] == value:
                return text
        except OverflowError:
            continue  # rounded up over the largest float
    return f"{value:.{most}g}"
