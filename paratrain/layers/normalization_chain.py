"""BatchNorm, Scale and perhaps ReLU that follow each other in place: what a net has to know of layers that compute them as one.

Only the last values ever show, so nobody can tell, as long as all of them run. The BatchNorm layer computes forward; backward
runs where the Scale is, so that the gradients of its factors are there once backward has passed it.
"""

from __future__ import annotations

from typing import ClassVar, Generic, TypeVar

from paratrain.layers.base import Layer, LayerContext
from paratrain.layers.fused_relu import FusedReLU
from paratrain.proto import LayerParameter

__all__ = ["ChainHead", "ChainScale"]


class ChainScale(Layer):
    """A Scale layer that may be computed by the BatchNorm before it. Mixed in before the plain layer."""

    @property
    def can_join(self) -> bool:
        """Whether the factors are learned and one for each channel of (N, C, ...)."""
        scale = self.parameter.scale_param
        return scale.axis == 1 and scale.num_axes == 1 and len(self.parameter.bottom) == 1


S = TypeVar("S", bound=ChainScale)


class ChainHead(Layer, Generic[S]):
    """A BatchNorm layer that may compute the Scale ``S``, and the ReLU, behind it. Mixed in before the plain layer."""

    scale_type: ClassVar[type[ChainScale]]
    """``S``: the layers with which it can be one."""

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        self.scale: S | None = None
        """The Scale that follows in place, with which this layer may be computed; found by the net."""
        self.relu: FusedReLU | None = None
        """The ReLU that follows the Scale in place."""
        self.applies_chain = False
        """Whether the next forward pass is to compute them too. The net says so, since it knows what will run."""

    def separate(self) -> None:
        """After a forward pass that has computed the whole chain: make each layer run its own backward pass, if one follows."""
        raise NotImplementedError
