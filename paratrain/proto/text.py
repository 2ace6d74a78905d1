"""Reading Caffe's text files (prototxt), with errors that name file, line and column."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeVar

from google.protobuf import text_format
from google.protobuf.message import Message

from paratrain.errors import PrototxtError
from paratrain.proto.content import describe_content
from paratrain.proto.format import format_prototxt
from paratrain.proto.limits import check_text
from paratrain.proto.schema import descriptor_of, missing_fields
from paratrain.proto.text_context import find_bad_escape
from paratrain.proto.text_errors import explain

__all__ = ["format_prototxt", "parse_prototxt", "read_prototxt", "read_text"]

AnyMessage = TypeVar("AnyMessage", bound=Message)

# Real files have some thousand lines; the parser takes about a second for each megabyte.
_LARGEST_BYTES = 64 * 1024 * 1024


def read_prototxt(path: str | os.PathLike[str], message_type: type[AnyMessage]) -> AnyMessage:
    """Read a text file that holds one message of ``message_type``.

    Raises PrototxtError, with line and column where there is one: no such file, not a text file, unknown fields, wrong values,
    fields given twice, missing required fields.
    """
    return parse_prototxt(read_text(path, message_type), message_type, str(path))


def read_text(path: str | os.PathLike[str], message_type: type[Message]) -> str:
    """Return the contents of a text file that should hold one ``message_type``. Raises PrototxtError as ``read_prototxt``."""
    file = Path(path)
    name = str(path)
    wanted = f"expected a {message_type.DESCRIPTOR.name} as text (prototxt)"
    try:
        size_bytes = file.stat().st_size
        if size_bytes > _LARGEST_BYTES:
            raise PrototxtError(
                f"{size_bytes:,} bytes are too many for a text file (at most {_LARGEST_BYTES:,}); {wanted}", name
            )
        data = file.read_bytes()
    except FileNotFoundError:
        looked_up = "" if file.is_absolute() else f", looked up from the folder {Path.cwd()}"
        raise PrototxtError(f"no such file{looked_up}; {wanted}", name) from None
    except IsADirectoryError:
        raise PrototxtError(f"this is a folder; {wanted}", name) from None
    except OSError as error:
        raise PrototxtError(f"cannot be read ({error.strerror}); {wanted}", name) from None
    return _decode(data, wanted, name)


def parse_prototxt(text: str, message_type: type[AnyMessage], path: str | None = None) -> AnyMessage:
    """Return the message of ``message_type`` that ``text`` holds. ``path`` is only for the messages. Raises PrototxtError."""
    check_text(text, path)
    message = message_type()
    bad_escape = find_bad_escape(text)
    if bad_escape is not None:
        _, sentence = explain(text, descriptor_of(message), bad_escape.line, bad_escape.column, "bad escape")
        raise PrototxtError(sentence, path, bad_escape.line, bad_escape.column)
    try:
        text_format.Parse(text, message)
    except text_format.ParseError as error:
        line, column = error.GetLine(), error.GetColumn()
        if line is None or column is None:
            raise PrototxtError(str(error), path) from None
        place, sentence = explain(text, descriptor_of(message), line, column, str(error))
        raise PrototxtError(sentence, path, place.line, place.column) from None
    missing = missing_fields(message)
    if missing:
        fields = ", ".join(f"'{field}'" for field in missing)
        raise PrototxtError(f"{message.DESCRIPTOR.name} lacks {fields}, which must be given", path)
    return message


def _decode(data: bytes, wanted: str, name: str) -> str:
    content = describe_content(data)
    if content == "an empty file" or not data.strip():
        raise PrototxtError(f"the file is empty; {wanted}", name)
    if content != "a text file":
        hint = "; weights are given with --weights" if "caffemodel" in content else ""
        raise PrototxtError(f"this is {content}, not a text file; {wanted}{hint}", name)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        # Comments in some older encoding; names in it will not be found, but the rest reads.
        return data.decode("latin-1")
