"""Turn the rows of one ``topo -m`` matrix into a Machine, and say what had to be repaired."""

from __future__ import annotations

import re
from dataclasses import replace

from paratrain.topology.machine import UNKNOWN, Gpu, Link, LinkClass, LinkKind, Machine, MachineWarning, has_nvswitch
from paratrain.topology.text.matrix_blocks import Block
from paratrain.topology.text.matrix_lines import Row

_MOST_GPUS = 1024  # no row or column is invented beyond it
# The order in which a pair's two halves are preferred if they differ: the slower one, which cannot promise too much.
_SLOWNESS = [LinkKind.SELF, LinkKind.NVLINK, LinkKind.PIX, LinkKind.PXB, LinkKind.PHB, LinkKind.NODE, LinkKind.SYS]


class Reader:
    """Turns one block into a Machine and collects what it had to repair."""

    def __init__(self, block: Block, source: str, cut_line: int | None) -> None:
        """`cut_line` is the number of the text's last line if the text ends in the middle of it, as far as is known."""
        self.source = source
        self.cut_line = cut_line
        self.header = block.header
        self.rows = block.rows
        self.repairs: list[tuple[str, tuple[int, int] | None]] = []
        if all(None in row.cells for row in self.rows):  # tabs that align the columns, not empty cells
            self.rows = [_without_gaps(row) for row in self.rows]
        in_header = self.header.gpus if self.header else ()
        self.columns = self._columns(in_header, [row.gpu for row in self.rows])
        strange = [row for row in self.rows if row.gpu not in in_header and "X" in row.cells and not self._fits(row)]
        if in_header and len(strange) < len(self.rows):  # a damaged name must not invent a GPU
            self.rows = [row for row in self.rows if row not in strange]
            self.columns = self._columns(in_header, [row.gpu for row in self.rows])
            for row in strange:
                self.repair(f"line {row.line.number}: no column is named GPU{row.gpu}; the row is left out")
        missing = [gpu for gpu in self.columns if gpu not in in_header]
        if self.header is None:
            self.repair(f"line {self.rows[0].line.number}: no header; the GPUs are counted by their rows")
        elif missing:
            self.repair(f"line {self.header.line.number}: the header lacks {_names(missing)}")
        if min(self.columns) > 0:
            self.repair(f"GPU0 is missing; the first is GPU{min(self.columns)}")

    def _columns(self, in_header: tuple[int, ...], in_rows: list[int]) -> list[int]:
        """The GPUs of the columns: those that header and rows name, and those between them if the X say so."""
        if set(in_rows) <= set(in_header):
            named = list(in_header)
        else:
            named = sorted({*in_header, *in_rows})
        choices = [named, list(range(max(named) + 1)) if max(named) < _MOST_GPUS else named, sorted(set(in_rows))]
        if len(in_rows) < 2:
            choices.pop()
        return max(choices, key=self._rows_that_fit)

    def _rows_that_fit(self, columns: list[int]) -> int:
        return sum(self._fits(row, columns) for row in self.rows if "X" in row.cells)

    def _fits(self, row: Row, columns: list[int] | None = None) -> bool:
        columns = self.columns if columns is None else columns
        return row.gpu in columns and row.cells.index("X") == columns.index(row.gpu)

    def repair(self, message: str, pair: tuple[int, int] | None = None) -> None:
        """Note what was repaired or is missing."""
        self.repairs.append((message, pair))

    def machine(self) -> Machine:
        """The machine, with a warning (T13) for each repair."""
        by_row = {row.gpu: self._cells(row) for row in self.rows}
        for row in self.rows:
            by_row[row.gpu] = self._closed_up(row, by_row)
        halves = {(gpu, other): cell for gpu, cells in by_row.items() for other, cell in cells.items()}
        rowless = [gpu for gpu in self.columns if all(row.gpu != gpu for row in self.rows)]
        if rowless:
            self.repair(f"the rows of {_names(rowless)} are missing; what the other rows say of them is used")
        order = sorted(self.columns)
        links = [Link(a, b, self._one_class(halves, a, b)) for a in order for b in order if a < b]
        unknown = [(link.a, link.b) for link in links if link.link_class == UNKNOWN]
        if unknown:
            pairs = ", ".join(f"{a}-{b}" for a, b in unknown[:8])
            pairs += f" and {len(unknown) - 8} more" if len(unknown) > 8 else ""
            self.repair(f"nothing is said of the pairs {pairs}; they are planned through the host's memory")
        counts: dict[int, list[int]] = {gpu: [] for gpu in order}
        for link in links:
            counts[link.a].append(link.link_class.nvlink_count)
            counts[link.b].append(link.link_class.nvlink_count)
        return Machine(
            tuple(self._gpu(gpu) for gpu in order),
            tuple(links),
            self.source,
            tuple(MachineWarning("T13", f"{self.source}: {message}", pair) for message, pair in self.repairs),
            nvswitch=has_nvswitch(counts.values()),
        )

    def _cells(self, row: Row) -> dict[int, LinkClass]:
        """The cells of a row by the number of their column's GPU, without the X."""
        place = self.columns.index(row.gpu)
        if (
            None in row.cells
            and row.cells[place : place + 1] != ("X",)
            and _without_gaps(row).cells[place : place + 1] == ("X",)
        ):
            row = _without_gaps(row)
        words = list(row.cells[: len(self.columns)])
        marks = [at for at, word in enumerate(words) if word == "X"]
        if marks == [place]:
            pass
        elif len(marks) == 1 and marks[0] < place:  # cells before the X are lost, those from it on are certain
            shift = place - marks[0]
            self.repair(f"line {row.line.number}: {shift} cells of GPU{row.gpu} are missing before its X")
            words = [*[None] * place, *row.cells[marks[0] : marks[0] + len(self.columns) - place]]
        elif not marks and (len(words) <= place or words[place] is None):
            pass  # cut before its X, or its field is empty: the cells still stand in order
        else:
            where = f"its X in column {marks[0] + 1}" if marks else "no X"
            message = f"the row of GPU{row.gpu} has {where}, expected it in column {place + 1}; the row is left out"
            self.repair(f"line {row.line.number}: {message}")
            return {}
        if len(words) < len(self.columns):
            found = f"{len(words)} of {len(self.columns)} cells"
            token = row.rest.strip(" \t|\"'`,;")
            stop = f", then '{token[:12]}'" if token else ""
            self.repair(f"line {row.line.number}: the row of GPU{row.gpu} is cut: {found}{stop}")
        cells = {gpu: LinkClass.parse(word) for gpu, word in zip(self.columns, words, strict=False) if word is not None}
        if self._may_be_cut(row):
            cells.pop(self.columns[min(len(words), len(self.columns)) - 1], None)  # NV1 may have been NV18
        cells.pop(row.gpu, None)
        return cells

    def _may_be_cut(self, row: Row) -> bool:
        """Whether the last word of a row may have lost its end: a number of NVLinks with which a text or a row ends."""
        word = row.cells[-1] or ""
        if not word.startswith("NV") or row.rest.strip(" \t|\"'`"):
            return False
        if row.line.number == self.cut_line or len(row.cells) < len(self.columns):
            return True
        words = {cell for other in self.rows for cell in other.cells if cell}
        return row is self.rows[-1] and any(other.startswith(word) and other != word for other in words)

    def _closed_up(self, row: Row, by_row: dict[int, dict[int, LinkClass]]) -> dict[int, LinkClass]:
        """The cells of a row; if it lost one after its X, so that the rest has moved, where the other rows put them."""
        cells, place = by_row[row.gpu], self.columns.index(row.gpu)

        def fits(candidate: dict[int, LinkClass]) -> bool:
            return all(by_row.get(gpu, {}).get(row.gpu, cell) == cell for gpu, cell in candidate.items())

        full = max(len(other.cells) for other in self.rows)
        if len(row.cells) != full - 1 or row.cells[place : place + 1] != ("X",) or fits(cells):
            return cells
        for at in range(place + 1, len(self.columns)):
            words = [*row.cells[:at], None, *row.cells[at:]]
            pairs = zip(self.columns, words, strict=False)
            moved = {gpu: LinkClass.parse(word) for gpu, word in pairs if word is not None and gpu != row.gpu}
            if fits(moved):
                where = f"line {row.line.number}: the row of GPU{row.gpu}"
                self.repair(f"{where} lacks its cell for GPU{self.columns[at]}, and what follows has moved")
                return moved
        return cells

    def _one_class(self, halves: dict[tuple[int, int], LinkClass], a: int, b: int) -> LinkClass:
        """What the two halves of the matrix say of a pair; where they differ, the slower of both."""
        said = [halves[pair] for pair in ((a, b), (b, a)) if pair in halves]
        if not said:
            return UNKNOWN
        if any(link_class.kind is LinkKind.SELF for link_class in said):
            self.repair(f"GPU{a} and GPU{b}: an X where a link was expected", (a, b))
            said = [link_class for link_class in said if link_class.kind is not LinkKind.SELF] or [UNKNOWN]
        shorter, longer = sorted((said[0].word, said[-1].word), key=len)
        if longer.startswith(shorter) and shorter != longer:  # no pair has one NVLink this way and 12 that way
            self.repair(f"GPU{a} and GPU{b}: {shorter} has lost a digit, {longer} is used", (a, b))
            return LinkClass.parse(longer)
        slower = max(said, key=lambda c: (_SLOWNESS.index(c.kind) if c != UNKNOWN else 0, -c.nvlink_count))
        if any(link_class != slower for link_class in said):
            self.repair(f"GPU{a} to GPU{b} is {said[0]}, but back it is {said[1]}; {slower} is used", (a, b))
        return slower

    def _gpu(self, index: int) -> Gpu:
        row = next((row for row in self.rows if row.gpu == index), None)
        if row is None or self.header is None or len(row.cells) < len(self.columns) or row.line.number == self.cut_line:
            return Gpu(index)
        said = _affinity(self.header.columns_before, row.before) | _affinity(self.header.columns_after, row.rest)
        numa = re.match(r"\d+", said.get("numa affinity", ""))
        memory = re.fullmatch(r"\d+", said.get("gpu numa id", ""))
        return Gpu(
            index,
            numa_node=int(numa[0]) if numa else None,
            cpu_affinity=said.get("cpu affinity", ""),
            memory_numa_node=int(memory[0]) if memory else None,
        )


def _without_gaps(row: Row) -> Row:
    return replace(row, cells=tuple(cell for cell in row.cells if cell))


def _affinity(columns: tuple[str, ...], text: str) -> dict[str, str]:
    """The affinity columns of a row, as far as it is certain which is which."""
    text = text.strip(" |")
    if "\t" in text:  # one field a column, but some versions put an empty one before the last
        fields = [word.strip() for word in text.split("\t")][1:]
        if len(fields) == len(columns) + 1 and len(columns) > 1 and fields[-2] == "":
            fields.pop(-2)
    else:
        fields = [word for word in re.split(r"[\s|]+", text) if word]
        if len(fields) != len(columns):
            return {}
    said = dict(zip(columns, fields, strict=False))
    return {column: word for column, word in said.items() if re.fullmatch(r"\d+([-,]\d+)*", word)}


def _names(gpus: list[int]) -> str:
    return ", ".join(f"GPU{gpu}" for gpu in gpus)
