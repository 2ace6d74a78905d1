"""A plan on one screen: the matrix, what is known of P2P, the tree with its reasons, predictions and warnings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from paratrain.topology.machine import Gpu, Machine, MachineWarning
from paratrain.topology.planning.plan import PlannedEdge
from paratrain.topology.planning.view import AnyPlan, View, view_of
from paratrain.topology.show.draw_times import draw_predictions
from paratrain.topology.show.style import PLAIN, WIDTH, Style, wrapped
from paratrain.topology.words import SHAPES, TRANSPORTS, member_name, plural, table

_MOST_WITH_NAMES = 8  # GPUs; more of them get short labels, and no columns beside the matrix but the NUMA node
_MOST_IN_MATRIX = 16
_MOST_IN_TREE = 64


def draw_plan(
    plan: AnyPlan,
    style: Style = PLAIN,
    verdicts: Mapping[tuple[int, int], str] | None = None,
    *,
    with_times: bool = True,
) -> str:
    """The picture, without a last line end; for up to 8 GPUs it is at most `WIDTH` characters wide.

    `verdicts` says what tests of links have found, by pair of indices. Predictions and warnings close the picture, and
    are left to the caller where `with_times` is false.
    """
    view = view_of(plan)
    parts = list(_head(view, style))
    if view.machine.gpus:
        parts += [*_matrix(view, style), *_p2p(view.machine, verdicts or {}), ""]
    if view.tree is not None:
        parts += _tree(view, style)
    if plan.shape == "sharded":
        parts += wrapped(
            f"  {len(plan.trees)} trees on shards, each with another root, are faster still; --exchange tree uses this one"
        )
    if with_times:
        if view.edges and plan.predictions:
            parts += ["", *draw_predictions(plan.predictions, style)]
        parts += draw_warnings(view.warnings, style)
    return "\n".join(parts)


def draw_warnings(warnings: Sequence[MachineWarning], style: Style = PLAIN) -> list[str]:
    """The warnings with their codes, which docs/topology.md explains."""
    lines = (line for warning in warnings for line in wrapped(f"warning {warning.code}: {warning.message}"))
    return [style.bad(line) for line in lines]


def _head(view: View, style: Style) -> Iterator[str]:
    from paratrain import __version__

    machine = view.machine
    if not machine.gpus:
        no_gpu = f"no NVIDIA GPU: {machine.no_gpu_reason}" if machine.no_gpu_reason else view.title
        yield from wrapped(no_gpu)
        yield from wrapped(
            "Ranks on CPU cores use a binomial tree unless they are given another: the ranks of one node under its lowest "
            "rank, the nodes under rank 0."
        )
        return
    first, *rest = wrapped(f"{view.title} (source: {machine.source})")
    yield style.title(view.title) + first.removeprefix(view.title)
    yield from rest
    told = {"driver": machine.driver_version, "CUDA": machine.cuda_version, "paratrain": __version__}
    versions = ", ".join(f"{name} {version}" for name, version in told.items() if version)
    yield versions + ("; NVLinks through a switch" if machine.nvswitch else "")


def _matrix(view: View, style: Style) -> Iterator[str]:
    """The classes of the links inside a node."""
    machine, gpus = view.machine, view.machine.gpus
    if len(gpus) > _MOST_IN_MATRIX:
        yield from _link_counts(machine)
        return
    full = len(gpus) <= _MOST_WITH_NAMES
    in_tree = {frozenset((machine.indices[edge.parent], machine.indices[edge.child])) for edge in view.node_edges}
    names = [member_name(gpu) for gpu in gpus]
    labels = names if full else [str(gpu.index) for gpu in gpus]
    cells = [
        [machine.link_class(a.index, b.index).word + "*" * (frozenset((a.index, b.index)) in in_tree) for b in gpus]
        for a in gpus
    ]
    beside = _columns_beside(gpus, full)
    # The mark hangs to the right of its column, so that words stand below each other with and without it.
    width = max(len(text.rstrip("*")) for row in [labels, *cells] for text in row) + 1
    if len(names[-1]) + (width + 1) * len(gpus) + len(beside[0]) + 2 > WIDTH and not full:
        names, beside = labels, [""] * len(beside)
    first = max(map(len, names))
    yield (" " * first + "".join(f"{label:>{width}} " for label in labels) + " " + beside[0])[:WIDTH].rstrip()
    for name, row, text in zip(names, cells, beside[1:], strict=True):
        drawn = [f"{cell:>{width + ('*' in cell)}}" + " " * ("*" not in cell) for cell in row]
        length = first + sum(map(len, drawn)) + 1
        painted = "".join(style.good(cell) if "*" in cell else cell for cell in drawn)
        yield (f"{name:<{first}}" + painted + " " + text[: max(WIDTH - length, 0)]).rstrip()
    if in_tree:
        yield "* an edge of the tree" + (" in node 0" if view.node_count > 1 else "")


def _columns_beside(gpus: Sequence[Gpu], full: bool) -> list[str]:
    """The texts to the right of the matrix, the title first; columns of which nobody said anything are left out."""
    columns = [["NUMA", *("" if gpu.numa_node is None else str(gpu.numa_node) for gpu in gpus)]]
    if full:
        columns.insert(0, ["bus id", *(gpu.bus_id for gpu in gpus)])
        columns.append(["name", *(gpu.name for gpu in gpus)])
    told = [column for column in columns if any(column[1:])]
    return table([list(row) for row in zip(*told, strict=True)]) if told else [""] * (len(gpus) + 1)


def _link_counts(machine: Machine) -> Iterator[str]:
    """In place of a matrix that no screen can show."""
    counts: dict[str, int] = {}
    for place, a in enumerate(machine.gpus):
        for b in machine.gpus[place + 1 :]:
            word = machine.link_class(a.index, b.index).word
            counts[word] = counts.get(word, 0) + 1
    yield from wrapped(
        "Links: " + ", ".join(f"{plural(count, 'pair')} {word}" for word, count in sorted(counts.items()))
    )


def _p2p(machine: Machine, verdicts: Mapping[tuple[int, int], str]) -> Iterator[str]:
    """What the driver says of direct copies and what tests have found; pairs with the same answers together."""
    answers: dict[tuple[str, str], list[str]] = {}
    pairs = [
        (min(a.index, b.index), max(a.index, b.index)) for n, a in enumerate(machine.gpus) for b in machine.gpus[:n]
    ]
    for low, high in sorted(pairs):
        link = machine.link(low, high)
        words = list(dict.fromkeys(word for word in (link.p2p_read, link.p2p_write) if word))
        refusals = [word for word in words if word != "OK"]
        says = (
            "driver did not say" if not words else f"driver: no ({', '.join(refusals)})" if refusals else "driver: yes"
        )
        tested = verdicts.get((low, high))
        then = " -> host" if (low, high) in machine.vetoes else ""
        answers.setdefault((says, f"tested: {tested}{then}" if tested else f"not tested{then}"), []).append(
            f"{low}-{high}"
        )
    for (says, tested), names in answers.items():
        which = "every pair" if len(answers) == 1 and len(names) > 1 else " ".join(names)
        yield from wrapped(f"P2P: {says}, {tested}: {which}")


def _tree(view: View, style: Style) -> Iterator[str]:
    tree = view.tree
    assert tree is not None
    root = view.names[tree.root]
    if tree.size == 1:
        yield f"Tree: {root} alone; nothing to exchange"
        return
    kind = (
        SHAPES[view.plan.tree_shape]
        if view.node_count == 1 or view.plan.tree_shape == "index"
        else view.plan.predictions[0].method
    )
    title = kind[0].upper() + kind[1:]
    for line in wrapped(f"{title} (root {root}, depth {tree.depth}): gradients go up it, parameters down"):
        yield style.title(line)
    if tree.size > _MOST_IN_TREE:
        yield from _levels(view)
        return
    edges = {edge.child: edge for edge in view.edges}
    reasons = list(dict.fromkeys(edge.reason for edge in view.edges))
    rows: list[tuple[str, list[str]]] = []

    # Deep trees are indented less, and chains of dozens not at all: the levels stand in front instead.
    step = 4 if tree.depth <= 10 else 2 if tree.depth <= 20 else 0
    child_branch, last_branch, beside = style.branches(step)

    def add(member: int, indent: str, branch: str, level: int = 0) -> None:
        if not step:
            indent = f"{level:>3}: "
        rows.append(
            (f"  {indent}{branch}{view.names[member]}", _edge_cells(edges[member], reasons) if member in edges else [])
        )
        below = indent + ("" if not branch else " " * step if branch == last_branch else beside)
        for child in tree.children[member]:
            add(child, below, last_branch if child == tree.children[member][-1] else child_branch, level + 1)

    add(tree.root, "", "")
    width = max(len(name) for name, _ in rows) + 2
    lines = iter(table([cells for _, cells in rows if cells], right=(1, 2)))
    for name, cells in rows:
        yield f"{name:<{width}}{next(lines)}" if cells else name
    for number, reason in enumerate(reasons, start=1):
        yield from wrapped(f"  [{number}] {reason}", indent="      ")


def _edge_cells(edge: PlannedEdge, reasons: Sequence[str]) -> list[str]:
    speed, latency = f"{edge.bytes_per_s / 1e9:.1f} GB/s", f"{edge.latency_s * 1e6:.1f} us"
    transport = f"{TRANSPORTS.get(edge.transport, edge.transport)} [{reasons.index(edge.reason) + 1}]"
    return [edge.link_class.word, speed, latency, edge.origin, transport]


def _levels(view: View) -> Iterator[str]:
    """A tree that no screen can show, level by level."""
    levels: dict[int, dict[str, int]] = {}
    for edge in view.edges:
        words = levels.setdefault(edge.level, {})
        words[edge.link_class.word] = words.get(edge.link_class.word, 0) + 1
    for level, words in sorted(levels.items()):
        edges = ", ".join(f"{plural(count, 'edge')} {word}" for word, count in sorted(words.items()))
        yield f"  level {level}: {edges}"
