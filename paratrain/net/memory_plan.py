"""One arena for the values and gradients between the layers of a net, in which those share memory whose lives do not overlap."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from paratrain.blob import Memory, SyncedMemory, whole_block
from paratrain.blob.limits import check_bytes, format_bytes
from paratrain.blob.synced_memory import aligned_zeros
from paratrain.net.arena import Life, place
from paratrain.net.sharing import Sharing
from paratrain.proto import TEST

if TYPE_CHECKING:
    from paratrain.net.net import Net

__all__ = ["MemoryPlan"]

logger = logging.getLogger(__name__)

_MOST_PLANS = 3
"""A net whose blobs change their shapes again and again keeps memory for each blob."""


class MemoryPlan:
    """Says where the memories of a net lie while it runs whole passes: forward alone, or forward and backward in turn.

    Values live from the layer that makes them to the last that reads them, in backward where that follows; gradients from the
    layer that writes them first to the one that made the blob. A place has the size of the plain values. Not planned, and so
    kept until they are written again: what comes from outside or belongs to a layer (tops of layers without bottoms), the
    net's outputs, gradients that nobody writes or that hold a loss weight, and all that layers which run a user's code see.

    Each memory takes its place when it is first written (``SyncedMemory.take_place``) and keeps it, so that nothing is to be
    done in a pass. Where the plan no longer holds, since a blob was reshaped, memories are shared another way, or only some
    layers run, every memory gets room of its own, with its values; the next whole pass begins with a new plan.
    """

    def __init__(self, net: Net) -> None:
        self._net = net
        self._sharing = Sharing(net)
        self._planned: list[SyncedMemory] = []
        self._planned_ids: set[int] = set()
        self._seen: list[int] = []
        self._plan_count = 0
        self._is_forward_only = False
        self.arena: Any = None
        """The bytes that memories share; None while each has its own."""
        self.saved_bytes = 0
        """How much more memories of their own would take."""

    def begin_forward(self, is_whole: bool) -> None:
        """Layers are about to run forward, all of them or some. The values of the last pass are lost in the first case."""
        wanted = is_whole and not self._net.debug_info
        is_forward_only = self._net.is_forward_only
        if not wanted or self._is_forward_only != is_forward_only or self._is_out_of_date:
            self.dissolve()
        if wanted and self.arena is None and self._plan_count < _MOST_PLANS:
            self._plan_count += 1
            self._is_forward_only = is_forward_only
            self._make()

    def begin_backward(self, is_whole: bool) -> None:
        """Layers are about to run backward, all of them or some."""
        if not is_whole or self._net.debug_info or self._is_out_of_date:
            self.dissolve()
        self._sharing.begin_backward(is_whole and not (self._net.debug_info or self._net.layer_callbacks))

    def dissolve(self) -> None:
        """Give every memory room of its own, with its values."""
        if self.arena is not None and self._net.recorded_pass is not None:
            self._net.recorded_pass.forget()
        for memory in self._planned:
            memory.leave_place()
        self._planned, self._seen, self.arena, self.saved_bytes = [], [], None, 0

    def restore(self) -> None:
        """Give every memory room of its own for good, and compute the last pass's values again from what came from outside."""
        self.dissolve()
        self._sharing.begin_backward(is_whole=False)
        self._plan_count = _MOST_PLANS
        for index, bottoms in enumerate(self._net.bottoms):
            if bottoms:
                self._net.forward_layer(index)

    def needed_bytes(self) -> int:
        """The bytes that the values of all blobs will take, and in TRAIN the gradients that share memory with them."""
        lives = self._lives(is_forward_only=self._net.phase == TEST)
        planned = {id(memory) for memory, _ in lives}
        others = {id(blob.data_memory): blob.data_memory for tops in self._net.tops for blob in tops}
        own_bytes = sum(_size_bytes(memory) for key, memory in others.items() if key not in planned)
        return own_bytes + place([life for _, life in lives])[1]

    def _lives(self, is_forward_only: bool) -> list[tuple[SyncedMemory, Life]]:
        net = self._net
        for layer, bottoms, tops in zip(net.layers, net.bottoms, net.tops, strict=True):
            layer.share_memory(bottoms, tops)
        return _lives(net, [False] * len(net.layers) if is_forward_only else net.layers_needing_backward)

    def _make(self) -> None:
        lives = self._lives(self._is_forward_only)
        offsets, size_bytes = place([life for _, life in lives])
        own_bytes = sum(life.size_bytes for _, life in lives)
        if size_bytes == 0 or size_bytes >= own_bytes:
            return
        device = self._net.context.backend.device
        if device is None:
            check_bytes(size_bytes, "the blobs of the net")
        arena = aligned_zeros(size_bytes, np.uint8) if device is None else device.zeros(size_bytes, np.uint8)
        for (memory, life), offset in zip(lives, offsets, strict=True):
            memory.use_place(arena[offset : offset + life.size_bytes])
        self._planned, self.arena, self.saved_bytes = [memory for memory, _ in lives], arena, own_bytes - size_bytes
        self._planned_ids = set(map(id, self._planned))
        self._seen = self._users()
        logger.debug("Blobs share %s; apart they would take %s", format_bytes(size_bytes), format_bytes(own_bytes))

    @property
    def _is_out_of_date(self) -> bool:
        return self.arena is not None and self._users() != self._seen

    def _users(self) -> list[int]:
        """Which planned memory each blob uses, if any. Others come and go: each batch may bring its own."""
        numbers = [
            number
            for tops in self._net.tops
            for blob in tops
            for number in (id(blob.data_memory), id(blob.diff_memory))
        ]
        return [number if number in self._planned_ids else 0 for number in numbers]


class _Use:
    """How the layers of a net use one memory."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.makers: list[int] = []
        self.readers: list[int] = []
        self.writers: list[int] = []
        """Of a gradient: the layers that write it in backward."""
        self.is_kept = not isinstance(memory, SyncedMemory)  # such as a batch that another process has made


def _lives(net: Net, runs_back: Sequence[bool]) -> list[tuple[SyncedMemory, Life]]:
    """The memories that may be planned. The moments are the layers' numbers, forward and then, counted on, backward."""
    data: dict[int, _Use] = {}
    diffs: dict[int, _Use] = {}
    outputs = {id(net.blobs[name]) for name in net.output_names}
    read = {id(blob) for bottoms in net.bottoms for blob in bottoms}
    for index, (layer, bottoms, tops, downs) in enumerate(
        zip(net.layers, net.bottoms, net.tops, net.propagate_down, strict=True)
    ):
        for blob, down in zip(bottoms, downs, strict=True):
            for uses, memory in ((data, blob.data_memory), (diffs, blob.diff_memory)):
                use = _use(uses, memory)
                use.readers.append(index)
                use.is_kept |= layer.keeps_blobs
                if down:
                    use.writers.append(index)
        for number, blob in enumerate(tops):
            for uses, memory in ((data, blob.data_memory), (diffs, blob.diff_memory)):
                use = _use(uses, memory)
                use.makers.append(index)
                use.is_kept |= layer.keeps_blobs or not bottoms or id(blob) in outputs or id(blob) not in read
            _use(diffs, tops[number].diff_memory).is_kept |= layer.loss_weights[number] != 0
    last = 2 * len(net.layers) - 1
    found = []
    for use in data.values():
        users = sorted({*use.makers, *use.readers})
        # A layer that works in place is a reader too; the first of all has to be one that only writes.
        if not use.is_kept and users[0] not in use.readers:
            # After a forward pass of training all values are there: who finds that the loss is not finite looks where it began.
            end = [len(net.layers), *(last - index for index in users if runs_back[index])] if any(runs_back) else users
            found.append((use.memory, Life(_size_bytes(use.memory), users[0], max(end))))
    for use in diffs.values():
        users = sorted(index for index in {*use.makers, *use.readers} if runs_back[index])
        if not use.is_kept and users and users[-1] in use.writers and users[-1] not in use.makers:
            found.append((use.memory, Life(_size_bytes(use.memory), last - users[-1], last - users[0])))
    return [(memory, life) for memory, life in found if isinstance(memory, SyncedMemory) and life.size_bytes]


def _use(uses: dict[int, _Use], memory: Memory) -> _Use:
    whole = whole_block(memory)
    return uses.setdefault(id(whole), _Use(whole))


def _size_bytes(memory: Memory) -> int:
    return memory.count * memory.dtype.itemsize
