"""ReLU by oneDNN, in the layout of the bottom."""

from __future__ import annotations

from paratrain.backends.onednn.arranged import Arranger, Copies
from paratrain.backends.onednn.layout import Layout
from paratrain.backends.onednn.names import Algorithm, Argument, PropKind
from paratrain.backends.onednn.primitive import Descriptor, Primitive, best
from paratrain.blob import Memory

__all__ = ["OneDnnReLU"]


class OneDnnReLU:
    """ReLU with a negative slope of at least 0. Its backward pass needs only the signs of the bottom, which the top has as well:
    it may work in place.
    """

    def __init__(self, arranger: Arranger, layout: Layout, slope: float) -> None:
        assert slope >= 0, "the top of a negative slope does not show the sign of the bottom"
        self._arranger = arranger
        self.layout = layout
        kind, engine = Algorithm.ELTWISE_RELU_BY_TOP, arranger.engine
        forward = best(
            [Descriptor(engine, "eltwise_forward", PropKind.FORWARD_TRAINING, kind, layout, layout, slope, 0.0)]
        )
        backward = best([Descriptor(engine, "eltwise_backward", kind, layout, layout, layout, slope, 0.0, forward)])
        self._forward = Primitive(forward, Argument.SOURCE, Argument.DESTINATION)
        self._backward = Primitive(backward, Argument.DESTINATION, Argument.DESTINATION_DIFF, Argument.SOURCE_DIFF)

    def forward(self, copies: Copies, bottom: Memory, top: Memory) -> None:
        """Write the top, which may be the bottom."""
        x = copies.read(bottom, self.layout)
        self._forward.run(x, self._arranger.write(top, self.layout))

    def backward(self, copies: Copies, bottom: Memory, top_diff: Memory, bottom_diff: Memory) -> None:
        """bottom_diff, which may be top_diff, = the gradient by the bottom; ``bottom`` may hold the top's values by now."""
        signs, dy = copies.read(bottom, self.layout), copies.read(top_diff, self.layout, "diff")
        self._backward.run(signs, dy, self._arranger.write(bottom_diff, self.layout))

    @property
    def implementations(self) -> list[str]:
        """The names of the kernels that are in use, in oneDNN's words."""
        return [self._forward.implementation, self._backward.implementation]
