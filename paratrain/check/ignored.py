"""Fields of forks that a network gives and that paratrain reads without using them."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.message import Message

from paratrain.proto import LayerParameter, NetParameter, fork_of
from paratrain.proto.schema import descriptor_of

__all__ = ["ignored_fields"]

_PRECISION = "paratrain computes in single precision"

# Without these the net computes other numbers than in its fork.
_CHANGING = {
    "dropout_param.random_seed": "what is dropped follows from the solver's random_seed",
    "forward_type": _PRECISION,
    "backward_type": _PRECISION,
    "forward_math": _PRECISION,
    "backward_math": _PRECISION,
    "default_forward_type": _PRECISION,
    "default_backward_type": _PRECISION,
    "default_forward_math": _PRECISION,
    "default_backward_math": _PRECISION,
}

# These choose ways to compute the same.
_HARMLESS = (
    "convolution_param.conv_algos_override",
    "convolution_param.cudnn_convolution_algo_seeker",
    "convolution_param.negative_slope",  # without relu, which is refused; the fork reads it with relu only
    "cudnn_math_override",
    "data_param.cache",  # the operating system keeps in memory what was read, as far as there is room
    "data_param.parser_threads",
    "data_param.threads",
    "debug",
    "default_conv_algos_override",
    "default_cudnn_math_override",
    "eltwise_mem_sharing",
    "multinode",
    "reduce_buckets",
)
_MOST_NAMES = 3


def ignored_fields(net: NetParameter) -> Iterator[str]:
    """Yield a sentence for each field that would change the net's numbers, and one for all those that would not.

    Fields that are given their default do not count.
    """
    for path, reason in _CHANGING.items():
        places = _places(net, path)
        if places:
            yield f"{_described(net, path)} in {_listed(places)} is not used: {reason}. Results differ from the fork's"
    harmless = [_described(net, path) for path in _HARMLESS if _places(net, path)]
    if harmless:
        yield f"not used, and no result depends on it: {', '.join(harmless)}"


def _places(net: NetParameter, path: str) -> list[str]:
    """Where a field is given another value than its default: names of layers, in quotes, or "the net"."""
    if path.split(".")[0] not in descriptor_of(LayerParameter).fields_by_name:
        return ["the net"] if _is_given(net, path) else []
    return [f"'{layer.name}'" for layer in net.layer if _is_given(layer, path)]


def _is_given(message: Message, path: str) -> bool:
    *parents, name = path.split(".")
    for parent in parents:
        if not message.HasField(parent):
            return False
        message = getattr(message, parent)
    if not message.HasField(name):
        return False
    field = descriptor_of(message).fields_by_name[name]
    return field.message_type is not None or getattr(message, name) != field.default_value


def _described(net: NetParameter, path: str) -> str:
    """The path, and the fork that the field is of."""
    *parents, name = path.split(".")
    message: Message = net if path in descriptor_of(net).fields_by_name else LayerParameter()
    for parent in parents:
        message = getattr(message, parent)
    return f"{path} (of {fork_of(descriptor_of(message).fields_by_name[name])})"


def _listed(places: list[str]) -> str:
    more = len(places) - _MOST_NAMES
    return ", ".join(places[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
