"""What a net is made of, by the names that scripts use: blobs, parameters, and how they are connected."""

from __future__ import annotations

from collections import OrderedDict

from paratrain.blob import Blob
from paratrain.layers import Layer
from paratrain.net.names import Named
from paratrain.net.wiring import Wiring

__all__ = ["Structure"]


class Structure:
    """The part of a :class:`paratrain.net.net.Net` that only tells what there is."""

    layers: list[Layer]
    layer_names: list[str]
    _wiring: Wiring

    @property
    def blobs(self) -> OrderedDict[str, Blob]:
        """All blobs by name, in the order in which layers make them."""
        return self._wiring.blobs

    @property
    def params(self) -> OrderedDict[str, list[Blob]]:
        """The parameter blobs of each layer that has some, by layer name."""
        return Named(((layer.name, layer.blobs) for layer in self.layers if layer.blobs), "layer with parameters")

    @property
    def bottoms(self) -> list[list[Blob]]:
        """The blobs that each layer reads."""
        return [wired.bottoms for wired in self._wiring.layers]

    @property
    def tops(self) -> list[list[Blob]]:
        """The blobs that each layer makes."""
        return [wired.tops for wired in self._wiring.layers]

    @property
    def bottom_names(self) -> OrderedDict[str, list[str]]:
        """The names of the blobs that each layer reads, by layer name."""
        names = zip(self.layer_names, self._wiring.layers, strict=True)
        return Named(((name, list(wired.bottom_names)) for name, wired in names), "layer")

    @property
    def top_names(self) -> OrderedDict[str, list[str]]:
        """The names of the blobs that each layer makes, by layer name."""
        names = zip(self.layer_names, self._wiring.layers, strict=True)
        return Named(((name, list(wired.top_names)) for name, wired in names), "layer")

    @property
    def output_names(self) -> list[str]:
        """The blobs that no layer reads, in Caffe's order (sorted)."""
        return self._wiring.output_names

    @property
    def input_names(self) -> list[str]:
        """The tops of Input layers."""
        return [name for layer, wired in zip(self.layers, self._wiring.layers, strict=True) if layer.type == "Input"
                for name in wired.top_names]  # fmt: skip

    @property
    def layers_needing_backward(self) -> list[bool]:
        """For each layer, whether backward runs it."""
        return [wired.needs_backward for wired in self._wiring.layers]

    @property
    def propagate_down(self) -> list[list[bool]]:
        """For each layer, to which of its bottoms backward writes gradients."""
        return [wired.propagate_down for wired in self._wiring.layers]

    def loss_weight(self, blob_name: str) -> float:
        """The weight of a blob in the loss, as its maker has it; 0 for most."""
        self._wiring.check_names(blob_name)
        for layer, wired in zip(reversed(self.layers), reversed(self._wiring.layers), strict=True):
            if blob_name in wired.top_names:
                return layer.loss_weights[wired.top_names.index(blob_name)]
        return 0.0
