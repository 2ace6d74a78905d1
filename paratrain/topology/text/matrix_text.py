"""Text that went through terminals, chats, web pages and clipboards, as plain lines."""

from __future__ import annotations

import codecs
import html
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

_ESCAPE = re.compile(
    r"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?"  # the title of a window
    r"|\x1b\[[0-?]*[ -/]*[@-~]"  # colours, movements
    r"|\x1b[()][A-Z0-9]|\x1b[=>78]"
    r"|(?:\\x1b|\\u001b|\\033|\\e|\^\[|\u241b)?\[[0-9;]*[mKHJ]",  # the same spelt out, or without its first character
    re.IGNORECASE,
)
_CURSOR_FORWARD = re.compile(r"\x1b\[(\d*)C")
_OVERSTRUCK = re.compile("[^\n]\b")
_TAG = re.compile(r"</?[a-z][^<>\n]{0,80}>", re.IGNORECASE)
_TAG_OF_LINE_END = re.compile(r"<(?:br|/tr|/p|/div|/li|/pre)\b[^<>\n]{0,80}>", re.IGNORECASE)
_NOTHING = re.compile("[\u200b-\u200f\u2060\ufeff\u00ad\0]")
_SPELT_LINE_END = re.compile(r"(?:\\r)?\\n")
_MARK_OF_A_RANK = re.compile(r"\s*(\[[^\[\]]{1,40}\](?:<std\w+>)?:?|[\w.@/-]{1,60}\s*[|:])(?=\s|GPU)", re.IGNORECASE)
_LEAST_WRAPPED = 20  # no terminal is narrower


@dataclass(frozen=True)
class Line:
    """One line of the text: its number (from 1) and what is left of it after cleaning."""

    number: int
    text: str


def decode(content: bytes) -> str:
    """The text of a file in UTF-8 or, as PowerShell's redirection writes it, UTF-16; other bytes become marks."""
    for mark, encoding in ((codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16")):
        if content.startswith(mark):
            return content.decode(encoding, errors="replace")
    return content.decode("utf-8-sig", errors="replace")


def clean_lines(text: str) -> list[Line]:
    """The lines without escape codes, marks of web pages and unusual blanks, and without blanks at their ends."""
    return [Line(number, line.rstrip()) for number, line in enumerate(_clean(text).split("\n"), start=1)]


def unwrapped_lines(text: str) -> list[Line] | None:
    """The same lines where a terminal has broken long ones in the middle of a word; None if it has not.

    Such a terminal breaks at its width: the longest lines all have that length, and what follows one belongs to it.
    """
    raw = _clean(text).split("\n")
    width = max(map(len, raw))
    if width < _LEAST_WRAPPED or width not in [len(line) for line in raw[:-1]]:
        return None
    lines: list[Line] = []
    open_line = False
    for number, line in enumerate(raw, start=1):
        if open_line and not re.match(r"\W*(?:GPU\d+|NIC\d+|mlx\w+)\W", line, re.IGNORECASE):
            lines[-1] = Line(lines[-1].number, lines[-1].text + line)
        else:
            lines.append(Line(number, line))
        open_line = len(line) == width
    return [Line(line.number, line.text.rstrip()) for line in lines]


def lines_of_each_rank(lines: list[Line]) -> list[list[Line]]:
    """The lines of each rank or container apart, where several have written into one text and marked their lines.

    A mark such as ``[1,0]<stdout>:``, ``2:`` or ``gpu-1  |`` counts if it stands before a row and another line of a
    matrix, and no other line of a matrix is without such a mark. Otherwise all lines are one list, as they are.
    """
    marks = [_MARK_OF_A_RANK.match(line.text) for line in lines]
    about = [
        mark[1]
        for mark, line in zip(marks, lines, strict=True)
        if mark and re.search(r"GPU\d", line.text[mark.end() :])
    ]
    counts = Counter(about)
    named = sum(bool(re.search(r"GPU\d", line.text)) for line in lines)
    if not counts or min(counts.values()) < 2 or (len(counts) == 1 and counts.total() < named):
        return [lines]
    apart: dict[str, list[Line]] = {mark: [] for mark in counts}
    for mark, line in zip(marks, lines, strict=True):
        if mark and mark[1] in apart:
            apart[mark[1]].append(Line(line.number, line.text[mark.end() :]))
    return list(apart.values())


def _clean(text: str) -> str:
    if "\x1b" in text:
        text = _CURSOR_FORWARD.sub(lambda move: " " * min(int(move[1] or 1), 400), text)
    text = _ESCAPE.sub("", text)
    if "\b" in text:
        text = _OVERSTRUCK.sub("", text)
    if "&" in text:
        text = html.unescape(text)
    if "<" in text:
        text = _TAG.sub(" ", _TAG_OF_LINE_END.sub("\n", text))
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    text = _NOTHING.sub("", text)
    text = re.sub("\r+\n", "\n", text)
    text = "".join(_plain(text)) if not text.isascii() else re.sub("[\r\v\f\x1c-\x1e]", "\n", text)
    text = text.replace("^I", "\t").replace("\\t", "\t")
    if _SPELT_LINE_END.search(text) and text.count("\n") < len(_SPELT_LINE_END.findall(text)):
        text = _SPELT_LINE_END.sub("\n", text)  # a string literal: its line ends are still spelt out
    return text


def _plain(text: str) -> Iterator[str]:
    """The characters, with ordinary blanks and line ends and the signs that tables are drawn with as ``|``."""
    for line in text.splitlines():
        for sign in line:
            if sign == "\t" or sign.isascii():
                yield sign
            elif sign.isspace() or sign == "\ufffd":
                yield " "
            elif "\u2500" <= sign <= "\u257f":
                yield "|"
            elif sign in "\u2013\u2014\u2212\u2011\u2010":
                yield "-"
            elif sign in "\u00d7\u2715\u2716\u2717":
                yield "X"
            else:
                yield sign
        yield "\n"
