"""What layers on the GPU share that compare predictions with labels or targets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from paratrain.backends.cupy.forms import Form
from paratrain.blob import Blob
from paratrain.errors import LayerError
from paratrain.layers.base import LayerContext
from paratrain.layers.cupy.base import CupyLayer
from paratrain.layers.cupy.grid_sums import GridSums
from paratrain.layers.loss import wrong_label
from paratrain.proto import LayerParameter

__all__ = ["VALUE", "CupyLabelLayer", "CupyLossLayer"]

VALUE = Form.of((), np.float32)
"""The form of a loss, and of its weight."""


class CupyLossLayer(CupyLayer):
    """A layer that makes one value, by kernels that sum over the grid. Mixed in before the plain layer, which computes where
    there is nothing to sum.
    """

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        self.sums = GridSums(self.forms)

    def weight(self, top: Blob) -> Any:
        """The weight of the loss, an array of one on the GPU: somebody may scale it from step to step."""
        return self.copies.read(top.diff_memory, VALUE, "weight")


class CupyLabelLayer(CupyLossLayer):
    """One whose second bottom are labels, which its kernels read on the GPU, where they cannot raise an error.

    A label that is no class counts as one to be ignored, until somebody asks what has been found wrong: see
    :class:`paratrain.backends.cupy.faults.Faults`.
    """

    _ignore_label: int | None

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        self.fault = self.gpu.faults.place(self._describe_fault)
        """Where kernels note a wrong label."""

    def label_sizes(self) -> tuple[int, int]:
        """The number of classes, and of labels for each sample."""
        raise NotImplementedError

    def labels(self, bottom: Sequence[Blob]) -> tuple[Any, int, bool]:
        """What kernels are told of the labels: their array, which of them does not count, and whether there is such a one."""
        values = self.copies.read(bottom[1].data_memory, Form.of(bottom[1].shape, np.float32), "labels")
        return values, self._ignore_label or 0, self._ignore_label is not None

    def _describe_fault(self, position: int, label: float) -> LayerError:
        return wrong_label(self, *self.label_sizes(), position, label)
