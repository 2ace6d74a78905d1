"""Layers that could not be read whole: what was said of them already, so that nothing is said of what follows from it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from paratrain.proto import LayerParameter, V1LayerParameter

__all__ = ["Damage", "LayerKey", "layer_keys", "says_wires"]

LayerKey = tuple[str, int]
"""A layer by its name, and which of the layers of this name it is: names should differ, but one of them may be a mistake."""

Damage = Mapping[LayerKey, str]
"""What is wrong with the text of a layer, for those of which a field could not be read."""

_WIRES = {"bottom", "top", "propagate_down", "loss_weight"}


def layer_keys(layers: Iterable[LayerParameter | V1LayerParameter]) -> list[LayerKey]:
    """The keys of ``layers``, in order."""
    seen: Counter[str] = Counter()
    keys: list[LayerKey] = []
    for layer in layers:
        keys.append((layer.name, seen[layer.name]))
        seen[layer.name] += 1
    return keys


def says_wires(said: str) -> bool:
    """Whether one of the fields that could not be read, or that was meant, is one that wires the layer to blobs."""
    return not _WIRES.isdisjoint(re.findall(r"\w+", said))
