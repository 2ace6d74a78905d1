"""The reference of the layers: each type's docstring, its blobs, and the fields that it reads with what the schema says of them.

Which fields a type reads is said once, in the tables of docs/layers.md; their defaults, types and remarks are those of
proto/caffe.proto.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docstrings import markdown

from paratrain.layers import LAYERS
from paratrain.proto import LayerParameter
from paratrain.proto.schema import descriptor_of, is_repeated

__all__ = ["Row", "rows", "text"]

_REPOSITORY = Path(__file__).parents[2]
_SCALARS = {1: "number", 2: "number", 3: "whole number", 4: "whole number", 5: "whole number", 8: "true or false"}
_SCALARS |= {9: "text", 12: "bytes", 13: "whole number"}


@dataclass(frozen=True)
class Row:
    """What docs/layers.md says of a type: its section, the fields that it reads by message, and whether it works in place."""

    section: str
    fields: dict[str, dict[str, tuple[str, ...]]]
    """By message, the names of the fields, with the values of those that take fewer than the schema allows."""
    in_place: str


def text() -> str:
    """The whole reference, as Markdown, section by section as in docs/layers.md."""
    table, remarks = rows(), _remarks()
    if set(table) != set(LAYERS.names()):
        raise ValueError(f"docs/layers.md and the registered layers differ: {set(table) ^ set(LAYERS.names())}")
    parts, section = [], ""
    for name, row in table.items():
        if row.section != section:
            section = row.section
            parts.append(f"## {section}\n")
        parts.append(_layer(name, row, remarks))
    return "\n".join(parts)


def rows() -> dict[str, Row]:
    """The rows of the tables in docs/layers.md, by type."""
    found: dict[str, Row] = {}
    section = ""
    for line in (_REPOSITORY / "docs" / "layers.md").read_text().splitlines():
        if line.startswith("## "):
            section = line.removeprefix("## ")
        row = re.fullmatch(r"\| (\w+) \|(.*)\|(.*)\|", line)
        if row is None or row[1] == "type":
            continue
        alike = re.match(r" as (\w+)", row[2])
        fields = found[alike[1]].fields if alike and alike[1] in found else _fields(row[2])
        found[row[1]] = Row(section, fields, row[3].strip())
    return found


def _fields(cell: str) -> dict[str, dict[str, tuple[str, ...]]]:
    """The names in "`pooling_param`: pool (MAX, AVE), kernel_size (or kernel_h, kernel_w); `data_param`: prefetch"."""
    fields = {}
    for message, names in re.findall(r"`(\w+)`(?::([^`]*))?", cell):
        known = descriptor_of(LayerParameter).fields_by_name[message].message_type.fields_by_name
        found = re.finditer(r"(\w+)(?: \(([A-Z, \d]+)\))?", names)
        fields[message] = {
            name[1]: tuple((name[2] or "").replace(" ", "").split(",")) if name[2] else ()
            for name in found
            if name[1] in known
        }
    return fields


def _layer(name: str, row: Row, remarks: dict[tuple[str, str], str]) -> str:
    layer_class = LAYERS.get(name)
    own = layer_class.__doc__
    if not own:
        raise ValueError(f"{layer_class.__module__}.{layer_class.__name__} has no docstring")
    source = "/".join(layer_class.__module__.split("."))
    facts = [
        f"**Bottoms:** {_count(layer_class.bottom_range)}",
        f"**tops:** {_count(layer_class.top_range)}",
        *([f"**in place:** {row.in_place}"] if row.in_place else []),
        f"**code:** `{source}.py`",
    ]
    parts = [f"### {name}\n", markdown(own), ", ".join(facts) + ".\n"]
    for message, names in row.fields.items():
        descriptor = descriptor_of(LayerParameter).fields_by_name[message].message_type
        chosen = [field for field in descriptor.fields if field.name in names]
        if not chosen:
            parts.append(f"It reads `{message}` too: {_MESSAGES[message]}.\n")
            continue
        parts.append(f"| `{message}` | default | |\n|---|---|---|")
        for field in chosen:
            remark = markdown(remarks.get((descriptor.name, field.name), "")).strip()
            kind = _type(field, names[field.name])
            shown = f"{kind}; {remark}" if remark else kind
            parts.append(f"| `{field.name}` | {_default(field)} | {shown} |")
        parts.append("")
    return "\n".join(parts)


_MESSAGES = {
    "transform_param": "[what it does to images](data.md)",
    "convolution_param": "the fields are those of [Convolution](#convolution)",
}


def _count(limits: tuple[int, int | None]) -> str:
    least, most = limits
    if most is None:
        return f"{least} or more"
    return f"{least}" if least == most else f"{least} to {most}"


def _type(field: Any, taken: tuple[str, ...]) -> str:
    if field.enum_type is not None:
        kind = " or ".join(f"`{name}`" for name in taken or [value.name for value in field.enum_type.values])
    elif field.message_type is not None:
        kind = f"`{field.message_type.name}`"
    else:
        kind = _SCALARS[field.type]
    return f"{kind}, any number of times" if is_repeated(field) else kind


def _default(field: Any) -> str:
    if is_repeated(field) or not field.has_default_value:
        return ""
    value = field.default_value
    if field.enum_type is not None:
        return f"`{field.enum_type.values_by_number[value].name}`"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.7g}"
    return str(value) or "empty"


def _remarks() -> dict[tuple[str, str], str]:
    """The remarks of proto/caffe.proto, by message and field: behind a field on its line, or on the lines before it."""
    remarks: dict[tuple[str, str], str] = {}
    message, before = "", []
    for line in (_REPOSITORY / "proto" / "caffe.proto").read_text().splitlines():
        opened = re.match(r"message (\w+)", line)
        field = re.match(r" +(?:optional|repeated|required) [\w.]+ (\w+) = \d+[^;]*;(?: *// ?(.*))?", line)
        comment = re.match(r" +// ?(.*)", line)
        if opened:
            message, before = opened[1], []
        elif field:
            remarks[message, field[1]] = field[2] or " ".join(before)
            before = []
        elif comment and not comment[1].startswith("Forks"):
            before.append(comment[1])
        else:
            before = []
    return remarks
