from __future__ import annotations

import math
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from paratrain.tools.report import make_page
from paratrain.tools.report.chart import Curve, line_chart
from paratrain.tools.report.tree import draw_tree
from paratrain.tools.runs import Run, open_run
from paratrain.topology.tree import Tree, chain
from tests.paths import GOLDEN
from tests.unit.tools.report.many_ranks import many_ranks


class Page(HTMLParser):
    """The texts, attributes and tags of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.open: list[str] = []
        self.links: list[str] = []
        self.feed(text)
        assert self.open == []  # every tag has its end

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "img"):
            self.open.append(tag)
        self.links += [value or "" for name, value in attributes if name in ("src", "href", "srcset", "xlink:href")]

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return open_run(many_ranks(tmp_path_factory.mktemp("many") / "many.jsonl"))


def test_everything_stands_on_the_page(many: Run) -> None:
    text = make_page(many)
    page = Page(text)
    for expected in (
        "GoogLeNet <with & in its name>", "2,995 of 3,000", "12 on 3 hosts", "Loss", "Accuracy", "Learning rate",
        "Where the time goes, on the root", "An iteration on each rank, in the mean",
        "rank 5 (node-b02.rack-03.cluster.example.org)",
        "12 ranks on 3 hosts, depth 3.", "warning T12: <b>two</b> ranks share a core", "(3 times)",
        "The 40 layers that take longest; the other 20 take 11.3% together.", "13,843",
    ):  # fmt: skip
        assert expected in page.texts, expected
    assert any(line.startswith("Rank 5 takes longest for data, forward and backward: 48 ms") for line in page.texts)
    # Each rank's 0.02 + 0.04 + ... of 5 iterations; rank 5 takes twice as long.
    assert page.texts.count("60 ms") == 11
    assert page.texts.count("120 ms") == 1
    assert len(text) < 400_000


def test_the_page_needs_nothing_beside_itself(many: Run) -> None:
    text = make_page(many, picture="<svg xmlns='http://www.w3.org/2000/svg'/>")
    page = Page(text)
    assert [link.split(",")[0] for link in page.links] == ["data:image/svg+xml;base64"]
    assert "<script" not in text
    assert "@import" not in text
    assert not re.search(r"url\(", text)


def test_a_log_of_caffe_tells_less(many: Run) -> None:
    page = Page(make_page(open_run(GOLDEN / "log/caffe_train.log"), title="Mine"))
    assert "Mine" in page.texts
    assert "88.20%" in page.texts
    assert not {"Ranks", "Tree", "Layers"} & set(page.texts)
    assert any("a log has no such figures" in text for text in page.texts)


def test_one_rank_and_one_displayed_iteration() -> None:
    run = Run("r")
    run.add_training(0, "loss", math.nan)
    run.add_training(0, "data_s", 0.0)
    run.layers = {"steps": 1, "forward_s": {"a": 0.0}, "backward_s": {}}
    run.facts = {"parents": [None], "hosts": ["h"]}
    page = Page(make_page(run))
    assert "1 on 1 host" in page.texts
    assert "Tree" not in page.texts


def test_curves_are_in_their_places() -> None:
    text = line_chart(
        "T", [Curve("a", [0, 50, 100], [0.0, math.nan, 10.0]), Curve("b", [0, 100], [5.0, 5.0], 1, True)], "x"
    )
    svg = ElementTree.fromstring(re.search(r"<svg.*?</svg>", text)[0])  # type: ignore[index]
    paths = [element.get("d") for element in svg if element.tag == "path"]
    left, right = 10 + 2 * 6.7, 600 - 14
    assert paths == [f"M{left:.1f} 210.0M{right:.1f} 10.0", f"M{left:.1f} 110.0L{right:.1f} 110.0"]
    assert line_chart("T", [Curve("a", [0.0], [math.inf])], "x") == ""


def test_many_points_are_thinned_and_keep_their_extremes() -> None:
    y = [1.0] * 100_000
    y[77_777], y[5] = 9.0, 0.0
    text = line_chart("T", [Curve("a", range(100_000), y)], "x")
    path = re.search(r'class="curve s0" d="([^"]*)"', text)[1]  # type: ignore[index]
    heights = {float(point.split()[1]) for point in re.split("[ML]", path)[1:]}
    assert len(re.split("[ML]", path)) < 600
    assert {min(heights), max(heights)} == {30.0, 210.0}  # 9 and 0 on an axis from 0 to 10


def test_losses_that_differ_much_are_on_a_logarithmic_scale() -> None:
    assert "T, logarithmic" in line_chart("T", [Curve("a", [0, 1], [0.001, 5.0])], "x", may_be_logarithmic=True)
    assert "logarithmic" not in line_chart("T", [Curve("a", [0, 1], [0.0, 5.0])], "x", may_be_logarithmic=True)


@pytest.mark.parametrize("tree", [Tree.from_parents([None]), chain(40), Tree.from_parents([None, *[0] * 30])])
def test_every_rank_is_in_the_tree(tree: Tree) -> None:
    text = draw_tree(tree, ["a", "b"] * (tree.size // 2), [1] * tree.size)
    assert text.count("<circle") == 2 * tree.size
    assert text.count('<path class="edge') == 2 * (tree.size - 1)
    for svg in re.findall(r"<svg.*?</svg>", text):
        ElementTree.fromstring(svg)
