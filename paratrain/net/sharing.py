"""Blobs that are one block of memory, although the prototxt names several: where a residual block ends.

A core writes faster where it has just read: what it is to write elsewhere it reads first, and throws away. So the gradients of
all readers of a blob are added up in the place of one of them, and a sum's gradient, which is that of both bottoms, lies in one
place. Gradients last only as long as layers need them then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from paratrain.blob import Blob
from paratrain.layers.onednn.eltwise import OneDnnEltwiseLayer
from paratrain.layers.onednn.normalization import OneDnnScaleLayer
from paratrain.layers.onednn.split import OneDnnSplitLayer

if TYPE_CHECKING:
    from paratrain.net.net import Net

__all__ = ["Sharing"]

_PLAIN_MAKERS = frozenset({"BatchNorm", "Bias", "Convolution", "Scale"})
"""Types whose backward passes read the gradients of their tops and write no others than those of their bottoms."""


class Sharing:
    """Which blobs of a net share memory beyond what layers share of their own accord. For nets that plan memory.

    The gradient of a sum of two bottoms without coefficients is that of one bottom as well. Where the other bottom comes straight
    from a Scale, that layer, which runs backward next, reads it there instead of a copy. A Split adds the gradients of its tops
    in the place of one of them. So one gradient goes the way of the shortcuts through all residual blocks of one size.
    """

    def __init__(self, net: Net) -> None:
        self._net = net
        self._users: dict[int, list[int]] = {}
        for index, (bottoms, tops) in enumerate(zip(net.bottoms, net.tops, strict=True)):
            for blob in {id(blob): blob for blob in (*bottoms, *tops)}.values():
                self._users.setdefault(id(blob), []).append(index)
        self._sums = [
            (index, layer)
            for index, layer in enumerate(net.layers)
            if isinstance(layer, OneDnnEltwiseLayer) and self._may_share(index, layer)
        ]
        for index, layer in self._sums:
            self._plan_sum(index, layer)
        for index, split in enumerate(net.layers):
            if isinstance(split, OneDnnSplitLayer):
                split.summed_into = self._top_for_sum(index, split)

    def begin_backward(self, is_whole: bool) -> None:
        """Layers are about to run backward, all of them or some. In the latter case every gradient is to be in its place."""
        for _, layer in self._sums:
            layer.hands_over = is_whole

    def _may_share(self, index: int, layer: OneDnnEltwiseLayer) -> bool:
        bottoms, (top,) = self._net.bottoms[index], self._net.tops[index]
        is_read = any(top is blob for below in self._net.bottoms for blob in below)
        return layer.is_plain_sum and len(bottoms) == 2 and is_read and not any(layer.loss_weights)

    def _plan_sum(self, index: int, layer: OneDnnEltwiseLayer) -> None:
        net, bottoms = self._net, self._net.bottoms[index]
        if not (net.layers_needing_backward[index] and all(net.propagate_down[index])):
            return
        plain = [number for number, blob in enumerate(bottoms) if self._is_plainly_made(blob, index)]
        before, latest = net.layers[index - 1], net.tops[index - 1]
        if layer.shared_bottom is None and plain:  # rather the one that was not made last: that may be handed over
            layer.shared_bottom = min(plain, key=lambda number: any(blob is bottoms[number] for blob in latest))
        if layer.shared_bottom is None:
            return
        other = 1 - layer.shared_bottom
        if isinstance(before, OneDnnScaleLayer) and latest[0] is bottoms[other] and other in plain:
            layer.receiver = before

    def _is_plainly_made(self, blob: Blob, reader: int) -> bool:
        """Whether only layer ``reader`` reads ``blob``, and layers made it whose backward passes are well known."""
        makers = [index for index in self._users[id(blob)] if index != reader]
        return bool(makers) and all(self._net.layers[index].type in _PLAIN_MAKERS for index in makers)

    def _top_for_sum(self, index: int, split: OneDnnSplitLayer) -> int | None:
        """The first top whose gradient is always there, but rather that which a sum shares; None where there is one only."""
        net = self._net
        if not net.layers_needing_backward[index] or split.only_top_with_gradient is not None:
            return None
        written, preferred = [], []
        for number, blob in enumerate(net.tops[index]):
            readers = [user for user in self._users[id(blob)] if user != index]
            if len(readers) != 1 or not net.layers_needing_backward[readers[0]] or split.loss_weights[number]:
                continue
            bottoms, downs = net.bottoms[readers[0]], net.propagate_down[readers[0]]
            if any(bottom is blob and down for bottom, down in zip(bottoms, downs, strict=True)):
                written.append(number)
                layer = net.layers[readers[0]]
                shared = layer.shared_bottom if isinstance(layer, OneDnnEltwiseLayer) else None
                if shared is not None and bottoms[shared] is blob:
                    preferred.append(number)
        return next(iter([*preferred, *written]), None)
