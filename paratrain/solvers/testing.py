"""Testing: a net's outputs averaged over some batches, which several ranks may share."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from paratrain.errors import NetError
from paratrain.layers import LAYERS
from paratrain.net import Net
from paratrain.proto import NetParameter, filter_net
from paratrain.solvers.display import Output, net_outputs
from paratrain.solvers.ranks import Alone, Ranks, Values, agree_with

__all__ = ["TestInterruptedError", "Tester", "can_be_dealt", "score"]

# Ranks report their batches in blocks of so many values at most (8 MB).
_BLOCK_VALUES = 1 << 20

# Several ranks agree about as often on whether to go on; a round of batches may take longer.
_AGREE_S = 0.1

OnBatch = Callable[[int, Sequence[Output]], None]


class TestInterruptedError(Exception):
    """All ranks have agreed to break a test off."""

    __test__ = False  # it is none of pytest's


def can_be_dealt(parameter: NetParameter) -> bool:
    """Whether ranks may share the batches of this net, whose ``state`` is complete: no layer remembers earlier batches."""
    layers = filter_net(parameter, parameter.state).layer
    return all(layer.type not in LAYERS or LAYERS.get(layer.type).deals_batches(layer) for layer in layers)


def score(net: Net, batch_count: int, on_batch: OnBatch | None = None) -> tuple[float, list[Output]]:
    """Run ``net`` over ``batch_count`` batches; return the mean loss, and each output value's mean.

    ``on_batch(number, outputs)`` is told of every batch.
    """
    return Tester(net, batch_count).run(on_batch)


class Tester:
    """Scores a test net, pass after pass, each over the next ``batch_count`` batches of its data.

    Of several ``ranks`` that share the batches rank r runs the batches r, r + size ..., counted from the start of training,
    in a net whose data layers read just those (``LayerContext.deal``). What they found is added up in the order of the
    batches, so that the scores have the same bits on every number of ranks. Where a net cannot be shared, the root has all
    batches, and the other ranks, whose ``net`` is None, only agree with it on whether to go on.
    """

    def __init__(
        self, net: Net | None, batch_count: int, ranks: Ranks | None = None, *, is_shared: bool = True
    ) -> None:
        self.net = net
        self._batch_count = batch_count
        self._ranks: Ranks = Alone() if ranks is None else ranks
        self._is_shared = is_shared
        self._next_batch = 0

    @property
    def next_batch(self) -> int:
        """How many batches all ranks together have run since the start of training: the number of the next one."""
        return self._next_batch

    @property
    def _share(self) -> tuple[int, int]:
        """(r, size): which batches are this rank's."""
        return (self._ranks.rank, self._ranks.size) if self._is_shared else (0, 1)

    def seek(self, batch: int) -> None:
        """Go on with batch number ``batch``, as if those before had been run: for resumed runs."""
        self._next_batch = batch
        rank, size = self._share
        own = max(0, -((rank - batch) // size))
        for layer in self.net.layers if self.net is not None else ():
            if callable(seek := getattr(layer, "seek", None)):
                seek(own)

    def run(
        self,
        on_batch: OnBatch | None = None,
        asked: Callable[[], int] | None = None,
        obey: Callable[[int], None] = lambda _wishes: None,
    ) -> tuple[float, list[Output]]:
        """Run one pass; return, on the root, the mean loss and each output value's mean (elsewhere nothing of use).

        ``on_batch(number, outputs)`` is told on the root of every batch, counted from 0 in each pass. With ``asked``, what
        it returns on one rank (bits, see paratrain.solvers.ranks) is given to ``obey`` on every rank, between two batches
        of one rank or some rounds of several: so it may raise TestInterruptedError, on all of them.
        """
        outputs = net_outputs(self.net) if self.net is not None else []
        sums = np.zeros(1 + len(outputs))
        size = self._share[1]
        most_rounds = max(1, _BLOCK_VALUES // len(sums) // size) if on_batch is None else 1
        round_count = most_rounds if asked is None else 1
        start = 0
        while start < self._batch_count:
            if asked is not None:
                wishes, round_count = agree_with(self._ranks, asked(), round_count)
                if wishes:
                    obey(wishes)
            begin = time.monotonic()
            stop = min(start + round_count * size, self._batch_count)
            if self.net is not None:
                for number, row in enumerate(self._run_block(self.net, start, stop, len(sums)), start):
                    sums += row
                    if on_batch is not None and self._ranks.rank == 0:
                        on_batch(number, _with_values(outputs, row[1:]))
            start = stop
            if self._ranks.size > 1 and asked is not None:
                fitting = int(round_count * _AGREE_S / max(time.monotonic() - begin, 1e-6))
                round_count = max(1, min(fitting, 2 * round_count, most_rounds))
        self._next_batch += self._batch_count
        means = sums / self._batch_count
        return float(means[0]), _with_values(outputs, means[1:])

    def _run_block(self, net: Net, start: int, stop: int, width: int) -> Values:
        """Run this rank's share of the batches ``start`` to ``stop`` of the pass: on the root, the loss and outputs of all."""
        table = np.zeros((stop - start, width))
        rank, size = self._share
        for number in range(start, stop):
            if (self._next_batch + number) % size != rank:
                continue
            with net.forward_only():
                loss = net.forward_from_to()
            values = [output.value for output in net_outputs(net)]
            if len(values) != width - 1:
                raise NetError(
                    f"network '{net.name}' has {len(values)} output values in batch {number} and had {width - 1} before; "
                    "a test takes the mean of each over all batches, so their number must stay"
                )
            table[number - start] = loss, *values
        if self._is_shared:
            self._ranks.sum_to_root(table)
        return table


def _with_values(outputs: Sequence[Output], values: Values) -> list[Output]:
    return [replace(output, value=float(value)) for output, value in zip(outputs, values, strict=True)]
