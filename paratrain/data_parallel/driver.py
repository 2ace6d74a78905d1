"""The callbacks and shares by which a solver trains together with those of the other ranks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from paratrain.blob import Device
from paratrain.comm.exchange import Exchange, Part
from paratrain.comm.patience import pauses
from paratrain.comm.progress import Condition, Progress, Work
from paratrain.data_parallel.automatic import Choice
from paratrain.data_parallel.ranks import TreeRanks
from paratrain.data_parallel.slices import Slice
from paratrain.data_parallel.ways import Way
from paratrain.solvers import Solver
from paratrain.solvers.shares import UpdatePart

__all__ = ["DataParallel", "Watched"]

Watched = Callable[[str, int, Work], Work]


class DataParallel:
    """Joins a solver to those of the other ranks, which have the same net, the same slices and the same kind of exchange.

    While the last backward pass of a step goes on, each slice of the gradient is given to the exchange as soon as its layers
    are done (at the end where ``layer_wise_reduce`` is false). The owners update their parts as these come in, unless that
    needs all gradients; what they make goes to the other ranks while the next parts are still being summed.

    The learned parameters are the root's: changes made to another rank's own copy between calls of ``step`` are lost; where
    the ranks of a node have one array in common, they are everybody's. It is a
    :class:`paratrain.solvers.callbacks.Callback` and, where several ranks own parts,
    :class:`paratrain.solvers.shares.Shares`.
    """

    def __init__(self, solver: Solver, ranks: TreeRanks, exchange: Exchange, slices: Sequence[Slice], way: str) -> None:
        self._solver = solver
        self._ranks = ranks
        self._exchange = exchange
        self.slices = slices
        # Set once this rank's backward pass has used the parameters for the last time: now they may be updated.
        self._permit = threading.Event()
        self._update_is_allowed: Condition = self._permit.is_set
        self._progress = Progress(ranks.communicator, exchange.most_slices, uncounted=self._update_is_allowed)
        self._parts = [exchange.owned(index) for index in range(len(slices))]
        self._owned_by_rank: list[list[Part]] = ranks.communicator.allgather_objects(self.owned)
        owner_count = sum(map(bool, self._owned_by_rank))
        self.is_spread = owner_count > 1
        self._all_own_all = all(owned == self._owned_by_rank[0] for owned in self._owned_by_rank)
        self.slice_count = len(slices)
        who = "each rank updates all" if self._all_own_all else "every rank updates a part"
        if owner_count < ranks.size:
            who = f"{owner_count} of {ranks.size} ranks update a part each"
        self.description = f"{exchange.name}, {way}, {who if self.is_spread else 'the root updates'}"
        """What a log says of it: ``tree, through shared memory, the root updates``."""
        self.choice: Choice | None = None
        """How it was chosen, and what is predicted of it, where somebody said."""
        self.gradient_dtype = "float32"
        """The form in which messages carry gradients."""
        self.way: Way | None = None
        """What holds the other ranks' arrays, where somebody has said."""
        self.watched: Watched = _unwatched
        """Takes "sum" or "spread", the number of a slice and the job, and returns the job: whoever notes its times sets this."""
        self._posted_count = self._updated_count = self._spread_count = 0
        self._update_part: UpdatePart = _nothing
        self._all_finite = True
        self._fresh_at: int | None = None  # the iteration before which all ranks have the newest parameters
        self._is_stepping = False
        solver.shares = self
        solver.add_callback(self)
        solver.mean_over_ranks = ranks.exchange.mean_scalars
        solver.net.context.sum_over_ranks = ranks.sum
        if solver.parameter.layer_wise_reduce:
            solver.net.after_layer_backward = self._after_backward
            if solver.net.recorded_pass is not None:
                ends = {found.ready_at for found in slices}
                solver.net.recorded_pass.stops = frozenset(ends - {min(ends, default=0)})  # the last goes with the pass
                solver.net.recorded_pass.before_wait = self._go_on

    # -- callbacks -----------------------------------------------------------------------------------------------

    def on_start(self) -> None:
        """Bring the root's newest parameters, and its running statistics, to every rank."""
        parameters = self._solver.net.parameters
        is_fresh, self._fresh_at = self._fresh_at == self._solver.iter, self._solver.iter + 1
        if is_fresh and len(self._solver.callbacks) == 1:
            if not self._ranks.averages_statistics:
                self._ranks.share_statistics(parameters)
        else:  # a script may have changed them
            self._ranks.broadcast_parameters(parameters)
        if self._device is not None:  # where other ranks write, and what a recorded step reads
            parameters.data.device(self._device)
            parameters.statistics.device(self._device)
        self._is_stepping = True
        self._posted_count = self._updated_count = self._spread_count = 0
        self._permit.clear()
        self._exchange.leaves_sums = self._exchange.sums_in_cache and self._updates_by_parts

    def on_gradient_ready(self) -> None:
        """Give the slices to the exchange that have not been; sum all of them where the update needs that."""
        self._is_stepping = False
        self._post(len(self.slices))
        if self._ranks.averages_statistics:
            self._ranks.share_statistics(self._solver.net.parameters)
        if not self._updates_by_parts:
            self._progress.finish("summing gradients")

    def on_finish(self) -> None:
        """Bring the last running statistics to every rank, which has the newest parameters already."""
        self._ranks.share_statistics(self._solver.net.parameters)
        self._fresh_at = None
        self._ranks.communicator.barrier()  # who ends now would be missed by those that still pass messages on

    def _after_backward(self, layer: int) -> None:
        clock, parts, begin = self._solver.clock, self._solver.times.parts, time.perf_counter()
        if self._is_stepping and clock.sub_iteration == self._solver.parameter.iter_size - 1:
            ready = self._posted_count
            while ready < len(self.slices) and self.slices[ready].ready_at >= layer:
                ready += 1
            self._post(ready)
            if self._posted_count:
                self._solver.activity.enter("exchange", "gradients")
                self._progress.poll()
            taken_s = time.perf_counter() - begin  # it is not spent on backward, which it interrupts
            parts.exchange_s, parts.backward_s = parts.exchange_s + taken_s, parts.backward_s - taken_s

    def _go_on(self) -> None:
        """The device has been given a recorded pass: exchange the slices as it gets to them, until it has done all of it."""
        computed = None if self.way is None or not self._posted_count else self.way.computed()
        if computed is None:
            return
        for _ in pauses():
            is_done = computed()
            self._progress.poll()
            if is_done:
                return

    def _post(self, stop: int) -> None:
        diff, device = self._solver.net.parameters.diff, self._device
        if device is not None and self._posted_count < stop:
            diff.take_device(device)
        for index in range(self._posted_count, stop):
            diff.settle(*self.slices[index].part, device)
            self._progress.add(self._exchange_slice(index))
        self._posted_count = max(self._posted_count, stop)

    @property
    def _device(self) -> Device | None:
        return self._solver.backend.device

    def _exchange_slice(self, index: int) -> Work:
        """Sum a slice; and, where parts are updated one by one, update this rank's part and spread it."""
        by_parts = self._updates_by_parts
        work = self._exchange.sum(index)
        if by_parts and self._exchange.sums_in_cache:
            # The others may read this rank's gradients from now on. The sum itself waits, to be used while it is in the cache.
            for condition in work:
                yield self._update_is_allowed
                yield condition
                break
        yield from self.watched("sum", index, work)
        if by_parts:
            yield self._update_is_allowed
            self._update(index)
            yield from self.watched("spread", index, self._exchange.spread(index))

    def _update(self, index: int) -> None:
        start, stop = self._parts[index]
        if start < stop:
            self._all_finite &= self._update_part(start, stop)
            self._solver.activity.enter("exchange", "gradients")
        self._updated_count += 1

    @property
    def _updates_by_parts(self) -> bool:
        return self.is_spread and self._solver.updates_by_parts

    # -- shares --------------------------------------------------------------------------------------------------

    @property
    def owned(self) -> list[Part]:
        """The parts of this rank, each from its first number up to its second."""
        return [(start, stop) for start, stop in self._parts if start < stop]

    @property
    def gradients(self) -> Sequence[Any] | None:
        """The gradients of the node's ranks, where the exchange leaves their sum to the update."""
        return self._exchange.arrays.node_diffs if self._exchange.leaves_sums else None

    @property
    def gradient_scale(self) -> float:
        """What sums that are left to the update are multiplied by."""
        return self._exchange.scale if self._exchange.leaves_sums else 1.0

    def sum(self, values: npt.NDArray[np.float64]) -> None:
        """Replace ``values`` by their sums over the owners."""
        if self.is_spread and not self._all_own_all:
            self._ranks.sum(values)

    def update(self, update_part: UpdatePart) -> bool:
        """Update the parts of this rank, and give them to the exchange; others may be on their way when this returns."""
        self._update_part, self._all_finite = update_part, True
        if self._updates_by_parts:
            self._permit.set()
            self._progress.finish("exchanging gradients", lambda: self._updated_count == len(self.slices))
            self._ranks.communicator.meanwhile = self._progress.poll
        else:
            for index in range(len(self.slices)):
                self._update(index)
                self._spread(index + 1)
        self._update_part = _nothing
        return self._all_finite

    def spread(self) -> None:
        """Bring the parameters of all slices from their owners to all ranks."""
        if not self._updates_by_parts:
            self._spread(len(self.slices))
        # To the end: whoever clears its gradients must know that nobody reads them any more.
        self._progress.finish("waiting for the other ranks' updates")
        self._ranks.communicator.meanwhile = None
        if self._device is not None:  # the others have written there
            self._solver.net.parameters.data.mutable_device(self._device)

    def _spread(self, stop: int) -> None:
        for index in range(self._spread_count, stop):
            self._progress.add(self.watched("spread", index, self._exchange.spread(index)))
        self._spread_count = stop
        self._progress.poll()

    def close(self) -> None:
        """Give back what is held of the other ranks, between steps; no more can be run. All ranks call it."""
        self._exchange.close()
        if self.way is not None:
            self.way.close()

    def abort(self) -> None:
        """Let go of the other ranks, whatever is under way."""
        self._exchange.abort()

    def gather(self, array: npt.NDArray[Any]) -> None:
        """Complete the root's ``array`` by the parts of the other owners'."""
        if self._all_own_all:
            return
        communicator = self._ranks.communicator
        root = self._ranks.tree.root
        for rank, parts in enumerate(self._owned_by_rank):
            for start, stop in parts if rank != root else []:
                if communicator.rank == root:
                    communicator.receive(array[start:stop], rank)
                elif communicator.rank == rank:
                    communicator.send(array[start:stop], root)


def _nothing(_start: int, _stop: int) -> bool:
    return True


def _unwatched(_what: str, _index: int, work: Work) -> Work:
    return work
