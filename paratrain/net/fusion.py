"""Which layers of a net may be computed together.

A ReLU that works in place on the top of a convolution or an inner product is computed by that layer, where the backend can:
the blob only ever shows the rectified values, so nobody can tell, as long as both layers run. So it is with a BatchNorm, a
Scale and perhaps a ReLU that follow each other in place; these are one forward and backward.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from paratrain.blob import Blob
from paratrain.layers import Layer
from paratrain.layers.cupy.eltwise import CupyEltwiseLayer
from paratrain.layers.fused_relu import AppliesReLU, FusedReLU
from paratrain.layers.normalization_chain import ChainHead
from paratrain.layers.onednn.eltwise import OneDnnEltwiseLayer
from paratrain.layers.split import SplitLayer
from paratrain.net.wiring import LayerWiring

__all__ = ["Fusion"]


class Fusion:
    """The pairs of layers of a net that may be computed together."""

    def __init__(self, layers: Sequence[Layer], wiring: Sequence[LayerWiring]) -> None:
        self._pairs: list[tuple[int, int, AppliesReLU]] = []
        for index, (layer, wired) in enumerate(zip(layers, wiring, strict=True)):
            follower = _first_reader(wiring, index) if isinstance(layer, AppliesReLU) and len(wired.tops) == 1 else None
            if follower is None or not _is_top(wiring[follower], wired.tops[0]):
                continue
            relu = layers[follower]
            if isinstance(layer, AppliesReLU) and isinstance(relu, FusedReLU) and relu.fused_slope is not None:
                layer.relu = relu
                self._pairs.append((index, follower, layer))

        self._chains: list[tuple[int, int, ChainHead[Any]]] = []
        for index, (layer, wired) in enumerate(zip(layers, wiring, strict=True)):
            if isinstance(layer, ChainHead) and wired.bottoms[0] is wired.tops[0]:
                last = _find_chain(layers, wiring, index, layer)
                if last is not None:
                    self._chains.append((index, last, layer))
        for layer, wired in zip(layers, wiring, strict=True):
            # A script may write the diff of the top and go on below.
            may_share = wired.needs_backward and not (layer.context.keeps_arrays or any(layer.loss_weights))
            if may_share and isinstance(layer, (OneDnnEltwiseLayer, CupyEltwiseLayer)):
                layer.shared_bottom = _bottom_of_split(layers, wiring, wired)

    def begin(self, start: int, stop: int, is_allowed: bool) -> None:
        """Layers ``start`` to ``stop`` (not included) are about to run forward: fuse the pairs of which both do."""
        for first, second, layer in self._pairs:
            layer.applies_relu = is_allowed and start <= first and second < stop
        for first, last, norm in self._chains:
            is_whole = start <= first and last < stop
            if not is_whole:
                norm.separate()  # backward goes through what these layers computed at different times
            norm.applies_chain = is_allowed and is_whole

    def begin_backward(self, start: int, end: int, is_allowed: bool) -> None:
        """Layers ``start`` down to ``end`` (included) are about to run backward: part those of which only some do."""
        for first, second, layer in self._pairs:
            if not (is_allowed and end <= first <= second <= start):
                layer.leave_relu()
        for first, last, norm in self._chains:
            if first <= start and end <= last and not (end <= first and last <= start):
                norm.separate()


def _bottom_of_split(layers: Sequence[Layer], wiring: Sequence[LayerWiring], wired: LayerWiring) -> int | None:
    """The first bottom that comes straight from a Split which adds its gradient to others."""
    for index, (blob, down) in enumerate(zip(wired.bottoms, wired.propagate_down, strict=True)):
        for layer, maker in zip(layers, wiring, strict=True):
            if any(top is blob for top in maker.tops):  # the first that makes it, and the only one: else it is in place
                users = sum(any(top is blob for top in other.tops) for other in wiring)
                if down and users == 1 and isinstance(layer, SplitLayer) and layer.only_top_with_gradient is None:
                    return index
                break
    return None


def _find_chain(layers: Sequence[Layer], wiring: Sequence[LayerWiring], index: int, norm: ChainHead[Any]) -> int | None:
    """Tell the BatchNorm layer ``index`` what follows it in place and can be computed with it; return the last of that."""
    second = _in_place_reader(wiring, index)
    scale = None if second is None else layers[second]
    if second is None or not isinstance(scale, norm.scale_type) or not scale.can_join:
        return None
    if wiring[second].needs_backward and not wiring[index].propagate_down[0]:
        return None
    norm.scale = scale
    third = _in_place_reader(wiring, second)
    relu = None if third is None else layers[third]
    if third is not None and isinstance(relu, FusedReLU) and relu.fused_slope == 0:
        norm.relu = relu
        return third
    return second


def _in_place_reader(wiring: Sequence[LayerWiring], maker: int) -> int | None:
    """The layer that works in place on the top of layer ``maker``, first of all."""
    reader = _first_reader(wiring, maker)
    return reader if reader is not None and _is_top(wiring[reader], wiring[maker].tops[0]) else None


def _is_top(wired: LayerWiring, blob: Blob) -> bool:
    return bool(wired.tops) and wired.tops[0] is blob


def _first_reader(wiring: Sequence[LayerWiring], maker: int) -> int | None:
    blob = wiring[maker].tops[0]
    for index in range(maker + 1, len(wiring)):
        if any(bottom is blob for bottom in wiring[index].bottoms):
            return index
    return None
