"""A net of another batch, with Input layers in the place of the layers that bring data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from paratrain.backends import create_backend
from paratrain.blob import Blob
from paratrain.errors import ExportError, LayerError, NetError, ParatrainError
from paratrain.layers.base import LAYERS, LayerContext, create_layer
from paratrain.proto import TEST, LayerParameter, NetParameter
from paratrain.registry import nearest

__all__ = ["brings_data", "with_inputs"]

Shape = tuple[int, ...]


def brings_data(layer: LayerParameter) -> bool:
    """Whether what the layer makes comes from outside the net."""
    return layer.type == "Input" or (layer.type in LAYERS and LAYERS.get(layer.type).is_data)


def with_inputs(net: NetParameter, shapes: Mapping[str, Shape], batch: int | None = None) -> NetParameter:
    """Return ``net``, the layers of one state, with an Input layer for each layer that brings data.

    ``shapes`` says of what shape its tops are, by name; where it does not, the layer is set up to see, which needs its
    data. ``batch`` replaces the first axis of all inputs that are as long there as the first input. Raises ExportError for
    tops whose shape cannot be found out, and for names in ``shapes`` of which there is no input.
    """
    result = NetParameter()
    result.CopyFrom(net)
    data_layers = [layer for layer in result.layer if brings_data(layer)]
    names = [name for layer in data_layers for name in layer.top]
    for name in shapes:
        if name not in names:
            near = nearest(name, names, 1)
            raise ExportError(
                f"no data layer and no Input makes a blob '{name}'; "
                + (f"did you mean '{near[0]}'?" if near else f"the inputs are {', '.join(names) or 'none'}")
            )
    found = [(layer, _shapes(layer, shapes)) for layer in data_layers]
    first = next((shape[0] for _, tops in found for shape in tops if shape), None)
    for layer, tops in found:
        kept = LayerParameter(
            name=layer.name, type="Input", top=layer.top, include=layer.include, exclude=layer.exclude
        )
        if layer.HasField("phase"):
            kept.phase = layer.phase
        layer.CopyFrom(kept)
        for shape in tops:
            follows = batch is not None and shape and shape[0] == first
            layer.input_param.shape.add(dim=(batch, *shape[1:]) if follows else shape)
    return result


def _shapes(layer: LayerParameter, given: Mapping[str, Shape]) -> Sequence[Shape]:
    known = [given.get(name) for name in layer.top]
    if all(shape is not None for shape in known):
        return [shape for shape in known if shape is not None]
    example = f"--input-shape {layer.top[0]}=1,3,224,224" if layer.top else "--input-shape"
    try:
        tops = _set_up(layer)
    except (ParatrainError, OSError) as error:
        reason = str(error).removeprefix(f"layer '{layer.name}' ({layer.type}): ")
        raise ExportError(
            f"layer '{layer.name}' ({layer.type}): the shape of what it makes cannot be found out without its data "
            f"({reason}); give it, such as {example}"
        ) from None
    shapes = [given.get(name, blob.shape) for name, blob in zip(layer.top, tops, strict=True)]
    if any(0 in shape for shape in shapes):
        raise ExportError(f"layer '{layer.name}' ({layer.type}): has no shape; give it, such as {example}")
    return shapes


def _set_up(parameter: LayerParameter) -> list[Blob]:
    alone = LayerParameter()
    alone.CopyFrom(parameter)
    alone.phase = TEST
    layer = create_layer(alone, LayerContext(create_backend("numpy"), TEST, shapes_only=True))
    try:
        tops = [Blob((0,)) for _ in alone.top]
        layer.set_up([], tops)
    except NetError as error:
        raise layer.named(error) if isinstance(error, LayerError) else error from None
    finally:
        layer.close()
    return tops
