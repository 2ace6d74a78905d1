"""Which layers a net has in a given state: the include and exclude rules."""

from __future__ import annotations

from collections.abc import Callable

from paratrain.errors import NetError
from paratrain.proto.caffe_pb2 import LayerParameter, NetParameter, NetState, NetStateRule

__all__ = ["filter_net"]


def filter_net(net: NetParameter, state: NetState, report: Callable[[str], None] | None = None) -> NetParameter:
    """Return a copy of ``net`` with the layers that belong to ``state``.

    A layer with include rules stays if the state meets one of them; one with exclude rules stays if it meets none; one without
    rules stays. ``report`` is called with a line for each rule that is not met, worded as in Caffe's log. Raises NetError for a
    layer that has both kinds of rules.
    """
    filtered = NetParameter()
    filtered.CopyFrom(net)
    del filtered.layer[:]
    for layer in net.layer:
        if _is_included(layer, state, report):
            filtered.layer.add().CopyFrom(layer)
    return filtered


def _is_included(layer: LayerParameter, state: NetState, report: Callable[[str], None] | None) -> bool:
    if layer.include and layer.exclude:
        raise NetError(
            f"layer '{layer.name}' ({layer.type}) has include rules and exclude rules; give it one kind, not both"
        )

    def meets(rule: NetStateRule) -> bool:
        reason = _unmet(rule, state)
        if reason is not None and report is not None:
            report(f"{reason} specified by a rule in layer {layer.name}")
        return reason is None

    if layer.include:
        return any(meets(rule) for rule in layer.include)
    return not any(meets(rule) for rule in layer.exclude)


def _unmet(rule: NetStateRule, state: NetState) -> str | None:
    """The first part of the rule that the state does not meet, in words; None if it meets all."""
    if rule.HasField("phase") and rule.phase != state.phase:
        return f"The NetState phase ({state.phase}) differed from the phase ({rule.phase})"
    if rule.HasField("min_level") and state.level < rule.min_level:
        return f"The NetState level ({state.level}) is below the min_level ({rule.min_level})"
    if rule.HasField("max_level") and state.level > rule.max_level:
        return f"The NetState level ({state.level}) is above the max_level ({rule.max_level})"
    for stage in rule.stage:
        if stage not in state.stage:
            return f"The NetState did not contain stage '{stage}'"
    for stage in rule.not_stage:
        if stage in state.stage:
            return f"The NetState contained a not_stage '{stage}'"
    return None
