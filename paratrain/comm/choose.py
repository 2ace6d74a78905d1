"""From a name to an exchange: which forms there are for the ranks at hand."""

from __future__ import annotations

from collections.abc import Sequence

from paratrain.comm.allreduce import Allreduce
from paratrain.comm.communicator import Communicator
from paratrain.comm.exchange import Exchange, Part
from paratrain.comm.memory import ExchangeMemory
from paratrain.comm.message_ring import MessageRing
from paratrain.comm.message_sharded import MessageSharded
from paratrain.comm.message_tree import MessageTree
from paratrain.comm.nccl import NCCL
from paratrain.comm.shared_sharded import SharedSharded
from paratrain.comm.shared_tree import SharedTree
from paratrain.comm.two_level import TwoLevel, TwoLevelRing, column_ranks
from paratrain.errors import CommunicationError
from paratrain.topology.tree import Tree

__all__ = [
    "AUTO",
    "EXCHANGES",
    "check_on_cpu",
    "check_roots",
    "create_exchange",
    "slice_length",
    "slice_length_of",
    "uses_shared_memory",
]

EXCHANGES = ("tree", "sharded", "ring", "mpi")
AUTO = "auto"
"""Stands for the one of EXCHANGES that is predicted to be the fastest."""

# The elements of what one rank works on at a time: large enough to hide the cost of a message, small enough for a cache.
_ELEMENTS_PER_PART = 128 * 1024
_ELEMENTS_PER_SLICE = 256 * 1024
# Ranks that share all memory send nothing, and each works through its part in pieces of its own: few slices, little to do.
_ELEMENTS_PER_SHARED_PART = 1024 * 1024


def check_on_cpu(name: str) -> None:
    """Raise CommunicationError if ranks that compute on the CPU cannot take the exchange of this name."""
    if name == NCCL:
        raise CommunicationError(
            "nccl exchanges between GPUs; this run computes on the CPU: leave --exchange out, or take one of "
            f"{', '.join((AUTO, *EXCHANGES))}"
        )


def check_roots(name: str, roots: int | None, communicator: Communicator, *, shares_memory: bool = True) -> None:
    """Raise CommunicationError if the exchange of this name cannot have so many roots; None: as many as it likes."""
    if roots is None:
        return
    if name != "sharded":
        raise CommunicationError(
            f"--roots {roots} is about --exchange sharded, whose roots may be fewer than the ranks, and the exchange is "
            f"'{name}': give both, or leave --roots out"
        )
    if not 1 <= roots <= communicator.size:
        raise CommunicationError(f"--roots {roots}: expected 1 to {communicator.size}, the number of ranks")
    nodes = communicator.node_of_rank
    columns, node_count = column_ranks(nodes), len(set(nodes))
    most = len(columns) * node_count
    if roots > most and node_count > 1 and shares_memory and uses_shared_memory(name, communicator):
        raise CommunicationError(
            f"--roots {roots}: expected at most {most}, since one of the {node_count} nodes has only {len(columns)} of the "
            f"{communicator.size} ranks, and every node has the same number of roots; leave --roots out, or start as many "
            "ranks on each node"
        )


def slice_length(name: str, communicator: Communicator, roots: int | None = None) -> int:
    """The elements of a slice that suit this exchange."""
    is_one_node = communicator.local_size == communicator.size
    return slice_length_of(name, communicator.size if roots is None else roots, is_one_node=is_one_node)


def slice_length_of(name: str, size: int, *, is_one_node: bool) -> int:
    """As `slice_length`, for so many ranks or, where `--roots` are fewer, so many of these."""
    if name == "sharded" and is_one_node:
        return _ELEMENTS_PER_SHARED_PART * size
    return max(_ELEMENTS_PER_SLICE, _ELEMENTS_PER_PART * size if name in ("sharded", "ring") else 0)


def uses_shared_memory(name: str, communicator: Communicator) -> bool:
    """Whether this exchange is made through shared memory, where ranks have any in common; for AUTO, whether it may be.

    The ring within one node is made of messages; MPI looks after itself.
    """
    node_count = len(set(communicator.node_of_rank))
    if node_count == communicator.size:
        return False
    return name in ("tree", "sharded", AUTO) or (name == "ring" and node_count > 1)


def create_exchange(
    name: str,
    communicator: Communicator,
    memory: ExchangeMemory,
    slices: Sequence[Part],
    tree: Tree,
    gradient_dtype: str = "float32",
    roots: int | None = None,
) -> Exchange:
    """Return the exchange of this name for the arrays of `memory`: sums become averages over the ranks.

    `tree` is for "tree", `roots`, the number of ranks that own parts, for "sharded" (see `check_roots`). Messages between
    ranks carry gradients as `gradient_dtype`, which "mpi" cannot do. All ranks call it together.
    """
    scale = 1.0 / communicator.size
    arrays, is_one_node = memory.arrays, communicator.local_size == communicator.size
    match name:
        case "mpi":
            assert gradient_dtype == "float32"
            return Allreduce(communicator, arrays, slices, scale)
        case "ring" if not memory.is_shared:
            return MessageRing(communicator, arrays, slices, scale, gradient_dtype=gradient_dtype)
        case "tree" if memory.is_shared:
            flags = memory.flags(len(slices))
            return SharedTree(
                communicator, arrays, slices, scale, tree=tree, flags=flags, gradient_dtype=gradient_dtype
            )
        case "tree":
            return MessageTree(communicator, arrays, slices, scale, tree=tree, gradient_dtype=gradient_dtype)
        case "sharded" if not memory.is_shared:
            return MessageSharded(communicator, arrays, slices, scale, owner_count=roots, gradient_dtype=gradient_dtype)
        case "sharded" if is_one_node:
            pieces = None if roots is None else [1] * roots
            return SharedSharded(communicator, arrays, slices, scale, flags=memory.flags(len(slices)), pieces=pieces)
        case "sharded" | "ring":
            # A ring through all n ranks would take 2 (n - 1) / n times the bytes out of every node and into it; rings whose
            # members are the nodes make n the count of nodes.
            def make_outer(parts: Sequence[Part], ranks: Sequence[int], root_count: int) -> Exchange:
                if name == "ring":
                    return MessageRing(communicator, arrays, parts, scale, ranks=ranks, gradient_dtype=gradient_dtype)
                return MessageSharded(
                    communicator,
                    arrays,
                    parts,
                    scale,
                    ranks=ranks,
                    owner_count=root_count,
                    gradient_dtype=gradient_dtype,
                )

            form, flags = TwoLevelRing if name == "ring" else TwoLevel, memory.flags(len(slices))
            return form(communicator, arrays, slices, scale, flags=flags, make_outer=make_outer, roots=roots)
    raise AssertionError(f"no exchange '{name}'")
