"""The machine model: GPUs, the link of every pair, where the knowledge comes from and what is doubtful about it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING

from paratrain.errors import TopologyError

if TYPE_CHECKING:
    from paratrain.topology.link_figures import LinkFigure


class LinkKind(Enum):
    """How two GPUs are joined, from the nearest to the farthest; the words of ``nvidia-smi topo -m``."""

    SELF = "X"
    NVLINK = "NV"  # a number of bonded NVLinks, direct or through an NVSwitch
    PIX = "PIX"  # at most one PCIe bridge (or two GPUs of one board)
    PXB = "PXB"  # several PCIe bridges, no host bridge
    PHB = "PHB"  # through a PCIe host bridge
    NODE = "NODE"  # through several host bridges of one NUMA node
    SYS = "SYS"  # between NUMA nodes; SOC in texts of before 2017
    UNKNOWN = "?"  # nobody said; planned through the host's memory, which always works
    SHARED = "SHM"  # two CPU ranks of one node, through its memory; no word of nvidia-smi
    NETWORK = "NET"  # between two nodes; no word of nvidia-smi


_NOT_IN_TEXTS = (LinkKind.NVLINK.value, LinkKind.SHARED.value, LinkKind.NETWORK.value)


@dataclass(frozen=True)
class LinkClass:
    """The class of one pair's link: a kind, and for NVLINK the count of bonded links (at least 1)."""

    kind: LinkKind
    nvlink_count: int = 0

    @classmethod
    def parse(cls, word: str) -> LinkClass:
        """The class that a word such as ``NV4``, ``PHB`` or ``SOC`` stands for; TopologyError for any other word."""
        upper = word.strip().upper()
        match = re.fullmatch(r"NV([1-9]\d*)", upper)
        if match:
            return cls(LinkKind.NVLINK, int(match[1]))
        if upper == "SOC":
            return cls(LinkKind.SYS)
        if upper in _NOT_IN_TEXTS or upper not in LinkKind._value2member_map_:
            raise TopologyError(f"'{word}' is no link word; expected X, NV1, NV2 ..., PIX, PXB, PHB, NODE, SYS or SOC")
        return cls(LinkKind(upper))

    @property
    def word(self) -> str:
        """``NV4``, ``PHB``, ... ; ``?`` where nobody said."""
        return f"NV{self.nvlink_count}" if self.kind is LinkKind.NVLINK else self.kind.value

    def __str__(self) -> str:
        return self.word


SELF = LinkClass(LinkKind.SELF)
UNKNOWN = LinkClass(LinkKind.UNKNOWN)
SHARED = LinkClass(LinkKind.SHARED)
NETWORK = LinkClass(LinkKind.NETWORK)


@dataclass(frozen=True)
class Gpu:
    """One GPU. `index` is the number that ``-gpu`` and CUDA use; None or an empty text means that nobody said.

    `nvml_index` is the driver's own number, which differs from `index` where CUDA_VISIBLE_DEVICES hides GPUs.
    `numa_node` is the lowest NUMA node near the GPU, `cpu_affinity` the cores near it ("0-15,32-47").
    `pcie_generation` and `pcie_width` are the most that GPU and slot can do; the same with `_now` are what the link runs
    at, which is less on an idle GPU: `performance_state` 0 is full speed. `pci_path` names what lies between processor
    and GPU in Linux's PCI tree, the host bridge first and the GPU itself last. GPUs with the same `board` share one.
    `memory_numa_node` is the NUMA node that the GPU's own memory forms (Grace). `fabric` is the state of the NVSwitch
    fabric ("completed", "in progress", ...), `fabric_clique` names the part of it that the GPU belongs to.
    """

    index: int
    name: str = ""
    bus_id: str = ""
    uuid: str = ""
    memory_bytes: int | None = None
    memory_free_bytes: int | None = None
    numa_node: int | None = None
    cpu_affinity: str = ""
    compute_capability: str = ""
    pcie_generation: int | None = None
    pcie_width: int | None = None
    core_count: int | None = None
    clock_mhz: int | None = None
    mig: bool | None = None
    nvml_index: int | None = None
    pcie_generation_now: int | None = None
    pcie_width_now: int | None = None
    performance_state: int | None = None
    pci_path: tuple[str, ...] = ()
    board: str = ""
    memory_numa_node: int | None = None
    display_active: bool | None = None
    fabric: str = ""
    fabric_clique: str = ""


@dataclass(frozen=True)
class CpuRank:
    """One rank that computes on CPU cores. `index` is its number on its node; None or "" means that nobody said."""

    index: int
    numa_node: int | None = None
    cores: str = ""
    bus_id: str = ""  # always empty: what GPUs are told apart by


Member = Gpu | CpuRank


@dataclass(frozen=True)
class Link:
    """The link between the GPUs with the indices a < b; `p2p_read` and `p2p_write` are the driver's words (OK, GNS)."""

    a: int
    b: int
    link_class: LinkClass
    p2p_read: str = ""
    p2p_write: str = ""


@dataclass(frozen=True)
class MachineWarning:
    """Something the reader should know: a code that docs/topology.md explains, words, and a pair if it is about one."""

    code: str
    message: str
    pair: tuple[int, int] | None = None


@dataclass(frozen=True)
class Machine:
    """One node: its GPUs and the links of all their pairs, or, where `gpus` is empty, the CPU ranks that it runs.

    `source` says where it was read ("NVML", a file). `nvswitch` is true where NVLinks end on a switch, so that a GPU's
    whole port serves every peer. `no_gpu_reason` says in words why `gpus` is empty. Pairs are (a, b) with a < b:
    `measured` holds the figures that replace defaults, `vetoes` the pairs whose direct copies must not be used, with
    the reason. `network` is what one of the node's `network_cards` can do (None: the catalogue's default).
    TopologyError if an index appears twice, or a link, figure or veto names a GPU that is not there.
    """

    gpus: tuple[Gpu, ...] = ()
    links: tuple[Link, ...] = ()
    source: str = ""
    warnings: tuple[MachineWarning, ...] = ()
    nvswitch: bool = False
    no_gpu_reason: str = ""
    driver_version: str = ""
    cuda_version: str = ""
    cpu_ranks: tuple[CpuRank, ...] = ()
    measured: Mapping[tuple[int, int], LinkFigure] = field(default_factory=dict, hash=False)
    vetoes: Mapping[tuple[int, int], str] = field(default_factory=dict, hash=False)
    network: LinkFigure | None = None
    network_cards: int = 1
    _by_pair: dict[tuple[int, int], Link] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        indices = self.indices
        known = set(indices)
        if len(known) != len(indices):
            raise TopologyError(f"{self.source}: a GPU index appears twice: {list(indices)}")
        named = [("link", (link.a, link.b)) for link in self.links]
        named += [("figure", pair) for pair in self.measured] + [("veto", pair) for pair in self.vetoes]
        for what, (a, b) in named:
            if a >= b or a not in known or b not in known:
                raise TopologyError(
                    f"{self.source}: {what} {a}-{b} does not join two of the GPUs {list(indices)}, the lower one first"
                )
        self._by_pair.update(((link.a, link.b), link) for link in self.links)

    @property
    def members(self) -> tuple[Member, ...]:
        """Who takes part in exchanges: the GPUs, or the CPU ranks where there is no GPU."""
        return self.gpus or self.cpu_ranks

    @property
    def indices(self) -> tuple[int, ...]:
        """The indices of the members, in their order."""
        return tuple(member.index for member in self.members)

    def link(self, a: int, b: int) -> Link:
        """The link between the members with the indices a and b (in any order, a != b).

        The class is UNKNOWN for two GPUs of which nobody said it, and SHARED for two CPU ranks.
        """
        low, high = min(a, b), max(a, b)
        return self._by_pair.get((low, high)) or Link(low, high, UNKNOWN if self.gpus else SHARED)

    def link_class(self, a: int, b: int) -> LinkClass:
        """The class of the link between a and b; X where they are the same GPU."""
        return SELF if a == b else self.link(a, b).link_class

    def select(self, indices: Iterable[int]) -> Machine:
        """The machine with only these members, in this order, under their indices. TopologyError for an unknown one."""
        chosen = list(indices)
        unknown = [index for index in chosen if index not in self.indices]
        if unknown:
            raise TopologyError(f"{self.source}: no GPU {unknown[0]}; there are {gpu_list(self.indices)}")
        gpus = {gpu.index: gpu for gpu in self.gpus}
        cpu_ranks = {rank.index: rank for rank in self.cpu_ranks}
        return replace(
            self,
            gpus=tuple(gpus[index] for index in chosen if index in gpus),
            cpu_ranks=self.cpu_ranks if self.gpus else tuple(cpu_ranks[index] for index in chosen),
            links=tuple(link for link in self.links if link.a in chosen and link.b in chosen),
            measured={pair: figure for pair, figure in self.measured.items() if set(pair) <= set(chosen)},
            vetoes={pair: reason for pair, reason in self.vetoes.items() if set(pair) <= set(chosen)},
        )

    def with_measured(self, figures: Mapping[tuple[int, int], LinkFigure]) -> Machine:
        """The same machine with these figures in place of what was known of the pairs."""
        return replace(self, measured={**self.measured, **figures})

    def with_vetoes(self, reasons: Mapping[tuple[int, int], str]) -> Machine:
        """The same machine, in which these pairs go through the host's memory; the reasons are shown with the plan."""
        return replace(self, vetoes={**self.vetoes, **reasons})

    def with_warnings(self, *warnings: MachineWarning) -> Machine:
        """The same machine with further warnings."""
        return replace(self, warnings=self.warnings + warnings)


def gpu_list(indices: Iterable[int]) -> str:
    """``2 GPUs (0, 1)``, ``1 GPU (0)``, ``0 GPUs``."""
    numbers = list(indices)
    names = f" ({', '.join(map(str, numbers))})" if numbers else ""
    return f"{len(numbers)} GPU{'' if len(numbers) == 1 else 's'}{names}"


def has_nvswitch(nvlink_counts: Iterable[Iterable[int]], links_per_gpu: int = 18) -> bool:
    """Whether NVLinks end on a switch: some GPU's pairs together count more links than the chip has.

    `nvlink_counts` holds, for each GPU, the NVLink counts of its pairs; 18 is the most any chip has had so far.
    """
    return any(sum(row) > links_per_gpu for row in nvlink_counts)
