"""The figures of a training run as JSON lines: one object a line, for programs to read.

A displayed iteration gives ``iteration, loss, lr, images_per_s, data_s, forward_s, backward_s, exchange_s, update_s,
data_share, bad_records``, on several ranks also ``loss_min`` and ``loss_max``, between which ``loss``, the mean, lies.
``data_share`` is the share of the time, from 0 to 1, that the root rank waited for data; ``bad_records`` counts how often, on
all ranks and from the start of the run, another record took the place of one that cannot be used;
a test gives ``iteration, test_net, outputs``, where ``outputs`` maps each output to its mean (to a list, for outputs of
several values). The ``_s`` figures are seconds of the root rank, summed over the iterations since the line before.
``exchange_s`` is all that it spends on exchanging, also while backward goes on, and on waiting for slower ranks; ``backward_s``
is what is left of backward. On several ranks ``exchange_predicted_s`` stands beside them: what the cost model
(paratrain.topology.costs.training_step) predicts for ``exchange_s + update_s`` of these iterations: gradients summed, parameters
updated and brought to all ranks. It does not know how long ranks wait for the slowest one, nor the small messages of a step,
in which ranks agree on stops, losses and statistics; and time on the network that backward hides is predicted, not measured.
A number that is not finite is written as null, which JSON can express.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

from paratrain.errors import ParatrainError

__all__ = ["MetricsWriter"]

Figure = float | int | Sequence[float] | Mapping[str, "Figure"]


class MetricsWriter:
    """Writes one line per call, flushed at once, so that a reader can follow a run.

    ``append`` goes on after what the file holds (for a resumed run); otherwise the file starts anew.
    Raises ParatrainError where the file cannot be opened or written.
    """

    def __init__(self, path: str | Path, *, append: bool = False) -> None:
        self.path = Path(path)
        try:
            self._file: TextIO = self.path.open("a" if append else "w", encoding="utf-8")
        except OSError as error:
            raise ParatrainError(f"cannot write metrics to '{path}': {error.strerror}") from None

    def write(self, **figures: Figure) -> None:
        """Write one line."""
        try:
            self._file.write(json.dumps({name: _finite(value) for name, value in figures.items()}) + "\n")
            self._file.flush()
        except OSError as error:
            raise ParatrainError(f"cannot write metrics to '{self.path}': {error.strerror}") from None

    def close(self) -> None:
        """Close the file; nothing can be written any more."""
        self._file.close()


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_finite(item) for item in value]
    return value
