from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from paratrain.data.dealt import DealtLoader


class Numbered:
    """Batch b is filled with b."""

    image_shape = (1, 2, 3)
    record_count = 100

    def __init__(self) -> None:
        self.closed = False

    def keys(self, batch: int, batch_size: int) -> list[str]:
        return [f"{batch}.{i}" for i in range(batch_size)]

    def shape_of(self, batch: int) -> tuple[int, int, int]:
        return (batch, 2, 3)

    def reading(self, batch: int) -> list[str]:
        return [f"{batch}.0"]

    def fill(self, batch: int, data: npt.NDArray[Any], labels: npt.NDArray[Any], part: slice = slice(None)) -> int:
        data[part] = labels[part] = batch
        return batch

    def close(self) -> None:
        self.closed = True


def test_ranks_take_turns_and_no_batch_is_lost() -> None:
    data, labels = np.zeros((2, 1, 2, 3)), np.zeros(2)
    seen = []
    for rank in range(3):
        loader = DealtLoader(Numbered(), rank, 3)
        assert (loader.image_shape, loader.record_count) == ((1, 2, 3), 100)
        for batch in range(4):
            data[0] = labels[0] = -1
            assert loader.fill(batch, data, labels, slice(1, 2)) == labels[1]
            assert labels[0] == data[0].max() == -1, "only the part that was asked for"
            loader.fill(batch, data, labels)
            seen.append(int(labels[0]))
            assert loader.reading(batch) == [f"{seen[-1]}.0"]
            assert data.min() == data.max() == labels[1] == seen[-1]
            assert loader.keys(batch, 2) == [f"{seen[-1]}.0", f"{seen[-1]}.1"]
            assert loader.shape_of(batch)[0] == seen[-1]
    assert sorted(seen) == list(range(12))
    assert seen[4:8] == [1, 4, 7, 10]


def test_closing_closes_what_it_reads_from() -> None:
    numbered = Numbered()
    DealtLoader(numbered, 0, 2).close()
    assert numbered.closed
