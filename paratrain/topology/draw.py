"""A plan as a picture of plain characters: the matrix, the tree, the predictions and the warnings."""

from __future__ import annotations

from paratrain.topology.cost import figure_between
from paratrain.topology.machine import Gpu, gpu_list
from paratrain.topology.plan import Plan

WIDTH = 100
_MOST_WITH_NAMES = 8  # GPUs; more of them get short labels, and no columns beside the matrix but the NUMA node


def draw_plan(plan: Plan) -> str:
    """The picture, without a last line end; the matrix of up to 16 GPUs is at most `WIDTH` characters wide."""
    machine = plan.machine
    if plan.tree is None:
        reason = machine.no_gpu_reason or machine.source
        parts = [
            f"no NVIDIA GPU: {reason}",
            "CPU ranks use a binomial tree: the ranks of one node under its lowest rank, the nodes under rank 0",
        ]
    else:
        switch = "; NVLinks through a switch" if machine.nvswitch else ""
        versions = f", driver {machine.driver_version}" if machine.driver_version else ""
        title = gpu_list(machine.indices).split(" (")[0]
        parts = [f"{title} (source: {machine.source}{versions}){switch}", *_matrix(plan), "", *_tree(plan)]
        if len(machine.gpus) > 1:
            parts += ["", *_predictions(plan)]
    return "\n".join(parts + [f"warning {warning.code}: {warning.message}" for warning in machine.warnings])


def _matrix(plan: Plan) -> list[str]:
    gpus = plan.machine.gpus
    full = len(gpus) <= _MOST_WITH_NAMES
    labels = [_label(gpu) if full else str(gpu.index) for gpu in gpus]
    cells = [[plan.machine.link_class(a.index, b.index).word for b in gpus] for a in gpus]
    width = max(len(text) for row in [labels, *cells] for text in row) + 1
    first = max(len(_label(gpu)) for gpu in gpus)
    beside = _columns_beside(gpus, full)
    lines = [" " * first + "".join(label.rjust(width) for label in labels) + "  " + beside[0]]
    for gpu, row, text in zip(gpus, cells, beside[1:], strict=True):
        lines.append(_label(gpu).ljust(first) + "".join(cell.rjust(width) for cell in row) + "  " + text)
    return [line[:WIDTH].rstrip() if full else line.rstrip() for line in lines]


def _columns_beside(gpus: tuple[Gpu, ...], full: bool) -> list[str]:
    """The texts to the right of the matrix, the title first; columns of which nobody said anything are left out."""
    columns = [["NUMA", *("" if gpu.numa_node is None else str(gpu.numa_node) for gpu in gpus)]]
    if full:
        columns.insert(0, ["bus id", *(gpu.bus_id for gpu in gpus)])
        columns.append(["name", *(gpu.name for gpu in gpus)])
    told = [column for column in columns if any(column[1:])]
    widths = [max(map(len, column)) for column in told]
    rows = zip(*told, strict=True) if told else [()] * (len(gpus) + 1)
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) for row in rows]


def _tree(plan: Plan) -> list[str]:
    tree = plan.tree
    assert tree is not None
    root = _label(plan.machine.gpus[tree.root])
    if tree.size == 1:
        return [f"Tree: {root} alone; nothing to exchange"]
    lines = [f"Tree (root {root}, depth {tree.depth}): gradients go up it, parameters down"]

    def add(member: int, indent: str, branch: str) -> None:
        name = f"  {indent}{branch}{_label(plan.machine.gpus[member])}"
        parent = tree.parent[member]
        lines.append(name if parent is None else f"{name.ljust(26)} {_edge(plan, parent, member)}")
        below = indent + {"": "", "|-- ": "|   ", "`-- ": "    "}[branch]
        for child in tree.children[member]:
            add(child, below, "`-- " if child == tree.children[member][-1] else "|-- ")

    add(tree.root, "", "")
    return lines


def _edge(plan: Plan, parent: int, child: int) -> str:
    figure = figure_between(plan.machine, parent, child)
    word = plan.machine.link_class(plan.index(parent), plan.index(child)).word
    how = "  through the host" if figure.staged else ""
    return f"{word:5s} {figure.bytes_per_s / 1e9:5.1f} GB/s  {figure.latency_s * 1e6:4.1f} us{how}"


def _predictions(plan: Plan) -> list[str]:
    lines = []
    for prediction in plan.predictions:
        times = f"up {duration(prediction.reduce_s)}, down {duration(prediction.broadcast_s)}"
        lines.append(f"Predicted for {size(prediction.byte_count)}: {times}  ({prediction.method})")
    origin, share = plan.predictions[0].origin, plan.predictions[0].uncertainty
    lines.append(f"Link figures: {origin}, nothing was measured; +-{share:.0%}")
    return lines


def _label(gpu: Gpu) -> str:
    return f"GPU{gpu.index}"


def size(byte_count: int) -> str:
    """A count of bytes for people: ``1.7 MB``; k, M and G are powers of 1000."""
    for unit, scale in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if byte_count >= scale:
            return f"{byte_count / scale:.3g} {unit}"
    return f"{byte_count} bytes"


def duration(seconds: float) -> str:
    """Seconds for people: ``0.22 ms``."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} us"
