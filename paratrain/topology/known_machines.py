"""The machines of the catalogue: well-known boxes, for teaching, for tests and for planning without one."""

from __future__ import annotations

import difflib
import json
from typing import Any

from paratrain.errors import TopologyError
from paratrain.topology.link_figures import LinkFigure
from paratrain.topology.machine import Gpu, Link, LinkClass, Machine
from paratrain.topology.resources import catalogue_folder


def machine_names() -> list[str]:
    """The names that `known_machine` takes, sorted."""
    return sorted(path.stem for path in catalogue_folder().glob("*.json") if path.stem != "links")


def known_machine(name: str) -> Machine:
    """The catalogue's machine of this name. TopologyError with the nearest names if there is none."""
    names = machine_names()
    if name not in names:
        close = difflib.get_close_matches(name.lower(), names, n=2, cutoff=0.4)
        hint = f"did you mean {' or '.join(close)}? " if close else ""
        raise TopologyError(f"no machine '{name}' in the catalogue; {hint}Known: {', '.join(names)}")
    path = catalogue_folder() / f"{name}.json"
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    rows = [[LinkClass.parse(word) for word in row.split()] for row in content["matrix"]]
    gpus = tuple(
        Gpu(
            index,
            name=content["gpu"],
            numa_node=numa_node,
            compute_capability=content["compute_capability"] or "",
            pcie_generation=content["pcie_generation"],
        )
        for index, numa_node in enumerate(content["numa_nodes"])
    )
    links = tuple(Link(a, b, rows[a][b]) for a in range(len(rows)) for b in range(a + 1, len(rows)))
    network = content.get("network")
    return Machine(
        gpus,
        links,
        source=f"catalogue: {content['title']}",
        nvswitch=content["nvswitch"],
        network=network and LinkFigure(network["gb_per_s"] * 1e9, network["latency_us"] * 1e-6),
        network_cards=network["cards"] if network else 1,
    )
