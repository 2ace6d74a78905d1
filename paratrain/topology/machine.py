"""The machine model: GPUs, the link of every pair, where the knowledge comes from and what is doubtful about it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import Enum

from paratrain.errors import TopologyError


class LinkKind(Enum):
    """How two GPUs are joined, from the nearest to the farthest; the words of ``nvidia-smi topo -m``."""

    SELF = "X"
    NVLINK = "NV"  # a number of bonded NVLinks, direct or through an NVSwitch
    PIX = "PIX"  # at most one PCIe bridge (or two GPUs of one board)
    PXB = "PXB"  # several PCIe bridges, no host bridge
    PHB = "PHB"  # through a PCIe host bridge
    NODE = "NODE"  # through several host bridges of one NUMA node
    SYS = "SYS"  # between NUMA nodes; SOC in texts of before 2017
    UNKNOWN = "?"  # nobody said; planned as if it were SYS


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
        if upper == LinkKind.NVLINK.value or upper not in LinkKind._value2member_map_:
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


@dataclass(frozen=True)
class Gpu:
    """One GPU. `index` is the number that ``-gpu`` and CUDA use; None or an empty text means that nobody said.

    `nvml_index` is the driver's own number, which differs from `index` where CUDA_VISIBLE_DEVICES hides GPUs.
    `numa_node` is the lowest NUMA node near the GPU, `cpu_affinity` the cores near it ("0-15,32-47").
    `pcie_generation` and `pcie_width` are the most that GPU and slot can do: idle GPUs report less.
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
    """GPUs and the links of all their pairs.

    `source` says where it was read ("NVML", a file). `nvswitch` is true where NVLinks end on a switch, so that a GPU's
    whole port serves every peer. `no_gpu_reason` says in words why `gpus` is empty. TopologyError if an index appears
    twice or a link names a GPU that is not there.
    """

    gpus: tuple[Gpu, ...] = ()
    links: tuple[Link, ...] = ()
    source: str = ""
    warnings: tuple[MachineWarning, ...] = ()
    nvswitch: bool = False
    no_gpu_reason: str = ""
    driver_version: str = ""
    cuda_version: str = ""
    _by_pair: dict[tuple[int, int], Link] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        indices = self.indices
        if len(set(indices)) != len(indices):
            raise TopologyError(f"{self.source}: a GPU index appears twice: {list(indices)}")
        for link in self.links:
            if link.a >= link.b or link.a not in indices or link.b not in indices:
                pair = f"link {link.a}-{link.b}"
                raise TopologyError(f"{self.source}: {pair} does not join two of the GPUs {list(indices)}")
            self._by_pair[link.a, link.b] = link

    @property
    def indices(self) -> tuple[int, ...]:
        """The indices of the GPUs, in their order."""
        return tuple(gpu.index for gpu in self.gpus)

    def link(self, a: int, b: int) -> Link:
        """The link between the GPUs with the indices a and b (in any order, a != b); class UNKNOWN if nobody said."""
        low, high = min(a, b), max(a, b)
        return self._by_pair.get((low, high), Link(low, high, UNKNOWN))

    def link_class(self, a: int, b: int) -> LinkClass:
        """The class of the link between a and b; X where they are the same GPU."""
        return SELF if a == b else self.link(a, b).link_class

    def select(self, indices: Iterable[int]) -> Machine:
        """The machine with only these GPUs, in this order, under their indices. TopologyError for an unknown one."""
        by_index = {gpu.index: gpu for gpu in self.gpus}
        chosen = list(indices)
        unknown = [index for index in chosen if index not in by_index]
        if unknown:
            raise TopologyError(f"{self.source}: no GPU {unknown[0]}; there are {gpu_list(self.indices)}")
        kept = tuple(link for link in self.links if link.a in chosen and link.b in chosen)
        return replace(self, gpus=tuple(by_index[index] for index in chosen), links=kept)

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
