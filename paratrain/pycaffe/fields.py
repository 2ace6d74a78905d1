"""Python values put into the fields of messages: dictionaries, lists, numbers and the names of enums."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from paratrain.errors import NetError
from paratrain.layers.fields import reads
from paratrain.proto import LayerParameter
from paratrain.proto.schema import descriptor_of, is_repeated, type_name
from paratrain.registry import nearest

__all__ = ["assign", "assign_proto", "param_name_dict", "suggestion"]


@functools.cache
def param_name_dict() -> dict[str, str]:
    """By the name of a parameter message without its last word, mostly a layer type, the field of LayerParameter that
    holds it, without ``_param``: "InnerProduct" gives "inner_product".
    """
    return {
        field.message_type.name.removesuffix("Parameter"): field.name.removesuffix("_param")
        for field in reversed(descriptor_of(LayerParameter).fields)
        if field.message_type is not None and field.name.endswith("_param")
    }


def suggestion(name: str, known: list[str]) -> str:
    """``; did you mean 'a' or 'b'?``, or nothing where no known name is near."""
    close = nearest(name, known)
    return f"; did you mean {' or '.join(repr(match) for match in close)}?" if close else ""


def assign_proto(proto: Message, name: str, val: Any) -> None:
    """Put ``val`` into the field ``name``: a dictionary into a message, a list into a repeated field, behind what it holds.

    One value for a repeated field counts as a list of one; enums may be given by name. Raises NetError for a field that
    the message does not have and for a value that does not fit it.
    """
    assign(proto, name, val, f"{proto.DESCRIPTOR.name}: ")


def assign(proto: Message, name: str, value: Any, where: str, layer_type: str = "") -> None:
    """As :func:`assign_proto`; errors begin with ``where``. ``layer_type`` is that of the layer, if ``proto`` is one."""
    field = descriptor_of(proto).fields_by_name.get(name)
    if field is None:
        raise NetError(f"{where}{name}: there is no such field{_hint(proto, name, layer_type)}")
    where = f"{where}{name}"
    if not is_repeated(field):
        _assign_one(proto, field, value, where)
        return
    if isinstance(value, (str, bytes, Mapping, Message)) or not isinstance(value, Iterable):
        value = [value]
    target = getattr(proto, name)
    for item in value:
        if field.message_type is not None:
            _fill(target.add(), item, where)
        else:
            try:
                target.append(_scalar(field, item))
            except (TypeError, ValueError) as error:
                raise _unfit(where, field, item) from error


def _assign_one(proto: Message, field: FieldDescriptor, value: Any, where: str) -> None:
    if field.message_type is not None:
        message = getattr(proto, field.name)
        message.SetInParent()
        _fill(message, value, where)
        return
    try:
        setattr(proto, field.name, _scalar(field, value))
    except (TypeError, ValueError) as error:
        raise _unfit(where, field, value) from error


def _fill(message: Message, value: Any, where: str) -> None:
    if isinstance(value, Mapping):
        for name, item in value.items():
            assign(message, name, item, f"{where}.")
    elif isinstance(value, type(message)):
        message.MergeFrom(value)
    else:
        raise NetError(f"{where}: expected a dictionary of the fields of {message.DESCRIPTOR.name}, found {value!r}")


def _scalar(field: FieldDescriptor, value: Any) -> Any:
    if isinstance(value, (np.generic, np.ndarray)):
        value = value.item()
    if field.enum_type is not None and isinstance(value, str):
        if value not in field.enum_type.values_by_name:
            raise ValueError(value)
        return field.enum_type.values_by_name[value].number
    return value


def _unfit(where: str, field: FieldDescriptor, value: Any) -> NetError:
    numbered = " (or its number)" if field.enum_type is not None else ""
    return NetError(f"{where}: expected {type_name(field).removesuffix(' in quotes')}{numbered}, found {value!r}")


def _hint(proto: Message, name: str, layer_type: str) -> str:
    """What may have been meant: a field of a message that such layers read, or a similar name."""
    known = [field.name for field in descriptor_of(proto).fields]
    if layer_type:
        messages = {
            field.name: field.message_type
            for field in descriptor_of(proto).fields
            if field.message_type is not None and reads(layer_type, field.name)
        }
        for owner, message in messages.items():
            if name in message.fields_by_name:
                return f"; {owner} has it: write {owner}=dict({name}=...)"
        known = [one.name for message in messages.values() for one in message.fields] + known
    return suggestion(name, known)
