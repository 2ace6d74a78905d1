"""Places for the nodes of an acyclic graph: in rows from the top down, with few crossings and arrows as straight as they go.

The method is Sugiyama's (Sugiyama, Tagawa, Toda, "Methods for visual understanding of hierarchical system structures", 1981):
rows by longest path, an arrow over several rows led through a point in each, rows sorted by the mean place of their
neighbours, then places chosen row by row, as near to the neighbours' mean as order and widths allow.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Layout", "lay_out"]

_SORTINGS = 12
_PLACINGS = 24
_POINT_WIDTH = 0.12
_POINT_WEIGHT = 4.0  # long arrows are kept straight at the cost of the nodes beside them


@dataclass
class Layout:
    """Where things are; lengths in the unit of the widths and heights given, y grows downwards."""

    centers: list[tuple[float, float]]
    """The center of each node."""
    routes: list[list[tuple[float, float]]]
    """For each edge, the points that it is led through between its ends."""
    width: float
    height: float


def lay_out(
    sizes: Sequence[tuple[float, float]], edges: Sequence[tuple[int, int]], *, gap: float = 0.3, row_gap: float = 0.4
) -> Layout:
    """Lay out nodes of these sizes (width, height); ``edges`` go from a node to one of a higher number."""
    rows_of = _rows(len(sizes), edges)
    widths = [width for width, _ in sizes]
    row_count = max(rows_of, default=-1) + 1
    chains: list[list[int]] = []  # every edge as a path of nodes and points
    for start, stop in edges:
        points = list(range(len(widths), len(widths) + rows_of[stop] - rows_of[start] - 1))
        widths += [_POINT_WIDTH] * len(points)
        rows_of += range(rows_of[start] + 1, rows_of[stop])
        chains.append([start, *points, stop])
    links = [(a, b) for chain in chains for a, b in itertools.pairwise(chain)]
    rows: list[list[int]] = [[] for _ in range(row_count)]
    for item, row in enumerate(rows_of):
        rows[row].append(item)
    above, below = _neighbours(links)
    _sort_rows(rows, above, below)
    x = _place(rows, widths, above, below, gap, len(sizes))
    left = min((x[item] - widths[item] / 2 for item in range(len(widths))), default=0.0)
    x = [place - left for place in x]
    heights = [max((sizes[item][1] for item in row if item < len(sizes)), default=0.0) for row in rows]
    tops, total = [], 0.0
    for height in heights:
        tops.append(total)
        total += height + row_gap
    y = [tops[row] + heights[row] / 2 for row in rows_of]
    return Layout(
        centers=list(zip(x, y, strict=True))[: len(sizes)],
        # An arrow passes a row at its upper and its lower edge, so that it does not cut through a box beside it.
        routes=[
            [
                (x[item], level)
                for item in chain[1:-1]
                for level in (tops[rows_of[item]], tops[rows_of[item]] + heights[rows_of[item]])
            ]
            for chain in chains
        ],
        width=max((x[item] + widths[item] / 2 for item in range(len(widths))), default=0.0),
        height=max(0.0, total - row_gap),
    )


def _rows(count: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    """The row of each node: one below the lowest of its makers; makers without makers stand just above their first reader."""
    rows = [0] * count
    for start, stop in sorted(edges, key=lambda edge: edge[1]):
        assert start < stop
        rows[stop] = max(rows[stop], rows[start] + 1)
    has_maker = {stop for _, stop in edges}
    readers = defaultdict(list)
    for start, stop in edges:
        readers[start].append(rows[stop])
    for node in range(count):
        if node not in has_maker and readers[node]:
            rows[node] = min(readers[node]) - 1
    return rows


def _neighbours(links: Sequence[tuple[int, int]]) -> tuple[dict[int, list[int]], dict[int, list[int]]]:
    above: dict[int, list[int]] = defaultdict(list)
    below: dict[int, list[int]] = defaultdict(list)
    for start, stop in links:
        above[stop].append(start)
        below[start].append(stop)
    return above, below


def _sort_rows(rows: list[list[int]], above: dict[int, list[int]], below: dict[int, list[int]]) -> None:
    """Sort each row by the mean place of its neighbours in the row before, downwards and upwards in turn."""
    best, best_crossings = [list(row) for row in rows], _crossings(rows, below)
    for turn in range(_SORTINGS):
        neighbours, order = (above, rows[1:]) if turn % 2 == 0 else (below, rows[-2::-1])
        place = {item: index / max(len(row), 1) for row in rows for index, item in enumerate(row)}
        for row in order:
            means = {item: _mean([place[other] for other in neighbours[item]], place[item]) for item in row}
            row.sort(key=means.__getitem__)
            place.update({item: index / len(row) for index, item in enumerate(row)})
        crossings = _crossings(rows, below)
        if crossings < best_crossings:
            best, best_crossings = [list(row) for row in rows], crossings
    rows[:] = best


def _crossings(rows: list[list[int]], below: dict[int, list[int]]) -> int:
    count = 0
    for row, following in itertools.pairwise(rows):
        place = {item: index for index, item in enumerate(following)}
        ends = [end for item in row for end in sorted(place[other] for other in below[item])]
        count += sum(1 for index, end in enumerate(ends) for other in ends[:index] if other > end)
    return count


def _place(
    rows: list[list[int]],
    widths: list[float],
    above: dict[int, list[int]],
    below: dict[int, list[int]],
    gap: float,
    node_count: int,
) -> list[float]:
    x = [0.0] * len(widths)
    weights = [1.0 if item < node_count else _POINT_WEIGHT for item in range(len(widths))]
    for row in rows:
        _settle(row, [0.0] * len(row), widths, weights, gap, x)
    for turn in range(_PLACINGS):
        neighbours, order = (above, rows) if turn % 2 == 0 else (below, rows[::-1])
        for row in order:
            wanted = [_mean([x[other] for other in neighbours[item]], x[item]) for item in row]
            _settle(row, wanted, widths, weights, gap, x)
    return x


def _settle(
    row: list[int], wanted: list[float], widths: list[float], weights: list[float], gap: float, x: list[float]
) -> None:
    """Write to ``x`` the places nearest to those ``wanted`` (least squares) that keep order and distances.

    Less the distances from the first, places must only grow: a regression that merges neighbours while they do not.
    """
    offsets, total = [], 0.0
    for index, item in enumerate(row):
        if index:
            total += (widths[row[index - 1]] + widths[item]) / 2 + gap
        offsets.append(total)
    groups: list[tuple[float, float, int]] = []  # mean, weight, members
    for item, place, offset in zip(row, wanted, offsets, strict=True):
        mean, weight, count = place - offset, weights[item], 1
        while groups and groups[-1][0] > mean:
            other_mean, other_weight, other_count = groups.pop()
            mean = (mean * weight + other_mean * other_weight) / (weight + other_weight)
            weight, count = weight + other_weight, count + other_count
        groups.append((mean, weight, count))
    means = [mean for mean, _, count in groups for _ in range(count)]
    for item, mean, offset in zip(row, means, offsets, strict=True):
        x[item] = mean + offset


def _mean(values: Sequence[float], default: float) -> float:
    return sum(values) / len(values) if values else default
