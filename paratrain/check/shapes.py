"""Shaping a network that may have mistakes: a layer that fails is noted, and whatever does not depend on it goes on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from paratrain.blob import Blob
from paratrain.check.damage import Damage, layer_keys, says_wires
from paratrain.check.data_shapes import Shape, known_shapes
from paratrain.check.files import missing_files
from paratrain.data.transformer import transform_problems
from paratrain.errors import NetError, ParatrainError
from paratrain.layers.base import LAYERS, Layer, LayerContext, create_layer
from paratrain.layers.fields import reads
from paratrain.net import Parameters
from paratrain.net.wiring import AUTOMATIC, check_propagate_down
from paratrain.proto import LayerParameter, NetParameter, ParamSpec
from paratrain.proto.splits import unknown_bottom

__all__ = ["ShapedLayer", "ShapedNet", "shape_net"]


@dataclass
class ShapedLayer:
    """One layer, and its blobs as far as their shapes are known (None where not)."""

    parameter: LayerParameter
    layer: Layer | None
    bottoms: list[Blob | None]
    tops: list[Blob | None]
    is_shaped: bool = False


@dataclass
class ShapedNet:
    """The layers in order, the parameters entered so far, and what is wrong."""

    parameter: NetParameter
    layers: list[ShapedLayer]
    parameters: Parameters
    problems: list[str] = field(default_factory=list)
    replaced: dict[str, list[Shape]] = field(default_factory=dict)
    """Data layers whose data is not there, by name, with the shapes that their tops have all the same."""

    @property
    def is_complete(self) -> bool:
        """Whether every layer has its shapes."""
        return all(shaped.is_shaped for shaped in self.layers)


def shape_net(
    net: NetParameter, context: LayerContext, given: Mapping[str, Shape], damaged: Damage | None = None
) -> ShapedNet:
    """Set up the layers of ``net``, which has been filtered, with ``shapes_only`` in the context: no memory is taken.

    ``given`` are shapes of blobs that data layers make, by name. ``damaged`` are layers that could not be read whole;
    they are not set up, and what follows from them is not checked.
    """
    result = ShapedNet(net, [], Parameters(context.dtype))
    shaper = _Shaper(result, context, given)
    names: set[str] = set()
    for index, (parameter, key) in enumerate(zip(net.layer, layer_keys(net.layer), strict=True)):
        if not parameter.HasField("phase"):
            parameter.phase = context.phase
        if parameter.name in names:
            result.problems.append(
                f"two layers are named '{parameter.name}'; weights are stored by layer name, so names must differ"
            )
        names.add(parameter.name)
        shaper.add(index, (damaged or {}).get(key))
    return result


class _Shaper:
    """Adds one layer after the other to a ShapedNet, and what is wrong to its problems."""

    def __init__(self, result: ShapedNet, context: LayerContext, given: Mapping[str, Shape]) -> None:
        self._result = result
        self._problems = result.problems
        self._context = context
        self._given = given
        self._blobs: dict[str, Blob | None] = {}

    def add(self, index: int, damage: str | None) -> None:
        """Enter layer ``index`` of the net; ``damage`` is what was wrong with its text."""
        is_damaged = damage is not None
        shaped = self._connect(index)
        parameter = shaped.parameter
        self._result.layers.append(shaped)
        missing = list(missing_files(parameter))
        self._problems += missing
        if reads(parameter.type, "transform_param"):
            where = f"layer '{parameter.name}' ({parameter.type})"
            self._problems += [f"{where}: {problem}" for problem in transform_problems(parameter.transform_param)]
        layer = self._create(shaped, damage)
        if layer is not None and None not in shaped.bottoms:
            if not (missing or is_damaged):
                self._set_up(shaped, layer)
            if layer.is_data:
                self._give_known_shapes(shaped, layer, is_damaged=is_damaged)
        if not shaped.is_shaped:
            # What a layer does in place leaves the shape as it is.
            shaped.tops = [blob if blob in shaped.bottoms else None for blob in shaped.tops]
        self._blobs.update(zip(parameter.top, shaped.tops, strict=False))

    def _connect(self, index: int) -> ShapedLayer:
        """Find the bottoms and make the tops, noting those that cannot be."""
        net, parameter = self._result.parameter, self._result.parameter.layer[index]
        for bottom_index, name in enumerate(parameter.bottom):
            if name not in self._blobs:
                self._problems.append(str(unknown_bottom(net, index, bottom_index, list(self._blobs))))
        tops: list[Blob | None] = []
        for top_index, name in enumerate(parameter.top):
            in_place = top_index < len(parameter.bottom) and parameter.bottom[top_index] == name
            if not in_place and (name in self._blobs or name in parameter.top[:top_index]):
                makers = [layer.name for layer in net.layer[: index + 1] if name in layer.top]
                self._problems.append(
                    f"layer '{parameter.name}' ({parameter.type}): top[{top_index}] '{name}' is already made by layer "
                    f"'{makers[0]}'; a blob has one maker"
                )
            tops.append(self._blobs.get(name) if in_place else Blob((0,), self._context.dtype))
        return ShapedLayer(parameter, None, [self._blobs.get(name) for name in parameter.bottom], tops)

    def _create(self, shaped: ShapedLayer, damage: str | None) -> Layer | None:
        """Make the layer and check what does not need shapes; None where something is wrong."""
        parameter = shaped.parameter
        layer: Layer | None = None
        try:
            layer = create_layer(parameter, self._context)
            if layer.auto_top_blobs:
                missing_count = layer.top_range[0] - len(shaped.tops)
                shaped.tops += [Blob((0,), self._context.dtype) for _ in range(missing_count)]
            layer.check_blob_counts(len(shaped.bottoms), len(shaped.tops))
            check_propagate_down(parameter, layer)
            for index, name in enumerate(parameter.top):
                if layer.is_loss and name in parameter.bottom:
                    raise layer.error(
                        f"top[{index}] '{name}' is also a bottom, but a loss cannot be computed in place; rename the top"
                    )
        except NetError as error:
            if damage is None or not self._follows(parameter, layer, damage):
                self._problems.append(str(error))
            return None
        shaped.layer = layer
        return layer

    @staticmethod
    def _follows(parameter: LayerParameter, layer: Layer | None, damage: str) -> bool:
        """Whether an error of a layer may follow from its fields that could not be read."""
        if layer is None:  # only an unknown type has nothing to do with the other fields
            return not parameter.type or parameter.type in LAYERS
        return says_wires(damage)

    def _set_up(self, shaped: ShapedLayer, layer: Layer) -> None:
        bottoms = [blob for blob in shaped.bottoms if blob is not None]
        tops = [blob for blob in shaped.tops if blob is not None]
        try:
            layer.set_up(bottoms, tops)
            shaped.is_shaped = True
            self._enter_parameters(layer)
        except NetError as error:
            self._problems.append(str(layer.named(error)))
        except (ParatrainError, OSError) as error:  # the data cannot be read
            text = str(error)
            self._problems.append(text if text.startswith("layer ") else str(layer.error(text)))
        finally:
            layer.close()

    def _give_known_shapes(self, shaped: ShapedLayer, layer: Layer, *, is_damaged: bool) -> None:
        """Shape the tops of a data layer as they are given, or as the prototxt tells where the data is not there."""
        tops = [blob for blob in shaped.tops if blob is not None]
        if shaped.is_shaped and not self._given.keys() & set(shaped.parameter.top):
            return
        shapes = known_shapes(shaped.parameter, self._given)
        if shapes is None and shaped.is_shaped:
            shapes = [self._given.get(name, blob.shape) for name, blob in zip(shaped.parameter.top, tops, strict=False)]
        if shapes is None:
            if not is_damaged:
                example = f"--input-shape {shaped.parameter.top[0]}=64,3,224,224"
                self._problems.append(
                    str(layer.error(f"what it makes has no known shape without its data; give it, such as {example}"))
                )
            return
        try:
            for blob, shape in zip(tops, shapes, strict=True):
                blob.reshape(*shape)
        except NetError as error:
            self._problems.append(str(layer.named(error)))
            shaped.is_shaped = False
            return
        self._result.replaced[layer.name] = shapes
        shaped.is_shaped = True

    def _enter_parameters(self, layer: Layer) -> None:
        specs = list(layer.parameter.param)
        if len(specs) > len(layer.blobs):
            self._problems.append(
                str(
                    layer.error(
                        f"'param' is given {len(specs)} times; the layer has {len(layer.blobs)} parameter blobs"
                    )
                )
            )
        specs += [ParamSpec() for _ in range(len(layer.blobs) - len(specs))]
        for index, spec in enumerate(specs[: len(layer.blobs)]):
            try:
                self._result.parameters.append(layer, index, spec)
            except NetError as error:
                self._problems.append(str(layer.named(error)))


def top_names(shaped: ShapedLayer) -> list[str]:
    """The names of the tops, those that the prototxt leaves out included."""
    given = list(shaped.parameter.top)
    return given + [AUTOMATIC] * (len(shaped.tops) - len(given))
