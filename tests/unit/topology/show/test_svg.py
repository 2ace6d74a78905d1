"""The picture: well-formed, complete, and with nothing on top of anything that is to be read."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from xml.etree import ElementTree

import pytest

from paratrain.errors import TopologyError
from paratrain.topology.known_machines import known_machine, machine_names
from paratrain.topology.machine import CpuRank, Gpu, Link, LinkClass, Machine
from paratrain.topology.planning.plan import Plan, plan_machine
from paratrain.topology.show.svg import MOST_MEMBERS, draw_svg
from paratrain.topology.show.svg_layout import RADIUS, curve_between, lay_out

SVG = "{http://www.w3.org/2000/svg}"


def machine_of(count: int, numa_nodes: list[int | None], word: str = "PHB") -> Machine:
    gpus = tuple(Gpu(index, numa_node=numa_nodes[index % len(numa_nodes)]) for index in range(count))
    links = tuple(Link(a, b, LinkClass.parse(word)) for a, b in combinations(range(count), 2))
    return Machine(gpus, links, source="test")


MACHINES = {
    **{name: known_machine(name) for name in machine_names()},
    **{f"{count}, one NUMA node": machine_of(count, [0]) for count in (1, 2, 3, 5, 7, 13, 16)},
    **{f"{count}, NUMA nodes unknown": machine_of(count, [None]) for count in (2, 4, 9)},
    "16 in turns": machine_of(16, [0, 1]),
    "8 NUMA nodes": machine_of(8, list(range(8)), "SYS"),
    "3 NUMA nodes": machine_of(9, [0, 1, 2]),
    "some unknown": machine_of(6, [0, None]),
    "ranks": Machine(source="CPU ranks", cpu_ranks=tuple(CpuRank(n, n // 2) for n in range(4))),
}


def plan_of(name: str) -> Plan:
    return plan_machine(MACHINES[name], 10**8)


def boxes_of_texts(svg: ElementTree.Element) -> list[tuple[str, float, float, float, float]]:
    """Each text with the rectangle it takes, in a font as wide as DejaVu Sans."""
    found = []
    for text in svg.iter(f"{SVG}text"):
        size, content = float(text.get("font-size", "13")), text.text or ""
        width = len(content) * size * (0.6 if text.get("font-weight") == "bold" else 0.54)
        x, y = float(text.get("x", "0")), float(text.get("y", "0"))
        left = x - width / 2 if text.get("text-anchor") == "middle" else x
        found.append((content, left, y - 0.8 * size, left + width, y + 0.2 * size))
    return found


@pytest.mark.parametrize("name", MACHINES)
def test_nothing_that_is_read_is_covered(name: str) -> None:
    svg = ElementTree.fromstring(draw_svg(plan_of(name)))
    width, height = (float(svg.get(side, "0")) for side in ("width", "height"))
    assert width == 600
    texts = boxes_of_texts(svg)
    for content, left, top, right, bottom in texts:
        assert left >= 0 and right <= width and top >= 0 and bottom <= height, content
    for one, other in combinations(texts, 2):
        apart = one[3] <= other[1] or other[3] <= one[1] or one[4] <= other[2] or other[4] <= one[2]
        assert apart, (one, other)
    circles = [tuple(float(c.get(key, "0")) for key in ("cx", "cy", "r")) for c in svg.iter(f"{SVG}circle")]
    for (x, y, r), (u, v, s) in combinations(circles, 2):
        assert ((x - u) ** 2 + (y - v) ** 2) ** 0.5 >= r + s


@pytest.mark.parametrize("name", MACHINES)
def test_every_member_link_and_edge_is_drawn_and_named(name: str) -> None:
    plan = plan_of(name)
    svg = ElementTree.fromstring(draw_svg(plan))
    titles = [element.text or "" for element in svg.iter(f"{SVG}title")][1:]
    count = len(plan.machine.members)
    assert len([t for t in titles if " to " in t and "level" in t]) == count - 1
    assert len([t for t in titles if " - " in t]) == count * (count - 1) // 2 - (count - 1)
    assert len([t for t in titles if "root of the tree" in t]) == 1
    assert len(list(svg.iter(f"{SVG}polygon"))) == count - 1
    numbers = {member.numa_node for member in plan.machine.members} - {None}
    assert {f"NUMA {number}" for number in numbers} <= {text.text for text in svg.iter(f"{SVG}text")}


def test_what_the_lines_say() -> None:
    plan = plan_machine(known_machine("dgx1-v100"), 10**5, 0)
    svg = ElementTree.fromstring(draw_svg(plan))
    widths: dict[str, set[str]] = {}
    for path in svg.iter(f"{SVG}path"):
        title = path.find(f"{SVG}title")
        if title is not None and title.text and " - " in title.text:
            word = title.text.split(": ")[1].split(",")[0]
            widths.setdefault(word, set()).add(
                f"{path.get('stroke-width')} {path.get('stroke')} {path.get('stroke-dasharray')}"
            )
    assert set(widths) == {"NV1", "NV2", "SYS"}
    assert all(len(found) == 1 for found in widths.values())
    width = {word: float(next(iter(found)).split()[0]) for word, found in widths.items()}
    assert width["NV2"] > width["NV1"] > width["SYS"]
    assert widths["SYS"].pop().split()[1:] != widths["NV1"].pop().split()[1:]


def test_strange_names_stay_text() -> None:
    strange = replace(machine_of(2, [0]), source="<b>&\"'\x1b[1m\x00]]>", gpus=(Gpu(0, "<&>"), Gpu(1)))
    text = draw_svg(plan_machine(strange, 1000))
    svg = ElementTree.fromstring(text)
    assert "<b>" in (next(svg.iter(f"{SVG}title")).text or "")
    assert "\x1b" not in text and "\x00" not in text


def test_the_same_plan_gives_the_same_picture() -> None:
    assert draw_svg(plan_of("dgx1-v100")) == draw_svg(plan_of("dgx1-v100"))


def test_no_line_passes_below_a_gpu() -> None:
    """Every straight or bent line keeps off the GPUs that it does not join, in layouts up to 16 GPUs in 2 boxes."""
    for count in (4, 8, 16):
        half = count // 2
        layout = lay_out([("a", range(half)), ("b", range(half, count))], count)
        for one, other in combinations(range(count), 2):
            curve = curve_between(layout, one, other)
            for member in set(range(count)) - {one, other}:
                x, y = layout.centres[member]
                nearest = min(
                    ((x - u) ** 2 + (y - v) ** 2) ** 0.5 for u, v in map(curve.at, [s / 50 for s in range(51)])
                )
                assert nearest > RADIUS, (count, one, other, member, nearest)


@pytest.mark.parametrize("count", [0, MOST_MEMBERS + 1])
def test_too_few_or_many(count: int) -> None:
    with pytest.raises(TopologyError, match=f"a picture shows 1 to {MOST_MEMBERS} members, found {count}"):
        draw_svg(plan_machine(replace(machine_of(count, [0]), links=()), 1000, shape="index"))


def test_many_gpus_show_the_links_of_the_tree_alone() -> None:
    plan = plan_machine(machine_of(40, [0, 1]), 1000, shape="index")
    svg = ElementTree.fromstring(draw_svg(plan))
    assert not [t for t in svg.iter(f"{SVG}title") if t.text and t.text.startswith("GPU0 - ")]
    assert len(list(svg.iter(f"{SVG}polygon"))) == 39
