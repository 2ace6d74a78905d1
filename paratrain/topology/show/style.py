"""How text for a screen is drawn: its width, plain or with box lines, with colours or without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

WIDTH = 100


@dataclass(frozen=True)
class Style:
    """How a picture is drawn: with the box lines of Unicode or with plain characters, with colours or without."""

    unicode: bool = False
    colour: bool = False

    def branches(self, width: int = 4) -> tuple[str, str, str]:
        """In front of a child, in front of the last child, and below a child that is not the last; 4 or 2 wide."""
        wide = ("├── ", "└── ", "│   ") if self.unicode else ("|-- ", "`-- ", "|   ")
        return (wide[0][:width], wide[1][:width], wide[2][:width])

    @property
    def about(self) -> str:
        """Plus or minus."""
        return "±" if self.unicode else "+-"

    def paint(self, text: str, code: str) -> str:
        """The text in a colour of the terminal."""
        return f"\x1b[{code}m{text}\x1b[0m" if self.colour and text else text

    def good(self, text: str) -> str:
        """For edges of the tree and for the best method."""
        return self.paint(text, "1;32")

    def bad(self, text: str) -> str:
        """For warnings."""
        return self.paint(text, "33")

    def title(self, text: str) -> str:
        """For headings."""
        return self.paint(text, "1")


PLAIN = Style()


def wrapped(text: str, indent: str = "    ") -> Sequence[str]:
    """The text in lines of at most `WIDTH` characters; all but the first begin with the indent."""
    if len(text) <= WIDTH:
        return [text]
    import textwrap

    return textwrap.wrap(text, WIDTH, subsequent_indent=indent, break_on_hyphens=False)
