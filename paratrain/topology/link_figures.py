"""The catalogue's default figures: bandwidth and latency of a link, where nobody measured them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from paratrain.topology.machine import Gpu, Link, LinkKind
from paratrain.topology.resources import catalogue_folder


@dataclass(frozen=True)
class LinkFigure:
    """What one link can do: bytes a second in one direction, and the seconds that each transfer costs on top.

    `origin` is "default" (from the catalogue). `staged` is true where the driver says that the pair cannot copy
    directly, so that data goes through the host's memory.
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


def uncertainty() -> float:
    """How far a default figure may be off, as a share of it."""
    return float(figures()["uncertainty"])


def nvlinks_per_gpu(compute_capability: str) -> int | None:
    """How many NVLinks a chip of this compute capability ("8.0") has; None if the catalogue does not know."""
    entry = figures()["nvlink"]["by_compute_capability"].get(compute_capability)
    return None if entry is None else int(entry["links_per_gpu"])


def link_figure(link: Link, a: Gpu, b: Gpu) -> LinkFigure:
    """The default figure of the link between the GPUs a and b; an unknown link counts as SYS."""
    table = figures()
    kind = link.link_class.kind
    if kind is LinkKind.NVLINK:
        nvlink = table["nvlink"]
        known = [
            nvlink["by_compute_capability"].get(gpu.compute_capability, nvlink)["gb_per_s_per_link"] for gpu in (a, b)
        ]
        return LinkFigure(link.link_class.nvlink_count * min(known) * 1e9, nvlink["latency_us"] * 1e-6)
    staged = any(status not in ("", "OK", "U") for status in (link.p2p_read, link.p2p_write))
    entry = table["staged"] if staged else table["classes"]["SYS" if kind is LinkKind.UNKNOWN else kind.value]
    gb_per_s = min(_pcie_gb_per_s(a), _pcie_gb_per_s(b)) * entry["share_of_pcie"]
    gb_per_s = min(gb_per_s, entry.get("at_most_gb_per_s", gb_per_s))
    return LinkFigure(gb_per_s * 1e9, entry["latency_us"] * 1e-6, staged)


def _pcie_gb_per_s(gpu: Gpu) -> float:
    """The default rate of the GPU's PCIe slot in GB/s; of the nearest generation the catalogue has."""
    pcie = figures()["pcie"]
    by_generation = {int(generation): rate for generation, rate in pcie["gb_per_s_by_generation"].items()}
    wanted = gpu.pcie_generation or pcie["default_generation"]
    nearest = min(by_generation, key=lambda generation: abs(generation - wanted))
    width = min(gpu.pcie_width or pcie["full_width"], pcie["full_width"])
    return float(by_generation[nearest] * width / pcie["full_width"])
