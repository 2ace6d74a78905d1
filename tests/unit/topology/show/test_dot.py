"""The text for Graphviz."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace

import pytest

from paratrain.topology.known_machines import known_machine
from paratrain.topology.machine import CpuRank, Machine
from paratrain.topology.planning.plan import plan_machine
from paratrain.topology.show.dot import draw_dot

MACHINES = {
    "dgx1": known_machine("dgx1-v100"),
    "one": known_machine("dgx1-v100").select([3]),
    "ranks": Machine(cpu_ranks=(CpuRank(0, 0), CpuRank(1, 1))),
    "strange": replace(known_machine("caffe-4x-pcie"), source='a "quoted" \\ name\x1b\n}'),
}


@pytest.mark.parametrize("name", MACHINES)
def test_members_links_and_edges(name: str) -> None:
    plan = plan_machine(MACHINES[name], 10**6)
    text = draw_dot(plan)
    count = len(plan.machine.members)
    assert len(re.findall(r"^ +m\d+ \[", text, re.MULTILINE)) == count
    arrows = re.findall(r"^ +m(\d+) -> m(\d+) \[(.*)\];$", text, re.MULTILINE)
    assert len(arrows) == count * (count - 1) // 2
    in_tree = {(int(a), int(b)) for a, b, rest in arrows if "dir=none" not in rest}
    assert in_tree == {(edge.parent, edge.child) for edge in plan.edges}
    assert text.count("{") - text.count("}") == (-1 if name == "strange" else 0)
    quotes = re.sub(r"\\.", "", text)
    assert quotes.count('"') % 2 == 0 and "\x1b" not in text


@pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz's dot is not installed")
@pytest.mark.parametrize("name", MACHINES)
def test_graphviz_reads_it(name: str) -> None:
    text = draw_dot(plan_machine(MACHINES[name], 10**6))
    done = subprocess.run(["dot", "-Tplain"], input=text, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
