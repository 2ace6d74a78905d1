"""The watch for numbers that are not finite: is a step spoilt, and where did it begin?

Asked of every step is only whether the loss and sums of squares of the gradient are finite. Where they are not, the blobs
of the pass are searched, and the backward pass is run again layer by layer. What an update has made is looked at before it
is written to a snapshot.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from paratrain.backends import Backend
from paratrain.backends.finite import is_finite, without_warnings
from paratrain.blob import Blob, Memory
from paratrain.errors import DeviceFullError, NetError, NotFiniteError, SpoiltParametersError
from paratrain.layers.base import Layer
from paratrain.net import Net
from paratrain.solvers.ranks import Ranks

__all__ = [
    "NAN_MODES",
    "Sentinel",
    "describe",
    "find_in_backward",
    "find_in_forward",
    "find_in_parameters",
]

NAN_MODES = ("stop", "skip")
_MOST_KEYS = 16
# The bits beside those of Action.
_LOSS = 4
_GRADIENT = 8
_OVERFLOW = (
    "the sum of the gradients is not finite, though those of each rank's last pass are: the sum is too large, or an "
    "earlier pass of iter_size spoilt it"
)

logger = logging.getLogger(__name__)


class Sentinel:
    """Watches the steps of a solver, and decides with the other ranks what follows from one that is spoilt.

    In every step: ``begin``, ``see_loss`` after each pass; on the root, which knows by then what all ranks have ``seen``,
    the update where ``allows_update``, which may set ``gradient_is_finite``; then ``decide`` on what all have seen.
    """

    def __init__(self, net: Net, ranks: Ranks) -> None:
        self.mode = "stop"
        """One of NAN_MODES: "stop" raises NotFiniteError, "skip" leaves the update out."""
        self.overflow_hint = ""
        """What else may have spoilt a sum of gradients, those of each rank being finite."""
        self.gradient_is_finite = True
        """Whether the gradient of all ranks is, as far as this rank has looked."""
        self.broken_off: int | None = None
        """The iteration whose update was begun, and broken off where its gradient was not finite: the parameters are of
        no use any more."""
        self._net = net
        self._ranks = ranks
        self._report: str | None = None
        self._place = 0
        """How many layers had run before the one that the report is of."""
        self._statistics: Any = None
        self._carried: list[tuple[Blob, Any]] = []

    @property
    def seen(self) -> int:
        """What this rank has met in this step, as bits."""
        return _LOSS * (self._report is not None) | _GRADIENT * (not self.gradient_is_finite)

    def begin(self) -> None:
        """A step begins. Raises SpoiltParametersError where the update of one before was broken off."""
        self._check_whole()
        self._report, self.gradient_is_finite = None, True
        if self.mode == "skip":
            self._statistics = self._net.parameters.statistics.host().copy()
            carried = [blob for layer in self._net.layers for blob in layer.carried_blobs()]
            self._carried = [(blob, blob.read_data(None).copy()) for blob in carried]

    def see_loss(self, loss: float) -> None:
        """A pass has ended with ``loss``: the first that is not finite is looked into at once, while its blobs are there."""
        if not math.isfinite(loss) and self._report is None:
            self._place, found = self._look(find_in_forward)
            self._report = describe(self._net, found, f"the loss is {loss:g}")

    def allows_update(self, seen: int) -> bool:
        """Whether the losses of all ranks, which together have ``seen`` this, are finite."""
        return not seen & _LOSS

    def allows_gradient(self, seen: int) -> bool:
        """Whether the gradient is finite, as far as all ranks together have ``seen``."""
        return not seen & _GRADIENT

    def check_snapshot(self, history: Sequence[Memory], backend: Backend, iteration: int) -> None:
        """Raise SpoiltParametersError, which names the first that is not finite, unless a snapshot of now would be good."""
        self._check_whole()
        found = find_in_parameters(self._net, history, backend)
        if found:
            raise SpoiltParametersError(
                f"iteration {iteration}: {found} are not finite after the update. No snapshot is written, and those written "
                "before stay as they are; go on from the last one, and a lower base_lr or clip_gradients may help"
            )

    def decide(self, seen: int, iteration: int) -> bool:
        """Return whether the step must be skipped, given what all ranks together have ``seen``; every rank calls it.

        Raises NotFiniteError where such a step ends the run.
        """
        if not seen & (_LOSS | _GRADIENT):
            return False
        if not seen & _LOSS:  # each rank looks for its part in the gradient
            # On several ranks layers may wait for those of one that cannot go on.
            self._place, found = self._look(find_in_pass) if self._ranks.size == 1 else find_in_pass(self._net)
            self._report = describe(self._net, found, "the gradient is not finite") if found else None
        reports = self._ranks.share_texts(self._report or "")
        places = self._ranks.share_texts(str(self._place))
        # What is shared within a pass, as by SyncBN, spoils all ranks: it began where the first layer has met it.
        named = (rank for rank, report in enumerate(reports) if report)
        rank = min(named, key=lambda rank: int(places[rank]), default=None)
        report = _OVERFLOW + self.overflow_hint if rank is None else reports[rank]
        where = f" on rank {rank} of {len(reports)}" if rank is not None and len(reports) > 1 else ""
        if self.mode == "stop":
            if any(self._ranks.share_texts("" if self.broken_off is None else "broken off")):
                self.broken_off = iteration  # so that every rank refuses to go on, and none waits for the root
            raise NotFiniteError(
                f"iteration {iteration}{where}: {report}. Training stops here, and snapshots written before stay as they "
                "are; a lower base_lr or clip_gradients may help, and --nan skip leaves such steps out"
            )
        self._net.parameters.statistics.mutable_host()[...] = self._statistics
        for blob, before in self._carried:  # which the step may have begun anew, for a batch of another size
            blob.write_data(None)[...] = before if before.shape == blob.shape else 0
        spoilt = next(filter(None, self._ranks.share_texts(find_in_parameters(self._net))), None)
        if spoilt is not None:
            raise NotFiniteError(
                f"iteration {iteration}{where}: {report}. Before this step already {spoilt} were not finite: to skip steps "
                "cannot help; go on from the last snapshot"
            )
        if self._ranks.rank == 0:
            logger.warning("Iteration %d is skipped%s: %s", iteration, where, report)
        return True

    def _look(self, find: Callable[[Net], tuple[int, str]]) -> tuple[int, str]:
        """What ``find`` says of the net. It wants memory for copies of the blobs, which a GPU that is nearly full has not."""
        try:
            return find(self._net)
        except (DeviceFullError, NetError, MemoryError):
            return 2 * len(self._net.layers), "not known, since memory is too short to look for it"

    def _check_whole(self) -> None:
        if self.broken_off is not None:
            raise SpoiltParametersError(
                f"the update of iteration {self.broken_off} was broken off, since its gradient was not finite: some parameters "
                "have it and others do not. Go on from a snapshot"
            )


def find_in_parameters(net: Net, history: Sequence[Memory] = (), backend: Backend | None = None) -> str:
    """Name the first parameter, running statistic or value of the solver's ``history`` that is not finite; else "".

    Whole arrays are looked at where ``backend`` has them (on the host without one), so that all is well costs little.
    """
    parameters = net.parameters
    kept = [("the history of ", memory, False) for memory in history]
    for what, memory, is_statistic in [("", parameters.data, False), ("", parameters.statistics, True), *kept]:
        if _holds_finite(memory, backend):
            continue
        for entry in parameters.entries:
            values = memory.host()[entry.start : entry.stop]
            if entry.is_statistic == is_statistic and not _finite(values):
                kind = "statistic" if is_statistic else "parameter"
                return f"{what}{kind} {entry.label}: {_count(values)}"
    return ""


def find_in_forward(net: Net) -> tuple[int, str]:
    """Name the first parameter or blob, in the order of the layers, that is not finite after a forward pass; else "".

    Before the name comes the count of the layers before.
    """
    for place, (layer, tops, names) in enumerate(zip(net.layers, net.tops, net.top_names.values(), strict=True)):
        for index, blob in enumerate(layer.blobs):
            if not _finite(blob.read_data(None)):
                return place, f"parameter {layer.name}[{index}] of {_layer(layer)}, {_count(blob.read_data(None))}"
        for name, blob in zip(names, tops, strict=True):
            values = blob.read_data(None)
            if not _finite(values):
                return place, f"blob '{name}', made by {_layer(layer)}, {_count(values)}{_spoilt(net, values)}"
    return len(net.layers), ""


def find_in_pass(net: Net) -> tuple[int, str]:
    """Name the first parameter, blob or gradient of the last batch that is not finite, or "".

    What is not a number may come out of a ReLU as 0, so that the loss shows nothing and the gradient does: where it began is
    looked for in forward first. Before the name comes a number that is the less the earlier that was.
    """
    if net.memory_plan is not None:
        net.memory_plan.restore()
    place, found = find_in_forward(net)
    backward_place, found_in_backward = find_in_backward(net)  # on all ranks: layers may wait for the others'
    return (place, found) if found else (len(net.layers) + backward_place, found_in_backward)


def find_in_backward(net: Net) -> tuple[int, str]:
    """Run the backward pass of the last batch again; name the first gradient that is not finite, or "".

    Before the name comes the count of the layers that had run. All layers are run, whatever is found: some wait for the
    other ranks.
    """
    net.clear_param_diffs()
    found, place = "", len(net.layers)
    for index in reversed(range(len(net.layers))):
        if not net.layers_needing_backward[index]:
            continue
        with np.errstate(all="ignore"):
            net.backward_layer(index)
        if not found and (found := _find_in_diffs(net, index)):
            place = len(net.layers) - 1 - index
    return place, found


def _find_in_diffs(net: Net, index: int) -> str:
    """Name the first gradient that layer ``index`` has made and that is not finite; else ""."""
    layer = net.layers[index]
    for number, blob in enumerate(layer.blobs):
        if layer.param_propagate_down[number] and not _finite(blob.read_diff(None)):
            return f"gradient of parameter {layer.name}[{number}] of {_layer(layer)}, {_count(blob.read_diff(None))}"
    bottoms = zip(net.bottom_names[layer.name], net.bottoms[index], net.propagate_down[index], strict=True)
    for name, blob, wanted in bottoms:
        values = blob.read_diff(None) if wanted else None
        if values is not None and not _finite(values):
            return f"gradient of blob '{name}', from {_layer(layer)}, {_count(values)}{_spoilt(net, values)}"
    return ""


def describe(net: Net, found: str, problem: str) -> str:
    """A sentence for one rank: what is wrong, where it began, and the records of the batch."""
    first = f"the first that is not finite is {found}" if found else "no blob of the last pass shows where it began"
    records = "".join(
        f"; layer '{layer.name}' read the records {_some(keys)}"
        for layer in _sources(net)
        if (keys := layer.last_keys())
    )
    return f"{problem}; {first}{records}"


def _sources(net: Net) -> Iterator[Layer]:
    return (layer for layer in net.layers if layer.is_data)


def _spoilt(net: Net, values: Any) -> str:
    """Which records the values belong to that are not finite, where they are some of the batch."""
    rows = ~np.isfinite(values.reshape(len(values), -1)).all(axis=1) if values.ndim else np.zeros(0, bool)
    if not rows.any() or rows.all():
        return ""
    keys = next((keys for layer in _sources(net) if len(keys := layer.last_keys()) == len(rows)), None)
    return "" if keys is None else f" (of the records {_some([keys[row] for row in np.flatnonzero(rows)])})"


def _holds_finite(memory: Memory, backend: Backend | None) -> bool:
    if not memory.count:
        return True
    with without_warnings():
        if backend is None or backend.device is None:
            return is_finite(memory.host(), np)
        return is_finite(memory.device(backend.device), backend.xp)


def _finite(values: Any) -> bool:
    with without_warnings():
        return is_finite(values.reshape(-1), np)


def _count(values: Any) -> str:
    return f"{values.size - np.count_nonzero(np.isfinite(values))} of {values.size} values"


def _layer(layer: Layer) -> str:
    return f"layer '{layer.name}' ({layer.type})"


def _some(keys: list[str]) -> str:
    more = len(keys) - _MOST_KEYS
    return ", ".join(keys[:_MOST_KEYS]) + (f" and {more} more" if more > 0 else "")
