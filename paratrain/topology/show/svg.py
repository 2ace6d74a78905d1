"""A plan as a picture in SVG, made without any other program: links by class and bandwidth, the tree on top."""

from __future__ import annotations

import math
from xml.etree import ElementTree

from paratrain.errors import TopologyError
from paratrain.topology.link_figures import LinkFigure
from paratrain.topology.machine import LinkKind
from paratrain.topology.planning.view import AnyPlan, View, view_of
from paratrain.topology.show.svg_layout import (
    LABEL_RADIUS,
    RADIUS,
    WIDTH,
    Curve,
    Layout,
    curve_between,
    lay_out,
    place_labels,
)
from paratrain.topology.words import SHAPES, TRANSPORTS, duration, plural, range_of, rate, size

MOST_MEMBERS = 64
_MOST_WITH_ALL_LINKS = 32

# Colours that most people tell apart, and dashes for those who do not and for print.
_STYLES = {
    LinkKind.NVLINK: ("#1b7837", ""),
    LinkKind.PIX: ("#2166ac", "14 4"),
    LinkKind.PXB: ("#3a8fc4", "9 4"),
    LinkKind.PHB: ("#7b3294", "6 3"),
    LinkKind.NODE: ("#b35806", "5 3 1 3"),
    LinkKind.SYS: ("#b2182b", "2 3"),
    LinkKind.SHARED: ("#2166ac", "14 4"),
    LinkKind.NETWORK: ("#000000", "12 3 2 3"),
    LinkKind.UNKNOWN: ("#666666", "1 5"),
}
_INK = "#1a1a1a"
_ARROW = 12.0  # length of an arrowhead
_LINE = 20.0  # of the legend
_Links = dict[tuple[int, int], tuple[LinkKind, str, LinkFigure]]


def draw_svg(plan: AnyPlan) -> str:
    """The picture as an SVG document. TopologyError without members, or with too many for a picture to be read."""
    view = view_of(plan)
    if view.tree is None or len(view.members) > MOST_MEMBERS:
        raise TopologyError(
            f"a picture shows 1 to {MOST_MEMBERS} members, found {len(view.members)}; choose some with --gpus"
        )
    layout = lay_out(view.groups, len(view.members))
    links = _links(view)
    legend = _legend_rows(view, links)
    height = layout.bottom + _LINE * (len(legend) + 1.5)
    svg = ElementTree.Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "viewBox": f"0 0 {WIDTH:g} {height:g}",
            "width": f"{WIDTH:g}",
            "height": f"{height:g}",
            "font-family": "Helvetica, Arial, sans-serif",
            "font-size": "13",
            "fill": _INK,
        },
    )
    _title(svg, f"{_heading(view)}: links and tree")
    _add(svg, "rect", x=0, y=0, width=WIDTH, height=height, fill="white")
    _text(svg, 16, 24, _cut(_heading(view), 58), size=16, weight="bold")
    for row, line in enumerate(_subtitles(view)):
        _text(svg, 16, 44 + 18 * row, _cut(line, 80))
    for box in layout.boxes:
        shape = {"x": box.left, "y": box.top, "width": box.width, "height": box.height, "rx": 10}
        _add(svg, "rect", **shape, fill="#f4f4f1", stroke="#8a8a86")
    _add_links(svg, view, layout, links)
    _add_edges(svg, view, layout)
    for box in layout.boxes:  # over the lines, which may pass there
        _add(svg, "rect", x=box.left + 8, y=box.top + 5, width=7 * len(box.name) + 4, height=16, fill="#f4f4f1")
        _text(svg, box.left + 10, box.top + 17, box.name, size=12)
    for number, (x, y) in enumerate(layout.centres):
        _add_member(svg, view, number, x, y)
    for row, (kind, width, text) in enumerate(legend):
        _add_legend_row(svg, kind, width, text, layout.bottom + _LINE * (row + 1))
    ElementTree.indent(svg)
    return ElementTree.tostring(svg, encoding="unicode", xml_declaration=False) + "\n"


def _add_member(svg: ElementTree.Element, view: View, number: int, x: float, y: float) -> None:
    assert view.tree is not None
    is_root = number == view.tree.root
    member, label = view.members[number], view.labels[number].removeprefix("rank ")
    style = {"fill": "#ffe9a8" if is_root else "white", "stroke": _INK, "stroke_width": 3 if is_root else 1.5}
    circle = _add(svg, "circle", cx=x, cy=y, r=RADIUS, **style)
    details = (getattr(member, "name", ""), member.bus_id, "root of the tree" if is_root else "")
    _title(circle, ", ".join(filter(None, (view.names[number], *details))))
    _text(svg, x, y + 4.5, label, anchor="middle", weight="bold", size=12 if len(label) < 5 else 11)


def _links(view: View) -> _Links:
    """The kind, word and figure of the link between each two members that is drawn."""
    count = len(view.members)
    pairs = [(one, other) for one in range(count) for other in range(one + 1, count)]
    if not _shows_all(view) and view.tree is not None:
        pairs = [(min(edge), max(edge)) for edge in view.tree.edges()]
    found: _Links = {}
    for pair in pairs:
        link_class = view.link_class(*pair)
        found[pair] = link_class.kind, link_class.word, view.figure(*pair)
    return found


def _shows_all(view: View) -> bool:
    return view.node_count == 1 and len(view.members) <= _MOST_WITH_ALL_LINKS


def _add_links(svg: ElementTree.Element, view: View, layout: Layout, links: _Links) -> None:
    """All links that are no edges of the tree, the slowest first, so that the fast ones lie on top."""
    in_tree = {frozenset((edge.parent, edge.child)) for edge in view.edges}
    group = ElementTree.SubElement(svg, "g", {"fill": "none", "opacity": "0.8" if layout.is_roomy else "0.3"})
    for (one, other), (kind, word, figure) in sorted(links.items(), key=lambda item: item[1][2].bytes_per_s):
        if frozenset((one, other)) not in in_tree:
            colour, dashes = _STYLES[kind]
            line = _curve(group, curve_between(layout, one, other), colour, dashes, 0.4 * _width(figure.bytes_per_s))
            host = ", through the host" if figure.staged else ""
            speed = f"{rate(figure.bytes_per_s)}, {duration(figure.latency_s)} ({figure.origin})"
            _title(line, f"{view.names[one]} - {view.names[other]}: {word}, {speed}{host}")


def _add_edges(svg: ElementTree.Element, view: View, layout: Layout) -> None:
    ends = [(edge.parent, edge.child) for edge in view.edges]
    curves = [curve_between(layout, *pair).shortened(RADIUS + 2, RADIUS + _ARROW + 1) for pair in ends]
    group = ElementTree.SubElement(svg, "g", {"fill": "none"})
    for edge, curve in zip(view.edges, curves, strict=True):
        colour, dashes = _STYLES[edge.link_class.kind]
        line = _curve(group, curve, colour, dashes, 1.5 + _width(edge.bytes_per_s))
        _add_arrowhead(group, curve, colour)
        figures = f"{rate(edge.bytes_per_s)}, {duration(edge.latency_s)} ({edge.origin})"
        how = f"{edge.link_class.word}, {figures}, level {edge.level}, {TRANSPORTS[edge.transport]}; {edge.reason}"
        _title(line, f"{view.names[edge.parent]} to {view.names[edge.child]}: {how}")
    for edge, (x, y) in zip(view.edges, place_labels(layout, curves), strict=True):
        colour, _ = _STYLES[edge.link_class.kind]
        _add(svg, "circle", cx=x, cy=y, r=LABEL_RADIUS, fill="white", stroke=colour, stroke_width=1.5)
        _text(svg, x, y + 4, str(edge.level), anchor="middle", size=11, weight="bold")


def _add_arrowhead(parent: ElementTree.Element, curve: Curve, colour: str) -> None:
    """The tip of an edge, at the end of its curve. No SVG marker: not every viewer turns those along a curve."""
    x, y = curve.end
    from_x, from_y = curve.at(0.9)
    angle = math.atan2(y - from_y, x - from_x)
    corners = [(x + _ARROW * math.cos(angle), y + _ARROW * math.sin(angle))]
    corners += [
        (x + 6 * math.cos(angle + side), y + 6 * math.sin(angle + side)) for side in (math.pi / 2, -math.pi / 2)
    ]
    _add(parent, "polygon", points=" ".join(f"{a:.1f},{b:.1f}" for a, b in corners), fill=colour)


def _legend_rows(view: View, links: _Links) -> list[tuple[LinkKind | None, float, str]]:
    by_word: dict[tuple[LinkKind, str], list[LinkFigure]] = {}
    for kind, word, figure in links.values():
        by_word.setdefault((kind, word), []).append(figure)
    rows: list[tuple[LinkKind | None, float, str]] = []
    for (kind, word), figures in sorted(by_word.items(), key=lambda item: -max(f.bytes_per_s for f in item[1])):
        speed = range_of((figure.bytes_per_s, rate(figure.bytes_per_s)) for figure in figures)
        latency = range_of((figure.latency_s, duration(figure.latency_s)) for figure in figures)
        origins = " and ".join(sorted({figure.origin for figure in figures}))
        staged = ", through the host" if all(figure.staged for figure in figures) else ""
        count = len(figures)
        width = 1.5 + _width(max(figure.bytes_per_s for figure in figures))
        rows.append((kind, width, f"{word}: {plural(count, 'pair')}, {speed}, {latency} ({origins}){staged}"))
    if view.edges:
        rows.append((None, 0.0, "thick: the tree; number: the level; parameters follow the arrows, gradients go back"))
    if not _shows_all(view):
        rows.append((None, 0.0, "only the links of the tree are drawn"))
    if len(view.plan.trees) > 1:
        rows.append(
            (
                None,
                0.0,
                f"the fastest way uses {len(view.plan.trees)} trees, one for each shard; this is the best single one",
            )
        )
    return rows


def _add_legend_row(svg: ElementTree.Element, kind: LinkKind | None, width: float, text: str, y: float) -> None:
    if kind is not None:
        colour, dashes = _STYLES[kind]
        _curve(svg, Curve((16, y - 4), (44, y - 4), (72, y - 4)), colour, dashes, width)
    _text(svg, 82 if kind is not None else 16, y, text, size=12)


def _heading(view: View) -> str:
    return f"{view.title} - {view.machine.source.removeprefix('catalogue: ')}"


def _subtitles(view: View) -> list[str]:
    assert view.tree is not None
    root = view.names[view.tree.root]
    if not view.edges:
        return [f"{root} alone: nothing to exchange"]
    plan, times = view.plan, view.plan.predictions[0]
    predicted = (
        f"predicted for {size(plan.byte_count)}: up {duration(times.reduce_s)}, down {duration(times.broadcast_s)}"
    )
    shape = SHAPES[plan.tree_shape] if view.node_count == 1 or plan.tree_shape == "index" else times.method
    return [f"{shape}, root {root}, depth {view.tree.depth}", f"{predicted}, +-{times.uncertainty:.0%}"]


def _width(bytes_per_s: float) -> float:
    """The width of a line: 1 more for each doubling from 5 GB/s on."""
    doublings = 0
    while bytes_per_s >= 5e9 * 2 ** (doublings + 1) and doublings < 6:
        doublings += 1
    return 1.0 + 0.75 * doublings


def _curve(parent: ElementTree.Element, curve: Curve, colour: str, dashes: str, width: float) -> ElementTree.Element:
    (a, b), (c, d), (e, f) = curve.start, curve.bend, curve.end
    path = f"M {a:.1f} {b:.1f} Q {c:.1f} {d:.1f} {e:.1f} {f:.1f}"
    line = _add(parent, "path", d=path, stroke=colour, stroke_width=round(width, 2))
    if dashes:
        line.set("stroke-dasharray", dashes)
    return line


def _text(
    parent: ElementTree.Element, x: float, y: float, text: str, *, size: int = 13, weight: str = "", anchor: str = ""
) -> None:
    element = _add(parent, "text", x=x, y=y, font_size=size)
    if weight:
        element.set("font-weight", weight)
    if anchor:
        element.set("text-anchor", anchor)
    element.text = _printable(text)


def _title(parent: ElementTree.Element, text: str) -> None:
    """What viewers show where the pointer rests."""
    ElementTree.SubElement(parent, "title").text = _printable(text)


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)


def _add(parent: ElementTree.Element, tag: str, **attributes: float | str) -> ElementTree.Element:
    values = {
        name.replace("_", "-"): value if isinstance(value, str) else f"{value:.6g}"
        for name, value in attributes.items()
    }
    return ElementTree.SubElement(parent, tag, values)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."
