"""The picture of a net as pycaffe draws it, by matplotlib: boxes for layers, octagons for blobs, arrows along the data."""

from __future__ import annotations

import io
import itertools
from typing import TYPE_CHECKING

from paratrain.check.caffe_graph import CaffeEdge, CaffeGraph, CaffeNode
from paratrain.check.layout import lay_out
from paratrain.errors import MissingDependencyError, ParatrainError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["PICTURE_FORMATS", "render"]

PICTURE_FORMATS = ("png", "svg", "pdf", "eps", "ps", "jpg")

# Lengths in inches.
_CHARACTER = 0.083
_LINE = 0.16
_PADDING = 0.1
_CORNER = 0.1
_MARGIN = 0.3
_FONT_POINTS = 8.5
_DPI = 110.0
_MOST_PIXELS = 30000.0
_INK, _FAINT = "#212529", "#495057"

Point = tuple[float, float]


def render(graph: CaffeGraph, form: str) -> bytes:
    """Return the picture as the contents of a file of ``form``, one of PICTURE_FORMATS.

    Raises ParatrainError for another form, MissingDependencyError without matplotlib.
    """
    if form not in PICTURE_FORMATS:
        raise ParatrainError(f"a network is drawn as {', '.join(PICTURE_FORMATS)}, dot or raw, not as '{form}'")
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError("matplotlib", "drawing a network", "draw") from error
    is_sideways = graph.direction in ("LR", "RL")
    sizes = [_size(node) for node in graph.nodes]
    forward = [edge for edge in graph.edges if edge.start < edge.stop]
    layout = lay_out(
        [(height, width) if is_sideways else (width, height) for width, height in sizes],
        [(edge.start, edge.stop) for edge in forward],
        row_gap=max([0.4, *(_CHARACTER * len(edge.label) + 0.3 for edge in forward if is_sideways)]),
    )
    inner = (layout.height, layout.width) if is_sideways else (layout.width, layout.height)

    def place(point: Point) -> Point:
        x, y = (point[1], point[0]) if is_sideways else point
        return (inner[0] - x if graph.direction == "RL" else x, inner[1] - y if graph.direction == "BT" else y)

    width, height = inner[0] + 2 * _MARGIN, inner[1] + 2 * _MARGIN
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(-_MARGIN, width - _MARGIN), ylim=(height - _MARGIN, -_MARGIN))
    axes.set_axis_off()
    centers = [place(center) for center in layout.centers]
    routes = dict(zip(forward, layout.routes, strict=True))
    for edge in graph.edges:
        _draw_edge(axes, edge, centers, sizes, [place(point) for point in routes.get(edge, [])], graph.direction)
    for node, center, size in zip(graph.nodes, centers, sizes, strict=True):
        _draw_node(axes, node, center, size)
    stream = io.BytesIO()
    dpi = min(_DPI, _MOST_PIXELS / max(width, height))
    # The same net gives the same file, and text stays text in an SVG.
    metadata = {"svg": {"Date": None}, "png": {"Software": None}, "pdf": {"CreationDate": None}}.get(form)
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "paratrain"}):
        figure.savefig(stream, format=form, dpi=dpi, metadata=metadata)
    return stream.getvalue()


def _size(node: CaffeNode) -> tuple[float, float]:
    widest = max(len(line) * (1.1 if index == 0 else 1.0) for index, line in enumerate(node.lines))
    side = 2 * (_PADDING + (_CORNER if node.is_blob else 0))
    return widest * _CHARACTER + side, len(node.lines) * _LINE + 2 * _PADDING


def _draw_node(axes: Axes, node: CaffeNode, center: Point, size: tuple[float, float]) -> None:
    from matplotlib.patches import Polygon

    (x, y), (width, height) = center, size
    corner = _CORNER if node.is_blob else 0.0
    left, right, top, bottom = x - width / 2, x + width / 2, y - height / 2, y + height / 2
    outline = [
        (left + corner, top), (right - corner, top), (right, top + corner), (right, bottom - corner),
        (right - corner, bottom), (left + corner, bottom), (left, bottom - corner), (left, top + corner),
    ]  # fmt: skip
    axes.add_patch(Polygon(outline, facecolor=node.colour, edgecolor=_INK, linewidth=0.8))
    for index, line in enumerate(node.lines):
        axes.text(
            x, top + _PADDING + (index + 0.5) * _LINE, line, fontsize=_FONT_POINTS, color=_INK, ha="center", va="center",
            fontweight="bold" if index == 0 and not node.is_blob else "normal", parse_math=False,
        )  # fmt: skip


def _draw_edge(
    axes: Axes,
    edge: CaffeEdge,
    centers: list[Point],
    sizes: list[tuple[float, float]],
    route: list[Point],
    direction: str,
) -> None:
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path as Curve

    axis = 0 if direction in ("LR", "RL") else 1
    sign = -1 if direction in ("RL", "BT") else 1
    points = [_rim(centers[edge.start], sizes[edge.start], axis, sign), *route]
    points.append(_rim(centers[edge.stop], sizes[edge.stop], axis, -sign))
    vertices, codes = [points[0]], [Curve.MOVETO]
    for first, last in itertools.pairwise(points):
        bend = (last[axis] - first[axis]) / 2
        shift = (bend, 0.0) if axis == 0 else (0.0, bend)
        vertices += [
            (first[0] + shift[0], first[1] + shift[1]),
            (last[0] - shift[0], last[1] - shift[1]),
            last,
        ]
        codes += [Curve.CURVE4] * 3
    axes.add_patch(
        FancyArrowPatch(
            path=Curve(vertices, codes), arrowstyle="<|-|>" if edge.is_both_ways else "-|>", mutation_scale=7,
            linewidth=0.8, edgecolor=_FAINT, facecolor=_FAINT,
        )
    )  # fmt: skip
    if edge.label:
        middle = ((points[0][0] + points[1][0]) / 2, (points[0][1] + points[1][1]) / 2)
        offset = (0.0, -0.08) if axis == 0 else (0.08, 0.0)
        axes.text(
            middle[0] + offset[0], middle[1] + offset[1], edge.label, fontsize=_FONT_POINTS - 1, color=_FAINT,
            ha="center" if axis == 0 else "left", va="center", parse_math=False,
        )  # fmt: skip


def _rim(center: Point, size: tuple[float, float], axis: int, sign: int) -> Point:
    """The middle of the side of a box that looks along ``axis``, forward or back."""
    place = list(center)
    place[axis] += sign * size[axis] / 2
    return place[0], place[1]
