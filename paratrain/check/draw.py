"""Draw a network: boxes for layers, with the blobs they make and their shapes below, and arrows along the data.

``paratrain check FILE --draw net.svg`` is its command line.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from paratrain.check.graph import Graph, Node, build_graph, to_dot
from paratrain.check.layout import Layout, lay_out
from paratrain.check.nets import NetReport
from paratrain.errors import MissingDependencyError, ParatrainError
from paratrain.proto import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_net"]

# Lengths in inches.
_CHARACTER = 0.083
_LINE = 0.16
_PADDING = 0.08
_MARGIN = 0.3
_FONT_POINTS = 8.5
_PNG_DPI = 110.0
_MOST_PIXELS = 30000.0

_COLOURS = {
    "data": "#d5ecd4",
    "weights": "#cfe2f3",
    "pooling": "#fde3c8",
    "normalization": "#e4dcf1",
    "joint": "#fff3bf",
    "loss": "#f8d3d8",
    "other": "#e9ecef",
}
_INK, _FAINT = "#212529", "#495057"


def draw_net(nets: Sequence[NetReport], path: str | os.PathLike[str]) -> None:
    """Draw the nets of all phases in one picture and write it to ``path``, which ends in .svg, .png or .dot.

    Layers of only one phase say so. Raises MissingDependencyError where .svg and .png lack matplotlib, SnapshotError where
    the file cannot be written.
    """
    file = Path(path)
    ending = file.suffix.lower()
    graph = build_graph(nets)
    if ending == ".dot":
        write_atomically(file, to_dot(graph).encode())
    elif ending in (".svg", ".png"):
        _draw(graph, file, ending[1:])
    else:
        raise ParatrainError(f"{file}: a picture of a network ends in .svg, .png or .dot")


def _draw(graph: Graph, file: Path, form: str) -> None:
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError("matplotlib", "drawing a network", "draw") from error
    sizes = [_size(graph, node) for node in graph.nodes]
    layout = lay_out(sizes, [(maker, reader) for maker, _, reader in graph.edges])
    title = f"{graph.name or 'network'}: {', '.join(type_name for type_name in _phase_names(graph))}"
    width = max(layout.width, len(title) * _CHARACTER * 1.3) + 2 * _MARGIN
    height = layout.height + 2 * _MARGIN + 2 * _LINE
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes(
        (0, 0, 1, 1), xlim=(-_MARGIN, width - _MARGIN), ylim=(height - _MARGIN - 2 * _LINE, -_MARGIN - 2 * _LINE)
    )
    axes.set_axis_off()
    axes.text(0, -2 * _LINE, title, fontsize=_FONT_POINTS + 3, fontweight="bold", va="center", color=_INK)
    for (maker, blob, reader), route in zip(graph.edges, layout.routes, strict=True):
        _draw_edge(axes, graph, layout, sizes, (maker, blob, reader), route)
    for node, center, size in zip(graph.nodes, layout.centers, sizes, strict=True):
        _draw_node(axes, graph, node, center, size)
    dpi = min(_PNG_DPI, _MOST_PIXELS / max(width, height))
    # Text stays text in an SVG, and the same net gives the same file.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "paratrain"}):
        figure.savefig(file, format=form, dpi=dpi, metadata={"Date": None} if form == "svg" else {"Software": None})


def _phase_names(graph: Graph) -> list[str]:
    return [name for value, name in ((0, "TRAIN"), (1, "TEST")) if value in graph.phases]


def _lines(graph: Graph, node: Node) -> list[tuple[str, bool]]:
    """What stands in a layer's box, and what of it is bold."""
    lines = []
    for one in (node, *node.in_place):
        note = f" ({graph.note(one)} only)" if graph.note(one) else ""
        kind = f"{one.kind} {one.settings}".strip()
        if one is node:
            lines += [(one.name + note, True), (kind, False)]
        else:
            lines.append((f"{one.name}: {kind}{note}", False))
    return lines


def _blob_widths(node: Node) -> list[float]:
    return [max(len(box.name), len(box.shape)) * _CHARACTER + 2 * _PADDING for box in node.blobs]


def _size(graph: Graph, node: Node) -> tuple[float, float]:
    lines = _lines(graph, node)
    widest = max(len(text) * (1.1 if bold else 1.0) for text, bold in lines) * _CHARACTER + 2 * _PADDING
    return max(widest, sum(_blob_widths(node))), _body_height(lines) + (_blob_height() if node.blobs else 0)


def _body_height(lines: Sequence[tuple[str, bool]]) -> float:
    return len(lines) * _LINE + 2 * _PADDING


def _blob_height() -> float:
    return 2 * _LINE + 2 * _PADDING


def _blob_cells(node: Node, left: float, width: float) -> list[tuple[float, float]]:
    """Left edge and width of each blob below a box; what the box is wider is shared out."""
    widths = _blob_widths(node)
    extra = (width - sum(widths)) / len(widths) if widths else 0
    cells = []
    for blob_width in widths:
        cells.append((left, blob_width + extra))
        left += blob_width + extra
    return cells


def _draw_node(axes: Axes, graph: Graph, node: Node, center: tuple[float, float], size: tuple[float, float]) -> None:
    from matplotlib.patches import Rectangle

    lines = _lines(graph, node)
    left, top = center[0] - size[0] / 2, center[1] - size[1] / 2
    body = _body_height(lines)
    axes.add_patch(
        Rectangle((left, top), size[0], body, facecolor=_COLOURS[node.family], edgecolor=_INK, linewidth=0.8)
    )
    for index, (text, bold) in enumerate(lines):
        axes.text(
            center[0], top + _PADDING + (index + 0.5) * _LINE, text, fontsize=_FONT_POINTS, color=_INK,
            fontweight="bold" if bold else "normal", ha="center", va="center", parse_math=False,
        )  # fmt: skip
    for box, (cell_left, cell_width) in zip(node.blobs, _blob_cells(node, left, size[0]), strict=True):
        style = "dashed" if box.shape == "?" else "solid"
        cell = (cell_left, top + body)
        axes.add_patch(
            Rectangle(
                cell, cell_width, _blob_height(), facecolor="white", edgecolor=_INK, linewidth=0.6, linestyle=style
            )
        )
        for index, text in enumerate((box.name, box.shape)):
            axes.text(
                cell_left + cell_width / 2, top + body + _PADDING + (index + 0.5) * _LINE, text,
                fontsize=_FONT_POINTS - 0.5, color=_FAINT, ha="center", va="center", parse_math=False,
            )  # fmt: skip


def _draw_edge(
    axes: Axes,
    graph: Graph,
    layout: Layout,
    sizes: Sequence[tuple[float, float]],
    edge: tuple[int, int, int],
    route: Sequence[tuple[float, float]],
) -> None:
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path as Curve

    maker, blob, reader = edge
    (x, y), (width, height) = layout.centers[maker], sizes[maker]
    cells = _blob_cells(graph.nodes[maker], x - width / 2, width)
    start = (cells[blob][0] + cells[blob][1] / 2, y + height / 2)
    end_x, end_y = layout.centers[reader]
    makers = sorted({e[:2] for e in graph.edges if e[2] == reader}, key=lambda e: layout.centers[e[0]][0])
    # Several arrows into one box come in side by side.
    share = (makers.index((maker, blob)) + 1) / (len(makers) + 1) - 0.5
    end = (end_x + share * sizes[reader][0] * 0.6, end_y - sizes[reader][1] / 2)
    points = [start, *route, end]
    vertices, codes = [start], [Curve.MOVETO]
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        bend = (y1 - y0) / 2
        vertices += [(x0, y0 + bend), (x1, y1 - bend), (x1, y1)]
        codes += [Curve.CURVE4] * 3
    axes.add_patch(
        FancyArrowPatch(
            path=Curve(vertices, codes),
            arrowstyle="-|>",
            mutation_scale=7,
            linewidth=0.8,
            edgecolor=_FAINT,
            facecolor=_FAINT,
        )
    )
