"""ReLU in the layer before: computed while a value is at hand, rather than by reading and writing the blob once more."""

from __future__ import annotations

from paratrain.layers.base import Layer, LayerContext
from paratrain.proto import LayerParameter

__all__ = ["AppliesReLU", "FusedReLU"]


class FusedReLU(Layer):
    """A ReLU layer whose forward pass the layer before may have done. Mixed in before the plain layer."""

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        self.is_applied = False
        """The layer before has computed this layer's next forward pass along with its own."""
        self.leaves_backward = False
        """A layer before computes this layer's backward pass too, after that forward pass."""

    @property
    def fused_slope(self) -> float | None:
        """The negative slope, if backward does without the values before the ReLU; else None: it cannot be fused."""
        slope = float(self.parameter.relu_param.negative_slope)
        return slope if slope >= 0 else None


class AppliesReLU(Layer):
    """A layer that can end in the ReLU that works in place on its only top. Mixed in before the plain layer."""

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        self.relu: FusedReLU | None = None
        """The layer of that ReLU."""
        self.applies_relu = False
        """Whether the next forward pass is to compute it. The net says so, since it knows what will run."""

    def take_relu(self, can_apply: bool, *, with_backward: bool = False) -> float | None:
        """Return the negative slope of the ReLU that this pass is to end in, None where there is none, and tell its layer.

        ``with_backward``: this layer is going to compute the ReLU's backward pass as well, if :attr:`relu_left` says so then.
        """
        if self.relu is None:
            return None
        self.relu.is_applied = self.applies_relu and can_apply
        self.relu.leaves_backward = self.relu.is_applied and with_backward
        return self.relu.fused_slope if self.relu.is_applied else None

    @property
    def relu_left(self) -> FusedReLU | None:
        """In backward: the ReLU whose backward pass this layer has to compute before its own; None where there is none."""
        return self.relu if self.relu is not None and self.relu.leaves_backward else None

    def leave_relu(self) -> None:
        """Make the ReLU compute its own backward pass, since not both layers are about to run."""
        if self.relu is not None:
            self.relu.leaves_backward = False
