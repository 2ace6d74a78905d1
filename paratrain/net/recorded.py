"""A training pass over a net, recorded once and run again as a whole: on a GPU, as a CUDA graph.

Where layers are small, giving each kernel to the GPU takes longer than running it. What a pass gives is the same every time,
as long as shapes and addresses are: it is recorded, in pieces that end where gradients have to be handed out, and then one
call starts a piece. Layers without bottoms run outside of it: they bring a batch, and their tops are its input.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from paratrain.backends.base import Recording
from paratrain.backends.update_rules import MOST_LOSSES
from paratrain.blob import Device, GradientSlice, SyncedMemory, whole_block
from paratrain.layers import Layer

if TYPE_CHECKING:
    from paratrain.net.net import Net

__all__ = ["RecordedPass"]

logger = logging.getLogger(__name__)

Key = tuple[Any, ...]
Places = tuple[bool, bool, bool]

_CHECK_INTERVAL = 16
"""Replays between two looks at what kernels have found wrong; each look waits for the device."""
_MOST_RECORDINGS = 16
"""For one net: batches of different addresses, and first and later passes of an iteration, each have their own."""


@dataclass
class _Recorded:
    """The recordings of one pass, how things have to stand before it, and how they stand when it has run."""

    pieces: list[tuple[Recording, range]]
    """Each with the layers whose backward is done after it, counted down; all of forward comes with the first."""
    read: list[SyncedMemory]
    """Memories whose plain arrays on the device it may read before it writes them."""
    places: list[tuple[SyncedMemory, Places, Any]]
    """Where the newest values lie afterwards, and the arrangement, which must live as long as the recordings that use it. Layers
    that work in place may change it for another one: each recording has its own."""
    claimed: list[GradientSlice]
    """The gradients that count as zeros before it, and are written by it."""


class RecordedPass:
    """Runs forward and backward of a whole TRAIN net by recordings, where its layers allow it.

    A pass of a new kind (other shapes, another place of the batch, gradients to be added to) runs layer by layer, which makes
    all buffers; the next one of its kind is recorded. Every other pass over the net has to be told by :meth:`note_pass`.
    """

    def __init__(self, net: Net) -> None:
        self._net = net
        self._recorded: dict[Key, _Recorded] = {}
        self._seen: set[Key] = set()
        self._shapes_seen: Key | None = None
        self._is_given_up = False
        self._replay_count = 0
        self._inputs = [index for index, bottoms in enumerate(net.bottoms) if not bottoms]
        self._input_blobs = [blob for index in self._inputs for blob in net.tops[index]]
        self._others = [index for index, bottoms in enumerate(net.bottoms) if bottoms]
        self._bottoms, self._tops = net.bottoms, net.tops
        changing = [net.layers[index] for index in self._others]
        self._changing = [layer for layer in changing if type(layer).before_replay is not Layer.before_replay]
        losses = [(layer, tops) for layer, tops in zip(net.layers, net.tops, strict=True) if any(layer.loss_weights)]
        self._losses = [
            (blob, weight)
            for layer, tops in losses
            for blob, weight in zip(tops, layer.loss_weights, strict=True)
            if weight
        ]
        self._has_few_losses = 0 < len(self._losses) <= MOST_LOSSES and all(blob.count == 1 for blob, _ in self._losses)
        self.is_loss_unread = False
        """Whether the last :meth:`run` left the loss on the device, as it was asked to."""
        self.stops: frozenset[int] = frozenset()
        """The layers after whose backward ``net.after_layer_backward`` has to be called at once; for others it may wait."""
        self.before_wait: Callable[[], None] | None = None
        """Called when a pass has been given to the device, before the host waits for it: the host may have other things to do."""

    def run(self, *, reads_loss: bool = True) -> float | None:
        """Run a forward and a backward pass and return the loss; None, having done nothing, where the caller has to do it.

        Where the loss is not finite the values of all blobs are those of the forward pass. Without ``reads_loss`` a replay does
        not wait for the device: then the loss stays there (``is_loss_unread``), to be found by :meth:`loss_arrays`.
        """
        net, self.is_loss_unread = self._net, False
        if self._is_given_up or self._shapes_seen is None or net.debug_info or net.layer_callbacks:
            return None
        for index in self._inputs:
            net.forward_layer(index)
        if self._shapes() != self._shapes_seen:
            return self._run_layers(is_known=False)
        plan = net.memory_plan
        arena = 0 if plan is None or plan.arena is None else net.context.backend.address(plan.arena)
        key = (arena, *self._bring_inputs(), *net.parameters.diff.cleared)
        recorded = self._recorded.get(key)
        if recorded is None:
            if key not in self._seen or len(self._recorded) >= _MOST_RECORDINGS or not self._record(key):
                self._seen.add(key)
                return self._run_layers(is_known=True)
            recorded = self._recorded[key]
        self._replay(recorded)
        self.is_loss_unread = not reads_loss and self._has_few_losses
        return 0.0 if self.is_loss_unread else self.see_loss(self._read_loss())

    def loss_arrays(self) -> list[Any]:
        """Where on the device the losses lie that a replay has left there, arrays of one number each."""
        return [blob.data_memory.device(self._device) for blob, _ in self._losses]

    def weighted(self, losses: Sequence[float]) -> float:
        """The loss of the net, made of the numbers in :meth:`loss_arrays`."""
        return sum([weight * loss for (_, weight), loss in zip(self._losses, losses, strict=True)])

    def see_loss(self, loss: float) -> float:
        """Return the loss of the last pass. Unless it is finite, bring the values of forward back, for whoever looks where that
        began.
        """
        is_finite = math.isfinite(loss)
        if not is_finite or self._replay_count % _CHECK_INTERVAL == 0:
            self._net.context.backend.check_faults()
        if not is_finite:
            for index in self._others:
                self._net.layers[index].forward(self._bottoms[index], self._tops[index])
        return loss

    def forget(self) -> None:
        """Layers are about to run by themselves, or blobs have moved: what was recorded may use memory that is not theirs any
        more, and that others may have got since, at the same addresses.
        """
        self._recorded.clear()
        self._seen.clear()
        self._shapes_seen = None

    def note_pass(self) -> None:
        """A pass has run layer by layer: buffers may have changed. See whether the next can be recorded."""
        self.forget()
        if self._is_given_up:
            return
        layers = [self._net.layers[index] for index in self._others]
        hindering = [layer for layer in layers if not layer.is_capturable]
        if not hindering:
            self._shapes_seen = self._shapes()
        else:
            first = f"'{hindering[0].name}' ({hindering[0].type})"
            self._give_up(f"{len(hindering)} of {len(layers)} layers work on the host or make arrays, first {first}")

    def _give_up(self, reason: str) -> None:
        self._is_given_up = True
        self._recorded.clear()
        logger.info("The step runs layer by layer, not as a graph: %s", reason)

    def _run_layers(self, *, is_known: bool) -> float:
        """Run what the data layers have begun, layer by layer."""
        net = self._net
        net.begin_forward(0, len(net.layers))
        loss = sum(net.forward_layer(index) for index in self._others)
        if math.isfinite(loss) or not is_known:
            net.backward_from_to()
        if not is_known:
            self.note_pass()
        return loss

    def _record(self, key: Key) -> bool:
        net = self._net
        parts = net.parameters.diff.slices
        cleared = [part for part in parts if part.is_cleared]
        # What a layer keeps of its weights in other forms has to be made anew whenever the recording runs.
        for memory in (blob.data_memory for layer in net.layers for blob in layer.blobs):
            if whole_block(memory) is not net.parameters.statistics:
                memory.mutable_device(self._device)
        for written in self._memories():
            if written.places == (True, False, False):  # on the host: nothing is brought over while work is recorded
                written.device(self._device)
        before = [(memory, memory.places, memory.kept_arrangement) for memory in self._memories()]
        net.begin_forward(0, len(net.layers))
        pieces: list[tuple[Recording, range]] = []
        first = len(net.layers)
        for last in sorted({*self.stops, 0}, reverse=True):
            layers = range(first - 1, last - 1, -1)
            piece = net.context.backend.record(self._work(layers, is_first=not pieces))
            if piece is None:
                break
            pieces.append((piece, layers))
            first = last
        if first == 0:
            after = [(memory, memory.places, memory.kept_arrangement) for memory in self._memories()]
            read = [memory for memory, (_, on_device, _), _ in before if on_device]
            claimed = [part for part in cleared if not part.is_cleared]
            self._recorded[key] = _Recorded(pieces, read, after, claimed)
            logger.info("The step is recorded as a graph of %d layers, in pieces: %d", len(self._others), len(pieces))
        else:
            self._give_up(f"layers {first - 1} and before could not be recorded")
        for memory, places, kept in before:  # nothing has been computed yet
            memory.kept_arrangement = kept
            memory.note_places(places)
        for part in cleared:
            part.is_cleared = True
        return first == 0

    def _work(self, layers: range, *, is_first: bool) -> Callable[[], None]:
        """What gives the work of a piece to the backend: backward of ``layers``, and before the first all of forward."""
        net = self._net

        def give() -> None:
            if is_first:
                for index in self._others:
                    net.layers[index].forward(net.bottoms[index], net.tops[index])
                net.begin_backward(len(net.layers) - 1, 0)
            for index in layers:
                if net.layers_needing_backward[index]:
                    net.layers[index].backward(net.tops[index], net.propagate_down[index], net.bottoms[index])

        return give

    def _replay(self, recorded: _Recorded) -> None:
        net, layers = self._net, self._net.layers
        for layer in self._changing:
            layer.before_replay()
        for memory in recorded.read:
            if not memory.is_on_device:
                memory.device(self._device)  # somebody has written it on the host
        for part in recorded.claimed:
            part.claim()
        for number, (piece, done) in enumerate(recorded.pieces):
            net.context.activity.enter("backward" if number else "forward", layers[done[-1]].name)
            piece.replay()
            if number == 0:
                for memory, places, kept in recorded.places:
                    memory.kept_arrangement = kept
                    memory.note_places(places)
            if net.after_layer_backward is not None:
                for index in done:
                    net.after_layer_backward(index)
        if self.before_wait is not None:
            self.before_wait()
        self._replay_count += 1

    def _read_loss(self) -> float:
        return sum(self._net.layers[index].loss(self._tops[index]) for index in self._others)

    @property
    def _device(self) -> Device:
        device = self._net.context.backend.device
        assert device is not None
        return device

    def _bring_inputs(self) -> list[Any]:
        """Bring the batch to the device; return what recordings depend on: the addresses of its arrays, and which are there."""
        found: list[Any] = []
        backend, device = self._net.context.backend, self._device
        for blob in self._input_blobs:
            memory = blob.data_memory
            arrangement = None if isinstance(memory, SyncedMemory) and memory.is_on_device else memory.arrangement
            found.append(backend.address(memory.device(device) if arrangement is None else arrangement.array))
            if isinstance(memory, SyncedMemory):
                found.append(memory.places[1:])
        return found

    def _shapes(self) -> Key:
        return tuple([blob.shape for blob in self._input_blobs])

    def _memories(self) -> list[SyncedMemory]:
        """The blocks that a pass reads or writes, each once: of blobs between layers, and of parameters."""
        found: dict[int, SyncedMemory] = {}
        for index in self._others:
            net = self._net
            for blob in (*net.tops[index], *net.bottoms[index], *net.layers[index].blobs):
                for memory in (blob.data_memory, blob.diff_memory):
                    block = whole_block(memory)
                    if isinstance(block, SyncedMemory):
                        found[id(block)] = block
        return list(found.values())
