"""Which blobs each layer reads and makes, and where gradients have to flow."""

from __future__ import annotations

import logging
from collections import OrderedDict
from dataclasses import dataclass, field

from paratrain.blob import Blob
from paratrain.errors import NetError
from paratrain.layers.base import Layer
from paratrain.net.names import Named
from paratrain.proto import LayerParameter
from paratrain.registry import nearest

__all__ = ["AUTOMATIC", "LayerWiring", "Wiring", "check_propagate_down"]

logger = logging.getLogger(__name__)

AUTOMATIC = "(automatic)"
"""The name of a top that the prototxt leaves out and the layer needs, as Caffe writes it."""


@dataclass
class LayerWiring:
    """The blobs of one layer, and which of them take part in backward."""

    bottom_names: list[str] = field(default_factory=list)
    bottoms: list[Blob] = field(default_factory=list)
    top_names: list[str] = field(default_factory=list)
    tops: list[Blob] = field(default_factory=list)
    propagate_down: list[bool] = field(default_factory=list)
    """For each bottom, whether backward writes its gradient."""
    needs_backward: bool = False


def check_propagate_down(parameter: LayerParameter, layer: Layer) -> None:
    """Raise LayerError where ``propagate_down`` is not given once for each bottom, or not at all."""
    count = len(parameter.propagate_down)
    if count not in (0, len(parameter.bottom)):
        raise layer.error(
            f"propagate_down is given {count} times for {len(parameter.bottom)} bottoms; give it once for each, or not at all"
        )


class Wiring:
    """Connects layers one after the other by blob names, then decides which of them need backward.

    The rules are those of Caffe's ``Net::Init``: gradients flow to a bottom when something before it learns
    (or ``propagate_down`` says so), and only on paths that end in a loss.
    """

    def __init__(self, dtype: object) -> None:
        self.layers: list[LayerWiring] = []
        self.blobs: OrderedDict[str, Blob] = Named(what="blob")
        self._dtype = dtype
        self._needs_gradient: dict[str, bool] = {}
        self._unused: dict[str, None] = {}

    def connect(self, parameter: LayerParameter, layer: Layer) -> LayerWiring:
        """Enter a layer: find its bottoms, make its tops. Raises LayerError for a top made twice."""
        wired = LayerWiring()
        self.layers.append(wired)
        check_propagate_down(parameter, layer)
        given = list(parameter.propagate_down)
        for index, name in enumerate(parameter.bottom):
            self._append_bottom(wired, layer, index, name, given[index] if given else None)
        for index, name in enumerate(parameter.top):
            self._append_top(wired, parameter, layer, index, name)
        if layer.auto_top_blobs:
            for _ in range(len(wired.tops), layer.top_range[0]):
                wired.top_names.append(AUTOMATIC)
                wired.tops.append(Blob((0,), self._dtype))  # type: ignore[arg-type]
                logger.info("%s -> %s", layer.name, AUTOMATIC)
        return wired

    def _append_bottom(self, wired: LayerWiring, layer: Layer, index: int, name: str, propagate: bool | None) -> None:
        assert name in self._unused, "split insertion has checked that every bottom has one maker and one reader"
        logger.info("%s <- %s", layer.name, name)
        del self._unused[name]
        wired.bottom_names.append(name)
        wired.bottoms.append(self.blobs[name])
        wired.propagate_down.append(self._needs_gradient[name] if propagate is None else propagate)
        wired.needs_backward |= self._needs_gradient[name]

    def _append_top(self, wired: LayerWiring, parameter: LayerParameter, layer: Layer, index: int, name: str) -> None:
        in_place = index < len(parameter.bottom) and parameter.bottom[index] == name
        if not in_place and name in self.blobs:
            raise layer.error(f"top[{index}] '{name}' is already made by another layer; a blob has one maker")
        if in_place and index < len(parameter.loss_weight) and parameter.loss_weight[index] != 0:
            raise layer.error(
                f"top[{index}] '{name}' has loss_weight {parameter.loss_weight[index]:g} and is also a bottom: backward would "
                "overwrite the weight with the gradient of the bottom; give the top a name of its own"
            )
        if in_place and layer.is_loss:
            raise layer.error(f"top[{index}] '{name}' is also a bottom, but a loss cannot be computed in place")
        if not in_place:
            self.blobs[name] = Blob((0,), self._dtype)  # type: ignore[arg-type]
            self._needs_gradient[name] = False
        logger.info("%s -> %s%s", layer.name, name, " (in-place)" if in_place else "")
        self._unused[name] = None
        wired.top_names.append(name)
        wired.tops.append(self.blobs[name])

    def note_learning(self, wired: LayerWiring, learns: bool) -> None:
        """Say whether the layer's own parameters learn: then it, and all that follows from it, needs backward."""
        wired.needs_backward |= learns
        if wired.needs_backward:
            for name in wired.top_names:
                self._needs_gradient[name] = True

    def prune_backward(self, layers: list[Layer]) -> None:
        """Switch backward off where no loss depends on a layer, or every path to one has been cut by propagate_down."""
        under_loss: set[str] = set()
        skipped: set[str] = set()
        for layer, wired in zip(reversed(layers), reversed(self.layers), strict=True):
            contributes = any(
                weight != 0 or name in under_loss
                for name, weight in zip(wired.top_names, layer.loss_weights, strict=True)
            )
            # Caffe looks at the tops up to the first that contributes and is not skipped; any() says the same.
            reached = any(name not in skipped for name in wired.top_names)
            if not reached:
                wired.propagate_down = [False] * len(wired.bottoms)
            if not (reached and contributes):
                wired.needs_backward = False
            logger.info(
                "%s needs backward computation." if wired.needs_backward else "%s does not need backward computation.",
                layer.name,
            )
            for index, name in enumerate(wired.bottom_names):
                if contributes:
                    under_loss.add(name)
                else:
                    wired.propagate_down[index] = False
                if not wired.propagate_down[index]:
                    skipped.add(name)

    def force_backward(self, layers: list[Layer]) -> None:
        """Make gradients flow everywhere that layers allow it, down to the data (``force_backward: true``)."""
        for layer, wired in zip(layers, self.layers, strict=True):
            wired.needs_backward = True
            wired.propagate_down = [
                flows or layer.allow_force_backward(index) for index, flows in enumerate(wired.propagate_down)
            ]
            layer.param_propagate_down = [True] * len(layer.blobs)

    def tell_layers(self, layers: list[Layer]) -> None:
        """Tell every layer whether it needs backward, and which of its tops has the only gradient, once that is decided."""
        written = {
            name
            for wired in self.layers
            for name, flows in zip(wired.bottom_names, wired.propagate_down, strict=True)
            if flows and wired.needs_backward
        }
        for layer, wired in zip(layers, self.layers, strict=True):
            layer.needs_backward = wired.needs_backward
            names = [name for name in wired.top_names if name in written]
            # The diff of an output may be written by hand, and a loss weight lies in the diff already.
            others = any(layer.loss_weights) or any(name in self._unused for name in wired.top_names)
            alone = wired.needs_backward and all(wired.propagate_down) and len(names) == 1 and not others
            layer.only_top_with_gradient = wired.top_names.index(names[0]) if alone else None

    @property
    def output_names(self) -> list[str]:
        """The blobs that no layer reads, sorted as in Caffe's log."""
        return sorted(self._unused)

    def check_names(self, name: str) -> None:
        """Raise NetError, with the nearest names, if there is no blob of this name."""
        if name not in self.blobs:
            close = nearest(name, list(self.blobs)) or sorted(self.blobs)
            raise NetError(f"the net has no blob '{name}'; the nearest are {', '.join(close)}")
