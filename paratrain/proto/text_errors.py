"""A sentence for each way in which a prototxt can be wrong: where, what was expected, what was found, what to do."""

from __future__ import annotations

import re

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from paratrain.proto.forks import fork_of_unread
from paratrain.proto.schema import message_name, owners, type_name
from paratrain.proto.text_context import Context, Place, find_context
from paratrain.registry import nearest

__all__ = ["explain"]

_NAME_COUNT = 4


def explain(text: str, root: Descriptor, line: int, column: int, reason: str) -> tuple[Place, str]:
    """Return where a parse error is and what it means.

    ``line``, ``column`` (from 1) and ``reason`` are the parser's; of the reason's wording only two phrases are relied on,
    everything else is seen in the text itself.
    """
    place = Place(line, column)
    context = find_context(text, root, line, column)
    field = context.field
    unknown = re.search(r'has no field named "([^"]*)"', reason)
    if unknown:
        return place, _unknown_field(unknown[1], context)
    if field is not None and "should not have multiple" in reason:
        return context.field_place or place, _given_twice(field)
    if _at_end(text, line, column, context):
        return _unfinished(context, place)
    if field is not None and not (context.after_colon or context.in_list):
        return place, _after_name(field, context.token)
    if field is not None:
        return place, _wrong_value(field, context.token, reason)
    if context.token in ("}", ">"):
        return place, f"a '{context.token}' with no '{{' before it that it could close"
    if context.token.startswith(("<", "=")) and re.match(r"<{4,}|={4,}|>{4,}", text.splitlines()[line - 1].lstrip()):
        return place, "the mark of a merge conflict; keep one of the two versions"
    message = context.message.name if context.message is not None else root.name
    return place, f"expected the name of a field of {message}, found '{context.token}'"


def _unknown_field(name: str, context: Context) -> str:
    message = context.message
    assert message is not None
    hints = []
    fork = fork_of_unread(name)
    if fork is not None:
        hints.append(f"it is a field of {fork}, which paratrain does not read")
    others = owners(name)
    inside = [field.name for field in message.fields if field.message_type and field.message_type.name in others]
    outer = [level.message.name for level in context.levels[:-1] if level.message]
    around = next((name for name in reversed(outer) if name in others), None)
    if around is not None:
        hints.append(f"{around}, around it, has one: is a '}}' missing before it?")
    elif inside:
        hints.append(f"it belongs inside {_some(inside, 'or')}")
    if not hints:
        close = nearest(name, [field.name for field in message.fields])
        if close:
            hints.append(f"did you mean {' or '.join(repr(match) for match in close)}?")
        if others:
            hints.append(f"it is a field of {_some(others, 'and')}")
    if not hints:
        hints.append("no Caffe that paratrain knows has a field of this name")
    return f"{message.name} has no field '{name}'; " + "; ".join(hints)


def _given_twice(field: FieldDescriptor) -> str:
    message = message_name(field)
    if field.message_type is not None:
        return f"'{field.name}' is given twice in the same {message}; put all its settings in one pair of braces"
    return f"'{field.name}' is given twice in the same {message}, which holds one value of it; remove one"


def _after_name(field: FieldDescriptor, token: str) -> str:
    expected = f"'{field.name}' of {message_name(field)} is {type_name(field)}"
    if token == "{" or field.message_type is not None:
        return f"{expected}, found {_show(token)}"
    return f"{expected}: expected ':' and a value after the name, found {_show(token)}"


def _wrong_value(field: FieldDescriptor, token: str, reason: str) -> str:
    expected = f"'{field.name}' of {message_name(field)} is {type_name(field)}, found {_show(token)}"
    bare = token.strip("\"'")
    is_quoted = token[:1] in ("'", '"')
    if field.enum_type is not None:
        names = [value.name for value in field.enum_type.values]
        if is_quoted and bare in names:
            return f"{expected}; write it without quotes: {bare}"
        if is_quoted and message_name(field) == "V1LayerParameter":
            return f"{expected}; 'layers' is the old form, its types are numbers with names; write 'layer' for a type in quotes"
        close = nearest(bare, names)
        return f"{expected}; did you mean {' or '.join(close)}?" if close else expected
    if field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES):
        if not is_quoted:
            return f'{expected}; write {field.name}: "{token}"'
        if len(token) < 2 or token[-1] != token[0]:
            return f"{expected}, whose quote is not closed on the same line"
        return f"{expected}, which has a backslash with no meaning there; write \\\\ for a backslash"
    if is_quoted and bare:
        return f"{expected}; write it without quotes: {bare}"
    return f"{expected}, which is out of range" if "out of range" in reason else expected


def _at_end(text: str, line: int, column: int, context: Context) -> bool:
    """Whether the parser stopped because the text ended. It then points at the last token, or behind it."""
    lines = text.split("\n")
    rest = [lines[line - 1][column - 1 :], *lines[line:]] if line <= len(lines) else []
    without_comments = "\n".join(re.sub(r"(^|\s)#.*", "", part) for part in rest).strip(" \t\r\n,;")
    return without_comments in ("", context.token) and context.token not in ("}", ">") and _is_open(context)


def _is_open(context: Context) -> bool:
    # A value at the very end may itself be the error; the text has ended only if that value would have been taken.
    field = context.field
    if field is None or context.token in ("", "{", "<"):
        return len(context.levels) > 1 or context.field_name is not None
    if not context.after_colon or len(context.levels) == 1:
        return False
    token = context.token
    if field.type == FieldDescriptor.TYPE_STRING:
        return len(token) > 1 and token[0] == token[-1] and token[0] in "\"'"
    if field.enum_type is not None:
        return token in field.enum_type.values_by_name
    if field.type == FieldDescriptor.TYPE_BOOL:
        return token in ("true", "false", "True", "False", "t", "f", "0", "1")
    try:
        float(token)
    except ValueError:
        return False
    return True


def _unfinished(context: Context, place: Place) -> tuple[Place, str]:
    field = context.field
    if field is not None and context.token in ("{", "<"):
        return (
            context.field_place or place,
            f"the '{context.token}' of '{field.name}' is never closed; the file ends after it",
        )
    if field is not None and not context.token:
        return context.field_place or place, f"the file ends after '{field.name}'; expected {type_name(field)}"
    level = context.levels[-1]
    return level.opened, f"the '{{' of '{level.name}', opened here, is never closed; the file ends before its '}}'"


def _show(token: str) -> str:
    return token if token[:1] in ("'", '"') else f"'{token}'" if token else "the end of the file"


def _some(names: list[str], word: str) -> str:
    """Up to four names as a list: "a, b or c", "a, b, c, d and 12 more"."""
    if len(names) > _NAME_COUNT:
        return f"{', '.join(names[:_NAME_COUNT])} and {len(names) - _NAME_COUNT} more"
    return f" {word} ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
