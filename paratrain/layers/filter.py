"""Filter: only the chosen items of a batch go on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from paratrain.blob import Blob
from paratrain.errors import ShapeMismatchError
from paratrain.layers.base import Layer, register_layer
from paratrain.layers.checks import refuse_in_place
from paratrain.layers.indices import take_rows

__all__ = ["FilterLayer"]


@register_layer("Filter")
class FilterLayer(Layer):
    """top[i] holds the items of bottom[i] whose value in the last bottom, the selector, is not 0, in order.

    Bottoms (N, ...) and, last, the selector (N, 1 ...); one top for each of the others: (M, ...), M being how many are
    chosen in this step (possibly 0), and N before the first one, when nothing is known yet. Tops change their shape in
    ``forward``. dx is dy for chosen items and 0 for the others; the selector has no gradient.
    """

    bottom_range = (2, None)
    top_range = (1, None)

    def allow_force_backward(self, bottom_index: int) -> bool:
        return bottom_index < len(self.parameter.bottom) - 1

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        if len(top) != len(bottom) - 1:
            raise self.error(
                f"takes a top for each bottom but the last, the selector; given are {len(bottom)} bottoms and {len(top)} tops"
            )
        self._chosen = np.zeros(0, np.int64)
        self._ran = False

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        refuse_in_place(self, bottom, top)
        selector, last = bottom[-1], len(bottom) - 1
        if not selector.axis_count or selector.count != selector.shape[0]:
            raise self.error(
                f"{self.bottom_name(last)}, the selector, is {selector.shape}; all its axes but the first must be 1",
                ShapeMismatchError,
            )
        for index, blob in enumerate(bottom[:-1]):
            if blob.shape[:1] != selector.shape[:1]:
                raise self.error(
                    f"{self.bottom_name(index)} is {blob.shape}; {self.bottom_name(last)}, the selector, "
                    f"{selector.shape}, needs {selector.shape[0]} items",
                    ShapeMismatchError,
                )
        self._shape_tops(bottom, top)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self._chosen, self._ran = np.flatnonzero(bottom[-1].read_data(None)), True
        self._shape_tops(bottom, top)
        for below, above in zip(bottom[:-1], top, strict=True):
            take_rows(self, self.read(below), self._chosen, self.write(above))

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        if propagate_down[-1]:
            raise self.error(
                f"{self.bottom_name(len(bottom) - 1)} selects and has no gradient; give propagate_down: false for it"
            )
        rows = self.xp.asarray(self._chosen)
        for below, above, down in zip(bottom[:-1], top, propagate_down[:-1], strict=True):
            if down:
                bottom_diff = self.write_diff(below)
                bottom_diff.fill(0)
                bottom_diff[rows] = self.read_diff(above)

    def _shape_tops(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Give the tops room for the items of the last step, or for all before the first."""
        for below, above in zip(bottom[:-1], top, strict=True):
            above.reshape(self._chosen.size if self._ran else below.shape[0], *below.shape[1:])
