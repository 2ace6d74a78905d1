"""Where in a prototxt a position lies: in which message, at which field. The parser's errors do not say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from google.protobuf.descriptor import Descriptor, FieldDescriptor

__all__ = ["TOKEN", "Context", "Place", "find_bad_escape", "find_context"]

TOKEN = re.compile(
    r"""(?P<blank>[\s,;]+|\#[^\n]*)"""
    r"""|(?P<text>"(?:[^"\\\n]|\\.)*"?|'(?:[^'\\\n]|\\.)*'?)"""
    r"""|(?P<word>[\w.+-]+)"""
    r"""|(?P<sign>.)"""
)

# A backslash that begins no character (as in \n, \101 and \x41 it would), or one beyond a byte.
_BAD_ESCAPE = re.compile(r"""\\(?:[^abfnrtvxXuU0-7?\\'"]|[4-7][0-7][0-7])""")
_ESCAPED = re.compile(r"\\.")


@dataclass(frozen=True)
class Place:
    """A line and column, both from 1."""

    line: int
    column: int


@dataclass
class _Level:
    """An open brace: its message type (None below an unknown field), its field's name and where that stands."""

    message: Descriptor | None
    name: str
    opened: Place


@dataclass
class Context:
    """What surrounds a position: the open messages from the outermost in, and the field whose value is due.

    ``field_name`` is None between two fields. ``token`` is what stands at the position, "" at the end of the text.
    """

    levels: list[_Level]
    field_name: str | None = None
    field_place: Place | None = None
    after_colon: bool = False
    token: str = ""
    in_list: int = field(default=0, repr=False)

    @property
    def message(self) -> Descriptor | None:
        """The innermost message type."""
        return self.levels[-1].message

    @property
    def field(self) -> FieldDescriptor | None:
        """The field whose value is due, if the message type has it."""
        return _field(self.message, self.field_name)


def find_context(text: str, root: Descriptor, line: int, column: int) -> Context:
    """Return the context of a position in ``text``, which holds a message of type ``root``."""
    context = Context([_Level(root, root.name, Place(1, 1))])
    for place, token, is_value_like in _tokens(text):
        if (place.line, place.column) >= (line, column):
            context.token = token
            return context
        _advance(context, place, token, is_value_like)
    return context


def find_bad_escape(text: str) -> Place | None:
    """Where the first quoted text with a meaningless backslash stands. (Caffe refuses those, protobuf's Python only warns.)"""
    if "\\" not in text:
        return None
    for place, token, _ in _tokens(text):
        if token[0] in "\"'" and any(_BAD_ESCAPE.match(token, found.start()) for found in _ESCAPED.finditer(token)):
            return place
    return None


def _advance(context: Context, place: Place, token: str, is_value_like: bool) -> None:
    if token in "{<":
        name = context.field_name or ""
        descriptor = context.field
        inner = descriptor.message_type if descriptor is not None else None
        context.levels.append(_Level(inner, name, context.field_place or place))
        if not context.in_list:
            context.field_name, context.after_colon = None, False
    elif token in "}>":
        if len(context.levels) > 1:
            context.levels.pop()
        context.field_name, context.after_colon = None, False
    elif token == "[":
        context.in_list += 1
    elif token == "]":
        context.in_list = 0
        context.field_name, context.after_colon = None, False
    elif token == ":":
        context.after_colon = True
    elif is_value_like and not (context.after_colon or context.in_list):
        context.field_name, context.field_place = token, place
    elif not context.in_list:
        context.field_name, context.after_colon = None, False


def _tokens(text: str) -> Iterator[tuple[Place, str, bool]]:
    """The tokens, and for each whether it can be a name or value."""
    line, line_start = 1, 0
    for match in TOKEN.finditer(text):
        if match.lastgroup != "blank":
            yield Place(line, match.start() - line_start + 1), match.group(), match.lastgroup != "sign"
        newline_count = match.group().count("\n")
        if newline_count:
            line += newline_count
            line_start = match.start() + match.group().rindex("\n") + 1


def _field(message: Descriptor | None, name: str | None) -> FieldDescriptor | None:
    if message is None or name is None:
        return None
    found: FieldDescriptor | None = message.fields_by_name.get(name)
    return found
