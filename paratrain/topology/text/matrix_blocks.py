"""Gather the rows of each ``topo -m`` matrix in a text under their header."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from paratrain.topology.text import matrix_lines
from paratrain.topology.text.matrix_lines import Header, Row
from paratrain.topology.text.matrix_text import Line

_FAR = 3  # lines: what follows the last row so far below and says little is other text


@dataclass
class Block:
    """A header, if there is one, and the rows that belong to it."""

    header: Header | None = None
    rows: list[Row] = field(default_factory=list)

    @property
    def is_matrix(self) -> bool:
        """Whether it is a matrix of links: it has an X somewhere, and is not one of ``topo -p2p``."""
        return any("X" in row.cells for row in self.rows) and not any(row.p2p for row in self.rows)

    @property
    def first_line(self) -> int:
        """The number of the line with which it begins."""
        return self.header.line.number if self.header else self.rows[0].line.number

    def row_of(self, gpu: int) -> Row | None:
        """The row of this GPU, if there is one."""
        return next((row for row in self.rows if row.gpu == gpu), None)


def find_blocks(lines: Iterable[Line]) -> list[Block]:
    """The blocks of a text that have rows, in their order. A row that is there twice and says the same counts once."""
    blocks = [Block()]
    previous = 0  # the line number of the block's latest row or header
    for line in lines:
        block = blocks[-1]
        row = matrix_lines.read_row(line)
        header = None if row else matrix_lines.read_header(line)
        if row is not None:
            earlier = block.row_of(row.gpu)
            if earlier is not None and earlier.cells == row.cells and row.line.number - previous < _FAR:
                continue
            if earlier is None and block.rows and line.number - previous >= _FAR and _is_prose(block, row):
                continue
            if earlier is not None:
                blocks.append(Block())
            blocks[-1].rows.append(row)
            previous = line.number
        elif header is not None:
            if block.rows:
                blocks.append(Block(header))
            elif block.header and _continues(block.header, header, previous):
                joined = block.header.gpus + header.gpus  # a header that a narrow terminal has broken
                block.header = replace(block.header, line=line, gpus=joined, columns_after=header.columns_after)
            else:
                block.header = header
            previous = line.number
        elif block.rows and line.number == previous + 1:
            cells, rest = matrix_lines.read_continuation(line)
            last = block.rows[-1]
            if cells and not last.rest.strip():
                block.rows[-1] = replace(last, cells=last.cells + cells, rest=rest)
                previous = line.number
    return [block for block in blocks if block.rows]


def _continues(header: Header, rest: Header, previous: int) -> bool:
    return rest.gpus[0] == header.gpus[-1] + 1 and header.line.number == previous


def _is_prose(block: Block, row: Row) -> bool:
    """Whether a row far below the others is rather a sentence about a GPU: no X, and few link words."""
    return "X" not in row.cells and 2 * len(row.cells) < max(len(other.cells) for other in block.rows)
