"""Recognise the lines of a ``topo -m`` matrix: the header with the names of its columns, the rows, and broken ends."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from paratrain.topology.text.matrix_text import Line

_MOST_NAMES_BEFORE = 4  # names of hosts and the like that may stand before a header in its line
_MOST_COLUMNS = 10_000
# 36 NVLinks are the most of one GPU so far; a larger number is several things glued together.
_NV = r"NV(?:[1-9]|[12]\d|3[0-6])(?!\d)"
_NAMED = r"(?:NODE|PIX|PXB|PHB|SYS|SOC|X)"
LINK_WORD = rf"(?:{_NV}|{_NAMED})"
P2P_WORD = r"(?:OK|CNS|GNS|TNS|NS|DR|U)"
# A word ends where no letter follows, or where the next word or a list of cores is glued to it. A legend explains it.
_END = rf"(?![ \t]*=)(?=$|[^A-Za-z0-9_]|{LINK_WORD})"
_CELL = re.compile(rf"{_NV}{_END}|{_NAMED}(?:{_END}|(?=\d+[-,]\d))", re.IGNORECASE)
_P2P_CELL = re.compile(rf"{P2P_WORD}(?![A-Za-z0-9_])", re.IGNORECASE)
_SELF_MARK = re.compile(r"--?(?![\w-])")
_BETWEEN = r"[ \t|:,;&\"'`*\[\]]*"
_GAP = re.compile(_BETWEEN)
_TAB_NEXT = re.compile(r" *\t")
_NOT_BEFORE = r"(?<![A-Za-z0-9_])(?<![A-Za-z0-9_]-)"
_LABEL = re.compile(rf"{_NOT_BEFORE}GPU(\d{{1,4}})(?!\d)", re.IGNORECASE)
_LABEL_OF_A_ROW = re.compile(rf"{_NOT_BEFORE}GPU\d{{1,4}}(?!\d){_BETWEEN}(?:{_CELL.pattern})", re.IGNORECASE)
_HEADER_LABEL = re.compile(r"GPU(\d{1,4})(?!\d)", re.IGNORECASE)
_HEADER_NEXT = re.compile(
    rf"{_BETWEEN}(?:\W*$|GPU|NIC\d|mlx|CPU|NUMA|(?:[a-z]+_?\d+[a-z0-9_]*|[a-z]+_[a-z0-9_]+)(?:[\s|,;\"'$]|$))",
    re.IGNORECASE,
)
_AFFINITY_COLUMN = re.compile(r"CPU Affinity|NUMA Affinity|GPU NUMA ID", re.IGNORECASE)


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


def split_rows(lines: list[Line]) -> Iterator[Line]:
    """The lines, with those cut apart in which several rows stand one after another since the line ends were lost."""
    for line in lines:
        starts = [match.start() for match in _LABEL_OF_A_ROW.finditer(line.text)]
        first = _LABEL.search(line.text)
        if first is not None and starts and starts[0] > first.start() and _is_header_text(line.text[: starts[0]]):
            starts = [first.start(), *starts]
        if len(starts) < 2:
            yield line
            continue
        for start, end in zip([0, *starts[1:]], [*starts[1:], len(line.text)], strict=True):
            yield Line(line.number, line.text[start:end])


def _is_header_text(text: str) -> bool:
    """Whether a text before a row is a header: several names of GPUs, the last of which is no host's."""
    return len(_LABEL.findall(text)) > 1 or bool(_AFFINITY_COLUMN.search(text))


def read_header(line: Line) -> Header | None:
    """The header that this line is, if it is one: GPU names that nothing but further column names follows.

    A name at the front that does not fit the others, such as that of the host ``gpu5``, is passed over.
    """
    for first in islice(_LABEL.finditer(line.text), _MOST_NAMES_BEFORE):
        found = _header_from(line, first.start())
        if found is None:
            continue
        if found.gpus[0] != 0 and found.gpus[1:2] == (0,):
            again = _header_from(line, first.end())
            found = again or found
        return found
    return None


def _header_from(line: Line, start: int) -> Header | None:
    end = start
    gpus: list[int] = []
    for match in _HEADER_LABEL.finditer(line.text, start):
        if gpus and not _GAP.fullmatch(line.text, end, match.start()):
            break
        if int(match[1]) in gpus[-1:] or len(gpus) > _MOST_COLUMNS:
            return None
        start = start if gpus else match.start()
        gpus.append(int(match[1]))
        end = match.end()
    if not gpus or not _HEADER_NEXT.match(line.text, end) or len(set(gpus)) != len(gpus):
        return None
    before, after = line.text[:start], line.text[end:]
    return Header(line, tuple(gpus), _affinity_columns(before), _affinity_columns(after))


def _affinity_columns(text: str) -> tuple[str, ...]:
    return tuple(name.lower() for name in _AFFINITY_COLUMN.findall(text))


def read_row(line: Line) -> Row | None:
    """The row that this line is, if it is one: a GPU's name that at least one link word follows."""
    for label in _LABEL.finditer(line.text):
        tabs = _TAB_NEXT.match(line.text, label.end()) is not None
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
