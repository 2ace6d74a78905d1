"""The screen: its widths, marks, colours, and what it says of each figure."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import combinations

import pytest

from paratrain.topology.known_machines import known_machine, machine_names
from paratrain.topology.link_figures import LinkFigure
from paratrain.topology.machine import CpuRank, Gpu, Link, LinkClass, Machine, MachineWarning
from paratrain.topology.planning.plan import plan_machine
from paratrain.topology.show.draw import PLAIN, WIDTH, Style, draw_plan

ESCAPE = re.compile("\x1b\\[[0-9;]*m")


def picture(machine: Machine, style: Style = PLAIN, shape: str = "auto", **verdicts: str) -> list[str]:
    found = {(int(pair[1]), int(pair[2])): verdict for pair, verdict in verdicts.items()}
    return draw_plan(plan_machine(machine, 10**6, shape=shape), style, found).splitlines()


def named(count: int, word: str = "NV18") -> Machine:
    gpus = tuple(
        Gpu(n, f"NVIDIA RTX PRO 6000 Blackwell Server Edition {n}", f"00000000:{n:02x}:00.0", numa_node=n // 4)
        for n in range(count)
    )
    links = tuple(Link(a, b, LinkClass.parse(word), "OK", "OK") for a, b in combinations(range(count), 2))
    warning = MachineWarning("T06", "the IOMMU translates, so that direct copies may be wrong; " * 4)
    return Machine(gpus, links, source="x" * 120, warnings=(warning,), driver_version="580.65.06", cuda_version="13.0")


@pytest.mark.parametrize("style", [PLAIN, Style(unicode=True), Style(unicode=True, colour=True)])
@pytest.mark.parametrize("count", [1, 2, 3, 8, 16])
def test_a_screen_is_at_most_100_columns_wide(count: int, style: Style) -> None:
    lines = [ESCAPE.sub("", line) for line in picture(named(count), style)]
    assert max(map(len, lines)) <= WIDTH
    if count <= 8:
        assert f"GPU{count - 1}" in lines[-1] or any(f"0000:{count - 1:02x}:00.0" in line for line in lines)


@pytest.mark.parametrize("count", [8, 14, 16, 40])
def test_deep_trees_stay_narrow(count: int) -> None:
    machine = replace(named(count, "PIX"), source="box")
    lines = picture(machine, shape="chain")
    assert max(map(len, lines)) <= WIDTH
    assert sum("GB/s" in line for line in lines) == count - 1


def test_sixteen_gpus_have_short_labels() -> None:
    lines = picture(known_machine("dgx2"))
    assert any(re.fullmatch(r" +0 +1 +2 .* 15 +NUMA", line) for line in lines)
    assert sum(line.startswith("GPU15 ") for line in lines) == 1


def test_more_gpus_than_a_screen_shows_are_counted() -> None:
    lines = picture(named(20, "PHB"), shape="index")
    assert "Links: 190 pairs PHB" in lines
    lines = picture(named(70, "PHB"), shape="index")
    assert "  level 1: 7 edges PHB" in lines


@pytest.mark.parametrize("name", machine_names())
def test_the_edges_of_the_tree_are_marked_in_both_halves(name: str) -> None:
    plan = plan_machine(known_machine(name), 10**6)
    marks = sum(line.count("*") for line in draw_plan(plan).splitlines() if re.match(r"GPU\d+ ", line))
    assert marks == 2 * len(plan.edges)


def test_plain_pictures_are_ascii_and_others_have_box_lines_and_colours() -> None:
    machine = known_machine("dgx1-v100")
    plain = "\n".join(picture(machine, shape="tree"))
    assert plain.isascii() and "\x1b" not in plain and "|-- GPU" in plain and "`-- GPU" in plain
    boxes = "\n".join(picture(machine, Style(unicode=True), "tree"))
    assert "├── GPU" in boxes and "└── GPU" in boxes and "|--" not in boxes and "\x1b" not in boxes
    colours = "\n".join(picture(machine, Style(colour=True), "tree"))
    assert "\x1b[" in colours and ESCAPE.sub("", colours) == plain


def test_where_each_figure_comes_from() -> None:
    machine = replace(named(3, "NODE"), measured={(0, 1): LinkFigure(21.5e9, 4e-6, origin="measured")})
    machine = machine.with_measured({(0, 2): LinkFigure(20.5e9, 4e-6, origin="file")})
    lines = picture(machine, shape="star")
    assert any(re.search(r"-- GPU\d +NODE +21\.5 GB/s +4\.0 us +measured", line) for line in lines)
    assert any(re.search(r"-- GPU\d +NODE +20\.5 GB/s +4\.0 us +file", line) for line in lines)
    assert any("figures of the links: " in line and "measured" in line for line in lines)


def test_what_the_driver_says_and_what_tests_have_found() -> None:
    machine = named(3, "NODE")
    links = tuple(replace(link, p2p_read="GNS") if link.b == 2 and link.a == 1 else link for link in machine.links)
    machine = replace(machine, links=links).with_vetoes({(0, 2): "copied wrong bytes"})
    lines = picture(machine, v01="ok", v02="wrong data")
    assert "P2P: driver: yes, tested: ok: 0-1" in lines
    assert "P2P: driver: yes, tested: wrong data -> host: 0-2" in lines
    assert "P2P: driver: no (GNS), not tested: 1-2" in lines
    assert any(line.endswith("copied wrong bytes") for line in lines if line.startswith("  ["))


def test_one_gpu_and_ranks_without_any() -> None:
    assert "Tree: GPU0 alone; nothing to exchange" in picture(named(1))
    lines = picture(Machine(cpu_ranks=tuple(CpuRank(n) for n in range(4)), no_gpu_reason="no driver"), shape="index")
    assert lines[0] == "no NVIDIA GPU: no driver"
    assert lines[1].startswith("Ranks on CPU cores use a binomial tree")
    assert sum("shared memory [1]" in line for line in lines) == 3
    assert draw_plan(plan_machine(Machine(no_gpu_reason="no driver"), 1)).splitlines()[0] == "no NVIDIA GPU: no driver"


def test_a_star_with_more_neighbours_than_cuda_opens_is_a_warning() -> None:
    lines = picture(known_machine("dgx2"), shape="star")
    assert next(line for line in lines if line.startswith("warning")).startswith(
        "warning T10: GPU0: more than 8 direct"
    )
    assert not [line for line in picture(known_machine("dgx2"), shape="tree") if line.startswith("warning")]
    assert not [line for line in picture(known_machine("dgx1-v100"), shape="star") if line.startswith("warning")]
