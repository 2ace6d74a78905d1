"""What a link can do: bandwidth and latency, measured or the catalogue's default, and when data goes round it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from paratrain.topology.machine import Gpu, Link, LinkKind, Machine, Member
from paratrain.topology.resources import catalogue_folder


@dataclass(frozen=True)
class LinkFigure:
    """What one link can do: bytes a second in one direction, and the seconds that each transfer costs on top.

    `origin` is "default" (from the catalogue), "measured", or "file" (measured earlier and saved). `staged` is true
    where the pair does not copy directly, so that data goes through the host's memory.
    """

    bytes_per_s: float
    latency_s: float
    staged: bool = False
    origin: str = "default"

    def time_s(self, byte_count: int) -> float:
        """The predicted seconds for moving this many bytes over an otherwise idle link."""
        return self.latency_s + byte_count / self.bytes_per_s


@lru_cache(maxsize=1)
def figures() -> dict[str, Any]:
    """The content of the catalogue's links.json."""
    content: dict[str, Any] = json.loads((catalogue_folder() / "links.json").read_text(encoding="utf-8"))
    return content


def uncertainty(origin: str = "default") -> float:
    """How far a figure of this origin may be off, as a share of it; those of mixed origin as far as a default."""
    return float(figures()["uncertainty_measured" if origin in ("measured", "file") else "uncertainty"])


def nvlinks_per_gpu(compute_capability: str) -> int | None:
    """How many NVLinks a chip of this compute capability ("8.0") has; None if the catalogue does not know."""
    entry = figures()["nvlink"]["by_compute_capability"].get(compute_capability)
    return None if entry is None else int(entry["links_per_gpu"])


def staging_reason(machine: Machine, a: Gpu, b: Gpu) -> str:
    """Why data between two GPUs goes through the host's memory, in words; empty if they may copy directly."""
    link = machine.link(a.index, b.index)
    veto = machine.vetoes.get((link.a, link.b))
    refused = [word for word in dict.fromkeys((link.p2p_read, link.p2p_write)) if word not in ("", "OK", "U")]
    if veto:
        return veto
    if refused:
        return f"the driver allows no direct copies ({', '.join(refused)})"
    if a.mig or b.mig:
        return "MIG instances cannot copy directly"
    if link.link_class.kind is LinkKind.UNKNOWN:
        return "nobody said how the two are linked"
    return ""


def figure_of_pair(machine: Machine, a: Member, b: Member) -> LinkFigure:
    """The figure of the link between two members of a machine: the measured one, else the default one."""
    low, high = sorted((a.index, b.index))
    if (low, high) in machine.measured:
        return machine.measured[low, high]
    if not (isinstance(a, Gpu) and isinstance(b, Gpu)):
        numa_nodes = {a.numa_node, b.numa_node} - {None}
        entry = figures()["shared"]["between_numa_nodes" if len(numa_nodes) > 1 else "within_a_numa_node"]
        return LinkFigure(entry["gb_per_s"] * 1e9, entry["latency_us"] * 1e-6)
    return link_figure(machine.link(a.index, b.index), a, b, staged=bool(staging_reason(machine, a, b)))


def network_figure(machine: Machine) -> LinkFigure:
    """What one network card of this node can do."""
    if machine.network is not None:
        return machine.network
    entry = figures()["network"]
    return LinkFigure(entry["gb_per_s"] * 1e9, entry["latency_us"] * 1e-6)


def link_figure(link: Link, a: Gpu, b: Gpu, staged: bool = False) -> LinkFigure:
    """The default figure of the link between the GPUs a and b, through the host's memory if `staged`."""
    table = figures()
    kind = link.link_class.kind
    staged = staged or kind is LinkKind.UNKNOWN or {link.p2p_read, link.p2p_write} - {"", "OK", "U"} != set()
    if kind is LinkKind.NVLINK and not staged:
        nvlink = table["nvlink"]
        known = [
            nvlink["by_compute_capability"].get(gpu.compute_capability, nvlink)["gb_per_s_per_link"] for gpu in (a, b)
        ]
        return LinkFigure(link.link_class.nvlink_count * min(known) * 1e9, nvlink["latency_us"] * 1e-6)
    entry = table["staged"] if staged else table["classes"][kind.value]
    gb_per_s = min(_pcie_gb_per_s(a), _pcie_gb_per_s(b)) * entry["share_of_pcie"]
    gb_per_s = min(gb_per_s, entry.get("at_most_gb_per_s", gb_per_s))
    return LinkFigure(gb_per_s * 1e9, entry["latency_us"] * 1e-6, staged)


def slot_bytes_per_s(gpu: Gpu) -> float:
    """What the GPU's PCIe slot carries in each direction, by default."""
    return _pcie_gb_per_s(gpu) * 1e9


def _pcie_gb_per_s(gpu: Gpu) -> float:
    """The default rate of the GPU's PCIe slot in GB/s; of the nearest generation the catalogue has."""
    pcie = figures()["pcie"]
    by_generation = {int(generation): rate for generation, rate in pcie["gb_per_s_by_generation"].items()}
    wanted = gpu.pcie_generation or pcie["default_generation"]
    nearest = min(by_generation, key=lambda generation: abs(generation - wanted))
    width = min(gpu.pcie_width or pcie["full_width"], pcie["full_width"])
    return float(by_generation[nearest] * width / pcie["full_width"])
