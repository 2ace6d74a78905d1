"""Read the text of ``nvidia-smi topo -m``, whatever its age and damage."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from paratrain.errors import TopologyError
from paratrain.topology import matrix_lines as lines
from paratrain.topology.machine import UNKNOWN, Gpu, Link, LinkClass, LinkKind, Machine, MachineWarning, has_nvswitch
from paratrain.topology.matrix_errors import explain_unusable

_MOST_GPUS = 1024  # no row or column is invented beyond it
# The order in which a pair's two halves are preferred if they differ: the slower one, which cannot promise too much.
_SLOWNESS = [LinkKind.SELF, LinkKind.NVLINK, LinkKind.PIX, LinkKind.PXB, LinkKind.PHB, LinkKind.NODE, LinkKind.SYS]


def read_machine(content: bytes | str, source: str) -> Machine:
    """The first machine in a text, with a warning if there are more. Raises TopologyError as `read_machines` does."""
    machines = read_machines(content, source)
    if len(machines) == 1:
        return machines[0]
    message = f"{source} holds {len(machines)} matrices; the first is used"
    return machines[0].with_warnings(MachineWarning("T13", message))


def read_machines(content: bytes | str, source: str) -> list[Machine]:
    """All machines whose ``topo -m`` matrices a text holds, in their order.

    Cut rows are filled from the other half of the matrix; what neither half says has the class UNKNOWN. Whatever was
    repaired or is missing is named in a warning (T13). `source` is the name of the text in messages. TopologyError,
    with the line, if the text holds no matrix.
    """
    text = lines.decode(content) if isinstance(content, bytes) else content
    cleaned = lines.clean_lines(text)
    blocks = [block for block in _find_blocks(cleaned) if block.rows]
    p2p = next((row.line for block in blocks for row in block.rows if row.p2p), None)
    matrices = [block for block in blocks if block.is_matrix]
    if not matrices:
        raise TopologyError(explain_unusable(cleaned, source, p2p_line=p2p))
    last_line = max(line.number for line in cleaned if line.text.strip())
    return [_Reader(block, source, last_line).machine() for block in matrices]


@dataclass
class _Block:
    """A header, if there is one, and the rows that belong to it."""

    header: lines.Header | None = None
    rows: list[lines.Row] = field(default_factory=list)

    @property
    def is_matrix(self) -> bool:
        """Whether it is a matrix of links: it has an X somewhere, and is not one of ``topo -p2p``."""
        return any("X" in row.cells for row in self.rows) and not any(row.p2p for row in self.rows)


def _find_blocks(cleaned: list[lines.Line]) -> list[_Block]:
    blocks = [_Block()]
    previous = 0  # the line number of the block's latest row
    for line in cleaned:
        block = blocks[-1]
        row = lines.read_row(line)
        header = None if row else lines.read_header(line)
        if row is not None:
            if any(row.gpu == earlier.gpu for earlier in block.rows):
                blocks.append(_Block())
            blocks[-1].rows.append(row)
            previous = line.number
        elif header is not None:
            if block.rows:
                blocks.append(_Block(header))
            elif block.header and header.gpus[0] == block.header.gpus[-1] + 1 and block.header.line.number == previous:
                joined = block.header.gpus + header.gpus  # a header that a narrow terminal has broken
                block.header = lines.Header(line, joined, block.header.columns_before, header.columns_after)
            else:
                block.header = header
            previous = line.number
        elif block.rows and line.number == previous + 1:
            cells, rest = lines.read_continuation(line)
            last = block.rows[-1]
            if cells and not last.rest.strip():
                block.rows[-1] = lines.Row(last.line, last.gpu, last.cells + cells, last.before, rest, last.p2p)
                previous = line.number
    return blocks


class _Reader:
    """Turns one block into a Machine and collects what it had to repair."""

    def __init__(self, block: _Block, source: str, last_line: int) -> None:
        self.block = block
        self.source = source
        self.last_line = last_line
        self.repairs: list[tuple[str, tuple[int, int] | None]] = []
        if all(None in row.cells for row in block.rows):  # tabs that align the columns, not empty cells
            block.rows = [replace(row, cells=tuple(cell for cell in row.cells if cell)) for row in block.rows]
        in_header = block.header.gpus if block.header else ()
        in_rows = [row.gpu for row in block.rows]
        self.columns = self._columns(in_header, in_rows)
        missing = [gpu for gpu in self.columns if gpu not in in_header]
        if block.header is None:
            self.repair(f"line {block.rows[0].line.number}: no header; the GPUs are counted by their rows")
        elif missing:
            self.repair(f"line {block.header.line.number}: the header lacks {_names(missing)}")

    def _columns(self, in_header: tuple[int, ...], in_rows: list[int]) -> list[int]:
        """The GPUs of the columns: those that header and rows name, and those between them if the X say so."""
        if set(in_rows) <= set(in_header):
            named = list(in_header)
        else:
            named = sorted({*in_header, *in_rows})
        without_gaps = list(range(max(named) + 1)) if max(named) < _MOST_GPUS else named
        return max(named, without_gaps, key=self._rows_that_fit)

    def _rows_that_fit(self, columns: list[int]) -> int:
        return sum(row.cells.index("X") == columns.index(row.gpu) for row in self.block.rows if "X" in row.cells)

    def repair(self, message: str, pair: tuple[int, int] | None = None) -> None:
        self.repairs.append((message, pair))

    def machine(self) -> Machine:
        halves: dict[tuple[int, int], LinkClass] = {}
        for row in self.block.rows:
            halves.update({(row.gpu, gpu): cell for gpu, cell in self._cells(row).items()})
        rowless = [gpu for gpu in self.columns if all(row.gpu != gpu for row in self.block.rows)]
        if rowless:
            self.repair(f"the rows of {_names(rowless)} are missing; what the other rows say of them is used")
        order = sorted(self.columns)
        links = [Link(a, b, self._one_class(halves, a, b)) for a in order for b in order if a < b]
        unknown = [(link.a, link.b) for link in links if link.link_class == UNKNOWN]
        if unknown:
            pairs = ", ".join(f"{a}-{b}" for a, b in unknown[:8])
            pairs += f" and {len(unknown) - 8} more" if len(unknown) > 8 else ""
            self.repair(f"nothing is said of the pairs {pairs}; they are planned as SYS")
        counts = [[link.link_class.nvlink_count for link in links if gpu in (link.a, link.b)] for gpu in order]
        return Machine(
            tuple(self._gpu(gpu) for gpu in order),
            tuple(links),
            self.source,
            tuple(MachineWarning("T13", f"{self.source}: {message}", pair) for message, pair in self.repairs),
            nvswitch=has_nvswitch(counts),
        )

    def _cells(self, row: lines.Row) -> dict[int, LinkClass]:
        """The cells of a row by the number of their column's GPU, without the X."""
        words = list(row.cells[: len(self.columns)])
        place = self.columns.index(row.gpu)
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
        if row.line.number == self.last_line and not row.rest.strip() and self._may_be_cut(row.cells[-1]):
            cells.pop(self.columns[min(len(words), len(self.columns)) - 1], None)
        cells.pop(row.gpu, None)
        return cells

    def _may_be_cut(self, word: str | None) -> bool:
        """Whether the text's last word may be the beginning of a longer one: NV1 where there is NV18."""
        words = {cell for row in self.block.rows for cell in row.cells if cell}
        return word is not None and any(other.startswith(word) and other != word for other in words)

    def _one_class(self, halves: dict[tuple[int, int], LinkClass], a: int, b: int) -> LinkClass:
        """What the two halves of the matrix say of a pair; where they differ, the slower of both."""
        said = [halves[pair] for pair in ((a, b), (b, a)) if pair in halves]
        if not said:
            return UNKNOWN
        if any(link_class.kind is LinkKind.SELF for link_class in said):
            self.repair(f"GPU{a} and GPU{b}: an X where a link was expected", (a, b))
            said = [link_class for link_class in said if link_class.kind is not LinkKind.SELF] or [UNKNOWN]
        slower = max(said, key=lambda c: (_SLOWNESS.index(c.kind) if c != UNKNOWN else 0, -c.nvlink_count))
        if any(link_class != slower for link_class in said):
            self.repair(f"GPU{a} to GPU{b} is {said[0]}, but back it is {said[1]}; {slower} is used", (a, b))
        return slower

    def _gpu(self, index: int) -> Gpu:
        row = next((row for row in self.block.rows if row.gpu == index), None)
        if row is None or self.block.header is None or len(row.cells) < len(self.columns):
            return Gpu(index)
        header = self.block.header
        said = _affinity(header.columns_before, row.before) | _affinity(header.columns_after, row.rest)
        numa = re.match(r"\d+", said.get("numa affinity", ""))
        return Gpu(index, numa_node=int(numa[0]) if numa else None, cpu_affinity=said.get("cpu affinity", ""))


def _affinity(columns: tuple[str, ...], text: str) -> dict[str, str]:
    """The affinity columns of a row, as far as it is certain which is which."""
    text = text.strip(" |")
    if "\t" in text:  # one field a column, but some versions put an empty one before the last
        fields = [word.strip() for word in text.split("\t")][1:]
    else:
        fields = [word for word in re.split(r"[\s|]+", text) if word]
        if len(fields) != len(columns):
            return {}
    said = dict(zip(columns, fields, strict=False))
    return {column: word for column, word in said.items() if re.fullmatch(r"\d+([-,]\d+)*", word)}


def _names(gpus: list[int]) -> str:
    return ", ".join(f"GPU{gpu}" for gpu in gpus)
