"""Recognise the lines of a ``topo -m`` matrix in text that went through terminals, chats, tables and clipboards."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass

LINK_WORD = r"(?:NV[1-9]\d*|NODE|PIX|PXB|PHB|SYS|SOC|X)"
P2P_WORD = r"(?:OK|CNS|GNS|TNS|NS|DR|U)"
# A word ends where no letter follows, or where the next word is glued to it. NV1 followed by a digit is never split.
_CELL = re.compile(rf"{LINK_WORD}(?=$|[^A-Za-z0-9_]|{LINK_WORD})", re.IGNORECASE)
_P2P_CELL = re.compile(rf"{P2P_WORD}(?![A-Za-z0-9_])", re.IGNORECASE)
_SELF_MARK = re.compile(r"--?(?![\w-])")
_GAP = re.compile(r"[ \t|:,;\"'`*]*")
_LABEL = re.compile(r"(?<![A-Za-z0-9_-])GPU(\d{1,4})(?!\d)", re.IGNORECASE)
_HEADER_LABEL = re.compile(r"GPU(\d{1,4})(?!\d)", re.IGNORECASE)
_HEADER_NEXT = re.compile(
    r"[ \t|:,;\"'`*]*(?:$|GPU|NIC\d|mlx|CPU|NUMA|(?:[a-z]+_?\d+[a-z0-9_]*|[a-z]+_[a-z0-9_]+)(?:[ \t|]|$))",
    re.IGNORECASE,
)
_AFFINITY_COLUMN = re.compile(r"CPU Affinity|NUMA Affinity|GPU NUMA ID", re.IGNORECASE)
_ESCAPE = re.compile(r"(?:\x1b|\\x1b|\\u001b|\\033|\\e|\^\[|␛)?\[[0-9;]*[mKHJ]|\x1b\([A-Z]|\x1b[=>]", re.IGNORECASE)


@dataclass(frozen=True)
class Line:
    """One line of the text: its number (from 1) and what is left of it after cleaning."""

    number: int
    text: str


@dataclass(frozen=True)
class Header:
    """A line of column names: the numbers of its GPUs, and the affinity columns before and after them."""

    line: Line
    gpus: tuple[int, ...]
    columns_before: tuple[str, ...]
    columns_after: tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """A line that begins with a GPU's name: its number, its cells as far as they are link words, and the text around.

    A cell is None where a table has an empty field. `p2p` is true for a row of ``nvidia-smi topo -p2p``.
    """

    line: Line
    gpu: int
    cells: tuple[str | None, ...]
    before: str
    rest: str
    p2p: bool


def decode(content: bytes) -> str:
    """The text of a file in UTF-8 or, as PowerShell's redirection writes it, UTF-16; other bytes become marks."""
    for mark, encoding in ((codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16")):
        if content.startswith(mark):
            return content.decode(encoding, errors="replace")
    return content.decode("utf-8-sig", errors="replace")


def clean_lines(text: str) -> list[Line]:
    """The lines without escape codes, carriage returns and unusual blanks."""
    text = _ESCAPE.sub("", text)
    text = re.sub("[\u00a0\u2000-\u200a\u202f\u3000]", " ", text)
    text = re.sub("[\u200b-\u200f\u2060\ufeff\0]", "", text)
    text = text.replace("\u2502", "|").replace("\u2503", "|")
    text = re.sub(r"\r+\n", "\n", text).replace("\r", "\n")
    lines = text.split("\n")
    if len(lines) < 3 and "\\n" in text:  # a string literal: its line ends and tabs are still spelt out
        lines = text.replace("\\r", "").replace("\\t", "\t").replace("\\n", "\n").split("\n")
    return [Line(number, line.rstrip()) for number, line in enumerate(lines, start=1)]


def read_header(line: Line) -> Header | None:
    """The header that this line is, if it is one: GPU names that nothing but further column names follows."""
    first = re.search(r"(?<![A-Za-z0-9_-])GPU\d", line.text, re.IGNORECASE)
    if first is None:
        return None
    end = first.start()
    gpus: list[int] = []
    for match in _HEADER_LABEL.finditer(line.text, first.start()):
        if not _GAP.fullmatch(line.text, end, match.start()):
            break
        gpus.append(int(match[1]))
        end = match.end()
    if not gpus or not _HEADER_NEXT.match(line.text, end) or len(set(gpus)) != len(gpus):
        return None
    before, after = line.text[: first.start()], line.text[end:]
    return Header(line, tuple(gpus), _affinity_columns(before), _affinity_columns(after))


def _affinity_columns(text: str) -> tuple[str, ...]:
    return tuple(name.lower() for name in _AFFINITY_COLUMN.findall(text))


def read_row(line: Line) -> Row | None:
    """The row that this line is, if it is one: a GPU's name that at least one link word follows."""
    for label in _LABEL.finditer(line.text):
        tabs = line.text[label.end() :].lstrip(" ").startswith("\t")
        cells, p2p, end = _read_cells(line.text, label.end(), "\t" if tabs else "")
        if cells:
            return Row(line, int(label[1]), tuple(cells), line.text[: label.start()], line.text[end:], p2p)
    return None


def read_continuation(line: Line) -> tuple[tuple[str | None, ...], str]:
    """The link words at the beginning of a line, which a narrow terminal may have broken off its row, and the rest."""
    cells, p2p, end = _read_cells(line.text, 0, "")
    return (() if p2p else tuple(cells)), line.text[end:]


def _read_cells(text: str, start: int, tab: str) -> tuple[list[str | None], bool, int]:
    """Read link words from `start` on, until something else comes. In a table with tabs, an empty field is a None."""
    cells: list[str | None] = []
    p2p = False
    at = end = certain = start
    while True:
        gap = _GAP.match(text, at)
        assert gap is not None
        cell = _CELL.match(text, gap.end()) or _SELF_MARK.match(text, gap.end())
        if cell is None:
            cell = _P2P_CELL.match(text, gap.end())
            p2p = p2p or cell is not None
        if cell is None:
            return (cells, p2p, end) if certain > start else ([], p2p, start)
        if tab:
            cells += [None] * (gap[0].count(tab) - 1)
        word = cell[0].upper()
        at = end = cell.end()
        if word.startswith("-"):  # some tables mark a GPU itself with a dash; a dash alone is no matrix
            cells.append("X")
        else:
            cells.append(word)
            certain = end
