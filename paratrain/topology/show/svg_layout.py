"""Where things lie in the picture of a plan: GPUs on an oval, boxes around the NUMA nodes, numbers on the edges."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH = 600.0
RADIUS = 22.0  # of a GPU
LABEL_RADIUS = 9.0  # of the number on an edge
_TOP = 78.0  # below the title
_HALF_WIDTH = 205.0  # of the oval
_ROW = 88.0  # between GPUs of one box: room for an arrow and its number
_CAPTION = 24.0  # above the first GPU of a box, for the box's name
_MARGIN = 9.0  # between a box and its GPUs
_GAP = 12.0  # between boxes

Point = tuple[float, float]


@dataclass(frozen=True)
class Box:
    """A rectangle around the GPUs of one group, with the group's name."""

    name: str
    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True)
class Layout:
    """The centre of each GPU, the boxes, and the y coordinate at which what comes below may begin."""

    centres: tuple[Point, ...]
    boxes: tuple[Box, ...]
    bottom: float

    @property
    def is_roomy(self) -> bool:
        """Whether there is room for lines between all GPUs to be seen one by one."""
        return len(self.centres) <= 8


@dataclass(frozen=True)
class Curve:
    """A quadratic Bezier curve: start, the point that it bends towards, end."""

    start: Point
    bend: Point
    end: Point

    def at(self, share: float) -> Point:
        """The point at a share of the way, 0 to 1."""
        a, b, c = (1 - share) ** 2, 2 * share * (1 - share), share**2
        x, y = (a * p + b * q + c * r for p, q, r in zip(self.start, self.bend, self.end, strict=True))
        return x, y

    def shortened(self, start_radius: float, end_radius: float) -> Curve:
        """The part of the curve outside two circles around its ends."""
        shares = [step / 200 for step in range(201)]
        begin = next((share for share in shares if math.dist(self.at(share), self.start) >= start_radius), 0.0)
        end = next((share for share in reversed(shares) if math.dist(self.at(share), self.end) >= end_radius), 1.0)
        if begin >= end:
            return self
        bend = tuple(
            (1 - begin) * (1 - end) * p + (begin + end - 2 * begin * end) * q + begin * end * r
            for p, q, r in zip(self.start, self.bend, self.end, strict=True)
        )
        return Curve(self.at(begin), (bend[0], bend[1]), self.at(end))


def lay_out(groups: Sequence[tuple[str, Sequence[int]]], count: int) -> Layout:
    """Place `count` GPUs, of which each group (a name, empty for no box, and its GPUs) keeps together.

    The first groups go down the left half of an oval, the others down its right half; a single group takes both. No
    three GPUs lie on a line, so that no link is hidden by another.
    """
    left, right = _halves(groups)
    heights = [sum(_height(name, members) for name, members in half) + _GAP * (len(half) - 1) for half in (left, right)]
    height = max(*heights, 1.5 * _ROW)
    middle = _TOP + height / 2
    rows: dict[int, float] = {}
    spans: list[tuple[str, Sequence[int], float, float]] = []
    for half, own_height in zip((left, right), heights, strict=True):
        y = middle - own_height / 2
        for name, members in half:
            begin = y + (_CAPTION if name else 0.0)
            rows |= {member: begin + (place + 0.5) * _ROW for place, member in enumerate(members)}
            spans.append((name, members, y, _height(name, members)))
            y += _height(name, members) + _GAP
    on_left = {member for _, members in left for member in members}
    centres = []
    for member in range(count):
        share = (rows[member] - middle) / (height / 2 * 1.12)
        x = _HALF_WIDTH * math.sqrt(1 - share * share)
        centres.append((WIDTH / 2 + (-x if member in on_left else x), rows[member]))
    boxes = _boxes(spans, centres)
    return Layout(tuple(centres), boxes, middle + height / 2 + _GAP)


def curve_between(layout: Layout, one: int, other: int) -> Curve:
    """The line between two GPUs: straight from half to half, bent inwards within one, so as to pass GPUs between."""
    (x, y), (u, v) = start, end = layout.centres[one], layout.centres[other]
    bend = ((x + u) / 2, (y + v) / 2)
    if (x < WIDTH / 2) == (u < WIDTH / 2):
        rows_between = abs(y - v) / _ROW - 1
        depth = (30.0 + 36.0 * rows_between) if rows_between > 0.5 else 0.0
        inwards = 1.0 if x < WIDTH / 2 else -1.0
        innermost = WIDTH / 2 - inwards * 8.0
        bent = bend[0] + inwards * depth
        bend = (min(bent, innermost) if inwards > 0 else max(bent, innermost), bend[1])
    return Curve(start, bend, end)


def place_labels(layout: Layout, curves: Sequence[Curve]) -> list[Point]:
    """A place on each curve for its number, clear of GPUs, names, other numbers and other curves where that can be."""
    samples = [[curve.at(step / 16) for step in range(17)] for curve in curves]
    placed: list[Point] = []
    for own, curve in enumerate(curves):
        best, most = curve.at(0.5), -math.inf
        for step in range(28):
            point = curve.at(0.5 + (step + 1) // 2 * (1 if step % 2 else -1) / 40)
            room = _room(point, layout, placed)
            if room > 2.0:  # else it is not worth looking at the curves
                others = (sample for number, points in enumerate(samples) if number != own for sample in points)
                room = min(room, 2.0 + min((math.dist(point, other) for other in others), default=math.inf))
            if room > most:
                best, most = point, room
            if room > 2.0 + 1.6 * LABEL_RADIUS:
                break
        placed.append(best)
    return placed


def _room(point: Point, layout: Layout, placed: Sequence[Point]) -> float:
    """The distance from a number's rim to the nearest GPU, name or number."""
    gpus = (math.dist(point, centre) - RADIUS for centre in layout.centres)
    numbers = (math.dist(point, other) - LABEL_RADIUS for other in placed)
    names = (_distance(point, box) for box in layout.boxes)
    return min(*gpus, *numbers, *names, math.inf) - LABEL_RADIUS


def _distance(point: Point, box: Box) -> float:
    """The distance between a point and the name of a box."""
    left, right, top, bottom = box.left + 8, box.left + 14 + 7.5 * len(box.name), box.top + 4, box.top + 22
    x, y = point
    return math.hypot(max(left - x, 0.0, x - right), max(top - y, 0.0, y - bottom))


def _halves(groups: Sequence[tuple[str, Sequence[int]]]) -> tuple[list[tuple[str, list[int]]], ...]:
    everything = [(name, list(members)) for name, members in groups]
    if len(everything) == 1:
        name, members = everything[0]
        cut = (len(members) + 1) // 2
        # From the top left round to the top right: neighbours in number are neighbours in the picture.
        return [(name, members[:cut])], [(name, members[cut:][::-1])] if members[cut:] else []
    total = sum(len(members) for _, members in everything)
    left: list[tuple[str, list[int]]] = []
    while len(everything) > 1 and sum(len(members) for _, members in left) + len(everything[0][1]) <= (total + 1) // 2:
        left.append(everything.pop(0))
    if not left:
        left.append(everything.pop(0))
    return left, everything


def _height(name: str, members: Sequence[int]) -> float:
    return len(members) * _ROW + (_CAPTION if name else 0.0)


def _boxes(spans: Sequence[tuple[str, Sequence[int], float, float]], centres: Sequence[Point]) -> tuple[Box, ...]:
    reach = RADIUS + _MARGIN
    names = {name for name, _, _, _ in spans}
    boxes = []
    if len(names) == 1 and len(spans) == 2:  # one group, in both halves
        spans = [(spans[0][0], range(len(centres)), spans[0][2], spans[0][3])]
    for name, members, top, height in spans:
        if name:
            xs = [centres[member][0] for member in members]
            width = max(max(xs) - min(xs) + 2 * reach, 9.0 * len(name))
            boxes.append(Box(name, (min(xs) + max(xs) - width) / 2, top, width, height))
    return tuple(boxes)
