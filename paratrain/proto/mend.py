"""Finding every mistake of a prototxt, not only the first: what is wrong is blanked out, and the rest is read again."""

from __future__ import annotations

import re
from typing import TypeVar

from google.protobuf.message import Message

from paratrain.errors import PrototxtError
from paratrain.proto.text import parse_prototxt
from paratrain.proto.text_context import TOKEN

__all__ = ["layer_at", "parse_all", "top_level_names"]

AnyMessage = TypeVar("AnyMessage", bound=Message)

_MOST_PROBLEMS = 50  # each costs one more reading of the text


def parse_all(text: str, message_type: type[AnyMessage], path: str) -> tuple[AnyMessage | None, list[PrototxtError]]:
    """Return the message without its wrong fields, and an error for each of those, in the order of the file.

    The message is None where the text cannot be read at all, such as after a brace that is never closed; then, and after
    50 errors, there may be more than are listed.
    """
    problems: list[PrototxtError] = []
    while len(problems) < _MOST_PROBLEMS:
        try:
            return parse_prototxt(text, message_type, path), problems
        except PrototxtError as error:
            if error.line is None or error.column is None:  # a required field is missing, perhaps one that was blanked
                if not problems:
                    problems.append(error)
                return None, problems
            problems.append(error)
            start, stop = _wrong_part(text, _offset(text, error.line, error.column))
        if start == stop or "is never closed" in str(problems[-1]):
            return None, problems
        blanks = "".join(character if character == "\n" else " " for character in text[start:stop])
        text = text[:start] + blanks + text[stop:]
    return None, problems


def top_level_names(text: str) -> list[str]:
    """The names of the outermost fields, in order, as often as they are given."""
    names = (re.match(r"\w+", text[start:stop]) for start, stop, depth in _fields(text) if depth == 0)
    return [name.group() for name in names if name is not None]


def layer_at(text: str, error: PrototxtError) -> int | None:
    """The number of the layer, counted among the outermost ``layer`` or ``layers``, that an error lies in; None for no layer."""
    if error.line is None or error.column is None:
        return None
    offset, index = _offset(text, error.line, error.column), 0
    for start, stop, depth in _fields(text):
        if depth == 0 and re.match(r"layers?\b", text[start:stop]):
            if start <= offset < stop:
                return index
            index += 1
    return None


def _offset(text: str, line: int, column: int) -> int:
    lines = text.split("\n")
    return sum(len(before) + 1 for before in lines[: line - 1]) + column - 1


def _wrong_part(text: str, offset: int) -> tuple[int, int]:
    """The innermost field around a position, name and value; the token there where it is in none."""
    around = [(start, stop) for start, stop, _ in _fields(text) if start <= offset < stop]
    if around:
        return min(around, key=lambda span: span[1] - span[0])
    for match in TOKEN.finditer(text, offset):
        if match.lastgroup != "blank":
            return match.span()
    return offset, offset


def _fields(text: str) -> list[tuple[int, int, int]]:
    """Each field as (start, stop, depth), ``text[start:stop]`` being its name and value; inner ones come first."""
    found: list[tuple[int, int, int]] = []
    open_starts: list[int] = []  # the fields whose braces are open
    start = stop = -1  # the field that is being read, and the end of its scalar value so far
    valued = in_list = False

    def end_scalar() -> None:
        nonlocal start, valued
        if start >= 0 and valued:
            found.append((start, stop, len(open_starts)))
        start, valued = -1, False

    for match in TOKEN.finditer(text):
        token, kind = match.group(), match.lastgroup
        if kind == "blank":
            continue
        if token == "[":
            in_list = True
        elif token == "]":
            in_list, stop, valued = False, match.end(), True
        elif token in "{<" and not in_list:
            open_starts.append(start if start >= 0 else match.start())
            start, valued = -1, False
        elif token in "}>" and not in_list:
            end_scalar()
            if open_starts:
                begin = open_starts.pop()
                found.append((begin, match.end(), len(open_starts)))
        elif in_list:
            continue
        elif token == ":":
            stop = match.end()
            valued = start >= 0
        elif start >= 0 and valued and (text[start:stop].rstrip().endswith(":") or kind == "text"):
            stop = match.end()  # the value, or one more piece of a string
        else:
            end_scalar()
            start = match.start()
    end_scalar()
    return found
