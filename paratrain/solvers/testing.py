"""Testing: a net's outputs averaged over some batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from paratrain.net import Net
from paratrain.solvers.display import Output, net_outputs

__all__ = ["score"]


def score(
    net: Net, batch_count: int, on_batch: Callable[[int, Sequence[Output]], None] | None = None
) -> tuple[float, list[Output]]:
    """Run ``net`` over ``batch_count`` batches; return the mean loss, and each output value's mean.

    ``on_batch(number, outputs)`` is told of every batch.
    """
    loss, sums, outputs = 0.0, [0.0], list[Output]()
    for number in range(batch_count):
        loss += net.forward_from_to()
        outputs = net_outputs(net)
        if number == 0:
            sums = [0.0] * len(outputs)
        for index, output in enumerate(outputs):
            sums[index] += output.value
        if on_batch is not None:
            on_batch(number, outputs)
    means = [replace(output, value=total / batch_count) for output, total in zip(outputs, sums, strict=True)]
    return loss / batch_count, means
