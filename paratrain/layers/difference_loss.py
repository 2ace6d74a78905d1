"""What losses of the difference of two bottoms share."""

from __future__ import annotations

from collections.abc import Sequence

from paratrain.blob import Blob
from paratrain.errors import ShapeMismatchError
from paratrain.layers.base import LayerContext
from paratrain.layers.buffers import Buffer
from paratrain.layers.loss import LossLayer
from paratrain.proto import LayerParameter

__all__ = ["DifferenceLoss"]


class DifferenceLoss(LossLayer):
    """Two bottoms of as many values, both of which may be learned; forward leaves their difference for backward."""

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        self._difference = Buffer(self.xp)

    def allow_force_backward(self, bottom_index: int) -> bool:
        return True

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        super().reshape(bottom, top)
        if bottom[0].count != bottom[1].count:
            raise self.error(
                f"{self.bottom_name(0)} {bottom[0].shape} and {self.bottom_name(1)} {bottom[1].shape} "
                f"must hold as many values; they hold {bottom[0].count} and {bottom[1].count}",
                ShapeMismatchError,
            )
