"""Checking one network: every layer of each phase, and whether the net as a whole can be built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from paratrain.backends import create_backend
from paratrain.check.damage import Damage, layer_keys
from paratrain.check.data_shapes import Shape
from paratrain.check.figures import Memory, memory
from paratrain.check.shapes import ShapedNet, shape_net
from paratrain.errors import NetError
from paratrain.layers.base import LayerContext
from paratrain.layers.fields import misplaced_fields
from paratrain.net import Net
from paratrain.net.limits import check_layer_count
from paratrain.proto import TRAIN, NetParameter, NetState, Phase, filter_net, insert_splits

__all__ = ["NetReport", "check_net"]


@dataclass
class NetReport:
    """What was found out about the net of one state."""

    title: str
    phase: Phase
    shaped: ShapedNet
    memory: Memory
    problems: list[str]


def check_net(
    parameter: NetParameter,
    state: NetState,
    title: str,
    *,
    given: Mapping[str, Shape],
    damaged: Damage | None = None,
    history_count: int = 0,
    allow_python: bool = False,
) -> NetReport:
    """Check the net that ``parameter``, in today's form, is in ``state``. Nothing is raised: ``problems`` has it all."""
    problems: list[str] = []
    context = LayerContext(create_backend(), state.phase, shapes_only=True, allow_python=allow_python)
    try:
        check_layer_count(parameter)
    except NetError as error:
        empty = shape_net(NetParameter(), context, {})
        return NetReport(title, state.phase, empty, _memory(empty, None, state.phase, 0), [str(error)])
    filtered, damaged = _filter(parameter, state, damaged or {}, problems)
    for layer in filtered.layer:
        problems += misplaced_fields(layer)
    try:
        split = insert_splits(filtered)
    except NetError:
        split = filtered  # a bottom that nobody makes, which is reported with all others of its kind
    shaped = shape_net(split, context, given, damaged)
    problems += shaped.problems
    net = _build(filtered, shaped, context, problems) if shaped.is_complete else None
    return NetReport(title, state.phase, shaped, _memory(shaped, net, state.phase, history_count), problems)


def _memory(shaped: ShapedNet, net: Net | None, phase: Phase, history_count: int) -> Memory:
    return memory(shaped, net, trains=phase == TRAIN, history_count=history_count)


def _filter(
    parameter: NetParameter, state: NetState, damaged: Damage, problems: list[str]
) -> tuple[NetParameter, Damage]:
    """The layers of the state, and the damage among them; one with rules that contradict each other counts as part of it."""
    filtered = NetParameter()
    filtered.CopyFrom(parameter)
    del filtered.layer[:]
    said: list[str | None] = []
    for layer, key in zip(parameter.layer, layer_keys(parameter.layer), strict=True):
        try:
            kept = filter_net(NetParameter(layer=[layer]), state).layer
        except NetError as error:
            problems.append(str(error))
            kept = NetParameter(layer=[layer]).layer
            kept[0].ClearField("include")
            kept[0].ClearField("exclude")
        filtered.layer.extend(kept)
        said += [damaged.get(key)] * len(kept)
    pairs = zip(layer_keys(filtered.layer), said, strict=True)
    return filtered, {key: text for key, text in pairs if text is not None}


def _build(filtered: NetParameter, shaped: ShapedNet, context: LayerContext, problems: list[str]) -> Net | None:
    """Build the net as training would, with Input layers in the place of data that is not there."""
    complete = NetParameter()
    complete.CopyFrom(filtered)
    for layer in complete.layer:
        shapes: Sequence[Shape] | None = shaped.replaced.get(layer.name)
        if shapes is not None:
            layer.type = "Input"
            layer.ClearField("input_param")
            for shape in shapes:
                layer.input_param.shape.add(dim=shape)
    try:
        net = Net(complete, context)
        net.close()
    except NetError as error:
        known = " ".join(problems)
        # Most of what stops the net has been found already, in other words perhaps.
        if not shaped.problems or str(error).split(":")[0] not in known:
            problems.append(str(error))
        return None
    return net
