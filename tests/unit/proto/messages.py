"""Random messages of any type of the schema, for property tests."""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import strategies as st

from paratrain.proto.schema import is_repeated

__all__ = ["messages"]

_DEPTH = 3
_INT32 = st.integers(-(2**31), 2**31 - 1)
_SCALARS: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.TYPE_DOUBLE: st.floats(allow_nan=False),
    FieldDescriptor.TYPE_FLOAT: st.floats(allow_nan=False, width=32),
    FieldDescriptor.TYPE_INT64: st.integers(-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_INT32: _INT32,
    FieldDescriptor.TYPE_UINT32: st.integers(0, 2**32 - 1),
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_STRING: st.text(st.characters(exclude_categories=("Cs",)), max_size=8),
    FieldDescriptor.TYPE_BYTES: st.binary(max_size=8),
}


@st.composite
def messages(draw: st.DrawFn, message_type: type[Message]) -> Message:
    """A message of this type with a few of its fields set, and a few of theirs, some levels deep."""
    message = message_type()
    _fill(draw, message, _DEPTH)
    return message


def _fill(draw: st.DrawFn, message: Message, depth: int) -> None:
    fields = [field for field in message.DESCRIPTOR.fields if field.message_type is None or depth > 0]
    chosen = draw(st.lists(st.sampled_from(fields), max_size=4, unique_by=lambda field: field.name)) if fields else []
    chosen += [field for field in fields if getattr(field, "is_required", False) or _is_required(message, field.name)]
    for field in chosen:
        _set(draw, message, field, depth)


def _is_required(message: Message, name: str) -> bool:
    return name in type(message)().FindInitializationErrors()  # type: ignore[attr-defined]


def _set(draw: st.DrawFn, message: Message, field: FieldDescriptor, depth: int) -> None:
    count = draw(st.integers(1, 3)) if is_repeated(field) else 1
    for _ in range(count):
        if field.message_type is not None:
            target = getattr(message, field.name)
            inner = target.add() if is_repeated(field) else target
            inner.SetInParent()
            _fill(draw, inner, depth - 1)
            continue
        if field.enum_type is not None:
            value = draw(st.sampled_from([value.number for value in field.enum_type.values]))
        else:
            value = draw(_SCALARS[field.type])
        if is_repeated(field):
            getattr(message, field.name).append(value)
        else:
            setattr(message, field.name, value)
