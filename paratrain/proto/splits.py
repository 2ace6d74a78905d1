"""Split layers: a blob that is used more than once is handed out in copies, so that backward can add up their gradients."""

from __future__ import annotations

from collections import Counter

from paratrain.errors import NetError
from paratrain.proto.caffe_pb2 import LayerParameter, NetParameter
from paratrain.registry import nearest

__all__ = ["insert_splits", "unknown_bottom"]

# Where a version of a blob is made: (index of the layer, index among its tops). A layer that works in place makes a new one.
Source = tuple[int, int]


def insert_splits(net: NetParameter) -> NetParameter:
    """Return a copy of ``net`` in which every blob is used at most once.

    A blob ``data``, top i of layer ``L``, with k > 1 uses goes through a layer ``data_L_i_split`` of type Split with the tops
    ``data_L_i_split_0`` to ``_(k-1)``, in the order of the users. A loss weight counts as a use, the first, and moves to the
    split's first top. Raises NetError for a bottom that no layer above makes.
    """
    bottom_sources, use_counts, loss_weights = _uses(net)
    result = NetParameter()
    result.CopyFrom(net)
    del result.layer[:]
    # A loss weight is the first use of its blob.
    next_copy = Counter({source: 1 for source, weight in loss_weights.items() if weight != 0})
    for layer_index, layer in enumerate(net.layer):
        copied = result.layer.add()
        copied.CopyFrom(layer)
        for bottom_index, blob in enumerate(layer.bottom):
            source = bottom_sources[layer_index, bottom_index]
            if use_counts[source] > 1:
                split = _split_name(net.layer[source[0]].name, blob, source[1])
                copied.bottom[bottom_index] = f"{split}_{next_copy[source]}"
                next_copy[source] += 1
        for top_index in range(len(layer.top)):
            source = (layer_index, top_index)
            if use_counts[source] <= 1:
                continue
            weight = loss_weights.get(source, 0.0)
            if weight != 0:
                # Zero, not missing: a loss layer takes a missing weight for 1 and the loss would count twice.
                copied.loss_weight[top_index] = 0
            _add_split(result, layer, top_index, use_counts[source], weight)
    return result


def _uses(net: NetParameter) -> tuple[dict[tuple[int, int], Source], Counter[Source], dict[Source, float]]:
    """Where each bottom (layer, index) comes from, how often each top is used, and the loss weights that are given."""
    newest: dict[str, Source] = {}
    bottom_sources: dict[tuple[int, int], Source] = {}
    use_counts: Counter[Source] = Counter()
    loss_weights: dict[Source, float] = {}
    for layer_index, layer in enumerate(net.layer):
        for bottom_index, blob in enumerate(layer.bottom):
            if blob not in newest:
                raise unknown_bottom(net, layer_index, bottom_index, list(newest))
            bottom_sources[layer_index, bottom_index] = newest[blob]
            use_counts[newest[blob]] += 1
        for top_index, blob in enumerate(layer.top):
            newest[blob] = (layer_index, top_index)
        for top_index, weight in enumerate(layer.loss_weight[: len(layer.top)]):
            loss_weights[layer_index, top_index] = weight
            if weight != 0:
                use_counts[layer_index, top_index] += 1
    return bottom_sources, use_counts, loss_weights


def _split_name(layer: str, blob: str, top_index: int) -> str:
    return f"{blob}_{layer}_{top_index}_split"


def _add_split(net: NetParameter, layer: LayerParameter, top_index: int, copy_count: int, loss_weight: float) -> None:
    blob = layer.top[top_index]
    name = _split_name(layer.name, blob, top_index)
    split = net.layer.add(name=name, type="Split", bottom=[blob])
    split.top.extend(f"{name}_{copy}" for copy in range(copy_count))
    if loss_weight != 0:
        split.loss_weight.extend([loss_weight] + [0.0] * (copy_count - 1))


def unknown_bottom(net: NetParameter, layer_index: int, bottom_index: int, known: list[str]) -> NetError:
    """The error for a bottom that no layer above makes; ``known`` are the blobs that there are."""
    layer = net.layer[layer_index]
    blob = layer.bottom[bottom_index]
    makers = [later.name for later in net.layer[layer_index:] if blob in later.top]
    close = nearest(blob, known)
    if makers:
        hint = f"layer '{makers[0]}' makes it, but comes later; put it before '{layer.name}'"
    elif close:
        hint = f"did you mean {' or '.join(repr(name) for name in close)}?"
    elif known:
        hint = f"the blobs made above it are {', '.join(known[-10:])}"
    else:
        hint = "there is no layer above it"
    return NetError(
        f"layer '{layer.name}' ({layer.type}): bottom {bottom_index}, '{blob}', is made by no layer above it; {hint}"
    )
