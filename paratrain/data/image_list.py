"""Lists of images: text files with the path of an image and its label on each line."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from paratrain.errors import DataError

__all__ = ["ListedImage", "read_list"]

_INTEGER = re.compile(r"[+-]?[0-9]{1,100}")


@dataclass(frozen=True, slots=True)
class ListedImage:
    """The ``path`` of an image (empty for an empty line), its label, and the file and line that say so, if any do."""

    path: str
    label: int
    source: str = ""
    line: int = 0

    @property
    def where(self) -> str:
        """The place to name in messages."""
        return f"{self.source}:{self.line}" if self.line else self.path


def read_list(path: str | os.PathLike[str]) -> list[ListedImage]:
    """Read a list: on each line the path of an image, white space and its label, an integer of 32 bits; paths may hold
    spaces.

    Empty lines are kept, since Caffe's convert_imageset counts them. Raises DataError, naming file and line, for a line
    that is not so, and for a list without an image.
    """
    name = os.fspath(path)
    try:
        # Some editors begin a text with a mark of its encoding, which utf-8-sig takes away.
        text = Path(path).read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise DataError(
            f"{name}: the list of images cannot be read ({error.strerror}; looked up from {Path.cwd()})"
        ) from None
    if not text.strip():
        raise DataError(f"{name}: the list of images is empty; expected lines like 'cat.jpg 0'")
    return [_parse(line, name, number) for number, line in enumerate(text.removesuffix("\n").split("\n"), 1)]


def _parse(line: str, source: str, number: int) -> ListedImage:
    fields = line.rsplit(None, 1)
    if not fields:
        return ListedImage("", 0, source, number)
    if len(fields) == 2 and _INTEGER.fullmatch(fields[1]) and "\0" not in line:
        listed = ListedImage(fields[0], int(fields[1]), source, number)
        if -(2**31) <= listed.label < 2**31:
            return listed
    found = line if len(line) <= 80 else f"{line[:80]}..."
    raise DataError(
        f"{source}:{number}: expected the path of an image, a space and a label, an integer of 32 bits, found {_shown(found)}"
    )


def _shown(text: str) -> str:
    """In quotes; what cannot be printed as its code."""
    return f"'{text}'" if text.isprintable() else repr(text)
