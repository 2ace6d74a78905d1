"""What training prints: Caffe's wording and its way to write numbers, which old log parsers read."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from paratrain.blob import Blob
from paratrain.net import Net

__all__ = [
    "Output",
    "SmoothedLoss",
    "batch_size",
    "first_tops",
    "format_outputs",
    "iteration_line",
    "name_values",
    "net_outputs",
]


@dataclass(frozen=True)
class Output:
    """One value of a net's output, its blob's name, and the blob's weight in the loss."""

    name: str
    value: float
    loss_weight: float


def net_outputs(net: Net) -> list[Output]:
    """Every value of every output blob of ``net`` now, in the order in which Caffe prints them."""
    return [
        Output(name, float(value), net.loss_weight(name))
        for name in net.output_names
        for value in net.blobs[name].read_data(None).reshape(-1)
    ]


def format_outputs(outputs: Sequence[Output], prefix: str) -> Iterator[str]:
    """Yield a line for each output: ``Train net output #0: loss = 2.4 (* 1 = 2.4 loss)``, with ``prefix`` first."""
    for index, output in enumerate(outputs):
        yield f"{prefix}#{index}: {output.name} = {output.value:g}{weighted(output)}"


def weighted(output: Output) -> str:
    """What follows the value of an output that counts in the loss; empty for others."""
    if not output.loss_weight:
        return ""
    return f" (* {output.loss_weight:g} = {output.loss_weight * output.value:g} loss)"


def name_values(outputs: Sequence[Output]) -> dict[str, float | list[float]]:
    """Map each output's name to its value, or to the list of its values where it has several."""
    values: dict[str, list[float]] = {}
    for output in outputs:
        values.setdefault(output.name, []).append(output.value)
    return {name: found[0] if len(found) == 1 else found for name, found in values.items()}


def iteration_line(iteration: int, per_s: float, lapse_s: float, display: int, loss: float) -> str:
    """``Iteration 20 (44.6429 iter/s, 0.448s/20 iters), loss = 0.905912``."""
    return f"Iteration {iteration} ({per_s:g} iter/s, {round(lapse_s, 3):g}s/{display} iters), loss = {loss:g}"


def first_tops(net: Net) -> list[Blob]:
    """What the data layers make (what the first layer makes, where no layer brings data)."""
    tops = net.tops
    makers = [made for layer, made in zip(net.layers, tops, strict=True) if layer.is_data] or tops[:1]
    return [top for made in makers for top in made]


def batch_size(tops: Sequence[Blob]) -> int:
    """The first axis of the first of the :func:`first_tops` that has one."""
    for top in tops:
        if top.shape:
            return top.shape[0]
    return 1


class SmoothedLoss:
    """The mean of the last ``window`` losses (Caffe's average_loss)."""

    def __init__(self, window: int) -> None:
        self._window = window
        self._losses: deque[float] = deque()
        self._dropped: float | None = None

    def add(self, loss: float) -> None:
        """Take in the loss of one more iteration."""
        self._dropped = self._losses.popleft() if len(self._losses) >= self._window else None
        self._losses.append(loss)

    def take_back(self) -> None:
        """Undo the last ``add``; no more than one can be undone."""
        self._losses.pop()
        if self._dropped is not None:
            self._losses.appendleft(self._dropped)
            self._dropped = None

    @property
    def losses(self) -> list[float]:
        """The losses that are averaged, the oldest first."""
        return list(self._losses)

    @property
    def value(self) -> float:
        return sum(self._losses) / len(self._losses) if self._losses else 0.0
