"""Any number of samples in batches of a net's size, and what the net makes of them back together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from paratrain.errors import NetError, ShapeMismatchError

__all__ = ["Collected", "batches"]

Arrays = dict[str, npt.NDArray[Any]]


def batches(arrays: Mapping[str, npt.ArrayLike], batch_size: int) -> Iterator[tuple[Arrays, int, int]]:
    """Yield (batch, count, batch_size) for all samples of ``arrays``, whose first axes are the same; ``count`` of the batch
    are samples, and what follows them in the last batch are zeros.

    Raises NetError where there are no samples, ShapeMismatchError where the arrays hold different numbers of them.
    """
    given = {name: np.asarray(values) for name, values in arrays.items()}
    counts = {name: len(values) if values.ndim else 0 for name, values in given.items()}
    total = max(counts.values(), default=0)
    if total == 0:
        raise NetError("there are no samples: give arrays for the inputs of the net, (samples, ...)")
    if any(count != total for count in counts.values()):
        found = ", ".join(f"{count} for '{name}'" for name, count in counts.items())
        raise ShapeMismatchError(f"the arrays hold different numbers of samples: {found}")
    for start in range(0, total, batch_size):
        count = min(batch_size, total - start)
        batch = {}
        for name, values in given.items():
            part = values[start : start + count]
            if count < batch_size:
                part = np.concatenate([part, np.zeros((batch_size - count, *part.shape[1:]), part.dtype)])
            batch[name] = part
        yield batch, count, batch_size


class Collected:
    """Copies of arrays, batch after batch."""

    def __init__(self) -> None:
        self._parts: dict[str, list[npt.NDArray[Any]]] = {}

    def add(self, arrays: Arrays, count: int, batch_size: int) -> None:
        """Take the arrays of a batch, of which the first ``count`` samples count. Arrays without an axis for samples, or with
        one of other length, are taken as they are; one with several rows for each sample loses those of the others.
        """
        for name, values in arrays.items():
            rows = values[np.newaxis] if values.ndim == 0 else values
            if values.ndim and len(values) % batch_size == 0:
                rows = values[: count * (len(values) // batch_size)]
            self._parts.setdefault(name, []).append(rows.copy())

    def arrays(self) -> Arrays:
        """All of them by name, one batch below the other."""
        return {name: np.concatenate(parts) for name, parts in self._parts.items()}
