"""Questions about fields of the schema, asked in a way that old and new protobuf releases both answer."""

from __future__ import annotations

from typing import Any, cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from paratrain.proto import caffe_pb2

__all__ = ["all_messages", "descriptor_of", "is_repeated", "message_name", "missing_fields", "owners", "type_name"]

_SCALAR_NAMES = {
    FieldDescriptor.TYPE_DOUBLE: "a number",
    FieldDescriptor.TYPE_FLOAT: "a number",
    FieldDescriptor.TYPE_INT64: "a whole number",
    FieldDescriptor.TYPE_INT32: "a whole number from -2147483648 to 2147483647",
    FieldDescriptor.TYPE_UINT64: "a whole number, not negative",
    FieldDescriptor.TYPE_UINT32: "a whole number from 0 to 4294967295",
    FieldDescriptor.TYPE_BOOL: "true or false",
    FieldDescriptor.TYPE_STRING: "text in quotes",
    FieldDescriptor.TYPE_BYTES: "bytes in quotes",
}


def is_repeated(field: FieldDescriptor) -> bool:
    """Whether the field may be given several times."""
    # protobuf 7 has no `label` any more, protobuf 5 has no `is_repeated` yet.
    either: Any = field
    if hasattr(either, "is_repeated"):
        return bool(either.is_repeated)
    return bool(either.label == either.LABEL_REPEATED)


def message_name(field: FieldDescriptor) -> str:
    """The name of the message type that the field belongs to."""
    assert field.containing_type is not None  # extensions have none, and Caffe has no extensions
    return str(field.containing_type.name)


def descriptor_of(message: Message | type[Message]) -> Descriptor:
    """The message's type (the stubs name two classes for it)."""
    return cast(Descriptor, message.DESCRIPTOR)


def missing_fields(message: Message) -> list[str]:
    """The required fields that are not set, as paths: "layer[0].clip_param.max"."""
    complete: Any = message  # the method is missing in the stubs
    return list(complete.FindInitializationErrors())


def type_name(field: FieldDescriptor) -> str:
    """What a value of this field is, in words: "a whole number", "one of CPU, GPU", "a FillerParameter in braces { }"."""
    if field.message_type is not None:
        return f"a {field.message_type.name} in braces {{ }}"
    if field.enum_type is not None:
        return "one of " + ", ".join(value.name for value in field.enum_type.values)
    return _SCALAR_NAMES[field.type]


def all_messages() -> list[Descriptor]:
    """Every message type of the schema, in the order of the file."""
    return list(caffe_pb2.DESCRIPTOR.message_types_by_name.values())


def owners(field_name: str) -> list[str]:
    """The names of the message types that have a field of this name."""
    return [message.name for message in all_messages() if field_name in message.fields_by_name]
