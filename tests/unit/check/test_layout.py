"""The layout of pictures: nothing overlaps, arrows go down, chains are straight."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paratrain.check.layout import lay_out


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[tuple[float, float]], list[tuple[int, int]]]:
    count = draw(st.integers(1, 12))
    side = st.floats(0.2, 3.0)
    sizes = draw(st.lists(st.tuples(side, side), min_size=count, max_size=count))
    pairs = [(a, b) for b in range(count) for a in range(b)]
    edges = draw(st.lists(st.sampled_from(pairs), max_size=20)) if pairs else []
    return sizes, edges


@given(graphs())
def test_boxes_do_not_overlap_and_arrows_go_down(
    graph: tuple[list[tuple[float, float]], list[tuple[int, int]]],
) -> None:
    sizes, edges = graph
    layout = lay_out(sizes, edges, gap=0.3, row_gap=0.4)
    boxes = [(x - w / 2, y - h / 2, x + w / 2, y + h / 2) for (x, y), (w, h) in zip(layout.centers, sizes, strict=True)]
    for index, (left, top, right, bottom) in enumerate(boxes):
        assert left >= -1e-6 and top >= -1e-6 and right <= layout.width + 1e-6 and bottom <= layout.height + 1e-6
        for other_left, other_top, other_right, other_bottom in boxes[:index]:
            apart_x = left >= other_right + 0.3 - 1e-6 or other_left >= right + 0.3 - 1e-6
            assert apart_x or top >= other_bottom + 0.4 - 1e-6 or other_top >= bottom + 0.4 - 1e-6
    for (start, stop), route in zip(edges, layout.routes, strict=True):
        levels = [boxes[start][3], *[y for _, y in route], boxes[stop][1]]
        assert levels == sorted(levels)
        for x, y in route:
            for left, top, right, bottom in boxes:
                assert not (left < x < right and top < y < bottom), "an arrow is led through a box"


def test_a_chain_is_straight_and_a_fork_is_symmetric() -> None:
    chain = lay_out([(1, 1)] * 5, [(i, i + 1) for i in range(4)])
    assert len({round(x, 6) for x, _ in chain.centers}) == 1
    fork = lay_out([(1, 1)] * 5, [(0, 1), (0, 2), (0, 3), (1, 4), (2, 4), (3, 4)])
    xs = [x for x, _ in fork.centers]
    assert xs[0] == pytest.approx(xs[4]) == pytest.approx(sum(xs[1:4]) / 3)
    assert sorted(xs[1:4]) == pytest.approx([0.5, 1.8, 3.1])


def test_crossings_are_undone() -> None:
    layout = lay_out([(1, 1)] * 4, [(0, 3), (1, 2)])
    (a, _), (b, _), (c, _), (d, _) = layout.centers
    assert (a < b) == (d < c)


def test_nothing_to_lay_out() -> None:
    layout = lay_out([], [])
    assert (layout.width, layout.height) == (0, 0)
