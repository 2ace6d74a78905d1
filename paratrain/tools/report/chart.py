"""Charts as inline SVG, whose colours are those of the page; each is drawn twice, for wide pages and for narrow ones."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from paratrain.tools.report.axis import Axis, linear_axis, logarithmic_axis

__all__ = ["Curve", "line_chart", "share_chart"]

_SIZES = {"wide": (600.0, 250.0), "narrow": (330.0, 210.0)}
_CHARACTER = 6.7  # width of a digit at 12 px
_MOST_POINTS = 500
_MOST_DOTS = 40
_LOG_FROM = 100.0  # values that differ by a larger factor are drawn on a logarithmic scale


@dataclass(frozen=True)
class Curve:
    """Points in the order of x. ``band`` is an area around the curve: least and largest at each point."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    colour: int = 0
    is_dashed: bool = False
    band: tuple[Sequence[float], Sequence[float]] | None = None


def line_chart(title: str, curves: Sequence[Curve], x_name: str, *, may_be_logarithmic: bool = False) -> str:
    """A chart of curves, with a legend where there are several; empty where no curve has a point."""
    curves = [curve for curve in curves if any(map(math.isfinite, curve.y))]
    if not curves:
        return ""
    values = [value for curve in curves for value in curve.y if math.isfinite(value)]
    values += [value for curve in curves for side in curve.band or () for value in side if math.isfinite(value)]
    low, high = min(values), max(values)
    logarithmic = may_be_logarithmic and low > 0 and high / low > _LOG_FROM
    note = ", logarithmic" if logarithmic else ""
    y = logarithmic_axis(low, high) if logarithmic else linear_axis(low, high)
    legend = [(curve.label, curve.colour, curve.is_dashed) for curve in curves] if len(curves) > 1 else []
    drawings = {
        kind: "".join(_curves(curves, _Frame(size, _x_axis(curves, size[0]), y, x_name), title))
        for kind, size in _SIZES.items()
    }
    return _figure(f"{title}{note}", legend, drawings)


def share_chart(title: str, x: Sequence[float], parts: Sequence[tuple[str, Sequence[float]]], x_name: str) -> str:
    """Areas on top of each other: of each part, its share at each x, from 0 to 1. Empty for fewer than two points."""
    if len(x) < 2:
        return ""
    drawings = {}
    for kind, size in _SIZES.items():
        frame = _Frame(size, linear_axis(x[0], x[-1], _marks(size[0]), tight=True), linear_axis(0, 1, 5), x_name)
        drawings[kind] = "".join(_areas(x, parts, frame, title))
    return _figure(title, [(name, number, False) for number, (name, _) in enumerate(parts)], drawings)


class _Frame:
    """The box of a chart: turns values into places."""

    def __init__(self, size: tuple[float, float], x: Axis, y: Axis, x_name: str) -> None:
        self.width, self.height = size
        self.x, self.y, self.x_name = x, y, x_name
        self.left = 10 + _CHARACTER * max(map(len, y.texts))
        self.right = self.width - 14
        self.top, self.bottom = 10.0, self.height - 40

    def at(self, x: float, y: float) -> tuple[float, float]:
        return (
            self.left + self.x.place(x) * (self.right - self.left),
            self.bottom - self.y.place(y) * (self.bottom - self.top),
        )

    def open(self, title: str) -> Iterator[str]:
        yield (
            f'<svg viewBox="0 0 {self.width:g} {self.height:g}" role="img" aria-label="{html.escape(title)}">'
            f"<title>{html.escape(title)}</title>"
        )
        for mark, text in zip(self.y.marks, self.y.texts, strict=True):
            _, y = self.at(self.x.low, mark)
            yield f'<line class="grid" x1="{self.left:.1f}" x2="{self.right:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
            yield f'<text x="{self.left - 5:.1f}" y="{y + 4:.1f}" text-anchor="end">{text}</text>'
        for mark, text in zip(self.x.marks, self.x.texts, strict=True):
            x, _ = self.at(mark, self.y.low)
            half = len(text) * _CHARACTER / 2
            inside = min(max(x, half), self.width - half)
            yield f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{self.bottom:.1f}" y2="{self.bottom + 4:.1f}"/>'
            yield f'<text x="{inside:.1f}" y="{self.bottom + 17:.1f}" text-anchor="middle">{text}</text>'
        yield (
            f'<text class="name" x="{(self.left + self.right) / 2:.1f}" y="{self.height - 5:.1f}" text-anchor="middle">'
            f"{html.escape(self.x_name)}</text>"
        )


def _curves(curves: Sequence[Curve], frame: _Frame, title: str) -> Iterator[str]:
    yield from frame.open(title)
    for curve in curves:
        if curve.band is not None:
            yield _band(curve, frame)
    for curve in curves:
        points = _thinned(list(zip(curve.x, curve.y, strict=True)))
        dashes = " dashed" if curve.is_dashed else ""
        yield f'<path class="curve s{curve.colour}{dashes}" d="{_path(points, frame)}"/>'
        if len(points) <= _MOST_DOTS:
            for x, y in points:
                if _can_be_placed(y, frame):
                    a, b = frame.at(x, y)
                    tip = html.escape(f"{curve.label}, {frame.x_name} {x:.6g}: {y:.5g}")
                    yield f'<circle class="f{curve.colour}" cx="{a:.1f}" cy="{b:.1f}" r="2.5"><title>{tip}</title></circle>'
    yield "</svg>"


def _areas(
    x: Sequence[float], parts: Sequence[tuple[str, Sequence[float]]], frame: _Frame, title: str
) -> Iterator[str]:
    yield from frame.open(title)
    stride = math.ceil(len(x) / _MOST_POINTS)
    places = range(0, len(x), stride)
    below = [0.0] * len(x)
    for number, (name, shares) in enumerate(parts):
        above = [min(1.0, a + b) for a, b in zip(below, shares, strict=True)]
        points = [frame.at(x[at], above[at]) for at in places] + [frame.at(x[at], below[at]) for at in reversed(places)]
        text = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        yield f'<polygon class="f{number}" points="{text}"><title>{html.escape(name)}</title></polygon>'
        below = above
    yield "</svg>"


def _band(curve: Curve, frame: _Frame) -> str:
    assert curve.band is not None
    low, high = curve.band
    kept = [at for at in range(len(curve.x)) if _can_be_placed(low[at], frame) and _can_be_placed(high[at], frame)]
    kept = kept[:: math.ceil(len(kept) / _MOST_POINTS) or 1]
    points = [frame.at(curve.x[at], high[at]) for at in kept] + [
        frame.at(curve.x[at], low[at]) for at in reversed(kept)
    ]
    return f'<polygon class="band f{curve.colour}" points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in points)}"/>'


def _path(points: Sequence[tuple[float, float]], frame: _Frame) -> str:
    """A line through the points, broken where a value is no number, or none that the axis has."""
    steps, joined = [], False
    for x, y in points:
        if not _can_be_placed(y, frame):
            joined = False
            continue
        a, b = frame.at(x, y)
        steps.append(f"{'L' if joined else 'M'}{a:.1f} {b:.1f}")
        joined = True
    return "".join(steps)


def _can_be_placed(value: float, frame: _Frame) -> bool:
    return math.isfinite(value) and (value > 0 or not frame.y.is_logarithmic)


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most about 500 points that look the same: of neighbours the lowest and the highest."""
    if len(points) <= _MOST_POINTS:
        return points
    length = math.ceil(2 * len(points) / _MOST_POINTS)
    kept: list[tuple[float, float]] = []
    for begin in range(0, len(points), length):
        group = points[begin : begin + length]
        finite = [point for point in group if math.isfinite(point[1])] or group[:1]
        kept += sorted({min(finite, key=lambda point: point[1]), max(finite, key=lambda point: point[1])})
    return kept


def _x_axis(curves: Sequence[Curve], width: float) -> Axis:
    x = [value for curve in curves for value in curve.x]
    return linear_axis(min(x), max(x), _marks(width), tight=True)


def _marks(width: float) -> int:
    return 8 if width > 400 else 5


def _figure(title: str, legend: Sequence[tuple[str, int, bool]], drawings: dict[str, str]) -> str:
    entries = "".join(
        f'<li><span class="key b{colour}{" dashed" if is_dashed else ""}"></span>{html.escape(label)}</li>'
        for label, colour, is_dashed in legend
    )
    svgs = "".join(f'<div class="{kind}">{svg}</div>' for kind, svg in drawings.items())
    return (
        f"<figure><h3>{html.escape(title)}</h3>{f'<ul class=legend>{entries}</ul>' if entries else ''}{svgs}</figure>"
    )
