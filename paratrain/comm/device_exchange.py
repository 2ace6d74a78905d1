"""From a name to an exchange between GPUs: through each other's memory, by NCCL, or through the host."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from paratrain.comm.choose import EXCHANGES, create_exchange, uses_shared_memory
from paratrain.comm.communicator import Communicator
from paratrain.comm.device import ExchangeDevice
from paratrain.comm.device_memory import DeviceMemory
from paratrain.comm.device_node import DeviceSharded, DeviceTree, NodeArrays
from paratrain.comm.exchange import Exchange, FlatArrays, Part
from paratrain.comm.flags import Flags
from paratrain.comm.gradient_messages import GRADIENT_DTYPES
from paratrain.comm.memory import ExchangeMemory
from paratrain.comm.message_ring import MessageRing
from paratrain.comm.message_sharded import MessageSharded
from paratrain.comm.nccl import NCCL, NcclExchange
from paratrain.comm.staged import Staged
from paratrain.comm.two_level import TwoLevel, TwoLevelRing
from paratrain.topology.tree import Tree

__all__ = ["DEVICE_EXCHANGES", "create_device_exchange", "device_slice_length", "reaches_others"]

DEVICE_EXCHANGES = (*EXCHANGES, NCCL)

# A slice has to hide the host's part in it, some 20 microseconds for each question: 16 MB take longer on any link.
_ELEMENTS_PER_SLICE = 4 * 1024 * 1024


def device_slice_length() -> int:
    """The elements of a slice that suit exchanges between GPUs."""
    return _ELEMENTS_PER_SLICE


def reaches_others(name: str, communicator: Communicator) -> bool:
    """Whether ranks of a node exchange by reading and writing each other's GPU memory: the `is_shared` of DeviceMemory."""
    is_one_node = communicator.local_size == communicator.size
    return name != NCCL and (is_one_node or name != "tree") and uses_shared_memory(name, communicator)


def create_device_exchange(
    name: str,
    communicator: Communicator,
    device: ExchangeDevice,
    memory: DeviceMemory,
    slices: Sequence[Part],
    tree: Tree,
    gradient_dtype: str = "float32",
    roots: int | None = None,
) -> Exchange:
    """Return the exchange of this name, one of DEVICE_EXCHANGES, for the arrays of `memory`; sums become averages.

    `roots`, the number of ranks that own parts, is for "sharded" (see `check_roots`). Where ranks of a node do not reach each
    other's memory (`memory.is_shared`) they share the host's, or send messages. Messages carry gradients as
    `gradient_dtype`. All ranks call it together.
    """
    assert gradient_dtype in GRADIENT_DTYPES
    arrays, scale = memory.arrays, 1.0 / communicator.size
    is_one_node = communicator.local_size == communicator.size
    if name == NCCL:
        return NcclExchange(communicator, arrays, slices, scale, device=device)
    if memory.is_shared and is_one_node:
        flags = memory.flags(len(slices))
        if name == "tree":
            return DeviceTree(communicator, arrays, slices, scale, tree=tree, device=device, flags=flags)
        pieces = None if roots is None else [1] * roots
        return DeviceSharded(communicator, arrays, slices, scale, device=device, flags=flags, pieces=pieces)
    if memory.is_shared:
        return _two_levels(name, communicator, device, memory, slices, gradient_dtype, roots)

    def make_host(count: int, host_slices: Sequence[Part]) -> Exchange:
        host = ExchangeMemory(communicator, is_shared=uses_shared_memory(name, communicator))
        host.diff(count, arrays.diff.dtype)
        host.data(count, arrays.diff.dtype)
        return create_exchange(name, communicator, host, host_slices, tree, gradient_dtype, roots)

    return Staged(communicator, arrays, slices, make_host, device=device)


def _two_levels(
    name: str,
    communicator: Communicator,
    device: ExchangeDevice,
    memory: DeviceMemory,
    slices: Sequence[Part],
    gradient_dtype: str,
    roots: int | None,
) -> Exchange:
    """Between the GPUs of a node through their memory, and between nodes by messages that go through the host."""
    arrays: NodeArrays = memory.arrays
    scale, is_ring = 1.0 / communicator.size, name == "ring"

    def make_inner(flags: Flags, pieces: Sequence[int]) -> Exchange:
        return DeviceSharded(communicator, arrays, slices, device=device, flags=flags, pieces=pieces)

    def make_outer(parts: Sequence[Part], ranks: Sequence[int], root_count: int) -> Exchange:
        def make_host(count: int, host_parts: Sequence[Part]) -> Exchange:
            # One array for both: no gradient of a slice is there any more when its parameters come.
            both = np.zeros(count, arrays.diff.dtype)
            host = FlatArrays(both, both)
            if is_ring:
                return MessageRing(communicator, host, host_parts, scale, ranks=ranks, gradient_dtype=gradient_dtype)
            return MessageSharded(
                communicator,
                host,
                host_parts,
                scale,
                ranks=ranks,
                owner_count=root_count,
                gradient_dtype=gradient_dtype,
            )

        return Staged(communicator, arrays, parts, make_host, device=device)

    return (TwoLevelRing if is_ring else TwoLevel)(
        communicator,
        arrays,
        slices,
        scale,
        flags=memory.flags(len(slices)),
        make_outer=make_outer,
        make_inner=make_inner,
        roots=None if is_ring else roots,
    )
