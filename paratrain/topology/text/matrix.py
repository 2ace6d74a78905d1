"""Read the text of ``nvidia-smi topo -m``, whatever its age and damage."""

from __future__ import annotations

from paratrain.errors import TopologyError
from paratrain.topology.machine import UNKNOWN, Machine, MachineWarning, gpu_list
from paratrain.topology.text.matrix_blocks import Block, find_blocks
from paratrain.topology.text.matrix_errors import explain_unusable
from paratrain.topology.text.matrix_lines import split_rows
from paratrain.topology.text.matrix_reader import Reader
from paratrain.topology.text.matrix_text import Line, clean_lines, decode, lines_of_each_rank, unwrapped_lines

_MOST_NAMED = 4


def read_machine(content: bytes | str, source: str) -> Machine:
    """The first machine in a text, with a warning if there are others. Raises TopologyError as `read_machines` does."""
    machines = read_machines(content, source)
    first = machines[0]
    if all((machine.gpus, machine.links) == (first.gpus, first.links) for machine in machines[1:]):
        return first
    sizes = ", ".join(gpu_list(machine.indices).split(" (")[0] for machine in machines[:_MOST_NAMED])
    sizes += ", ..." if len(machines) > _MOST_NAMED else ""
    message = f"{source} holds {len(machines)} matrices; the first is used (they have {sizes})"
    return first.with_warnings(MachineWarning("T13", message))


def read_machines(content: bytes | str, source: str) -> list[Machine]:
    """All machines whose ``topo -m`` matrices a text holds, in their order.

    Cut rows are filled from the other half of the matrix; what neither half says has the class UNKNOWN. Whatever was
    repaired or is missing is named in a warning (T13). `source` is the name of the text in messages. TopologyError,
    with the line, if the text holds no matrix.
    """
    text = decode(content) if isinstance(content, bytes) else content
    lines = clean_lines(text)
    machines = _read(lines, text, source)
    if not machines or any(machine.warnings for machine in machines):
        unwrapped = unwrapped_lines(text)
        again = _read(unwrapped, text, source) if unwrapped is not None else []
        if again and (_goodness(again) > _goodness(machines) if machines else not any(m.warnings for m in again)):
            machines = again
    if not machines:
        p2p = next((row.line for block in find_blocks(lines) for row in block.rows if row.p2p), None)
        raise TopologyError(explain_unusable(lines, source, p2p_line=p2p))
    return machines


def _read(lines: list[Line], text: str, source: str) -> list[Machine]:
    last = max((line.number for line in lines if line.text.strip()), default=0)
    cut_line = last if text[-1:].isalnum() else None
    blocks: list[Block] = []
    for group in lines_of_each_rank(lines):
        blocks += find_blocks(split_rows(group))
    return [Reader(block, source, cut_line).machine() for block in blocks if block.is_matrix]


def _goodness(machines: list[Machine]) -> tuple[int, int]:
    """How well a text was understood: the fewer pairs are unknown and the less had to be repaired, the better."""
    unknown = sum(link.link_class == UNKNOWN for machine in machines for link in machine.links)
    return -unknown, -sum(len(machine.warnings) for machine in machines)
