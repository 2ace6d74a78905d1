"""Input: tops that the user fills."""

from __future__ import annotations

from collections.abc import Sequence

from paratrain.blob import Blob
from paratrain.layers.base import Layer, register_layer

__all__ = ["InputLayer"]


@register_layer("Input")
class InputLayer(Layer):
    """Tops of the shapes in ``input_param``, one for all of them or one for each; their values are written from
    outside.

    A net of these layers may be given other shapes later: the tops are shaped once.
    """

    bottom_range = (0, 0)
    top_range = (1, None)

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        shapes = [tuple(shape.dim) for shape in self.parameter.input_param.shape]
        if len(shapes) not in (0, 1, len(top)):
            raise self.error(
                f"input_param has {len(shapes)} shapes for {len(top)} tops; give one for all, or one for each"
            )
        for index, blob in enumerate(top):
            if shapes:
                blob.reshape(*shapes[index if len(shapes) > 1 else 0])

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Nothing: whoever fills the tops decides their shape."""

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Nothing: the tops hold what the user wrote."""

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Nothing: there are no bottoms."""
