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
from paratrain.comm.two_level import TwoLevel, TwoLevelRing
from paratrain.errors import CommunicationError
from paratrain.topology.tree import Tree

__all__ = [
    "AUTO",
    "EXCHANGES",
    "check_on_cpu",
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


def check_on_cpu(name: str) -> None:
    """Raise CommunicationError if ranks that compute on the CPU cannot take the exchange of this name."""
    if name == NCCL:
        raise CommunicationError(
            "nccl exchanges between GPUs; this run computes on the CPU: leave --exchange out, or take one of "
            f"{', '.join((AUTO, *EXCHANGES))}"
        )


def slice_length(name: str, communicator: Communicator) -> int:
    """The elements of a slice that suit this exchange."""
    return slice_length_of(name, communicator.size)


def slice_length_of(name: str, size: int) -> int:
    """As `slice_length`, for so many ranks."""
    return max(_ELEMENTS_PER_SLICE, _ELEMENTS_PER_PART * size if name in ("sharded", "ring") else 0)


def uses_shared_memory(name: str, communicator: Communicator) -> bool:
    """Whether this exchange is made through shared memory, where ranks have any in common; for AUTO, whether it may be.

    The tree over several nodes and the ring within one are made of messages; MPI looks after itself.
    """
    node_count = len(set(communicator.node_of_rank))
    if node_count == communicator.size:
        return False
    return name in ("sharded", AUTO) or (name == "tree" and node_count == 1) or (name == "ring" and node_count > 1)


def create_exchange(
    name: str,
    communicator: Communicator,
    memory: ExchangeMemory,
    slices: Sequence[Part],
    tree: Tree,
    gradient_dtype: str = "float32",
) -> Exchange:
    """Return the exchange of this name for the arrays of `memory`: sums become averages over the ranks.

    `tree` is for "tree". Messages between ranks carry gradients as `gradient_dtype`, which "mpi" cannot do. All ranks call it
    together.
    """
    scale = 1.0 / communicator.size
    arrays = memory.arrays
    match name:
        case "mpi":
            assert gradient_dtype == "float32"
            return Allreduce(communicator, arrays, slices, scale)
        case "ring" if not memory.is_shared:
            return MessageRing(communicator, arrays, slices, scale, gradient_dtype=gradient_dtype)
        case "tree" if memory.is_shared:
            return SharedTree(communicator, arrays, slices, scale, tree=tree, flags=memory.flags(len(slices)))
        case "tree":
            return MessageTree(communicator, arrays, slices, scale, tree=tree, gradient_dtype=gradient_dtype)
        case "sharded" if not memory.is_shared:
            return MessageSharded(communicator, arrays, slices, scale, gradient_dtype=gradient_dtype)
        case "sharded" if communicator.local_size == communicator.size:
            return SharedSharded(communicator, arrays, slices, scale, flags=memory.flags(len(slices)))
        case "sharded" | "ring":
            # A ring through all n ranks would take 2 (n - 1) / n times the bytes out of every node and into it; rings whose
            # members are the nodes make n the count of nodes.
            is_ring = name == "ring"
            return (TwoLevelRing if is_ring else TwoLevel)(
                communicator,
                arrays,
                slices,
                scale,
                flags=memory.flags(len(slices)),
                make_outer=lambda parts, ranks: (MessageRing if is_ring else MessageSharded)(
                    communicator, arrays, parts, scale, ranks=ranks, gradient_dtype=gradient_dtype
                ),
            )
    raise AssertionError(f"no exchange '{name}'")
