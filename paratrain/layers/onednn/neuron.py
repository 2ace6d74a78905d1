"""Layers that work value by value, in the layout in which their bottoms come."""

from __future__ import annotations

from paratrain.layers.absval import AbsValLayer
from paratrain.layers.activation import SigmoidLayer, TanHLayer
from paratrain.layers.base import LayerContext, register_layer
from paratrain.layers.dropout import DropoutLayer
from paratrain.layers.elu import ELULayer
from paratrain.layers.onednn.arrays import ByValueLayer
from paratrain.layers.power import PowerLayer
from paratrain.proto import TRAIN, LayerParameter

__all__ = [
    "OneDnnAbsValLayer",
    "OneDnnDropoutLayer",
    "OneDnnELULayer",
    "OneDnnPowerLayer",
    "OneDnnSigmoidLayer",
    "OneDnnTanHLayer",
]


@register_layer("AbsVal", backend="onednn")
class OneDnnAbsValLayer(ByValueLayer[None], AbsValLayer):
    """AbsVal in the layout of the bottom."""


@register_layer("ELU", backend="onednn")
class OneDnnELULayer(ByValueLayer[None], ELULayer):
    """ELU in the layout of the bottom."""

    keeps_values = True


@register_layer("TanH", backend="onednn")
class OneDnnTanHLayer(ByValueLayer[None], TanHLayer):
    """TanH in the layout of the bottom."""


@register_layer("Sigmoid", backend="onednn")
class OneDnnSigmoidLayer(ByValueLayer[None], SigmoidLayer):
    """Sigmoid in the layout of the bottom, unless that has padding."""

    keeps_zeros = False


@register_layer("Power", backend="onednn")
class OneDnnPowerLayer(ByValueLayer[None], PowerLayer):
    """Power in the layout of the bottom, unless that has padding."""

    keeps_zeros = False
    keeps_values = True


@register_layer("Dropout", backend="onednn")
class OneDnnDropoutLayer(ByValueLayer[None], DropoutLayer):
    """Dropout; in TEST, where nothing is drawn, in the layout of the bottom. Masks belong to places of the plain array."""

    def __init__(self, parameter: LayerParameter, context: LayerContext) -> None:
        super().__init__(parameter, context)
        self.is_by_value = context.phase != TRAIN
