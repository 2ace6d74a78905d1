"""DummyData: tops filled by fillers, for tests and timing."""

from __future__ import annotations

from collections.abc import Sequence

from paratrain.blob import Blob
from paratrain.fillers import fill
from paratrain.layers.base import Layer, register_layer
from paratrain.proto import FillerParameter, LayerParameter
from paratrain.random import generator

__all__ = ["DummyDataLayer"]


@register_layer("DummyData")
class DummyDataLayer(Layer):
    """Tops filled by ``data_filler``: one for all tops or one for each; zeros without any.

    Shapes are given by ``shape``, or by the old ``num``, ``channels``, ``height``, ``width``, each of them once or for
    each top. Constants are filled in when the layer is set up, all others anew in every forward pass, with other
    values on each rank.
    """

    bottom_range = (0, 0)
    top_range = (1, None)
    is_data = True

    @classmethod
    def deals_batches(cls, parameter: LayerParameter) -> bool:  # noqa: ARG003
        """Yes: the values of a batch follow from its number."""
        return True

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        fillers = list(self.parameter.dummy_data_param.data_filler)
        if len(fillers) not in (0, 1, len(top)):
            raise self.error(
                f"data_filler is given {len(fillers)} times for {len(top)} tops; give none, one for all, or one for each"
            )
        default = FillerParameter(type="constant", value=0)
        self._fillers = [fillers[index if len(fillers) > 1 else 0] if fillers else default for index in range(len(top))]
        self._forward_count = 0
        for blob, shape, filler in zip(top, self._top_shapes(len(top)), self._fillers, strict=True):
            blob.reshape(*shape)
            if filler.type == "constant" and not self.context.shapes_only:
                fill(blob, filler, generator(0))

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Nothing: the shapes come from the prototxt."""

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        context = self.context
        first, step = context.deal
        number = first + self._forward_count * step
        for index, (blob, filler) in enumerate(zip(top, self._fillers, strict=True)):
            if filler.type != "constant":
                key = (context.seed, "dummy_data", self.name, index, context.rank, number)
                fill(blob, filler, generator(*key))
        self._forward_count += 1

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Nothing: there are no bottoms."""

    @property
    def next_batch(self) -> int:
        """How many batches have been handed out: the number of the next one."""
        return self._forward_count

    def seek(self, batch: int) -> None:
        """Go on with batch number ``batch``, as if those before had been handed out: for resumed runs."""
        self._forward_count = batch

    def _top_shapes(self, top_count: int) -> list[tuple[int, ...]]:
        parameter = self.parameter.dummy_data_param
        shapes = [tuple(shape.dim) for shape in parameter.shape]
        legacy = (parameter.num, parameter.channels, parameter.height, parameter.width)
        if any(legacy):
            if shapes:
                raise self.error("dummy_data_param has both shape and num, channels, height, width; keep shape")
            names = ("num", "channels", "height", "width")
            for name, axis in zip(names, legacy, strict=True):
                if len(axis) not in (1, top_count):
                    raise self.error(
                        f"dummy_data_param gives {name} {len(axis)} times for {top_count} tops; give one for all, or one for each"
                    )
            axes = [list(axis) * (top_count if len(axis) == 1 else 1) for axis in legacy]
            shapes = list(zip(*axes, strict=True))
        if len(shapes) not in (1, top_count):
            raise self.error(
                f"dummy_data_param has {len(shapes)} shapes for {top_count} tops; give one for all, or one for each"
            )
        return shapes if len(shapes) == top_count else shapes * top_count
