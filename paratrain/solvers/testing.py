"""Testing: a net's outputs averaged over some batches, which several ranks may share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from paratrain.errors import NetError
from paratrain.layers import LAYERS
from paratrain.net import Net
from paratrain.proto import NetParameter, filter_net
from paratrain.solvers.display import Output, net_outputs
from paratrain.solvers.ranks import Alone, Ranks, Values

__all__ = ["Tester", "can_be_dealt", "score"]

# Ranks report their batches in blocks of so many values at most (8 MB).
_BLOCK_VALUES = 1 << 20

OnBatch = Callable[[int, Sequence[Output]], None]


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

    Of several ``ranks`` rank r runs the batches r, r + size ..., counted from the start of training, in a net whose data
    layers read just those (``LayerContext.deal``). What they found is added up in the order of the batches, so that the
    scores have the same bits on every number of ranks. ``net`` is None on a rank that takes no part; then the root has all
    batches, and ``ranks`` is left out.
    """

    def __init__(self, net: Net | None, batch_count: int, ranks: Ranks | None = None) -> None:
        self.net = net
        self._batch_count = batch_count
        self._ranks: Ranks = Alone() if ranks is None else ranks
        self._next_batch = 0

    @property
    def next_batch(self) -> int:
        """How many batches all ranks together have run since the start of training: the number of the next one."""
        return self._next_batch

    def seek(self, batch: int) -> None:
        """Go on with batch number ``batch``, as if those before had been run: for resumed runs."""
        self._next_batch = batch
        own = max(0, -((self._ranks.rank - batch) // self._ranks.size))
        for layer in self.net.layers if self.net is not None else ():
            if callable(seek := getattr(layer, "seek", None)):
                seek(own)

    def run(self, on_batch: OnBatch | None = None) -> tuple[float, list[Output]]:
        """Run one pass; return, on the root, the mean loss and each output value's mean (elsewhere nothing of use).

        ``on_batch(number, outputs)`` is told on the root of every batch, counted from 0 in each pass.
        """
        assert self.net is not None, "this rank takes no part"
        outputs = net_outputs(self.net)
        sums = np.zeros(1 + len(outputs))
        step = self._ranks.size if on_batch is not None else max(self._ranks.size, _BLOCK_VALUES // len(sums))
        for start in range(0, self._batch_count, step):
            block = self._run_block(start, min(start + step, self._batch_count), len(sums))
            for number, row in enumerate(block, start):
                sums += row
                if on_batch is not None and self._ranks.rank == 0:
                    on_batch(number, _with_values(outputs, row[1:]))
        self._next_batch += self._batch_count
        means = sums / self._batch_count
        return float(means[0]), _with_values(outputs, means[1:])

    def _run_block(self, start: int, stop: int, width: int) -> Values:
        """Run this rank's share of the batches ``start`` to ``stop`` of the pass: on the root, the loss and outputs of all."""
        assert self.net is not None
        table = np.zeros((stop - start, width))
        for number in range(start, stop):
            if (self._next_batch + number) % self._ranks.size != self._ranks.rank:
                continue
            with self.net.forward_only():
                loss = self.net.forward_from_to()
            values = [output.value for output in net_outputs(self.net)]
            if len(values) != width - 1:
                raise NetError(
                    f"network '{self.net.name}' has {len(values)} output values in batch {number} and had {width - 1} before; "
                    "a test takes the mean of each over all batches, so their number must stay"
                )
            table[number - start] = loss, *values
        self._ranks.sum_to_root(table)
        return table


def _with_values(outputs: Sequence[Output], values: Values) -> list[Output]:
    return [replace(output, value=float(value)) for output, value in zip(outputs, values, strict=True)]
